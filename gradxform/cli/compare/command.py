"""The command line of `gradxform compare`."""

import argparse
import os
import re
import shlex
import sys
from pathlib import Path

from gradxform.cli.methods import METHODS
from gradxform.cli.problems import Problem

COMPARE = """Train every method at a range of learning rates with several seeds, choose each method's learning
rate on validation data, and report test data: a table here, and table.csv, members.csv, two pictures and
report.html in a folder."""


EXAMPLES = """examples:
  gradxform compare
  gradxform compare --data breast_cancer --methods sgd,momentum,adam --epochs 30
  gradxform compare --data mine.csv --target price --hidden 128,128 --dropout 0.1 --schedule cosine
  gradxform compare --data images.npz --model cnn --learning-rates 1e-4:1e-1:7 --seeds 5
  gradxform compare --data mine.npz --model mymodels:resnet --out runs/resnet
  gradxform compare --out runs/resnet --resume ...        go on after an interruption, or add methods

A run that is interrupted keeps the methods that finished. The exit code is 0, 1 if a method could not be
trained, 2 for a mistake in the data or the options, 130 after Ctrl-C."""


def _compare_arguments(compare: argparse.ArgumentParser) -> None:
    data = compare.add_argument_group("data")
    data.add_argument(
        "--data",
        default="digits",
        metavar="DATA",
        help="digits (default), breast_cancer, wine, diabetes, a .csv with a header, or a .npz "
        "with arrays "
        "x (or X) and y; images are rows × height × width (× channels)",
    )
    data.add_argument(
        "--target",
        metavar="COLUMN",
        help="the column of a .csv to predict; the last one by default",
    )
    data.add_argument(
        "--task",
        metavar="TASK",
        help=(
            "classification or regression; by default, regression if the target is numeric and "
            "not whole numbers"
        ),
    )
    model = compare.add_argument_group("model")
    model.add_argument(
        "--model",
        default="mlp",
        metavar="MODEL",
        help="linear, mlp (default), cnn, or module:factory, a function that is called with "
        "outputs=N "
        "and returns a flax.linen.Module taking (x) or (x, train), x as the data has it",
    )
    model.add_argument(
        "--hidden", metavar="WIDTHS", help="hidden layers of mlp and cnn (default: 64,64)"
    )
    model.add_argument(
        "--init",
        default="default",
        metavar="INIT",
        help="default (LeCun), zeros, constant (0.1), xavier or he, for all kernels",
    )
    model.add_argument(
        "--dropout",
        type=float,
        default=0.0,
        metavar="P",
        help="after each hidden layer (default: 0)",
    )
    training = compare.add_argument_group("training")
    training.add_argument("--epochs", type=int, default=20, metavar="N", help="default: 20")
    training.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="default: a power of two from 8 to 64, for about 16 updates per epoch or more",
    )
    training.add_argument(
        "--schedule",
        default="none",
        metavar="NAME",
        help="none (default), step (× 0.1 after each third), exponential (to 1 %%), inverse_time "
        "(to 10 %%), "
        "inverse_sqrt, linear (to 0), cosine (to 0), warmup_cosine (a tenth of warmup)",
    )
    training.add_argument(
        "--weight-decay",
        type=float,
        default=0.0,
        metavar="X",
        help="decoupled decay of kernels, instead of a method's own",
    )
    training.add_argument(
        "--l2",
        type=float,
        default=0.0,
        metavar="X",
        help="add X · kernel to the gradient of each kernel, instead of a method's own",
    )
    training.add_argument(
        "--patience",
        type=int,
        metavar="N",
        help=(
            "stop a member after N epochs without a better validation loss, and keep its best epoch"
        ),
    )
    grid = compare.add_argument_group("what is compared")
    grid.add_argument(
        "--methods",
        default="all",
        metavar="LIST",
        help="comma-separated names, or all (default); see `gradxform list`",
    )
    grid.add_argument(
        "--learning-rates",
        metavar="RATES",
        help="low:high:count, evenly spaced in the logarithm, or a comma-separated list, for all "
        "methods; by "
        "default 9 in each method's own range",
    )
    grid.add_argument(
        "--seeds",
        type=int,
        default=3,
        metavar="N",
        help="initial parameters and batch orders to average over (default: 3)",
    )
    target = grid.add_mutually_exclusive_group()
    target.add_argument(
        "--target-accuracy",
        type=float,
        metavar="A",
        help="for `epochs to target`, from 0 to 1; by default 97 %% of the best method's",
    )
    target.add_argument(
        "--target-loss",
        type=float,
        metavar="L",
        help="the same for the loss; by default, for regression, 1.1 × the best method's",
    )
    output = compare.add_argument_group("output")
    output.add_argument(
        "--out",
        metavar="DIR",
        help="where to write; by default a new folder compare-DATA-MODEL here",
    )
    output.add_argument(
        "--resume",
        action="store_true",
        help="go on with --out (by default the latest folder): skip the methods that finished",
    )
    output.add_argument("--quiet", action="store_true", help="no progress, only the table")


