"""Schedule-free learning and primal averaging: the gradient is taken between an average and the
iterate that makes it.
"""

from typing import Annotated, Any

import jax.numpy as jnp

from gradxform.core import Decay, Inner, LearningRate, Range, chain, leafwise, transformation
from gradxform.core.schedule import Schedule, schedule
from gradxform.core.slots import copied, dtype_name
from gradxform.numerics import increment, safe_divide
from gradxform.rules.measures import zero

__all__ = ["gpa", "schedule_free"]

_POINT = "share of the average in the point where the gradient is taken"


Share = Annotated[Any, Range("(0, 1]", _POINT)]


Power = Annotated[Any, Range("[0, inf)", "power")]


def _moved(y, u, z, share, b1):
    x = (y - (1 - b1) * z) / b1
    z = z + u
    x = (1 - share) * x + share * z
    return b1 * x + (1 - b1) * z, z


def _primal(u, at, z):
    """x = (p - (1 - β) z) / β
    z ← z + u
    x ← (1 - c) x + c z
    p ← β x + (1 - β) z
    """
    y, z = _moved(at.p, u, z, *at.scalars)
    return y - at.p, z


def _primal_decaying_z(u, at, z, *, step_size, weight_decay):
    """x = (p - (1 - β) z) / β
    z ← z + u - a λ z
    x ← (1 - c) x + c z
    p ← β x + (1 - β) z
    """
    y, z = _moved(at.p, u - step_size * weight_decay * z, z, *at.scalars)
    return y - at.p, z


def _primal_keras(u, at, z, *, step_size, weight_decay):
    """p ← p - a λ p
    x = (p - (1 - β) z) / β
    z ← z + u
    x ← (1 - c) x + c z
    p ← β x + (1 - β) z
    """
    y, z = _moved((1 - step_size * weight_decay) * at.p, u, z, *at.scalars)
    return y - at.p, z


def _weigh(updates, at, kept, weight_sum, max_lr, *, b1, rate, weight_lr_power, r):
    """α_max ← max(α_max, α)
    w = t^r α_max^q
    W ← W + w
    c = w / W
    """
    dtype = weight_sum.dtype
    b1, rate, power, r = (jnp.asarray(x, dtype) for x in (b1, rate, weight_lr_power, r))
    max_lr = jnp.maximum(max_lr, rate)
    weight = at.t.astype(dtype) ** r * max_lr**power
    weight_sum = weight_sum + weight
    return (safe_divide(weight, weight_sum), b1), b1, weight_sum, max_lr


def _constant(updates, at, kept, *, b1, b2):
    """c = 1 - β₂"""
    b1 = jnp.asarray(b1, kept.dtype)
    return (1 - jnp.asarray(b2, kept.dtype), b1), b1


def _b1(params, *, b1):
    return jnp.full((), b1, float)


@schedule
def _ahead(step, schedule: Any):
    return schedule(increment(step))


def _kept(rule, state_dtype, measure, memory, name, **numbers):
    slots = {"z": copied(dtype_name(state_dtype))}
    return leafwise(rule, slots=slots, measure=measure, memory=memory, name=name, **numbers)


def _averaged(base, rate, b1, weight_lr_power, state_dtype, r, convention, rule=_primal, **numbers):
    """`schedule_free`, whose rule may decay z or y by itself."""
    if convention == "optax" and isinstance(rate, Schedule):
        rate = _ahead(rate)
    memory = {"b1": _b1, "weight_sum": zero, "max_lr": zero}
    numbers |= {"b1": b1, "rate": rate, "weight_lr_power": weight_lr_power, "r": r}
    return chain(base, _kept(rule, state_dtype, _weigh, memory, "schedule_free", **numbers))


@transformation(conventions=("optax", "paper"))
def schedule_free(
    base_optimizer: Inner, learning_rate: LearningRate, b1: Share = 0.9,
    weight_lr_power: Power = 2.0, state_dtype=None, *, r: Power = 0.0, convention: str = "optax",
):  # fmt: skip
    """Replace schedule and momentum by an average: the gradient is taken between it and the base
    optimizer's own iterate.

        z ← z + u(y)                       u the base optimizer's update, at the gradient in y
        c = w / Σ w,  w = tʳ (max α)^q     the largest learning rate so far
        x ← (1 - c) x + c z
        y = β x + (1 - β) z                β = `b1`

    The parameters are y; z is in the state, and x is recovered from both: `eval_params(state,
    params)` gives it.

    Args:
        base_optimizer: without momentum of its own; its weight decay acts at y.
        learning_rate: that of the base optimizer, a number or a warm-up, for the weights.
        b1: β.
        weight_lr_power: q.
        state_dtype: of z; float32 or wider by default.
        r: r.
        convention: "optax" weighs with the learning rate of the next step, "paper", as the package
            schedulefree, with that of the step itself; the same where it is constant.

    Memory: one slot `z`, 4 bytes per parameter, and three scalars.

    Source: A. Defazio et al., The Road Less Scheduled (2024), equations 6 to 8; weights: its
    section 2.4.
    """
    return _averaged(base_optimizer, learning_rate, b1, weight_lr_power, state_dtype, r, convention)


@transformation
def gpa(base_optimizer: Inner, b1: Share = 0.8, b2: Decay = 0.9967, state_dtype=None):
    """Generalised primal averaging: `schedule_free` with an exponential average in place of the
    running mean.

        z ← z + u(y)                       u the base optimizer's update, at the gradient in y
        x ← μ₂ x + (1 - μ₂) z
        y = μ₁ x + (1 - μ₁) z

    μ₁ = `b1`, μ₂ = `b2`. The parameters are y; z is in the state, and `eval_params(state, params)`
    gives x. The base optimizer keeps its learning-rate schedule. Around gradient descent, with μ₁ =
    μ₂ = μ, it is Nesterov's method with momentum μ and learning rate (1 - μ) α, whose look-ahead
    points are y.

    Memory: one slot `z`, 4 bytes per parameter, and one scalar.

    Source: A. Defazio et al., Smoothing DiLoCo with Primal Averaging (2025), arXiv 2512.17131.
    """
    average = _kept(_primal, state_dtype, _constant, {"b1": _b1}, "gpa", b1=b1, b2=b2)
    return chain(base_optimizer, average)
