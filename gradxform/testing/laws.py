"""The laws: each a function of a transformation and the extra arguments its update needs, which
raises AssertionError with what it saw.

They use small arrays, and shapes alone where no numbers are needed.
"""

import itertools
import pickle
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import gradxform
from gradxform.core import Named, Schedule, apply_updates, by_path, chain, identity, stack
from gradxform.core.leafwise import Run
from gradxform.schedules.basic import constant_schedule
from gradxform.testing.samples import assert_close, assert_same, gradients_of, step, train, tree

DTYPES = (jnp.bfloat16, jnp.float16, jnp.float32)


def is_a_pair(tx, extra):
    """It unpacks into (init, update), and these are its methods."""
    init_fn, update_fn = tx
    params, gradients = tree(), gradients_of(0, tree())
    updates, _ = update_fn(gradients, init_fn(params), params, **extra)
    assert_same(updates, tx.update(gradients, tx.init(params), params, **extra)[0], "the pair")


def dtypes_are_a_fixed_point(tx, extra):
    """For every dtype of parameters and gradients the state keeps its types, and each update has
    its gradient's, or that which holds the parameter, too.
    """
    for p_dtype, g_dtype in itertools.product(DTYPES, DTYPES):
        params, gradients = tree(dtype=p_dtype), tree(dtype=g_dtype)
        state = jax.eval_shape(tx.init, params)
        update = lambda g, s, p: tx.update(g, s, p, **extra)  # noqa: E731
        updates, new_state = jax.eval_shape(update, gradients, state, params)
        what = f"params {jnp.dtype(p_dtype)}, gradients {jnp.dtype(g_dtype)}"
        same = jax.tree.structure(state) == jax.tree.structure(new_state)
        assert same, f"{what}: the state changes its structure"
        named = jax.tree_util.tree_leaves_with_path(state)
        for (path, old), new in zip(named, jax.tree.leaves(new_state), strict=True):
            at = f"{what}: state{jax.tree_util.keystr(path)}"
            was, became = ((x.shape, x.dtype, x.weak_type) for x in (old, new))
            assert was == became, f"{at} goes from {was} to {became}"
            assert not old.weak_type, f"{at} is weakly typed, which costs a retrace after a restore"
            assert old.dtype not in (jnp.bfloat16, jnp.float16), f"{at} is narrow by default"
        same = jax.tree.structure(updates) == jax.tree.structure(gradients)
        assert same, f"{what}: the updates have another structure"
        with jax.numpy_dtype_promotion("standard"):
            dtype = jnp.result_type(p_dtype, g_dtype)
        for u, g in zip(jax.tree.leaves(updates), jax.tree.leaves(gradients), strict=True):
            saw = f"an update has {u.shape} {u.dtype}, its gradient {g.shape} {g.dtype}"
            assert u.shape == g.shape, f"{what}: {saw}"
            assert u.dtype in (g.dtype, dtype), f"{what}: {saw}"


def what_cannot_be_optimized_is_frozen(tx, extra):
    """Integers, booleans, random keys, float0 and functions have no state and stay what they are;
    the other leaves go on as if they were not there.
    """
    tx = tx if isinstance(tx, Run) else chain(tx)  # where they are set aside
    own = {"n": jnp.arange(3), "on": np.array([True]), "key": jax.random.key(0), "f": jnp.tanh}
    none = {**dict.fromkeys(("n", "key"), 0), "on": np.array([False]), "f": None}
    none = {k: np.zeros((), jax.dtypes.float0) if k == "key" else x for k, x in none.items()}

    def first(params, gradients):
        state = tx.init(params | own)
        updates, new = tx.update(gradients | none, state, params | own, **extra)
        kept = {k: updates.pop(k) for k in own}
        assert kept["f"] is None
        assert kept["key"] is none["key"]
        moved = apply_updates(own, kept)
        assert moved["f"] is own["f"]
        assert moved["key"] is own["key"]
        return updates, state, new, moved["n"], moved["on"]

    def alone(params, gradients):
        absent = dict.fromkeys(own)
        state = tx.init(params | absent)
        updates, new = tx.update(gradients | absent, state, params | absent, **extra)
        return {k: x for k, x in updates.items() if k not in own}, state, new, own["n"], own["on"]

    got, expected = (jax.eval_shape(f, tree(), tree()) for f in (first, alone))
    assert jax.tree.map(jax.typeof, got) == jax.tree.map(jax.typeof, expected)


