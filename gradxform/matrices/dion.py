"""Dion: orthonormal steps of low rank, from one power iteration for each; what a step leaves out
waits in the momentum.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from gradxform.core import Momentum, transformation
from gradxform.matrices.declaration import Matrices
from gradxform.matrices.matrixwise import MatrixSlot, matrixwise
from gradxform.matrices.norms import lengths
from gradxform.numerics import safe_divide

__all__ = ["scale_by_dion"]


@dataclass(frozen=True)
class _Drawn:
    """Gaussian columns to begin with, the same for all matrices of one shape."""

    rank: int

    def __call__(self, x):
        *many, rows, columns = x.shape
        shape = columns, min(self.rank, rows)
        drawn = jax.random.normal(jax.random.key(0), shape, jnp.float32)
        return jnp.broadcast_to(drawn, (*many, *shape))


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
def scale_by_dion(mu: Momentum = 0.95, rank: int = 128, *, matrices: Matrices | None = None):
    """Orthonormal steps of rank r; of the momentum only what a step took fades.

        B = m + g
        P = orthonormal(B Q)                    one power iteration, from the Q before
        R = Bᵀ P
        m ← B - (1 - μ) P Rᵀ
        Q ← R / ‖R‖                             each column
        u = √(outputs / inputs) P Qᵀ

    Q begins with Gaussian columns, the same for all matrices of one shape.

    Args:
        mu: μ.
        rank: r, at most the shorter side of a matrix.

    Shapes: B [rows, columns], with as many columns as rows or more (what is tall is transposed), P
    [rows, r], R and Q [columns, r].
    Memory: 4 bytes per parameter for m, and 4 r bytes per column for Q.
    A meta-gradient takes P for a constant.

    Raises:
        ValueError: a parameter that is no matrix; a rank below 1.

    Source: K. Ahn et al., Dion: Distributed Orthonormalized Updates (2025), algorithm 1.
    """
    if rank < 1:
        raise ValueError(f"scale_by_dion: rank must lie in [1, inf); got {rank}")
    slots = {"m": MatrixSlot(), "q": MatrixSlot(("columns", rank), _Drawn(rank))}
    return matrixwise(
        _dion, slots=slots, matrices=matrices, sided=True, name="scale_by_dion", mu=mu
    )
