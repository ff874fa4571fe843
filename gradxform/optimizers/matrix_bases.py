"""Optimizers that run in a basis of each matrix: SOAP and its kin, APOLLO.

Each is a composition of `in_basis`. Leaves that are no matrix run the same optimizer as they are:
plain Adam.
"""

from typing import Any

from gradxform.core import Count, Real, WeightDecay, Where, chain, leafwise, transformation
from gradxform.core.hyper import Ceiling, Decay, Epsilon, LearningRate, Positive
from gradxform.matrices.bases import Sides, eigenbasis, kl_eigenbasis, random_basis
from gradxform.matrices.declaration import Matrices, matrix_labels
from gradxform.matrices.growth import limit_norm_growth
from gradxform.matrices.in_basis import InBasis, ScaleType, in_basis
from gradxform.numerics import bias_correction, real_dtype
from gradxform.optimizers.products import adam_parts, descent, scale_by_adam
from gradxform.rules.noise import Key
from gradxform.wrappers.masking import Partition

__all__ = ["apollo", "kl_soap", "scale_by_apollo", "scale_by_kl_soap", "scale_by_soap", "soap"]


@transformation
def scale_by_soap(
    b1: Decay = 0.95, b2: Decay = 0.95, eps: Epsilon = 1e-8, shampoo_beta: Decay | None = None,
    precondition_frequency: Count = 10, max_precond_dim: int = 10_000, *, sides: Sides = "both",
    matrices: Matrices | None = None,
):  # fmt: skip
    """`soap` without its learning rate: Adam in the eigenbasis of the gradients' second moments.

        L ← β L + (1 - β) g gᵀ,  R ← β R + (1 - β) gᵀ g
        U, V ← their eigenvectors      of `eigenbasis`, anew at every k-th step
        x = Uᵀ g V
        u = U adam(x) Vᵀ

    Args:
        b1: β₁, of Adam.
        b2: β₂, of Adam.
        eps: ε, of Adam.
        shampoo_beta: share of the old second moments kept; None for β₂.
        precondition_frequency: every how many steps the basis is found anew.
        max_precond_dim: a longer side is left as it is.
        sides: which are rotated: "both", the "short" one, the "rows" or the "columns".
        matrices: which axes of which parameters are rows and columns.

    Memory: for a matrix of m n parameters 8 (m² + n²) + 8 m n bytes; 8 per other parameter.

    Source: N. Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam (2024), algorithm 3.
    """
    beta = b2 if shampoo_beta is None else shampoo_beta
    how: Any = {"max_dim": max_precond_dim, "sides": sides, "matrices": matrices}
    basis = eigenbasis(beta, precondition_frequency, **how)
    return InBasis(scale_by_adam(b1, b2, eps), basis, 1.0)


@transformation
def soap(
    learning_rate: LearningRate = 3e-3, b1: Decay = 0.95, b2: Decay = 0.95, eps: Epsilon = 1e-8,
    weight_decay: WeightDecay = 0.01, shampoo_beta: Decay | None = None,
    precondition_frequency: Count = 10, max_precond_dim: int = 10_000, mask: Where | None = None,
    *, sides: Sides = "both", matrices: Matrices | None = None,
):  # fmt: skip
    """SOAP: Adam in Shampoo's eigenbasis, with decoupled weight decay.

        L ← β L + (1 - β) g gᵀ,  R ← β R + (1 - β) gᵀ g
        U, V ← their eigenvectors      of `eigenbasis`, anew at every k-th step
        x = Uᵀ g V
        p ← p - α (U adam(x) Vᵀ + λ p)

    The first step finds the basis and only decays the parameters. `mask` limits the decay. The
    authors, and pytorch_optimizer, decay the parameters after each step and not at the first; they
    agree in all else. Leaves that are no matrix, embeddings and output heads by default among them,
    run Adam.

    Memory: for a matrix of m n parameters 8 (m² + n²) + 8 m n bytes; 8 per other parameter.

    Source: N. Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam (2024), algorithm 3.
    """
    numbers = b1, b2, eps, shampoo_beta, precondition_frequency, max_precond_dim
    step = scale_by_soap(*numbers, sides=sides, matrices=matrices)
    return chain(step, *descent(learning_rate, weight_decay, mask))


