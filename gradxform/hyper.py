"""What a hyperparameter is: the types that a constructor of your own is annotated with."""

from gradxform.core import ByPath, Schedule, by_path, from_function, schedule
from gradxform.core.hyper import *
from gradxform.interop.moved import finder as _finder

__all__ = [name for name, x in vars().items() if name[0] != "_" and hasattr(x, "__module__")]
__dir__ = __all__.copy
__getattr__ = _finder(__name__)
