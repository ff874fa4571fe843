"""The Adam family beyond the textbook, with Optax's signatures and defaults.

Notation: g gradient, p parameter, α learning rate, β decays, ε epsilon, λ weight decay, t = 1, 2,
…, m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ). `mask` limits the decay: "**/kernel", a predicate f(path,
leaf), or a tree of booleans.
"""

from collections.abc import Callable
from typing import Any

from gradxform.core import WeightDecay, Where, chain, leafwise, only, transformation
from gradxform.core.hyper import Decay, Epsilon, LearningRate, Momentum, NonNegative, Positive
from gradxform.optimizers.products import (
    KERAS,
    descent,
    keras_only,
    nadam_parts,
    scale_by_adamax,
    scale_by_ademamix,
    scale_by_belief,
    scale_by_radam,
    scale_by_simplified_ademamix,
    scale_by_yogi,
)
from gradxform.rules.differences import fourth_root, scale_by_acprop, scale_by_adan, scale_by_adopt
from gradxform.rules.step_size import scale_by_learning_rate

__all__ = ["acprop", "adabelief", "adamaxw", "adan", "ademamix", "adopt", "nadamw", "radam"]
__all__ += ["simplified_ademamix", "yogi"]


@transformation(conventions=KERAS)
def nadamw(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0, mu_dtype=None, weight_decay: WeightDecay = 1e-4,
    mask: Where | None = None, *, convention: str = "optax",
):  # fmt: skip
    """Nadam with decoupled weight decay.

        u = [β₁ m / (1 - β₁ᵗ⁺¹) + (1 - β₁) g / (1 - β₁ᵗ)] / (√(v̂ + ε₀) + ε)
        p ← p - α (u + λ p)

    Conventions: "optax" as above; "torch" (its NAdam with decoupled_weight_decay), "keras" (ε =
    1e-7) and "paper" have the u of `nadam` with that convention. torch and Keras decay only when
    given a λ.

    Memory: 8 bytes per parameter (`mu_dtype` changes the first 4).

    Raises:
        ValueError: update() without params.

    Source: T. Dozat, Incorporating Nesterov Momentum into Adam (2016), without its momentum
    schedule; I. Loshchilov, F. Hutter (2019).
    """
    parts = nadam_parts(b1, b2, eps, eps_root, mu_dtype, convention)
    return chain(*parts, *descent(learning_rate, weight_decay, mask))


@transformation(conventions=KERAS | {"paper": {"eps": 0.0}})
def adamaxw(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-8,
    weight_decay: WeightDecay = 1e-4, mask: Where | None = None, *, convention: str = "optax",
):  # fmt: skip
    """AdaMax with decoupled weight decay.

        m ← β₁ m + (1 - β₁) g
        v ← max(β₂ v, |g| + ε),  p ← p - α (m̂ / v + λ p)            optax and torch; paper: ε = 0
        v ← max(β₂ v, |g|),      p ← p - α (m̂ / (v + ε) + λ p)      keras: ε = 1e-7

    Memory: 8 bytes per parameter.

    Raises:
        ValueError: update() without params.

    Source: D. P. Kingma, J. Ba, Adam (2015), algorithm 2; I. Loshchilov, F. Hutter, Decoupled
    Weight Decay Regularization (2019).
    """
    step = scale_by_adamax(b1, b2, eps, convention=keras_only(convention))
    return chain(step, *descent(learning_rate, weight_decay, mask))


@transformation
def adabelief(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-16,
    eps_root: Epsilon = 1e-16, *, nesterov: bool = False,
):  # fmt: skip
    """AdaBelief: Adam with the deviation of the gradient from its average in place of its square.

        m ← β₁ m + (1 - β₁) g
        s ← β₂ s + (1 - β₂) (g - m)² + ε₀
        p ← p - α m̂ / (√ŝ + ε)

    The paper, and so pytorch_optimizer, has one ε for both: `eps_root=eps`. `nesterov` looks ahead
    as `nadam` does.

    Memory: 8 bytes per parameter.

    Source: J. Zhuang et al., AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed
    Gradients (2020), algorithm 2.
    """
    step = scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov)
    return chain(step, scale_by_learning_rate(learning_rate))


