"""From settings to batches: the arguments of every member, and the groups of members that one
program can train.

Members belong together when their arguments have the same structure and differ in numbers only. An
argument is a number where it is a float or an array, or a pytree that holds some (an optimizer, a
schedule, data): its leaves batch. Anything else (an int such as the batch size, a string, a
function) is structure: each value is compiled by itself.
"""

import difflib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr

from gradxform.core.call import Call, Value
from gradxform.core.hyper import Range
from gradxform.display.code import code, plain
from gradxform.sweep.space import Labelled, Space

SEED = "seed"


Path = tuple[str, ...]


LISTED = 24  # candidates that an error message lists


def children(node) -> dict[str, Any]:
    """The parts of a node by name: all arguments of a call, the children of any other pytree,
    nothing for a leaf.
    """
    if isinstance(node, Call):
        return node.arguments
    flat, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    return {keystr(path, simple=True): child for path, child in flat if path}


def paths(node, root: Path = ()) -> dict[Path, Any]:
    """Every path below a node that may be given a value: numbers, schedules, and the structural
    arguments of calls.
    """
    found: dict[Path, Any] = {}
    for name, child in children(node).items():
        if (
            not isinstance(child, np.ndarray | jax.Array)
            or np.ndim(child) == 0
            or isinstance(node, Value)
        ):
            found[(*root, name)] = child
        if isinstance(child, Value) or not (root and not isinstance(node, Value)):
            found |= paths(child, (*root, name))
    return found


def find(name: str, known: dict[Path, Any]) -> Path:
    """The path that a name stands for: `ema.decay`, or `ema/decay` as paths of states are written.

    Raises:
        KeyError: no path ends in it, or two equally short ones; the message lists the candidates.
    """
    end = "." + name.replace("/", ".")
    ends = [path for path in known if ("." + ".".join(path)).replace("/", ".").endswith(end)]
    shortest = [path for path in ends if len(path) == min(map(len, ends))]
    if len(shortest) == 1:
        return shortest[0]
    listed = sorted(
        {".".join(path) for path in shortest or known}, key=lambda text: (text.count("."), text)
    )
    if shortest:
        raise KeyError(f"sweep: {name!r} may be {' or '.join(listed)}; write it in full")
    last = {path[-1]: ".".join(path) for path in known} | {text: text for text in listed}
    near = difflib.get_close_matches(name, last, n=1, cutoff=0.6)
    hint = f"; did you mean {last[near[0]]!r}?" if near else ""
    more = f", … ({len(listed)} in all)" if len(listed) > LISTED else ""
    raise KeyError(
        f"sweep: nothing is named {name!r}{hint} Candidates: {', '.join(listed[:LISTED])}{more}"
    )


def replaced(node, path: Path, value):
    """The node with the value at the path, numbers checked as where the optimizer is built."""
    if not path:
        return value
    name, *rest = path
    new = replaced(children(node)[name], tuple(rest), value)
    if isinstance(node, Call):
        return node.replace(**{name: new})
    flat, treedef = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    return treedef.unflatten(
        [new if keystr(at, simple=True) == name else child for at, child in flat]
    )


def positions(tree) -> dict[Path, int]:
    """The index of each leaf among the leaves of a tree, by its path."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        tuple(keystr((key,), simple=True) for key in path): i for i, (path, _) in enumerate(flat)
    }


def bounded(tree, path: Path) -> bool:
    """Whether the number at the path has a finite upper bound by its type, as `b1` in [0, 1) has."""
    node = tree
    for name in path[:-1]:
        node = children(node)[name]
    kind = node._function.converters.get(path[-1]) if isinstance(node, Call) else None
    return isinstance(kind, Range) and bool(np.isfinite(kind.high))


class Arguments:
    """The arguments of the user's function, as its signature gives them, into which settings are
    put by name.
    """

    def __init__(self, train: Callable[..., Any]):
        parameters = inspect.signature(train).parameters.values()
        if any(p.kind is p.POSITIONAL_ONLY for p in parameters):
            raise TypeError(
                "sweep: train must take its arguments by name; it has positional-only ones"
            )
        self.names = [
            p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        ]
        self.base = {
            p.name: p.default
            for p in parameters
            if p.name in self.names and p.default is not p.empty
        }
        self.keyed = "key" in self.names

    def of(self, setting: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a member but its key: whole ones first, so that a method is chosen
        before its numbers.
        """
        values = {
            k: v.value if isinstance(v, Labelled) else v
            for k, v in setting.items()
            if not self.is_seed(k)
        }
        args = self.base | {
            name: self._like_base(name, x) for name, x in values.items() if name in self.names
        }
        known = self.known_of(args)
        for name in sorted(
            (name for name in values if name not in self.names),
            key=lambda name: name.count(".") + name.count("/"),
        ):
            path = find(name, known)
            args = args | {path[0]: replaced(args[path[0]], path[1:], values[name])}
            known = self.known_of(args) if isinstance(values[name], Value) else known
        missing = [name for name in self.names if name not in args and name != "key"]
        if missing:
            raise TypeError(
                f"sweep: train needs {missing[0]!r}, which has no default and is not in the space"
            )
        return args

    def _like_base(self, name: str, value):
        whole = isinstance(value, int) and not isinstance(value, bool)
        return float(value) if whole and isinstance(self.base.get(name), float) else value

    def known_of(self, args: dict[str, Any]) -> dict[Path, Any]:
        """Every path that a name may stand for in these arguments."""
        known = {(name,): None for name in self.names} | paths(
            {name: x for name, x in args.items() if is_number(x)}
        )
        if self.keyed and SEED not in self.names:
            known |= {(SEED,): None}
            del known["key",]
        return known

    def is_seed(self, name: str) -> bool:
        """Whether the name is the seed that makes a member's key, not an argument of the user's
        own.
        """
        return name == SEED and SEED not in self.names and self.keyed


