"""Optax's `contrib`: the same names, which gradxform has at its top; Muon as Optax has it."""

import gradxform
from gradxform.interop.optax.names import as_optax, namespace

__getattr__, __dir__ = namespace(gradxform, "optax.contrib")

muon = as_optax(gradxform.muon)
