"""Optax's `tree_utils` under its own name."""

from gradxform.interop.optax import tree_utils as _home
from gradxform.interop.optax.tree_utils import *

__all__ = _home.__all__


def __getattr__(name: str):
    return getattr(_home, name)
