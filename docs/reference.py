"""The reference, generated: every public name of gradxform on the page of the module that defines it.

A public function or class without a docstring, or in a module that has no page, raises; so does a page without names.
"""

import functools
import importlib
import inspect
import os
import pkgutil
import re
from pathlib import Path

import gradxform
from gradxform.core.call import Flag
from gradxform.display.code import code
from gradxform.interop.optax import aliases

# Page -> its title, and the modules that it shows in this order; `name.*` stands for all modules of a folder.
PAGES = {
    "core": (
        "Core and composition",
        [
            "core.chain",
            "core.transform",
            "core.leafwise",
            "core.leaf",
            "core.slots",
            "core.labels",
            "core.hyper",
            "core.schedule",
            "core.tunable",
            "core.inject",
            "core.call",
            "core.*",
        ],
    ),
    "schedules": (
        "Schedules",
        ["schedules.basic", "schedules.algebra", "schedules.cycles"],
    ),
    "directions": ("Directions", ["rules.directions", "rules.dual_averaging"]),
    "preconditioners": (
        "Preconditioners",
        [
            "rules.preconditioners",
            "optimizers.products",
            "rules.rms_variants",
            "rules.differences",
            "rules.signs",
            "rules.layerwise",
            "rules.curvature",
        ],
    ),
    "matrices": (
        "A rate for each matrix",
        ["matrices.declaration", "matrices.matrixwise", "matrices.*", "optimizers.matrix"],
    ),
    "step_size": (
        "Step size",
        [
            "rules.step_size",
            "rules.polyak",
            "rules.distance",
            "rules.coin_betting",
            "wrappers.mechanic",
        ],
    ),
    "clipping": ("Clipping", ["rules.clipping", "rules.normalize"]),
    "regularisation": (
        "Regularisation and privacy",
        ["rules.weight_decay", "rules.noise", "rules.*", "wrappers.sam"],
    ),
    "where": ("Where: which parameters", ["wrappers.masking"]),
    "when": (
        "When and how: accumulate, skip, repeat, store",
        [
            "wrappers.accumulation",
            "wrappers.skipping",
            "wrappers.master_weights",
            "wrappers.conditional",
            "wrappers.cautious",
        ],
    ),
    "after": (
        "And after: parameters to evaluate",
        ["wrappers.averaging", "wrappers.schedule_free", "wrappers.*"],
    ),
    "optimizers": (
        "Named optimizers",
        ["optimizers.textbook", "optimizers.descent", "optimizers.*"],
    ),
    "state": (
        "State: look, change, carry over",
        [
            "state.access",
            "state.migrate",
            "state.describe",
            "state.monitor",
            "interop.optax.state",
            "interop.torch_state",
        ],
    ),
    "train": ("Training", ["train.loop", "train.batches", "train.stopping", "losses"]),
    "sweep": (
        "Sweeps",
        [
            "sweep.run",
            "sweep.space",
            "sweep.result",
            "train.paced",
            "train.hypergradient",
            "sweep.*",
        ],
    ),
    "plot": ("Plots", ["plot", "plot.*"]),
    "testing": ("Testing your own", ["testing"]),
    "interop": ("Interop", ["interop.export"]),
    "optax": (
        "More names of Optax",
        [
            "interop.optax.aliases",
            "interop.optax.classes",
            "interop.optax.names",
            "contrib",
            "transforms",
        ],
    ),
    "tree": (
        "Trees and numerics",
        [
            "core.leaves",
            "interop.optax.tree_utils",
            "interop.optax.tree_math",
            "numerics",
        ],
    ),
}

# Modules to import names from, beside the package itself; and single names that users meet in others.
PUBLIC = [
    "hyper",
    "interop",
    "numerics",
    "plot",
    "sweep",
    "testing",
    "train",
    "tree",
    "tree_utils",
]
ALSO = [
    "core.chain.Named",
    "core.chain.Chain",
    "core.leaf.Site",
    "core.transform.Transform",
    "core.tunable.TunableState",
    "core.inject.InjectStatefulHyperparamsState",
]

ARGUMENTS = ("Args", "Numbers", "Attributes")
OTHERS = ("Shapes", "Units", "Memory", "Returns", "Raises", "Source", "Not")
HEADER = re.compile(rf"({'|'.join(ARGUMENTS + OTHERS)}):(?: (.*))?$")


def module_names() -> list[str]:
    """Every module of gradxform, without the package's own name."""
    return [
        m.name.partition(".")[2]
        for m in pkgutil.walk_packages(gradxform.__path__, "gradxform.")
    ]


