"""Chains: names and state, parts from elsewhere, use in Optax and Flax, and the gradient beside the updates."""

import pickle
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx, serialization
from flax.training.train_state import TrainState

import gradxform as gx
from gradxform.core.transform import Transform
from gradxform.interop.export import register_with_flax

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.array([0.3, -2.0, 1.0])}
GRADS = {"w": jnp.linspace(-2.0, 3.0, 6).reshape(2, 3), "b": jnp.array([1.0, 0.5, -4.0])}


def assert_same(got, expected, rtol=0.0, atol=0.0):
    chex.assert_trees_all_close(got, expected, rtol=rtol, atol=atol)


def run(tx, steps=3, params=PARAMS, state=None, **extra):
    """Parameters and state after a few updates with changing gradients."""
    state = tx.init(params) if state is None else state
    for i in range(steps):
        grads = jax.tree.map(lambda g, i=i: g * (1.0 - 0.7 * i), GRADS)
        updates, state = tx.update(grads, state, params, **extra)
        params = gx.apply_updates(params, updates)
    return params, state


# Names and state


def test_parts_are_named_after_their_constructors():
    tx = gx.chain(
        gx.clip(1.0), gx.ema(0.9), gx.ema(0.8), gx.ema(0.7), gx.chain(gx.scale(2.0)), gx.sgd(0.1)
    )
    assert list(tx.items) == ["clip", "ema", "ema_2", "ema_3", "chain", "sgd"]
    assert tx["ema_2"] == gx.ema(0.8)
    assert tx.init(PARAMS).keys() == tuple(tx.items)


def test_explicit_names_and_their_clashes():
    tx = gx.chain(("slow", gx.ema(0.99)), gx.ema(0.9), ("ema_2", gx.ema(0.8)), gx.ema(0.7))
    assert list(tx.items) == ["slow", "ema", "ema_2", "ema_3"]
    assert tx["ema_3"] == gx.ema(0.7)
    with pytest.raises(ValueError, match="chain: two parts are named 'slow'"):
        gx.chain(("slow", gx.ema(0.9)), ("slow", gx.clip(1.0)))
    with pytest.raises(ValueError, match="chain: two parts are named 'ema'"):
        gx.chain(gx.ema(0.9), ("ema", gx.ema(0.8)))


def test_none_is_skipped_and_nonsense_refused():
    assert gx.chain(None, gx.clip(1.0), None) == gx.chain(gx.clip(1.0))
    for bad in (3, "adam", (1, 2, 3), {"init": 1}, gx.adam):
        with pytest.raises(TypeError, match="chain: a part must be a transformation"):
            gx.chain(bad)


def test_the_state_is_a_record_by_name():
    tx = gx.chain(
        gx.clip(1.0),
        gx.ema(0.5, debias=False),
        ("inner", gx.chain(gx.scale_by_rms(0.9))),
        gx.sgd(0.1),
    )
    state = tx.init(PARAMS)
    _, state = tx.update(GRADS, state, PARAMS)
    assert isinstance(state["ema"], gx.RuleState)
    np.testing.assert_allclose(state["ema"].slots["m"]["b"], 0.5 * np.clip(GRADS["b"], -1, 1))
    np.testing.assert_allclose(
        state["inner"]["scale_by_rms"].slots["v"]["b"],
        0.1 * np.clip(GRADS["b"], -1, 1) ** 2,
        rtol=1e-6,
    )
    assert state["clip"].slots == {}
    assert state["ema"].step == 1
    assert state["ema"].step.dtype == jnp.int32
    assert state["sgd"].keys() == ("scale_by_learning_rate",)


def test_the_structure_of_a_state_does_not_depend_on_numbers():
    def structure(tx):
        return jax.tree.structure(tx.init(PARAMS))

    assert structure(gx.adamw(0.1, weight_decay=0.0)) == structure(gx.adamw(0.1, weight_decay=0.1))
    assert structure(gx.adam(0.1)) == structure(gx.adam(gx.linear_schedule(0.1, 0.0, 9), b1=0.0))
    assert structure(gx.momentum(0.0)) == structure(gx.momentum(0.9, 0.5))


