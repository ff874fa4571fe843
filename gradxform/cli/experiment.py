"""One training of one member on the data, batched over many: what `compare` and `sweep` both run."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradxform.cli.data import Dataset, Split
from gradxform.cli.models import Model
from gradxform.cli.problems import Problem
from gradxform.cli.settings import Settings

CHUNK = 512  # rows of held-out data evaluated at once


class Experiment(NamedTuple):
    """What the methods are compared on."""

    settings: Settings
    data: Dataset
    split: Split
    model: Model

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
        return self.settings.batch_size or min(
            64, max(8, 2 ** math.floor(math.log2(max(1, rows / 16))))
        )

    def check(self) -> "Experiment":
        """Return self, or raise a Problem if no batch can be filled."""
        rows = len(self.split.train["y"])
        if self.batch_size > rows:
            raise Problem(
                f"--batch-size {self.batch_size} is larger than the training part, {rows} rows"
            )
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
    outputs = jax.lax.map(
        lambda piece: apply(params, piece), padded.reshape(pieces, CHUNK, *x.shape[1:])
    )
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
