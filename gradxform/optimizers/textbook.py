"""The methods of the textbook: each a composition of a few lines under its equation.

Notation: g gradient, p parameter, α learning rate, β decays, ε epsilon, t = 1, 2, …; every
optimizer ends in p ← p - α u, unless its equation says otherwise. Numbers may be schedules or
tables by path. Where Optax has the name, signature and defaults are Optax's; `convention` gives the
others: "torch" (2.13), "keras" (3) and "paper", where they differ from it.
"""

from gradxform.core import WeightDecay, Where, chain, transformation
from gradxform.core.hyper import Decay, DType, Epsilon, LearningRate, Momentum, NonNegative
from gradxform.optimizers.products import KERAS, SAME, adam_parts, descent, keras_only, nadam_parts
from gradxform.rules import ema, scale_by_adadelta, scale_by_inf_norm, scale_by_stddev
from gradxform.rules.directions import momentum as heavy_ball
from gradxform.rules.preconditioners import scale_by_rms, scale_by_rms_max, scale_by_rss
from gradxform.rules.step_size import scale_by_learning_rate
from gradxform.rules.weight_decay import add_decayed_weights

__all__ = ["adadelta", "adagrad", "adam", "adam_l2", "adam_uncorrected", "adamax", "adamw"]
__all__ += ["amsgrad", "nadam", "rmsprop", "sgd"]

_FROM_ZERO = {"initial_accumulator_value": 0.0}
_ADADELTA = {"paper": {"rho": 0.95}, "keras": {"learning_rate": 1e-3, "rho": 0.95, "eps": 1e-7}}
_RMSPROP = {"torch": {"decay": 0.99, "eps_in_sqrt": False}, "paper": {"eps": 0.0}}
_ADAMW = {"torch": {"weight_decay": 1e-2}, "keras": {"weight_decay": 4e-3, "eps": 1e-7}}
_UNCORRECTED = {"bias_correction_mu": False, "bias_correction_nu": False, "eps": 0.0}


@transformation(conventions=SAME)
def sgd(
    learning_rate: LearningRate, momentum: Momentum | None = None, nesterov: bool = False,
    accumulator_dtype: DType | None = None, *, convention: str = "optax",
):  # fmt: skip
    """Stochastic gradient descent, with heavy-ball or Nesterov momentum.

        p ← p - α g                                 momentum=None
        v ← β v + g,  p ← p - α v                   momentum=β
        v ← β v + g,  p ← p - α (g + β v)           nesterov=True

    Conventions: "optax" and "torch" as above; "keras" and "paper" have the learning rate inside the
    velocity, v ← β v + α g, which differs when it changes. torch's dampening is an argument of
    `momentum`.

    Memory: none; 4 bytes per parameter with momentum.

    Raises:
        ValueError: a number out of range, nesterov without momentum.

    Source: H. Robbins, S. Monro (1951); B. T. Polyak (1964); Y. Nesterov (1983).
    """
    if nesterov and momentum is None:
        raise ValueError("sgd: nesterov=True needs a momentum")
    descend, velocity = scale_by_learning_rate(learning_rate), None
    if momentum is not None:
        velocity = heavy_ball(momentum, nesterov=nesterov, accumulator_dtype=accumulator_dtype)
    inside = convention in ("keras", "paper")
    return chain(descend, velocity) if inside else chain(velocity, descend)


@transformation(
    conventions=SAME | {"torch": _FROM_ZERO | {"eps": 1e-10}, "paper": _FROM_ZERO | {"eps": 0.0}}
)
def adagrad(
    learning_rate: LearningRate, initial_accumulator_value: NonNegative = 0.1, eps: Epsilon = 1e-7,
    *, convention: str = "optax",
):  # fmt: skip
    """Adagrad: divide by the root of the sum of all squared gradients.

        v ← v + g²
        p ← p - α g / √(v + ε)        optax and keras: v starts at 0.1, ε = 1e-7
        p ← p - α g / (√v + ε)        torch: v starts at 0, ε = 1e-10; the paper: ε = 0

    Memory: 4 bytes per parameter.

    Source: J. Duchi, E. Hazan, Y. Singer, Adaptive Subgradient Methods (2011), figure 1 (diagonal).
    """
    inside = convention in ("optax", "keras")
    precondition = scale_by_rss(initial_accumulator_value, eps, eps_in_sqrt=inside)
    return chain(precondition, scale_by_learning_rate(learning_rate))


@transformation(conventions=SAME | _ADADELTA)
def adadelta(
    learning_rate: LearningRate = 1.0, rho: Decay = 0.9, eps: Epsilon = 1e-6,
    weight_decay: WeightDecay = 0.0, weight_decay_mask: Where | None = None, *,
    convention: str = "optax",
):  # fmt: skip
    """Adadelta: steps in the parameter's own units, from the RMS of past steps over the RMS of
    gradients.

        g ← g + λ p
        E[g²] ← ρ E[g²] + (1 - ρ) g²
        Δ = g √(E[Δ²] + ε) / √(E[g²] + ε)
        E[Δ²] ← ρ E[Δ²] + (1 - ρ) Δ²
        p ← p - α Δ

    Conventions: defaults only. "optax" and "torch" have α = 1, ρ = 0.9, ε = 1e-6, "paper" ρ = 0.95,
    "keras" α = 0.001, ρ = 0.95, ε = 1e-7.

    Memory: 8 bytes per parameter.

    Source: M. D. Zeiler, ADADELTA (2012), algorithm 1.
    """
    decay = add_decayed_weights(weight_decay, weight_decay_mask)
    return chain(decay, scale_by_adadelta(rho, eps), scale_by_learning_rate(learning_rate))