def test_a_chain_is_a_value():
    tx = gx.chain(gx.clip(1.0), ("opt", gx.adam(0.1)))
    assert tx == gx.chain(gx.clip(1.0), ("opt", gx.adam(0.1)))
    assert tx != gx.chain(gx.clip(1.0), ("other", gx.adam(0.1)))
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tx)][
        :2
    ] == ["['clip'].max_delta", "['opt'].learning_rate"]


def test_a_nested_chain_means_its_parts_written_out():
    parts = [
        gx.clip(3.0),
        gx.ema(0.9),
        gx.scale_by_rms(0.99, eps_in_sqrt=False),
        gx.add_decayed_weights(0.1),
        gx.scale(-0.1),
    ]
    expected, _ = run(gx.chain(*parts))
    for nested in (
        gx.chain(gx.chain(*parts[:2]), gx.chain(*parts[2:])),
        gx.chain(
            gx.chain(gx.chain(parts[0]), gx.identity(), *parts[1:3]),
            gx.chain(*parts[3:], gx.chain()),
        ),
        gx.chain(parts[0], gx.chain(parts[1], gx.chain(parts[2])), *parts[3:]),
    ):
        assert_same(run(nested)[0], expected, rtol=1e-6)


def test_the_adam_identities():
    """Decision 3 of the design, in its own words."""
    rms = gx.scale_by_rms(0.999, eps_in_sqrt=False, bias_correction=True)
    assert_same(
        run(gx.chain(gx.ema(0.9), rms, gx.scale_by_learning_rate(0.1)))[0], run(gx.adam(0.1))[0]
    )
    plain = gx.chain(gx.ema(0.9, debias=False), gx.scale_by_rms(0.999), gx.scale(-0.1))
    heavy = gx.chain(gx.momentum(0.9, dampening=0.9), gx.scale_by_rms(0.999), gx.scale(-0.1))
    assert_same(run(plain)[0], run(heavy)[0], rtol=1e-5)
    assert_same(run(plain)[0], run(gx.adam_uncorrected(0.1))[0])
    first = gx.chain(gx.scale_by_rms(0.999), gx.momentum(0.9, dampening=0.9), gx.scale(-0.1))
    assert not np.allclose(run(first)[0]["b"], run(plain)[0]["b"], rtol=1e-3), (
        "statistics first is RMSprop with momentum"
    )


# Parts from elsewhere


def by_value(updates, state, params=None, *, value, **extra):
    return jax.tree.map(lambda u: u * value, updates), state


def by_value_alone(updates, state, params=None, *, value):
    return jax.tree.map(lambda u: u * value, updates), state


def by_value_positional(updates, state, params=None, value=1.0):
    return jax.tree.map(lambda u: u * value, updates), state


def no_keywords(updates, state, params=None):
    return updates, state


def nothing(params):
    return ()


@pytest.mark.parametrize("update", [by_value, by_value_alone, by_value_positional])
def test_a_foreign_pair_gets_the_keywords_it_takes(update):
    tx = gx.chain(gx.scale(2.0), (nothing, update), (nothing, no_keywords), gx.scale(3.0))
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS, value=jnp.float32(5.0), unheard_of=1.0)
    assert_same(updates, jax.tree.map(lambda g: 30 * g, GRADS))


