"""What is added to a gradient, and what is cleaned from it: weight decay and L2, noise, NaN."""

from typing import Literal

import jax.numpy as jnp

from gradxform.core import WeightDecay, Where, leafwise, only, transformation
from gradxform.numerics import agreement

__all__ = ["add_decayed_weights"]


def _decay(u, at, *, weight_decay):
    """u ← u + λ p"""
    if isinstance(weight_decay, float) and weight_decay == 0:
        return u  # a constant zero costs nothing; Adadelta has one by default
    return u + weight_decay * at.p


def _decay_independent(u, at, *, weight_decay):
    """u ← u - λ p"""
    return u - weight_decay * at.p


def _decay_cautious(u, at, *, weight_decay):
    """u ← u + λ p      where u p ≥ 0, else u"""
    outward = agreement(u, at.p) >= 0
    return u + weight_decay * jnp.where(outward, at.p, jnp.zeros_like(at.p))


_DECAYS = {"decoupled": _decay, "independent": _decay_independent, "cautious": _decay_cautious}


@transformation
def add_decayed_weights(
    weight_decay: WeightDecay = 0.0, mask: Where | None = None, *,
    kind: Literal["decoupled", "independent", "cautious"] = "decoupled",
):  # fmt: skip
    """Add a share of the weights.

        u ← u + λ p                  "decoupled"
        u ← u + λ p where u p ≥ 0    "cautious": decay only where the step already goes towards zero
        u ← u - λ p                  "independent": for the end of a chain, after the learning rate

    Its place in the chain is its meaning: before everything else it is L2 regularisation (the
    gradient of λ‖p‖²/2, which a preconditioner then rescales); after the preconditioner, before the
    learning rate, it is decoupled weight decay (AdamW), scaled by the learning rate; after that,
    "independent" of the learning rate, with a schedule of its own if one likes.

    Args:
        weight_decay: λ, a number, a schedule or a table by path.
        mask: also `where`: which leaves.
        kind: which of the three.

    Memory: none.

    Raises:
        ValueError: update() without params; a pattern that matches no leaf; an unknown kind.

    Source: I. Loshchilov, F. Hutter, Decoupled Weight Decay Regularization (2019), algorithms 1 and
    2, "independent" as their ηλ; L. Chen et al., Cautious Weight Decay (2025), algorithm 1.
    """
    return leafwise(_DECAYS[kind], weight_decay=only(mask, weight_decay))


def _decay_by_rate(u, at, *, rate, weight_decay):
    """u ← u + α λ p"""
    return u + rate * weight_decay * at.p


def decay_by_rate(learning_rate, weight_decay, where):
    """u ← u + α λ p: decoupled decay, for a chain that has its learning rate elsewhere."""
    numbers = {"rate": learning_rate, "weight_decay": only(where, weight_decay)}
    return leafwise(_decay_by_rate, name="decay_by_rate", **numbers)
