"""What users bring by name, `module:attribute`: the factory of a model, and methods of their own.

    gradxform compare --methods adam,mine:clipped

    def clipped(learning_rate):
        return gx.chain(gx.clip_by_global_norm(1.0), gx.adam(learning_rate))

A method of one's own is a function of the learning rate, a number, a traced array or a schedule; it
gives a transformation, or a pair `(init, update)` such as Optax's.
"""

import importlib
import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from gradxform.cli.methods import RACED, UNRACED, Method
from gradxform.cli.problems import Problem, unknown
from gradxform.core.call import pytree
from gradxform.core.chain import as_transform
from gradxform.core.transform import Transform
from gradxform.display.code import code

GRID = 1e-5, 1e1  # learning rates of a method of which nothing is known


@pytree(static=("factory", "spec"))
class Made(Transform):
    """The pair that a factory gives at a learning rate: a transformation with that one number."""

    learning_rate: Any
    factory: Callable
    spec: str

    @property
    def name(self):
        return self.spec.partition(":")[2]

    def __repr__(self):
        return f"{self.spec.replace(':', '.')}({code(self.learning_rate)})"

    def init(self, params):
        return as_transform(self.factory(self.learning_rate)).init(params)

    def update(self, updates, state, params=None, **extra):
        made = as_transform(self.factory(self.learning_rate))
        return made.update(updates, state, params, **extra)


def method_of(name: str) -> Method:
    """The method of a name, or of a user's own factory; or a Problem with the nearest name."""
    if ":" in name:
        return _own(name)
    if name in UNRACED:
        raise Problem(f"--methods {name}: it {UNRACED[name]}")
    if name not in RACED:
        raise unknown("method", name, RACED)
    return RACED[name]


@cache
def _own(spec: str) -> Method:
    factory = attribute(f"--methods {spec}", spec, "NAME or module:factory")
    called = f"--methods {spec}: {spec.partition(':')[2]}(0.01)"
    try:
        made = factory(0.01)
    except (Exception, SystemExit) as error:  # the user's function may raise anything
        raise Problem(f"{called} failed: {type(error).__name__}: {error}") from error
    try:
        as_transform(made)
    except TypeError as error:
        wanted = "expected a transformation, or a pair (init, update) such as Optax's"
        raise Problem(f"{called} returned {type(made).__name__}; {wanted}") from error

    def at(learning_rate):
        if isinstance(made, Transform):
            return factory(learning_rate)
        return Made(learning_rate, factory, spec)

    at.__doc__ = getattr(factory, "__doc__", None)
    return Method(spec, at, GRID, note="" if at.__doc__ else f"From {spec}.")


def attribute(option: str, spec: str, expected: str) -> Any:
    """What `module:attribute` names, from the current folder or an installed package; a Problem
    that begins with the option if there is no such thing.
    """
    where, _, name = spec.partition(":")
    if not where or not name:
        raise Problem(f"{option}: expected {expected}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(where), name)
    except AttributeError as error:
        raise Problem(f"{option}: {error}") from error
    except (Exception, SystemExit) as error:  # the user's module may do anything when imported
        what = f"cannot import {where}: {type(error).__name__}: {error}"
        raise Problem(f"{option}: {what}") from error
