"""Schedules that are made of schedules: one after another, added, multiplied.

    3e-4 * (warmup(100) >> constant(500) >> cooldown(200, shape="sqrt"))

A *stretch* is a schedule that lasts: `warmup`, `constant`, `cooldown`, or any schedule with a length given by `stretch`. `>>` puts
stretches one after another, each with its own steps counted from its beginning; what comes last holds for ever. `+`,
`-` and `*` combine schedules with numbers and with each other. The result prints as it was written.
"""

from inspect import signature
from itertools import pairwise
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.define import code, define
from gradxform.hyper import Positive, Range, Real, Schedule, Steps, schedule
from gradxform.numerics import safe_sqrt
from gradxform.schedules import _progress, _time, linear_schedule

SHAPES = ("linear", "sqrt", "cosine", "power")


def _power(x, power):
    """x^power for x in [0, 1], with slope 0 at 0."""
    positive = x > 0
    return jnp.where(positive, jnp.where(positive, x, 1.0) ** power, 0.0)


def _rest(name: str, shape: str, x, power):
    """What is left of a cooldown: 1 at x = 0, 0 at x = 1."""
    if shape == "linear":
        return 1 - x
    if shape == "sqrt":
        return 1 - safe_sqrt(x)
    if shape == "cosine":
        return 0.5 * (1 + jnp.cos(jnp.pi * x))
    if shape == "power":
        return _power(1 - x, power)
    raise ValueError(f"{name}: shape must be one of {list(SHAPES)}; got {shape!r}")


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
            if x is default or (isinstance(x, int | float | str) and x == default):
                by_name = True
            else:
                shown.append(f"{name}={code(x)}" if by_name else code(x))
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
        found = [_length(s) for s in self.schedules if isinstance(s, Schedule)]
        lengths = [length for length in found if length is not None]
        if len(lengths) < len(found):
            return None
        if self.name == "in_sequence":
            return sum(lengths)
        longest = lengths[0]
        for length in lengths[1:]:
            longest = length if longest is length else jnp.maximum(longest, length)
        return longest


def _length(x):
    return x.length if isinstance(x, Stretch) else None


_NUMBER = Range("(-inf, inf)", "a number or a schedule", sequence=True)


class _Parts:
    """Schedules and numbers."""

    def convert(self, owner: str, name: str, x: Any):
        return _NUMBER.convert(owner, name, tuple(x))


def _value(x, step):
    value = x(step) if isinstance(x, Schedule) else x
    return value if isinstance(value, int | float) else _time(value)


@define(Composite, leading=1)
def in_sequence(step, schedules: Annotated[Any, _Parts()]):
    """a(step) = the schedule whose stretch the step lies in, its steps counted from there: what `>>` makes.

    Raises:
        TypeError: one that is not the last has no length.
    """
    for s in schedules[:-1]:
        if _length(s) is None:
            raise TypeError(f"{code(s)} has no length, so nothing can come after it; give it one by stretch(…, steps)")
    begin, out = 0.0, schedules[0](step)
    for before, following in pairwise(schedules):
        begin = begin + _time(before.length)
        out = jnp.where(_time(step) < begin, out, following(_time(step) - begin))
    return out


@define(Composite, leading=1)
def sum_of_schedules(step, schedules: Annotated[Any, _Parts()]):
    """a(step) = Σ aᵢ(step), of schedules and numbers: what `+` makes."""
    out = _value(schedules[0], step)
    for s in schedules[1:]:
        out = out + _value(s, step)
    return out


@define(Composite, leading=1)
def product_of_schedules(step, schedules: Annotated[Any, _Parts()]):
    """a(step) = Π aᵢ(step), of schedules and numbers: what `*` makes."""
    out = _value(schedules[0], step)
    for s in schedules[1:]:
        out = out * _value(s, step)
    return out


_OPERATORS = {"in_sequence": ">>", "sum_of_schedules": "+", "product_of_schedules": "*"}


def _is_operand(x):
    return isinstance(x, Schedule | int | float | np.number | np.ndarray | jax.Array) and not isinstance(x, bool)


def _operator(constructor, swapped: bool = False):
    def apply(self, other):
        if not _is_operand(other):
            return NotImplemented
        left, right = (other, self) if swapped else (self, other)
        same = isinstance(left, Composite) and left.name == constructor.__name__
        return constructor((*(left.schedules if same else (left,)), right))

    return apply


def _then(self, other):
    if not isinstance(other, Schedule):
        return NotImplemented
    parts = [*(self.schedules if isinstance(self, Composite) and self.name == "in_sequence" else (self,))]
    parts += other.schedules if isinstance(other, Composite) and other.name == "in_sequence" else (other,)
    joined = in_sequence(tuple(parts))
    joined(0)  # complains here, where it is written, of a part without a length
    return joined


