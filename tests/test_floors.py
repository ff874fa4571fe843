"""The layout of DESIGN.md: floors, imports downwards, optional ones at the edges, short files and lines."""

import ast
import inspect
import re
import sys
from pathlib import Path

import pytest

import gradxform as gx
from gradxform.core.schedule import Schedule
from gradxform.core.transform import Transform
from gradxform.interop.optax import aliases

PACKAGE = Path(gx.__file__).parent

# A room of gradxform -> its floor. Imports go down only; a new folder must be given its place here.
FLOORS = {
    "numerics": 0,
    "versions": 0,
    "display": 0,
    "core": 1,
    "schedules": 2,
    "rules": 2,
    "train": 2,
    "plot": 2,
    "wrappers": 3,
    "sweep": 3,
    "matrices": 4,
    "optimizers": 5,
    "state": 5,
    "sharding": 5,
    "interop": 6,
    "hyper": 7,
    "tree": 7,
    "tree_utils": 7,
    "losses": 7,
    "__init__": 8,
    "testing": 9,
    "contrib": 9,
    "transforms": 9,
    "cli": 9,
}
EDGES = {
    "plot",
    "sweep",
    "interop",
    "losses",
    "cli",
}  # where other libraries may be imported, when they are needed
ABOVE = {"__main__"}  # runs the command, and is imported by nobody
BELOW_THE_EDGE = {"jax", "numpy", *sys.stdlib_module_names}
OPTIONAL = {"flax", "optax", "sklearn", "matplotlib", "rich", "pandas", "chex", "orbax", "PIL"}


def python_files(package=PACKAGE):
    return sorted(path for path in package.rglob("*.py") if "__pycache__" not in path.parts)


def place(path, package=PACKAGE):
    """The room that a file belongs to: the folder at the top, or the file itself."""
    return path.relative_to(package).parts[0].removesuffix(".py")


def imported(path):
    """Every module that a file imports, at its top or in a function, with the line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
            "import_module",
            "__import__",
        ):
            name = node.args[0] if node.args else None  # an import by another name is an import
            if isinstance(name, ast.Constant):
                yield str(name.value), node.lineno


def modules_imported(path, package=PACKAGE):
    """The modules of gradxform that a file imports, as paths of names: `core/leaf`; the line."""
    for module, line in imported(path):
        first, *rest = module.split(".")
        if first != package.name:
            continue
        where = package
        for i, name in enumerate(rest):
            if (where / name).is_dir():
                where /= name
            elif (where / f"{name}.py").exists():
                yield "/".join((*rest[:i], name)), line
                break
            else:
                yield "/".join((*rest[:i], "__init__")), line
                break
        else:
            yield "/".join((*rest, "__init__")), line


def problems(package=PACKAGE, floors=FLOORS):
    """Everything that breaks the layout, one line each."""
    for path in python_files(package):
        here, where = place(path, package), path.relative_to(package)
        if here in ABOVE:
            continue
        if here not in floors:
            yield f"{where}: has no floor; give it one in tests/test_floors.py"
            continue
        for there, line in modules_imported(path, package):
            room = there.split("/")[0]
            if room != here and floors.get(room, -1) >= floors[here]:
                yield f"{where}:{line}: {here} on floor {floors[here]} imports {room} of floor {floors[room]}"
        for module, line in imported(path):
            first = module.split(".")[0]
            if first == package.name or first in BELOW_THE_EDGE:
                continue
            if here not in EDGES:
                yield f"{where}:{line}: imports {first}, which only {sorted(EDGES)} may"
            elif first not in OPTIONAL:
                yield f"{where}:{line}: imports {first}, which is no optional dependency"
        lines = path.read_text().splitlines()
        if len(lines) > 400:
            yield f"{where}: has {len(lines)} lines"
        for line, text in enumerate(lines, 1):
            if len(text) > 100:
                yield f"{where}:{line}: has {len(text)} characters"


def test_the_layout():
    assert not list(problems())


def test_the_files_are_found():
    assert {"core", "rules", "optimizers", "train", "cli", "testing", "__init__"} <= {
        place(path) for path in python_files()
    }
    assert ("core/leaf", 0) in [
        (name, 0) for name, _ in modules_imported(PACKAGE / "core" / "leafwise.py")
    ]


def test_the_house_is_small():
    assert len(list(PACKAGE.glob("*.py"))) <= 12
    assert len(set(FLOORS.values())) <= 10


BAD = {
    "a new file": ({"novel.py": ""}, "novel.py: has no floor"),
    "a new folder": ({"novel/a.py": ""}, "novel/a.py: has no floor"),
    "upwards": (
        {"numerics.py": "from gradxform.optimizers import adam"},
        "numerics.py:1: numerics on floor 0 imports optimizers of floor 5",
    ),
    "along a floor": (
        {"rules/a.py": "import gradxform.train"},
        "rules/a.py:1: rules on floor 2 imports train of floor 2",
    ),
    "upwards by the package": (
        {"core/a.py": "import gradxform as gx"},
        "core/a.py:1: core on floor 1 imports __init__ of floor 8",
    ),
    "upwards from the package": (
        {"core/a.py": "from gradxform import adam"},
        "core/a.py:1: core on floor 1 imports __init__ of floor 8",
    ),
    "upwards in a function": (
        {"numerics.py": "def f():\n    import gradxform.core"},
        "numerics.py:2: numerics on floor 0 imports core of floor 1",
    ),
    "an optional import": (
        {"core/a.py": "from flax import nnx"},
        "core/a.py:1: imports flax, which only",
    ),
    "an optional import in a function": (
        {"train/a.py": "def f():\n    import optax"},
        "train/a.py:2: imports optax, which only",
    ),
    "an optional import by its string": (
        {"train/a.py": "import importlib\n\npandas = importlib.import_module('pandas')"},
        "train/a.py:3: imports pandas, which only",
    ),
    "another import": (
        {"cli/a.py": "import requests"},
        "cli/a.py:1: imports requests, which is no optional dependency",
    ),
    "a long file": ({"tree.py": "\n" * 401}, "tree.py: has 401 lines"),
    "a long line": ({"tree.py": f"\n# {'x' * 99}\n"}, "tree.py:2: has 101 characters"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_breaks_the_layout_is_found(name, tmp_path):
    files, words = BAD[name]
    package = tmp_path / "gradxform"
    rooms = ("core", "rules", "optimizers", "cli", "train")
    for file in ["__init__.py", "numerics.py", *(f"{room}/__init__.py" for room in rooms), *files]:
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        (package / file).write_text(files.get(file, "import jax\n"))
    found = list(problems(package))
    assert len(found) == 1, found
    assert found[0].startswith(words)


def test_imports_make_no_circle():
    """Inside a room as well: whatever imports whatever, nothing comes back to itself."""
    graph = {}
    for path in python_files():
        here = str(path.relative_to(PACKAGE).with_suffix(""))
        package = "/".join((*path.relative_to(PACKAGE).parts[:-1], "__init__"))
        graph[here] = {
            there for there, _ in modules_imported(path) if there not in ("__init__", package)
        }
    done: set[str] = set()

    def visit(name, trail):
        assert name not in trail, " -> ".join([*trail, name])
        if name not in done:
            for there in graph.get(name, ()):
                visit(there, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


# Docstrings


def public():
    """Public functions and classes by name: what completion shows, and what Optax's users find beside it."""
    found = {name: getattr(gx, name) for name in [*dir(gx), *aliases.__all__]}
    ours = {n: x for n, x in found.items() if inspect.isroutine(x) or inspect.isclass(x)}
    return {n: x for n, x in ours.items() if x.__module__.startswith("gradxform")}


