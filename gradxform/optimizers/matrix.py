"""Optimizers with a rate for each matrix; what is no matrix goes to Adam."""

from gradxform.core import WeightDecay, Where, chain, transformation
from gradxform.core.hyper import Ceiling, Decay, Epsilon, Fraction, LearningRate, Positive
from gradxform.matrices.declaration import Matrices, matrix_labels
from gradxform.matrices.kron import FALLING, scale_by_kron
from gradxform.optimizers.products import adam_rms, descent
from gradxform.rules.clipping import clip_by_block_rms
from gradxform.rules.directions import ema
from gradxform.rules.noise import Key
from gradxform.wrappers.masking import partition
from gradxform.wrappers.on_updates import on_updates

__all__ = ["kron"]


@transformation(conventions={"paper": {}, "pytorch_optimizer": {"precond_init_scale": 1.0}})
def kron(
    learning_rate: LearningRate = 1e-3, b1: Decay = 0.9, weight_decay: WeightDecay = 0.0,
    precond_probability: Fraction = FALLING, precond_lr: Fraction = 0.1,
    clipping_threshold: Ceiling = 1.1, key: Key = 0, where: Where | None = None,
    *, b2: Decay = 0.999, eps: Epsilon = 1e-8, precond_init_scale: Positive | None = None,
    max_size_triangular: int = 8192, max_skew: int | None = None,
    matrices: Matrices | None = None, convention: str = "paper",
):  # fmt: skip
    """PSGD-Kron: momentum, whitened by Kronecker factors that are learned.

        m ← β₁ m + (1 - β₁) g
        u = P m̂,  P → E[g gᵀ]^-1/2               `scale_by_kron`; m̂ / (√v̂ + ε) if g is no matrix
        p ← p - α (u min(1, d / rms(u)) + λ p)

    d = `clipping_threshold`. Parameters that are no matrix, which the authors give a diagonal
    factor, have Adam's second moment: it has the same limit, E[g²]^-1/2, without the noise.

    Conventions: in "paper" P whitens the gradient, and momentum changes only where we step; in
    "pytorch_optimizer", as in the other packages that call it Kron, P whitens the momentum and is
    the identity at first. Then u has unit size however much the momentum averages out, and a third
    of the learning rate does. These have a diagonal factor for vectors, and do not decay them.

    Memory: 4 bytes per parameter and 4 (i² + j²) for a matrix of i j; 8 per other parameter.

    Source: X.-L. Li, Preconditioned Stochastic Gradient Descent (2015), and Stochastic Hessian
    Fittings with Lie Groups (2024).
    """
    how: dict = {"precond_init_scale": precond_init_scale, "matrices": matrices}
    how |= {"max_size_triangular": max_size_triangular, "max_skew": max_skew}
    hidden = scale_by_kron(precond_probability, precond_lr, key, **how)
    hidden = on_updates(hidden) if convention == "pytorch_optimizer" else hidden
    precondition = {"matrix": hidden, "rest": adam_rms(b2, eps)}
    whitened = partition(precondition, matrix_labels(matrices))
    clipped = clip_by_block_rms(clipping_threshold)
    return chain(ema(b1), whitened, clipped, *descent(learning_rate, weight_decay, where))
