"""The states of a chain's parts: by name, by position, by unpacking; as JAX, Flax and Orbax see them."""

import copy
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from flax import serialization

import gradxform as gx
from gradxform.core import ChainState, RuleState

PARAMS = {"b": jnp.ones(2), "a": jnp.ones((2, 3))}


def chained():
    parts = (
        gx.trace(0.9),
        gx.clip(1.0),
        ("second", gx.ema(0.8)),
        ("adam", gx.on_updates(gx.adam(1e-3))),
    )
    tx = gx.chain(*parts)
    state = tx.init(PARAMS)
    return tx, tx.update(PARAMS, state, PARAMS)[1]


def test_by_name_position_slice_and_unpacking():
    _, state = chained()
    trace, clip, second, adam = state
    assert state.keys() == ("trace", "clip", "second", "adam")
    assert state["second"] is second is state[2] is state[-2] is state.second
    assert state[1:3] == (clip, second)
    assert state.items()[0] == ("trace", trace)
    assert state.values() == (trace, clip, second, adam)
    assert "ema" not in state
    assert "adam" in state
    assert len(state) == 4
    assert isinstance(adam, ChainState)
    assert adam["ema"].slots.keys() == {"m"}


def test_jit_keeps_the_order():
    tx, _ = chained()
    state = jax.jit(tx.init)(PARAMS)
    assert state.keys() == ("trace", "clip", "second", "adam")
    assert tuple(state["second"].slots) == ("m",)


def test_what_is_missing_is_named():
    _, state = chained()
    with pytest.raises(KeyError, match=r"this chain has no state 'ema'; it has \['trace', 'clip'"):
        state["ema"]
    with pytest.raises(AttributeError, match="a chain's state has no 'rms'"):
        state.rms  # noqa: B018
    with pytest.raises(IndexError):
        state[4]
    with pytest.raises(ValueError, match="this chain has no state 'ema'"):
        state._replace(ema=())


def test_replaced_pickled_and_copied():
    _, state = chained()
    assert state._replace(clip=())["clip"] == ()
    assert state["clip"] != ()
    for other in (pickle.loads(pickle.dumps(state)), copy.deepcopy(state), copy.copy(state)):
        assert type(other) is ChainState
        assert other.keys() == state.keys()
        chex.assert_trees_all_equal(other, state)


def test_the_repr_reads_as_names_and_states():
    state = ChainState({"scale": RuleState(3, {}), "ema": RuleState(3, {"m": 1.0})})
    scale, ema = "RuleState(step=3, slots={})", "RuleState(step=3, slots={'m': 1.0})"
    assert repr(state) == f"ChainState(scale={scale}, ema={ema})"
    assert eval(repr(state)) == state


def test_key_paths_are_the_names():
    _, state = chained()
    paths = {jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(state)}
    assert "['trace'].slots['v']['a']" in paths
    assert "['adam']['ema'].step" in paths
    seen = []
    jax.tree_util.tree_map_with_path(lambda path, x: seen.append(path[0].key), state)
    assert list(dict.fromkeys(seen)) == ["trace", "clip", "second", "adam"]


def test_flax_serialization_needs_no_call():
    tx, state = chained()
    restored = serialization.from_bytes(tx.init(PARAMS), serialization.to_bytes(state))
    assert type(restored) is ChainState
    chex.assert_trees_all_equal(restored, state)
    assert serialization.to_state_dict(state)["second"]["step"] == 1
    with pytest.raises(ValueError, match="ema"):
        serialization.from_state_dict(gx.chain(gx.ema(0.9)).init(PARAMS), {"clip": {}})


def test_orbax_sees_names(tmp_path):
    tx, state = chained()
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", jax.eval_shape(lambda: state))
        plain = checkpointer.restore(tmp_path / "state")
    chex.assert_trees_all_equal(restored, state)
    assert type(restored) is ChainState
    np.testing.assert_array_equal(plain["trace"]["slots"]["v"]["a"], state["trace"].slots["v"]["a"])
    tx.update(PARAMS, restored, PARAMS)


def test_a_plain_dict_of_states_is_taken():
    tx, state = chained()
    plain = dict(state.items())
    updates, new = tx.update(PARAMS, plain, PARAMS)
    expected, expected_state = tx.update(PARAMS, state, PARAMS)
    chex.assert_trees_all_equal(updates, expected)
    chex.assert_trees_all_equal(new, expected_state)


def test_optax_finds_what_is_in_it():
    tx, state = chained()
    assert optax.tree_utils.tree_get(state, "second") is not None
    pair = optax.chain(optax.identity(), optax.GradientTransformation(tx.init, tx.update))
    updates, _ = pair.update(PARAMS, pair.init(PARAMS), PARAMS)
    chex.assert_tree_all_finite(updates)


def test_assigning_a_hyperparameter_changes_one_state_only():
    tx = gx.tunable(gx.adam(1e-3))
    before = tx.init(PARAMS)
    _, after = tx.update(PARAMS, before, PARAMS)
    after.hyperparams["learning_rate"] = 0.5
    assert float(after.hyperparams["learning_rate"]) == 0.5
    assert float(before.hyperparams["learning_rate"]) == pytest.approx(1e-3)
    replaced = after.replace(learning_rate=0.25)
    assert float(after.hyperparams["learning_rate"]) == 0.5
    assert float(replaced.hyperparams["learning_rate"]) == 0.25
