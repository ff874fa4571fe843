"""Schedules in pieces and the algebra of schedules: against NumPy, Optax and torch; traced, batched, differentiated; written back."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference_structure as ref
from replay import recorded
from thinned import one_in

import gradxform as gx

GOLDEN = recorded("structure")

CYCLES = [
    {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 3, "decay_steps": 10},
    {"init_value": 0.1, "peak_value": 0.5, "warmup_steps": 4, "decay_steps": 20, "end_value": 0.01},
]
SCALES = {4: 0.1, 9: 3.0, 20: 0.01}

OPTAX = {
    "linear": (
        gx.piecewise_interpolate_schedule("linear", 1.0, SCALES),
        optax.piecewise_interpolate_schedule("linear", 1.0, SCALES),
    ),
    "cosine": (
        gx.piecewise_interpolate_schedule("cosine", 1.0, SCALES),
        optax.piecewise_interpolate_schedule("cosine", 1.0, SCALES),
    ),
    "linear_onecycle": (
        gx.linear_onecycle_schedule(37, 0.2, 0.31),
        optax.linear_onecycle_schedule(37, 0.2, 0.31),
    ),
    "cosine_onecycle": (
        gx.cosine_onecycle_schedule(37, 0.2, 0.31),
        optax.cosine_onecycle_schedule(37, 0.2, 0.31),
    ),
    "sgdr": (gx.sgdr_schedule(CYCLES), optax.sgdr_schedule(CYCLES)),
}

TORCH = {
    "onecycle_cosine": gx.cosine_onecycle_schedule(37, 0.2, convention="torch"),
    "onecycle_linear": gx.linear_onecycle_schedule(37, 0.2, convention="torch"),
    "cyclic_triangular": gx.cyclic_schedule(0.01, 0.2, 5, 8),
    "cyclic_triangular2": gx.cyclic_schedule(0.01, 0.2, 5, mode="triangular2"),
    "cyclic_exp_range": gx.cyclic_schedule(0.01, 0.2, 5, mode="exp_range", gamma=0.97),
    "restarts": gx.cosine_restarts_schedule(0.2, 5, 2, alpha=0.1),
    "restarts_even": gx.cosine_restarts_schedule(0.2, 7, 1),
}

LOW, PEAK, END = 0.2 / 25, 0.2, 0.2 / 25 / 1e4
ORACLES = {
    "onecycle": (
        gx.linear_onecycle_schedule(40, PEAK),
        lambda t: ref.onecycle(t, (12, 34, 40), (LOW, PEAK, LOW, END), False),
    ),
    "onecycle_cosine": (
        gx.cosine_onecycle_schedule(40, PEAK),
        lambda t: ref.onecycle(t, (12, 40), (LOW, PEAK, END), True),
    ),
    "onecycle_torch": (
        gx.linear_onecycle_schedule(40, PEAK, convention="torch"),
        lambda t: ref.onecycle(t, (11, 22, 39), (LOW, PEAK, LOW, END), False),
    ),
    "restarts": (
        gx.cosine_restarts_schedule(0.3, 4, 1.5, 0.7, 0.2),
        lambda t: ref.cosine_restarts(t, 0.3, 4, 1.5, 0.7, 0.2),
    ),
    "restarts_even": (
        gx.cosine_restarts_schedule(0.3, 4, 1.0, 0.7, 0.2),
        lambda t: ref.cosine_restarts(t, 0.3, 4, 1.0, 0.7, 0.2),
    ),
    "cyclic": (gx.cyclic_schedule(0.1, 0.9, 3, 7), lambda t: ref.cyclic(t, 0.1, 0.9, 3, 7)),
    "cyclic2": (
        gx.cyclic_schedule(0.1, 0.9, 3, mode="triangular2"),
        lambda t: ref.cyclic(t, 0.1, 0.9, 3, 3, "triangular2"),
    ),
    "cyclic_exp": (
        gx.cyclic_schedule(0.1, 0.9, 3, mode="exp_range", gamma=0.9),
        lambda t: ref.cyclic(t, 0.1, 0.9, 3, 3, "exp_range", 0.9),
    ),
    "wsd": (gx.wsd_schedule(0.3, 5, 10, 8), lambda t: ref.wsd(t, 0.3, 5, 10, 8)),
    "wsd_sqrt": (
        gx.wsd_schedule(0.3, 5, 10, 8, 0.1, 0.01, "sqrt"),
        lambda t: ref.wsd(t, 0.3, 5, 10, 8, 0.1, 0.01, "sqrt"),
    ),
    "wsd_cosine": (
        gx.wsd_schedule(0.3, 5, 10, 8, shape="cosine"),
        lambda t: ref.wsd(t, 0.3, 5, 10, 8, shape="cosine"),
    ),
    "wsd_power": (
        gx.wsd_schedule(0.3, 5, 10, 8, shape="power", power=0.5),
        lambda t: ref.wsd(t, 0.3, 5, 10, 8, shape="power", power=0.5),
    ),
    "d2z": (gx.warmup_linear_decay_schedule(0.0, 0.3, 5, 25), lambda t: ref.wsd(t, 0.3, 5, 0, 20)),
    "rex": (gx.rex_schedule(0.3, 20, 0.01), lambda t: ref.rex(t, 0.3, 20, 0.01)),
    "algebra": (
        0.3 * (gx.warmup(5) >> gx.constant(10) >> gx.cooldown(8, shape="sqrt")) + 1,
        lambda t: 1 + ref.wsd(t, 0.3, 5, 10, 8, shape="sqrt"),
    ),
    "difference": (1 - gx.rex_schedule(0.3, 20) / 2, lambda t: 1 - ref.rex(t, 0.3, 20) / 2),
    "product": (
        gx.rex_schedule(0.3, 20) * gx.warmup(5),
        lambda t: ref.rex(t, 0.3, 20) * min(t / 5, 1),
    ),
    "stretch": (
        gx.stretch(gx.rex_schedule(1.0, 20, 0.5), 10)
        >> (gx.constant(5, 0.4) >> gx.linear_schedule(0.3, 0.0, 5)),
        lambda t: (
            ref.rex(t, 1.0, 20, 0.5)
            if t < 10
            else 0.4
            if t < 15
            else 0.3 * (1 - min((t - 15) / 5, 1))
        ),
    ),
}
ALL = {name: s for name, (s, _) in (OPTAX | ORACLES).items()} | TORCH


def curve(schedule, steps):
    return np.asarray(jax.vmap(schedule)(jnp.arange(steps)))


@pytest.mark.parametrize("name", OPTAX)
def test_equals_optax(name, x64, standard_promotion):
    """Optax computes in float32 unless the step is float64, also in double precision."""
    ours, theirs = OPTAX[name]
    np.testing.assert_allclose(
        curve(ours, 45), [theirs(jnp.float64(t)) for t in range(45)], rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("name", one_in(2, TORCH))
def test_equals_torch(name, x64):
    expected = GOLDEN[f"rate/{name}"]
    np.testing.assert_allclose(curve(TORCH[name], len(expected)), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ORACLES)
def test_equals_its_oracle(name, x64):
    ours, oracle = ORACLES[name]
    np.testing.assert_allclose(
        curve(ours, 50), [oracle(t) for t in range(50)], rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("name", ALL)
def test_prints_as_what_builds_it(name):
    schedule = ALL[name]
    assert eval(repr(schedule), {**vars(gx), "jnp": jnp}) == schedule, repr(schedule)


@pytest.mark.parametrize("name", one_in(3, ALL))
def test_numbers_are_traced_batched_and_differentiable(name):
    schedule = ALL[name]
    members = [jax.tree.map(lambda x, f=f: x * f, schedule) for f in (1.0, 1.25)]
    steps = jnp.arange(30)
    batched = jax.jit(jax.vmap(lambda s: jax.vmap(s)(steps)))(gx.stack(members))
    for got, member in zip(batched, members, strict=True):
        np.testing.assert_allclose(got, jax.vmap(member)(steps), rtol=2e-5, atol=1e-6)
    slopes = jax.jit(jax.vmap(jax.grad(lambda s, t: jnp.asarray(s(t), float)), (None, 0)))(
        jax.tree.map(jnp.float32, schedule), steps
    )
    chex.assert_tree_all_finite(slopes)


def test_the_algebra_prints_what_was_written():
    s = 3e-4 * (gx.warmup(100) >> gx.constant(500) >> gx.cooldown(200, shape="sqrt"))
    assert repr(s) == "0.0003 * (warmup(100.0) >> constant(500.0) >> cooldown(200.0, shape='sqrt'))"
    assert s.length == 800
    assert (gx.warmup(3) >> gx.constant()).length is None


def test_peaks_and_lengths_of_the_algebra_are_leaves():
    s = 3e-4 * (gx.warmup(100) >> gx.constant(500) >> gx.cooldown(200))
    assert jax.tree.leaves(s)[:2] == [3e-4, 100.0]
    slope = jax.grad(lambda n: (gx.warmup(n) >> gx.constant(10) >> gx.cooldown(10))(15.0 + 0 * n))(
        8.0
    )
    assert slope == 0  # on the plateau no length matters
    slope = jax.grad(lambda n: (gx.warmup(n) >> gx.constant(10) >> gx.cooldown(10))(23))(8.0)
    np.testing.assert_allclose(slope, 0.1, rtol=1e-5)  # one step later, a tenth less far down


def test_operands():
    s = gx.warmup(10)
    for two in (2, 2.0, np.float64(2), np.float32(2), jnp.float32(2)):
        np.testing.assert_allclose((two * s)(5), 1.0)
        np.testing.assert_allclose((s * two)(5), 1.0)
        np.testing.assert_allclose((s + two)(5), 2.5)
        np.testing.assert_allclose((two - s)(5), 1.5)
    with pytest.raises(TypeError, match="no length"):
        gx.linear_schedule(1.0, 0.0, 10) >> gx.constant()
    with pytest.raises(TypeError):
        s + "1"
    with pytest.raises(TypeError):
        s >> 1.0


def test_bad_arguments():
    with pytest.raises(ValueError, match="shape must be one of"):
        gx.cooldown(10, shape="round")(1)
    with pytest.raises(ValueError, match="convention must be"):
        gx.cosine_onecycle_schedule(10, 0.1, convention="keras")
    with pytest.raises(ValueError, match="mode must be"):
        gx.cyclic_schedule(0.1, 0.2, mode="square")(1)
    with pytest.raises(TypeError, match="must be a dict"):
        gx.sgdr_schedule([gx.constant_schedule(1.0)])
    with pytest.raises(ValueError, match="interpolate_type"):
        gx.piecewise_interpolate_schedule("cubic", 1.0)(1)


def test_a_schedule_of_the_algebra_is_a_hyperparameter():
    tx = gx.sgd(0.1 * (gx.warmup(2) >> gx.constant()))
    params = {"w": jnp.ones(3)}
    state = tx.init(params)
    seen = []
    for _ in range(4):
        updates, state = tx.update(params, state, params)
        seen.append(float(updates["w"][0]))
    np.testing.assert_allclose(seen, [0, -0.05, -0.1, -0.1], rtol=1e-6)


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("boundary", [0.29 * 100, 2.5, 3, np.int64(4), 5.0])
def test_boundaries_between_two_steps_are_kept(boundary):
    for make in (
        lambda o: o.piecewise_constant_schedule(1.0, {boundary: 0.1, 40: 0.5}),
        lambda o: o.piecewise_interpolate_schedule("linear", 1.0, {boundary: 0.1, 40: 0.5}),
    ):
        mine, theirs = make(gx), make(optax)
        for step in range(32):
            np.testing.assert_allclose(mine(step), theirs(step), rtol=1e-5, atol=1e-6)
    assert repr(gx.piecewise_constant_schedule(1.0, {5.0: 0.1})).endswith("{5: 0.1})")


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(
    "make",
    [
        lambda o: o.linear_schedule(1.0, 0.0, 10, -5),
        lambda o: o.exponential_decay(1.0, 10, 0.5, -5),
        lambda o: o.polynomial_schedule(1.0, 0.5, 0, 10),
        lambda o: o.cosine_decay_schedule(1.0, 10, exponent=0),
        lambda o: o.exponential_decay(1.0, 0, 0.5),
        lambda o: o.exponential_decay(1.0, 10, 0.0),
        lambda o: o.exponential_decay(1.0, 0, 0.5, staircase=True, end_value=0.1),
        lambda o: o.warmup_cosine_decay_schedule(0.0, 1.0, 0, 10),
        lambda o: o.warmup_exponential_decay_schedule(0.0, 1.0, 0, 10, 0.5),
    ],
)
def test_ranges_that_optax_takes_give_what_optax_gives(make):
    mine, theirs = make(gx), make(optax)
    for step in (0, 1, 5, 10, 20):
        np.testing.assert_allclose(mine(step), theirs(step), rtol=1e-6)


def test_a_stretch_of_no_length_is_over_at_once():
    """Optax stays at the first value for ever; what people mean by no warm-up is none."""
    assert float(gx.linear_schedule(0.1, 0.0, 0)(0)) == 0.0
    assert float(gx.warmup_constant_schedule(0.0, 1.0, 0)(0)) == 1.0


def test_a_schedule_is_a_function_with_a_name_of_its_count():
    schedule = gx.linear_schedule(1.0, 0.0, 10)
    assert schedule(count=5) == schedule(5) == schedule(step=5)
    assert schedule.__name__ == "linear_schedule"
    assert functools.wraps(schedule)(lambda step: step).__name__ == "linear_schedule"
    for call in (lambda: schedule(), lambda: schedule(1, count=1)):
        with pytest.raises(TypeError, match=r"linear_schedule: .* schedule\(step\)"):
            call()
