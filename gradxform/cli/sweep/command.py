"""The command `gradxform sweep`: which numbers, for this data and model, in one process or several."""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

from gradxform.cli.problems import Problem, need

SWEEP = """Train a method at every combination of some numbers, or at numbers drawn at random, many at once, and report
the best: a table here, and members.csv, four pictures and report.html in a folder. Finished chunks are kept: after an
interruption, even a killed process, --resume goes on where it was."""


EXAMPLES = """examples:
  gradxform sweep --axis learning_rate=1e-4:1e-1:8 --axis b1=0.8,0.9,0.95 --seeds 3
  gradxform sweep --methods adam,nadam --axis l2=0,1e-4,1e-3 --axis hidden=32,64x64 --axis batch_size=32,64
  gradxform sweep --random 200 --axis learning_rate=1e-5:1 --axis b1=lin:0:0.99 --rungs 2,6 --chunk 25
  gradxform sweep --schedule cosine --axis learning_rate=1e-3:1e-1:5 --axis tx.learning_rate.decay_steps=200,400
  gradxform sweep mine.toml --processes 4 --out runs/mine
  gradxform sweep mine.toml --processes 4 --out runs/mine --resume

names: any number of the method (learning_rate, b1, ...; also inside a schedule), l2, label_smoothing, init_scale,
batch_size, epochs, hidden, seed. Whole numbers such as batch_size are compiled for each value.

mine.toml holds the same options, and the axes in a table:
  data = "digits"
  epochs = 20
  [axes]
  learning_rate = "1e-4:1e-1:8"
  b1 = [0.8, 0.9]

several machines: run the same command on each, with --out in a folder that all share, --processes N,
--coordinator HOST:PORT (the address of the first one) and --process 0, 1, ... N-1."""


def add_arguments(parser) -> None:
    """The flags; None where compare has a default, so that a TOML file may set it."""
    parser.add_argument(
        "file", nargs="?", metavar="TOML", help="options and axes; flags override them"
    )
    what = parser.add_argument_group("what is swept")
    what.add_argument(
        "--axis", action="append", default=[], metavar="NAME=VALUES",
        help="a list such as 0.8,0.9; low:high:count, evenly spaced in the logarithm; "
             "lin:low:high:count; may be "
        "repeated. "
        "Without an axis for it, the learning rate takes 9 values of the method's own range",
    )  # fmt: skip
    what.add_argument(
        "--methods",
        metavar="LIST",
        help="comma-separated names (default: adam); see `gradxform list`",
    )
    what.add_argument(
        "--random",
        type=int,
        metavar="N",
        help="draw N settings instead of every combination; axes may be low:high",
    )
    what.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="initial parameters and batch orders for each setting (default: 1)",
    )
    base = parser.add_argument_group("data, model and training, as in gradxform compare")
    for flag in ("data", "target", "task", "model", "hidden", "init", "schedule"):
        base.add_argument(f"--{flag}", metavar=flag.upper())
    for flag, kind in (
        ("dropout", float),
        ("weight-decay", float),
        ("epochs", int),
        ("batch-size", int),
    ):
        base.add_argument(f"--{flag}", type=kind, metavar="X" if kind is float else "N")
    how = parser.add_argument_group("how it runs")
    how.add_argument(
        "--rungs",
        metavar="EPOCHS",
        help="compare members after these epochs, such as 2,6, and let the best third go on",
    )
    how.add_argument(
        "--chunk",
        type=int,
        metavar="N",
        help="members trained at once (default: as many as fit into memory)",
    )
    how.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="processes that share the work (default: 1)",
    )
    how.add_argument(
        "--process",
        type=int,
        metavar="I",
        help="which of them this is, where each is started by hand",
    )
    how.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="the address of process 0, where each is started by hand",
    )
    how.add_argument(
        "--out", metavar="DIR", help="where to write; by default a new folder sweep-DATA-MODEL here"
    )
    how.add_argument(
        "--resume", action="store_true", help="go on with --out (by default the latest folder)"
    )
    how.add_argument("--quiet", action="store_true", help="no progress, only the table")


def run(arguments, command: str) -> int:
    """Run the command and return its exit code."""
    for module in ("flax", "rich", "matplotlib", "pandas"):
        need(module)
    if arguments.processes < 1:
        raise Problem(f"--processes must be at least 1; got {arguments.processes}")
    by_hand = arguments.process is not None
    if by_hand != (arguments.coordinator is not None):
        raise Problem("--process and --coordinator go together")
    if by_hand and not 0 <= arguments.process < arguments.processes:
        raise Problem(
            f"--process must lie between 0 and {arguments.processes - 1}; got {arguments.process}"
        )
    if by_hand and not arguments.out:
        raise Problem("--process needs --out, a folder that all processes share")
    if by_hand and not need("jax").distributed.is_initialized():
        words = _process(
            arguments.coordinator, arguments.processes, arguments.process, shlex.split(command)[1:]
        )
        return subprocess.run(words, check=False).returncode
    from gradxform.cli.sweep import experiment as experiments

    given = {name: getattr(arguments, name) for name in experiments.OPTIONS}
    experiment = experiments.Experiment(
        experiments.plan(given, dict(map(_axis, arguments.axis)), arguments.file)
    )
    path = (
        Path(arguments.out)
        if arguments.out
        else _default_folder(experiment.plan.settings, arguments.resume)
    )
    if (path / "sweep.json").exists() and not arguments.resume and not by_hand:
        raise Problem(
            f"--out {path}: holds results already; go on with --resume, or choose another folder"
        )
    if arguments.resume and not by_hand and not path.exists():
        raise Problem(f"--resume: {path} holds no sweep to go on with")
    try:
        return _sweep(arguments, experiment, path, command, by_hand)
    except (KeyError, ValueError, TypeError) as error:
        raise Problem(
            str(error.args[0] if error.args else error).removeprefix("sweep: ")
        ) from error


