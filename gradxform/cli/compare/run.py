"""The experiment: a sweep over methods × learning rates × seeds, a method at a time.

All members of a method are one program (`gradxform.sweep`), run epoch by epoch, so that progress
can be shown and a finished method be kept whatever happens afterwards; while one method trains, the
next ones are compiled.
"""

import functools
import json
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.cli.compare.table import Result
from gradxform.cli.experiment import Experiment, evaluate
from gradxform.cli.live import Methods
from gradxform.cli.problems import Problem
from gradxform.sweep import Paced, SweepResult, Unsound, grid
from gradxform.sweep.run import AHEAD, Preparation, prepare
from gradxform.sweep.store import write_atomically
from gradxform.train import EarlyStopping, Training

FORMAT = 2  # of the folder: raise it when results of an older version can no longer be read


class Outcome(NamedTuple):
    """What a comparison left behind: results in the order asked for, failures, whether it was cut
    short.
    """

    results: list[Result]
    failed: dict[str, str]
    interrupted: bool


def file_of(method: str) -> str:
    """The name of a method's folder: `module:factory` is no name of a file everywhere."""
    return method.replace(":", ".")


def open_folder(path: Path, facts: dict, resume: bool) -> None:
    """Begin a comparison in its folder, or go on with one that holds results of these settings."""
    settings, facts = path / "settings.json", {"format": FORMAT, **facts}
    if not resume:
        write_atomically(settings, json.dumps(facts, indent=1).encode())
        return
    try:
        before = json.loads(settings.read_text())
        names = [name for name in {**before, **facts} if before.get(name) != facts.get(name)]
    except (ValueError, OSError, TypeError, AttributeError) as error:
        raise Problem(f"--resume: {settings} is damaged ({error}); choose another --out") from error
    if names:
        changes = [f"{name} was {before.get(name)!r}, now {facts.get(name)!r}" for name in names]
        text = f"holds results of other settings ({', '.join(changes)}); repeat those"
        raise Problem(f"--resume: {path} {text}, or choose another --out")


def member(experiment: Experiment, method, learning_rate) -> Training:
    """The training of one member; the learning rate may be traced."""
    settings = experiment.settings
    return Training(
        experiment.loss,
        settings.transformation(method, learning_rate, experiment.updates),
        experiment.batch_size,
        evaluate=experiment.validate,
        stopping=EarlyStopping(settings.patience) if settings.patience else None,
        drop_last=True,
    )


def start_of(experiment: Experiment):
    """The initial parameters and the key of each seed, the same for every method: leaves of [S,
    ...].
    """
    keys = jax.vmap(jax.random.key)(jnp.arange(experiment.settings.seeds, dtype=jnp.uint32))
    init_keys, run_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    return jax.jit(jax.vmap(experiment.model.init))(init_keys), run_keys


def training(experiment: Experiment, methods: dict):
    """The function that is swept: a method's name, a learning rate, the number of a seed."""
    starts, parts = start_of(experiment), experiment.parts

    def train(
        *, method, learning_rate, seed=0.0, start=starts, data=parts[0], validation=parts[1],
        test=parts[2],
    ):  # fmt: skip
        params, key = jax.tree.map(lambda x: x[jnp.asarray(seed).astype(jnp.int32)], start)
        run = member(experiment, methods[method], learning_rate)

        def kept(carry):
            end = run.result(carry, {})
            metrics, rows = evaluate(experiment, end.params, test)
            return {"test": metrics, "rows": rows, "diverged": end.diverged, "best": end.best_epoch}

        return Paced(
            init=lambda: run.init(params, key),
            step=lambda carry, drawn: run.epoch(carry, data, validation, drawn),
            steps=experiment.settings.epochs,
            params=kept,
            active=lambda carry: carry.active,
            draw=lambda carry: run.draw(carry, data),
        )

    return train


def prepared(train, experiment: Experiment, method, out: Path | None, progress) -> Preparation:
    """The sweep of a method, its programs on their way through the compiler."""
    settings = experiment.settings
    seeds = [float(seed) for seed in range(settings.seeds)]
    rates = settings.rates(method).astype(float).tolist()
    metric = "val_loss" if experiment.data.task == "regression" else "val_accuracy"
    space = grid(method=[method.name], learning_rate=rates, seed=seeds)
    how = {"metric": metric, "chunk": settings.chunk, "every": 1, "progress": progress}
    how |= {"patience": settings.wait, "process": settings.share}
    return prepare(train, space, out=out, **how)


def result_of(experiment: Experiment, method, found: SweepResult) -> Result:
    """What a comparison reads off the sweep of a method."""
    rates = experiment.settings.rates(method)
    shape = len(rates), experiment.settings.seeds
    ran = int(found.steps.max())
    history = {k: x.T[:ran].reshape(ran, *shape) for k, x in found.history.items()}
    kept = jax.tree.map(lambda x: np.asarray(x).reshape(*shape, *x.shape[1:]), found.stacked())
    best = np.maximum(kept["best"], 0)
    lost = ~np.isfinite(np.take_along_axis(history["val_loss"], best[None], axis=0)[0])
    return Result(
        method=method.name,
        rates=rates,
        history=history,
        test=kept["test"],
        rows=kept["rows"],
        diverged=kept["diverged"] | lost,
        epochs=found.steps.reshape(shape),
        best=best,
        seconds=sum(found.spent),
        compile_seconds=found.spent[1],
        updates=experiment.updates // experiment.settings.epochs,
    )


def train_method(experiment: Experiment, method, sweep: Preparation) -> Result:
    """Train all members of a method that are not trained yet."""
    return result_of(experiment, method, sweep.finish())


def run(experiment: Experiment, methods: dict, folder: Path, progress: Methods) -> Outcome:
    """Train the methods that the folder does not hold yet, keeping each as it finishes."""
    results: dict[str, Result] = {}
    failed: dict[str, str] = {}
    sweeps: dict[str, Future] = {}
    names, kept, interrupted = list(methods), folder / "results", False
    tracer = ThreadPoolExecutor(1)  # traces the next methods while the devices train this one
    train = functools.cache(lambda: training(experiment, methods))

    def begin(name: str) -> Future:
        if name not in sweeps:
            given = experiment, methods[name], kept / file_of(name), progress
            sweeps[name] = tracer.submit(lambda: prepared(train(), *given))
        return sweeps[name]

    try:
        for name in names:  # before anything is trained, all that is kept must be sound
            if (kept / file_of(name) / "sweep.json").exists() and begin(name).result().complete():
                found = sweeps[name].result().finish()
                results[name] = result_of(experiment, methods[name], found)
        for at, name in enumerate(names):
            if name in results:
                progress.found(name)
                continue
            progress.turn(name)
            try:
                for soon in names[at : at + 1 + AHEAD]:
                    begin(soon)
                result = train_method(experiment, methods[name], sweeps.pop(name).result())
            except (Unsound, OSError):  # of the folder, not of the method
                raise
            except Exception as error:  # one that cannot train must not lose the others
                failed[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                (folder / f"{file_of(name)}.error.txt").write_text(traceback.format_exc())
                progress.failed(failed[name])
                continue
            results[name] = result
            updates = result.epochs.sum() * result.updates
            progress.ended(result, updates / max(result.seconds - result.compile_seconds, 1e-9))
    except KeyboardInterrupt:
        interrupted = True
    except Unsound as error:
        raise Problem(str(error)) from error
    finally:
        tracer.shutdown(cancel_futures=True)
    return Outcome([results[name] for name in names if name in results], failed, interrupted)
