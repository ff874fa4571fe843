"""A value as the code that builds it."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def plain(x) -> np.ndarray:
    """A leaf as a NumPy array; the data of a random key."""
    key = hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if key else x)


def code(x) -> str:
    """The Python code for a value, as `repr` of a Call prints it (with `jnp` for jax.numpy)."""
    scalar = inspect.isclass(x) and issubclass(x, np.generic)
    if scalar or isinstance(x, np.dtype | type(jnp.float32)):
        return repr(jnp.dtype(x).name)
    array = isinstance(x, np.ndarray | np.generic | jax.Array)
    if isinstance(x, Tracer) or (hasattr(x, "dtype") and hasattr(x, "shape") and not array):
        return f"{getattr(x, 'dtype', '')}{list(getattr(x, 'shape', ()))}"
    if array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return f"jax.random.wrap_key_data({code(jax.random.key_data(jnp.asarray(x)))})"
        values = np.asarray(x)
        if values.ndim == 0:
            shown = values if values.dtype.kind == "f" else values.item()
            return f"jnp.{values.dtype.name}({shown!s})"
        numbers = [str(v) for v in values] if values.ndim == 1 else [str(values.tolist())[1:-1]]
        return f"jnp.array([{', '.join(numbers)}], {values.dtype.name!r})"
    if isinstance(x, dict):
        return "{" + ", ".join(f"{k!r}: {code(v)}" for k, v in x.items()) + "}"
    if isinstance(x, list | tuple):
        inner = ", ".join(map(code, x))
        if isinstance(x, list):
            return f"[{inner}]"
        return f"({inner},)" if len(x) == 1 else f"({inner})"
    if inspect.isfunction(x) or inspect.isbuiltin(x) or inspect.isclass(x):
        return x.__qualname__
    return repr(x)
