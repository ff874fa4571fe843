"""gradxform: gradient transformations for JAX, as pytrees of their hyperparameters."""

import builtins
import importlib
from typing import Any as _Any

from gradxform import hyper, interop, numerics, plot, schedules, sweep, train, tree, tree_utils
from gradxform.core import (
    PerLeaf,
    RuleState,
    apply_updates,
    by_path,
    chain,
    global_norm,
    identity,
    leafwise,
    nesterov_point,
    real_zeros,
    stack,
    stateless,
    transformation,
    tunable,
    zeros,
)
from gradxform.interop import export as _export
from gradxform.interop import moved as _moved
from gradxform.interop.optax import names as _optax_names
from gradxform.interop.optax import real as _optax
from gradxform.interop.optax.state import import_optax_state
from gradxform.interop.torch_state import import_torch_state
from gradxform.matrices import *
from gradxform.matrices.matrixwise import MatrixSlot, matrixwise
from gradxform.optimizers import *
from gradxform.rules import *
from gradxform.schedules import *
from gradxform.state import *
from gradxform.train import EarlyStopping, Training, batches, fit
from gradxform.train.hypergradient import hypergradient
from gradxform.wrappers import *

__version__ = "0.1.0"

_LAZY = ("contrib", "losses", "testing", "transforms")
_SHOWN = [name for name, x in vars().items() if name[0] != "_" and hasattr(x, "__module__")]
_SHOWN += ["hyper", "interop", "numerics", "plot", "schedules", "sweep", "train", "tree"]
_SHOWN += ["tree_utils", *_LAZY]
__all__ = [name for name in _SHOWN if not hasattr(builtins, name)]
__dir__ = _SHOWN.copy

_moved.register()
_optax.register()
_export.follow_flax()


def __getattr__(name: str) -> _Any:
    """A module that few load, a name of before, what only users of Optax look for, or an error that
    says why it is not here.
    """
    if name in _LAZY:
        return importlib.import_module(f"gradxform.{name}")
    return (
        _optax_names.find(name, _SHOWN)
        if name not in _moved.RENAMED
        else globals()[_moved.RENAMED[name]]
    )
