"""The programs that train the members of one group: vmap over the members, over all devices, in
chunks that fit.
"""

import math
import os
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gradxform.sweep.members import Group
from gradxform.sweep.search import Halving, Population, Task, evolve
from gradxform.sweep.store import digest, flat, unflat
from gradxform.train.paced import Paced, Paused, Trained, advance, run_paced, trained

SHARE = 0.5  # of the memory that is free, for what a chunk needs on the devices


class Engine:
    """Compiles each program of a group once for each number of members, and runs it.

    Members are independent, so devices share nothing: each runs its own slice, without any
    collective.
    """

    def __init__(self, train: Callable[..., Any], group: Group, devices: Sequence[Any]):
        self.train, self.group = train, group
        self.mesh = Mesh(np.array(devices), ("members",))
        self.compile_seconds = 0.0
        self.compiled: dict[Any, Any] = _programs(train, (group.identity, self.mesh))
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        self.shared = jax.device_put(group.shared_arrays(), device=everywhere)

    def _call(self, batched, shared):
        return self.train(**self.group.arguments(*batched, shared))  # pyright: ignore[reportCallIssue]

    def _whole(self, batched, shared) -> Trained:
        return trained(self._call(batched, shared))

    def _run(self, batched, shared) -> Trained:
        return run_paced(self._call(batched, shared))

    def _begin(self, batched, shared):
        return self._paced(batched, shared).init()

    def _finish(self, batched, shared, carry):
        return self._paced(batched, shared).params(carry)

    def _paced(self, batched, shared) -> Paced:
        out = self._call(batched, shared)
        if not isinstance(out, Paced):
            raise TypeError(
                f"sweep: train returned a Paced for some members and {type(out).__name__} for "
                "others of one structure"
            )
        return out

    def _advance(self, steps: int):
        def f(batched, shared, carry):
            paced = self._paced(batched, shared)
            carry, metrics, ran = advance(paced, carry, steps)
            return carry, (metrics, ran, paced.active(carry))

        return f

    def padded(self, members: int) -> int:
        """The number of rows a batch of so many members has: every device gets equally many."""
        return -(-members // self.mesh.size) * self.mesh.size

    def program(self, name: str, f, batched, *carry):
        """The compiled program of a name for this number of members; a carry is donated."""
        key = name, len(batched[1])
        if key not in self.compiled:
            began = time.perf_counter()
            along, everywhere = PartitionSpec("members"), PartitionSpec()
            specs = along, everywhere, *[along] * len(carry)
            vmapped = jax.vmap(f, in_axes=(0, None, *[0] * len(carry)))
            if self.mesh.size > 1:
                vmapped = jax.shard_map(
                    vmapped, mesh=self.mesh, in_specs=specs, out_specs=along, check_vma=False
                )
            shardings = [NamedSharding(self.mesh, spec) for spec in specs]
            donated = (2,) if name.startswith("advance") else ()
            jitted = jax.jit(
                vmapped,
                in_shardings=tuple(shardings),
                out_shardings=shardings[0],
                donate_argnums=donated,
            )
            self.compiled[key] = (
                jitted.trace(*jax.tree.map(_aval, (batched, self.shared, *carry))).lower().compile()
            )
            self.compile_seconds += time.perf_counter() - began
        return self.compiled[key]

    def rows(self, positions: np.ndarray, size: int | None = None):
        """The numbers and seeds of members by position in the group, repeated to fill the batch."""
        numbers, seeds = self.group.rows(np.resize(positions, self.padded(size or len(positions))))
        return jax.tree.map(
            lambda x: x.astype(jax.dtypes.canonicalize_dtype(x.dtype)), (numbers, seeds)
        )

    def steps_of(self, batched) -> int:
        """The steps of a training that can pause; 0 for one that cannot, which is then compiled."""
        if "steps" not in self.compiled:
            try:
                self.program("whole", self._whole, batched)
                self.compiled["steps"] = 0
            except Paused as found:
                self.compiled["steps"] = found.steps
        return self.compiled["steps"]

    def whole(self, batched):
        """The program that trains members from beginning to end."""
        name, f = ("run", self._run) if self.steps_of(batched) else ("whole", self._whole)
        return self.program(name, f, batched)

    def begin(self, batched):
        """The first carry of members that can pause."""
        return self.program("begin", self._begin, batched)(batched, self.shared)

    def advance(self, batched, carry, steps: int):
        """So many steps further: `carry, (metrics [n, steps], steps run [n], active [n])`; the
        carry is donated.
        """
        return self.program(f"advance {steps}", self._advance(steps), batched, carry)(
            batched, self.shared, carry
        )

    def finish(self, batched, carry):
        """The parameters to keep."""
        return self.program("finish", self._finish, batched, carry)(batched, self.shared, carry)

    def shapes(self):
        """What one member leaves behind, as shapes: (Trained, its carry or None); and the text of
        its program.
        """
        one = jax.eval_shape(lambda x: jax.tree.map(lambda v: v[0], x), self.rows(np.arange(1)))
        traced = jax.jit(self._run).trace(one, self.shared)
        outputs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), traced.out_info)
        return outputs, f"{traced.jaxpr}" + digest(flat(traced.jaxpr.consts))

    def carry_shapes(self):
        """What one member hands from one rung to the next, as shapes."""
        return jax.eval_shape(
            self._begin,
            jax.eval_shape(lambda x: jax.tree.map(lambda v: v[0], x), self.rows(np.arange(1))),
            self.shared,
        )

    def fitting(self, most: int, memory: float | None, stride: Callable[[int], int]) -> int:
        """How many members fit: `most`, or fewer, found by compiling and asking for what the
        program needs.

        `stride` says after how many of its steps a training pauses, 0 for not at all.
        """
        budget = (
            memory
            if memory is not None
            else SHARE * available(self.mesh.devices.flat[0]) / self._sharers()
        )
        size = most
        while True:
            batched = self.rows(np.arange(min(size, len(self.group.members))), size)
            steps = self.steps_of(batched)
            if steps and stride(steps):
                carry = jax.eval_shape(
                    jax.vmap(self._begin, in_axes=(0, None)), batched, self.shared
                )
                need = needed(
                    self.program(
                        f"advance {stride(steps)}", self._advance(stride(steps)), batched, carry
                    )
                )
            else:
                need = needed(self.whole(batched))
            if need <= budget or size <= self.mesh.size:
                return size
            fit = (
                max(1, min(int(size * budget / need), size - 1) // self.mesh.size) * self.mesh.size
            )
            size = -(-most // -(-most // fit))  # chunks of equal size

    def _sharers(self) -> int:
        return self.mesh.size if self.mesh.devices.flat[0].platform == "cpu" else 1


_COMPILED: weakref.WeakKeyDictionary[Any, dict[Any, dict[Any, Any]]] = weakref.WeakKeyDictionary()


def _programs(train, key) -> dict[Any, Any]:
    """The programs of an earlier sweep of the same function and structure: a search calls sweep
    many times.
    """
    try:
        return _COMPILED.setdefault(train, {}).setdefault(key, {})
    except TypeError:  # what cannot be hashed or referred to weakly is compiled for each sweep
        return {}


def _aval(x) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def needed(compiled) -> int:
    """Bytes that one run of a compiled program takes on each device."""
    found = compiled.memory_analysis()
    if found is None:
        return 0
    return (
        found.temp_size_in_bytes
        + found.output_size_in_bytes
        + found.argument_size_in_bytes
        - found.alias_size_in_bytes
    )


def available(device) -> float:
    """Bytes that are free: on the device, or in this machine where the device is its processor."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return 1024 * float(lines["MemAvailable"].split()[0])
    pages = (
        os.sysconf("SC_AVPHYS_PAGES")
        if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names
        else 0
    )
    return pages * os.sysconf("SC_PAGE_SIZE") if pages else math.inf


class Progress:
    """Told what happens, in order; subclasses override what they show."""

    listens = False  # whether metrics should be streamed although nobody asked for a report every few steps

    def begin(self, members: int, notes: list[str]) -> None:
        """The sweep starts; the notes say how its members are grouped."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def start(self, members: np.ndarray, what: str) -> None:
        """A chunk starts: it may be compiled first."""

    def step(
        self, members: np.ndarray, step: int, metrics: dict[str, np.ndarray], metric: str, mode: str
    ) -> None:
        """The members of the chunk under way have reached a step; metrics [n] are the latest."""

    def done(
        self,
        members: np.ndarray,
        trial,
        metric: str,
        mode: str,
        seconds: float,
        compile_seconds: float,
    ) -> None:
        """A chunk is finished and kept; the trial holds its metrics."""

    def kept(self, members: int) -> None:
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


def run_task(
    engine: Engine,
    pauses: PausePlan,
    task: Task,
    batched,
    carry,
    look: Callable,
    goodness: Callable,
):
    """A task from its first step to its last: `(trained, active [n], arrays to keep with it)`.

    The next steps are under way before the metrics of the last ones are looked at, so that the
    devices never wait for the reader; only a population, whose next steps depend on the metrics,
    has to.
    """
    steps, n = engine.steps_of(batched), len(task.positions)
    begin, stop = pauses.stretch(task.rung, steps)
    start, initial, waiting, seen, active = begin, batched[0], [], [], np.ones(n, bool)

    def read(segment):
        metrics, ran, live = jax.device_get(segment)
        seen.append((metrics, ran))
        look(
            begin + sum(len(next(iter(m.values()))[0]) for m, _ in seen),
            {k: x[:n, -1] for k, x in metrics.items()},
        )
        return live[:n]

    while start < stop and active.any():
        length = min(pauses.stride(steps), stop - start)
        carry, segment = engine.advance(batched, carry, length)
        waiting.append(segment)
        start += length
        if pauses.population and start < stop:
            active = read(waiting.pop())
            latest = {k: x[:n, -1] for k, x in seen[-1][0].items()}
            batched, carry = _evolved(
                engine, pauses.population, batched, carry, goodness(latest), initial, start
            )
        elif len(waiting) > 1:
            active = read(waiting.pop(0))
    for segment in waiting:
        active = read(segment)
    history = {k: np.concatenate([metrics[k] for metrics, _ in seen], axis=1) for k in seen[0][0]}
    history = {
        k: np.pad(x, ((0, 0), (0, stop - begin - x.shape[1])), constant_values=np.nan)
        for k, x in history.items()
    }
    arrays = (
        {f"numbers/{i}": np.asarray(x)[:n] for i, x in enumerate(batched[0])}
        if pauses.population
        else {}
    )
    if stop < steps:
        arrays |= {f"carry/{k}": x[:n] for k, x in flat(carry).items()}
    return (
        Trained(engine.finish(batched, carry), history, sum(ran for _, ran in seen)),
        active,
        arrays,
    )


_evolve = jax.jit(evolve, static_argnames=("share", "factors"))


def _evolved(engine: Engine, population: Population, batched, carry, goodness, initial, step):
    """The batch after one evolution. What has an upper bound, as a decay rate has, stays below its
    initial maximum.
    """
    n, size = len(goodness), len(batched[1])
    key = jax.random.fold_in(jax.random.key(int(batched[1][0])), step)
    members = jax.tree.map(lambda x: jnp.asarray(x)[:n], (carry, batched[0]))
    bounded = engine.group.bounded()
    high = tuple(
        jnp.max(jnp.asarray(x[:n]), axis=0) if b else jnp.full(x.shape[1:], jnp.inf, x.dtype)
        for x, b in zip(initial, bounded, strict=True)
    )
    grown, numbers, _ = _evolve(
        key,
        jnp.asarray(goodness, float),
        *members,
        share=population.share,
        factors=population.factors,
        high=high,
    )
    at = np.resize(np.arange(n), size)
    grown, numbers = jax.tree.map(lambda x: x[at], (grown, numbers))
    return (jax.device_get(numbers), batched[1]), jax.device_put(
        grown, jax.tree.leaves(carry)[0].sharding
    )


def restored(sources, load: Callable, like, size: int):
    """The carries of members, each from the file of the rung below, repeated to fill the batch."""
    files = {name: load(name, "carry/") for name in dict.fromkeys(name for name, _ in sources)}
    rows = [
        {k.removeprefix("carry/"): x[row] for k, x in files[name].items()} for name, row in sources
    ]
    at = np.resize(np.arange(len(rows)), size)
    return unflat(like, {k: np.stack([rows[i][k] for i in at]) for k in rows[0]})


def notes(groups: list[Group]) -> list[str]:
    """One line for each structure: how many members share its program."""
    found = [f"{len(g.members)} members in one program: {g.description}" for g in groups]
    return [f"{len(groups)} structures, each compiled once", *found] if len(groups) > 1 else found
