"""States by name: read, change, begin again, carry over.

A state is a tree, and every node of it has a path: `ema/m`, `scale_by_rms/step`,
`inner/adam/ema/m/encoder/kernel`. A name is the end of a path, as long as is needed to tell which
is meant; of nodes at different depths the outermost is meant.

The numbers of an optimizer are not in its state but in the optimizer, which is a pytree of them.
What the last update used is the optimizer's number at the step count of the state: `numbers(tx,
state)`, or `get(state, "b1", tx)`. Two things are in the state. Every rule with a learning rate
records there the one it used last, scheduled or not: `get(state, "learning_rate")` reads it, and
setting it is an error, since no update would read it. `tunable` keeps all numbers in the state, to
be read and set.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from gradxform.core import (
    ByPath,
    Call,
    InjectStatefulHyperparamsState,
    Named,
    Schedule,
    Transform,
    TunableState,
    at_step,
)
from gradxform.core import leaves as trees
from gradxform.core.leafwise import RECORDED, Leafwise, RuleState
from gradxform.core.states import OURS

__all__ = ["get", "numbers", "set"]

Path = tuple[str, ...]


def _split(node) -> tuple[list[str], list, Callable]:
    """The names of a node's children, the children, and what puts new ones together; a leaf has
    none.
    """
    if node is None or isinstance(node, Schedule | ByPath):
        return [], [], lambda children: node
    if isinstance(node, RuleState):

        def build(new):
            return RuleState(new[0], dict(zip(node.slots, new[1:], strict=True)))

        return ["step", *node.slots], [node.step, *node.slots.values()], build
    flat, structure = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    if not flat or not flat[0][0]:
        return [], [], lambda children: node
    names = [trees.path_string(path) for path, _ in flat]
    return names, [child for _, child in flat], structure.unflatten


def with_children(node, new: dict):
    """The node with other children, by name."""
    names, children, build = _split(node)
    return build([new.get(name, child) for name, child in zip(names, children, strict=True)])


def _nodes(node, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    names, children, _ = _split(node)
    for name, child in zip(names, children, strict=True):
        yield (*path, name), child
        yield from _nodes(child, (*path, name))


def _recorded(state) -> list[Path]:
    """Where rules recorded the number they used last, also in the plain dicts of a checkpoint."""
    found = []
    for path, node in [((), state), *_nodes(state)]:
        if isinstance(node, RuleState) and RECORDED in node.slots:
            found.append((*path, RECORDED))
        saved = isinstance(node, dict) and node.keys() == {"step", "slots"} and node["slots"]
        if saved and RECORDED in saved:
            found.append((*path, "slots", RECORDED))
    return found


def _within(path: Path, starts: list[Path]) -> bool:
    return any(path[: len(start)] == start for start in starts)


def _entries(node, path: Path = ()) -> Iterator[str]:
    """The paths an error lists: slots, counters and numbers, not the leaves of slots."""
    names, children, _ = _split(node)
    for name, child in zip(names, children, strict=True):
        whole = isinstance(node, RuleState | Call) or not _split(child)[0]
        yield from ["/".join((*path, name))] if whole else _entries(child, (*path, name))


def _find(paths: list[Path], name: str) -> list[Path]:
    """The outermost paths that end in the name, or in what Optax's name for it means here."""
    *above, last = name.split("/")
    for own in (last, *OURS.get(last, ())):
        asked = (*above, own)
        if found := [path for path in paths if path[-len(asked) :] == asked]:
            break
    return [path for path in found if len(path) == min(map(len, found))]


def _ambiguous(owner: str, name: str, found) -> KeyError:
    any_of = ["/".join(path) for path in found][:8]
    return KeyError(f"{owner}: {name!r} may be any of {any_of}; give more of the path")


def _locate(owner: str, state, name: str, known=()) -> Path | None:
    """Where the name is in the state; None where it is not, or means one of the `known` numbers."""
    nodes = list(_nodes(state))
    paths = [path for path, _ in nodes]
    holders = TunableState | InjectStatefulHyperparamsState
    holding = [path for path, node in [((), state), *nodes] if isinstance(node, holders)]
    # copies of numbers that the state itself has
    copies = [path for path in _recorded(state) if _within(path, holding)]
    found = _find([path for path in paths if not _within(path, copies)], name) or _find(paths, name)
    if len(found) > 1 and name in known:
        return None
    if len(found) > 1 and name != "step":  # the step counters at one depth run together
        raise _ambiguous(owner, name, found)
    return found[0] if found else None


