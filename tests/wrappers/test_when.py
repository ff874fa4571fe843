"""When a transformation runs: conditions, every k-th step, fresh starts, and two gradients per step."""

from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import gradxform as gx

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.array([0.3, -0.7])}


def gradient(params, step=0):
    return jax.tree.map(lambda p: jnp.cos(3 * p + jnp.asarray(step, p.dtype)) + p / 2, params)


def train(tx, params, steps, **extra):
    """All parameters on the way, and the last state."""

    def body(carry, step):
        params, state = carry
        updates, state = tx.update(gradient(params, step), state, params, **extra)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    (_, state), path = jax.lax.scan(body, (params, tx.init(params)), jnp.arange(steps))
    return path, state


def close(got, expected, rtol):
    chex.assert_trees_all_close(got, expected, rtol=rtol, atol=rtol)


def in_float64():
    return jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), PARAMS)


def even(step):
    return step % 2 == 0


def small(step, *, value, **extra):
    return value < 1.0


@pytest.mark.usefixtures("x64", "standard_promotion")
@pytest.mark.parametrize("name", ["conditionally_mask", "conditionally_transform"])
def test_conditions_follow_optax(name):
    both = [
        getattr(library, name)(library.chain(library.clip(0.5), library.adam(0.05)), even)
        for library in (gx, optax)
    ]
    both = [
        library.chain(tx, library.scale(0.5)) for library, tx in zip((gx, optax), both, strict=True)
    ]
    close(*(train(tx, in_float64(), 200)[0] for tx in both), 1e-9)
    for value, runs in ((0.5, True), (2.0, False)):
        states = []
        for library in (gx, optax):
            tx = getattr(library, name)(library.trace(0.9), small, forward_extra_args=True)
            states.append(tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=jnp.float32(value)))
        close(states[0][0], states[1][0], 1e-6)
        assert np.any(states[0][1].inner.slots["v"]["w"]) == runs


def test_every_runs_on_the_gradient_of_its_step():
    tx = gx.every(3, gx.sgd(gx.linear_schedule(1.0, 0.0, 2)))
    state, got = tx.init(PARAMS), []
    for step in range(7):
        updates, state = tx.update(
            {"w": jnp.zeros((2, 3)), "b": jnp.full(2, float(step))}, state, PARAMS
        )
        got.append(float(updates["b"][0]))
    np.testing.assert_allclose(
        got, [0, 0, 0, -1.5, 0, 0, 0]
    )  # rate 1 at step 0, 1/2 at step 3, 0 at step 6
    assert int(gx.get(state, "scale_by_learning_rate/step")) == 3


def test_a_skipped_step_is_not_computed():
    calls = []

    def update(updates, state, params=None):
        jax.debug.callback(lambda: calls.append(1))
        return updates, state

    tx = gx.every(4, (lambda params: (), update))
    state, step = tx.init(PARAMS), jax.jit(tx.update)
    for _ in range(8):
        _, state = step(PARAMS, state, PARAMS)
    jax.effects_barrier()
    assert len(calls) == 2


@pytest.mark.usefixtures("x64", "standard_promotion")
@pytest.mark.parametrize("k", [1, 3])
def test_apply_every_follows_optax(k):
    mine, theirs = (
        library.chain(library.adam(0.05), library.apply_every(k)) for library in (gx, optax)
    )
    close(train(mine, in_float64(), 200)[0], train(theirs, in_float64(), 200)[0], 1e-9)


def test_apply_every_is_its_sums():
    tx = gx.apply_every(3)
    state, got = tx.init(jnp.zeros(())), []
    for u in np.arange(1.0, 8.0, dtype=np.float32):
        updates, state = tx.update(jnp.asarray(u), state)
        got.append(float(updates))
    assert got == [0, 0, 6, 0, 0, 15, 0]


