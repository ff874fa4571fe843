"""The command line, `gradxform compare`, `sweep`, `list` and `show NAME`: it parses, calls, and
prints.
"""

import argparse
import os
import shlex
import sys
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

from gradxform.cli import texts
from gradxform.cli.methods import CONSTRUCTORS, METHODS, OPTIMIZERS
from gradxform.cli.problems import Problem, need
from gradxform.cli.settings import Settings, add_arguments

DESCRIPTION = """Which optimizer, at which learning rate, for this data and model?

  gradxform compare                        every textbook method on the digits, in about a minute
  gradxform compare --data mine.csv        the same for your data
  gradxform sweep --axis b1=0.8,0.9        which numbers of a method
  gradxform list                           all optimizers
  gradxform show adam                      its equation, composition, defaults and source"""


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, as everything else here does."""

    def error(self, message):
        raise Problem(message)


def parser() -> argparse.ArgumentParser:
    """The arguments of all commands."""
    raw = argparse.RawDescriptionHelpFormatter
    how: dict[str, Any] = {"formatter_class": raw, "allow_abbrev": False}
    top = _Parser(prog="gradxform", description=DESCRIPTION, **how)
    top.add_argument("--version", action="version", version=f"gradxform {version()}")
    commands = top.add_subparsers(dest="command", metavar="{compare,sweep,list,show}")
    for name, text, (before, after) in (
        ("compare", "compare optimizers on data and a model", texts.COMPARE),
        ("sweep", "try many numbers of a method at once", texts.SWEEP),
    ):
        command = commands.add_parser(name, help=text, description=before, epilog=after, **how)
        if name == "sweep":
            text = "options and axes; flags override them"
            command.add_argument("file", nargs="?", metavar="TOML", help=text)
        add_arguments(command, name)
    about = "List the optimizers, those of the textbook first: name, one sentence, source."
    listing = commands.add_parser("list", help="list the optimizers", description=about)
    optax = "every public name of Optax, and what it is here"
    for flag, text in (
        ("--families", "every public constructor by its question: the page docs/catalogue.md"),
        ("--compatibility", f"{optax}, as Markdown: the page docs/compatibility.md"),
        ("--markdown", "those of the textbook, as the Markdown table of docs/catalogue.md"),
    ):
        listing.add_argument(flag, action="store_true", help=text)
    about = "Show the equation, composition, defaults and source of an optimizer, or of any other "
    how = {"description": f"{about}constructor: a wrapper, a schedule.", "allow_abbrev": False}
    show = commands.add_parser("show", help="show one optimizer, wrapper or schedule", **how)
    show.add_argument("name", help="as `gradxform list` or `gradxform list --families` names it")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        arguments = parser().parse_args(argv)
        if arguments.command in ("compare", "sweep"):
            return _run(arguments, shlex.join(["gradxform", *argv]))
        if arguments.command is None:
            parser().print_help()
            return 2
        return _catalogue(arguments)
    except Problem as problem:
        print(f"gradxform: error: {problem}", file=sys.stderr)
        return 2
    except SystemExit as finished:  # --help and --version
        return int(finished.code or 0)
    except KeyboardInterrupt:
        print("gradxform: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `gradxform list | head`; let the interpreter's last flush go nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, MemoryError) as error:  # a full disk, a name that is too long
        where = getattr(error, "filename", None)
        what = getattr(error, "strerror", None) or str(error) or "out of memory"
        print(f"gradxform: error: {f'{where}: ' if where else ''}{what}", file=sys.stderr)
        return 2


def _run(arguments, command: str) -> int:
    """Run `gradxform compare` or `gradxform sweep`, and return its exit code."""
    from gradxform.cli import running

    given, name = vars(arguments), arguments.command
    options = {field.name: given[field.name] for field in fields(Settings) if field.name in given}
    settings = Settings.of(name, options, given.get("file"))
    for module in ("flax", "rich", "matplotlib", *["pandas"] * (name == "sweep")):
        need(module)
    by_hand = running.started_by_hand(settings)
    if not settings.no_cache:
        running.keep_programs()
    path = Path(settings.out) if settings.out else running.default_folder(name, settings)
    if name == "compare":
        from gradxform.cli.compare.command import compare as job
    else:
        from gradxform.cli.sweep.command import sweep as job
    try:
        return job(settings, path, command, by_hand)
    except KeyboardInterrupt:
        kept = running.holds(path, name)
        go_on = f"; what finished is kept: {running.resumed(command, path)}" if kept else ""
        print(f"gradxform: interrupted{go_on}", file=sys.stderr)
        return 130


def version() -> str:
    """The installed version."""
    try:
        return metadata.version("gradxform")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _catalogue(arguments) -> int:
    import gradxform
    from gradxform.cli import catalogue

    if arguments.command == "show":
        print(catalogue.showing(arguments.name, OPTIMIZERS, CONSTRUCTORS))
    elif arguments.compatibility:
        from gradxform.interop.optax import names as compatibility

        need("optax")
        print(compatibility.markdown(gradxform))
    elif arguments.families:
        print(catalogue.families(gradxform))
    else:
        print(catalogue.markdown(METHODS) if arguments.markdown else catalogue.listing(OPTIMIZERS))
    sys.stdout.flush()
    return 0
