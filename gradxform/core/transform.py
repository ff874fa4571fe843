"""What every transformation is, and how its parts run over the leaves of a tree."""

import re
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.core import leaves as trees
from gradxform.core.call import Value
from gradxform.core.frozen import is_frozen, is_inexact
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

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for name in {"init", "update"} & vars(cls).keys():
            setattr(cls, name, _explained(vars(cls)[name]))

    def init(self, params) -> Any:
        """The state before the first update. Works under `jax.eval_shape`; no buffer of params is
        reused.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no init")

    def update(self, updates, state, params=None, **extra) -> tuple[Any, Any]:
        """The transformed updates, each leaf in its own dtype or that of a wider parameter, and the
        next state.
        """
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

    def reads_gradient(self) -> bool:
        """Whether a rule inside measures the gradient that a chain hands on beside the updates."""
        return any(part.reads_gradient() for _, part, _, _ in self.inside())

    def steps(self) -> bool:
        """Whether a rule with a learning rate is inside."""
        return any(part.steps() for _, part, _, _ in self.inside())

    def takes(self, name: str) -> bool:
        """Whether it may read an extra argument of `update` that no rule here knows: what users
        bring may.
        """
        ours = type(self).__module__.startswith("gradxform.")
        return not ours or any(part.takes(name) for _, part, _, _ in self.inside())

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


_SIDES = "the parameters", "the updates"
_FAULTS = AttributeError, LookupError, TypeError, ValueError


def _explained(method):
    """`init` or `update` that, where it fails on a tree or a state that does not fit, says which.

    Looked for only then, so that what works pays nothing for it.
    """

    @wraps(method)
    def told(tx, tree, *args, **kwargs):
        try:
            return method(tx, tree, *args, **kwargs)
        except _FAULTS as error:
            if not re.fullmatch(r"[\w./]+: .+", str(error)):  # else somebody has said it
                _explain(tx, tree, *args, **kwargs)
            raise

    return told


def _explain(tx, tree, *args, **kwargs):
    name, what = name_of(tx), "update" if args else "parameter"
    state, params = (*args, None, kwargs.get("params"))[:2] if args else (None, None)
    u, structure = jax.tree.flatten(tree, is_leaf=trees.is_none)
    p = u if params is None else trees.align(structure, params, name, *_SIDES)
    u, p = ([None if is_frozen(y) else x for x, y in zip(xs, p, strict=True)] for xs in (u, p))
    for path, x, y in zip(trees.paths(tree), u, p, strict=True):
        check_leaf(name, what, path, x)
        if isinstance(x, float | complex) and not hasattr(x, "dtype"):
            raise TypeError(f"{name}: {what} {path!r} is {x}: write jnp.asarray({x})")
        if (x is None) != (y is None):
            raise ValueError(f"{name}: update {path!r} is {_kind(x)}, its parameter {_kind(y)}")
        if jnp.iscomplexobj(x) and not jnp.iscomplexobj(y):
            raise TypeError(f"{name}: update {path!r} is complex, its parameter real")
    if not args:  # the likeliest of what is left
        for path, x in zip(trees.paths(tree), structure.flatten_up_to(tree), strict=True):
            check_leaf(name, what, path, x)
        return
    given = None if params is None else structure.unflatten(p)
    check_updates(name, structure.unflatten(u), given, shapes=not tx.per_example)
    try:
        expected = jax.eval_shape(lambda: tx.init(tree if params is None else params))
    except Exception:  # then it is not the state
        return
    got, wanted = _kinds(state), _kinds(expected)
    for path in [*wanted, *got]:
        if wanted.get(path) != got.get(path):
            that = f"{path!r} is {got.get(path, 'missing')}, not {wanted.get(path, 'there')}"
            raise ValueError(f"{name}: this state is not that of these parameters: {that}")
    if type(state) is not type(expected):
        kinds = f"a {type(state).__name__}, not a {type(expected).__name__}"
        raise TypeError(f"{name}: this state is {kinds}")


def _kinds(state) -> dict[str, str]:
    """Dtype and shape of every leaf of a state, None included, by its path."""
    flat, _ = jax.tree_util.tree_flatten_with_path(state, is_leaf=trees.is_none)
    named = ((trees.path_string(path).replace("slots/", ""), leaf) for path, leaf in flat)
    return {path or "it": _kind(leaf) for path, leaf in named}


def _kind(leaf: Any) -> str:
    try:
        return "None" if leaf is None else f"{jnp.result_type(leaf)}{[*np.shape(leaf)]}"
    except _FAULTS:
        return code(leaf)


def name_of(tx) -> str:
    """The name of a transformation: its own, or that of its class."""
    return getattr(tx, "name", type(tx).__name__.lower())


def warn_of_directions(parts: list[Transform]):
    """One warning for a direction before a preconditioner, if either is a whole optimizer."""
    before = None
    for tx in parts:
        if before is not None and tx.reads_gradient() and (_is_whole(before) or _is_whole(tx)):
            one, other = name_of(before), name_of(tx)
            warnings.warn(
                f"chain: {other} measures the gradient that entered {one}; in Optax it measures "
                f"what {one} makes of it. For Optax's steps write on_updates({other}(...))",
                stacklevel=3,
            )
            return
        before = tx if tx.direction else before


def _is_whole(tx) -> bool:
    """Whether it is an optimizer and not a part of one: it has a learning rate, or a direction and
    a preconditioner.
    """
    return tx.steps() or (tx.direction and tx.reads_gradient())


def require_params(owner: str, params) -> None:
    """Raise where `update` was given no parameters."""
    if params is None:
        raise ValueError(f"{owner}: update() needs the parameters: update(updates, state, params)")


def check_leaf(owner: str, what: str, path: str, leaf):
    """The leaf as an array (None as it is); what is none, or is not of real or complex numbers, is
    an error that names its path.
    """
    if leaf is None:
        return None
    if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape"):
        try:
            leaf = jnp.asarray(leaf)
        except (TypeError, ValueError):
            raise TypeError(f"{owner}: {what} {path!r} is not an array: {code(leaf)}") from None
    if not is_inexact(leaf.dtype):
        only = "only real and complex leaves can be optimized: leave it out, or make it None"
        raise TypeError(f"{owner}: {what} {path!r} has dtype {leaf.dtype}; {only}")
    return jnp.asarray(leaf) if isinstance(leaf, np.ndarray | np.generic) else leaf


@lru_cache(maxsize=256)
def _common(*dtypes):
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*dtypes)


def check_updates(owner, updates, params, shapes: bool = True):
    """Leaves of updates and params side by side, or an error naming the leaf that does not fit. An
    update narrower than its parameter gets the dtype that holds both.
    """
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
        if not isinstance(leaf, jax.Array) or not is_inexact(leaf.dtype):
            u[i] = leaf = check_leaf(owner, "update", trees.paths(updates)[i], leaf)
        if p is not None and shapes and np.shape(leaf) != np.shape(p[i]):
            path = trees.paths(updates)[i]
            shapes_of = f"shape {np.shape(leaf)}, its parameter has {np.shape(p[i])}"
            raise ValueError(f"{owner}: update {path!r} has {shapes_of}")
        if p is not None and isinstance(p[i], np.ndarray | np.generic | float | complex):
            p[i] = jnp.asarray(p[i])
        if p is not None and p[i] is not None and p[i].dtype != leaf.dtype:
            u[i] = leaf.astype(_common(leaf.dtype, p[i].dtype))
    return u, p, treedef