@transformation(conventions=("optax", "paper"))
def yogi(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-3, *,
    convention: str = "optax",
):  # fmt: skip
    """Yogi: Adam whose second moment moves by at most (1 - β₂) g² per step.

        m ← β₁ m + (1 - β₁) g
        v ← v - (1 - β₂) sign(v - g²) g²
        p ← p - α m̂ / (√v̂ + ε)              optax: m and v start at 1e-6
        p ← p - α m / (√v + ε)              paper: they start at 0

    Memory: 8 bytes per parameter.

    Source: M. Zaheer et al., Adaptive Methods for Nonconvex Optimization (2018), algorithm 2.
    """
    return chain(scale_by_yogi(b1, b2, eps, convention=convention), *descent(learning_rate))


@transformation(conventions={"optax": {}, "torch": {}, "paper": {"eps": 0.0, "threshold": 4.0}})
def radam(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0, threshold: Positive = 5.0, *, nesterov: bool = False,
    convention: str = "optax",
):  # fmt: skip
    """RAdam: momentum at first, Adam as soon as its second moment has seen enough, rectified in
    between.

        ρₜ = ρ∞ - 2 t β₂ᵗ / (1 - β₂ᵗ),  ρ∞ = 2 / (1 - β₂) - 1
        p ← p - α r m̂ / (√(v̂ + ε₀) + ε)    where ρₜ ≥ threshold, r as in `scale_by_rectified_rms`
        p ← p - α m̂                        before

    Conventions: "torch" adds ε before it corrects v: r √(1 - β₂ᵗ) m̂ / (√v + ε); "paper" has ε = 0
    and the threshold 4.

    Memory: 8 bytes per parameter.

    Source: L. Liu et al., On the Variance of the Adaptive Learning Rate and Beyond (2020),
    algorithm 2.
    """
    how = {"nesterov": nesterov, "convention": "torch" if convention == "torch" else "optax"}
    step = scale_by_radam(b1, b2, eps, eps_root, threshold, **how)
    return chain(step, scale_by_learning_rate(learning_rate))


@transformation
def ademamix(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.999, b3: Decay = 0.9999,
    alpha: NonNegative = 5.0, eps: Epsilon = 1e-8, eps_root: Epsilon = 0.0, mu_dtype=None,
    weight_decay: WeightDecay = 0.0, mask: Where | None = None,
):  # fmt: skip
    """AdEMAMix: AdamW with a second, much slower average of the gradients.

        m₁ ← β₁ m₁ + (1 - β₁) g,  m₂ ← β₃ m₂ + (1 - β₃) g,  v ← β₂ v + (1 - β₂) g²
        p ← p - α_lr [(m̂₁ + α m₂) / (√(v̂ + ε₀) + ε) + λ p]

    The paper warms up α and β₃: `alpha=ademamix_alpha(5.0, total_steps)`, `b3=ademamix_b3(0.9999,
    0.9, total_steps)`.

    Memory: 12 bytes per parameter (`mu_dtype` changes the first 8).

    Raises:
        ValueError: update() without params.

    Source: M. Pagliardini, P. Ablin, D. Grangier, The AdEMAMix Optimizer: Better, Faster, Older
    (2024), algorithm 1.
    """
    step = scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype)
    return chain(step, *descent(learning_rate, weight_decay, mask))


@transformation
def simplified_ademamix(
    learning_rate: LearningRate, b1: Momentum = 0.99, b2: Decay = 0.95, alpha: NonNegative = 0.0,
    eps: Epsilon = 1e-8, eps_root: Epsilon = 0.0, weight_decay: WeightDecay = 0.0,
    mask: Where | None = None,
):  # fmt: skip
    """Simplified AdEMAMix: one heavy-ball sum, and the gradient itself, in place of two averages.

        m ← β₁ m + g,  v ← β₂ v + (1 - β₂) g²
        p ← p - α_lr [(m + α g) / (√(v̂ + ε₀) + ε) + λ p]

    m is a sum: its learning rate is about 1 - β₁ times AdEMAMix's.

    Memory: 8 bytes per parameter.

    Raises:
        ValueError: update() without params.

    Source: D. Morwani et al., Connections between Schedule-Free Optimizers, AdEMAMix, and
    Accelerated SGD (2025).
    """
    step = scale_by_simplified_ademamix(b1, b2, alpha, eps, eps_root)
    return chain(step, *descent(learning_rate, weight_decay, mask))


