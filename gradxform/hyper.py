"""What a hyperparameter is: a number, an array, a schedule of the step, or a table by parameter path.

The interval and the meaning of each hyperparameter are written once, in its type. Constructors are annotated with these
types; the check, the error message and the documentation come from there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradxform.define import Call, Value, code, define
from gradxform.mathematics import to_mathematics
from gradxform.tree import matches


class Schedule(Call):
    """A number that depends on the step: call it with the step (0 first). Its own numbers are pytree leaves."""

    def __call__(self, step):
        """The value at `step`, a Python int or an integer array."""
        return self._function.build(step, **self.arguments)

    def _repr_latex_(self) -> str:
        return to_mathematics(self)

    def table(self, steps) -> dict[int, float]:
        """The values at the given steps, as their dtype prints them: `schedule.table(range(0, 100, 10))`."""
        return {int(step): float(str(np.asarray(self(step)))) for step in steps}


def schedule(function) -> Callable[..., Schedule]:
    """Decorator: an equation `f(step, ...)` becomes a constructor of schedules, without the step."""
    return define(Schedule, leading=1)(function)


@schedule
def from_function(step, function: Callable[[Any], Any]):
    """A schedule from any function of the step (an Optax schedule, a lambda); the function itself is static."""
    return function(step)


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True, eq=False, repr=False)
class ByPath(Value):
    """A table from parameter paths to hyperparameters; the first pattern that matches a leaf's path wins."""

    patterns: tuple[Any, ...]
    values: tuple[Any, ...]

    def tree_flatten_with_keys(self):
        return tuple(
            (jax.tree_util.DictKey(str(p)), v) for p, v in zip(self.patterns, self.values, strict=True)
        ), self.patterns

    def tree_flatten(self):
        return self.values, self.patterns

    @classmethod
    def tree_unflatten(cls, patterns, values):
        return cls(patterns, tuple(values))

    def __repr__(self):
        return f"by_path({code(dict(zip(self.patterns, self.values, strict=True)))})"

    def rows(self, owner: str, paths: list[str], leaves: list[Any]) -> list[Any]:
        """The table's value for each leaf. An idle pattern, or a leaf that no pattern covers, is an error that lists it."""
        rows, used, uncovered = [], set(), []
        columns = [_flags(pattern, owner, paths, leaves) for pattern in self.patterns]
        for j, path in enumerate(paths):
            hits = [i for i, column in enumerate(columns) if column[j]]
            used.update(hits)
            if hits:
                rows.append(self.values[hits[0]])
            else:
                uncovered.append(path)
        if uncovered:
            raise ValueError(
                f"{owner}: by_path: no pattern of {list(self.patterns)} covers {uncovered[:8]}; add '**' for the rest"
            )
        idle = [p for i, p in enumerate(self.patterns) if i not in used and p != "**" and not hasattr(p, "flags")]
        if idle and paths:
            raise ValueError(f"{owner}: by_path: pattern {idle[0]!r} matches no leaf; the leaves are {paths[:8]}")
        for value in self.values:  # a table in a table sees only the leaves that came to it
            if isinstance(value, ByPath):
                mine = [j for j, row in enumerate(rows) if row is value]
                inner = value.rows(owner, [paths[j] for j in mine], [leaves[j] for j in mine])
                for j, row in zip(mine, inner, strict=True):
                    rows[j] = row
        return rows


def _flags(pattern, owner: str, paths: list[str], leaves: list[Any]) -> list[Any]:
    """Whether a pattern matches each leaf: a pattern of paths, a predicate, or a mask of the whole tree."""
    if hasattr(pattern, "flags"):
        return pattern.flags(owner, paths, leaves)
    test = pattern if callable(pattern) else lambda path, leaf: matches(pattern, path)
    return [test(path, leaf) for path, leaf in zip(paths, leaves, strict=True)]


Hyper = Any  # float | jax.Array | np.ndarray | Schedule | ByPath | Callable[[step], number], and the number it comes to in a rule


def by_path(table: Mapping[Any, Any]) -> ByPath:
    """A hyperparameter by parameter path: `by_path({"**/kernel": 0.1, "**": 0.0})`.

    Patterns are matched against paths like `encoder/0/kernel`: `*` stands for anything within one segment, `**` for any number
    of segments. A pattern may also be a predicate `f(path, leaf)`. The first match wins; every leaf must be covered,
    and every pattern but `**` must match something. Values are numbers, arrays or schedules.

    >>> params = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
    >>> tx = gx.sgd(gx.by_path({"**/kernel": 0.1, "**": 1.0}))
    >>> updates, _ = tx.update(params, tx.init(params), params)
    >>> updates["kernel"], updates["bias"]
    (Array([-0.1, -0.1], dtype=float32), Array([-1., -1.], dtype=float32))
    """
    if not table:
        raise ValueError("by_path: the table is empty")
    values = (v if isinstance(v, Value) or not callable(v) else from_function(v) for v in table.values())
    return ByPath(tuple(table), tuple(values))


