"""Optax's `tree_utils` under `gradxform.tree`: the same results, None leaves, and states searched by name."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from instances import TRANSFORMATIONS
from thinned import one_in

import gradxform as gx
from gradxform.state import access as states

KEY = jax.random.key(0)
X = {"a": jax.random.normal(KEY, (3, 2)), "b": [jnp.array([1.0, -2.0]), jnp.array(3.0)]}
Y = jax.tree.map(lambda x: 0.5 * x + 1, X)
SQUARES = jax.tree.map(jnp.square, Y)
COMPLEX = {"z": jnp.array([1 + 2j, -3j], jnp.complex64)}

CALLS = {
    "add": lambda t: [t.tree_add(X, Y), t.tree_add(X, Y, X), t.tree_add(1.0, 2.0)],
    "sub": lambda t: [t.tree_sub(X, Y)],
    "mul": lambda t: [t.tree_mul(X, Y)],
    "div": lambda t: [t.tree_div(X, Y)],
    "scale": lambda t: [
        t.tree_scale(0.5, X),
        t.tree_scale(jnp.float32(0.5), X),
        t.tree_scale(2j, X),
    ],
    "scale integers": lambda t: [
        t.tree_scale(0.5, {"n": jnp.arange(3)}),
        t.tree_scale(2, {"n": jnp.arange(3)}),
    ],
    "add_scale": lambda t: [
        t.tree_add_scale(X, 0.5, Y),
        t.tree_add_scale(tree_x=X, scalar=2, tree_y=Y),
    ],
    "vdot": lambda t: [
        t.tree_vdot(X, Y),
        t.tree_vdot(COMPLEX, COMPLEX),
        t.tree_vdot([jnp.arange(3)], [jnp.arange(3)]),
    ],
    "sum": lambda t: [
        t.tree_sum(X),
        t.tree_sum([jnp.arange(3)]),
        t.tree_sum(X, True),
        t.tree_sum(None),
    ],
    "max": lambda t: [t.tree_max(X), t.tree_max({}), t.tree_max([jnp.zeros(0), jnp.ones(2)])],
    "min": lambda t: [t.tree_min(X), t.tree_min({})],
    "size": lambda t: [t.tree_size(X), t.tree_size(None)],
    "conj": lambda t: [t.tree_conj(COMPLEX), t.tree_conj(X)],
    "real": lambda t: [t.tree_real(COMPLEX), t.tree_real(X)],
    "norm": lambda t: [
        t.tree_norm(X, ord=n, squared=s)
        for n in (None, 1, 2, jnp.inf, "inf")
        for s in (False, True)
    ],
    "norm complex": lambda t: [t.tree_norm(COMPLEX), t.tree_norm(COMPLEX, 1), t.tree_norm({})],
    "batch_shape": lambda t: [t.tree_batch_shape(X, (2, 4)), t.tree_batch_shape(X)],
    "zeros_like": lambda t: [t.tree_zeros_like(X), t.tree_zeros_like(X, dtype=jnp.int32)],
    "ones_like": lambda t: [t.tree_ones_like(X), t.tree_ones_like(X, jnp.bfloat16)],
    "full_like": lambda t: [
        t.tree_full_like(X, 3),
        t.tree_full_like(X, fill_value=2.5, dtype=jnp.float16),
    ],
    "clip": lambda t: [
        t.tree_clip(X, -0.5, 0.5),
        t.tree_clip(X, max_value=0.1),
        t.tree_clip(X, jnp.float32(0)),
    ],
    "update_moment": lambda t: [t.tree_update_moment(X, Y, 0.9, n) for n in (1, 2, 3)],
    "update_moment_per_elem_norm": lambda t: [
        t.tree_update_moment_per_elem_norm(X, SQUARES, 0.9, n) for n in (1, 2, 3)
    ],
    "complex moments": lambda t: [
        t.tree_update_moment_per_elem_norm(COMPLEX, {"z": jnp.ones(2)}, jnp.float32(0.9), n)
        for n in (1, 2, 4)
    ],
    "update_infinity_moment": lambda t: [t.tree_update_infinity_moment(X, SQUARES, 0.9, 1e-3)],
    "bias_correction": lambda t: [
        t.tree_bias_correction(X, 0.9, jnp.int32(n)) for n in (1, 5, 1000)
    ],
    "where": lambda t: [t.tree_where(True, X, Y), t.tree_where(jnp.array(False), X, Y)],
    "allclose": lambda t: [
        t.tree_allclose(X, X),
        t.tree_allclose(X, Y),
        t.tree_allclose(X, Y, atol=10.0),
    ],
    "cast": lambda t: [t.tree_cast(X, jnp.bfloat16), t.tree_cast(X, None)],
    "cast_like": lambda t: [t.tree_cast_like(X, t.tree_cast(Y, jnp.float16))],
    "split_key_like": lambda t: [
        jax.random.key_data(jax.tree.leaves(t.tree_split_key_like(KEY, X))[0])
    ],
    "random_like": lambda t: [
        t.tree_random_like(KEY, X),
        t.tree_random_like(KEY, X, jax.random.uniform, jnp.float16),
        t.tree_random_like(
            KEY, X, sampler=lambda key, shape, dtype: jax.random.laplace(key, shape, dtype)
        ),
    ],
    "unwrap_random_key_data": lambda t: [
        t.tree_unwrap_random_key_data({"k": KEY, "x": jnp.ones(2)})
    ],
}


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("name", one_in(3, CALLS))
def test_results_are_those_of_optax(name):
    mine, theirs = CALLS[name](gx.tree_utils), CALLS[name](optax.tree_utils)
    assert jax.tree.structure(mine) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        if jnp.issubdtype(jnp.result_type(b), jnp.inexact):
            assert jnp.result_type(a) == jnp.result_type(b)
        np.testing.assert_allclose(
            np.asarray(a, complex), np.asarray(b, complex), rtol=2e-6, atol=1e-7
        )


@pytest.mark.parametrize("name", CALLS)
def test_strict_promotion_is_no_obstacle(name):
    jax.block_until_ready(CALLS[name](gx.tree_utils))


def test_every_name_is_tested():
    public = {name for name in dir(optax.tree) if not name.startswith("_")}
    here = {name.removeprefix("complex ").partition(" ")[0] for name in CALLS}
    assert public <= here | {"dtype", "get", "get_all_with_path", "set", "map_params"}


def test_the_names_without_their_prefix():
    for name in (name for name in dir(optax.tree) if not name.startswith("_")):
        assert (
            getattr(gx.tree, name)
            is getattr(gx.tree, f"tree_{name}")
            is getattr(gx.tree_utils, f"tree_{name}")
        )
    with pytest.raises(AttributeError, match=r"'gradxform\.tree' has no attribute 'tree_ad'"):
        gx.tree.tree_ad  # noqa: B018


def test_the_names_that_optax_had_before():
    np.testing.assert_allclose(gx.tree_utils.tree_l2_norm(X), gx.tree.norm(X))
    np.testing.assert_allclose(gx.tree_utils.tree_l1_norm(X), gx.tree.norm(X, ord=1))
    np.testing.assert_allclose(gx.tree_utils.tree_linf_norm(X), gx.tree.norm(X, ord="inf"))
    assert gx.tree_utils.tree_scalar_mul is gx.tree.scale
    assert gx.tree_utils.tree_add_scalar_mul is gx.tree.add_scale


BINARY = ("add", "sub", "mul", "div", "cast_like")


def test_none_leaves_stay_none():
    x, y = {"a": jnp.ones(2), "b": None}, {"a": jnp.full(2, 2.0), "b": None}
    full = {"a": jnp.full(2, 2.0), "b": jnp.ones(3)}
    calls = [partial(getattr(gx.tree, name), x, other) for name in BINARY for other in (y, full)]
    calls += [partial(getattr(gx.tree, name), full, x) for name in BINARY]
    calls += [
        partial(getattr(gx.tree, name), x)
        for name in ("conj", "real", "zeros_like", "ones_like", "clip")
    ]
    calls += [
        lambda: gx.tree.scale(2.0, x),
        lambda: gx.tree.add_scale(x, 2.0, full),
        lambda: gx.tree.full_like(x, 1.0),
        lambda: gx.tree.where(True, x, full),
        lambda: gx.tree.cast(x, jnp.float16),
        lambda: gx.tree.batch_shape(x, (2,)),
        lambda: gx.tree.update_moment(x, full, 0.9, 2),
        lambda: gx.tree.update_infinity_moment(x, y, 0.9, 1e-3),
        lambda: gx.tree.update_moment_per_elem_norm(x, y, 0.9, 2),
        lambda: gx.tree.bias_correction(x, 0.9, 3),
        lambda: gx.tree.random_like(KEY, x),
        lambda: gx.tree.split_key_like(KEY, x),
    ]
    for call in calls:
        out = call()
        assert out["b"] is None
        assert out["a"] is not None
    assert float(gx.tree.vdot(x, y)) == 4.0
    assert float(gx.tree.sum(x)) == float(gx.tree.size(x)) == 2.0
    assert gx.tree.allclose(x, x)


def test_dtypes_that_optax_lets_drift():
    narrow, wide = {"x": jnp.full(4096, 1 / 16, jnp.bfloat16)}, {"x": jnp.ones(4096)}
    scalar = jnp.float32(0.5)
    with jax.numpy_dtype_promotion("standard"):
        assert optax.tree.scale(scalar, narrow)["x"].dtype == jnp.float32
        assert optax.tree.update_moment(wide, narrow, 0.9, 2)["x"].dtype == jnp.float32
    assert gx.tree.scale(scalar, narrow)["x"].dtype == jnp.bfloat16
    assert gx.tree.add_scale(narrow, scalar, narrow)["x"].dtype == jnp.bfloat16
    assert gx.tree.update_moment(wide, narrow, 0.9, 2)["x"].dtype == jnp.bfloat16
    assert gx.tree.bias_correction(narrow, 0.999, 1)["x"].dtype == jnp.bfloat16
    assert gx.tree.add(narrow, wide)["x"].dtype == jnp.float32
    assert gx.tree.sum(narrow).dtype == gx.tree.norm(narrow).dtype == jnp.float32
    assert gx.tree.norm({"x": jnp.full(2, 300.0, jnp.float16)}) < jnp.inf
    assert float(gx.tree.sum(narrow)) == 256.0


def test_the_slope_of_a_norm_at_zero():
    assert np.isnan(jax.grad(optax.tree.norm)(jnp.zeros(2))).all()
    np.testing.assert_array_equal(jax.grad(gx.tree.norm)(jnp.zeros(2)), 0.0)
    with pytest.raises(ValueError, match="ord must be 1, 2 or 'inf'; got 3"):
        gx.tree.norm(X, 3)


@pytest.mark.usefixtures("standard_promotion")
def test_dtype_of_a_tree():
    mixed = {"a": jnp.ones(1, jnp.float16), "b": jnp.ones(1), "c": None}
    for handler in ("promote", "highest", "lowest"):
        assert gx.tree.dtype(mixed, handler) == optax.tree.dtype(mixed, handler)
    for tree in (X, {}, 1.0, mixed["a"]):
        assert gx.tree.dtype(tree) == optax.tree.dtype(tree)
    with pytest.raises(ValueError, match=r"differ in dtype: \['a: float16', 'b: float32'\]"):
        gx.tree.dtype(mixed)
    halves = {"a": jnp.ones(1, jnp.float16), "b": jnp.ones(1, jnp.bfloat16)}
    assert gx.tree.dtype(halves, "promote") == optax.tree.dtype(halves, "promote") == jnp.float32
    with pytest.raises(ValueError, match="neither of float16 and bfloat16 promotes to the other"):
        gx.tree.dtype(halves, "highest")
    with pytest.raises(ValueError, match="got 'largest'"):
        gx.tree.dtype(mixed, "largest")


# States

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}


def trained(tx, steps=2):
    state = tx.init(PARAMS)
    for _ in range(steps):
        _, state = tx.update(PARAMS, state, PARAMS)
    return state


def test_entries_by_optax_s_names():
    tx = gx.chain(gx.clip_by_global_norm(1.0), gx.adam(gx.linear_schedule(1.0, 0.0, 10)))
    state = trained(tx)
    assert gx.tree.get(state, "count") == gx.get(state, "step") == 2
    assert gx.tree.get(state, "mu") is gx.get(state, "m")
    assert gx.tree.get(state, "nu") is gx.get(state, "v")
    np.testing.assert_allclose(gx.tree.get(state, "learning_rate"), 0.9)
    assert gx.tree.get(state, "nothing") is None
    assert gx.tree.get(state, "nothing", 3) == 3
    with pytest.raises(KeyError, match="multiple values"):
        optax.tree.get(
            optax.chain(optax.adam(optax.linear_schedule(1.0, 0.0, 9))).init(PARAMS), "count"
        )


def test_what_matches_can_be_filtered():
    state = trained(gx.chain(gx.ema(0.9), gx.scale_by_rms(0.9), gx.trace(0.9)))
    found = gx.tree.get_all_with_path(state, "step")
    assert len(found) == 3
    path, value = found[0]
    assert path[-1] == gx.tree_utils.NamedTupleKey("RuleState", "step")
    assert str(path[-1]) == "RuleState.step"
    assert value == 2
    only = gx.tree.get_all_with_path(state, "w", lambda path, value: "scale_by_rms" in str(path))
    assert len(only) == 1
    assert len(gx.tree.get_all_with_path(state, "RuleState")) == 3
    with pytest.raises(KeyError, match=r"'w' may be any of \['ema/m/w', "):
        gx.tree.get(state, "w")
    assert gx.tree.get(state, "w", filtering=lambda path, value: "trace" in str(path)).shape == (
        2,
        3,
    )
    changed = gx.tree.set(state, lambda path, value: "trace" in str(path), w=7.0)
    np.testing.assert_array_equal(changed["trace"].slots["v"]["w"], 7.0)
    assert changed["ema"] == state["ema"]


def test_every_entry_of_a_name_is_set():
    state = gx.tree.set(
        trained(gx.chain(gx.ema(0.9), gx.scale_by_rms(0.9))), count=jnp.int32(9), mu=0.0
    )
    assert [int(x) for _, x in gx.tree.get_all_with_path(state, "count")] == [9, 9]
    np.testing.assert_array_equal(gx.get(state, "m")["w"], 0.0)
    with pytest.raises(KeyError, match="there is no 'moo'"):
        gx.tree.set(state, moo=1.0)
    with pytest.raises(ValueError, match="records what the last update used"):
        gx.tree.set(trained(gx.adam(0.1)), learning_rate=0.5)


def test_numbers_of_an_injected_optimizer():
    tx = gx.inject_hyperparams(gx.adamw)(1e-3)
    state = gx.tree.set(trained(tx), learning_rate=0.5)
    np.testing.assert_allclose(gx.tree.get(state, "learning_rate"), 0.5)
    updates, _ = tx.update(PARAMS, state, PARAMS)
    np.testing.assert_allclose(updates["w"], -0.5 * (1 + 1e-4), rtol=1e-4)
    with pytest.raises(ValueError, match="adamw: learning_rate must lie in"):
        gx.tree.set(state, learning_rate=-1.0)


@pytest.mark.usefixtures("standard_promotion")
def test_states_of_optax():
    state = optax.chain(optax.clip(1.0), optax.adam(1e-3)).init(PARAMS)
    for key in ("count", "mu", "nu", "ScaleByAdamState", "nothing"):
        mine, theirs = gx.tree.get(state, key), optax.tree.get(state, key)
        assert jax.tree.structure(mine) == jax.tree.structure(theirs)
        assert len(gx.tree.get_all_with_path(state, key)) == len(
            optax.tree.get_all_with_path(state, key)
        )
    mine, theirs = gx.tree.set(state, count=jnp.int32(4)), optax.tree.set(state, count=jnp.int32(4))
    assert optax.tree.get(mine, "count") == optax.tree.get(theirs, "count") == 4
    params = jnp.ones(())
    counted = [
        t.map_params(optax.adam(0.1), lambda x: 2 * x + 1, optax.adam(0.1).init(params))
        for t in (gx.tree, optax.tree)
    ]
    chex.assert_trees_all_equal(*counted)


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_what_belongs_to_the_parameters(name):
    tx = TRANSFORMATIONS[name].make()
    state = tx.init(PARAMS)
    marked = gx.tree_map_params(
        tx, lambda x: "of a parameter", state, transform_non_params=lambda x: "other"
    )
    expected = [leaf for _, leaf, owner in states.owners(state, PARAMS) if owner is not None]
    assert jax.tree.leaves(marked).count("of a parameter") == len(expected)
    assert len(jax.tree.leaves(marked)) == len(jax.tree.leaves(state))


def test_specs_of_a_state():
    tx = gx.chain(
        gx.clip_by_global_norm(1.0),
        gx.partition({"w": gx.adam(0.1), "b": gx.sgd(0.1, 0.9)}, {"w": "w", "b": "b"}),
    )
    state = tx.init(PARAMS)
    specs = gx.tree.map_params(
        tx.init,
        lambda _, spec: spec,
        state,
        {"w": "W", "b": "B"},
        transform_non_params=lambda _: "-",
    )
    assert specs["partition"]["w"]["ema"].slots["m"] == {"w": "W", "b": None}
    assert specs["partition"]["b"]["momentum"].slots["v"] == {"w": None, "b": "B"}
    assert specs["partition"]["w"]["ema"].step == "-"
    before = trained(tx)
    after = gx.tree.map_params(tx, lambda x: 2 * x, before)
    mine, old = (state["partition"]["w"]["ema"] for state in (after, before))
    np.testing.assert_array_equal(mine.slots["m"]["w"], 2 * old.slots["m"]["w"])
    assert mine.step == old.step == 2
