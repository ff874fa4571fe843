"""Edges to other libraries. Each is imported when asked for, and named in the error where it is
missing.
"""

from gradxform.interop.export import register_with_flax, to_optax
from gradxform.interop.moved import finder as _finder

__all__ = ["register_with_flax", "to_optax"]
__getattr__ = _finder(__name__)
