"""Optax's `transforms`: the same names, which gradxform has at its top."""

from gradxform.compatibility import namespace

__getattr__, __dir__ = namespace("optax.transforms")
