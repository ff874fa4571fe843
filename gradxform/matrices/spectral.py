"""Singular values within a bound: of a step, or of the weights that it makes."""

from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp

from gradxform.core import transformation
from gradxform.core.hyper import Bound
from gradxform.matrices.declaration import Matrices
from gradxform.matrices.matrixwise import matrixwise
from gradxform.matrices.norms import on_matrices
from gradxform.matrices.orthogonalize import TABLES, NewtonSchulz, Table, frobenius, polar

__all__ = ["spectral_clip"]

# five steps that are the best so far, then some that converge
_CONVERGENT = Table(TABLES["polar_express"].steps + ((1.875, -1.25, 0.375),) * 4, margin=1.02)
_NEWTON_SCHULZ = NewtonSchulz(_CONVERGENT)


def _msign(x, method: str):
    """U Vᵀ of x = U S Vᵀ."""
    return polar(x) if method == "svd" else _NEWTON_SCHULZ.orthogonal(x, 0.0)


def hardcap(x, bound, method: str):
    """U min(S, c) Vᵀ of x = U S Vᵀ [rows, columns], rows ≤ columns.

    With O = U Vᵀ, of which O xᵀ = U S Uᵀ, it is c O where S > c and x where not: c O + P (x - c O)
    with the projector P = [I + sign(c I - O xᵀ)] / 2. Where c is small, of what is left of x above
    it P P leaves less than P.
    """
    unit, scale, norm = frobenius(x)
    norm = jnp.where(norm > 0, norm, jnp.ones_like(norm))
    unit, size = unit / norm, scale * norm
    c = jnp.minimum(bound / size, 1).astype(norm.dtype)
    o, eye = _msign(unit, method), jnp.eye(len(x), dtype=x.dtype)
    below = (eye + _msign(c * eye - o @ unit.conj().T, method)) / 2
    capped = c * o + below @ (below @ (unit - c * o))
    capped = jnp.where(c < 10 * jnp.finfo(c.dtype).eps, c * o, capped)
    return jnp.where(size <= bound, x, size * capped)


@dataclass(frozen=True)
class _Clip:
    """The singular values of the update, or of the parameter after it, at most c."""

    of: str
    method: Any

    @property
    def equation(self) -> str:
        """As a notebook shows it."""
        x, y = ("u", "u") if self.of == "update" else ("w", "p")
        first = "w = p + u\n" if self.of == "params" else ""
        return f"""{first}O = `msign`({x})
            P = [`I` + `msign`(c `I` - O {x}ᵀ)] / 2
            {y} ← c O + P ({x} - c O)"""

    def __call__(self, u, at, *, max_norm):
        if self.of == "update":
            return hardcap(u, max_norm, self.method)
        return hardcap(at.p + u, max_norm, self.method) - at.p


@transformation
def spectral_clip(
    max_norm: Bound = 1.0, *, of: Literal["update", "params"] = "update",
    method: Literal["newton_schulz", "svd"] = "newton_schulz", matrices: Matrices | None = None,
):  # fmt: skip
    """Bring every singular value above c down to c; those below stay, and all singular vectors.

        u ← U min(S, c) Vᵀ            u = U S Vᵀ           of="update"
        p ← U min(S, c) Vᵀ            p + u = U S Vᵀ       of="params"

    With of="params" it comes last, after any optimizer, and bounds the spectral norm of the
    weights: how much a layer can stretch what comes in. Parameters that are no matrices pass.

    Args:
        max_norm: c, a spectral norm.
        of: which singular values.
        method: "newton_schulz" takes two orthogonalisations of nine steps in place of a
            decomposition: that of u, O, and that of c I - O uᵀ, which tells what is below c.
            Singular values within about a thousandth of ‖u‖ from c are out by less than that.
            "svd" is exact.

    Memory: none.

    Raises:
        ValueError: update() without params, for of="params".

    Source: F. Cesista, Fast, Numerically Stable, and Auto-Differentiable Spectral Clipping via
    Newton-Schulz Iteration (2025): its spectral hardcap.

    Not: `clip_by_leaf_norm`, which shortens all singular values alike.
    """
    rule = matrixwise(_Clip(of, method), matrices=matrices, name="spectral_clip", max_norm=max_norm)
    return on_matrices(rule, matrices)
