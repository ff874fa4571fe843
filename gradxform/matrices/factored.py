"""Second moments in less memory: a row and a column in place of a matrix, one number in place of a
block.

A factored leaf keeps the means of its squared gradients over one of two axes each, and their outer
product stands in for the whole. Which leaves are factored, and along which axes, is a matter of
their shape alone, or of a declaration of matrices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.core import leafwise, real_zeros, transformation, zeros
from gradxform.core.hyper import Ceiling, Decay, Epsilon, NonNegative, Real
from gradxform.core.slots import reduced_zeros
from gradxform.matrices.declaration import Matrices
from gradxform.matrices.lifted import on_matrices
from gradxform.numerics import abs_sq, debias, divide_by_root, lerp, safe_divide
from gradxform.rules.measures import rms

__all__ = ["scale_by_block_rms", "scale_by_came", "scale_by_factored_rms"]


@dataclass(frozen=True)
class Factoring:
    """Which two axes of an array are factored: its two largest ("largest") or its two last
    ("last"), if both are long enough.
    """

    factored: bool
    min_size: int
    which: str = "largest"

    def axes(self, shape: tuple[int, ...]) -> tuple[int, int] | None:
        """(the axis that the columns keep, the axis that the rows keep): of the largest, the
        smaller one first; None for no factoring.
        """
        if not self.factored or len(shape) < 2:
            return None
        if self.which == "last":
            rows, columns = len(shape) - 2, len(shape) - 1
        else:
            rows, columns = (int(i) for i in np.argsort(shape, kind="stable")[-2:])
        return (rows, columns) if min(shape[rows], shape[columns]) >= self.min_size else None


def _single(p):
    return jnp.zeros((1,), p.dtype)


@dataclass(frozen=True)
class _Mean:
    """Zeros in the shape of a mean over one of the factored axes; a single zero where the leaf is
    not factored.
    """

    factoring: Factoring
    over: int

    def __call__(self, p):
        axes = self.factoring.axes(p.shape)
        return real_zeros(_single(p)) if axes is None else reduced_zeros(p, axes[self.over])


@dataclass(frozen=True)
class _Full:
    """Zeros like the leaf where it is not factored; a single zero where it is."""

    factoring: Factoring

    def __call__(self, p):
        return real_zeros(p if self.factoring.axes(p.shape) is None else _single(p))


def _slots(factoring, row="v_row", col="v_col", full: str | None = "v"):
    made = {row: _Mean(factoring, 1), col: _Mean(factoring, 0)}
    return made if full is None else made | {full: _Full(factoring)}


def _inverse_root(x, eps):
    """1/√x, and 0 at 0; where x is no more than eps alone makes of it, its slope counts as 0."""
    tiny = x <= 4 * eps
    one, rsqrt = jnp.ones_like(x), jax.lax.rsqrt
    flat = jnp.where(x > 0, rsqrt(jnp.where(x > 0, x, one)), jnp.zeros_like(x))
    return jnp.where(tiny, jax.lax.stop_gradient(flat), rsqrt(jnp.where(tiny, one, x)))


def _factors(row, col, axes, eps):
    """What multiplies the gradient: (row / mean row)^-1/2 and col^-1/2, as arrays that broadcast
    against the leaf.
    """
    rows, columns = axes
    kept = rows - (columns < rows)  # where the rows' axis lies once the columns' is gone
    mean = jnp.mean(row, axis=kept, keepdims=True) + jnp.zeros_like(row)  # sharded as it is
    share = jnp.where(jnp.isinf(mean), mean, safe_divide(row, mean))  # no step beside infinity
    by_row, by_column = _inverse_root(share, 0.0), _inverse_root(col, eps)
    return jnp.expand_dims(by_row, columns), jnp.expand_dims(by_column, rows)


def _means(x, axes):
    """The means of |x|² over the columns' axis and over the rows'. Kept apart, so that XLA squares
    twice and stores no square.
    """
    again = jax.lax.optimization_barrier(x)
    return jnp.mean(abs_sq(x), axis=axes[1]), jnp.mean(abs_sq(again), axis=axes[0])


def _divide_factored(u, x, axes, row, col, decay, eps):
    """u over the root of the factored average of |x|² + eps, and the averages themselves."""
    by_row, by_column = _means(x, axes)
    row, col = lerp(by_row + eps, row, decay), lerp(by_column + eps, col, decay)
    row_factor, col_factor = _factors(row, col, axes, eps)
    return u * row_factor * col_factor, row, col


def _power_decay(step, decay_rate):
    return 1 - (step + 1) ** -decay_rate


@dataclass(frozen=True)
class _FactoredRms:
    factoring: Factoring
    decay_rate_fn: Callable

    @property
    def equation(self) -> str:
        usual = self.decay_rate_fn is _power_decay
        return f"""ρₜ = {"1 - (t - t₀)^-γ" if usual else "decay_rate_fn(t - 1 - t₀, γ)"}
            R ← ρₜ R + (1 - ρₜ) meanⱼ(g² + ε)
            C ← ρₜ C + (1 - ρₜ) meanᵢ(g² + ε)
            v ← ρₜ v + (1 - ρₜ) (g² + ε)      where a leaf is not factored
            V = R C / mean(R)      v where a leaf is not factored
            u ← u / √V"""

    def __call__(self, u, at, v_row, v_col, v, *, decay_rate, step_offset, epsilon):
        dtype = jnp.real(u).dtype
        step = (at.t - 1).astype(dtype) - step_offset
        decay = jnp.asarray(self.decay_rate_fn(step, decay_rate), dtype)
        axes = self.factoring.axes(u.shape)
        if axes is None:
            v = lerp(abs_sq(at.g) + epsilon, v, decay)
            return u * _inverse_root(v, epsilon), v_row, v_col, v
        return *_divide_factored(u, at.g, axes, v_row, v_col, decay, epsilon), v


@transformation
def scale_by_factored_rms(
    factored: bool = True, decay_rate: NonNegative = 0.8, step_offset: Real = 0.0,
    min_dim_size_to_factor: int = 128, epsilon: Epsilon = 1e-30,
    decay_rate_fn: Callable[[Any, Any], Any] | None = None, *, matrices: Matrices | None = None,
):  # fmt: skip
    """Divide by the root of a factored average of squared gradients: Adafactor's preconditioner.

        ρₜ = 1 - (t - t₀)^-γ
        R ← ρₜ R + (1 - ρₜ) meanⱼ(g² + ε),  C ← ρₜ C + (1 - ρₜ) meanᵢ(g² + ε)
        uᵢⱼ ← uᵢⱼ / √(Rᵢ Cⱼ / mean(R))

    γ = `decay_rate`, t₀ = `step_offset`, ε = `epsilon`. i and j are the two largest axes of a leaf,
    and other axes stay as they are; where the smaller of the two is shorter than
    `min_dim_size_to_factor`, v ← ρₜ v + (1 - ρₜ) (g² + ε), u ← u / √v. `decay_rate_fn(step,
    decay_rate)` gives another ρₜ. With `matrices`, i and j are the rows and columns that these
    declare, each matrix of a batch is factored by itself, and what is no matrix is not.

    Shapes: [.., i, j] has `v_row` [.., i] and `v_col` [.., j]; other leaves have `v`.
    Memory: 4 (i + j) bytes for i j parameters; 4 bytes per parameter that is not factored.

    Source: N. Shazeer, M. Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost
    (2018), algorithm 4.
    """
    numbers = {"decay_rate": decay_rate, "step_offset": step_offset, "epsilon": epsilon}

    def make(factored, which="largest"):
        factoring = Factoring(bool(factored), int(min_dim_size_to_factor), which)
        rule = _FactoredRms(factoring, decay_rate_fn or _power_decay)
        return leafwise(rule, slots=_slots(factoring), name="scale_by_factored_rms", **numbers)

    if matrices is None:
        return make(factored)
    return on_matrices(make(factored, "last"), matrices, make(False))


@dataclass(frozen=True)
class _FactoredRmsTorch:
    factoring: Factoring
    equation = """ρₜ = 1 - t^-γ
        R ← ρₜ R + (1 - ρₜ) meanⱼ(g²)
        C ← ρₜ C + (1 - ρₜ) meanᵢ(g²)
        v ← ρₜ v + (1 - ρₜ) g²      where a leaf is not factored
        V = R C / mean(R)      v where a leaf is not factored
        u ← u / √V"""

    def __call__(self, u, at, v_row, v_col, v, *, decay_rate):
        dtype = jnp.real(u).dtype
        eps = float(jnp.finfo(dtype).eps)
        share = at.t.astype(dtype) ** -decay_rate
        axes = self.factoring.axes(u.shape)
        if axes is None:
            v = lerp(v, abs_sq(at.g), share)
            return divide_by_root(u, jnp.maximum(v, eps * eps), 0.0, 0.0), v_row, v_col, v
        by_row, by_column = _means(at.g, axes)
        v_row, v_col = lerp(v_row, by_row, share), lerp(v_col, by_column, share)
        rows, columns = axes
        mean = jnp.maximum(jnp.mean(v_row, axis=-1, keepdims=True), eps)
        share = jnp.where(jnp.isinf(mean), jnp.ones_like(v_row), v_row / mean)
        product = jnp.expand_dims(share, columns) * jnp.expand_dims(v_col, rows)
        return divide_by_root(u, jnp.maximum(product, eps * eps), 0.0, 0.0), v_row, v_col, v


def factored_rms_torch(decay_rate, matrices=None):
    """torch's form of `scale_by_factored_rms`: the last two axes, nothing added to g², the product
    bounded from below.
    """

    def make(factored):
        factoring = Factoring(factored, 1, "last")
        how = {"slots": _slots(factoring), "name": "factored_rms_torch"}
        return leafwise(_FactoredRmsTorch(factoring), **how, decay_rate=decay_rate)

    return on_matrices(make(True), matrices, make(False))


def factored_rms_keras(decay_rate, epsilon, matrices=None):
    """Keras' form of `scale_by_factored_rms`: the last two axes, whatever their size."""

    def make(factored):
        factoring = Factoring(factored, 1, "last")
        how = {"slots": _slots(factoring), "name": "factored_rms_keras", "step_offset": 0.0}
        rule = _FactoredRms(factoring, _power_decay)
        return leafwise(rule, **how, decay_rate=decay_rate, epsilon=epsilon)

    return on_matrices(make(True), matrices, make(False))


