"""Numbers at their ends: the last step of a counter, tiny and huge gradients, narrow and complex
ones, and gradients that vary over devices.
"""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from instances import ARGUMENTS, EXTRA, TRANSFORMATIONS
from jax.sharding import Mesh, PartitionSpec
from thinned import one_in

import gradxform as gx
from gradxform.numerics import increment
from gradxform.testing import check_law
from gradxform.testing.tools import constructors, representative

LAST = 2**31 - 1


@pytest.mark.parametrize(
    ("count", "period", "expected"),
    [
        (np.int32(0), 1, 1),
        (np.int32(LAST - 1), 1, LAST),
        (np.int32(LAST), 1, LAST),
        (np.int32(LAST - 1), 10, LAST),
        (np.int32(LAST), 10, LAST - 9),
        (np.int32(LAST), np.int32(10), LAST - 9),
        (np.uint8(255), 1, 255),
        (3, 1, 4),
    ],
)
def test_a_count_stays_at_the_largest_number_or_goes_back_by_a_period(count, period, expected):
    got = increment(count, period)
    assert got == expected
    assert got.dtype == jnp.asarray(count).dtype
    assert (int(got) - int(count) - 1) % int(period) == 0 or period == 1


WRAPPED = ("adam", "adafactor", "adopt", "asgd", "every", "momo_adam", "nadam_torch", "restart")
OVERFLOWED = (
    "adadelta",
    "adam_atan2",
    "cautious",
    "came",
    "mechanize",
    "momo_adapted",
    "normalize_by_update_norm",
    "rmsprop_centered",
    "scale_by_polyak",
    "scale_by_rms_power",
    "scale_by_quasi_hyperbolic_rms",
    "stable_adamw",
    "yogi",
)


ONCE = [*(("counter", name) for name in WRAPPED), *(("magnitudes", name) for name in OVERFLOWED)]


@pytest.mark.parametrize("once", one_in(2, ONCE), ids=lambda once: "-".join(once))
def test_what_once_failed_keeps_the_laws_of_numbers(once):
    law, name = once
    entry = TRANSFORMATIONS[name]
    check_law(law, entry.make(), entry.extra, entry.exceptions)


def test_the_last_parameters_kept_go_round_also_at_the_end_of_their_count():
    tx, params = gx.lawa(gx.sgd(1.0), window=3), jnp.zeros(5)
    state = gx.set(tx.init(params), "saved", jnp.int32(LAST))
    for _ in range(3):
        updates, state = tx.update(-jnp.ones(5), state, params)
        params = gx.apply_updates(params, updates)
    kept = sorted(np.asarray(gx.get(state, "last_params"))[:, 0].tolist())
    assert kept == [1.0, 2.0, 3.0]


def without_decay():
    """Every constructor that decays weights, in each convention, with a decay of zero."""
    for name, constructor in constructors().items():
        decays = "weight_decay" in inspect.signature(constructor).parameters
        if decays and name not in ("apollo", "kron", "sophia"):  # they draw other numbers there
            for convention in constructor.conventions or [None]:
                yield pytest.param(name, convention, id=f"{name}-{convention}")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "convention"), list(without_decay()))
def test_tiny_gradients_move_also_what_does_not_decay(name, convention):
    given = {**ARGUMENTS.get(name, {}), "weight_decay": 0.0}
    given |= {} if convention is None else {"convention": convention}
    check_law("magnitudes", representative(constructors()[name], **given), EXTRA.get(name))


def last(tx, gradients, params, steps=3, **extra):
    """The last of several updates with the same gradients."""

    @jax.jit
    def run(gradients, params):
        state, updates = tx.init(params), None
        for _ in range(steps):
            updates, state = tx.update(gradients, state, params, **extra)
        return updates

    return run(gradients, params)


@pytest.mark.parametrize(
    "make",
    [
        lambda: gx.adam_atan2(0.1),
        lambda: gx.padam(0.1, power=0.5),
        lambda: gx.amsgrad(0.1, eps=0.0),
        lambda: gx.scale_by_rms(eps=0.0),
        lambda: gx.cautious(gx.sgd(0.1)),
        lambda: gx.qhadam(0.1, eps=0.0),
    ],
)
def test_scale_invariant_steps_have_the_direction_of_tiny_gradients(make):
    gradients = jnp.array([1.0, -2.0, 0.0, 0.5])
    usual, tiny = (last(make(), gradients * x, jnp.ones(4)) for x in (1.0, 1e-30))
    np.testing.assert_array_equal(np.sign(tiny), np.sign(usual))


