"""Matrix methods over eight devices: sharded equals unsharded, however parameters lie, and a step
exchanges whole stacks, not one matrix for each product.
"""

import inspect
import re
from collections import Counter
from contextlib import nullcontext
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from instances import TRANSFORMATIONS
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import gradxform as gx
from gradxform.matrices.matrixwise import MatrixSlot, matrixwise
from gradxform.testing.tools import constructors

# the axes of a mesh -> how rows and columns lie on it
LAYOUTS = {
    "replicated": ({"x": 8}, None, None),
    "rows": ({"x": 8}, "x", None),
    "columns": ({"x": 8}, None, "x"),
    "both": ({"x": 4, "y": 2}, "x", "y"),
    "rows of two axes": ({"x": 4, "y": 2}, ("x", "y"), None),
}
SHAPES = {
    "wide": {"kernel": (8, 16)},
    "tall": {"kernel": (16, 8)},
    "other": {"kernel": (8, 16)},
    "layers": {"kernel": (3, 8, 16)},
}


def make_mesh(layout, kind):
    axes, *_ = LAYOUTS[layout]
    devices = np.array(jax.devices()[:8]).reshape(*axes.values())
    return Mesh(devices, tuple(axes), axis_types=(getattr(AxisType, kind),) * len(axes))


def specs(layout, shapes):
    _, *sides = LAYOUTS[layout]
    ends = lambda shape: P(*[None] * (len(shape) - 2), *sides)  # noqa: E731
    return jax.tree.map(ends, shapes, is_leaf=lambda x: isinstance(x, tuple))


def tree(seed, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    draw = lambda shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    return jax.tree.map(draw, shapes, is_leaf=lambda x: isinstance(x, tuple))


def placed(tree, mesh, layout):
    spec = specs(layout, jax.tree.map(jnp.shape, tree))
    return jax.tree.map(lambda x, s: jax.device_put(x, NamedSharding(mesh, s)), tree, spec)


@lru_cache
def unsharded(make):
    """The updates of three steps on one device."""
    return three_steps(make(), tree(0), tree(1))[0]


def three_steps(tx, params, grads, how=jax.jit):
    """Parameters and updates after three steps, each waited for."""
    step = how(lambda p, s, g: tx.update(g, s, p))
    state, kept = tx.init(params), []
    for i in range(3):
        scaled = jax.tree.map(lambda g, i=i: g * (1 - 0.7 * i), grads)
        updates, state = jax.block_until_ready(step(params, state, scaled))
        params = gx.apply_updates(params, jax.tree.map(lambda u: 0.1 * u, updates))
        kept.append(updates)
    return kept, params, state


def assert_equals_unsharded(make, layout, kind, how=jax.jit):
    mesh, params, grads = make_mesh(layout, kind), tree(0), tree(1)
    expected = unsharded(make)
    with jax.set_mesh(mesh) if kind == "Explicit" else nullcontext():
        given = placed(params, mesh, layout), placed(grads, mesh, layout)
        found, *_ = three_steps(make(), *given, how)
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        size = float(jnp.max(jnp.abs(want)))
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * size)
    wanted = jax.tree.leaves(specs(layout, SHAPES), is_leaf=lambda x: isinstance(x, P))
    for updates in found:
        for x, spec in zip(jax.tree.leaves(updates), wanted, strict=True):
            assert x.sharding.is_equivalent_to(NamedSharding(mesh, spec), x.ndim), x.sharding


def takes_matrices(constructor):
    names = inspect.signature(constructor).parameters
    return "matrices" in names or any(name.endswith("dimension_numbers") for name in names)


METHODS = sorted(name for name, f in constructors().items() if takes_matrices(f))
WAYS = [(layout, kind) for layout in LAYOUTS for kind in ("Auto", "Explicit")]
CHEAP = {("orthogonalize", "both", "Auto")}


def cases():
    """Every method in every way: the slow tail has one way of each method, -m mesh all others."""
    for i, method in enumerate(METHODS):
        for j, way in enumerate(WAYS):
            mark = pytest.mark.slow if j == i % len(WAYS) else pytest.mark.mesh
            yield pytest.param(method, *way, marks=() if (method, *way) in CHEAP else mark)


@pytest.mark.parametrize(("method", "layout", "kind"), list(cases()))
def test_sharded_equals_unsharded(method, layout, kind):
    assert_equals_unsharded(TRANSFORMATIONS[method].make, layout, kind)


def whitened(u, at, left, *, decay, every):
    """With a factor, work that is skipped, and numbers that may differ from leaf to leaf."""
    left = decay * left + (1 - decay) * u @ u.T
    solve = lambda left, u: jnp.linalg.solve(left, u)  # noqa: E731
    return jax.lax.cond(at.t % every == 0, solve, lambda left, u: u, left, u), left


def make_whitened():
    decay = gx.by_path({"wide/**": jnp.float32(0.5), "layers/**": 0.7, "**": 0.9})
    slots = {"left": MatrixSlot(("rows", "rows"), "eye")}
    return matrixwise(whitened, slots=slots, decay=decay, every=jnp.int32(2))


