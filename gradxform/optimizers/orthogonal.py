"""Muon and its kin: steps whose singular values are 1, and AdamW for what is no matrix.

Notation: g gradient, p parameter, α learning rate, β decays, ε epsilon, λ weight decay; every
optimizer ends in p ← p - α (u + λ p).
"""

from gradxform.core import chain, transformation
from gradxform.core.hyper import (
    Decay,
    DType,
    Epsilon,
    LearningRate,
    Momentum,
    Positive,
    WeightDecay,
)
from gradxform.core.labels import Where
from gradxform.matrices.declaration import Matrices, matrix, matrix_labels
from gradxform.matrices.muon import (
    newton_schulz,
    scale_by_adamuon,
    scale_by_normuon,
    scale_by_shape,
    steps_by_shape,
)
from gradxform.matrices.orthogonalize import Coefficients, Preconditioning
from gradxform.optimizers.products import descent
from gradxform.optimizers.textbook import adamw
from gradxform.rules.directions import ema
from gradxform.wrappers.masking import partition

__all__ = ["adamuon", "muon", "normuon"]

_JORDAN = (3.4445, -4.7750, 2.0315)


def two_dimensional(path, leaf):
    """Optax's default: every array of rank 2, [inputs, outputs]."""
    return matrix(0, 1) if leaf.ndim == 2 else None


def _beside_adam(parts, matrices, rates, decays, mask, averages, nesterov=False):
    """The parts, with decay and learning rate, for the matrices, and AdamW for the rest.

    `rates` and `decays` are those of the matrices and AdamW's own, None for the same; `averages`
    are AdamW's b1, b2, eps, eps_root and mu_dtype.
    """
    rate, decay = (first if own is None else own for first, own in (rates, decays))
    hidden = chain(*parts, *descent(rates[0], decays[0], mask))
    adam = adamw(rate, *averages, weight_decay=decay, nesterov=nesterov)
    return partition({"muon": hidden, "adam": adam}, matrix_labels(matrices, "muon", "adam"))


