"""Which members run together: the chunks of a sweep, and after each rung the survivors, packed
anew.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.sweep.result import Trial
from gradxform.train.batches import whole


class Task(NamedTuple):
    """A batch of members of one group from one rung to the next.

    Attributes:
        name: of its file: the rung, then what tells it from its neighbours.
        rung: 0 for the first stretch.
        group: index of the group.
        positions: [n], positions in the group.
        sources: where each one's carry is: the name of a task of the rung below, and the row there.
    """

    name: str
    rung: int
    group: int
    positions: np.ndarray
    sources: list[tuple[str, int]]


def rungs(first: int, steps: int, factor: int = 3) -> tuple[int, ...]:
    """first, first · factor, first · factor², … below the number of steps."""
    found, first, factor = [], whole("rungs: first", first), whole("rungs: factor", factor, 2)
    while first < steps:
        found.append(first)
        first *= factor
    return tuple(found)


@dataclass(frozen=True)
class Halving:
    """Where members are compared, and which share goes on.

    Attributes:
        rungs: steps at which they are compared, ascending.
        keep: share that goes on from each.
        wait: whether a rung is decided when all members have reached it (successive halving), or
            block by block (ASHA).
    """

    rungs: tuple[int, ...]
    keep: float = 1 / 3
    wait: bool = True

    def check(self, steps: int | None = None) -> "Halving":
        """Return self, or raise ValueError for what cannot be, as far as the steps are known."""
        rungs = (0, *self.rungs, *([] if steps is None else [steps]))
        for rung in self.rungs:
            whole("halving: rungs", rung)
        if not self.rungs or any(b <= a for a, b in pairwise(rungs)):
            must = f"ascend from 1 to less than {'' if steps is None else f'the {steps} '}steps"
            raise ValueError(f"halving: rungs must {must}; got {self.rungs}")
        if not 0 < self.keep < 1:
            raise ValueError(f"halving: keep must lie in (0, 1); got {self.keep}")
        return self

    @property
    def fan(self) -> int:
        """How many blocks of one rung make a block of the next, in the asynchronous case."""
        return max(2, round(1 / self.keep))


class Tasks:
    """All tasks in an order that every process finds for itself, from results alone.

    `finished(names)` returns when those tasks are; `summary(name)` is what one of them found;
    `goodness(trial)` judges it.
    """

    def __init__(self, chunks, halving: Halving | None, finished, summary, goodness):
        self.halving, self.finished, self.goodness = halving, finished, goodness
        self.summary: Callable[[str], Trial] = summary
        self.first: list[Task] = []
        self.width: dict[int, int] = {}
        for c, (g, positions) in enumerate(chunks):
            self.first.append(Task(f"0-{c:05d}", 0, g, np.array(positions), []))
            self.width[g] = max(self.width.get(g, 0), len(positions))

    def __iter__(self) -> Iterator[Task]:
        if self.halving is None:
            yield from self.first
        elif self.halving.wait:
            yield from self._level_by_level(self.halving)
        else:
            for g in self.width:
                first = [task for task in self.first if task.group == g]
                yield from self._as_they_come(first, self.halving)

    def _level_by_level(self, halving: Halving):
        tasks = self.first
        for rung in range(1, len(halving.rungs) + 1):
            yield from tasks
            names = [task.name for task in tasks]
            tasks = self._promote(halving, rung, names, names)
        yield from tasks

    def _as_they_come(self, first: list[Task], halving: Halving):
        """As soon as a few blocks have reached a rung, their best go on."""
        top, fan = len(halving.rungs), halving.fan
        reached: list[list[str]] = [[] for _ in range(top + 1)]
        taken = [0] * (top + 1)

        def arrive(task: Task):
            yield task
            reached[task.rung].append(task.name)
            yield from rise(task.rung, fan)

        def rise(rung: int, least: int):
            block = reached[rung][taken[rung] :]
            if rung < top and len(block) >= least:
                taken[rung] += len(block)
                for task in self._promote(halving, rung + 1, list(reached[rung]), block):
                    yield from arrive(task)

        for task in first:
            yield from arrive(task)
        for rung in range(top):  # what is left over
            yield from rise(rung, 1)

    def _promote(self, halving: Halving, rung: int, seen: list[str], block: list[str]):
        """The tasks of a rung: those of the block that are among the best share of all seen, in
        full batches.
        """
        if not seen:
            return []
        self.finished(seen)
        trials = [self.summary(name) for name in seen]
        goodness = np.concatenate([self.goodness(trial) for trial in trials])
        goodness = np.where(np.concatenate([trial.active for trial in trials]), goodness, -np.inf)
        rows = []
        for name, t in zip(seen, trials, strict=True):
            rows += [(name, t.group, int(at), row) for row, at in enumerate(t.positions)]
        inside = np.array([i for i, row in enumerate(rows) if row[0] in set(block)])
        chosen = [rows[i] for i in promoted(goodness, inside, halving.keep)]
        tasks = []
        for g in dict.fromkeys(row[1] for row in chosen):
            members = sorted((row for row in chosen if row[1] == g), key=lambda row: row[2])
            for i in range(0, len(members), self.width[g]):
                part = members[i : i + self.width[g]]
                name = f"{rung}-{block[0].split('-')[1]}-{g}-{i // self.width[g]:05d}"
                positions = np.array([row[2] for row in part])
                tasks.append(Task(name, rung, g, positions, [(row[0], row[3]) for row in part]))
        return tasks


def promoted(goodness: np.ndarray, block: np.ndarray, keep: float) -> np.ndarray:
    """Which of a block go on: those among the best share of all seen so far, in the order of the
    block.

    Shapes: goodness [n], more is better, -inf never goes on; block, indices into it; returns a part
    of block.
    """
    places = max(1, int(keep * len(goodness) + 1e-9))
    best = np.argsort(-goodness, kind="stable")[:places]
    chosen = set(best[np.isfinite(goodness[best])].tolist())
    return np.array([i for i in block.tolist() if i in chosen], int)


@dataclass(frozen=True)
class Population:
    """When and how a population evolves.

    Attributes:
        every: steps between two evolutions.
        share: of the members, that is replaced, and that is copied from.
        factors: what numbers are multiplied by, each with the same chance.
    """

    every: int
    share: float = 0.2
    factors: tuple[float, ...] = (0.8, 1.25)

    def check(self, steps: int | None = None) -> "Population":
        """Return self, or raise ValueError for what cannot be, as far as the steps are known."""
        if whole("population: every", self.every, 0) < 1 or self.every > (steps or self.every):
            must = f"lie between 1 and the {'' if steps is None else f'{steps} '}steps"
            raise ValueError(f"population: every must {must}; got {self.every}")
        if not 0 < self.share <= 0.5:
            raise ValueError(f"population: share must lie in (0, 0.5]; got {self.share}")
        if not self.factors or not all(0 < x < float("inf") for x in self.factors):
            must = "hold positive, finite numbers"
            raise ValueError(f"population: factors must {must}; got {self.factors}")
        return self


def evolve(
    key, goodness, carries, numbers, *, share: float = 0.2, factors=(0.8, 1.25), low=None, high=None
):
    """One evolution: `(carries, numbers, parents)`.

    Every member of the worst share becomes a copy of a random one of the best share, carry and
    numbers alike; each of its numbers is then multiplied by one of the factors. The others stay as
    they are. A shared decay rate such as 0.9 should be kept below its bound with `high`.

    Shapes: goodness [n], more is better, NaN is worst; every leaf of carries and numbers [n, ...];
    low and high as numbers, without the leading axis, or None. parents [n] int32: whom each
    continues.
    """
    n = goodness.shape[0]
    k = max(1, int(share * n))
    draw, *keys = jax.random.split(key, 1 + len(jax.tree.leaves(numbers)))
    goodness = jnp.where(jnp.isnan(goodness), -jnp.inf, goodness)
    order = jnp.argsort(goodness, descending=True)
    parents = jnp.arange(n, dtype=jnp.int32)
    chosen = order[jax.random.randint(draw, (k,), 0, k)].astype(jnp.int32)
    parents = parents.at[order[n - k :]].set(chosen)
    replaced = parents != jnp.arange(n, dtype=jnp.int32)

    def perturb(key, x, lowest, highest):
        factor = jax.random.choice(key, jnp.asarray(factors, float), x.shape)
        moved = (x * factor.astype(x.dtype)) if jnp.issubdtype(x.dtype, jnp.floating) else x
        moved = moved if lowest is None else jnp.maximum(moved, jnp.asarray(lowest, x.dtype))
        moved = moved if highest is None else jnp.minimum(moved, jnp.asarray(highest, x.dtype))
        return jnp.where(replaced.reshape(n, *[1] * (x.ndim - 1)), moved, x)

    def copy(tree):
        return jax.tree.map(lambda x: x[parents], tree)

    leaves, treedef = jax.tree.flatten(copy(numbers))
    bounds = [[None] * len(leaves) if b is None else treedef.flatten_up_to(b) for b in (low, high)]
    leaves = [perturb(*row) for row in zip(keys, leaves, *bounds, strict=True)]
    return copy(carries), treedef.unflatten(leaves), parents
