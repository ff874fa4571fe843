"""From settings to batches: the arguments of every member, and the groups of members that one
program can train.

Members belong together when their arguments have the same structure and differ in numbers only. An
argument is a number where it is a float or an array, or a pytree that holds some (an optimizer, a
schedule, data): its leaves batch. Anything else (an int such as the batch size, a string, a
function) is structure: each value is compiled by itself.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr

from gradxform.core.call import Call, Value, meant
from gradxform.core.hyper import Range
from gradxform.display.code import code, plain
from gradxform.numerics import is_key
from gradxform.sweep.space import Setting, Space, unlabelled

SEED = "seed"
LISTED = 24  # candidates that an error message lists
FLOATS = float | complex | np.ndarray | np.generic | jax.Array

Path = tuple[str, ...]


def children(node) -> Setting:
    """The parts of a node by name: all arguments of a call, the children of any other pytree,
    nothing for a leaf.
    """
    if isinstance(node, Call):
        return node.arguments
    parts, treedef = _parts(node)
    return {} if jax.tree_util.treedef_is_leaf(treedef) else parts


def _parts(node):
    flat, treedef = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    return {keystr(path, simple=True): child for path, child in flat}, treedef


def paths(node, root: Path = ()) -> dict[Path, object]:
    """Every path below a node that may be given a value: numbers, schedules, and the structural
    arguments of calls.
    """
    found: dict[Path, object] = {}
    for name, child in children(node).items():
        array = isinstance(child, np.ndarray | jax.Array) and np.ndim(child) > 0
        if not array or isinstance(node, Value):
            found[(*root, name)] = child
        if isinstance(child, Value) or not (root and not isinstance(node, Value)):
            found |= paths(child, (*root, name))
    return found


def find(name: str, known: dict[Path, object]) -> Path:
    """The path that a name stands for: `ema.decay`, or `ema/decay` as paths of states are written.

    Raises:
        KeyError: no path ends in it, or two equally short ones; the message lists the candidates.
    """
    end = "." + name.replace("/", ".")
    ends = [path for path in known if ("." + ".".join(path)).replace("/", ".").endswith(end)]
    shortest = [path for path in ends if len(path) == min(map(len, ends))]
    if len(shortest) == 1:
        return shortest[0]
    texts = {".".join(path) for path in shortest or known}
    listed = sorted(texts, key=lambda text: (text.count("."), text))
    if shortest:
        raise KeyError(f"sweep: {name!r} may be {' or '.join(listed)}; write it in full")
    last = {path[-1]: ".".join(path) for path in known} | {text: text for text in listed}
    near = meant(name, last)
    hint = f"; did you mean {last[near[0]]!r}?" if near else "."
    more = f", … ({len(listed)} in all)" if len(listed) > LISTED else ""
    candidates = ", ".join(listed[:LISTED]) + more
    raise KeyError(f"sweep: nothing is named {name!r}{hint} Candidates: {candidates}")


def replaced(node, path: Path, value):
    """The node with the value at the path, numbers checked as where the optimizer is built."""
    if not path:
        return value
    name, *rest = path
    new = replaced(children(node)[name], tuple(rest), value)
    if isinstance(node, Call):
        return node.replace(**{name: new})
    parts, treedef = _parts(node)
    return treedef.unflatten((parts | {name: new}).values())


def positions(tree) -> dict[Path, int]:
    """The index of each leaf among the leaves of a tree, by its path."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {tuple(keystr((k,), simple=True) for k in path): i for i, (path, _) in enumerate(flat)}


def interval(node, path: Path) -> Range | None:
    """The interval of the number at the path by its type, as [0, 1] is that of `b1`."""
    for name in path[:-1]:
        node = children(node)[name]
    kind = node._function.converters.get(path[-1]) if isinstance(node, Call) else None
    return kind if isinstance(kind, Range) else None