@transformation(
    conventions={
        "names": {},
        "optax": {"adam_weight_decay": 0.0},
        "torch": {"eps": 1e-7, "weight_decay": 0.1, "compute_dtype": "bfloat16", "adam_eps": 1e-8},
    }
)
def muon(
    learning_rate: LearningRate, ns_coeffs: Coefficients = _JORDAN, ns_steps: int = 5,
    beta: Decay = 0.95, eps: Epsilon = 1e-8, weight_decay: WeightDecay = 0.0,
    weight_decay_mask: Where | None = None, mu_dtype: DType | None = None, *,
    nesterov: bool = True, adaptive: bool = False, preconditioning: Preconditioning = "frobenius",
    adam_b1: Decay = 0.9, adam_b2: Decay = 0.999, adam_eps_root: Epsilon = 0.0,
    adam_weight_decay: WeightDecay | None = None, adam_learning_rate: LearningRate | None = None,
    muon_weight_dimension_numbers: Matrices | None = None,
    consistent_rms: Positive | None = None, adam_eps: Epsilon | None = None,
    compute_dtype: DType | None = None, convention: str = "names",
):  # fmt: skip
    """Muon: momentum whose singular values are all made 1, for matrices; AdamW for the rest.

        m ← β m + (1 - β) g
        m̂ = β m / (1 - βᵗ⁺¹) + (1 - β) g / (1 - βᵗ)    nesterov=True
        m̂ = m / (1 - βᵗ)                               nesterov=False
        u = √(max(1, outputs / inputs)) orthogonalize(m̂)
        p ← p - α (u + λ p)

    By default parameters are told by their names: embeddings, output heads, norms and biases go to
    AdamW, which has Nesterov's form where Muon has. The learning rate is of the order of 0.02; with
    `consistent_rms=0.2` AdamW's serves both.

    Conventions: "optax" sends every array of rank 2 to Muon, read as [inputs, outputs], and all
    others to AdamW, which does not decay unless `adam_weight_decay` is given:
    `gradxform.contrib.muon`. "torch" has no corrections of m, products in bfloat16, max(‖m‖, ε) for
    ‖m‖ + ε with ε = 1e-7, and λ = 0.1; its `adjust_lr_fn="match_rms_adamw"` is
    `consistent_rms=0.2`.

    Args:
        ns_steps: how many of a triple; a table has its own number.
        adaptive: scale u by the dual norm of m̂, of each matrix.
        preconditioning: what m̂ is divided by first, as of `orthogonalize`.
        adam_weight_decay: that of AdamW; λ by default.
        adam_learning_rate: that of AdamW; α by default.
        muon_weight_dimension_numbers: also `matrices`: which parameters are matrices, and how.
        consistent_rms: c, for u = c √(max(inputs, outputs)) orthogonalize(m̂).
        adam_eps: that of AdamW; ε by default.
        compute_dtype: what products are rounded to first; float32 by default.

    Memory: 4 bytes per parameter of a matrix, 8 of others (`mu_dtype` changes the first 4).

    Raises:
        ValueError: update() without params; a parameter of more than two axes whose name does not
            tell which are its rows and columns.

    Source: K. Jordan et al., Muon: An optimizer for hidden layers in neural networks (2024); J. Liu
    et al., Muon is Scalable for LLM Training (2025), equation 4, for `consistent_rms` and the
    decay.
    """
    torch = convention == "torch"
    matrices = muon_weight_dimension_numbers
    if matrices is None and convention == "optax":
        matrices = two_dimensional
    floored = torch and preconditioning == "frobenius"
    divisor = "floored" if floored else preconditioning
    how = {"preconditioning": divisor, "dtype": compute_dtype, "dual": adaptive}
    parts = (
        ema(beta, not torch, mu_dtype, nesterov=nesterov),
        newton_schulz("muon", ns_coeffs, ns_steps, eps, matrices, **how),
        scale_by_shape(matrices or "names", consistent_rms),
    )
    rates, decays = (learning_rate, adam_learning_rate), (weight_decay, adam_weight_decay)
    averages = adam_b1, adam_b2, eps if adam_eps is None else adam_eps, adam_eps_root, mu_dtype
    given = matrices, rates, decays, weight_decay_mask, averages
    return _beside_adam(parts, *given, nesterov=nesterov and not torch)


@transformation
def normuon(
    learning_rate: LearningRate, beta: Decay = 0.95, b2: Decay = 0.95, eps: Epsilon = 1e-8,
    weight_decay: WeightDecay = 0.0, weight_decay_mask: Where | None = None, *,
    nesterov: bool = True, ns_coeffs: Coefficients = _JORDAN, ns_steps: int = 5,
    ns_eps: Epsilon = 1e-7, consistent_rms: Positive | None = None,
    adam_learning_rate: LearningRate | None = None, adam_b1: Decay = 0.9, adam_b2: Decay = 0.95,
    adam_eps: Epsilon = 1e-8, adam_weight_decay: WeightDecay | None = None,
    mu_dtype: DType | None = None, compute_dtype: DType | None = None,
    matrices: Matrices | None = None,
):  # fmt: skip
    """NorMuon: Muon whose neurons all move alike; AdamW for what is no matrix.

        m ← β m + (1 - β) g
        o = orthogonalize(β m + (1 - β) g)             of m where nesterov=False
        v ← β₂ v + (1 - β₂) mean(o²)                   over the inputs of each output
        w = o / (√v + ε)
        u = √(max(1, outputs / inputs)) ‖o‖ / ‖w‖ w
        p ← p - α (u + λ p)

    With `consistent_rms=c`, u = c √(inputs outputs) w / ‖w‖: entries of size c. The paper has c =
    0.2 and no Nesterov form; its authors' code is the default here.

    Args:
        ns_eps: ε of `orthogonalize`.
        adam_learning_rate: that of AdamW; α by default.
        adam_weight_decay: that of AdamW; λ by default.

    Memory: 4 bytes per parameter of a matrix and 4 per output, 8 per parameter of others.

    Raises:
        ValueError: update() without params; a parameter of more than two axes whose name does not
            tell which are its rows and columns.

    Source: Z. Li et al., NorMuon: Making Muon more efficient and scalable (2025), algorithm 1.
    """
    how = {"ns_coeffs": ns_coeffs, "ns_steps": ns_steps, "ns_eps": ns_eps, "mu_dtype": mu_dtype}
    how |= {"compute_dtype": compute_dtype, "matrices": matrices}
    step = scale_by_normuon(beta, b2, eps, nesterov=nesterov, **how)
    rates, decays = (learning_rate, adam_learning_rate), (weight_decay, adam_weight_decay)
    averages = adam_b1, adam_b2, adam_eps, 0.0, mu_dtype
    parts = step, steps_by_shape(consistent_rms, matrices)
    return _beside_adam(parts, matrices, rates, decays, weight_decay_mask, averages)


