"""Optimizers that find their own step size, from the loss, the distance come, or bets; averages and
curvature beside them.

Their learning rate is a factor, 1 unless a schedule makes it fall.
"""

from typing import Literal

import jax.numpy as jnp

from gradxform.core import Positive, Real, Steps, WeightDecay, Where, at_step, schedule
from gradxform.core.chain import Inner, chain, transformation
from gradxform.core.hyper import (
    Count,
    Decay,
    DType,
    Epsilon,
    Fading,
    LearningRate,
    Momentum,
    NonNegative,
)
from gradxform.optimizers.products import adam_parts, adam_rms, descent
from gradxform.rules.coin_betting import scale_by_cocob
from gradxform.rules.distance import FirstStep, scale_by_dog, scale_by_dowg
from gradxform.rules.dual_averaging import reduce_variance, scale_by_asgd, scale_by_madgrad
from gradxform.rules.polyak import scale_by_polyak
from gradxform.rules.step_size import scale_by_learning_rate
from gradxform.rules.weight_decay import add_decayed_weights
from gradxform.wrappers.schedule_free import (
    Power,
    Share,
    _ahead,
    _averaged,
    _primal_decaying_z,
    _primal_keras,
)
from gradxform.wrappers.sophia import scale_by_sophia

__all__ = ["asgd", "cocob", "dog", "dowg", "madgrad", "mars", "polyak_sgd", "schedule_free_adamw"]
__all__ += ["schedule_free_sgd", "sophia"]


@transformation(conventions=("optax", "paper"))
def polyak_sgd(
    max_learning_rate: NonNegative = 1.0, scaling: LearningRate = 1.0, f_min: Real = 0.0,
    eps: Epsilon = 0.0, variant: Literal["sps", "sps+"] = "sps", *, convention: str = "optax",
):  # fmt: skip
    """Gradient descent with Polyak's step size, at most γ.

        p ← p - σ g min((f - f*) / (σ² ‖g‖² + ε), γ)        σ = `scaling`
        p ← p - σ g min((f - f*) / (‖g‖² + ε), γ)           convention="paper"

    f is the loss, `update(..., value=loss)`; f* = `f_min`, γ = `max_learning_rate`. "optax" scales
    the gradient before it is measured, so that σ takes its own effect back below γ; with σ = 1 the
    two agree.

    Memory: none.

    Raises:
        TypeError: update() without `value`.

    Source: N. Loizou et al., Stochastic Polyak Step-size for SGD (2021), equation 3; G. Garrigos et
    al. (2023), variant="sps+".
    """
    step = scale_by_polyak(f_min, max_learning_rate, eps, variant)
    rate = scale_by_learning_rate(scaling)
    return chain(rate, step) if convention == "optax" else chain(step, rate)


@transformation
def dog(
    learning_rate: LearningRate = 1.0, init_step: FirstStep = ("heuristic", 1e-6),
    eps: Epsilon = 1e-8, weight_decay: WeightDecay | None = None, mask: Where | None = None,
):  # fmt: skip
    """Distance over gradients: the step is the distance come over the root of the squared gradients
    so far.

        g ← g + λ p
        r ← max(r, ‖p - p₀‖),  G ← G + ‖g‖²
        p ← p - α g r / √(G + ε)

    `init_step`: ("distance", r₀), ("heuristic", a) for r₀ = a (1 + ‖p₀‖), or ("learning_rate", η)
    for the first step.

    Memory: 4 bytes per parameter and two scalars.

    Source: M. Ivgi, O. Hinder, Y. Carmon, DoG is SGD's Best Friend (2023), equation 1. They
    evaluate an average of the parameters.
    """
    decay = None if weight_decay is None else add_decayed_weights(weight_decay, mask)
    return chain(decay, scale_by_dog(init_step, eps), scale_by_learning_rate(learning_rate))


@transformation
def dowg(
    learning_rate: LearningRate = 1.0, init_estim_sq_dist: NonNegative | None = None,
    eps: Epsilon = 1e-4, weight_decay: WeightDecay | None = None, mask: Where | None = None,
):  # fmt: skip
    """Distance over weighted gradients: as `dog`, with later gradients, from farther away, counting
    more.

        g ← g + λ p
        r² ← max(r², ‖p - p₀‖²),  V ← V + r² ‖g‖²
        p ← p - α g r² / (√V + ε)

    Memory: 4 bytes per parameter and two scalars.

    Source: A. Khaled, K. Mishchenko, C. Jin, DoWG Unleashed (2023), algorithm 1.
    """
    decay = None if weight_decay is None else add_decayed_weights(weight_decay, mask)
    return chain(decay, scale_by_dowg(init_estim_sq_dist, eps), *descent(learning_rate))


