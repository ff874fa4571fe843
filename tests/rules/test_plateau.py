"""reduce_on_plateau against a plain reading of its equation, the reference of tests/oracles, and what torch did."""

import importlib.util
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradxform as gx

ORACLES = Path(__file__).parents[1] / "oracles"
_spec = importlib.util.spec_from_file_location("gradxform_reference", ORACLES / "reference.py")
assert _spec is not None
ref = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(ref)  # pyright: ignore[reportOptionalMemberAccess]

with np.load(ORACLES / "torch_2.13.npz") as _file:
    GOLDEN = dict(_file)
META = json.loads(str(GOLDEN["meta"]))

ONE = jnp.ones(())


@jax.jit
def drive(tx, values):
    """The scale of the update after each value."""

    def body(state, value):
        scale, state = tx.update(ONE, state, value=value)
        return state, scale

    return jax.lax.scan(body, tx.init(ONE), values)[1]


def scales(tx, values):
    return np.asarray(drive(tx, jnp.asarray(values, jnp.float32)))


def oracle(
    values,
    factor=0.1,
    patience=10,
    rtol=1e-4,
    atol=0.0,
    cooldown=0,
    accumulation_size=1,
    min_scale=0.0,
    *,
    mode="min",
    convention="optax",
):
    """The docstring with branches: what a careful user would write by hand."""
    allowed = patience + 1 if convention == "torch" else max(patience, 1)
    best, bad, rest, scale, seen, out = math.inf, 0, 0, 1.0, [], []
    for value in values:
        seen.append(-float(value) if mode == "max" else float(value))
        if len(seen) == accumulation_size:
            mean, seen = (
                math.fsum(seen) / len(seen) if all(map(math.isfinite, seen)) else math.nan,
                [],
            )
            margin = (rtol * abs(best) if math.isfinite(best) else 0.0) + atol
            better = math.isfinite(mean) and mean < best - margin
            if better:
                best = mean
            if rest > 0:
                rest, bad = rest - 1, 0
            elif better:
                bad = 0
            else:
                bad += 1
                if bad >= allowed:
                    scale, bad, rest = max(scale * factor, min_scale), 0, cooldown
        out.append(scale)
    return np.array(out)


RNG = np.random.default_rng(5)
FALLING = 2 * np.exp(-np.arange(40) / 6) + 0.1 * RNG.standard_normal(40)
VALUES = {
    "falling": np.abs(FALLING) + 0.05,
    "flat": np.ones(40),
    "negative and falling": FALLING - 5,
    "through zero": np.linspace(1, -1, 40) + 0.1 * RNG.standard_normal(40),
    "noise about zero": RNG.standard_normal(40),
    "rising": np.linspace(0.5, 3, 40),
    "large": 1e6 * (1 + FALLING),
}
ARGUMENTS = {
    "plain": {"factor": 0.5, "patience": 2, "rtol": 0.01},
    "patience 0": {"factor": 0.5, "patience": 0, "rtol": 0.01},
    "patience 1": {"factor": 0.9, "patience": 1},
    "cooldown": {"factor": 0.5, "patience": 2, "rtol": 0.01, "cooldown": 3},
    "absolute": {"factor": 0.5, "patience": 2, "rtol": 0.0, "atol": 0.05},
    "both margins": {"factor": 0.5, "patience": 1, "rtol": 0.02, "atol": 0.05},
    "bounded": {"factor": 0.25, "patience": 1, "min_scale": 0.1},
    "means of 3": {"factor": 0.5, "patience": 1, "rtol": 0.01, "accumulation_size": 3},
    "means of 4, cooldown": {
        "factor": 0.5,
        "patience": 1,
        "cooldown": 2,
        "accumulation_size": 4,
        "min_scale": 0.2,
    },
    "factor 1": {"factor": 1.0, "patience": 1},
    "factor 0": {"factor": 0.0, "patience": 3},
}


@pytest.mark.parametrize("convention", ["optax", "torch"])
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_against_the_equation_with_branches(name, mode, convention):
    arguments = {**ARGUMENTS[name], "mode": mode, "convention": convention}
    for shape, values in VALUES.items():
        values32 = values.astype(np.float32)
        got, expected = (
            scales(gx.reduce_on_plateau(**arguments), values32),
            oracle(values32, **arguments),
        )
        np.testing.assert_allclose(got, expected, rtol=1e-5, err_msg=shape)