def test_an_arc_tangent_needs_no_scale():
    gradients = jnp.array([1.0, -1.0, 0.0])
    usual, tiny, huge = (
        last(gx.scale_by_atan2(), gradients * x, jnp.ones(3)) for x in (1.0, 1e-30, 1e18)
    )
    np.testing.assert_allclose(tiny, usual, rtol=1e-6)
    np.testing.assert_allclose(huge, usual, rtol=1e-6)
    assert abs(usual[0]) == pytest.approx(1.27 * np.pi / 4)


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1.0, 1e22, 1e30])
def test_a_normalized_update_has_its_length_whatever_came_in(scale):
    gradients = {"a": jnp.array([3.0, 0.0]) * scale, "b": jnp.array([-4.0]) * scale}
    got = last(gx.normalize_by_update_norm(2.0, 0.0), gradients, gradients)
    np.testing.assert_allclose(got["a"], [1.2, 0.0], rtol=1e-6)
    np.testing.assert_allclose(got["b"], [-1.6], rtol=1e-6)


def test_a_normalized_zero_stays_zero_and_so_does_its_slope():
    tx = gx.normalize_by_update_norm()

    def sizes(x):
        return jnp.sum(last(tx, {"a": x, "b": None}, {"a": x, "b": None})["a"])

    value, slope = jax.value_and_grad(sizes)(jnp.zeros(3))
    assert value == 0
    np.testing.assert_array_equal(slope, 0.0)
    assert jnp.isnan(sizes(jnp.array([1.0, jnp.nan, 0.0]))).all(), "NaN is for the eye to catch"


@pytest.mark.parametrize("scale", [1e-8, 1e-12, 1e-25])
def test_steps_from_the_loss_reach_their_bound_for_tiny_gradients(scale):
    gradients, params = jnp.array([1.0, -2.0]) * scale, jnp.ones(2)
    for tx in (gx.momo(0.5), gx.polyak_sgd(0.5)):
        got = last(tx, gradients, params, value=jnp.float32(3.0))
        np.testing.assert_allclose(got, -0.5 * gradients, rtol=1e-5)


def test_steps_from_the_loss_stay_zero_for_zero_gradients():
    for tx in (gx.momo(0.5), gx.polyak_sgd(0.5), gx.momo_adam(0.5)):
        got = last(tx, jnp.zeros(2), jnp.ones(2), value=jnp.float32(3.0))
        np.testing.assert_array_equal(got, 0.0)


def test_a_bet_on_huge_coins_is_that_on_large_ones():
    gradients = jnp.array([1.0, -0.5])
    large, huge = (last(gx.cocob(), gradients * x, jnp.ones(2)) for x in (1e10, 1e30))
    np.testing.assert_allclose(huge, large, rtol=1e-5)
    assert (huge != 0).all()


def test_the_papers_lars_decays_without_a_gradient_as_beside_a_small_one():
    tx = gx.lars(0.1, weight_decay=0.1, momentum=0.0, convention="paper")
    small, none = (last(tx, jnp.full(3, x), jnp.ones(3), steps=1) for x in (1e-10, 0.0))
    np.testing.assert_allclose(none, small, rtol=1e-5)
    np.testing.assert_allclose(none, -0.1 * 0.001 * np.ones(3), rtol=1e-5)
    still = gx.lars(0.1, convention="paper")
    np.testing.assert_array_equal(last(still, jnp.zeros(3), jnp.ones(3)), 0.0)
    # where the norm is too small to be a number, the ratio is 1 as in the other convention
    tiny = last(gx.lars(0.1, momentum=0.0, convention="paper"), jnp.full(3, 1e-25), jnp.ones(3))
    np.testing.assert_allclose(tiny, jnp.full(3, -1e-26), rtol=1e-5)


@pytest.mark.parametrize("convention", ["optax", "paper"])
def test_where_no_trust_ratio_applies_lars_takes_the_gradient_as_it_is(convention):
    mask = {"a": True, "b": False}
    how = {"weight_decay": 0.5, "momentum": 0.0, "trust_ratio_mask": mask, "convention": convention}
    params = {"a": jnp.full(3, 2.0), "b": jnp.full(3, 2.0)}
    got = last(gx.lars(0.1, **how), jax.tree.map(jnp.ones_like, params), params, steps=1)
    np.testing.assert_allclose(got["b"], -0.1 * (1.0 + 0.5 * 2.0) * np.ones(3), rtol=1e-6)
    assert (np.abs(got["a"]) < 1e-3).all()