def test_restart_begins_again():
    tx = gx.restart(gx.adam(gx.linear_schedule(0.1, 0.0, 10)), 4)
    path, state = train(tx, PARAMS, 8)
    params = PARAMS
    for begin in (0, 4):
        inner = gx.adam(gx.linear_schedule(0.1, 0.0, 10))
        inner_state = inner.init(params)
        for step in range(begin, begin + 4):
            updates, inner_state = inner.update(gradient(params, step), inner_state, params)
            params = gx.apply_updates(params, updates)
    close(jax.tree.map(lambda x: x[-1], path), params, 1e-6)
    close(state.inner, tx.init(PARAMS).inner, 0)
    with pytest.raises(ValueError, match="needs the parameters"):
        tx.update(PARAMS, tx.init(PARAMS))


def adversaries(library, rho):
    if library is gx:
        return gx.chain(normalized, gx.sgd(rho))
    return optax.chain(contrib.normalize(), optax.sgd(rho))


def _normalize(updates, params):
    norm = optax.tree.norm(updates)
    return jax.tree.map(lambda u: u / norm, updates)


normalized = gx.stateless(_normalize)


def sharpness_aware_descent(start, steps, rho, lr, momentum):
    """The reference, algorithm 1 of the paper with heavy ball outside, in NumPy."""
    p = {name: np.asarray(x, np.float64) for name, x in start.items()}
    v = {name: np.zeros_like(x) for name, x in p.items()}
    path = []
    for _ in range(steps):
        g = {name: np.cos(3 * x) + x / 2 for name, x in p.items()}
        norm = np.sqrt(sum(np.sum(x * x) for x in g.values()))
        for name in p:  # noqa: PLC0206
            up = p[name] + rho * g[name] / norm
            v[name] = momentum * v[name] + np.cos(3 * up) + up / 2
            p[name] = p[name] - lr * v[name]
        path.append(dict(p))
    return {name: np.stack([each[name] for each in path]) for name in p}


@pytest.mark.usefixtures("x64", "standard_promotion")
def test_sam_is_algorithm_1():
    expected = sharpness_aware_descent(PARAMS, 50, 0.1, 0.05, 0.9)

    class still:  # the same gradient at every step, so that both gradients of a step see one loss
        init, update = gx.sgd(0.05, 0.9)

    def run(tx, calls, **extra):
        params, state, path = in_float64(), tx.init(in_float64()), []
        for _ in range(50):
            for _ in range(calls):
                updates, state = tx.update(gradient(params), state, params, **extra)
                params = gx.apply_updates(params, updates)
            path.append(params)
        return jax.tree.map(lambda *x: np.stack(x), *path)

    close(run(gx.sam(gx.sgd(0.05, 0.9), adversaries(gx, 0.1)), 2), expected, 1e-10)
    opaque = gx.sam(still, adversaries(gx, 0.1), opaque_mode=True)
    close(run(opaque, 1, grad_fn=lambda params, i: gradient(params)), expected, 1e-10)

    params, tx = in_float64(), gx.sgd(0.05, 0.9)
    state = tx.init(params)
    for i in range(50):
        updates, state = tx.update(gx.sam_gradient(gradient, 0.1)(params), state, params)
        params = gx.apply_updates(params, updates)
        close(params, jax.tree.map(lambda x, i=i: x[i], expected), 1e-10)


@pytest.mark.usefixtures("x64", "standard_promotion")
@pytest.mark.parametrize("reset_state", [True, False])
@pytest.mark.parametrize("sync_period", [2, 3])
def test_sam_follows_optax(sync_period, reset_state):
    def make(library):
        outer = (gx if library is gx else optax).adamw(0.05, weight_decay=0.1)
        inner = gx.sgd(0.1, 0.5) if library is gx else optax.sgd(0.1, 0.5)
        return (gx.sam if library is gx else contrib.sam)(outer, inner, sync_period, reset_state)

    mine = train(make(gx), in_float64(), 200)[0]
    close(mine, train(make(optax), in_float64(), 200)[0], 1e-9)
    opaque = [
        f(lib.sgd(0.05, 0.9), adversaries(lib, 0.1), sync_period, reset_state, True)
        for f, lib in ((gx.sam, gx), (contrib.sam, optax))
    ]
    close(
        *(
            train(tx, in_float64(), 200, grad_fn=lambda params, i: gradient(params, i))[0]
            for tx in opaque
        ),
        1e-9,
    )


