"""Preconditioners: a different rate for each parameter, from what its gradients have been.

Each measures the gradient `at.g` and divides the update so far `u` by a root of that measure. With
no direction before it in the chain the two are the same; after a direction, u is the averaged step
and at.g the gradient.
"""

import jax.numpy as jnp

from gradxform.core import leafwise, real_full, real_zeros, transformation, zeros
from gradxform.core.hyper import Decay, Epsilon, NonNegative
from gradxform.numerics import abs_sq, debias, divide_by_root, lerp, safe_divide
from gradxform.numerics import bias_correction as _correction

__all__ = ["scale_by_adadelta", "scale_by_deviation", "scale_by_inf_norm", "scale_by_nadam_rms"]
__all__ += ["scale_by_rms", "scale_by_rms_max", "scale_by_rss", "scale_by_stddev"]
__all__ += ["scale_by_yogi_rms"]


def _roots(eps, eps_in_sqrt: bool):
    """Where eps goes: u / (√(v + eps_root) + eps)."""
    return {"eps": 0.0, "eps_root": eps} if eps_in_sqrt else {"eps": eps, "eps_root": 0.0}


def _rss(u, at, v, *, eps, eps_root):
    """v ← v + g²
    u ← u / (√(v + ε₀) + ε)
    """
    v = v + abs_sq(at.g)
    return divide_by_root(u, v, eps, eps_root), v


@transformation
def scale_by_rss(
    initial_accumulator_value: NonNegative = 0.1, eps: Epsilon = 1e-7, *, eps_in_sqrt: bool = True
):
    """Divide by the root of the sum of all squared gradients: Adagrad's preconditioner.

        v ← v + g²
        u ← u / √(v + ε)        eps_in_sqrt, as in Optax
        u ← u / (√v + ε)        otherwise, as in torch and the paper

    Shapes: v like the parameter, starting at `initial_accumulator_value`.
    Memory: one slot `v`, 4 bytes per parameter.

    Source: J. Duchi, E. Hazan, Y. Singer, Adaptive Subgradient Methods (2011), figure 1 (diagonal).
    """
    numbers = _roots(eps, eps_in_sqrt)
    return leafwise(_rss, slots={"v": real_full}, initial=initial_accumulator_value, **numbers)


def _rms(u, at, v, *, decay, eps, eps_root):
    """v ← β v + (1 - β) g²
    u ← u / (√(v + ε₀) + ε)
    """
    v = lerp(abs_sq(at.g), v, decay)
    return divide_by_root(u, v, eps, eps_root), v


def _rms_debiased(u, at, v, *, decay, eps, eps_root):
    """v ← β v + (1 - β) g²
    v̂ = v / (1 - βᵗ)
    u ← u / (√(v̂ + ε₀) + ε)
    """
    v = lerp(abs_sq(at.g), v, decay)
    return divide_by_root(u, debias(v, decay, at.t), eps, eps_root), v


def _rms_keras(u, at, v, *, decay, eps, eps_root):
    """v ← β v + (1 - β) g²
    u ← √(1 - βᵗ) u / (√(v + ε₀) + ε)
    """
    v = lerp(abs_sq(at.g), v, decay)
    return divide_by_root(u, v, eps, eps_root) * jnp.sqrt(_correction(decay, at.t, v.dtype)), v


@transformation(conventions=("optax", "keras"))
def scale_by_rms(
    decay: Decay = 0.9, eps: Epsilon = 1e-8, initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True, bias_correction: bool = False, *, eps_root: Epsilon = 0.0,
    convention: str = "optax",
):  # fmt: skip
    """Divide by the root of an average of squared gradients: the preconditioner of RMSprop and
    Adam.

        v ← β v + (1 - β) g²
        u ← u / √(v + ε)            eps_in_sqrt, as in the lecture
        u ← u / (√(v + ε₀) + ε)     otherwise, as in Adam; ε₀ = `eps_root`
        v / (1 - βᵗ) in place of v  bias_correction

    Conventions: "optax" as above; "keras" corrects the quotient and so not ε: u ← u √(1 - βᵗ) /
    (√(v + ε₀) + ε).

    After a direction it measures the gradient that entered it: `chain(ema(0.9), scale_by_rms(0.999,
    eps_in_sqrt=False, bias_correction=True))` is Adam.

    Memory: one slot `v`, 4 bytes per parameter.

    Raises:
        ValueError: decay outside [0, 1], or a negative eps.

    Source: T. Tieleman, G. Hinton, Lecture 6.5 of Neural Networks for Machine Learning (2012); D.
    P. Kingma, J. Ba (2015).
    """
    corrected = _rms_debiased if convention == "optax" else _rms_keras
    rule = corrected if bias_correction else _rms
    roots = _roots(eps, True) if eps_in_sqrt else {"eps": eps, "eps_root": eps_root}
    return leafwise(rule, slots={"v": real_full}, initial=initial_scale, decay=decay, **roots)


