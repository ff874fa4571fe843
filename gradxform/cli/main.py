"""The command line, `gradxform compare`, `sweep`, `list` and `show NAME`: it parses, calls, and
prints.
"""

import argparse
import os
import shlex
import sys
from importlib import metadata

from gradxform.cli.compare.command import COMPARE, EXAMPLES, _compare, _compare_arguments
from gradxform.cli.methods import METHODS
from gradxform.cli.problems import Problem
from gradxform.cli.sweep import command as sweep_command

DESCRIPTION = """Which optimizer, at which learning rate, for this data and model?

  gradxform compare                        every textbook method on the digits, in about a minute
  gradxform compare --data mine.csv        the same for your data
  gradxform sweep --axis b1=0.8,0.9        which numbers of a method
  gradxform list                           all methods
  gradxform show adam                      its equation, composition, defaults and source"""


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, as everything else here does."""

    def error(self, message):
        raise Problem(message)


def parser() -> argparse.ArgumentParser:
    """The arguments of all commands."""
    raw = argparse.RawDescriptionHelpFormatter
    top = _Parser(
        prog="gradxform", description=DESCRIPTION, formatter_class=raw, allow_abbrev=False
    )
    top.add_argument("--version", action="version", version=f"gradxform {version()}")
    commands = top.add_subparsers(dest="command", metavar="{compare,sweep,list,show}")
    compare = commands.add_parser(
        "compare",
        help="compare optimizers on data and a model",
        description=COMPARE,
        epilog=EXAMPLES,
        formatter_class=raw,
        allow_abbrev=False,
    )
    _compare_arguments(compare)
    sweep = commands.add_parser(
        "sweep",
        help="try many numbers of a method at once",
        description=sweep_command.SWEEP,
        epilog=sweep_command.EXAMPLES,
        formatter_class=raw,
        allow_abbrev=False,
    )
    sweep_command.add_arguments(sweep)
    listing = commands.add_parser(
        "list", help="list the methods", description="List the methods: name, one sentence, source."
    )
    listing.add_argument(
        "--families",
        action="store_true",
        help="every public constructor, by idea, as a Markdown table",
    )
    listing.add_argument(
        "--compatibility",
        action="store_true",
        help=(
            "every public name of Optax, and what it is here, as Markdown: the page "
            "docs/compatibility.md"
        ),
    )
    listing.add_argument(
        "--markdown", action="store_true", help="as a Markdown table, the one in the README"
    )
    show = commands.add_parser(
        "show",
        help="show one method",
        allow_abbrev=False,
        description="Show a method's equation, composition, defaults and source.",
    )
    show.add_argument("name", help="as `gradxform list` names it")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        arguments = parser().parse_args(argv)
        if arguments.command == "compare":
            return _compare(arguments, shlex.join(["gradxform", *argv]))
        if arguments.command == "sweep":
            return sweep_command.run(arguments, shlex.join(["gradxform", *argv]))
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


def version() -> str:
    """The installed version."""
    try:
        return metadata.version("gradxform")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _catalogue(arguments) -> int:
    from gradxform.cli import catalogue

    known = dict(METHODS)
    if arguments.command == "show":
        print(catalogue.showing(arguments.name, known))
    elif arguments.compatibility:
        import gradxform
        from gradxform.cli.problems import need
        from gradxform.interop.optax import names as compatibility

        need("optax")
        print(compatibility.markdown(gradxform))
    elif arguments.families:
        import gradxform

        print(catalogue.families(gradxform))
    else:
        print(catalogue.markdown(known) if arguments.markdown else catalogue.listing(known))
    sys.stdout.flush()
    return 0