def test_foreign_pairs_from_optax_in_a_chain(standard_promotion):
    """Stateful, with and without extra arguments, first, last and in the middle."""
    mine = gx.chain(
        optax.clip(2.0),
        gx.ema(0.9, debias=False),
        optax.trace(0.5),
        gx.scale(-0.1),
        optax.add_decayed_weights(0.01),
    )
    theirs = optax.chain(
        optax.clip(2.0),
        optax.ema(0.9, debias=False),
        optax.trace(0.5),
        optax.scale(-0.1),
        optax.add_decayed_weights(0.01),
    )
    got, state = run(mine)
    expected, _ = run(theirs)
    assert_same(got, expected, rtol=1e-6)
    assert list(mine.items) == ["clip", "ema", "trace", "scale", "add_decayed_weights"]
    assert isinstance(state["trace"], optax.TraceState)


def test_a_foreign_pair_with_extra_arguments_from_optax(standard_promotion):
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=1)
    tx = gx.chain(gx.scale(-1.0), plateau)
    _, state = run(tx, value=jnp.float32(1.0))
    assert state["reduce_on_plateau"].scale < 1.0
    expected, _ = run(optax.chain(optax.scale(-1.0), plateau), value=jnp.float32(1.0))
    assert_same(run(tx, value=jnp.float32(1.0))[0], expected)


def test_equal_foreign_pairs_are_equal():
    pair = optax.trace(0.9)
    assert gx.chain(pair) == gx.chain(pair)
    assert hash(gx.chain(pair)) == hash(gx.chain(pair))
    assert gx.chain(pair) != gx.chain(optax.trace(0.9))  # closures are equal only to themselves
    assert "0x" not in repr(gx.chain(pair))


def test_gradxform_inside_an_optax_chain(standard_promotion):
    for tx in (gx.adam(0.1), gx.chain(gx.clip(2.0), gx.momentum(0.9)), gx.tunable(gx.adamw(0.1))):
        got, _ = run(optax.chain(optax.scale(0.5), tx, optax.scale(2.0)))
        expected, _ = run(gx.chain(gx.scale(0.5), ("tx", tx), gx.scale(2.0)))
        assert_same(got, expected, rtol=1e-6)
    state = optax.chain(optax.scale(0.5), gx.adam(0.1)).init(PARAMS)
    assert isinstance(state[1]["ema"], gx.RuleState)


def test_optax_apply_updates_accepts_the_updates(standard_promotion):
    tx = gx.adam(0.1)
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    assert_same(optax.apply_updates(PARAMS, updates), gx.apply_updates(PARAMS, updates), rtol=1e-6)


# Flax


def train_state(tx):
    model = linen.Dense(2)
    params = model.init(jax.random.key(0), jnp.ones((1, 3)))["params"]
    return TrainState.create(apply_fn=model.apply, params=params, tx=tx)


@jax.jit
def train_step(state, x):
    grads = jax.grad(lambda params: jnp.mean(state.apply_fn({"params": params}, x) ** 2))(
        state.params
    )
    return state.apply_gradients(grads=grads)


FLAX = {
    "adam": lambda: gx.adam(0.1),
    "chain": lambda: gx.chain(
        gx.clip_by_global_norm(0.5), gx.adamw(gx.linear_schedule(0.1, 0.0, 10))
    ),
    "tunable": lambda: gx.tunable(gx.adam(0.1)),
    "noise": lambda: gx.chain(gx.add_noise(0.1, 0.55, 3), gx.zero_nans(), gx.sgd(0.1)),
}


@pytest.mark.parametrize("name", FLAX)
def test_train_state_saved_as_msgpack(name):
    register_with_flax()
    x = jnp.ones((4, 3))
    state = train_step(train_step(train_state(FLAX[name]()), x), x)
    fresh = state.replace(
        params=jax.tree.map(jnp.zeros_like, state.params),
        opt_state=FLAX[name]().init(state.params),
        step=0,
    )
    back = serialization.from_bytes(fresh, serialization.to_bytes(state))
    assert_same(back.opt_state, state.opt_state)
    assert_same(train_step(back, x).params, train_step(state, x).params)
    assert_same(train_step(back, x).opt_state, train_step(state, x).opt_state)


