"""An optimizer is a value: it compares, hashes, prints as code, pickles, stacks, differentiates, and lives in its own state."""

import inspect
import pickle
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training.train_state import TrainState
from thinned import one_in

import gradxform as gx
from gradxform.core.hyper import Range
from gradxform.core.slots import copied, zeros
from gradxform.core.transform import Transform

CODE = {**vars(gx), "jnp": jnp, "jax": jax}
PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.array([0.3, -2.0, 1.0])}
GRADS = {"w": jnp.linspace(-2.0, 3.0, 6).reshape(2, 3), "b": jnp.array([1.0, 0.5, -4.0])}


def is_matrix(path, leaf):
    return leaf.ndim == 2


def halve(updates, params):
    return jax.tree.map(lambda u: u / 2, updates)


def sign_rule(u, at, *, size):
    return size * jnp.sign(u)


def keep_slot(u, at, x):
    return u, x


VALUES = {
    "adam": lambda: gx.adam(1e-3),
    "another number": lambda: gx.adam(2e-3),
    "another static argument": lambda: gx.adam(1e-3, nesterov=True),
    "another dtype": lambda: gx.adam(1e-3, mu_dtype="bfloat16"),
    "another constructor": lambda: gx.adam_uncorrected(1e-3),
    "a float32 array": lambda: gx.adam(jnp.float32(1e-3)),
    "a bfloat16 array": lambda: gx.adam(jnp.bfloat16(1e-3)),
    "an array of many": lambda: gx.adam(jnp.array([1e-3, 2e-3], jnp.float32)),
    "a NumPy array of many": lambda: gx.adam(np.array([[1e-3, 2e-3]], np.float32)),
    "a schedule": lambda: gx.adam(gx.linear_schedule(1e-3, 0.0, 100)),
    "a longer schedule": lambda: gx.adam(gx.linear_schedule(1e-3, 0.0, 200)),
    "a function": lambda: gx.adam(optax_like),
    "a table": lambda: gx.adamw(1e-3, weight_decay=gx.by_path({"**/kernel": 0.1, "**": 0.0})),
    "a table in another order": lambda: gx.adamw(
        1e-3, weight_decay=gx.by_path({"**": 0.0, "**/kernel": 0.1})
    ),
    "a table with a schedule": lambda: gx.sgd(
        gx.by_path({"a": gx.linear_schedule(0.1, 0.0, 9), "**": 0.1})
    ),
    "a predicate": lambda: gx.adamw(1e-3, mask=is_matrix),
    "a pattern": lambda: gx.adamw(1e-3, mask="**/kernel"),
    "a pattern, under our name": lambda: gx.adamw(1e-3, where="*/kernel"),
    "a convention": lambda: gx.rmsprop(1e-3, convention="torch"),
    "manual": lambda: gx.sgd(gx.manual_schedule((0.1, 0.01, 0.2), (10, 20))),
    "piecewise": lambda: gx.sgd(gx.piecewise_constant_schedule(0.1, {100: 0.5, 50: 0.1})),
    "joined": lambda: gx.sgd(gx.join_schedules((gx.linear_schedule(0.0, 1.0, 5), 0.5), (5,))),
    "noise": lambda: gx.add_noise(0.1, 0.55, 3),
    "a chain": lambda: gx.chain(gx.clip(1.0), gx.adam(1e-3)),
    "a chain in another order": lambda: gx.chain(gx.adam(1e-3), gx.clip(1.0)),
    "a chain with names": lambda: gx.chain(("cut", gx.clip(1.0)), gx.adam(1e-3)),
    "a chain of a chain": lambda: gx.chain(gx.chain(gx.clip(1.0)), gx.adam(1e-3)),
    "repeated parts": lambda: gx.chain(gx.ema(0.9), gx.ema(0.8), ("ema_7", gx.ema(0.7))),
    "tunable": lambda: gx.tunable(gx.adam(1e-3)),
    "stateless": lambda: gx.stateless(halve),
    "leafwise": lambda: gx.leafwise(sign_rule, size=0.5),
    "identity": gx.identity,
}
NO_CODE = {
    "a function",
    "a predicate",
    "stateless",
    "leafwise",
}  # their repr names a function of this file


def optax_like(step):
    return 0.1 / (1 + step)


@pytest.mark.parametrize("name", VALUES)
def test_equal_hash_and_pickle(name):
    tx, same = VALUES[name](), VALUES[name]()
    assert tx is not same
    assert tx == same
    assert (tx != same) is False
    assert hash(tx) == hash(same)
    copy = pickle.loads(pickle.dumps(tx))
    assert copy == tx
    assert hash(copy) == hash(tx)
    assert type(copy) is type(tx)
    leaves, structure = jax.tree.flatten(tx)
    assert structure.unflatten(leaves) == tx


