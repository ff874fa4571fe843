"""One training of a member on the data, batched over many: what `compare` and `sweep` both run."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import jax
import jax.numpy as jnp

from gradxform.cli.data import Dataset, Split, load, split
from gradxform.cli.models import Model, build
from gradxform.cli.problems import Problem
from gradxform.cli.settings import Settings

CHUNK = 512  # rows of held-out data evaluated at once


@dataclass(frozen=True, eq=False)
class Experiment:
    """What the methods are compared on."""

    settings: Settings
    data: Dataset
    split: Split
    model: Model

    @classmethod
    def of(cls, settings: Settings) -> "Experiment":
        """Load, split and check what the settings name."""
        data = load(settings.data, settings.target, settings.task)
        if settings.target_accuracy is not None and data.task == "regression":
            raise Problem(f"--target-accuracy: {data.name} is a regression; use --target-loss")
        model = build(settings.model, data, settings.hidden, settings.init, settings.dropout)
        return cls(settings, data, split(data), model).check()

    def widened(self, hidden: tuple[int, ...]) -> "Experiment":
        """The same with hidden layers of these widths."""
        chosen = self.settings
        model = build(chosen.model, self.data, hidden, chosen.init, chosen.dropout)
        return replace(self, model=model)

    @cached_property
    def parts(self) -> list[dict[str, jax.Array]]:
        """The data for training, validation and testing, as arrays of JAX."""
        return [jax.tree.map(jnp.asarray, part) for part in self.split[:3]]

    @cached_property
    def loss(self):
        """The loss of a batch: one function for every method, so that it is traced once."""

        @jax.jit
        def loss(params, batch, key):
            outputs = self.model.apply(params, batch["x"], key)
            return jnp.mean(row_losses(self.data.task, outputs, batch["y"]))

        return loss

    @cached_property
    def validate(self):
        """The metrics of parameters on held-out data, traced once as well."""
        return jax.jit(lambda params, data: evaluate(self, params, data)[0])

    @property
    def updates(self) -> int:
        """Updates that one member makes when nothing stops it: whole batches only."""
        return self.settings.epochs * (len(self.split.train["y"]) // self.batch_size)

    @property
    def batch_size(self) -> int:
        """The batch size asked for, or a power of two from 8 to 64 for some 16 updates or more per
        epoch.
        """
        rows = len(self.split.train["y"])
        power = 2 ** math.floor(math.log2(max(1, rows / 16)))
        return self.settings.batch_size or min(64, max(8, power))

    def check(self) -> "Experiment":
        """Return self, or raise a Problem if no batch can be filled."""
        rows = len(self.split.train["y"])
        if self.batch_size > rows:
            large = f"--batch-size {self.batch_size} is larger than the training part"
            raise Problem(f"{large}, {rows} rows")
        return self


def row_losses(task: str, outputs, y):
    """The loss of each row: cross-entropy in nats, or the squared error in units of the target's
    variance.
    """
    if task == "regression":
        return jnp.square(outputs[:, 0] - y)
    return -jnp.take_along_axis(jax.nn.log_softmax(outputs), y[:, None], axis=1)[:, 0]


def row_goodness(task: str, outputs, y):
    """How good each row's prediction is: 1 where the class is right, or minus the squared error."""
    if task == "regression":
        return -row_losses(task, outputs, y)
    return (jnp.argmax(outputs, axis=1) == y).astype(jnp.float32)


def outputs_of(apply, params, x):
    """The outputs for many rows [n, outputs], some at a time: members multiply what is held at
    once.
    """
    if len(x) <= CHUNK:
        return apply(params, x)
    pieces = -(-len(x) // CHUNK)
    padded = jnp.pad(x, [(0, pieces * CHUNK - len(x)), *[(0, 0)] * (x.ndim - 1)])
    padded = padded.reshape(pieces, CHUNK, *x.shape[1:])
    outputs = jax.lax.map(lambda piece: apply(params, piece), padded)
    return outputs.reshape(pieces * CHUNK, -1)[: len(x)]


def evaluate(experiment: Experiment, params, data) -> tuple[dict, jax.Array]:
    """The metrics of parameters on held-out data, and how good each row's prediction is."""
    task = experiment.data.task
    outputs = outputs_of(experiment.model.apply, params, data["x"])
    goodness = row_goodness(task, outputs, data["y"])
    metrics = {"loss": jnp.mean(row_losses(task, outputs, data["y"]))}
    if task == "classification":
        metrics["accuracy"] = jnp.mean(goodness)
    return metrics, goodness
