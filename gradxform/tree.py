"""Walking trees, and the names of Optax's `tree_utils` with and without their prefix: `tree_add`
and `add`.
"""

from gradxform.core.leaves import (
    align,
    global_norm,
    is_none,
    map_leaves,
    matches,
    path_string,
    paths,
    sum_of_squares,
    tree_map,
)
from gradxform.interop import moved
from gradxform.interop.optax import tree_utils

__all__ = ["align", "global_norm", "is_none", "map_leaves", "matches", "path_string", "paths"]
__all__ += ["sum_of_squares", "tree_map"]
__dir__ = __all__.copy
_of_before = moved.finder(__name__)


def __getattr__(name: str):
    found = name if name in tree_utils.__all__ else f"tree_{name}"
    return getattr(tree_utils, found) if found in tree_utils.__all__ else _of_before(name)
