"""How the matrices of one shape are run: the one place that chooses.

"calls": one program for each shape, called for each leaf. Fastest on a CPU, where stacking copies.
"stack": one program for each shape, on all matrices of that shape at once, those of a batch among
them. For backends that run a batch of small products better than one after another, and for a mesh.

Under a mesh the axis of the stack is divided among the devices, so that each owns some of the
matrices and nothing is exchanged while a rule works on them: once before it and once after it,
however many products it takes.
"""

import math
from collections.abc import Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.experimental.shard_alike import shard_alike
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gradxform import versions
from gradxform.core import Inner, Transform, transformation
from gradxform.core import leaves as trees
from gradxform.core.call import pytree
from gradxform.wrappers.wrapper import Wrapper

__all__ = ["over_mesh"]

Told = tuple[Any, tuple[str, ...] | None]

_told: ContextVar[Told] = ContextVar("over_mesh", default=(None, None))


class Over(NamedTuple):
    """A mesh, and the axes of it that a stack is divided over."""

    mesh: Any
    axes: tuple[str, ...]

    @property
    def devices(self) -> int:
        """How many share a stack."""
        return math.prod(self.mesh.shape[a] for a in self.axes)


def way() -> str:
    """How matrices of one shape run here, where there is no mesh: "calls" or "stack"."""
    return "calls" if jax.default_backend() == "cpu" else "stack"


def exact() -> bool:
    """Whether products of float32 are those of float32 here unless one asks for less. GPUs and TPUs
    round first, and are several times slower where they must not.
    """
    return jax.default_backend() == "cpu"


def over(arrays) -> Over | None:
    """The mesh that stacks are divided over: that which the types of the arrays name, the current
    one, or that of `over_mesh`. None for a single device, and inside a `shard_map`.
    """
    mesh, axes = _told.get()
    mesh = versions.mesh_of(arrays) or mesh
    if mesh is None or getattr(mesh, "manual_axes", ()):
        return None
    axes = tuple(mesh.axis_names) if axes is None else axes
    if missing := [a for a in axes if a not in mesh.axis_names]:
        known = f"axes must be among the mesh's {[*mesh.axis_names]}"
        raise ValueError(f"over_mesh: {known}; got {missing[0]!r}")
    where = Over(mesh, axes)
    return where if where.devices > 1 else None


def run_alike(f, keys: Sequence[Any], leaves: Sequence[Any], rows: Sequence[Any], common):
    """`f(key, *matrices, own, *common)` for each leaf, whose row is `(*arrays, own)`: arrays in the
    layout of the leaf, and numbers of its own.

    Leaves are static, and know how an array falls into matrices: `apart(arrays)` gives matrices, or
    an axis of them in front where `many` is not None; `together(result, arrays)` undoes it.
    """
    arrays = jax.tree.leaves((rows, common))
    where = over(arrays)
    if where is None and way() == "calls":
        pairs = zip(leaves, rows, strict=True)
        matrices = [(*leaf.apart(row[:-1]), row[-1]) for leaf, row in pairs]
        results = trees.map_leaves(f, keys, matrices, common)
        return [leaf.together(x) for leaf, x in zip(leaves, results, strict=True)]
    static = f, tuple(keys), tuple(leaves), where
    traced = any(isinstance(x, Tracer) for x in arrays)
    return (_placed if traced else _compiled)(static, list(rows), common)


def _placed(static, rows, common):
    """In stacks, also where shardings are in types: without them, and in those of the leaves
    after it.
    """
    f, keys, leaves, where = static
    if where is None or not getattr(where.mesh, "explicit_axes", ()):
        return _stacked(static, rows, common)

    def free(rows, common):
        inside = where._replace(mesh=versions.mesh_of(()))
        return _stacked((f, keys, leaves, inside), rows, common)

    like = [leaf.like(row[:-1]) for leaf, row in zip(leaves, rows, strict=True)]
    return versions.without_types(free, like, where.mesh)(rows, common)


_compiled = jax.jit(_placed, static_argnums=0)


def _stacked(static, rows, common):
    """Rows that agree in key, shapes and dtypes of their matrices are stacked and run once."""
    f, keys, leaves, where = static
    groups: dict = {}
    matrices = []
    for i, (key, leaf, row) in enumerate(zip(keys, leaves, rows, strict=True)):
        *arrays, own = row
        one = leaf.many is None
        apart = jax.tree.map(lambda x, one=one: x[None] if one else x, leaf.apart(arrays))
        many = 1 if one else leaf.many
        own = jax.tree.map(lambda x, many=many: jnp.broadcast_to(x, (many, *x.shape)), own)
        matrices.append((*apart, own))
        flat, structure = jax.tree.flatten(matrices[-1])
        kinds = tuple((x.shape[1:], x.dtype) for x in flat)
        # exchanged together only what is laid out alike
        alike = (key, structure, kinds, where and leaf)
        groups.setdefault(alike, []).append(i)
    out: list = [None] * len(rows)
    for (key, *_), members in groups.items():
        leaf = leaves[members[0]]
        stack = jax.tree.map(lambda *xs: jnp.concatenate(xs), *(matrices[i] for i in members))
        results = _run(f, key, leaf.like, where, stack, common)
        start = 0
        for i in members:
            leaf, many = leaves[i], leaves[i].many
            at = start if many is None else slice(start, start + many)
            start += many or 1
            new = leaf.together(jax.tree.map(lambda x, at=at: x[at], results))
            out[i] = new if where is None else _alike(new, leaf.like(rows[i][:-1]))
    return out


