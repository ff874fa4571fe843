"""Walking trees: leaves with their paths, trees of one structure side by side, and sums over a
whole tree.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import GetAttrKey, keystr

from gradxform.numerics import abs_sq, safe_sqrt, wide_dtype


def is_none(x) -> bool:
    """None marks an absent leaf (Equinox filters trees that way)."""
    return x is None


def path_string(path: Sequence[Any]) -> str:
    """`encoder/0/kernel`. The `.value` of a Flax nnx Variable, present at init and absent at
    update, is left out.
    """
    if path and isinstance(path[-1], GetAttrKey) and path[-1].name in ("value", "raw_value"):
        path = path[:-1]
    return keystr(tuple(path), simple=True, separator="/")


class Paths(list[str]):
    """Paths of leaves, and the structure of the tree that they were taken from."""

    structure: Any = None


def paths(tree) -> Paths:
    """The path of each leaf, None included, in the order of `jax.tree.leaves`."""
    flat, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_none)
    found = Paths(path_string(path) for path, _ in flat)
    found.structure = structure
    return found


@lru_cache(maxsize=1024)
def _pattern(pattern: str) -> re.Pattern[str]:
    out = ""
    for token in re.split(r"(\*\*/|/\*\*$|\*\*|\*|\?)", pattern):
        out += {"**/": "(?:.*/)?", "/**": "(?:/.*)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(
            token, re.escape(token)
        )
    return re.compile(out)


def matches(pattern: str, path: str) -> bool:
    """Whether a path matches a pattern: `*` within one segment, `**` over any number of them (none
    included).
    """
    return _pattern(pattern).fullmatch(path) is not None


def align(treedef, tree, owner: str, what: str, like: str) -> list[Any]:
    """The leaves of `tree` in the order of `treedef`; a tree of another structure is an error that
    lists the paths.
    """
    try:
        return treedef.flatten_up_to(tree)
    except (ValueError, TypeError) as error:
        expected = paths(treedef.unflatten(range(treedef.num_leaves)))
        got = paths(tree)
        only = (
            (like, [path for path in expected if path not in got]),
            (what, [path for path in got if path not in expected]),
        )
        detail = "; ".join(f"only in {name}: {names[:8]}" for name, names in only if names)
        raise ValueError(
            f"{owner}: {what} and {like} differ in structure: {detail or error}"
        ) from None


CHUNKS = (16, 4)


@partial(jax.jit, static_argnums=(0, 1), inline=False)
def _one(f, key, row, common):
    return f(key, *row, *common)


@partial(jax.jit, static_argnums=(0, 1), inline=False)
def _many(f, key, rows, common):
    return _in_chunks(f, key, rows, common, [size for size in CHUNKS if size < len(rows)])


def _in_chunks(f, key, rows, common, sizes):
    out, start = [], 0
    for size in sizes:
        while len(rows) - start >= size:
            out += _many(f, key, rows[start : start + size], common)
            start += size
    return out + [_one(f, key, row, common) for row in rows[start:]]


def map_leaves(
    f, keys: Sequence[Any], rows: Sequence[tuple[Any, ...]], common: tuple[Any, ...] = ()
) -> list[Any]:
    """`[f(key, *row, *common) for each leaf]`, where keys are static and rows hold the arrays of
    one leaf.

    f is traced once for each distinct key and set of shapes, and leaves that agree in both are
    called many at a time, so that tracing and lowering a thousand leaves cost little more than
    tracing a few. The compiled program is the same.
    """
    groups: dict[Any, list[int]] = {}
    leaves, structure = jax.tree.flatten(list(rows))
    kinds = structure.children()
    avals = tuple(map(jax.typeof, leaves))
    start = 0
    for i, (key, kind) in enumerate(zip(keys, kinds, strict=True)):
        stop = start + kind.num_leaves
        groups.setdefault((key, kind, avals[start:stop]), []).append(i)
        start = stop
    out: list[Any] = [None] * len(rows)
    for (key, *_), members in groups.items():
        if len(members) == 1:  # nothing to share
            out[members[0]] = f(key, *rows[members[0]], *common)
            continue
        results = _in_chunks(f, key, [rows[i] for i in members], common, CHUNKS)
        for i, result in zip(members, results, strict=True):
            out[i] = result
    return out


def _leaf_sum_squares(key, x):
    return jnp.sum(abs_sq(x.astype(wide_dtype(x.dtype))))


def sum_of_squares(leaves: Sequence[Any], axis_name: str | None = None):
    """Σ |x|² over all leaves as a float32 (or wider) scalar; None leaves are absent, no leaf gives
    0.
    """
    rows = [(jnp.asarray(leaf),) for leaf in leaves if leaf is not None]
    total = jnp.zeros((), jnp.float32)
    for part in map_leaves(_leaf_sum_squares, [None] * len(rows), rows):
        dtype = wide_dtype(total.dtype, part.dtype)
        total = jax.lax.add(total.astype(dtype), part.astype(dtype))
    return total if axis_name is None else jax.lax.psum(total, axis_name)


def global_norm(updates):
    """√(Σ |x|²) over every entry of every leaf, a scalar; its slope at a zero tree is 0."""
    return safe_sqrt(sum_of_squares(jax.tree.leaves(updates)))


def tree_map(f: Callable[..., Any], tree, *rest):
    """`jax.tree.map` that leaves None alone."""
    return jax.tree.map(
        lambda x, *xs: None if x is None else f(x, *xs), tree, *rest, is_leaf=is_none
    )
