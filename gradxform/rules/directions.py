"""Directions: use more gradients than the last one.

A direction changes where we step, not what the gradient is: in a chain, preconditioners after it go
on measuring the gradient that entered it (decision 3 of the design). Heavy ball, Nesterov and
exponentially weighted averages.
"""

import jax.numpy as jnp

from gradxform.core import dtype_name, leafwise, transformation, zeros
from gradxform.core.hyper import Decay, DType, Fraction, Momentum, NonNegative, Real
from gradxform.numerics import bias_correction, debias, increment, lerp

__all__ = ["correct_bias", "ema", "momentum", "momentum_plus_gradient", "nesterov_ema_scheduled"]
__all__ += ["quasi_hyperbolic", "two_emas"]


def _slot(name, dtype):
    return {name: zeros(dtype_name(dtype))}


def _momentum(u, at, v, *, decay, dampening):
    """v ← β v + (1 - d) u
    u = v
    """
    v = decay * v + (1 - dampening) * u
    return v, v


def _momentum_nesterov(u, at, v, *, decay, dampening):
    """v ← β v + (1 - d) u
    u ← (1 - d) u + β v
    """
    v = decay * v + (1 - dampening) * u
    return (1 - dampening) * u + decay * v, v


def _momentum_torch(u, at, v, *, decay, dampening):
    """v ← β v + (1 - d) u      v = u at the first step
    u = v
    """
    v = decay * v + jnp.where(at.t == 1, 1, 1 - dampening) * u
    return v, v


@transformation(conventions=("optax", "torch"))
def momentum(
    decay: Momentum = 0.9, dampening: Real = 0.0, nesterov: bool = False, *,
    accumulator_dtype: DType | None = None, convention: str = "optax",
):  # fmt: skip
    """Heavy ball: step along a velocity that remembers a share of itself.

        v ← β v + (1 - d) g
        u = v                       heavy ball
        u = (1 - d) g + β v         nesterov=True, the usual reformulation

    β = `decay`, d = `dampening`: with d = 0 the velocity is a sum, with d = β an average, the other
    textbook form. With `nesterov` the parameters are the look-ahead points of Nesterov's method as
    first written; for that form take the gradient at `nesterov_point(tx, state, params)` and leave
    `nesterov` off.

    Memory: one slot `v`, 4 bytes per parameter (`accumulator_dtype` to change).

    Conventions: "optax" as above. "torch" leaves the first gradient undamped: v₁ = g₁. Keras and
    the papers have the learning rate inside v: put `scale_by_learning_rate` before it, as
    `sgd(convention="keras")` does.

    Raises:
        ValueError: decay outside [0, 1]; an unknown convention; torch's convention together with
            nesterov and dampening.

    Source: B. T. Polyak (1964); Y. Nesterov (1983); I. Sutskever et al. (2013), equations 3 and 4.

    Not: `ema`, which with debias=True divides by 1 - βᵗ.
    """
    if convention == "torch" and nesterov and not (isinstance(dampening, float) and dampening == 0):
        raise ValueError("momentum: torch has no nesterov momentum with dampening")
    plain = _momentum_torch if convention == "torch" else _momentum
    rule, slots = _momentum_nesterov if nesterov else plain, _slot("v", accumulator_dtype)
    return leafwise(rule, slots=slots, direction=True, decay=decay, dampening=dampening)


@transformation
def trace(decay: Momentum, nesterov: bool = False, accumulator_dtype: DType | None = None):
    """Optax's name for `momentum`: v ← β v + g, and with `nesterov` u = g + β v.

    Memory: 4 bytes per parameter.

    Source: B. T. Polyak (1964).
    """
    return momentum(decay, 0.0, nesterov, accumulator_dtype=accumulator_dtype)


def _ema(u, at, m, *, decay):
    """m ← β m + (1 - β) u
    u = m
    """
    m = lerp(u, m, decay)
    return m, m


def _ema_debiased(u, at, m, *, decay):
    """m ← β m + (1 - β) u
    m̂ = m / (1 - βᵗ)
    u = m̂
    """
    m = lerp(u, m, decay)
    return debias(m, decay, at.t), m


def _ema_nesterov(u, at, m, *, decay):
    """m ← β m + (1 - β) u
    u ← β m + (1 - β) u
    """
    m = lerp(u, m, decay)
    return lerp(u, m, decay), m


