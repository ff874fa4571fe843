"""What an optimizer remembers: read and change it by name, carry it over, describe it, watch it."""

from gradxform.state.access import *
from gradxform.state.describe import *
from gradxform.state.migrate import *
from gradxform.state.monitor import *

__all__ = [name for name, x in vars().items() if name[0] != "_" and hasattr(x, "__module__")]
