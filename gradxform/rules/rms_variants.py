"""More rows and columns of the grid: directions and preconditioners of Adam's relatives.

A relative of Adam is a direction × a preconditioner (decision 3 of the design), so each idea is one
part here and may be combined with any other. The products that have a name are in `products`; what
is no product is in `differences`, `signs` and `layerwise`.
"""

import math

import jax.numpy as jnp

from gradxform.core import leafwise, real_zeros, transformation
from gradxform.core.hyper import Decay, Epsilon, Fraction, Positive, WeightDecay
from gradxform.numerics import (
    abs_sq,
    bias_correction,
    debias,
    divide_by_root,
    lerp,
    root_for,
    safe_divide,
    safe_sqrt,
)
from gradxform.rules.measures import rms

__all__ = ["scale_by_atan2", "scale_by_clipped_rms", "scale_by_quasi_hyperbolic_rms"]
__all__ += ["scale_by_rectified_rms", "scale_by_rms_power"]

# Preconditioners


def _rectification(decay, t, dtype):
    """RAdam's ρₜ = ρ∞ - 2 t βᵗ / (1 - βᵗ), and ρ∞ = 2 / (1 - β) - 1.

    At first ρₜ is small beside ρ∞ and float32 would lose it in the difference; there it is t + 2
    (B(h) - B(t h)) / h with h = -log β and B(x) = x / (eˣ - 1) - 1 + x / 2 by its series.
    """
    end = 2 / (1 - decay) - 1
    exact = isinstance(decay, float | int)
    h = -math.log(max(decay, 1e-30)) if exact else -jnp.log(jnp.maximum(decay, 1e-30))
    t = t.astype(dtype)
    x = t * h
    near = x < 0.5
    small, large = jnp.where(near, x, 0), jnp.clip(x, 0.25, 80.0)

    def series(x):
        y = x * x
        return y * (1 / 12 - y * (1 / 720 - y * (1 / 30240 - y * (1 / 1209600 - y / 47900160))))

    first, later = t + 2 / h * (series(h) - series(small)), end - 2 * t / jnp.expm1(large)
    return jnp.where(near, first, later), end


def _rectify(decay, t, threshold, dtype):
    """RAdam's factor rₜ, and whether the average holds enough gradients (ρₜ ≥ threshold) to divide
    by it.
    """
    now, end = _rectification(decay, t, dtype)
    enough = now >= threshold
    known = jnp.where(enough, now, 5.0)
    square = safe_divide((known - 4) * (known - 2) * end, (end - 4) * (end - 2) * known)
    return safe_sqrt(jnp.maximum(square, 0)), enough


def _rms_rectified(u, at, v, *, decay, eps, eps_root, threshold):
    """v ← β v + (1 - β) g²
    v̂ = v / (1 - βᵗ)
    ρ∞ = 2 / (1 - β) - 1
    ρₜ = ρ∞ - 2 t βᵗ / (1 - βᵗ)
    r = √[(ρₜ - 4) (ρₜ - 2) ρ∞ / ((ρ∞ - 4) (ρ∞ - 2) ρₜ)]
    u ← r u / (√(v̂ + ε₀) + ε)      where ρₜ ≥ threshold, else u
    """
    v = lerp(abs_sq(at.g), v, decay)
    factor, enough = _rectify(decay, at.t, threshold, v.dtype)
    step = factor * divide_by_root(u, debias(v, decay, at.t), eps, eps_root)
    return jnp.where(enough, step, u), v


def _rms_rectified_torch(u, at, v, *, decay, eps, eps_root, threshold):
    """v ← β v + (1 - β) g²
    ρ∞ = 2 / (1 - β) - 1
    ρₜ = ρ∞ - 2 t βᵗ / (1 - βᵗ)
    r = √[(ρₜ - 4) (ρₜ - 2) ρ∞ / ((ρ∞ - 4) (ρ∞ - 2) ρₜ)]
    u ← r √(1 - βᵗ) u / (√(v + ε₀) + ε)      where ρₜ ≥ threshold, else u
    """
    v = lerp(abs_sq(at.g), v, decay)
    factor, enough = _rectify(decay, at.t, threshold, v.dtype)
    factor = factor * jnp.sqrt(bias_correction(decay, at.t, v.dtype))
    return jnp.where(enough, factor * divide_by_root(u, v, eps, eps_root), u), v


