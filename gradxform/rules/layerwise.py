"""One scale for a whole leaf: trust ratios, norms of blocks, NovoGrad's second moment, SM3's rows
and columns.
"""

from functools import reduce

import jax.numpy as jnp

from gradxform.core import dtype_name, leafwise, only, transformation, zeros
from gradxform.core.hyper import Decay, Epsilon, Fraction, NonNegative, Positive, WeightDecay
from gradxform.core.slots import reduced_zeros
from gradxform.numerics import abs_sq, divide_by_root, lerp, real_dtype, safe_divide, wide_dtype
from gradxform.rules.measures import leaf_zero, norm, rms

__all__ = ["scale_by_novograd", "scale_by_param_block_norm", "scale_by_param_block_rms"]
__all__ += ["scale_by_sm3", "scale_by_trust_ratio"]


def _param_block_norm(u, at, *, min_scale):
    """u ← u max(‖p‖, ε₂)"""
    return u * jnp.maximum(norm(at.p), min_scale)


@transformation
def scale_by_param_block_norm(min_scale: NonNegative = 1e-3):
    """Multiply by the norm of the parameter's leaf: u ← u max(‖p‖, min).

    Memory: none.

    Raises:
        ValueError: update() without params.

    Source: Y. You, I. Gitman, B. Ginsburg, Large Batch Training of Convolutional Networks (2017),
    the numerator of equation 6.
    """
    return leafwise(_param_block_norm, min_scale=min_scale)


def _param_block_rms(u, at, *, min_scale):
    """u ← u max(√mean(p²), ε₂)"""
    return u * jnp.maximum(rms(at.p), min_scale)


@transformation
def scale_by_param_block_rms(min_scale: NonNegative = 1e-3):
    """Multiply by the root mean square of the parameter's leaf: u ← u max(√mean(p²), min).

    Memory: none.

    Raises:
        ValueError: update() without params.

    Source: N. Shazeer, M. Stern, Adafactor (2018), section 8: relative step sizes.
    """
    return leafwise(_param_block_rms, min_scale=min_scale)


def _trust(u, p_norm, trust_coefficient, min_norm, eps):
    u_norm = jnp.maximum(norm(u), min_norm)
    ratio = trust_coefficient * safe_divide(p_norm, u_norm + eps)
    ratio = jnp.where((p_norm == 0) | (u_norm == 0), jnp.ones_like(ratio), ratio)
    return u * jnp.where(jnp.isinf(u_norm), jnp.zeros_like(ratio), ratio)


def _trust_ratio(u, at, *, min_norm, trust_coefficient, eps):
    """u ← η u max(‖p‖, n) / (max(‖u‖, n) + ε)"""
    return _trust(u, jnp.maximum(norm(at.p), min_norm), trust_coefficient, min_norm, eps)


def _trust_ratio_bounded(u, at, *, min_norm, trust_coefficient, eps, max_norm):
    """u ← η u min(max(‖p‖, n), c) / (max(‖u‖, n) + ε)"""
    p_norm = jnp.minimum(jnp.maximum(norm(at.p), min_norm), max_norm)
    return _trust(u, p_norm, trust_coefficient, min_norm, eps)


@transformation
def scale_by_trust_ratio(
    min_norm: NonNegative = 0.0, trust_coefficient: NonNegative = 1.0, eps: Epsilon = 0.0, *,
    max_norm: Positive | None = None,
):  # fmt: skip
    """Give each leaf's step the length of its parameter: LARS's and LAMB's layer-wise rate.

        u ← u η ‖p‖ / (‖u‖ + ε)            and u as it is where ‖p‖ or ‖u‖ is 0

    Norms over the leaf, each at least `min_norm`; ‖p‖ at most `max_norm` (LAMB's φ).

    Units: of the parameter: a learning rate after it is a relative one.
    Memory: none.

    Raises:
        ValueError: update() without params.

    Source: Y. You et al., Large Batch Optimization for Deep Learning (2020), algorithm 2.
    """
    numbers = {"min_norm": min_norm, "trust_coefficient": trust_coefficient, "eps": eps}
    if max_norm is None:
        return leafwise(_trust_ratio, **numbers)
    return leafwise(_trust_ratio_bounded, max_norm=max_norm, **numbers)


def _trust_ratio_where(u, at, *, selected, trust_coefficient, eps):
    """u ← u [φ η ‖p‖ / (‖u‖ + ε) + 1 - φ]"""
    return jnp.where(selected > 0, _trust(u, norm(at.p), trust_coefficient, 0.0, eps), u)


def _lamb_keras(u, at, *, learning_rate, weight_decay):
    """q = (1 - α λ) p
    p ← q - α u ‖q‖ / ‖u‖
    """
    p = (1 - learning_rate * weight_decay) * at.p
    return -learning_rate * (_trust(u, norm(p), 1.0, 0.0, 0.0) + weight_decay * at.p)


def _lars_ratio(u, at, *, selected, trust_coefficient, eps, weight_decay):
    """r = φ η ‖p‖ / (‖u‖ + λ ‖p‖ + ε) + 1 - φ
    u ← r (u + λ p)
    """
    p_norm, u_norm = norm(at.p), norm(u)
    ratio = trust_coefficient * safe_divide(p_norm, u_norm + weight_decay * p_norm + eps)
    # no step of its own leaves the decay, whose ratio is η / λ
    nothing = (u_norm == 0) & (weight_decay == 0)
    apart = (p_norm == 0) | nothing | (selected <= 0)
    return jnp.where(apart, jnp.ones_like(ratio), ratio) * (u + weight_decay * at.p)


