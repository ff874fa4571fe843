"""Rules that remember the gradient before, or divide by what was known before this gradient came.

Optimistic steps and Adan extrapolate by the last change of the gradient; ADOPT and ACProp divide a
gradient by a second moment that has not seen it, which frees the step of the bias that the two
share in Adam. None of them is a product of the grid.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from gradxform.core import dtype_name, leafwise, real_zeros, transformation, zeros
from gradxform.core.hyper import Decay, Epsilon, Real
from gradxform.numerics import abs_sq, clip_parts, debias, divide_by_root, lerp, safe_sqrt

__all__ = ["fourth_root", "scale_by_acprop", "scale_by_adan", "scale_by_adopt"]
__all__ += ["scale_by_optimistic_gradient"]


def _optimistic(u, at, previous, *, alpha, beta):
    """d = u - u₋₁      0 at the first step
    u₋₁ ← u
    u ← α u + β d
    """
    before = jnp.where(at.t == 1, u, previous)
    return (alpha + beta) * u - beta * before, u


@transformation
def scale_by_optimistic_gradient(alpha: Real = 1.0, beta: Real = 1.0):
    """Extrapolate by the last change: u ← α u + β (u - u before); at the first step u before is u.

    Memory: one slot `previous`, 4 bytes per parameter.

    Source: A. Mokhtari, A. Ozdaglar, S. Pattathil, A Unified Analysis of Extra-gradient and
    Optimistic Gradient Methods (2020).
    """
    return leafwise(_optimistic, slots={"previous": zeros()}, alpha=alpha, beta=beta)


@dataclass(frozen=True)
class _Adan:
    """Adan's rule; the share of the change in the look-ahead is the `complement` of b2, or b2."""

    complement: bool

    @property
    def equation(self) -> str:
        share = "(1 - β₂)" if self.complement else "β₂"
        return f"""d = u - g₋₁      0 at the first step
            g₋₁ ← u
            m ← β₁ m + (1 - β₁) u
            v ← β₂ v + (1 - β₂) d
            n ← β₃ n + (1 - β₃) (u + {share} d)²
            m̂ = m / (1 - β₁ᵗ)
            v̂ = v / (1 - β₂ᵗ)
            n̂ = n / (1 - β₃ᵗ)
            u = (m̂ + {share} v̂) / (√(n̂ + ε₀) + ε)"""

    def __call__(self, u, at, m, v, n, previous, *, b1, b2, b3, eps, eps_root):
        share = 1 - b2 if self.complement else b2
        change = jnp.where(at.t == 1, jnp.zeros_like(u), u - previous)
        m, v = lerp(u, m, b1), lerp(change, v, b2)
        n = lerp(abs_sq(u + share * change), n, b3)
        ahead = debias(m, b1, at.t) + share * debias(v, b2, at.t)
        return divide_by_root(ahead, debias(n, b3, at.t), eps, eps_root), m, v, n, u


def _adan_paper(u, at, m, v, n, previous, *, b1, b2, b3, eps, eps_root):
    """d = u - g₋₁      0 at the first step
    g₋₁ ← u
    m ← β₁ m + (1 - β₁) u      m = u at the first step
    v ← β₂ v + (1 - β₂) d
    n ← β₃ n + (1 - β₃) (u + β₂ d)²      n = u² at the first step
    u = (m + β₂ v) / (√(n + ε₀) + ε)
    """
    first = at.t == 1
    change = jnp.where(first, jnp.zeros_like(u), u - previous)
    m = jnp.where(first, u, lerp(u, m, b1))
    v = lerp(change, v, b2)
    square = abs_sq(u + b2 * change)
    n = jnp.where(first, square, lerp(square, n, b3))
    return divide_by_root(m + b2 * v, n, eps, eps_root), m, v, n, u


_ADAN = {"optax": _Adan(True), "authors": _Adan(False), "paper": _adan_paper}


@transformation(conventions=("optax", "authors", "paper"))
def scale_by_adan(
    b1: Decay = 0.98, b2: Decay = 0.92, b3: Decay = 0.99, eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0, *, convention: str = "optax",
):  # fmt: skip
    """Nesterov's look-ahead from the change of the gradient, and a second moment of the same
    look-ahead.

        d = g - g before                            0 at the first step
        m ← β₁ m + (1 - β₁) g
        v ← β₂ v + (1 - β₂) d
        n ← β₃ n + (1 - β₃) (g + κ d)²
        u = (m̂ + κ v̂) / (√(n̂ + ε₀) + ε)

    Conventions: "authors", the authors' code, has κ = β₂, here the share kept. Its complement in
    the paper's notation, where β₂ is the share of the new, gives "optax" its κ = 1 - β₂: 0.08
    instead of 0.92. "paper" has κ = β₂, starts with m₁ = g₁, v₁ = 0, n₁ = g₁², and corrects
    nothing.

    Memory: slots `m`, `v`, `n` and `previous`, 16 bytes per parameter.

    Source: X. Xie et al., Adan: Adaptive Nesterov Momentum Algorithm (2022), algorithm 1.
    """
    slots = {"m": zeros(), "v": zeros(), "n": real_zeros, "previous": zeros()}
    numbers = {"b1": b1, "b2": b2, "b3": b3, "eps": eps, "eps_root": eps_root}
    return leafwise(_ADAN[convention], slots=slots, name="scale_by_adan", **numbers)


def fourth_root(t):
    """ADOPT's bound on a normalised gradient, t^(1/4)."""
    return t**0.25


