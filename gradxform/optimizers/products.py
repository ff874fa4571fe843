"""The Adam family without its learning rate, under Optax's names: each a direction × a
preconditioner.

scale_by_adam = ema × rms    scale_by_adamax = ema × inf-norm   scale_by_amsgrad = ema × running max
scale_by_yogi = ema × yogi   scale_by_belief = ema × deviation  scale_by_radam = ema × rectified rms
scale_by_ademamix = two emas × rms
scale_by_simplified_ademamix = momentum plus gradient × rms
"""

import jax.numpy as jnp

from gradxform.core import chain, leafwise, real_full, real_zeros, schedule, transformation, zeros
from gradxform.core.hyper import Decay, Epsilon, Momentum, NonNegative, Positive, Steps
from gradxform.numerics import abs_sq, debias, divide_by_root, increment, lerp, wide_dtype
from gradxform.rules import ema, scale_by_deviation, scale_by_inf_norm, scale_by_nadam_rms, two_emas
from gradxform.rules.directions import correct_bias, momentum_plus_gradient, nesterov_ema_scheduled
from gradxform.rules.preconditioners import (
    scale_by_rms,
    scale_by_rms_max,
    scale_by_yogi_rms,
    yogi_square,
)
from gradxform.rules.rms_variants import scale_by_rectified_rms
from gradxform.rules.step_size import scale_by_learning_rate
from gradxform.rules.weight_decay import add_decayed_weights

__all__ = ["ademamix_alpha", "ademamix_b3", "scale_by_adam", "scale_by_adamax", "scale_by_ademamix"]
__all__ += ["scale_by_amsgrad", "scale_by_belief", "scale_by_radam", "scale_by_simplified_ademamix"]
__all__ += ["scale_by_yogi"]


SAME = {"optax": {}, "torch": {}, "keras": {}, "paper": {}}  # all with Optax's numbers
KERAS = SAME | {"keras": {"eps": 1e-7}}


def descent(learning_rate, weight_decay=None, where=None):
    """The parts that an optimizer ends in: decoupled weight decay if any, and the learning rate."""
    decay = None if weight_decay is None else add_decayed_weights(weight_decay, where)
    return decay, scale_by_learning_rate(learning_rate)


def keras_only(convention: str) -> str:
    """The convention of a preconditioner that only Keras has differently."""
    return "keras" if convention == "keras" else "optax"


def adam_rms(b2, eps, eps_root=0.0, corrected=True, convention="optax"):
    """The preconditioner of `adam`: ε outside the root, the average corrected."""
    where = {"eps_in_sqrt": False, "eps_root": eps_root, "convention": keras_only(convention)}
    return scale_by_rms(b2, eps, bias_correction=corrected, **where)


def adam_parts(
    b1, b2, eps, eps_root=0.0, mu_dtype=None, *, nesterov=False, corrected=True, convention="optax"
):
    """Direction and preconditioner of `adam`."""
    averaged = ema(b1, corrected, mu_dtype, nesterov=nesterov)
    return averaged, adam_rms(b2, eps, eps_root, corrected, convention)


@transformation
def scale_by_adam(
    b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-8, eps_root: Epsilon = 0.0, mu_dtype=None,
    *, nesterov: bool = False,
):  # fmt: skip
    """`adam` without its learning rate.

        u = m̂ / (√(v̂ + ε₀) + ε),  m ← β₁ m + (1 - β₁) g,  v ← β₂ v + (1 - β₂) g²

    Memory: 8 bytes per parameter (`mu_dtype` changes the first 4).

    Source: D. P. Kingma, J. Ba, Adam: A Method for Stochastic Optimization (2015), algorithm 1.
    """
    return chain(*adam_parts(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov))


def nadam_parts(b1, b2, eps, eps_root, mu_dtype, convention):
    """Direction and preconditioner of `nadam`, in one of its conventions."""
    averaged, precondition = adam_parts(b1, b2, eps, eps_root, mu_dtype, nesterov=True)
    if convention == "optax":
        return averaged, precondition
    published = convention == "paper"
    how = {"accumulator_dtype": mu_dtype, "convention": "paper" if published else "torch"}
    scheduled = nesterov_ema_scheduled(b1, 1.0 if convention == "keras" else 0.004, **how)
    return scheduled, scale_by_nadam_rms(b2, eps, eps_root) if published else precondition