def public_names() -> dict[str, object]:
    """Every public function and class, by the one name it is documented under."""
    homes = [
        gradxform,
        *(
            importlib.import_module(f"gradxform.{m}")
            for m in PUBLIC
            if m in module_names()
        ),
    ]
    found = [
        (home.__name__, name, x)
        for home in homes
        for name, x in _names_of(home).items()
    ]
    for path in ALSO:
        module, _, name = path.rpartition(".")
        home = importlib.import_module(f"gradxform.{module}")
        found.append((home.__name__, name, getattr(home, name)))
    out, seen = {}, set()
    for home, name, x in found:
        if id(x) not in seen or home == "gradxform":
            out[f"{home}.{name}"] = x
            seen.add(id(x))
    return out


def _names_of(home) -> dict[str, object]:
    own = home is gradxform or hasattr(home, "__all__")
    names = getattr(
        home, "__all__", [name for name in vars(home) if not name.startswith("_")]
    )
    if (
        home is gradxform
    ):  # what completion shows, and what Optax's users find beside it
        names = [*dir(gradxform), *aliases.__all__]
    objects = {name: getattr(home, name) for name in names}
    return {
        name: x
        for name, x in objects.items()
        if (inspect.isroutine(x) or inspect.isclass(x))
        and (
            x.__module__.split(".")[0] == "gradxform"
            if own
            else x.__module__ == home.__name__
        )
    }


def modules_of(page: str) -> list[str]:
    """The modules a page shows, in order."""
    listed = [m for _, modules in PAGES.values() for m in modules]
    out = []
    for name in PAGES[page][1]:
        if name.endswith(".*"):
            out += [
                m for m in module_names() if m.startswith(name[:-1]) and m not in listed
            ]
        elif name in module_names():
            out.append(name)
    return out


def pages() -> dict[str, dict[str, dict[str, object]]]:
    """Page -> module -> public name -> object. Everything public is on one page, or it raises."""
    place = {module: page for page in PAGES for module in modules_of(page)}
    out: dict[str, dict[str, dict[str, object]]] = {
        page: {m: {} for m in modules_of(page)} for page in PAGES
    }
    for path, x in public_names().items():
        module = x.__module__.partition(".")[2]
        if module not in place:
            raise LookupError(
                f"{path} of gradxform.{module} is on no page: give the module a page in docs/reference.py"
            )
        if not (inspect.getdoc(x) or "").strip():
            raise LookupError(f"{path} has no docstring")
        out[place[module]][module][path] = x
    return {
        page: {
            m: dict(sorted(names.items(), key=lambda row: _line(row[1])))
            for m, names in modules.items()
            if names or m == "losses"
        }
        for page, modules in out.items()
    }


def _line(x) -> int:
    return inspect.getsourcelines(inspect.unwrap(x))[1]


def write(folder: Path) -> None:
    """Write the pages; a file that would not change is left alone, and one that is no page is removed."""
    folder.mkdir(exist_ok=True)
    texts = {
        f"{page}.rst": _page(PAGES[page][0], modules)
        for page, modules in pages().items()
        if modules
    }
    texts["command_line.rst"] = _command_line()
    entries = "\n".join(f"   {name.removesuffix('.rst')}" for name in texts)
    texts["index.rst"] = INDEX.format(entries=entries)
    for file in folder.glob("*.rst"):
        if file.name not in texts:
            file.unlink()
    for name, text in texts.items():
        if (
            not (folder / name).exists()
            or (folder / name).read_text(encoding="utf-8") != text
        ):
            (folder / name).write_text(text, encoding="utf-8")


INDEX = """Reference
=========

Everything public, from the code. ``import gradxform as gx`` gives what is called ``gradxform.name`` here; the rest stands in
the module that its name says.

Beside an argument stands what it may be. An interval such as ``[0, 1)`` means a number, an array, a schedule or a table by
parameter path (:py:obj:`by_path <gradxform.by_path>`); a number outside it is an error where you call. *Memory* is in bytes for one
parameter, of what stays between steps.

.. toctree::
   :maxdepth: 1

{entries}
"""


def _heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n"


def _page(title: str, modules) -> str:
    out = [_heading(title, "=")]
    for module, names in modules.items():
        if len(modules) > 1:
            out.append(
                _heading(module.rpartition(".")[2].replace("_", " ").capitalize(), "-")
            )
        out.append(
            "\n".join(
                docstring_lines(
                    inspect.getdoc(importlib.import_module(f"gradxform.{module}"))
                    or "",
                    None,
                )
            )
            + "\n"
        )
        if module == "hyper":
            out.append(_types())
        if len(names) > 3:
            rows = (
                f"   * - :py:obj:`{_short(path)} <{path}>`\n     - {_summary(x)}"
                for path, x in names.items()
            )
            out.append(
                ".. list-table::\n   :class: summary\n\n" + "\n".join(rows) + "\n"
            )
        for path, x in names.items():
            home, _, name = path.rpartition(".")
            kind = "autoclass" if inspect.isclass(x) else "autofunction"
            out.append(
                f".. {kind}:: {home}.{name}"
                + ("\n   :members:" if kind == "autoclass" else "")
                + "\n"
            )
    return "\n".join(out)


