"""Arithmetic on one array: averages and their corrections, roots and quotients that stay
differentiable at zero.

Everything here is written so that a number given in Python keeps its double precision until it
meets an array (`1 - 0.999` is `0.001`), and a traced number, rounded to float32 once, is used
consistently: an average and its bias correction see the same rounded decay, so they agree to about
1e-7.
"""

import math
from contextlib import nullcontext
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np


def abs_sq(x):
    """|x|², real also for complex x."""
    return (x.real * x.real + x.imag * x.imag) if jnp.iscomplexobj(x) else x * x


def increment(count, period: int | jax.Array = 1):
    """n + 1, which at the largest number of its integer dtype stays there and does not wrap.

    With a `period` it goes back by one from there, so that what happens at every so many counts
    goes on happening.
    """
    count = jnp.asarray(count)
    last = jnp.iinfo(count.dtype).max
    if isinstance(period, int) and period == 1:  # what every rule runs: two operations
        return jnp.minimum(count, np.asarray(last - 1, count.dtype)) + 1
    back = jnp.asarray(period, count.dtype)
    return jnp.where(count == np.asarray(last, count.dtype), count - back, count) + 1


def lerp(new, old, decay):
    """decay·old + (1 - decay)·new: one step of an exponentially weighted average."""
    return decay * old + (1 - decay) * new


def _select(where, x, y):
    """`jnp.where`, traced as one operation where nothing is to be broadcast or promoted."""
    if jnp.shape(where) == jnp.shape(x) == jnp.shape(y) and x.dtype == y.dtype:
        return jax.lax.select(where, x, y)
    return jnp.where(where, x, y)


def bias_correction(decay, t, dtype):
    """1 - decayᵗ for t = 1, 2, …, without cancellation and with a finite slope at decay = 0.

    And 1 for decay = 1: such an average stays at the 0 it began at, with nothing to correct.

    Written as (1 - decay) + decay·(1 - decayᵗ⁻¹), so it is exactly `1 - decay` at the first step,
    where the average is exactly `(1 - decay)·g`: the first corrected average is g itself.
    """
    rest = jnp.asarray(t - 1, dtype)
    if isinstance(decay, float | int):
        if decay in (0, 1):
            return jnp.ones((), dtype)
        return (1 - decay) - decay * jnp.expm1(rest * math.log(decay))
    positive = decay > 0
    power = -jnp.expm1(rest * jnp.log(_select(positive, decay, jnp.ones_like(decay))))
    correction = (1 - decay) + decay * _select(positive, power, (rest > 0).astype(dtype))
    return _select(decay < 1, correction, jnp.ones_like(correction))


def debias(average, decay, t):
    """average / (1 - decayᵗ): an exponentially weighted average without its pull towards the zero
    it began at.
    """
    return average / bias_correction(decay, t, real_dtype(average.dtype))


@jax.custom_jvp
def safe_sqrt(x):
    """√x, whose slope at 0 is 0 (the subgradient) instead of infinite."""
    return jnp.sqrt(x)


@safe_sqrt.defjvp
def _safe_sqrt_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    root = safe_sqrt(x)
    positive = x > 0
    slope = dx / (2 * jnp.where(positive, root, jnp.ones_like(root)))
    return root, jnp.where(positive, slope, jnp.zeros_like(root))


def root_for(x, square):
    """√square, to divide x by: |x| where the square was too small to be a number."""
    zero = square == 0
    size = jnp.abs(jax.lax.stop_gradient(x))
    return _select(zero, size, jnp.sqrt(_select(zero, jnp.ones_like(square), square)))


def _quotient(x, y):
    zero = y == 0
    return _select(zero, jnp.zeros_like(x), x / _select(zero, jnp.ones_like(y), y))


@jax.custom_jvp
def safe_divide(x, y):
    """x / y, and 0 with slope 0 where y = 0."""
    return _quotient(x, y)


@safe_divide.defjvp
def _safe_divide_jvp(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    zero = y == 0
    inverse = jnp.where(zero, jnp.zeros_like(y), 1 / jnp.where(zero, jnp.ones_like(y), y))
    out = x * inverse
    return out, (dx - out * dy) * inverse


def divide_by_root(x, square, eps, eps_root):
    """x / (√(square + eps_root) + eps), with slope 0 where the mean square itself is 0.

    At `square = 0` every gradient so far was exactly zero. The quotient behaves there like sign(x),
    steeper the smaller eps is: its true slope is 1/eps, 1e8 for Adam, which a meta-gradient would
    drown in. As for `sign`, `relu` and `abs`, the slope at that single point is chosen to be 0.
    A denominator of 0 under an x that is not 0 is a square that was too small to be a number:
    then it is sign(x), whatever the scale of the gradients.
    """
    positive = isinstance(eps, float | int) and eps > jnp.finfo(square.dtype).tiny
    return _divide_by_root(x, square, eps, eps_root, positive)


@partial(jax.custom_jvp, nondiff_argnums=(4,))
def _divide_by_root(x, square, eps, eps_root, positive):
    denominator = jnp.sqrt(square + eps_root) + eps
    if positive:
        return x / denominator
    zero = denominator == 0
    return _select(zero, jnp.sign(x), x / _select(zero, jnp.ones_like(denominator), denominator))


@_divide_by_root.defjvp
def _divide_by_root_jvp(positive, primals, tangents):
    x, square, eps, eps_root = primals
    dx, dsquare, deps, deps_root = tangents
    zero = square == 0
    inside = square + eps_root
    root = jnp.sqrt(jnp.where(inside > 0, inside, jnp.ones_like(inside)))
    denominator = root + eps
    out = _divide_by_root(x, square, eps, eps_root, positive)
    slope = (dx - out * ((dsquare + deps_root) / (2 * root) + deps)) / denominator
    return out, jnp.where(zero, jnp.zeros_like(slope), slope)


def agreement(x, y):
    """Positive where two entries point the same way, however small they are; negative where not."""
    return jnp.real(jnp.sign(x) * jnp.conj(jnp.sign(y)))


def clip_parts(x, bound):
    """min(max(x, -bound), bound), of a complex x the real and the imaginary part apart."""
    if not jnp.iscomplexobj(x):
        return jnp.clip(x, -bound, bound)
    return jax.lax.complex(jnp.clip(x.real, -bound, bound), jnp.clip(x.imag, -bound, bound))


def real_dtype(dtype):
    """The real dtype of the same precision: float32 for complex64."""
    complex_ = np.issubdtype(dtype, np.complexfloating)
    return np.dtype(dtype).type(0).real.dtype if complex_ else jnp.dtype(dtype)


def wide_dtype(*dtypes):
    """The dtype in which a rule computes: the promotion of its arrays' dtypes, float32 at least.

    Mixing a parameter's dtype with its gradient's is meant here, so strict promotion does not
    apply; an 8-bit float, which JAX promotes with nothing, counts as float32.
    """
    eight = [jnp.issubdtype(d, jnp.floating) and jnp.dtype(d).itemsize == 1 for d in dtypes]
    given = [jnp.float32 if narrow else d for d, narrow in zip(dtypes, eight, strict=True)]
    with jax.numpy_dtype_promotion("standard"):
        return jnp.dtype(jnp.result_type(jnp.float32, *given))


def mixed(x):
    """Where a rule mixes |x|² with a complex x, which strict promotion would not have."""
    return jax.numpy_dtype_promotion("standard") if jnp.iscomplexobj(x) else nullcontext()


def is_key(x) -> bool:
    """Whether an array, or a shape, holds random keys."""
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