def _sweep(arguments, experiment, path: Path, command: str, by_hand: bool) -> int:
    from gradxform.cli.sweep import live as sweep_live
    from gradxform.cli.sweep import write as sweep_write
    from gradxform.sweep import Halving, sweep
    from gradxform.sweep.members import Arguments, group

    space, train = experiment.space(), experiment.train()
    group(Arguments(train), space)  # mistakes in names and numbers, before anything is started
    if arguments.processes > 1 and not by_hand and _spawn(arguments.processes, path, command):
        print(
            "gradxform: error: a process ended early; go on with "
            f"{sweep_write.resumed(command, path)}",
            file=sys.stderr,
        )
        return 1
    halving = Halving(experiment.plan.rungs) if experiment.plan.rungs else None
    try:
        with sweep_live.live(space, arguments.quiet) as progress:
            result = sweep(
                train,
                space,
                out=path,
                chunk=experiment.plan.chunk,
                halving=halving,
                progress=progress,
            )
    except KeyboardInterrupt:
        print(
            "gradxform: interrupted; what finished is kept: go on with "
            f"{sweep_write.resumed(command, path)}",
            file=sys.stderr,
        )
        return 130
    if by_hand and arguments.process > 0:
        return 0
    best = int(result.order()[0])
    test = None
    if not result.diverged.all():
        test = experiment.test_of(result.params(best), result.arguments(best).get("hidden"))
    settings = experiment.plan.settings
    facts = [
        ("data", f"{experiment.data.name}: {len(experiment.data.y)} rows, split 60/20/20"),
        ("model", f"{experiment.base.model.name}, {experiment.base.model.parameters:,} parameters"),
        (
            "training",
            f"{settings.epochs} epochs in batches of {experiment.base.batch_size}, schedule "
            f"{settings.schedule}",
        ),
    ]
    name = Path(settings.data).stem
    sweep_write.write(
        result,
        path,
        f"Which numbers of {', '.join(experiment.plan.methods)} for {name}?",
        command,
        facts,
        test,
    )
    sweep_write.print_table(result, test)
    print(
        f"\nWritten to {path}{os.sep}: report.html, members.csv, "
        f"{', '.join(f'{n}.png' for n in sweep_write.PICTURES)}"
    )
    return 0


def _axis(text: str) -> tuple[str, str]:
    name, equals, values = text.partition("=")
    if not equals or not name.strip() or not values.strip():
        raise Problem(f"--axis {text!r}: expected NAME=VALUES, such as b1=0.8,0.9")
    return name.strip(), values.strip()


def _process(coordinator: str, processes: int, index: int, words: list[str]) -> list[str]:
    """The command line of one process of several."""
    return [
        sys.executable,
        "-m",
        "gradxform",
        "--join",
        coordinator,
        str(processes),
        str(index),
        *words,
    ]


def _spawn(processes: int, path: Path, command: str) -> bool:
    """Run the processes of a sweep here and wait; whether one of them failed, which ends the
    others.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = shlex.split(command)[1:]
    words += (
        [] if any(w == "--out" or w.startswith("--out=") for w in words) else ["--out", str(path)]
    )
    address = f"127.0.0.1:{port}"
    started = [
        subprocess.Popen(
            _process(
                address,
                processes,
                i,
                [*words, "--process", str(i), "--coordinator", address, "--resume", "--quiet"],
            ),
            stdout=subprocess.DEVNULL,
        )
        for i in range(processes)
    ]
    try:
        while any(process.poll() is None for process in started):
            if any(process.poll() for process in started):
                return True
            time.sleep(0.1)
        return any(process.returncode for process in started)
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.wait()


def _default_folder(settings, resume: bool) -> Path:
    """`sweep-digits-mlp`, then `sweep-digits-mlp-2` and so on; with resume, the latest that exists."""
    stem = re.sub(r"[^\w.-]+", "-", f"sweep-{Path(settings.data).stem}-{settings.model}")
    number, path = 1, Path(stem)
    latest = path
    while path.exists():
        number, latest = number + 1, path
        path = Path(f"{stem}-{number}")
    return latest if resume else path
