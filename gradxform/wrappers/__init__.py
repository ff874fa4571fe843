"""How an optimizer runs: on which parameters, when, stored how, averaged how. Each is a
transformation around another one.
"""

from gradxform.wrappers.accumulation import *
from gradxform.wrappers.averaging import *
from gradxform.wrappers.cautious import *
from gradxform.wrappers.conditional import *
from gradxform.wrappers.masking import *
from gradxform.wrappers.master_weights import *
from gradxform.wrappers.mechanic import *
from gradxform.wrappers.on_updates import *
from gradxform.wrappers.sam import *
from gradxform.wrappers.schedule_free import *
from gradxform.wrappers.skipping import *
from gradxform.wrappers.sophia import *

__all__ = [name for name, x in vars().items() if name[0] != "_" and hasattr(x, "__module__")]
