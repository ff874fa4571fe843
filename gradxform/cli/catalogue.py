"""`gradxform list` and `gradxform show`: all optimizers, or one of them. Needs JAX and NumPy."""

import inspect
import itertools
import re
import shutil
import sys
import textwrap

from gradxform.cli.problems import unknown


def listing(methods: dict, width: int | None = None) -> str:
    """The catalogue: name, one sentence, source. Narrow terminals get the source on a line of its
    own.
    """
    width = width or shutil.get_terminal_size((110, 24)).columns
    name_width = max(len(name) for name in methods) + 2
    title_width = max(24, (width - name_width) * 3 // 5 - 2)
    wide = width >= 90
    source_width = max(24, width - name_width - (title_width + 2 if wide else 0))
    heads = f"{'NAME':<{name_width}}{'WHAT IT DOES':<{title_width + 2}}SOURCE"
    lines = [heads] if wide else []
    for name, method in methods.items():
        title = textwrap.wrap(method.title, title_width if wide else width - name_width) or [""]
        source = textwrap.wrap(" ".join(str(method.source).split()), source_width) or [""]
        if not wide:
            title, source = title + source, []
        for first, what, where in itertools.zip_longest([name], title, source, fillvalue=""):
            line = f"{first:<{name_width}}{what:<{title_width + 2}}{where}"
            lines.append(line.rstrip())
    return "\n".join(lines)


def markdown(methods: dict) -> str:
    """The catalogue as the README's table."""
    rows = (
        f"| `{name}` | {method.title} | {' '.join(method.source.split())} |"
        for name, method in methods.items()
    )
    return "\n".join(["| method | what it does | source |", "|---|---|---|", *rows])


# What a reader asks -> the modules that answer; of two that fit, the longer name.
QUESTIONS = {
    "What does the textbook teach?": ("optimizers.textbook",),
    "What came after Adam?": ("optimizers",),
    "What needs less memory, or bears larger batches?": (
        "optimizers.memory",
        "optimizers.layerwise",
    ),
    "Must I search for a learning rate?": (
        *("optimizers.step_free", "rules.distance", "rules.polyak", "rules.coin_betting"),
        "wrappers.mechanic",
    ),
    "How should the learning rate change?": ("schedules", "core.schedule", "rules.step_size"),
    "What if gradients are too large, or not finite?": (
        *("rules.clipping", "rules.normalize", "wrappers.skipping"),
    ),
    "What keeps weights small, and examples private?": ("rules.weight_decay", "rules.noise"),
    "How do I train some parameters, and others not?": ("wrappers.masking",),
    "When does it step, and how is it stored?": (
        *("wrappers.accumulation", "wrappers.conditional", "wrappers.master_weights"),
    ),
    "How do I give each matrix a rate?": (
        *("matrices", "optimizers.matrix", "optimizers.matrix_bases", "optimizers.matrix_norms"),
        *("optimizers.orthogonal", "optimizers.shampoo"),
    ),
    "Which parameters do I evaluate?": ("wrappers.averaging", "wrappers.schedule_free"),
    "What else goes around an optimizer?": ("wrappers", "state"),
    "What is my own method made of?": (
        *("rules", "optimizers.products", "wrappers.sophia", "core"),
    ),
}


def families(package) -> str:
    """Every public constructor under the question that it answers, as a page of documentation."""
    question_of = {module: q for q, modules in QUESTIONS.items() for module in modules}
    rows: dict[str, dict[str, list[str]]] = {question: {} for question in QUESTIONS}
    for name, made in sorted(vars(package).items()):
        if hasattr(made, "build") and hasattr(made, "converters"):
            home = made.__module__.removeprefix(f"{package.__name__}.")
            near = max((m for m in question_of if f"{home}.".startswith(f"{m}.")), key=len)
            rows[question_of[near]].setdefault(made.__module__, []).append(f"`gx.{name}`")
    lines = []
    for question, modules in rows.items():
        lines += ["", f"## {question}", "", "| idea | names |", "|---|---|"]
        for module, names in modules.items():
            doc = inspect.getdoc(sys.modules[module]) or module
            idea = " ".join(doc.split("\n\n")[0].split()).rstrip(".")
            lines.append(f"| {idea} | {', '.join(names)} |")
    return "\n".join(lines[1:])


def showing(name: str, methods: dict, constructors: dict) -> str:
    """One optimizer or other constructor: its documentation with equation and source, what it
    consists of, its defaults.
    """
    if name not in methods and name not in constructors:
        raise unknown("method", name, methods | constructors)
    method = methods.get(name)
    made, fixed = (method.constructor, method.arguments) if method else (constructors[name], {})
    parameters = inspect.signature(made).parameters.values()
    needed = {p.name for p in parameters if p.default is p.empty}
    doc = inspect.getdoc(made) or ""
    if method and not " ".join(doc.split()).startswith(method.title):
        doc = f"{method.title}\n\n{doc}"
    sections = [(name, doc)]
    if needed <= {"learning_rate"}:
        sections += [("Composition", composition(made(**dict.fromkeys(needed, 1.0) | fixed)))]
    if parameters:
        sections += [("Defaults", defaults(made, fixed))]
    if method:
        low, high = method.grid
        sections += [("Learning rates worth trying", f"{low:g} to {high:g}")]
    return "\n\n".join(f"{title}\n{textwrap.indent(text, '  ')}" for title, text in sections)


def composition(tx) -> str:
    """The code of a transformation, and of what it is a name for, step by step."""
    steps = [_code(repr(tx))]
    while hasattr(tx, "expand"):
        name, tx = _opening(repr(tx)), tx.expand()
        if _opening(repr(tx)) == name:
            break
        steps.append("  = " + _code(repr(tx)).replace("\n", "\n    "))
    return "\n".join(steps)


def defaults(constructor, arguments) -> str:
    """Every argument of a constructor with its default, one per line; what a method fixes has its
    value.
    """
    parameters = inspect.signature(constructor).parameters.values()
    values = {p.name: arguments.get(p.name, p.default) for p in parameters}
    width = max(map(len, values)) + 2
    return "\n".join(
        f"{name:<{width}}{'required' if value is inspect.Parameter.empty else repr(value)}"
        for name, value in values.items()
    )


def _opening(text: str) -> str:
    """What stands before the first bracket, and the bracket."""
    found = re.match(r"[^(\[{'\"]*(?:'[^']*': )?[^(\[{'\"]*[(\[{]", text)
    return found[0] if found else ""


def _code(text: str, width: int = 84) -> str:
    """Code in lines that are not too long: calls and dicts with one part per line, several where no
    part is a call.
    """
    opening = _opening(text)
    if len(text) <= width or not opening or text[-1] not in ")]}":
        return text
    parts, depth, quote, start = [], 0, "", len(opening)
    for at, letter in enumerate(text[start:-1], start):
        if quote or letter in "'\"":
            quote = (quote or letter) * (letter != quote)
        else:
            depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0 and not quote:
            parts.append(text[start:at].strip())
            start = at + 1
    parts.append(text[start:-1].strip())
    if any(map(_opening, parts)):
        lines = [_code(part, width - 4).replace("\n", "\n    ") + "," for part in parts]
    else:
        lines = textwrap.wrap(", ".join(parts) + ",", width - 4, break_long_words=False)
    return opening + "\n" + "".join(f"    {line}\n" for line in lines) + text[-1]
