"""Optimizers that whiten each matrix by the second moments of its rows and columns.

Notation: g gradient of a matrix, p parameter, α learning rate, β decays, ε epsilon, λ weight decay;
every optimizer ends in p ← p - α (u + λ p). What is no matrix has an optimizer of its own.
"""

from gradxform.core import Inner, WeightDecay, chain, transformation
from gradxform.core.hyper import Count, Decay, Epsilon, LearningRate, Real
from gradxform.matrices.declaration import Matrices, matrix_labels
from gradxform.matrices.grafting import graft as grafted
from gradxform.matrices.shampoo import Sides, scale_by_kl_shampoo, scale_by_shampoo
from gradxform.optimizers.products import descent
from gradxform.optimizers.textbook import adamw
from gradxform.rules.directions import ema
from gradxform.rules.preconditioners import scale_by_rms
from gradxform.wrappers.masking import partition

__all__ = ["kl_shampoo", "shampoo"]

ADAM = scale_by_rms(0.999, 1e-8, eps_in_sqrt=False, bias_correction=True)


def _beside(hidden, rest, learning_rate, b1, weight_decay, matrices):
    """One transformation for the matrices, and one for the rest: AdamW where none is given."""
    rest = adamw(learning_rate, b1, weight_decay=weight_decay) if rest is None else rest
    return partition({"matrix": hidden, "rest": rest}, matrix_labels(matrices))


@transformation
def shampoo(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay | None = 0.999, eps: Epsilon = 1e-12,
    weight_decay: WeightDecay = 0.0, *, graft: Inner | None = ADAM, nesterov: bool = False,
    exponent: Real | None = None, sides: Sides = "both", relative_eps: Epsilon = 1e-6,
    block_size: int | None = 1024, precondition_frequency: Count = 10,
    start_preconditioning_step: Count = 1, spread: int = 1, rest: Inner | None = None,
    matrices: Matrices | None = None,
):  # fmt: skip
    """Shampoo: momentum between roots of the second moments of rows and columns, as long as Adam's
    step.

        m ← β₁ m + (1 - β₁) g
        L ← β₂ L + (1 - β₂) g gᵀ,  R ← β₂ R + (1 - β₂) gᵀ g
        u = L̂^-1/4 m̂ R̂^-1/4                  roots found at every k-th step
        u ← u ‖w‖ / ‖u‖,  w = m̂ / (√v̂ + ε)   v the average of g² of `adam`: grafting
        p ← p - α (u + λ p)

    Args:
        b2: β₂; None for sums, as first published.
        eps: added to the eigenvalues, and `relative_eps` as a share of the largest.
        graft: what lends the length of its step, of any transformation: `identity()` for SGD,
            `scale_by_rss()` for Adagrad; None for Shampoo's own.
        exponent: -1/4 by default, or -1/2 where `sides` is not "both": see `scale_by_shampoo`.
        block_size: matrices with longer sides fall into blocks.
        precondition_frequency: k.
        start_preconditioning_step: the first step with roots; before it the graft runs alone.
        spread: into how many groups the matrices are dealt out, whose roots are found at different
            steps.
        rest: the optimizer of what is no matrix, embeddings and heads included: by default
            `adamw(learning_rate, b1, weight_decay=weight_decay)`.
        matrices: which axes are rows and columns, by default by the names and shapes of parameters.

    The facebookresearch package has β₂ = 1 for sums and no graft by default; its Google forerunner
    and pytorch_optimizer's ScalableShampoo apply the momentum after the division:
    `chain(graft(scale_by_shampoo(), identity()), trace(0.9), …)`.

    Memory: for a matrix of m n parameters: 8 m n bytes for m and v, 8 (m² + n²) for the second
    moments and their roots; 8 bytes per other parameter.

    Raises:
        ValueError: update() without params; a parameter that the declaration does not cover.

    Source: V. Gupta, T. Koren, Y. Singer, Shampoo (2018), algorithm 1; R. Anil et al., Scalable
    Second Order Optimization for Deep Learning (2020); H.-J. M. Shi et al., A Distributed
    Data-Parallel PyTorch Implementation of the Distributed Shampoo Optimizer (2023).
    """
    start = start_preconditioning_step
    how = {"exponent": exponent, "sides": sides, "block_size": block_size, "matrices": matrices}
    how |= {"precondition_frequency": precondition_frequency, "start_preconditioning_step": start}
    how["spread"] = spread
    step = scale_by_shampoo(b2, eps, relative_eps, **how)
    if graft is not None:
        step = grafted(step, graft, start, matrices=matrices)
    hidden = chain(ema(b1, nesterov=nesterov), step, *descent(learning_rate, weight_decay))
    return _beside(hidden, rest, learning_rate, b1, weight_decay, matrices)


@transformation
def kl_shampoo(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.98, eps: Epsilon = 0.0,
    weight_decay: WeightDecay = 0.01, *, relative_eps: Epsilon = 1e-6,
    block_size: int | None = None, precondition_frequency: Count = 10, spread: int = 1,
    rest: Inner | None = None, matrices: Matrices | None = None,
):  # fmt: skip
    """KL-Shampoo: Shampoo whose two sides are measured each after the other has whitened it, so
    that its steps need no other's length.

        m ← β₁ m + (1 - β₁) g
        L ← β₂ L + (1 - β₂) g R⁻¹ gᵀ / n,  R ← β₂ R + (1 - β₂) gᵀ L⁻¹ g / m      g is [m, n]
        u = L^-1/2 m R^-1/2
        p ← p - α (u + λ p)

    m is not corrected, as in the paper. `scale_by_kl_shampoo` tells how L and R begin.

    Args:
        eps: added to the eigenvalues, and `relative_eps` as a share of the largest.
        block_size: matrices with longer sides fall into blocks; None for whole matrices.
        precondition_frequency, spread: how often the roots are found, and of how many groups of
            matrices at different steps.
        rest: the optimizer of what is no matrix: by default `adamw(learning_rate, b1,
            weight_decay=weight_decay)`.
        matrices: which axes are rows and columns, by default by the names and shapes of parameters.

    Memory: 4 m n + 8 (m² + n²) bytes for a matrix of m n parameters; 8 bytes per other parameter.

    Raises:
        ValueError: update() without params; a parameter that the declaration does not cover.

    Source: W. Lin et al., Understanding and Improving Shampoo and SOAP via Kullback-Leibler
    Minimization (2025).
    """
    how = {"block_size": block_size, "precondition_frequency": precondition_frequency}
    how["spread"] = spread
    step = scale_by_kl_shampoo(b2, eps, relative_eps, matrices=matrices, **how)
    hidden = chain(ema(b1, debias=False), step, *descent(learning_rate, weight_decay))
    return _beside(hidden, rest, learning_rate, b1, weight_decay, matrices)