def test_different_values_are_unequal():
    values = {name: make() for name, make in VALUES.items()}
    for name, tx in values.items():
        for other, ty in values.items():
            assert (tx == ty) == (name == other), (name, other)
    assert len(set(values.values())) == len(values)


@pytest.mark.parametrize("name", sorted(VALUES.keys() - NO_CODE))
def test_repr_is_code(name):
    tx = VALUES[name]()
    text = repr(tx)
    assert "0x" not in text
    assert eval(text, CODE) == tx, text


@pytest.mark.parametrize("name", sorted(NO_CODE))
def test_repr_with_a_function_names_it(name):
    text = repr(VALUES[name]())
    assert "0x" not in text
    assert any(f.__name__ in text for f in (optax_like, is_matrix, halve, sign_rule)), text


def test_repr_leaves_out_static_defaults_and_shows_numbers():
    assert repr(gx.sgd(0.1)) == "sgd(learning_rate=0.1)"
    assert (
        repr(gx.sgd(0.1, 0.9, nesterov=True))
        == "sgd(learning_rate=0.1, momentum=0.9, nesterov=True)"
    )
    assert (
        repr(gx.chain(gx.clip(1), ("x", gx.scale(2))))
        == "chain(clip(max_delta=1.0), ('x', scale(step_size=2.0)))"
    )


def test_repr_of_a_traced_value_does_not_fail():
    seen = []
    jax.jit(lambda tx: seen.append(repr(tx)))(gx.sgd(0.1))
    assert seen == ["sgd(learning_rate=float32[])"]


def test_repr_keeps_an_argument_that_a_convention_would_change():
    tx = gx.rmsprop(0.1, eps_in_sqrt=True, convention="torch")
    assert tx != gx.rmsprop(0.1, convention="torch")
    assert eval(repr(tx), CODE) == tx, repr(tx)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, "bfloat16", jnp.dtype("bfloat16"), np.float32])
def test_repr_of_a_dtype_is_code(dtype):
    tx = gx.adam(0.1, mu_dtype=dtype)
    assert eval(repr(tx), CODE) == tx, repr(tx)


def test_repr_of_a_chain_keeps_every_name():
    tx = gx.chain(("first", gx.ema(0.9)), ("ema_2", gx.ema(0.9)))
    assert eval(repr(tx), CODE) == tx, repr(tx)


def test_a_numpy_double_is_the_number_it_holds():
    """`for lr in np.logspace(...)` hands over np.float64, which is a Python float."""
    tx, plain = gx.adam(np.float64(1e-3)), gx.adam(1e-3)
    assert tx == plain
    assert hash(tx) == hash(plain), "equal objects have unequal hashes"
    assert eval(repr(tx), CODE) == plain, repr(tx)


def test_a_typed_key_is_part_of_a_value():
    tx, same, other = (gx.add_noise(0.1, 0.55, jax.random.key(i)) for i in (0, 0, 1))
    assert tx == same
    assert tx != other
    assert hash(tx) == hash(same)
    assert pickle.loads(pickle.dumps(tx)) == tx


def test_a_table_is_immutable():
    table = gx.by_path({"a": 0.1, "**": 0.0})
    with pytest.raises(AttributeError):
        table.patterns = ("b", "**")


def test_signed_zero_and_dtype_are_told_apart():
    assert gx.scale(jnp.float32(0.0)) != gx.scale(jnp.float32(-0.0))
    assert gx.scale(jnp.float32(0.5)) != gx.scale(jnp.bfloat16(0.5))
    assert gx.scale(jnp.float32(0.5)) == gx.scale(np.float32(0.5))
    assert hash(gx.scale(jnp.float32(0.5))) == hash(gx.scale(np.float32(0.5)))


def test_a_traced_number_equals_itself_alone():
    @jax.jit
    def compared(rate):
        tx = gx.sgd(rate)
        others = gx.sgd(jnp.float32(0.1)), gx.sgd(0.1)
        assert all(tx != other and other != tx for other in others)
        assert tx == gx.sgd(rate)
        return rate

    compared(jnp.float32(0.1))


def test_an_array_is_no_python_number_though_it_has_its_value(x64):
    assert gx.sgd(jnp.float64(0.1)) == gx.sgd(np.array(0.1))
    assert gx.sgd(jnp.float64(0.1)) != gx.sgd(0.1)
    assert gx.sgd(0.1) != gx.sgd(jnp.float64(0.1))


def test_slots_and_rules_of_different_classes_are_unequal():
    """Equal tuples of different classes share an entry of jit's cache."""
    assert zeros() != copied()
    assert zeros("bfloat16") == zeros("bfloat16") != copied("bfloat16")
    assert gx.stateless_with_tree_map(halve).rule != (halve,)
    assert gx.cautious(gx.sgd(0.1)).expand().rule != (-1, "paper")
    assert gx.scale_by_adopt().expand().rule != (gx.fourth_root, 0, False)