@pytest.mark.parametrize("period", [1, 2, 3])
def test_sam_ascends_as_often_where_its_period_is_an_array(period):
    def step(k):
        tx = gx.sam(gx.sgd(0.1), gx.sgd(0.2), k, opaque_mode=True)
        extra = {"grad_fn": lambda params, i: gradient(params, i)}
        return tx.update(gradient(PARAMS), tx.init(PARAMS), PARAMS, **extra)[0]

    close(jax.jit(step)(jnp.int32(period)), step(period), 1e-6)


def test_sam_says_what_it_needs():
    tx = gx.sam(gx.sgd(0.1), gx.sgd(0.1), opaque_mode=True)
    with pytest.raises(ValueError, match="needs the keyword argument grad_fn="):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    tx = gx.sam(gx.sgd(0.1), gx.sgd(0.1))
    with pytest.raises(ValueError, match="needs the parameters"):
        tx.update(PARAMS, tx.init(PARAMS))


def test_sam_gradient_is_safe_at_zero():
    zero = lambda p: jax.tree.map(lambda x: 0 * x, p)  # noqa: E731
    close(gx.sam_gradient(zero, 0.1)(PARAMS), zero(PARAMS), 0)
    with_batch = gx.sam_gradient(lambda p, x: p * x, 0.0)
    np.testing.assert_allclose(with_batch(jnp.ones(2), jnp.float32(3.0)), 3.0)


INNER = gx.chain(gx.ema(0.9, debias=False), gx.reduce_on_plateau(0.5, 1))


@cache
def unwrapped():
    return train(
        gx.chain(INNER, gx.scale_by_rms(0.9), gx.scale(-0.1)), PARAMS, 6, value=jnp.float32(1.0)
    )[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda inner: gx.accumulate(inner, 1),
        gx.skip_nonfinite,
        gx.skip_spikes,
        lambda inner: gx.every(1, inner),
        lambda inner: gx.conditionally_mask(inner, lambda step: step >= 0),
        lambda inner: gx.restart(inner, 1000),
        lambda inner: gx.masked(inner, "**"),
        lambda inner: gx.partition({"all": inner}, "all"),
        gx.params_ema,
        lambda inner: gx.lawa(inner, 2),
    ],
)
def test_a_wrapper_that_always_runs_is_what_it_wraps(make):
    """The inner update to the bit, a direction if the inner one is, and extra arguments handed on."""
    inner = INNER
    tx = gx.chain(make(inner), gx.scale_by_rms(0.9), gx.scale(-0.1))
    assert make(inner).direction
    assert not make(gx.scale(1.0)).direction
    value = jnp.float32(1.0)
    close(train(tx, PARAMS, 6, value=value)[0], unwrapped(), 1e-7)
    with pytest.raises(TypeError, match="value="):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


@pytest.mark.usefixtures("standard_promotion")
def test_an_optax_pair_can_be_wrapped():
    theirs = optax.adam(0.1)
    expected = train(theirs, PARAMS, 4)[0]
    for tx in (
        gx.accumulate(theirs, 1),
        gx.skip_nonfinite(theirs),
        gx.every(1, theirs),
        gx.restart(theirs, 100),
        gx.masked(theirs, "**"),
        gx.params_ema(theirs),
    ):
        close(train(tx, PARAMS, 4)[0], expected, 1e-6)
    with pytest.raises(TypeError, match="inner must be a transformation or an"):
        gx.skip_nonfinite(3.0)
