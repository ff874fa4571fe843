"""The arguments of a function that builds an optimizer, in its state: each case beside Optax's `inject_hyperparams`."""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx, serialization
from instances import TRANSFORMATIONS

import gradxform as gx
from gradxform.core import Named
from gradxform.state.access import holds_transforms

PARAMS = {"w": jnp.array([1.0, -2.0, 3.0]), "b": jnp.array(0.5)}
SCALES = (1.0, -0.5, 2.0)

pytestmark = pytest.mark.usefixtures("standard_promotion")


def falling(step):
    return 0.5 - 0.1 * step


FACTORIES = {
    "a constructor": lambda o: o.inject_hyperparams(o.sgd)(0.1, momentum=0.9),
    "a doubled rate": lambda o: o.inject_hyperparams(
        lambda learning_rate: o.sgd(2 * learning_rate)
    )(learning_rate=0.1),
    "another name": lambda o: o.inject_hyperparams(lambda lr: o.rmsprop(lr))(0.1),
    "a chain": lambda o: o.inject_hyperparams(
        lambda learning_rate, limit: o.chain(o.clip(limit), o.sgd(learning_rate, 0.9))
    )(learning_rate=0.1, limit=0.5),
    "an optimizer of Optax": lambda o: o.inject_hyperparams(optax.adamw)(0.1),
    "schedules": lambda o: o.inject_hyperparams(lambda lr, beta: o.sgd(lr, beta))(
        falling, beta=falling
    ),
    "a schedule of a constructor": lambda o: o.inject_hyperparams(o.sgd)(
        o.linear_schedule(0.5, 0.0, 5)
    ),
    "static names": lambda o: o.inject_hyperparams(o.adamw, static_args=("mask", "b2"))(
        0.1, mask=lambda p: jax.tree.map(lambda x: x.ndim > 0, p)
    ),
    "one static name": lambda o: o.inject_hyperparams(o.adamw, "b1")(
        0.1, mask={"w": True, "b": False}
    ),
    "a default": lambda o: o.inject_hyperparams(lambda lr=0.2, kind="sgd": getattr(o, kind)(lr))(),
    "keywords": lambda o: o.inject_hyperparams(functools.partial(o.adam, b1=0.5))(0.1),
}


def stepped(tx, change, steps=SCALES):
    params, state, out = PARAMS, tx.init(PARAMS), []
    for scale in steps:
        updates, state = tx.update(optax.tree.scale(scale, PARAMS), state, params)
        params = optax.apply_updates(params, updates)
        out.append((updates, dict(state.hyperparams), state.count))
        change(state)
    return out


@pytest.mark.parametrize("name", FACTORIES)
def test_the_numbers_and_the_steps_are_optax_s(name):
    def change(state):
        if "schedule" not in name:
            first = min(state.hyperparams)
            state.hyperparams[first] = jnp.asarray(state.hyperparams[first] * 0.5)

    mine, theirs = (stepped(FACTORIES[name](o), change) for o in (gx, optax))
    assert mine[0][1].keys() == theirs[0][1].keys()
    for a, b in zip(mine, theirs, strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-7), a, b)


def test_a_random_key_is_an_argument():
    def make(key, rate):
        return gx.stateless(lambda updates, _: jax.random.normal(key) * rate)

    tx = gx.inject_hyperparams(make)(jax.random.key(3), 2.0)
    state = jax.jit(tx.init)(jnp.zeros(()))
    updates, state = jax.jit(tx.update)(jnp.zeros(()), state)
    np.testing.assert_allclose(updates, 2 * jax.random.normal(jax.random.key(3)), rtol=1e-6)
    state.hyperparams["key"] = jax.random.key(4)
    updates, _ = tx.update(jnp.zeros(()), state)
    np.testing.assert_allclose(updates, 2 * jax.random.normal(jax.random.key(4)), rtol=1e-6)


def test_arguments_by_keyword_only():
    def make(learning_rate, **others):
        return gx.sgd(learning_rate, **others)

    state = gx.inject_hyperparams(make)(learning_rate=0.1, momentum=0.9).init(PARAMS)
    assert state.hyperparams.keys() == {"learning_rate", "momentum"}


class Grown:
    """A schedule with a state, which grows by what `update` is given."""

    def init(self):
        return {"sum": jnp.zeros(())}

    def update(self, state, **extra):
        return {"sum": state["sum"] + extra["by"]}

    def __call__(self, state, **extra):
        return 0.1 + state["sum"]


