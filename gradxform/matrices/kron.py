"""PSGD with Kronecker factors: a matrix is whitened from both sides by factors that are learned."""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp

from gradxform.core import Fraction, Hyper, RuleState, Transform, transformation
from gradxform.core.call import pytree
from gradxform.core.hyper import Positive, one_number
from gradxform.matrices.declaration import Matrices
from gradxform.matrices.matrixwise import MatrixSlot, Matrixwise, matrixwise
from gradxform.numerics import abs_sq, safe_divide, safe_sqrt, wide_dtype
from gradxform.rules.noise import Key, _key_data
from gradxform.schedules.basic import exponential_decay

__all__ = ["scale_by_kron"]

_product = partial(jnp.matmul, precision="highest")


def _adjoint(x):
    return jnp.conj(jnp.swapaxes(x, -2, -1)) if x.ndim > 1 else jnp.conj(x)


def _times(q, x):
    """Q X; of a diagonal Q its diagonal is held."""
    return q[:, None] * x if q.ndim == 1 else _product(q, x)


def _over(q, x):
    """Q⁻ᵀ X"""
    if q.ndim == 1:
        return x / jnp.conj(q)[:, None]
    return jax.scipy.linalg.solve_triangular(q, x, trans="C")


def _both_sides(left, right, x):
    """Q_l X Q_rᵀ"""
    return _adjoint(_times(right, _adjoint(_times(left, x))))


def _largest(x):
    return jnp.max(jnp.abs(x))


def _spectral_norm(x):
    """A lower bound, close in practice, of the largest eigenvalue of X = Xᵀ ≥ 0: one step of the
    power method from its longest row.
    """
    x = safe_divide(x, scale := _largest(x).astype(x.dtype))
    row = x[jnp.argmax(jnp.sum(abs_sq(x), axis=1))]
    step = row @ x
    length = safe_sqrt(jnp.sum(abs_sq(step)))
    return jnp.real(scale) * safe_divide(safe_sqrt(jnp.sum(abs_sq(step @ x))), length)


def _moved(q, a, b, rate):
    """A step of Q along the gradient of ‖A‖² + ‖B‖² on the group that Q is of: triangular or
    diagonal matrices. It is as long as `rate` of Q itself.
    """
    if q.ndim == 1:
        a, b = jnp.sum(abs_sq(a), axis=1), jnp.sum(abs_sq(b), axis=1)
        return q - rate * safe_divide(a - b, jnp.max(a + b)) * q
    a, b = _product(a, _adjoint(a)), _product(b, _adjoint(b))
    size = _spectral_norm(a + b).astype(q.dtype)
    return q - _product(jnp.triu(rate * safe_divide(a - b, size)), q)


def _begun(q, scale):
    """Q, or a multiple of the identity where there is none yet."""
    one = jnp.ones_like(q) if q.ndim == 1 else jnp.eye(*q.shape, dtype=q.dtype)
    return jnp.where(q.ravel()[0] == 0, scale.astype(q.dtype) * one, q)


def _fit(v, at, left, right, *, precond_lr, init_scale=None):
    """A step of both factors that makes E[‖Q_l g Q_rᵀ‖² + ‖Q_l⁻ᵀ V Q_r⁻¹‖²] smaller."""
    size = _largest(at.g)
    known = (size > 0) & (size < jnp.inf)
    g = jnp.where(known, at.g, jnp.ones_like(at.g))
    size = jnp.where(known, size, jnp.ones_like(size))
    begin = init_scale
    if begin is None:
        begin = jax.lax.rsqrt(size * jnp.sqrt(jnp.mean(abs_sq(g / size))))
    begin = jnp.sqrt(jnp.asarray(begin, size.dtype))
    q, r = _begun(left, begin), _begun(right, begin)
    a, b = _both_sides(q, r, g), _adjoint(_over(r, _adjoint(_over(q, v))))
    unit = jnp.maximum(_largest(a), _largest(b))
    a, b = a / unit, b / unit
    q, r = _moved(q, a, b, precond_lr), _moved(r, _adjoint(a), _adjoint(b), precond_lr)
    q_size, r_size = _largest(q), _largest(r)
    balance = jnp.sqrt(r_size / q_size)
    return v, jnp.where(known, q * balance, left), jnp.where(known, r / balance, right)


def _whiten(u, at, left, right):
    """u ← Q_lᵀ Q_l u Q_rᵀ Q_r"""
    inside = _both_sides(left, right, u)
    return _both_sides(_adjoint(left), _adjoint(right), inside), left, right


@dataclass(frozen=True)
class _Factor(MatrixSlot):
    """A triangular factor of one side, or a diagonal one where the side is too long."""

    longest: int = 0
    skew: int | None = None

    def make(self, p, seen):
        """Zeros, for none yet."""
        side = (self.axes or ("rows",))[0]
        other = seen.rows + seen.columns - (size := getattr(seen, side))
        full = size <= self.longest and (self.skew is None or size <= self.skew * other)
        return MatrixSlot((side, side) if full else (side,)).make(p, seen)


