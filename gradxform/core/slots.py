"""What a rule remembers of a parameter: factories of fresh arrays shaped like it.

Float32 where the parameter is narrower (a bfloat16 second moment never decays: 0.999·x rounds back
to x), the parameter's dtype otherwise, so that state dtypes are a fixed point of the update
whatever the gradient's dtype is.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from gradxform.numerics import real_dtype, wide_dtype

__all__ = ["copied", "dtype_name", "real_full", "real_zeros", "reduced_zeros", "zeros"]


@dataclass(frozen=True)
class zeros:
    """`zeros()(p)`: zeros like p, complex for complex p, in `dtype` when one is given."""

    dtype: str | None = None

    def __call__(self, p):
        return jnp.zeros_like(p, dtype=self.dtype or wide_dtype(p.dtype))


@dataclass(frozen=True)
class copied:
    """`copied()(p)`: a fresh copy of p, float32 or wider, or in `dtype`."""

    dtype: str | None = None

    def __call__(self, p):
        return jnp.array(p, dtype=self.dtype or wide_dtype(p.dtype), copy=True)


def real_zeros(p):
    """Zeros like p, real also for complex p: for squares and absolute values."""
    return jnp.zeros_like(p, dtype=real_dtype(wide_dtype(p.dtype)))


def real_full(p, *, initial):
    """Like `real_zeros`, filled with the hyperparameter `initial`."""
    dtype = real_dtype(wide_dtype(p.dtype))
    return jnp.zeros_like(p, dtype=dtype) + jnp.asarray(initial, dtype)


def reduced_zeros(p, axis, keepdims: bool = False):
    """Zeros of the shape, and the sharding, of a sum of p over some of its axes."""

    def total(x):
        return jnp.sum(jnp.real(x), axis, keepdims=keepdims)

    return real_zeros(jax.eval_shape(total, p) if isinstance(p, jax.ShapeDtypeStruct) else total(p))


def dtype_name(dtype) -> str | None:
    """A dtype as the name that a static argument holds: "bfloat16"; None stays None."""
    return None if dtype is None else jnp.dtype(dtype).name