@transformation(conventions=("optax", "torch"))
def scale_by_rectified_rms(
    decay: Decay = 0.999, eps: Epsilon = 1e-8, eps_root: Epsilon = 0.0, threshold: Positive = 5.0,
    *, convention: str = "optax",
):  # fmt: skip
    """Like the bias-corrected `scale_by_rms` once its average holds enough gradients; until then
    nothing: RAdam's part.

        v ← β v + (1 - β) g²,  ρₜ = ρ∞ - 2 t βᵗ / (1 - βᵗ),  ρ∞ = 2 / (1 - β) - 1
        u ← r u / (√(v / (1 - βᵗ) + ε₀) + ε)      where ρₜ ≥ threshold; otherwise u as it is
        r = √[(ρₜ - 4)(ρₜ - 2) ρ∞ / ((ρ∞ - 4)(ρ∞ - 2) ρₜ)]

    Convention "torch" adds ε to √v before the correction: r √(1 - βᵗ) u / (√(v + ε₀) + ε).

    Memory: one slot `v`, 4 bytes per parameter.

    Source: L. Liu et al., On the Variance of the Adaptive Learning Rate and Beyond (2020),
    algorithm 2.
    """
    rule = _rms_rectified if convention == "optax" else _rms_rectified_torch
    numbers = {"decay": decay, "eps": eps, "eps_root": eps_root, "threshold": threshold}
    return leafwise(rule, slots={"v": real_zeros}, **numbers)


def _divide_by_power(u, square, power, eps):
    """u / (√square + ε)²ᵖ, and 0 where the square is 0 and so is u."""
    zero = (square == 0) & (u == 0)
    root = jnp.where(zero, jnp.ones_like(square), root_for(u, square)) + eps
    return jnp.where(zero, jnp.zeros_like(u), u * jnp.exp(-2 * power * jnp.log(root)))


def _power_of_max(u, at, v, v_max, *, decay, power, eps):
    """v ← β v + (1 - β) g²
    w ← max(w, v)
    u ← u / (√w + ε)^(2 power)
    """
    v = lerp(abs_sq(at.g), v, decay)
    v_max = jnp.maximum(v_max, v)
    return _divide_by_power(u, v_max, power, eps), v, v_max


def _power_of_rms(u, at, v, *, decay, power, eps):
    """v ← β v + (1 - β) g²
    u ← √(1 - βᵗ) u / (√v + ε)^(2 power)
    """
    v = lerp(abs_sq(at.g), v, decay)
    return jnp.sqrt(bias_correction(decay, at.t, v.dtype)) * _divide_by_power(u, v, power, eps), v


@transformation(conventions=("paper", "pytorch_optimizer"))
def scale_by_rms_power(
    decay: Decay = 0.999, power: Fraction = 0.125, eps: Epsilon = 0.0, *, convention: str = "paper"
):
    """Divide by a power, at most one half, of the mean square: Padam's preconditioner, between none
    and AMSGrad's.

        v ← β v + (1 - β) g²
        w ← max(w, v),  u ← u / (√w + ε)²ᵖ    convention="paper"
        u ← u √(1 - βᵗ) / (√v + ε)²ᵖ          "pytorch_optimizer": no maximum, correction of p = 1/2

    Memory: slots `v` and `v_max`, 8 bytes per parameter; without the maximum 4.

    Source: J. Chen et al., Closing the Generalization Gap of Adaptive Gradient Methods (2018),
    algorithm 1.
    """
    if convention == "paper":
        slots = {"v": real_zeros, "v_max": real_zeros}
        return leafwise(_power_of_max, slots=slots, decay=decay, power=power, eps=eps)
    return leafwise(_power_of_rms, slots={"v": real_zeros}, decay=decay, power=power, eps=eps)


def _quasi_hyperbolic_rms(u, at, v, *, decay, nu, eps):
    """v ← β v + (1 - β) g²
    v̂ = v / (1 - βᵗ)
    u ← u / (√((1 - ν) g² + ν v̂) + ε)
    """
    square = abs_sq(at.g)
    v = lerp(square, v, decay)
    average = debias(v, decay, at.t)
    both = jnp.where(jnp.isinf(average), average, lerp(square, average, nu))
    return divide_by_root(u, both, eps, 0.0), v