@dataclass(frozen=True)
class _Came:
    factoring: Factoring
    equation = """R ← β₂ R + (1 - β₂) meanⱼ(g² + ε₁)
        C ← β₂ C + (1 - β₂) meanᵢ(g² + ε₁)
        v ← β₂ v + (1 - β₂) (g² + ε₁)      where a leaf is not factored
        V = R C / mean(R)      v where a leaf is not factored
        x = u / √V
        x ← x / max(1, √mean(x²) / d)
        m ← β₁ m + (1 - β₁) x
        R' ← β₃ R' + (1 - β₃) meanⱼ((x - m)² + ε₂)
        C' ← β₃ C' + (1 - β₃) meanᵢ((x - m)² + ε₂)
        S = R' C' / mean(R')      1 where a leaf is not factored
        u = m / √S"""

    def __call__(
        self, u, at, m, v_row, v_col, v, s_row, s_col, *, b1, b2, b3, eps1, eps2, clipping_threshold
    ):
        axes = self.factoring.axes(u.shape)
        if axes is None:
            v = lerp(abs_sq(at.g) + eps1, v, b2)
            u = u * _inverse_root(v, eps1)
        else:
            u, v_row, v_col = _divide_factored(u, at.g, axes, v_row, v_col, b2, eps1)
        u = u / jnp.maximum(rms(u) / clipping_threshold, 1)
        m = lerp(u, m, b1)
        if axes is None:
            return m, m, v_row, v_col, v, s_row, s_col
        step, s_row, s_col = _divide_factored(m, u - m, axes, s_row, s_col, b3, eps2)
        return step, m, v_row, v_col, v, s_row, s_col


