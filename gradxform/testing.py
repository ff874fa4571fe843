"""The laws that every transformation keeps, as a kit: `check_transformation(tx)` for your own.

Each law is a function of a transformation and the extra arguments its update needs; it raises
AssertionError with what it saw. They use small arrays, and shapes alone where no numbers are
needed.
"""

import itertools
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.core.chain import Named, apply_updates, chain, identity, stack
from gradxform.core.labels import by_path
from gradxform.core.schedule import Schedule
from gradxform.schedules.basic import constant_schedule

DTYPES = (jnp.bfloat16, jnp.float16, jnp.float32)


def _tree(scale=1.0, dtype=jnp.float32):
    values = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3) * np.float32(scale)
    return {
        "a": {"kernel": jnp.asarray(values, dtype)},
        "b": jnp.asarray(values[0] + np.float32(0.3 * scale), dtype),
    }


def _gradients(step, params):
    return jax.tree.map(
        lambda p: (jnp.sin(3 * p + jnp.asarray(step, p.dtype)) + p).astype(p.dtype), params
    )


def _train(tx, params, extra, steps=3):
    """A few updates in a scan; gives the parameters and the state."""

    def body(carry, step):
        params, state = carry
        updates, state = tx.update(_gradients(step, params), state, params, **extra)
        return (apply_updates(params, updates), state), None

    return jax.lax.scan(body, (params, tx.init(params)), jnp.arange(steps))[0]


def _assert_close(got, expected, what, rtol=2e-5, atol=2e-6):
    assert jax.tree.structure(got) == jax.tree.structure(expected), f"{what}: the structures differ"
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True
    ):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        a, b = np.asarray(a), np.asarray(b)
        np.testing.assert_allclose(
            a, b, rtol=rtol, atol=atol, err_msg=f"{what} at {jax.tree_util.keystr(path)}"
        )


def _assert_same(got, expected, what):
    _assert_close(got, expected, what, rtol=0, atol=0)


def _avals(tree):
    return jax.tree.map(
        lambda x: (x.shape, jnp.dtype(x.dtype).name, x.weak_type),
        jax.eval_shape(lambda: tree) if not callable(tree) else jax.eval_shape(tree),
    )


def is_a_pair(tx, extra):
    """It unpacks into (init, update), and these are its methods."""
    init_fn, update_fn = tx
    params = _tree()
    updates, _ = update_fn(_gradients(0, params), init_fn(params), params, **extra)
    _assert_same(
        updates, tx.update(_gradients(0, params), tx.init(params), params, **extra)[0], "the pair"
    )


def dtypes_are_a_fixed_point(tx, extra):
    """For every dtype of parameters and gradients the state keeps its types, and each update has
    its gradient's.
    """
    for p_dtype, g_dtype in itertools.product(DTYPES, DTYPES):
        params, gradients = _tree(dtype=p_dtype), _tree(dtype=g_dtype)
        state = jax.eval_shape(tx.init, params)
        updates, new_state = jax.eval_shape(
            lambda g, s, p: tx.update(g, s, p, **extra), gradients, state, params
        )
        what = f"params {jnp.dtype(p_dtype)}, gradients {jnp.dtype(g_dtype)}"
        assert jax.tree.structure(state) == jax.tree.structure(new_state), (
            f"{what}: the state changes its structure"
        )
        for (path, old), new in zip(
            jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(new_state), strict=True
        ):
            seen = [(x.shape, x.dtype, x.weak_type) for x in (old, new)]
            assert seen[0] == seen[1], (
                f"{what}: state{jax.tree_util.keystr(path)} goes from {seen[0]} to {seen[1]}"
            )
            assert not old.weak_type, (
                f"{what}: state{jax.tree_util.keystr(path)} is weakly typed, which costs a retrace "
                "after a restore"
            )
            assert old.dtype not in (jnp.bfloat16, jnp.float16), (
                f"{what}: state{jax.tree_util.keystr(path)} is narrow by default"
            )
        assert jax.tree.structure(updates) == jax.tree.structure(gradients), (
            f"{what}: the updates have another structure"
        )
        for u, g in zip(jax.tree.leaves(updates), jax.tree.leaves(gradients), strict=True):
            assert (u.shape, u.dtype) == (g.shape, g.dtype), (
                f"{what}: an update has {u.shape} {u.dtype}, its gradient {g.shape} {g.dtype}"
            )


