"""Which leaf is which: labels by path pattern, by predicate, by a tree, or by a function of the
parameters.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Annotated, Any

import jax

from gradxform.core import leaves as trees
from gradxform.core.call import Value
from gradxform.core.leaves import matches
from gradxform.core.schedule import from_function
from gradxform.display.code import code

__all__ = ["ByPath", "ParamLabels", "Where", "by_path", "only"]


class Labels:
    """A label for each leaf by its path, or by the path of a subtree that it is in: a tree of
    labels, made static.
    """

    def __init__(self, entries):
        self.entries = tuple(entries)

    def __eq__(self, other):
        return isinstance(other, Labels) and self.entries == other.entries

    def __hash__(self):
        return hash(self.entries)

    def __repr__(self):
        out = {}
        for path, label in self.entries:
            *above, last = path.split("/")
            node = out
            for name in above:
                node = node.setdefault(name, {})
            node[last] = label
        return code(out.get("", out))

    def rows(self, owner: str, paths: list[str], leaves: list) -> list:
        """The label of each leaf, None where the leaf is absent. A leaf without one, or a label
        without a leaf, present or absent, is an error that lists them.
        """
        table, used, rows, uncovered = dict(self.entries), set(), [], []
        for path, leaf in zip(paths, leaves, strict=True):
            steps = path.split("/")
            above = ("/".join(steps[:i]) for i in range(len(steps), -1, -1))
            hit = next((p for p in above if p in table), None)
            used.add(hit)
            uncovered += [path] if hit is None and leaf is not None else []
            rows.append(None if hit is None or leaf is None else table[hit])
        if uncovered:
            words = f"no label for the leaves {uncovered[:8]}"
            raise ValueError(f"{owner}: {words}; there are labels for {list(table)[:8]}")
        idle = [path for path in table if path not in used]
        if paths and idle:  # a subtree that is absent is one leaf, and its labels lie below it
            gone = tuple(
                f"{p}/" if p else "" for p, x in zip(paths, leaves, strict=True) if x is None
            )
            idle = [path for path in idle if not path.startswith(gone)]
        if paths and idle:
            words = f"labels for {idle[:8]}, where the parameters have no leaf"
            raise ValueError(f"{owner}: {words}; the leaves are {paths[:8]}")
        return rows


class Table(Labels):
    """Labels by path pattern: a `by_path` table, made static."""

    def __repr__(self):
        return f"by_path({code(dict(self.entries))})"

    def rows(self, owner: str, paths: list[str], leaves: list) -> list:
        """The label of each leaf, from the first pattern that matches; checked as every `by_path`
        table.
        """
        return ByPath(*zip(*self.entries, strict=True)).rows(owner, paths, leaves)


def is_predicate(x) -> bool:
    """Whether it is a function of a path and a leaf, and not of the parameters, as Optax's are."""
    try:
        parameters = signature(x).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty for p in parameters) >= 2


def _labels(owner: str, name: str, x, booleans: bool):
    """Labels made static: a tree (a module with `__call__` is one too), a table, a pattern;
    functions stay.
    """
    if isinstance(x, Labels) or (isinstance(x, str) and booleans):
        return x
    if isinstance(x, ByPath):
        return Table(zip(x.patterns, x.values, strict=True))
    flat, structure = jax.tree_util.tree_flatten_with_path(x)
    if callable(x) and (jax.tree_util.treedef_is_leaf(structure) or not flat):
        return x
    flags = [isinstance(f, bool) or getattr(f, "dtype", "") == "bool" for _, f in flat]
    if booleans and not all(flags):
        kinds = "a tree of booleans or a function that gives one"
        words = f"must be a path pattern, a predicate f(path, leaf), {kinds}; got {code(x)}"
        raise TypeError(f"{owner}: {name} {words}")
    made = bool if booleans else lambda label: label
    return Labels((trees.path_string(path), made(label)) for path, label in flat)


class _Where:
    """Which leaves: a path pattern, a predicate `f(path, leaf)`, a tree of booleans, or a function
    `f(params)` that gives one.
    """

    static = True
    synonyms = ("where", "mask", "weight_decay_mask")  # ours, and Optax's for the same
    text = (
        "which leaves: a path pattern, a predicate f(path, leaf), a tree of booleans like the "
        "parameters or a prefix of it, or a function f(params) that gives one"
    )

    def __repr__(self):
        return "leaves"

    def convert(self, owner: str, name: str, x):
        return _labels(owner, name, x, True)


class _ParamLabels:
    """A label for each leaf: a tree of labels, a `by_path` table, a function `f(params)` that gives
    a tree, or `f(path, leaf)`.
    """

    static = True

    def convert(self, owner: str, name: str, x):
        return _labels(owner, name, x, False)


as_mask = _Where()


Where = Annotated[Any, as_mask]


ParamLabels = Annotated[Any, _ParamLabels()]