def test_cautious_decay_sees_the_sign_of_tiny_numbers():
    tx = gx.add_decayed_weights(0.5, kind="cautious")
    params = jnp.array([1e-25, 1e-25])
    got = last(tx, jnp.array([1e-25, -1e-25]), params, steps=1)
    np.testing.assert_allclose(got, [1.5e-25, -1e-25], rtol=1e-6)


@pytest.mark.parametrize("size", [1e-4, 1e3])
@pytest.mark.parametrize("tx", [gx.dadapt_adamw(), gx.momo_adam(0.1)], ids=lambda tx: tx.name)
def test_narrow_gradients_are_squared_in_single_precision(tx, size):
    found = {}
    extra = {"value": jnp.float32(1.0)} if tx.name == "momo_adam" else {}
    for dtype in (jnp.float16, jnp.float32):
        params = jnp.linspace(0.5, 1.0, 6).astype(dtype)
        state = tx.init(params)
        for _ in range(3):
            _, state = tx.update((params * size).astype(dtype), state, params, **extra)
        found[dtype] = gx.get(state, "v")
        assert found[dtype].dtype == jnp.float32
    np.testing.assert_allclose(found[jnp.float16], found[jnp.float32], rtol=5e-3)


def _bowl(params):
    return jnp.sum(jnp.abs(params) ** 2)


@pytest.mark.parametrize("name", ["scale_by_adopt", "scale_by_sophia", "scale_by_sophia_paper"])
def test_a_complex_leaf_without_imaginary_part_steps_as_a_real_one(name):
    entry = TRANSFORMATIONS[name]
    gradients, real = jnp.array([1.0, -2.0, 3.0]), jnp.ones(3)
    extra = {"obj_fn": _bowl} if "sophia" in name else {}
    expected = last(entry.make(), gradients, real, **extra).astype(complex)
    turned, point = gradients.astype(complex), real.astype(complex)
    for unit in (1, 1j):  # the parts are clipped alike
        got = last(entry.make(), turned * unit, point, **extra)
        assert got.dtype == jnp.complex64
        np.testing.assert_allclose(got, expected * unit, rtol=1e-5)


def test_private_gradients_of_single_precision_under_double_precision(x64):
    params = {"w": jnp.ones(3, jnp.float32), "b": jnp.ones(2, jnp.float64)}
    examples = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), params)
    for given in ({"w": params["w"]}, params):
        tx = gx.dpsgd(0.1, 1.0, 0.0, 0)
        some = {k: examples[k] for k in given}
        updates = last(tx, some, given, steps=1)
        assert {k: x.dtype for k, x in updates.items()} == {k: x.dtype for k, x in given.items()}
        norm = np.sqrt(sum(np.sum(np.square(x)) for x in updates.values()))
        assert norm == pytest.approx(0.1, rel=1e-6), "both examples are clipped to length 1"


def _scanned(tx, extra, params):
    def body(carry, _):
        params, state = carry
        gradients = jax.tree.map(jnp.sin, params)
        updates, state = tx.update(gradients, state, params, **extra)
        return (gx.apply_updates(params, updates), state), None

    return jax.lax.scan(body, (params, tx.init(params)), None, length=2)[0][0]


@pytest.mark.parametrize(
    "name",
    [
        "adam",
        "adagc",
        "galore",
        "lawa",
        "novograd",
        "scale_by_sophia",
        "sm3",
        "sophia",
        "zero_nans",
    ],
)
def test_updates_of_what_varies_over_devices_pass_the_checks_of_shard_map(name):
    entry = TRANSFORMATIONS[name]
    mesh, along = Mesh(np.array(jax.devices()), ("x",)), PartitionSpec("x")
    params = {"w": jnp.ones((16, 2)), "b": jnp.ones(8)}
    train = partial(_scanned, entry.make(), entry.extra)
    mapped = jax.shard_map(train, mesh=mesh, in_specs=along, out_specs=along)
    got = jax.eval_shape(mapped, params)
    assert jax.tree.map(jnp.shape, got) == jax.tree.map(jnp.shape, params)