def init_is_abstract(tx, extra):
    """`init` works under `jax.eval_shape` and gives there what it gives with numbers."""
    params = _tree()
    state = tx.init(params)
    assert jax.tree.structure(jax.eval_shape(tx.init, params)) == jax.tree.structure(state)
    abstract = jax.tree.leaves(jax.eval_shape(tx.init, params))
    assert [(x.shape, x.dtype) for x in abstract] == [
        (x.shape, x.dtype) for x in jax.tree.leaves(state)
    ]


def jit_equals_eager(tx, extra):
    """Compiled with its numbers closed over, called as it is, and run operation by operation, it
    does the same.
    """
    params = _tree()
    state = tx.init(params)
    eager = tx.update(_gradients(0, params), state, params, **extra)
    jitted = jax.jit(lambda g, s, p: tx.update(g, s, p, **extra))(
        _gradients(0, params), state, params
    )
    _assert_close(eager, jitted, "eager against jit")
    with jax.disable_jit():
        stepwise = tx.update(_gradients(0, params), state, params, **extra)
    _assert_close(stepwise, jitted, "operation by operation against jit")


def new_numbers_retrace_nothing(tx, extra):
    """A jitted step that is given the transformation is traced once, whatever its numbers become."""
    traces = []

    @jax.jit
    def step(tx, params, state):
        traces.append(tx)
        updates, state = tx.update(_gradients(0, params), state, params, **extra)
        return apply_updates(params, updates), state

    params = _tree()
    state = tx.init(params)
    for factor in (1.0, 0.5, 0.25):
        params, state = step(_scaled(tx, factor), params, state)
    assert len(traces) == 1, f"traced {len(traces)} times"


def _scaled(tx, factor):
    return jax.tree.map(lambda x: x * factor if isinstance(x, float) else x, tx)


def vmap_equals_loop(tx, extra):
    """`vmap` over all its numbers at once equals a loop over them."""
    members = [_scaled(tx, factor) for factor in (1.0, 0.95)]
    if not jax.tree.leaves(tx):
        return
    params = _tree()
    train = lambda tx: _train(tx, params, extra)  # noqa: E731
    batched, alone = jax.jit(jax.vmap(train))(stack(members)), jax.jit(train)
    for i, member in enumerate(members):
        _assert_close(
            jax.tree.map(lambda x, i=i: x[i], batched),
            alone(member),
            f"member {i}",
            rtol=1e-4,
            atol=1e-5,
        )


def _replace_numbers(tx, make: Callable[[float], Any]):
    is_leaf = lambda x: isinstance(x, Schedule)  # noqa: E731
    leaves, structure = jax.tree.flatten(tx, is_leaf=is_leaf)
    return structure.unflatten([make(x) if isinstance(x, float) else x for x in leaves])


def constant_schedule_is_constant(tx, extra):
    """With a constant schedule in place of each number it does the same, bit for bit."""
    params = _tree()
    scheduled = _replace_numbers(tx, constant_schedule)
    _assert_same(
        _jit_train(scheduled, params, extra)[0], _trained(tx, extra)[0], "constant schedules"
    )


def uniform_table_is_constant(tx, extra):
    """With a table that gives every path the same number it does the same, bit for bit."""
    params = _tree()
    tabled = _replace_numbers(tx, lambda x: by_path({"a/**": x, "**": x}))
    _assert_same(_jit_train(tabled, params, extra)[0], _trained(tx, extra)[0], "uniform tables")


def _jit_train(tx, params, extra):
    return jax.jit(lambda params: _train(tx, params, extra))(params)


_LAST: list[
    Any
] = []  # the transformation and extra arguments of the last `_trained`, and its result