def test_jit_tells_slots_apart_that_hold_the_same_arguments():
    init = jax.jit(lambda tx, params: tx.init(params))
    params = jnp.arange(1.0, 3.0)
    for make, expected in ((zeros, jnp.zeros(2)), (copied, params)):
        state = init(gx.leafwise(keep_slot, slots={"x": make()}), params)
        np.testing.assert_array_equal(state.slots["x"], expected)


def test_comparison_with_anything_else_is_false():
    assert gx.adam(1e-3) != 1e-3
    assert gx.adam(1e-3) != "adam"
    assert gx.adam(1e-3) is not None
    assert gx.identity() != ()


def test_replace_checks_as_the_constructor_does():
    tx = gx.adam(1e-3)
    assert tx.replace(learning_rate=3e-4, nesterov=True) == gx.adam(3e-4, nesterov=True)
    assert tx == gx.adam(1e-3)
    assert tx.replace(b1=jnp.float32(0.5)).b1.dtype == jnp.float32
    with pytest.raises(ValueError, match=r"adam: b1 must lie in \[0, 1\]; got 1.5"):
        tx.replace(b1=1.5)
    with pytest.raises(
        TypeError, match=r"adam: no argument named 'beta1'; it has \['learning_rate', 'b1'"
    ):
        tx.replace(beta1=0.5)


def test_attributes_are_the_arguments():
    tx = gx.adam(1e-3, mu_dtype=jnp.bfloat16)
    assert (tx.learning_rate, tx.b1, tx.b2, tx.eps, tx.eps_root) == (1e-3, 0.9, 0.999, 1e-8, 0.0)
    assert tx.nesterov is False
    assert jnp.dtype(tx.mu_dtype) == jnp.bfloat16
    assert tx.name == "adam"
    assert list(tx.arguments) == list(inspect.signature(gx.adam).parameters)
    with pytest.raises(AttributeError, match=r"beta1.*learning_rate"):
        _ = tx.beta1


@pytest.mark.parametrize(
    "make",
    [
        lambda: gx.adam(1e-3),
        lambda: gx.chain(gx.clip(1.0)),
        lambda: gx.leafwise(sign_rule, size=0.5),
    ],
)
def test_assignment_is_refused(make):
    tx = make()
    with pytest.raises(AttributeError, match=r"immutable|cannot assign"):
        tx.learning_rate = 1.0
    assert tx == make()


@pytest.mark.parametrize(
    "name", ["adam", "a chain", "tunable", "stateless", "leafwise", "identity"]
)
def test_unpacks_as_a_pair(name):
    tx = VALUES[name]()
    init_fn, update_fn = tx
    state = init_fn(PARAMS)
    updates, new_state = update_fn(GRADS, state, PARAMS)
    expected, expected_state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    chex.assert_trees_all_equal(updates, expected)
    assert jax.tree.structure(new_state) == jax.tree.structure(expected_state)


def test_stack_is_one_optimizer_with_a_leading_axis():
    rates = [0.1, 0.2, 0.4]
    tx = gx.stack([gx.sgd(lr, momentum=0.9) for lr in rates])
    assert tx.learning_rate.shape == (3,)
    updates = jax.vmap(lambda tx: tx.update(GRADS, tx.init(PARAMS), PARAMS)[0])(tx)
    for i, lr in enumerate(rates):
        np.testing.assert_allclose(updates["w"][i], -lr * GRADS["w"], rtol=1e-6)
    again = gx.stack(
        iter([gx.sgd(gx.linear_schedule(lr, 0.0, n)) for lr, n in [(0.1, 10), (0.2, 20)]])
    )
    np.testing.assert_array_equal(again.learning_rate.transition_steps, [10, 20])


@pytest.mark.parametrize(
    "others",
    [
        lambda: gx.sgd(0.1),
        lambda: gx.adam(0.1, nesterov=True),
        lambda: gx.adam(gx.constant_schedule(0.1)),
        lambda: gx.chain(gx.adam(0.1)),
        lambda: gx.adam(gx.by_path({"**": 0.1})),
    ],
)
def test_stack_of_different_kinds_is_an_error_that_shows_both(others):
    tx = gx.adam(0.1)
    with pytest.raises(ValueError, match="stack: item 2 is built differently from item 0") as error:
        gx.stack([tx, tx, others()])
    assert repr(tx) in str(error.value)
    assert repr(others()) in str(error.value)


def test_stack_of_one_has_an_axis_of_one():
    assert gx.stack([gx.adam(0.1)]).learning_rate.shape == (1,)


