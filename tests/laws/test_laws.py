"""Every registered transformation × every law.

The textbook's transformations keep every law in the default run. Their variants, and the rest of the catalogue, are held there
to the laws that need no compilation, and to all the others in the slow tail.
"""

from functools import cache

import pytest
from instances import TRANSFORMATIONS

import gradxform as gx
from gradxform.testing import LAWS, check_law

TEXTBOOK = {
    f"gradxform.{name}"
    for name in (
        "directions",
        "preconditioners",
        "stepsize",
        "clipping",
        "regularise",
        "optimizers.textbook",
    )
}
CHEAP = {"dtypes", "abstract_init", "value", "tools"}
LOWERED = {"adam", "chain", "ema", "partition"}  # for every platform, in the default run


@cache
def made(name):
    """One instance for all laws, which share what they compile for it."""
    return TRANSFORMATIONS[name].make()


def cases():
    for name in TRANSFORMATIONS:
        home = getattr(getattr(made(name), "_function", None), "__module__", None)
        for law in LAWS:
            every_time = law in CHEAP or (name in vars(gx) and (home in TEXTBOOK or home is None))
            if law == "platforms":
                every_time = name in LOWERED
            yield pytest.param(
                name, law, id=f"{name}-{law}", marks=() if every_time else pytest.mark.slow
            )


@pytest.mark.parametrize(("name", "law"), list(cases()))
def test_law(name, law):
    entry = TRANSFORMATIONS[name]
    check_law(law, made(name), entry.extra, entry.exceptions)