def label_leaves(owner: str, labels: Any, tree, booleans: bool) -> list:
    """The label of each leaf of a tree of parameters; None where the leaf is absent."""
    leaves, names = jax.tree.leaves(tree, is_leaf=trees.is_none), trees.paths(tree)
    if isinstance(labels, str):
        labels = Table(((labels, True), ("**", False)))
    elif callable(labels):
        if is_predicate(labels):
            rows = zip(names, leaves, strict=True)
            labels = Labels((path, labels(path, x)) for path, x in rows if x is not None)
        else:
            name = getattr(labels, "__name__", type(labels).__name__)
            labels = _labels(owner, name, labels(tree), booleans)
    found = labels.rows(owner, names, leaves)
    return [x if x is None or not booleans else bool(x) for x in found]


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True, eq=False, repr=False)
class ByPath(Value):
    """A table from parameter paths to hyperparameters; the first pattern that matches a leaf's path
    wins.
    """

    patterns: tuple
    values: tuple

    def tree_flatten_with_keys(self):
        rows = zip(self.patterns, self.values, strict=True)
        return tuple((jax.tree_util.DictKey(str(p)), v) for p, v in rows), self.patterns

    def tree_flatten(self):
        return self.values, self.patterns

    @classmethod
    def tree_unflatten(cls, patterns, values):
        return cls(patterns, tuple(values))

    def __repr__(self):
        return f"by_path({code(dict(zip(self.patterns, self.values, strict=True)))})"

    def rows(self, owner: str, paths: list[str], leaves: list) -> list:
        """The table's value for each leaf, None for an absent one that no pattern covers. An idle
        pattern, or a leaf that no pattern covers, is an error that lists it.
        """
        rows, used, uncovered = [], set(), []
        columns = [_flags(pattern, owner, paths, leaves) for pattern in self.patterns]
        for j, (path, leaf) in enumerate(zip(paths, leaves, strict=True)):
            hits = [i for i, column in enumerate(columns) if column[j]]
            used.update(hits)
            rows.append(self.values[hits[0]] if hits else None)
            uncovered += [] if hits or leaf is None else [path]
        if uncovered:
            words = f"no pattern of {list(self.patterns)} covers {uncovered[:8]}"
            raise ValueError(f"{owner}: by_path: {words}; add '**' for the rest")
        idle = [p for i, p in enumerate(self.patterns) if i not in used and p != "**"]
        all_here = all(leaf is not None for leaf in leaves)  # else a predicate may mean another one
        idle = [p for p in idle if isinstance(p, str) or (all_here and is_predicate(p))]
        if idle and paths:
            words = f"pattern {idle[0]!r} matches no leaf; the leaves are {paths[:8]}"
            raise ValueError(f"{owner}: by_path: {words}")
        for value in self.values:  # a table in a table sees only the leaves that came to it
            if isinstance(value, ByPath):
                mine = [j for j, row in enumerate(rows) if row is value]
                inner = value.rows(owner, [paths[j] for j in mine], [leaves[j] for j in mine])
                for j, row in zip(mine, inner, strict=True):
                    rows[j] = row
        return rows


def _flags(pattern, owner: str, paths, leaves: list):
    """Whether a pattern matches each leaf: a pattern of paths, a predicate, or a mask of the whole
    tree.
    """
    if isinstance(pattern, str):
        return [matches(pattern, path) for path in paths]
    if is_predicate(pattern):
        rows = zip(paths, leaves, strict=True)
        return [leaf is not None and pattern(path, leaf) for path, leaf in rows]
    return label_leaves(owner, pattern, paths.structure.unflatten(leaves), True)


def by_path(table: Mapping) -> ByPath:
    """A hyperparameter by parameter path: `by_path({"**/kernel": 0.1, "**": 0.0})`.

    Patterns are matched against paths like `encoder/0/kernel`: `*` stands for anything within one
    segment, `**` for any number of segments. A pattern may also be a predicate `f(path, leaf)`. The
    first match wins; every leaf must be covered, and every pattern but `**` must match something.
    Values are numbers, arrays or schedules.

    >>> params = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
    >>> tx = gx.sgd(gx.by_path({"**/kernel": 0.1, "**": 1.0}))
    >>> updates, _ = tx.update(params, tx.init(params), params)
    >>> updates["kernel"], updates["bias"]
    (Array([-0.1, -0.1], dtype=float32), Array([-1., -1.], dtype=float32))
    """
    if not table:
        raise ValueError("by_path: the table is empty")
    if wrong := [k for k in table if not isinstance(k, str) and not callable(k)]:
        must = "a pattern must be a text, or a predicate f(path, leaf)"
        raise TypeError(f"by_path: {must}; got {code(wrong[0])}")
    called = {k: v for k, v in table.items() if callable(v) and not isinstance(v, Value)}
    values = {**table, **{k: from_function(v) for k, v in called.items()}}
    return ByPath(tuple(table), tuple(values.values()))


def only(where, x, elsewhere=0.0):
    """A hyperparameter on the chosen leaves, another elsewhere; everywhere if none are chosen."""
    return x if where is None else ByPath((where, "**"), (x, elsewhere))
