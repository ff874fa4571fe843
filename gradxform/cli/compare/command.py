"""`gradxform compare` from its settings to its exit code."""

import os
import sys
from pathlib import Path

from gradxform.cli import live
from gradxform.cli.compare.run import open_folder, run
from gradxform.cli.compare.write import FILES, print_table, write
from gradxform.cli.experiment import Experiment
from gradxform.cli.own import method_of
from gradxform.cli.running import claim, holds, resumed, shared_out
from gradxform.cli.settings import Settings


def compare(settings: Settings, path: Path, command: str, by_hand: bool) -> int:
    """Train what is missing, write the report, and print the table."""
    experiment = Experiment.of(settings)
    methods = {name: method_of(name) for name in settings.methods}
    claim(path, "compare", settings, FILES)
    if not settings.process:  # the others find what it made
        open_folder(path, settings.facts(experiment.data.digest()), holds(path, "compare"))
    if settings.processes > 1 and not by_hand and not shared_out(settings, path, command):
        return 1
    with live.methods(list(methods), settings.epochs, settings.quiet) as shown:
        outcome = run(experiment, methods, path, shown)
    if settings.process:
        return 130 if outcome.interrupted else 0
    reasons = (f"{name} could not be trained: {why}" for name, why in outcome.failed.items())
    failures, go_on = "; ".join(reasons), resumed(command, path)
    if not outcome.results:
        early = "interrupted before the first method finished"
        reason = early if outcome.interrupted else failures
        print(f"gradxform: {reason}; {go_on}", file=sys.stderr)
        return 130 if outcome.interrupted else 1
    print_table(write(experiment, outcome, methods, path, settings.command("compare")))
    print(f"\nWritten to {path}{os.sep}: {', '.join(FILES)}")
    if outcome.interrupted:
        print(f"gradxform: interrupted; what finished is kept: {go_on}", file=sys.stderr)
        return 130
    if failures:
        print(f"gradxform: error: {failures}", file=sys.stderr)
        return 1
    return 0
