"""The steepest step within a ball: the linear minimisation oracle of a norm, which each parameter
has of its own.

The norms are those of a layer, from the norm of what comes in to the norm of what goes out. A bias
is a layer with one input that is always on.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.core import leaves as trees
from gradxform.core import transformation
from gradxform.core.chain import chain
from gradxform.core.labels import ByPath, Labels, Table, label_leaves
from gradxform.display.code import code
from gradxform.matrices.declaration import Matrices, Matrix, as_matrices, declared
from gradxform.matrices.matrixwise import matrixwise
from gradxform.matrices.norms import lengths
from gradxform.matrices.orthogonalize import Coefficients, orthogonalize
from gradxform.matrices.presets import is_embedding, is_vector
from gradxform.numerics import safe_divide
from gradxform.wrappers.masking import Partition

__all__ = ["scale_by_lmo"]

NORMS = ("spectral", "sign", "column", "row")
CHOICES = (*NORMS, *(f"one_hot_{name}" for name in NORMS))
AUTO = ("spectral", "sign", "column", "one_hot_sign")


class _Norms:
    """The norm of each parameter."""

    static = True
    text = (
        "the norm of each parameter: 'auto', the name of one for all, or a by_path table from "
        f"patterns to names: {', '.join(map(repr, CHOICES))}"
    )

    def __repr__(self):
        return "norms"

    def convert(self, owner: str, name: str, x):
        if isinstance(x, Table):
            return x
        if isinstance(x, ByPath):
            rows = zip(x.patterns, x.values, strict=True)
            return Table((p, self._one(owner, f"{name}[{p!r}]", v)) for p, v in rows)
        return self._one(owner, name, x)

    def _one(self, owner: str, name: str, x):
        if isinstance(x, str) and x in ("auto", *CHOICES):
            return x
        raise ValueError(f"{owner}: {name} must be one of {['auto', *CHOICES]}; got {code(x)}")


Norms = Annotated[Any, _Norms()]


@dataclass(frozen=True)
class _Sides:
    """Every parameter as a matrix: as declared, or [inputs, outputs] by its name; a vector has one
    input.
    """

    matrices: Any

    def __call__(self, params):
        leaves, paths = jax.tree.leaves(params, is_leaf=trees.is_none), trees.paths(params)
        rows = zip(paths, leaves, declared("scale_by_lmo", self.matrices, params), strict=True)
        return Labels(
            (path, (x is not None and (m or _side(path, x))) or None) for path, x, m in rows
        )


def _side(path: str, x) -> Matrix:
    """The sides of what is declared to be no matrix: a bias, an embedding, a head."""
    *_, name = path.split("/")
    if np.ndim(x) < 2 or is_vector(name):
        return Matrix((), (-1,) * (np.ndim(x) > 0))
    outputs_first = name == "weight" and not is_embedding(path)
    return Matrix((-1,), (-2,)) if outputs_first else Matrix((-2,), (-1,))


@dataclass(frozen=True)
class _Labels:
    """The name of the norm of each parameter."""

    norms: Any
    matrices: Any

    def __call__(self, params):
        leaves, structure = jax.tree.flatten(params, is_leaf=trees.is_none)
        said: Any = [self.norms] * len(leaves)
        if isinstance(self.norms, Table):
            said = label_leaves("scale_by_lmo", self.norms, params, False)
        kinds = declared("scale_by_lmo", self.matrices, params)
        rows = zip(said, kinds, trees.paths(params), leaves, strict=True)
        return structure.unflatten(
            _by_kind(kind, path, x) if norm == "auto" and x is not None else norm
            for norm, kind, path, x in rows
        )


def _by_kind(kind: Matrix | None, path: str, x) -> str:
    *_, name = path.split("/")
    if kind is not None:
        return "spectral"
    if np.ndim(x) < 2 or is_vector(name):
        return "column"
    return "one_hot_sign" if is_embedding(path) else "sign"


def _size(norm: str, one_hot: bool, fans: tuple[int, int]) -> float:
    """What the entries, the columns or the singular values are multiplied with."""
    inputs, outputs = fans
    if norm == "spectral":
        return math.sqrt(outputs if one_hot else outputs / inputs)
    if norm == "column":
        return math.sqrt(outputs) / (1 if one_hot else inputs)
    if norm == "row":
        return 1 / (1 if one_hot else math.sqrt(inputs))
    return 1 / (1 if one_hot else inputs)


@dataclass(frozen=True)
class _Oracle:
    """The step of a norm; where that is spectral, of what has been orthogonalised."""

    norm: str
    one_hot: bool

    @property
    def equation(self) -> str:
        """As a notebook shows it."""
        size = {
            "spectral": ("√outputs", "√(outputs / inputs)"),
            "column": ("√outputs", "√outputs / inputs"),
            "row": ("", "1 / √inputs"),
            "sign": ("", "1 / inputs"),
        }[self.norm][not self.one_hot]
        what = {"spectral": "u", "sign": "sign(u)"}.get(self.norm, "u / ‖u‖")
        each = {"column": "      for each input", "row": "      for each output"}
        return f"u ← {size}{' · ' * (size != '')}{what}{each.get(self.norm, '')}"

    def __call__(self, u, at):
        size = _size(self.norm, self.one_hot, at.fans)
        if self.norm == "sign":
            return size * jnp.sign(u)
        if self.norm == "spectral":
            return size * u
        return size * safe_divide(u, lengths(u, -1 if self.norm == "column" else -2))


def oracle(label: str, matrices, ns_coeffs, ns_steps):
    """The transformation of one norm, for every parameter that it is given."""
    norm, sides = label.removeprefix("one_hot_"), _Sides(matrices)
    rule = _Oracle(norm, norm != label)
    step = matrixwise(rule, matrices=sides, keep_sides=True, sided=True, name=label)
    if norm != "spectral":
        return step
    return chain(orthogonalize(ns_coeffs, ns_steps, matrices=sides), step)


def oracles(norms, matrices, make):
    """A `partition` of `make(label)` by the norms of the parameters."""
    norms = _Norms().convert("scale_by_lmo", "norms", norms)
    matrices = as_matrices.convert("scale_by_lmo", "matrices", matrices)
    given = {v for _, v in norms.entries} if isinstance(norms, Table) else {norms}
    used = (given - {"auto"}) | (set(AUTO) if "auto" in given else set())
    groups: dict[Any, Any] = {label: make(label) for label in sorted(used)}
    return Partition(groups, _Labels(norms, matrices), called="lmo")


@transformation
def scale_by_lmo(
    norms: Norms = "auto", *, ns_coeffs: Coefficients = "quintic", ns_steps: int = 5,
    matrices: Matrices | None = None,
):  # fmt: skip
    """The step that a linear function falls most along, within the unit ball of a norm: of each
    parameter its own.

        u ← √(outputs / inputs) U Vᵀ            "spectral", u = U S Vᵀ
        u ← sign(u) / inputs                    "sign"
        u ← √outputs / inputs · u / ‖u‖         "column": for each input
        u ← 1 / √inputs · u / ‖u‖               "row": for each output

    The norms of a layer's weights: of what comes in, the root mean square (the mean size, in
    "column" and "sign"); of what goes out, the root mean square (the mean size, in "row" and
    "sign"). Where one input alone is on, as for an embedding, a name begins with "one_hot_", and
    the factors are √outputs, 1, √outputs and 1. Names are those of the paper, whose matrices have
    outputs as rows and inputs as columns.

    Args:
        norms: "auto" is "spectral" for matrices, "one_hot_sign" for embeddings, "sign" for other
            parameters of two axes, "column" for vectors, which are layers with one input: √n u /
            ‖u‖.
        ns_coeffs: as of `orthogonalize`, for "spectral".
        ns_steps: the same.
        matrices: which axes are inputs (rows) and outputs (columns). Where it says that a parameter
            is no matrix, its last two axes are [inputs, outputs], of a `weight` that is no
            embedding the other way round, and a vector is all outputs.

    A convolution's kernel is one matrix of all its inputs, h·w·channels; the authors divide by √(h
    w) more.

    Memory: none.

    Raises:
        ValueError: the name of no norm; a parameter whose matrices are not declared.

    Source: T. Pethick et al., Training Deep Learning Models with Norm-Constrained LMOs (2025),
    tables 2 to 4.
    """
    make = partial(oracle, matrices=matrices, ns_coeffs=ns_coeffs, ns_steps=ns_steps)
    return oracles(norms, matrices, make)