@transformation(conventions=KERAS | _RMSPROP)
def rmsprop(
    learning_rate: LearningRate, decay: Decay = 0.9, eps: Epsilon = 1e-8,
    initial_scale: NonNegative = 0.0, eps_in_sqrt: bool = True, centered: bool = False,
    momentum: Momentum | None = None, nesterov: bool = False, bias_correction: bool = False, *,
    convention: str = "optax",
):  # fmt: skip
    """RMSprop: divide by the root of an average of squared gradients.

        v ← β v + (1 - β) g²
        u = g / √(v + ε)                    eps_in_sqrt; otherwise g / (√v + ε)
        u = g / √(v - m² + ε)               centered, m ← β m + (1 - β) g
        w ← μ w - α u,  p ← p + w           momentum=μ

    Conventions: "optax" as above, the learning rate inside the momentum; "torch" has decay 0.99, ε
    outside the root, and multiplies by the learning rate after the momentum (they differ when the
    learning rate changes); "keras" has ε = 1e-7, "paper" (the lecture) none.

    Memory: 4 bytes per parameter, 4 more for `centered`, 4 more for `momentum`.

    Source: T. Tieleman, G. Hinton, Lecture 6.5 of Neural Networks for Machine Learning (2012);
    centred: A. Graves (2013).
    """
    if nesterov and momentum is None:
        raise ValueError("rmsprop: nesterov=True needs a momentum")
    precondition = scale_by_stddev if centered else scale_by_rms
    velocity = None if momentum is None else heavy_ball(momentum, nesterov=nesterov)
    descend = scale_by_learning_rate(learning_rate)
    last = (velocity, descend) if convention == "torch" else (descend, velocity)
    return chain(precondition(decay, eps, initial_scale, eps_in_sqrt, bias_correction), *last)


@transformation(conventions=KERAS)
def adam(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0, mu_dtype: DType | None = None, *, nesterov: bool = False,
    bias_correction: bool = True, convention: str = "optax",
):  # fmt: skip
    """Adam: an averaged gradient over the root of an averaged squared gradient.

        m ← β₁ m + (1 - β₁) g
        v ← β₂ v + (1 - β₂) g²
        p ← p - α m̂ / (√(v̂ + ε₀) + ε),  m̂ = m / (1 - β₁ᵗ),  v̂ = v / (1 - β₂ᵗ)

    Without `bias_correction` m̂ = m and v̂ = v: RMS scaling composed with momentum.

    Conventions: "optax", "torch" and "paper" as above; "keras" has ε = 1e-7 and leaves it
    uncorrected, as the end of the paper's section 2: p ← p - α √(1 - β₂ᵗ) m̂ / (√(v + ε₀) + ε).

    Memory: 8 bytes per parameter (`mu_dtype` changes the first 4).

    >>> tx, params = gx.adam(1e-3), jnp.zeros(2)
    >>> updates, state = tx.update(jnp.array([5.0, -0.2]), tx.init(params), params)
    >>> updates.round(6)  # the first step is as long as the learning rate, whatever the gradient
    Array([-0.001,  0.001], dtype=float32)

    Raises:
        ValueError: "adam: b1 must lie in [0, 1]; got 1.5".

    Source: D. P. Kingma, J. Ba, Adam: A Method for Stochastic Optimization (2015), algorithm 1.

    Not: decoupled weight decay (`adamw`).
    """
    how = {"nesterov": nesterov, "corrected": bias_correction, "convention": convention}
    return chain(*adam_parts(b1, b2, eps, eps_root, mu_dtype, **how), *descent(learning_rate))


@transformation
def adam_uncorrected(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-8
):
    """Adam without bias correction, as the lecture composes it: momentum, then RMS scaling of the
    same gradient.

        m ← β₁ m + (1 - β₁) g
        v ← β₂ v + (1 - β₂) g²
        p ← p - α m / √(v + ε)

    Memory: 8 bytes per parameter.

    Source: D. P. Kingma, J. Ba (2015), without section 3.
    """
    return chain(ema(b1, debias=False), scale_by_rms(b2, eps), *descent(learning_rate))


