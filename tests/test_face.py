"""What tab completion shows, what a star-import brings, and that every name of before is still found."""

import builtins
import importlib
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

import gradxform as gx
from gradxform.core.call import Call
from gradxform.interop import moved
from gradxform.interop.optax import aliases, names

MODULES = {
    *("contrib", "hyper", "interop", "losses", "numerics", "plot", "schedules", "sweep", "testing"),
    *("train", "transforms", "tree", "tree_utils"),
}
# Every name that gradxform and its public modules had before they were put into rooms, by module,
# the undocumented modules that have moved since excepted.
BEFORE = {
    module: found.split()
    for module, found in json.loads(
        (Path(__file__).parent / "names_before.json").read_text()
    ).items()
}


def test_completion_is_short():
    assert len(dir(gx)) <= 300
    assert dir(gx) == sorted({*dir(gx)})


def test_completion_shows_the_documented_modules_and_no_other():
    shown = {name for name in dir(gx) if isinstance(getattr(gx, name), types.ModuleType)}
    assert shown == MODULES


def test_completion_shows_functions_and_classes_of_gradxform():
    for name in {*dir(gx)} - MODULES:
        x = getattr(gx, name)
        assert callable(x), name
        assert not name.startswith("_"), name
        assert x.__module__.split(".")[0] == "gradxform", f"{name} is a name of {x.__module__}"


def test_the_names_that_begin_a_program_are_shown():
    assert {
        *[
            "adam",
            "chain",
            "momentum",
            "clip_by_global_norm",
            "set",
            "get",
            "fit",
            "warmup",
            "tunable",
        ]
    } <= {*dir(gx)}


@pytest.mark.parametrize("name", aliases.__all__)
def test_what_only_users_of_optax_need_is_found_and_not_shown(name):
    assert name not in dir(gx)
    assert name not in gx.__all__
    assert getattr(gx, name) is getattr(aliases, name)


def test_every_other_name_of_optax_here_is_shown():
    """A name is in one of the two lists: shown, or in that of the aliases."""
    found = [row for row in names.rows(gx) if row.status in (names.SAME, names.DIFFERENT)]
    ours = {row.name for row in found if row.ours is not gx.EmptyState}  # it has eight names
    top = {name for name in ours if "." not in name}
    assert top <= {*dir(gx), *aliases.__all__}
    assert len(top) > 150


def test_a_star_import_replaces_no_builtin():
    brought: dict[str, object] = {}
    exec("from gradxform import *", brought)
    brought.pop("__builtins__")
    assert {*brought} == {*dir(gx)} - {"set"}
    assert not [name for name in brought if hasattr(builtins, name)]
    assert gx.set is importlib.import_module("gradxform.state.access").set


@pytest.mark.parametrize("module", ["gradxform", *(name for name in BEFORE if name != "gradxform")])
def test_every_name_of_before_is_found(module):
    home = gx if module == "gradxform" else importlib.import_module(f"gradxform.{module}")
    assert len(BEFORE[module]) > 0
    assert not [name for name in BEFORE[module] if not hasattr(home, name)]


@pytest.mark.parametrize("old", moved.PATHS)
def test_every_path_of_before_is_imported(old):
    module = importlib.import_module(old)
    assert module is importlib.import_module(moved.PATHS[old])
    assert module.__name__ == moved.PATHS[old]


def test_a_path_of_before_replaces_no_function():
    from gradxform.leafwise import Site
    from gradxform.transform import Transform
    from gradxform.tunable import TunableState

    from gradxform.core import Chain, Named

    assert issubclass(Named, Transform)
    assert issubclass(Chain, Transform)
    assert isinstance(gx.tunable(gx.sgd(0.1)).init({}), TunableState)
    assert Site.__module__ == "gradxform.core.leaf"
    assert {*moved.PATHS} == {"gradxform.leafwise", "gradxform.transform", "gradxform.tunable"}
    for name in ("accumulate", "describe", "leafwise", "monitor", "sam", "tunable"):
        assert not isinstance(getattr(gx, name), types.ModuleType), name


@pytest.mark.parametrize(("old", "new"), moved.RENAMED.items())
def test_a_name_of_before_is_found_and_not_shown(old, new):
    assert getattr(gx, old) is getattr(gx, new)
    assert new in dir(gx)
    assert old not in dir(gx)


def test_no_path_of_before_hides_a_file():
    package = Path(gx.__file__).parent
    for old in moved.PATHS:
        path = package.joinpath(*old.split(".")[1:])
        assert not path.exists(), old
        assert not path.with_suffix(".py").exists(), old


def test_a_name_is_found_under_its_public_module_only():
    with pytest.raises(AttributeError, match=r"'gradxform\.hyper' has no attribute 'adam'"):
        gx.hyper.adam  # noqa: B018
    assert issubclass(gx.interop.Named, Call)


def test_the_import_loads_no_optional_library():
    heavy = ("matplotlib", "pandas", "flax", "optax", "sklearn", "rich", "PIL")
    code = f"import sys, gradxform; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"
