"""Transformations that are not leaf by leaf: named as any other, and free to take updates of
another shape than the parameters.
"""

from functools import reduce

import jax
import jax.numpy as jnp

from gradxform.core import copied, real_zeros, zeros
from gradxform.core import leaves as trees
from gradxform.numerics import abs_sq, lerp, real_dtype, safe_sqrt, wide_dtype

# --- sums over a tree, for measures
# ----------------------------------------------------------------------------------


def total(f, *lists, numbers=()):
    """Σ f(x, y, …, *numbers) over the leaves of lists side by side, each widened to float32 at
    least; absent leaves are left out.

    f is traced once for each distinct shape, so it should be a function of the module and take its
    numbers as arguments.
    """
    rows = [row for row in zip(*lists, strict=True) if row[0] is not None]
    out = jnp.zeros((), jnp.float32)
    for part in trees.map_leaves(_widened, [(f, len(lists))] * len(rows), rows, tuple(numbers)):
        dtype = wide_dtype(out.dtype, part.dtype)
        out = out.astype(dtype) + part.astype(dtype)
    return out


def _widened(key, *arguments):
    f, count = key
    dtype = wide_dtype(*(x.dtype for x in arguments[:count]))
    real = real_dtype(dtype)
    wide = (x.astype(real if jnp.isrealobj(x) else dtype) for x in arguments[:count])
    return f(*wide, *(jnp.asarray(x, real) for x in arguments[count:])).astype(real)


def each(f, *lists):
    """f over leaves side by side, None where the first is."""
    return [None if row[0] is None else f(*row) for row in zip(*lists, strict=True)]


def average(x, old, decay):
    """The weighted mean of a leaf and the old average, in the dtype of that."""
    return lerp(x.astype(old.dtype), old, jnp.asarray(decay, jnp.real(old).dtype))


def squared(x, like):
    """|x|², in the dtype of what it goes into, where that is wider."""
    return abs_sq(x.astype(wide_dtype(x.dtype, like.dtype)))


def cast(dtype, *numbers):
    """The numbers as arrays of a dtype."""
    return tuple(jnp.asarray(x, dtype) for x in numbers)


def inner(x, y):
    """⟨x, y⟩, real."""
    return jnp.real(jnp.sum(jnp.conj(x) * y))


def wide(x):
    """An array in float32 at least."""
    return x.astype(wide_dtype(x.dtype))


def norm(x):
    """‖x‖, of one leaf."""
    return safe_sqrt(jnp.sum(abs_sq(x)))


def rms(x):
    """The root of the mean square of one leaf."""
    return safe_sqrt(jnp.mean(abs_sq(x)))


def _largest(key, x):
    return jnp.max(jnp.abs(x), initial=0).astype(wide_dtype(jnp.real(x).dtype))


def _scaled_square(x, scale):
    return jnp.sum(abs_sq(x / scale))


def length(leaves):
    """‖x‖ over a list of leaves, also where a square is no number: a pass more than a sum of
    squares.
    """
    rows = [(jax.lax.stop_gradient(x),) for x in leaves if x is not None]
    found = trees.map_leaves(_largest, [None] * len(rows), rows)
    dtype = wide_dtype(*(x.dtype for x in found))
    scale = reduce(jnp.maximum, (x.astype(dtype) for x in found), jnp.zeros((), dtype))
    usual = (scale > 0) & jnp.isfinite(scale)
    scale = jnp.where(usual, scale, jnp.ones_like(scale))
    return scale * safe_sqrt(total(_scaled_square, leaves, numbers=(scale,)).astype(dtype))


def distance_squared(x, y):
    """‖x - y‖²."""
    return inner(x - y, x - y)


def leaves_of(tree):
    """The leaves of a tree, None included."""
    return jax.tree.leaves(tree, is_leaf=trees.is_none)


def like(tree, leaves):
    """The leaves as a tree of the same structure, None included."""
    return jax.tree.structure(tree, is_leaf=trees.is_none).unflatten(leaves)


def copy(params):
    """A copy of the parameters in float32 at least, in buffers of its own."""
    return trees.tree_map(copied(), params)


def zeros_like(params):
    """Zeros like the parameters, float32 at least."""
    return trees.tree_map(zeros(), params)


def real_zeros_like(params):
    """Zeros like the parameters, real, float32 at least."""
    return trees.tree_map(real_zeros, params)


def leaf_zero(p):
    """A real scalar 0 for each leaf, float32 at least."""
    return jnp.zeros_like(p, real_dtype(wide_dtype(p.dtype)), ())


def number(x):
    """A number as a float array of its own."""
    return jnp.asarray(x, float) + jnp.zeros((), float)


def zero(params):
    """A scalar 0."""
    return jnp.zeros((), float)


def times_scalar(u, at):
    """u ← s u"""
    return u * at.scalars
