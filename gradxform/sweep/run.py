"""`sweep(train, space)`: train every member of a space, many at once, and keep each chunk as it is
finished.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np

from gradxform.display.code import code
from gradxform.numerics import is_key
from gradxform.sweep.engine import Engine
from gradxform.sweep.members import Arguments, group
from gradxform.sweep.result import SweepResult, Trial, better
from gradxform.sweep.search import Halving, Population, Task, Tasks
from gradxform.sweep.space import Setting, as_space, unlabelled
from gradxform.sweep.store import DELETE, Folder, Memory, Unsound, digest, fingerprint, flat, within
from gradxform.sweep.stretches import PausePlan, Progress, notes, restored, run_task
from gradxform.train.batches import whole

AHEAD = 2  # structures whose programs are compiled while another trains


def sweep(
    train: Callable, space, *, metric: str | None = None, mode: str | None = None, out=None,
    chunk: int | None = None, memory: float | None = None, devices: int | Sequence | None = None,
    every: int | None = None, halving: Halving | None = None, population: Population | None = None,
    progress: Progress | None = None, patience: float = 600.0,
    process: tuple[int, int] | None = None,
) -> SweepResult:  # fmt: skip
    """Train every member of a space: a function of its arguments, at the values that each setting
    names.

        def train(tx=gx.adam(1e-3), key=None, l2=0.0): ...; return params, {"loss": losses}
        result = sweep(train, grid(learning_rate=[1e-3, 1e-2], l2=[0.0, 1e-4], seed=range(3)))

    A name is an argument of train, or a number anywhere in one ("learning_rate", "ema.decay",
    "learning_rate.peak_value"). Members that differ in numbers only share one compiled program and
    run as one batch; an int, a string, another method is compiled by itself. `seed` (0 without such
    an axis) makes the key, `jax.random.key(seed)`, or, where train has a key by default,
    `jax.random.fold_in(key, seed)`.

    With `out`, every finished chunk is kept in that folder, and the same call goes on where an
    earlier one was stopped. Processes that share the folder share the work, and each returns the
    whole result; they talk to each other through the folder alone.

    >>> from gradxform.sweep import grid, sweep
    >>> def train(tx=gx.sgd(0.1)):
    ...     return {"loss": (1 - tx.learning_rate) ** jnp.arange(1, 4)}  # three steps
    >>> found = sweep(train, grid(learning_rate=[0.1, 0.5, 0.9]), metric="loss", mode="min")
    >>> found.best.setting, found.best.optimizer
    ({'learning_rate': 0.9}, sgd(learning_rate=0.9))

    Args:
        metric: what members are judged by, at their last step; by default a validation accuracy or
            loss, else the
        first. mode: "min" or "max"; by default "max" for a metric with "accuracy" in its name.
        out: a folder for results.
        chunk: members trained at once; by default as many as fit into memory, which is measured.
        memory: bytes that a chunk may need on each device; by default half of what is free.
        devices: how many local devices, or which; all by default.
        every: steps between two reports of metrics of a training that can pause.
        halving: compare members at rungs, and go on with the best.
        population: let the members of each chunk evolve: population-based training.
        progress: is told what happens; `gradxform.cli.sweep.live` shows it.
        patience: seconds to wait for a sign of life from another process: one that trains gives
            one every five seconds, however long its chunk takes.
        process: (which one this is, of how many), counted from 0; by default as `jax.distributed`
            has it.

    Memory: the parameters of all members without `out`; of one chunk with it.
    Raises:
        KeyError: a name that nothing has, with the candidates.
        ValueError: a number out of range; a folder or file that holds another sweep, or is damaged.
        TimeoutError: another process gives no sign of life.
    """
    return prepare(
        train, space, metric=metric, mode=mode, out=out, chunk=chunk, memory=memory,
        devices=devices, every=every, halving=halving, population=population, progress=progress,
        patience=patience, process=process,
    ).finish()  # fmt: skip


def prepare(
    train, space, *, metric=None, mode=None, out=None, chunk=None, memory=None, devices=None,
    every=None, halving=None, population=None, progress=None, patience=600.0, process=None,
) -> "Preparation":  # fmt: skip
    """A sweep whose arguments are checked and whose first programs are being compiled; `finish()`
    trains it.
    """
    space = as_space(space)
    if not len(space):
        raise ValueError("sweep: the space has no settings")
    for name, x in (("chunk", chunk), ("every", every)):
        if x is not None:
            whole(f"sweep: {name}", x)
    for name, x in (("memory", memory), ("patience", patience)):
        if x is not None and not (isinstance(x, int | float) and x > 0):
            raise ValueError(f"sweep: {name} must be a positive number; got {x!r}")
    if mode not in (None, "min", "max"):
        raise ValueError(f'sweep: mode must be "min" or "max"; got {mode!r}')
    if halving and population:
        raise ValueError("sweep: halving drops members and a population copies them; choose one")
    for schedule in filter(None, (halving, population)):
        schedule.check()
    index, count = process or (jax.process_index(), jax.process_count())
    if not 0 <= whole("sweep: process", index, 0) < whole("sweep: processes", count):
        raise ValueError(f"sweep: process must be (index, count), index below count; got {process}")
    if count > 1 and out is None:
        raise ValueError(f"sweep: {count} processes need out=, a folder they share")
    if out is not None and not os.fspath(out):
        raise ValueError('sweep: out must name a folder, such as "."; got an empty text')
    arguments = Arguments(train)
    groups, kept = group(arguments, space), out is not None
    engines = [Engine(train, some, _devices(devices), kept) for some in groups]
    store = Memory() if out is None else Folder(out, patience, index)
    pauses = PausePlan(every, halving, population, progress or Progress())
    judged, many = (metric, mode), (index, count)
    return Preparation(arguments, space, engines, store, pauses, judged, chunk, memory, many)


def _devices(devices) -> list:
    local = jax.local_devices()
    if devices is None:
        return local
    if isinstance(devices, int):
        if isinstance(devices, bool) or not 1 <= devices <= len(local):
            raise ValueError(f"sweep: devices must lie between 1 and {len(local)}; got {devices}")
        return local[:devices]
    if not devices or not all(isinstance(x, jax.Device) for x in devices):
        must = "must be a number, or a list of at least one device of jax.local_devices()"
        raise ValueError(f"sweep: devices {must}; got {devices!r}")
    return list(devices)


class Preparation:
    """Runs tasks, each a batch of members from one rung to the next, in an order that all processes
    agree on.
    """

    def __init__(
        self, arguments: Arguments, space, engines: list[Engine], store: Memory, pauses: PausePlan,
        judged: tuple, chunk: int | None, memory: float | None, process: tuple[int, int],
    ):  # fmt: skip
        self.arguments, self.space, self.engines, self.store = arguments, space, engines, store
        self.pauses, self.progress, self.chunk, self.memory = pauses, pauses.progress, chunk, memory
        self.metric, self.mode = judged
        self.process, self.processes = process
        self.known: dict[str, Task] = {}
        self.summaries: dict[str, Trial] = {}
        if not self.store.planned:
            self.compile_ahead(0)

    def size(self, engine: Engine) -> int:
        """The members of a chunk before its memory is known: every process gets some."""
        members = len(engine.group.members)
        return min(self.chunk or members, -(-members // self.processes))

    def compile_ahead(self, g: int, sizes: dict[int, int] | None = None):
        """Begin to compile the programs of a group and of the next ones."""
        for at in range(g, min(g + 1 + AHEAD, len(self.engines))):
            size = (sizes or {}).get(at) or self.size(self.engines[at])
            with contextlib.suppress(Exception):  # raised where its turn comes
                self.engines[at].ahead(size, self.pauses.stride)

    def complete(self) -> bool:
        """Whether every chunk was finished before.

        Raises:
            Unsound: the folder holds another sweep, or is damaged.
        """
        if not self.store.planned:
            return False
        return all(self.store.has(task.name) for task in self._named(self._tasks(self.chunks())))

    def finish(self) -> SweepResult:
        """Train what is not finished, and put everything together."""
        began, groups = time.perf_counter(), [e.group for e in self.engines]
        compiled = sum(e.compile_seconds for e in self.engines)
        chunks = self.chunks()
        self.progress.begin(len(self.space), notes(groups))
        trials = {name: self.summary(name) for name in self.run_tasks(chunks)}
        return SweepResult.of(
            self.arguments, self.space, groups, trials, self.store,
            lambda g: self.engines[g].member.params, self.metric, self.mode,
            time.perf_counter() - began + compiled, sum(e.compile_seconds for e in self.engines),
        )  # fmt: skip

    def chunks(self) -> list[tuple[int, list[int]]]:
        """The chunks of the plan that counts: the one on disk, if there is one.

        Raises:
            Unsound: the folder holds another sweep, or its plan is no partition of the members.
        """
        with contextlib.nullcontext() if self.store.planned else self.store.alive():
            plan = self.plan()
        chunks = self.store.open(plan, self.process == 0)["chunks"]
        held = sorted((g, i) for g, positions in chunks for i in positions)
        members = [(g, i) for g, e in enumerate(self.engines) for i in range(len(e.group.members))]
        if held != members or not all(positions for _, positions in chunks):
            raise self.store.damaged("its chunks do not hold every member once")
        return chunks

    def plan(self) -> dict:
        """What identifies the sweep, and its chunks: cut so that each fits, and every process has
        one.
        """
        groups, texts, data = [e.group for e in self.engines], [], []
        if isinstance(self.store, Folder):
            texts = [str(part) for e in self.engines for part in e.member[1:]]
            data = [digest(flat(g.shared_arrays())) for g in groups]
        numbers = [x for g in groups for x in (*g.leaves, g.treedef) if np.ndim(x) == 0]
        judged = self.metric, self.mode, self.pauses.halving, self.pauses.population
        facts = {
            "settings": fingerprint(*map(_written, self.space)),
            "numbers": fingerprint(*map(code, numbers)),
            "data": fingerprint(*data),
            "program": fingerprint(*texts),
            "options": repr(judged),
            "jax": jax.__version__,
        }
        chunks, known = [], fingerprint(*(f"{k} {v}" for k, v in facts.items()))
        plan = {"fingerprint": known, "facts": facts, "chunks": chunks}
        if self.process or self.store.planned:
            return plan  # the one on disk counts: its chunks may have been cut elsewhere
        for g, engine in enumerate(self.engines):
            members, size = len(engine.group.members), self.size(engine)
            if self.chunk is None and not (self.pauses.population and not self.memory):
                self.compile_ahead(g)
                size = engine.fitting(size, self.memory, self.pauses.stride)
            starts = range(0, members, size)
            chunks += [(g, list(range(i, min(i + size, members)))) for i in starts]
        return plan

    def run_tasks(self, chunks) -> list[str]:
        """Every task that no process has finished and that is this one's; returns the names of all
        of them.
        """
        if self.pauses.population and len(chunks) > len(self.engines):
            why = "members of different chunks do not compete; see chunk"
            self.progress.note(f"{len(chunks)} populations: {why}")
        tasks = self._tasks(chunks)
        names: list[str] = []
        for turn, task in enumerate(self._named(tasks)):
            names.append(task.name)
            if self.store.has(task.name):
                self.summary(task.name)  # raises here if it is not sound
                self.progress.kept(len(task.positions))
            elif turn % self.processes == self.process:
                self.compile_ahead(task.group, tasks.width)
                size = tasks.width[task.group] if task.rung == 0 else len(task.positions)
                with self.store.alive():
                    self.carry_out(task, size)
        self.store.wait(names)
        return names

    def _named(self, tasks: Iterable[Task]) -> Iterator[Task]:
        """The tasks, each known by its name before it is carried out or read back."""
        for task in tasks:
            self.known[task.name] = task
            yield task

    def _tasks(self, chunks) -> Tasks:
        judge = lambda trial: trial.goodness(self.metric, self.mode)  # noqa: E731
        return Tasks(chunks, self.pauses.halving, self.store.wait, self.summary, judge)

    def carry_out(self, task: Task, size: int):
        """Train the members of a task, and keep what comes of it."""
        engine, n = self.engines[task.group], len(task.positions)
        members, batched = engine.group.members[task.positions], engine.rows(task.positions, size)
        began, compiled = time.perf_counter(), engine.compile_seconds
        self.progress.start(members, engine.group.description)

        def look(step, latest):
            self._choose_metric(list(latest))
            self.progress.step(members, step, latest, self.metric, self.mode)

        steps = engine.steps
        if (self.pauses.halving or self.pauses.population) and not steps:
            ways = "return a Paced, or use sweep.fit"
            raise TypeError(f"sweep: halving and population need a training that can pause: {ways}")
        if steps and self.pauses.stride(steps):
            if task.rung:
                like = engine.member.first.out
                carry = restored(task.sources, self.store.load, like, len(batched[1]))
            else:
                carry = engine.call("begin", batched)
            judge = lambda latest: better(latest[self.metric], self.mode)  # noqa: E731
            found = run_task(engine, self.pauses, task, batched, carry, look, judge)
        else:
            found = engine.call("whole", batched), np.ones(n, bool), {}
        trained, active, arrays = found
        params, history, ran = jax.device_get(jax.tree.map(_plain_key, trained))
        seconds = time.perf_counter() - began - (engine.compile_seconds - compiled)
        spent = engine.compile_seconds - engine.compile_told
        engine.compile_told = engine.compile_seconds
        arrays |= {"group": np.full(n, task.group), "position": task.positions, "active": active}
        arrays |= {"ran": np.asarray(ran)[:n], "seconds": np.array([seconds, spent])}
        arrays |= {f"history/{k}": np.asarray(x)[:n] for k, x in history.items()}
        arrays |= {f"params/{k}": x[:n] for k, x in flat(params).items()}
        self.store.save(task.name, arrays)
        self.progress.done(members, self.summary(task.name), self.metric, self.mode, seconds, spent)

    def summary(self, name: str) -> Trial:
        """What is known of the members of a finished task, but for their parameters."""
        if name not in self.summaries:
            arrays, task = self.store.load(name), self.known[name]
            history, numbers = within("history/", arrays), within("numbers/", arrays)
            try:
                found = Trial(
                    int(arrays["group"][0]), arrays["position"], arrays["ran"], arrays["active"],
                    history, list(numbers.values()), arrays["seconds"],
                )  # fmt: skip
            except (KeyError, IndexError) as error:
                raise Unsound(f"{self.store.file(name)} lacks {error}; {DELETE}") from error
            if (found.group, found.positions.tolist()) != (task.group, task.positions.tolist()):
                other = "holds other members than the plan gives it: it was cut otherwise"
                raise Unsound(f"{self.store.file(name)} {other}; {DELETE}")
            self.summaries[name] = found
        self._choose_metric(list(self.summaries[name].history))
        return self.summaries[name]

    def _choose_metric(self, names: list[str]):
        if self.metric is None:
            preferred = ("val_accuracy", "val_loss", "accuracy", "loss", "train_loss")
            self.metric = next((name for name in preferred if name in names), names[0])
        if self.metric not in names:
            raise KeyError(f"sweep: metric {self.metric!r} is not among {names}")
        self.mode = self.mode or ("max" if "accuracy" in self.metric else "min")


def _plain_key(x):
    return jax.random.key_data(x) if is_key(x) else x


def _written(setting: Setting) -> str:
    return code({name: unlabelled(x) for name, x in setting.items()})