@transformation
def cocob(
    learning_rate: LearningRate = 1.0, alpha: NonNegative = 100.0, eps: Epsilon = 1e-8,
    weight_decay: WeightDecay = 0.0, mask: Where | None = None,
):  # fmt: skip
    """Coin betting on each coordinate: no learning rate at all.

        g ← α₀ (g + λ p),  then `scale_by_cocob`; α₀ = `learning_rate`

    Memory: 20 bytes per parameter.

    Source: F. Orabona, T. Tommasi, Training Deep Networks without Learning Rates Through Coin
    Betting (2017), algorithm 2.
    """
    rate = scale_by_learning_rate(learning_rate, flip_sign=False)
    return chain(add_decayed_weights(weight_decay, mask), rate, scale_by_cocob(alpha, eps))


@transformation
def madgrad(
    learning_rate: LearningRate, momentum: Momentum = 0.9, weight_decay: WeightDecay = 0.0,
    eps: Epsilon = 1e-6,
):  # fmt: skip
    """MADGRAD: dual averaging with cube roots and momentum.

        g ← g + w p
        λ = (α + ε) √t,  s ← s + λ g,  v ← v + λ g²
        p ← μ p + (1 - μ) (p₀ - s / (∛v + ε))

    Memory: 12 bytes per parameter.

    Source: A. Defazio, S. Jelassi, Adaptivity without Compromise (2022), algorithm 1.
    """
    return chain(add_decayed_weights(weight_decay), scale_by_madgrad(learning_rate, momentum, eps))


@transformation
def asgd(
    learning_rate: LearningRate = 0.01, lambd: NonNegative = 1e-4, alpha: NonNegative = 0.75,
    t0: NonNegative = 1e6, weight_decay: WeightDecay = 0.0,
):  # fmt: skip
    """Averaged gradient descent, as in torch: `eval_params(state, params)` gives the average of the
    iterates after t₀.

        g ← g + w p,  η = α / (1 + λ α (t - 1))^κ
        p ← p - η (g + λ p),  a ← a + (p - a) / max(1, t - 1 - t₀)

    λ = `lambd`, κ = `alpha`, w = `weight_decay`.

    Memory: 4 bytes per parameter.

    Source: B. T. Polyak, A. B. Juditsky, Acceleration of Stochastic Approximation by Averaging
    (1992); torch.optim.ASGD.
    """
    return chain(add_decayed_weights(weight_decay), scale_by_asgd(learning_rate, lambd, alpha, t0))


@transformation
def mars(
    learning_rate: LearningRate = 3e-3, b1: Fading = 0.95, b2: Decay = 0.99,
    gamma: NonNegative = 0.025, eps: Epsilon = 1e-8, weight_decay: WeightDecay = 0.0,
    where: Where | None = None, *, max_norm: Positive = 1.0, exact: bool = False,
):  # fmt: skip
    """AdamW on gradients of reduced variance.

        c = g + γ β₁ / (1 - β₁) (g - g₋₁),  c ← c / max(1, ‖c‖ / n)
        m ← β₁ m + (1 - β₁) c,  v ← β₂ v + (1 - β₂) c²
        p ← p - α (m̂ / (√v̂ + ε) + λ p)

    g₋₁ is the gradient of the step before (pytorch_optimizer too, with ε = 1e-15 inside the root as
    well), with `exact` this batch's at the parameters of the step before: `update(...,
    obj_fn=loss)`, see `reduce_variance`.

    Memory: 12 bytes per parameter.

    Source: H. Yuan et al., MARS (2024), algorithm 3; `exact`: with equation 8 as it stands.
    """
    gradient = reduce_variance(b1, gamma, max_norm, exact=exact)
    parts = adam_parts(b1, b2, eps)
    return chain(gradient, *parts, *descent(learning_rate, weight_decay, where))


