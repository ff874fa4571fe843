"""What public code written for Optax reads and calls, found in other people's repositories."""

import copy
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization

import gradxform as gx
from gradxform.core.states import PartitionState

pytestmark = pytest.mark.usefixtures("standard_promotion")
PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
LABELS = {"w": "fast", "b": "rest"}


def trained(tx, params=PARAMS):
    return tx.update(params, tx.init(params), params)[1]


# a state, a name read on it -> the same in Optax
READ = {
    "adam count": lambda o, s: s(o.adam(0.1))[0].count,
    "adam mu": lambda o, s: s(o.adam(0.1))[0].mu,
    "scale_by_adam": lambda o, s: [s(o.scale_by_adam()).count, s(o.scale_by_adam()).nu],
    "belief": lambda o, s: [s(o.scale_by_belief()).mu, s(o.scale_by_belief()).nu],
    "rms": lambda o, s: s(o.scale_by_rms()).nu,
    "trace": lambda o, s: s(o.chain(o.clip(1.0), o.trace(0.9)))[1].trace,
    "sgd": lambda o, s: s(o.sgd(0.1, momentum=0.9))[0].trace,
    "ema": lambda o, s: [s(o.ema(0.9)).ema, s(o.ema(0.9)).count],
    "finite": lambda o, s: [
        getattr(s(o.apply_if_finite(o.adam(0.1), 2)), name)
        for name in ("notfinite_count", "total_notfinite", "last_finite")
    ],
    "finite inner": lambda o, s: s(o.apply_if_finite(o.adam(0.1), 2)).inner_state[0].mu,
    "masked": lambda o, s: s(o.masked(o.trace(0.9), {"w": True, "b": True})).inner_state.trace,
    "groups": lambda o, s: (
        s(
            o.multi_transform(
                {"fast": o.ema(0.9), "rest": o.set_to_zero()}, {"w": "fast", "b": "fast"}
            )
        )
        .inner_states["fast"]
        .inner_state.ema
    ),
    "steps": lambda o, s: [
        s(multi(o)).mini_step,
        s(multi(o)).gradient_step,
        s(multi(o)).inner_opt_state[0].mu,
        s(multi(o)).acc_grads,
    ],
    "plateau": lambda o, s: s(o.contrib.reduce_on_plateau(patience=3)).plateau_count,
}


def multi(o):
    tx = o.MultiSteps(o.adam(0.1), 2)
    return tx if o is gx else tx.gradient_transformation()


def gx_state(tx):
    return tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=1.0)[1]


def optax_state(tx):
    tx = optax.with_extra_args_support(tx)
    return tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=1.0)[1]


@pytest.mark.parametrize("name", READ)
def test_states_answer_to_the_names_of_optax(name):
    mine, theirs = READ[name](gx, gx_state), READ[name](optax, optax_state)
    chex.assert_trees_all_close(mine, theirs, rtol=2e-5)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda o: o.adam(0.1), "count"),
        (lambda o: o.adam(0.1), "mu"),
        (lambda o: o.adam(0.1), "nu"),
        (lambda o: o.sgd(0.1, momentum=0.9), "trace"),
        (lambda o: o.chain(o.trace(0.9), o.clip(1.0)), "trace"),
        (lambda o: o.chain(o.ema(0.9), o.clip(1.0)), "ema"),
        (lambda o: multi(o), "acc_grads"),
        (lambda o: multi(o), "gradient_step"),
        (lambda o: o.apply_if_finite(o.adam(0.1), 2), "last_finite"),
        (lambda o: o.apply_if_finite(o.adam(0.1), 2), "total_notfinite"),
    ],
)
def test_tree_get_finds_them(make, name):
    mine, theirs = gx_state(make(gx)), optax_state(make(optax))
    chex.assert_trees_all_close(gx.tree.get(mine, name), optax.tree.get(theirs, name), rtol=2e-5)


def test_what_cannot_be_answered_says_gx_get():
    state = trained(gx.adam(0.1))
    with pytest.raises(
        AttributeError, match=r"no 'nu'; it has \['step', 'm'\]; gx.get\(state, 'nu'"
    ):
        state[0].nu  # noqa: B018
    assert gx.get(state, "nu") is state[1].slots["v"]
    two = trained(gx.chain(gx.trace(0.9), ("second", gx.trace(0.5))))
    for name in ("trace_", "mu", "acc_grads"):
        with pytest.raises(AttributeError, match=r"gx\.get"):
            getattr(two, name)
    assert not hasattr(state[0], "gradient_step")
    with pytest.raises(AttributeError):
        state[0].mu = 1
    with pytest.raises(AttributeError, match=r"MaskedState has no 'm'.*gx\.get"):
        trained(gx.masked(gx.ema(0.9), {"w": True, "b": False})).m  # noqa: B018


