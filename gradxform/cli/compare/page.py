"""The report of `gradxform compare` as one page that opens offline."""

from html import escape
from pathlib import Path

from gradxform.cli import page as html
from gradxform.cli.catalogue import composition
from gradxform.cli.compare import wording
from gradxform.cli.compare.wording import Context

FILES = (
    "The files beside this page hold the same numbers: "
    "table.csv, and members.csv with every member."
)


def page(context: Context, pictures: dict[str, dict[tuple[str, str], bytes]]) -> str:
    """The whole page. `pictures` are PNGs by name, then by theme (light, dark) and shape (wide,
    narrow).
    """
    goal, patience = context.goal, context.experiment.settings.patience
    title = f"Which optimizer for {Path(context.experiment.data.name).stem}?"
    body = [
        f"<h1>{escape(title)}</h1>",
        _warnings(context),
        html.answer(wording.answers(context)),
        _code(context),
        html.figure(
            pictures["summary"],
            "A row for each method: the learning rates that work, and the test "
            f"{wording.NAMES[goal.metric]} with an interval.",
            wording.summary_caption(context),
        ),
        "<h2>Table</h2>",
        html.table(
            wording.headings(goal), [wording.cells(goal, context.rows, row) for row in context.rows]
        ),
        *(f'<p class="faint">{escape(note)}</p>' for note in wording.notes(context)),
        "<h2>How much the learning rate matters</h2>",
        html.figure(
            pictures["sensitivity"],
            "Validation error against learning rate, one panel for each method.",
            "Each panel is one method, with its rank and its result at the chosen rate; the grey "
            "lines behind are the others. Line: mean over the seeds; dots: each seed. Diamond: the "
            "chosen learning rate. Shaded: the rates that work. Cross: a seed diverged at this "
            "rate. Look for low and wide.",
        ),
        "<h2>How fast it learns</h2>",
        html.figure(
            pictures["curves"],
            "Training and validation loss against epoch, one panel for each method.",
            "Each method at its chosen learning rate, with its rank and its last validation loss. "
            "Solid with circles: validation loss. Dashed "
            "with squares: training loss, the mean over the batches of an epoch while the "
            "parameters moved (so it lags, and includes dropout). Bands: "
            "from the lowest to the highest seed. Training that falls on while validation rises is "
            "overfitting." + (" A line ends where its first seed stopped." if patience else ""),
        ),
        "<h2>How to read this</h2>",
        html.pairs(wording.definitions(context)),
        "<h2>The methods</h2>",
        *(_method(context, row.method) for row in context.rows),
        "<h2>How it was made</h2>",
        html.pairs(wording.facts(context)),
        html.made(context.command, context.versions, FILES),
    ]
    return html.document(title, body)


def _warnings(context: Context) -> str:
    lines = []
    if context.outcome.interrupted:
        done = {row.method for row in context.rows}
        done |= set(context.outcome.failed)
        missing = ", ".join(name for name in context.methods if name not in done)
        rest = "The same command with --resume trains the rest."
        lines.append(f"The comparison was interrupted: {missing} not trained yet. {rest}")
    if context.outcome.failed:
        names = ", ".join(context.outcome.failed)
        lines.append(f"Could not be trained: {names}. The notes under the table say why.")
    return "".join(f'<p class="warning">{escape(line)}</p>' for line in lines)


def _code(context: Context) -> str:
    code = wording.safe_code(context)
    return f'<p class="faint">The safe choice:</p><pre>{escape(code)}</pre>' if code else ""


def _method(context: Context, name: str) -> str:
    method = context.methods[name]
    source = escape(" ".join(str(method.source).split()))
    return (
        f"<details><summary><strong>{escape(name)}</strong> "
        f"<span>{escape(method.title)}</span></summary>"
        f'<pre>{escape(composition(method.make(1.0)))}</pre><p class="faint">{source}</p></details>'
    )
