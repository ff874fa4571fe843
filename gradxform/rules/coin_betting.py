"""Step sizes by betting: each gradient is a coin, the wealth that a good strategy earns on it is
how far to go.
"""

import jax.numpy as jnp

from gradxform.core import Epsilon, NonNegative, copied, leafwise, real_full, transformation, zeros
from gradxform.numerics import safe_divide

__all__ = ["scale_by_cocob"]


def _cocob(u, at, x0, bets, scale, absolute, reward, *, alpha):
    """s ← max(s, |u|)
    G ← G + |u|
    R ← max(R - u (p - p₀), 0)
    θ ← θ - u
    p ← p₀ + θ / (s max(G + s, α s)) (s + R)
    """
    scale = jnp.maximum(scale, jnp.abs(u))
    absolute = absolute + jnp.abs(u)
    reward = jnp.maximum(reward - u * (at.p - x0), 0)
    bets = bets - u
    # two quotients, of which neither leaves the range of numbers
    share = safe_divide(bets, scale)
    share = share * safe_divide(scale + reward, jnp.maximum(absolute + scale, alpha * scale))
    # where every gradient was zero: no bet, and no slope of 1/(αε)
    share = jnp.where(absolute == 0, jnp.zeros_like(share), share)
    return x0 + share - at.p, x0, bets, scale, absolute, reward


@transformation
def scale_by_cocob(alpha: NonNegative = 100.0, eps: Epsilon = 1e-8):
    """Bet on each coordinate of the gradient as on a coin, with the wealth won so far.

        L ← max(L, |u|),  G ← G + |u|,  R ← max(R - u (p - p₀), 0),  θ ← θ - u
        p ← p₀ + θ / (L max(G + L, α L)) (L + R)

    L begins at ε = `eps`. The update is the way to that p, so it comes last and takes the gradient
    as it is, not a descent.

    Memory: slots `x0`, `bets`, `scale`, `absolute`, `reward`, 20 bytes per parameter.

    Raises:
        ValueError: update() without params.

    Source: F. Orabona, T. Tommasi, Training Deep Networks without Learning Rates Through Coin
    Betting (2017), algorithm 2.
    """
    slots = {"x0": copied(), "bets": zeros(), "scale": real_full}
    slots |= {"absolute": zeros(), "reward": zeros()}
    return leafwise(_cocob, slots=slots, alpha=alpha, initial=eps)
