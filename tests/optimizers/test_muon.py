"""Muon, NorMuon and AdaMuon against float64 NumPy from their papers."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_matrices_muon as ref

import gradxform as gx

STEPS, SHAPES = 12, {"wide/kernel": (3, 5), "tall/kernel": (6, 3)}
LR, WD = 0.05, 0.1


@cache
def given():
    """The start and the gradients of a wide and a tall matrix, of the sizes that Muon meets."""
    draw = np.random.default_rng(0)
    start = {k: draw.normal(size=shape) for k, shape in SHAPES.items()}
    grads = {k: draw.normal(size=(STEPS, *shape)) for k, shape in SHAPES.items()}
    return start, grads


def walk(tx):
    """The parameters after each step, in float64."""
    start, grads = given()

    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        params = gx.apply_updates(params, updates)
        return (params, state), params

    start = jax.tree.map(jnp.asarray, start)
    return jax.jit(lambda start: jax.lax.scan(step, (start, tx.init(start)), grads)[1])(start)


CASES = {
    "muon": {},
    "muon/plain": {"nesterov": False, "consistent_rms": 0.2},
    "muon/adaptive": {"adaptive": True, "beta": 0.8},
    "muon/aol": {"preconditioning": "aol"},
    "muon/schatten": {"preconditioning": "schatten"},
    "muon/spectral": {"preconditioning": "spectral"},
    "normuon": {"b2": 0.8, "eps": 1e-3},
    "normuon/paper": {"nesterov": False, "consistent_rms": 0.2},
    "adamuon": {"eps": 1e-3},
    "adamuon/width": {"nesterov": False, "consistent_rms": None, "b2": 0.8},
}


@pytest.mark.usefixtures("x64", "standard_promotion")
@pytest.mark.parametrize("case", CASES)
def test_every_matrix_follows_the_paper(case):
    name, numbers = case.partition("/")[0], CASES[case]
    path = walk(getattr(gx, name)(LR, weight_decay=WD, **numbers))
    start, grads = given()
    for k in SHAPES:
        expected = getattr(ref, name)(grads[k], start[k], LR, weight_decay=WD, **numbers)
        np.testing.assert_allclose(path[k], expected, atol=1e-9, err_msg=k)


def test_torch_s_muon_follows_its_equations_to_the_precision_of_bfloat16():
    """In float32 they would agree to 1e-5; see the golden file for what torch itself computes."""
    path = walk(gx.muon(LR, convention="torch", compute_dtype="float32"))
    start, grads = given()
    for k in SHAPES:
        expected = ref.muon(grads[k], start[k], LR, eps=1e-7, weight_decay=0.1, convention="torch")
        np.testing.assert_allclose(path[k], expected, atol=1e-4, err_msg=k)
