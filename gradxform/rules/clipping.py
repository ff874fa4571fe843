"""Keep a gradient within bounds: by entry, by leaf, by the norm of the whole tree.

A clip never lengthens a gradient and never turns it (except `clip`, which acts on each entry), and
leaves it alone below the bound. An infinite norm gives a zero update, a step that is skipped; NaN
stays NaN, for `zero_nans` or the eye to catch.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp

from gradxform.core import (
    Bound,
    Decay,
    Epsilon,
    NonNegative,
    Patience,
    Positive,
    leafwise,
    transformation,
)
from gradxform.core import leaves as trees
from gradxform.numerics import abs_sq, clip_parts, lerp, safe_divide, safe_sqrt
from gradxform.rules.measures import cast, leaf_zero, norm, zero

__all__ = ["adagc", "adaptive_grad_clip", "clip", "clip_by_block_rms", "clip_by_global_norm"]
__all__ += ["clip_by_leaf_norm", "zclip"]


def _clip(u, at, *, max_delta):
    """u ← min(max(u, -δ), δ)"""
    return clip_parts(u, max_delta)


@transformation
def clip(max_delta: Bound):
    """Clip each entry to [-δ, δ]: u ← min(max(u, -δ), δ); real and imaginary parts apart.

    Memory: none.
    """
    return leafwise(_clip, max_delta=max_delta)


def _shrink(square, max_norm):
    """min(1, c / ‖u‖), and 1 for a zero norm."""
    norm = safe_sqrt(square)
    max_norm = jnp.asarray(max_norm, norm.dtype)
    return jnp.where(norm <= max_norm, jnp.ones_like(norm), safe_divide(max_norm, norm))


def _times(u, factor):
    return jnp.where(jnp.isinf(u), jnp.zeros_like(u), u * factor)


def _leaf_norm(u, at, *, max_norm):
    """u ← u min(1, c / ‖u‖)"""
    return _times(u, _shrink(jnp.sum(abs_sq(u)), max_norm))


@transformation
def clip_by_leaf_norm(max_norm: Bound):
    """Shorten each leaf to a norm of at most c: u ← u min(1, c / ‖u‖), ‖u‖ over the entries of that
    leaf.

    Memory: none.

    Source: R. Pascanu, T. Mikolov, Y. Bengio, On the difficulty of training recurrent neural
    networks (2013), algorithm 1.
    """
    return leafwise(_leaf_norm, max_norm=max_norm)


def _block_rms(u, at, *, threshold):
    """u ← u min(1, c / √mean(u²))"""
    return _times(u, _shrink(jnp.mean(abs_sq(u)), threshold))


@transformation
def clip_by_block_rms(threshold: Bound):
    """Shorten each leaf to a root mean square of at most c: u ← u min(1, c / rms(u)).

    Memory: none.

    Source: N. Shazeer, M. Stern, Adafactor (2018), section 6.
    """
    return leafwise(_block_rms, threshold=threshold)


def _global_norm(updates, at, *, max_norm):
    """s = min(1, c / ‖u‖)      ‖u‖ over all leaves"""
    return (_shrink(trees.sum_of_squares(updates), max_norm),)


def _rescale(u, at):
    """u ← s u"""
    return _times(u, at.scalars)


@transformation
def clip_by_global_norm(max_norm: Bound):
    """Shorten the whole update to a norm of at most c: u ← u min(1, c / ‖u‖), ‖u‖ over all leaves.

    The norm is one pass over the leaves, and the factor is folded into the next rule's own pass: no
    temporary the size of the parameters.

    Memory: none.

    Source: R. Pascanu, T. Mikolov, Y. Bengio, On the difficulty of training recurrent neural
    networks (2013), algorithm 1.

    Not: a clip for each leaf (`clip_by_leaf_norm`).
    """
    return leafwise(_rescale, measure=_global_norm, max_norm=max_norm)


def _unit_axes(shape: tuple[int, ...], axis):
    """The axes that make a unit: those given, or by rank: all of a vector, all but the last of a
    kernel, the first of rank 3.
    """
    if axis is not None:
        return axis
    if sum(n != 1 for n in shape) <= 1:
        return None
    if len(shape) in (2, 3):
        return 0
    if len(shape) in (4, 5):
        return tuple(range(len(shape) - 1))
    words = f"an array of shape {shape} has units of no usual kind; give axis"
    raise ValueError(f"unitwise_norm: {words}")


def _unit_norms(x, axes):
    return safe_sqrt(jnp.sum(abs_sq(x), axis=axes, keepdims=True))


def unitwise_norm(x, axis=None):
    """The norm of each unit of an array, repeated to its shape.

    A unit is the whole of a vector or scalar, a column of a matrix (axis 0), and, in a kernel of
    rank 4 or 5, everything but the last axis; of rank 3 it is axis 0. `axis` gives the axes
    instead.

    Raises:
        ValueError: an array of rank 6 or more without `axis`.
    """
    return jnp.broadcast_to(_unit_norms(x, _unit_axes(x.shape, axis)), x.shape)


@dataclass(frozen=True)
class _UnitClip:
    """Clips each unit: a column, a filter or a vector."""

    axis: int | tuple[int, ...] | None
    equation = "u ← u min(1, c max(‖p‖, ε) / ‖u‖)"

    def __call__(self, u, at, *, clipping, eps):
        axes = _unit_axes(u.shape, self.axis)
        square = jnp.sum(abs_sq(u), axis=axes, keepdims=True)
        return _times(u, _shrink(square, clipping * jnp.maximum(_unit_norms(at.p, axes), eps)))


@transformation
def adaptive_grad_clip(
    clipping: Bound, eps: Epsilon = 1e-3, axis: int | tuple[int, ...] | None = None
):
    """Shorten each unit's gradient to a share of the unit's weight: ‖u‖ ≤ c max(‖p‖, ε).

        u ← u min(1, c max(‖p‖, ε) / ‖u‖)        for each column, filter or vector (`unitwise_norm`)

    Memory: none.

    Raises:
        ValueError: update() without params; a parameter of rank 6 or more without `axis`.

    Source: A. Brock et al., High-Performance Large-Scale Image Recognition Without Normalization
    (2021), equation 3.
    """
    return leafwise(_UnitClip(axis), name="adaptive_grad_clip", clipping=clipping, eps=eps)


def _zclip_bound(updates, at, mean, variance, *, decay, threshold, warmup_steps, max_norm, eps):
    """n = ‖u‖      over all leaves
    σ = √v
    z = (n - μ) / (σ + ε)
    n' = n      μ + z₀² σ / z where z > z₀ and t > T
    s = min(n' / n, c / n, 1)
    μ ← β μ + (1 - β) n'      the mean while t ≤ T
    v ← β v + (1 - β) (n' - μ)²      the variance while t ≤ T
    """
    norm = safe_sqrt(trees.sum_of_squares(updates)).astype(mean.dtype)
    decay, threshold, eps, cap = cast(mean.dtype, decay, threshold, eps, max_norm)
    t, warming = at.t.astype(mean.dtype), at.t <= warmup_steps

    spread = safe_sqrt(variance)
    z = (norm - mean) / (spread + eps)
    spike = ~warming & (z > threshold)
    calm = jnp.where(spike, z, jnp.ones_like(z))
    kept = jnp.where(spike, mean + threshold**2 / calm * spread, norm)
    factor = jnp.minimum(safe_divide(kept, norm), safe_divide(cap, norm))
    factor = jnp.where(jnp.isfinite(norm), factor, jnp.zeros_like(norm))
    factor = jnp.where(norm > 0, jnp.minimum(factor, jnp.ones_like(factor)), jnp.ones_like(norm))

    # the mean and variance of the warm-up's norms, as they come in
    first_mean = mean + (kept - mean) / t
    first_variance = variance + ((kept - mean) * (kept - first_mean) - variance) / t
    next_mean = lerp(kept, mean, decay)
    next_variance = lerp((kept - next_mean) ** 2, variance, decay)
    new_mean = jnp.where(warming, first_mean, next_mean)
    new_variance = jnp.where(warming, first_variance, next_variance)
    usable = jnp.isfinite(kept)
    return factor, jnp.where(usable, new_mean, mean), jnp.where(usable, new_variance, variance)


@transformation
def zclip(
    threshold: Positive = 2.5, decay: Decay = 0.97, warmup_steps: Patience = 25,
    max_norm: NonNegative | None = 1.0, eps: Epsilon = 1e-6,
):  # fmt: skip
    """Shorten a gradient whose norm is an outlier among those before it.

        n = ‖u‖ over all leaves,  z = (n - μ) / (σ + ε)
        n' = μ + z₀² σ / z            where z > z₀ = `threshold`: the worse the outlier, the shorter
        u ← u min(n' / n, c / n, 1)   c = `max_norm`, None for none
        μ ← β μ + (1 - β) n',  σ² ← β σ² + (1 - β) (n' - μ)²

    During the first `warmup_steps` the norm is only cut at c, and μ and σ² are the mean and
    variance of what was seen. A norm that is not finite gives a zero update and is not learned.

    Memory: two scalars, `mean` and `variance`.

    Source: A. Kumar et al., ZClip: Adaptive Spike Mitigation for LLM Pre-Training (2025), algorithm
    1.
    """
    numbers = {"decay": decay, "threshold": threshold, "warmup_steps": warmup_steps, "eps": eps}
    numbers["max_norm"] = math.inf if max_norm is None else max_norm
    memory = {"mean": zero, "variance": zero}
    return leafwise(_rescale, measure=_zclip_bound, memory=memory, **numbers)


def _norm(updates, at):
    """n = ‖u‖      over all leaves"""
    return (safe_sqrt(trees.sum_of_squares(updates)),)


def _adagc(u, at, gamma, *, lambda_rel, lambda_abs, beta, warmup_steps, eps):
    """s = min(1, λ_rel γ / ‖u‖)      γ at least ε
    s = min(1, λ_abs / (n + ε))      while t < T
    γ ← β γ + (1 - β) ‖s u‖
    γ ← min(γ, ‖s u‖)      while t < T
    u ← s u
    """
    length = norm(u)
    warming = (at.t < warmup_steps) | (at.t == 1)
    absolute = jnp.minimum(lambda_abs / (at.scalars + eps), 1)
    relative = jnp.minimum(lambda_rel * jnp.maximum(gamma, eps) / jnp.maximum(length, eps), 1)
    factor = jnp.where(warming, absolute, relative)
    u = _times(u, factor)
    length = jnp.where(jnp.isfinite(length), length * factor, gamma)
    learned = jnp.where(at.t == 1, length, jnp.minimum(gamma, length))
    return u, jnp.where(warming, learned, lerp(length, gamma, beta))


@transformation
def adagc(
    lambda_rel: Positive = 1.05, lambda_abs: Positive = 1.0, beta: Decay = 0.98,
    warmup_steps: Patience = 100, eps: Epsilon = 1e-8,
):  # fmt: skip
    """Shorten each leaf to a little more than what its clipped norm has been on average.

        during warm-up, t < `warmup_steps`:   h = min(λ_abs / ‖all u‖, 1),  γ ← min(γ, ‖h u‖)
        then:                                 h = min(λ_rel γ / ‖u‖, 1),    γ ← β γ + (1 - β) ‖h u‖
        u ← h u

    Memory: one scalar per leaf, `gamma`, a norm.

    Source: G. Wang et al., AdaGC: Improving Training Stability for Large Language Model Pretraining
    (2025), algorithm 1.
    """
    numbers = {"lambda_rel": lambda_rel, "lambda_abs": lambda_abs, "beta": beta, "eps": eps}
    numbers["warmup_steps"] = warmup_steps
    return leafwise(_adagc, slots={"gamma": leaf_zero}, measure=_norm, **numbers)