def test_get_and_set_take_the_names_too():
    state = trained(gx.adam(0.1))
    assert gx.get(gx.set(state, "mu", 0.5), "m")["b"][0] == 0.5
    assert gx.get(gx.tree.set(state, nu=2.0), "v")["b"][0] == 2.0
    assert int(gx.get(state, "ema/count")) == 1


def test_the_states_of_groups_are_read_as_everywhere():
    groups = {"rest": gx.sgd(0.1, 0.9), "fast": gx.inject_hyperparams(gx.adam)(0.1)}
    tx = gx.partition(groups, LABELS)
    state = tx.init(PARAMS)
    assert isinstance(state, PartitionState)
    assert state.keys() == groups.keys()
    rates = state.inner_states["fast"].inner_state.hyperparams
    rates["learning_rate"] = jnp.float32(0.5)  # as every training step of some programs does
    updates, new = jax.jit(lambda tx, s: tx.update(PARAMS, s, PARAMS))(tx, state)
    np.testing.assert_allclose(updates["w"], -0.5, rtol=1e-5)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    for other in (pickle.loads(pickle.dumps(state)), copy.deepcopy(state)):
        assert type(other) is PartitionState
        chex.assert_trees_all_equal(other["rest"], state["rest"])
    plain = gx.partition({1: gx.ema(0.9), 2: gx.trace(0.9)}, {"w": 1, "b": 2})
    state = plain.init(PARAMS)
    assert state[1].slots.keys() == {"m"}
    with pytest.raises(KeyError, match=r"no group 0; there are \[1, 2\]"):
        state[0]
    updates, _ = plain.update(PARAMS, dict(state.items()), PARAMS)  # a checkpoint's
    chex.assert_trees_all_equal(updates, PARAMS)


def test_flax_serializes_the_states_of_groups():
    tx = gx.partition({"rest": gx.sgd(0.1, 0.9), "fast": gx.adam(0.1)}, LABELS)
    state = trained(tx)
    restored = serialization.from_bytes(tx.init(PARAMS), serialization.to_bytes(state))
    assert type(restored) is PartitionState
    chex.assert_trees_all_equal(restored, state)


@pytest.mark.parametrize("state", [None, (), optax.EmptyState(), gx.EmptyState()])
def test_stateless_rules_take_an_empty_state(state):
    clip = gx.clip_by_global_norm(1.0)
    expected, _ = clip.update(PARAMS, clip.init(PARAMS))
    updates, new = clip.update(PARAMS, state)
    chex.assert_trees_all_equal(updates, expected)
    assert new is state
    for tx in (
        gx.clip(1.0),
        gx.scale(2.0),
        gx.identity(),
        gx.set_to_zero(),
        gx.scale_by_learning_rate(0.1),
    ):
        assert jax.jit(tx.update)(PARAMS, state)[1] == state
    masked = gx.masked(gx.scale(2.0), {"w": True, "b": False})
    assert masked.update(PARAMS, state)[1] == state


def test_what_remembers_takes_no_empty_state():
    for tx in (gx.ema(0.9), gx.adam(0.1), gx.sgd(0.1), gx.scale(gx.linear_schedule(1.0, 0.0, 5))):
        with pytest.raises(ValueError, match="this state belongs to another"):
            tx.update(PARAMS, ())


def test_a_state_with_parts_that_are_not_here():
    with pytest.raises(ValueError, match="ema: this state belongs to another chain"):
        gx.sgd(0.1).update(PARAMS, gx.adam(0.1).init(PARAMS), PARAMS)


@pytest.mark.parametrize("name", ["values", "grads", "losses", "keys", "gradient"])
def test_extra_arguments_reach_the_part_that_takes_them(name):
    seen = []

    def update(u, s, p=None, **extra):
        seen.append(extra)
        return u, s

    named = {"gradient": lambda u, s, p=None, *, gradient: update(u, s, p, gradient=gradient)}
    part = gx.GradientTransformation(lambda p: (), named.get(name, update))
    tx = gx.accumulate(gx.chain(part, gx.scale(1.0)), 1) if name == "keys" else gx.chain(part)
    tx.update(PARAMS, tx.init(PARAMS), PARAMS, **{name: PARAMS})
    assert name in seen[0]
    if name != "gradient":
        with pytest.raises(TypeError, match=f"unknown keyword argument '{name}'; did you mean"):
            gx.adam(0.1).update(PARAMS, gx.adam(0.1).init(PARAMS), PARAMS, **{name: 1.0})