@partial(jax.jit, static_argnums=(0, 1, 2, 3), inline=False)
def _run(f, key, like, where: Over | None, stack, common):
    """f on each matrix of a stack, which is divided over the devices where there are several."""
    alike = jax.vmap(lambda row, common: f(key, *row, *common), (0, None))
    if where is None:
        return alike(stack, common)
    many = jax.tree.leaves(stack)[0].shape[0]
    padded = -(-many // where.devices) * where.devices
    again = -(-padded // many)  # with the matrices once more: at zeros a rule may have no slope
    filled = jax.tree.map(lambda x: jnp.concatenate([x] * again)[:padded], stack)
    stack = whole = _divided(filled, where, 0)
    # by one axis of the mesh after another, for which XLA knows an exchange
    stages = range(1, len(where.axes))
    for n in stages:
        stack = _divided(stack, where, n)
    by = P(where.axes)
    results = versions.shard_map(alike, where.mesh, (by, P()), by)(stack, common)
    for n in reversed(stages):
        results = _divided(results, where, n)
    results = _alike(_divided(results, where, 0), like(whole[:-1]))
    return jax.tree.map(lambda x: x[:many], results)


def _divided(stack, where: Over, n: int):
    """The stack divided over n axes of the mesh, its matrices as what makes or reads them wants."""
    first, free = where.axes[:n] or None, P.UNCONSTRAINED
    wanted = lambda x: NamedSharding(where.mesh, P(first, *[free] * (x.ndim - 1)))  # noqa: E731
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, wanted(x)), stack)


def _alike(tree, like):
    """The tree, sharded as another one."""
    return jax.tree.map(lambda x, y: shard_alike(x, y)[0], tree, like)


@pytree(static=("mesh", "axes"))
class OverMesh(Wrapper):
    """Built by `over_mesh`."""

    called = "over_mesh"
    inner: Transform
    mesh: Any
    axes: tuple[str, ...] | None

    def inside(self, state=None, params=None):
        yield "", self.inner, state, params

    def init(self, params):
        return self.inner.init(params)

    def update(self, updates, state, params=None, *, gradient=None, **extra):
        token = _told.set((self.mesh, self.axes))
        try:
            return self.run(updates, state, params, gradient, extra)
        finally:
            _told.reset(token)


def _names(axes) -> tuple[str, ...] | None:
    if axes is None:
        return None
    return (axes,) if isinstance(axes, str) else tuple(axes)


@transformation
def over_mesh(inner: Inner, mesh: Any = None, axes: Any = None):
    """Say over which axes of which mesh the matrices of the methods inside are divided.

    Without it they are divided over all axes of the mesh that the types of parameters, gradients
    and state name (so of whatever lies on one, inside `jax.jit` as well), else of the current one
    (`jax.set_mesh`). It is for other axes, and for parameters that no type tells of: those made
    inside the compiled function.

        over_mesh(muon(1e-3), axes="fsdp")

    All matrices of one shape are a stack, divided along its first axis: each device owns some, and
    what it owns it has whole. How the parameters lie does not matter (replicated, divided by rows,
    by columns, over several axes), and updates and state lie as parameters and state did. So one
    exchange of the updates goes before a step and one after it. Where there are fewer matrices of a
    shape than devices, or a rest, some devices run copies.

    State: what a method remembers like a parameter (momenta) lies as the parameter where `init`
    sees its layout: outside `jax.jit`, and in Explicit mode. In Auto mode under `jax.jit(tx.init)`
    it does not, as of every optimizer: give `out_shardings`. Factors of a matrix begin whole on
    every device; they lie where `out_shardings` of init and of the step put them.

    Args:
        mesh: the mesh, where no type tells it.
        axes: a name, or several, for one stack over all of them; none, `()`, divides nothing.

    Memory: none beside the inner state.

    Raises:
        ValueError: an axis that the mesh does not have.

    Source: K. Jordan et al., Muon (2024), whose distributed step gives each device matrices of its
    own.
    """
    return OverMesh(inner, mesh, _names(axes))
