"""Dion: orthonormal steps of low rank, from one power iteration for each; what a step leaves out
waits in the momentum.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from gradxform.core import Momentum, transformation
from gradxform.display.code import code
from gradxform.matrices.declaration import Matrices
from gradxform.matrices.matrixwise import MatrixSlot, matrixwise
from gradxform.matrices.norms import lengths
from gradxform.numerics import safe_divide

__all__ = ["scale_by_dion"]


class _Share:
    """A share that shapes depend on."""

    static = True
    text = "r as a share of the shorter side of each matrix, rounded up, in (0, 1]"

    def __repr__(self):
        return "(0, 1]"

    def convert(self, owner: str, name: str, x) -> float:
        try:
            share = float(x)
        except (TypeError, ValueError):
            raise TypeError(f"{owner}: {name} must be a number known now; got {code(x)}") from None
        if not 0 < share <= 1:
            raise ValueError(f"{owner}: {name} must lie in (0, 1]; got {code(x)}")
        return share


Share = Annotated[Any, _Share()]


@dataclass(frozen=True)
class _Drawn:
    """Gaussian columns to begin with, the same for all matrices of one shape."""

    rank_fraction: float

    def __call__(self, x):
        *many, rows, columns = x.shape
        rank = math.ceil(self.rank_fraction * rows - 1e-9)
        drawn = jax.random.normal(jax.random.key(0), (columns, rank), jnp.float32)
        return jnp.broadcast_to(drawn, (*many, columns, rank))


def _dion(u, at, m, q, *, mu):
    """B = m + u
    P = `orthonormal`(B Q)
    R = Bᵀ P
    m ← B - (1 - μ) P Rᵀ
    Q ← R / ‖R‖      each column
    u = √(outputs / inputs) P Qᵀ
    """
    inputs, outputs = at.fans
    b = m + u
    p = jnp.linalg.qr(jax.lax.stop_gradient(b @ q))[0]
    r = b.conj().T @ p
    q = safe_divide(r, lengths(r, -2))
    m = b - (1 - mu) * (p @ r.conj().T)
    return math.sqrt(outputs / inputs) * (p @ q.conj().T), m, q


@transformation
def scale_by_dion(
    mu: Momentum = 0.95, rank_fraction: Share = 0.25, *, matrices: Matrices | None = None
):
    """Orthonormal steps of rank r; of the momentum only what a step took fades.

        B = m + g
        P = orthonormal(B Q)                    one power iteration, from the Q before
        R = Bᵀ P
        m ← B - (1 - μ) P Rᵀ
        Q ← R / ‖R‖                             each column
        u = √(outputs / inputs) P Qᵀ

    Q begins with Gaussian columns, the same for all matrices of one shape.

    Shapes: B [rows, columns], with as many columns as rows or more (what is tall is transposed), P
    [rows, r], R and Q [columns, r].
    Memory: 4 bytes per parameter for m, and 4 r bytes per column for Q.
    A meta-gradient takes P for a constant.

    Raises:
        ValueError: a parameter that is no matrix; a rank_fraction outside (0, 1].

    Source: K. Ahn et al., Dion: Distributed Orthonormalized Updates (2025), algorithm 1.
    """
    slots = {"m": MatrixSlot(), "q": MatrixSlot(("columns", "rank"), _Drawn(rank_fraction))}
    return matrixwise(
        _dion, slots=slots, matrices=matrices, sided=True, name="scale_by_dion", mu=mu
    )
