"""Wrappers that compare a step with the gradient it came from, entry by entry, whatever optimizer
made it.

A step and the gradient of the moment agree where moving along the step lowers the loss to first
order.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from gradxform.core import Inner, RuleState, Transform, leafwise, transformation
from gradxform.core.call import pytree
from gradxform.numerics import agreement, real_dtype
from gradxform.wrappers.wrapper import Wrapper, counter

__all__ = ["cautious", "grams"]


@dataclass(frozen=True)
class _Cautious:
    """Keeps what goes up (sign 1) or down (-1) along the gradient, divided by the share that is
    kept.
    """

    sign: int
    convention: str

    @property
    def equation(self) -> str:
        share = "(Σφ + 1) / n" if self.convention == "paper" else "max(Σφ / n, 1e-5)"
        return f"""φ = 1      where u g {"<" if self.sign < 0 else ">"} 0, else 0
            n = size(u)      in the leaf
            u ← u φ / [{share}]"""

    def __call__(self, u, at):
        agree = self.sign * agreement(u, at.g) > 0
        kept = jnp.sum(agree, dtype=jnp.int32).astype(real_dtype(u.dtype))
        kept = kept + 1 if self.convention == "paper" else jnp.maximum(kept, 1e-5 * u.size)
        return jnp.where(agree, u * (u.size / kept), jnp.zeros_like(u))


def _grams_up(u, at):
    """u ← sign(g) |u|"""
    return jnp.sign(at.g) * jnp.abs(u)


def _grams_down(u, at):
    """u ← -sign(g) |u|"""
    return -jnp.sign(at.g) * jnp.abs(u)


@pytree(static=("rule",))
class Agreement(Wrapper):
    """A transformation whose step is compared with the gradient that entered it. Built by
    `cautious` and `grams`.
    """

    inner: Transform
    rule: Any

    def inside(self, state=None, params=None):
        yield "", self.inner, state, params

    def init(self, params):
        return self.inner.init(params)

    def update(self, updates, state, params=None, *, gradient=None, **extra):
        step, state = self.run(updates, state, params, gradient, extra)
        compared = updates if gradient is None else gradient
        rule = leafwise(self.rule, name="agreement")
        return rule.update(step, RuleState(counter(), {}), gradient=compared)[0], state


@transformation(conventions=("paper", "lion_pytorch"))
def cautious(inner: Inner, *, descends: bool = True, convention: str = "paper"):
    """Keep only the entries of a step that agree with the gradient, lengthened by the share that is
    kept.

        φ = 1 where the step descends along the gradient, else 0
        u ← u φ n / (Σφ + 1)                  n entries in the leaf, Σφ of them kept
        u ← u φ / max(Σφ / n, 1e-5)           convention="lion_pytorch"

    Args:
        inner: any optimizer, whose updates go downhill: `cautious(adam(1e-3))`.
        descends: False for what stands before the learning rate and goes uphill, such as
            `scale_by_adam()`. So weight decay stays outside: `chain(cautious(scale_by_adam(),
            descends=False), add_decayed_weights(λ), scale_by_learning_rate(α))`.
        convention: "paper", and so pytorch_optimizer, or "lion_pytorch".

    Memory: none beside the inner state.

    Source: K. Liang et al., Cautious Optimizers: Improving Training with One Line of Code (2024),
    algorithm 1.

    Not: `add_decayed_weights(kind="cautious")`, which compares the decay with the step.
    """
    return Agreement(inner, _Cautious(-1 if descends else 1, convention))


@transformation
def grams(inner: Inner, *, descends: bool = True):
    """Take the size of a step from the optimizer and its direction from the gradient.

        u ← -sign(g) |u|                      descends=False: sign(g) |u|

    Args:
        inner: any optimizer, whose updates go downhill: `grams(adam(1e-3))`.
        descends: False for what stands before the learning rate and goes uphill, such as
            `scale_by_adam()`; weight decay then stays outside.

    Memory: none beside the inner state.

    Source: Y. Cao, X. Li, Z. Song, Grams: Gradient Descent with Adaptive Momentum Scaling (2024),
    algorithm 1.
    """
    return Agreement(inner, _grams_down if descends else _grams_up)
