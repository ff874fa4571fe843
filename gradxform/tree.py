"""Walking trees, and the names of Optax's `tree_utils` with and without their prefix: `tree_add`
and `add`.
"""

from typing import Any

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
from gradxform.interop.optax import tree_utils

__all__ = [
    "align",
    "global_norm",
    "is_none",
    "map_leaves",
    "matches",
    "path_string",
    "paths",
    "sum_of_squares",
    "tree_map",
]


def __getattr__(name: str) -> Any:
    for found in (name, f"tree_{name}"):
        if found in tree_utils.__all__:
            return getattr(tree_utils, found)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
