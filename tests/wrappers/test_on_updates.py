"""A direction before a whole optimizer: a warning, and the wrapper that gives Optax's step."""

import warnings

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradxform as gx

pytestmark = pytest.mark.usefixtures("standard_promotion")
WARNS = "measures the gradient that entered .* write on_updates"

# here with `on`, Optax's with the identity in its place
PAIRS = {
    "ema, adam": lambda o, on: o.chain(o.ema(0.9), on(o.adam(0.1))),
    "trace, adam": lambda o, on: o.chain(o.trace(0.9), on(o.adam(0.1))),
    "sgd, rms": lambda o, on: o.chain(o.sgd(0.1, momentum=0.9), on(o.scale_by_rms(0.9))),
    "adam, rms": lambda o, on: o.chain(o.scale_by_adam(), on(o.scale_by_rms()), o.scale(-0.1)),
    "named": lambda o, on: o.named_chain(("a", o.ema(0.9)), ("b", on(o.adam(0.1)))),
    "masked": lambda o, on: o.chain(o.ema(0.9), on(o.masked(o.scale_by_adam(), True))),
    "accumulated": lambda o, on: multi(o, o.chain(o.ema(0.9), on(o.adam(0.1)))),
}


def multi(o, tx):
    tx = o.MultiSteps(tx, 1)
    return tx if o is gx else tx.gradient_transformation()


def updates(tx):
    p = jnp.float32(1.0)
    state, out = tx.init(p), []
    for g in (1.0, -0.5, 2.0):
        u, state = tx.update(jnp.float32(g), state, p)
        out.append(float(u))
    return out


@pytest.mark.parametrize("name", PAIRS)
def test_it_gives_optax_s_steps(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mine = PAIRS[name](gx, gx.on_updates)
    np.testing.assert_allclose(updates(mine), updates(PAIRS[name](optax, lambda x: x)), rtol=2e-5)


@pytest.mark.parametrize("name", PAIRS)
def test_without_it_one_warning_names_it(name):
    with pytest.warns(UserWarning, match=WARNS) as seen:
        tx = PAIRS[name](gx, lambda x: x)
    assert len(seen) == 1
    assert seen[0].filename == __file__ or name == "named"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        str(tx)  # printing builds nothing that warns


def test_the_grid_and_what_measures_nothing_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gx.chain(gx.ema(0.9), gx.scale_by_rms(), gx.scale_by_learning_rate(0.1))
        gx.chain(gx.ema(0.9), gx.sgd(0.1, momentum=0.9))
        gx.chain(gx.clip_by_global_norm(1.0), gx.adam(0.1), gx.add_decayed_weights(0.1))
        gx.chain(gx.ema(0.9), gx.MultiSteps(gx.adam(0.1), 2))


def test_nothing_inside_changes_what_later_parts_measure():
    plain = gx.chain(gx.scale_by_rms(0.9), gx.scale(-0.1))
    tx = gx.chain(gx.on_updates(gx.trace(0.0)), plain)
    assert not tx.items["on_updates"].direction
    np.testing.assert_allclose(updates(tx), updates(plain), rtol=1e-6)


def test_its_state_is_that_of_the_inner_one():
    tx = gx.on_updates(gx.adam(0.1))
    state = tx.init(jnp.ones(2))
    assert state.keys() == gx.adam(0.1).init(jnp.ones(2)).keys()
    assert "on_updates" in gx.describe(tx, jnp.ones(2)).rows[0].rules
    assert r"\textbf{adam}" in tx._repr_latex_()
