"""Step sizes from the loss: how far there is still to go, over how steep it is. The update needs
`value=`, the loss.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradxform.core import PerLeaf, leafwise, transformation
from gradxform.core import leaves as trees
from gradxform.core.hyper import Decay, Epsilon, LearningRate, NonNegative, Real, WeightDecay
from gradxform.numerics import bias_correction, divide_by_root, lerp, safe_divide
from gradxform.rules.measures import (
    average,
    cast,
    each,
    inner,
    leaves_of,
    like,
    number,
    real_zeros_like,
    squared,
    times_scalar,
    total,
    zero,
    zeros_like,
)

__all__ = ["momo", "momo_adam", "scale_by_polyak"]


def _loss(at, dtype):
    """The loss, a scalar."""
    value = jnp.asarray(at.need("value"))
    if value.shape != ():
        raise ValueError(f"{at.owner}: value must be a scalar; got shape {value.shape}")
    return value.astype(dtype)


def at_most(most, x, square):
    """min(most, x / square), also where the square is too small to divide by."""
    far = x >= most * square
    return jnp.where(far, most, safe_divide(x, jnp.where(far, jnp.ones_like(square), square)))


def _polyak_step(updates, at, *, f_min, max_learning_rate, eps):
    """s = min((f - f*) / (‖u‖² + ε), γ)      f the loss"""
    square = trees.sum_of_squares(updates)
    f_min, max_learning_rate, eps = cast(square.dtype, f_min, max_learning_rate, eps)
    return (at_most(max_learning_rate, _loss(at, square.dtype) - f_min, square + eps),)


def _polyak_step_positive(updates, at, *, f_min, max_learning_rate, eps):
    """s = min(max(f - f*, 0) / (‖u‖² + ε), γ)      f the loss"""
    (step,) = _polyak_step(updates, at, f_min=f_min, max_learning_rate=max_learning_rate, eps=eps)
    return (jnp.maximum(step, jnp.zeros_like(step)),)


@transformation
def scale_by_polyak(
    f_min: Real = 0.0, max_learning_rate: NonNegative = 1.0, eps: Epsilon = 0.0,
    variant: Literal["sps", "sps+"] = "sps",
):  # fmt: skip
    """Multiply by Polyak's step size, at most γ.

        u ← u min((f - f*) / (‖u‖² + ε), γ)             variant="sps"
        u ← u min(max(f - f*, 0) / (‖u‖² + ε), γ)       variant="sps+"

    f is the loss, `update(..., value=loss)`; f* = `f_min` the least it can be, γ =
    `max_learning_rate`. A zero gradient gives a zero step.

    Memory: none.

    Raises:
        TypeError: update() without `value`.
        ValueError: an unknown variant.

    Source: N. Loizou et al., Stochastic Polyak Step-size for SGD (2021), equation 3; G. Garrigos et
    al. (2023), "sps+".
    """
    measure = _polyak_step if variant == "sps" else _polyak_step_positive
    numbers = {"f_min": f_min, "max_learning_rate": max_learning_rate, "eps": eps}
    return leafwise(times_scalar, measure=measure, **numbers)


class _Model(NamedTuple):
    """A model of the loss along m: its value, what it loses per step, and where it ends."""

    value: jax.Array
    gamma: jax.Array
    dot: jax.Array
    square: jax.Array
    shrink: jax.Array
    correction: jax.Array | int = 1

    def step(self, most, lb, least, adapt: bool):
        """The step size, at most so long, and the next lower bound of the loss, which learns with
        `adapt`.
        """
        used = lb
        if adapt:
            cap = self.shrink * (self.value - self.gamma) + self.dot
            low = jnp.maximum(cap / (2 * self.correction * self.shrink), least)
            used = jnp.where(cap < self.shrink * self.correction * lb, low, lb)
        drop = self.shrink * (self.value - self.correction * used - self.gamma) + self.dot
        drop = jnp.maximum(drop, 0)
        tau = at_most(most, drop, self.square)
        if adapt:  # τ times the square, which may be infinite, is:
            gone = jnp.minimum(most * self.square, drop)
            end = self.value + self.dot - self.gamma - gone / 2
            lb = jnp.maximum(end / self.correction, least)
        return tau, lb


def _equations(averages: str, adapt: bool, most: str, c: str, square: str) -> str:
    """The step to where the model of the loss ends, at most so far; `adapt`: its bound learns."""
    step = f"τ = min({most}, max(0, (1 + α λ) (f̄ - {c}l - γ) + ⟨m, p⟩) / {square})"
    over = f" / {c}"
    if not adapt:
        return f"{averages}\nl = f*\n{step}"
    return f"""{averages}
        h = (1 + α λ) (f̄ - γ) + ⟨m, p⟩
        l ← max(h / (2 {c}(1 + α λ)), f*)      where h < (1 + α λ) {c}l
        {step}
        l ← max((f̄ + ⟨m, p⟩ - γ - τ {square} / 2){over.rstrip(" /")}, f*)"""


@dataclass(frozen=True)
class _MomoStep:
    adapt: bool

    @property
    def equation(self) -> str:
        model = "m ← β m + (1 - β) u,  f̄ ← β f̄ + (1 - β) f,  γ ← β γ + (1 - β) ⟨u, p⟩"
        return _equations(f"{model}      f the loss", self.adapt, "α", "", "‖m‖²")

    def __call__(
        self, updates, at, m, barf, gamma, lb, *, learning_rate, beta, lower_bound, weight_decay
    ):
        dtype = barf.dtype
        numbers = learning_rate, beta, lower_bound, weight_decay
        learning_rate, beta, lower_bound, weight_decay = cast(dtype, *numbers)
        decay = jnp.where(at.t == 1, jnp.zeros_like(beta), beta)
        new = each(lambda u, x: average(u, x, decay), updates, leaves_of(m))
        barf = lerp(_loss(at, dtype), barf, decay)
        gamma = lerp(total(inner, updates, at.p).astype(dtype), gamma, decay)
        square, dot = (total(inner, new, x).astype(dtype) for x in (new, at.p))
        model = _Model(barf, gamma, dot, square, 1 + learning_rate * weight_decay)
        tau, lb = model.step(learning_rate, lb, lower_bound, self.adapt)
        scalars = PerLeaf([None if x is None else (x, tau) for x in new])
        return scalars, like(m, new), barf, gamma, lb


def _momo(u, at, *, learning_rate, weight_decay):
    """p ← p / (1 + α λ) - τ m"""
    m, tau = at.scalars
    decay = learning_rate * weight_decay
    return -decay / (1 + decay) * at.p - tau * m


def _bound(params, *, lower_bound):
    return number(lower_bound)


_SCALARS = {"barf": zero, "gamma": zero, "lb": _bound}


@transformation
def momo(
    learning_rate: LearningRate = 1.0, beta: Decay = 0.9, lower_bound: Real = 0.0,
    weight_decay: WeightDecay = 0.0, adapt_lower_bound: bool = False,
):  # fmt: skip
    """Momentum with Polyak's step size: as far as a model of the loss says, at most α.

        m ← β m + (1 - β) g,  f̄ ← β f̄ + (1 - β) f
        γ ← β γ + (1 - β) ⟨g, p⟩                      (at first m = g, f̄ = f, γ = ⟨g, p⟩)
        τ = min(α, max(0, (1 + α λ) (f̄ - f* - γ) + ⟨m, p⟩) / ‖m‖²)
        p ← p / (1 + α λ) - τ m

    f is the loss, `update(..., value=loss)`; f* = `lower_bound`, or with `adapt_lower_bound` an
    estimate from below of what m can reach.

    Memory: 4 bytes per parameter and three scalars.

    Raises:
        TypeError: update() without `value`.

    Source: F. Schaipp et al., MoMo: Momentum Models for Adaptive Learning Rates (2024), algorithms
    1 and 3.
    """
    measure, memory = _MomoStep(bool(adapt_lower_bound)), {"m": zeros_like, **_SCALARS}
    numbers = {"learning_rate": learning_rate, "beta": beta}
    numbers |= {"lower_bound": lower_bound, "weight_decay": weight_decay}
    return leafwise(_momo, measure=measure, memory=memory, **numbers)


def _weighted(m, v, correction, eps):
    # each m beside its own quotient, which is 0 where v is infinite
    return inner(m, divide_by_root(m, v / correction, eps, jnp.zeros_like(eps)))


@dataclass(frozen=True)
class _MomoAdamStep:
    adapt: bool

    @property
    def equation(self) -> str:
        averages = """m ← β₁ m + (1 - β₁) u,  v ← β₂ v + (1 - β₂) u²
            f̄ ← β₁ f̄ + (1 - β₁) f,  γ ← β₁ γ + (1 - β₁) ⟨u, p⟩      f the loss
            D = √(v / (1 - β₂ᵗ)) + ε,  c = 1 - β₁ᵗ"""
        return _equations(averages, self.adapt, "α / c", "c ", "⟨m, m / D⟩")

    def __call__(
        self, updates, at, m, v, barf, gamma, lb, *,
        learning_rate, b1, b2, eps, lower_bound, weight_decay,
    ):  # fmt: skip
        dtype = barf.dtype
        numbers = learning_rate, b1, b2, lower_bound, weight_decay, eps
        learning_rate, b1, b2, lower_bound, weight_decay, eps = cast(dtype, *numbers)
        first = each(lambda u, x: average(u, x, b1), updates, leaves_of(m))
        second = each(lambda u, x: average(squared(u, x), x, b2), updates, leaves_of(v))
        c1, c2 = bias_correction(b1, at.t, dtype), bias_correction(b2, at.t, dtype)
        square = total(_weighted, first, second, numbers=(c2, eps)).astype(dtype)
        barf = lerp(_loss(at, dtype), barf, b1)
        gamma = lerp(total(inner, updates, at.p).astype(dtype), gamma, b1)
        dot = total(inner, first, at.p).astype(dtype)
        model = _Model(barf, gamma, dot, square, 1 + learning_rate * weight_decay, c1)
        tau, lb = model.step(learning_rate / c1, lb, lower_bound, self.adapt)
        rows = zip(first, second, strict=True)
        scalars = PerLeaf([None if x is None else (x, y, tau, c2) for x, y in rows])
        return scalars, like(m, first), like(v, second), barf, gamma, lb


def _momo_adam(u, at, *, learning_rate, weight_decay, eps):
    """p ← p / (1 + α λ) - τ m / D"""
    m, v, tau, correction = at.scalars
    step = divide_by_root(m, v / correction, eps, 0.0)
    decay = learning_rate * weight_decay
    return -decay / (1 + decay) * at.p - tau * step


@transformation
def momo_adam(
    learning_rate: LearningRate = 1e-2, b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-8,
    lower_bound: Real = 0.0, weight_decay: WeightDecay = 0.0, adapt_lower_bound: bool = False,
):  # fmt: skip
    """Adam with Polyak's step size: as far as a model of the loss says, at most α.

        m, v as in `adam`,  D = √(v / (1 - β₂ᵗ)) + ε,  c = 1 - β₁ᵗ
        f̄ ← β₁ f̄ + (1 - β₁) f,  γ ← β₁ γ + (1 - β₁) ⟨g, p⟩
        τ = min(α / c, max(0, (1 + α λ) (f̄ - c f* - γ) + ⟨m, p⟩) / ⟨m, m / D⟩)
        p ← p / (1 + α λ) - τ m / D

    f is the loss, `update(..., value=loss)`; f* as in `momo`.

    Memory: 8 bytes per parameter and three scalars.

    Raises:
        TypeError: update() without `value`.

    Source: F. Schaipp et al., MoMo: Momentum Models for Adaptive Learning Rates (2024), algorithm
    2.
    """
    measure = _MomoAdamStep(bool(adapt_lower_bound))
    memory = {"m": zeros_like, "v": real_zeros_like, **_SCALARS}
    numbers = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps}
    numbers |= {"lower_bound": lower_bound, "weight_decay": weight_decay}
    return leafwise(_momo_adam, measure=measure, memory=memory, **numbers)
