"""Look without touching: measurements of the updates at a place in the chain, kept in the state."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from gradxform.core import Decay, DType, RuleState, Transform, dtype_name
from gradxform.core.call import pytree
from gradxform.core.chain import whole
from gradxform.core.hyper import one_number
from gradxform.display.code import code
from gradxform.numerics import bias_correction, increment, lerp, real_dtype, wide_dtype

__all__ = ["measure_with_ema", "monitor", "snapshot"]


def _blank(measured, dtype=None):
    """Zeros in the shapes of a measurement, floats in float32 at least."""

    def one(x):
        inexact = jnp.issubdtype(x.dtype, jnp.inexact)
        return jnp.zeros(x.shape, (dtype or wide_dtype(x.dtype)) if inexact or dtype else x.dtype)

    return jax.tree.map(one, measured)


def _store(measured, blank):
    return jax.tree.map(lambda x, y: jnp.asarray(x).astype(y.dtype), measured, blank)


@pytree(static=("function", "name"))
class Measure(Transform):
    """A function of the updates, as a measure without memory."""

    function: Callable
    name: str = "measure"

    def __repr__(self):
        return code(self.function)

    def init(self, params):
        return _blank(jax.eval_shape(self.function, params))

    def update(self, updates, state, params=None, **extra):
        return updates, _store(self.function(updates), state)

    def read(self, state):
        """The last measurement."""
        return state


@pytree(static=("function", "debias", "accumulator_dtype", "name"))
class EmaMeasure(Transform):
    """Built by `measure_with_ema`."""

    function: Callable
    decay: Any
    debias: bool
    accumulator_dtype: str | None
    name: str = "measure_with_ema"

    def init(self, params):
        def wide(x):
            inexact = jnp.issubdtype(x.dtype, jnp.inexact)
            return jax.ShapeDtypeStruct(x.shape, x.dtype if inexact else jnp.float32)

        shapes = jax.tree.map(wide, jax.eval_shape(self.function, params))
        average, value = (_blank(shapes, self.accumulator_dtype) for _ in range(2))
        return RuleState(jnp.zeros((), jnp.int32), {"average": average, "value": value})

    def update(self, updates, state, params=None, **extra):
        decay = one_number(self.name, "decay", self.decay, state.step)
        t = increment(state.step)

        def share(x):
            return decay if isinstance(decay, float | int) else decay.astype(real_dtype(x.dtype))

        def one(old, new):
            return lerp(jnp.asarray(new).astype(old.dtype), old, share(old)).astype(old.dtype)

        def corrected(x):
            return (x / bias_correction(share(x), t, real_dtype(x.dtype))).astype(x.dtype)

        average = jax.tree.map(one, state.slots["average"], self.function(updates))
        value = jax.tree.map(corrected, average) if self.debias else average
        return updates, RuleState(t, {"average": average, "value": value})

    def read(self, state):
        """The last average."""
        return state.slots["value"]


class _Measures:
    """`{name: function or measure}`."""

    def convert(self, owner: str, name: str, x):
        if not isinstance(x, Mapping):
            raise TypeError(f"{owner}: {name} must be a dict from name to function; got {code(x)}")
        found = {}
        for key, measure in x.items():
            if not isinstance(measure, Transform) and not callable(measure):
                at = f"{owner}: {name}[{key!r}]"
                raise TypeError(f"{at} must be a function of the updates; got {code(measure)}")
            found[key] = measure if isinstance(measure, Transform) else Measure(measure)
        return found


@pytree(static=("name",))
class Monitor(Transform):
    """Built by `monitor` and `snapshot`."""

    equation: ClassVar[str] = "u ← u"
    measures: dict
    name: str

    def init(self, params):
        return {name: measure.init(params) for name, measure in self.measures.items()}

    def inside(self, state=None, params=None):
        for name, measure in self.measures.items():
            yield name, measure, state and state[name], params

    def update(self, updates, state, params=None, **extra):
        each = self.measures.items()
        new = {k: m.update(updates, state[k], params, **extra)[1] for k, m in each}
        return updates, new


@whole
def snapshot(measure_name: str, measure: Callable):
    """Keep a measurement of the updates, as they are here: `snapshot("norm", global_norm)`, then
    `state["snapshot"]["norm"]`.

    Zero before the first update. The updates pass unchanged.

    Args:
        measure_name: what it is called in the state.
        measure: a function of the updates, a tree, that gives an array or a tree of arrays.

    Memory: the measurement.

    Source: the transformation of that name in Optax (2025).
    """
    return Monitor({measure_name: Measure(measure)}, "snapshot")


@whole
def monitor(measures: Annotated[Any, _Measures()]):
    """Keep several measurements, with or without memory: `monitor({"norm": global_norm, "mean":
    measure_with_ema(f, 0.9)})`.

    In a chain `state["monitor"]["norm"]`; a `measure_with_ema` keeps `slots["value"]` there. The
    updates pass unchanged.

    Memory: the measurements.

    Source: the transformation of that name in Optax (2025).
    """
    return Monitor(measures, "monitor")


@whole
def measure_with_ema(
    measure: Callable, decay: Decay, debias: bool = True, accumulator_dtype: DType | None = None
):
    """A measure for `monitor`: the exponentially weighted average of a function of the updates.

        m ← β m + (1 - β) f(u),  value = m / (1 - βᵗ), or m without `debias`

    Memory: twice the measurement, `average` and `value`.

    Source: as `ema`; D. P. Kingma, J. Ba (2015), section 3.
    """
    return EmaMeasure(measure, decay, bool(debias), dtype_name(accumulator_dtype))
