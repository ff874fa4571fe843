"""Leaves that no method can optimize stay what they are, and the others go on as if they were not there."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradxform as gx
from gradxform.core.frozen import is_frozen

WEIGHTS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
OTHERS = {"n": jnp.arange(3), "on": True, "key": jax.random.key(0), "f": jnp.tanh, "none": None}


def float0(x):
    return np.zeros(jnp.shape(x), jax.dtypes.float0)


GRADIENTS = WEIGHTS | {k: float0(OTHERS[k]) for k in ("n", "on", "key")} | {"f": None, "none": None}


def test_which_leaves_are_frozen():
    assert all(map(is_frozen, [3, True, jnp.arange(2), np.array(1), float0(1.0), len, jnp.tanh]))
    assert is_frozen(jax.random.key(0))
    assert not any(map(is_frozen, [1.0, 1j, jnp.ones(2), np.float16(1), None, "text"]))
    assert is_frozen(jax.ShapeDtypeStruct((2,), jnp.int8))


@pytest.mark.parametrize("given", [True, False], ids=["with parameters", "without"])
def test_they_stay_and_the_others_move(given):
    tx = gx.chain(gx.clip_by_global_norm(1.0), gx.sgd(0.1, momentum=0.9))
    params = WEIGHTS | OTHERS
    updates, state = tx.update(GRADIENTS, tx.init(params), params if given else None)
    alone, alone_state = tx.update(WEIGHTS, tx.init(WEIGHTS))
    chex.assert_trees_all_equal({k: updates[k] for k in WEIGHTS}, alone)
    assert updates["key"] is GRADIENTS["key"]
    v, kept = gx.get(state, "v"), gx.get(alone_state, "v")
    chex.assert_trees_all_equal(v, kept | dict.fromkeys(OTHERS))
    moved = gx.apply_updates(params, updates)
    for name in ("key", "f", "none"):
        assert moved[name] is OTHERS[name]
    assert bool(moved["on"]) is True
    np.testing.assert_array_equal(moved["n"], OTHERS["n"])
    np.testing.assert_array_equal(moved["w"], gx.apply_updates(WEIGHTS, alone)["w"])


def test_an_integer_gradient_is_a_zero_update_of_an_integer_parameter():
    params = {"w": jnp.ones(2), "n": jnp.arange(2)}
    tx = gx.adam(0.1)
    updates, _ = tx.update(params, tx.init(params), params)
    assert updates["n"].dtype == jnp.int32
    np.testing.assert_array_equal(updates["n"], [0, 0])
    with pytest.raises(TypeError, match="adam: update 'n' has dtype int32"):
        tx.update(params, tx.init(params))  # it may as well be a gradient by mistake


def test_groups_labels_and_masks_may_name_them():
    params = {"w": jnp.ones((2, 2)), "n": jnp.arange(3)}
    labels, mask = {"w": "a", "n": "z"}, {"w": True, "n": True}
    tx = gx.multi_transform({"a": gx.adamw(0.1, mask=mask), "z": gx.set_to_zero()}, labels)
    for n in (jnp.arange(3), float0(params["n"])):
        updates, _ = tx.update({"w": params["w"], "n": n}, tx.init(params), params)
        np.testing.assert_allclose(updates["w"], -0.10001, rtol=1e-4)
        assert updates["n"].dtype == jnp.int32
        for moved in (gx.apply_updates(params, updates), optax.apply_updates(params, updates)):
            np.testing.assert_array_equal(moved["n"], params["n"])


def test_a_rate_of_their_own_is_an_error():
    params = {"w": jnp.ones(2), "n": jnp.arange(2), "block": {"w": jnp.ones(2), "count": 3}}
    for rates in ({"n": 0.1, "**": 0.2}, {"block/count": 0.1, "**": 0.2}):
        tx = gx.chain(gx.clip(1.0), gx.adam(gx.by_path(rates)))
        words = f"'{next(iter(rates))}' gives a learning_rate to .*only real and complex leaves"
        with pytest.raises(TypeError, match=words):
            tx.init(params)
    for rates in ({"n": 0.0, "**": 0.2}, {"block/*": 0.1, "**": 0.2}):
        gx.adam(gx.by_path(rates)).init(params)


def test_a_function_of_the_parameters_is_given_all_of_them():
    params = {"w": jnp.ones(2), "f": jnp.tanh}
    tx = gx.polyak_sgd(1.0)

    def loss(params):
        return jnp.sum(params["f"](params["w"]) ** 2)

    taken = []
    part = gx.GradientTransformation(
        lambda p: (), lambda u, s, p=None, *, value_fn, **extra: (taken.append(value_fn(p)) or u, s)
    )
    tx = gx.chain(part, gx.scale(1.0))
    gradients = {"w": jnp.ones(2), "f": None}
    tx.update(gradients, tx.init(params), params, value_fn=loss)
    np.testing.assert_allclose(taken[0], loss(params))


def test_describe_lists_them():
    rows = {row.path: row for row in gx.describe(gx.adam(0.1), WEIGHTS | OTHERS).rows}
    assert {path for path, row in rows.items() if row.rules == ("frozen",)} == OTHERS.keys() - {
        "none"
    }
    assert [rows[k].dtype for k in ("n", "on", "key")] == ["int32", "bool", "key<fry>"]
    assert rows["n"].slots == {}
    assert rows["b"].slots["ema/m"] == 12
    assert "frozen" in str(gx.describe(gx.adam(0.1), WEIGHTS | OTHERS))


def test_updates_of_integers_are_added():
    moved = gx.apply_updates({"n": 3, "m": jnp.arange(2)}, {"n": 1, "m": jnp.ones(2, jnp.int32)})
    assert int(moved["n"]) == 4
    np.testing.assert_array_equal(moved["m"], [1, 2])
    assert moved["m"].dtype == jnp.int32
    assert gx.apply_updates(None, None) is None
    with pytest.raises(ValueError, match="apply_updates: there are no parameters"):
        gx.apply_updates(None, WEIGHTS)


def test_it_traces_under_jit_and_grad():
    params = {"w": jnp.ones(2), "n": jnp.arange(2)}
    tx = gx.adam(0.1)

    def step(params):
        g = jax.grad(lambda p: jnp.sum(p["w"] * p["n"].astype(float)), allow_int=True)(params)
        updates, _ = tx.update(g, tx.init(params), params)
        return gx.apply_updates(params, updates)

    out = jax.eval_shape(step, params)
    assert out["n"].dtype == jnp.int32
    assert out["w"].dtype == jnp.float32


def test_a_wider_parameter_widens_the_update():
    params, narrow = {"w": jnp.ones(2)}, {"w": jnp.ones(2, jnp.bfloat16)}
    for tx in (gx.sgd(1e-3), gx.skip_nonfinite(gx.sgd(1e-3)), gx.masked(gx.scale(-1e-3), "w")):
        updates, _ = tx.update(narrow, tx.init(params), params)
        assert updates["w"].dtype == jnp.float32
        np.testing.assert_array_equal(updates["w"], np.float32(-1e-3))
        updates, _ = tx.update(narrow, tx.init(narrow), narrow)
        assert updates["w"].dtype == jnp.bfloat16