def _trained(tx, extra):
    """`_jit_train` on the usual tree, which several laws in a row compare with: compiled once for
    them.
    """
    if not (
        _LAST
        and _LAST[0] is tx
        and _LAST[1].keys() == extra.keys()
        and all(_LAST[1][k] is extra[k] for k in extra)
    ):
        _LAST[:] = tx, extra, _jit_train(tx, _tree(), extra)
    return _LAST[2]


def absent_empty_and_scalar_leaves(tx, extra):
    """None leaves stay None, an empty tree is no error, a scalar is a leaf like any other."""
    for params in ({"a": jnp.ones(3), "b": None}, {}, jnp.float32(2.0)):
        state = tx.init(params)
        updates, new_state = tx.update(params, state, params, **extra)
        assert jax.tree.structure(updates) == jax.tree.structure(params)
        assert jax.tree.structure(new_state) == jax.tree.structure(state)
        assert jax.tree.structure(apply_updates(params, updates)) == jax.tree.structure(params)


def zero_gradients_are_safe(tx, extra):
    """With gradients of exactly zero the update is finite, and so is the derivative of training by
    numbers and start.
    """
    params = _tree()

    def loss_after(tx, params, slope):
        state = tx.init(params)
        for _ in range(2):
            gradients = jax.tree.map(lambda p: slope * p * jnp.array(0.0), params)
            updates, state = tx.update(gradients, state, params, **extra)
            params = apply_updates(params, updates)
        return sum(jnp.sum(p * p) for p in jax.tree.leaves(params))

    numbers = jax.tree.map(
        lambda x: x if isinstance(x, float) else jax.lax.stop_gradient(jnp.asarray(x)), tx
    )
    value, by_everything = jax.jit(
        jax.value_and_grad(loss_after, argnums=(0, 1, 2), allow_int=True)
    )(numbers, params, jnp.float32(1.0))
    assert np.isfinite(value), f"the loss is {value}"
    for path, x in jax.tree_util.tree_leaves_with_path(by_everything):
        if x.dtype != jax.dtypes.float0:
            assert np.all(np.isfinite(x)), f"the derivative by {jax.tree_util.keystr(path)} is {x}"
            assert np.all(np.abs(x) < 1e6), f"the derivative by {jax.tree_util.keystr(path)} is {x}"


def parameters_and_state_can_be_donated(tx, extra):
    """`init` gives no buffer twice and none of the parameters', so both can be donated to the first
    step.
    """
    params = jax.tree.map(jnp.array, _tree())
    state = tx.init(params)

    def step(params, state):
        updates, state = tx.update(_gradients(0, params), state, params, **extra)
        return apply_updates(params, updates), state

    expected = jax.tree.map(np.asarray, step(params, state))
    got = jax.jit(step, donate_argnums=(0, 1))(params, state)
    _assert_close(got, expected, "donated")


def large_temporaries_are_absent(tx, extra):
    """The donated step on one large leaf needs no temporary the size of the parameter."""
    params = {"w": jax.ShapeDtypeStruct((512, 512), jnp.float32)}
    state = jax.eval_shape(tx.init, params)

    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params, **extra)
        return apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()
    analysis = compiled.memory_analysis()
    assert analysis is not None, "this backend tells no memory"
    temporary = analysis.temp_size_in_bytes
    assert temporary < 512 * 512 * 4, (
        f"{temporary} bytes of temporaries for a leaf of {512 * 512 * 4}"
    )


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
        import gradxform

        names = {**vars(gradxform), "jnp": jnp, tx.name: tx._function}
        assert eval(repr(tx), names) == tx, repr(tx)  # the documented meaning of repr


def unknown_arguments_are_ignored(tx, extra):
    """An extra argument that it does not know changes nothing."""
    params = _tree()
    gradients, state = _gradients(0, params), tx.init(params)
    _assert_same(
        tx.update(gradients, state, params, unheard_of=jnp.ones(3), **extra),
        tx.update(gradients, state, params, **extra),
        "extra",
    )


