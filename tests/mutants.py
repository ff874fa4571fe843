"""Do the tests notice? Change one operator, constant or comparison of the library at a time, and run the tests of its room.

    python tests/mutants.py --out results.json              # 200 of them; goes on where it was stopped
    python tests/mutants.py --out results.json --survivors  # what no test noticed, without those that nothing could

A mutant lives in a process of its own, forked from one that has imported JAX already, and is put in place of its module by an
import hook: no file is written. Its tests run in the order of STAGES, the likeliest to notice first, until one fails.
"""

import argparse
import ast
import hashlib
import importlib.abc
import importlib.util
import json
import os
import re
import signal
import sys
import time
import warnings
from collections import Counter
from importlib.machinery import SourceFileLoader
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gradxform"
ROOMS = ("core", "rules", "schedules", "train", "wrappers", "sweep")

# room -> its tests, the likeliest to notice first; {names} are the constructors whose equations the module holds
ORACLES = "tests/optimizers/test_oracles.py tests/optimizers/test_catalogue_references.py tests/optimizers/test_structure_oracles.py"
STAGES = {
    "rules": [
        ("tests/optimizers/test_defaults.py tests/display/test_equations.py", "{names}"),
        (f"{ORACLES} tests/rules", "{names}"),
        ("tests/oracles/test_reference.py tests/test_numerics.py tests/optimizers", "{names}"),
        ("tests/laws/test_laws.py", "{names}"),
        (
            "tests/rules tests/test_numerics.py tests/optimizers/test_identities.py tests/optimizers/test_grid.py",
            "",
        ),
    ],
    "wrappers": [
        ("tests/optimizers/test_defaults.py", "{names}"),
        (
            "tests/wrappers tests/optimizers/test_structure_oracles.py tests/optimizers/test_structure_optax.py",
            "{names}",
        ),
        ("tests/rules tests/optimizers tests/oracles", "{names}"),
        ("tests/laws/test_laws.py", "{names}"),
        ("tests/wrappers", ""),
    ],
    "schedules": [
        ("tests/optimizers/test_defaults.py", "{names}"),
        (
            "tests/schedules tests/optimizers/test_oracles.py tests/oracles/test_reference.py",
            "{names}",
        ),
        ("tests/schedules tests/core/test_values.py", ""),
    ],
    "train": [("tests/train", ""), ("tests/sweep/test_sweep.py tests/sweep/test_space.py", "")],
    "sweep": [
        ("tests/sweep/test_engine.py tests/sweep/test_space.py tests/sweep/test_keys.py", ""),
        ("tests/sweep", ""),
        ("tests/cli/test_sweep_command.py tests/cli/test_options.py", ""),
    ],
    "core": [
        ("tests/core/test_chain.py tests/core/test_values.py tests/core/test_states.py", ""),
        ("tests/core", ""),
        ("tests/laws/test_laws.py", "adam- or partition- or chain- or ema- or lars-"),
        ("tests/schedules tests/interop/test_optax_behaviours.py tests/state", ""),
    ],
}

SAME_LENGTH = "they have one length by construction; strict says so to the reader"
SERIES = "return y * (1 / 12 - y * (1 / 720 - y * (1 / 30240 - y * (1 / 1209600 - y / 47900160))))"
PRECISION = "a millionth of a term that is itself below a thousandth of the sum"

# file: expression -> changed expression  in  line, and why no test could notice
EQUIVALENT: dict[str, str] = {
    "core/leafwise.py: True -> False  in  new_states |= going.through(segment, last=True)": "it spares an output that nothing reads",
    "core/schedule.py: True -> False  in  for boundary, following in zip(boundaries, schedules[1:], strict=True):": SAME_LENGTH,
    "rules/noise.py: True -> False  in  for x, key in zip(leaves, keys, strict=True):": SAME_LENGTH,
    "train/hypergradient.py: True -> False  in  given = dict(enumerate(rest)) | dict(zip(real, numbers, strict=True))": SAME_LENGTH,
    "wrappers/accumulation.py: True -> False  in  for i, x in zip(positions, piece[0], strict=True):": SAME_LENGTH,
    f"rules/rms_variants.py: 1209600 -> 1209601  in  {SERIES}": PRECISION,
    f"rules/rms_variants.py: 47900160 -> 47900161  in  {SERIES}": PRECISION,
}

ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv, ast.MatMult: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


# --- What is changed


def changed(node):
    """The same expression with one thing changed, None where there is nothing to change."""
    copy = type(node)(**{name: getattr(node, name, None) for name in node._fields})
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        copy.op = ARITHMETIC[type(node.op)]()
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        copy.ops = [COMPARISONS[type(node.ops[0])]()]
    elif isinstance(node, ast.BoolOp):
        copy.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        return node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        copy.value = not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        copy.value = node.value + 1
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        copy.value = 2 * node.value or 1.0
    else:
        return None
    return copy


