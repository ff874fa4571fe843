"""Gradient descent with something added: noise, optimism, a share of momentum.

Notation: g gradient, p parameter, α learning rate, β decays; every optimizer ends in p ← p - α u.
"""

import jax.numpy as jnp

from gradxform.core import chain, leafwise, transformation, zeros
from gradxform.core.hyper import Decay, Epsilon, Fraction, LearningRate, Momentum, NonNegative, Real
from gradxform.optimizers.products import descent, scale_by_adam
from gradxform.rules import scale_by_learning_rate, scale_by_optimistic_gradient
from gradxform.rules.directions import momentum as heavy_ball
from gradxform.rules.directions import quasi_hyperbolic
from gradxform.rules.noise import Key, add_noise, differentially_private_aggregate

__all__ = ["dpsgd", "noisy_sgd", "optimistic_adam", "optimistic_adam_v2"]
__all__ += ["optimistic_gradient_descent", "qhm"]


@transformation
def noisy_sgd(
    learning_rate: LearningRate, eta: NonNegative = 0.01, gamma: Real = 0.55, key: Key = 0
):
    """Gradient descent with Gaussian noise that falls with time: p ← p - α (g + 𝒩(0, η / tᵞ)).

    Memory: the key, 8 bytes.

    Source: A. Neelakantan et al., Adding Gradient Noise Improves Learning for Very Deep Networks
    (2015), equation 1.
    """
    return chain(add_noise(eta, gamma, key), scale_by_learning_rate(learning_rate))


@transformation
def optimistic_gradient_descent(learning_rate: LearningRate, alpha: Real = 1.0, beta: Real = 1.0):
    """Gradient descent that extrapolates by the last change, for games and saddle points.

        p ← p - α_lr (α g + β (g - g before))             at the first step g before is g

    Memory: 4 bytes per parameter.

    Source: A. Mokhtari, A. Ozdaglar, S. Pattathil, A Unified Analysis of Extra-gradient and
    Optimistic Gradient Methods (2020).
    """
    return chain(scale_by_optimistic_gradient(alpha, beta), scale_by_learning_rate(learning_rate))


def _descend_optimistically(u, at, previous, *, learning_rate, optimism):
    """d = u - u₋₁      0 at the first step
    u₋₁ ← u
    u ← -(α u + o d)
    """
    before = jnp.where(at.t == 1, u, previous)
    return optimism * before - (learning_rate + optimism) * u, u


@transformation
def optimistic_adam(
    learning_rate: LearningRate, optimism: Real | None = None, b1: Decay = 0.9, b2: Decay = 0.999,
    eps: Epsilon = 1e-8, eps_root: Epsilon = 0.0, mu_dtype=None, *, nesterov: bool = True,
):  # fmt: skip
    """Adam that extrapolates by the last change of its step.

        u as in `nadam` (in `adam` with nesterov=False)
        p ← p - [α u + o (u - u before)]             o = `optimism`, α when None

    Memory: 12 bytes per parameter (`mu_dtype` changes the first 4).

    Source: C. Daskalakis et al., Training GANs with Optimism (2018), algorithm 1, where o = α and u
    is Adam's.
    """
    step = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    rates = {"learning_rate": learning_rate, "optimism": optimism}
    if optimism is None:
        rates["optimism"] = learning_rate
    return chain(step, leafwise(_descend_optimistically, slots={"previous": zeros()}, **rates))


@transformation
def optimistic_adam_v2(
    learning_rate: LearningRate, *, alpha: Real = 1.0, beta: Real = 1.0, b1: Decay = 0.9,
    b2: Decay = 0.999, eps: Epsilon = 1e-8, eps_root: Epsilon = 0.0, mu_dtype=None,
    nesterov: bool = True,
):  # fmt: skip
    """Adam that extrapolates by the last change of its step, in units of the learning rate.

        u as in `nadam` (in `adam` with nesterov=False)
        p ← p - α_lr [α u + β (u - u before)]

    Memory: 12 bytes per parameter (`mu_dtype` changes the first 4).

    Source: C. Daskalakis et al., Training GANs with Optimism (2018), algorithm 1, where u is
    Adam's.
    """
    step = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    return chain(step, scale_by_optimistic_gradient(alpha, beta), *descent(learning_rate))


@transformation
def qhm(learning_rate: LearningRate, beta: Decay = 0.999, nu: Fraction = 0.7):
    """Quasi-hyperbolic momentum: a weighted mean of the gradient and its average.

        m ← β m + (1 - β) g
        p ← p - α [(1 - ν) g + ν m]

    Memory: 4 bytes per parameter.

    Source: J. Ma, D. Yarats, Quasi-hyperbolic momentum and Adam for deep learning (2019), equations
    3 and 4.
    """
    return chain(quasi_hyperbolic(beta, nu), scale_by_learning_rate(learning_rate))


@transformation
def dpsgd(
    learning_rate: LearningRate, l2_norm_clip: NonNegative, noise_multiplier: NonNegative, key: Key,
    momentum: Momentum | None = None, nesterov: bool = False,
):  # fmt: skip
    """Stochastic gradient descent with differential privacy: each example's gradient clipped, their
    mean noised.

        u = (Σᵢ gᵢ min(1, c / ‖gᵢ‖) + σ c 𝒩(0, 1)) / n
        p ← p - α u                                 or with momentum, as in `sgd`

    It is given gradients with an axis of n examples in front.

    Memory: 8 bytes; with momentum 4 more per parameter.

    Source: M. Abadi et al., Deep Learning with Differential Privacy (2016), algorithm 1.
    """
    gradient = differentially_private_aggregate(l2_norm_clip, noise_multiplier, key)
    velocity = None if momentum is None else heavy_ball(momentum, nesterov=nesterov)
    return chain(gradient, velocity, scale_by_learning_rate(learning_rate))