def _ema_nesterov_debiased(u, at, m, *, decay):
    """m ← β m + (1 - β) u
    m̂ = β m / (1 - βᵗ⁺¹) + (1 - β) u / (1 - βᵗ)
    u = m̂
    """
    m = lerp(u, m, decay)
    return decay * debias(m, decay, increment(at.t)) + (1 - decay) * debias(u, decay, at.t), m


_EMA = {False: (_ema, _ema_debiased), True: (_ema_nesterov, _ema_nesterov_debiased)}


@transformation
def ema(
    decay: Decay = 0.9, debias: bool = True, accumulator_dtype: DType | None = None, *,
    nesterov: bool = False,
):  # fmt: skip
    """The exponentially weighted average of the gradients.

        m ← β m + (1 - β) g                          averages about the last 1/(1 - β) gradients
        u = m                                        debias=False
        u = m / (1 - βᵗ)                             debias=True
        u = β m / (1 - βᵗ⁺¹) + (1 - β) g / (1 - βᵗ)  nesterov=True (β m + (1 - β) g without debias)

    Memory: one slot `m`, 4 bytes per parameter (`accumulator_dtype` to change).

    Raises:
        ValueError: decay outside [0, 1].

    Source: D. P. Kingma, J. Ba (2015), algorithm 1; T. Dozat (2016), the nesterov form without
    momentum schedule.

    Not: an average of the parameters.
    """
    plain, corrected = _EMA[bool(nesterov)]
    rule = corrected if debias else plain
    return leafwise(rule, slots=_slot("m", accumulator_dtype), direction=True, decay=decay)


def _scheduled_momentum(decay, t, momentum_decay):
    return decay * (1 - 0.5 * 0.96 ** (t * momentum_decay))


def _momentum_product(updates, at, product, *, decay, momentum_decay):
    """μₜ = β (1 - 0.96^(ψ t) / 2)
    Πₜ = Πₜ₋₁ μₜ
    """
    t = at.t.astype(product.dtype)
    now = jnp.asarray(_scheduled_momentum(decay, t, momentum_decay), product.dtype)
    following = jnp.asarray(_scheduled_momentum(decay, t + 1, momentum_decay), product.dtype)
    product = product * now
    return (now, following, product), product


def _ahead(u, at, m):
    now, following, product = at.scalars
    return following * m / (1 - product * following) + (1 - now) * u / (1 - product)


def _ema_nesterov_scheduled(u, at, m, *, decay):
    """m ← β m + (1 - β) u
    m̂ = μₜ₊₁ m / (1 - Πₜ μₜ₊₁) + (1 - μₜ) u / (1 - Πₜ)
    u = m̂
    """
    m = lerp(u, m, decay)
    return _ahead(u, at, m), m


def _ema_nesterov_paper(u, at, m):
    """m ← μₜ m + (1 - μₜ) u
    m̂ = μₜ₊₁ m / (1 - Πₜ μₜ₊₁) + (1 - μₜ) u / (1 - Πₜ)
    u = m̂
    """
    m = lerp(u, m, at.scalars[0])
    return _ahead(u, at, m), m


@transformation(conventions=("torch", "paper"))
def nesterov_ema_scheduled(
    decay: Decay = 0.9, momentum_decay: NonNegative = 0.004, *,
    accumulator_dtype: DType | None = None, convention: str = "torch",
):  # fmt: skip
    """Nadam's direction as published, and as torch and Keras compute it: a momentum that warms up.

        μₜ = β (1 - 0.96^(ψ t) / 2),  Πₜ = μ₁ ⋯ μₜ
        m ← β m + (1 - β) g               torch and Keras
        m ← μₜ m + (1 - μₜ) g             convention="paper"
        u = μₜ₊₁ m / (1 - Πₜ₊₁) + (1 - μₜ) g / (1 - Πₜ)

    β = `decay`, ψ = `momentum_decay`: 0.004 in torch and in the paper, 1 in Keras.

    Memory: one slot `m`, 4 bytes per parameter, and one scalar.

    Source: T. Dozat, Incorporating Nesterov Momentum into Adam (2016), algorithm 2.
    """
    rule = _ema_nesterov_paper if convention == "paper" else _ema_nesterov_scheduled
    how = {"measure": _momentum_product, "memory": {"product": _one}, "direction": True}
    numbers = {"decay": decay, "momentum_decay": momentum_decay}
    return leafwise(rule, slots=_slot("m", accumulator_dtype), **how, **numbers)