def chains_associate(tx, extra):
    """`identity()` beside it, and a chain around it, change nothing; and the pass through a scan is
    the same.
    """
    params = _tree()
    expected, _ = _trained(tx, extra)
    for around in (chain(identity(), tx), chain(chain(tx), identity())):
        _assert_same(_jit_train(around, params, extra)[0], expected, repr(around))

    def unrolled(params):
        state = tx.init(params)
        for step in range(3):
            updates, state = tx.update(_gradients(step, params), state, params, **extra)
            params = apply_updates(params, updates)
        return params

    _assert_close(jax.jit(unrolled)(params), expected, "a scan")


def a_subtree_runs_alone(tx, extra):
    """A leaf is treated as if the others were not there."""
    params = _tree()
    together, _ = _trained(tx, extra)
    alone, _ = _jit_train(tx, {"b": params["b"]}, extra)
    _assert_close(alone["b"], together["b"], "the leaf b alone", rtol=1e-6, atol=1e-7)


def sharding_changes_nothing(tx, extra):
    """On parameters sharded over the devices there are, it gives what it gives on one."""
    devices = jax.devices()
    mesh = jax.sharding.Mesh(np.array(devices), ("x",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    params = {"w": jnp.linspace(-1, 1, 16 * len(devices)).reshape(8 * len(devices), 2)}
    sharded = jax.device_put(params, sharding)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(_gradients(0, params), state, params, **extra)
        return apply_updates(params, updates), state

    got, _ = step(sharded, tx.init(sharded))
    expected, _ = step(params, tx.init(params))
    _assert_close(got, expected, "sharded")
    assert got["w"].sharding.is_equivalent_to(sharding, 2), (
        f"the parameters came back as {got['w'].sharding}"
    )


LAWS: dict[str, Callable[[Any, Mapping[str, Any]], None]] = {
    "pair": is_a_pair,
    "dtypes": dtypes_are_a_fixed_point,
    "abstract_init": init_is_abstract,
    "jit": jit_equals_eager,
    "retrace": new_numbers_retrace_nothing,
    "vmap": vmap_equals_loop,
    "schedule": constant_schedule_is_constant,
    "table": uniform_table_is_constant,
    "leaves": absent_empty_and_scalar_leaves,
    "zero_gradient": zero_gradients_are_safe,
    "donation": parameters_and_state_can_be_donated,
    "temporary": large_temporaries_are_absent,
    "value": is_a_value,
    "extra": unknown_arguments_are_ignored,
    "associative": chains_associate,
    "subtree": a_subtree_runs_alone,
    "sharding": sharding_changes_nothing,
}


def check_transformation(
    tx, *, extra: Mapping[str, Any] | None = None, exceptions: Mapping[str, str] | None = None
) -> None:
    """Run every law over a transformation; the first one broken raises AssertionError, naming the
    law.

    Args:
        tx: any gradxform transformation, your own included.
        extra: keyword arguments that its update needs, such as `{"value": 0.5}`.
        exceptions: laws that it does not keep, each with the reason: `{"subtree": "it looks at the
            whole tree"}`.

    Raises:
        AssertionError: a law is broken, or does hold although it is listed as an exception.
        ValueError: exceptions name an unknown law.
    """
    exceptions = exceptions or {}
    unknown = sorted(set(exceptions) - set(LAWS))
    if unknown:
        raise ValueError(
            f"check_transformation: no law is called {unknown[0]!r}; the laws are {sorted(LAWS)}"
        )
    for name in LAWS:
        check_law(name, tx, extra, exceptions)


def check_law(
    name: str,
    tx,
    extra: Mapping[str, Any] | None = None,
    exceptions: Mapping[str, str] | None = None,
) -> None:
    """Run one law; an exception must really be one."""
    reason = (exceptions or {}).get(name)
    try:
        LAWS[name](tx, dict(extra or {}))
    except Exception as error:
        if reason:
            return
        raise AssertionError(
            f"{tx!r} breaks the law {name!r} ({LAWS[name].__doc__}): {error}"
        ) from error
    if reason:
        raise AssertionError(
            f"{tx!r} keeps the law {name!r} although it is listed as an exception: {reason}"
        )
