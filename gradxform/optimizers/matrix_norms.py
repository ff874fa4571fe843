"""Optimizers whose steps have a norm of their own, whatever that of the gradient is.

Notation: g gradient, p parameter, m momentum, α learning rate, λ weight decay; P, Q, R matrices.
"""

from typing import Any

from gradxform.core import Where, chain, transformation
from gradxform.core.hyper import Decay, Epsilon, LearningRate, Momentum, NonNegative, WeightDecay
from gradxform.matrices.declaration import Matrices, matrix_labels
from gradxform.matrices.dion import scale_by_dion
from gradxform.matrices.lmo import Norms, oracle, oracles
from gradxform.matrices.orthogonalize import Coefficients
from gradxform.optimizers.products import descent
from gradxform.optimizers.textbook import adamw
from gradxform.rules.directions import ema
from gradxform.rules.step_size import scale
from gradxform.wrappers.masking import Partition

__all__ = ["dion", "scion"]


@transformation
def scion(
    learning_rate: LearningRate, decay: Decay = 0.9, radius: NonNegative = 50.0,
    sign_radius: NonNegative = 3000.0, one_hot_radius: NonNegative = 1.0, *,
    norms: Norms = "auto", constrained: bool = True, ns_coeffs: Coefficients = "quintic",
    ns_steps: int = 5, matrices: Matrices | None = None,
):  # fmt: skip
    """Scion: averaged gradients, and the steepest step within a ball of a norm that suits the
    layer.

        m ← β m + (1 - β) g
        u = ρ o(m)                              o(m) of norm 1: `scale_by_lmo`
        p ← (1 - α) p - α u                     constrained=True
        p ← p - α u                             constrained=False

    Constrained, by the Frank-Wolfe method, a weight that begins in the ball of radius ρ never
    leaves it, for an α of at most 1: a weight decay of 1 on steps of length ρ.

    Args:
        decay: β, 1 - α in the paper. There 0.9, and 0.5 for short runs with little noise.
        radius: ρ of matrices and vectors: of the norms "spectral", "column" and "row".
        sign_radius: ρ of output heads: of the norm "sign".
        one_hot_radius: ρ of embeddings: of the norms that begin with "one_hot_".
        norms: the norm of each parameter, as of `scale_by_lmo`. The radii of their groups may be
            tables by path as well.
        constrained: whether weights stay in their ball.

    The radii are the paper's for a language model, with an α of 2⁻¹²; for a convolutional network
    it has 1 and 100 (1 of 2⁻⁴). Embeddings that are the head as well have the norm "sign".

    Memory: 4 bytes per parameter.

    Raises:
        ValueError: the name of no norm; a parameter whose matrices are not declared; update()
            without params, constrained.

    Source: T. Pethick et al., Training Deep Learning Models with Norm-Constrained LMOs (2025),
    algorithms 1 and 2.
    """

    def make(label):
        by_norm = {"sign": sign_radius} | dict.fromkeys(("spectral", "column", "row"), radius)
        size = scale(by_norm.get(label, one_hot_radius))
        return chain(oracle(label, matrices, ns_coeffs, ns_steps), size)

    step = oracles(norms, matrices, make)
    return chain(ema(decay, False), step, *descent(learning_rate, 1.0 if constrained else None))


@transformation
def dion(
    learning_rate: LearningRate = 0.01, mu: Momentum = 0.95, rank: int = 128,
    weight_decay: WeightDecay = 0.01, mask: Where | None = None, *,
    adam_learning_rate: LearningRate | None = None, adam_b1: Decay = 0.9, adam_b2: Decay = 0.999,
    adam_eps: Epsilon = 1e-8, adam_weight_decay: WeightDecay | None = None,
    matrices: Matrices | None = None,
):  # fmt: skip
    """Dion: orthonormal steps of rank r for matrices, of whose momentum only what a step took
    fades; AdamW for all else.

        B = m + g
        P = orthonormal(B Q)
        R = Bᵀ P
        m ← B - (1 - μ) P Rᵀ
        Q ← R / ‖R‖                             each column
        p ← p - α (√(outputs / inputs) P Qᵀ + λ p)

    Args:
        rank: r, at most the shorter side of a matrix. In the paper a half to a sixteenth of it.
        mask: which matrices decay.
        adam_learning_rate: of what is no matrix; α by default.
        adam_weight_decay: the same; λ by default.

    Memory: 4 bytes per parameter of a matrix and 4 r bytes per column of it; 8 bytes per other
    parameter.

    Raises:
        ValueError: a rank below 1; a parameter whose matrices are not declared; update() without
            params.

    Source: K. Ahn et al., Dion: Distributed Orthonormalized Updates (2025), algorithm 1.
    """
    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    rest_decay = weight_decay if adam_weight_decay is None else adam_weight_decay
    hidden = scale_by_dion(mu, rank, matrices=matrices)
    groups: dict[Any, Any] = {
        "dion": chain(hidden, *descent(learning_rate, weight_decay, mask)),
        "adam": adamw(rate, adam_b1, adam_b2, adam_eps, weight_decay=rest_decay),
    }
    return Partition(groups, matrix_labels(matrices, "dion", "adam"))