def test_stack_of_nothing_or_of_unequal_shapes():
    with pytest.raises(ValueError, match="stack: nothing"):
        gx.stack([])
    with pytest.raises(ValueError, match=r"shape|dimension"):
        gx.stack([gx.adam(0.1), gx.adam(jnp.ones(2))])


def test_as_a_static_argument_only_other_numbers_retrace():
    traces = []

    def step(tx, params):
        traces.append(tx)
        return tx.update(GRADS, tx.init(params), params)[0]

    jitted = jax.jit(step, static_argnums=0)
    for lr in (1e-3, 1e-3, 2e-3, 1e-3, 2e-3):
        jitted(gx.adam(lr), PARAMS)
    assert [tx.learning_rate for tx in traces] == [1e-3, 2e-3]
    jitted(gx.adam(1e-3, nesterov=True), PARAMS)
    assert len(traces) == 3


def test_as_an_argument_nothing_but_structure_retraces():
    traces = []

    @jax.jit
    def step(tx, params):
        traces.append(tx)
        return tx.update(GRADS, tx.init(params), params)[0]

    for tx in (gx.adam(1e-3), gx.adam(2e-3, b1=0.5), gx.adam(1e-3, eps=1e-3)):
        step(tx, PARAMS)
    assert len(traces) == 1
    step(gx.adam(gx.linear_schedule(0.1, 0.0, 10)), PARAMS)
    step(gx.adam(gx.linear_schedule(0.2, 0.1, 99)), PARAMS)
    assert len(traces) == 2


def test_closed_over_numbers_keep_their_precision():
    """1 - 0.999 is 0.001 closed over, and what float32 makes of it when traced."""
    one = jnp.ones(1, jnp.float32)

    def first(tx):
        return tx.update(one, tx.init(one))[0][0]

    tx = gx.ema(0.999, debias=False)
    assert jax.jit(lambda: first(tx))() == np.float32(0.001)
    traced = np.float32(1) - np.float32(0.999)
    assert traced != np.float32(0.001)
    assert jax.jit(first)(tx) == traced


def test_the_gradient_by_an_optimizer_is_an_optimizer():
    tx = gx.chain(
        gx.clip(10.0),
        gx.adamw(gx.linear_schedule(0.1, 0.0, 10), weight_decay=gx.by_path({"w": 0.1, "**": 0.2})),
    )

    def loss(tx):
        params, state = PARAMS, tx.init(PARAMS)
        for scale in (1.0, -0.5):
            updates, state = tx.update(jax.tree.map(lambda g, s=scale: s * g, GRADS), state, params)
            params = gx.apply_updates(params, updates)
        return sum(jnp.sum(p**2) for p in jax.tree.leaves(params))

    loss = jax.jit(loss)
    slope = jax.grad(loss)(tx)
    assert jax.tree.structure(slope) == jax.tree.structure(tx)
    assert all(np.isfinite(x) for x in jax.tree.leaves(slope))
    adamw = tx["adamw"]

    def moved(**numbers):
        return loss(gx.chain(tx["clip"], adamw.replace(**numbers)))

    for name, get, make in (
        ("b1", lambda t: t.b1, lambda x: {"b1": x}),
        (
            "decay of w",
            lambda t: t.weight_decay.values[0],
            lambda x: {"weight_decay": gx.by_path({"w": x, "**": 0.2})},
        ),
        (
            "init_value",
            lambda t: t.learning_rate.init_value,
            lambda x: {"learning_rate": gx.linear_schedule(x, 0.0, 10)},
        ),
    ):
        x, h = get(adamw), 1e-2
        expected = (moved(**make(x + h)) - moved(**make(x - h))) / (2 * h)
        assert abs(expected) > 1e-4, name
        np.testing.assert_allclose(get(slope["adamw"]), expected, rtol=2e-2, err_msg=name)


def test_sgd_hypergradient_is_exact():
    slope = jax.grad(lambda tx: jnp.sum(tx.update(GRADS["b"], tx.init(PARAMS["b"]))[0] ** 2))(
        gx.sgd(0.5)
    )
    np.testing.assert_allclose(
        slope.learning_rate, 2 * 0.5 * np.sum(np.square(GRADS["b"])), rtol=1e-6
    )


# Each number of each constructor, in each form that a number has


# The core by name: over later families run the laws "schedule", "table" and "vmap" of the kit, on all their numbers at once
CORE = [
    "clip",
    "clip_by_global_norm",
    "clip_by_leaf_norm",
    "correct_bias",
    "ema",
    "momentum",
    "nesterov_ema_scheduled",
    "trace",
    "two_emas",
    "scale_by_adadelta",
    "scale_by_deviation",
    "scale_by_inf_norm",
    "scale_by_nadam_rms",
    "scale_by_rms",
    "scale_by_rms_max",
    "scale_by_rss",
    "scale_by_stddev",
    "scale_by_yogi_rms",
    "add_decayed_weights",
    "add_noise",
    "scale",
    "scale_by_learning_rate",
    "scale_by_schedule",
    "reduce_on_plateau",
    "adadelta",
    "adagrad",
    "adam",
    "adam_l2",
    "adam_uncorrected",
    "adamax",
    "adamw",
    "amsgrad",
    "nadam",
    "rmsprop",
    "sgd",
]


