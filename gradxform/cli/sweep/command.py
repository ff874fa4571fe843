"""`gradxform sweep` from its settings to its exit code."""

import os
import sys
from pathlib import Path

from gradxform.cli import live
from gradxform.cli.experiment import Experiment
from gradxform.cli.problems import Problem
from gradxform.cli.running import holds_results, resumed, shared_out
from gradxform.cli.settings import Settings
from gradxform.cli.sweep.experiment import Swept
from gradxform.cli.sweep.write import PICTURES, print_table, write
from gradxform.sweep import Halving
from gradxform.sweep.members import Arguments, group
from gradxform.sweep.run import prepare


def sweep(settings: Settings, path: Path, command: str, by_hand: bool) -> int:
    """Train what is missing, write the report, and print the best."""
    swept = Swept(Experiment.of(settings))
    if (path / "sweep.json").exists() and not settings.resume and not by_hand:
        raise holds_results(path)
    if settings.resume and not by_hand and not path.exists():
        raise Problem(f"--resume: {path} holds no sweep to go on with")
    try:
        return _sweep(swept, path, command, by_hand)
    except (KeyError, ValueError, TypeError) as error:
        text = str(error.args[0] if error.args else error)
        raise Problem(text.removeprefix("sweep: ")) from error


def _sweep(swept: Swept, path: Path, command: str, by_hand: bool) -> int:
    settings, base = swept.settings, swept.base
    space, train = swept.space(), swept.train()
    group(Arguments(train), space)  # mistakes in names and numbers, before anything is started
    if settings.processes > 1 and not by_hand and not shared_out(settings, path, command):
        return 1
    halving = Halving(settings.rungs) if settings.rungs else None
    try:
        with live.members(space, settings.quiet) as shown:
            how = {"chunk": settings.chunk, "halving": halving, "progress": shown}
            result = prepare(train, space, out=path, **how).finish()
    except KeyboardInterrupt:
        go_on = resumed(command, path)
        print(f"gradxform: interrupted; what finished is kept: {go_on}", file=sys.stderr)
        return 130
    if settings.process:
        return 0
    best, test = int(result.order()[0]), None
    if not result.diverged.all():
        test = swept.test_of(result.params(best), result.arguments(best).get("hidden"))
    batches = f"{settings.epochs} epochs in batches of {base.batch_size}"
    facts = [
        ("data", f"{base.data.name}: {len(base.data.y)} rows, split 60/20/20"),
        ("model", f"{base.model.name}, {base.model.parameters:,} parameters"),
        ("training", f"{batches}, schedule {settings.schedule}"),
    ]
    title = f"Which numbers of {', '.join(settings.methods)} for {Path(settings.data).stem}?"
    write(result, path, title, command, facts, test)
    print_table(result, test)
    pictures = ", ".join(f"{name}.png" for name in PICTURES)
    print(f"\nWritten to {path}{os.sep}: report.html, members.csv, {pictures}")
    return 0
