"""The norm of a matrix under control: of its steps, and of what these make of it.

Each comes after any optimizer, or before its learning rate, as it says; parameters that are no
matrices pass, but in `hyperball`, which takes the step itself.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradxform.core import LearningRate, NonNegative, identity, transformation
from gradxform.core.hyper import Fraction
from gradxform.matrices.declaration import Matrices, matrix_labels
from gradxform.matrices.matrixwise import MatrixSlot, matrixwise
from gradxform.numerics import abs_sq, safe_divide, safe_sqrt
from gradxform.wrappers.masking import Partition

__all__ = ["hyperball", "radial_brake", "update_floor"]


def lengths(x, axes: int | tuple[int, ...] = (-2, -1)):
    """‖x‖ over some axes, which stay; no square is lost to the range of floats."""
    scale = jnp.max(jnp.abs(jax.lax.stop_gradient(x)), axes, keepdims=True, initial=0)
    scale = jnp.where((scale > 0) & jnp.isfinite(scale), scale, jnp.ones_like(scale))
    return scale * safe_sqrt(jnp.sum(abs_sq(x / scale), axes, keepdims=True))


def on_matrices(tx, matrices):
    """The transformation for the matrices; all other parameters pass."""
    return Partition({"matrix": tx, "rest": identity()}, matrix_labels(matrices))


def _radius(x):
    """‖x‖ of each matrix at the beginning, which must not be 0."""
    found = lengths(x)[..., 0, 0]
    if not isinstance(found, Tracer) and not jnp.all(found > 0):
        what = f"hyperball: a matrix of shape {[*x.shape[-2:]]} is zero, and would stay so"
        raise ValueError(f"{what}: start it anywhere else, or give it to another optimizer")
    return found


@dataclass(frozen=True)
class _Hyperball:
    """On the sphere of the radius that the parameter had; `sign` is -1 for what descends."""

    sign: int

    @property
    def equation(self) -> str:
        sign = "-" if self.sign < 0 else "+"
        return f"""w = p {sign} α R u / ‖u‖
            p ← R w / ‖w‖"""

    def __call__(self, u, at, radius, *, learning_rate):
        w = at.p + self.sign * learning_rate * radius * safe_divide(u, lengths(u))
        return radius * safe_divide(w, lengths(w)) - at.p, radius


@transformation
def hyperball(
    learning_rate: LearningRate, *, flip_sign: bool = True, matrices: Matrices | None = None
):
    """Keep the norm of each matrix what it was at the beginning, and take steps of one length on
    that sphere.

        R = ‖p₀‖
        w = p - α R u / ‖u‖
        p ← R w / ‖w‖

    It takes the place of the learning rate, and of weight decay: `chain(scale_by_adam(),
    hyperball(0.018))`. The other parameters need another optimizer: `partition({"matrix":
    chain(scale_by_adam(), hyperball(0.018)), "rest": adam(1e-3)}, matrix_labels())`.

    Args:
        flip_sign: False where u goes downhill already, as that of a whole optimizer does.

    Units: α is a share of the norm, about the angle of a step.

    Memory: one scalar for each matrix, R.

    Raises:
        ValueError: update() without params; a parameter that is no matrix; a matrix that is zero at
            the beginning.

    Source: K. Wen et al., Hyperball Optimization (2026), its update of a weight matrix.
    """
    slots = {"radius": MatrixSlot((), _radius, real=True)}
    return matrixwise(
        _Hyperball(-1 if flip_sign else 1), slots=slots, matrices=matrices, name="hyperball",
        learning_rate=learning_rate,
    )  # fmt: skip


_OVER = {"matrix": (-2, -1), "output": -2, "input": -1}


@dataclass(frozen=True)
class _Floor:
    """Nothing shorter than a share of the parameter: of a matrix, or of its rows or columns."""

    per: str
    equation = "u ← u max(1, c ‖p‖ / ‖u‖)"

    def __call__(self, u, at, *, floor):
        axes = _OVER[self.per]
        length, least = lengths(u, axes), floor * lengths(at.p, axes)
        return jnp.where(length < least, least * safe_divide(u, length), u)


@transformation
def update_floor(
    floor: NonNegative = 0.35, *, per: Literal["matrix", "output", "input"] = "matrix",
    matrices: Matrices | None = None,
):  # fmt: skip
    """Lengthen what is shorter than a share of the parameter.

        u ← u max(1, c ‖p‖ / ‖u‖)

    It comes before the learning rate: `chain(orthogonalize(), update_floor(),
    scale_by_learning_rate(0.04))`. Where u or p is 0, u stays.

    Args:
        floor: c; 0.35 to 0.38 where it replaces most of the weight decay.
        per: norms of the whole "matrix"; of each "output", a column as declared; of each "input", a
            row.

    Memory: none.

    Raises:
        ValueError: update() without params.

    Source: K. Krishna, Skylight (2026), a record of the modded-nanogpt speedrun: its u/w-floor; per
    output, RowFloor in a later one.
    """
    rule = matrixwise(
        _Floor(per), matrices=matrices, keep_sides=True, name="update_floor", floor=floor
    )
    return on_matrices(rule, matrices)


def _brake(u, at, *, outward, inward):
    """w = p + u
    d = ‖w‖ - ‖p‖
    s = a      b where d < 0
    u ← u - (1 - s) d w / ‖w‖
    """
    w = at.p + u
    ends = lengths(at.p) + lengths(w)
    # (‖w‖² - ‖p‖²) / (‖w‖ + ‖p‖), of which a small step loses no digits
    along = jnp.real(safe_divide(u, ends).conj() * (at.p + w))
    grown = jnp.sum(along, (-2, -1), keepdims=True)
    kept = jnp.where(grown > 0, outward, inward).astype(grown.dtype)
    return u - (1 - kept) * grown * safe_divide(w, lengths(w))


@transformation
def radial_brake(
    outward: Fraction = 0.5, inward: Fraction = 1.0, *, matrices: Matrices | None = None
):
    """Take back a part of what a step adds to the norm of a matrix.

        w = p + u
        d = ‖w‖ - ‖p‖
        s = a      b where d < 0
        p ← w [‖p‖ + s d] / ‖w‖

    To first order the part of the step along p is multiplied by s, what is across it stays. It
    comes last, after any optimizer: `chain(adamw(1e-3), radial_brake())`.

    Args:
        outward: a, the share of growth that is kept.
        inward: b, the share of shrinking that is kept.

    Memory: none.

    Raises:
        ValueError: update() without params.

    Source: NVIDIA, Emerging-Optimizers (2026), its radial brake.
    """
    rule = matrixwise(
        _brake, matrices=matrices, name="radial_brake", outward=outward, inward=inward
    )
    return on_matrices(rule, matrices)
