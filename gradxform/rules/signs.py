"""Steps from signs alone: how large a gradient is does not matter, only which way it points."""

from dataclasses import dataclass
from typing import Annotated, Literal

import jax.numpy as jnp

from gradxform.core import dtype_name, leafwise, real_full, transformation, zeros
from gradxform.core.hyper import Decay, Fraction, Hyper, LearningRate, NonNegative, Positive, Range
from gradxform.numerics import lerp

__all__ = ["scale_by_lion", "scale_by_rprop", "scale_by_sign"]

# At 0 nothing of the old average would be left to compute the step from, see `_lion_point`
OpenDecay = Annotated[Hyper, Range("(0, 1]", "share of the old average kept at each step")]


Growth = Annotated[Hyper, Range("[1, inf)", "a factor by which steps grow")]


def _sign(u, at):
    """u ← sign(u)"""
    return jnp.sign(u)


@transformation
def scale_by_sign():
    """Keep only the sign: u ← sign(u), and 0 for 0.

    Memory: none.

    Source: J. Bernstein et al., signSGD: Compressed Optimisation for Non-Convex Problems (2018),
    algorithm 1.
    """
    return leafwise(_sign)


def _lion_point(u, m, b1, b2):
    """b2 · (b1 m_old + (1 - b1) g), from the new average alone.

    With m = b2 m_old + (1 - b2) g it is b1 m + (b2 - b1) g. So no copy of the old average outlives
    the new one, which costs four fifths of the step otherwise.
    """
    return b1 * m + (b2 - b1) * u


def _lion(u, at, m, *, b1, b2):
    """c = β₁ m + (1 - β₁) u
    m ← β₂ m + (1 - β₂) u
    u = sign(c)
    """
    m = lerp(u, m, b2)
    return jnp.sign(_lion_point(u, m, b1, b2)), m


def _lion_smooth(u, at, m, *, b1, b2, smooth_beta):
    """c = β₁ m + (1 - β₁) u
    m ← β₂ m + (1 - β₂) u
    u = tanh(s c)
    """
    m = lerp(u, m, b2)
    return jnp.tanh(smooth_beta * (_lion_point(u, m, b1, b2) / b2)), m


def _lion_refined(u, at, m, *, b1, b2):
    """c = β₁ m + (1 - β₁) u
    m ← β₂ m + (1 - β₂) u
    u = min(max(c, -1), 1)
    """
    m = lerp(u, m, b2)
    x = _lion_point(u, m, b1, b2) / b2
    return jnp.where(jnp.abs(x) < 1, x, jnp.sign(x)), m


@transformation
def scale_by_lion(
    b1: Decay = 0.9, b2: OpenDecay = 0.99, mu_dtype=None, *,
    mode: Literal["hard", "smooth", "refined"] = "hard", smooth_beta: Positive = 1.0,
):  # fmt: skip
    """The sign of a mean of the gradient and a longer average of it.

        c = β₁ m + (1 - β₁) g
        m ← β₂ m + (1 - β₂) g
        u = sign(c)              mode="hard"
        u = tanh(s c)            "smooth", s = `smooth_beta`
        u = c clipped to ±1      "refined"

    Memory: one slot `m`, 4 bytes per parameter (`mu_dtype` to change).

    Raises:
        ValueError: b2 outside (0, 1], an unknown mode.

    Source: X. Chen et al., Symbolic Discovery of Optimization Algorithms (2023), program 1.
    """
    slots = {"m": zeros(dtype_name(mu_dtype))}
    if mode == "smooth":
        return leafwise(_lion_smooth, slots=slots, b1=b1, b2=b2, smooth_beta=smooth_beta)
    return leafwise(_lion if mode == "hard" else _lion_refined, slots=slots, b1=b1, b2=b2)


@dataclass(frozen=True)
class _Rprop:
    """Rprop's rule; `late`, each step is taken one update after it was found."""

    late: bool

    @property
    def equation(self) -> str:
        step = ["h ← s sign(u)      0 where e < 0", "u = h"]
        late = ["u = h      as it was, 0 where e < 0", step[0]]
        return """e = sign(u) sign(h)
            s ← min(max(η⁺ s, s₋), s₊)      where e > 0
            s ← min(max(η⁻ s, s₋), s₊)      where e < 0
            """ + "\n".join(late if self.late else step)

    def __call__(self, u, at, size, previous, *, eta_minus, eta_plus, min_step_size, max_step_size):
        agree = jnp.sign(u) * jnp.sign(previous)
        factor = jnp.where(agree > 0, eta_plus, eta_minus).astype(size.dtype)
        size = jnp.where(agree == 0, size, jnp.clip(size * factor, min_step_size, max_step_size))
        nothing = jnp.zeros_like(u)
        step = jnp.where(agree < 0, nothing, size * jnp.sign(u))
        return jnp.where(agree < 0, nothing, previous) if self.late else step, size, step


@transformation(conventions=("optax", "torch"))
def scale_by_rprop(
    learning_rate: LearningRate, eta_minus: Fraction = 0.5, eta_plus: Growth = 1.2,
    min_step_size: NonNegative = 1e-6, max_step_size: Positive = 50.0, *, convention: str = "optax",
):  # fmt: skip
    """A step size for each parameter, which grows while the gradient keeps its sign and shrinks
    when it turns.

        a = sign(g · w)
        s ← min(η⁺ s, max)  for a > 0,   max(η⁻ s, min)  for a < 0,   s  for a = 0
        w ← s sign(g), and 0 for a < 0
        u = w                                    convention="torch"
        u = the w before, and 0 for a < 0        "optax": one step late, so the first update is 0

    s starts at `learning_rate`; no learning rate multiplies u. For full batches: it sees nothing of
    a gradient's size.

    Memory: slots `step_size` and `previous` (w), 8 bytes per parameter.

    Source: M. Riedmiller, H. Braun, The RPROP algorithm (1993), in the form of C. Igel, M. Hüsken
    (2000): iRprop⁻.
    """
    slots = {"step_size": real_full, "previous": zeros()}
    numbers = {"initial": learning_rate, "eta_minus": eta_minus, "eta_plus": eta_plus}
    numbers |= {"min_step_size": min_step_size, "max_step_size": max_step_size}
    return leafwise(_Rprop(convention == "optax"), name="scale_by_rprop", slots=slots, **numbers)