@transformation(conventions={"optax": {}, "keras": {"eps": 1e-7}})
def scale_by_adamax(
    b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-8, *, convention: str = "optax"
):
    """`adamax` without its learning rate.

        m ← β₁ m + (1 - β₁) g
        v ← max(β₂ v, |g| + ε),  u = m̂ / v            optax, and so torch
        v ← max(β₂ v, |g|),      u = m̂ / (v + ε)      keras: ε = 1e-7

    Memory: 8 bytes per parameter.

    Source: D. P. Kingma, J. Ba, Adam: A Method for Stochastic Optimization (2015), algorithm 2,
    which has ε = 0.
    """
    return chain(ema(b1), scale_by_inf_norm(b2, eps, convention=convention))


@transformation
def scale_by_amsgrad(
    b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-8, eps_root: Epsilon = 0.0, mu_dtype=None,
    bias_correction_mu: bool = True, bias_correction_nu: bool = True,
):  # fmt: skip
    """`amsgrad` without its learning rate, its corrections by Optax's flags.

        u = m̂ / (√(w + ε₀) + ε),  w ← max(w, v̂)    m for m̂, v for v̂, where the flag is off

    Memory: 12 bytes per parameter (`mu_dtype` changes the first 4).

    Source: S. J. Reddi, S. Kale, S. Kumar, On the Convergence of Adam and Beyond (2018), algorithm
    2, which corrects nothing.
    """
    convention = "optax" if bias_correction_nu else "paper"
    maximum = scale_by_rms_max(b2, eps, eps_root, convention=convention)
    return chain(ema(b1, bias_correction_mu, mu_dtype), maximum)


def _belief_nesterov(u, at, m, s, *, b1, b2, eps, eps_root):
    """m ← β₁ m + (1 - β₁) u
    s ← β₂ s + (1 - β₂) (u - m)² + ε₀
    m̂ = β₁ m / (1 - β₁ᵗ⁺¹) + (1 - β₁) u / (1 - β₁ᵗ)
    ŝ = s / (1 - β₂ᵗ)
    u = m̂ / (√ŝ + ε)
    """
    m = lerp(u, m, b1)
    s = b2 * s + ((1 - b2) * abs_sq(u - m) + eps_root)
    ahead = b1 * debias(m, b1, increment(at.t)) + (1 - b1) * debias(u, b1, at.t)
    return divide_by_root(ahead, debias(s, b2, at.t), eps, 0.0), m, s


@transformation
def scale_by_belief(
    b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-16, eps_root: Epsilon = 1e-16, *,
    nesterov: bool = False,
):  # fmt: skip
    """`adabelief` without its learning rate.

        m ← β₁ m + (1 - β₁) g
        s ← β₂ s + (1 - β₂) (g - m)² + ε₀
        u = m̂ / (√ŝ + ε)

    With `nesterov` m̂ = β₁ m / (1 - β₁ᵗ⁺¹) + (1 - β₁) g / (1 - β₁ᵗ).

    Memory: 8 bytes per parameter.

    Source: J. Zhuang et al., AdaBelief Optimizer (2020), algorithm 2.
    """
    if nesterov:  # no product: the deviation is about m, the step is not along m
        slots, numbers = {"m": zeros(), "s": real_zeros}, {"eps": eps, "eps_root": eps_root}
        return leafwise(_belief_nesterov, slots=slots, direction=True, b1=b1, b2=b2, **numbers)
    return chain(ema(b1, debias=False), scale_by_deviation(b2, eps, eps_root), correct_bias(b1))


def _full(p, *, initial):
    return jnp.full_like(p, initial, dtype=wide_dtype(p.dtype))


def _ema_from(u, at, m, *, decay):
    """m ← β m + (1 - β) u
    m̂ = m / (1 - βᵗ)
    u = m̂
    """
    m = lerp(u, m, decay)
    return debias(m, decay, at.t), m


def _yogi_uncorrected(u, at, v, *, decay, eps, eps_root):
    """v ← v - (1 - β) sign(v - g²) g²
    u ← u / (√(v + ε₀) + ε)
    """
    v = yogi_square(at.g, v, decay)
    return divide_by_root(u, v, eps, eps_root), v


_YOGI = {"optax": {}, "paper": {"initial_accumulator_value": 0.0}}


