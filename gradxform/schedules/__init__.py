"""Schedules: a number as an equation of the step, 0 at the first update; and what is made of
schedules.
"""

from gradxform.core.schedule import *  # noqa: F403
from gradxform.core.tunable import (
    inject_hyperparams as inject_hyperparams,  # in Optax's module of schedules too
)
from gradxform.schedules.algebra import *  # noqa: F403
from gradxform.schedules.basic import *  # noqa: F403
from gradxform.schedules.cycles import *  # noqa: F403
