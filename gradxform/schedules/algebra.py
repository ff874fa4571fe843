"""Schedules that are made of schedules: one after another, added, multiplied.

    3e-4 * (warmup(100) >> constant(500) >> cooldown(200, shape="sqrt"))

A *stretch* is a schedule that lasts: `warmup`, `constant`, `cooldown`, or any schedule with a
length given by `stretch`. `>>` puts stretches one after another, each with its own steps counted
from its beginning; what comes last holds for ever. `+`, `-` and `*` combine schedules with numbers
and with each other. The result prints as it was written.
"""

from typing import Literal

import jax.numpy as jnp

from gradxform.core.call import define
from gradxform.core.hyper import Positive, Real, Steps
from gradxform.core.schedule import Stretch, _time, _value, in_sequence, schedule
from gradxform.numerics import safe_sqrt
from gradxform.schedules.basic import _power, _progress, linear_schedule

__all__ = ["constant", "cooldown", "rex_schedule", "stretch", "warmup"]
__all__ += ["warmup_linear_decay_schedule", "wsd_schedule"]

Shape = Literal["linear", "sqrt", "cosine", "power"]


def _rest(shape: Shape, x, power):
    """What is left of a cooldown: 1 at x = 0, 0 at x = 1."""
    if shape == "linear":
        return 1 - x
    if shape == "sqrt":
        return 1 - safe_sqrt(x)
    if shape == "cosine":
        return 0.5 * (1 + jnp.cos(jnp.pi * x))
    return _power(1 - x, power)


@define(Stretch, leading=1)
def stretch(step, schedule: Real, steps: Steps):
    """Any schedule, given a length, so that another can come after it.

    a(step) = schedule(step)
    """
    return _value(schedule, step)


@define(Stretch, leading=1)
def warmup(step, steps: Steps, init_value: Real = 0.0, peak_value: Real = 1.0):
    """A straight line from `init_value` to `peak_value` in so many steps; at step `steps`, where
    the next stretch begins, the peak.

        a(step) = init + (peak - init) step / steps

    >>> schedule = 0.1 * (gx.warmup(2) >> gx.constant(3) >> gx.cooldown(2))
    >>> [round(float(schedule(step)), 2) for step in range(8)]
    [0.0, 0.05, 0.1, 0.1, 0.1, 0.1, 0.05, 0.0]
    """
    return init_value + (peak_value - init_value) * _progress(step, 0, steps)


@define(Stretch, leading=1)
def constant(step, steps: Steps | None = None, value: Real = 1.0):
    """A constant, for so many steps (None: for ever).

    a(step) = value
    """
    return value


@define(Stretch, leading=1)
def cooldown(
    step, steps: Steps, init_value: Real = 1.0, end_value: Real = 0.0, shape: Shape = "linear",
    power: Positive = 2.0,
):  # fmt: skip
    """From `init_value` down to `end_value` in so many steps, then constant.

        a(step) = end + (init - end) r,  x = step / steps
        r = 1 - x                  shape="linear"
        r = 1 - √x                 shape="sqrt"
        r = (1 + cos πx) / 2       shape="cosine"
        r = (1 - x)^power          shape="power"

    Raises:
        ValueError: an unknown shape.

    Source: A. Hägele et al., Scaling Laws and Compute-Optimal Training Beyond Fixed Training
    Durations (2024), section 3.
    """
    rest = _rest(shape, _progress(step, 0, steps), power)
    return end_value + (init_value - end_value) * rest


@schedule
def wsd_schedule(
    step, peak_value: Real, warmup_steps: Steps, stable_steps: Steps, decay_steps: Steps,
    init_value: Real = 0.0, end_value: Real = 0.0, shape: Shape = "linear", power: Positive = 2.0,
):  # fmt: skip
    """Warm-up, stable, decay: a straight line up to the peak, the peak, then a `cooldown` of the
    given shape.

    The lengths are those of the three stretches; the shapes are "linear", "sqrt" (1 - √x), "cosine"
    and "power".

    Source: S. Hu et al., MiniCPM (2024), section 4; A. Hägele et al. (2024), the shape 1 - √x.
    """
    rise = warmup(warmup_steps, init_value, peak_value)
    fall = cooldown(decay_steps, peak_value, end_value, shape, power)
    return in_sequence((rise, constant(stable_steps, peak_value), fall))(step)


@schedule
def warmup_linear_decay_schedule(
    step, init_value: Real, peak_value: Real, warmup_steps: Steps, decay_steps: Steps,
    end_value: Real = 0.0,
):  # fmt: skip
    """A straight line up to `peak_value`, then a straight line down to `end_value` at
    `decay_steps`, warm-up included.

        a(step) = init + (peak - init) step / warmup_steps      up to warmup_steps
        a(step) = peak + (end - peak) x                         after
        x = (step - warmup_steps) / (decay_steps - warmup_steps)

    Source: S. Bergsma et al., Straight to Zero (2025), with end_value = 0.
    """
    rise = linear_schedule(init_value, peak_value, warmup_steps)(step)
    x = _progress(step, warmup_steps, _time(decay_steps) - warmup_steps)
    fall = end_value + (peak_value - end_value) * (1 - x)
    return jnp.where(_time(step) < warmup_steps, rise, fall)


@schedule
def rex_schedule(step, init_value: Real, steps: Steps, end_value: Real = 0.0):
    """Reflected exponential: slow at first, steep at the end, between a straight line and a delayed
    one.

        a(step) = end + (init - end) (1 - x) / (1 / 2 + (1 - x) / 2),  x = step / steps

    Source: J. Chen, C. Wolfe, A. Kyrillidis, REX: Revisiting Budgeted Training with an Improved
    Schedule (2021), equation 2.
    """
    rest = 1 - _progress(step, 0, steps)
    return end_value + (init_value - end_value) * rest / (0.5 + 0.5 * rest)