class Arguments:
    """The arguments of the user's function, as its signature gives them, into which settings are
    put by name.
    """

    def __init__(self, train: Callable):
        parameters = inspect.signature(train).parameters.values()
        if any(p.kind is p.POSITIONAL_ONLY for p in parameters):
            why = "it has positional-only ones"
            raise TypeError(f"sweep: train must take its arguments by name; {why}")
        taken = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self.names = [p.name for p in taken]
        self.base = {p.name: p.default for p in taken if p.default is not p.empty}
        self.keyed = "key" in self.names

    def of(self, setting: Setting) -> Setting:
        """The arguments of a member but its key: whole ones first, so that a method is chosen
        before its numbers.
        """
        if self.keyed and "key" in setting:
            raise ValueError("sweep: a key is made from the member's seed; write seed=[0, 1, 2]")
        values = {name: unlabelled(x) for name, x in setting.items() if not self.is_seed(name)}
        args = self.base | {k: self._like_base(k, x) for k, x in values.items() if k in self.names}
        known = self.known_of(args)
        inner, given = [name for name in values if name not in self.names], {}
        for name in sorted(inner, key=lambda name: name.count(".") + name.count("/")):
            path = find(name, known)
            if given.setdefault(path, name) != name:
                raise ValueError(f"sweep: {given[path]!r} and {name!r} are one number; give one")
            args = args | {path[0]: replaced(args[path[0]], path[1:], values[name])}
            known = self.known_of(args) if isinstance(values[name], Value) else known
        if missing := [name for name in self.names if name not in args and name != "key"]:
            why = "which has no default and is not in the space"
            raise TypeError(f"sweep: train needs {missing[0]!r}, {why}")
        return args

    def _like_base(self, name: str, value):
        whole = isinstance(value, int) and not isinstance(value, bool)
        return float(value) if whole and isinstance(self.base.get(name), float) else value

    def known_of(self, args: Setting) -> dict[Path, object]:
        """Every path that a name may stand for in these arguments."""
        known = {(name,): None for name in self.names}
        known |= paths({name: x for name, x in args.items() if is_number(x)})
        if self.is_seed(SEED):
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
    if not all(isinstance(v, int | FLOATS) for v in leaves):
        return False
    return isinstance(x, Value) or any(isinstance(v, FLOATS) for v in leaves)


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
    fixed: Setting
    treedef: Any
    leaves: list
    varying: tuple[int, ...]
    columns: tuple[np.ndarray, ...]
    seeds: np.ndarray
    shared: tuple[int, ...]
    keyed: bool

    @property
    def identity(self) -> tuple:
        """What its programs are compiled for: all but the values of what varies and of what is
        shared.
        """
        leaves: list[tuple] = [(np.shape(x), _dtype(x)) for x in self.leaves]
        for i in {*range(len(leaves))} - {*self.varying, *self.shared}:
            x = self.leaves[i]
            value = x if isinstance(x, int | float | complex) else plain(x).tobytes()
            leaves[i] = type(x), value
        fixed = tuple(self.fixed.items())
        return self.treedef, tuple(leaves), self.varying, self.shared, fixed, self.keyed

    def arguments(self, numbers: Sequence, seed, shared: Sequence) -> Setting:
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

    def shared_arrays(self) -> tuple:
        """The arrays that all members share."""
        return tuple(self.leaves[i] for i in self.shared)

    def intervals(self) -> tuple[Range | None, ...]:
        """The interval of each varying number by its type, where it has one."""
        tree = self.treedef.unflatten(self.leaves)
        where = {i: path for path, i in positions(tree).items()}
        return tuple(interval(tree, where[i]) for i in self.varying)

    @property
    def description(self) -> str:
        """What its members have in common, for the reader."""
        shown = {k: x for k, x in self.fixed.items() if isinstance(x, int | str | tuple)}
        parts = [f"{name}={code(x)}" for name, x in shown.items()]
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
    similar: dict[tuple, _Similar] = {}
    for member, setting in enumerate(space):
        kinds = tuple((name, _kind(arguments, name, value)) for name, value in setting.items())
        if kinds not in similar:
            similar[kinds] = _Similar(arguments, setting)
        similar[kinds].add(arguments, member, setting)
    for some in similar.values():
        some.check()
    merged: dict[tuple, list[_Similar]] = {}
    for some in similar.values():
        merged.setdefault(some.structure, []).append(some)
    return [_merge(arguments, some) for some in merged.values()]


def _kind(arguments: Arguments, name: str, value):
    if arguments.is_seed(name) or isinstance(value, float | np.floating):
        return float  # members that differ only here share one pass over names and structure
    value = unlabelled(value)
    return type(value).__qualname__, _hashable(value)


def _hashable(x):
    try:
        hash(x)
    except TypeError:
        return code(x)
    return x


