"""Sums instead of the last gradient: dual averaging, averages of the iterates, differences of
gradients.
"""

import jax
import jax.numpy as jnp

from gradxform.core import PerLeaf, Positive, copied, leafwise, real_zeros, transformation, zeros
from gradxform.core import leaves as trees
from gradxform.core.hyper import Epsilon, Fading, LearningRate, Momentum, NonNegative
from gradxform.numerics import abs_sq, safe_divide
from gradxform.rules.measures import copy, leaves_of, like, norm

__all__ = ["reduce_variance", "scale_by_asgd", "scale_by_madgrad"]


def _cube_root(x):
    positive = x > 0
    root = jnp.cbrt(jnp.where(positive, x, jnp.ones_like(x)))
    return jnp.where(positive, root, jnp.zeros_like(x))


def _madgrad(u, at, x0, s, squares, *, learning_rate, momentum, eps):
    """η = (α + ε) √t
    s ← s + η u
    v ← v + η u²
    p ← β p + (1 - β) (p₀ - s / (∛v + ε))
    """
    rate = (learning_rate + eps) * jnp.sqrt(at.t.astype(jnp.real(u).dtype))
    s = s + rate * u
    squares = squares + rate * abs_sq(u)
    moved = jnp.where(squares == 0, jnp.zeros_like(s), safe_divide(s, _cube_root(squares) + eps))
    return (1 - momentum) * (x0 - moved - at.p), x0, s, squares


@transformation
def scale_by_madgrad(learning_rate: LearningRate, momentum: Momentum = 0.9, eps: Epsilon = 1e-6):
    """The step to an average of all gradients so far, divided by the cube root of their squares:
    MADGRAD's.

        λ = (α + ε) √t,  s ← s + λ u,  v ← v + λ u²
        p ← μ p + (1 - μ) (p₀ - s / (∛v + ε))

    The update is the whole way, sign included.

    Memory: slots `x0`, `s`, `squares`, 12 bytes per parameter.

    Raises:
        ValueError: update() without params.

    Source: A. Defazio, S. Jelassi, Adaptivity without Compromise (2022), algorithm 1; ε beside α as
    in the authors' code.
    """
    slots = {"x0": copied(), "s": zeros(), "squares": real_zeros}
    numbers = {"learning_rate": learning_rate, "momentum": momentum, "eps": eps}
    return leafwise(_madgrad, slots=slots, **numbers)


def _asgd(u, at, average, *, learning_rate, lambd, alpha, t0):
    """η = α / (1 + λ α (t - 1))^κ
    p ← p - η (u + λ p)
    a ← a + (p - a) / max(1, t - 1 - t₀)
    """
    t = at.t.astype(jnp.real(u).dtype)
    rate = learning_rate / (1 + lambd * learning_rate * (t - 1)) ** alpha
    step = -rate * (u + lambd * at.p)
    share = 1 / jnp.maximum(t - 1 - t0, 1)
    return step, average + share * (at.p + step - average)


@transformation
def scale_by_asgd(
    learning_rate: LearningRate = 0.01, lambd: NonNegative = 1e-4, alpha: NonNegative = 0.75,
    t0: NonNegative = 1e6,
):  # fmt: skip
    """Gradient descent with a falling rate, and the average of its iterates: torch's ASGD.

        η = α / (1 + λ α (t - 1))^κ
        p ← p - η (u + λ p)
        a ← a + (p - a) / max(1, t - 1 - t₀)

    λ = `lambd`, κ = `alpha`. The update is the whole step, sign included.

    Memory: slot `average_params`, 4 bytes per parameter.

    Raises:
        ValueError: update() without params.

    Source: B. T. Polyak, A. B. Juditsky, Acceleration of Stochastic Approximation by Averaging
    (1992); torch.optim.ASGD.
    """
    slots = {"average_params": copied()}
    numbers = {"learning_rate": learning_rate, "lambd": lambd, "alpha": alpha, "t0": t0}
    return leafwise(_asgd, slots=slots, **numbers)


def _mars(u, at, last, *, b1, gamma, max_norm):
    """d = u + γ β₁ / (1 - β₁) (u - g₋₁)
    g₋₁ ← u
    u = d / max(1, ‖d‖ / c)
    """
    corrected = u + gamma * b1 / (1 - b1) * (u - last)
    return corrected / jnp.maximum(norm(corrected) / max_norm, 1), u


def _gradient_before(updates, at, previous):
    """g₋₁ = ∇f(p₋₁)      f the loss of this batch
    p₋₁ ← p
    """
    loss = at.need("obj_fn")
    now = like(previous, at.p)
    before = jax.grad(loss)(trees.tree_map(lambda x, p: x.astype(p.dtype), previous, now))
    return PerLeaf(leaves_of(before)), now


def _mars_exact(u, at, *, b1, gamma, max_norm):
    """d = u + γ β₁ / (1 - β₁) (u - g₋₁)
    u = d / max(1, ‖d‖ / c)
    """
    return _mars(u, at, at.scalars.astype(u.dtype), b1=b1, gamma=gamma, max_norm=max_norm)[0]


@transformation
def reduce_variance(
    b1: Fading = 0.95, gamma: NonNegative = 0.025, max_norm: Positive = 1.0, *, exact: bool = False
):
    """Correct the gradient by how it changed: the variance reduction of MARS.

        c = g + γ β₁ / (1 - β₁) (g - g₋₁)
        u ← c / max(1, ‖c‖ / n)                  the norm of the leaf, n = `max_norm`

    g₋₁ is the gradient of the step before, 0 at first. `exact` takes it as the paper does, on the
    batch of this step at the parameters of the step before, which costs another gradient and needs
    `update(..., obj_fn=loss)`, where `loss(params)` is the loss of this batch.

    Memory: slot `last`, or `previous` (the parameters) for `exact`, 4 bytes per parameter.

    Raises:
        TypeError: `exact`, and update() without obj_fn.

    Source: H. Yuan et al., MARS: Unleashing the Power of Variance Reduction for Training Large
    Models (2024), equations 8 and 9.
    """
    how = {"b1": b1, "gamma": gamma, "max_norm": max_norm}
    if not exact:
        return leafwise(_mars, slots={"last": zeros()}, **how)
    return leafwise(_mars_exact, measure=_gradient_before, memory={"previous": copy}, **how)
