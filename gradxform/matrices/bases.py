"""Bases for `in_basis`: eigenvectors of the gradients' second moments, leading singular vectors,
random directions.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from gradxform.core.hyper import Count, Decay, Positive
from gradxform.matrices.basis import BasisRule, Plan, a_basis
from gradxform.matrices.declaration import Matrices
from gradxform.matrices.matrixwise import MatrixSlot
from gradxform.matrices.roots import eigh
from gradxform.numerics import abs_sq, is_key, lerp
from gradxform.rules.noise import Key

__all__ = ["eigenbasis", "kl_eigenbasis", "leading_basis", "random_basis"]

Sides = Literal["both", "short", "rows", "columns"]


def _adjoint(x):
    return jnp.conj(x).T


def _outer(x):
    return x @ _adjoint(x)


def _relative(g, size):
    """A gradient as a share of the largest entry so far, that entry, and what share of it the one
    before was: squares of shares are numbers whatever the size of gradients.
    """
    new = jnp.maximum(size, jnp.max(jnp.abs(g), initial=0.0))
    safe = jnp.where(new > 0, new, jnp.ones_like(new))
    return g / safe.astype(g.dtype), new, size / safe


def _eigenvectors(a):
    """Eigenvectors as columns, those of the largest eigenvalues first."""
    return eigh(a)[1][:, ::-1]


def _power_iteration(a, q, in_order: bool = True):
    """Q of the QR decomposition of A Q, whose columns are made orthogonal to those of larger
    eigenvalues; they stay in their places. What A knows nothing of stays as it is.
    """
    moved = a @ q
    values = jnp.sum(jnp.conj(q) * moved, axis=0).real
    largest = jnp.max(jnp.abs(values), initial=0.0)
    little = len(a) * jnp.finfo(values.dtype).eps
    lift = jnp.where(largest > 0, little * largest, jnp.ones_like(largest))
    moved = moved + lift.astype(q.dtype) * q
    order = jnp.argsort(-values) if in_order else jnp.arange(len(values))
    return jnp.linalg.qr(moved[:, order])[0][:, jnp.argsort(order)]


@dataclass(frozen=True)
class _Eigenbasis(BasisRule):
    """The eigenvectors of L and R, on the sides that are not too long."""

    max_dim: int
    sides: Sides
    current: bool
    in_order: ClassVar[bool] = True
    names = ("left", "right", "left_basis", "right_basis", "size")
    left: ClassVar = "left_basis"
    right: ClassVar = "right_basis"
    equation = """L ← β L + (1 - β) g gᵀ
        R ← β R + (1 - β) gᵀ g
        U = `qr`(L U)      at every k-th step; the eigenvectors of L at the first
        V = `qr`(R V)      at every k-th step; the eigenvectors of R at the first"""

    @property
    def late(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return not self.current

    def slots(self, seen):
        of = {"both": (True, True), "short": (True, False)}
        of |= {
            "rows": (not seen.flipped, seen.flipped),
            "columns": (seen.flipped, not seen.flipped),
        }
        rows, columns = of[self.sides]
        left = ("rows", "rows") if rows and seen.rows <= self.max_dim else ()
        right = ("columns", "columns") if columns and seen.columns <= self.max_dim else ()
        made = {"left": MatrixSlot(left), "right": MatrixSlot(right)}
        for name, axes in (("left_basis", left), ("right_basis", right)):
            made[name] = MatrixSlot(axes, "eye" if axes else "zeros")
        return made | {"size": MatrixSlot((), real=True)}

    def measured(self, g, slots, when, *, decay):
        g, size, share = _relative(g, slots["size"])
        new = {"size": size}
        for name, x in (("left", g), ("right", _adjoint(g))):
            if slots[name].ndim:
                new[name] = lerp(_outer(x), slots[name] * share * share, decay)
        return slots | new

    def found(self, g, slots, when, which, **numbers):
        def first(a, q):
            return _eigenvectors(a)

        def later(a, q):
            return _power_iteration(a, q, self.in_order)

        pairs = {f"{k}_basis": (slots[k], slots[f"{k}_basis"]) for k in ("left", "right")}
        return {
            name: jax.lax.cond(when.first, first, later, a, q)
            for name, (a, q) in pairs.items()
            if a.ndim
        }


@a_basis
def eigenbasis(
    decay: Decay = 0.95, every: Count = 10, *, max_dim: int = 10_000, sides: Sides = "both",
    current: bool = False, matrices: Matrices | None = None,
):  # fmt: skip
    """The eigenvectors of the averaged second moments of rows and of columns: SOAP's basis.

        L ← β L + (1 - β) g gᵀ,  R ← β R + (1 - β) gᵀ g
        U, V ← their eigenvectors                at the first step
        U ← qr(L U),  V ← qr(R V)                at every k-th step after it

    One power iteration, its columns made orthogonal in the order of their eigenvalues; each vector
    stays in its place, so that what belongs to it needs no permutation. By default a step is made
    in the basis of the gradients before it: the first one finds a basis, and the step is 0.

    Args:
        decay: β.
        every: k.
        max_dim: a longer side is left as it is.
        sides: which are rotated: "both", the "short" one, the "rows" or the "columns".
        current: whether the gradient of a step is measured before that step, and the first step
            made. In its own basis it is diagonal but for rounding, of which a small ε makes steps.
        matrices: which axes of which parameters are rows and columns.

    Shapes: L and U [rows, rows], R and V [columns, columns], of the matrix with its short side
    as rows. L and R are kept in units of the square of the largest entry so far, `size`, so that
    gradients of any magnitude have one.
    Memory: 8 (m² + n²) bytes for m n parameters.

    Source: N. Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam (2024), algorithms 3
    and 4.
    """
    rule = _Eigenbasis(int(max_dim), sides, bool(current))
    return Plan(rule, matrices, {"decay": decay, "every": every})


@dataclass(frozen=True)
class _KlEigenbasis(_Eigenbasis):
    """The eigenvectors of the factors whose Kronecker product is nearest to the gradients' second
    moment.
    """

    names = (*_Eigenbasis.names, "left_values", "right_values")
    in_order = False
    equation = """x = Uᵀ g V
        L ← β L + (1 - β) g V diag(1 / μ) Vᵀ gᵀ / columns
        R ← β R + (1 - β) gᵀ U diag(1 / λ) Uᵀ g / rows
        λ ← β λ + (1 - β) meanⱼ(x² / μ)
        μ ← β μ + (1 - β) meanᵢ(x² / λ)      with the λ of before
        U = `qr`(L U)      at every k-th step; the eigenvectors of L at the first
        V = `qr`(R V)      at every k-th step; the eigenvectors of R at the first"""

    def slots(self, seen):
        made = super().slots(seen)
        for name, axis in (("left", "rows"), ("right", "columns")):
            axes = (axis,) if made[name].axes else ()
            made[f"{name}_values"] = MatrixSlot(axes, real=True)
        return made

    def measured(self, g, slots, when, *, decay, initial):
        g, size, share = _relative(g, slots["size"])
        # in units of the largest entry: 1 at first, and on a side that is left as it is
        one = 1 / jnp.where(size > 0, size, jnp.ones_like(size))
        new, shares = {"size": size}, {}
        for name, length in zip(("left", "right"), g.shape, strict=True):
            known = _inverse(slots[f"{name}_values"] * share)
            flat = when.first | (known.ndim == 0)
            shares[name] = jnp.broadcast_to(jnp.where(flat, 1 / one, known), (length,))
        low = abs_sq(self.down(g, slots))
        left, right = self._vectors(slots)
        for name, x, q, other, mean in (
            ("left", g, right, "right", low @ shares["right"] / low.shape[1]),
            ("right", _adjoint(g), left, "left", shares["left"] @ low / low.shape[0]),
        ):
            if not slots[name].ndim:
                continue
            half = (x if q is None else x @ q) * jnp.sqrt(shares[other]).astype(x.dtype)
            outer = _outer(half) / half.shape[1]
            new[name] = lerp(outer, slots[name] * share, decay)
            values = lerp(mean, slots[f"{name}_values"] * share, decay)
            begin = jnp.broadcast_to(initial * one, values.shape)
            new[f"{name}_values"] = jnp.where(when.first, begin, values)
        return slots | new


def _inverse(values):
    """1 / λ, of which none is larger than rounding lets a positive one be."""
    largest = jnp.max(values, initial=0.0)
    limits = jnp.finfo(values.dtype)
    return 1 / jnp.maximum(values, jnp.maximum(limits.eps * largest, limits.tiny))


@a_basis
def kl_eigenbasis(
    decay: Decay = 0.95, every: Count = 10, *, initial: Positive = 0.1, max_dim: int = 10_000,
    sides: Sides = "both", current: bool = False, matrices: Matrices | None = None,
):  # fmt: skip
    """The eigenvectors of the two factors whose Kronecker product is nearest to the gradients'
    second moment in Kullback-Leibler divergence: KL-SOAP's basis.

        L ← β L + (1 - β) g R⁻¹ gᵀ / n,  R ← β R + (1 - β) gᵀ L⁻¹ g / m
        L⁻¹ = U diag(1 / λ) Uᵀ,  λ ← β λ + (1 - β) meanⱼ((Uᵀ g V)² / μ)      R and μ likewise
        U ← qr(L U),  V ← qr(R V)      at every k-th step; eigenvectors at the first

    Each factor is measured against the other, so that neither takes the scale of both. The
    eigenvalues are averaged at every step, those of the other side at the first step being 1.

    Args:
        decay: β.
        every: k.
        initial: λ and μ after the first step.
        max_dim: a longer side is left as it is.
        sides: which are rotated, as of `eigenbasis`.
        current: whether the gradient of a step is measured before that step, and the first step
            made. In its own basis it is diagonal but for rounding, of which a small ε makes steps.
        matrices: which axes of which parameters are rows and columns.

    Shapes: as `eigenbasis`, and λ [rows], μ [columns]; L, R, λ and μ in units of the largest entry
    so far.
    Memory: 8 (m² + n²) + 4 (m + n) bytes for m n parameters.

    Source: W. Lin et al., Understanding and Improving Shampoo and SOAP via Kullback-Leibler
    Minimization (2025), KL-SOAP; the start is that of the authors' code, without its clamp.
    """
    rule = _KlEigenbasis(int(max_dim), sides, bool(current))
    return Plan(rule, matrices, {"decay": decay, "every": every, "initial": initial})


@dataclass(frozen=True)
class _OneSided(BasisRule):
    """r vectors on one side, which the rule is given as the rows."""

    rank: int
    side: str
    names = ("projector",)
    left: ClassVar = "projector"
    full = False

    def flipped(self, view):
        if self.side == "short":  # of equal sides the columns in the paper of GaLore
            return view.rows >= view.columns
        return view.rows < view.columns

    def slots(self, seen):
        return {"projector": MatrixSlot(("rows", min(self.rank, seen.rows, seen.columns)))}


@dataclass(frozen=True)
class _Leading(_OneSided):
    turned: bool = False
    equation = "P = `leading`(g)      at every k-th step"

    def on(self, seen):
        return replace(self, turned=seen.flipped)

    def found(self, g, slots, when, which):
        # of the matrix as declared: what is remembered in the basis depends on the vectors' signs
        left, _, right = jnp.linalg.svd(g.T if self.turned else g, full_matrices=False)
        vectors = right.T if self.turned else left
        return {"projector": vectors[:, : slots["projector"].shape[1]]}


@a_basis
def leading_basis(
    rank: int = 128, every: Count = 200, *, side: Literal["long", "short"] = "short",
    matrices: Matrices | None = None,
):  # fmt: skip
    """The leading singular vectors of one gradient: GaLore's subspace.

        P ← the first r left singular vectors of g      at every k-th step; for columns right ones
        x = Pᵀ g

    Args:
        rank: r, at most the shorter side.
        every: k; the vectors are found at the first step and every k-th after it.
        side: which is projected.
        matrices: which axes of which parameters are rows and columns.

    Shapes: P [side, r].
    Memory: 4 r bytes for each row of the side.

    Raises:
        ValueError: a rank below 1.

    Source: J. Zhao et al., GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection
    (2024), algorithm 2, which projects the short side.
    """
    return Plan(_Leading(_at_least_one("leading_basis", rank), side), matrices, {"every": every})


def _at_least_one(owner: str, rank: int) -> int:
    if rank < 1:
        raise ValueError(f"{owner}: rank must lie in [1, inf); got {rank}")
    return int(rank)


@dataclass(frozen=True)
class _Random(_OneSided):
    equation = "P = 𝒩(0, 1 / rank)      drawn anew at every k-th step"

    def measured(self, g, slots, when, *, key):
        return slots

    def found(self, g, slots, when, which, *, key):
        key = key if is_key(key) else jax.random.key(key)
        key = jax.random.fold_in(jax.random.fold_in(key, when.t), which)
        shape = slots["projector"].shape
        drawn = jax.random.normal(key, shape, slots["projector"].dtype)
        return {"projector": drawn / shape[1] ** 0.5}


@a_basis
def random_basis(
    rank: int = 256, every: Count = 200, key: Key = 0, *, matrices: Matrices | None = None
):
    """Random directions of the short side: APOLLO's subspace.

        P ← 𝒩(0, 1 / r)      [short side, r], drawn anew at every k-th step
        x = Pᵀ g

    x has the lengths of the columns of g, about. The vectors are not orthonormal: what comes back
    should be lengths, `in_basis(inner, random_basis(), back="columns")`.

    Args:
        rank: r, at most the short side.
        every: k.
        key: an integer or a `jax.random` key; each matrix and each drawing has its own of it.
        matrices: which axes of which parameters are rows and columns.

    Memory: 4 r bytes for each row of the short side.

    Raises:
        ValueError: a rank below 1.

    Source: H. Zhu et al., APOLLO: SGD-like Memory, AdamW-level Performance (2024), algorithm 1.
    """
    rule = _Random(_at_least_one("random_basis", rank), "short")
    return Plan(rule, matrices, {"every": every, "key": key})
