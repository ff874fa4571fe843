"""`sweep(train, space)`: train every member of a space, many at once, and keep each chunk as it is
finished.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from gradxform.display.code import code
from gradxform.numerics import is_key
from gradxform.sweep.engine import Engine, PausePlan, Progress, notes, restored, run_task
from gradxform.sweep.members import Arguments, group
from gradxform.sweep.result import SweepResult, Trial, better
from gradxform.sweep.search import Halving, Population, Task, Tasks
from gradxform.sweep.space import Labelled, as_space
from gradxform.sweep.store import Folder, Memory, digest, fingerprint, flat
from gradxform.train.paced import Trained


def sweep(
    train: Callable[..., Any],
    space,
    *,
    metric: str | None = None,
    mode: str | None = None,
    out=None,
    chunk: int | None = None,
    memory: float | None = None,
    devices: int | Sequence[Any] | None = None,
    every: int | None = None,
    halving: Halving | None = None,
    population: Population | None = None,
    progress: Progress | None = None,
    patience: float = 600.0,
) -> SweepResult:
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
    earlier one was stopped. Under `jax.distributed`, processes that share the folder share the
    work, and each returns the whole result.

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
        patience: seconds to wait for a sign of life from another process.

    Memory: the parameters of all members without `out`; of one chunk with it.
    Raises:
        KeyError: a name that nothing has, with the candidates.
        ValueError: a number out of range; a folder or file that holds another sweep, or is damaged.
    """
    space = as_space(space)
    if not len(space):
        raise ValueError("sweep: the space has no settings")
    if chunk is not None and chunk < 1:
        raise ValueError(f"sweep: chunk must be at least 1; got {chunk}")
    if halving and population:
        raise ValueError("sweep: halving drops members and a population copies them; choose one")
    index, count = jax.process_index(), jax.process_count()
    if count > 1 and out is None:
        raise ValueError(f"sweep: {count} processes need out=, a folder that they share")
    arguments = Arguments(train)
    groups = group(arguments, space)
    engines = [Engine(train, some, _devices(devices)) for some in groups]
    store = Memory() if out is None else Folder(out, patience)
    began = time.perf_counter()
    pauses = PausePlan(every, halving, population, progress or Progress())
    runner = _Runner(engines, store, (index, count), metric, mode, pauses)
    plan = store.open(runner.plan(space, chunk, memory), index == 0)
    runner.progress.begin(len(space), notes(groups))
    done = runner.run(plan["chunks"])
    return runner.result(arguments, space, done, time.perf_counter() - began)


def _devices(devices) -> list[Any]:
    local = jax.local_devices()
    if devices is None or isinstance(devices, int):
        if devices is not None and not 1 <= devices <= len(local):
            raise ValueError(f"sweep: devices must lie between 1 and {len(local)}; got {devices}")
        return local[:devices]
    return list(devices)


