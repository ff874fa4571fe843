"""Put a gradient into shape: take its mean out, make it as long as one likes, keep the parameters
on one side of zero.
"""

from typing import Literal

import jax.numpy as jnp

from gradxform.core import Epsilon, Real, leafwise, transformation
from gradxform.rules.measures import cast, length, times_scalar

__all__ = ["centralize", "keep_params_nonnegative", "normalize_by_update_norm", "zero_nans"]


def _centralize(u, at):
    """u ← u - mean(u)      over all axes but the first"""
    return u - jnp.mean(u, axis=tuple(range(1, u.ndim)), keepdims=True) if u.ndim > 1 else u


def _centralize_last(u, at):
    """u ← u - mean(u)      over all axes but the last"""
    return u - jnp.mean(u, axis=tuple(range(u.ndim - 1)), keepdims=True) if u.ndim > 1 else u


@transformation
def centralize(*, outputs: Literal["first", "last"] = "first"):
    """Take the mean out of the gradient of each output: u ← u - mean(u), over all axes but that of
    the outputs.

    Leaves of one axis stay. `outputs="first"` is Optax's and torch's layout; Flax's kernels have
    their outputs "last".

    Memory: none.

    Raises:
        ValueError: outputs is neither "first" nor "last".

    Source: H. Yong et al., Gradient Centralization (2020), equation 1.
    """
    return leafwise(_centralize if outputs == "first" else _centralize_last, name="centralize")


def _inverse_norm(updates, at, *, scale_factor, eps):
    """s = c / (‖u‖ + ε)      ‖u‖ over all leaves"""
    norm = length(updates)
    scale_factor, eps = cast(norm.dtype, scale_factor, eps)
    nothing = norm == 0
    scale = scale_factor / jnp.where(nothing, jnp.ones_like(norm), norm + eps)
    return (jnp.where(nothing, jnp.zeros_like(norm), scale),)


@transformation
def normalize_by_update_norm(scale_factor: Real = 1.0, eps: Epsilon = 1e-6):
    """Give the whole update a norm of c: u ← c u / (‖u‖ + ε), ‖u‖ over all leaves; a zero update
    stays zero.

    Memory: none.

    Source: E. Hazan, K. Levy, S. Shalev-Shwartz, Beyond Convexity (2015), algorithm 1.
    """
    return leafwise(times_scalar, measure=_inverse_norm, scale_factor=scale_factor, eps=eps)


def _nonnegative(u, at):
    """u ← max(u, -p)"""
    return jnp.where(at.p + u < 0, -at.p, u)


@transformation
def keep_params_nonnegative():
    """Stop each parameter at zero: u ← max(u, -p), so that p + u ≥ 0. It comes last.

    A parameter that is negative already is moved to zero.

    Memory: none.

    Raises:
        ValueError: update() without params.

    Source: projected gradient descent; A. A. Goldstein (1964).
    """
    return leafwise(_nonnegative)


def _zero_nans(u, at, found):
    """nan = any(isnan(u))      in the leaf
    u ← u      0 where it is NaN
    """
    nan = jnp.isnan(u)
    return jnp.where(nan, jnp.zeros_like(u), u), jnp.any(nan)


def _false(p):
    return jnp.zeros_like(p, bool, ())


@transformation
def zero_nans():
    """Replace NaN entries by 0; infinite entries stay.

    Memory: one boolean per leaf, `found_nan`: whether the last update had any there.
    """
    return leafwise(_zero_nans, slots={"found_nan": _false})