@transformation
def scale_by_came(
    b1: Decay = 0.9, b2: Decay = 0.999, b3: Decay = 0.9999, eps1: Epsilon = 1e-30,
    eps2: Epsilon = 1e-16, clipping_threshold: Ceiling = 1.0, *, min_dim_size_to_factor: int = 1,
    matrices: Matrices | None = None,
):  # fmt: skip
    """Adafactor with momentum, divided by how far the steps are from their average: the confidence
    of CAME.

        u = g / √V, V factored as in `scale_by_factored_rms` with a constant β₂ and ε₁
        u ← u / max(1, rms(u) / d),  m ← β₁ m + (1 - β₁) u
        u ← m / √S, S a factored average, β₃, of (u - m)² + ε₂

    d = `clipping_threshold`. The last two axes are factored, or the rows and columns that
    `matrices` declares, each matrix by itself; leaves that are not step along m.

    Memory: 4 bytes per parameter and 8 (i + j) for i j of them; 8 bytes per parameter that is not
    factored.

    Source: Y. Luo et al., CAME: Confidence-guided Adaptive Memory Efficient Optimization (2023),
    algorithm 2.
    """
    numbers = {"b1": b1, "b2": b2, "b3": b3, "eps1": eps1, "eps2": eps2}
    numbers["clipping_threshold"] = clipping_threshold

    def make(factored):
        factoring = Factoring(factored, int(min_dim_size_to_factor), "last")
        slots = {"m": zeros(), **_slots(factoring), **_slots(factoring, "s_row", "s_col", None)}
        how = {"slots": slots, "name": "scale_by_came", "direction": True}
        return leafwise(_Came(factoring), **how, **numbers)

    return on_matrices(make(True), matrices, make(False))