def init_is_abstract(tx, extra):
    """`init` works under `jax.eval_shape` and gives there what it gives with numbers."""
    abstract, state = jax.eval_shape(tx.init, tree()), tx.init(tree())
    assert jax.tree.structure(abstract) == jax.tree.structure(state)
    seen = [[(x.shape, x.dtype) for x in jax.tree.leaves(made)] for made in (abstract, state)]
    assert seen[0] == seen[1]


def jit_equals_eager(tx, extra):
    """Compiled with its numbers closed over, called as it is, and run operation by operation, it
    does the same.
    """
    first = gradients_of(0, tree()), tx.init(tree()), tree()
    jitted = jax.jit(lambda g, s, p: tx.update(g, s, p, **extra))(*first)
    assert_close(tx.update(*first, **extra), jitted, "eager against jit")
    with jax.disable_jit():
        stepwise = tx.update(*first, **extra)
    assert_close(stepwise, jitted, "operation by operation against jit")


def new_numbers_retrace_nothing(tx, extra):
    """A jitted step that is given the transformation is traced once, whatever its numbers are."""
    traces = []

    @jax.jit
    def traced(tx, params, state):
        traces.append(tx)
        return step(tx, params, state, extra)

    params = tree()
    state = tx.init(params)
    for factor in (1.0, 0.5, 0.25):
        params, state = traced(_scaled(tx, factor), params, state)
    assert len(traces) == 1, f"traced {len(traces)} times"


def _scaled(tx, factor):
    return jax.tree.map(lambda x: x * factor if isinstance(x, float) else x, tx)


def vmap_equals_loop(tx, extra):
    """`vmap` over all its numbers at once equals a loop over them."""
    members = [_scaled(tx, factor) for factor in (1.0, 0.95)]
    if not jax.tree.leaves(tx):
        return
    params = tree()
    trained = lambda tx: train(tx, params, extra)  # noqa: E731
    batched, alone = jax.jit(jax.vmap(trained))(stack(members)), jax.jit(trained)
    for i, member in enumerate(members):
        got = jax.tree.map(lambda x, i=i: x[i], batched)
        assert_close(got, alone(member), f"member {i}", rtol=1e-4, atol=1e-5)


def _replace_numbers(tx, make: Callable):
    is_leaf = lambda x: isinstance(x, Schedule)  # noqa: E731
    leaves, structure = jax.tree.flatten(tx, is_leaf=is_leaf)
    return structure.unflatten([make(x) if isinstance(x, float) else x for x in leaves])


def constant_schedule_is_constant(tx, extra):
    """With a constant schedule in place of each number it does the same, bit for bit."""
    scheduled, _ = _jit_train(_replace_numbers(tx, constant_schedule), tree(), extra)
    assert_same(scheduled, _trained(tx, extra)[0], "constant schedules")


def uniform_table_is_constant(tx, extra):
    """With a table that gives every path the same number it does the same, but for the rounding of
    another program.
    """
    tables = _replace_numbers(tx, lambda x: by_path({"a/**": x, "**": x}))
    got, expected = _jit_train(tables, tree(), extra)[0], _trained(tx, extra)[0]
    assert_close(got, expected, "uniform tables", rtol=1e-6, atol=1e-7)


def _jit_train(tx, params, extra):
    return jax.jit(lambda params: train(tx, params, extra))(params)


_LAST: list = []  # the transformation and extra arguments of the last `_trained`; its result


def _trained(tx, extra):
    """`_jit_train` on the usual tree, which several laws in a row compare with: compiled once for
    them.
    """
    known = _LAST and _LAST[0] is tx and _LAST[1].keys() == extra.keys()
    if not (known and all(_LAST[1][k] is extra[k] for k in extra)):
        _LAST[:] = tx, extra, _jit_train(tx, tree(), extra)
    return _LAST[2]


def absent_empty_and_scalar_leaves(tx, extra):
    """None leaves stay None, an empty tree is no error, a scalar is a leaf like any other."""

    def stepped(params):
        state = tx.init(params)
        updates, new_state = tx.update(params, state, params, **extra)
        return (state, new_state), (params, updates, apply_updates(params, updates))

    for params in ({"a": jnp.ones(3), "b": None}, {}, jnp.float32(2.0)):
        for alike in jax.eval_shape(stepped, params):  # structures alone: nothing is compiled
            assert len({jax.tree.structure(x) for x in alike}) == 1, alike


