"""A training loop over epochs as one function of arrays: validation, early stopping and plateaus
included.

All that a run needs from one epoch to the next is a `Carry`, all that it measures is a scalar per
epoch, and no Python branch depends on a number. So a run is one compiled program, and a sweep is a
`vmap` of it:

    run = functools.partial(fit, loss, params=params, data=data, key=key, epochs=20, batch_size=32)
    run(tx=gx.adam(1e-3))
    jax.vmap(lambda tx: run(tx=tx))(gx.stack([gx.adam(lr) for lr in rates]))
    jax.grad(lambda tx: loss(run(tx=tx).params, validation, None))(gx.adam(1e-3))

A member that has stopped or diverged is inactive: an epoch leaves its whole carry as it is.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.core.chain import apply_updates, as_transform
from gradxform.core.leaves import Tree
from gradxform.display.code import code
from gradxform.numerics import wide_dtype
from gradxform.train.batches import count, one_key, scan_batches, whole
from gradxform.train.stopping import EarlyStopping, StoppingState, concrete, fresh

__all__ = ["Carry", "FitResult", "Training", "fit"]


class Carry(NamedTuple):
    """All that one epoch hands to the next."""

    params: Tree
    state: Tree  # of the optimizer
    key: jax.Array  # the same in all epochs: epoch e draws from fold_in(key, e)
    epoch: jax.Array  # [] int32, epochs run so far
    plateau: Tree  # state of the plateau, None without one
    scale: jax.Array | None  # [] what the plateau multiplies the updates of the next epoch by
    stopping: StoppingState | None
    active: jax.Array  # [] bool, neither stopped nor diverged
    diverged: jax.Array  # [] bool


class FitResult(NamedTuple):
    """What a run returns: arrays, and trees of arrays."""

    params: Tree  # the parameters to use: those of best_epoch, as `eval_params` gives them
    last_params: Tree  # the parameters that training ended with
    state: Tree  # of the optimizer, after the last epoch run
    history: dict[str, jax.Array]  # each [epochs], NaN for the epochs not run
    best_epoch: jax.Array  # [] int32: of the best value with early stopping, else the last one run
    epochs_run: jax.Array  # [] int32
    stopped: jax.Array  # [] bool, early stopping or divergence ended the run
    diverged: jax.Array  # [] bool, a value that is not finite ended the run


def _scalars(owner, metrics):
    # One float dtype for all metrics: they are averaged and compared, and bfloat16 is too coarse
    # for that.
    for name, metric in metrics.items():
        if shape := jnp.shape(metric):
            raise ValueError(f"{owner}: {name!r} must be a scalar; got shape {shape}")
    wide = jnp.zeros((), float).dtype
    return {name: jnp.asarray(metric).astype(wide) for name, metric in metrics.items()}


def _scaled(update, scale):
    wide = wide_dtype(update.dtype)
    return (update.astype(wide) * scale.astype(wide)).astype(update.dtype)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("tx", "stopping", "plateau"),
    meta_fields=("loss", "batch_size", "evaluate", "watch", "drop_last", "shuffle", "eval_params"),
)
@dataclasses.dataclass(frozen=True)
class Training:
    """How to train: one epoch is one pass over shuffled batches, then one look at the validation
    data.

        each batch:  g = ∇ loss(p, batch, key); u, state = tx.update(g, state, p, value=loss);
                     p = p + scale u
        each epoch:  scale, plateau state = plateau.update(1, plateau state, value=watched)

    loss(params, batch, key) returns a scalar, or (scalar, dict of scalar metrics); key is for
    dropout and the like, None at evaluation. evaluate(params, validation) returns a dict of scalar
    metrics; without it, loss is called once on all the validation data. watch names the validation
    metric that early stopping and the plateau read, each in its own mode ("min" or "max"); a
    plateau without validation data reads the training metric of that name. eval_params(state,
    params) gives the parameters to judge and to return, where these are not the ones that are
    trained (averages of parameters). A mean training loss, or with early stopping a watched value,
    that is not finite marks the run as diverged and ends it.

    As a pytree, the numbers of tx, stopping and plateau are leaves and the rest is static: new
    numbers retrace nothing. An Optax pair serves as tx or plateau too, but its numbers are out of
    reach.

    Not: train metrics are means over the batches as they were met, while the parameters moved.
    """

    loss: Callable
    tx: Tree
    batch_size: int
    evaluate: Callable | None = None
    stopping: EarlyStopping | None = None
    watch: str = "loss"
    plateau: Tree = None
    drop_last: bool = False
    shuffle: bool = True
    eval_params: Callable | None = None

    def init(self, params, key):
        """The carry before the first epoch, in buffers of its own, so that params and key may be
        donated.
        """
        wrapped, params, one = self._wrapped(), fresh(params), jnp.ones((), jnp.float32)
        key = one_key(key)
        epoch, active, diverged = jnp.zeros((), jnp.int32), jnp.ones((), bool), jnp.zeros((), bool)
        plateau, scale = None, None
        if self.plateau is not None:
            _watches(wrapped.plateau)
            plateau, scale = wrapped.plateau.init(one), one
        stopping = None if self.stopping is None else self.stopping.init(params)
        state, key = wrapped.tx.init(params), fresh(key)
        return Carry(params, state, key, epoch, plateau, scale, stopping, active, diverged)

    def draw(self, carry, data):
        """What the next epoch draws at random: the order of the examples, or None, and a key for
        the loss.
        """
        order, noise = jax.random.split(jax.random.fold_in(carry.key, carry.epoch))
        return jax.random.permutation(order, count(data)) if self.shuffle else None, noise

    def epoch(self, carry, data, validation=None, drawn=None):
        """One epoch, compiled at the first call: `(carry, metrics)`; an inactive carry stays,
        metrics NaN. `drawn` is what `draw` gave for this carry, where it was called apart.

        Shapes: metrics is a dict of scalars: "train_loss" and the other metrics of the loss as
        "train_...", means over the examples; "val_..." for those of the validation data. Raises:
        ValueError for data as `batches` does, early stopping without validation, a watched metric
        that does not exist, a metric that is no scalar.
        """
        self.check(data, validation)
        return _epoch(self._wrapped(), carry, data, validation, drawn)

    def run(self, carry, data, validation=None, *, epochs):
        """Up to that many further epochs: `(carry, history)`, each metric [epochs], NaN where not
        run.

        Without early stopping it is a scan, which reverse mode differentiates. With it, it ends
        when all members of a vmap have stopped, and only forward mode differentiates it.
        """
        self.check(data, validation, epochs)
        return _run(self._wrapped(), carry, data, validation, epochs=int(epochs))

    def result(self, carry, history):
        """The outcome of a run; params are the best with early stopping, else the last."""
        params, best, epoch = carry.params, carry.epoch - 1, carry.epoch
        if carry.stopping is None:
            used = self._judged(params, carry.state)
        else:
            used, best = carry.stopping.best_params, carry.stopping.best_epoch
        ended = ~carry.active, carry.diverged
        return FitResult(used, params, carry.state, history, best, epoch, *ended)

    def check(self, data, validation=None, epochs=1):
        """Raise ValueError for what cannot be trained; epoch, run and fit do so before anything is
        traced.
        """
        count(data)
        _takes("loss", self.loss, "params, batch, key")
        whole("batch_size", self.batch_size)
        for name in ("drop_last", "shuffle"):
            if not isinstance(x := getattr(self, name), bool | np.bool_):
                raise TypeError(f"{name} must be True or False; got {x!r}")
        if not isinstance(epochs, int | np.integer) or isinstance(epochs, bool) or epochs < 1:
            raise ValueError(f"epochs must be a Python integer of at least 1; got {epochs!r}")
        if self.evaluate is not None:
            _takes("evaluate", self.evaluate, "params, validation")
            if any(np.size(x) == 0 for x in jax.tree.leaves(validation)):
                raise ValueError("validation: there are 0 examples")
        elif validation is not None:
            count(validation, "validation")
        if self.stopping is not None:
            self.stopping.check()
            if validation is None:
                raise ValueError("early stopping (patience) needs validation data")

    def _wrapped(self):
        # An Optax pair becomes a transformation: static under jit, and given value= only if it
        # takes keywords.
        plateau = None if self.plateau is None else as_transform(self.plateau)
        return dataclasses.replace(self, tx=as_transform(self.tx), plateau=plateau)

    def _judged(self, params, state):
        if self.eval_params is None:
            return params
        judged = self.eval_params(state, params)
        shapes, wanted = ([*map(np.shape, jax.tree.leaves(x))] for x in (judged, params))
        if shapes != wanted:
            raise ValueError(f"eval_params must return parameters; got {type(judged).__name__}")
        return judged

    def _loss(self, params, batch, key):
        out = self.loss(params, batch, key)
        value, metrics = out if isinstance(out, tuple) else (out, {})
        if not isinstance(metrics, dict) or "loss" in metrics:
            raise ValueError('loss must return a scalar or (scalar, dict of metrics but "loss")')
        return value, _scalars("loss", {"loss": value, **metrics})

    def _pass(self, carry, data, order, noise):
        """One pass over the batches: new params and state, and the mean of each metric over the
        examples.
        """

        def step(inner, batch):
            params, state, index = inner
            key = jax.random.fold_in(noise, index)
            (_, metrics), grads = jax.value_and_grad(self._loss, has_aux=True)(params, batch, key)
            grads = jax.tree.map(jnp.conj, grads)  # downhill for complex parameters
            updates, state = self.tx.update(grads, state, params, value=metrics["loss"])
            if carry.scale is not None:
                updates = jax.tree.map(lambda u: _scaled(u, carry.scale), updates)
            inner = apply_updates(params, updates), state, index + 1
            return inner, (metrics, jnp.asarray(count(batch), float))

        start = carry.params, carry.state, jnp.zeros((), jnp.int32)
        how = {"order": order, "drop_last": self.drop_last}
        end, (metrics, sizes) = scan_batches(step, start, data, self.batch_size, **how)
        means = {name: jnp.sum(m * sizes) / jnp.sum(sizes) for name, m in metrics.items()}
        return end[0], end[1], means

    def _validate(self, params, validation):
        if self.evaluate is None:
            return self._loss(params, validation, None)[1]
        metrics = self.evaluate(params, validation)
        if not isinstance(metrics, dict):
            kind = type(metrics).__name__
            raise ValueError(f"evaluate must return a dict of scalar metrics; got {kind}")
        return _scalars("evaluate", metrics)

    def _advance(self, carry, data, validation, drawn=None):
        """One epoch of an active carry."""
        order, noise = self.draw(carry, data) if drawn is None else drawn
        params, state, train = self._pass(carry, data, order, noise)
        judged, diverged = self._judged(params, state), ~jnp.isfinite(train["loss"])
        metrics = {f"train_{name}": metric for name, metric in train.items()}
        seen = train
        if validation is not None:
            seen = self._validate(judged, validation)
            metrics |= {f"val_{name}": metric for name, metric in seen.items()}
        if (self.stopping is not None or self.plateau is not None) and self.watch not in seen:
            raise ValueError(f"watch={self.watch!r} is not among the metrics {list(seen)}")
        ended, stopping, plateau, scale = diverged, None, None, None
        if self.stopping is not None:
            stopping = self.stopping.update(carry.stopping, seen[self.watch], judged, carry.epoch)
            diverged = diverged | stopping.diverged
            ended = diverged | stopping.stopped
        if self.plateau is not None:
            one = jnp.ones((), jnp.float32)
            scale, plateau = self.plateau.update(one, carry.plateau, one, value=seen[self.watch])
        epoch = carry.epoch + 1
        new = Carry(params, state, carry.key, epoch, plateau, scale, stopping, ~ended, diverged)
        return new, metrics


def _takes(name, function, arguments):
    """Raise TypeError where a function cannot be called with these arguments, by place."""
    if not callable(function):
        raise TypeError(f"{name} must be a function, {name}({arguments}); got {code(function)}")
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C do not tell
        return
    try:
        signature.bind(*arguments.split(", "))
    except TypeError as error:
        called = f"{name} is called as {name}({arguments})"
        raise TypeError(f"{called}; it takes {signature}: {error}") from None


def _watches(plateau) -> None:
    """Raise TypeError for a plateau that watches no value: an optimizer, say."""
    if "value" in inspect.signature(plateau.update).parameters:
        return
    one = jax.ShapeDtypeStruct((), jnp.float32)
    try:
        jax.eval_shape(lambda x: plateau.update(x, plateau.init(x), x)[0], one)
    except TypeError:  # for want of a value
        return
    must = "plateau must watch a value, as gx.reduce_on_plateau() does"
    raise TypeError(f"{must}; got {code(plateau)}")


# Jitted with the Training as an argument: new numbers, or the next epoch of a Python loop, are no
# new trace.
_advance = jax.jit(Training._advance)


def _blank(training, carry, data, validation, shape, drawn=None):
    # The shapes come from the trace of _advance that the epoch itself uses: the loss is not traced
    # again.
    metrics = jax.eval_shape(_advance, training, carry, data, validation, drawn)[1]
    return {name: jnp.full(shape, jnp.nan, metric.dtype) for name, metric in metrics.items()}


@jax.jit
def _epoch(training, carry, data, validation, drawn=None):
    blank = _blank(training, carry, data, validation, (), drawn)
    # A conditional, not a select: alone, an inactive run costs nothing. vmap makes it the select.
    run = lambda c: _advance(training, c, data, validation, drawn)  # noqa: E731
    return jax.lax.cond(carry.active, run, lambda c: (c, blank), carry)


@functools.partial(jax.jit, static_argnames="epochs")
def _run(training, carry, data, validation, epochs):
    if training.stopping is None:
        one = lambda c, _: _epoch(training, c, data, validation)  # noqa: E731
        return jax.lax.scan(one, carry, length=epochs)

    def goes_on(inner):
        return inner[0].active & (inner[2] < epochs)

    # vmap selects here: a member that is no longer active keeps its carry and its history.
    def body(inner):
        carry, history, index = inner
        carry, metrics = _advance(training, carry, data, validation, None)  # as _blank traced it
        history = {name: h.at[index].set(metrics[name]) for name, h in history.items()}
        return carry, history, index + 1

    history = _blank(training, carry, data, validation, (epochs,))
    return jax.lax.while_loop(goes_on, body, (carry, history, jnp.zeros((), jnp.int32)))[:2]


@functools.partial(jax.jit, static_argnames="epochs")
def _fit(training, params, key, data, validation, epochs):
    carry, history = training.run(training.init(params, key), data, validation, epochs=epochs)
    return training.result(carry, history)


def fit(
    loss, tx, params, data, *, key, epochs, batch_size, validation=None, evaluate=None,
    patience=None, min_delta=0.0, mode="min", watch="loss", plateau=None, drop_last=False,
    shuffle=True, eval_params=None
):  # fmt: skip
    """Train for a number of epochs, or until early stopping, as one compiled function of arrays.

    What the arguments mean is said in `Training`, and in `EarlyStopping` for patience, min_delta
    and mode; patience None means no early stopping. A second call with other numbers, such as a new
    learning rate, retraces nothing when loss and evaluate are the same functions as before.

    >>> data = {"x": jnp.arange(8.0), "y": 3 * jnp.arange(8.0)}
    >>> loss = lambda params, batch, key: jnp.mean((params * batch["x"] - batch["y"]) ** 2)
    >>> settings = {"key": jax.random.key(0), "epochs": 100, "batch_size": 4}
    >>> result = gx.fit(loss, gx.adam(0.1), jnp.zeros(()), data, **settings)
    >>> round(float(result.params), 2)
    3.0

    Shapes: data leaves [n, ...], validation leaves [m, ...]; returns a FitResult, its history
    [epochs]. Raises: ValueError for epochs < 1, patience without validation, a watched metric that
    does not exist, and data as `batches` does. Not: a run that diverged without early stopping
    returns its last parameters, which may not be finite.
    """
    if patience is None and mode != "min":
        why = "is how early stopping reads the watched metric; it needs patience"
        raise ValueError(f"mode={mode!r} {why}")
    if patience is None and not (concrete(min_delta) == 0.0):
        raise ValueError(f"min_delta={min_delta!r} is of early stopping; it needs patience")
    if patience is None and plateau is None and watch != "loss":
        raise ValueError(
            f"watch={watch!r} is for early stopping or a plateau; neither is asked for"
        )
    if evaluate is not None and validation is None:
        raise ValueError("evaluate judges validation data; give validation")
    stopping = None if patience is None else EarlyStopping(patience, min_delta, mode)
    more = evaluate, stopping, watch, plateau, drop_last, shuffle, eval_params
    training = Training(loss, tx, batch_size, *more)
    training.check(data, validation, epochs)
    one_key(key)
    return _fit(training._wrapped(), params, key, data, validation, epochs=int(epochs))