@pytree(static=("max_size_triangular", "max_skew", "matrices", "name"))
class Kron(Transform):
    """Built by `scale_by_kron`."""

    equation: ClassVar[str] = """V = 𝒩(0, 1)      a matrix
        A = Q g Rᵀ
        B = Q⁻ᵀ V R⁻¹
        Q ← Q - μ triu(A Aᵀ - B Bᵀ) Q / ‖A Aᵀ + B Bᵀ‖      with probability π
        R ← R - μ triu(Aᵀ A - Bᵀ B) R / ‖Aᵀ A + Bᵀ B‖      with probability π
        u ← Qᵀ Q u Rᵀ R"""
    precond_probability: Fraction
    precond_lr: Fraction
    key: Key
    precond_init_scale: Hyper | None
    max_size_triangular: int
    max_skew: int | None
    matrices: Matrices
    name: str = "scale_by_kron"

    def _on_matrices(self, rule, **hypers) -> Matrixwise:
        size = {"longest": self.max_size_triangular, "skew": self.max_skew}
        slots = {f"q_{x}": _Factor((side,), **size) for x, side in _SIDES.items()}
        return matrixwise(rule, slots=slots, matrices=self.matrices, name=self.name, **hypers)

    def seen(self, tree):
        """How each leaf falls into matrices; None for an absent one."""
        return self._on_matrices(_whiten).seen(tree)

    def reads_gradient(self) -> bool:
        return True

    def init(self, params):
        step, slots = self._on_matrices(_whiten).init(params)
        return RuleState(step, slots | {"key": _key_data(params, key=self.key)})

    def update(self, updates, state, params=None, *, gradient=None, **extra):
        key, chance, sample = jax.random.split(jax.random.wrap_key_data(state.slots["key"]), 3)
        given = self.precond_probability
        probability = one_number(self.name, "precond_probability", given, state.step)
        due = (state.step == 0) | (jax.random.uniform(chance) < probability)
        old = RuleState(state.step, {k: x for k, x in state.slots.items() if k != "key"})
        g = updates if gradient is None else gradient
        fitted = jax.lax.cond(due, self._fitted, lambda key, g, p, x: x, sample, g, params, old)
        out, new = self._on_matrices(_whiten).update(updates, fitted, params)
        return out, RuleState(new.step, new.slots | {"key": jax.random.key_data(key)})

    def _fitted(self, key, g, params, state):
        """The state after a step of the factors."""
        first = {"init_scale": self.precond_init_scale}
        first = {} if self.precond_init_scale is None else first
        fit = self._on_matrices(_fit, precond_lr=self.precond_lr, **first)
        leaves, structure = jax.tree.flatten(g)
        keys = jax.random.split(key, len(leaves))
        v = structure.unflatten(map(_normal, keys, leaves))
        _, new = fit.update(v, state, params, gradient=g)
        return RuleState(state.step, new.slots)


_SIDES = {"left": "rows", "right": "columns"}


def _normal(key, x):
    dtype = wide_dtype(x.dtype)
    # beside zeros like x, so that it varies over the devices that x varies over
    return jnp.zeros_like(x, dtype) + jax.random.normal(key, x.shape, dtype)


FALLING = exponential_decay(1.0, 1000, math.exp(-1), transition_begin=500, end_value=0.03)


@transformation
def scale_by_kron(
    precond_probability: Fraction = FALLING, precond_lr: Fraction = 0.1, key: Key = 0,
    *, precond_init_scale: Positive | None = None, max_size_triangular: int = 8192,
    max_skew: int | None = None, matrices: Matrices | None = None,
):  # fmt: skip
    """Whiten each matrix from both sides by P = QᵀQ ⊗ RᵀR, learned without a root or an average:
    PSGD with Kronecker factors.

        A = Q g Rᵀ,  B = Q⁻ᵀ V R⁻¹               V a matrix of normal numbers
        Q ← Q - μ triu(A Aᵀ - B Bᵀ) Q / ‖A Aᵀ + B Bᵀ‖
        R ← R - μ triu(Aᵀ A - Bᵀ B) R / ‖Aᵀ A + Bᵀ B‖
        u ← Qᵀ Q u Rᵀ R

    A step on the group of triangular matrices that makes E[gᵀ P g + vᵀ P⁻¹ v] smaller; where g is
    the gradient, the minimum is P = E[g gᵀ]^-1/2. Q and R are balanced to the same largest entry,
    which leaves P as it is. The gradient's scale changes nothing.

    Args:
        precond_probability: π, how likely a step of Q and R is; by default 1 for 500 steps, then
            falling to 0.03 by 4000. A step that is not made costs nothing. The first one always is.
        precond_lr: μ.
        key: an integer or a `jax.random` key; its data lives in the state.
        precond_init_scale: Q ⊗ R is this times the identity at first; by default it makes the first
            gradient one of unit root mean square.
        max_size_triangular: longer sides have a diagonal factor.
        max_skew: a side this many times longer than the other has one, too: 1 for a diagonal
            factor on the longer side always.
        matrices: which axes are rows and columns; other parameters are an error.

    Memory: 4 (i² + j²) bytes for i j parameters; 4 n for a diagonal factor of n.

    Source: X.-L. Li, Preconditioned Stochastic Gradient Descent (2015), and Stochastic Hessian
    Fittings with Lie Groups (2024), section 4.
    """
    how = (precond_init_scale, max_size_triangular, max_skew, matrices)
    return Kron(precond_probability, precond_lr, key, *how)
