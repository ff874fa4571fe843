"""Module paths of before the rooms: `from gradxform.leafwise import Site` goes on working, and what was
pickled then is still read.
"""

import sys
from importlib import import_module

MOVED = {
    "core": "call=define labels leafwise slots transform tunable",
    "display": "latex=mathematics notation latex=equations",
    "interop": "torch_state=import_torch",
    "interop.optax": "aliases names=compatibility state=import_optax tree_math",
    "optimizers": "products",
    "rules": "clipping clipping=clip_adaptive coin_betting=betting curvature differences directions "
    "distance dual_averaging factored layerwise measures=whole noise=privacy normalize=gradient_shape "
    "polyak preconditioners rms_variants=moments signs step_size=stepsize weight_decay=regularise",
    "schedules": "algebra=schedule_algebra cycles=schedule_cycles",
    "state": "describe monitor",
    "sweep": "engine=sweep.pausing engine=sweep.progress members=sweep.names search=sweep.halving "
    "search=sweep.population search=sweep.tasks",
    "train": "paced=sweep.paced",
    "wrappers": "accumulation=accumulate averaging=average cautious=agreement conditional=wrap "
    "galore=low_rank masking=select master_weights=store sam schedule_free skipping=skip",
}  # a room, and its modules with the name of before, where that was another one

RENAMED = {"look_ahead": "nesterov_point"}  # a name of before, and that of today

PATHS = {
    f"gradxform.{entry.rpartition('=')[2]}": f"gradxform.{room}.{entry.partition('=')[0]}"
    for room, entries in MOVED.items()
    for entry in entries.split()
}


def register() -> None:
    """Make the old paths importable. A name of the package is never replaced by a module's."""
    for old, new in PATHS.items():
        parent, _, name = old.rpartition(".")
        sys.modules[old] = import_module(new)
        vars(sys.modules[parent]).setdefault(name, sys.modules[old])


def finder(module: str):
    """`__getattr__` of a module of names: what it once gave only because it had imported it."""

    def find(name: str):
        for home in ("core", "core.call", "core.leaves", "core.transform"):
            found = import_module(f"gradxform.{home}")
            if not name.startswith("__") and hasattr(found, name):
                return getattr(found, name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find
