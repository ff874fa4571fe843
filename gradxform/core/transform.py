"""What every transformation is, and how its parts run over the leaves of a tree."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.core import leaves as trees
from gradxform.core.call import Value
from gradxform.display.code import code
from gradxform.display.latex import to_mathematics


class Pair(NamedTuple):
    """The two functions of a transformation; a part of a chain like any other."""

    init: Callable[..., Any]
    update: Callable[..., Any]


class Transform(Value):
    """A transformation of gradients: `init_fn, update_fn = tx`, and a pytree whose leaves are its
    numbers.
    """

    direction: bool = False  # whether it freezes the gradient that later parts of a chain measure

    # whether it is given gradients with an axis of examples in front, and makes one of them
    per_example: bool = False

    name: str  # what its state goes by in a chain; without one, the name of the class

    def init(self, params) -> Any:
        """The state before the first update. Works under `jax.eval_shape`; no buffer of params is
        reused.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no init")

    def update(self, updates, state, params=None, **extra) -> tuple[Any, Any]:
        """The transformed updates, each leaf in its own dtype, and the next state."""
        raise NotImplementedError(f"{type(self).__name__} defines no update")

    def parts(self) -> Iterator[tuple[tuple[str, ...], "Transform"]]:
        """The rules it consists of, nested chains written out, each with the path of its state."""
        yield (), self

    def inside(self, state=None, params=None) -> Iterator[tuple[str, "Transform", Any, Any]]:
        """What it is made of: a label, the transformation, its state, its share of the parameters.

        A rule yields nothing, a chain its parts, a named optimizer its composition, a wrapper what
        it wraps; without a state (or parameters) the parts come with None for theirs. The label is
        what the part's state goes by in that of the whole, "" where it is the same one.
        """
        yield from ()

    def _repr_latex_(self) -> str:
        return to_mathematics(self)

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter((self.init, self.update))

    def __getitem__(self, index):
        return (self.init, self.update)[index]

    def _replace(self, **functions) -> Pair:
        """As of Optax's named tuple: `tx._replace(update=f)` is a pair whose numbers stay closed
        over.
        """
        return Pair(*self)._replace(**functions)


def name_of(tx) -> str:
    """The name of a transformation: its own, or that of its class."""
    return getattr(tx, "name", type(tx).__name__.lower())


def require_params(owner: str, params) -> None:
    """Raise where `update` was given no parameters."""
    if params is None:
        raise ValueError(f"{owner}: update() needs the parameters: update(updates, state, params)")


def check_leaf(owner: str, what: str, path: str, leaf):
    """The leaf as an array (None as it is); an integer, key or float0 leaf is an error that names
    its path.
    """
    if leaf is None:
        return None
    if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape"):
        try:
            leaf = jnp.asarray(leaf)
        except (TypeError, ValueError):
            raise TypeError(f"{owner}: {what} {path!r} is not an array: {code(leaf)}") from None
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        only = "only real and complex leaves can be optimized: leave it out, or make it None"
        raise TypeError(f"{owner}: {what} {path!r} has dtype {leaf.dtype}; {only}")
    return jnp.asarray(leaf) if isinstance(leaf, np.ndarray | np.generic) else leaf


def check_updates(owner, updates, params, shapes: bool = True):
    """Leaves of updates and params side by side, or an error naming the leaf that does not fit."""
    leaves, treedef = jax.tree.flatten(updates, is_leaf=trees.is_none)
    u: list[Any] = leaves
    p: Any = params
    if params is not None:
        p = trees.align(treedef, params, owner, "the parameters", "the updates")
        if not jax.tree_util.all_leaves(p, is_leaf=trees.is_none):
            have = f"{trees.paths(params)[:8]}, the updates {trees.paths(updates)[:8]}"
            raise ValueError(f"{owner}: the parameters have other leaves than the updates: {have}")
    leaf: Any
    for i, leaf in enumerate(u):
        if leaf is None:
            continue
        if not isinstance(leaf, jax.Array) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            u[i] = leaf = check_leaf(owner, "update", trees.paths(updates)[i], leaf)
        if p is not None and shapes and np.shape(leaf) != np.shape(p[i]):
            path = trees.paths(updates)[i]
            shapes_of = f"shape {np.shape(leaf)}, its parameter has {np.shape(p[i])}"
            raise ValueError(f"{owner}: update {path!r} has {shapes_of}")
        if p is not None and isinstance(p[i], np.ndarray | np.generic | float):
            p[i] = jnp.asarray(p[i])
    return u, p, treedef