def numbers_of(constructor) -> dict[str, Range]:
    return {name: c for name, c in constructor.converters.items() if isinstance(c, Range)}


def arguments_for(constructor) -> dict[str, Any]:
    """A value for each argument that needs one, and small numbers where the defaults would hide a difference."""
    required = [
        n for n, p in inspect.signature(constructor).parameters.items() if p.default is p.empty
    ]
    given = {
        n: 2 if r.integer else 0.5 for n, r in numbers_of(constructor).items() if n in required
    }
    given |= {"key": 3} if "key" in required else {}
    return given | (
        {"eps_in_sqrt": False} if constructor is gx.scale_by_rms else {}
    )  # so that eps_root matters


EXTRA = {"reduce_on_plateau": {"value": jnp.float32(0.5)}}
WHOLE_TREE = {
    **{("reduce_on_plateau", name): True for name in numbers_of(gx.reduce_on_plateau)},
    ("clip_by_global_norm", "max_norm"): True,
    ("nesterov_ema_scheduled", "decay"): True,
    ("nesterov_ema_scheduled", "momentum_decay"): True,
}


def three_steps(name, tx):
    state, params = tx.init(PARAMS), PARAMS
    for scale in (1.0, 0.1, 3.0):
        grads = jax.tree.map(lambda g, s=scale: s * g, GRADS)
        updates, state = tx.update(grads, state, params, **EXTRA.get(name, {}))
        params = gx.apply_updates(params, updates)
    return params


# Compositions, whose numbers go to parts that have had their turn: the slow tail.
COMPOSED = {
    "adadelta",
    "adagrad",
    "adam",
    "adam_l2",
    "adam_uncorrected",
    "adamax",
    "amsgrad",
    "nadam",
}


@pytest.mark.parametrize(
    "name",
    [
        *one_in(4, [name for name in CORE if name not in COMPOSED]),
        *(pytest.param(name, marks=pytest.mark.slow) for name in CORE if name in COMPOSED),
    ],
)
def test_each_number_may_be_a_number_an_array_a_schedule_or_a_table(name):
    constructor = getattr(gx, name)
    ranges = numbers_of(constructor)
    base = arguments_for(constructor)
    low, high = {}, {}
    forms: dict[tuple[str, str], Any] = {}
    for argument, r in ranges.items():
        x, y = (2, 3) if r.integer else (0.5, 0.25)
        low[argument] = constructor(**base | {argument: x})
        high[argument] = constructor(**base | {argument: y})
        given = {
            "numpy": np.float32(x) if not r.integer else np.int32(x),
            "array": jnp.float32(x) if not r.integer else jnp.int32(x),
            "schedule": gx.constant_schedule(x),
            "function": lambda step, x=x: x,
            "table": gx.by_path({"w": x, "**": y}),
            "table of schedules": gx.by_path({"w": gx.constant_schedule(x), "**": jnp.asarray(y)}),
        }
        for form, value in given.items():
            tx = constructor(**base | {argument: value})
            if form.startswith("table") and (name, argument) in WHOLE_TREE:
                with pytest.raises(ValueError, match="one number for the whole tree"):
                    three_steps(name, tx)
                continue
            forms[argument, form] = tx

    @jax.jit
    def run():
        return jax.tree.map(
            lambda tx: three_steps(name, tx),
            (low, high, forms),
            is_leaf=lambda x: isinstance(x, Transform),
        )

    at_low, at_high, results = run()
    for (argument, form), got in results.items():
        table = form.startswith("table")
        expected = {"w": at_low[argument]["w"], "b": (at_high if table else at_low)[argument]["b"]}
        for leaf in PARAMS:
            np.testing.assert_allclose(
                got[leaf],
                expected[leaf],
                rtol=2e-5,
                atol=1e-6,
                err_msg=f"{name}({argument}={form}) at {leaf}",
            )
    for argument in ranges:
        if name != "reduce_on_plateau":
            assert not np.allclose(
                at_low[argument]["b"], at_high[argument]["b"], rtol=1e-6, atol=0
            ), f"{argument} changes nothing"


def test_a_schedule_reads_step_zero_first():
    tx = gx.sgd(lambda step: jnp.asarray(10.0) + step.astype(float))
    one, state = jnp.ones(()), gx.sgd(0.1).init(jnp.ones(()))
    seen = []
    for _ in range(3):
        updates, state = tx.update(one, state)
        seen.append(float(-updates))
    assert seen == [10.0, 11.0, 12.0]


