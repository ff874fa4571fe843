"""Schedules: a number as an equation of the step, 0 at the first update; and what is made of
schedules.
"""

import sys

from gradxform.core.schedule import *
from gradxform.schedules import basic as _basic
from gradxform.schedules.algebra import *
from gradxform.schedules.basic import *
from gradxform.schedules.cycles import *

__all__ = [name for name, x in vars().items() if name[0] != "_" and hasattr(x, "__module__")]
__dir__ = __all__.copy

# which Optax has in its module of schedules too
_OF_OPTAX = ("inject_hyperparams", "inject_stateful_hyperparams", "InjectHyperparamsState")
_OF_OPTAX += ("InjectStatefulHyperparamsState", "StatefulSchedule", "WrappedSchedule")


def __getattr__(name: str):
    if name in _OF_OPTAX:
        return getattr(sys.modules["gradxform"], name)
    return getattr(_basic, name)  # the types of its arguments
