"""Schedules: a number as an equation of the step, 0 at the first update.

Each is a pytree of its numbers, so peaks, rates and lengths may be traced, batched and
differentiated, and no Python branch depends on them. `schedule.table(range(0, 100, 10))` shows the
values. All compute in the widest enabled float.
"""

from collections.abc import Mapping
from typing import Annotated

import jax.numpy as jnp

from gradxform.core.hyper import Begin, Hyper, Length, NonNegative, Positive, Range, Real, Steps
from gradxform.core.schedule import Schedule, _time, from_function, phase, schedule, switched

__all__ = ["constant_schedule", "cosine_decay_schedule", "exponential_decay", "inverse_sqrt_decay"]
__all__ += ["inverse_time_decay", "join_schedules", "linear_schedule", "manual_schedule"]
__all__ += ["natural_exp_decay", "per_epoch", "piecewise_constant_schedule", "polynomial_schedule"]
__all__ += ["step_decay", "warmup_constant_schedule", "warmup_cosine_decay_schedule"]
__all__ += ["warmup_exponential_decay_schedule"]

Boundaries = Annotated[Hyper, Range("[0, inf)", "steps at which something changes", sequence=True)]
Values = Annotated[Hyper, Range("(-inf, inf)", "a value for each stretch", sequence=True)]


class _Scales:
    """`{step: factor}`: the factors are leaves, the steps static."""

    def convert(self, owner: str, name: str, x):
        if not isinstance(x, Mapping):
            raise TypeError(f"{owner}: {name} must be a dict from step to factor")
        factor = Range("[0, inf)", "a factor")
        # a boundary between two steps is one, 0.29 * 100 among them
        steps = {k: int(k) if k == int(k) else float(k) for k in sorted(x)}
        return {at: factor.convert(owner, f"{name}[{at}]", x[k]) for k, at in steps.items()}


def _as_schedule(x) -> Schedule:
    if isinstance(x, Schedule):
        return x
    return from_function(x) if callable(x) else constant_schedule(x)


class _Schedules:
    """A sequence of schedules; plain functions of the step become schedules."""

    def convert(self, owner: str, name: str, x):
        return tuple(map(_as_schedule, (x,) if callable(x) else x))


Scales = Annotated[Hyper, _Scales()]
Schedules = Annotated[Hyper, _Schedules()]


def _not_before_0(begin):
    return max(begin, 0) if isinstance(begin, float | int) else jnp.maximum(_time(begin), 0)


def _progress(step, begin, steps):
    """The share of a stretch of `steps` from `begin` that is over: 0 to 1; a stretch of length 0 is
    over at once, and none begins before 0.
    """
    elapsed = _time(step) - _not_before_0(begin)
    length = jnp.asarray(steps, float)
    share = elapsed / jnp.where(length > 0, length, 1)
    return jnp.where(length > 0, jnp.clip(share, 0, 1), jnp.where(elapsed >= 0, 1.0, 0.0))


def _power(x, exponent):
    """x^exponent for x in [0, 1], whose slope at 0 is 0 (the subgradient) where it would be
    infinite.
    """
    zero = x <= 0
    at_zero = jnp.where(jnp.asarray(exponent, float) == 0, 1.0, 0.0)
    return jnp.where(zero, at_zero, jnp.where(zero, 1.0, x) ** exponent)


@schedule
def constant_schedule(step, value: Real):
    """A constant.

    a(step) = value
    """
    return value


@schedule
def polynomial_schedule(
    step, init_value: Real, end_value: Real, power: NonNegative, transition_steps: Length,
    transition_begin: Begin = 0,
):  # fmt: skip
    """From `init_value` to `end_value` along a power of the remaining share.

    a(step) = end + (init - end) (1 - x)^power
    x = (step - begin) / steps      clipped to [0, 1]
    """
    rest = 1 - _progress(step, transition_begin, transition_steps)
    return (init_value - end_value) * _power(rest, power) + end_value


@schedule
def linear_schedule(
    step, init_value: Real, end_value: Real, transition_steps: Length, transition_begin: Begin = 0
):
    """From `init_value` to `end_value` in a straight line.

    a(step) = init + (end - init) x
    x = (step - begin) / steps      clipped to [0, 1]
    """
    rest = 1 - _progress(step, transition_begin, transition_steps)
    return (init_value - end_value) * rest + end_value


@schedule
def exponential_decay(
    step, init_value: Real, transition_steps: Length, decay_rate: NonNegative,
    transition_begin: Begin = 0, staircase: bool = False, end_value: Real | None = None,
):  # fmt: skip
    """Falling, or growing, by a factor `decay_rate` in so many steps; constant where either is 0,
    as in Optax.

        a(step) = init · rate^x
        x = (step - begin) / steps      staircase=False, at least 0
        x = ⌊(step - begin) / steps⌋    staircase=True

    `end_value` bounds it: from below where rate < 1, from above otherwise.
    """
    length, rate = _time(transition_steps), _time(decay_rate)
    elapsed = jnp.maximum(_time(step) - _not_before_0(transition_begin), 0)
    share = elapsed / jnp.where(length > 0, length, jnp.inf)
    rate = jnp.where(rate > 0, rate, 1.0)
    value = init_value * rate ** (jnp.floor(share) if staircase else share)
    if end_value is None:
        return value
    return jnp.where(rate < 1, jnp.maximum(value, end_value), jnp.minimum(value, end_value))


@schedule
def step_decay(step, init_value: Real, factor: NonNegative, every: Steps):
    """Drop by a factor every so many steps.

    a(step) = init · factor^⌊step / every⌋
    """
    return init_value * factor ** jnp.floor(_time(step) / every)


