"""Orthogonalisation: every singular value of a matrix becomes 1, its singular vectors stay.

Newton-Schulz takes a few odd polynomials, one after another, of the singular values, in products of
matrices alone; the tables of their coefficients stand here with their sources.
"""

import warnings
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.core import Epsilon, transformation
from gradxform.core.hyper import DType
from gradxform.display.code import code
from gradxform.matrices import placement
from gradxform.matrices.declaration import Matrices
from gradxform.matrices.matrixwise import matrixwise
from gradxform.numerics import abs_sq, real_dtype, safe_divide, safe_sqrt

__all__ = ["orthogonalize"]

Triple = tuple[float, float, float]


class Table(NamedTuple):
    """Coefficients a, b, c for each step.

    Attributes:
        steps: the triples.
        margin: by how much the norm is widened, so that no singular value exceeds 1.
    """

    steps: tuple[Triple, ...]
    margin: float = 1.0


_JORDAN = (3.4445, -4.7750, 2.0315)

TABLES = {
    # K. Jordan et al., Muon (2024): the steepest slope at 0 that keeps σ in about [0.7, 1.2]
    "quintic": _JORDAN,
    "standard": _JORDAN,  # Optax's name for it
    # N. Amsel et al., The Polar Express (2025), algorithm 1, with a safety factor of 1.02 and for
    # five steps, as modded-nanogpt trains with: each step is the best one after those before it
    "polar_express": Table(
        (
            (8.156554524902461, -22.48329292557795, 15.878769915207462),
            (4.042929935166739, -2.808917465908714, 0.5000178451051316),
            (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
            (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
            (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
        ),
        margin=1.02,
    ),
    # DeepSeek-AI (2026): eight of Jordan's steps, then two that converge to 1
    "deepseek": Table((_JORDAN,) * 8 + ((2.0, -1.5, 0.5),) * 2),
    # K. Ahn et al., Dion (2025), as Optax has them
    "dion": Table(
        (
            (4.0848, -6.8946, 2.9270),
            (3.9505, -6.3029, 2.6377),
            (3.7418, -5.5913, 2.3037),
            (2.8769, -3.1427, 1.2046),
            (2.8366, -3.0525, 1.2012),
        )
    ),
}


class _Coefficients:
    """The name of a table, a triple for every step, or a triple for each."""

    static = True
    text = (
        "the polynomials' coefficients: a triple (a, b, c) for every step, a table of triples, one "
        "for each step, or the name of a table: "
    )

    def __repr__(self):
        return "coefficients"

    def convert(self, owner: str, name: str, x):
        if isinstance(x, str):
            if x in TABLES:
                return x
            raise ValueError(f"{owner}: {name} must be one of {[*TABLES]}; got {x!r}")
        what = "a triple (a, b, c), a table of triples, or the name of a table"
        try:
            table = np.asarray(x, float)
        except (TypeError, ValueError, OverflowError):
            table = np.zeros(0)
        if table.ndim not in (1, 2) or table.shape[-1] != 3 or not table.size:
            raise TypeError(f"{owner}: {name} must be {what}; got {code(x)}")
        if not np.isfinite(table).all():
            raise ValueError(f"{owner}: {name} must be finite; got {code(x)}")
        rows = tuple(tuple(map(float, row)) for row in np.atleast_2d(table))
        return rows if table.ndim == 2 else rows[0]


_Coefficients.text += ", ".join(f'"{name}"' for name in TABLES)

Coefficients = Annotated[Any, _Coefficients()]

Preconditioning = Literal["frobenius", "spectral", "aol", "schatten"]


def table_of(owner: str, ns_coeffs, ns_steps: int = 5) -> Table:
    """The coefficients for each step."""
    named = TABLES[ns_coeffs] if isinstance(ns_coeffs, str) else ns_coeffs
    if not 1 <= ns_steps <= 1000:
        raise ValueError(f"{owner}: ns_steps must lie in [1, 1000]; got {ns_steps}")
    if isinstance(named[0], float):
        return Table((named,) * ns_steps)
    return named if isinstance(named, Table) else Table(named)


def _times(x, y, low=None, precision=None):
    """x yᴴ, both rounded to `low` first; the sum in x's dtype."""
    kept = x.dtype
    if low is not None:
        x, y = x.astype(low), y.astype(low)
    contract = (((1,), (1,)), ((), ()))
    y = y.conj() if jnp.iscomplexobj(y) else y
    how = {"precision": precision, "preferred_element_type": kept}
    return jax.lax.dot_general(x, y, contract, **how)


def frobenius(x):
    """x / max|x|, that maximum (1 where all is 0), and the norm of the former: no square is lost to
    the range of floats.
    """
    scale = jnp.max(jnp.abs(jax.lax.stop_gradient(x)))
    scale = jnp.where(scale > 0, scale, jnp.ones_like(scale))
    x = x / scale
    return x, scale, safe_sqrt(jnp.sum(abs_sq(x)))


@dataclass(frozen=True)
class NewtonSchulz:
    """Polynomials of the singular values, one after another."""

    table: Table
    preconditioning: str = "frobenius"
    gram: bool | None = None
    dtype: str | None = None
    dual: bool = False

    @property
    def equation(self) -> str:
        """As a notebook shows it."""
        first = {
            "frobenius": "X = u / (‖u‖ + ε)",
            "spectral": "X = u / (‖u‖₂ + ε)",
            "aol": "X = u / √(max(∑|u uᵀ|, ε))",
            "schatten": "X = u / √(max(‖u uᵀ‖, ε))",
            "floored": "X = u / max(‖u‖, ε)",
        }[self.preconditioning]
        lines = [
            first if self.table.margin == 1 else first.replace("(", f"({self.table.margin:g} ")
        ]
        for (a, b, c), same in groupby(self.table.steps):
            step = f"X ← {a:.5g} X - {-b:.5g} X Xᵀ X + {c:.5g} X Xᵀ X Xᵀ X".replace("- -", "+ ")
            lines.append(f"{step.replace('+ -', '- ')}      {len([*same])} times")
        lines.append("u ← ⟨u, X⟩ X" if self.dual else "u ← X")
        return "\n".join(lines).replace("      1 times", "")

    def __call__(self, u, at, *, eps):
        x = self.orthogonal(u, eps)
        return jnp.sum(u.conj() * x) * x if self.dual else x

    def look(self, owner: str, paths: list[str], seen: list) -> None:
        """Warn of what has the shape of an embedding."""
        for path, how in zip(paths, seen, strict=True):
            if how and how.columns >= max(1024, 8 * how.rows):
                what = f"{owner}: {path!r} has the shape of an embedding, {how.view}"
                give = f"by_path({{{path!r}: None, '**': 'names'}})"
                warnings.warn(f"{what}; if it is one: matrices={give}", stacklevel=2)

    def blocks(self, rows: int, columns: int) -> list[tuple[Triple, ...]]:
        """The steps that run on one Gram matrix before the next is formed: as told, or as many as
        take the fewest multiplications.

        k steps on X take k (2 m² n + m³), on X Xᵀ (4 k - 3) m³ + 2 m² n.
        """
        alone = [(step,) for step in self.table.steps]
        together = _restarting(self.table.steps)
        if self.gram is None:
            cost = lambda of: sum((4 * len(b) - 3) * rows + 2 * columns for b in of)  # noqa: E731
            fewer = self.dtype is None and cost(together) < cost(alone)
            return together if fewer and placement.exact() else alone
        return together if self.gram else alone

    def orthogonal(self, u, eps):
        """The matrix [rows, columns], rows ≤ columns, orthogonalised."""
        real = real_dtype(u.dtype)
        low = None if self.dtype is None else jnp.dtype(self.dtype)
        steps = jnp.asarray(self.table.steps, real)
        x, gram = self._start(u, jnp.asarray(eps, real), low)
        blocks = self.blocks(*u.shape)
        if len(blocks) < len(self.table.steps):
            if gram is not None:
                x, blocks = self._block(x, gram, blocks[0], low), blocks[1:]
            for block, same in groupby(blocks):  # a loop is compiled once
                run = lambda _, x, block=block: self._block(x, None, block, low)  # noqa: E731
                times = len([*same])
                x = jax.lax.fori_loop(0, times, run, x) if times > 1 else run(0, x)
            return x
        one = lambda x, step: (_polynomial(_times(x, x, low), step, low, x), None)  # noqa: E731
        if gram is not None:
            x, steps = _polynomial(gram, steps[0], low, x), steps[1:]
        return jax.lax.scan(one, x, steps)[0]

    def _start(self, u, eps, low):
        """X₀, and X₀ X₀ᵀ where it is known by then."""
        x, scale, norm = frobenius(u)
        if self.preconditioning in ("frobenius", "spectral", "floored"):
            if self.preconditioning == "spectral":
                norm = jnp.linalg.norm(x, 2)
            norm, eps = self.table.margin * norm, eps / scale
            size = jnp.maximum(norm, eps) if self.preconditioning == "floored" else norm + eps
            return x / jnp.where(size > 0, size, jnp.ones_like(size)), None
        gram = _times(x, x, low)
        if self.preconditioning == "aol":
            size = safe_sqrt(jnp.sum(jnp.abs(gram), axis=1, keepdims=True))
        else:
            _, largest, norm = frobenius(gram)
            size = safe_sqrt(largest * norm)[None, None]
        size = jnp.maximum(size, safe_sqrt(eps) / scale)
        size = jnp.where(size > 0, size, jnp.ones_like(size))
        return x / size, gram / size / size.T

    def _block(self, x, gram, steps, low):
        """Polynomials of X Xᵀ, and one product with X at the end."""
        full = jax.lax.Precision.HIGHEST if low is None else None
        gram = _times(x, x, low, full) if gram is None else gram
        product = None
        for i, step in enumerate(steps):
            p = _factor(gram, step, low, full)
            product = p if product is None else _times(p, product, low, full)
            if i + 1 < len(steps):
                gram = _times(_times(gram, p, low, full), p, low, full)
        return _product(product, x, low)


def _restarting(steps: tuple[Triple, ...]) -> list[tuple[Triple, ...]]:
    """Steps in blocks, within each of which the squares of small singular values, of which X Xᵀ
    keeps only what exceeds its rounding, grow at most 20 times.
    """
    blocks: list[tuple[Triple, ...]] = []
    grown = 0.0
    for step in steps:
        if not blocks or grown > 20:
            blocks, grown = [*blocks, ()], 1.0
        blocks[-1] += (step,)
        grown *= step[0] ** 2
    return blocks


def _factor(gram, step, low, precision=None):
    """a + b A + c A²."""
    a, b, c = step
    eye = jnp.eye(len(gram), dtype=gram.dtype)
    return a * eye + (b * gram + c * _times(gram, gram, low, precision))


def _polynomial(gram, step, low, x):
    """a X + b A X + c A² X: where products are rounded, the first term is not."""
    if low is None:
        return _product(_factor(gram, step, low), x, low)
    a, b, c = step
    return a * x + _product(b * gram + c * _times(gram, gram, low), x, low)


def _product(p, x, low):
    kept = x.dtype
    if low is not None:
        p, x = p.astype(low), x.astype(low)
    return jnp.matmul(p, x, preferred_element_type=kept)


@jax.custom_jvp
def polar(x):
    """U Vᴴ of the singular value decomposition U S Vᴴ; singular values of 0 stay 0."""
    return _polar(x)[0]


def _polar(x):
    left, sizes, right = jnp.linalg.svd(x, full_matrices=False)
    floor = max(x.shape) * jnp.finfo(sizes.dtype).eps * jnp.max(sizes, initial=0)
    sizes = jnp.where(sizes > floor, sizes, jnp.zeros_like(sizes))
    return (left * (sizes > 0).astype(x.dtype)) @ right, left, sizes, right


@polar.defjvp
def _polar_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    out, left, sizes, right = _polar(x)
    kept = (sizes > 0).astype(x.dtype)
    turned = left.conj().T @ dx @ right.conj().T
    both = sizes[:, None] + sizes[None]
    inner = safe_divide(turned - turned.conj().T, both.astype(x.dtype))
    inner = left @ (inner * kept[:, None] * kept) @ right
    across = dx @ right.conj().T
    sizes = sizes.astype(x.dtype)
    outside = safe_divide(across - left @ turned, sizes[None]) @ right
    along = left.conj().T @ dx
    below = left @ safe_divide(along - turned @ right, sizes[:, None])
    return out, inner + outside + below


@dataclass(frozen=True)
class Polar:
    """The polar factor."""

    equation = "u ← U Vᵀ      u = U S Vᵀ"

    def __call__(self, u, at):
        return polar(u)


@transformation
def orthogonalize(
    ns_coeffs: Coefficients = "quintic", ns_steps: int = 5, eps: Epsilon = 1e-8, *,
    preconditioning: Preconditioning = "frobenius",
    method: Literal["newton_schulz", "svd"] = "newton_schulz", gram: bool | None = None,
    compute_dtype: DType | None = None, matrices: Matrices | None = None,
):  # fmt: skip
    """Give every singular value of a matrix the size 1, or about: u ← U Vᵀ where u = U S Vᵀ.

        X = u / (‖u‖ + ε)
        X ← a X + b X Xᵀ X + c X Xᵀ X Xᵀ X      k steps
        u ← X

    The tables, and where singular values from 0.01 ‖u‖ on end: "quintic" (5 steps, 0.68 to 1.14;
    "standard" is Optax's name), "polar_express" (5, its norm widened by 1.02; 0.85 to 1.15),
    "deepseek" (8 of "quintic" and 2 that converge; 1 to 1.001), "dion" (5, 0.97 to 1.04).

    Args:
        ns_steps: k, of a triple; a table has its own number of steps.
        preconditioning: what u is divided by: "frobenius" or "spectral", its norms; "aol", the
            roots of the sums of |u uᵀ| along its rows; "schatten", the root of ‖u uᵀ‖.
        method: "svd" takes the decomposition itself, for reference.
        gram: whether the polynomials are those of X Xᵀ, two steps at a time, with one product with
            X after them: as exact, for X is renewed before rounding has grown. By default where
            that takes fewer multiplications, beyond 1.5 columns for each row (35 of 45 at 4), on a
            CPU and without `compute_dtype`: it needs products in full precision.
        compute_dtype: what products are rounded to first, such as "bfloat16"; sums are float32.

    Shapes: u [rows, columns], with as many columns as rows or more; what is tall is transposed.

    Memory: none.

    Raises:
        ValueError: a parameter that is no matrix; an unknown table; ns_steps below 1.
        TypeError: coefficients that are no triples.

    Source: K. Jordan et al., Muon (2024); N. Amsel et al., The Polar Express (2025), algorithm 1;
    T. Boissin et al., Turbo-Muon (2025) for "aol"; E. Grishina et al., Accelerating Newton-Schulz
    Iteration (2025) for "schatten"; Dao AI Lab, Gram Newton-Schulz (2026) for X Xᵀ renewed.
    """
    if method == "svd":
        return matrixwise(Polar(), matrices=matrices, name="orthogonalize")
    table = table_of("orthogonalize", ns_coeffs, ns_steps)
    rule = NewtonSchulz(table, preconditioning, gram, compute_dtype)
    return matrixwise(rule, matrices=matrices, name="orthogonalize", eps=eps)
