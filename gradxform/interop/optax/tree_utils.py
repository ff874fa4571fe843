"""Optax's `tree_utils`: arithmetic on trees, and states searched by the name of an entry.

`gradxform.tree` has the same functions, as `tree_add` and, as in Optax's `tree`, as `add`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import jax
from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, SequenceKey

from gradxform.core import ByPath, Schedule
from gradxform.core import leaves as trees
from gradxform.core.leafwise import RECORDED
from gradxform.core.states import NOTHING, OURS, RuleState, answer
from gradxform.interop.optax import tree_math
from gradxform.interop.optax.tree_math import *  # noqa: F403
from gradxform.interop.optax.tree_math import tree_add_scale, tree_norm, tree_scale
from gradxform.state import access as states

__all__ = ["NamedTupleKey", "tree_get", "tree_get_all_with_path", "tree_map_params", "tree_set"]
__all__ += tree_math.__all__


@dataclass(frozen=True)
class NamedTupleKey:
    """A step of a path into a named tuple, with the name of its class."""

    tuple_name: str
    name: str

    def __str__(self):
        return f"{self.tuple_name}.{self.name}"


# Optax's names before its version 0.2.5
tree_scalar_mul, tree_add_scalar_mul = tree_scale, tree_add_scale


tree_l1_norm, tree_l2_norm, tree_linf_norm = (partial(tree_norm, ord=ord) for ord in (1, 2, "inf"))


def _children(node) -> list[tuple]:
    """The children of a node, each with its step of a path."""
    if _is_named_tuple(node):
        name = type(node).__name__
        keys = [NamedTupleKey(name, field) for field in node._fields]
        return list(zip(keys, node, strict=True))
    flat = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)[0]
    return [(path[0], child) for path, child in flat if path]


def _name(key):
    if isinstance(key, DictKey | FlattenedIndexKey):
        return key.key
    if isinstance(key, GetAttrKey | NamedTupleKey):
        return key.name
    return key.idx if isinstance(key, SequenceKey) else str(key)


def _found(node, name, path=()) -> Iterator[tuple]:
    """Every node that goes by a name: that of its entry, or of its class if it is a named tuple."""
    for key, child in _children(node):
        below = (*path, key)
        if _name(key) == name or (_is_named_tuple(child) and type(child).__name__ == name):
            yield below, child
        yield from _found(child, name, below)


def _meant(path, node, name) -> tuple:
    """What Optax's name means of a rule that goes by it: of `ema` its average."""
    for slot in OURS.get(name, ()):
        if isinstance(node, RuleState) and slot in node.slots:
            return (*path, NamedTupleKey("RuleState", "slots"), DictKey(slot)), node.slots[slot]
    return path, node


def _computed(node, name, path=()) -> Iterator[tuple]:
    """What states answer to a name without having an entry for it: `last_finite`, `hyperparams`."""
    if _is_named_tuple(node):
        own = isinstance(getattr(type(node), name, None), property)
        found = getattr(node, name, NOTHING) if own else answer(node, name)
        if found is not NOTHING:
            yield (*path, NamedTupleKey(type(node).__name__, name)), found
    for key, child in _children(node):
        yield from _computed(child, name, (*path, key))


def _is_named_tuple(node) -> bool:
    return isinstance(node, tuple) and hasattr(node, "_fields")


def _is_record(path) -> bool:
    return len(path) > 1 and path[-2:] == (NamedTupleKey("RuleState", "slots"), DictKey(RECORDED))


def _as_state_path(path) -> str:
    """A path as `gradxform.get` and `gradxform.set` write it."""
    return "/".join(str(_name(key)) for key in path if key != NamedTupleKey("RuleState", "slots"))