@transformation
def scale_by_kl_soap(
    b1: Decay = 0.95, b2: Decay = 0.95, eps: Epsilon = 1e-8, shampoo_beta: Decay | None = None,
    precondition_frequency: Count = 10, max_precond_dim: int = 10_000, *, initial: Positive = 0.1,
    matrices: Matrices | None = None,
):  # fmt: skip
    """`kl_soap` without its learning rate: Adam in the eigenbasis of KL-Shampoo's factors.

        L ← β L + (1 - β) g R⁻¹ gᵀ / n,  R ← β R + (1 - β) gᵀ L⁻¹ g / m
        U, V ← their eigenvectors      of `kl_eigenbasis`, anew at every k-th step
        x = Uᵀ g V
        u = U adam(x) Vᵀ

    Args:
        b1: β₁, of Adam.
        b2: β₂, of Adam.
        eps: ε, of Adam.
        shampoo_beta: share of the old factors kept; None for β₂.
        precondition_frequency: every how many steps the basis is found anew.
        max_precond_dim: a longer side is left as it is.
        initial: the factors' eigenvalues after the first step.
        matrices: which axes of which parameters are rows and columns.

    Memory: for a matrix of m n parameters 8 (m² + n²) + 8 m n + 4 (m + n) bytes; 8 per other.

    Source: W. Lin et al., Understanding and Improving Shampoo and SOAP via Kullback-Leibler
    Minimization (2025), KL-SOAP.
    """
    beta = b2 if shampoo_beta is None else shampoo_beta
    how: Any = {"initial": initial, "max_dim": max_precond_dim, "matrices": matrices}
    basis = kl_eigenbasis(beta, precondition_frequency, **how)
    return InBasis(scale_by_adam(b1, b2, eps), basis, 1.0)


@transformation
def kl_soap(
    learning_rate: LearningRate = 3e-3, b1: Decay = 0.95, b2: Decay = 0.95, eps: Epsilon = 1e-8,
    weight_decay: WeightDecay = 0.01, shampoo_beta: Decay | None = None,
    precondition_frequency: Count = 10, max_precond_dim: int = 10_000, mask: Where | None = None,
    *, initial: Positive = 0.1, matrices: Matrices | None = None,
):  # fmt: skip
    """KL-SOAP: SOAP whose basis comes of factors measured against each other.

        L ← β L + (1 - β) g R⁻¹ gᵀ / n,  R ← β R + (1 - β) gᵀ L⁻¹ g / m
        U, V ← their eigenvectors      of `kl_eigenbasis`, anew at every k-th step
        x = Uᵀ g V
        p ← p - α (U adam(x) Vᵀ + λ p)

    With SOAP's numbers. Adam's averages are corrected for their bias, as in SOAP; the authors'
    code leaves them.

    Memory: for a matrix of m n parameters 8 (m² + n²) + 8 m n + 4 (m + n) bytes; 8 per other.

    Source: W. Lin et al., Understanding and Improving Shampoo and SOAP via Kullback-Leibler
    Minimization (2025), KL-SOAP.
    """
    numbers = b1, b2, eps, shampoo_beta, precondition_frequency, max_precond_dim
    step = scale_by_kl_soap(*numbers, initial=initial, matrices=matrices)
    return chain(step, *descent(learning_rate, weight_decay, mask))


def _corrected(u, at, *, b1, b2):
    """u ← u √(1 - β₂ᵗ) / (1 - β₁ᵗ)"""
    dtype = real_dtype(u.dtype)
    return u * bias_correction(b2, at.t, dtype) ** 0.5 / bias_correction(b1, at.t, dtype)


