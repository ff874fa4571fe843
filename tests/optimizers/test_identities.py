"""Identities between compositions: which chains are the same method, to the bit or to 1e-12, and which are not."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from thinned import one_in

import gradxform as gx

STEPS, LR, B1, B2, EPS = 20, 0.03, 0.85, 0.97, 1e-3
close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)


def _data():
    rng = np.random.default_rng(0)
    start = {"w": rng.standard_normal((3, 2)), "b": rng.standard_normal(2)}
    scale = {"w": np.array([[1e-2, 1.0], [30.0, 0.1], [0.0, 3.0]]), "b": np.array([1.0, 1e-3])}
    grads = {k: rng.standard_normal((STEPS, *x.shape)) * scale[k] for k, x in start.items()}
    return start, grads


START, GRADS = _data()


def steps_of(tx, start, grads):
    """The update at each step, and the last state. In one program, so that equal chains are equal to the bit."""

    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        return (gx.apply_updates(params, updates), state), updates

    (_, state), updates = jax.lax.scan(step, (start, tx.init(start)), grads)
    return updates, state


def run(tx, dtype=np.float64):
    start, grads = jax.tree.map(lambda x: x.astype(dtype), (START, GRADS))
    return jax.jit(partial(steps_of, tx))(start, grads)


def same(one, other):
    chex.assert_trees_all_close(run(one)[0], run(other)[0], rtol=1e-12, atol=1e-12)


def same_bits(one, other, dtype=np.float64):
    chex.assert_trees_all_equal(run(one, dtype)[0], run(other, dtype)[0])


def different(one, other, gap=1e-3):
    gaps = jax.tree.leaves(
        jax.tree.map(lambda a, b: np.max(np.abs(a - b)), run(one)[0], run(other)[0])
    )
    assert max(gaps) > gap


def adam_equations(g, *, corrected, inside):
    """Kingma and Ba (2015), algorithm 1, for one leaf: the step at each t."""
    m = v = np.zeros_like(g[0])
    steps = []
    for t, gt in enumerate(g, 1):
        m = B1 * m + (1 - B1) * gt
        v = B2 * v + (1 - B2) * gt**2
        m_hat, v_hat = (m / (1 - B1**t), v / (1 - B2**t)) if corrected else (m, v)
        steps.append(m_hat / (np.sqrt(v_hat + EPS) if inside else np.sqrt(v_hat) + EPS))
    return np.stack(steps)


def against_equations(tx, **form):
    updates, _ = run(tx)
    for leaf, g in GRADS.items():
        close(updates[leaf], adam_equations(g, **form))


# Adam is RMS scaling composed with momentum


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(
    "direction", [gx.ema(B1, debias=False), gx.momentum(B1, dampening=B1)], ids=["ema", "momentum"]
)
def test_a_direction_then_rms_is_adam_without_bias_correction(direction, inside):
    against_equations(
        gx.chain(direction, gx.scale_by_rms(B2, EPS, eps_in_sqrt=inside)),
        corrected=False,
        inside=inside,
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("inside", [True, False])
def test_with_both_corrections_it_is_adam(inside):
    composed = gx.chain(
        gx.ema(B1), gx.scale_by_rms(B2, EPS, eps_in_sqrt=inside, bias_correction=True)
    )
    against_equations(composed, corrected=True, inside=inside)
    apart = gx.chain(
        gx.ema(B1, debias=False),
        gx.scale_by_rms(B2, EPS, eps_in_sqrt=inside, bias_correction=True),
        gx.correct_bias(B1),
    )
    same(apart, composed)


def test_named_optimizers_are_their_compositions():
    rate = gx.scale_by_learning_rate(LR)
    composed = gx.chain(
        gx.ema(B1), gx.scale_by_rms(B2, EPS, eps_in_sqrt=False, bias_correction=True), rate
    )
    same_bits(gx.adam(LR, B1, B2, EPS), composed, np.float32)
    same_bits(
        gx.adam_uncorrected(LR, B1, B2, EPS),
        gx.chain(gx.ema(B1, debias=False), gx.scale_by_rms(B2, EPS), rate),
        np.float32,
    )
    same_bits(
        gx.adam_l2(LR, B1, B2, EPS, 0.1),
        gx.chain(gx.add_decayed_weights(0.1), gx.adam(LR, B1, B2, EPS)),
        np.float32,
    )


@pytest.mark.usefixtures("x64")
def test_the_places_of_momentum_and_rms_are_two_methods():
    """RMSprop with momentum takes statistics of the gradient first, and then averages the scaled steps."""
    rms, average, ball = (
        gx.scale_by_rms(B2, EPS),
        gx.ema(B1, debias=False),
        gx.momentum(B1, dampening=B1),
    )
    same(gx.chain(rms, gx.momentum(B1), gx.scale(-LR)), gx.rmsprop(LR, B2, EPS, momentum=B1))
    same(gx.chain(rms, average), gx.chain(rms, ball))
    different(gx.chain(rms, average), gx.chain(average, rms))
    # what an eager reader of the chain might take Adam for: statistics of the averaged gradient
    different(gx.chain(average, rms), gx.chain(average, optax.scale_by_rms(B2, EPS)))


@pytest.mark.usefixtures("x64")
def test_adam_without_momentum_is_corrected_rmsprop():
    same(
        gx.adam(LR, 0.0, B2, EPS), gx.rmsprop(LR, B2, EPS, eps_in_sqrt=False, bias_correction=True)
    )
    different(gx.adam(LR, 0.1, B2, EPS), gx.adam(LR, 0.0, B2, EPS))


@pytest.mark.usefixtures("x64")
def test_adamw_without_decay_is_adam():
    same_bits(gx.adamw(LR, B1, B2, EPS, weight_decay=0.0), gx.adam(LR, B1, B2, EPS))
    same_bits(gx.adam_l2(LR, B1, B2, EPS, 0.0), gx.adam(LR, B1, B2, EPS))
    different(gx.adamw(LR, B1, B2, EPS, weight_decay=0.1), gx.adam_l2(LR, B1, B2, EPS, 0.1))


@pytest.mark.usefixtures("x64")
def test_two_conventions_of_momentum_differ_by_the_learning_rate():
    averaged = gx.chain(gx.momentum(0.8, dampening=0.8), gx.scale_by_learning_rate(LR / (1 - 0.8)))
    same(averaged, gx.sgd(LR, 0.8))
    same(
        gx.chain(gx.ema(0.8, debias=False), gx.scale_by_learning_rate(LR / (1 - 0.8))),
        gx.sgd(LR, 0.8),
    )
    nesterov = gx.chain(
        gx.momentum(0.8, 0.8, nesterov=True), gx.scale_by_learning_rate(LR / (1 - 0.8))
    )
    same(nesterov, gx.sgd(LR, 0.8, nesterov=True))
    same(
        gx.chain(
            gx.ema(0.8, debias=False, nesterov=True), gx.scale_by_learning_rate(LR / (1 - 0.8))
        ),
        nesterov,
    )
    different(gx.sgd(LR, 0.8), gx.sgd(LR, 0.8, nesterov=True))
    # torch leaves the first gradient undamped; otherwise its velocity is the same
    different(gx.momentum(0.8, 0.8), gx.momentum(0.8, 0.8, convention="torch"))
    same(gx.momentum(0.8), gx.momentum(0.8, convention="torch"))


@pytest.mark.usefixtures("x64")
def test_momentum_without_memory_is_gradient_descent():
    for direction in (
        gx.momentum(0.0),
        gx.momentum(0.0, nesterov=True),
        gx.ema(0.0),
        gx.ema(0.0, nesterov=True),
        gx.trace(0.0),
    ):
        same(gx.chain(direction, gx.scale_by_learning_rate(LR)), gx.sgd(LR))


# Nesterov


def loss(p):
    return (
        jnp.sum(p["w"] ** 4) / 4
        + 0.5 * jnp.sum(p["w"] ** 2)
        + jnp.sum(jnp.cos(p["b"]))
        + jnp.sum(p["w"] @ p["b"])
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rate", [0.02, gx.constant_schedule(0.02)], ids=["number", "schedule"])
def test_nesterov_first_form_visits_the_same_look_ahead_points(rate):
    ball, nesterov = gx.sgd(rate, 0.9), gx.sgd(rate, 0.9, nesterov=True)

    def as_first_written(carry, _):
        x, state = carry
        y = gx.nesterov_point(ball, state, x)
        updates, state = ball.update(jax.grad(loss)(y), state, x)
        return (gx.apply_updates(x, updates), state), (y, x)

    def reformulated(carry, _):
        y, state = carry
        updates, state = nesterov.update(jax.grad(loss)(y), state, y)
        return (gx.apply_updates(y, updates), state), y

    start = jax.tree.map(jnp.asarray, START)
    _, (look_ahead_points, points) = jax.jit(
        lambda p: jax.lax.scan(as_first_written, (p, ball.init(p)), length=40)
    )(start)
    _, expected = jax.jit(lambda p: jax.lax.scan(reformulated, (p, nesterov.init(p)), length=40))(
        start
    )
    jax.tree.map(close, look_ahead_points, expected)
    assert np.max(np.abs(points["w"] - expected["w"])) > 1e-2


@pytest.mark.usefixtures("x64")
def test_look_ahead_is_the_point_of_a_zero_gradient_and_changes_no_state():
    tx = gx.sgd(LR, 0.8)
    _, state = run(tx)
    before = jax.tree.map(np.array, state)
    ahead = gx.nesterov_point(tx, state, START)
    for leaf in START:
        close(ahead[leaf], START[leaf] - LR * 0.8 * state["momentum"].slots["v"][leaf])
    chex.assert_trees_all_equal(state, before)
    chex.assert_trees_all_equal(gx.nesterov_point(tx, tx.init(START), START), START)


# Chains associate, identity is neutral: to the bit, also where a part looks at the whole tree or stands alone


def halve(updates, params):
    return jax.tree.map(lambda u: u / 2, updates)


DECAY, CLIP, EMA, RMS = (
    gx.add_decayed_weights(0.1),
    gx.clip_by_global_norm(2.0),
    gx.ema(B1, debias=False),
    gx.scale_by_rms(B2, EPS),
)
RATE, ALONE = gx.scale_by_learning_rate(LR), gx.stateless(halve)
FLAT = {
    "rules": (DECAY, EMA, RMS, RATE),
    "measures": (DECAY, CLIP, EMA, gx.clip_by_global_norm(0.5), RMS, RATE),
    "alone": (DECAY, EMA, ALONE, RMS, RATE),
    "foreign": (CLIP, optax.scale(2.0), EMA, optax.scale(0.5), RMS, RATE),
}


def nestings(parts):
    first, second, *rest = parts
    yield gx.chain(gx.chain(first, second), *rest)
    yield gx.chain(first, gx.chain(second, *rest))
    yield gx.chain(gx.chain(gx.chain(first), gx.chain(second)), gx.chain(*rest))
    yield gx.chain(*(gx.chain(part) for part in parts))


def with_identity(parts):
    for i in range(len(parts) + 1):
        yield gx.chain(*parts[:i], gx.identity(), *parts[i:])
    yield gx.chain(gx.identity(), gx.chain(gx.identity(), *parts), gx.chain(), None)


@pytest.mark.filterwarnings("ignore:chain. chain measures")  # not what Optax's nested chains do
@pytest.mark.parametrize(
    "dtype", one_in(2, [np.float32, jnp.bfloat16]), ids=["float32", "bfloat16"]
)
@pytest.mark.parametrize("name", FLAT)
def test_nested_chains_and_identity_change_nothing(name, dtype):
    """Also in bfloat16, where a rounding between two parts would show."""
    parts = FLAT[name]
    with jax.numpy_dtype_promotion("standard"):  # for the Optax parts
        start, grads = jax.tree.map(lambda x: jnp.asarray(x, dtype), (START, GRADS))
        several = [gx.chain(*parts), *nestings(parts), *with_identity(parts)]
        expected, *others = jax.jit(lambda s, g: [steps_of(tx, s, g)[0] for tx in several])(
            start, grads
        )
    for other in others:
        assert jax.tree.leaves(other)[0].dtype == dtype
        chex.assert_trees_all_equal(other, expected)


def test_identity_alone_returns_the_gradient_itself():
    tx = gx.identity()
    updates, state = tx.update(START, tx.init(START))
    assert jax.tree.leaves(state) == []
    chex.assert_trees_all_equal(updates, jax.tree.map(np.float32, START))


# The gradient channel: from the first direction on, later parts measure what entered it


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "inner",
    [
        gx.chain(EMA),
        gx.chain(gx.chain(gx.identity(), EMA), None),
        gx.tunable(EMA),
        gx.tunable(gx.chain(EMA)),
        gx.chain(gx.tunable(EMA), gx.identity()),
    ],
    ids=["chain", "twice", "tunable", "tunable_chain", "tunable_in_chain"],
)
def test_a_direction_inside_freezes_the_gradient_outside(inner):
    assert inner.direction
    against_equations(gx.chain(inner, RMS), corrected=False, inside=True)
    against_equations(
        gx.chain(gx.identity(), gx.chain(inner), gx.tunable(RMS)), corrected=False, inside=True
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "wrap", [gx.chain, gx.tunable, lambda part: gx.chain(gx.tunable(part), gx.identity())]
)
def test_what_is_frozen_is_what_entered_the_first_direction(wrap):
    """Not the raw gradient, where something came before; not what entered a second direction; not the last update."""
    updates, _ = run(gx.chain(gx.scale(3.0), wrap(EMA), gx.scale(5.0), gx.momentum(0.5), RMS))
    for leaf, g in GRADS.items():
        m = v = w = np.zeros_like(START[leaf])
        for t, gt in enumerate(3.0 * g):
            m = B1 * m + (1 - B1) * gt
            w = 0.5 * w + 5.0 * m
            v = B2 * v + (1 - B2) * gt**2
            close(updates[leaf][t], w / np.sqrt(v + EPS))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("before", "between"),
    [
        (CLIP, gx.identity()),
        (gx.scale(1.0), ALONE),
        (ALONE, gx.clip_by_global_norm(0.1)),
        (CLIP, gx.tunable(gx.clip_by_global_norm(0.1))),
    ],
    ids=["clipped", "alone", "clipped_between", "tunable_between"],
)
def test_parts_that_stand_alone_hand_the_gradient_on(before, between):
    """The preconditioner's memory is that of a chain in which it comes right after what precedes the direction."""
    _, state = run(gx.chain(before, EMA, between, RMS))
    _, expected = run(gx.chain(before, RMS))
    jax.tree.map(close, state["scale_by_rms"].slots["v"], expected["scale_by_rms"].slots["v"])
    _, averaged = run(gx.chain(before, gx.chain(("average", optax.ema(B1, debias=False))), RMS))
    assert (
        np.max(
            np.abs(state["scale_by_rms"].slots["v"]["w"] - averaged["scale_by_rms"].slots["v"]["w"])
        )
        > 1e-3
    )