class _Runner:
    """Runs tasks, each a batch of members from one rung to the next, in an order that all processes
    agree on.
    """

    def __init__(
        self,
        engines: list[Engine],
        store: Memory,
        processes: tuple[int, int],
        metric,
        mode,
        pauses: PausePlan,
    ):
        self.engines, self.store, self.processes, self.pauses = engines, store, processes, pauses
        self.metric, self.mode, self.progress = metric, mode, pauses.progress
        self.shapes: dict[int, Any] = {}
        self.summaries: dict[str, Trial] = {}

    def plan(self, space, chunk, memory) -> dict[str, Any]:
        """What identifies the sweep, and its chunks: cut so that each fits, and every process has
        one.
        """
        folder = isinstance(self.store, Folder)
        text = ""
        if folder:
            found = [engine.shapes() for engine in self.engines]
            self.shapes = {g: shapes for g, (shapes, _) in enumerate(found)}
            text = "\n".join(program for _, program in found)
        facts = {
            "settings": fingerprint(*(code(_plain(setting)) for setting in space)),
            "numbers": fingerprint(
                *(
                    code(x)
                    for e in self.engines
                    for x in (*e.group.leaves, e.group.treedef)
                    if np.ndim(x) == 0
                )
            ),
            "data": fingerprint(*(digest(flat(e.group.shared_arrays())) for e in self.engines))
            if folder
            else "",
            "program": fingerprint(text),
            "options": repr((self.metric, self.mode, self.pauses.halving, self.pauses.population)),
            "jax": jax.__version__,
        }
        plan = {
            "fingerprint": fingerprint(*(f"{k} {v}" for k, v in facts.items())),
            "facts": facts,
            "chunks": [],
        }
        if isinstance(self.store, Folder) and (
            self.processes[0] or self.store.file_of_plan.exists()
        ):
            return plan  # the one on disk counts: its chunks may have been cut elsewhere
        for g, engine in enumerate(self.engines):
            members = len(engine.group.members)
            size = min(chunk or members, -(-members // self.processes[1]))
            if chunk is None and not (self.pauses.population and not memory):
                size = engine.fitting(size, memory, self.pauses.stride)
            plan["chunks"] += [
                (g, list(range(i, min(i + size, members)))) for i in range(0, members, size)
            ]
        return plan

    def run(self, chunks) -> list[str]:
        """Every task that no process has finished and that is this one's; returns the names of all
        of them.
        """
        if self.pauses.population and len(chunks) > len(self.engines):
            self.progress.note(
                f"{len(chunks)} populations: members of different chunks do not compete; see chunk"
            )
        tasks = Tasks(
            chunks,
            self.pauses.halving,
            self.store.wait,
            self.summary,
            lambda t: t.goodness(self.metric, self.mode),
        )
        names: list[str] = []
        for turn, task in enumerate(tasks):
            names.append(task.name)
            if self.store.has(task.name):
                self.summary(task.name)  # raises here if it is not sound
                self.progress.kept(len(task.positions))
            elif turn % self.processes[1] == self.processes[0]:
                self._run_task(
                    task, tasks.width[task.group] if task.rung == 0 else len(task.positions)
                )
        self.store.wait(names)
        return names

    def _run_task(self, task: Task, size: int):
        engine, n = self.engines[task.group], len(task.positions)
        members = engine.group.members[task.positions]
        batched = engine.rows(task.positions, size)
        began, compiled = time.perf_counter(), engine.compile_seconds
        self.progress.start(members, engine.group.description)

        def look(step, latest):
            self._choose_metric(list(latest))
            self.progress.step(members, step, latest, self.metric, self.mode)

        steps = engine.steps_of(batched)
        if (self.pauses.halving or self.pauses.population) and not steps:
            raise TypeError(
                "sweep: halving and population need a training that can pause: return a Paced, or "
                "use sweep.fit"
            )
        if steps and self.pauses.stride(steps):
            like = engine.carry_shapes() if task.rung else None
            carry = (
                restored(task.sources, self.store.load, like, len(batched[1]))
                if task.rung
                else engine.begin(batched)
            )
            found = run_task(
                engine,
                self.pauses,
                task,
                batched,
                carry,
                look,
                lambda latest: better(latest[self.metric], self.mode),
            )
        else:
            found = engine.whole(batched)(batched, engine.shared), np.ones(n, bool), {}
        (params, history, ran), active = jax.device_get(_plain_keys(found[0])), found[1]
        arrays: dict[str, np.ndarray] = found[2]
        arrays |= {
            "group": np.full(n, task.group),
            "position": task.positions,
            "active": active,
            "ran": np.asarray(ran)[:n],
        }
        arrays |= {f"history/{k}": np.asarray(x)[:n] for k, x in history.items()}
        arrays |= {f"params/{k}": x[:n] for k, x in flat(params).items()}
        self.store.save(task.name, arrays)
        trial, spent = self.summary(task.name), engine.compile_seconds - compiled
        self.progress.done(
            members, trial, self.metric, self.mode, time.perf_counter() - began - spent, spent
        )

    def summary(self, name: str) -> Trial:
        """What is known of the members of a finished task, but for their parameters."""
        if name not in self.summaries:
            arrays = self.store.load(name)
            try:
                history = {
                    k.removeprefix("history/"): x
                    for k, x in arrays.items()
                    if k.startswith("history/")
                }
                numbers = [x for k, x in arrays.items() if k.startswith("numbers/")]
                found = Trial(
                    int(arrays["group"][0]),
                    arrays["position"],
                    arrays["ran"],
                    arrays["active"],
                    history,
                    numbers,
                )
            except (KeyError, IndexError) as error:
                raise ValueError(f"{name}: this chunk lacks {error}") from error
            self._choose_metric(list(history))
            self.summaries[name] = found
        return self.summaries[name]

    def _choose_metric(self, names: list[str]) -> None:
        if self.metric is None:
            preferred = ("val_accuracy", "val_loss", "accuracy", "loss", "train_loss")
            self.metric = next((name for name in preferred if name in names), names[0])
        if self.metric not in names:
            raise KeyError(f"sweep: metric {self.metric!r} is not among {names}")
        self.mode = self.mode or ("max" if "accuracy" in self.metric else "min")
        if self.mode not in ("min", "max"):
            raise ValueError(f'sweep: mode must be "min" or "max"; got {self.mode!r}')

    def result(self, arguments, space, names, seconds) -> SweepResult:
        """The whole sweep, put together from all chunks."""
        return SweepResult.of(
            arguments, space, [e.group for e in self.engines], {name: self.summary(name) for name in names}, self.store,
            self._params_like, self.metric, self.mode, seconds, sum(e.compile_seconds for e in self.engines),
        )  # fmt: skip

    def _params_like(self, g: int):
        if g not in self.shapes:
            self.shapes[g] = self.engines[g].shapes()[0]
        return self.shapes[g].params


def _plain_keys(trained: Trained) -> Trained:
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, trained)


def _plain(setting: dict[str, Any]) -> dict[str, Any]:
    return {k: v.value if isinstance(v, Labelled) else v for k, v in setting.items()}