def test_skip_functions_return_optax_s_pair():
    bad = {"w": jnp.array([1.0, jnp.nan, jnp.inf]), "b": jnp.ones(2)}
    for g in (PARAMS, bad):
        mine, theirs = gx.skip_not_finite(g, 0, None), optax.skip_not_finite(g, 0, None)
        chex.assert_trees_all_equal(mine, theirs)
        mine = gx.skip_large_updates(g, 0, None, 3.0)
        chex.assert_trees_all_equal(mine, optax.skip_large_updates(g, 0, None, 3.0))


def test_masks_and_labels_nest():
    """A tree of labels inside a group speaks of leaves that are not there."""
    mask, labels = {"w": True, "b": False}, {"w": "fast", "b": "rest"}
    made = {
        "adamw": lambda o: o.multi_transform(
            {"fast": o.adamw(0.1, mask=mask), "rest": o.set_to_zero()}, labels
        ),
        "lamb": lambda o: o.multi_transform(
            {"fast": o.lamb(0.1, mask=mask), "rest": o.sgd(0.1)}, labels
        ),
        "masked": lambda o: o.masked(o.masked(o.scale(2.0), mask), {"w": False, "b": True}),
        "groups": lambda o: o.multi_transform(
            {
                "fast": o.sgd(1.0),
                "rest": o.multi_transform({"fast": o.sgd(2.0), "rest": o.sgd(3.0)}, labels),
            },
            labels,
        ),
        "frozen": lambda o: o.selective_transform(
            o.adamw(0.1, mask=mask), freeze_mask={"w": True, "b": False}
        ),
    }
    for name, make in made.items():
        mine, theirs = make(gx), make(optax)
        got, _ = mine.update(PARAMS, mine.init(PARAMS), PARAMS)
        expected, _ = theirs.update(PARAMS, theirs.init(PARAMS), PARAMS)
        chex.assert_trees_all_close(got, expected, rtol=1e-4, custom_message=name)


def test_labels_of_a_leaf_that_never_was_are_an_error():
    tx = gx.masked(gx.scale(2.0), {"w": True, "b": False, "c": True})
    with pytest.raises(ValueError, match=r"labels for \['c'\], where the parameters have no leaf"):
        tx.init({"w": jnp.ones(2), "b": None})
    tx.init({"w": jnp.ones(2), "b": jnp.ones(2), "c": None})
    inner = gx.masked(gx.scale(2.0), {"w": True, "b": {"x": True, "y": False}})
    inner.init({"w": jnp.ones(2), "b": None})  # a subtree that is absent


def test_tables_inside_freeze_need_not_cover_what_is_frozen():
    params = {"embed": {"w": jnp.ones(2)}, "block": {"w": jnp.ones(2)}}
    for rate in (
        gx.by_path({"block/**": 1e-3}),
        gx.by_path({lambda path, leaf: leaf.ndim == 1: 1e-3}),
    ):
        tx = gx.freeze("embed/**", gx.adamw(rate))
        updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
        np.testing.assert_allclose(updates["block"]["w"], -1e-3, rtol=1e-3)
        np.testing.assert_array_equal(updates["embed"]["w"], 0)
        assert "scale_by_learning_rate(learning_rate=0.001)" in str(gx.describe(tx, params))
    tx = gx.freeze(
        "embed/**", gx.sophia(gx.by_path({"block/**": 1e-3}), eps=gx.by_path({"block/**": 1e-3}))
    )
    tx.update(params, tx.init(params), params, obj_fn=lambda p: jnp.sum(p["block"]["w"] ** 2))
    with pytest.raises(ValueError, match=r"no pattern .* covers .'embed/w'"):
        gx.adamw(gx.by_path({"block/**": 1e-3})).init(params)


@pytest.mark.parametrize("name", ["adam", "adafactor", "sm3", "came", "adam_mini"])
def test_init_takes_shapes_alone(name):
    """Without `eval_shape` around it, as programs that place a state before there are numbers do."""
    params = {"w": jnp.ones((130, 140)), "b": jnp.ones(3), "s": jnp.ones(())}
    tx = getattr(gx, name)(0.1)
    state, expected = tx.init(jax.eval_shape(lambda: params)), tx.init(params)
    assert jax.tree.map(jax.typeof, state) == jax.tree.map(jax.typeof, expected)


def test_a_tunable_state_answers_too():
    state = trained(gx.tunable(gx.adam(0.1)))
    assert state.inner_state is state.inner
    assert int(state.count) == 1
    assert state.inner_state[0].mu is gx.get(state, "m")