@pytest.mark.usefixtures("x64")
def test_a_gradient_from_outside_is_the_one_measured():
    """What an outer chain hands to a wrapper, a wrapper can hand to what it wraps."""
    tx = gx.chain(gx.scale(2.0), RMS)
    state = tx.init(START)
    gradient = jax.tree.map(lambda x: x + 1.0, START)
    updates, state = tx.update(START, state, START, gradient=gradient)
    for leaf, g in gradient.items():
        v = (1 - B2) * g**2
        close(state["scale_by_rms"].slots["v"][leaf], v)
        close(updates[leaf], 2.0 * START[leaf] / np.sqrt(v + EPS))


@pytest.mark.usefixtures("x64")
def test_without_a_direction_a_chain_means_what_it_means_in_optax():
    """Each part measures the updates so far; an Optax pair is no direction, whatever it averages."""
    ours = gx.chain(optax.ema(B1, debias=False), gx.scale(2.0), RMS)
    theirs = optax.chain(optax.ema(B1, debias=False), optax.scale(2.0), optax.scale_by_rms(B2, EPS))
    assert not ours.direction
    with jax.numpy_dtype_promotion("standard"):
        jax.tree.map(close, run(ours)[0], run(gx.chain(theirs))[0])
    different(ours, gx.chain(EMA, gx.scale(2.0), RMS))