for _name, _method in {
    "__rshift__": _then,
    "__add__": _operator(sum_of_schedules),
    "__radd__": _operator(sum_of_schedules, swapped=True),
    "__mul__": _operator(product_of_schedules),
    "__rmul__": _operator(product_of_schedules, swapped=True),
    "__neg__": lambda self: product_of_schedules((-1.0, self)),
    "__sub__": lambda self, other: self + -1.0 * other if _is_operand(other) else NotImplemented,
    "__rsub__": lambda self, other: other + -1.0 * self if _is_operand(other) else NotImplemented,
    "__truediv__": lambda self, other: (
        self * (1.0 / other) if _is_operand(other) and not isinstance(other, Schedule) else NotImplemented
    ),
    "__array_ufunc__": None,  # so that a NumPy number leaves the operation to the schedule
}.items():
    setattr(
        Schedule, _name, _method
    )  # the operators belong to every schedule; what they make is defined a file further up


@define(Stretch, leading=1)
def stretch(step, schedule: Real, steps: Steps):
    """Any schedule, given a length, so that another can come after it: a(step) = schedule(step)."""
    return _value(schedule, step)


@define(Stretch, leading=1)
def warmup(step, steps: Steps, init_value: Real = 0.0, peak_value: Real = 1.0):
    """A straight line from `init_value` to `peak_value` in so many steps.

    >>> schedule = 0.1 * (gx.warmup(2) >> gx.constant(3) >> gx.cooldown(2))
    >>> [round(float(schedule(step)), 2) for step in range(8)]
    [0.0, 0.05, 0.1, 0.1, 0.1, 0.1, 0.05, 0.0]

    a(step) = init + (peak - init) step / steps; at step `steps`, where the next stretch begins, the peak.
    """
    return init_value + (peak_value - init_value) * _progress(step, 0, steps)


@define(Stretch, leading=1)
def constant(step, steps: Steps | None = None, value: Real = 1.0):
    """a(step) = value, for so many steps (None: for ever)."""
    return value


@define(Stretch, leading=1)
def cooldown(
    step, steps: Steps, init_value: Real = 1.0, end_value: Real = 0.0, shape: str = "linear", power: Positive = 2.0
):
    """From `init_value` down to `end_value` in so many steps, then constant.

    a(step) = end + (init - end) r(x), x = step / steps:
    r = 1 - x                  shape="linear"
    r = 1 - √x                 shape="sqrt"
    r = (1 + cos πx) / 2       shape="cosine"
    r = (1 - x)^power          shape="power"

    Raises:
        ValueError: an unknown shape.

    Source: A. Hägele et al., Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations (2024), section 3.
    """
    return end_value + (init_value - end_value) * _rest("cooldown", shape, _progress(step, 0, steps), power)


@schedule
def wsd_schedule(
    step,
    peak_value: Real,
    warmup_steps: Steps,
    stable_steps: Steps,
    decay_steps: Steps,
    init_value: Real = 0.0,
    end_value: Real = 0.0,
    shape: str = "linear",
    power: Positive = 2.0,
):
    """Warm-up, stable, decay: a straight line up to the peak, the peak, then a `cooldown` of the given shape.

    The lengths are those of the three stretches; the shapes are "linear", "sqrt" (1 - √x), "cosine" and "power".

    Source: S. Hu et al., MiniCPM (2024), section 4; A. Hägele et al. (2024), the shape 1 - √x.
    """
    rise = warmup(warmup_steps, init_value, peak_value)
    fall = cooldown(decay_steps, peak_value, end_value, shape, power)
    return in_sequence((rise, constant(stable_steps, peak_value), fall))(step)


@schedule
def warmup_linear_decay_schedule(
    step, init_value: Real, peak_value: Real, warmup_steps: Steps, decay_steps: Steps, end_value: Real = 0.0
):
    """A straight line up to `peak_value`, then a straight line down to `end_value` at `decay_steps`, warm-up included.

    Source: S. Bergsma et al., Straight to Zero (2025), with end_value = 0.
    """
    rise = linear_schedule(init_value, peak_value, warmup_steps)(step)
    x = _progress(step, warmup_steps, _time(decay_steps) - warmup_steps)
    return jnp.where(_time(step) < warmup_steps, rise, end_value + (peak_value - end_value) * (1 - x))


@schedule
def rex_schedule(step, init_value: Real, steps: Steps, end_value: Real = 0.0):
    """Reflected exponential: slow at first, steep at the end, between a straight line and a delayed one.

    a(step) = end + (init - end) (1 - x) / (1/2 + (1 - x)/2), x = step / steps

    Source: J. Chen, C. Wolfe, A. Kyrillidis, REX: Revisiting Budgeted Training with an Improved Schedule (2021), equation 2.
    """
    rest = 1 - _progress(step, 0, steps)
    return end_value + (init_value - end_value) * rest / (0.5 + 0.5 * rest)
