"""What `gradxform compare` races, `list` lists and `show` shows: the methods of the textbook, and
every other public optimizer by its constructor.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import gradxform as gx
from gradxform.core.transform import Transform


@dataclass(frozen=True)
class Method:
    """A textbook method as `gradxform compare` races it.

    Attributes:
        name: what the command line calls it.
        constructor: the public constructor.
        grid: (low, high), learning rates between which the best one usually lies.
        arguments: what the method fixes of the constructor's arguments.
        note: its one sentence, where the constructor's is not the method's.
    """

    name: str
    constructor: Callable[..., Transform]
    grid: tuple[float, float]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    def make(self, learning_rate, **numbers) -> Any:
        """The optimizer at a learning rate: a number, a traced array or a schedule."""
        return self.constructor(learning_rate, **{**self.arguments, **numbers})

    @property
    def rate(self) -> str:
        """What its constructor calls the learning rate, its first argument."""
        return next(iter(inspect.signature(self.constructor).parameters))

    @cached_property
    def doc(self) -> str:
        """The docstring of its constructor."""
        return inspect.getdoc(self.constructor) or ""

    @property
    def title(self) -> str:
        """One sentence."""
        return self.note or " ".join(self.doc.partition("\n\n")[0].split())

    @property
    def source(self) -> str:
        """Authors, year, algorithm."""
        lines = self.doc.splitlines()
        start = next((i for i, x in enumerate(lines) if x.startswith("Source:")), len(lines))
        found = lines[start : [*lines, ""].index("", start)]
        return " ".join(map(str.strip, found)).removeprefix("Source: ")


def _methods(*methods: Method) -> dict[str, Method]:
    return {method.name: method for method in methods}


HEAVY = {"momentum": 0.9}
METHODS: dict[str, Method] = _methods(
    Method("sgd", gx.sgd, (1e-3, 1e1), note="Mini-batch gradient descent: p ← p - α g."),
    Method("momentum", gx.sgd, (1e-4, 1e0), HEAVY,
           "Heavy ball: a velocity that keeps 0.9 of itself."),
    Method("nesterov", gx.sgd, (1e-4, 1e0), HEAVY | {"nesterov": True},
           "Nesterov momentum: the gradient at the look-ahead point."),
    Method("adagrad", gx.adagrad, (1e-3, 1e1)),
    Method("adadelta", gx.adadelta, (1e-2, 1e2)),
    Method("rmsprop", gx.rmsprop, (1e-5, 1e-1)),
    Method("rmsprop_centered", gx.rmsprop, (1e-5, 1e-1), {"centered": True},
           "RMSprop divided by the standard deviation of the gradients."),
    Method("rmsprop_momentum", gx.rmsprop, (1e-6, 1e-2), HEAVY,
           "RMSprop, then momentum on its steps."),
    Method("adam", gx.adam, (1e-5, 1e-1)),
    Method("adam_uncorrected", gx.adam_uncorrected, (1e-5, 1e-1)),
    Method("adam_l2", gx.adam_l2, (1e-5, 1e-1), {"l2": 1e-3}),
    Method("adamw", gx.adamw, (1e-5, 1e-1), {"weight_decay": 1e-2}),
    Method("nadam", gx.nadam, (1e-5, 1e-1)),
    Method("adamax", gx.adamax, (1e-5, 1e-1)),
    Method("amsgrad", gx.amsgrad, (1e-5, 1e-1)),
)  # fmt: skip


# Learning rates between which the best one usually lies, by the module of a constructor whose own
# default does not tell.
GRIDS = {"signs": (1e-6, 1e-2), "descent": (1e-4, 1e0), "layerwise": (1e-4, 1e0)}
GRIDS |= {"orthogonal": (1e-4, 1e0), "matrix": (1e-5, 1e-1), "shampoo": (1e-5, 1e-1)}

# Optimizers that `compare` cannot race, and why.
UNRACED = {
    "hyperball": "needs matrices alone, after an optimizer: it is a part and none by itself",
    "dpsgd": "needs the gradient of each example, and how private it is to be",
    "sophia": "needs obj_fn at its updates, the loss as a function of the parameters",
}


def _is_optimizer(name: str, made) -> bool:
    first = next(iter(inspect.signature(made).parameters), "")
    return first in ("learning_rate", "max_learning_rate") and not name.startswith("scale_by_")


def _of_constructor(name: str, made) -> Method:
    rate = next(iter(inspect.signature(made).parameters.values())).default
    if isinstance(rate, float):
        return Method(name, made, (rate / 100, rate * 100))
    return Method(name, made, GRIDS.get(made.__module__.rpartition(".")[2], (1e-5, 1e-1)))


# Every public constructor: transformations, wrappers, schedules.
CONSTRUCTORS: dict[str, Callable] = {
    name: made for name, made in sorted(vars(gx).items()) if hasattr(made, "converters")
}
OPTIMIZERS: dict[str, Method] = METHODS | {
    name: _of_constructor(name, made)
    for name, made in CONSTRUCTORS.items()
    if name not in METHODS and _is_optimizer(name, made)
}
RACED = {name: method for name, method in OPTIMIZERS.items() if name not in UNRACED}