@pytest.mark.parametrize("name", FLAX)
def test_train_state_saved_by_orbax(name, tmp_path):
    import orbax.checkpoint as ocp

    x = jnp.ones((4, 3))
    state = train_step(train_state(FLAX[name]()), x)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        back = checkpointer.restore(tmp_path / "state", jax.eval_shape(lambda: state))
    assert_same(back.opt_state, state.opt_state)
    assert_same(train_step(back, x).params, train_step(state, x).params)
    assert not any(x.weak_type for x in jax.tree.leaves((state.opt_state, back.opt_state))), (
        "a restored state would retrace"
    )


def test_equal_optimizers_in_train_states_are_one_trace():
    traces = []

    @jax.jit
    def step(state):
        traces.append(state)
        return state.apply_gradients(grads=state.params)

    def make(lr):
        return TrainState.create(
            apply_fn=None, params=PARAMS, tx=gx.chain(gx.clip(1.0), gx.adam(lr))
        )

    step(make(0.1))
    step(make(0.1))
    assert len(traces) == 1
    step(make(0.2))
    assert len(traces) == 2


def test_nnx_optimizer_trains_and_passes_extra_arguments():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    tx = gx.chain(gx.clip_by_global_norm(1.0), gx.adam(0.1), gx.reduce_on_plateau(0.5, 1))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    x = jnp.ones((4, 3))

    @nnx.jit
    def step(model, optimizer):
        loss, grads = nnx.value_and_grad(lambda model: jnp.mean(model(x) ** 2))(model)
        optimizer.update(model, grads, value=jnp.float32(1.0), unheard_of=loss)
        return loss

    losses = [float(step(model, optimizer)) for _ in range(4)]
    assert losses[-1] < losses[0]
    plateau = nnx.to_pure_dict(nnx.state(optimizer))["opt_state"]["reduce_on_plateau"]["slots"]
    assert float(plateau["scale"]) == 0.5**3
    with pytest.raises(
        TypeError, match="reduce_on_plateau: update\\(\\) needs the keyword argument value="
    ):
        optimizer.update(model, nnx.state(model, nnx.Param))


def test_nnx_optimizer_equals_the_plain_loop():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, gx.adamw(0.1, weight_decay=0.3, mask="kernel"), wrt=nnx.Param)
    params = {"kernel": jnp.array(model.kernel[...]), "bias": jnp.array(model.bias[...])}
    grads = jax.tree.map(lambda p: p + 1, params)
    expected, _ = run_fixed(gx.adamw(0.1, weight_decay=0.3, mask="kernel"), params, grads)
    state = nnx.state(model, nnx.Param)
    nnx.replace_by_pure_dict(state, grads)
    for _ in range(2):
        optimizer.update(model, state)
    np.testing.assert_allclose(model.kernel[...], expected["kernel"], rtol=1e-6)
    np.testing.assert_allclose(model.bias[...], expected["bias"], rtol=1e-6)


def run_fixed(tx, params, grads, steps=2):
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(grads, state, params)
        params = gx.apply_updates(params, updates)
    return params, state


def test_none_leaves_as_equinox_filters_them():
    """A leaf that is None in params, gradients and state stays None; the others do not notice."""
    tx = gx.chain(
        gx.clip_by_global_norm(0.5),
        gx.adamw(0.1, weight_decay=gx.by_path({"w": 0.1, "**": 0.0})),
        gx.zero_nans(),
    )
    params = {"act": None, **PARAMS, "nested": [None, jnp.ones(2)]}
    grads = {"act": None, **GRADS, "nested": [None, jnp.full(2, 3.0)]}
    full = {**PARAMS, "nested": [jnp.ones(2)]}
    full_grads = {**GRADS, "nested": [jnp.full(2, 3.0)]}
    got, state = run_fixed(tx, params, grads)
    expected, _ = run_fixed(tx, full, full_grads)
    assert got["act"] is None
    assert got["nested"][0] is None
    assert state["adamw"]["ema"].slots["m"]["act"] is None
    np.testing.assert_array_equal(got["w"], expected["w"])
    np.testing.assert_array_equal(got["nested"][1], expected["nested"][0])