def _types() -> str:
    """The kinds of numbers, as a table."""
    from gradxform.core import hyper

    rows = []
    for name, hint in vars(hyper).items():
        for extra in getattr(hint, "__metadata__", ()):
            if isinstance(extra, hyper.Range):
                whole = ", a whole number" if extra.integer else ""
                rows.append(
                    f"   * - ``{name}``\n     - ``{extra.interval}``\n     - {extra.meaning}{whole}"
                )
    return (
        "Types for the arguments of your own constructors:\n\n.. list-table::\n\n"
        + "\n".join(rows)
        + "\n"
    )


def _short(path: str) -> str:
    return path.removeprefix("gradxform.")


def _summary(x) -> str:
    first = inspect.getdoc(x).split("\n\n")[0]
    return _inline(" ".join(re.split(r":?\n\s{4,}", first)[0].split()))


def _command_line() -> str:
    from gradxform.cli.main import parser

    os.environ["COLUMNS"] = "84"
    top = parser()
    commands = next(
        a for a in top._actions if hasattr(a, "choices") and a.dest == "command"
    ).choices
    out = [
        _heading("Command line", "="),
        _code_block(top.format_help().splitlines(), "text"),
    ]
    for name, command in commands.items():
        out += [
            _heading(f"gradxform {name}", "-"),
            _code_block(command.format_help().splitlines(), "text"),
        ]
    return "\n".join(out)


# Docstrings


def signature(x) -> str:
    """The arguments with their defaults, as one types them."""
    if inspect.isclass(x) and "Built by" in (x.__doc__ or ""):
        return ""
    parameters = []
    for p in inspect.signature(x).parameters.values():
        default = p.empty if p.default is p.empty else _Code(p.default)
        parameters.append(p.replace(annotation=p.empty, default=default))
    return str(inspect.Signature(parameters))


class _Code:
    def __init__(self, x):
        self.x = x

    def __repr__(self):
        return code(self.x)


def docstring_lines(doc: str, x) -> list[str]:
    """The docstring as reStructuredText: indented blocks literal, sections as fields, names as links."""
    lines, out, sections, i = doc.splitlines(), [], {}, 0
    own = set(_parameters(x))
    while i < len(lines):
        line = lines[i]
        header = HEADER.match(line)
        if header:
            i, sections[header[1]] = _section(lines, i + 1, header[2])
        elif line.startswith(">>>"):
            j = next(
                (j for j in range(i, len(lines)) if not lines[j].strip()), len(lines)
            )
            out += ["", *lines[i:j], ""]
            i = j
        elif line.startswith("    "):
            j = next(
                (
                    j
                    for j in range(i, len(lines))
                    if lines[j].strip() and not lines[j].startswith("    ")
                ),
                len(lines),
            )
            out += ["", *_code_block([y[4:] for y in lines[i:j]]).splitlines(), ""]
            i = j
        else:
            j = i + 1  # code in backticks may go on over the end of its line
            while (
                " ".join(lines[i:j]).count("`") % 2
                and j < len(lines)
                and lines[j].strip()
            ):
                j += 1
            out.append(_inline(" ".join(lines[i:j]), own))
            i = j
    return [*out, "", *_fields(sections, x), ""]


def _section(lines, i, inline):
    """Its lines and the index after them: up to a blank line if it begins on the line of its header, else while indented."""
    found = [inline] if inline else []
    while i < len(lines) and not HEADER.match(lines[i]):
        if (
            not lines[i].strip()
            if inline
            else lines[i].strip() and not lines[i].startswith("    ")
        ):
            break
        found.append(lines[i].strip() if inline else lines[i][4:])
        i += 1
    return i, found


def _fields(sections, x) -> list[str]:
    types, own = _argument_types(x), set(_parameters(x))
    texts = _entries(sections.get("Numbers", []))
    texts = (
        _kinds(x)
        | {name: _without_interval(text) for name, text in texts.items()}
        | _entries(sections.get("Args", []))
    )
    order = (
        list(inspect.signature(x).parameters) if hasattr(x, "build") else list(texts)
    )
    out = []
    for name in [n for n in order if n in texts or n in types] + [
        n for n in texts if n not in order
    ]:
        out.append(
            f":param {name.replace('*', chr(92) + '*')}: {_inline(texts.get(name, ''), own)}"
        )
        if name in types:
            out.append(f":type {name}: {types[name]}")
    attributes = (
        _entries(sections["Attributes"])
        if "Attributes" in sections
        else _commented_fields(x)
    )
    if attributes:
        out += [
            ":Attributes:",
            *(
                f"   - ``{name}``: {_inline(text, own)}"
                for name, text in attributes.items()
            ),
        ]
    for kind in OTHERS:
        if kind not in sections:
            continue
        entries = _entries(sections[kind]) if kind == "Raises" else {}
        if entries and all(
            re.fullmatch(r"\w+(Error|Warning)?", name) for name in entries
        ):
            out += [
                f":raises {name}: {_inline(text, own)}"
                for name, text in entries.items()
            ]
        else:
            out.append(
                f":{kind}: {_inline(' '.join(filter(None, map(str.strip, sections[kind]))), own)}"
            )
    return out