def test_a_schedule_has_a_table_and_is_a_value():
    schedule = gx.linear_schedule(1.0, 0.0, 4)
    assert schedule.table(range(6)) == {0: 1.0, 1: 0.75, 2: 0.5, 3: 0.25, 4: 0.0, 5: 0.0}
    assert schedule == gx.linear_schedule(1.0, 0.0, 4)
    assert eval(repr(schedule), CODE) == schedule
    assert schedule.replace(end_value=1.0)(3) == 1.0


# Tables by path

TREE = {
    "embed": {"kernel": 0, "bias": 1},
    "layers": [{"kernel": 2, "bias": 3}, {"kernel": 4, "bias": 5}],
    "head": {"kernel": 6},
}


def rows(table, tree=TREE):
    paths = gx.tree.paths(tree)
    return dict(
        zip(paths, gx.by_path(table).rows("test", paths, jax.tree.leaves(tree)), strict=True)
    )


def test_paths_are_joined_by_slashes():
    assert set(rows({"**": 1.0})) == {
        *("embed/bias", "embed/kernel", "head/kernel"),
        *("layers/0/bias", "layers/0/kernel", "layers/1/bias", "layers/1/kernel"),
    }

    class Pair(NamedTuple):
        left: Any
        right: Any

    assert gx.tree.paths(Pair({"x": 1}, (2, None))) == ["left/x", "right/0", "right/1"]
    assert gx.tree.paths(jnp.ones(2)) == [""]


@pytest.mark.parametrize(
    ("pattern", "hit"),
    [
        ("embed/kernel", {"embed/kernel"}),
        ("*/kernel", {"embed/kernel", "head/kernel"}),
        ("**/kernel", {"embed/kernel", "head/kernel", "layers/0/kernel", "layers/1/kernel"}),
        ("layers/*/bias", {"layers/0/bias", "layers/1/bias"}),
        ("layers/**", {"layers/0/bias", "layers/0/kernel", "layers/1/bias", "layers/1/kernel"}),
        ("layers/**/kernel", {"layers/0/kernel", "layers/1/kernel"}),
        ("l*/1/*", {"layers/1/bias", "layers/1/kernel"}),
        ("**/1/**", {"layers/1/bias", "layers/1/kernel"}),
        ("head/**", {"head/kernel"}),
        ("layers/?/k*", {"layers/0/kernel", "layers/1/kernel"}),
    ],
)
def test_patterns(pattern, hit):
    assert {path for path, x in rows({pattern: 1.0, "**": 0.0}).items() if x == 1.0} == hit


def test_patterns_match_whole_paths_and_only_star_is_special():
    assert gx.tree.matches("**/kernel", "kernel")
    assert gx.tree.matches("a/**/b", "a/b")
    assert not gx.tree.matches("a/**", "ab")
    assert not gx.tree.matches("kernel", "embed/kernel")
    assert not gx.tree.matches("*", "a/b")
    assert not gx.tree.matches("kernel", "kernels")
    assert not gx.tree.matches("a.b", "axb")
    assert gx.tree.matches("w(1)+[2]", "w(1)+[2]")
    assert gx.tree.matches("**", "")


def test_the_first_match_wins():
    table = rows({"layers/0/**": 1.0, "**/kernel": 2.0, "**": 3.0})
    assert table["layers/0/kernel"] == 1.0
    assert table["layers/1/kernel"] == 2.0
    assert table["layers/1/bias"] == 3.0
    assert rows({"**": 3.0, "**/kernel": 2.0})["embed/kernel"] == 3.0


def test_a_predicate_sees_path_and_leaf():
    table = rows({(lambda path, leaf: path.startswith("layers") and leaf > 3): 1.0, "**": 0.0})
    assert {path for path, x in table.items() if x} == {"layers/1/bias", "layers/1/kernel"}


def test_uncovered_leaves_and_idle_patterns_are_errors_that_list_them():
    with pytest.raises(
        ValueError, match=r"test: by_path: no pattern of \['\*\*/kernel'\] covers \['embed/bias', "
    ):
        rows({"**/kernel": 1.0})
    with pytest.raises(
        ValueError, match=r"pattern '\*\*/kernels' matches no leaf; the leaves are \['embed/bias'"
    ):
        rows({"**/kernels": 1.0, "**": 0.0})
    assert (
        rows({"**/kernel": 1.0, "**/bias": 0.0, "**": 9.0})["head/kernel"] == 1.0
    )  # the rest may be empty
    with pytest.raises(ValueError, match="empty"):
        gx.by_path({})


