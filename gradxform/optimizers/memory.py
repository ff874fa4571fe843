"""Optimizers that remember less than Adam: factored second moments, one rate per block, gradients
in a subspace.
"""

from gradxform.core import Inner, Real, WeightDecay, Where, chain, transformation
from gradxform.core.hyper import (
    Ceiling,
    Count,
    Decay,
    DType,
    Epsilon,
    LearningRate,
    Momentum,
    NonNegative,
)
from gradxform.matrices.declaration import Matrices
from gradxform.matrices.factored import (
    Axes,
    factored_rms_keras,
    factored_rms_torch,
    scale_by_block_rms,
    scale_by_came,
    scale_by_factored_rms,
)
from gradxform.matrices.galore import scale_by_galore
from gradxform.optimizers.products import descent
from gradxform.rules.clipping import clip_by_block_rms
from gradxform.rules.directions import ema
from gradxform.rules.layerwise import relative_step, relative_step_decayed
from gradxform.rules.step_size import falling_rate, scale, scale_by_learning_rate
from gradxform.rules.weight_decay import add_decayed_weights, decay_by_rate

__all__ = ["adafactor", "adam_mini", "came", "galore"]

_PUBLISHED = {"learning_rate": 1e-2, "min_dim_size_to_factor": 1}


_KERAS = _PUBLISHED | {"learning_rate": 1e-3}


@transformation(
    conventions={"optax": {}, "torch": _PUBLISHED, "paper": _PUBLISHED, "keras": _KERAS}
)
def adafactor(
    learning_rate: LearningRate | None = None, min_dim_size_to_factor: int = 128,
    decay_rate: NonNegative = 0.8, decay_offset: Real = 0.0,
    multiply_by_parameter_scale: bool = True, clipping_threshold: Ceiling | None = 1.0,
    momentum: Momentum | None = None, dtype_momentum: DType | None = None,
    weight_decay_rate: WeightDecay | None = None, eps: Epsilon = 1e-30, factored: bool = True,
    weight_decay_mask: Where | None = None, *, matrices: Matrices | None = None,
    convention: str = "optax",
):  # fmt: skip
    """Adafactor: RMS scaling with a factored second moment, steps relative to the parameter's own
    size.

        ρₜ = 1 - t^-γ;  V from the row and column means of g² + ε, averaged with ρₜ
        u = g / √V,  u ← u / max(1, rms(u) / d)  V as in `scale_by_factored_rms`
        u ← α max(rms(p), 10⁻³) u
        u ← β₁ m + (1 - β₁) u                    `momentum` = β₁
        p ← p - u - λ p                          λ = `weight_decay_rate`, independent of α

    γ = `decay_rate`, d = `clipping_threshold`; None leaves a line out, for α too.

    Conventions: "optax" as above, factoring the two largest axes where both are at least
    `min_dim_size_to_factor`. "paper" and "torch" factor from size 1 on and have min(α, 1/√t) in
    place of α, α = 0.01 by default. "torch" factors the two last axes, bounds the second moment
    from below where the others add ε, and decays by α λ p. "keras" is "paper" on the two last axes
    with α = 0.001; it decays by α λ p first, and measures p after that. `matrices` declares which
    axes are factored in place of these, rows and columns.

    Memory: 4 (i + j) bytes for a matrix of i j parameters, 4 bytes per other parameter; with
    momentum 4 more each.

    Raises:
        ValueError: update() without params; the convention of torch or Keras with momentum or
            without factoring.

    Source: N. Shazeer, M. Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost
    (2018), algorithms 4 and 5.
    """
    torch, keras = convention == "torch", convention == "keras"
    if (torch or keras) and (momentum is not None or not factored):
        neither = "has neither momentum nor a second moment that is not factored"
        raise ValueError(f"adafactor: {convention} {neither}")
    rate = decay = None
    if learning_rate is not None and convention == "optax":
        rate = scale_by_learning_rate(learning_rate, flip_sign=False)
    elif learning_rate is not None:
        rate = falling_rate(learning_rate)
    relative = relative_step(1e-3) if multiply_by_parameter_scale else None
    decays = (1.0 if learning_rate is None else learning_rate, weight_decay_rate, weight_decay_mask)
    if weight_decay_rate is not None and keras and relative is not None:
        relative = relative_step_decayed(1e-3, *decays)
    elif weight_decay_rate is not None:
        decay = decay_by_rate(*decays) if torch or keras else add_decayed_weights(*decays[1:])
    size = (factored, decay_rate, decay_offset, min_dim_size_to_factor, eps)
    precondition = scale_by_factored_rms(*size, matrices=matrices)
    precondition = factored_rms_keras(decay_rate, eps, matrices) if keras else precondition
    precondition = factored_rms_torch(decay_rate, matrices) if torch else precondition
    clipped = None if clipping_threshold is None else clip_by_block_rms(clipping_threshold)
    averaged = None if momentum is None else ema(momentum, False, dtype_momentum)
    return chain(precondition, clipped, rate, relative, averaged, decay, scale(-1.0))