def test_a_none_update_keeps_the_parameter_whatever_it_is():
    params = {"w": jnp.ones(2, jnp.bfloat16), "step": jnp.int32(3), "name": "fixed"}
    out = gx.apply_updates(params, {"w": jnp.full(2, 0.5), "step": None, "name": None})
    assert out["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(out["w"], 1.5)
    assert out["step"] == 3
    assert out["name"] == "fixed"


# The gradient beside the updates


def _show(u, at):
    return at.g


def shown():
    """A part whose update is the gradient that it is shown."""
    return gx.leafwise(_show, name="shown")


FROZEN = {
    "nothing before": (lambda: (), 1.0),
    "no direction before": (lambda: (gx.scale(2.0), gx.scale(3.0)), 6.0),
    "heavy ball": (lambda: (gx.momentum(0.9),), 1.0),
    "a direction and what follows": (lambda: (gx.ema(0.9), gx.scale(3.0)), 1.0),
    "what precedes a direction": (lambda: (gx.scale(2.0), gx.ema(0.9), gx.scale(3.0)), 2.0),
    "the first of two directions": (
        lambda: (gx.scale(2.0), gx.ema(0.9), gx.scale(3.0), gx.momentum(0.9)),
        2.0,
    ),
    "a direction in a nested chain": (
        lambda: (gx.scale(2.0), gx.chain(gx.scale(2.0), gx.ema(0.9), gx.scale(5.0))),
        4.0,
    ),
    "a named optimizer with a direction": (lambda: (gx.scale(2.0), gx.adam(0.1)), 2.0),
    "a named optimizer without one": (lambda: (gx.scale(2.0), gx.sgd(0.5)), -1.0),
    "identity": (lambda: (gx.identity(), gx.ema(0.9), gx.identity()), 1.0),
    "after a measure of the whole tree": (lambda: (gx.ema(0.9), gx.clip_by_global_norm(0.1)), 1.0),
    "before a measure of the whole tree": (lambda: (gx.clip_by_global_norm(0.0), gx.ema(0.9)), 0.0),
    "a foreign part between": (lambda: (gx.ema(0.9), optax.scale(5.0)), 1.0),
    "a foreign part first": (lambda: (optax.scale(5.0), gx.ema(0.9)), 5.0),
    "foreign parts only": (lambda: (optax.scale(5.0),), 5.0),
    "a wrapped direction after a direction": (
        lambda: (gx.scale(2.0), gx.ema(0.9), gx.scale(3.0), gx.tunable(gx.ema(0.9))),
        2.0,
    ),
    "tunable": (lambda: (gx.scale(2.0), gx.tunable(gx.chain(gx.scale(7.0), gx.ema(0.9)))), 2.0),
}


@pytest.mark.filterwarnings("ignore:chain.*on_updates")
@pytest.mark.parametrize("name", FROZEN)
def test_what_a_part_is_shown_as_the_gradient(name):
    make, factor = FROZEN[name]
    tx = gx.chain(*make(), shown())
    state = tx.init(PARAMS)
    for scale in (1.0, -0.5):
        grads = jax.tree.map(lambda g, s=scale: s * g, GRADS)
        updates, state = tx.update(grads, state, PARAMS)
        assert_same(updates, jax.tree.map(lambda g: factor * g, grads), rtol=1e-6)


def test_what_a_nested_direction_freezes_reaches_the_outer_chain_unchanged():
    inner = gx.chain(gx.scale(2.0), gx.ema(0.9), gx.scale(5.0))
    for tx in (
        gx.chain(inner, shown()),
        gx.chain(gx.chain(inner), shown()),
        gx.chain(inner, gx.chain(shown())),
    ):
        updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
        assert_same(updates, jax.tree.map(lambda g: 2 * g, GRADS))


def _measure_both(updates, at):
    return ((sum(jnp.sum(u) for u in updates), sum(jnp.sum(g) for g in at.g)),)


def _give_both(u, at):
    sum_u, sum_g = at.scalars
    return jnp.full_like(u, sum_u) + 1000 * sum_g


def test_a_whole_tree_measure_after_a_direction_sees_updates_and_gradient():
    tx = gx.chain(
        gx.ema(0.5, debias=False), gx.scale(4.0), gx.leafwise(_give_both, measure=_measure_both)
    )
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    total = sum(float(np.sum(g)) for g in GRADS.values())
    np.testing.assert_allclose(updates["b"], 2 * total + 1000 * total, rtol=1e-6)


class Recorder(Transform):
    """A wrapper as users write them: it passes on what it wraps and records what it was given."""

    name = "recorder"

    def __init__(self, seen, direction=False):
        self.__dict__.update(seen=seen, direction=direction)

    def init(self, params):
        return jnp.zeros((), jnp.int32)

    def update(self, updates, state, params=None, **extra):
        self.seen.append((updates, params, extra))
        return jax.tree.map(lambda u: 10 * u, updates), state + 1


jax.tree_util.register_pytree_node(Recorder, lambda r: ((), (id(r.seen), r)), lambda aux, _: aux[1])


def test_a_wrapper_is_given_the_gradient_after_a_direction_only():
    before, after = [], []
    tx = gx.chain(
        gx.scale(2.0), Recorder(before), gx.ema(0.5, debias=False), Recorder(after), shown()
    )

    def step(grads):
        return tx.update(grads, tx.init(PARAMS), PARAMS, value=3.0)

    with jax.disable_jit():
        updates, state = step(GRADS)
    (_, params, extra), (given, _, later) = before[0], after[0]
    assert set(extra) == {"value"}
    assert params is not None
    assert set(later) == {"value", "gradient"}
    assert_same(later["gradient"], jax.tree.map(lambda g: 20 * g, GRADS))
    assert_same(given, jax.tree.map(lambda g: 10 * g, GRADS))
    assert_same(updates, later["gradient"])
    assert state["recorder"] == 1


class Nameless(Transform):
    """A transformation of a user that gives itself no name."""

    def init(self, params):
        return ()

    def update(self, updates, state, params=None, **extra):
        return jax.tree.map(lambda u: 2 * u, updates), state


jax.tree_util.register_static(Nameless)


def test_a_part_without_a_name_goes_by_its_class():
    tx = gx.chain(gx.scale(2.0), Nameless())
    assert list(tx.items) == ["scale", "nameless"]
    assert_same(tx.update(GRADS, tx.init(PARAMS), PARAMS)[0], jax.tree.map(lambda g: 4 * g, GRADS))
    assert_same(
        gx.tunable(Nameless()).update(GRADS, gx.tunable(Nameless()).init(PARAMS))[0],
        jax.tree.map(lambda g: 2 * g, GRADS),
    )


def test_a_wrapper_that_is_a_direction_freezes_what_entered_it():
    for direction, factor in ((True, 2.0), (False, 20.0)):
        tx = gx.chain(gx.scale(2.0), Recorder([], direction), shown())
        updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
        assert_same(updates, jax.tree.map(lambda g, f=factor: f * g, GRADS))


def test_a_gradient_given_by_a_caller_is_shown():
    """What a wrapper around a preconditioner does with the gradient= it was given."""
    gradient = jax.tree.map(lambda g: 7 * g, GRADS)
    for tx in (shown(), gx.chain(gx.ema(0.9), shown()), gx.chain(gx.scale(2.0), gx.chain(shown()))):
        updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS, gradient=gradient)
        assert_same(updates, gradient)
    with pytest.raises(
        ValueError,
        match="the gradients and the updates differ in structure: only in the updates: \\['b'\\]",
    ):
        gx.scale(1.0).update(GRADS, gx.scale(1.0).init(PARAMS), PARAMS, gradient={"w": GRADS["w"]})


