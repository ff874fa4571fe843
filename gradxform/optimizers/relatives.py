"""Relatives of Adam that change one of its parts: order, share of the gradient, power, quotient,
length.

Notation: g gradient, p parameter, α learning rate, β decays, ε epsilon, λ weight decay, t = 1, 2,
…, m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ). `where` limits the decay: "**/kernel", a predicate
f(path, leaf), or a tree of booleans.
"""

from gradxform.core import Where, chain, leafwise, only, transformation
from gradxform.core.hyper import Decay, Epsilon, Fraction, LearningRate, Positive, WeightDecay
from gradxform.optimizers.products import adam_rms, descent
from gradxform.rules import ema, quasi_hyperbolic, scale_by_atan2, scale_by_clipped_rms
from gradxform.rules.rms_variants import scale_by_quasi_hyperbolic_rms, scale_by_rms_power

__all__ = ["adam_atan2", "laprop", "padam", "qhadam", "stable_adamw"]


def _decay_after(u, at, *, learning_rate, weight_decay):
    """p ← (1 - α λ) (p - α u)"""
    step = learning_rate * u
    return -(step + learning_rate * weight_decay * (at.p - step))


@transformation(conventions=("paper", "pytorch_optimizer"))
def laprop(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-15,
    weight_decay: WeightDecay = 0.0, where: Where | None = None, *, convention: str = "paper",
):  # fmt: skip
    """LaProp: Adam in the other order, the average is taken of gradients that were divided already.

        v ← β₂ v + (1 - β₂) g²
        m ← β₁ m + (1 - β₁) g / (√v̂ + ε)                   paper
        p ← p - α (m̂ + λ p)                                paper
        m ← β₁ m + (1 - β₁) g √(1 - β₂ᵗ) / (√v + ε)         pytorch_optimizer
        p ← (1 - α λ) (p - α m̂)                            pytorch_optimizer

    With momentum after the division, b1 and b2 may be chosen apart.

    Conventions: "pytorch_optimizer" leaves ε uncorrected, and decays after the step. It also has
    1e-15 inside the root.

    Memory: 8 bytes per parameter.

    Raises:
        ValueError: update() without params.

    Source: L. Ziyin, Z. T. Wang, M. Ueda, LaProp: Separating Momentum and Adaptivity in Adam
    (2020), algorithm 1.
    """
    if convention == "pytorch_optimizer":
        numbers = {"learning_rate": learning_rate, "weight_decay": only(where, weight_decay)}
        precondition = adam_rms(b2, eps, convention="keras")
        return chain(precondition, ema(b1), leafwise(_decay_after, **numbers))
    return chain(adam_rms(b2, eps), ema(b1), *descent(learning_rate, weight_decay, where))


@transformation
def qhadam(
    learning_rate: LearningRate, b1: Decay = 0.995, b2: Decay = 0.999, nu1: Fraction = 0.7,
    nu2: Fraction = 1.0, eps: Epsilon = 1e-8, weight_decay: WeightDecay = 0.0,
    where: Where | None = None,
):  # fmt: skip
    """QHAdam: Adam whose two averages are mixed with the gradient and its square.

        p ← p - α [((1 - ν₁) g + ν₁ m̂) / (√((1 - ν₂) g² + ν₂ v̂) + ε) + λ p]

    ν₁ = ν₂ = 1 is Adam, ν₁ = β₁ is nearly Nadam, ν₁ = 0 is RMSprop. The defaults are those the
    paper recommends.

    Memory: 8 bytes per parameter.

    Raises:
        ValueError: update() without params.

    Source: J. Ma, D. Yarats, Quasi-hyperbolic momentum and Adam for deep learning (2019), section
    4.
    """
    parts = quasi_hyperbolic(b1, nu1, True), scale_by_quasi_hyperbolic_rms(b2, nu2, eps)
    return chain(*parts, *descent(learning_rate, weight_decay, where))


@transformation(conventions={"paper": {}, "pytorch_optimizer": {"power": 0.25, "eps": 1e-8}})
def padam(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.999, power: Fraction = 0.125,
    eps: Epsilon = 0.0, weight_decay: WeightDecay = 0.0, where: Where | None = None, *,
    convention: str = "paper",
):  # fmt: skip
    """Padam: AMSGrad with a smaller power than one half, on the way from AMSGrad to momentum.

        m ← β₁ m + (1 - β₁) g,  v ← β₂ v + (1 - β₂) g²,  w ← max(w, v)
        p ← p - α [m / (√w + ε)²ᵖ + λ p]                       paper; there λ = 0
        p ← p - α [m̂ √(1 - β₂ᵗ) / (√v + ε)²ᵖ + λ p]            pytorch_optimizer: p = 1/4, ε = 1e-8

    p = `power`: 1/2 is AMSGrad, 0 is momentum.

    Memory: 12 bytes per parameter.

    Raises:
        ValueError: update() without params.

    Source: J. Chen et al., Closing the Generalization Gap of Adaptive Gradient Methods in Training
    DNNs (2018), algorithm 1.
    """
    precondition = scale_by_rms_power(b2, power, eps, convention=convention)
    averaged = ema(b1, convention != "paper")
    return chain(averaged, precondition, *descent(learning_rate, weight_decay, where))


@transformation
def adam_atan2(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.999, a: Positive = 1.27,
    b: Positive = 1.0, weight_decay: WeightDecay = 0.0, where: Where | None = None,
):  # fmt: skip
    """Adam-atan2: Adam without ε, whose every step is bounded and does not change when the loss is
    scaled.

        p ← p - α [a atan2(m̂, b √v̂) + λ p]

    Memory: 8 bytes per parameter.

    Raises:
        ValueError: update() without params.

    Source: K. Everett et al., Scaling Exponents Across Parameterizations and Optimizers (2024),
    appendix.
    """
    return chain(ema(b1), scale_by_atan2(b2, a, b), *descent(learning_rate, weight_decay, where))


@transformation
def stable_adamw(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.99, eps: Epsilon = 1e-8,
    weight_decay: WeightDecay = 0.01, where: Where | None = None,
):  # fmt: skip
    """StableAdamW: AdamW with Adafactor's clipping, in place of clipping the gradient's norm.

        R = √mean(g² / max(v̂, ε²))                              over the leaf
        p ← p - α [m̂ / (√v̂ + ε) + λ p] / max(1, R)

    Memory: 8 bytes per parameter.

    Raises:
        ValueError: update() without params.

    Source: M. Wortsman et al., Stable and low-precision training for large-scale vision-language
    models (2023), algorithm 2.
    """
    precondition = scale_by_clipped_rms(b2, eps, only(where, weight_decay))
    return chain(ema(b1), precondition, *descent(learning_rate))
