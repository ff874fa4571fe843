"""The layout of DESIGN.md: floors, imports only downwards, optional imports at the edges, short files, docstrings."""

import ast
import inspect
import re
import sys
from pathlib import Path

import pytest

import gradxform as gx
from gradxform.hyper import Schedule
from gradxform.transform import Transform

PACKAGE = Path(gx.__file__).parent

# A file or a folder of gradxform -> its floor. A new one must be given its place here.
FLOORS = {
    "tree.py": 0,
    "tree_math.py": 0,
    "numerics.py": 0,
    "slots.py": 0,
    "matrices.py": 0,
    "define.py": 1,
    "notation.py": 0,
    "equations.py": 1,
    "mathematics.py": 1,
    "hyper.py": 1,
    "schedules.py": 1,
    "schedule_algebra.py": 1,
    "schedule_cycles.py": 1,
    "transform.py": 2,
    "leafwise.py": 2,
    "core.py": 2,
    "tunable.py": 2,
    "directions.py": 3,
    "preconditioners.py": 3,
    "factored.py": 3,
    "orthogonal.py": 3,
    "stepsize.py": 3,
    "clipping.py": 3,
    "clip_adaptive.py": 3,
    "gradient_shape.py": 3,
    "polyak.py": 3,
    "distance.py": 3,
    "dual_averaging.py": 3,
    "curvature.py": 4,
    "betting.py": 4,
    "low_rank.py": 4,
    "monitor.py": 3,
    "privacy.py": 3,
    "whole.py": 3,
    "regularise.py": 3,
    "moments.py": 3,
    "products.py": 3,
    "differences.py": 3,
    "signs.py": 3,
    "layerwise.py": 3,
    "labels.py": 3,
    "select.py": 4,
    "wrap.py": 4,
    "agreement.py": 4,
    "store.py": 4,
    "average.py": 4,
    "accumulate.py": 4,
    "skip.py": 4,
    "sam.py": 4,
    "schedule_free.py": 4,
    "state.py": 4,
    "tree_utils.py": 4,
    "describe.py": 4,
    "aliases.py": 5,
    "optimizers": 5,
    "train": 6,
    "plot": 7,  # matplotlib, when a picture is drawn
    "sweep": 7,  # its results come as pandas tables
    "__init__.py": 7,  # what users type, and the loop around it
    "interop": 7,
    "interop.py": 7,
    "import_optax.py": 7,
    "import_torch.py": 7,
    "losses.py": 7,
    "compatibility.py": 7,
    "contrib.py": 7,
    "transforms.py": 7,
    "report": 7,
    "registry.py": 7,
    "registry_adaptive.py": 7,
    "entry.py": 7,
    "testing.py": 7,
    "cli.py": 7,
    "__main__.py": 7,
}
EDGE = 7
BELOW_THE_EDGE = {"jax", "numpy", *sys.stdlib_module_names}
OPTIONAL = {"flax", "optax", "sklearn", "matplotlib", "rich", "pandas", "chex", "orbax", "PIL"}


def python_files(package=PACKAGE):
    return sorted(path for path in package.rglob("*.py") if "__pycache__" not in path.parts)


def place(path, package=PACKAGE):
    """The entry of the table that a file belongs to: itself, or the folder at the top."""
    return path.relative_to(package).parts[0]


