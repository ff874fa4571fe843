"""How fast the norm of a step may grow."""

import jax.numpy as jnp

from gradxform.core import transformation
from gradxform.core.hyper import Ceiling
from gradxform.matrices.declaration import Matrices
from gradxform.matrices.matrixwise import MatrixSlot, matrixwise
from gradxform.numerics import abs_sq, safe_sqrt

__all__ = ["limit_norm_growth"]


def _limited(u, at, norm, *, growth):
    """u ← u min(1, γ n / ‖u‖)      where n > 0
    n ← ‖u‖
    """
    longest = jnp.max(jnp.abs(u), initial=0.0)
    unit = jnp.where(longest > 0, longest, jnp.ones_like(longest))
    size = safe_sqrt(jnp.sum(abs_sq(u / unit.astype(u.dtype)))) * unit
    over = (norm > 0) & (size > growth * norm)
    factor = jnp.where(over, growth * norm / jnp.where(over, size, jnp.ones_like(size)), 1)
    return u * factor.astype(u.dtype), factor * size


@transformation
def limit_norm_growth(growth: Ceiling = 1.01, *, matrices: Matrices | None = None):
    """Shorten a step whose norm has grown by more than a share since the last one.

        u ← u min(1, γ n / ‖u‖)      for each matrix; n the norm of the last step, if not 0
        n ← ‖u‖

    Args:
        growth: γ; inf for no limit.
        matrices: which axes of which parameters are rows and columns.

    Memory: 4 bytes for each matrix.

    Source: X. Chen et al., Fira: Can We Achieve Full-rank Training of LLMs under Low-rank
    Constraint? (2024), equation 9, its norm-growth limiter.
    """
    slots = {"norm": MatrixSlot((), real=True)}
    return matrixwise(
        _limited, slots=slots, matrices=matrices, name="limit_norm_growth", growth=growth
    )