@transformation(conventions=SAME | _ADAMW)
def adamw(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0, mu_dtype: DType | None = None, weight_decay: WeightDecay = 1e-4,
    mask: Where | None = None, *, nesterov: bool = False, convention: str = "optax",
):  # fmt: skip
    """Adam with decoupled weight decay.

        u = m̂ / (√(v̂ + ε₀) + ε)          as in `adam`
        p ← p - α (u + λ p)

    `mask` limits the decay: "**/kernel", a predicate f(path, leaf), or a tree of booleans.

    Conventions: "optax" has λ = 1e-4, "torch" 0.01, "keras" 0.004 and u as in
    `adam(convention="keras")`. "paper" decays independently of α: p ← p - α u - λ p, where λ =
    `weight_decay` may be a schedule, the paper's ηₜ λ.

    Memory: 8 bytes per parameter.

    Raises:
        ValueError: update() without params.

    Source: I. Loshchilov, F. Hutter, Decoupled Weight Decay Regularization (2019), algorithm 2.

    Not: Adam with L2 (`adam_l2`), whose decay passes through the preconditioner.
    """
    parts = adam_parts(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, convention=convention)
    if convention == "paper":
        decay = add_decayed_weights(weight_decay, mask, kind="independent")
        return chain(*parts, *descent(learning_rate), decay)
    return chain(*parts, *descent(learning_rate, weight_decay, mask))


@transformation
def adam_l2(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-8,
    l2: WeightDecay = 1e-4, where: Where | None = None,
):  # fmt: skip
    """Adam on a loss with L2 regularisation: the decay enters the gradient, and so the averages.

        g ← g + λ p
        then `adam`

    torch's `Adam(weight_decay=λ)`; Keras' is `adamw`.

    Memory: 8 bytes per parameter.

    Raises:
        ValueError: update() without params.

    Source: I. Loshchilov, F. Hutter, Decoupled Weight Decay Regularization (2019), algorithm 2, the
    other branch.
    """
    return chain(add_decayed_weights(l2, where), adam(learning_rate, b1, b2, eps))


@transformation(conventions=KERAS)
def nadam(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0, mu_dtype: DType | None = None, *, convention: str = "optax",
):  # fmt: skip
    """Adam with Nesterov momentum.

        u = [β₁ m / (1 - β₁ᵗ⁺¹) + (1 - β₁) g / (1 - β₁ᵗ)] / (√(v̂ + ε₀) + ε)    optax
        u = [μₜ₊₁ m / (1 - Πₜ₊₁) + (1 - μₜ) g / (1 - Πₜ)] / (√(v̂ + ε₀) + ε)    torch, keras, paper

    with m, v̂ as in `adam`, μₜ = β₁ (1 - 0.96^(ψt) / 2), Πₜ = μ₁ ⋯ μₜ; ψ = 0.004, in Keras 1 (and ε
    = 1e-7). The paper also has m ← μₜ m + (1 - μₜ) g, and β₂ v̂ in place of v̂.

    Memory: 8 bytes per parameter.

    Source: T. Dozat, Incorporating Nesterov Momentum into Adam (2016), algorithm 2; "optax" is
    without its momentum schedule.
    """
    parts = nadam_parts(b1, b2, eps, eps_root, mu_dtype, convention)
    return chain(*parts, *descent(learning_rate))


@transformation(conventions=KERAS | {"paper": {"eps": 0.0}})
def adamax(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-8, *,
    convention: str = "optax",
):  # fmt: skip
    """AdaMax: Adam with the infinity norm.

        m ← β₁ m + (1 - β₁) g
        v ← max(β₂ v, |g| + ε),  p ← p - α m / ((1 - β₁ᵗ) v)          optax and torch; paper: ε = 0
        v ← max(β₂ v, |g|),      p ← p - α m / ((1 - β₁ᵗ) (v + ε))    keras: ε = 1e-7

    Memory: 8 bytes per parameter.

    Source: D. P. Kingma, J. Ba, Adam (2015), algorithm 2.
    """
    precondition = scale_by_inf_norm(b2, eps, convention=keras_only(convention))
    return chain(ema(b1), precondition, scale_by_learning_rate(learning_rate))


@transformation(conventions=KERAS | {"paper": _UNCORRECTED})
def amsgrad(
    learning_rate: LearningRate, b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0, mu_dtype: DType | None = None, bias_correction_mu: bool = True,
    bias_correction_nu: bool = True, *, convention: str = "optax",
):  # fmt: skip
    """AMSGrad: Adam whose second moment never falls.

        m̂, v as in `adam`
        w ← max(w, v̂)                     optax: the maximum of corrected averages;
        p ← p - α m̂ / (√(w + ε₀) + ε)     the flags leave m or v as is
        w ← max(w, v)                     torch, keras: corrected after the maximum; keras: ε = 1e-7
        p ← p - α m / √w                  paper: no correction, ε = 0

    Memory: 12 bytes per parameter.

    Source: S. J. Reddi, S. Kale, S. Kumar, On the Convergence of Adam and Beyond (2018), algorithm
    2.
    """
    if convention in ("torch", "keras") and not (bias_correction_mu and bias_correction_nu):
        raise ValueError(f"amsgrad: the {convention!r} convention corrects both averages")
    if convention == "optax" and not bias_correction_nu:
        convention = "paper"
    maximum = scale_by_rms_max(b2, eps, eps_root, convention=convention)
    return chain(ema(b1, bias_correction_mu, mu_dtype), maximum, *descent(learning_rate))