def expressions(node):
    """Every expression that computes something: no types, no texts of errors, no decorators."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            skipped = ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom
            if not isinstance(child, ast.AST) or isinstance(child, skipped):
                continue
            called = getattr(child, "func", None)
            if isinstance(called, ast.Name) and called.id in ("isinstance", "issubclass", "Range"):
                continue
            if isinstance(child, ast.Subscript) and ast.unparse(child.value) in (
                "Annotated",
                "dict",
                "tuple",
                "Callable",
            ):
                continue
            yield child
            yield from expressions(child)


def mutants_of(path: Path):
    """(name, first byte, byte after the last, new text) for each mutant of a file."""
    text = path.read_bytes()
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in expressions(ast.parse(text)):
        new = changed(node)
        if new is None:
            continue
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        old, new = (ast.unparse(ast.fix_missing_locations(x)) for x in (node, new))
        where = f"{path.relative_to(PACKAGE)}:{node.lineno}:{node.col_offset}"
        line = text.splitlines()[node.lineno - 1].decode().strip()
        yield f"{where}: {old} -> {new}  in  {line}", begin, end, f"({new})".encode()


def sample(count: int, seed: int) -> list[str]:
    """So many of all mutants: by a hash of what they change, so that other edits leave the choice as it is."""
    files = [
        p
        for room in ROOMS
        for p in sorted((PACKAGE / room).rglob("*.py"))
        if p.name != "__init__.py"
    ]
    seen, keys = Counter(), {}
    for name in (name for path in files for name, *_ in mutants_of(path)):
        what = without_place(name)
        seen[what] += 1
        keys[name] = hashlib.sha256(f"{seed} {seen[what]} {what}".encode()).hexdigest()
    return sorted(keys, key=keys.__getitem__)[:count]


def source_with(name: str) -> tuple[str, Path, bytes]:
    """The module that a mutant changes, its file, and what it becomes."""
    path = PACKAGE / name.split(":", maxsplit=1)[0]
    for known, begin, end, new in mutants_of(path):
        if known == name:
            text = path.read_bytes()
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            return module, path, text[:begin] + new + text[end:]
    raise ValueError(f"no such mutant: {name}")


# --- How it is tried


class Hook(importlib.abc.MetaPathFinder):
    """Gives one module another text."""

    def __init__(self, module: str, path: Path, text: bytes):
        self.module, self.path, self.text = module, path, text

    def find_spec(self, fullname, path=None, target=None):
        if fullname != self.module:
            return None
        hook = self

        class Loader(SourceFileLoader):
            def get_code(self, fullname):
                return self.source_to_code(hook.text, str(hook.path))

        loader = Loader(fullname, str(self.path))
        return importlib.util.spec_from_file_location(fullname, self.path, loader=loader)


class Noticed:
    """What failed first."""

    by = ""

    def pytest_runtest_logreport(self, report):
        if report.failed and not self.by:
            self.by = report.nodeid

    def pytest_collectreport(self, report):
        if report.failed and not self.by:
            self.by = f"{report.nodeid} (import)"


def imported_by_name(names: dict[str, list[str]], module: str) -> set[str]:
    """Names of constructors for a module of helpers: those of the modules that import from it."""
    return {
        name
        for other, found in names.items()
        if module.replace("/", ".").removesuffix(".py") in (PACKAGE / other).read_text()
        for name in found
    }


def constructors_by_module() -> dict[str, list[str]]:
    """File of a rule -> the public constructors that run it."""
    sys.path[:0] = [str(ROOT / "tests" / "laws")]
    from instances import TRANSFORMATIONS

    found: dict[str, set[str]] = {}
    for name, entry in TRANSFORMATIONS.items():
        for _, part in entry.make().parts():
            things = [type(part), getattr(part, "rule", None), getattr(part, "measure", None)]
            for thing in (x for x in things if x is not None):
                module = getattr(thing, "__module__", type(thing).__module__)
                path = "/".join(module.split(".")[1:]) + ".py"
                if (PACKAGE / path).exists():
                    found.setdefault(path, set()).add(name)
    return {path: sorted(names) for path, names in found.items()}


def public_names(path: Path) -> list[str]:
    """What a file's __all__ names."""
    lists = re.findall(r"^__all__ \+?= (\[.*?\])", path.read_text(), re.MULTILINE | re.DOTALL)
    return [name for text in lists for name in ast.literal_eval(text)]


