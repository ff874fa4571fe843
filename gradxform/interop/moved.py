"""Documented module paths of before the rooms: `from gradxform.leafwise import Site` goes on
working.
"""

import sys
from importlib import import_module

MOVED = ("leafwise", "transform", "tunable")  # to `gradxform.core`, which has kept its own name

PATHS = {f"gradxform.{name}": f"gradxform.core.{name}" for name in MOVED}

RENAMED = {"look_ahead": "nesterov_point"}  # a name of before, and that of today


def register() -> None:
    """Make the old paths importable. A name of the package is never replaced by a module's."""
    for name in MOVED:
        module = sys.modules[f"gradxform.{name}"] = import_module(f"gradxform.core.{name}")
        vars(sys.modules["gradxform"]).setdefault(name, module)


def finder(module: str):
    """`__getattr__` of a module of names: what it once gave only because it had imported it."""

    def find(name: str):
        for home in ("core", "core.call", "core.leaves", "core.transform"):
            found = import_module(f"gradxform.{home}")
            if not name.startswith("__") and hasattr(found, name):
                return getattr(found, name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find
