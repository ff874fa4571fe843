"""Grafting: the steps of one transformation with the lengths of another's."""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from gradxform.core import Count, Inner, Transform, transformation
from gradxform.core import leaves as trees
from gradxform.core.call import pytree
from gradxform.matrices.declaration import Matrices, views
from gradxform.matrices.norms import lengths
from gradxform.numerics import increment, mixed, safe_divide, wide_dtype
from gradxform.wrappers.wrapper import Wrapper, cast, counter, updated

__all__ = ["graft"]


class GraftState(NamedTuple):
    """State of `graft`: updates made, the state of what is followed, that of what lends its
    lengths.
    """

    step: jax.Array
    inner: trees.Tree
    magnitude: trees.Tree


def _grafted(view, u, magnitude, early):
    """u ‖magnitude‖ / ‖u‖ of each matrix, or of the leaf that is none; early, the magnitude."""
    dtype = wide_dtype(u.dtype)
    apart = (lambda x: x.astype(dtype)) if view is None else lambda x: view.apart(x.astype(dtype))
    step, other = apart(u), apart(magnitude)
    axes = tuple(range(u.ndim)) if view is None else (-2, -1)
    with mixed(u):
        factor = safe_divide(lengths(other, axes), lengths(step, axes))
    new = jnp.where(early, other, step * factor.astype(dtype))
    return (new if view is None else view.together(new)).astype(u.dtype)


@pytree(static=("matrices",))
class Graft(Wrapper):
    """Built by `graft`."""

    State: ClassVar[type] = GraftState
    inner: Transform
    magnitude: Transform
    start: Count
    matrices: Matrices

    @property
    def direction(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.direction or self.magnitude.direction

    def inside(self, state=None, params=None):
        yield "inner", self.inner, state and state.inner, params
        yield "magnitude", self.magnitude, state and state.magnitude, params

    def init(self, params):
        return GraftState(counter(), self.inner.init(params), self.magnitude.init(params))

    def step(self, updates, state, params, gradient, extra):
        followed, inner = self.run(updates, state.inner, params, gradient, extra)
        how = self.magnitude, updates, state.magnitude, params, gradient, extra
        other, magnitude = updated(*how)
        u, structure = jax.tree.flatten(followed, is_leaf=trees.is_none)
        lengths = trees.align(structure, other, self.name, "the magnitudes", "the updates")
        found = views(self.name, self.matrices, followed)
        present = [i for i, x in enumerate(u) if x is not None]
        t = increment(state.step)
        early = t < self.number("start", state.step, jnp.int32)
        keys, rows = [found[i] for i in present], [(u[i], lengths[i]) for i in present]
        for i, new in zip(present, trees.map_leaves(_grafted, keys, rows, (early,)), strict=True):
            u[i] = new
        state = GraftState(t, inner, cast(magnitude, state.magnitude))
        return structure.unflatten(u), state


@transformation
def graft(inner: Inner, magnitude: Inner, start: Count = 1, *, matrices: Matrices | None = None):
    """Step as one transformation does, as far as another one would.

        u ← u ‖w‖ / ‖u‖,  w = magnitude(g),  u = inner(g)      norms of each matrix
        u ← w                                                  before step `start`

    So a method whose steps have no scale of their own takes another's learning rates:
    `graft(scale_by_shampoo(), scale_by_rms())`. Both see the same gradient and the same updates.

    Args:
        inner: whose steps are followed.
        magnitude: whose lengths they get; `identity()` for those of the gradient (SGD).
        start: the first step that is grafted; before it the magnitude runs alone, while `inner`
            collects what it needs.
        matrices: which axes are rows and columns: each matrix of a stack has a length of its own.
            What is no matrix has one for the leaf.

    Memory: one counter beside the two states.

    Source: N. Agarwal et al., Disentangling Adaptive Gradient Methods from Learning Rates (2020),
    algorithm 1; R. Anil et al., Scalable Second Order Optimization for Deep Learning (2020).
    """
    return Graft(inner, magnitude, start, matrices)
