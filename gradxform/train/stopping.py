"""Early stopping as a pure state machine: numbers in, numbers out, so that it runs under jit and
vmap.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradxform.core.leaves import Tree

__all__ = ["EarlyStopping", "StoppingState"]


class StoppingState(NamedTuple):
    """What early stopping remembers: all scalars, and one copy of the parameters.

    Memory: one copy of the parameters.
    """

    best: jax.Array  # [] the best value so far, infinitely bad before the first
    best_epoch: jax.Array  # [] int32, the epoch of that value, -1 before the first
    wait: jax.Array  # [] int32, epochs in a row without improvement
    stopped: jax.Array  # [] bool
    diverged: jax.Array  # [] bool, stopped because the value was not finite
    best_params: Tree  # the parameters of that epoch, those given to init before the first


def fresh(tree):
    """A copy of every leaf in buffers of its own, so that either tree may be donated."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, dtype=jnp.result_type(leaf), copy=True), tree)


def concrete(number):
    """The number as a Python float when it is known now, else None (a tracer, or one number per
    member).
    """
    if isinstance(number, Tracer) or jnp.shape(number) != ():
        return None
    return float(number)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("patience", "min_delta"), meta_fields=("mode",)
)
@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Stop after `patience` epochs in a row without improvement, keep the best parameters.

        improved = value < best - min_delta        (mode="max": value > best + min_delta)
        wait     = 0 if improved else wait + 1
        stopped  = wait >= patience, or the value is not finite

    Shapes: value [] real; patience and min_delta are leaves, so members of a vmap may have their
    own. Raises: ValueError from `init` when patience < 1, min_delta < 0 or mode is neither "min"
    nor "max". Not: patience counts the epochs tried after the best, as in Keras; Flax's
    EarlyStopping tries one more.
    """

    patience: float | jax.Array
    min_delta: float | jax.Array = 0.0
    mode: str = "min"

    def check(self):
        """Raise ValueError for numbers known now that mean nothing; tracers pass."""
        patience, min_delta = concrete(self.patience), concrete(self.min_delta)
        if patience is not None and not patience >= 1:
            least = "patience must be at least 1 epoch"
            raise ValueError(f"EarlyStopping: {least}; got {self.patience}")
        if min_delta is not None and not min_delta >= 0:
            raise ValueError(f"EarlyStopping: min_delta must be at least 0; got {self.min_delta}")
        if self.mode not in ("min", "max"):
            raise ValueError(f'EarlyStopping: mode must be "min" or "max"; got {self.mode!r}')

    def init(self, params):
        """The state before the first epoch; its buffers are its own, so params may be donated."""
        self.check()
        best = jnp.full((), jnp.inf if self.mode == "min" else -jnp.inf, float)
        none, wait = jnp.full((), -1, jnp.int32), jnp.zeros((), jnp.int32)
        stopped, diverged = jnp.zeros((), bool), jnp.zeros((), bool)
        return StoppingState(best, none, wait, stopped, diverged, fresh(params))

    def update(self, state, value, params, epoch):
        """The state after an epoch that ended with these parameters and this value of the watched
        metric.

        A stopped state stays as it is. A value that is not finite stops, and never becomes the
        best. Raises: ValueError when value is not a scalar.
        """
        if shape := jnp.shape(value):
            raise ValueError(f"EarlyStopping: the value must be a scalar; got shape {shape}")
        dtype = state.best.dtype
        value, margin = (jnp.asarray(x).astype(dtype) for x in (value, self.min_delta))
        finite, live = jnp.isfinite(value), ~state.stopped
        better = value < state.best - margin if self.mode == "min" else value > state.best + margin
        improved = live & finite & better
        wait = jnp.where(improved, 0, state.wait + live.astype(jnp.int32))
        diverged = state.diverged | (live & ~finite)
        exhausted = wait.astype(dtype) >= jnp.asarray(self.patience).astype(dtype)
        now = value, jnp.asarray(epoch).astype(jnp.int32), params
        kept = state.best, state.best_epoch, state.best_params
        best, at, params = jax.tree.map(lambda x, old: jnp.where(improved, x, old), now, kept)
        return StoppingState(best, at, wait, state.stopped | diverged | exhausted, diverged, params)