def stages_for(file: str, names: dict[str, list[str]]) -> list[list[str]]:
    """The arguments of pytest for each stage of a module's tests."""
    own = set(public_names(PACKAGE / file)) | set(names.get(file, ()))
    own |= imported_by_name(names, file) if not names.get(file) else set()
    stages = []
    for files, words in STAGES[file.split("/", maxsplit=1)[0]]:
        words = words.format(names=" or ".join(sorted(own)))
        stages.append([*files.split(), *(["-k", words] if words else [])])
    return stages


def forked(work, limit: float):
    """What `work()` returns, from a process of its own; None when it takes longer than the limit."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX has made no thread yet
        child = os.fork()
    if child == 0:
        os.setsid()
        os.close(read)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        try:
            out = work()
        except BaseException as error:
            out = [f"{type(error).__name__} on import"]
        os.write(write, json.dumps(out).encode())
        os.close(write)
        os._exit(0)
    os.close(write)
    begun, text = time.monotonic(), b""
    os.set_blocking(read, False)
    while (left := limit - (time.monotonic() - begun)) > 0:
        done, _ = os.waitpid(child, os.WNOHANG)
        try:
            while piece := os.read(read, 65536):
                text += piece
        except BlockingIOError:
            pass
        if done:
            break
        time.sleep(min(0.2, left))
    else:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os.close(read)
    return json.loads(text) if text else None


def run_tests(arguments: list[str], mutant: str = "") -> list[str]:
    """[the first test that fails], or nothing, of the library with one mutant in it."""
    import pytest

    sys.dont_write_bytecode = True
    if mutant:
        sys.meta_path.insert(0, Hook(*source_with(mutant)))
    noticed = Noticed()
    given = [
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-o",
        "addopts=",
        "-m",
        "not slow and not chromium and not notebooks",
    ]
    code = pytest.main([*given, *arguments], plugins=[noticed])
    failed = code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    return [noticed.by or f"pytest ended with {code}"] if failed else []


def tried(mutant: str, names: dict[str, list[str]], limit: float) -> dict:
    """The test that noticed a mutant, "" for none; how many stages and seconds it took."""
    begun, stages, found = time.monotonic(), 0, []
    for arguments in stages_for(mutant.split(":", maxsplit=1)[0], names):
        stages += 1
        found = forked(lambda arguments=arguments: run_tests(arguments, mutant), limit)
        if found or found is None:
            break
    by = "took too long" if found is None else "".join(found)
    return {"by": by, "stages": stages, "seconds": round(time.monotonic() - begun, 1)}


def written(path: Path, results: dict):
    """The results, in place of the old ones at once."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1, ensure_ascii=False))
    part.replace(path)


def without_place(mutant: str) -> str:
    """A mutant by its file and its expressions, whatever line it stands in."""
    return re.sub(r":\d+:\d+: ", ": ", mutant, count=1)


def told(results: dict):
    """Print what became of the mutants."""
    unnoticed = [name for name, result in results.items() if not result["by"]]
    late = [name for name, result in results.items() if result["by"] == "took too long"]
    for name in unnoticed:
        print(f"{name}   {EQUIVALENT.get(without_place(name), 'SURVIVES')}")
    for name in late:
        print(f"{name}   took too long")
    known = sum(without_place(name) in EQUIVALENT for name in unnoticed)
    left, total = len(unnoticed) - known, len(results) or 1
    print(
        f"{total} mutants, {left} survive ({100 * left / total:.1f} %), {known} change nothing, {len(late)} took too long"
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="results, a JSON file; those in it are not tried again",
    )
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--limit", type=float, default=600, help="seconds for one stage of one mutant"
    )
    parser.add_argument("--survivors", action="store_true", help="only print what became of them")
    parser.add_argument(
        "--again", action="store_true", help="try survivors and late ones once more"
    )
    settings = parser.parse_args()
    before = json.loads(settings.out.read_text()) if settings.out.exists() else {}
    chosen = sample(settings.count, settings.seed)
    results = {name: before[name] for name in chosen if name in before}
    if settings.survivors:
        told(results)
        return
    os.chdir(ROOT)
    import jax  # noqa: F401
    import numpy  # noqa: F401
    import optax  # noqa: F401
    import pytest  # noqa: F401

    names = forked(constructors_by_module, settings.limit)
    for mutant in chosen:
        old = results.get(mutant)
        if old and not (settings.again and old["by"] in ("", "took too long")):
            continue
        results[mutant] = tried(mutant, names, settings.limit)
        written(settings.out, results)
        print(f"{mutant}   {results[mutant]}", flush=True)
    told(results)


if __name__ == "__main__":
    main()
