"""What is a matrix: which axes of a parameter are its rows, its columns, and a batch of matrices.

Layers sum over their rows: a Flax kernel [inputs, outputs] has rows = 0 and columns = 1, an
Equinox weight [outputs, inputs] rows = 1 and columns = 0. Each parameter declares this once, and
every matrix method reads the same declaration.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np

from gradxform.core import leaves as trees
from gradxform.core.labels import ByPath, Labels, Table, is_predicate, label_leaves
from gradxform.display.code import code
from gradxform.matrices.presets import PRESETS, by_name

__all__ = ["GaLoreDimensionNumbers", "MuonDimensionNumbers", "matrix", "matrix_labels"]

AxisNames = int | Sequence[int]


class MuonDimensionNumbers(NamedTuple):
    """Optax's way to say which axes are the rows, `reduction_axis`, and which the columns,
    `output_axis`, of a matrix; all other axes are a batch.
    """

    reduction_axis: AxisNames = 0
    output_axis: AxisNames = 1


class GaLoreDimensionNumbers(NamedTuple):
    """Which axes of an array are the rows, `reduction_axis`, and which the columns, `output_axis`,
    of a matrix.
    """

    reduction_axis: AxisNames = 0
    output_axis: AxisNames = 1


@dataclass(frozen=True)
class Matrix:
    """Which axes are rows and which columns, and into how many equal parts each side falls. All
    other axes, and the parts, are a batch. Built by `matrix`; that of `GaLoreDimensionNumbers` is
    `whole`, it must name every axis.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    parts: tuple[int, int] = (1, 1)
    whole: bool = False

    def __repr__(self):
        rows, columns = (x[0] if len(x) == 1 else x for x in (self.rows, self.columns))
        if self.whole:
            return f"GaLoreDimensionNumbers({rows}, {columns})"
        shown = [f"rows={rows}"] * (rows != -2) + [f"columns={columns}"] * (columns != -1)
        named = zip(("row_parts", "column_parts"), self.parts, strict=True)
        return f"matrix({', '.join(shown + [f'{k}={n}' for k, n in named if n != 1])})"

    def view(self, owner: str, path: str, shape: tuple[int, ...]) -> "View":
        """How an array of this shape falls into matrices."""

        def refuse(words):
            raise ValueError(f"{owner}: {path!r} of shape {[*shape]}: {self!r} {words}")

        axes = range(len(shape))
        if any(not -len(shape) <= a < len(shape) for a in self.rows + self.columns):
            refuse(f"names an axis that is not there: it has {len(shape)}")
        rows, columns = (tuple(a % len(shape) for a in x) for x in (self.rows, self.columns))
        if len({*rows, *columns}) < len(rows + columns):
            refuse("names an axis twice")
        batch = tuple(a for a in axes if a not in rows + columns)
        if self.whole and batch:
            refuse("must name every axis once")
        m, n = (math.prod(shape[a] for a in side) for side in (rows, columns))
        for side, into, size in zip(("rows", "columns"), self.parts, (m, n), strict=True):
            if into < 1 or size % into:
                refuse(f"cannot part {size} {side} into {into}")
        return View(tuple(shape), (*batch, *rows, *columns), len(batch), m, n, *self.parts)


def matrix(
    rows: AxisNames = -2, columns: AxisNames = -1, *, row_parts: int = 1, column_parts: int = 1
) -> Matrix:
    """Which axes of a parameter are the rows, and which the columns, of a matrix.

    Rows are what a layer sums over, its inputs; columns are its outputs. All other axes are a
    batch: so many matrices of their own. By default the last two axes, all before them a stack.

        matrix()                            a kernel [inputs, outputs], or a stack of them
        matrix((0, 1, 2), 3)                a convolution's kernel [height, width, inputs, outputs]
        matrix(0, (1, 2))                   a projection [inputs, heads, width], as one matrix
        matrix(0, 2)                        the same, a matrix for each head
        matrix(0, 1, column_parts=3)        queries, keys and values side by side: three matrices
        matrix(1, 0)                        an Equinox or torch weight [outputs, inputs]

    Args:
        rows: an axis, or several that are read as one.
        columns: the same.
        row_parts: into how many equal matrices the rows fall.
        column_parts: into how many equal matrices the columns fall.
    """
    return Matrix(_axes(rows), _axes(columns), (int(row_parts), int(column_parts)))


def _axes(x: AxisNames) -> tuple[int, ...]:
    return (int(x),) if isinstance(x, int | np.integer) else tuple(map(int, x))


