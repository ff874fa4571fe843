"""Gradients in a subspace: a transformation runs on their projections, and its steps come back in
full.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from gradxform.core import Count, Inner, Real, Transform, chain, transformation
from gradxform.core import leaves as trees
from gradxform.core.call import pytree
from gradxform.core.states import answers
from gradxform.display.code import code
from gradxform.matrices.declaration import GaLoreDimensionNumbers
from gradxform.numerics import increment, wide_dtype
from gradxform.rules.directions import ema
from gradxform.rules.preconditioners import scale_by_rms
from gradxform.wrappers.wrapper import Wrapper, counter, is_multiple

__all__ = ["scale_by_galore"]


class _ByLeaf(tuple):
    """(path, dimension numbers) pairs, as a function of path and leaf."""

    def __call__(self, path, leaf):
        return dict(self).get(path)


class _Dimensions:
    """`GaLoreDimensionNumbers` for every leaf of rank 2 or more, a function of (path, leaf), or a
    tree like the parameters.
    """

    static = True

    def convert(self, owner: str, name: str, x):
        if isinstance(x, GaLoreDimensionNumbers):
            axes = (tuple(a) if isinstance(a, Sequence) else a for a in x)
            return GaLoreDimensionNumbers(*axes)
        if callable(x):
            return x
        is_leaf = lambda y: y is None or isinstance(y, GaLoreDimensionNumbers)  # noqa: E731
        rows = jax.tree_util.tree_leaves_with_path(x, is_leaf=is_leaf)
        if not all(is_leaf(y) for _, y in rows):
            wanted = "GaLoreDimensionNumbers, a function of (path, leaf) or a tree of these"
            raise TypeError(f"{owner}: {name} must be {wanted}; got {code(x)}")
        at = trees.path_string
        return _ByLeaf((at(path), y and self.convert(owner, name, y)) for path, y in rows)


Dimensions = Annotated[Any, _Dimensions()]


@answers(count="step", inner_state="inner")
class LowRankState(NamedTuple):
    """State of `scale_by_galore`: updates made, the projectors (None for a leaf that is not
    projected), the inner state.
    """

    step: jax.Array
    projector: trees.Tree
    inner: trees.Tree


class _View(NamedTuple):
    """A leaf as a matrix, and which side of it is projected to which rank."""

    transpose: tuple[int, ...]
    shape: tuple[int, ...]  # after the transposition
    rows: int
    columns: int
    left: bool
    rank: int

    def matrix(self, x):
        return x.transpose(self.transpose).reshape(self.rows, self.columns)

    def back(self, matrix):
        inverse = sorted(range(len(self.transpose)), key=self.transpose.__getitem__)
        return matrix.reshape(self.shape).transpose(inverse)

    def project(self, x, projector):
        return projector.T @ self.matrix(x) if self.left else self.matrix(x) @ projector

    def lift(self, low, projector):
        return self.back(projector @ low if self.left else low @ projector.T)

    def leading(self, x):
        """The leading singular vectors of the side that is projected."""
        left, _, right = jnp.linalg.svd(self.matrix(x), full_matrices=False)
        return left[:, : self.rank] if self.left else right[: self.rank].T


@pytree(static=("rank", "dimensions", "convention"))
class GaLore(Wrapper):
    """Built by `scale_by_galore`."""

    called = "scale_by_galore"
    State: ClassVar[type] = LowRankState
    inner: Transform
    update_proj_gap: Count
    scale: Real
    rank: int
    dimensions: Dimensions
    convention: str

    def view(self, path: str, x) -> _View | None:
        """How a leaf is projected, None if it is not."""
        if self.dimensions is None:
            axes = GaLoreDimensionNumbers() if x.ndim == 2 else None
        elif isinstance(self.dimensions, GaLoreDimensionNumbers):
            axes = self.dimensions if x.ndim >= 2 else None
        else:
            axes = self.dimensions(path, x)
        if axes is None:
            return None
        named = ([axis] if isinstance(axis, int) else axis for axis in axes)
        rows, columns = ([a % x.ndim for a in side] for side in named)
        transpose = (*rows, *columns)
        if sorted(transpose) != list(range(x.ndim)):
            at = f"{self.name}: {path!r} of shape {x.shape}"
            raise ValueError(f"{at}: {axes} must name every axis once")
        m, n = (math.prod(x.shape[a] for a in side) for side in (rows, columns))
        left = m >= n if self.convention == "optax" else m < n
        shape = tuple(x.shape[a] for a in transpose)
        return _View(transpose, shape, m, n, left, min(self.rank, m, n))

    def views(self, tree):
        """One view per leaf, None leaves included."""
        rows = zip(trees.paths(tree), jax.tree.leaves(tree, is_leaf=trees.is_none), strict=True)
        return [None if x is None else self.view(path, x) for path, x in rows]

    def init(self, params):
        def begin(x, view):
            if view is None:
                return None, x
            side, other = (view.rows, view.columns) if view.left else (view.columns, view.rows)
            shape = (view.rank, other) if view.left else (other, view.rank)
            projector = jnp.zeros_like(x, wide_dtype(x.dtype), (side, view.rank))
            return projector, jnp.zeros_like(x, shape=shape)

        projectors, low = _both(begin, params, self.views(params))
        return LowRankState(counter(), projectors, self.inner.init(low))

    def step(self, updates, state, params, gradient, extra):
        gap = self.number("update_proj_gap", state.step, jnp.int32)
        due = is_multiple(state.step, gap)
        amount = self.number("scale", state.step, float)
        views, structure = self.views(updates), jax.tree.structure(updates, is_leaf=trees.is_none)

        def down(x, view, projector):
            if view is None:
                return None, x
            wide = x.astype(projector.dtype)
            # the subspace is chosen, not differentiated: repeated singular values have no slope
            held = jax.lax.stop_gradient(wide)
            found = lambda g, p: view.leading(g).astype(p.dtype)  # noqa: E731
            new = jax.lax.cond(due, found, lambda g, p: p, held, projector)
            return new, view.project(wide, new).astype(x.dtype)

        def up(x, view, projector, step):
            if view is None:
                return step
            full = view.lift(step.astype(projector.dtype), projector)
            return (amount.astype(full.dtype) * full).astype(x.dtype)

        projectors, low = _both(down, updates, views, structure.flatten_up_to(state.projector))
        out, inner = self.run(low, state.inner, None, None, extra)
        columns = (structure.flatten_up_to(tree) for tree in (updates, projectors, out))
        lifted = [up(x, v, p, u) for v, x, p, u in zip(views, *columns, strict=True)]
        step = increment(state.step, gap)
        return structure.unflatten(lifted), LowRankState(step, projectors, inner)


def _both(f, tree, *columns):
    """Two trees, of what `f(leaf, …)` gives for each leaf and the columns beside it."""
    leaves, structure = jax.tree.flatten(tree, is_leaf=trees.is_none)
    pairs = [f(*row) for row in zip(leaves, *columns, strict=True)]
    return tuple(structure.unflatten([pair[i] for pair in pairs]) for i in range(2))


@transformation(conventions={"optax": {}, "paper": {}})
def scale_by_galore(
    rank: int = 128, update_proj_gap: Count = 200, scale: Real = 1.0,
    base_optimizer: Inner | None = None, weight_dimension_numbers: Dimensions | None = None, *,
    convention: str = "optax",
):  # fmt: skip
    """Run a transformation on low-rank projections of the gradients of matrices.

        P ← the first r left singular vectors of g      at every k-th step
        R = Pᵀ g
        u = s P base(R)      for the other side right vectors, R = g P, u = s base(R) Pᵀ

    Args:
        rank: r, at most the shorter side.
        update_proj_gap: k; its projector is found on the first step and every k-th after it.
        scale: s.
        base_optimizer: what runs on R, and on leaves that are no matrices; it is given no
            parameters. Adam without a learning rate by default.
        weight_dimension_numbers: which axes are rows and columns: by default only arrays of rank 2
            are projected. One `GaLoreDimensionNumbers`, a function of (path, leaf), or a tree of
            them, None for a leaf that is left alone.
        convention: "optax" projects the longer side (R is r × the shorter one); "paper" the shorter
            one.

    Memory: 4 bytes times (longer side · r) for P, and the base optimizer's on R, r · the shorter
    side. The other way round in the paper.
    A meta-gradient takes P for a constant: the leading singular vectors have no slope where
    singular values meet.

    Raises:
        ValueError: a rank below 1, an unknown convention, dimension numbers that leave an axis out.

    Source: J. Zhao et al., GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection
    (2024), algorithm 2.
    """
    if rank < 1:
        raise ValueError(f"scale_by_galore: rank must lie in [1, inf); got {rank}")
    adam = chain(ema(0.9), scale_by_rms(0.999, eps_in_sqrt=False, bias_correction=True))
    inner = adam if base_optimizer is None else base_optimizer
    return GaLore(inner, update_proj_gap, scale, rank, weight_dimension_numbers, convention)
