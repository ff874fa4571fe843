"""Every example in a docstring runs, and gives what it says."""

import doctest
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradxform as gx

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = [
    "gradxform",
    *(m.name for m in pkgutil.walk_packages(gx.__path__, "gradxform.") if "__main__" not in m.name),
]


def examples():
    """One test for each docstring with an example; the names are those a user has imported."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    names = {"gx": gx, "jax": jax, "jnp": jnp, "np": np}
    for name in MODULES:
        found = finder.find(importlib.import_module(name), name, globs=names)
        yield from (test for test in found if test.examples)


EXAMPLES = list(examples())

# The entry points: what a reader looks up first has an example.
SHOWN = {
    *(
        "MultiSteps",
        "adam",
        "batches",
        "by_path",
        "chain",
        "describe",
        "eval_params",
        "fit",
        "freeze",
        "get",
        "masked",
    ),
    *("multi_transform", "set", "stack", "sweep", "tunable", "warmup"),
}


def test_the_entry_points_have_examples():
    assert {test.name.rpartition(".")[2] for test in EXAMPLES} >= SHOWN


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name)
def test_the_example_runs(test):
    out: list[str] = []
    with jax.numpy_dtype_promotion("standard"):
        result = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=out.append)
    assert result.failed == 0, "".join(out)