def _nadam_rms(u, at, v, *, decay, eps, eps_root):
    """v ← β v + (1 - β) g²
    v̂ = β v / (1 - βᵗ)
    u ← u / (√(v̂ + ε₀) + ε)
    """
    v = lerp(abs_sq(at.g), v, decay)
    return divide_by_root(u, decay * debias(v, decay, at.t), eps, eps_root), v


@transformation
def scale_by_nadam_rms(decay: Decay = 0.999, eps: Epsilon = 1e-8, eps_root: Epsilon = 0.0):
    """Like the bias-corrected `scale_by_rms`, with the second moment once more times β, as Nadam
    was published.

        v ← β v + (1 - β) g²
        u ← u / (√(β v / (1 - βᵗ) + ε₀) + ε)

    Memory: one slot `v`, 4 bytes per parameter.

    Source: T. Dozat, Incorporating Nesterov Momentum into Adam (2016), algorithm 2. Other
    implementations omit the β.
    """
    return leafwise(_nadam_rms, slots={"v": real_zeros}, decay=decay, eps=eps, eps_root=eps_root)


def _variance(mean_square, mean):
    """The variance, at least 0, and infinite where a square is."""
    square = abs_sq(mean)
    variance = jnp.maximum(mean_square - square, 0)
    return jnp.where(jnp.isinf(square), square, variance)


def _stddev(u, at, m, v, *, decay, eps, eps_root):
    """m ← β m + (1 - β) g
    v ← β v + (1 - β) g²
    u ← u / (√(v - m² + ε₀) + ε)
    """
    m, v = lerp(at.g, m, decay), lerp(abs_sq(at.g), v, decay)
    return divide_by_root(u, _variance(v, m), eps, eps_root), m, v


def _stddev_debiased(u, at, m, v, *, decay, eps, eps_root):
    """m ← β m + (1 - β) g
    v ← β v + (1 - β) g²
    m̂ = m / (1 - βᵗ)
    v̂ = v / (1 - βᵗ)
    u ← u / (√(v̂ - m̂² + ε₀) + ε)
    """
    m, v = lerp(at.g, m, decay), lerp(abs_sq(at.g), v, decay)
    variance = _variance(debias(v, decay, at.t), debias(m, decay, at.t))
    return divide_by_root(u, variance, eps, eps_root), m, v


@transformation
def scale_by_stddev(
    decay: Decay = 0.9, eps: Epsilon = 1e-8, initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True, bias_correction: bool = False,
):  # fmt: skip
    """Divide by the standard deviation of the gradients: centred RMSprop's preconditioner.

        m ← β m + (1 - β) g,  v ← β v + (1 - β) g²
        u ← u / √(v - m² + ε)      eps_in_sqrt
        u ← u / (√(v - m²) + ε)    otherwise

    A variance that rounding makes negative counts as 0. With `bias_correction` both averages are
    divided by 1 - βᵗ.

    Memory: slots `m` and `v`, 8 bytes per parameter.

    Source: A. Graves, Generating Sequences With Recurrent Neural Networks (2013), equations 38 to
    45.
    """
    rule = _stddev_debiased if bias_correction else _stddev
    slots, roots = {"m": zeros(), "v": real_full}, _roots(eps, eps_in_sqrt)
    return leafwise(rule, slots=slots, initial=initial_scale, decay=decay, **roots)


