"""The curvature that another transformation estimates, averaged, as a preconditioner."""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from gradxform.core import ByPath, Inner, Transform, at_step, dtype_name, real_zeros, scalar, zeros
from gradxform.core import leaves as trees
from gradxform.core.call import define, pytree
from gradxform.core.chain import Whole
from gradxform.core.hyper import Count, Decay, DType, Epsilon, NonNegative, Positive
from gradxform.core.states import answers
from gradxform.numerics import (
    clip_parts,
    debias,
    increment,
    lerp,
    mixed,
    real_dtype,
    safe_divide,
    wide_dtype,
)
from gradxform.rules.curvature import hutchinson_estimator_diag_hessian
from gradxform.wrappers.wrapper import Wrapper, counter, is_multiple

__all__ = ["scale_by_sophia"]


@answers(count="step")
class SophiaState(NamedTuple):
    """State of `scale_by_sophia`: updates made, the averages of gradients and of Hessian diagonals,
    the estimator's state.
    """

    step: jax.Array
    mu: trees.Tree
    nu: trees.Tree
    hessian: trees.Tree


@pytree(static=("mu_dtype", "convention"))
class Sophia(Wrapper):
    """Built by `scale_by_sophia`."""

    called = "scale_by_sophia"
    direction: ClassVar[bool] = True  # pyright: ignore[reportIncompatibleMethodOverride]
    State: ClassVar[type] = SophiaState
    needs_params: ClassVar[bool] = True
    inner: Transform
    b1: Decay
    b2: Decay
    eps: Epsilon
    gamma: NonNegative
    clip_threshold: Positive | None
    update_interval: Count
    mu_dtype: str | None
    convention: str

    def inside(self, state=None, params=None):
        yield "hessian", self.inner, state and state.hessian, params

    def reads_gradient(self) -> bool:
        return False  # the inner one is given a loss

    def per_leaf(self, name: str, step, params):
        """One of its numbers at a step, for each leaf: a tree like the parameters."""
        x = at_step(getattr(self, name), step)
        leaves, structure = jax.tree.flatten(params, is_leaf=trees.is_none)
        table = isinstance(x, ByPath)
        rows = x.rows(self.name, trees.paths(params), leaves) if table else [x] * len(leaves)
        return structure.unflatten(
            row if row is None else scalar(self.name, name, row) for row in rows
        )

    def init(self, params):
        mu, nu = (trees.tree_map(f, params) for f in (zeros(self.mu_dtype), real_zeros))
        return SophiaState(counter(), mu, nu, self.inner.init(params))

    def step(self, updates, state, params, gradient, extra):
        bounded = [] if self.clip_threshold is None else ["clip_threshold"]
        names = ["b1", "b2", "eps", "gamma", *bounded]
        b1, b2, eps, gamma, *bounds = (self.per_leaf(name, state.step, params) for name in names)
        interval = self.number("update_interval", state.step, jnp.int32)
        step = increment(state.step, interval)

        def fresh(hessian, nu):
            estimate, hessian = self.run(updates, hessian, params, None, extra)
            return hessian, trees.tree_map(_average, nu, estimate, b2)

        due, keep = is_multiple(state.step, interval), lambda *old: old
        hessian, nu = jax.lax.cond(due, fresh, keep, state.hessian, state.nu)
        paper = self.convention == "paper"

        def average(u, old, b1):
            dtype = wide_dtype(old.dtype, u.dtype)
            with mixed(u):
                return lerp(u.astype(dtype), old.astype(dtype), _as(b1, dtype))

        mu = trees.tree_map(average, updates, state.mu, b1)

        def descend(m, h, u, b1, gamma, eps, *bounds):
            real = real_dtype(m.dtype)
            curvature = jnp.maximum(_as(gamma, real) * h.astype(real), _as(eps, real))
            with mixed(u):
                m = m if paper else debias(m, _as(b1, real), step)
                out = safe_divide(m, curvature)
            for bound in (_as(x, real) for x in bounds):
                out = clip_parts(out, bound)
            return jnp.broadcast_to(out, u.shape).astype(u.dtype)

        h = nu if paper else state.nu
        out = trees.tree_map(descend, mu, h, updates, b1, gamma, eps, *bounds)
        kept = trees.tree_map(lambda m, old: m.astype(old.dtype), mu, state.mu)
        return out, SophiaState(step, kept, nu, hessian)


def _as(x, dtype):
    """A number beside an array of this dtype; Python numbers keep their precision."""
    return x if isinstance(x, float | int) else x.astype(real_dtype(dtype))


def _average(old, h, b2):
    return lerp(jnp.real(h).astype(old.dtype), old, _as(b2, old.dtype)).astype(old.dtype)


@define(Whole, conventions=("optax", "paper"))
def scale_by_sophia(
    b1: Decay = 0.965, b2: Decay = 0.99, eps: Epsilon = 1e-8, gamma: NonNegative = 0.01,
    clip_threshold: Positive | None = 1.0, update_interval: Count = 10,
    hessian_diagonal_fn: Inner | None = None, mu_dtype: DType | None = None, *,
    convention: str = "optax",
):  # fmt: skip
    """Divide the averaged gradient by the averaged curvature, and clip: Sophia's step.

        m ← β₁ m + (1 - β₁) g
        h ← β₂ h + (1 - β₂) ĥ                   every k-th step, k = `update_interval`
        u ← clip(m̂ / max(γ h, ε), ±ρ),  m̂ = m / (1 - β₁ᵗ)

    ĥ comes from `hessian_diagonal_fn`, a transformation whose updates are the estimate:
    `hutchinson_estimator_diag_hessian()`, which needs `update(..., obj_fn=loss)`. ρ =
    `clip_threshold`. k is one number for the whole tree; the others may be tables by path.

    Conventions: "optax" divides by the h of before this step's estimate, so the first steps are
    signs; "paper" estimates first, and does not correct m.

    Memory: 8 bytes per parameter (`mu_dtype` changes the first 4) and the estimator's state.

    Source: H. Liu et al., Sophia: A Scalable Stochastic Second-order Optimizer for Language Model
    Pre-training (2024), algorithm 3.
    """
    numbers = b1, b2, eps, gamma, clip_threshold, update_interval
    default = hutchinson_estimator_diag_hessian()
    estimator = default if hessian_diagonal_fn is None else hessian_diagonal_fn
    return Sophia(estimator, *numbers, dtype_name(mu_dtype), convention)
