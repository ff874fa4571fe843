"""A task from its first step to its last: when a training pauses, who is told, what is kept."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.sweep.engine import Engine
from gradxform.sweep.members import Group
from gradxform.sweep.search import Halving, Population, Task, evolve
from gradxform.sweep.store import flat, unflat
from gradxform.train.paced import Trained


class Progress:
    """Told what happens, in order; subclasses override what they show."""

    # whether metrics should be streamed although nobody asked for a report every few steps
    listens = False

    def begin(self, members: int, notes: list[str]):
        """The sweep starts; the notes say how its members are grouped."""

    def note(self, text: str):
        """Something the user should know."""

    def start(self, members: np.ndarray, what: str):
        """A chunk starts: it may be compiled first."""

    def step(
        self, members: np.ndarray, step: int, metrics: dict[str, np.ndarray], metric: str, mode: str
    ):
        """The members of the chunk under way have reached a step; metrics [n] are the latest."""

    def done(
        self, members: np.ndarray, trial, metric: str, mode: str, seconds: float,
        compile_seconds: float,
    ):  # fmt: skip
        """A chunk is finished and kept; the trial holds its metrics."""

    def kept(self, members: int):
        """A chunk was finished in an earlier run, or by another process."""


@dataclass(frozen=True)
class PausePlan:
    """When a training pauses, and why."""

    every: int | None
    halving: Halving | None
    population: Population | None
    progress: Progress

    def stride(self, steps: int) -> int:
        """After how many of its steps a training pauses, 0 for not at all."""
        if self.halving:
            self.halving.check(steps)
        if self.population:
            return self.population.check(steps).every
        if self.every:
            return min(self.every, steps)
        if self.halving:
            return self.halving.rungs[0]
        return max(1, steps // 20) if self.progress.listens else 0

    def stretch(self, rung: int, steps: int) -> tuple[int, int]:
        """The first step of a rung, and the one after its last."""
        ends = (0, *self.halving.rungs, steps) if self.halving else (0, steps)
        return ends[rung], ends[rung + 1]


def run_task(engine: Engine, pauses: PausePlan, task: Task, batched, carry, look, goodness):
    """A task from its first step to its last: `(trained, active [n], arrays to keep with it)`.

    The next steps are under way before the metrics of the last ones are looked at, so that the
    devices never wait for the reader; only a population, whose next steps depend on the metrics,
    has to.
    """
    steps, n = engine.steps, len(task.positions)
    begin, stop = pauses.stretch(task.rung, steps)
    start, initial, waiting, seen, active = begin, batched[0], [], [], np.ones(n, bool)

    def read(segment):
        metrics, ran, live = jax.device_get(segment)
        seen.append((metrics, ran))
        done = sum(len(next(iter(m.values()))[0]) for m, _ in seen)
        look(begin + done, {k: x[:n, -1] for k, x in metrics.items()})
        return live[:n]

    while start < stop and active.any():
        length = min(pauses.stride(steps), stop - start)
        carry, segment = engine.advance(batched, carry, length)
        waiting.append(segment)
        start += length
        if pauses.population and start < stop:
            active = read(waiting.pop())
            good = goodness({k: x[:n, -1] for k, x in seen[-1][0].items()})
            of = engine, pauses.population
            batched, carry = _evolved(*of, batched, carry, good, initial, start)
        elif len(waiting) > 1:
            active = read(waiting.pop(0))
    for segment in waiting:
        active = read(segment)
    history = {k: np.concatenate([metrics[k] for metrics, _ in seen], axis=1) for k in seen[0][0]}
    for k, x in history.items():
        rest = (0, 0), (0, stop - begin - x.shape[1])
        history[k] = np.pad(x, rest, constant_values=np.nan)
    numbers = batched[0] if pauses.population else ()
    arrays = {f"numbers/{i}": np.asarray(x)[:n] for i, x in enumerate(numbers)}
    if stop < steps:
        arrays |= {f"carry/{k}": x[:n] for k, x in flat(carry).items()}
    kept = engine.call("finish", batched, carry)
    return Trained(kept, history, sum(ran for _, ran in seen)), active, arrays


_evolve = jax.jit(evolve, static_argnames=("share", "factors"))


def _evolved(engine: Engine, population: Population, batched, carry, goodness, initial, step):
    """The batch after one evolution. What has an upper bound, as a decay rate has, stays below its
    initial maximum, and what is at least 1, as a growth is, stays so.
    """
    n, seeds = len(goodness), batched[1]
    key = jax.random.fold_in(jax.random.key(int(seeds[0])), step)
    members = jax.tree.map(lambda x: jnp.asarray(x)[:n], (carry, batched[0]))
    kinds = engine.group.intervals()
    ends = zip(initial, kinds, strict=True)
    high = tuple(jnp.max(x[:n], axis=0) if k and np.isfinite(k.high) else None for x, k in ends)
    low = tuple(k.low if k and k.low > 0 else None for k in kinds)
    goodness = jnp.asarray(goodness, float)
    how = {"share": population.share, "factors": tuple(map(float, population.factors))}
    grown = _evolve(key, goodness, *members, **how, low=low, high=high)[:2]
    at = np.resize(np.arange(n), len(seeds))
    grown, numbers = jax.tree.map(lambda x: x[at], grown)
    grown = jax.device_put(grown, jax.tree.leaves(carry)[0].sharding)
    return (jax.device_get(numbers), seeds), grown


def restored(sources, load: Callable, like, size: int):
    """The carries of members, each from the file of the rung below, repeated to fill the batch."""
    files = {name: load(name, "carry/") for name in dict.fromkeys(name for name, _ in sources)}
    rows = [{k: x[row] for k, x in files[name].items()} for name, row in sources]
    at = np.resize(np.arange(len(rows)), size)
    return unflat(like, {k: np.stack([rows[i][k] for i in at]) for k in rows[0]})


def notes(groups: list[Group]) -> list[str]:
    """One line for each structure: how many members share its program."""
    found = [f"{len(g.members)} members in one program: {g.description}" for g in groups]
    return [f"{len(groups)} structures, each compiled once", *found] if len(groups) > 1 else found