@pytest.mark.parametrize("named", [False, True])
def test_a_schedule_with_a_state(named):
    out = []
    for o in (gx, optax):
        factory = o.sgd if named else lambda learning_rate, o=o: o.sgd(learning_rate)
        tx = o.inject_hyperparams(factory)(learning_rate=Grown())
        state = tx.init(PARAMS)
        for by in (0.3, 0.4):
            updates, state = tx.update(PARAMS, state, PARAMS, by=by)
        out.append((updates, dict(state.hyperparams), state.hyperparams_states["learning_rate"]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *out)


def test_assigning_changes_this_state_and_no_older_one():
    tx = gx.inject_hyperparams(gx.sgd)(0.1)
    older = tx.init(PARAMS)
    _, state = tx.update(PARAMS, older, PARAMS)
    state.hyperparams["learning_rate"] = 0.5
    assert float(older.hyperparams["learning_rate"]) == pytest.approx(0.1)
    np.testing.assert_allclose(tx.update(PARAMS, state, PARAMS)[0]["w"], -0.5 * PARAMS["w"])
    replaced = state._replace(hyperparams={"learning_rate": jnp.float32(0.25)})
    np.testing.assert_allclose(tx.update(PARAMS, replaced, PARAMS)[0]["w"], -0.25 * PARAMS["w"])
    assert replaced.count == 1
    assert jax.tree.leaves(replaced.inner_state) == jax.tree.leaves(state.inner_state)


def test_a_number_keeps_its_dtype_and_nothing_is_traced_again():
    tx, traced = gx.inject_hyperparams(gx.sgd)(0.1, momentum=0.9), []

    @jax.jit
    def step(state):
        traced.append(1)
        return tx.update(PARAMS, state, PARAMS)[1]

    state = step(tx.init(PARAMS))
    for rate in (0.2, 0.3):
        state = step(state.replace(learning_rate=rate))
    assert traced == [1]
    assert state.hyperparams["learning_rate"].dtype == jnp.float32
    state.hyperparams["learning_rate"] = 0.4  # a Python number: the state is the same after it
    assert jax.tree.structure(step(state)) == jax.tree.structure(state)
    assert step(state).hyperparams["learning_rate"].weak_type is False


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_the_dtype_of_numbers(dtype):
    half = {"w": jnp.ones(2, jnp.bfloat16)}
    state = gx.inject_hyperparams(gx.sgd, hyperparam_dtype=dtype)(0.1).init(half)
    assert state.hyperparams["learning_rate"].dtype == (dtype or jnp.float32)
    theirs = gx.inject_hyperparams(optax.sgd)(0.1, 0.9)  # whose state would change its dtype
    state = theirs.init(half)
    updates, after = theirs.update(half, state, half)
    assert updates["w"].dtype == jnp.bfloat16
    assert jax.tree.map(jnp.result_type, after) == jax.tree.map(jnp.result_type, state)


def test_the_count_stays_at_the_largest_number():
    for o in (gx, optax):
        tx = o.inject_hyperparams(o.sgd)(lambda step: 0.5)
        state = tx.init(PARAMS)._replace(count=jnp.int32(2**31 - 2))
        for _ in range(2):
            _, state = tx.update(PARAMS, state, PARAMS)
            assert state.count == 2**31 - 1
            assert state.count.dtype == jnp.int32


def test_extra_arguments_reach_the_optimizer():
    tx = gx.inject_hyperparams(gx.polyak_sgd)(1.0)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=2.0)
    assert all(jnp.isfinite(u).all() for u in jax.tree.leaves(updates))


def test_a_step_inside_a_chain_is_that_of_the_optimizer():
    part = gx.inject_hyperparams(lambda decay: gx.trace(decay))(0.9)
    assert part.direction
    assert gx.chain(part, gx.inject_hyperparams(gx.scale_by_rms)()).init(PARAMS).keys() == (
        "trace",
        "scale_by_rms",
    )