def test_the_oracle_sees_every_kind_of_event():
    """The cases above do reduce, differently by convention, mode and each argument; otherwise they would show nothing."""
    seen = set()
    for name, arguments in ARGUMENTS.items():
        paths = [
            tuple(oracle(values, **arguments, mode=mode, convention=convention))
            for mode in ("min", "max")
            for convention in ("optax", "torch")
            for values in VALUES.values()
        ]
        assert name == "factor 1" or len(set(paths)) > 6, name
        seen.add(tuple(paths))
    assert len(seen) == len(ARGUMENTS)


def test_max_of_values_is_min_of_their_negatives():
    for values in VALUES.values():
        lowest = scales(gx.reduce_on_plateau(0.5, 1, 0.01, cooldown=1), values)
        highest = scales(gx.reduce_on_plateau(0.5, 1, 0.01, cooldown=1, mode="max"), -values)
        np.testing.assert_array_equal(lowest, highest)


@pytest.mark.parametrize("convention", ["optax", "torch"])
@pytest.mark.parametrize(
    "name", ["plain", "patience 0", "cooldown", "absolute", "both margins", "bounded"]
)
def test_against_the_reference_of_the_oracles(name, convention):
    """For positive values, where its margin has the right sign."""
    for values in (VALUES["falling"], VALUES["flat"], VALUES["large"], GOLDEN["plateau_values"]):
        expected = ref.reduce_on_plateau(values, **ARGUMENTS[name], convention=convention)
        keep = expected > 1e-6  # torch ignores reductions of at most 1e-8
        got = scales(gx.reduce_on_plateau(**ARGUMENTS[name], convention=convention), values)
        np.testing.assert_allclose(got[keep], expected[keep], rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in META["schedules"] if name.startswith("plateau")])
def test_against_the_rates_that_torch_recorded(name):
    case = META["schedules"][name]
    kwargs, lr = case["kwargs"], case["lr"]
    absolute = kwargs.get("threshold_mode") == "abs"
    tx = gx.reduce_on_plateau(
        kwargs["factor"],
        kwargs["patience"],
        rtol=0.0 if absolute else kwargs["threshold"],
        atol=kwargs["threshold"] if absolute else 0.0,
        cooldown=kwargs.get("cooldown", 0),
        min_scale=kwargs.get("min_lr", 0.0) / lr,
        convention="torch",
    )
    expected = GOLDEN[f"rate/{name}"]
    assert len(set(expected)) > 2
    np.testing.assert_allclose(lr * scales(tx, GOLDEN["plateau_values"]), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["plain", "cooldown", "means of 3", "bounded"])
def test_against_optax(name, standard_promotion):
    arguments = ARGUMENTS[name]
    tx = optax.contrib.reduce_on_plateau(**arguments)

    def body(state, value):
        scale, state = tx.update(ONE, state, value=value)
        return state, scale

    values = jnp.asarray(VALUES["falling"], jnp.float32)
    _, expected = jax.jit(lambda values: jax.lax.scan(body, tx.init(ONE), values))(values)
    np.testing.assert_allclose(
        scales(gx.reduce_on_plateau(**arguments), values), expected, rtol=1e-5
    )


def test_the_conventions_differ_by_one_value():
    flat = np.ones(9)
    np.testing.assert_array_equal(
        scales(gx.reduce_on_plateau(0.5, 2), flat),
        [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625],
    )
    torch = scales(gx.reduce_on_plateau(0.5, 2, convention="torch"), flat)
    np.testing.assert_array_equal(torch, [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25])