_HINT = (
    "; the numbers of an optimizer are in the optimizer: get(state, name, tx), or keep them in the "
    "state by tunable(tx)"
)


def _missing(owner: str, state, name: str, also=()) -> KeyError:
    known, hint = [*_entries(state), *also][:32], "" if also else _HINT
    return KeyError(f"{owner}: there is no {name!r}; there are {known}{hint}")


def _last(hyper, step):
    """A number at the step of the last update; the first value before it."""
    if not isinstance(hyper, Schedule | ByPath):
        return hyper
    return at_step(hyper, jnp.maximum(jnp.asarray(step) - 1, 0))


def _step(state):
    path = _locate("get", state, "step")
    return jnp.zeros((), jnp.int32) if path is None else _at(state, path)


def _last_of(state, path: Path, hyper):
    """A schedule or table in the state of a `tunable`, as its last update used it."""
    around = (_at(state, path[: -1 - i]) for i in range(len(path)))
    tunable = next((x for x in around if isinstance(x, TunableState)), None)
    if tunable is None:
        return _last(hyper, _step(state))
    known = _numbers(tunable.tx, tunable.inner, ())
    return _last(hyper, next((step for _, x, step in known if x is hyper), _step(tunable.inner)))


def _at(node, path: Path):
    for name in path:
        names, children, _ = _split(node)
        node = children[names.index(name)]
    return node


def get(state, name: str, tx: Transform | None = None):
    """What a state, or an optimizer at this state, has under a name.

        get(state, "m")                          a slot, a tree like the parameters
        get(state, "ema/m/encoder/kernel")       one leaf of it
        get(state, "step")                       updates made
        get(state, "learning_rate")              what the last update used, scheduled or not
        get(state, "b1", tx)                     the same for any other number

    >>> tx, params = gx.adam(1e-3), {"w": jnp.ones(2)}
    >>> state = tx.init(params)
    >>> gx.get(state, "m")
    {'w': Array([0., 0.], dtype=float32)}
    >>> gx.get(state, "b1", tx)
    0.9

    Args:
        state: any state.
        name: the end of a path. Of several the outermost is meant.
        tx: the optimizer, for its numbers other than the learning rate. A `tunable` state holds its
            own.

    Raises:
        KeyError: nothing has this name, or several things at one depth; it lists what there is.
    """
    known = {} if tx is None else {path: (x, step) for path, x, step in _numbers(tx, state, ())}
    names = [*map("/".join, known)]
    path = _locate("get", state, name, names)
    if path is not None:
        found = _at(state, path)
        return _last_of(state, path, found) if isinstance(found, Schedule | ByPath) else found
    found = _find([*known], name)
    if len(found) == 1:
        return _last(*known[found[0]])
    if found:
        raise _ambiguous("get", name, found)
    raise _missing("get", state, name, names)


def numbers(tx: Transform, state) -> dict[str, Any]:
    """Every number of an optimizer by path, as the last update used it: schedules are evaluated at
    their own step counts.

    Before the first update they are what it will use. A table by path stays a table, of numbers.
    """
    return {"/".join(path): _last(x, step) for path, x, step in _numbers(tx, state, ())}


def _numbers(tx, state, path: Path, made_from=None) -> Iterator[tuple]:
    """Path, number and step of each; a rule that a name has made from its arguments has theirs."""
    if made_from is not None and any(tx is x for x in made_from):
        made_from = None
    given = getattr(tx, "_dynamic", {})
    own = {name: x for name, x in given.items() if not holds_transforms(x)}
    step = _step(state) if own else None
    yield from (((*path, name), x, step) for name, x in own.items())
    if isinstance(tx, Leafwise) and made_from is None:
        yield from (((*path, name), x, state.step) for name, x in tx.hypers.items())
    if isinstance(tx, Named):
        if len(own) == len(given):  # all that is inside is made from these
            return
        made_from = [x for name in given if name not in own for x in _each(given[name])]
    for label, part, below, _ in tx.inside(state):
        yield from _numbers(part, below, (*path, label) if label else path, made_from)