@dataclass(frozen=True)
class View:
    """An array as a batch of matrices [*batch, rows, columns], and back."""

    shape: tuple[int, ...]
    order: tuple[int, ...]
    batched: int
    rows_in_all: int
    columns_in_all: int
    row_parts: int
    column_parts: int

    @property
    def rows(self) -> int:
        """Rows of one matrix."""
        return self.rows_in_all // self.row_parts

    @property
    def columns(self) -> int:
        """Columns of one matrix."""
        return self.columns_in_all // self.column_parts

    @property
    def batch(self) -> tuple[int, ...]:
        """How many matrices there are, by axis."""
        parts = (self.row_parts, self.column_parts)
        return tuple(self.shape[a] for a in self.order[: self.batched]) + parts * (parts != (1, 1))

    def __repr__(self):
        parts = [n for n in (self.row_parts, self.column_parts) if n != 1]
        many = "".join(f"{n}×" for n in [*self.batch[: self.batched], *parts])
        return f"{many}[{self.rows}, {self.columns}]"

    def apart(self, x):
        """The matrices [*batch, rows, columns] of an array."""
        x = x.transpose(self.order)
        outer = x.shape[: self.batched]
        if self.row_parts == self.column_parts == 1:
            return x.reshape(*outer, self.rows, self.columns)
        sides = (self.row_parts, self.rows, self.column_parts, self.columns)
        return x.reshape(*outer, *sides).swapaxes(-3, -2)

    def together(self, x):
        """The array of which these are the matrices."""
        if not self.row_parts == self.column_parts == 1:
            x = x.swapaxes(-3, -2)
        x = x.reshape([self.shape[a] for a in self.order])
        return x.transpose(sorted(range(len(self.order)), key=self.order.__getitem__))


class _Matrices:
    """Which axes of which parameters are rows and columns."""

    static = True
    synonyms = ("matrices", "weight_dimension_numbers", "muon_weight_dimension_numbers")
    text = (
        "which axes of which parameters are rows and columns: a `by_path` table from patterns to "
        "`matrix(...)`, None for what is no matrix, or the name of a preset; or one of these for "
        "all parameters, a function of (path, leaf), a function of the parameters that gives a "
        "tree, or a tree. The presets go by the names and shapes of parameters: 'flax' (kernels "
        "[inputs, outputs]), 'equinox' (weights [outputs, inputs], as torch's), 'names' (whichever "
        "the name tells, the default)"
    )

    def __repr__(self):
        return "matrices"

    def convert(self, owner: str, name: str, x):
        if isinstance(x, Labels | _Same) or (callable(x) and not isinstance(x, Matrix)):
            return x
        if isinstance(x, ByPath):
            rows = zip(x.patterns, x.values, strict=True)
            return Table((p, self._one(owner, f"{name}[{p!r}]", v)) for p, v in rows)
        if x is None or _is_one(x):
            return _Same(self._one(owner, name, x or "names"))
        flat, _ = jax.tree_util.tree_flatten_with_path(x, is_leaf=_is_one)
        at = trees.path_string
        return Labels(
            (at(path), self._one(owner, f"{name} at {at(path)!r}", y)) for path, y in flat
        )

    def _one(self, owner: str, name: str, x):
        if x is None or isinstance(x, Matrix):
            return x
        if isinstance(x, str):
            if x in PRESETS:
                return x
            raise ValueError(f"{owner}: {name} must be one of the presets {[*PRESETS]}; got {x!r}")
        if _is_optax(x):
            sides = _axes(x.reduction_axis), _axes(x.output_axis)
            return Matrix(*sides, whole=type(x).__name__ == "GaLoreDimensionNumbers")
        what = "matrix(rows, columns), a preset's name, or None for what is no matrix"
        raise TypeError(f"{owner}: {name} must be {what}; got {code(x)}")


def _is_optax(x) -> bool:
    return hasattr(x, "reduction_axis") and hasattr(x, "output_axis")


def _is_one(x) -> bool:
    return x is None or isinstance(x, Matrix | str) or _is_optax(x)


@dataclass(frozen=True)
class _Same:
    """The same for all parameters; a `Matrix` for those that have its axes."""

    what: Any

    def __repr__(self):
        return code(self.what)

    def rows(self, owner, paths, leaves):
        """What it says of each leaf."""
        if not isinstance(self.what, Matrix):
            return [self.what] * len(leaves)
        needed = max(2, len(self.what.rows + self.what.columns))
        return [self.what if np.ndim(x) >= needed else None for x in leaves]


as_matrices = _Matrices()

Matrices = Annotated[Any, as_matrices]