def is_number(x) -> bool:
    """Whether an argument's leaves batch: nothing but numbers, with a float or an array, or made by
    gradxform.
    """
    leaves = jax.tree.leaves(x)
    if not all(
        isinstance(v, int | float | complex | np.ndarray | np.generic | jax.Array) for v in leaves
    ):
        return False
    return isinstance(x, Value) or any(
        isinstance(v, float | complex | np.ndarray | np.generic | jax.Array) for v in leaves
    )


@dataclass(frozen=True)
class Group:
    """Members of one structure: what they share, and the numbers in which they differ.

    Attributes:
        members: [n] indices in the space.
        fixed: structural arguments by name.
        treedef, leaves: the arguments that are numbers, as in the first member.
        varying: indices of the leaves that differ between members.
        columns: their values, each [n, ...].
        seeds: [n] uint32.
        shared: indices of the arrays that all members share, such as data.
        keyed: whether train takes a key.
    """

    members: np.ndarray
    fixed: dict[str, Any]
    treedef: Any
    leaves: list[Any]
    varying: tuple[int, ...]
    columns: tuple[np.ndarray, ...]
    seeds: np.ndarray
    shared: tuple[int, ...]
    keyed: bool

    @property
    def identity(self) -> tuple[Any, ...]:
        """What its programs are compiled for: all but the values of what varies and of what is
        shared.
        """
        passed = {*self.varying, *self.shared}
        leaves = tuple(
            (np.shape(x), _dtype(x))
            if i in passed
            else (type(x), x if isinstance(x, int | float | complex) else plain(x).tobytes())
            for i, x in enumerate(self.leaves)
        )
        return (
            self.treedef,
            leaves,
            self.varying,
            self.shared,
            tuple(self.fixed.items()),
            self.keyed,
        )

    def arguments(self, numbers: Sequence[Any], seed, shared: Sequence[Any]) -> dict[str, Any]:
        """The keyword arguments of train for one member, with numbers that may be traced."""
        leaves = list(self.leaves)
        for i, x in zip((*self.varying, *self.shared), (*numbers, *shared), strict=True):
            leaves[i] = x
        args = self.treedef.unflatten(leaves) | self.fixed
        if self.keyed:
            given = args.get("key")
            args["key"] = jax.random.key(seed) if given is None else jax.random.fold_in(given, seed)
        return args

    def rows(self, at: np.ndarray) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """The numbers and seeds of some of its members, by position in the group."""
        return tuple(column[at] for column in self.columns), self.seeds[at]

    def shared_arrays(self) -> tuple[Any, ...]:
        """The arrays that all members share."""
        return tuple(self.leaves[i] for i in self.shared)

    def bounded(self) -> tuple[bool, ...]:
        """Which of the varying numbers have a finite upper bound, as a decay rate has, by their
        type.
        """
        tree = self.treedef.unflatten(self.leaves)
        where = {i: path for path, i in positions(tree).items()}
        return tuple(bounded(tree, where[i]) for i in self.varying)

    @property
    def description(self) -> str:
        """What its members have in common, for the reader."""
        parts = [
            f"{name}={code(x)}"
            for name, x in self.fixed.items()
            if isinstance(x, int | str | tuple)
        ]
        tree = self.treedef.unflatten(self.leaves)
        parts += [f"{name}={_built(x)}" for name, x in tree.items() if isinstance(x, Value)]
        return ", ".join(parts) or "one structure"


def _built(x) -> str:
    """What a value is built from, without its numbers: `adam(cosine_decay_schedule)`."""
    inner = [_built(child) for child in children(x).values() if isinstance(child, Value)]
    name = getattr(x, "name", type(x).__name__.lower())
    return f"{name}({', '.join(inner)})" if inner else name