def test_states_are_read_and_set_by_name():
    tx = gx.inject_hyperparams(lambda lr: gx.chain(gx.clip(1.0), gx.adam(lr)))(falling)
    state = tx.init(PARAMS)
    for _ in range(2):
        _, state = tx.update(PARAMS, state, PARAMS)
    assert float(gx.get(state, "lr")) == pytest.approx(0.4)
    assert float(gx.get(state, "learning_rate")) == pytest.approx(0.4)
    assert gx.get(state, "m")["b"].shape == ()
    assert gx.tree.get(state, "count") == state.count == 2
    assert gx.tree.get(state, "InjectStatefulHyperparamsState") is state
    assert gx.numbers(tx, state)["inner_state/clip/max_delta"] == 1.0
    rules = gx.describe(tx, PARAMS).rows[0].rules
    assert [rule.partition("(")[0] for rule in rules][:2] == ["clip", "ema"]
    one = gx.inject_hyperparams(gx.scale_by_learning_rate)(0.1)
    state = gx.set(one.init(PARAMS), "learning_rate", 0.5)
    assert float(gx.get(state, "learning_rate")) == 0.5
    _, after = one.update(PARAMS, state, PARAMS)
    assert gx.reset(after, one, PARAMS).count == 0
    assert gx.reset(after, one, PARAMS).hyperparams == state.hyperparams


def test_it_is_a_value_of_its_numbers():
    tx = gx.inject_hyperparams(gx.adamw)(0.1, weight_decay=0.5, mask={"w": True, "b": False})
    assert jax.tree.leaves(tx) == [0.9, 0.999, 1e-8, 0.0, 0.1, 0.5]
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert hash(tx) == hash(
        gx.inject_hyperparams(gx.adamw)(0.1, weight_decay=0.5, mask={"w": True, "b": False})
    )
    assert tx != gx.inject_hyperparams(gx.adamw)(
        0.2, weight_decay=0.5, mask={"w": True, "b": False}
    )
    shown = "inject_hyperparams(adamw)(learning_rate=0.1, weight_decay=0.5, mask={'b': False, 'w': True})"
    assert repr(tx) == shown
    unhashable = gx.inject_hyperparams(lambda lr, sizes: gx.sgd(lr * sizes[0]))(0.1, [2.0, 3.0])
    assert hash(unhashable) == hash(unhashable)
    assert "sizes=[2.0, 3.0]" in repr(unhashable)


def test_an_optimizer_as_an_argument():
    tx = gx.inject_hyperparams(gx.lookahead)(gx.sgd(0.1), 5, 0.5)
    assert 0.1 in jax.tree.leaves(tx)
    assert tx.init(PARAMS).hyperparams.keys() == {"slow_step_size", "sync_period"}


@pytest.mark.parametrize("around", [lambda tx: tx, lambda tx: gx.chain(gx.clip(1.0), tx)])
def test_flax_serializes_its_state(around):
    tx = around(gx.inject_hyperparams(lambda lr: gx.sgd(lr, 0.9))(0.1))
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    back = serialization.from_bytes(tx.init(PARAMS), serialization.to_bytes(state))
    assert jax.tree.structure(back) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, back, state)


def test_nnx_wraps_a_scheduled_number_as_any_other():
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    tx = gx.inject_hyperparams(gx.sgd)(gx.linear_schedule(1.0, 0.0, 10), momentum=0.8)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    grads = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
    optimizer.update(model, grads)
    optimizer.update(model, grads)
    rate, momentum = (optimizer.opt_state.hyperparams[k] for k in ("learning_rate", "momentum"))
    assert type(rate) is type(momentum)
    assert float(rate[...]) == pytest.approx(0.9)
    momentum[...] = jnp.float32(0.5)
    optimizer.update(model, grads)
    assert float(optimizer.opt_state.hyperparams["momentum"][...]) == 0.5


