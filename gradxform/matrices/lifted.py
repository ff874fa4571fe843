"""A rule on one array, run on each matrix of a declaration in place of each parameter."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from gradxform.core import Transform
from gradxform.core.leafwise import Leafwise
from gradxform.matrices.declaration import matrix_labels
from gradxform.matrices.matrixwise import MatrixSlot, Matrixwise
from gradxform.wrappers.masking import partition

_WHOLE, _PART = MatrixSlot(), MatrixSlot(())


@dataclass(frozen=True)
class _OfOne(MatrixSlot):
    """What a rule on one array remembers of it, for each matrix. What is shaped like the matrix is
    kept in the parameter's shape.
    """

    one: Callable[..., Any] = jnp.zeros_like

    def _each(self, f, seen, *trees, dtype: Any = jnp.float32):
        """`f(kind, shape, *x)` for each array that the rule remembers."""
        whole = jax.ShapeDtypeStruct((seen.rows, seen.columns), dtype)
        shapes = jax.eval_shape(self.one, whole)
        kinds = jax.tree.map(lambda x: _WHOLE if x.shape == whole.shape else _PART, shapes)
        return jax.tree.map(f, kinds, shapes, *trees)

    def make(self, p, seen):
        """Zeros, as all these rules begin with."""

        def begin(kind, x):
            if kind is _WHOLE:
                return jnp.zeros_like(p, x.dtype)
            return jnp.zeros((*seen.view.batch, *x.shape), x.dtype)

        return self._each(begin, seen, dtype=p.dtype)

    def apart(self, x, seen):
        """As the rule sees it."""
        return self._each(lambda kind, _, x: kind.apart(x, seen), seen, x)

    def together(self, x, seen):
        """As the state holds it."""
        return self._each(lambda kind, _, x: kind.together(x, seen), seen, x)


def on_matrices(tx, matrices, rest: Transform) -> Transform:
    """The rule on each matrix of a declaration, rows before columns; `rest` on parameters that are
    no matrix. With no declaration the rule on each parameter.
    """
    if matrices is None:
        return tx
    rule: Leafwise = tx.expand() if hasattr(tx, "expand") else tx
    slots = tuple((name, _OfOne(one=make)) for name, make in rule.slots)
    kept = (rule.name, rule.rule, slots, rule.hypers, matrices, rule.direction)
    return partition(
        {"matrix": Matrixwise(*kept, keep_sides=True), "rest": rest}, matrix_labels(matrices)
    )
