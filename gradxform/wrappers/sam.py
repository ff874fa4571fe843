"""Two gradients per step: first up, to where the loss is worst nearby, then down with the gradient
found there.
"""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from gradxform.core import Count, Inner, NonNegative, apply_updates, copied, transformation
from gradxform.core import leaves as trees
from gradxform.core.call import Value, pytree
from gradxform.core.transform import Transform
from gradxform.numerics import increment, safe_divide
from gradxform.rules.measures import length
from gradxform.wrappers.wrapper import Wrapper, cast, counter, pick

__all__ = ["sam", "sam_gradient"]


class SamState(NamedTuple):
    """State of `sam`: gradients since the last step down, the parameters before the ascent, and the
    two inner states.
    """

    mini_step: jax.Array
    outer_params: trees.Tree
    inner: trees.Tree
    adversary: trees.Tree


@pytree(static=("reset_state", "axis_name"))
class Sam(Wrapper):
    """Built by `sam`."""

    called = "sam"
    State: ClassVar[type] = SamState
    needs_params: ClassVar[bool] = True
    inner: Transform
    adversary: Transform
    sync_period: Count
    reset_state: bool
    axis_name: str | None

    def init(self, params):
        outer = trees.tree_map(copied(), params)
        return SamState(counter(), outer, self.inner.init(params), self.adversary.init(params))

    def inside(self, state=None, params=None):
        yield from super().inside(state, params)
        yield "adversary", self.adversary, state and state.adversary, params

    def step(self, updates, state, params, gradient, extra):
        kept = pick(state.mini_step == 0, cast(params, state.outer_params), state.outer_params)
        outer = cast(kept, params)
        period = self.number("sync_period", state.mini_step)
        last = state.mini_step.astype(jnp.float32) >= period - 1

        def descend(updates, inner, adversary):
            out, inner = self.run(updates, inner, outer, gradient, extra)
            out = jax.tree.map(lambda o, p, u: (o - p).astype(u.dtype) + u, outer, params, out)
            fresh = cast(self.adversary.init(params), adversary) if self.reset_state else adversary
            return out, inner, fresh

        def ascend(updates, inner, adversary):
            out, new = self.adversary.update(updates, adversary, params, **extra)
            out = jax.tree.map(lambda x, u: -x.astype(u.dtype), out, updates)
            return out, inner, cast(new, adversary)

        given = updates, state.inner, state.adversary
        out, inner, adversary = jax.lax.cond(last, descend, ascend, *given)
        return out, SamState(jnp.where(last, 0, increment(state.mini_step)), kept, inner, adversary)


class OpaqueSamState(NamedTuple):
    """State of `sam(opaque_mode=True)`: the two inner states."""

    inner: trees.Tree
    adversary: trees.Tree


@pytree(static=("reset_state", "axis_name"))
class OpaqueSam(Sam):
    """Built by `sam` with `opaque_mode=True`."""

    State: ClassVar[type] = OpaqueSamState
    needs_params: ClassVar[bool] = False  # it says itself what is missing

    def init(self, params):
        return OpaqueSamState(self.inner.init(params), self.adversary.init(params))

    def step(self, updates, state, params, gradient, extra):
        grad_fn = extra.pop("grad_fn", None)
        if params is None or grad_fn is None:
            missing = "the parameters" if params is None else "the keyword argument grad_fn="
            call = "update(updates, state, params, grad_fn=f)"
            raise ValueError(f"sam: update() in opaque mode needs {missing}: {call}")

        def ascend(i, carry):
            point, slope, adversary = carry
            ascent, new = self.adversary.update(slope, adversary, point, **extra)
            point = cast(apply_updates(point, jax.tree.map(jnp.negative, ascent)), point)
            slope = cast(grad_fn(point, i), updates)
            if self.axis_name is not None:
                slope = jax.lax.pmean(slope, self.axis_name)
            return point, slope, cast(new, adversary)

        carry = params, updates, state.adversary
        if isinstance(self.sync_period, Value):
            raise TypeError("sam: sync_period is a number in opaque mode, which counts no steps")
        if isinstance(self.sync_period, int):
            for i in range(self.sync_period - 1):
                carry = ascend(i, carry)
        else:
            ascents = self.number("sync_period", 0, jnp.int32) - 1
            carry = jax.lax.fori_loop(0, ascents, ascend, carry)
        _, slope, adversary = carry
        if self.reset_state:
            adversary = self.adversary.init(params)
        out, inner = self.run(slope, state.inner, params, None, extra)
        return out, OpaqueSamState(inner, cast(adversary, state.adversary))


@transformation
def sam(
    optimizer: Inner, adv_optimizer: Inner, sync_period: Count = 2, reset_state: bool = True,
    opaque_mode: bool = False, batch_axis_name: str | None = None,
):  # fmt: skip
    """Sharpness-aware minimisation: descend with the gradient of a point a little uphill.

        p̃ ← p                        then k - 1 times, k = `sync_period`:
        p̃ ← p̃ + ρ ∇f(p̃) / ‖∇f(p̃)‖    minus a step of `adv_optimizer`: chain(normalize(), sgd(ρ))
        p ← p + u                    u from `optimizer` at the gradient ∇f(p̃)

    Transparent, the default: each call makes one of these steps, the parameters are p̃ in between,
    and every k-th call comes back to p. Opaque: one call makes them all, given `update(g, state,
    params, grad_fn=f)`, where `f(params, i)` is the gradient for the i-th of the k - 1 ascents; i
    is traced where k is.

    Args:
        optimizer: the outer optimizer, which runs once per k gradients.
        adv_optimizer: its step, negated, is the ascent.
        sync_period: k. In opaque mode a number: a Python integer is written out and can be
            differentiated through; an array, or an argument of a compiled function, makes a loop.
        reset_state: begin each ascent with a fresh state of `adv_optimizer`; otherwise it goes on
            from the last.
        opaque_mode: as above.
        batch_axis_name: in opaque mode, the mapped axis over which the gradients are averaged.

    Memory: transparent, the outer parameters, 4 bytes per parameter, and a counter; opaque, none,
    beside the inner states.

    Raises:
        ValueError: update() without params; in opaque mode without grad_fn.

    Source: P. Foret et al., Sharpness-Aware Minimization (2021), algorithm 1.

    Not: `sam_gradient`, the same in one line for those who write their own training step.
    """
    mode = OpaqueSam if opaque_mode else Sam
    return mode(optimizer, adv_optimizer, sync_period, bool(reset_state), batch_axis_name)


def sam_gradient(grad_fn: Callable, rho: NonNegative = 0.05):
    """The gradient function ∇f(p + ρ ∇f(p) / ‖∇f(p)‖): sharpness-aware minimisation with any
    optimizer, no state.

        g = sam_gradient(jax.grad(loss), 0.05)(params, batch)

    The norm is over all leaves, and the direction is a constant to differentiation. Where the
    gradient is zero, p itself is taken.

    Args:
        grad_fn: `f(params, *rest) -> gradient`, both calls with the same rest.
        rho: ρ, in units of the parameters' norm.

    Memory: one gradient.

    Source: P. Foret et al., Sharpness-Aware Minimization (2021), equations 2 and 3.
    """

    def gradient(params, *args, **kwargs):
        slope = grad_fn(params, *args, **kwargs)
        norm = length(jax.tree.leaves(slope))
        share = safe_divide(jnp.asarray(rho, norm.dtype), norm)
        ascent = trees.tree_map(lambda g: g * share.astype(g.dtype), slope)
        return grad_fn(apply_updates(params, jax.lax.stop_gradient(ascent)), *args, **kwargs)

    return gradient
