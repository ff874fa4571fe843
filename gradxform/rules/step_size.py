"""How long a step is: the learning rate, its schedules, and decay when a watched value stops
improving.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from gradxform.core import leafwise, transformation
from gradxform.core.hyper import Count, Fraction, LearningRate, NonNegative, Patience, Real
from gradxform.display.code import code
from gradxform.rules.measures import cast, times_scalar

__all__ = ["reduce_on_plateau", "scale", "scale_by_learning_rate", "scale_by_schedule"]


def _scale(u, at, *, step_size):
    """u ← a u"""
    return step_size * u


def _descend(u, at, *, learning_rate):
    """u ← -α u"""
    return -learning_rate * u


def _ascend(u, at, *, learning_rate):
    """u ← α u"""
    return learning_rate * u


@transformation
def scale(step_size: Real):
    """Multiply by a number or a schedule: u ← a u.

    Memory: none.
    """
    return leafwise(_scale, step_size=step_size)


@transformation
def scale_by_schedule(step_size_fn: Real):
    """Multiply by a schedule of the step, which is 0 at the first update: u ← a(step) u.

    Memory: none.
    """
    return leafwise(_scale, step_size=step_size_fn)


@transformation
def scale_by_learning_rate(learning_rate: LearningRate, *, flip_sign: bool = True):
    """Descend: u ← -α u (with `flip_sign=False`, u ← α u).

    Units: α has the parameter's units per unit of update.
    Memory: one scalar, the α used last; one for each leaf where it is a table by path.
    """
    return leafwise(_descend if flip_sign else _ascend, learning_rate=learning_rate)


def _watch(
    updates, at, scale, best, mean, bad, cooling, seen, *,
    factor, patience, rtol, atol, cooldown, accumulation_size, min_scale, sign, spare,
):  # fmt: skip
    """seen ← seen + 1
    mean ← mean + (sign value - mean) / seen
    better ⇔ mean < best - (rtol |best| + atol)      looked at when seen = accumulation_size
    best ← mean      when better
    bad ← bad + 1      0 when better or cooling
    s ← max(factor s, min_scale)      when bad ≥ patience + spare
    cooling ← max(cooling - 1, 0)      cooldown after a reduction
    """
    value = at.need("value")
    if not (isinstance(value, int | float) or (hasattr(value, "dtype") and value.shape == ())):
        raise ValueError(f"reduce_on_plateau: value must be a scalar; got {code(value)}")
    value = jnp.asarray(value)
    numbers = (factor, patience, rtol, atol, accumulation_size, min_scale, sign)
    factor, patience, rtol, atol, accumulation_size, min_scale, sign = cast(scale.dtype, *numbers)
    seen = seen + 1
    mean = mean + (sign * value.astype(mean.dtype) - mean) / seen.astype(mean.dtype)
    due = seen.astype(scale.dtype) >= accumulation_size

    margin = rtol * jnp.where(jnp.isfinite(best), jnp.abs(best), jnp.zeros_like(best)) + atol
    better = jnp.isfinite(mean) & (mean < best - margin)
    resting = cooling > 0
    count = jnp.where(better | resting, 0, bad + 1)
    reduce = ~resting & ~better & (count.astype(scale.dtype) >= patience + spare)
    lower = jnp.where(reduce, jnp.maximum(scale * factor, min_scale), scale)
    best_now, none_bad = jnp.where(better, mean, best), jnp.where(reduce, 0, count)
    rest = jnp.where(reduce, jnp.asarray(cooldown, cooling.dtype), jnp.maximum(cooling - 1, 0))
    new = (lower, best_now, jnp.zeros_like(mean), none_bad, rest, jnp.zeros_like(seen))
    old = (scale, best, mean, bad, cooling, seen)
    kept = tuple(jnp.where(due, n, o) for n, o in zip(new, old, strict=True))
    return kept[0], *kept


def _start(x):
    return lambda params: jnp.full((), x, float if isinstance(x, float) else jnp.int32)


_BEGIN = {"scale": 1.0, "best": jnp.inf, "mean": 0.0, "bad": 0, "cooling": 0, "seen": 0}
_MEMORY = {name: _start(x) for name, x in _BEGIN.items()}


@transformation(conventions=("optax", "torch"))
def reduce_on_plateau(
    factor: Fraction = 0.1, patience: Patience = 10, rtol: NonNegative = 1e-4,
    atol: NonNegative = 0.0, cooldown: Patience = 0, accumulation_size: Count = 1,
    min_scale: NonNegative = 0.0, *, mode: Literal["min", "max"] = "min", convention: str = "optax",
):  # fmt: skip
    """Multiply the update by a scale that falls by `factor` each time a watched value has stopped
    improving.

        better  ⇔  value < best - (rtol |best| + atol)   (mode="max": value > best + …)
        scale ← max(factor · scale, min_scale)           after `patience` values in a row not better

    The value is given at each update: `tx.update(g, state, params, value=loss)`; with
    `accumulation_size` n the mean of n of them counts as one (n = steps per epoch: decay per
    epoch). After a reduction `cooldown` values are not counted. The relative margin uses |best|, so
    losses of either sign work. A value that is not finite is not better.

    Conventions: "optax" reduces at the `patience`-th bad value, "torch" at the one after.

    Memory: six scalars: `scale`, `best`, `mean`, `bad`, `cooling`, `seen`.

    Raises:
        TypeError: update() without `value`.
        ValueError: a number out of range, an unknown mode or convention.

    Source: torch.optim.lr_scheduler.ReduceLROnPlateau; there and in Optax the margin has the sign
    of best.
    """
    numbers = {"factor": factor, "patience": patience, "rtol": rtol, "atol": atol}
    numbers |= {"cooldown": cooldown, "accumulation_size": accumulation_size}
    numbers |= {"min_scale": min_scale, "sign": 1.0 if mode == "min" else -1.0}
    numbers["spare"] = 1 if convention == "torch" else 0
    return leafwise(times_scalar, measure=_watch, memory=_MEMORY, **numbers)


def _falling(u, at, *, learning_rate):
    """u ← u min(α, 1 / √t)"""
    return u * jnp.minimum(learning_rate, jax.lax.rsqrt(at.t.astype(jnp.real(u).dtype)))


def falling_rate(learning_rate):
    """u ← u min(α, 1/√t)."""
    return leafwise(_falling, name="falling_rate", learning_rate=learning_rate)
