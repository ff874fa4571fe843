"""A table of what an optimizer does to each parameter, and what it remembers of it."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from gradxform.core import ByPath, Chain, Injected, Named, Transform, Tunable
from gradxform.core import leaves as trees
from gradxform.core.frozen import is_frozen, trained
from gradxform.display.code import code
from gradxform.state.access import holds_transforms, owners
from gradxform.wrappers.masking import Partition

__all__ = ["describe"]


class Row(NamedTuple):
    """One parameter.

    Attributes:
        path, shape, dtype: which it is.
        rules: what is done to its gradient, in order, each with the numbers that apply here, and
            what a matrix method takes for its matrices: `orthogonalize(12×[256, 1024], ...)`; just
            "frozen" for a leaf that cannot be optimized: an integer, a key, a function.
        slots: what is remembered of it: the bytes of each slot.
        group: its label in a `partition`, "" without one.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    rules: tuple[str, ...]
    slots: dict[str, int]
    group: str = ""


class Description(NamedTuple):
    """What `describe` gives; prints as a table.

    Attributes:
        rows: one for each parameter.
        shared: what is remembered once for the whole tree: the bytes of each.
    """

    rows: tuple[Row, ...]
    shared: dict[str, int]

    def __repr__(self):
        lines = [("path", "shape", "dtype", "group", "slots", "bytes", "rules")]
        for row in self.rows:
            slots, size = ", ".join(row.slots) or "none", f"{sum(row.slots.values()):,}"
            shape, rules = str(list(row.shape)), " > ".join(row.rules)
            lines.append((row.path, shape, row.dtype, row.group, slots, size, rules))
        shared = sum(self.shared.values())
        if self.shared:
            slots = f"{len(self.shared)} scalars and other"
            lines.append(("(whole tree)", "", "", "", slots, f"{shared:,}", ""))
        total = shared + sum(sum(row.slots.values()) for row in self.rows)
        lines.append(("total", "", "", "", "", f"{total:,}", ""))
        if not any(row.group for row in self.rows):
            lines = [(*x[:3], *x[4:]) for x in lines]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rows = ([*map(str.ljust, x[:-2], widths), x[-2].rjust(widths[-2]), x[-1]] for x in lines)
        return "\n".join("  ".join(row).rstrip() for row in rows)


def _number(x) -> str:
    scalar = isinstance(x, np.ndarray) and x.ndim == 0
    return f"{x:g}" if scalar or isinstance(x, float | int) else code(x)


def _dtype(x) -> str:
    kind = jax.dtypes.result_type(x) if isinstance(x, int | float) else getattr(x, "dtype", None)
    return type(x).__name__ if kind is None else str(kind)


def _rules(tx, params, name=None, given=None, group="") -> Iterator[tuple]:
    """Every rule and wrapper: its name, its numbers, the parameters it applies to, the others None,
    what it takes for their matrices, and the label of the partition it is in.
    """
    if not isinstance(
        tx, Named | Chain | Tunable | Injected | Partition
    ):  # which do nothing of their own
        size = len(jax.tree.leaves(params, is_leaf=trees.is_none))
        seen = tx.seen(params) if hasattr(tx, "seen") else [None] * size
        yield name or tx.name, getattr(tx, "hypers", given or {}), params, seen, group
    named = isinstance(tx, Named)
    numbers = tx._dynamic if named else {}
    shown = {k: x for k, x in numbers.items() if not holds_transforms(x)}
    labelled = isinstance(tx, Partition) and tx.bare is None
    for label, part, _, share in tx.inside(params=params):
        above = (tx.name, shown) if named else (None, None)
        inner = "/".join(filter(None, (group, label))) if labelled else group
        yield from _rules(part, share, *above, inner)


def describe(tx: Transform, params) -> Description:
    """One row per parameter: path, shape, dtype, the rules and numbers that apply, and what they
    remember, in bytes.

    >>> params = {"embed": jnp.ones((100, 8)), "head": jnp.ones(8)}
    >>> gx.describe(gx.freeze("embed", gx.sgd(0.1, momentum=0.9)), params)
    path          shape     dtype    slots                bytes  rules
    embed         [100, 8]  float32  none                     0  set_to_zero
    head          [8]       float32  momentum/v              32  momentum(decay=0.9, dampening=...
    (whole tree) ...
    total ...

    Works with shapes alone (`jax.eval_shape`) as well as with arrays, and computes nothing.

    Raises:
        ValueError: what init raises: a leaf without a label, a pattern that matches nothing.
    """
    leaves, paths = jax.tree.leaves(params, is_leaf=trees.is_none), trees.paths(params)
    frozen = [*map(is_frozen, leaves)]
    rules: list[list[str]] = [["frozen"] * flag for flag in frozen]
    if any(frozen):
        params = trained(params)
    state = jax.eval_shape(tx.init, params)
    groups = [""] * len(leaves)
    for name, hypers, share, seen, group in _rules(tx, params):
        flat = jax.tree.leaves(share, is_leaf=trees.is_none)
        chosen = [i for i, leaf in enumerate(flat) if leaf is not None]
        columns = {
            k: x.rows(name, paths, flat) if isinstance(x, ByPath) else [x] * len(flat)
            for k, x in hypers.items()
        }
        for i in chosen:
            shown = [] if seen[i] is None else [str(seen[i].view)]
            shown += [f"{k}={_number(column[i])}" for k, column in columns.items()]
            rules[i].append(f"{name}({', '.join(shown)})" if shown else name)
            groups[i] = max(groups[i], group, key=len)
    slots: dict[str | None, dict[str, int]] = {path: {} for path in [*paths, None]}
    for path, leaf, owner in owners(state, params):
        depth = len(owner.split("/")) if owner else 0
        name = "/".join(path[: len(path) - depth])
        slots[owner][name] = slots[owner].get(name, 0) + leaf.size * leaf.dtype.itemsize
    rows = (
        Row(path, tuple(np.shape(x)), _dtype(x), tuple(applied), slots[path], group)
        for path, x, applied, group in zip(paths, leaves, rules, groups, strict=True)
        if x is not None
    )
    return Description(tuple(rows), slots[None])