def _descend_proximally(u, at, *, learning_rate, weight_decay):
    """p ← (p - α u) / (1 + α λ)"""
    return -(learning_rate / (1 + learning_rate * weight_decay)) * (u + weight_decay * at.p)


@transformation(conventions={"optax": {}, "authors": {"eps_root": 0.0}, "paper": {"eps": 0.0}})
def adan(
    learning_rate: LearningRate, b1: Decay = 0.98, b2: Decay = 0.92, b3: Decay = 0.99,
    eps: Epsilon = 1e-8, eps_root: Epsilon = 1e-8, weight_decay: WeightDecay = 0.0,
    mask: Where | None = None, *, convention: str = "optax",
):  # fmt: skip
    """Adan: Adam with Nesterov's look-ahead, taken from the change of the gradient.

        d = g - g before,  m, v, n: averages of g, d and (g + κ d)²         d = 0 at the first step
        u = (m̂ + κ v̂) / (√(n̂ + ε₀) + ε)
        p ← p - α (u + λ p)                 optax: κ = 1 - β₂
        p ← (p - α u) / (1 + α λ)           authors (their code): κ = β₂, ε₀ = 0
        p ← (p - α u) / (1 + α λ)           paper: κ = β₂, ε = 0, m₁ = g₁, n₁ = g₁², no corrections

    β are the shares kept, the complements of the paper's.

    Memory: 16 bytes per parameter.

    Raises:
        ValueError: update() without params.

    Source: X. Xie et al., Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep
    Models (2022), algorithm 1.
    """
    step = scale_by_adan(b1, b2, b3, eps, eps_root, convention=convention)
    if convention == "optax":
        return chain(step, *descent(learning_rate, weight_decay, mask))
    numbers = {"learning_rate": learning_rate, "weight_decay": only(mask, weight_decay)}
    return chain(step, leafwise(_descend_proximally, **numbers))


@transformation(conventions=("optax", "pytorch_optimizer"))
def adopt(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.9999, eps: Epsilon = 1e-6,
    mu_dtype=None, *, nesterov: bool = False, use_clipping: bool = True,
    clip_value_fn: Callable[[Any], Any] = fourth_root, convention: str = "optax",
):  # fmt: skip
    """ADOPT: Adam that divides each gradient by the second moment of those before it, then
    averages; any β₂ converges.

        m ← β₁ m + (1 - β₁) clip(g / max(√v, ε), ±c(t - 1)),  p ← p - α m
        v ← β₂ v + (1 - β₂) g²

    The first step only sets v = g². c is `clip_value_fn`, t^(1/4); convention "pytorch_optimizer"
    has c(t).

    Memory: 8 bytes per parameter (`mu_dtype` changes the first 4).

    Source: S. Taniguchi et al., ADOPT: Modified Adam Can Converge with Any β₂ with the Optimal Rate
    (2024), algorithm 2.
    """
    options = {"nesterov": nesterov, "use_clipping": use_clipping, "clip_value_fn": clip_value_fn}
    step = scale_by_adopt(b1, b2, eps, mu_dtype, convention=convention, **options)
    return chain(step, scale_by_learning_rate(learning_rate))


@transformation(conventions=("optax", "authors"))
def acprop(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-16,
    eps_root: Epsilon = 1e-16, weight_decay: WeightDecay = 0.0, mask: Where | None = None, *,
    convention: str = "optax",
):  # fmt: skip
    """ACProp: divide each gradient by the deviation of the gradients before it from their average.

        p ← p - α [g / (√ŝ + ε) + λ p]           ŝ of the step before; at the first step g / (1 + ε)
        s ← β₂ s + (1 - β₂) (g - m)² + ε₀        optax: m of the step before; authors: the new m
        m ← β₁ m + (1 - β₁) g

    Memory: 8 bytes per parameter.

    Raises:
        ValueError: update() without params.

    Source: J. Zhuang et al., Momentum Centering and Asynchronous Update for Adaptive Gradient
    Methods (2021), algorithm 2.
    """
    step = scale_by_acprop(b1, b2, eps, eps_root, convention=convention)
    return chain(step, *descent(learning_rate, weight_decay, mask))