def test_a_negative_loss_that_stops_falling_is_a_plateau():
    """In Optax (#1767) and in torch the margin pushes the bar above a negative best, so that it never fires."""
    flat = np.full(12, -2.0)
    assert scales(gx.reduce_on_plateau(0.5, 3, 0.01), flat)[-1] == 0.125
    falling = -np.exp(np.arange(12) / 4)
    np.testing.assert_array_equal(scales(gx.reduce_on_plateau(0.5, 1, 0.01), falling), 1.0)
    crawling = -2.0 - 1e-3 * np.arange(12)  # falls, by less than 1 % in all
    assert scales(gx.reduce_on_plateau(0.5, 3, 0.01), crawling)[-1] < 1.0


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_not_better(bad, mode):
    sign = 1.0 if mode == "min" else -1.0
    tx = gx.reduce_on_plateau(0.5, 2, 0.01, mode=mode)
    one_bad = sign * np.array([3.0, 2.0, 1.0, bad, 0.9, 0.8, 0.7, 0.6, 0.5])
    np.testing.assert_array_equal(
        scales(tx, one_bad), 1.0
    )  # no harm: the values after it are better
    all_bad = np.full(6, bad)
    np.testing.assert_array_equal(scales(tx, all_bad), [1, 0.5, 0.5, 0.25, 0.25, 0.125])
    first = sign * np.array([bad, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0])
    np.testing.assert_array_equal(scales(tx, first), [1, 1, 1, 1, 1, 0.5, 0.5])


def test_a_mean_over_a_value_that_is_not_finite_is_not_better_and_passes():
    for bad in (math.nan, math.inf):
        values = np.array([3.0, 3.0, 2.0, bad, 2.0, 2.0, 1.0, 1.0])
        np.testing.assert_array_equal(
            scales(gx.reduce_on_plateau(0.5, 2, accumulation_size=2), values), 1.0
        )
        np.testing.assert_array_equal(
            scales(gx.reduce_on_plateau(0.5, 1, accumulation_size=2), values),
            [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5],
        )


def test_the_scale_multiplies_the_update_in_its_dtype():
    params = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(())}
    tx = gx.reduce_on_plateau(0.5, 1)
    state = tx.init(params)
    for i, expected in enumerate((1.0, 0.5, 0.25)):
        value = (1.0, jnp.bfloat16(1.0), np.int32(1))[i]  # any scalar will do
        updates, state = tx.update(params, state, value=value)
        assert updates["a"].dtype == jnp.bfloat16
        np.testing.assert_array_equal(updates["a"], expected)
    assert {k: v.dtype.name for k, v in state.slots.items()} == {
        **dict.fromkeys(("scale", "best", "mean"), "float32"),
        **dict.fromkeys(("bad", "cooling", "seen"), "int32"),
    }


def test_vmap_over_patience_and_factor():
    values = VALUES["falling"].astype(np.float32)
    grid = [(p, f) for p in (1, 2, 4) for f in (0.5, 0.1)]
    txs = gx.stack([gx.reduce_on_plateau(f, p, 0.01, cooldown=p - 1) for p, f in grid])
    batched = jax.jit(jax.vmap(drive, in_axes=(0, None)))(txs, jnp.asarray(values))
    for row, (p, f) in zip(batched, grid, strict=True):
        np.testing.assert_allclose(row, oracle(values, f, p, 0.01, cooldown=p - 1), rtol=1e-5)
    assert len({tuple(np.asarray(row)) for row in batched}) == len(grid)


def test_a_new_number_retraces_nothing():
    size = drive._cache_size()
    values = np.ones(17)
    for patience, factor in ((1, 0.5), (3, 0.25), (2, 0.1)):
        scales(gx.reduce_on_plateau(factor, patience), values)
    assert drive._cache_size() == size + 1


def test_patience_may_be_a_schedule():
    patience = gx.manual_schedule((1.0, 3.0), (4,))
    got = scales(gx.reduce_on_plateau(0.5, patience), np.ones(10))
    np.testing.assert_array_equal(
        got, [1, 0.5, 0.25, 0.125, 0.125, 0.125, 0.0625, 0.0625, 0.0625, 0.03125]
    )


def test_after_an_optimizer_it_scales_the_step():
    tx = gx.chain(gx.sgd(1.0), gx.reduce_on_plateau(0.5, 1))
    state = tx.init(ONE)
    seen = []
    for value in (1.0, 1.0, 0.5, 0.5):
        updates, state = tx.update(ONE, state, value=value)
        seen.append(float(updates))
    assert seen == [-1.0, -0.5, -0.5, -0.25]


def test_the_scale_is_as_precise_as_numbers_are(x64):
    tx = gx.reduce_on_plateau(0.1, patience=1)
    state = tx.init(jnp.ones(()))
    for _ in range(4):
        updates, state = tx.update(jnp.ones(()), state, value=jnp.float64(1.0))
    assert state.scale.dtype == jnp.float64
    np.testing.assert_allclose(updates, 1e-3, rtol=1e-15)