def test_tunable_hands_the_gradient_on():
    tx = gx.chain(gx.ema(0.9), gx.tunable(gx.scale_by_rms(0.9)))
    expected = gx.chain(gx.ema(0.9), gx.scale_by_rms(0.9))
    assert_same(run(tx)[0], run(expected)[0], rtol=1e-6)


def test_the_frozen_gradient_keeps_its_dtype():
    grads = {"w": jnp.asarray([1.0, 3.0], jnp.bfloat16)}
    tx = gx.chain(gx.ema(0.9), gx.clip_by_global_norm(1.0), shown())
    params = {"w": jnp.ones(2)}
    for given, dtype in ((None, jnp.bfloat16), (params, jnp.float32)):
        updates, _ = tx.update(grads, tx.init(params), given)
        assert updates["w"].dtype == dtype
        np.testing.assert_array_equal(updates["w"].astype(jnp.bfloat16), grads["w"])


# Stateless parts, and numbers per leaf


def test_stateless_works_on_whole_trees():
    def centre(updates, params):
        mean = sum(jnp.mean(u) for u in jax.tree.leaves(updates)) / 2
        return jax.tree.map(lambda u: u - mean, updates)

    tx = gx.chain(gx.scale(2.0), gx.stateless(centre))
    updates, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    mean = np.mean([2 * np.mean(g) for g in GRADS.values()])
    np.testing.assert_allclose(updates["b"], 2 * np.asarray(GRADS["b"]) - mean, rtol=1e-6)
    assert state["centre"] == ()