def declared(owner: str, matrices, tree) -> list[Matrix | None]:
    """What each leaf of a tree is declared to be; None for one that is absent or is no matrix."""
    matrices = as_matrices.convert(owner, "matrices", matrices)
    leaves, paths = jax.tree.leaves(tree, is_leaf=trees.is_none), trees.paths(tree)
    if isinstance(matrices, _Same):
        said = matrices.rows(owner, paths, leaves)
    elif callable(matrices) and not is_predicate(matrices):
        given = as_matrices.convert(owner, "matrices", matrices(tree))
        said = given.rows(owner, paths, leaves)
    else:
        said = label_leaves(owner, matrices, tree, False)
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for path, leaf in zip(paths, leaves, strict=True):
        module, _, name = path.rpartition("/")
        shapes.setdefault(module, {}).update({} if leaf is None else {name: np.shape(leaf)})
    found: list[Matrix | None] = []
    for path, leaf, what in zip(paths, leaves, said, strict=True):
        if leaf is None or what is None:
            found.append(None)
            continue
        what = as_matrices._one(owner, f"matrices of {path!r}", what)
        if isinstance(what, str):
            what = _preset(owner, what, path, np.shape(leaf), shapes[path.rpartition("/")[0]])
        found.append(what)
    return found


def views(owner: str, matrices, tree) -> list[View | None]:
    """How each leaf of a tree falls into matrices; None for one that is absent or is no matrix."""
    rows = zip(
        trees.paths(tree),
        jax.tree.leaves(tree, is_leaf=trees.is_none),
        declared(owner, matrices, tree),
        strict=True,
    )
    return [what and what.view(owner, path, np.shape(leaf)) for path, leaf, what in rows]


def _preset(owner: str, preset: str, path: str, shape, beside) -> Matrix | None:
    """What a preset says of a parameter; where it cannot tell, an error says what to write."""
    try:
        sides = by_name(preset, path, shape, beside)
        return sides and Matrix(*sides)
    except LookupError as error:
        (of_bias,) = error.args or (None,)
    what = "may be a stack of matrices, matrix(), or a convolution's kernel"
    one = "{...: matrix(...)"
    if of_bias is not None:
        what = "is by its bias a matrix that its name does not tell of"
        one = f"{{{path!r}: {Matrix(*of_bias)!r}"
    say = f"say which with matrices=by_path({one}, '**': {preset!r}}})"
    raise ValueError(f"{owner}: {path!r} of shape {[*shape]} {what}; {say}")


@dataclass(frozen=True)
class matrix_labels:
    """Labels for `partition`: which parameters are matrices, and which are the rest.

        partition({"matrix": hidden, "rest": adamw(1e-3)}, matrix_labels())

    What the presets take for matrices [rows, columns], by name and shape:

        kernel, w [inputs, outputs]; weight [outputs, inputs]   [inputs, outputs]
        of a convolution, of patches also                       [height · width · inputs, outputs]
        query, key, value [inputs, heads, width]                [inputs, heads · width]
        out [heads, width, inputs]                              [heads · width, inputs]
        qkv, c_attn, in_proj with three times as many outputs   3×[inputs, inputs]
        layers, blocks, experts that are stacked                n×[inputs, outputs]
        gates of a recurrent cell, side by side                 [inputs, gates · width], one matrix
        a and b of LoRA                                         one each

    Embeddings of tokens and positions, heads (head, logits, classifier), norms, biases, vectors and
    scalars are the rest. A table by path tells what names do not: heads apart are `matrix(0, 2)`,
    four gates `matrix(column_parts=4)`. Where the bias of a layer, which has the axes of a batch
    and of the outputs, contradicts its name, the error says what to write.

    Args:
        matrices: which axes of which parameters are rows and columns, as of every matrix method;
            by default by the names and shapes of parameters. Vectors and scalars, embeddings,
            output heads, norms and biases are the rest.
        matrix: the label of the matrices.
        rest: the label of all others.

    Raises:
        ValueError: a parameter that no pattern covers, or of more than two axes whose name does not
            tell which are its rows and columns.
    """

    matrices: Any = None
    matrix: str = "matrix"
    rest: str = "rest"

    def __post_init__(self):
        made = as_matrices.convert("matrix_labels", "matrices", self.matrices)
        object.__setattr__(self, "matrices", made)

    def __call__(self, params):
        structure = jax.tree.structure(params, is_leaf=trees.is_none)
        found = views("matrix_labels", self.matrices, params)
        return structure.unflatten(self.rest if view is None else self.matrix for view in found)
