"""Schedules: a number as an equation of the step, 0 at the first update; and what is made of
schedules.
"""

from gradxform.core import inject_hyperparams as _inject_hyperparams
from gradxform.core.schedule import *
from gradxform.schedules import basic as _basic
from gradxform.schedules.algebra import *
from gradxform.schedules.basic import *
from gradxform.schedules.cycles import *

__all__ = [name for name, x in vars().items() if name[0] != "_" and hasattr(x, "__module__")]
__dir__ = __all__.copy


def __getattr__(name: str):
    if name == "inject_hyperparams":  # in Optax's module of schedules too
        return _inject_hyperparams
    return getattr(_basic, name)  # the types of its arguments
