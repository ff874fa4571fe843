"""Schedules that rise and fall, once or many times: interpolation between points, one-cycle, cyclic
rates, warm restarts.

As in `schedules`, every number, lengths included, may be traced, batched and differentiated.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Literal

import jax.numpy as jnp

from gradxform.core.call import define
from gradxform.core.hyper import Fraction, Hyper, NonNegative, Positive, Range, Real, Steps
from gradxform.core.schedule import Schedule, _time, one_after_another, phase, schedule
from gradxform.schedules.basic import Scales, _progress, warmup_cosine_decay_schedule

__all__ = ["cosine_onecycle_schedule", "cosine_restarts_schedule", "cyclic_schedule"]
__all__ += ["linear_onecycle_schedule", "piecewise_interpolate_schedule", "sgdr_schedule"]


def _linear(start, end, x):
    return start + (end - start) * x


def _cosine(start, end, x):
    return end + (start - end) * (0.5 * (1 + jnp.cos(jnp.pi * x)))


Growth = Annotated[Hyper, Range("[1, inf)", "how much longer each cycle is than the one before")]


_SHAPES = {"linear": _linear, "cosine": _cosine}


def _through(step, interpolate, points):
    """Through `(step, value)` points in order, flat after the last one."""
    out = points[0][1]
    for (begin, start), (end, value) in pairwise(points):
        x = _progress(step, begin, _time(end) - begin)
        out = jnp.where(_time(step) < begin, out, interpolate(start, value, x))
    return out


@schedule
def piecewise_interpolate_schedule(
    step, interpolate_type: Literal["linear", "cosine"], init_value: Real,
    boundaries_and_scales: Scales | None = None,
):  # fmt: skip
    """From boundary to boundary along a line or half a cosine, each value the one before times that
    boundary's factor.

        a(0) = init
        a(bᵢ) = a(bᵢ₋₁) · scaleᵢ      at the boundaries b

    In between it is "linear" or "cosine", after the last boundary constant.

    Raises:
        ValueError: an unknown interpolate_type, or a negative factor.
    """
    points = [(0.0, jnp.asarray(init_value, float))]
    for boundary, scale in (boundaries_and_scales or {}).items():
        points.append((float(boundary), points[-1][1] * scale))
    return _through(step, _SHAPES[interpolate_type], points)


def _ends(convention, steps, *shares):
    """The steps at which the phases of a cycle end; in torch each begins at the last step of the
    one before.
    """
    steps = _time(steps)
    if convention == "optax":
        return [*(jnp.floor(share * steps) for share in shares), steps]
    return [*(share * steps - (i + 1) for i, share in enumerate(shares)), steps - 1]


def _onecycle(**torch):
    return define(Schedule, leading=1, conventions={"optax": {}, "torch": torch})


@_onecycle(pct_final=0.6)
def linear_onecycle_schedule(
    step, transition_steps: Steps, peak_value: Real, pct_start: Fraction = 0.3,
    pct_final: Fraction = 0.85, div_factor: Positive = 25.0, final_div_factor: Positive = 1e4, *,
    convention: str = "optax",
):  # fmt: skip
    """One cycle in three lines: up to `peak_value`, back down as far, then on to nearly nothing.

    From peak/div at 0 to peak at s T, to peak/div at f T, to peak/(div · final_div) at T =
    `transition_steps`; s = `pct_start`, f = `pct_final`.

    Conventions: "optax" ends the first two phases at ⌊s T⌋ and ⌊f T⌋; "torch" (OneCycleLR, three
    phases) at s T - 1, f T - 2 and T - 1, with f = 2 s by default.

    Source: L. N. Smith, N. Topin, Super-Convergence (2018).
    """
    first, second, last = _ends(convention, transition_steps, pct_start, pct_final)
    low = peak_value / div_factor
    points = [(0.0, low), (first, peak_value), (second, low), (last, low / final_div_factor)]
    return _through(step, _linear, points)


@_onecycle()
def cosine_onecycle_schedule(
    step, transition_steps: Steps, peak_value: Real, pct_start: Fraction = 0.3,
    div_factor: Positive = 25.0, final_div_factor: Positive = 1e4, *, convention: str = "optax",
):  # fmt: skip
    """One cycle in two half cosines: up to `peak_value`, then down to nearly nothing.

    From peak/div at 0 to peak at s T, to peak/(div · final_div) at T = `transition_steps`; s =
    `pct_start`.

    Conventions: "optax" ends the first phase at ⌊s T⌋; "torch" (OneCycleLR, as it comes) at s T -
    1, the second at T - 1.

    Source: L. N. Smith, N. Topin, Super-Convergence (2018); half cosines as in the fast.ai library.
    """
    first, last = _ends(convention, transition_steps, pct_start)
    low = peak_value / div_factor
    points = [(0.0, low), (first, peak_value), (last, low / final_div_factor)]
    return _through(step, _cosine, points)


class _Cycles:
    """The arguments of a warm-up and cosine for each cycle, or the schedules they make."""

    def convert(self, owner: str, name: str, x):
        cycles = []
        for i, cycle in enumerate(x):
            if isinstance(cycle, Mapping):
                cycle = warmup_cosine_decay_schedule(**cycle)
            if not isinstance(cycle, Schedule) or cycle.name != "warmup_cosine_decay_schedule":
                kind = "a dict of the arguments of warmup_cosine_decay_schedule"
                raise TypeError(f"{owner}: {name}[{i}] must be {kind}; got {cycle!r}")
            cycles.append(cycle)
        if not cycles:
            raise ValueError(f"{owner}: {name} is empty")
        return tuple(cycles)


@schedule
def sgdr_schedule(step, cosine_kwargs: Annotated[Hyper, _Cycles()]):
    """Warm restarts written out: `warmup_cosine_decay_schedule` for each dict of its arguments, one
    after another.

    The i-th cycle begins when the decay_steps of those before it are over.

    Source: I. Loshchilov, F. Hutter, SGDR (2017), equation 5.
    """
    return one_after_another(step, cosine_kwargs, [c.decay_steps for c in cosine_kwargs[:-1]])


@schedule
def cosine_restarts_schedule(
    step, init_value: Real, first_decay_steps: Steps, t_mul: Growth = 2.0, m_mul: NonNegative = 1.0,
    alpha: Real = 0.0,
):  # fmt: skip
    """Cosine decay that starts again and again, each cycle `t_mul` times as long and `m_mul` times
    as high as the one before.

        a(step) = init · ((1 - α) m_mulⁱ (1 + cos πx) / 2 + α)   x the share of cycle i that is over

    Cycle i = 0, 1, … has length Tᵢ = T₀ t_mulⁱ and begins at T₀ (1 + t_mul + ⋯ + t_mulⁱ⁻¹). torch's
    CosineAnnealingWarmRestarts has m_mul = 1 and α = eta_min / init.

    Source: I. Loshchilov, F. Hutter, SGDR (2017), equation 5 and section 4; the height as in
    TensorFlow.
    """
    t, first, ratio = _time(step), _time(first_decay_steps), _time(t_mul)
    even = jnp.abs(ratio - 1) < 1e-6
    safe = jnp.where(even, 2.0, ratio)

    def begin(i):
        return first * (safe**i - 1) / (safe - 1)

    i = jnp.floor(jnp.log(1 + t / first * (safe - 1)) / jnp.log(safe))
    # the logarithm may round to the wrong side
    i = i + _time(t >= begin(i + 1)) - _time(t < begin(i))
    count, within = phase(step, first)
    i = jnp.where(even, _time(count), i)
    x = jnp.clip(jnp.where(even, within / first, (t - begin(i)) / (first * safe**i)), 0, 1)
    height = _time(m_mul) ** i * (0.5 * (1 + jnp.cos(jnp.pi * x)))
    return init_value * ((1 - alpha) * height + alpha)


@schedule
def cyclic_schedule(
    step, base_value: Real, max_value: Real, step_size_up: Steps = 2000.0,
    step_size_down: Steps | None = None,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    gamma: NonNegative = 1.0,
):  # fmt: skip
    """Up and down in straight lines, for ever: base → max in `step_size_up` steps, back in
    `step_size_down` (None: as many).

        a(step) = base + (max - base) y             mode="triangular"
        a(step) = base + (max - base) y / 2ᶜ        mode="triangular2"
        a(step) = base + (max - base) y γ^step      mode="exp_range"

    With y the height of the triangle, 0 to 1, and c = 0, 1, … the cycle.

    Raises:
        ValueError: an unknown mode.

    Source: L. N. Smith, Cyclical Learning Rates for Training Neural Networks (2017), section 3.
    """
    t, up = _time(step), _time(step_size_up)
    down = up if step_size_down is None else _time(step_size_down)
    count, within = phase(step, up + down)
    height = jnp.where(within <= up, within / up, (up + down - within) / down)
    if mode == "triangular2":
        height = height * 0.5 ** _time(count)
    elif mode == "exp_range":
        height = height * _time(gamma) ** t
    return base_value + (max_value - base_value) * height