def test_stateless_with_tree_map_works_on_one_leaf():
    def shrink(u, p):
        return u * 0.5 if p is None else u * p

    tx = gx.stateless_with_tree_map(shrink)
    assert tx.name == "shrink"
    assert_same(
        tx.update(GRADS, tx.init(PARAMS), PARAMS)[0], jax.tree.map(jnp.multiply, GRADS, PARAMS)
    )
    assert_same(tx.update(GRADS, tx.init(PARAMS))[0], jax.tree.map(lambda g: g * 0.5, GRADS))
    assert tx == gx.stateless_with_tree_map(shrink)
    assert_same(tx.update({"a": None}, tx.init({"a": None}))[0], {"a": None})


def _largest(updates, at):
    return (gx.PerLeaf([None if u is None else jnp.max(jnp.abs(u)) for u in updates]),)


def _divide(u, at):
    return u / at.scalars


def test_a_measure_may_give_each_leaf_its_own_number():
    tx = gx.chain(gx.scale(2.0), gx.leafwise(_divide, measure=_largest), gx.scale(1.0))
    params, grads = {**PARAMS, "none": None}, {**GRADS, "none": None}
    updates, _ = tx.update(grads, tx.init(params), params)
    assert_same(updates, {"w": GRADS["w"] / 3, "b": GRADS["b"] / 4, "none": None}, rtol=1e-6)


def _count_calls(updates, at, calls):
    return calls, calls + 1


def _add_scalar(u, at):
    return u + at.scalars


def _no_calls(params):
    return jnp.zeros(())


def test_a_measure_remembers():
    tx = gx.leafwise(_add_scalar, measure=_count_calls, memory={"calls": _no_calls})
    zero = jax.tree.map(jnp.zeros_like, GRADS)
    state = tx.init(PARAMS)
    for i in range(3):
        updates, state = tx.update(zero, state)
        np.testing.assert_array_equal(updates["b"], i)
    assert state.slots["calls"] == 3


# Extra arguments