def group(arguments: Arguments, space: Space) -> list[Group]:
    """The groups of a space, in order of first appearance.

    Raises:
        KeyError: a name that nothing has; ValueError: a number out of range, named with its owner.
    """
    similar: dict[Any, _Similar] = {}
    for member, setting in enumerate(space):
        kinds = tuple((name, _kind(arguments, name, value)) for name, value in setting.items())
        if kinds not in similar:
            similar[kinds] = _Similar.of(arguments, setting)
        similar[kinds].add(arguments, member, setting)
    merged: dict[Any, list[_Similar]] = {}
    for some in similar.values():
        merged.setdefault(some.structure, []).append(some)
    return [_merge(arguments, some) for some in merged.values()]


def _kind(arguments: Arguments, name: str, value) -> Any:
    if arguments.is_seed(name) or isinstance(value, float | np.floating):
        return float  # members that differ only here share one pass over names and structure
    value = value.value if isinstance(value, Labelled) else value
    return (type(value).__qualname__, _hashable(value))


def _hashable(x) -> Any:
    try:
        hash(x)
    except TypeError:
        return code(x)
    return x


class _Similar:
    """Members whose settings differ in floats only."""

    def __init__(
        self, structure, fixed, treedef, leaves, at: dict[str, int], paths: dict[str, Path], tree
    ):
        self.structure, self.fixed, self.treedef, self.leaves, self.at = (
            structure,
            fixed,
            treedef,
            leaves,
            at,
        )
        self.paths, self.tree = paths, tree
        self.members: list[int] = []
        self.seeds: list[int] = []
        self.floats: dict[str, list[float]] = {name: [] for name in at}
        self.checked: set[tuple[str, float]] = set()

    @classmethod
    def of(cls, arguments: Arguments, setting) -> "_Similar":
        args = arguments.of(setting)
        tree = {name: x for name, x in args.items() if is_number(x)}
        fixed = {name: x for name, x in args.items() if name not in tree and name != "key"}
        leaves, treedef = jax.tree.flatten(tree)
        index = positions(tree)
        at, paths, known = {}, {}, arguments.known_of(args)
        for name, value in setting.items():
            if isinstance(value, float | np.floating) and not arguments.is_seed(name):
                paths[name] = find(name, known)
                if paths[name] not in index:
                    raise TypeError(f"sweep: {name!r} takes no number; got {value!r}")
                at[name] = index[paths[name]]
        shapes = tuple((np.shape(x), _dtype(x)) for x in leaves)
        structure = (treedef, shapes, tuple((name, _hashable(x)) for name, x in fixed.items()))
        return cls(structure, fixed, treedef, leaves, at, paths, tree)

    def add(self, arguments: Arguments, member: int, setting):
        self.members.append(member)
        seed = setting.get(SEED, 0) if arguments.keyed and SEED not in arguments.names else 0
        if isinstance(seed, bool) or int(seed) != seed or seed < 0:
            raise ValueError(f"sweep: seed must be a whole number of at least 0; got {seed!r}")
        self.seeds.append(int(seed))
        for name, values in self.floats.items():
            value = float(setting[name])
            if (name, value) not in self.checked:
                replaced(
                    self.tree, self.paths[name], value
                )  # raises outside the interval of its type
                self.checked.add((name, value))
            values.append(value)


def _dtype(x) -> Any:
    return x.dtype if hasattr(x, "dtype") else jax.dtypes.canonicalize_dtype(type(x))


def _merge(arguments: Arguments, similar: list[_Similar]) -> Group:
    first = similar[0]
    differ = {
        i
        for some in similar[1:]
        for i, (a, b) in enumerate(zip(first.leaves, some.leaves, strict=True))
        if not _same(a, b)
    }
    varying = sorted(differ | {i for some in similar for i in some.at.values()})
    order = np.argsort(np.concatenate([some.members for some in similar]), kind="stable")
    columns = []
    for i in varying:
        parts = []
        for some in similar:
            name = next((name for name, at in some.at.items() if at == i), None)
            values = some.floats[name] if name else [some.leaves[i]] * len(some.members)
            parts += values
        columns.append(np.stack([np.asarray(x, _dtype(first.leaves[i])) for x in parts])[order])
    shared = tuple(i for i, x in enumerate(first.leaves) if i not in varying and np.ndim(x) > 0)
    return Group(
        members=np.concatenate([some.members for some in similar])[order],
        fixed=first.fixed,
        treedef=first.treedef,
        leaves=first.leaves,
        varying=tuple(varying),
        columns=tuple(columns),
        seeds=np.concatenate([some.seeds for some in similar]).astype(np.uint32)[order],
        shared=shared,
        keyed=arguments.keyed,
    )


def _same(a, b) -> bool:
    return a is b or (np.ndim(a) == 0 and np.ndim(b) == 0 and a == b)