@transformation
def came(
    learning_rate: LearningRate = 2e-4, b1: Decay = 0.9, b2: Decay = 0.999, b3: Decay = 0.9999,
    eps1: Epsilon = 1e-30, eps2: Epsilon = 1e-16, clipping_threshold: Ceiling = 1.0,
    weight_decay: WeightDecay = 0.0, where: Where | None = None, *, min_dim_size_to_factor: int = 1,
    matrices: Matrices | None = None,
):  # fmt: skip
    """CAME: Adafactor with momentum, short steps where the momentum is not to be trusted.

        u = g / √V,  u ← u / max(1, rms(u) / d),  m ← β₁ m + (1 - β₁) u
        p ← p - α (m / √S + λ p),  S a factored average of (u - m)² + ε₂

    Memory: 4 bytes per parameter and 8 (i + j) for a matrix of i j.

    Source: Y. Luo et al., CAME (2023), algorithm 2.
    """
    size = {"min_dim_size_to_factor": min_dim_size_to_factor, "matrices": matrices}
    step = scale_by_came(b1, b2, b3, eps1, eps2, clipping_threshold, **size)
    return chain(step, *descent(learning_rate, weight_decay, where))


@transformation
def adam_mini(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-8,
    weight_decay: WeightDecay = 0.0, where: Where | None = None, *, blocks: Axes = (),
    matrices: Matrices | None = None,
):  # fmt: skip
    """Adam with one second moment for each block of parameters.

        m ← β₁ m + (1 - β₁) g,  v ← β₂ v + (1 - β₂) mean(g² over the block)
        p ← p - α (m̂ / (√v̂ + ε) + λ p)

    `blocks` names the axes that tell blocks apart: () makes a leaf one block, (0,) each row its
    own; with `matrices` they are axes of each matrix [rows, columns], (1,) for a block of each
    output. The paper has a block for each head of queries and keys, each output of other matrices,
    each token of embeddings: see `partition`.

    Memory: 4 bytes per parameter and 4 per block.

    Source: Y. Zhang et al., Adam-mini: Use Fewer Learning Rates To Gain More (2024), algorithm 1.
    """
    precondition = scale_by_block_rms(b2, eps, blocks=blocks, matrices=matrices)
    return chain(ema(b1), precondition, *descent(learning_rate, weight_decay, where))


@transformation
def galore(
    learning_rate: LearningRate, rank: int = 128, update_proj_gap: Count = 200, scale: Real = 1.0,
    base_optimizer: Inner | None = None, weight_decay: WeightDecay = 0.0, mask: Where | None = None,
    weight_dimension_numbers: Matrices | None = None, *, convention: str = "optax",
):  # fmt: skip
    """Adam on the gradients' projections onto their leading singular vectors.

        R = Pᵀ g,  P the first r left singular vectors of g, of every k-th step  (`scale_by_galore`)
        p ← p - α (s P adam(R) + λ p)

    Memory: for a matrix of i j parameters, i ≥ j: 8 r j bytes and 4 i r for P; with
    convention="paper" 8 i r and 4 j r.

    Source: J. Zhao et al., GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection
    (2024), algorithm 2.
    """
    how = (rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers)
    step = scale_by_galore(*how, convention=convention)
    return chain(step, *descent(learning_rate, weight_decay, mask))
