"""Write the report of a comparison: five files in its folder, and the table on the terminal."""

import textwrap
from pathlib import Path

from gradxform.cli.compare import plots, wording
from gradxform.cli.compare.page import page
from gradxform.cli.compare.run import Outcome
from gradxform.cli.compare.table import goal_for, members_csv, summarise, table_csv
from gradxform.cli.compare.wording import Context
from gradxform.cli.experiment import Experiment
from gradxform.cli.files import versions, write_atomically
from gradxform.cli.problems import need
from gradxform.plot.style import THEMES


def write(
    experiment: Experiment,
    outcome: Outcome,
    methods: dict,
    folder: Path,
    command: str,
    target_accuracy: float | None,
    target_loss: float | None,
) -> Context:
    """Write table.csv, members.csv, curves.png, sensitivity.png and report.html; return what they
    show.
    """
    goal = goal_for(outcome.results, target_accuracy, target_loss)
    rows = summarise(goal, outcome.results)
    given = target_accuracy is not None or target_loss is not None
    context = Context(experiment, outcome, goal, rows, methods, command, versions(), given)
    pictures = {
        name: {
            (theme, shape): draw(goal, rows, outcome.results, colours, shape == "narrow")
            for theme, colours in THEMES.items()
            for shape in ("wide", "narrow")
        }
        for name, draw in (("sensitivity", plots.sensitivity), ("curves", plots.curves))
    }
    files = {
        "table.csv": table_csv(goal, rows),
        "members.csv": members_csv(goal, outcome.results),
        "sensitivity.png": pictures["sensitivity"]["light", "wide"],
        "curves.png": pictures["curves"]["light", "wide"],
        "report.html": page(context, pictures).encode(),
    }
    for name, content in files.items():
        write_atomically(folder / name, lambda file, content=content: file.write(content))
    return context


def print_table(context: Context) -> None:
    """Print the table on standard output, as wide as the terminal, and what its marks mean."""
    rich = need("rich.console")
    console = rich.Console(highlight=False)
    if not console.is_terminal:
        console = rich.Console(highlight=False, width=150)
    columns = {name: [wrap(name, 11)] for name in wording.headings(context.goal)}
    for row in context.rows:
        for name, cell in zip(columns, wording.cells(context.goal, context.rows, row), strict=True):
            columns[name].append(cell)
    shown = fitting(columns, console.width)
    table = need("rich.table").Table(box=need("rich.box").SIMPLE_HEAD, pad_edge=False)
    for name in shown:
        table.add_column(
            columns[name][0], justify="left" if name == "method" else "right", no_wrap=True
        )
    for cells in zip(*(columns[name][1:] for name in shown), strict=True):
        table.add_row(*cells)
    console.print(table)
    if hidden := [name for name in columns if name not in shown and any(columns[name][1:])]:
        console.print(f"For want of room, only in table.csv: {', '.join(hidden)}.", markup=False)
    for line in (*wording.notes(context), "", *wording.answers(context)):
        console.print(line, markup=False)


def fitting(columns: dict[str, list[str]], width: int) -> list[str]:
    """The columns to show: those with something in them, less the least important until they fit."""
    room = {
        name: max(len(line) for cell in cells for line in cell.split("\n")) + 3
        for name, cells in columns.items()
    }
    shown = [name for name, cells in columns.items() if any(cells[1:])]
    for least in ("test loss", "diverged", "validation", "rates that work", "epochs", "vs first"):
        if sum(room[name] for name in shown) > width:
            shown = [name for name in shown if not name.startswith(least)]
    return shown


def wrap(text: str, width: int) -> str:
    """Break a heading into lines."""
    return "\n".join(textwrap.wrap(text, width, break_long_words=False))
