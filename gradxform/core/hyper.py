"""What a hyperparameter is: a number, an array, a schedule of the step, or a table by parameter
path.

The interval and the meaning of each hyperparameter are written once, in its type. Constructors are
annotated with these types; the check, the error message and the documentation come from there.
"""

import contextlib
import inspect
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradxform.core.call import ARRAY, Value
from gradxform.core.labels import ByPath
from gradxform.core.schedule import Schedule, from_function
from gradxform.display.code import code

__all__ = ["Begin", "Bound", "Ceiling", "Count", "DType", "Decay", "Epsilon", "Fading", "Fraction"]
__all__ += ["Hyper", "LearningRate"]
__all__ += ["Length", "Momentum", "NonNegative", "Patience", "Positive", "Range", "Real", "Steps"]
__all__ += ["WeightDecay", "at_step", "scalar"]

if TYPE_CHECKING:  # in a constructor it may be handed on, in a schedule it is the number already
    Hyper = Any
else:
    Hyper = float | jax.Array | np.ndarray | Schedule | ByPath | Callable[[int], float]


@dataclass(frozen=True)
class Range:
    """The interval a hyperparameter must lie in, such as "[0, 1)", and what it means."""

    interval: str
    meaning: str
    integer: bool = False
    sequence: bool = False
    below: str = ""  # what to write in place of a number below the interval
    low: float = field(init=False)
    high: float = field(init=False)

    def __post_init__(self):
        for name, end in zip(("low", "high"), self.interval[1:-1].split(","), strict=True):
            object.__setattr__(self, name, float(end))

    def __repr__(self):
        return self.interval

    @property
    def text(self) -> str:
        """What the documentation says of it."""
        return f"{self.meaning}, in {self.interval}"

    def _contains(self, array: np.ndarray) -> bool:
        above = array >= self.low if self.interval[0] == "[" else array > self.low
        below = array <= self.high if self.interval[-1] == "]" else array < self.high
        return bool(np.all(above & below))

    def convert(self, owner: str, name: str, x):
        """The value as a hyperparameter; a concrete number outside the interval raises, a tracer
        passes.
        """
        if isinstance(x, ByPath):
            rows = zip(x.patterns, x.values, strict=True)
            values = tuple(self.convert(owner, f"{name}[{p!r}]", v) for p, v in rows)
            return ByPath(x.patterns, values)
        if self.sequence and isinstance(x, list | tuple):
            return tuple(self.convert(owner, f"{name}[{i}]", v) for i, v in enumerate(x))
        if isinstance(x, Schedule) and x.name == "constant_schedule":
            self.convert(owner, name, x.value)
        if isinstance(x, Schedule | Tracer | jax.ShapeDtypeStruct):
            return x
        if callable(x) and not isinstance(x, Value):
            if isinstance(x, type) or not _takes_a_step(x):
                what = "a schedule is a function of the step"
                raise TypeError(f"{owner}: {name}: {what}; got {code(x)}")
            return from_function(x)
        if isinstance(x, np.float64):
            x = float(x)  # a Python number to begin with: np.logspace hands these out
        number = isinstance(x, int | float) and not isinstance(x, bool)
        if isinstance(x, ARRAY):
            number = jnp.issubdtype(x.dtype, np.number) and not jnp.iscomplexobj(x)
        if not number:
            kinds = "a number, an array, a schedule or a by_path table"
            raise TypeError(f"{owner}: {name} must be {kinds}; got {code(x)}")
        if isinstance(x, int) and abs(x) > sys.float_info.max:
            raise ValueError(f"{owner}: {name} is too large for a float")
        array = np.asarray(x)
        if not array.size:
            raise ValueError(f"{owner}: {name} holds no number; got {code(x)}")
        if not self._contains(array):
            hint = f"; {self.below}" if self.below and np.all(array < self.low) else ""
            raise ValueError(f"{owner}: {name} must lie in {self.interval}; got {code(x)}{hint}")
        if self.integer:
            if np.any(array != np.floor(array)):
                raise ValueError(f"{owner}: {name} must be a whole number; got {code(x)}")
            return int(x) if isinstance(x, float) else x
        return float(x) if isinstance(x, int) else x


