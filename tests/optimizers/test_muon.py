"""Muon, NorMuon and AdaMuon against float64 NumPy from their papers, and against what torch and pytorch_optimizer compute."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_matrices_muon as ref
from replay import recorded

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


def walk(tx, start, grads):
    """The parameters after each step."""

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
    start, grads = given()
    path = walk(getattr(gx, name)(LR, weight_decay=WD, **numbers), start, grads)
    for k in SHAPES:
        expected = getattr(ref, name)(grads[k], start[k], LR, weight_decay=WD, **numbers)
        np.testing.assert_allclose(path[k], expected, atol=1e-9, err_msg=k)


GOLDEN = recorded("muon")
TORCH = partial(gx.muon, LR, convention="torch")
# as torch computes in float64, with its rounding to bfloat16 off
EXACT = {
    "muon": partial(TORCH, compute_dtype="float64"),
    "muon_plain": partial(TORCH, beta=0.8, nesterov=False, compute_dtype="float64"),
    "muon_rms": partial(TORCH, consistent_rms=0.2, compute_dtype="float64"),
    "normuon": partial(gx.normuon, LR, b2=0.8, weight_decay=WD),
    "normuon_paper": partial(
        gx.normuon, LR, b2=0.8, weight_decay=WD, nesterov=False, consistent_rms=0.2
    ),
}


def weights(kind, dtype):
    """Arrays under the names that torch gives them, [outputs, inputs]."""
    found = {k: GOLDEN[f"{kind}/{k}"] for k in ("wide", "tall")}
    return {k: {"weight": x.astype(dtype)} for k, x in found.items()}


@pytest.mark.usefixtures("x64", "standard_promotion")
@pytest.mark.parametrize("name", EXACT)
def test_follows_torch_and_pytorch_optimizer(name):
    path = walk(EXACT[name](), weights("start", float), weights("grads", float))
    expected = weights(f"exact/{name}", float)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), path, expected)


def test_follows_torch_in_bfloat16_to_its_rounding():
    """Singular values near 1 move by some percent where products are rounded, torch's as ours."""
    path = walk(TORCH(), weights("start", np.float32), weights("grads", np.float32))
    expected, exact = (weights(f"{k}/muon", np.float32) for k in ("bfloat16", "exact"))
    for leaf in path:
        ours, theirs, full = (x[leaf]["weight"] for x in (path, expected, exact))
        assert 0.01 * LR < np.max(np.abs(theirs - full)) < 0.2 * LR
        assert np.max(np.abs(ours - full)) < 0.2 * LR
        assert np.max(np.abs(ours - theirs)) < 0.2 * LR
