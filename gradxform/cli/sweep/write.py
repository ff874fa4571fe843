"""The report of a sweep: members.csv, four pictures and report.html in its folder, the best on the
terminal.
"""

import re
import shlex
from html import escape
from pathlib import Path
from typing import Any

import gradxform as gx
from gradxform.cli import page as html
from gradxform.cli.files import to_csv, versions, write_atomically
from gradxform.cli.problems import need
from gradxform.cli.sweep import plots as sweep_plots
from gradxform.plot.style import THEMES
from gradxform.sweep import SweepResult

TOP = 20  # members in the page and on the terminal


PICTURES = {
    "curves": (
        "How they learn",
        sweep_plots.curves,
        "The metric against the step. The three best members are named; the others are grey; a "
        "cross where a member "
        "diverged.",
    ),
    "sensitivity": (
        "What matters",
        sweep_plots.sensitivity,
        "The final metric against each hyperparameter, the most important first. Solid with "
        "circles: the best member "
        "for each value; dashed: the median; dots: members; diamond: the best of all; crosses: "
        "members that diverged. The "
        "percentage is the share of the variance of all ranks that lies between the values.",
    ),
    "parallel": (
        "Which combinations",
        sweep_plots.parallel,
        "Each line is a member, from its hyperparameters to its final metric, better ones "
        "standing out; thick with "
        "diamonds: the best.",
    ),
    "heat": (
        "The two that matter most",
        sweep_plots.heat,
        "The best final metric for each pair of values, whatever the other hyperparameters. "
        "Framed: the best; a "
        "cross: all diverged.",
    ),
}


def write(
    result: SweepResult, folder, title: str = "Sweep", command: str = "", facts=(), test=None
) -> Path:
    """Write the files of the report into a folder; returns the page.

    `facts` are pairs of words about how it was made; `test` is what the best member does on data
    nothing was tuned on.
    """
    folder = Path(folder)
    pictures = {
        name: {
            (theme, shape): draw(result, theme=colours, narrow=shape == "narrow")
            for theme, colours in THEMES.items()
            for shape in ("wide", "narrow")
        }
        for name, (_, draw, _) in PICTURES.items()
    }
    files = {f"{name}.png": variants["light", "wide"] for name, variants in pictures.items()}
    rows = result.rows()
    files["members.csv"] = to_csv([rows[i] for i in result.order()])
    files["report.html"] = page(result, pictures, title, command, facts, test).encode()
    for name, content in files.items():
        write_atomically(folder / name, lambda file, content=content: file.write(content))
    return folder / "report.html"


def page(
    result: SweepResult, pictures, title: str, command: str, facts, test: dict[str, float] | None
) -> str:
    """The whole page: one file that needs no network."""
    first, *rest = answers(result, test)
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<div class="answer"><p>{escape(first)}</p><ul>{"".join(f"<li>{escape(s)}</li>" for s in rest)}</ul></div>',
        f"<pre>{escape(winner_code(result))}</pre>" if not result.diverged.all() else "",
        "<h2>The best members</h2>",
        _table(result),
        *(part for name, (head, _, caption) in PICTURES.items() for part in (
            f"<h2>{escape(head)}</h2>", html.figure(pictures[name], caption, caption),
        )),
        "<h2>How it was made</h2>",
        html.pairs([*facts, *made(result)]),
        f"<p>Command:</p><pre>{escape(command)}</pre>" if command else "",
        f'<p class="faint">{escape(", ".join(map(" ".join, versions().items())))}. '
        "members.csv beside this page holds every member.</p>",
    ]  # fmt: skip
    return html.document(title, body)