@transformation
def sophia(
    learning_rate: LearningRate, b1: Decay = 0.965, b2: Decay = 0.99, eps: Epsilon = 1e-8,
    weight_decay: WeightDecay = 1e-4, weight_decay_mask: Where | None = None,
    gamma: NonNegative = 0.01, clip_threshold: Positive | None = 1.0, update_interval: Count = 10,
    hessian_diagonal_fn: Inner | None = None, mu_dtype: DType | None = None, *,
    convention: str = "optax",
):  # fmt: skip
    """Sophia: the averaged gradient over the averaged diagonal of the Hessian, clipped.

        p ← p - α (clip(m̂ / max(γ h, ε), ±ρ) + λ p)       as in `scale_by_sophia`

    The update needs the loss as a function of the parameters, `update(..., obj_fn=loss)`.

    Conventions: "optax" divides by the h of before this step's estimate and corrects m; "paper"
    does neither, and so pytorch_optimizer with γ = 1, whose p is ρ.

    Memory: 8 bytes per parameter and a key.

    Raises:
        TypeError: update() without obj_fn.

    Source: H. Liu et al., Sophia (2024), algorithm 3.
    """
    rest = (clip_threshold, update_interval, hessian_diagonal_fn, mu_dtype)
    step = scale_by_sophia(b1, b2, eps, gamma, *rest, convention=convention)
    return chain(step, *descent(learning_rate, weight_decay, weight_decay_mask))


@schedule
def _warmed_up(step, learning_rate: LearningRate, warmup_steps: Steps):
    """A straight line from 0 to the learning rate, itself a number or a schedule."""
    share = jnp.asarray(step, float) / at_step(warmup_steps, step)
    return at_step(learning_rate, step) * jnp.minimum(share, 1)


def _rate(learning_rate, warmup_steps, convention):
    if warmup_steps is None:
        return learning_rate
    rise = _warmed_up(learning_rate, warmup_steps)
    return rise if convention == "optax" else _ahead(rise)


def _decay(weight_decay, decay_at, rate, learning_rate, convention):
    """A part of the base optimizer, if the decay is one; else the rule that decays, and its
    numbers.
    """
    if weight_decay is None:
        return None, {}
    if convention == "keras":
        rule, rate = _primal_keras, learning_rate
    elif decay_at == "z":
        rule = _primal_decaying_z
    else:
        return add_decayed_weights(weight_decay), {}
    return None, {"rule": rule, "step_size": rate, "weight_decay": weight_decay}


@transformation(conventions=("optax", "paper"))
def schedule_free_sgd(
    learning_rate: LearningRate = 1.0, warmup_steps: Steps | None = None, b1: Share = 0.9,
    weight_decay: WeightDecay | None = None, weight_lr_power: Power = 2.0, state_dtype=None, *,
    r: Power = 0.0, decay_at: Literal["y", "z"] = "y", convention: str = "optax",
):  # fmt: skip
    """Schedule-free gradient descent: `schedule_free` around a step of z.

        z ← z - α (g + λ y)          decay_at="y"
        z ← z - α (g + λ z)          decay_at="z"

    Memory: 4 bytes per parameter.

    Conventions: with a warm-up, "optax" begins with a step of 0, "paper", as the package
    schedulefree, with one of α / warmup_steps.

    Source: A. Defazio et al., The Road Less Scheduled (2024), equations 6 to 8.
    """
    rate = _rate(learning_rate, warmup_steps, convention)
    decay, numbers = _decay(weight_decay, decay_at, rate, learning_rate, convention)
    base = chain(decay, scale_by_learning_rate(rate))
    return _averaged(base, rate, b1, weight_lr_power, state_dtype, r, convention, **numbers)


@transformation(conventions={"optax": {}, "paper": {}, "keras": {"weight_lr_power": 0.0}})
def schedule_free_adamw(
    learning_rate: LearningRate = 0.0025, warmup_steps: Steps | None = None, b1: Share = 0.9,
    b2: Decay = 0.999, eps: Epsilon = 1e-8, weight_decay: WeightDecay = 0.0,
    weight_lr_power: Power = 2.0, state_dtype=None, *, r: Power = 0.0,
    decay_at: Literal["y", "z"] = "y", convention: str = "optax",
):  # fmt: skip
    """Schedule-free AdamW: `schedule_free` around RMS scaling with bias correction and decoupled
    weight decay.

        z ← z - α (g / (√v̂ + ε) + λ y)          decay_at="y"
        z ← z - α (g / (√v̂ + ε) + λ z)          decay_at="z"

    Memory: 8 bytes per parameter.

    Conventions: with a warm-up, "optax" begins with a step of 0, "paper", as the package
    schedulefree, with one of α / warmup_steps; so does "keras", which weighs all steps alike (q =
    0) and decays y but not z: y ← y - α λ y first, α without warm-up.

    Source: A. Defazio et al., The Road Less Scheduled (2024), algorithm 1.
    """
    rate = _rate(learning_rate, warmup_steps, convention)
    decay, numbers = _decay(weight_decay, decay_at, rate, learning_rate, convention)
    base = chain(adam_rms(b2, eps), decay, scale_by_learning_rate(rate))
    return _averaged(base, rate, b1, weight_lr_power, state_dtype, r, convention, **numbers)