def _adadelta(u, at, e_g, e_x, *, rho, eps):
    """E_g ← ρ E_g + (1 - ρ) g²
    Δ = u √(E_x + ε) / √(E_g + ε)
    E_x ← ρ E_x + (1 - ρ) Δ²
    u = Δ
    """
    e_g = lerp(abs_sq(at.g), e_g, rho)
    # one root of the ratio: half the temporaries, 0.75 of the time
    u = jnp.sqrt((e_x + eps) / (e_g + eps)) * u
    return u, e_g, lerp(abs_sq(u), e_x, rho)


@transformation
def scale_by_adadelta(rho: Decay = 0.9, eps: Epsilon = 1e-6):
    """Scale by the ratio of the RMS of past steps to the RMS of gradients, so that the step has the
    parameter's units.

        E[g²] ← ρ E[g²] + (1 - ρ) g²
        u ← u √(E[Δ²] + ε) / √(E[g²] + ε)
        E[Δ²] ← ρ E[Δ²] + (1 - ρ) u²

    Units: of the parameter; no learning rate is needed.
    Memory: slots `e_g` and `e_x`, 8 bytes per parameter.

    Source: M. D. Zeiler, ADADELTA (2012), algorithm 1.
    """
    return leafwise(_adadelta, slots={"e_g": real_zeros, "e_x": real_zeros}, rho=rho, eps=eps)


def _max_of_debiased(u, at, v, v_max, *, decay, eps, eps_root):
    """v ← β v + (1 - β) g²
    w ← max(w, v / (1 - βᵗ))
    u ← u / (√(w + ε₀) + ε)
    """
    v = lerp(abs_sq(at.g), v, decay)
    v_max = jnp.maximum(v_max, debias(v, decay, at.t))
    return divide_by_root(u, v_max, eps, eps_root), v, v_max


def _max_debiased(u, at, v, v_max, *, decay, eps, eps_root):
    """v ← β v + (1 - β) g²
    w ← max(w, v)
    u ← u / (√(w / (1 - βᵗ) + ε₀) + ε)
    """
    v = lerp(abs_sq(at.g), v, decay)
    v_max = jnp.maximum(v_max, v)
    return divide_by_root(u, debias(v_max, decay, at.t), eps, eps_root), v, v_max


def _max(u, at, v, v_max, *, decay, eps, eps_root):
    """v ← β v + (1 - β) g²
    w ← max(w, v)
    u ← u / (√(w + ε₀) + ε)
    """
    v = lerp(abs_sq(at.g), v, decay)
    v_max = jnp.maximum(v_max, v)
    return divide_by_root(u, v_max, eps, eps_root), v, v_max


def _max_keras(u, at, v, v_max, *, decay, eps, eps_root):
    """v ← β v + (1 - β) g²
    w ← max(w, v)
    u ← √(1 - βᵗ) u / (√(w + ε₀) + ε)
    """
    u, v, v_max = _max(u, at, v, v_max, decay=decay, eps=eps, eps_root=eps_root)
    return u * jnp.sqrt(_correction(decay, at.t, v.dtype)), v, v_max


_MAXIMA = {"optax": _max_of_debiased, "torch": _max_debiased, "keras": _max_keras, "paper": _max}


@transformation(conventions=tuple(_MAXIMA))
def scale_by_rms_max(
    decay: Decay = 0.999, eps: Epsilon = 1e-8, eps_root: Epsilon = 0.0, *, convention: str = "optax"
):
    """Divide by the root of the largest average of squared gradients so far: AMSGrad's
    preconditioner.

        v ← β v + (1 - β) g²
        w ← max(w, v / (1 - βᵗ)),  u ← u / (√(w + ε₀) + ε)             convention="optax"
        w ← max(w, v),             u ← u / (√(w / (1 - βᵗ) + ε₀) + ε)  "torch": correct the maximum
        w ← max(w, v),             u ← u √(1 - βᵗ) / (√(w + ε₀) + ε)   "keras": eps is not corrected
        w ← max(w, v),             u ← u / (√(w + ε₀) + ε)             "paper": no correction

    Memory: slots `v` and `v_max`, 8 bytes per parameter.

    Source: S. J. Reddi, S. Kale, S. Kumar, On the Convergence of Adam and Beyond (2018), algorithm
    2.
    """
    slots = {"v": real_zeros, "v_max": real_zeros}
    return leafwise(_MAXIMA[convention], slots=slots, decay=decay, eps=eps, eps_root=eps_root)