def constructors(kind):
    return {
        name: f
        for name, f in public().items()
        if hasattr(f, "build") and issubclass(inspect.signature(f).return_annotation, kind)
    }


NO_STATE_OF_ITS_OWN = {"identity", "set_to_zero"}
NO_PAPER = {
    "identity",
    "set_to_zero",
    "every",
    "scale",
    "scale_by_schedule",
    "scale_by_learning_rate",
    "clip",
    "zero_nans",
}


def test_the_public_names_are_found():
    assert {
        "adam",
        "chain",
        "apply_updates",
        "RuleState",
        "PerLeaf",
        "linear_schedule",
        "by_path",
    } <= public().keys()
    assert {"adam", "ema", "clip", "identity"} <= constructors(Transform).keys()
    assert {"linear_schedule", "join_schedules"} <= constructors(Schedule).keys()
    assert constructors(Transform).keys() >= NO_PAPER, "an exception for what does not exist"


def test_every_public_name_has_a_docstring():
    for name, x in public().items():
        doc = inspect.getdoc(x) or ""
        assert len(doc) > 15, f"{name} has no docstring"
        first = doc.partition("\n\n")[0].rstrip()
        assert first.endswith((".", ":", "]")), (
            f"{name}: the first paragraph is no sentence: {first!r}"
        )


def test_every_transformation_says_what_it_remembers():
    missing = [
        n for n, f in constructors(Transform).items() if "\nMemory:" not in inspect.getdoc(f)
    ]
    assert set(missing) <= NO_STATE_OF_ITS_OWN, missing


def test_every_equation_from_a_paper_names_it():
    missing = [
        n for n, f in constructors(Transform).items() if "\nSource:" not in inspect.getdoc(f)
    ]
    assert set(missing) <= NO_PAPER, missing
    for name, f in constructors(Transform).items():
        source = inspect.getdoc(f).partition("\nSource:")[2]
        if source:
            assert re.search(r"\b(19|20)\d\d\b|torch", source), (
                f"{name}: a source without its year: {source}"
            )


def test_every_public_method_has_a_docstring():
    for cls in (Transform, Schedule, gx.RuleState, type(gx.adam(0.1)), type(gx.chain())):
        for name, member in inspect.getmembers(cls, inspect.isfunction):
            if not name.startswith(("_", "tree_")):
                assert inspect.getdoc(member), f"{cls.__name__}.{name}"