def _compare(arguments, command: str) -> int:
    # Imported here, so that `list` and `show` work without the optional packages.
    from gradxform.cli import data
    from gradxform.cli import settings as choices
    from gradxform.cli.problems import need

    chosen = choices.Settings(
        data=arguments.data,
        target=arguments.target,
        task=arguments.task,
        model=arguments.model,
        hidden=None if arguments.hidden is None else choices.parse_hidden(arguments.hidden),
        init=arguments.init,
        dropout=arguments.dropout,
        batch_size=arguments.batch_size,
        epochs=arguments.epochs,
        schedule=arguments.schedule,
        weight_decay=arguments.weight_decay,
        l2=arguments.l2,
        patience=arguments.patience,
        seeds=arguments.seeds,
        learning_rates=choices.parse_learning_rates(arguments.learning_rates)
        if arguments.learning_rates
        else None,
    ).check()
    names = choices.parse_methods(arguments.methods, METHODS)
    for module in ("flax", "rich", "matplotlib"):
        need(module)
    dataset = data.load(chosen.data, chosen.target, chosen.task)
    _check_target(arguments, dataset)

    from gradxform.cli import models
    from gradxform.cli.compare import progress, results, write
    from gradxform.cli.compare import run as compare

    model = models.build(chosen.model, dataset, chosen.hidden, chosen.init, chosen.dropout)
    experiment = compare.Experiment(chosen, dataset, data.split(dataset), model).check()
    methods = {name: METHODS[name] for name in names}
    path = Path(arguments.out) if arguments.out else _default_folder(chosen, arguments.resume)
    folder = results.Folder(path, chosen.facts(dataset.digest()))
    folder.open(arguments.resume)

    with progress.display(list(methods), chosen.epochs, arguments.quiet) as shown:
        outcome = compare.run(experiment, methods, folder, shown)
    go_on = f"go on with {_resumed(command, path)}"
    if not outcome.results:
        reason = (
            "interrupted before the first method finished"
            if outcome.interrupted
            else _failures(outcome)
        )
        print(f"gradxform: {reason}; {go_on}", file=sys.stderr)
        return 130 if outcome.interrupted else 1
    context = write.write(
        experiment,
        outcome,
        methods,
        path,
        command,
        arguments.target_accuracy,
        arguments.target_loss,
    )
    write.print_table(context)
    print(
        f"\nWritten to {path}{os.sep}: report.html, table.csv, members.csv, sensitivity.png, "
        "curves.png"
    )
    if outcome.interrupted:
        print(f"gradxform: interrupted; what finished is kept: {go_on}", file=sys.stderr)
        return 130
    if outcome.failed:
        print(f"gradxform: error: {_failures(outcome)}", file=sys.stderr)
        return 1
    return 0


def _check_target(arguments, dataset) -> None:
    accuracy, loss = arguments.target_accuracy, arguments.target_loss
    if accuracy is not None and dataset.task == "regression":
        raise Problem(f"--target-accuracy: {dataset.name} is a regression; use --target-loss")
    if accuracy is not None and not 0 < accuracy <= 1:
        raise Problem(f"--target-accuracy must lie in (0, 1]; got {accuracy:g}")
    if loss is not None and not loss > 0:
        raise Problem(f"--target-loss must be positive; got {loss:g}")


def _default_folder(chosen, resume: bool) -> Path:
    """`compare-digits-mlp`, then `compare-digits-mlp-2` and so on; with resume, the latest that
    exists.
    """
    stem = re.sub(r"[^\w.-]+", "-", f"compare-{Path(chosen.data).stem}-{chosen.model}")
    number = 1
    path = latest = Path(stem)
    while path.exists():
        number, latest = number + 1, path
        path = Path(f"{stem}-{number}")
    return latest if resume else path


def _resumed(command: str, path: Path) -> str:
    words = [word for word in shlex.split(command) if word != "--resume"]
    out = (
        []
        if any(word == "--out" or word.startswith("--out=") for word in words)
        else ["--out", str(path)]
    )
    return shlex.join([*words, *out, "--resume"])


def _failures(outcome) -> str:
    return "; ".join(
        f"{name} could not be trained: {reason}" for name, reason in outcome.failed.items()
    )