def _fromage(u, at, *, learning_rate):
    """p ← (p - α u) / √(1 + α²)"""
    root = (1 + learning_rate**2) ** 0.5
    return -(learning_rate / root) * u - (learning_rate**2 / (root * (1 + root))) * at.p


def _novograd(u, at, m, v, *, b1, b2, eps, eps_root, weight_decay):
    """v ← β₂ v + (1 - β₂) ‖u‖²      v = ‖u‖² at the first step
    m ← β₁ m + u / (√(v + ε₀) + ε) + λ p
    u = m
    """
    square = jnp.sum(abs_sq(u))
    v = jnp.where(at.t == 1, square, lerp(square, v, b2))
    m = b1 * m + (divide_by_root(u, v, eps, eps_root) + weight_decay * at.p)
    return m, m, v


@transformation
def scale_by_novograd(
    b1: Decay = 0.9, b2: Decay = 0.25, eps: Epsilon = 1e-8, eps_root: Epsilon = 0.0,
    weight_decay: WeightDecay = 0.0, mu_dtype=None,
):  # fmt: skip
    """Momentum on gradients that are divided, leaf by leaf, by an average of their norm.

        v ← β₂ v + (1 - β₂) ‖g‖²,  v₁ = ‖g₁‖²
        m ← β₁ m + g / (√(v + ε₀) + ε) + λ p
        u = m

    Memory: slot `m`, 4 bytes per parameter (`mu_dtype` to change), and one scalar `v` per leaf.

    Raises:
        ValueError: update() without params.

    Source: B. Ginsburg et al., Stochastic Gradient Methods with Layer-wise Adaptive Moments (2019),
    algorithm 1.
    """
    slots = {"m": zeros(dtype_name(mu_dtype)), "v": leaf_zero}
    numbers = {"b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    return leafwise(_novograd, slots=slots, weight_decay=weight_decay, **numbers)


def _per_axis(p):
    """One vector for each axis; a scalar counts as having one."""
    axes = range(p.ndim)
    rows = [reduced_zeros(p, [i for i in axes if i != axis]) for axis in axes]
    return tuple(rows) or (jnp.zeros_like(p, real_dtype(wide_dtype(p.dtype)), (1,)),)


def _sm3(u, at, mu, m, *, b1, b2, eps):
    """v = β₂ minᵣ μᵣ + (1 - β₂) u²      u² whole for β₂ = 1
    μᵣ ← max v      over the entries of each row, column, …
    m ← β₁ m + (1 - β₁) u / √(v + ε)
    u = m
    """
    shape = u.shape or (1,)
    axes = range(len(shape))
    bounds = [v.reshape([-1 if i == axis else 1 for i in axes]) for axis, v in enumerate(mu)]
    share = jnp.where(jnp.equal(b2, 1), 1, 1 - b2).astype(mu[0].dtype)
    v = share * abs_sq(u).reshape(shape) + b2 * reduce(jnp.minimum, bounds)
    step = divide_by_root(u, v.reshape(u.shape), 0.0, eps)
    m = lerp(step, m, b1)
    return m, tuple(jnp.max(v, axis=[i for i in axes if i != axis]) for axis in axes), m


@transformation
def scale_by_sm3(b1: Decay = 0.9, b2: Fraction = 1.0, eps: Epsilon = 1e-8):
    """Adagrad whose sum of squares is kept only as a bound for each row and column, and momentum on
    its steps.

        v(i) = min over the axes r of μᵣ(iᵣ) + g(i)²          for b2 < 1: β₂ min μ + (1 - β₂) g²
        μᵣ(j) ← max of v(i) over the entries i with iᵣ = j
        m ← β₁ m + (1 - β₁) g / √(v + ε)
        u = m

    Shapes: a leaf of shape [a, b, c] has bounds of shapes [a], [b] and [c].
    Memory: slot `m`, 4 bytes per parameter, and `mu`, 4 bytes per row, column, …

    Source: R. Anil et al., Memory-Efficient Adaptive Optimization (2019), algorithm SM3-II.
    """
    return leafwise(_sm3, slots={"mu": _per_axis, "m": zeros()}, b1=b1, b2=b2, eps=eps)


def _block_rms_decayed(u, at, *, min_scale, rate, weight_decay):
    """r = √mean(p²)
    u ← u max((1 - α λ) r, ε₂) + α λ p
    """
    shrunk = (1 - rate * weight_decay) * rms(at.p)
    return u * jnp.maximum(shrunk, min_scale) + rate * weight_decay * at.p


def relative_step_decayed(min_scale, learning_rate, weight_decay, where):
    """Keras' form: decoupled decay first, then a step relative to the size of what is left."""
    numbers = {"rate": learning_rate, "weight_decay": only(where, weight_decay)}
    return leafwise(_block_rms_decayed, name="relative_step", min_scale=min_scale, **numbers)


def relative_step(min_scale):
    """u ← u max(rms(p), ε₂): a step relative to the parameter's own size."""
    return leafwise(_param_block_rms, name="relative_step", min_scale=min_scale)