def _takes_a_step(function: Callable) -> bool:
    try:
        inspect.signature(function).bind(0)
    except TypeError:
        return False
    except ValueError:  # some functions written in C do not tell
        return True
    return True


class _DType:
    """A dtype, kept as its name."""

    static = True
    text = "a dtype; None for the default, float32 at least"

    def __repr__(self):
        return "dtype"

    def convert(self, owner: str, name: str, x) -> str:
        """The dtype's name; anything else raises."""
        with warnings.catch_warnings(), contextlib.suppress(TypeError):
            warnings.simplefilter("ignore", DeprecationWarning)  # NumPy's, of names for bytes
            dtype = jnp.dtype(x)
            if dtype.kind not in "SUO":
                return dtype.name
        raise TypeError(f"{owner}: {name} must be a dtype; got {code(x)}")


DType = Annotated[Any, _DType()]


LearningRate = Annotated[
    Hyper,
    Range(
        "[0, inf)",
        "step size: parameter units per update unit",
        below="to climb, put scale(-1.0) before it in a chain",
    ),
]


Decay = Annotated[Hyper, Range("[0, 1]", "share of the old average kept at each step")]


Fading = Annotated[Hyper, Range("[0, 1)", "share of the old average kept at each step")]


Momentum = Annotated[Hyper, Range("[0, 1]", "share of the velocity kept at each step")]


Fraction = Annotated[Hyper, Range("[0, 1]", "a share")]


Epsilon = Annotated[Hyper, Range("[0, inf)", "keeps a denominator away from zero")]


WeightDecay = Annotated[Hyper, Range("[0, inf)", "share of the weight removed per unit of step")]


NonNegative = Annotated[Hyper, Range("[0, inf)", "a size")]


Bound = Annotated[Hyper, Range("[0, inf]", "a bound; inf for none")]


Ceiling = Annotated[Hyper, Range("(0, inf]", "a bound; inf for none")]


Positive = Annotated[Hyper, Range("(0, inf)", "a size")]


Real = Annotated[Hyper, Range("(-inf, inf)", "any number")]


Steps = Annotated[Hyper, Range("(0, inf)", "a number of steps")]


Length = Annotated[Hyper, Range("[0, inf)", "a number of steps; 0 is over at once")]


Begin = Annotated[Hyper, Range("(-inf, inf)", "a step; before 0 it is 0")]


Count = Annotated[Hyper, Range("[1, inf)", "a number of times", integer=True)]


Patience = Annotated[Hyper, Range("[0, inf)", "a number of times", integer=True)]


def at_step(hyper, step) -> Hyper:
    """The hyperparameter's value at `step`: schedules are evaluated, tables row by row, numbers
    stay as they are.
    """
    if isinstance(hyper, ByPath):
        return ByPath(hyper.patterns, tuple(at_step(v, step) for v in hyper.values))
    return hyper(step) if isinstance(hyper, Schedule) else hyper


def one_number(owner: str, name: str, hyper, step):
    """A hyperparameter at `step`, one number for the whole tree: a table by path is an error."""
    if isinstance(hyper, ByPath):
        one = "is one number for the whole tree; it takes no by_path table"
        raise ValueError(f"{owner}: {name} {one}")
    return scalar(owner, name, at_step(hyper, step))


def scalar(owner: str, name: str, x):
    """A resolved hyperparameter: a Python number, which keeps its precision, or a scalar array."""
    if isinstance(x, float | int):
        return x
    x = jnp.asarray(x)
    if x.shape != ():
        words = f"{name} must be a scalar inside update; got shape {x.shape}"
        raise ValueError(f"{owner}: {words}. To try many values, vmap over the optimizer")
    return x
