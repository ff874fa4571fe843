"""Equations on one array, and the transformations that they make: one file for each idea."""

from gradxform.rules.clipping import *
from gradxform.rules.coin_betting import *
from gradxform.rules.curvature import *
from gradxform.rules.differences import *
from gradxform.rules.directions import *
from gradxform.rules.distance import *
from gradxform.rules.dual_averaging import *
from gradxform.rules.layerwise import *
from gradxform.rules.noise import *
from gradxform.rules.normalize import *
from gradxform.rules.polyak import *
from gradxform.rules.preconditioners import *
from gradxform.rules.qk_clip import *
from gradxform.rules.rms_variants import *
from gradxform.rules.signs import *
from gradxform.rules.step_size import *
from gradxform.rules.weight_decay import *

__all__ = [name for name, x in vars().items() if name[0] != "_" and hasattr(x, "__module__")]