class _Similar:
    """Members whose settings differ in floats only."""

    def __init__(self, arguments: Arguments, setting):
        args = arguments.of(setting)
        self.tree = tree = {name: x for name, x in args.items() if is_number(x)}
        self.fixed = {k: x for k, x in args.items() if k not in tree and k != "key"}
        self.leaves, self.treedef = jax.tree.flatten(tree)
        self.paths: dict[str, Path] = {}
        self.at: dict[str, int] = {}  # which leaf is the number of a name
        index, known = positions(tree), arguments.known_of(args)
        for name, value in setting.items():
            if isinstance(value, float | np.floating) and not arguments.is_seed(name):
                self.paths[name] = path = find(name, known)
                if path not in index:
                    raise TypeError(f"sweep: {name!r} takes no number; got {value!r}")
                self.at[name] = index[path]
        shapes = tuple((np.shape(x), _dtype(x)) for x in self.leaves)
        fixed = tuple((name, _hashable(x)) for name, x in self.fixed.items())
        self.structure = self.treedef, shapes, fixed
        self.members, self.seeds = [], []
        self.floats: dict[str, list[float]] = {name: [] for name in self.at}

    def add(self, arguments: Arguments, member: int, setting):
        self.members.append(member)
        self.seeds.append(_seed(setting.get(SEED, 0)) if arguments.is_seed(SEED) else 0)
        for name, values in self.floats.items():
            values.append(float(setting[name]))

    def check(self):
        """Raise for a number that its argument refuses, or that its dtype cannot hold."""
        for name, values in self.floats.items():
            distinct, dtype = list(dict.fromkeys(values)), _dtype(self.leaves[self.at[name]])
            try:
                replaced(self.tree, self.paths[name], np.array(distinct))
            except (ValueError, TypeError):  # which of them it is, or that they go one by one only
                for value in distinct:
                    replaced(self.tree, self.paths[name], value)
            with np.errstate(over="ignore", under="ignore"):
                held = np.asarray(distinct, dtype)
            lost = (np.isfinite(distinct) & ~np.isfinite(held)) | (
                (held == 0) & np.array(distinct, bool)
            )
            if lost.any():
                at = int(np.argmax(lost))
                raise ValueError(f"sweep: {name}={distinct[at]:g} is {held[at]:g} in {held.dtype}")


def _seed(x) -> int:
    number = isinstance(x, int | float | np.integer | np.floating) and not isinstance(x, bool)
    if not number or not 0 <= x < 2**32 or int(x) != x:
        must = "a whole number of at least 0, below 2**32"
        raise ValueError(f"sweep: seed must be {must}; got {x!r}")
    return int(x)


def _dtype(x):
    return x.dtype if hasattr(x, "dtype") else jax.dtypes.canonicalize_dtype(type(x))


def _merge(arguments: Arguments, similar: list[_Similar]) -> Group:
    first, differ = similar[0], {i for some in similar for i in some.at.values()}
    for some in similar[1:]:
        pairs = zip(first.leaves, some.leaves, strict=True)
        differ |= {i for i, (a, b) in enumerate(pairs) if not _same(a, b)}
    varying = tuple(sorted(differ))
    for path, i in positions(first.tree).items():
        if i in differ and is_key(first.leaves[i]):
            name = ".".join(path)
            raise TypeError(f"sweep: {name} is a key, in which members cannot differ; use seed")
    members = np.concatenate([some.members for some in similar])
    seeds = np.concatenate([some.seeds for some in similar]).astype(np.uint32)
    order = np.argsort(members, kind="stable")
    columns = []
    for i in varying:
        parts = []
        for some in similar:
            name = next((name for name, at in some.at.items() if at == i), None)
            parts += some.floats[name] if name else [some.leaves[i]] * len(some.members)
        columns.append(np.stack([np.asarray(x, _dtype(first.leaves[i])) for x in parts])[order])
    shared = tuple(i for i, x in enumerate(first.leaves) if i not in varying and np.ndim(x) > 0)
    return Group(
        members[order], first.fixed, first.treedef, first.leaves, varying, tuple(columns),
        seeds[order], shared, arguments.keyed,
    )  # fmt: skip


def _same(a, b) -> bool:
    return a is b or (np.ndim(a) == 0 and np.ndim(b) == 0 and a == b)