@transformation
def scale_by_apollo(
    rank: int = 256, update_proj_gap: Count = 200, scale: Real = 1.0, b1: Decay = 0.9,
    b2: Decay = 0.999, eps: Epsilon = 1e-6, *, scale_type: ScaleType = "columns",
    growth: Ceiling = 1.01, key: Key = 0, matrices: Matrices | None = None,
):  # fmt: skip
    """`apollo` without its learning rate: the gradient, as much longer as Adam makes its random
    projection.

        P ← 𝒩(0, 1 / r)      drawn anew at every k-th step
        x = Pᵀ g
        w = s g diag(‖adam(x)ⱼ‖ / ‖xⱼ‖)      scale_type="columns"
        w = s g ‖adam(x)‖ / ‖x‖      scale_type="matrix"
        u = w min(1, γ n / ‖w‖),  n ← ‖u‖      `limit_norm_growth`

    Args:
        rank: r, of the projections.
        update_proj_gap: every how many steps P is drawn anew.
        scale: s, for matrices alone.
        b1: β₁, of Adam.
        b2: β₂, of Adam.
        eps: ε, of Adam.
        scale_type: whether each of the "columns" has a length of its own, the short side being the
            rows, or the "matrix" one.
        growth: γ.
        key: an integer or a `jax.random` key, of the projections.
        matrices: which axes of which parameters are rows and columns.

    Adam's bias correction multiplies the step after its growth was limited, as in the authors'
    code. Leaves that are no matrix run Adam.

    Memory: for a matrix of m ≤ n 8 r n + 4 r m bytes; 8 per other parameter.

    Source: H. Zhu et al., APOLLO: SGD-like Memory, AdamW-level Performance (2024), algorithm 1.
    """
    adam = chain(*adam_parts(b1, b2, eps, corrected=False))
    basis = random_basis(rank, update_proj_gap, key, matrices=matrices)
    scaled = in_basis(adam, basis, scale=scale, carry=False, back=scale_type)
    corrected = leafwise(_corrected, name="correct_adam", b1=b1, b2=b2)
    hidden = chain(scaled, limit_norm_growth(growth, matrices=matrices), corrected)
    groups: dict[Any, Any] = {"matrix": hidden, "rest": scale_by_adam(b1, b2, eps)}
    return Partition(groups, matrix_labels(matrices))


@transformation
def apollo(
    learning_rate: LearningRate = 0.01, rank: int = 256, update_proj_gap: Count = 200,
    scale: Real = 1.0, b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-6,
    weight_decay: WeightDecay = 0.0, mask: Where | None = None, *,
    scale_type: ScaleType = "columns", growth: Ceiling = 1.01, key: Key = 0,
    matrices: Matrices | None = None,
):  # fmt: skip
    """APOLLO: gradient descent whose columns have the lengths that Adam gives them, measured in a
    random subspace.

        P ← 𝒩(0, 1 / r)      drawn anew at every k-th step
        x = Pᵀ g
        p ← p - α (s g diag(‖adam(x)ⱼ‖ / ‖xⱼ‖) + λ p)

    The growth of the step's norm is limited to γ = `growth` a step. APOLLO-Mini has one length for
    a matrix, and 4 m + 8 n bytes: `apollo(rank=1, scale=128**0.5, scale_type="matrix")`.
    pytorch_optimizer brings the scaled projection back; the paper scales the gradient itself.

    Memory: for a matrix of m ≤ n 8 r n + 4 r m bytes; 8 per other parameter.

    Source: H. Zhu et al., APOLLO: SGD-like Memory, AdamW-level Performance (2024), algorithm 1.
    """
    numbers = rank, update_proj_gap, scale, b1, b2, eps
    how: Any = {"scale_type": scale_type, "growth": growth, "key": key, "matrices": matrices}
    step = scale_by_apollo(*numbers, **how)
    return chain(step, *descent(learning_rate, weight_decay, mask))