def _inf_norm(u, at, v, *, decay, eps):
    """v ← max(β v, |g| + ε)
    u ← u / v
    """
    v = jnp.maximum(decay * v, jnp.abs(at.g) + eps)
    return safe_divide(u, v), v


def _inf_norm_keras(u, at, v, *, decay, eps):
    """v ← max(β v, |g|)
    u ← u / (v + ε)
    """
    v = jnp.maximum(decay * v, jnp.abs(at.g))
    # where no gradient was ever other than zero, the quotient is as steep as 1/ε: see
    # `divide_by_root`
    return jnp.where(v == 0, jnp.zeros_like(u), safe_divide(u, v + eps)), v


@transformation(conventions=("optax", "keras"))
def scale_by_inf_norm(decay: Decay = 0.999, eps: Epsilon = 1e-8, *, convention: str = "optax"):
    """Divide by a decaying maximum of absolute gradients: AdaMax's preconditioner.

        v ← max(β v, |g| + ε),  u ← u / v            convention="optax", and so torch
        v ← max(β v, |g|),      u ← u / (v + ε)      "keras"

    The paper has no ε; with `eps=0` a gradient that was always zero gives a zero update.

    Memory: one slot `v`, 4 bytes per parameter.

    Source: D. P. Kingma, J. Ba, Adam (2015), algorithm 2.
    """
    rule = _inf_norm if convention == "optax" else _inf_norm_keras
    return leafwise(rule, slots={"v": real_zeros}, decay=decay, eps=eps)


def yogi_square(g, v, decay):
    """v - (1 - β) sign(v - g²) g², which stays infinite once it is."""
    square = abs_sq(g)
    move = (1 - decay) * square
    return jnp.where(v < square, v + move, jnp.where(v > square, v - move, v))


def _yogi(u, at, v, *, decay, eps, eps_root):
    """v ← v - (1 - β) sign(v - g²) g²
    v̂ = v / (1 - βᵗ)
    u ← u / (√(v̂ + ε₀) + ε)
    """
    v = yogi_square(at.g, v, decay)
    return divide_by_root(u, debias(v, decay, at.t), eps, eps_root), v


@transformation
def scale_by_yogi_rms(
    decay: Decay = 0.999, eps: Epsilon = 1e-3, eps_root: Epsilon = 0.0,
    initial_accumulator_value: NonNegative = 1e-6,
):  # fmt: skip
    """Like the bias-corrected `scale_by_rms`, with an average that moves by at most (1 - β) g² per
    step: Yogi's preconditioner.

        v ← v - (1 - β) sign(v - g²) g²
        u ← u / (√(v / (1 - βᵗ) + ε₀) + ε)

    Memory: one slot `v`, 4 bytes per parameter.

    Source: M. Zaheer et al., Adaptive Methods for Nonconvex Optimization (2018), algorithm 2.
    """
    numbers = {"initial": initial_accumulator_value, "decay": decay}
    return leafwise(_yogi, slots={"v": real_full}, eps=eps, eps_root=eps_root, **numbers)


def _deviation(u, at, s, *, decay, eps, eps_root):
    """s ← β s + (1 - β) (g - u)² + ε₀
    ŝ = s / (1 - βᵗ)
    u ← u / (√ŝ + ε)
    """
    s = decay * s + ((1 - decay) * abs_sq(at.g - u) + eps_root)
    return divide_by_root(u, debias(s, decay, at.t), eps, 0.0), s


@transformation
def scale_by_deviation(decay: Decay = 0.999, eps: Epsilon = 1e-16, eps_root: Epsilon = 1e-16):
    """Divide by the root of the mean squared distance between the gradient and the step:
    AdaBelief's preconditioner.

        s ← β s + (1 - β) (g - u)² + ε₀
        u ← u / (√(s / (1 - βᵗ)) + ε)

    After `ema(debias=False)`, u is the average m and s the variance of the gradient about it.
    Without a direction before it, u = g and only ε₀ is left.

    Memory: one slot `s`, 4 bytes per parameter.

    Source: J. Zhuang et al., AdaBelief Optimizer (2020), algorithm 2.
    """
    return leafwise(_deviation, slots={"s": real_zeros}, decay=decay, eps=eps, eps_root=eps_root)