def answers(result: SweepResult, test: dict[str, float] | None = None) -> list[str]:
    """The answer in a few sentences: the best member, what matters, what was lost."""
    if result.diverged.all():
        return ["Every member diverged. Try smaller learning rates."]
    best = int(result.order()[0])
    found = [f"Best of {len(result)} members: {sweep_plots.describe(result, best)}."]
    if test:
        found.append(
            "On test data, which nothing was tuned on: "
            + ", ".join(f"{k} {x:.4g}" for k, x in test.items())
            + "."
        )
    importance = {
        name: about["importance"]
        for name, about in result.sensitivity().items()
        if len(about["values"]) > 1
    }
    if importance:
        found.append(
            "How much of the ranking each explains: "
            + ", ".join(f"{k} {x:.0%}" for k, x in importance.items())
            + "."
        )
    for name, about in result.sensitivity().items():
        values = [row["value"] for row in about["values"]]
        numeric = len(values) > 2 and all(isinstance(v, float) for v in values)
        chosen = result.space[best].get(name)
        if numeric and isinstance(chosen, float) and chosen in (min(values), max(values)):
            found.append(
                f"The best {name}, {chosen:.3g}, is at the end of its range: the best of all may "
                "lie beyond."
            )
    if result.diverged.any():
        found.append(f"{result.diverged.sum()} members diverged.")
    if result.dropped.any():
        found.append(f"{result.dropped.sum()} members were dropped at a rung.")
    return found


def made(result: SweepResult) -> list[tuple[str, str]]:
    """How it was computed, in words."""
    groups = "; ".join(f"{n} members: {what}" for n, what in result.groups)
    programs = f"{len(result.groups)} compiled program{'s' * (len(result.groups) > 1)}"
    seconds = (
        f"{result.seconds:.1f} s in this run, of which {result.compile_seconds:.1f} s compiling"
    )
    return [
        ("members", f"{len(result)}, in {programs} ({groups})"),
        ("judged by", f"{result.metric} at the last step, {result.mode}imum"),
        ("time", seconds),
    ]


def winner_code(result: SweepResult) -> str:
    """The code that builds the optimizer of the best member, imports included."""
    text = re.sub(
        r"\d+\.\d{9,}", lambda number: f"{float(number[0]):.6g}", repr(result.best.optimizer)
    )
    names = sorted({name for name in re.findall(r"\b[a-z]\w*(?=\()", text) if hasattr(gx, name)})
    return f"from gradxform import {', '.join(names)}\n\ntx = {text}"


def cells(result: SweepResult) -> tuple[list[str], list[list[str]]]:
    """The best members as text: the heads, and a row for each."""
    rows = result.rows()
    heads = [name for name in rows[0] if name != "member"]

    def text(x: Any) -> str:
        return (
            ""
            if x is None
            else f"{x:.4g}"
            if isinstance(x, float)
            else {True: "yes", False: ""}[x]
            if isinstance(x, bool)
            else str(x)
        )

    return ["member", *heads], [
        [str(i), *(text(rows[i][name]) for name in heads)] for i in result.order()[:TOP]
    ]


def _table(result: SweepResult) -> str:
    heads, rows = cells(result)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    lines = []
    for k, (name, *values) in enumerate(rows):
        mark = ' class="first"' if k == 0 else ""
        lines.append(
            f"<tr{mark}><th "
            f'scope="row">{escape(name)}</th>{"".join(f"<td>{escape(v)}</td>" for v in values)}</tr>'
        )
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>\n<tbody>\n' + "\n".join(lines)
        + '\n</tbody></table></div>\n<p class="faint sideways">The table scrolls sideways.</p>'
    )  # fmt: skip


def print_table(result: SweepResult, test: dict[str, float] | None) -> None:
    """Print the best members on standard output, and the answer."""
    rich = need("rich.console")
    console = rich.Console(highlight=False)
    console = console if console.is_terminal else rich.Console(highlight=False, width=150)
    table = need("rich.table").Table(box=need("rich.box").SIMPLE_HEAD, pad_edge=False)
    heads, rows = cells(result)
    for name in heads:
        table.add_column(name, justify="right", no_wrap=True)
    text = need("rich.text").Text
    for row in rows:
        table.add_row(*map(text, row))
    console.print(table)
    for line in answers(result, test):
        console.print(line, markup=False)


def resumed(command: str, path: Path) -> str:
    """The command that goes on with a folder."""
    words = [word for word in shlex.split(command) if word != "--resume"]
    out = (
        []
        if any(word == "--out" or word.startswith("--out=") for word in words)
        else ["--out", str(path)]
    )
    return shlex.join([*words, *out, "--resume"])
