"""Gradients in a subspace: a transformation runs on their projections, and its steps come back in
full.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradxform.core import leaves as trees
from gradxform.core.call import pytree
from gradxform.core.chain import as_transform, chain, transformation
from gradxform.core.hyper import Count, Real, at_step, scalar
from gradxform.core.labels import ByPath
from gradxform.core.transform import Transform
from gradxform.display.code import code
from gradxform.numerics import wide_dtype
from gradxform.rules.directions import ema
from gradxform.rules.preconditioners import scale_by_rms

__all__ = ["GaLoreDimensionNumbers", "scale_by_galore"]


class _Inner:
    """A transformation, or an (init, update) pair from elsewhere."""

    def convert(self, owner: str, name: str, x: Any) -> Transform:
        return as_transform(x)


Inner = Annotated[Any, _Inner()]


class GaLoreDimensionNumbers(NamedTuple):
    """Which axes of an array are the rows, `reduction_axis`, and which the columns, `output_axis`,
    of a matrix.
    """

    reduction_axis: int | Sequence[int] = 0
    output_axis: int | Sequence[int] = 1


class _ByLeaf(tuple):
    """(path, dimension numbers) pairs, as a function of path and leaf."""

    def __call__(self, path, leaf):
        return dict(self).get(path)


class _Dimensions:
    """`GaLoreDimensionNumbers` for every leaf of rank 2 or more, a function of (path, leaf), or a
    tree like the parameters.
    """

    static = True

    def convert(self, owner: str, name: str, x: Any):
        if isinstance(x, GaLoreDimensionNumbers):
            axes = (tuple(a) if isinstance(a, Sequence) else a for a in x)
            return GaLoreDimensionNumbers(*axes)
        if callable(x):
            return x
        leaves = jax.tree_util.tree_leaves_with_path(
            x, is_leaf=lambda y: y is None or isinstance(y, GaLoreDimensionNumbers)
        )
        if not all(y is None or isinstance(y, GaLoreDimensionNumbers) for _, y in leaves):
            raise TypeError(
                f"{owner}: {name} must be GaLoreDimensionNumbers, a function of (path, leaf) or a "
                f"tree of these; got {code(x)}"
            )
        return _ByLeaf(
            (trees.path_string(path), y and self.convert(owner, name, y)) for path, y in leaves
        )


Dimensions = Annotated[Any, _Dimensions()]


class LowRankState(NamedTuple):
    """State of `scale_by_galore`: updates made, the projectors (None for a leaf that is not
    projected), the inner state.
    """

    step: jax.Array
    projector: Any
    inner: Any


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


@pytree(static=("rank", "dimensions", "convention", "name"))
class GaLore(Transform):
    """Built by `scale_by_galore`."""

    update_proj_gap: Any
    scale: Any
    inner: Transform
    rank: int
    dimensions: Any
    convention: str
    name: str = "scale_by_galore"

    @property
    def direction(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.direction

    def number(self, name: str, step):
        """One of its numbers at a step; it is one number for the whole tree."""
        x = at_step(getattr(self, name), step)
        if isinstance(x, ByPath):
            raise ValueError(
                f"{self.name}: {name} is one number for the whole tree; it takes no by_path table"
            )
        return scalar(self.name, name, x)

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
        rows, columns = (
            [a % x.ndim for a in ([axis] if isinstance(axis, int) else axis)] for axis in axes
        )
        transpose = (*rows, *columns)
        if sorted(transpose) != list(range(x.ndim)):
            raise ValueError(
                f"{self.name}: {path!r} of shape {x.shape}: {axes} must name every axis once"
            )
        m, n = (math.prod(x.shape[a] for a in side) for side in (rows, columns))
        left = m >= n if self.convention == "optax" else m < n
        return _View(
            transpose, tuple(x.shape[a] for a in transpose), m, n, left, min(self.rank, m, n)
        )

    def views(self, tree):
        """One view per leaf, None leaves included."""
        leaves = jax.tree.leaves(tree, is_leaf=trees.is_none)
        return [
            None if x is None else self.view(path, x)
            for path, x in zip(trees.paths(tree), leaves, strict=True)
        ]

    def init(self, params):
        leaves, structure = jax.tree.flatten(params, is_leaf=trees.is_none)
        views = self.views(params)
        projectors, low = [], []
        for x, view in zip(leaves, views, strict=True):
            if view is None:
                projectors.append(None)
                low.append(x)
                continue
            side, other = (view.rows, view.columns) if view.left else (view.columns, view.rows)
            dtype = wide_dtype(x.dtype)
            projectors.append(jnp.zeros((side, view.rank), dtype))
            low.append(jnp.zeros((view.rank, other) if view.left else (other, view.rank), x.dtype))
        return LowRankState(
            jnp.zeros((), jnp.int32),
            structure.unflatten(projectors),
            self.inner.init(structure.unflatten(low)),
        )

    def update(self, updates, state, params=None, **extra):
        gap, amount = (self.number(name, state.step) for name in ("update_proj_gap", "scale"))
        due = state.step % jnp.asarray(gap, jnp.int32) == 0
        leaves, structure = jax.tree.flatten(updates, is_leaf=trees.is_none)
        views = self.views(updates)
        old = structure.flatten_up_to(state.projector)
        projectors, low = [], []
        for x, view, projector in zip(leaves, views, old, strict=True):
            if view is None:
                projectors.append(None)
                low.append(x)
                continue
            wide = x.astype(projector.dtype)
            held = jax.lax.stop_gradient(
                wide
            )  # the subspace is chosen, not differentiated: repeated singular values have no slope
            new = jax.lax.cond(
                due,
                lambda g, p, view=view: view.leading(g).astype(p.dtype),
                lambda g, p: p,
                held,
                projector,
            )
            projectors.append(new)
            low.append(view.project(wide, new).astype(x.dtype))
        extra.pop("gradient", None)
        out, inner = self.inner.update(structure.unflatten(low), state.inner, None, **extra)
        lifted = []
        for x, view, projector, step in zip(
            leaves, views, projectors, structure.flatten_up_to(out), strict=True
        ):
            if view is None:
                lifted.append(step)
                continue
            full = view.lift(step.astype(projector.dtype), projector)
            lifted.append((jnp.asarray(amount, full.dtype) * full).astype(x.dtype))
        return structure.unflatten(lifted), LowRankState(
            state.step + jnp.ones((), jnp.int32), structure.unflatten(projectors), inner
        )


@transformation(conventions=("optax", "paper"))
def scale_by_galore(
    rank: int = 128,
    update_proj_gap: Count = 200,
    scale: Real = 1.0,
    base_optimizer: Inner | None = None,
    weight_dimension_numbers: Dimensions | None = None,
    *,
    convention: str = "optax",
):
    """Run a transformation on low-rank projections of the gradients of matrices.

        every k-th step, k = `update_proj_gap`:  P = the first r left singular vectors of g, r = `rank`
        R = Pᵀ g,  u ← s P base(R)               right singular vectors, R = g P, u ← s base(R) Pᵀ, for the other side

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

    Raises:
        ValueError: a rank below 1, an unknown convention, dimension numbers that leave an axis out.

    Source: J. Zhao et al., GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection
    (2024), algorithm 2.
    """
    if rank < 1:
        raise ValueError(f"scale_by_galore: rank must lie in [1, inf); got {rank}")
    adam = chain(ema(0.9), scale_by_rms(0.999, eps_in_sqrt=False, bias_correction=True))
    return GaLore(
        update_proj_gap,
        scale,
        adam if base_optimizer is None else base_optimizer,
        rank,
        weight_dimension_numbers,
        convention,
    )