@transformation
def scale_by_quasi_hyperbolic_rms(decay: Decay = 0.999, nu: Fraction = 1.0, eps: Epsilon = 1e-8):
    """Divide by the root of a weighted mean of g² and its corrected average: QHAdam's
    preconditioner.

        v ← β v + (1 - β) g²
        u ← u / (√((1 - ν) g² + ν v / (1 - βᵗ)) + ε)

    Memory: one slot `v`, 4 bytes per parameter.

    Source: J. Ma, D. Yarats, Quasi-hyperbolic momentum and Adam for deep learning (2019), section
    4.
    """
    return leafwise(_quasi_hyperbolic_rms, slots={"v": real_zeros}, decay=decay, nu=nu, eps=eps)


def _atan2(u, at, v, *, decay, a, b):
    """v ← β v + (1 - β) g²
    v̂ = v / (1 - βᵗ)
    u ← a atan2(u, b √v̂)
    """
    v = lerp(abs_sq(at.g), v, decay)
    zero = (v == 0) & (u == 0)
    root = jnp.where(zero, jnp.ones_like(v), root_for(u, debias(v, decay, at.t)))
    return jnp.where(zero, jnp.zeros_like(u), a * jnp.arctan2(u, b * root)), v


@transformation
def scale_by_atan2(decay: Decay = 0.999, a: Positive = 1.27, b: Positive = 1.0):
    """Put an arc tangent in place of Adam's quotient, so that no ε is needed and every step is
    bounded.

        v ← β v + (1 - β) g²
        u ← a atan2(u, b √(v / (1 - βᵗ)))

    Units: the step is at most a π / 2; a = 4/π ≈ 1.27 makes it 1 where |u| = √v.
    Memory: one slot `v`, 4 bytes per parameter.

    Source: K. Everett et al., Scaling Exponents Across Parameterizations and Optimizers (2024),
    appendix.
    """
    return leafwise(_atan2, slots={"v": real_zeros}, decay=decay, a=a, b=b)


def _excess(at, v, decay, eps):
    """The average, corrected, and how much larger than it the leaf's gradient is, at least 1."""
    v = lerp(abs_sq(at.g), v, decay)
    average = debias(v, decay, at.t)
    ratio = rms(safe_divide(at.g, jnp.maximum(safe_sqrt(average), eps)))
    return v, average, jnp.maximum(ratio, 1)


def _clipped_rms(u, at, v, *, decay, eps):
    """v ← β v + (1 - β) g²
    v̂ = v / (1 - βᵗ)
    R = √mean(g² / max(v̂, ε²))      over the leaf
    u ← u / (√v̂ + ε) / max(1, R)
    """
    v, average, excess = _excess(at, v, decay, eps)
    return divide_by_root(u, average, eps, 0.0) / excess, v


def _clipped_rms_decayed(u, at, v, *, decay, eps, weight_decay):
    """v ← β v + (1 - β) g²
    v̂ = v / (1 - βᵗ)
    R = √mean(g² / max(v̂, ε²))      over the leaf
    u ← [u / (√v̂ + ε) + λ p] / max(1, R)
    """
    v, average, excess = _excess(at, v, decay, eps)
    return (divide_by_root(u, average, eps, 0.0) + weight_decay * at.p) / excess, v


@transformation
def scale_by_clipped_rms(
    decay: Decay = 0.99, eps: Epsilon = 1e-8, weight_decay: WeightDecay | None = None
):
    """Like the bias-corrected `scale_by_rms`, shortened while the leaf's gradients are larger than
    their average says.

        v ← β v + (1 - β) g²,  v̂ = v / (1 - βᵗ)
        u ← [u / (√v̂ + ε)] / max(1, R),  R = √mean(g² / max(v̂, ε²))      the mean over the leaf
        u ← [u / (√v̂ + ε) + λ p] / max(1, R)                              with `weight_decay` λ

    Memory: one slot `v`, 4 bytes per parameter.

    Raises:
        ValueError: a weight decay, and update() without params.

    Source: M. Wortsman et al., Stable and low-precision training for large-scale vision-language
    models (2023), algorithm 2.
    """
    how = {"slots": {"v": real_zeros}, "decay": decay, "eps": eps}
    if weight_decay is None:
        return leafwise(_clipped_rms, **how)
    return leafwise(_clipped_rms_decayed, **how, weight_decay=weight_decay)
