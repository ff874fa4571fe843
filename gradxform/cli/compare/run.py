"""The experiment: train every method at every learning rate with every seed, each method's members
at once.

All members of a method are one `vmap` over the learning rate and the seed, compiled once and run
epoch by epoch, so that progress can be shown and a finished method be kept whatever happens
afterwards.
"""

import time
import traceback
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.cli.compare.results import Folder, Result
from gradxform.cli.experiment import Experiment, evaluate, row_losses
from gradxform.train import EarlyStopping, Training


class Outcome(NamedTuple):
    """What a comparison left behind: results in the order asked for, failures, whether it was cut
    short.
    """

    results: list[Result]
    failed: dict[str, str]
    interrupted: bool


def member(experiment: Experiment, method, learning_rate) -> Training:
    """The training of one member; the learning rate may be traced."""
    settings, model = experiment.settings, experiment.model

    def loss(params, batch, key):
        return jnp.mean(
            row_losses(experiment.data.task, model.apply(params, batch["x"], key), batch["y"])
        )

    return Training(
        loss,
        settings.transformation(method, learning_rate, experiment.updates),
        experiment.batch_size,
        evaluate=lambda params, data: evaluate(experiment, params, data)[0],
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


def train_method(experiment: Experiment, method, start, progress) -> Result:
    """Train all members of a method at once, from `start_of`, and test them."""
    settings, split = experiment.settings, experiment.split
    rates = settings.rates(method)
    shape = (len(rates), settings.seeds)
    rate = jnp.asarray(np.repeat(rates, settings.seeds))
    train, validation, test = (jax.tree.map(jnp.asarray, part) for part in split[:3])

    @jax.jit
    def begin(rate, start):
        def one(rate, params, key):
            return member(experiment, method, rate).init(params, key)

        params, keys = jax.tree.map(lambda x: jnp.concatenate([x] * len(rates)), start)
        return jax.vmap(one)(rate, params, keys)

    @partial(jax.jit, donate_argnums=1)
    def epoch(rate, carry, train, validation):
        return jax.vmap(lambda r, c: member(experiment, method, r).epoch(c, train, validation))(
            rate, carry
        )

    @jax.jit
    def finish(rate, carry, test):
        def one(rate, carry):
            end = member(experiment, method, rate).result(carry, {})
            return *evaluate(experiment, end.params, test), end

        return jax.vmap(one)(rate, carry)

    began = time.perf_counter()
    carry = begin(rate, start)
    step = epoch.lower(rate, carry, train, validation).compile()
    compiled = time.perf_counter()
    history: list[dict] = []
    speed = 0.0
    while len(history) < settings.epochs and np.any(carry.active):
        carry, metrics = step(rate, carry, train, validation)
        history.append(jax.device_get(metrics))
        updates = len(rate) * len(history) * experiment.updates / settings.epochs
        speed = updates / (time.perf_counter() - compiled)
        progress.epoch(method.name, len(history), best_so_far(history), speed)
    metrics, goodness, end = finish(rate, carry, test)
    by_member = {
        name: np.stack([np.asarray(row[name]).reshape(shape) for row in history])
        for name in history[0]
    }
    best = np.maximum(np.asarray(end.best_epoch).reshape(shape), 0)
    lost = ~np.isfinite(np.take_along_axis(by_member["val_loss"], best[None], axis=0)[0])
    return Result(
        method=method.name,
        code=repr(method.make(1.0)),
        rates=rates,
        history=by_member,
        test={name: np.asarray(value).reshape(shape) for name, value in metrics.items()},
        rows=np.asarray(goodness).reshape(*shape, -1),
        diverged=np.asarray(end.diverged).reshape(shape) | lost,
        epochs=np.asarray(end.epochs_run).reshape(shape),
        best=best,
        seconds=time.perf_counter() - began,
        compile_seconds=compiled - began,
        updates_per_second=speed,
    )


def best_so_far(history: list[dict]) -> str:
    """The best validation result of any member at any epoch so far, for the progress display."""
    accuracy = "val_accuracy" in history[0]
    values = np.stack([row["val_accuracy" if accuracy else "val_loss"] for row in history])
    if accuracy:
        return f"{100 * np.max(values, initial=0, where=values >= 0):.1f} %"
    return f"{np.min(values, initial=np.inf, where=values >= 0):.4g}"


def run(experiment: Experiment, methods: dict, folder: Folder, progress) -> Outcome:
    """Train the methods that the folder does not hold yet, keeping each as it finishes."""
    results: dict[str, Result] = {}
    failed: dict[str, str] = {}
    start = None
    for name, method in methods.items():
        kept = folder.load(name, experiment.settings.rates(method), repr(method.make(1.0)))
        if kept is not None:
            results[name] = kept
    try:
        for name, method in methods.items():
            if name in results:
                progress.kept(name)
                continue
            progress.begin(name)
            try:
                start = start_of(experiment) if start is None else start
                result = train_method(experiment, method, start, progress)
            except (
                Exception
            ) as error:  # one method that cannot train this model must not lose the others
                text = traceback.format_exc()
                failed[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                (folder.path / f"{name}.error.txt").write_text(text)
                progress.failed(name, failed[name])
                continue
            folder.save(result)
            results[name] = result
            progress.done(name, result)
    except KeyboardInterrupt:
        return Outcome([results[name] for name in methods if name in results], failed, True)
    return Outcome([results[name] for name in methods if name in results], failed, False)