@schedule
def natural_exp_decay(
    step, init_value: Real, k: NonNegative, transition_steps: Steps = 1, *, staircase: bool = False
):
    """Exponential decay; in whole steps of `transition_steps` only with `staircase`.

    a(step) = init · e^(-k x)
    x = step / steps      staircase=False
    x = ⌊step / steps⌋    staircase=True
    """
    share = _time(step) / transition_steps
    return init_value * jnp.exp(-k * (jnp.floor(share) if staircase else share))


@schedule
def inverse_time_decay(
    step, init_value: Real, k: NonNegative, transition_steps: Steps = 1, *, staircase: bool = False
):
    """Decay with the inverse of time; in whole steps of `transition_steps` only with `staircase`.

    a(step) = init / (1 + k x)
    x = step / steps      staircase=False
    x = ⌊step / steps⌋    staircase=True
    """
    share = _time(step) / transition_steps
    return init_value / (1 + k * (jnp.floor(share) if staircase else share))


@schedule
def inverse_sqrt_decay(step, init_value: Real, transition_steps: Steps = 1):
    """Decay with the inverse of the root of time.

    a(step) = init / √t,  t = 1 + step / steps
    """
    return init_value / jnp.sqrt(1 + _time(step) / transition_steps)


@schedule
def piecewise_constant_schedule(
    step, init_value: Real, boundaries_and_scales: Scales | None = None
):
    """A value times every factor whose boundary has been reached: `{1000: 0.1, 2000: 0.1}`.

    a(step) = init · Π sᵢ      over the factors s whose boundary has been reached
    """
    value = init_value
    for boundary, factor in (boundaries_and_scales or {}).items():
        value = value * jnp.where(_time(step) < boundary, 1.0, factor)
    return value


@schedule
def manual_schedule(step, values: Values, boundaries: Boundaries):
    """A rate set by hand for each stretch.

        a(step) = values(i)      where i boundaries have been reached

    Raises:
        ValueError: there is not one value more than there are boundaries.
    """
    _one_more(values, boundaries, "manual_schedule: values")
    out = values[0]
    for boundary, value in zip(boundaries, values[1:], strict=True):
        out = jnp.where(_time(step) < boundary, out, value)
    return out


@schedule
def cosine_decay_schedule(
    step, init_value: Real, decay_steps: Length, alpha: Real = 0.0, exponent: NonNegative = 1.0
):
    """Half a cosine from `init_value` down to α times it.

        a(step) = init · ((1 - α) ((1 + cos πx) / 2)^exponent + α)
        x = step / decay_steps      at most 1

    Source: I. Loshchilov, F. Hutter, SGDR (2017), equation 5, without restarts.
    """
    cosine = 0.5 * (1 + jnp.cos(jnp.pi * _progress(step, 0, decay_steps)))
    return init_value * ((1 - alpha) * _power(cosine, exponent) + alpha)


@schedule
def join_schedules(step, schedules: Schedules, boundaries: Boundaries):
    """One schedule after another: the i-th runs from its boundary, with its own step counted from
    there.

    Raises:
        ValueError: there is not one schedule more than there are boundaries.
    """
    _one_more(schedules, boundaries, "join_schedules: schedules")
    return switched(step, schedules, boundaries)


def _one_more(items, boundaries, what: str):
    if len(items) != len(boundaries) + 1:
        got = f"{len(items)} and {len(boundaries)} boundaries"
        raise ValueError(f"{what} must be one more than boundaries; got {got}")


@schedule
def warmup_constant_schedule(step, init_value: Real, peak_value: Real, warmup_steps: Length):
    """A straight line from `init_value` to `peak_value`, then constant.

    a(step) = init + (peak - init) step / warmup_steps      up to warmup_steps
    a(step) = peak      after
    """
    return linear_schedule(init_value, peak_value, warmup_steps)(step)


@schedule
def warmup_cosine_decay_schedule(
    step, init_value: Real, peak_value: Real, warmup_steps: Length, decay_steps: Length,
    end_value: Real = 0.0, exponent: NonNegative = 1.0,
):  # fmt: skip
    """A straight line up to `peak_value`, then a cosine down to `end_value` at `decay_steps`,
    warm-up included.

        a(step) = init + (peak - init) step / warmup_steps      up to warmup_steps
        a(step) = end + (peak - end) ((1 + cos πx) / 2)^exponent      after
        x = (step - warmup_steps) / (decay_steps - warmup_steps)      at most 1
    """
    rise = linear_schedule(init_value, peak_value, warmup_steps)(step)
    x = _progress(step, warmup_steps, decay_steps - warmup_steps)
    cosine = _power(0.5 * (1 + jnp.cos(jnp.pi * x)), exponent)
    fall = end_value + (peak_value - end_value) * cosine
    return jnp.where(_time(step) < warmup_steps, rise, fall)


@schedule
def warmup_exponential_decay_schedule(
    step, init_value: Real, peak_value: Real, warmup_steps: Length, transition_steps: Steps,
    decay_rate: NonNegative, transition_begin: Begin = 0, staircase: bool = False,
    end_value: Real | None = None,
):  # fmt: skip
    """A straight line up to `peak_value`, then `exponential_decay` counted from there."""
    rise = linear_schedule(init_value, peak_value, warmup_steps)
    how = (transition_begin, staircase, end_value)
    fall = exponential_decay(peak_value, transition_steps, decay_rate, *how)
    return join_schedules((rise, fall), (warmup_steps,))(step)


@schedule
def per_epoch(step, schedule: Schedules, steps_per_epoch: Positive):
    """A schedule of the epoch instead of the step.

    a(step) = schedule(⌊step / steps_per_epoch⌋)
    """
    return schedule[0](phase(step, steps_per_epoch)[0])