def imported(path):
    """Every module that a file imports, at its top or in a function, with the line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            name = node.args[0] if node.args else None  # an import by another name is an import
            if isinstance(name, ast.Constant):
                yield str(name.value), node.lineno


def places_imported(path, package=PACKAGE):
    """The entries of the table that a file imports from gradxform."""
    for module, line in imported(path):
        first, *rest = module.split(".")
        if first != package.name:
            continue
        name = rest[0] if rest else "__init__"
        if (package / name).is_dir():
            yield name, line
        else:
            yield f"{name}.py" if (package / f"{name}.py").exists() else "__init__.py", line


def problems(package=PACKAGE, floors=FLOORS):
    """Everything that breaks the layout, one line each."""
    for path in python_files(package):
        here, where = place(path, package), path.relative_to(package)
        if here not in floors:
            yield f"{where}: has no floor; give it one in tests/test_floors.py"
            continue
        for there, line in places_imported(path, package):
            if floors.get(there, -1) > floors[here]:
                yield f"{where}:{line}: floor {floors[here]} imports {there} of floor {floors[there]}"
        for module, line in imported(path):
            first = module.split(".")[0]
            if first == package.name or first in BELOW_THE_EDGE:
                continue
            if floors[here] < EDGE:
                yield f"{where}:{line}: imports {first}, below floor {EDGE}"
            elif first not in OPTIONAL:
                yield f"{where}:{line}: imports {first}, which is no optional dependency"
        if (length := len(path.read_text().splitlines())) > 400:
            yield f"{where}: has {length} lines"


def test_the_layout():
    assert not list(problems())


def test_the_files_are_found():
    names = {place(path) for path in python_files()}
    assert {"tree.py", "core.py", "leafwise.py", "optimizers", "train", "report", "cli.py", "__init__.py"} <= names
    assert ("leafwise.py", 0) in [(name, 0) for name, _ in places_imported(PACKAGE / "core.py")]


BAD = {
    "a new file": ({"novel.py": ""}, "novel.py: has no floor"),
    "a new folder": ({"novel/a.py": ""}, "novel/a.py: has no floor"),
    "upwards": (
        {"tree.py": "from gradxform.optimizers import adam"},
        "tree.py:1: floor 0 imports optimizers of floor 5",
    ),
    "upwards by the package": (
        {"core.py": "import gradxform as gx"},
        "core.py:1: floor 2 imports __init__.py of floor 7",
    ),
    "upwards from the package": ({"core.py": "from gradxform import adam"}, "core.py:1: floor 2 imports __init__.py"),
    "upwards in a function": (
        {"numerics.py": "def f():\n    import gradxform.core"},
        "numerics.py:2: floor 0 imports core.py",
    ),
    "upwards into a folder": (
        {"wrap.py": "from gradxform.train import fit"},
        "wrap.py:1: floor 4 imports train of floor 6",
    ),
    "an optional import": ({"core.py": "from flax import nnx"}, "core.py:1: imports flax, below floor 7"),
    "an optional import in a function": (
        {"train/a.py": "def f():\n    import optax"},
        "train/a.py:2: imports optax, below",
    ),
    "an optional import by its string": (
        {"train/a.py": "import importlib\n\npandas = importlib.import_module('pandas')"},
        "train/a.py:3: imports pandas, below",
    ),
    "another import": ({"cli.py": "import requests"}, "cli.py:1: imports requests, which is no optional dependency"),
    "a long file": ({"tree.py": "\n" * 401}, "tree.py: has 401 lines"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_breaks_the_layout_is_found(name, tmp_path):
    files, words = BAD[name]
    package = tmp_path / "gradxform"
    for file in ["__init__.py", "core.py", "optimizers/__init__.py", "tree.py", "cli.py", "train/__init__.py", *files]:
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        (package / file).write_text(files.get(file, "import jax\n"))
    found = list(problems(package))
    assert len(found) == 1, found
    assert found[0].startswith(words)


def test_imports_make_no_circle():
    """Level imports are allowed; a circle of them is not."""
    graph = {}
    for path in python_files():
        if "/" not in str(path.relative_to(PACKAGE)):
            graph[path.name] = {there for there, _ in places_imported(path) if there != "__init__.py"}
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
    """Public functions and classes by name: those of `__all__`, or every public name that gradxform itself defines."""
    names = getattr(gx, "__all__", [name for name in vars(gx) if not name.startswith("_")])
    found = {name: getattr(gx, name) for name in names}
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
    assert {"adam", "chain", "apply_updates", "RuleState", "PerLeaf", "linear_schedule", "by_path"} <= public().keys()
    assert {"adam", "ema", "clip", "identity"} <= constructors(Transform).keys()
    assert {"linear_schedule", "join_schedules"} <= constructors(Schedule).keys()
    assert constructors(Transform).keys() >= NO_PAPER, "an exception for what does not exist"


def test_every_public_name_has_a_docstring():
    for name, x in public().items():
        doc = inspect.getdoc(x) or ""
        assert len(doc) > 15, f"{name} has no docstring"
        first = doc.partition("\n\n")[0].rstrip()
        assert first.endswith((".", ":", "]")), f"{name}: the first paragraph is no sentence: {first!r}"


def test_every_transformation_says_what_it_remembers():
    missing = [n for n, f in constructors(Transform).items() if "\nMemory:" not in inspect.getdoc(f)]
    assert set(missing) <= NO_STATE_OF_ITS_OWN, missing


def test_every_equation_from_a_paper_names_it():
    missing = [n for n, f in constructors(Transform).items() if "\nSource:" not in inspect.getdoc(f)]
    assert set(missing) <= NO_PAPER, missing
    for name, f in constructors(Transform).items():
        source = inspect.getdoc(f).partition("\nSource:")[2]
        if source:
            assert re.search(r"\b(19|20)\d\d\b|torch", source), f"{name}: a source without its year: {source}"


def test_every_public_method_has_a_docstring():
    for cls in (Transform, Schedule, gx.RuleState, type(gx.adam(0.1)), type(gx.chain())):
        for name, member in inspect.getmembers(cls, inspect.isfunction):
            if not name.startswith(("_", "tree_")):
                assert inspect.getdoc(member), f"{cls.__name__}.{name}"
