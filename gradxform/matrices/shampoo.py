"""Shampoo: a gradient's matrix divided by roots of the second moments of its rows and columns.

Statistics are of the gradient, and what they divide is the update so far: after a direction, the
momentum. Roots are found at every k-th step and kept in between.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from gradxform.core import transformation
from gradxform.core.hyper import Count, Decay, Epsilon, Real
from gradxform.matrices.declaration import Matrices
from gradxform.matrices.matrixwise import MatrixSlot, matrixwise
from gradxform.matrices.norms import lengths
from gradxform.matrices.roots import adjoint, matrix_power
from gradxform.numerics import debias, lerp, real_dtype

__all__ = ["scale_by_kl_shampoo", "scale_by_shampoo"]

Sides = Literal["both", "left", "right", "short"]


def is_due(at, k, start=1):
    """Whether t is `start`, where all are due, or any number of times k after it, or as many steps
    later as the matrix waits for its turn.
    """
    k, start = (jnp.asarray(x).astype(at.t.dtype) for x in (k, start))
    since = at.t - start
    return (since == 0) | ((since > 0) & (jnp.mod(since - at.turn, k) == 0))


def bounded(x):
    """x, made smaller where it is so large that sums of its squares may be infinite."""
    largest = jnp.max(jnp.abs(jax.lax.stop_gradient(x)), initial=0)
    bound = float(jnp.finfo(x.dtype).max) ** 0.4
    return x * (bound / jnp.maximum(largest, bound))


LETTERS = {"left": ("L", "A", "g gᵀ"), "right": ("R", "B", "gᵀ g")}


@dataclass(frozen=True)
class _Shampoo:
    """Second moments of the left side, the right or both, as averages."""

    sides: tuple[str, ...]

    @property
    def equation(self) -> str:
        shown = [LETTERS[side] for side in self.sides]
        lines = [line for x, _, gram in shown for line in self.grows(x, gram)]
        lines += [f"{a} ← ({x}\u0302 + ρ ‖{x}\u0302‖ + ε)^q      {WHEN}" for x, a, _ in shown]
        left, right = "A " * ("left" in self.sides), " B" * ("right" in self.sides)
        return "\n".join([*lines, f"u ← {left}u{right}"])

    def grows(self, x: str, gram: str) -> list[str]:
        """How a second moment grows, and what of it is raised to a power."""
        return [f"{x} ← β {x} + (1 - β) {gram}", f"{x}\u0302 = {x} / (1 - βᵗ)"]

    def __call__(
        self, u, at, *slots,
        decay, exponent, eps, relative_eps, precondition_frequency, start_preconditioning_step,
    ):  # fmt: skip
        pairs = zip(self.grams(at.g), slots[: len(self.sides)], strict=True)
        factors = tuple(lerp(gram, old, decay) for gram, old in pairs)

        def power(x):
            average = debias(x, decay, at.t)
            return matrix_power(average, exponent, eps=eps, relative_eps=relative_eps)

        due = is_due(at, precondition_frequency, start_preconditioning_step)
        return self.divided(u, factors, slots, due, power)

    def grams(self, g):
        """The second moment of each side."""
        g = bounded(g)
        return [g @ adjoint(g) if side == "left" else adjoint(g) @ g for side in self.sides]

    def divided(self, u, factors, slots, due, power):
        """u between the roots, which are found anew where that is due."""
        fresh = lambda: tuple(map(power, factors))  # noqa: E731
        kept = tuple(slots[len(self.sides) :])
        roots = jax.lax.cond(due, fresh, lambda: kept)
        by = dict(zip(self.sides, roots, strict=True))
        u = bounded(u)
        u = by["left"] @ u if "left" in by else u
        return u @ by["right"] if "right" in by else u, *factors, *roots


WHEN = "every k steps from t₀ on"


@dataclass(frozen=True)
class _ShampooSum(_Shampoo):
    """Second moments as sums."""

    def grows(self, x: str, gram: str) -> list[str]:
        """How a second moment grows, and what of it is raised to a power."""
        return [f"{x} ← {x} + {gram}", f"{x}\u0302 = {x}"]

    def __call__(
        self, u, at, *slots,
        exponent, eps, relative_eps, precondition_frequency, start_preconditioning_step,
    ):  # fmt: skip
        pairs = zip(self.grams(at.g), slots[: len(self.sides)], strict=True)
        factors = tuple(old + gram for gram, old in pairs)

        def power(x):
            return matrix_power(x, exponent, eps=eps, relative_eps=relative_eps)

        due = is_due(at, precondition_frequency, start_preconditioning_step)
        return self.divided(u, factors, slots, due, power)


SQUARE = {"left": ("rows", "rows"), "right": ("columns", "columns")}


@transformation
def scale_by_shampoo(
    decay: Decay | None = 0.999, eps: Epsilon = 1e-12, relative_eps: Epsilon = 1e-6, *,
    exponent: Real | None = None, sides: Sides = "both", block_size: int | None = 1024,
    precondition_frequency: Count = 10, start_preconditioning_step: Count = 1, spread: int = 1,
    matrices: Matrices | None = None,
):  # fmt: skip
    """Divide each matrix by roots of the second moments of its rows and columns.

        L ← β L + (1 - β) g gᵀ,  R ← β R + (1 - β) gᵀ g
        A = (L / (1 - βᵗ) + (ε_rel ‖·‖ + ε) I)^q,  B likewise of R      at t₀, t₀ + k, t₀ + 2k, …
        u ← A u B

    Its steps have no scale of their own: `graft` gives them another's, and `shampoo` does.

    Args:
        decay: β, the share of the old averages; None for sums, L ← L + g gᵀ and A = L^q, as first
            published.
        eps: ε, in the unit of g².
        relative_eps: ε_rel, a share of the largest eigenvalue; float32 is exact to about 1e-7.
        exponent: q: by default -1/4, or -1/2 where there is one side alone. With -1/2 on both
            sides the step is that of a Kronecker-factored second moment ("Shampoo²"), whose unit is
            1/g; with 0 it changes nothing.
        sides: "both"; or, with half the memory and time, "left" for L alone (the rows, a layer's
            inputs), "right" for R alone, "short" for that of the shorter side.
        block_size: a matrix with a longer side falls into blocks, as equal as can be, that are
            matrices of their own; None for whole matrices.
        precondition_frequency: k; in between no root is found.
        start_preconditioning_step: t₀; before it u passes as it is.
        spread: into how many groups, at most k, the matrices are dealt out, of which each finds its
            roots a step after the one before, so that no step but t₀ has all the work. A stack in
            one parameter stays together.
        matrices: which axes are rows and columns.

    Memory: for a matrix of m n parameters, m, n ≤ `block_size`: 8 (m² + n²) bytes, the second
    moments and their roots; 8 m² or 8 n² for one side.

    Raises:
        ValueError: a parameter that is no matrix: `partition` gives it to another transformation.

    Source: V. Gupta, T. Koren, Y. Singer, Shampoo: Preconditioned Stochastic Tensor Optimization
    (2018), algorithm 1; H.-J. M. Shi et al., A Distributed Data-Parallel PyTorch Implementation of
    the Distributed Shampoo Optimizer (2023); D. Morwani et al., A New Perspective on Shampoo's
    Preconditioner (2024), for -1/2.
    """
    chosen = {"both": ("left", "right"), "short": ("left",)}.get(sides, (sides,))
    slots = {side: MatrixSlot(SQUARE[side]) for side in chosen}
    slots |= {f"{side}_root": MatrixSlot(SQUARE[side], "eye") for side in chosen}
    if exponent is None:
        exponent = -0.25 if sides == "both" else -0.5
    numbers = {"exponent": exponent, "eps": eps, "relative_eps": relative_eps}
    numbers |= {"precondition_frequency": precondition_frequency}
    numbers |= {"start_preconditioning_step": start_preconditioning_step}
    rule = _ShampooSum(chosen) if decay is None else _Shampoo(chosen)
    numbers |= {} if decay is None else {"decay": decay}
    how = {"matrices": matrices, "keep_sides": sides in ("left", "right")}
    how |= {"block_size": block_size, "turns": spread, "name": "scale_by_shampoo"}
    return matrixwise(rule, slots=slots, **how, **numbers)


def _kl_shampoo(
    u, at, left, right, left_root, right_root, *, decay, eps, relative_eps, precondition_frequency
):
    """L ← √mean(g²)      and R, as multiples of the identity, at the first gradient that is not 0
    R ← L
    A ← 1 / √L      and B, at that step
    r = size(g)      its rows
    c = size(g)      its columns
    L ← β L + (1 - β) g B² gᵀ / c
    R ← β R + (1 - β) gᵀ A² g / r
    A ← 1 / √(L + ρ ‖L‖ + ε)      every k steps
    B ← 1 / √(R + ρ ‖R‖ + ε)      every k steps
    u ← A u B
    """
    m, n = (max(1, length) for length in u.shape)
    real = real_dtype(u.dtype)
    unknown = jnp.max(jnp.abs(left), initial=0) == 0
    size = lengths(at.g)[0, 0] / (m * n) ** 0.5
    some = size > 0
    seed = jnp.where(unknown, size, jnp.zeros_like(size))
    whitening = jax.lax.rsqrt(jnp.where(some, size, jnp.ones_like(size)))

    def begun(factor, root):
        one = jnp.eye(len(factor), dtype=real)
        first = (whitening * one).astype(root.dtype)
        return factor + (seed * one).astype(factor.dtype), jnp.where(unknown, first, root)

    (left, left_root), (right, right_root) = begun(left, left_root), begun(right, right_root)
    by_right, by_left = at.g @ right_root, left_root @ at.g
    left = lerp(by_right @ adjoint(by_right) / n, left, decay)
    right = lerp(adjoint(by_left) @ by_left / m, right, decay)

    def fresh():
        ridge = {"eps": eps, "relative_eps": relative_eps}
        return matrix_power(left, -0.5, **ridge), matrix_power(right, -0.5, **ridge)

    due = is_due(at, precondition_frequency)
    left_root, right_root = jax.lax.cond(due, fresh, lambda: (left_root, right_root))
    return left_root @ u @ right_root, left, right, left_root, right_root


@transformation
def scale_by_kl_shampoo(
    decay: Decay = 0.98, eps: Epsilon = 0.0, relative_eps: Epsilon = 1e-6, *,
    block_size: int | None = None, precondition_frequency: Count = 10, spread: int = 1,
    matrices: Matrices | None = None,
):  # fmt: skip
    """Divide each matrix [m, n] by the roots of the two covariances whose product is nearest, in
    the sense of Kullback and Leibler, to that of the gradient.

        L ← β L + (1 - β) g R⁻¹ gᵀ / n,  R ← β R + (1 - β) gᵀ L⁻¹ g / m
        u ← L^-1/2 u R^-1/2

    Each side is whitened by the other before it is measured, so that the steps have a scale of
    their own, about 1 an entry, as Adam's: nothing is to be grafted. The roots are found at every
    k-th step, the first included, and those are the ones that measure.

    Args:
        decay: β.
        eps: ε, added to the eigenvalues, in the unit of g.
        relative_eps: ε_rel, as a share of the largest one added to all; float32 is exact to about
            1e-7.
        block_size: a matrix with a longer side falls into blocks, as equal as can be; None for
            whole matrices.
        precondition_frequency: k.
        spread: into how many groups the matrices are dealt out, whose roots are found at different
            steps, as in `scale_by_shampoo`.
        matrices: which axes are rows and columns.

    L and R begin, at the first gradient that is not 0, as √mean(g²) I, so that they hold for
    gradients of any size; the authors' code begins with eigenvalues of 0.1, applies the roots of
    the step before, and turns their eigenvectors by one QR iteration.

    Memory: 8 (m² + n²) bytes for a matrix of m n parameters.

    Raises:
        ValueError: a parameter that is no matrix: `partition` gives it to another transformation.

    Source: W. Lin et al., Understanding and Improving Shampoo and SOAP via Kullback-Leibler
    Minimization (2025), KL-Shampoo.
    """
    slots = {side: MatrixSlot(axes) for side, axes in SQUARE.items()}
    slots |= {f"{side}_root": MatrixSlot(axes, "eye") for side, axes in SQUARE.items()}
    numbers = {"decay": decay, "eps": eps, "relative_eps": relative_eps}
    numbers["precondition_frequency"] = precondition_frequency
    how = {"matrices": matrices, "block_size": block_size, "turns": spread}
    how["name"] = "scale_by_kl_shampoo"
    return matrixwise(_kl_shampoo, slots=slots, **how, **numbers)