Axes = tuple[int, ...] | Callable[[Any], tuple[int, ...]]


@dataclass(frozen=True)
class _Blocks:
    """The axes that are averaged away: all but those that tell blocks apart."""

    kept: Axes

    def reduced(self, x) -> tuple[int, ...]:
        kept = self.kept(x) if callable(self.kept) else self.kept
        kept = {axis % x.ndim for axis in kept if -x.ndim <= axis < x.ndim}
        return tuple(axis for axis in range(x.ndim) if axis not in kept)


@dataclass(frozen=True)
class _BlockZeros(_Blocks):
    def __call__(self, p):
        return reduced_zeros(p, self.reduced(p), keepdims=True)


@dataclass(frozen=True)
class _BlockRms(_Blocks):
    equation = """v ← β v + (1 - β) mean(g²)      over the block
        v̂ = v / (1 - βᵗ)
        u ← u / (√v̂ + ε)"""

    def __call__(self, u, at, v, *, decay, eps):
        v = lerp(jnp.mean(abs_sq(at.g), axis=self.reduced(u), keepdims=True), v, decay)
        square = debias(v, decay, at.t) + jnp.zeros_like(jnp.real(u))  # sharded as it is
        return divide_by_root(u, square, eps, 0.0), v


@transformation
def scale_by_block_rms(
    decay: Decay = 0.999, eps: Epsilon = 1e-8, *, blocks: Axes = (),
    matrices: Matrices | None = None,
):  # fmt: skip
    """Divide each block by the root of an average of its mean squared gradient: Adam-mini's
    preconditioner.

        v ← β v + (1 - β) mean(g² over the block)
        u ← u / (√(v / (1 - βᵗ)) + ε)

    Args:
        decay: β.
        eps: ε.
        blocks: the axes that tell blocks apart: () makes a leaf one block, (0,) a block of each
            row; or a function of the leaf. `partition` gives leaves different ones.
        matrices: which axes are rows and columns. Then `blocks` are axes of each matrix [rows,
            columns]: (1,) makes a block of what leads to each output, () of each matrix, such as
            each head; what is no matrix is one block.

    Memory: 4 bytes per block.

    Source: Y. Zhang et al., Adam-mini: Use Fewer Learning Rates To Gain More (2024), algorithm 1.
    """

    def make(blocks):
        how = {"slots": {"v": _BlockZeros(blocks)}, "name": "scale_by_block_rms"}
        return leafwise(_BlockRms(blocks), **how, decay=decay, eps=eps)

    return on_matrices(make(blocks), matrices, make(()))