def _one(params):
    return jnp.ones((), float)


def _two_emas(u, at, m1, m2, *, b1, b3, alpha):
    """m₁ ← β₁ m₁ + (1 - β₁) u
    m₂ ← β₃ m₂ + (1 - β₃) u
    m̂₁ = m₁ / (1 - β₁ᵗ)
    u = m̂₁ + α m₂
    """
    m1, m2 = lerp(u, m1, b1), lerp(u, m2, b3)
    return debias(m1, b1, at.t) + alpha * m2, m1, m2


@transformation
def two_emas(
    b1: Decay = 0.9, b3: Decay = 0.9999, alpha: NonNegative = 5.0, *,
    accumulator_dtype: DType | None = None,
):  # fmt: skip
    """A fast and a slow average of the gradients, added: AdEMAMix's direction.

        m₁ ← β₁ m₁ + (1 - β₁) g
        m₂ ← β₃ m₂ + (1 - β₃) g
        u = m₁ / (1 - β₁ᵗ) + α m₂

    Memory: slots `m1` and `m2`, 8 bytes per parameter.

    Source: M. Pagliardini et al., The AdEMAMix Optimizer (2024), equations 3 and 4.
    """
    slots = _slot("m1", accumulator_dtype) | _slot("m2", accumulator_dtype)
    return leafwise(_two_emas, slots=slots, direction=True, b1=b1, b3=b3, alpha=alpha)


def _correct_bias(u, at, *, decay):
    """u ← u / (1 - βᵗ)"""
    return u / bias_correction(decay, at.t, jnp.real(u).dtype)


@transformation
def correct_bias(decay: Decay):
    """Divide by 1 - βᵗ: the bias correction of an average, apart from the average.

    For methods whose preconditioner must see the average uncorrected: `chain(ema(b1, debias=False),
    scale_by_deviation(b2), correct_bias(b1))` is AdaBelief.

    Memory: none.

    Source: D. P. Kingma, J. Ba (2015), section 3.
    """
    return leafwise(_correct_bias, decay=decay)


def _quasi_hyperbolic(u, at, m, *, decay, nu):
    """m ← β m + (1 - β) u
    u ← (1 - ν) u + ν m
    """
    m = lerp(u, m, decay)
    return lerp(u, m, nu), m


def _quasi_hyperbolic_debiased(u, at, m, *, decay, nu):
    """m ← β m + (1 - β) u
    m̂ = m / (1 - βᵗ)
    u ← (1 - ν) u + ν m̂
    """
    m = lerp(u, m, decay)
    return lerp(u, debias(m, decay, at.t), nu), m


@transformation
def quasi_hyperbolic(
    decay: Decay = 0.999, nu: Fraction = 0.7, debias: bool = False, *, accumulator_dtype=None
):
    """A weighted mean of the gradient and its average: quasi-hyperbolic momentum.

        m ← β m + (1 - β) g
        u = (1 - ν) g + ν m             with `debias` m / (1 - βᵗ) in place of m

    ν = 0 is the gradient, ν = 1 is `ema`, ν = β is Nesterov's `ema`.

    Memory: one slot `m`, 4 bytes per parameter (`accumulator_dtype` to change).

    Source: J. Ma, D. Yarats, Quasi-hyperbolic momentum and Adam for deep learning (2019), equations
    3 and 4.
    """
    rule = _quasi_hyperbolic_debiased if debias else _quasi_hyperbolic
    return leafwise(rule, slots=_slot("m", accumulator_dtype), direction=True, decay=decay, nu=nu)


def _momentum_plus(u, at, m, *, decay, alpha):
    """m ← β m + u
    u ← m + α u
    """
    m = decay * m + u
    return m + alpha * u, m


@transformation
def momentum_plus_gradient(decay: Momentum = 0.99, alpha: NonNegative = 0.0):
    """Heavy-ball momentum and, once more, a multiple of the gradient: simplified AdEMAMix's
    direction.

        m ← β m + g
        u = m + α g

    Memory: one slot `m`, 4 bytes per parameter.

    Source: D. Morwani et al., Connections between Schedule-Free Optimizers, AdEMAMix, and
    Accelerated SGD (2025).
    """
    return leafwise(_momentum_plus, slots={"m": zeros()}, direction=True, decay=decay, alpha=alpha)
