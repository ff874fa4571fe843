"""Optimizers with one scale for a whole leaf, for large batches and for little memory.

Notation: g gradient, p parameter, α learning rate, β decays, ε epsilon, λ weight decay, ‖·‖ over
one leaf; every optimizer ends in p ← p - α u, unless its equation says otherwise.
"""

from gradxform.core import Where, chain, leafwise, only, transformation
from gradxform.core.hyper import Decay, Epsilon, LearningRate, Momentum, NonNegative, WeightDecay
from gradxform.matrices.declaration import Matrices
from gradxform.matrices.lifted import on_matrices
from gradxform.optimizers.products import adam_parts, descent
from gradxform.rules import scale_by_novograd, scale_by_sm3, scale_by_trust_ratio
from gradxform.rules.directions import correct_bias
from gradxform.rules.directions import momentum as heavy_ball
from gradxform.rules.layerwise import _fromage, _lamb_keras, _lars_ratio, _trust_ratio_where
from gradxform.rules.step_size import scale_by_learning_rate
from gradxform.rules.weight_decay import add_decayed_weights

__all__ = ["fromage", "lamb", "lars", "novograd", "sm3"]


@transformation(conventions={"optax": {}, "pytorch_optimizer": {}, "keras": {"eps": 1e-7}})
def lamb(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-6,
    eps_root: Epsilon = 0.0, weight_decay: WeightDecay = 0.0, mask: Where | None = None, *,
    convention: str = "optax",
):  # fmt: skip
    """LAMB: AdamW whose step has, on each leaf, the length of the parameter times the learning
    rate.

        r = m̂ / (√(v̂ + ε₀) + ε) + λ p                 m, v as in `adam`
        p ← p - α r ‖p‖ / ‖r‖

    Conventions: "optax", as the paper with φ(z) = z. "pytorch_optimizer" has m and v in r, without
    corrections, φ(z) = min(z, 10), ε added to ‖r‖, and a learning rate of α / (1 - β₁ᵗ). "keras" (ε
    = 1e-7) decays before it measures: p ← p - α λ p, then p ← p - α r ‖p‖ / ‖r‖ with no λ p in r.

    Memory: 8 bytes per parameter.

    Raises:
        ValueError: update() without params.

    Source: Y. You et al., Large Batch Optimization for Deep Learning: Training BERT in 76 minutes
    (2020), algorithm 2.
    """
    if convention == "keras":
        numbers = {"learning_rate": learning_rate, "weight_decay": only(mask, weight_decay)}
        last = leafwise(_lamb_keras, name="scale_by_trust_ratio", **numbers)
        return chain(*adam_parts(b1, b2, eps, eps_root), last)
    parts = adam_parts(b1, b2, eps, eps_root, corrected=convention == "optax")
    parts += (add_decayed_weights(weight_decay, mask),)
    if convention == "optax":
        return chain(*parts, scale_by_trust_ratio(), *descent(learning_rate))
    ratio = scale_by_trust_ratio(eps=eps, max_norm=10.0)
    return chain(*parts, ratio, correct_bias(b1), *descent(learning_rate))


@transformation(conventions=("optax", "paper"))
def lars(
    learning_rate: LearningRate, weight_decay: WeightDecay = 0.0,
    weight_decay_mask: Where | None = None, trust_coefficient: NonNegative = 0.001,
    eps: Epsilon = 0.0, trust_ratio_mask: Where | None = None, momentum: Momentum = 0.9,
    nesterov: bool = False, *, convention: str = "optax",
):  # fmt: skip
    """LARS: momentum on gradients that have, on each leaf, a length in proportion to the
    parameter's.

        u = η ‖p‖ / (‖g + λ p‖ + ε) · (g + λ p)           optax
        u = η ‖p‖ / (‖g‖ + λ ‖p‖ + ε) · (g + λ p)         paper
        w ← μ w - α u,  p ← p + w

    η = `trust_coefficient`. The masks say where decay and ratio apply, everywhere for None; where
    the ratio does not, it is 1. pytorch_optimizer's is "paper" with the ratio for matrices only,
    and multiplies by α after the momentum.

    Memory: 4 bytes per parameter.

    Raises:
        ValueError: update() without params.

    Source: Y. You, I. Gitman, B. Ginsburg, Large Batch Training of Convolutional Networks (2017),
    algorithm 1.
    """
    applies = only(trust_ratio_mask, 1.0)
    numbers = {"selected": applies, "trust_coefficient": trust_coefficient, "eps": eps}
    if convention == "paper":
        numbers["weight_decay"] = only(weight_decay_mask, weight_decay)
        decay, rule = None, _lars_ratio
    else:
        decay, rule = add_decayed_weights(weight_decay, weight_decay_mask), _trust_ratio_where
    ratio = leafwise(rule, name="scale_by_trust_ratio", **numbers)
    velocity = heavy_ball(momentum, nesterov=nesterov)
    return chain(decay, ratio, scale_by_learning_rate(learning_rate), velocity)


@transformation
def fromage(learning_rate: LearningRate, min_norm: NonNegative = 1e-6):
    """Fromage: steps of the parameter's own length, on a sphere that they do not leave.

        p ← [p - α g max(‖p‖, n) / max(‖g‖, n)] / √(1 + α²)    n = `min_norm`

    The paper and pytorch_optimizer have n = 0.

    Memory: none.

    Raises:
        ValueError: update() without params.

    Source: J. Bernstein et al., On the distance between two neural networks and the stability of
    learning (2020), algorithm 1.
    """
    return chain(scale_by_trust_ratio(min_norm), leafwise(_fromage, learning_rate=learning_rate))


@transformation
def novograd(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.25, eps: Epsilon = 1e-6,
    eps_root: Epsilon = 0.0, weight_decay: WeightDecay = 0.0,
):  # fmt: skip
    """NovoGrad: momentum on gradients that are divided, leaf by leaf, by an average of their norm.

        v ← β₂ v + (1 - β₂) ‖g‖²,  v₁ = ‖g₁‖²
        m ← β₁ m + g / (√(v + ε₀) + ε) + λ p
        p ← p - α m

    Memory: 4 bytes per parameter, and one scalar per leaf.

    Raises:
        ValueError: update() without params.

    Source: B. Ginsburg et al., Stochastic Gradient Methods with Layer-wise Adaptive Moments (2019),
    algorithm 1; there, and in pytorch_optimizer, β₁ = 0.95 and β₂ = 0.98.
    """
    step = scale_by_novograd(b1, b2, eps, eps_root, weight_decay)
    return chain(step, scale_by_learning_rate(learning_rate))


@transformation
def sm3(
    learning_rate: LearningRate, momentum: Decay = 0.9, *, matrices: Matrices | None = None
):  # fmt: skip
    """SM3: Adagrad in the memory of rows and columns, and momentum.

        v(i) = min over the axes r of μᵣ(iᵣ) + g(i)²,  μᵣ(j) ← max of v(i) over the i with iᵣ = j
        m ← β m + (1 - β) g / √(v + 1e-8)
        p ← p - α m                                 another ε than Optax's 1e-8: `scale_by_sm3`

    The axes r are all axes of a parameter; with `matrices` the rows and the columns that these
    declare, of each matrix by itself.

    Memory: 4 bytes per parameter for m, and 4 bytes per row, column, ….

    Source: R. Anil et al., Memory-Efficient Adaptive Optimization (2019), algorithm SM3-II.
    """
    step = on_matrices(scale_by_sm3(momentum), matrices, scale_by_sm3(momentum))
    return chain(step, scale_by_learning_rate(learning_rate))
