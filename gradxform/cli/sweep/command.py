"""`gradxform sweep` from its settings to its exit code."""

import os
from pathlib import Path

import jax
import numpy as np

from gradxform.cli import live
from gradxform.cli.experiment import Experiment
from gradxform.cli.problems import Problem
from gradxform.cli.running import claim, shared_out
from gradxform.cli.settings import Settings
from gradxform.cli.sweep.experiment import Swept
from gradxform.cli.sweep.judged import has_seeds
from gradxform.cli.sweep.judged import settings as settings_of
from gradxform.cli.sweep.write import FILES, best_members, print_table, write
from gradxform.sweep import Halving
from gradxform.sweep.members import Arguments, group
from gradxform.sweep.run import prepare


def sweep(settings: Settings, path: Path, command: str, by_hand: bool) -> int:
    """Train what is missing, write the report, and print the best."""
    swept = Swept(Experiment.of(settings))
    try:
        return _sweep(swept, path, command, by_hand)
    except (KeyError, ValueError, TypeError, jax.errors.JaxRuntimeError) as error:
        text = str(error.args[0] if error.args else error)
        raise Problem(text.removeprefix("sweep: ")) from error


def _sweep(swept: Swept, path: Path, command: str, by_hand: bool) -> int:
    settings, base = swept.settings, swept.base
    space, train = swept.space(), swept.train()
    groups = group(Arguments(train), space)  # mistakes in names and numbers, before all else
    halving = Halving(settings.rungs) if settings.rungs else None
    if halving:
        for some in groups:
            halving.check(some.fixed["epochs"])
    claim(path, "sweep", settings, FILES)
    if settings.processes > 1 and not by_hand and not shared_out(settings, path, command):
        return 1
    with live.members(space, settings.quiet) as shown:
        how = {"chunk": settings.chunk, "halving": halving, "progress": shown}
        how |= {"patience": settings.wait, "process": settings.share}
        result = prepare(train, space, out=path, **how).finish()
    if settings.process:
        return 0
    test = None
    if not result.diverged.all():  # of the best setting over its seeds
        best = best_members(result, settings_of(result) if has_seeds(result) else [])
        found = [swept.test_of(result.params(i), result.arguments(i).get("hidden")) for i in best]
        test = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
    batches = f"{settings.epochs} epochs in batches of {base.batch_size}"
    facts = [
        ("data", f"{base.data.name}: {len(base.data.y)} rows, split 60/20/20"),
        ("model", f"{base.model.name}, {base.model.parameters:,} parameters"),
        ("training", f"{batches}, schedule {settings.schedule}"),
    ]
    title = f"Which numbers of {', '.join(settings.methods)} for {Path(settings.data).stem}?"
    write(result, path, title, settings.command("sweep"), facts, test)
    print_table(result, test)
    print(f"\nWritten to {path}{os.sep}: {', '.join(FILES)}")
    return 0