def test_the_errors_of_a_table_come_at_init_and_name_the_part():
    tx = gx.adamw(1e-3, weight_decay=gx.by_path({"**/kernels": 0.1, "**": 0.0}))
    with pytest.raises(
        ValueError, match=r"add_decayed_weights: by_path: pattern '\*\*/kernels' matches no leaf"
    ):
        tx.init(PARAMS)
    with pytest.raises(
        ValueError, match=r"scale_by_learning_rate: by_path: no pattern of \['w'\] covers \['b'\]"
    ):
        gx.sgd(gx.by_path({"w": 0.1})).init(PARAMS)


def test_a_table_and_where_together_both_hold():
    tx = gx.add_decayed_weights(gx.by_path({"w": 0.1, "**": 0.3}), where="w")
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["w"], GRADS["w"] + 0.1 * PARAMS["w"], rtol=1e-6)
    np.testing.assert_array_equal(updates["b"], GRADS["b"])


def test_schedules_in_a_table_run():
    tx = gx.sgd(gx.by_path({"w": gx.linear_schedule(1.0, 0.0, 2), "**": 0.5}))
    state, seen = tx.init(PARAMS), []
    for _ in range(3):
        updates, state = tx.update(GRADS, state, PARAMS)
        seen.append(
            (float(updates["w"][0, 0] / GRADS["w"][0, 0]), float(updates["b"][0] / GRADS["b"][0]))
        )
    assert seen == [(-1.0, -0.5), (-0.5, -0.5), (0.0, -0.5)]


def test_tables_may_be_traced_and_batched():
    def first(decay):
        tx = gx.adamw(0.1, weight_decay=gx.by_path({"w": decay, "**": 0.0}))
        return tx.update(GRADS, tx.init(PARAMS), PARAMS)[0]

    batched = jax.jit(jax.vmap(first))(jnp.array([0.1, 0.5]))
    for i, decay in enumerate((0.1, 0.5)):
        alone = jax.jit(first)(decay)
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5), batched, alone
        )


# Flax


class Net(nnx.Module):
    def __init__(self):
        self.hidden = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
        self.out = nnx.Linear(4, 2, rngs=nnx.Rngs(1))

    def __call__(self, x):
        return self.out(self.hidden(x))


def loss_of(model, x):
    return jnp.mean(model(x) ** 2)


def test_paths_in_nnx_are_the_same_at_init_and_update():
    tx = gx.sgd(gx.by_path({"hidden/kernel": 0.1, "**/kernel": 0.0, "*/bias": 0.0}))
    model = Net()
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    grads = nnx.grad(loss_of)(model, jnp.ones((2, 3)))
    before = {name: jnp.array(getattr(model, name).kernel[...]) for name in ("hidden", "out")}
    optimizer.update(model, grads)
    np.testing.assert_allclose(
        model.hidden.kernel[...], before["hidden"] - 0.1 * grads["hidden"]["kernel"][...], rtol=1e-6
    )
    np.testing.assert_array_equal(model.out.kernel[...], before["out"])


def make_train_state(tx):
    model = linen.Dense(2)
    params = model.init(jax.random.key(0), jnp.ones((1, 3)))["params"]
    return TrainState.create(apply_fn=model.apply, params=params, tx=tx)


def test_tunable_changes_numbers_in_a_train_state_without_a_retrace():
    traces = []

    @jax.jit
    def step(state):
        traces.append(state)
        return state.apply_gradients(grads=jax.tree.map(jnp.ones_like, state.params))

    state = make_train_state(gx.tunable(gx.sgd(0.5)))
    for lr in (0.5, 0.25, jnp.float32(0.125), np.float32(1.0), 1):
        state = state.replace(opt_state=state.opt_state.replace(learning_rate=lr))
        before, state = state.params, step(state)
        np.testing.assert_allclose(before["kernel"] - state.params["kernel"], lr, rtol=1e-5)
        assert state.opt_state.tx.learning_rate == lr
    assert len(traces) == 1
    step(
        make_train_state(gx.tunable(gx.sgd(0.5)))
    )  # an equal optimizer is no reason to trace again
    assert len(traces) <= 2, "only apply_fn, which linen makes anew, may differ"


def test_tunable_refuses_what_cannot_be_set():
    state = gx.tunable(gx.adam(0.5)).init(PARAMS)
    with pytest.raises(ValueError, match=r"adam: b1 must lie in \[0, 1\]; got 2.0"):
        state.replace(b1=2.0)
    with pytest.raises(TypeError, match=r"adam: no number named 'beta'.*learning_rate"):
        state.replace(beta=0.1)
    with pytest.raises(TypeError, match="adam: no number named 'nesterov'"):
        state.replace(nesterov=True)
    with pytest.raises(
        ValueError, match=r"adam: learning_rate is .* cannot become linear_schedule"
    ):
        state.replace(learning_rate=gx.linear_schedule(1.0, 0.0, 10))
    with pytest.raises(TypeError, match="tunable: needs a gradxform transformation"):
        gx.tunable(optax.sgd(0.1))
    with pytest.raises(ValueError, match="tunable: this state belongs to another transformation"):
        gx.tunable(gx.sgd(0.1)).update(GRADS, gx.sgd(0.1).init(PARAMS), PARAMS)