@pytest.mark.parametrize("kind", ["Auto", pytest.param("Explicit", marks=pytest.mark.slow)])
def test_slots_numbers_of_leaves_and_skipped_work_go_along(kind):
    assert_equals_unsharded(make_whitened, "rows", kind)


@pytest.mark.parametrize("kind", ["Auto", pytest.param("Explicit", marks=pytest.mark.slow)])
def test_eager_steps_equal_compiled_ones(kind):
    assert_equals_unsharded(gx.orthogonalize, "columns", kind, how=lambda step: step)


def test_work_that_is_skipped_stays_skipped_in_a_stack():
    mesh = make_mesh("rows", "Auto")
    params, tx = placed(tree(0), mesh, "rows"), make_whitened()
    text = str(jax.make_jaxpr(tx.update)(params, tx.init(params)))
    assert "shard_map" in text
    assert "cond[" in text
    assert not re.search(r":f32\[[^]]*\] = select_n", text)


def exchanges(text):
    """How often a compiled program exchanges what, by kind."""
    kinds = "all-gather|all-to-all|all-reduce|collective-permute|reduce-scatter"
    return Counter(re.findall(rf" ({kinds})(?:-start)?\(", text))


def compiled(tx, params):
    state = tx.init(params)
    step = jax.jit(lambda p, s, g: tx.update(g, s, p))
    return step.lower(params, state, params).compile().as_text() or ""


def gpt(blocks, width=16):
    sides = {"q": (1, 1), "k": (1, 1), "v": (1, 1), "out": (1, 1), "up": (1, 4), "down": (4, 1)}
    one = {k: {"kernel": (width * m, width * n)} for k, (m, n) in sides.items()}
    return tree(0, {f"block_{i}": one for i in range(blocks)})


MUON = gx.muon(0.1)


def optax_muon():
    dims = lambda p: jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(), p)  # noqa: E731
    scale = optax.contrib.scale_by_muon(weight_dimension_numbers=dims)
    return optax.chain(scale, optax.scale_by_learning_rate(0.1))


@pytest.mark.parametrize("blocks", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_a_step_of_muon_exchanges_stacks_and_not_matrices(blocks):
    """Three stacks (square, wide, tall), each twice, however many blocks there are."""
    params = placed(gpt(blocks), make_mesh("rows", "Auto"), "rows")
    found = exchanges(compiled(MUON, params))
    assert found.keys() <= {"all-to-all"}
    assert 0 < found["all-to-all"] <= 8


@pytest.mark.slow
def test_optax_gathers_every_matrix_in_every_iteration(standard_promotion):
    """48 matrices, 5 iterations: for the figure beside ours."""
    params = placed(gpt(8), make_mesh("rows", "Auto"), "rows")
    found = exchanges(compiled(optax_muon(), params))
    assert found["all-gather"] >= 48 * 5, found


def test_replicated_parameters_are_shared_out_and_come_back_in_one_exchange_a_stack():
    params = placed(gpt(2), make_mesh("replicated", "Auto"), "replicated")
    text = compiled(MUON, params)
    assert exchanges(text) == {"all-gather": 3}
    owned = {int(n) for n in re.findall(r"f32\[(\d+),16,16\]\S* dot\(", text)}
    assert owned <= {1}, f"a device multiplies {owned} matrices at once"


def test_over_mesh_chooses_the_axes():
    mesh, params = make_mesh("both", "Auto"), tree(0)
    given = placed(params, mesh, "both")
    text = lambda tx: str(jax.make_jaxpr(tx.update)(given, tx.init(given)))  # noqa: E731
    assert "P(('x', 'y'),)" in text(gx.orthogonalize())
    only = text(gx.over_mesh(gx.orthogonalize(), axes="y"))
    assert "P('y',)" in only
    assert "('x', 'y')" not in only
    assert "shard_map" not in text(gx.over_mesh(gx.orthogonalize(), axes=()))
    with pytest.raises(ValueError, match=r"over_mesh: axes must be among .*\['x', 'y'\]; got 'z'"):
        text(gx.over_mesh(gx.orthogonalize(), axes="z"))


def test_over_mesh_tells_the_mesh_where_no_type_does():
    tx = gx.over_mesh(gx.orthogonalize(), make_mesh("rows", "Auto"))
    text = str(jax.make_jaxpr(lambda g: tx.update(g, tx.init(g)))(tree(0)))
    assert "shard_map" in text


def test_inside_shard_map_each_device_runs_what_it_is_given():
    mesh, tx = make_mesh("rows", "Auto"), gx.orthogonalize()
    one = lambda g: tx.update(g, tx.init(g))[0]  # noqa: E731
    stack = jax.random.normal(jax.random.key(0), (8, 4, 6))
    each = lambda x: one({"kernel": x[0]})["kernel"][None]  # noqa: E731
    mapped = jax.shard_map(each, mesh=mesh, in_specs=P("x"), out_specs=P("x"), check_vma=False)
    expected = jnp.stack([one({"kernel": x})["kernel"] for x in stack])
    np.testing.assert_allclose(jax.jit(mapped)(stack), expected, rtol=1e-5, atol=1e-6)
