"""Named optimizers, each a composition of a few lines under its equation."""

from gradxform.optimizers.adaptive import *
from gradxform.optimizers.descent import *
from gradxform.optimizers.layerwise import *
from gradxform.optimizers.matrix import *
from gradxform.optimizers.matrix_bases import *
from gradxform.optimizers.matrix_norms import *
from gradxform.optimizers.memory import *
from gradxform.optimizers.orthogonal import *
from gradxform.optimizers.products import *
from gradxform.optimizers.relatives import *
from gradxform.optimizers.shampoo import *
from gradxform.optimizers.signs import *
from gradxform.optimizers.step_free import *
from gradxform.optimizers.textbook import *

__all__ = [name for name, x in vars().items() if name[0] != "_" and hasattr(x, "__module__")]