def test_what_cannot_be_said():
    with pytest.raises(TypeError, match=r"needs a function that builds an optimizer, adam and not"):
        gx.inject_hyperparams(gx.adam(0.1))
    with pytest.raises(
        ValueError, match=r"static_args: no argument 'nome'; the function has \['learning_rate'"
    ):
        gx.inject_hyperparams(gx.sgd, static_args="nome")
    tx = gx.inject_hyperparams(gx.sgd)(0.1)
    state = tx.init(PARAMS)
    unknown = r"sgd: no number named 'learning_rat'; it has \['learning_rate'\]"
    with pytest.raises(TypeError, match=unknown):
        state.replace(learning_rat=1.0)
    with pytest.raises(TypeError, match=unknown):
        state.hyperparams["learning_rat"] = 1.0
    with pytest.raises(TypeError, match="its numbers cannot be deleted"):
        del state.hyperparams["learning_rate"]
    for value, words in ((-1.0, "learning_rate must lie in"), (falling, "cannot become")):
        with pytest.raises(ValueError, match=f"sgd: .*{words}"):
            state.hyperparams["learning_rate"] = value
        with pytest.raises(ValueError, match=f"sgd: .*{words}"):
            gx.set(state, "learning_rate", value)
    other = state._replace(hyperparams={"rate": 1.0})
    with pytest.raises(
        TypeError,
        match=r"must have the names \['learning_rate'\]; 'learning_rate' is too many or missing",
    ):
        tx.update(PARAMS, other, PARAMS)
    with pytest.raises(ValueError, match="inject_hyperparams: this state belongs to another"):
        tx.update(PARAMS, gx.sgd(0.1).init(PARAMS), PARAMS)
    alone = gx.inject_hyperparams(lambda rate: gx.sgd(2 * rate))(0.1)
    with pytest.raises(ValueError, match="sgd: learning_rate must lie in"):
        alone.update(PARAMS, alone.init(PARAMS).replace(rate=-1.0), PARAMS)
    with pytest.raises(ValueError, match=r"inject_hyperparams: rate is .* cannot become None"):
        alone.init(PARAMS).hyperparams["rate"] = None


def test_what_a_schedule_gives_is_not_assigned_in_silence():
    """In Optax it is, and changes nothing."""
    for tx in (
        gx.inject_hyperparams(gx.sgd)(gx.linear_schedule(1.0, 0.0, 10)),
        gx.inject_hyperparams(lambda learning_rate: gx.sgd(learning_rate))(falling),
        gx.inject_hyperparams(gx.sgd)(Grown()),
    ):
        state = tx.init(PARAMS)
        for change in (
            lambda s: s.hyperparams.update(learning_rate=0.5),
            lambda s: s.hyperparams.__setitem__("learning_rate", 0.5),
            lambda s: gx.tree.set(s, learning_rate=0.5),
            lambda s: s.replace(learning_rate=0.5),
        ):
            with pytest.raises(ValueError, match="learning_rate is a schedule"):
                change(state)


def test_a_plain_dict_is_taken_and_becomes_what_init_gives():
    tx = gx.inject_hyperparams(gx.sgd)(0.1)
    state = tx.init(PARAMS)
    plain = state._replace(hyperparams=dict(state.hyperparams))
    assert isinstance(state.hyperparams, dict)
    _, after = tx.update(PARAMS, plain, PARAMS)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert dict(after.hyperparams) == dict(state.hyperparams)
    copied = pickle.loads(pickle.dumps(state))
    assert jax.tree.structure(copied) == jax.tree.structure(state)


def test_a_run_that_began_with_optax_goes_on():
    factory = lambda o: lambda lr: o.adam(lr)  # noqa: E731
    theirs = optax.inject_hyperparams(factory(optax))(0.1)
    _, saved = theirs.update(PARAMS, theirs.init(PARAMS), PARAMS)
    saved.hyperparams["lr"] = jnp.float32(0.03)
    tx = gx.inject_hyperparams(factory(gx))(0.5)
    state = gx.import_optax_state(tx, saved, PARAMS)
    assert state.count == 1
    a, b = (t.update(PARAMS, s, PARAMS)[0] for t, s in ((tx, state), (theirs, saved)))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), a, b)


CALLS = {name: x for name, x in TRANSFORMATIONS.items() if isinstance(x.make(), Named)}


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_every_constructor_s_numbers_are_hyperparameters(name):
    """Each as an array, with nothing computed: the state is a fixed point, and other arguments stay static."""
    entry, params = CALLS[name], {"w": jnp.ones((3, 2)), "b": jnp.ones(3)}
    tx = entry.make()
    injected = gx.inject_hyperparams(tx._function)(**tx.arguments)
    state = jax.eval_shape(injected.init, params)
    assert state.hyperparams.keys() == {
        k for k, x in tx._dynamic.items() if not holds_transforms(x)
    }
    assert injected.name == tx.name
    _, after = jax.eval_shape(
        lambda g, s: injected.update(g, s, params, **entry.extra), params, state
    )
    shapes, before = (jax.tree.map(lambda x: (x.shape, x.dtype), x) for x in (after, state))
    assert shapes == before
