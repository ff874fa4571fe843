"""The ends of intervals that Optax takes: its result, or another one that is finite and said here."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradxform as gx

pytestmark = pytest.mark.usefixtures("standard_promotion")
PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)}
INF = float("inf")


def steps(tx):
    state, out = tx.init(PARAMS), []
    with jax.disable_jit():  # compiles nothing
        for k in range(2):
            gradients = jax.tree.map(lambda x, k=k: x * (1 - 0.5 * k), PARAMS)
            updates, state = tx.update(gradients, state, PARAMS)
            out.append(np.asarray(updates["w"]))
    return np.array(out)


SAME = {
    "clip": lambda o: o.clip(INF),
    "clip_by_global_norm": lambda o: o.clip_by_global_norm(jnp.inf),
    "clip_by_block_rms": lambda o: o.clip_by_block_rms(INF),
    "adaptive_grad_clip": lambda o: o.adaptive_grad_clip(INF),
    "adafactor": lambda o: o.scale_by_factored_rms(decay_rate=1.0),
    "sgd": lambda o: o.sgd(0.1, momentum=1.0),
    "trace": lambda o: o.trace(1.0, nesterov=True),
    "ema": lambda o: o.ema(1.0, debias=False),
    "scale_by_rms": lambda o: o.scale_by_rms(1.0),
    "lion": lambda o: o.lion(0.1, b2=1.0),
}


@pytest.mark.parametrize("name", SAME)
def test_what_optax_takes_gives_what_optax_gives(name):
    np.testing.assert_allclose(steps(SAME[name](gx)), steps(SAME[name](optax)), rtol=1e-5)


def test_no_clipping_in_adafactor():
    made = [
        o.adafactor(0.1, clipping_threshold=x) for o, x in ((gx, INF), (gx, None), (optax, None))
    ]
    mine, without, theirs = map(steps, made)
    np.testing.assert_allclose(mine, without)
    np.testing.assert_allclose(mine, theirs, rtol=1e-5)


@pytest.mark.parametrize("b2", [1.0, jnp.float32(1.0)])
def test_a_corrected_average_that_keeps_everything_stays_zero(b2):
    """Optax divides 0 by 0 there: with b2 = 1 Adam's denominator is ε alone."""
    m = steps(gx.ema(0.9))
    np.testing.assert_allclose(steps(gx.adam(0.1, b2=b2, eps=1.0)), -0.1 * m, rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(steps(gx.ema(b2)), 0 * m)
    assert np.isnan(steps(optax.ema(1.0))).all()


def test_a_negative_rate_says_how_to_climb():
    words = r"learning_rate must lie in \[0, inf\); got -0.1; to climb, put scale\(-1.0\) before it"
    for make in (gx.adam, gx.sgd, gx.scale_by_learning_rate):
        with pytest.raises(ValueError, match=words):
            make(-0.1)
    state = gx.tunable(gx.adam(0.1)).init(PARAMS)
    with pytest.raises(ValueError, match=words):
        state.hyperparams["learning_rate"] = -0.1
    up = gx.chain(gx.scale(-1.0), gx.sgd(0.1))
    np.testing.assert_allclose(steps(up), steps(optax.sgd(-0.1)))
    with pytest.raises(ValueError, match=r"got nan$"):
        gx.sgd(float("nan"))
