"""The report of a sweep: members.csv, four pictures and report.html in its folder, the best on the
terminal.
"""

from html import escape
from pathlib import Path

import numpy as np

from gradxform.cli import page as html
from gradxform.cli.files import code_of, drawn, say, show_table, to_csv, versions, write_files
from gradxform.cli.sweep import plots
from gradxform.cli.sweep.judged import Judged, has_seeds, settings
from gradxform.cli.words import SCALES, count, difference, is_accuracy, measure, measured, spread
from gradxform.sweep import SweepResult
from gradxform.sweep.result import shown

AS = {"steps": "epochs"}  # of a column: what a step is here
TOP = 20  # members or settings in the page and on the terminal


PICTURES = {
    "curves": ("How they learn", plots.curves, """The metric against the epoch. The three best
members are named; the others are grey; a cross where a member diverged."""),
    "sensitivity": ("What matters", plots.sensitivity, """The final metric against each
hyperparameter, the most important first. Solid with circles: the best member for each value;
dashed: the median; dots: members; diamond: the best of all; crosses: members that diverged. The
percentages are the share of the variance of all ranks that lies between the values: among all
members, which says most of the range that was tried, and among the better half of them."""),
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

    `facts` are pairs of words about how it was made; `test` is what the best member, or the best
    setting over its seeds, does on data nothing was tuned on.
    """
    pictures = {name: drawn(draw, result) for name, (_, draw, _) in PICTURES.items()}
    rows = [{AS.get(k, k): x for k, x in row.items()} for row in result.rows()]
    files = {
        "members.csv": to_csv([rows[i] for i in result.order()]),
        "report.html": page(result, pictures, title, command, facts, test).encode(),
    }
    write_files(Path(folder), files, pictures)


def page(
    result: SweepResult, pictures, title: str, command: str, facts, test: dict[str, float] | None
) -> str:
    """The whole page: one file that needs no network."""
    judged = settings(result) if has_seeds(result) else []
    code = code_of(result.optimizer(best_members(result, judged)[0]))
    body = [
        f"<h1>{escape(title)}</h1>",
        html.answer(answers(result, judged, test)),
        f"<pre>{escape(code)}</pre>" if not result.diverged.all() else "",
        f"<h2>The best {'settings' if judged else 'members'}</h2>",
        html.table(*cells(result, judged)),
        *(f'<p class="faint">{escape(note)}</p>' for note in notes(judged)),
        *(_picture(pictures[name], head, text) for name, (head, _, text) in PICTURES.items()),
        "<h2>How it was made</h2>",
        html.pairs([*facts, *made(result)]),
        html.made(command, versions(), "members.csv beside this page holds every member."),
    ]
    return html.document(title, body)


def best_members(result: SweepResult, judged: list[Judged]) -> list[int]:
    """The members of the best setting, or the best member."""
    alive = judged and not judged[0].lost
    return judged[0].members if alive else [int(result.order()[0])]


def _picture(variants, head: str, text: str) -> str:
    return f"<h2>{head}</h2>\n{html.figure(variants, text, text)}"


def answers(result: SweepResult, judged: list[Judged], test=None) -> list[str]:
    """The answer in a few sentences: what cannot be told apart, the best, what matters, what was
    lost.
    """
    if result.diverged.all():
        return ["Every member diverged. Try smaller learning rates."]
    best = best_members(result, judged)[0]
    unit = " %" * is_accuracy(result.metric)
    name = measure(result.metric).partition(",")[0]
    if judged and not judged[0].lost:
        what = plots.setting_text(result, best)
        seeds = len(judged[0].members)
        value = measured(result.metric, float(judged[0].metrics[result.metric].mean()))
        found = [_group(judged, seeds)] if len(judged) > 1 else []
        found.append(f"Best: {what}: {name} {value}{unit}, the mean over {count(seeds, 'seed')}.")
    else:
        found = [_group(judged, 0)] if judged else []
        found.append(f"Best of {len(result)} members: {plots.describe(result, best)}.")
        if len(result) > 1 and not judged:
            found.append("One seed of each cannot tell them apart: use --seeds 5 to judge.")
    if test:
        texts = [f"{k} {measured(k, x)}{' %' * is_accuracy(k)}" for k, x in test.items()]
        found.append(f"On test data, which nothing was tuned on: {', '.join(texts)}.")
    sensitivity = result.sensitivity()
    varied = {k: about for k, about in sensitivity.items() if len(about["values"]) > 1}
    if varied:
        shares = [
            ", ".join(f"{name} {about[kind]:.0%}" for name, about in varied.items())
            for kind in ("importance", "among_best")
        ]
        text = f"How much of the ranking each explains: {shares[0]}"
        found.append(f"{text}; among the better half: {shares[1]}.")
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


def _group(judged: list[Judged], seeds: int) -> str:
    """How many settings cannot be told from the first."""
    many, alike = len(judged), sum(one.alike for one in judged)
    over = f"over {count(seeds, 'seed')}, on these validation rows"
    if judged[0].lost:
        return f"No setting kept all its seeds, so that none of {many} can be judged."
    if alike == many:
        return f"The {many} settings cannot be told apart {over}."
    if alike > 1:
        return f"{alike} of {many} settings cannot be told from the best {over}."
    return f"The best setting is told apart from the {many - 1} others {over}."


def notes(judged: list[Judged]) -> list[str]:
    """What ± means."""
    if not judged or len(judged[0].members) == 1:
        return []
    text = f"±: standard deviation over {count(len(judged[0].members), 'seed')}"
    why = "over the seeds, all settings at once, whichever came first"
    return [
        f"{text}; under “vs first”, half of the interval that holds the true difference, {why}."
    ]


def made(result: SweepResult) -> list[tuple[str, str]]:
    """How it was computed, in words."""
    groups = "; ".join(f"{n} members: {what}" for n, what in result.groups)
    programs = f"{len(result.groups)} compiled program{'s' * (len(result.groups) > 1)}"
    seconds = f"{result.seconds:.1f} s in this run"
    return [
        ("members", f"{len(result)}, in {programs} ({groups})"),
        ("judged by", f"{result.metric} after the last epoch, {result.mode}imum"),
        ("time", f"{seconds}, of which {result.compile_seconds:.1f} s compiling"),
    ]


def cells(result: SweepResult, judged: list[Judged]) -> tuple[list[str], list[list[str]]]:
    """The best settings over their seeds, or the best members, as text: the heads, and a row for
    each.
    """
    metric = result.metric
    metrics = [metric, *(name for name in result.history if name != metric)]
    if judged:
        names = [name for name in result.space.names if name != "seed"]
        heads = [*names, *(measure(m) for m in metrics), "epochs", "diverged"]
        heads.insert(len(names) + 1, "vs first")
        best = [_judged(result, place, one, metrics) for place, one in enumerate(judged[:TOP])]
        return ["", *heads], best
    rows, names = result.rows(), [*result.space.names]
    heads = [*names, *(measure(m) for m in metrics), "epochs", "diverged"]

    def line(i: int) -> list[str]:
        row = rows[i]
        numbers = (measured(m, row[m]) for m in metrics)
        last = [str(row["steps"]), "yes" if row["diverged"] else ""]
        return [str(i), *(_text(row[name]) for name in names), *numbers, *last]

    return ["member", *heads], [line(i) for i in result.order()[:TOP].tolist()]


def _judged(result: SweepResult, place: int, one: Judged, metrics: list[str]) -> list[str]:
    """The row of a setting."""
    values = [shown(one.setting.get(name)) for name in result.space.names if name != "seed"]
    numbers = []
    for name in metrics:
        x = one.metrics[name][np.isfinite(one.metrics[name])]
        deviation = float(x.std(ddof=1)) if len(x) > 1 else float("nan")
        mean = float(x.mean()) if len(x) else float("nan")
        numbers.append(spread(mean, deviation, *SCALES[is_accuracy(name)]))
    versus = difference(one.difference, one.margin, *SCALES[is_accuracy(metrics[0])])
    if place:
        numbers.insert(1, "–" if one.lost else versus)
    else:
        numbers.insert(1, "first")
    lost = f"{one.diverged} of {len(one.members)}" if one.diverged else ""
    return [str(place + 1), *map(_text, values), *numbers, f"{one.epochs:.3g}", lost]


def _text(x) -> str:
    if isinstance(x, float):
        return f"{x:.4g}"
    return "" if x is None else str(x)


def print_table(result: SweepResult, test: dict[str, float] | None) -> None:
    """Print the best settings or members on standard output, and the answer."""
    judged = settings(result) if has_seeds(result) else []
    heads, rows = cells(result, judged)
    show_table(dict(zip(heads, map(list, zip(*rows, strict=True)), strict=True)), "")
    say(*notes(judged), *answers(result, judged, test))
