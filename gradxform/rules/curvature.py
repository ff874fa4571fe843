"""The diagonal of the Hessian, estimated, as a preconditioner. The update needs `obj_fn=`, the loss
as a function of the parameters.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradxform.core import leaves as trees
from gradxform.core.call import define, pytree
from gradxform.core.chain import Whole, as_transform, whole
from gradxform.core.hyper import (
    Count,
    Decay,
    DType,
    Epsilon,
    NonNegative,
    Positive,
    at_step,
    scalar,
)
from gradxform.core.labels import ByPath
from gradxform.core.leafwise import RuleState
from gradxform.core.slots import dtype_name, zeros
from gradxform.core.transform import Transform
from gradxform.numerics import debias, lerp, real_dtype, safe_divide, wide_dtype
from gradxform.rules.noise import Key, _key_data

__all__ = ["hutchinson_estimator_diag_hessian", "scale_by_sophia"]


@pytree(static=("name",))
class Hutchinson(Transform):
    """Built by `hutchinson_estimator_diag_hessian`."""

    key: Any
    name: str = "hutchinson_estimator_diag_hessian"

    def init(self, params):
        return RuleState(jnp.zeros((), jnp.int32), {"key": _key_data(params, key=self.key)})

    def update(
        self, updates, state, params=None, obj_fn: Callable[..., Any] | None = None, **extra
    ):
        if params is None:
            raise ValueError(
                f"{self.name}: update() needs the parameters: update(updates, state, params)"
            )
        if obj_fn is None:
            raise TypeError(
                f"{self.name}: update() needs the keyword argument obj_fn=, the loss as a function "
                "of the parameters"
            )
        following, sample = jax.random.split(jax.random.wrap_key_data(state.slots["key"]))
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(sample, len(leaves))
        signs = [
            jax.random.rademacher(key, x.shape, jnp.float32).astype(x.dtype)
            for key, x in zip(keys, leaves, strict=True)
        ]
        product = jax.jvp(jax.grad(obj_fn), (params,), (structure.unflatten(signs),))[1]
        like = structure.flatten_up_to(updates)
        estimate = [
            (h * z).astype(u.dtype)
            for h, z, u in zip(structure.flatten_up_to(product), signs, like, strict=True)
        ]
        step = state.step + jnp.ones((), jnp.int32)
        return structure.unflatten(estimate), RuleState(
            step, {"key": jax.random.key_data(following)}
        )


@whole
def hutchinson_estimator_diag_hessian(random_seed: Key = 0):
    """An unbiased estimate of the diagonal of the Hessian, in place of the updates: z ⊙ H z, z
    random signs.

    `update(..., obj_fn=loss)`, where `loss(params)` is a scalar, the loss of this batch.

    Memory: the key, 8 bytes. Time: about three gradients.

    Raises:
        TypeError: update() without obj_fn.

    Source: C. Bekas, E. Kokiopoulou, Y. Saad, An Estimator for the Diagonal of a Matrix (2007).
    """
    return Hutchinson(random_seed)


class SophiaState(NamedTuple):
    """State of `scale_by_sophia`: updates made, the averages of gradients and of Hessian diagonals,
    the estimator's state.
    """

    step: jax.Array
    mu: Any
    nu: Any
    hessian: Any


class _Estimator:
    def convert(self, owner: str, name: str, x: Any) -> Transform:
        return as_transform(x)


Estimator = Annotated[Any, _Estimator()]


@pytree(static=("mu_dtype", "convention", "name"))
class Sophia(Transform):
    """Built by `scale_by_sophia`."""

    direction = True

    b1: Any
    b2: Any
    eps: Any
    gamma: Any
    clip_threshold: Any
    update_interval: Any
    estimator: Transform
    mu_dtype: str | None
    convention: str
    name: str = "scale_by_sophia"

    def numbers(self, name: str, step, params):
        """One of its numbers at a step, for each leaf: a tree like the parameters."""
        x = at_step(getattr(self, name), step)
        leaves, structure = jax.tree.flatten(params, is_leaf=trees.is_none)
        rows = (
            x.rows(self.name, trees.paths(params), leaves)
            if isinstance(x, ByPath)
            else [x] * len(leaves)
        )
        return structure.unflatten([scalar(self.name, name, row) for row in rows])

    def interval(self, step):
        """How many steps apart the curvature is estimated, of all leaves at once."""
        x = at_step(self.update_interval, step)
        if isinstance(x, ByPath):
            raise ValueError(
                f"{self.name}: update_interval is one number for the whole tree; it takes no "
                "by_path table"
            )
        return jnp.asarray(scalar(self.name, "update_interval", x), jnp.int32)

    def init(self, params):
        mu = trees.tree_map(zeros(self.mu_dtype), params)
        return SophiaState(
            jnp.zeros((), jnp.int32),
            mu,
            trees.tree_map(zeros(), params),
            self.estimator.init(params),
        )

    def update(self, updates, state, params=None, **extra):
        if params is None:
            raise ValueError(
                f"{self.name}: update() needs the parameters: update(updates, state, params)"
            )
        extra.pop("gradient", None)
        b1, b2, eps, gamma = (
            self.numbers(name, state.step, params) for name in ("b1", "b2", "eps", "gamma")
        )
        interval = self.interval(state.step)
        step = state.step + jnp.ones((), jnp.int32)

        def fresh(hessian, nu):
            estimate, new = self.estimator.update(updates, hessian, params, **extra)
            nu = trees.tree_map(
                lambda old, h, b2: lerp(h.astype(old.dtype), old, _as(b2, old.dtype)).astype(
                    old.dtype
                ),
                nu,
                estimate,
                b2,
            )
            return jax.tree.map(lambda n, o: n.astype(o.dtype), new, hessian), nu

        hessian, nu = jax.lax.cond(
            state.step % interval == 0, fresh, lambda h, n: (h, n), state.hessian, state.nu
        )
        paper = self.convention == "paper"

        def average(old, u, b1):
            dtype = wide_dtype(old.dtype, u.dtype)
            return lerp(u.astype(dtype), old.astype(dtype), _as(b1, dtype))

        mu = trees.tree_map(average, state.mu, updates, b1)

        def descend(m, h, u, b1, gamma, eps, *bounds):
            m = m if paper else debias(m, _as(b1, m.dtype), step)
            out = safe_divide(
                m, jnp.maximum(_as(gamma, m.dtype) * h.astype(m.dtype), _as(eps, m.dtype))
            )
            for bound in bounds:
                out = jnp.clip(out, -_as(bound, m.dtype), _as(bound, m.dtype))
            return out.astype(u.dtype)

        bounds = (
            ()
            if self.clip_threshold is None
            else (self.numbers("clip_threshold", state.step, params),)
        )
        out = trees.tree_map(
            descend, mu, nu if paper else state.nu, updates, b1, gamma, eps, *bounds
        )
        kept = trees.tree_map(lambda m, old: m.astype(old.dtype), mu, state.mu)
        return out, SophiaState(step, kept, nu, hessian)


def _as(x, dtype):
    """A number beside an array of this dtype; Python numbers keep their precision."""
    return x if isinstance(x, float | int) else x.astype(real_dtype(dtype))


@define(Whole, conventions=("optax", "paper"))
def scale_by_sophia(
    b1: Decay = 0.965,
    b2: Decay = 0.99,
    eps: Epsilon = 1e-8,
    gamma: NonNegative = 0.01,
    clip_threshold: Positive | None = 1.0,
    update_interval: Count = 10,
    hessian_diagonal_fn: Estimator | None = None,
    mu_dtype: DType | None = None,
    *,
    convention: str = "optax",
):
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
    estimator = (
        hutchinson_estimator_diag_hessian() if hessian_diagonal_fn is None else hessian_diagonal_fn
    )
    return Sophia(
        b1,
        b2,
        eps,
        gamma,
        clip_threshold,
        update_interval,
        estimator,
        dtype_name(mu_dtype),
        convention,
    )
