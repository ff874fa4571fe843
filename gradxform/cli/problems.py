"""Problem: a mistake of the user's that one line can explain. The command prints it and exits with
code 2.
"""

import importlib
from difflib import get_close_matches


class Problem(ValueError):
    """Bad data or an impossible option; its text is one line that names the culprit."""

    def __init__(self, text: str):
        super().__init__(" ".join(str(text).split()))


EXTRA = 'pip install "gradxform[cli]"'


def need(module: str):
    """Return an optional module, or raise a Problem that names the extra which installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        text = f"this command needs {error.name}, which is not installed: {EXTRA}"
        raise Problem(text) from error


def unknown(kind: str, name: str, known) -> Problem:
    """The Problem of a name that is not in `known`, with the nearest name and the whole list."""
    known = list(known)
    near = get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else "."
    return Problem(f"unknown {kind} {name!r}{hint} Known: {', '.join(known)}")
