"""How the matrices of one shape are run: the one place that chooses.

"calls": one program for each shape, called for each leaf. Fastest on a CPU, where stacking copies.
"stack": one program for each shape, on all matrices of that shape at once. For backends that run a
batch of small products better than one after another, and for a mesh, where the axis of the stack
is divided among the devices, so that each owns some of the matrices and none is gathered while a
rule works on it.
"""

import jax
import jax.numpy as jnp

from gradxform.core import leaves as trees


def way() -> str:
    """How matrices of one shape run here: "calls" or "stack"."""
    return "calls" if jax.default_backend() == "cpu" else "stack"


def run_alike(f, keys, rows, common):
    """`[f(key, *row, *common) for each row]`, as `map_leaves`; arrays of a row are matrices, or
    have an axis of matrices in front.
    """
    if way() == "calls":
        return trees.map_leaves(f, keys, rows, common)
    return _stacked(f, keys, rows, common)


def _stacked(f, keys, rows, common):
    """Rows that agree in key, shapes and dtypes are stacked and run once."""
    groups: dict = {}
    for i, (key, row) in enumerate(zip(keys, rows, strict=True)):
        leaves, structure = jax.tree.flatten(row)
        kinds = tuple((x.shape, x.dtype) for x in leaves)
        groups.setdefault((key, structure, kinds), []).append(i)
    out: list = [None] * len(rows)
    for (key, _, _), members in groups.items():
        stack = jax.tree.map(lambda *xs: jnp.stack(xs), *(rows[i] for i in members))
        results = jax.vmap(lambda row, key=key: f(key, *row, *common))(stack)
        for j, i in enumerate(members):
            out[i] = jax.tree.map(lambda x, j=j: x[j], results)
    return out
