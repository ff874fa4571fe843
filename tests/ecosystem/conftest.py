"""Other libraries train with gradxform where they trained with Optax."""

import chex
import jax
import numpy as np
import optax
import pytest

import gradxform as gx


@pytest.fixture(autouse=True)
def as_users_have_it():
    """JAX's ordinary promotion: other libraries are not written for strict promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def beside():
    """Run a program under Optax and under gradxform; its numbers must agree, and have moved.

    The program gets the module that stands for Optax, and returns a tree of numbers, of which the
    first entry is where training began and the second where it ended.
    """

    def run(program, rtol=1e-4, atol=1e-5):
        before, after, *rest = theirs = program(optax)
        ours = program(gx)
        moved = jax.tree.map(lambda a, b: np.max(np.abs(a - b), initial=0.0), before, after)
        assert max(jax.tree.leaves(moved)) > 100 * atol, "the program trains"
        chex.assert_tree_all_finite((after, rest))
        chex.assert_trees_all_close(ours, theirs, rtol=rtol, atol=atol)

    return run