def zero_gradients_are_safe(tx, extra):
    """With gradients of exactly zero the update is finite, and so is the derivative of training by
    numbers and start.
    """
    params = tree()

    def loss_after(tx, params, slope):
        state = tx.init(params)
        for _ in range(2):
            gradients = jax.tree.map(lambda p: slope * p * jnp.array(0.0), params)
            updates, state = tx.update(gradients, state, params, **extra)
            params = apply_updates(params, updates)
        return sum(jnp.sum(p * p) for p in jax.tree.leaves(params))

    def held(x):
        return x if isinstance(x, float) else jax.lax.stop_gradient(jnp.asarray(x))

    derived = jax.jit(jax.value_and_grad(loss_after, argnums=(0, 1, 2), allow_int=True))
    value, by_everything = derived(jax.tree.map(held, tx), params, jnp.float32(1.0))
    assert np.isfinite(value), f"the loss is {value}"
    for path, x in jax.tree_util.tree_leaves_with_path(by_everything):
        if x.dtype != jax.dtypes.float0:  # nor is NaN below any bound
            assert np.all(np.abs(x) < 1e6), f"the derivative by {jax.tree_util.keystr(path)} is {x}"


def parameters_and_state_can_be_donated(tx, extra):
    """`init` gives no buffer twice and none of the parameters', so both can be donated to the first
    step.
    """
    params = jax.tree.map(jnp.array, tree())
    state = tx.init(params)
    first = lambda params, state: step(tx, params, state, extra)  # noqa: E731
    expected = jax.tree.map(np.asarray, first(params, state))
    got = jax.jit(first, donate_argnums=(0, 1))(params, state)
    assert_close(got, expected, "donated")


def large_temporaries_are_absent(tx, extra):
    """The donated step on one large leaf needs no temporary the size of the parameter."""
    params = {"w": jax.ShapeDtypeStruct((512, 512), jnp.float32)}
    state = jax.eval_shape(tx.init, params)

    def given(params, state, gradients):
        updates, state = tx.update(gradients, state, params, **extra)
        return apply_updates(params, updates), state

    compiled = jax.jit(given, donate_argnums=(0, 1)).lower(params, state, params).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None, "this backend tells no memory"
    temporary, leaf = analysis.temp_size_in_bytes, 512 * 512 * 4
    assert temporary < leaf, f"{temporary} bytes of temporaries for a leaf of {leaf}"


def is_a_value(tx, extra):
    """It flattens and pickles to an equal one, with an equal hash, and another number makes another
    one.
    """
    leaves, structure = jax.tree.flatten(tx)
    assert structure.unflatten(leaves) == tx
    copy = pickle.loads(pickle.dumps(tx))
    assert copy == tx
    assert hash(copy) == hash(tx)
    assert any(isinstance(x, float) for x in leaves) == (_scaled(tx, 0.5) != tx)
    assert "0x" not in repr(tx), repr(tx)
    if isinstance(tx, Named):
        names = {**vars(gradxform), "jnp": jnp, tx.name: tx._function}
        assert eval(repr(tx), names) == tx, repr(tx)  # the documented meaning of repr


def unknown_arguments_are_ignored(tx, extra):
    """An extra argument that it does not know changes nothing."""
    first = gradients_of(0, tree()), tx.init(tree()), tree()
    got = tx.update(*first, unheard_of=jnp.ones(3), **extra)
    assert_same(got, tx.update(*first, **extra), "extra")


def chains_associate(tx, extra):
    """`identity()` beside it, and a chain around it, change nothing; and the pass through a scan is
    the same.
    """
    params = tree()
    expected, _ = _trained(tx, extra)
    around = chain(identity(), chain(tx), identity())
    assert_same(_jit_train(around, params, extra)[0], expected, repr(around))

    def unrolled(params):
        state = tx.init(params)
        for k in range(3):
            params, state = step(tx, params, state, extra, k)
        return params

    assert_close(jax.jit(unrolled)(params), expected, "a scan")


def a_subtree_runs_alone(tx, extra):
    """A leaf is treated as if the others were not there."""
    together, _ = _trained(tx, extra)
    alone, _ = _jit_train(tx, {"b": tree()["b"]}, extra)
    assert_close(alone["b"], together["b"], "the leaf b alone", rtol=1e-6, atol=1e-7)


def sharding_changes_nothing(tx, extra):
    """On parameters sharded over the devices there are, it gives what it gives on one."""
    devices = jax.devices()
    mesh = jax.sharding.Mesh(np.array(devices), ("x",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    params = {"w": jnp.linspace(-1, 1, 16 * len(devices)).reshape(8 * len(devices), 2)}
    sharded = jax.device_put(params, sharding)
    first = jax.jit(lambda params, state: step(tx, params, state, extra))
    got, _ = first(sharded, tx.init(sharded))
    expected, _ = first(params, tx.init(params))
    assert_close(got, expected, "sharded")
    found = got["w"].sharding
    assert found.is_equivalent_to(sharding, 2), f"the parameters came back as {found}"
