"""The report of a sweep: members.csv, four pictures and report.html in its folder, the best on the
terminal.
"""

from html import escape
from pathlib import Path

from gradxform.cli import page as html
from gradxform.cli.files import code_of, drawn, say, show_table, to_csv, versions, write_files
from gradxform.cli.sweep import plots
from gradxform.sweep import SweepResult

TOP = 20  # members in the page and on the terminal


PICTURES = {
    "curves": ("How they learn", plots.curves, """The metric against the step. The three best
members are named; the others are grey; a cross where a member diverged."""),
    "sensitivity": ("What matters", plots.sensitivity, """The final metric against each
hyperparameter, the most important first. Solid with circles: the best member for each value;
dashed: the median; dots: members; diamond: the best of all; crosses: members that diverged. The
percentage is the share of the variance of all ranks that lies between the values."""),
    "parallel": ("Which combinations", plots.parallel, """Each line is a member, from its
hyperparameters to its final metric, better ones standing out; thick with diamonds: the best."""),
    "heat": ("The two that matter most", plots.heat, """The best final metric for each pair of
values, whatever the other hyperparameters. Framed: the best; a cross: all diverged."""),
}  # fmt: skip
FILES = "report.html", "members.csv", *(f"{name}.png" for name in PICTURES)


def write(
    result: SweepResult, folder, title: str = "Sweep", command: str = "", facts=(), test=None
) -> None:
    """Write the files of the report into a folder.

    `facts` are pairs of words about how it was made; `test` is what the best member does on data
    nothing was tuned on.
    """
    pictures = {name: drawn(draw, result) for name, (_, draw, _) in PICTURES.items()}
    rows = result.rows()
    files = {
        "members.csv": to_csv([rows[i] for i in result.order()]),
        "report.html": page(result, pictures, title, command, facts, test).encode(),
    }
    write_files(Path(folder), files, pictures)


def page(
    result: SweepResult, pictures, title: str, command: str, facts, test: dict[str, float] | None
) -> str:
    """The whole page: one file that needs no network."""
    body = [
        f"<h1>{escape(title)}</h1>",
        html.answer(answers(result, test)),
        f"<pre>{escape(code_of(result.best.optimizer))}</pre>" if not result.diverged.all() else "",
        "<h2>The best members</h2>",
        html.table(*cells(result)),
        *(_picture(pictures[name], head, text) for name, (head, _, text) in PICTURES.items()),
        "<h2>How it was made</h2>",
        html.pairs([*facts, *made(result)]),
        html.made(command, versions(), "members.csv beside this page holds every member."),
    ]
    return html.document(title, body)


def _picture(variants, head: str, text: str) -> str:
    return f"<h2>{head}</h2>\n{html.figure(variants, text, text)}"


def answers(result: SweepResult, test: dict[str, float] | None = None) -> list[str]:
    """The answer in a few sentences: the best member, what matters, what was lost."""
    if result.diverged.all():
        return ["Every member diverged. Try smaller learning rates."]
    best = int(result.order()[0])
    found = [f"Best of {len(result)} members: {plots.describe(result, best)}."]
    if test:
        metrics = ", ".join(f"{k} {x:.4g}" for k, x in test.items())
        found.append(f"On test data, which nothing was tuned on: {metrics}.")
    sensitivity = result.sensitivity()
    varied = {
        k: about["importance"] for k, about in sensitivity.items() if len(about["values"]) > 1
    }
    if varied:
        shares = ", ".join(f"{k} {x:.0%}" for k, x in varied.items())
        found.append(f"How much of the ranking each explains: {shares}.")
    for name, about in sensitivity.items():
        values = [row["value"] for row in about["values"]]
        numeric = len(values) > 2 and all(isinstance(v, float) for v in values)
        chosen = result.space[best].get(name)
        if numeric and isinstance(chosen, float) and chosen in (min(values), max(values)):
            end = "is at the end of its range: the best of all may lie beyond"
            found.append(f"The best {name}, {chosen:.3g}, {end}.")
    if result.diverged.any():
        found.append(f"{result.diverged.sum()} members diverged.")
    if result.dropped.any():
        found.append(f"{result.dropped.sum()} members were dropped at a rung.")
    return found


def made(result: SweepResult) -> list[tuple[str, str]]:
    """How it was computed, in words."""
    groups = "; ".join(f"{n} members: {what}" for n, what in result.groups)
    programs = f"{len(result.groups)} compiled program{'s' * (len(result.groups) > 1)}"
    seconds = f"{result.seconds:.1f} s in this run"
    return [
        ("members", f"{len(result)}, in {programs} ({groups})"),
        ("judged by", f"{result.metric} at the last step, {result.mode}imum"),
        ("time", f"{seconds}, of which {result.compile_seconds:.1f} s compiling"),
    ]


def cells(result: SweepResult) -> tuple[list[str], list[list[str]]]:
    """The best members as text: the heads, and a row for each."""
    rows = result.rows()
    heads = [name for name in rows[0] if name != "member"]

    def text(x) -> str:
        if x is None or isinstance(x, bool):
            return "yes" if x else ""
        return f"{x:.4g}" if isinstance(x, float) else str(x)

    best = result.order()[:TOP]
    return ["member", *heads], [[str(i), *(text(rows[i][name]) for name in heads)] for i in best]


def print_table(result: SweepResult, test: dict[str, float] | None) -> None:
    """Print the best members on standard output, and the answer."""
    heads, rows = cells(result)
    show_table(dict(zip(heads, map(list, zip(*rows, strict=True)), strict=True)), "")
    say(*answers(result, test))
