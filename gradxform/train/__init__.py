"""Around a loss function: batches, epochs, validation, early stopping."""

from gradxform.train.batches import batches, count, partition, scan_batches, shuffle
from gradxform.train.loop import Carry, FitResult, Training, fit
from gradxform.train.stopping import EarlyStopping, StoppingState

__all__ = [
    "Carry", "EarlyStopping", "FitResult", "StoppingState", "Training", "batches", "count", "fit",
    "partition", "scan_batches", "shuffle",
]  # fmt: skip
