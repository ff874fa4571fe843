"""A default is a promise: those of the public constructors are written down, and a change is one for the CHANGELOG.

`python tests/optimizers/test_defaults.py` writes them anew.
"""

import inspect
import json
from pathlib import Path

import pytest

import gradxform as gx
from gradxform.interop.optax import aliases

FILE = Path(__file__).with_name("defaults.json")
WRITTEN = json.loads(FILE.read_text()) if FILE.exists() else {}


def constructors():
    """Constructors of transformations and schedules by name, those under Optax's names included."""
    public = {name: getattr(gx, name) for name in [*dir(gx), *aliases.__all__]}
    return {name: f for name, f in public.items() if hasattr(f, "build")}


def defaults(constructor):
    """The defaults of its arguments, as code; a function by its name."""
    parameters = inspect.signature(constructor).parameters.values()
    given = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {k: getattr(x, "__name__", None) or repr(x) for k, x in given.items()}


def test_they_are_written_down():
    assert WRITTEN.keys() <= constructors().keys()
    assert {
        "adam",
        "zclip",
        "scale_by_adopt",
        "cosine_decay_schedule",
        "accumulate",
    } <= WRITTEN.keys()


@pytest.mark.parametrize("name", WRITTEN)
def test_the_defaults_are_those_written_down(name):
    assert defaults(constructors()[name]) == WRITTEN[name]


if __name__ == "__main__":
    found = {name: defaults(f) for name, f in sorted(constructors().items())}
    lines = (f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in found.items())
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