def _each(argument):
    return argument.values() if isinstance(argument, dict) else [argument]


def holds_transforms(x) -> bool:
    """Whether an argument holds transformations, alone or by label."""
    return any(isinstance(y, Transform) for y in _each(x))


def _fit(owner: str, name: str, old, value):
    """The value in the shape and dtype of the old one."""
    value = jnp.asarray(value, old.dtype)
    if value.shape not in ((), old.shape):
        raise ValueError(f"{owner}: {name} has shape {old.shape}; got {value.shape}")
    return jnp.broadcast_to(value, old.shape)


def set(state, name: str, value):
    """The state with another value under a name; nothing is retraced.

        set(state, "learning_rate", 3e-4)        of a `tunable` optimizer, checked as when built
        set(state, "step", 0)                    every counter of that name; one by path, "ema/step"
        set(state, "m", 0.0)                     every entry of the slot, or a tree like it

    >>> state = gx.adam(1e-3).init({"w": jnp.ones(2)})
    >>> gx.get(gx.set(state, "m", 0.5), "m")
    {'w': Array([0.5, 0.5], dtype=float32)}

    Args:
        state: any state; it is not changed.
        name: the end of a path, as for `get`.
        value: a number for every entry, or a tree like what is there; it takes its dtype.

    Raises:
        KeyError: nothing has this name, or several things have; it lists what there is.
        ValueError: the value has another shape or structure, or cannot replace a schedule; the name
            is that of a record of what was used.
    """
    path = _locate("set", state, name)
    if path is None:
        raise _missing("set", state, name)
    if _within(path, _recorded(state)):
        raise ValueError(
            f"set: {'/'.join(path)} records what the last update used, and no update reads it; "
            f"call update of another optimizer (tx.replace({RECORDED}=...) makes one), or keep its "
            "numbers in the state by tunable(tx)"
        )
    steps = [path for path, _ in _nodes(state) if path[-1] == "step"]
    for each in steps if name == "step" else [path]:
        state = _replaced(state, each, name, value)
    return state


def _replaced(node, path: Path, name: str, value):
    if isinstance(node, InjectStatefulHyperparamsState) and path[0] == "hyperparams" and path[1:]:
        return node.replace(**{path[1]: value})
    if isinstance(node, Named) and len(path) == 1:
        return TunableState(node, None).replace(**{path[0]: value}).tx
    if path:
        return with_children(node, {path[0]: _replaced(_at(node, path[:1]), path[1:], name, value)})
    leaves, structure = jax.tree.flatten(node)
    values, given = jax.tree.flatten(value)
    if not values[1:] and jnp.ndim(values[0]) == 0:
        values = values * len(leaves)
    elif given != structure:
        raise ValueError(f"set: {name} has the structure {structure}; got {given}")
    rows = zip(leaves, values, strict=True)
    return structure.unflatten(_fit("set", name, old, new) for old, new in rows)


def owners(state, params) -> list[tuple]:
    """Each array of a state: its path, the array, and the path of the parameter it belongs to, None
    for the whole tree's.
    """
    paths = [tuple(filter(None, path.split("/"))) for path in trees.paths(params)]
    return list(_owners(state, (), sorted(paths, key=len, reverse=True), None))


def _owners(node, path: Path, paths: list[Path], below: int | None) -> Iterator[tuple]:
    names, children, _ = _split(node)
    if not names:
        rest = path if below is None else path[below:]
        at = [p for p in paths if (rest[: len(p)] if below is not None else rest[-len(p) :]) == p]
        shared = isinstance(node, Schedule | ByPath) or not at
        own = not shared and (below is not None or 0 < len(at[0]) < len(path))
        yield from ((path, x, "/".join(at[0]) if own else None) for x in jax.tree.leaves(node))
    for name, child in zip(names, children, strict=True):
        if isinstance(node, RuleState) and name == "step":
            yield (*path, name), child, None
        else:
            depth = len(path) + 1 if isinstance(node, RuleState) else below
            yield from _owners(child, (*path, name), paths, depth)