@dataclass(frozen=True)
class _Adopt:
    """ADOPT's rule: its bound (a function of a step, or None), the first step of that, Nesterov's
    form or not.
    """

    bound: Callable | None
    start: int
    nesterov: bool

    @property
    def equation(self) -> str:
        step, name = "t" if self.start else "(t - 1)", getattr(self.bound, "__name__", "c")
        bound = f"{step}^(1 / 4)" if self.bound is fourth_root else f"`{name}`({step.strip('()')})"
        clipped = f"b = {bound},  x ← min(max(x, -b), b)" if self.bound else ""
        return f"""x = u / max(√v, ε)
            {clipped}
            m ← β₁ m + (1 - β₁) x      not at the first step
            v ← β₂ v + (1 - β₂) u²      v = u² at the first step
            u = {"β₁ m + (1 - β₁) x" if self.nesterov else "m"}"""

    def __call__(self, u, at, m, v, *, b1, b2, eps):
        first = at.t == 1
        x = u / jnp.maximum(safe_sqrt(v), eps)
        if self.bound is not None:
            limit = self.bound((at.t - 1 + self.start).astype(v.dtype))
            x = clip_parts(x, limit)
        m = jnp.where(first, m, lerp(x, m, b1))
        ahead = jnp.where(first, m, lerp(x, m, b1)) if self.nesterov else m
        square = abs_sq(u)
        return ahead, m, jnp.where(first, square, lerp(square, v, b2))


@transformation(conventions=("optax", "pytorch_optimizer"))
def scale_by_adopt(
    b1: Decay = 0.9, b2: Decay = 0.9999, eps: Epsilon = 1e-6, mu_dtype=None, *,
    nesterov: bool = False, use_clipping: bool = True,
    clip_value_fn: Callable[[Any], Any] = fourth_root, convention: str = "optax",
):  # fmt: skip
    """Average gradients that were each divided by the second moment of those before it.

        x = g / max(√v, ε), clipped to ±c(t - 1)
        m ← β₁ m + (1 - β₁) x
        v ← β₂ v + (1 - β₂) g²
        u = m                            nesterov: β₁ m + (1 - β₁) x

    The first step only sets v = g²; its update is 0. c is `clip_value_fn`, t^(1/4).

    Conventions: "optax", as the paper, counts the bound from the first step that moves: c(1) at t =
    2. "pytorch_optimizer" has c(t).

    Memory: slots `m` (`mu_dtype`) and `v`, 8 bytes per parameter.

    Source: S. Taniguchi et al., ADOPT: Modified Adam Can Converge with Any β₂ with the Optimal Rate
    (2024), algorithm 2.
    """
    bound, start = clip_value_fn if use_clipping else None, 0 if convention == "optax" else 1
    slots = {"m": zeros(dtype_name(mu_dtype)), "v": real_zeros}
    rule = _Adopt(bound, start, bool(nesterov))
    return leafwise(rule, slots=slots, name="adopt", b1=b1, b2=b2, eps=eps)


def _delayed(u, at, s, b2, eps):
    """The gradient over the deviation known before it came; at the first step, over 1."""
    average = debias(s, b2, jnp.maximum(at.t - 1, 1))
    return divide_by_root(u, jnp.where(at.t == 1, jnp.ones_like(s), average), eps, 0.0)


def _acprop(u, at, m, s, *, b1, b2, eps, eps_root):
    """ŝ = s / (1 - β₂ᵗ⁻¹)      1 at the first step
    s ← β₂ s + (1 - β₂) (u - m)² + ε₀
    m ← β₁ m + (1 - β₁) u
    u ← u / (√ŝ + ε)
    """
    step = _delayed(u, at, s, b2, eps)
    return step, lerp(u, m, b1), b2 * s + ((1 - b2) * abs_sq(u - m) + eps_root)


def _acprop_authors(u, at, m, s, *, b1, b2, eps, eps_root):
    """ŝ = s / (1 - β₂ᵗ⁻¹)      1 at the first step
    m ← β₁ m + (1 - β₁) u
    s ← β₂ s + (1 - β₂) (u - m)² + ε₀
    u ← u / (√ŝ + ε)
    """
    step = _delayed(u, at, s, b2, eps)
    m = lerp(u, m, b1)
    return step, m, b2 * s + ((1 - b2) * abs_sq(u - m) + eps_root)


@transformation(conventions=("optax", "authors"))
def scale_by_acprop(
    b1: Decay = 0.9, b2: Decay = 0.999, eps: Epsilon = 1e-16, eps_root: Epsilon = 1e-16, *,
    convention: str = "optax",
):  # fmt: skip
    """Divide each gradient by the deviation from their average, as it was before this gradient.

        u = g / (√(s / (1 - β₂ᵗ⁻¹)) + ε)             at the first step g / (1 + ε)
        s ← β₂ s + (1 - β₂) (g - m)² + ε₀
        m ← β₁ m + (1 - β₁) g

    Conventions: "optax" as above; in "authors", the authors' code, m is updated before s, as in
    AdaBelief.

    Memory: slots `m` and `s`, 8 bytes per parameter.

    Source: J. Zhuang et al., Momentum Centering and Asynchronous Update for Adaptive Gradient
    Methods (2021), algorithm 2.
    """
    rule = _acprop if convention == "optax" else _acprop_authors
    slots = {"m": zeros(), "s": real_zeros}
    return leafwise(rule, slots=slots, b1=b1, b2=b2, eps=eps, eps_root=eps_root)