@transformation
def adamuon(
    learning_rate: LearningRate, beta: Momentum = 0.95, b2: Decay | None = None,
    eps: Epsilon = 1e-8, weight_decay: WeightDecay = 0.0, weight_decay_mask: Where | None = None,
    *, nesterov: bool = True, ns_coeffs: Coefficients = _JORDAN, ns_steps: int = 5,
    ns_eps: Epsilon = 1e-7, consistent_rms: Positive | None = 0.2,
    adam_learning_rate: LearningRate | None = None, adam_b1: Decay = 0.9, adam_b2: Decay = 0.95,
    adam_eps: Epsilon = 1e-8, adam_weight_decay: WeightDecay | None = None,
    mu_dtype: DType | None = None, compute_dtype: DType | None = None,
    matrices: Matrices | None = None,
):  # fmt: skip
    """AdaMuon: Muon of signs, with a mean square for each entry of what comes out; AdamW for what
    is no matrix.

        m ← β m + g
        o = orthogonalize(sign(g + β m))               of sign(m) where nesterov=False
        v ← β₂ v + (1 - β₂) o²
        w = o / (√v + ε)
        u = c √(inputs outputs) w / ‖w‖                entries of size c = `consistent_rms`
        p ← p - α (u + λ p)

    With `consistent_rms=None`, u = √(max(1, outputs / inputs)) ‖o‖ / ‖w‖ w, Muon's own scale.

    Args:
        b2: β₂; β by default, as in the paper.
        ns_eps: ε of `orthogonalize`.
        adam_learning_rate: that of AdamW; α by default.
        adam_weight_decay: that of AdamW; λ by default.

    Memory: 8 bytes per parameter (`mu_dtype` changes the first 4).

    Raises:
        ValueError: update() without params; a parameter of more than two axes whose name does not
            tell which are its rows and columns.

    Source: C. Si, D. Zhang, W. Shen, AdaMuon: Adaptive Muon Optimizer (2025), algorithm 1; the
    Nesterov form is that of the authors' code.
    """
    how = {"ns_coeffs": ns_coeffs, "ns_steps": ns_steps, "ns_eps": ns_eps, "mu_dtype": mu_dtype}
    how |= {"compute_dtype": compute_dtype, "matrices": matrices}
    step = scale_by_adamuon(beta, b2, eps, nesterov=nesterov, **how)
    rates, decays = (learning_rate, adam_learning_rate), (weight_decay, adam_weight_decay)
    averages = adam_b1, adam_b2, adam_eps, 0.0, mu_dtype
    parts = step, steps_by_shape(consistent_rms, matrices)
    return _beside_adam(parts, matrices, rates, decays, weight_decay_mask, averages)
