"""Parameters sharded over eight devices: the state follows, and nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import gradxform as gx

assert jax.device_count() >= 8, (
    "these tests need eight devices; tests/conftest.py asks for them unless XLA_FLAGS is set"
)

TX = gx.chain(
    gx.clip_by_global_norm(0.5), gx.adamw(gx.linear_schedule(1e-2, 0.0, 10), weight_decay=0.1)
)


def make_mesh(kind):
    return Mesh(
        np.array(jax.devices()[:8]),
        ("x",),
        axis_types=(AxisType.Auto if kind == "auto" else AxisType.Explicit,),
    )


def tree(seed, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    shapes = {"w": (16, 8), "b": (8,), "s": ()}
    return {name: jnp.asarray(rng.standard_normal(shape), dtype) for name, shape in shapes.items()}


SPECS = {"w": P("x", None), "b": P("x"), "s": P()}


def shardings(mesh):
    return {name: NamedSharding(mesh, spec) for name, spec in SPECS.items()}


def moments(state):
    return state["adamw"]["ema"].slots["m"], state["adamw"]["scale_by_rms"].slots["v"]


@pytest.fixture(params=["auto", "explicit"])
def mesh(request):
    """A mesh of eight devices; JAX wants an explicit one to be the current one."""
    mesh = make_mesh(request.param)
    if request.param == "auto":
        yield mesh
    else:
        with jax.set_mesh(mesh):
            yield mesh


def assert_sharded_alike(got, expected):
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True
    ):
        assert x.sharding.is_equivalent_to(y.sharding, x.ndim), (
            f"{jax.tree_util.keystr(path)}: {x.sharding}"
        )


def train(params, grads, state=None, update=TX.update, steps=3):
    """A few steps, each waited for: a free-running loop of collectives deadlocks fake devices."""
    state = TX.init(params) if state is None else state
    for i in range(steps):
        scaled = jax.tree.map(lambda g, i=i: g * (1 - 0.7 * i), grads)
        updates, state = update(scaled, state, params)
        params = jax.block_until_ready(gx.apply_updates(params, updates))
    return params, state


def test_eager_init_follows_the_parameters(mesh):
    params = jax.device_put(tree(0), shardings(mesh))
    for slots in moments(TX.init(params)):
        assert_sharded_alike(slots, params)
    others = gx.chain(
        gx.scale_by_rss(),
        gx.scale_by_yogi_rms(),
        gx.scale_by_adadelta(),
        gx.momentum(0.9, accumulator_dtype="bfloat16"),
    )
    for state in others.init(params).values():
        for slot in state.slots.values():
            assert_sharded_alike(slot, params)


@pytest.mark.parametrize("how", ["eager", "jit"])
def test_a_step_equals_the_unsharded_one_and_keeps_the_layout(mesh, how):
    update = TX.update if how == "eager" else jax.jit(TX.update)
    params, grads = (jax.device_put(tree(seed), shardings(mesh)) for seed in (0, 1))
    got, state = train(params, grads, update=update)
    assert_sharded_alike(got, params)
    for slots in moments(state):
        assert_sharded_alike(slots, params)
    with jax.set_mesh(make_mesh("auto")):
        expected, expected_state = train(tree(0), tree(1))
    for name in params:
        np.testing.assert_allclose(got[name], expected[name], rtol=2e-6, atol=2e-6)
    for a, b in zip(
        jax.tree.leaves(moments(state)), jax.tree.leaves(moments(expected_state)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6)


def test_the_norm_is_that_of_the_whole_tree(mesh):
    """One large entry on one device shortens the update on all."""
    u = {"a": jnp.zeros(16).at[3].set(30.0), "b": jnp.full(8, 40 / np.sqrt(8))}
    u = jax.device_put(u, NamedSharding(mesh, P("x")))
    tx = gx.clip_by_global_norm(5.0)
    got, _ = jax.jit(tx.update)(u, tx.init(u))
    np.testing.assert_allclose(np.asarray(got["a"])[3], 3.0, rtol=1e-6)
    np.testing.assert_allclose(got["b"], 4 / np.sqrt(8), rtol=1e-6)


def bytes_per_device(state):
    """The bytes of the moments on the first device, counted where they lie."""
    device = jax.devices()[0]
    return sum(
        s.data.nbytes
        for x in jax.tree.leaves(moments(state))
        for s in x.addressable_shards
        if s.device == device
    )


def test_zero_1_is_out_shardings_and_nothing_else():
    """Replicated parameters, sharded state: an eighth of the moments on each device, the same numbers."""
    mesh = make_mesh("auto")
    replicated, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("x"))
    params = jax.device_put({k: v for k, v in tree(0).items() if v.ndim}, replicated)
    grads = jax.device_put({k: v for k, v in tree(1).items() if v.ndim}, replicated)
    abstract = jax.eval_shape(TX.init, params)
    layout = jax.tree.map(lambda x: split if x.ndim else replicated, abstract)
    state = jax.jit(TX.init, out_shardings=layout)(params)

    def step(params, state, grads):
        updates, state = TX.update(grads, state, params)
        return gx.apply_updates(params, updates), state

    sharded_step = jax.jit(step, out_shardings=(replicated, layout), donate_argnums=(0, 1))
    got = jax.tree.map(jnp.copy, params)
    for _ in range(3):
        got, state = jax.block_until_ready(sharded_step(got, state, grads))
    expected, whole = params, TX.init(params)
    for _ in range(3):
        expected, whole = jax.block_until_ready(jax.jit(step)(expected, whole, grads))

    full = 2 * sum(p.nbytes for p in jax.tree.leaves(params))
    assert bytes_per_device(whole) == full
    assert bytes_per_device(state) * 8 == full
    for x in jax.tree.leaves(moments(state)):
        assert x.sharding.is_equivalent_to(split, x.ndim)
    for name in params:
        assert got[name].sharding.is_equivalent_to(replicated, got[name].ndim)
        np.testing.assert_allclose(got[name], expected[name], rtol=2e-6, atol=2e-6)


def test_inside_shard_map_with_averaged_gradients():
    """Data parallel by hand: each device has its part of the batch, the parameters and the state are replicated."""
    mesh = make_mesh("auto")
    tx = gx.chain(gx.clip_by_global_norm(0.5), gx.adam(1e-2))
    x = jnp.asarray(np.random.default_rng(2).standard_normal((32, 4)), jnp.float32)
    params = {"w": jnp.ones(4)}

    def loss(params, x):
        return jnp.mean((x @ params["w"]) ** 2)

    def step(params, state, x):
        grads = jax.tree.map(
            lambda g: jax.lax.pmean(g, "x"),
            jax.grad(loss)(jax.lax.pcast(params, "x", to="varying"), x),
        )
        updates, state = tx.update(grads, state, params)
        return gx.apply_updates(params, updates), state

    mapped = jax.jit(
        jax.shard_map(step, mesh=mesh, in_specs=(P(), P(), P("x")), out_specs=(P(), P()))
    )
    got, state = params, tx.init(params)
    expected, plain_state = params, tx.init(params)
    for _ in range(3):
        got, state = jax.block_until_ready(mapped(got, state, x))
        updates, plain_state = tx.update(jax.grad(loss)(expected, x), plain_state, expected)
        expected = gx.apply_updates(expected, updates)
    np.testing.assert_allclose(got["w"], expected["w"], rtol=2e-5, atol=2e-6)


def test_inside_shard_map_on_sharded_parameters():
    """What acts entry by entry needs to know nothing of the other shards, and init works there as well."""
    mesh = make_mesh("auto")
    tx = gx.chain(gx.clip(0.5), gx.adamw(1e-2, weight_decay=0.1), gx.zero_nans())
    params, grads = tree(0)["w"], tree(1)["w"]

    def two_steps(params, grads):
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(grads, state, params)
            params = gx.apply_updates(params, updates)
        return params, state["adamw"]["ema"].slots["m"]

    mapped = jax.jit(
        jax.shard_map(two_steps, mesh=mesh, in_specs=(P("x"), P("x")), out_specs=(P("x"), P("x")))
    )
    for got, expected in zip(mapped(params, grads), two_steps(params, grads), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-6)
        assert got.sharding.spec[0] == "x"


def test_an_abstract_state_takes_the_layout_of_explicit_parameters():
    """In Explicit mode shapes carry their layout, so eval_shape says where a state will lie."""
    mesh = make_mesh("explicit")
    with jax.set_mesh(mesh):
        params = jax.device_put(tree(0), shardings(mesh))
        abstract = jax.eval_shape(TX.init, params)
        for slots in moments(abstract):
            for name, x in slots.items():
                assert (
                    x.sharding.spec == params[name].sharding.spec
                    or x.ndim == 0
                    or x.sharding.spec[0] == "x"
                )
        in_jit = jax.jit(TX.init)(params)
        for slots in moments(in_jit):
            assert_sharded_alike(slots, params)


def test_init_in_jit_needs_out_shardings_in_auto_mode():
    """The documented cure for a whole state on the first device."""
    mesh = make_mesh("auto")
    params = jax.device_put(tree(0), shardings(mesh))
    layout = jax.tree.map(
        lambda x: NamedSharding(mesh, P("x") if x.ndim else P()), jax.eval_shape(TX.init, params)
    )
    for slots in moments(jax.jit(TX.init, out_shardings=layout)(params)):
        assert_sharded_alike(slots, params)


@pytest.mark.parametrize("name", ["sm3", "adam"])
def test_a_state_keeps_its_types_where_shardings_are_in_types(name):
    explicit = (jax.sharding.AxisType.Explicit,)
    mesh = jax.make_mesh((len(jax.devices()),), ("x",), axis_types=explicit)
    with jax.set_mesh(mesh):
        spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x", None))
        params = {"w": jax.device_put(jnp.ones((16, 4)), spec)}
        tx = getattr(gx, name)(0.1)
        state = tx.init(params)
        _, new = jax.eval_shape(tx.update, params, state, params)
        types = [[str(jax.typeof(x)) for x in jax.tree.leaves(tree)] for tree in (new, state)]
        assert types[0] == types[1]
        assert any("x" in kind for kind in types[0])
