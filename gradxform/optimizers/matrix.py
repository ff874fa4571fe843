"""Optimizers with a rate for each matrix; what is no matrix goes to Adam."""

from gradxform.core import WeightDecay, Where, chain, transformation
from gradxform.core.hyper import Ceiling, Decay, Epsilon, Fraction, LearningRate
from gradxform.matrices.declaration import Matrices, matrix_labels
from gradxform.matrices.kron import FALLING, scale_by_kron
from gradxform.optimizers.products import adam_rms, descent
from gradxform.rules.clipping import clip_by_block_rms
from gradxform.rules.directions import ema
from gradxform.rules.noise import Key
from gradxform.wrappers.masking import partition
from gradxform.wrappers.on_updates import on_updates

__all__ = ["kron"]


@transformation(conventions={"paper": {}, "momentum": {}})
def kron(
    learning_rate: LearningRate = 1e-3, b1: Decay = 0.9, weight_decay: WeightDecay = 0.0,
    precond_probability: Fraction = FALLING, precond_lr: Fraction = 0.1,
    clipping_threshold: Ceiling = 1.1, key: Key = 0, where: Where | None = None,
    *, b2: Decay = 0.999, eps: Epsilon = 1e-8, max_size_triangular: int = 8192,
    max_skew: int | None = None, matrices: Matrices | None = None, convention: str = "paper",
):  # fmt: skip
    """PSGD-Kron: momentum, whitened by Kronecker factors that are learned.

        m ← β₁ m + (1 - β₁) g
        u = P m̂,  P → E[g gᵀ]^-1/2               `scale_by_kron`; m̂ / (√v̂ + ε) if g is no matrix
        p ← p - α (u min(1, d / rms(u)) + λ p)

    d = `clipping_threshold`. Parameters that are no matrix, which the authors give a diagonal
    factor, have Adam's second moment: it has the same limit, E[g²]^-1/2, without the noise.

    Conventions: "paper" whitens the gradient, and momentum changes only where we step; "momentum"
    whitens the momentum itself, as the packages that call this Kron do, so that u has unit size
    however much momentum averages out: a third of the learning rate does.

    Memory: 4 bytes per parameter and 4 (i² + j²) for a matrix of i j; 8 per other parameter.

    Source: X.-L. Li, Preconditioned Stochastic Gradient Descent (2015), and Stochastic Hessian
    Fittings with Lie Groups (2024).
    """
    size = {"max_size_triangular": max_size_triangular, "max_skew": max_skew}
    hidden = scale_by_kron(precond_probability, precond_lr, key, matrices=matrices, **size)
    hidden = on_updates(hidden) if convention == "momentum" else hidden
    precondition = {"matrix": hidden, "rest": adam_rms(b2, eps)}
    whitened = partition(precondition, matrix_labels(matrices))
    clipped = clip_by_block_rms(clipping_threshold)
    return chain(ema(b1), whitened, clipped, *descent(learning_rate, weight_decay, where))