def test_a_missing_value_is_an_error_that_names_the_part():
    tx = gx.chain(gx.sgd(0.1), gx.reduce_on_plateau())
    with pytest.raises(
        TypeError, match=r"reduce_on_plateau: update\(\) needs the keyword argument value="
    ):
        tx.update(GRADS, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize(
    "tx", [gx.sgd(0.1), gx.chain(gx.sgd(0.1), gx.reduce_on_plateau()), gx.chain(optax.scale(1.0))]
)
def test_a_misspelt_argument_is_an_error_with_the_right_spelling(tx):
    state = tx.init(PARAMS)
    with pytest.raises(
        TypeError, match=r"unknown keyword argument 'valeu'; did you mean 'value'\?"
    ):
        tx.update(GRADS, state, PARAMS, valeu=jnp.float32(3.0))


def test_unknown_arguments_are_ignored():
    tx = gx.chain(gx.sgd(0.1), gx.reduce_on_plateau())
    state = tx.init(PARAMS)
    expected, _ = tx.update(GRADS, state, PARAMS, value=1.0)
    got, _ = tx.update(
        GRADS, state, PARAMS, value=1.0, temperature=jnp.ones(3), note="a string", function=len
    )
    assert_same(got, expected)


# Eager calls


def counted(traces):
    def counting(u, at, *, size):
        traces.append(u.shape)
        return u * size

    return lambda size: gx.leafwise(counting, size=size)


def test_an_eager_call_is_one_compiled_program_for_all_numbers():
    traces: list[Any] = []
    make = counted(traces)
    state = gx.chain(make(0.1)).init(PARAMS)
    for size in (0.5, 0.25, 2.0):
        tx = gx.chain(make(size), gx.clip(100.0 * size))
        state = tx.init(PARAMS)
        for _ in range(2):
            updates, state = tx.update(GRADS, state, PARAMS)
        assert_same(updates, jax.tree.map(lambda g, s=size: s * g, GRADS))
    assert sorted(traces) == [(2, 3), (3,)], "traced once for each shape"


def test_equal_shapes_are_traced_once():
    traces: list[Any] = []
    params = {str(i): jnp.ones((2, 2)) * i for i in range(20)} | {"other": jnp.ones(3)}
    tx = counted(traces)(2.0)
    updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
    assert len(traces) == 2
    assert_same(updates, jax.tree.map(lambda p: 2 * p, params))


def test_a_bias_correction_is_computed_once_for_all_shapes():
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(3), "s": jnp.ones((3, 2))}

    def step(b1):
        tx = gx.adam(0.1, b1=b1)
        return tx.update(params, tx.init(params), params)[0]

    operations = [str(eqn.primitive) for eqn in jax.make_jaxpr(step)(0.9).eqns]
    assert operations.count("expm1") == 2, "one for each of the two averages"


def test_containers_of_any_kind():
    class Net(NamedTuple):
        layers: list
        head: tuple

    params = Net([jnp.ones(2), {"a": jnp.ones(3)}], (jnp.ones(()),))
    tx = gx.chain(gx.clip_by_global_norm(1.0), gx.adam(0.1))
    updates, _ = tx.update(params, tx.init(params), params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)


def test_look_ahead_is_where_a_zero_gradient_would_carry():
    """Nesterov's method as first written: the gradient at the look-ahead point, heavy ball."""
    tx = gx.sgd(0.1, momentum=0.9)
    params, state = PARAMS, tx.init(PARAMS)
    x, v = np.asarray(PARAMS["b"]), np.zeros(3)
    for _ in range(3):
        ahead = gx.nesterov_point(tx, state, params)
        np.testing.assert_allclose(ahead["b"], x - 0.1 * 0.9 * v, rtol=1e-5)
        updates, state = tx.update(jax.tree.map(lambda p: 2 * p, ahead), state, params)
        params = gx.apply_updates(params, updates)
        v = 0.9 * v + 2 * (x - 0.1 * 0.9 * v)
        x = x - 0.1 * v
        np.testing.assert_allclose(params["b"], x, rtol=1e-5)