def _commented_fields(x) -> dict[str, str]:
    """The fields of a class that have a comment on their line."""
    if not inspect.isclass(x):
        return {}
    return dict(
        re.findall(r"^    (\w+): [^#\n]+  # (.+)$", inspect.getsource(x), re.MULTILINE)
    )


def _entries(lines) -> dict[str, str]:
    """`name: text` and its indented continuations."""
    out: dict[str, str] = {}
    name = ""
    for line in lines:
        match = re.match(r"([\w*][\w*, ]*): (.*)$", line)
        if match:
            name, *others = re.split(", ?", match[1])
            out |= {name: match[2]} | dict.fromkeys(others, f"as `{name}`")
        elif line.strip() and name:
            out[name] += " " + line.strip()
    return out


def _without_interval(text: str) -> str:
    return re.sub(r", in [\[(][^,]+, [^,]+[\])]$", "", text)


def _parameters(x):
    described = inspect.isroutine(x) or (
        inspect.isclass(x) and not issubclass(x, Exception)
    )
    return inspect.signature(x).parameters if described else {}


def _argument_types(x) -> dict[str, str]:
    """What each argument may be: the interval of a number, otherwise the annotation."""
    out = {}
    for name, p in _parameters(x).items():
        converter = getattr(x, "converters", {}).get(name)
        if getattr(converter, "interval", None):
            out[name] = f"``{converter.interval}``"
        elif isinstance(converter, Flag):
            out[name] = "``bool``"
        elif converter is None and p.annotation is not p.empty:
            out[name] = f"``{_readable(p.annotation)}``"
    return out


def _kinds(x) -> dict[str, str]:
    """What is known of the arguments of a constructor that are no numbers, from the types that convert them."""
    docs = {
        name: inspect.getdoc(type(converter))
        for name, converter in getattr(x, "converters", {}).items()
        if not isinstance(converter, Flag)
    }
    return {
        name: f"{doc[0].lower()}{doc[1:].splitlines()[0].rstrip('.')}"
        for name, doc in docs.items()
        if doc
    }


def _readable(annotation) -> str:
    text = (
        annotation
        if isinstance(annotation, str)
        else inspect.formatannotation(annotation)
    )
    text = re.sub(r"typing\.Annotated\[(\w+(?:\.\w+)*).*?\]", r"\1", text)
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z_])", "", text)


def _code_block(lines, language: str = "") -> str:
    lines = [line.rstrip() for line in lines]
    width = min((len(line) - len(line.lstrip()) for line in lines if line), default=0)
    lines = [line[width:] for line in lines]
    language = language or _language("\n".join(lines))
    return "\n".join(
        [
            f".. code-block:: {language}",
            "",
            *(f"   {line}".rstrip() for line in lines),
            "",
        ]
    )


def _language(text: str) -> str:
    if ">>>" in text:
        return "pycon"
    try:
        compile(text, "docstring", "exec")
    except SyntaxError:
        return "text"
    return "python" if "(" in text else "text"


@functools.cache
def _links() -> dict[str, str]:
    """Names as docstrings use them: those of the package alone, the others with their module."""
    return {_short(path): path for path in public_names()}


def _inline(text: str, own=()) -> str:
    """Code in backticks becomes a link where it is a public name and none of its `own`, and a literal otherwise; the rest is plain."""
    out = []
    for i, part in enumerate(re.split(r"`+([^`]+)`+", text)):
        if i % 2 == 0:
            out.append(
                re.sub(
                    r"(?<!\w)\*\w[\w ]*\*|([*|\\]|_(?=\W|$))",
                    lambda m: f"\\{m[1]}" if m[1] else m[0],
                    part,
                )
            )
            continue
        path = (
            None
            if part in own
            else _links().get(part.removeprefix("gx.").removesuffix("()"))
        )
        out.append(f"\\ :py:obj:`{part} <{path}>`\\ " if path else f"\\ ``{part}``\\ ")
    joined = "".join(out).removeprefix("\\ ")
    return (
        "\\" + joined if re.match(r"(\w|\d+)[.)] ", joined) else joined
    )  # initials are no list
