"""A number that depends on the step, and what its operators make: sequences, sums and products of
schedules.
"""

from collections.abc import Callable
from functools import reduce
from inspect import signature
from itertools import accumulate
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradxform.core.call import ARRAY, Call, define
from gradxform.display.code import code
from gradxform.display.latex import to_mathematics

__all__ = ["Schedule", "from_function", "in_sequence", "product_of_schedules", "schedule"]
__all__ += ["sum_of_schedules"]


class Schedule(Call):
    """A number that depends on the step: call it with the step (0 first). Its own numbers are
    pytree leaves.
    """

    def __call__(self, step=None, *, count=None):
        """The value at `step`, a Python int or an integer array; Optax calls it `count`."""
        if (step is None) == (count is None):
            raise TypeError(
                f"{self.name}: a schedule is called with the step, once: schedule(step)"
            )
        return self._function.build(count if step is None else step, **self.arguments)

    @property
    def __name__(self) -> str:
        return self.name

    def _repr_latex_(self) -> str:
        return to_mathematics(self)

    def table(self, steps) -> dict[int, float]:
        """The values at the given steps, as their dtype prints them: `schedule.table(range(0, 100,
        10))`.
        """
        return {int(step): float(str(np.asarray(self(step)))) for step in steps}

    def __rshift__(self, other):
        if not isinstance(other, Schedule):
            return NotImplemented
        pairs = [x.schedules if x.name == "in_sequence" else (x,) for x in (self, other)]
        joined = in_sequence(sum(pairs, ()))
        joined(0)  # complains here, where it is written, of a part without a length
        return joined

    def __add__(self, other):
        return _joined(sum_of_schedules, self, other) if _is_operand(other) else NotImplemented

    def __radd__(self, other):
        return _joined(sum_of_schedules, other, self) if _is_operand(other) else NotImplemented

    def __mul__(self, other):
        return _joined(product_of_schedules, self, other) if _is_operand(other) else NotImplemented

    def __rmul__(self, other):
        return _joined(product_of_schedules, other, self) if _is_operand(other) else NotImplemented

    def __neg__(self):
        return product_of_schedules((-1.0, self))

    def __sub__(self, other):
        return self + -1.0 * other if _is_operand(other) else NotImplemented

    def __rsub__(self, other):
        return other + -1.0 * self if _is_operand(other) else NotImplemented

    def __truediv__(self, other):
        if not _is_operand(other) or isinstance(other, Schedule):
            return NotImplemented
        return self * (1.0 / other)  # pyright: ignore[reportOperatorIssue]

    __array_ufunc__ = None  # so that a NumPy number leaves the operation to the schedule


def schedule(function) -> Callable[..., Schedule]:
    """Decorator: an equation `f(step, ...)` becomes a schedule's constructor, without the step."""
    return define(Schedule, leading=1)(function)


@schedule
def from_function(step, function: Callable[[Any], Any]):
    """A schedule from any function of the step (an Optax schedule, a lambda); the function itself
    is static.

        a(step) = function(step)
    """
    return function(step)


class Stretch(Schedule):
    """A schedule with a length of its own, `steps`."""

    @property
    def length(self):
        """How many steps it lasts; None for ever."""
        return self.arguments["steps"]

    def __repr__(self):
        parameters = signature(self._function).parameters
        shown, by_name = [], False
        for name, x in self.arguments.items():
            default = parameters[name].default
            usual = x is default or (isinstance(x, int | float | str) and x == default)
            shown += [] if usual else [f"{name}={code(x)}" if by_name else code(x)]
            by_name |= usual
        return f"{self.name}({', '.join(shown)})"


class Composite(Stretch):
    """A schedule made of schedules by an operator; prints as it was written."""

    def __repr__(self):
        operator = _OPERATORS[self.name]
        shown = [f"({code(x)})" if isinstance(x, Composite) else code(x) for x in self.schedules]
        return f" {operator} ".join(shown)

    @property
    def length(self):
        """How many steps it lasts; None for ever."""
        lengths: list = [_length(s) for s in self.schedules if isinstance(s, Schedule)]
        if any(length is None for length in lengths):
            return None

        def longer(a, b):
            return b if a is b else jnp.maximum(a, b)

        return sum(lengths) if self.name == "in_sequence" else reduce(longer, lengths)