def tree_get_all_with_path(tree, key, filtering: Callable | None = None) -> list[tuple]:
    """Everything in a state that goes by a name, each as (path, value); records of a number only
    where the number itself is not in the state.

    Args:
        tree: any state, of gradxform or of Optax.
        key: the name of an entry, or of a named tuple's class. What Optax calls `count`, `mu`,
            `nu`, `trace` or `ema` is found, too, and whatever a state answers to as an attribute.
        filtering: `filtering(path, value) -> bool`, which of them.
    """
    for name in (key, *OURS.get(key, ()), None):
        root = [((), tree)] if _is_named_tuple(tree) and type(tree).__name__ == name else []
        found = [*root, *_found(tree, name)] if name else _computed(tree, key)
        found = [_meant(path, x, key) for path, x in found]
        found = [(path, x) for path, x in found if filtering is None or filtering(path, x)]
        if found:
            return [(path, x) for path, x in found if not _is_record(path)] or found
    return []


def tree_get(tree, key, default=None, filtering: Callable | None = None):
    """What a state has under a name, Optax's names among them: `gradxform.get` with a default.

    Of several the outermost is meant; the step counters of one chain run together and are one. A
    schedule is the number that the last update used.

    Args:
        tree: any state, of gradxform or of Optax.
        key: the name of an entry, or of a named tuple's class.
        default: what to return where there is none.
        filtering: `filtering(path, value) -> bool`, which of them.

    Raises:
        KeyError: several at one depth, each listed.
    """
    found = tree_get_all_with_path(tree, key, filtering)
    if not found:
        return default
    depth = min(len(path) for path, _ in found)
    outermost = [(path, x) for path, x in found if len(path) == depth]
    if len(outermost) > 1 and key not in ("step", "count"):
        any_of = [_as_state_path(path) for path, _ in outermost][:8]
        raise KeyError(f"tree_get: {key!r} may be any of {any_of}")
    path, value = outermost[0]
    return states.get(tree, _as_state_path(path)) if isinstance(value, Schedule | ByPath) else value


def tree_set(tree, filtering: Callable | None = None, /, **kwargs):
    """The state with other values under names: `tree_set(state, learning_rate=3e-4, count=0)`.

    Every entry of that name is set, as in Optax. Numbers of a `tunable` optimizer are checked as at
    construction, and a value takes the dtype of what was there.

    Args:
        tree: any state, of gradxform or of Optax; it is not changed.
        filtering: `filtering(path, value) -> bool`, which of them.
        **kwargs: values by name: a number for every entry, or a tree like what is there.

    Raises:
        KeyError: nothing has this name.
        ValueError: the value has another shape or structure, or cannot replace a schedule.
    """
    for key, value in kwargs.items():
        found = tree_get_all_with_path(tree, key, filtering)
        if not found:
            raise KeyError(f"tree_set: there is no {key!r}")
        for path, _ in found:
            tree = states.set(tree, _as_state_path(path), value)
    return tree


class _Placeholder:
    """Stands for the parameters: a tree without leaves, so that what mirrors them in a state can be
    told from the rest.
    """


jax.tree_util.register_pytree_node(_Placeholder, lambda x: ((), None), lambda *_: _Placeholder())


def tree_map_params(
    initable, f: Callable, state, /, *rest, transform_non_params: Callable | None = None,
    is_leaf: Callable | None = None,
):  # fmt: skip
    """The state with f applied to every leaf that belongs to a parameter, `f(leaf, *rest)`: to make
    shardings, for example.

    Args:
        initable: the transformation, or its `init`.
        f: a function of such a leaf, and of the leaves of `rest` for the same parameter.
        state: its state.
        *rest: trees like the parameters.
        transform_non_params: a function of all other leaves; None leaves them as they are.
        is_leaf: as in `jax.tree.map`.
    """
    like = getattr(initable, "init", initable)(_Placeholder())
    is_place = lambda x: isinstance(x, _Placeholder)  # noqa: E731
    stop = (lambda x: x is None or is_leaf(x)) if is_leaf else trees.is_none

    def on_params(x, *xs):
        return x if x is None else f(x, *xs)

    def change(place, node):
        if is_place(place):
            return jax.tree.map(on_params, node, *rest, is_leaf=stop)
        return node if transform_non_params is None else transform_non_params(node)

    return jax.tree.map(change, like, state, is_leaf=is_place)