@transformation(conventions=_YOGI)
def scale_by_yogi(
    b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-3, eps_root: Epsilon = 0.0,
    initial_accumulator_value: NonNegative = 1e-6, *, convention: str = "optax",
):  # fmt: skip
    """`yogi` without its learning rate.

        m ← β₁ m + (1 - β₁) g
        v ← v - (1 - β₂) sign(v - g²) g²
        u = m̂ / (√(v̂ + ε₀) + ε)    optax: both m and v start at the initial value, both corrected
        u = m / (√(v + ε₀) + ε)    paper: m starts at 0, v at the initial value, 0; no correction

    Memory: 8 bytes per parameter.

    Source: M. Zaheer et al., Adaptive Methods for Nonconvex Optimization (2018), algorithm 2.
    """
    initial = initial_accumulator_value
    if convention == "paper":
        numbers = {"initial": initial, "decay": b2, "eps": eps, "eps_root": eps_root}
        rule = leafwise(_yogi_uncorrected, slots={"v": real_full}, **numbers)
        return chain(ema(b1, debias=False), rule)
    average = leafwise(_ema_from, slots={"m": _full}, direction=True, initial=initial, decay=b1)
    return chain(average, scale_by_yogi_rms(b2, eps, eps_root, initial))


@transformation(conventions=("optax", "torch"))
def scale_by_radam(
    b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-8, eps_root: Epsilon = 0.0,
    threshold: Positive = 5.0, *, nesterov: bool = False, convention: str = "optax",
):  # fmt: skip
    """`radam` without its learning rate: Adam that divides only once its second moment is to be
    trusted.

        u = r m̂ / (√(v̂ + ε₀) + ε)  where ρₜ ≥ threshold, otherwise m̂  (`scale_by_rectified_rms`)

    Memory: 8 bytes per parameter.

    Source: L. Liu et al., On the Variance of the Adaptive Learning Rate and Beyond (2020),
    algorithm 2.
    """
    rectified = scale_by_rectified_rms(b2, eps, eps_root, threshold, convention=convention)
    return chain(ema(b1, nesterov=nesterov), rectified)


@transformation
def scale_by_ademamix(
    b1: Decay = 0.9, b2: Decay = 0.999, b3: Decay = 0.9999, alpha: NonNegative = 6.0,
    eps: Epsilon = 1e-8, eps_root: Epsilon = 0.0, mu_dtype=None,
):  # fmt: skip
    """`ademamix` without its learning rate.

        m₁ ← β₁ m₁ + (1 - β₁) g,  m₂ ← β₃ m₂ + (1 - β₃) g,  v ← β₂ v + (1 - β₂) g²
        u = (m̂₁ + α m₂) / (√(v̂ + ε₀) + ε)

    Memory: 12 bytes per parameter (`mu_dtype` changes the first 8).

    Source: M. Pagliardini, P. Ablin, D. Grangier, The AdEMAMix Optimizer (2024), algorithm 1.
    """
    return chain(two_emas(b1, b3, alpha, accumulator_dtype=mu_dtype), adam_rms(b2, eps, eps_root))


@transformation
def scale_by_simplified_ademamix(
    b1: Momentum = 0.99, b2: Decay = 0.95, alpha: NonNegative = 0.0, eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0,
):  # fmt: skip
    """`simplified_ademamix` without its learning rate.

        m ← β₁ m + g,  v ← β₂ v + (1 - β₂) g²
        u = (m + α g) / (√(v̂ + ε₀) + ε)

    Memory: 8 bytes per parameter.

    Source: D. Morwani et al., Connections between Schedule-Free Optimizers, AdEMAMix, and
    Accelerated SGD (2025).
    """
    return chain(momentum_plus_gradient(b1, alpha), adam_rms(b2, eps, eps_root))


@schedule
def ademamix_alpha(step, alpha: NonNegative, total_steps: Steps):
    """AdEMAMix's ramp of α.

        a(step) = α min((step + 1) / T, 1)

    Source: M. Pagliardini, P. Ablin, D. Grangier, The AdEMAMix Optimizer (2024), algorithm 1.
    """
    return alpha * jnp.minimum((jnp.asarray(step, float) + 1) / total_steps, 1)


@schedule
def ademamix_b3(step, b3: Decay, b1: Decay, total_steps: Steps):
    """AdEMAMix's ramp of β₃, from β₁ up, in which the half-life of the average grows linearly.

        a(step) = exp(log β₁ log β₃ / ((1 - s) log β₃ + s log β₁))
        s = min((step + 1) / T, 1)

    Source: M. Pagliardini, P. Ablin, D. Grangier, The AdEMAMix Optimizer (2024), algorithm 1.
    """
    share = jnp.minimum((jnp.asarray(step, float) + 1) / total_steps, 1)
    fast, slow = jnp.log(jnp.asarray(b1, float)), jnp.log(jnp.asarray(b3, float))
    return jnp.exp(fast * slow / ((1 - share) * slow + share * fast))
