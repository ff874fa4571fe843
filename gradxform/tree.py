"""Walking trees, and the names of Optax's `tree_utils` with and without their prefix: `tree_add`
and `add`.
"""

from gradxform.core import leaves as _leaves
from gradxform.core.leaves import *
from gradxform.interop import moved
from gradxform.interop.optax import tree_utils

__all__ = _leaves.__all__
__dir__ = __all__.copy
_of_before = moved.finder(__name__)


def __getattr__(name: str):
    found = name if name in tree_utils.__all__ else f"tree_{name}"
    return getattr(tree_utils, found) if found in tree_utils.__all__ else _of_before(name)