@dataclass(frozen=True)
class Range:
    """The interval a hyperparameter must lie in, such as "[0, 1)", and what it means."""

    interval: str
    meaning: str
    integer: bool = False
    sequence: bool = False

    def __repr__(self):
        return self.interval

    @property
    def text(self) -> str:
        """What the documentation says of it."""
        return f"{self.meaning}, in {self.interval}"

    def _contains(self, array: np.ndarray) -> bool:
        low, high = (float(end) for end in self.interval[1:-1].split(","))
        above = array >= low if self.interval[0] == "[" else array > low
        below = array <= high if self.interval[-1] == "]" else array < high
        return bool(np.all(above & below))

    def convert(self, owner: str, name: str, x):
        """The value as a hyperparameter; a concrete number outside the interval raises, a tracer passes."""
        if isinstance(x, ByPath):
            return ByPath(
                x.patterns,
                tuple(self.convert(owner, f"{name}[{p!r}]", v) for p, v in zip(x.patterns, x.values, strict=True)),
            )
        if self.sequence and isinstance(x, list | tuple):
            return tuple(self.convert(owner, f"{name}[{i}]", v) for i, v in enumerate(x))
        if isinstance(x, Schedule | Tracer | jax.ShapeDtypeStruct):
            return x
        if callable(x) and not isinstance(x, Value):
            return from_function(x)
        if isinstance(x, np.float64):
            x = float(x)  # a Python number to begin with: np.logspace hands these out
        array = isinstance(x, np.ndarray | np.generic | jax.Array)
        if isinstance(x, bool) or not (
            isinstance(x, int | float) or (array and jnp.issubdtype(x.dtype, np.number) and not jnp.iscomplexobj(x))
        ):
            raise TypeError(f"{owner}: {name} must be a number, an array, a schedule or a by_path table; got {code(x)}")
        if not self._contains(np.asarray(x)):
            raise ValueError(f"{owner}: {name} must lie in {self.interval}; got {code(x)}")
        if self.integer:
            if np.any(np.asarray(x) != np.floor(np.asarray(x))):
                raise ValueError(f"{owner}: {name} must be a whole number; got {code(x)}")
            return int(x) if isinstance(x, float) else x
        return float(x) if isinstance(x, int) else x


class _DType:
    """A dtype, kept as its name."""

    static = True
    text = "a dtype; None for the default, float32 at least"

    def __repr__(self):
        return "dtype"

    def convert(self, owner: str, name: str, x: Any) -> str:
        """The dtype's name; anything else raises."""
        try:
            return jnp.dtype(x).name
        except TypeError:
            raise TypeError(f"{owner}: {name} must be a dtype; got {code(x)}") from None


DType = Annotated[Any, _DType()]
LearningRate = Annotated[Hyper, Range("[0, inf)", "step size: parameter units per update unit")]
Decay = Annotated[Hyper, Range("[0, 1)", "share of the old average kept at each step")]
Momentum = Annotated[Hyper, Range("[0, 1)", "share of the velocity kept at each step")]
Fraction = Annotated[Hyper, Range("[0, 1]", "a share")]
Epsilon = Annotated[Hyper, Range("[0, inf)", "keeps a denominator away from zero")]
WeightDecay = Annotated[Hyper, Range("[0, inf)", "share of the weight removed per unit of step")]
NonNegative = Annotated[Hyper, Range("[0, inf)", "a size")]
Positive = Annotated[Hyper, Range("(0, inf)", "a size")]
Real = Annotated[Hyper, Range("(-inf, inf)", "any number")]
Steps = Annotated[Hyper, Range("(0, inf)", "a number of steps")]
Length = Annotated[Hyper, Range("[0, inf)", "a number of steps; 0 is over at once")]
Begin = Annotated[Hyper, Range("[0, inf)", "a step")]
Count = Annotated[Hyper, Range("[1, inf)", "a number of times", integer=True)]
Patience = Annotated[Hyper, Range("[0, inf)", "a number of times", integer=True)]


def at_step(hyper, step):
    """The hyperparameter's value at `step`: schedules are evaluated, tables row by row, numbers stay as they are."""
    if isinstance(hyper, ByPath):
        return ByPath(hyper.patterns, tuple(at_step(v, step) for v in hyper.values))
    return hyper(step) if isinstance(hyper, Schedule) else hyper


def scalar(owner: str, name: str, x):
    """A resolved hyperparameter: a Python number, which keeps its precision, or a scalar array."""
    if isinstance(x, float | int):
        return x
    x = jnp.asarray(x)
    if x.shape != ():
        raise ValueError(
            f"{owner}: {name} must be a scalar inside update; got shape {x.shape}. To try many values, vmap over the optimizer"
        )
    return x
