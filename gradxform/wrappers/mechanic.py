"""Learn the scale of any optimizer's steps by betting on it."""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from gradxform.core import Epsilon, Inner, NonNegative, Positive, Transform, transformation
from gradxform.core import leaves as trees
from gradxform.core.call import pytree
from gradxform.core.states import answers
from gradxform.numerics import increment, safe_divide, safe_sqrt
from gradxform.rules.measures import copy, inner, leaves_of, length, total
from gradxform.wrappers.wrapper import Wrapper, counter

__all__ = ["mechanize"]


def _gain(g, p, x0, pull):
    # apart from the x0 - p of the step, so that none is stored
    return inner(g + pull * p, x0 - jax.lax.optimization_barrier(p))


@answers(count="step", base_optimizer_state="inner", inner_state="inner")
class MechanicState(NamedTuple):
    """State of `mechanize`: updates made, what each bettor knows ([n] each), the initial
    parameters, the inner state.
    """

    step: jax.Array
    reward: jax.Array
    largest: jax.Array
    variance: jax.Array
    scale: jax.Array
    x0: trees.Tree
    inner: trees.Tree


@pytree(static=("num_betas",))
class Mechanic(Wrapper):
    """Built by `mechanize`."""

    called = "mechanize"
    State: ClassVar[type] = MechanicState
    needs_params: ClassVar[bool] = True
    inner: Transform
    weight_decay: NonNegative
    eps: Epsilon
    s_init: Positive
    num_betas: int

    def init(self, params):
        reward, largest, variance, none = (jnp.zeros(self.num_betas, float) for _ in range(4))
        scale = none + self.number("s_init", counter(), float)
        inner = self.inner.init(params)
        return MechanicState(counter(), reward, largest, variance, scale, copy(params), inner)

    def step(self, updates, state, params, gradient, extra):
        names = ("weight_decay", "eps", "s_init")
        weight_decay, eps, s_init = self.numbers(state.step, *names, dtype=float)
        out, inner_state = self.run(updates, state.inner, params, gradient, extra)
        first = lambda x, p: jnp.where(state.step == 0, p.astype(x.dtype), x)  # noqa: E731
        x0 = trees.tree_map(first, state.x0, params)
        g, p, start = map(leaves_of, (updates, params, x0))
        before = jnp.sum(state.scale)
        norm, size = (length(x).astype(float) for x in (g, p))
        pull = weight_decay * before * norm / (size + eps)

        h = total(_gain, g, p, start, numbers=(pull,)).astype(float) / (before + eps)
        betas = 1 - 0.1 ** jnp.arange(1, self.num_betas + 1, dtype=float)
        clipped = jnp.clip(h, -state.largest, state.largest)
        largest = jnp.maximum(betas * state.largest, jnp.abs(h) + eps)
        variance = betas**2 * state.variance + h**2
        reward = betas * state.reward + clipped * state.scale
        wealth = s_init / self.num_betas * largest + jnp.maximum(reward, 0)
        scale = safe_divide(wealth, safe_sqrt(variance) + eps)
        share = jnp.sum(scale)

        def move(u, p, x0):
            p, wide, sum_before, sum_now = (x.astype(x0.dtype) for x in (p, u, before + eps, share))
            return (x0 - sum_now * ((x0 - p) / sum_before - wide) - p).astype(u.dtype)

        learned = reward, largest, variance, scale, x0, inner_state
        return trees.tree_map(move, out, params, x0), MechanicState(increment(state.step), *learned)


@transformation
def mechanize(
    base_optimizer: Inner, weight_decay: NonNegative = 1e-2, eps: Epsilon = 1e-8,
    s_init: Positive = 1e-6, num_betas: int = 6,
):  # fmt: skip
    """Learn how far to go along the sum of an optimizer's steps, by n bettors with memories of 10,
    100, … steps.

        Δ = (p₀ - p) / Σs,  h = ⟨g + λ Σs ‖g‖ p / ‖p‖, Δ⟩
        m ← max(β m, |h| + ε),  v ← β² v + h²,  r ← β r + clip(h, ±m) s
        s ← (s₀ m / n + max(r, 0)) / (√v + ε)    for each β = 1 - 10⁻ⁱ, i = 1 … n = `num_betas`
        p ← p₀ - Σs (Δ - u),  u the base optimizer's update

    The base optimizer keeps its schedule, with 1 as its learning rate.

    Memory: p₀, 4 bytes per parameter, and 4 n scalars, beside the inner state.

    Raises:
        ValueError: update() without params; num_betas below 1.

    Source: A. Cutkosky, A. Defazio, H. Mehta, Mechanic: A Learning Rate Tuner (2023), algorithm 1;
    the clip of h is the authors' later.
    """
    if num_betas < 1:
        raise ValueError(f"mechanize: num_betas must lie in [1, inf); got {num_betas}")
    return Mechanic(base_optimizer, weight_decay, eps, s_init, int(num_betas))
