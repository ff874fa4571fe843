"""A run of Optax's Muon, and of torch's, goes on here."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization
from optax import contrib
from replay import recorded

import gradxform as gx

BEFORE, AFTER = 3, 4
FALL = (gx.exponential_decay(0.1, 5, 0.5), optax.exponential_decay(0.1, 5, 0.5))


def run(tx, grads, state, params):
    """The parameters after these gradients, and the state."""

    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, state), grads)[0]


@pytest.mark.usefixtures("x64", "standard_promotion")
def test_optax_s_goes_on():
    draw = np.random.default_rng(0)
    shapes = {"kernel": (4, 3), "bias": (3,)}
    grads = {k: jnp.asarray(draw.normal(size=(BEFORE + AFTER, *s))) for k, s in shapes.items()}
    first, then = (
        jax.tree.map(lambda g, s=s: g[s], grads) for s in (np.s_[:BEFORE], np.s_[BEFORE:])
    )
    params = jax.tree.map(lambda g: g[0], grads)
    theirs = contrib.muon(FALL[1], weight_decay=0.1)
    ours = gx.contrib.muon(FALL[0], weight_decay=0.1)
    there, saved = jax.jit(partial(run, theirs, first))(theirs.init(params), params)
    plain = serialization.msgpack_restore(
        serialization.msgpack_serialize(serialization.to_state_dict(saved))
    )
    expected, _ = jax.jit(partial(run, theirs, then))(saved, there)
    walk = jax.jit(partial(run, ours, then))
    for given in (saved, plain):
        state = gx.import_optax_state(ours, given, there)
        assert jax.tree.map(jax.typeof, state) == jax.tree.map(jax.typeof, ours.init(there))
        got, _ = walk(state, there)
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), got, expected)


GOLDEN = recorded("muon")
META = json.loads(str(GOLDEN["meta"]))
NAMES = ["wide/weight", "tall/weight"]


def weights(kind, step):
    return {k: {"weight": jnp.asarray(GOLDEN[f"{kind}/{k}"][step])} for k in ("wide", "tall")}


def saved(case, **more):
    state = {i: {"momentum_buffer": GOLDEN[f"state/{case}/{i}"]} for i in range(2)}
    return {"state": state, "param_groups": [META["param_groups"][case][0] | more]}


@pytest.mark.usefixtures("x64", "standard_promotion")
def test_torch_s_goes_on():
    before = META["before"]
    tx = gx.muon(0.05, convention="torch", compute_dtype="float64")
    params = weights("exact/muon", before - 1)
    state = gx.import_torch_state(tx, saved("muon"), params, NAMES, step=before)
    assert state["muon"]["ema"].step == before
    grads = weights("grads", np.s_[before:])
    got, _ = jax.jit(partial(run, tx))(grads, state, params)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), got, weights("exact/muon", -1))


def test_what_does_not_fit_is_named():
    params = weights("exact/muon", 0)
    with pytest.raises(ValueError, match="gives adam/scale_by_rms its slots"):
        gx.import_torch_state(gx.adam(0.1), saved("muon"), params, NAMES)
    several = params | {"norm": {"bias": jnp.ones(3)}}
    with pytest.raises(ValueError, match="has 2 parameters, params 3"):
        gx.import_torch_state(gx.muon(0.1, convention="torch"), saved("muon"), several)
