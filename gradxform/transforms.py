"""Optax's `transforms`: the same names, which gradxform has at its top."""

import gradxform
from gradxform.interop.optax.names import namespace

__getattr__, __dir__ = namespace(gradxform, "optax.transforms")