def _length(x):
    return x.length if isinstance(x, Stretch) else None


class _Parts:
    """Schedules and numbers; plain functions of the step become schedules."""

    def convert(self, owner: str, name: str, x):
        parts = tuple(_part(owner, f"{name}[{i}]", part) for i, part in enumerate(x))
        if not parts:
            raise ValueError(f"{owner}: {name} holds none")
        return parts


Parts = Annotated[Any, _Parts()]


def _part(owner: str, name: str, x):
    if isinstance(x, Schedule | Tracer | jax.ShapeDtypeStruct):
        return x
    if callable(x) and not isinstance(x, Call):
        return from_function(x)
    if not _is_operand(x):
        raise TypeError(f"{owner}: {name} must be a number or a schedule; got {code(x)}")
    return float(x) if isinstance(x, int | np.float64) else x


def _value(x, step):
    value = x(step) if isinstance(x, Schedule) else x
    return value if isinstance(value, int | float) else _time(value)


def one_after_another(step, schedules, lengths):
    """The value of the schedule whose stretch the step lies in, its steps counted from there."""
    ends = accumulate(length if isinstance(length, float) else _time(length) for length in lengths)
    return switched(step, schedules, ends)


def switched(step, schedules, boundaries):
    """The value of the schedule whose boundary was the last, its steps counted from there."""
    out = schedules[0](step)
    for boundary, following in zip(boundaries, schedules[1:], strict=True):
        out = jnp.where(_time(step) < boundary, out, following(_since(step, boundary)))
    return out


def _since(step, begin):
    """The steps since a beginning: whole numbers, if these are, so that a cycle keeps its phase."""
    whole = isinstance(begin, float) and begin.is_integer()
    counted = isinstance(step, int) or jnp.issubdtype(jnp.result_type(step), jnp.integer)
    return step - int(begin) if whole and counted else _time(step) - begin


def phase(step, period):
    """How many periods are over, a whole number, and how much of the next: exact for any step
    below 2³¹, which float32 is not beyond 2²⁴.
    """
    period, t = _time(period), _time(step)
    if not jnp.issubdtype(jnp.result_type(step), jnp.integer):
        return (count := jnp.floor(t / period)), t - count * period
    step = jnp.asarray(step)
    # two halves that float32 holds, of which each remainder is exact
    high = _time(step >> 12 << 12)
    low = _time(step & 4095)
    within = jnp.fmod(jnp.fmod(high, period) + jnp.fmod(low, period), period)
    steps = jnp.maximum(period, 1).astype(step.dtype)
    near = jnp.rint((t - within) / period).astype(step.dtype)
    return jnp.where(period == jnp.floor(period), step // steps, near), within


@define(Composite, leading=1)
def in_sequence(step, schedules: Parts):
    """The schedule whose stretch the step lies in, its steps counted from there: what `>>` makes.

        a(step) = aᵢ(step - bᵢ)      of stretch i, which begins at b and holds the step

    Raises:
        TypeError: one that is not the last has no length.
    """
    for s in schedules[:-1]:
        if _length(s) is None:
            words = "has no length, so nothing can come after it; give it one by stretch(…, steps)"
            raise TypeError(f"{code(s)} {words}")
    return one_after_another(step, schedules, [s.length for s in schedules[:-1]])


@define(Composite, leading=1)
def sum_of_schedules(step, schedules: Parts):
    """The sum of schedules and numbers: what `+` makes.

    a(step) = Σ aᵢ(step)
    """
    return reduce(lambda x, y: x + y, [_value(s, step) for s in schedules])


@define(Composite, leading=1)
def product_of_schedules(step, schedules: Parts):
    """The product of schedules and numbers: what `*` makes.

    a(step) = Π aᵢ(step)
    """
    return reduce(lambda x, y: x * y, [_value(s, step) for s in schedules])


_OPERATORS = {"in_sequence": ">>", "sum_of_schedules": "+", "product_of_schedules": "*"}


def _is_operand(x):
    return isinstance(x, Schedule | int | float | np.number | ARRAY) and not isinstance(x, bool)


def _joined(constructor, left, right):
    """left (operator) right; what the same operator made on the left is written on."""
    same = isinstance(left, Composite) and left.name == constructor.__name__
    return constructor((*(left.schedules if same else (left,)), right))


def _time(step):
    return jnp.asarray(step, float)
