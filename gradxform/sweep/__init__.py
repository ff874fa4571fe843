"""Sweeps: trying sixty-four settings feels like trying one.

from gradxform.sweep import grid, sweep
result = sweep(train, grid(learning_rate=[1e-3, 1e-2], b1=[0.8, 0.9], seed=range(3)))
result.best.optimizer, result.table(), result.sensitivity()

space       what is tried: grid, zip, random, and what they are made of
names       a number anywhere, by name
members     which members one program can train
paced       what a training is to a sweep; `fit`
engine      the programs: vmap, devices, memory
stretches   a task from step to step, its pauses, and who is told
store       what is kept, and how it is read back
run         sweep itself; halving, population: which members go on
result      what comes back
hypergradient   the derivative of a training with respect to its optimizer
"""

from gradxform.sweep.result import Member, SweepResult
from gradxform.sweep.run import sweep
from gradxform.sweep.search import Halving, Population, evolve, promoted, rungs
from gradxform.sweep.space import (
    Distribution,
    Space,
    choice,
    grid,
    log_uniform,
    random,
    uniform,
    zip,
)
from gradxform.sweep.store import Unsound
from gradxform.sweep.stretches import Progress
from gradxform.train.hypergradient import checkpointed_scan, hypergradient, value_and_hypergradient
from gradxform.train.paced import Paced, Trained, fit

__all__ = [
    "Distribution", "Halving", "Member", "Paced", "Population", "Progress", "Space", "SweepResult",
    "Trained", "Unsound", "checkpointed_scan", "choice", "evolve", "fit", "grid", "hypergradient",
    "log_uniform", "promoted", "random", "rungs", "sweep", "uniform", "value_and_hypergradient",
    "zip",
]  # fmt: skip
