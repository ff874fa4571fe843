"""One list of every public transformation with a representative instance, and of the methods that
`gradxform compare` races.

The laws (`gradxform.testing`) run over `TRANSFORMATIONS`; the command line and the tables of the
README are made from `METHODS`.
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
        start = next(i for i, line in enumerate(lines) if line.startswith("Source:"))
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