def test_tunable_sets_schedules_and_tables_of_the_same_kind():
    state = gx.tunable(gx.sgd(gx.linear_schedule(1.0, 0.0, 10))).init(PARAMS)
    state = state.replace(learning_rate=gx.linear_schedule(2.0, 1.0, 20))
    assert state.tx.learning_rate(20) == 1.0
    state = gx.tunable(gx.sgd(gx.by_path({"w": 0.1, "**": 0.2}))).init(PARAMS)
    state = state.replace(learning_rate=gx.by_path({"w": 0.3, "**": 0.4}))
    np.testing.assert_allclose(state.tx.learning_rate.values, (0.3, 0.4))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (lambda: gx.linear_schedule(1.0, 0.0, 10), lambda: gx.exponential_decay(1.0, 2, 0.5, 3)),
        (lambda: gx.by_path({"w": 0.1, "**": 0.2}), lambda: gx.by_path({"b": 0.3, "**": 0.4})),
    ],
    ids=["schedule", "table"],
)
def test_tunable_does_not_turn_one_kind_into_another_silently(old, new):
    """The structure stays, so another schedule or other patterns with as many numbers must not be read as this one's numbers."""
    state = gx.tunable(gx.sgd(old())).init(PARAMS)
    with pytest.raises(ValueError, match="cannot become"):
        state.replace(learning_rate=new())


def test_tunable_of_a_chain_says_what_can_be_set():
    state = gx.tunable(gx.chain(gx.clip(1.0), gx.sgd(0.1))).init(PARAMS)
    with pytest.raises((TypeError, ValueError), match=r"tunable|chain|clip|sgd"):
        state.replace(nonsense=0.2)


def test_tunable_equals_the_optimizer_it_holds():
    for tx in (gx.adamw(0.1, weight_decay=0.3), gx.chain(gx.clip(0.5), gx.ema(0.9))):
        held = gx.tunable(tx)
        state, expected_state = held.init(PARAMS), tx.init(PARAMS)
        for _ in range(2):
            updates, state = held.update(GRADS, state, PARAMS)
            expected, expected_state = tx.update(GRADS, expected_state, PARAMS)
            chex.assert_trees_all_equal(updates, expected)


def test_tunable_numbers_are_float32_whatever_the_parameters():
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    state = gx.tunable(gx.adamw(1e-3)).init(params)
    assert {(x.dtype.name, x.weak_type) for x in jax.tree.leaves(state.tx)} == {("float32", False)}
    assert state.tx.b2 == np.float32(0.999)


@pytest.mark.parametrize("way", ["replace", "assignment"])
def test_tunable_changes_numbers_in_an_nnx_optimizer_without_a_retrace(way):
    traces = []
    model = Net()
    optimizer = nnx.Optimizer(model, gx.tunable(gx.sgd(0.5, momentum=0.0)), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        traces.append(model)
        optimizer.update(
            model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)), value=jnp.float32(1.0)
        )

    for lr in (0.5, 0.25, 0.125):
        if way == "replace":
            optimizer.opt_state = optimizer.opt_state.replace(learning_rate=lr)
        else:
            optimizer.opt_state.tx.learning_rate[...] = jnp.float32(lr)
        before = jnp.array(model.out.kernel[...])
        step(model, optimizer)
        np.testing.assert_allclose(before - model.out.kernel[...], lr, rtol=1e-5)
    assert len(traces) == 1


@pytest.mark.parametrize("name", ["where", "mask", "weight_decay_mask"])
@pytest.mark.parametrize(
    "make", [gx.add_decayed_weights, gx.adadelta, gx.adam_l2, gx.adamw, gx.laprop, gx.lars, gx.mars]
)
def test_which_leaves_has_one_meaning_under_every_name(make, name):
    own = next(
        n for n in ("where", "mask", "weight_decay_mask") if n in make.__signature__.parameters
    )
    chosen = make(0.1, **{name: "w"})
    assert chosen == make(0.1, **{own: "w"}) != make(0.1)
    assert getattr(chosen, name) == "w"
    assert make(0.1).replace(**{name: "w"}) == chosen
    assert eval(repr(chosen), dict(CODE)) == chosen


def test_which_leaves_is_said_once():
    with pytest.raises(TypeError, match="adamw: mask and where name one argument"):
        gx.adamw(0.1, mask="w", where="w")
    with pytest.raises(TypeError, match=r"rmsprop: .*'where'"):
        gx.rmsprop(0.1, where="w")
    assert gx.freeze(where="w") == gx.freeze("w")
