"""The leaves that no method can optimize, integers, booleans, random keys, float0 and functions:
kept out of every update, and back in their places after it.
"""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from gradxform.core import leaves as trees
from gradxform.core.labels import ByPath
from gradxform.core.states import RECORDED


@lru_cache(maxsize=256)
def is_inexact(dtype) -> bool:
    """Whether a dtype is real or complex."""
    return jnp.issubdtype(dtype, jnp.inexact)


@lru_cache(maxsize=256)
def _is_fixed(dtype) -> bool:
    kinds = jnp.integer, jnp.bool_, jax.dtypes.prng_key
    return dtype == jax.dtypes.float0 or any(jnp.issubdtype(dtype, kind) for kind in kinds)


def is_frozen(leaf) -> bool:
    """Whether a leaf is of a kind that no method can optimize: integers, booleans, random keys,
    float0, functions.
    """
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        return isinstance(leaf, int) or callable(leaf)
    return not is_inexact(dtype) and _is_fixed(dtype)


def trained(tree):
    """The tree itself, or with None for the leaves that cannot be optimized."""
    leaves, structure = jax.tree.flatten(tree, is_leaf=trees.is_none)
    if not any(map(is_frozen, leaves)):
        return tree
    return structure.unflatten(None if is_frozen(leaf) else leaf for leaf in leaves)


def is_integral(leaf) -> bool:
    """Whether a leaf holds integers or booleans."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        return isinstance(leaf, int)
    return jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool_)


def is_numeric(leaf) -> bool:
    """Whether a leaf holds numbers, that is, has a zero."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        return isinstance(leaf, int | float | complex)
    return is_inexact(dtype) or is_integral(leaf)


def _still(u, p):
    if getattr(u, "dtype", None) == jax.dtypes.float0 and is_numeric(p):
        u = p
    return jnp.zeros_like(u) if is_numeric(u) else u


class Frozen:
    """The leaves of an update that cannot be optimized, which are kept out of it: the parameters
    say which, and without parameters the updates themselves.
    """

    def __init__(self, owner: str, updates, params):
        self.u, self.structure = jax.tree.flatten(updates, is_leaf=trees.is_none)
        self.p: Any = None
        if params is None:  # an integer may be a gradient by mistake
            self.flags = [is_frozen(u) and not is_integral(u) for u in self.u]
        else:
            self.p = trees.align(self.structure, params, owner, "the parameters", "the updates")
            self.flags = [*map(is_frozen, self.p)]
        self.some = any(self.flags)

    def without(self, tree):
        """A tree like the updates with None for these leaves; anything else as it is."""
        try:
            leaves = self.structure.flatten_up_to(tree)
        except (ValueError, TypeError):
            return tree
        rows = zip(self.flags, leaves, strict=True)
        return self.structure.unflatten(None if flag else leaf for flag, leaf in rows)

    def put(self, tree, leaves):
        """A tree like the updates with other leaves in these places."""
        rows = zip(self.flags, leaves, self.structure.flatten_up_to(tree), strict=True)
        return self.structure.unflatten(leaf if flag else old for flag, leaf, old in rows)

    def argument(self, x):
        """An extra argument: a function of the parameters is given all of them."""
        if not callable(x) or self.p is None:
            return self.without(x)

        def function(params, *args, **kwargs):
            return self.without(x(self.put(params, self.p), *args, **kwargs))

        return function

    def back(self, updates):
        """The updates with these leaves: zero, where they are numbers, and else as they came. A
        float0 has no sum with anything, so the zero is then that of its parameter.
        """
        return self.put(updates, map(_still, self.u, self.p or self.u))


def count_on(p, u):
    """The sum for integers and booleans; keys, functions and what has no update stay."""
    if not (is_integral(p) and is_numeric(u)):
        return p
    with jax.numpy_dtype_promotion("standard"):
        return jnp.asarray(p + u).astype(jnp.asarray(p).dtype)


def frozen_paths(params) -> tuple[list[str], list[str]]:
    """The paths of all leaves, and of those that cannot be optimized."""
    paths, leaves = trees.paths(params), jax.tree.leaves(params, is_leaf=trees.is_none)
    return paths, [path for path, x in zip(paths, leaves, strict=True) if is_frozen(x)]


def refuse_rates(tx, paths: list[str], gone: list[str]):
    """Raise where a table gives a learning rate to leaves that cannot be optimized alone."""
    table = getattr(tx, "hypers", {}).get(RECORDED)
    rows = zip(table.patterns, table.values, strict=True) if isinstance(table, ByPath) else ()
    for pattern, rate in rows:
        here = [path for path in paths if isinstance(pattern, str) and trees.matches(pattern, path)]
        zero = isinstance(rate, float | int) and rate == 0
        if here and pattern != "**" and {*here} <= {*gone} and not zero:
            what = f"by_path: {pattern!r} gives a {RECORDED} to {here[:8]}"
            only = "but only real and complex leaves can be optimized: leave it out"
            raise TypeError(f"{tx.name}: {what}, {only}")
    for _, part, _, _ in tx.inside():
        refuse_rates(part, paths, gone)
