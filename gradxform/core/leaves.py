"""Walking trees: leaves with their paths, trees of one structure side by side, and sums over a
whole tree.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun
from jax.tree_util import GetAttrKey, keystr

from gradxform.numerics import abs_sq, safe_sqrt, wide_dtype

__all__ = ["align", "global_norm", "is_none", "map_leaves", "matches", "path_string", "paths"]
__all__ += ["sum_of_squares", "tree_map"]

Tree = Any  # arrays, nested in whatever way


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
    except (ValueError, TypeError):
        expected = paths(treedef.unflatten(range(treedef.num_leaves)))
        got = paths(tree)
        only = (
            (like, [path for path in expected if path not in got]),
            (what, [path for path in got if path not in expected]),
        )
        detail = "; ".join(f"only in {name}: {names[:8]}" for name, names in only if names)
        detail = detail or "the same paths in containers of other types"
        words = f"{what} and {like} differ in structure: {detail}"
        raise ValueError(f"{owner}: {words}") from None


CHUNKS = (16, 4)


class _Program(NamedTuple):
    """A leaf function for one kind of leaf, in two: the scalars that need no leaf, and the rest."""

    scalars: Callable[..., Any]  # of what all leaves share: computed once
    text: str  # the same for the same scalars
    used: list[int]  # which arrays of a leaf the rest reads
    rest: Callable[..., Any]  # of these arrays and the scalars


@partial(jax.jit, static_argnums=(0, 1))
def _call(f, key, row, common):
    return f(key, *row, *common)


@lru_cache(maxsize=4096)
def _in_two(closed, n: int) -> _Program:
    """A traced leaf function, of whose inputs the first n belong to the leaf."""
    jaxpr = closed.jaxpr
    shared = {*jaxpr.invars[n:], *jaxpr.constvars}
    first, rest = [], []
    for eqn in jaxpr.eqns:
        known = all(isinstance(x, Literal) or x in shared for x in eqn.invars)
        if known and not eqn.effects and all(x.aval.shape == () for x in eqn.outvars):
            shared.update(eqn.outvars)
            first.append(eqn)
        else:
            rest.append(eqn)
    read = [x for eqn in rest for x in eqn.invars] + jaxpr.outvars
    read = dict.fromkeys(x for x in read if not isinstance(x, Literal))
    passed = [x for x in read if x in shared and x not in jaxpr.constvars]
    used = [i for i, x in enumerate(jaxpr.invars[:n]) if x in read]

    def part(invars, eqns, outvars):
        names = {"arg_names": ("",) * len(invars), "result_paths": ("",) * len(outvars)}
        unnamed = jaxpr.debug_info._replace(**names)
        new = jaxpr.replace(invars=invars, eqns=eqns, outvars=outvars, debug_info=unnamed)
        return ClosedJaxpr(new, closed.consts)

    scalars = part(jaxpr.invars[n:], first, passed)
    run = part([*(jaxpr.invars[i] for i in used), *passed], rest, jaxpr.outvars)
    text = f"{scalars} {[id(x) for x in closed.consts]}"
    return _Program(jaxpr_as_fun(scalars), text, used, jaxpr_as_fun(run))


@partial(jax.jit, static_argnums=0, inline=False)
def _one(f, row, scalars):
    return f(*row, *scalars)


@partial(jax.jit, static_argnums=0, inline=False)
def _many(f, rows, scalars):
    return _in_chunks(f, rows, scalars, [size for size in CHUNKS if size < len(rows)])


def _in_chunks(f, rows, scalars, sizes):
    out, start = [], 0
    for size in sizes:
        while len(rows) - start >= size:
            out += _many(f, rows[start : start + size], scalars)
            start += size
    return out + [_one(f, row, scalars) for row in rows[start:]]


def _called(f, rows, scalars):
    alone = len(rows) == 1  # nothing to share
    return [f(*rows[0], *scalars)] if alone else _in_chunks(f, rows, scalars, CHUNKS)


@lru_cache(maxsize=4096)
def _bound(f, key):
    return lambda *row: f(key, *row)


def map_leaves(
    f, keys: Sequence[Any], rows: Sequence[tuple[Any, ...]], common: tuple[Any, ...] = ()
) -> list[Any]:
    """`[f(key, *row, *common) for each leaf]`, where keys are static and rows hold the arrays of
    one leaf.

    f is traced once for each distinct key and set of shapes. Scalars that need only `common`, such
    as bias corrections, are computed once and not for each leaf, and leaves that agree in key and
    shapes are called many at a time, so that tracing, lowering and compiling a thousand leaves cost
    little more than a few.
    """
    if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
        return [f(key, *row, *common) for key, row in zip(keys, rows, strict=True)]
    groups: dict[Any, list[int]] = {}
    leaves, structure = jax.tree.flatten(list(rows))
    avals = tuple(map(jax.typeof, leaves))
    start = 0
    for i, (key, kind) in enumerate(zip(keys, structure.children(), strict=True)):
        stop = start + kind.num_leaves
        groups.setdefault((key, kind, avals[start:stop]), []).append(i)
        start = stop
    out: list[Any] = [None] * len(rows)
    shared, computed = jax.tree.leaves(common), {}
    for (key, kind, _), members in groups.items():
        mine = [rows[i] for i in members]
        if not shared:
            results = _called(_bound(f, key), mine, ())
        else:
            traced = _call.trace(f, key, mine[0], common)
            program = _in_two(traced.jaxpr, kind.num_leaves)
            if program.text not in computed:
                computed[program.text] = program.scalars(*shared)
            flat = map(jax.tree.leaves, mine)
            used = [[row[j] for j in program.used] for row in flat]
            of = jax.tree.structure(traced.out_info)
            results = _called(program.rest, used, computed[program.text])
            results = map(of.unflatten, results)
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
        if part.dtype != total.dtype:
            dtype = wide_dtype(total.dtype, part.dtype)
            total, part = total.astype(dtype), part.astype(dtype)
        total = jax.lax.add(total, part)
    return total if axis_name is None else jax.lax.psum(total, axis_name)


def global_norm(updates):
    """√(Σ |x|²) over every entry of every leaf, a scalar; its slope at a zero tree is 0."""
    return safe_sqrt(sum_of_squares(jax.tree.leaves(updates)))


def tree_map(f: Callable[..., Any], tree, *rest):
    """`jax.tree.map` that leaves None alone."""
    return jax.tree.map(
        lambda x, *xs: None if x is None else f(x, *xs), tree, *rest, is_leaf=is_none
    )
