"""When an optimizer runs: where a condition holds, every k-th step, from a fresh state now and
then.

A wrapper is a transformation around another one. It is a direction if what it wraps is (the
gradient it freezes is then what entered the wrapper), hands on every extra argument, and never
branches in Python on a number. Accumulation is in `accumulate`, steps that are skipped in `skip`,
two gradients per step in `sam`.
"""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from gradxform.core import Count, Inner, Transform, leafwise, transformation, zeros
from gradxform.core.call import pytree
from gradxform.core.leaves import Tree
from gradxform.core.states import answers
from gradxform.numerics import increment
from gradxform.wrappers.wrapper import Wrapper, cast, counter, is_multiple, pick, zeros_like

__all__ = ["conditionally_mask", "conditionally_transform", "every", "restart"]


@answers(inner_state="inner")
class ConditionState(NamedTuple):
    """State of `conditionally_transform`, `conditionally_mask` and `every`: calls so far, and the
    inner state.
    """

    step: jax.Array
    inner: Tree


@pytree(static=("should", "forward", "otherwise"))
class Conditional(Wrapper):
    """Built by `conditionally_transform`, `conditionally_mask` and `every`."""

    State: ClassVar[type] = ConditionState
    inner: Transform
    k: Count
    should: Callable | None
    forward: bool
    otherwise: str

    def init(self, params):
        return ConditionState(counter(), self.inner.init(params))

    def step(self, updates, state, params, gradient, extra):
        step, k = state.step, 1
        if self.should is None:
            k = self.number("k", step, jnp.int32)
            condition = is_multiple(step, k)
        else:
            condition = self.should(step, **(extra if self.forward else {}))

        def run(updates, inner):
            return self.run(updates, inner, params, gradient, extra)

        def leave(updates, inner):
            return zeros_like(updates) if self.otherwise == "zero" else updates, inner

        out, inner = jax.lax.cond(condition, run, leave, updates, state.inner)
        return out, ConditionState(increment(step, k), inner)


@transformation
def conditionally_transform(
    inner: Inner, should_transform_fn: Callable, forward_extra_args: bool = False
):
    """Run the inner transformation only where a condition holds; elsewhere the updates pass as they
    are.

        u, s ← inner(u, s)        if should_transform_fn(step)
        u, s ← u, s               otherwise

    Args:
        inner: the transformation.
        should_transform_fn: `f(step) -> bool`, the step counting the calls, 0 first.
        forward_extra_args: also give it the extra arguments of update: `f(step, *, value,
            **extra)`.

    Memory: one counter beside the inner state.

    Source: Optax (I. Babuschkin et al., The DeepMind JAX Ecosystem, 2020).

    Not: `conditionally_mask`, which gives zero updates elsewhere.
    """
    return Conditional(inner, 1, should_transform_fn, bool(forward_extra_args), "pass")


@transformation
def conditionally_mask(
    inner: Inner, should_transform_fn: Callable, forward_extra_args: bool = False
):
    """Run the inner transformation only where a condition holds; elsewhere the updates are zero.

        u, s ← inner(u, s)        if should_transform_fn(step)
        u, s ← 0, s               otherwise

    Args:
        inner: the transformation.
        should_transform_fn: `f(step) -> bool`, the step counting the calls, 0 first.
        forward_extra_args: also give it the extra arguments of update: `f(step, *, value,
            **extra)`.

    Memory: one counter beside the inner state.

    Source: Optax (I. Babuschkin et al., The DeepMind JAX Ecosystem, 2020).
    """
    return Conditional(inner, 1, should_transform_fn, bool(forward_extra_args), "zero")


@transformation
def every(k: Count, inner: Inner):
    """Run the inner transformation at the steps 0, k, 2k, … on the gradient of that step; zero
    updates in between.

    The gradients in between are not used at all: `accumulate` averages them. The inner step counts
    its own runs.

    Memory: one counter beside the inner state.
    """
    return Conditional(inner, k, None, False, "zero")


def _apply_every(u, at, total, *, k):
    """a ← a + u
    u = a      at every k-th step, else 0
    a ← 0      after every k-th step
    """
    total = jnp.where(is_multiple(at.t - 1, k), jnp.zeros_like(total), total) + u
    return jnp.where(is_multiple(at.t, k), total, jnp.zeros_like(total)), total


@transformation
def apply_every(k: Count = 1):
    """Collect the updates of k steps and let their sum through at the k-th; zero updates in
    between.

        a ← a + u
        u ← a, then a ← 0        at every k-th step; otherwise u ← 0

    What stands before it in the chain runs at every step.

    Memory: one slot `total`, 4 bytes per parameter.

    Source: Optax (I. Babuschkin et al., The DeepMind JAX Ecosystem, 2020).

    Not: `accumulate`, where the optimizer itself runs every k-th step on the mean gradient.
    """
    return leafwise(_apply_every, slots={"total": zeros()}, k=k)


@answers(inner_state="inner")
class RestartState(NamedTuple):
    """State of `restart`: calls so far, and the inner state."""

    step: jax.Array
    inner: Tree


@pytree()
class Restart(Wrapper):
    """Built by `restart`."""

    State: ClassVar[type] = RestartState
    needs_params: ClassVar[bool] = True
    inner: Transform
    period: Count

    def init(self, params):
        return RestartState(counter(), self.inner.init(params))

    def step(self, updates, state, params, gradient, extra):
        out, inner = self.run(updates, state.inner, params, gradient, extra)
        period = self.number("period", state.step, jnp.int32)
        step = increment(state.step, period)
        over = is_multiple(step, period)
        return out, RestartState(step, pick(over, cast(self.inner.init(params), inner), inner))


@transformation
def restart(inner: Inner, period: Count):
    """Begin again with a fresh inner state after every `period` steps; its averages, step counts
    and schedules start anew.

    Memory: one counter beside the inner state.

    Raises:
        ValueError: update() without params.

    Source: for momentum, B. O'Donoghue, E. Candès, Adaptive Restart for Accelerated Gradient
    Schemes (2015), fixed restart.
    """
    return Restart(inner, period)
