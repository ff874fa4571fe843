"""Write the report of a comparison: six files in its folder, and the table on the terminal."""

from pathlib import Path

from gradxform.cli.compare import plots, wording
from gradxform.cli.compare.page import page
from gradxform.cli.compare.run import Outcome
from gradxform.cli.compare.table import goal_for, members_csv, summarise, table_csv
from gradxform.cli.compare.wording import Context
from gradxform.cli.experiment import Experiment
from gradxform.cli.files import drawn, say, show_table, versions, write_files

PICTURES = {"summary": plots.summary, "sensitivity": plots.sensitivity, "curves": plots.curves}
FILES = "report.html", "table.csv", "members.csv", *(f"{name}.png" for name in PICTURES)
LEAST = ("test loss", "diverged", "µs", "validation", "rates that work", "epochs", "vs first")


def write(
    experiment: Experiment, outcome: Outcome, methods: dict, folder: Path, command: str
) -> Context:
    """Write table.csv, members.csv, the pictures and report.html; return what they show."""
    given = experiment.settings.target_accuracy, experiment.settings.target_loss
    goal = goal_for(outcome.results, *given)
    rows = summarise(goal, outcome.results)
    asked = given != (None, None)
    context = Context(experiment, outcome, goal, rows, methods, command, versions(), asked)
    shown = dict.fromkeys(PICTURES, outcome.results) | {"summary": wording.answers(context)[0]}
    pictures = {name: drawn(PICTURES[name], goal, rows, x) for name, x in shown.items()}
    files = {
        "table.csv": table_csv(goal, rows),
        "members.csv": members_csv(goal, outcome.results),
        "report.html": page(context, pictures).encode(),
    }
    write_files(folder, files, pictures)
    return context


def print_table(context: Context) -> None:
    """Print the table on standard output, as wide as the terminal, and what its marks mean."""
    rows = [wording.cells(context.goal, context.rows, row) for row in context.rows]
    columns = zip(wording.headings(context.goal), zip(*rows, strict=True), strict=True)
    show_table({name: list(cells) for name, cells in columns}, "method", LEAST)
    say(*wording.notes(context), "", *wording.answers(context))
