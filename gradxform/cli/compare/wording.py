"""What the report says, in words and cells: shared by the terminal and the page."""

import math
from typing import NamedTuple

from gradxform.cli.compare.run import Outcome
from gradxform.cli.compare.table import (
    ACCURACY_TOLERANCE,
    LOSS_TOLERANCE,
    TARGET_LOSS,
    TARGET_SHARE,
    Goal,
    Row,
)
from gradxform.cli.experiment import Experiment
from gradxform.cli.files import code_of
from gradxform.cli.settings import RATES, SCHEDULES

NAMES = {"accuracy": "accuracy", "loss": "squared error"}


EDGE = {"": "", "low": " ▼", "high": " ▲"}


class Context(NamedTuple):
    """A finished comparison, and how it was made."""

    experiment: Experiment
    outcome: Outcome
    goal: Goal
    rows: list[Row]
    methods: dict
    command: str
    versions: dict[str, str]
    target_given: bool


def headings(goal: Goal) -> list[str]:
    """The columns of the table."""
    result = "accuracy,\u00a0%" if goal.accuracy else "squared error"
    results = f"test {result}", "vs first", f"validation {result}", *["test loss"] * goal.accuracy
    return ["method", "learning rate", *results, "epochs to target", "rates that work", "diverged"]


def cells(goal: Goal, rows: list[Row], row: Row) -> list[str]:
    """One row of the table."""
    lost = "" if not row.diverged else f"{row.diverged} of {row.members}"
    if not math.isfinite(row.validation):
        return [row.method, "none", *["–"] * (len(headings(goal)) - 3), lost]
    loss = [_spread(row.test_loss, row.test_loss_spread, 1.0, 3)] * goal.accuracy
    scale, digits = (100.0, 1) if goal.accuracy else (1.0, 3)
    return [
        row.method,
        f"{row.learning_rate:.3g}{EDGE[row.edge]}",
        _spread(row.test, row.test_spread, scale, digits),
        _against(goal, rows[0], row, scale, digits),
        _fixed(scale * row.validation, digits),
        *loss,
        _epochs(row),
        _range(row),
        lost,
    ]


def answers(context: Context) -> list[str]:
    """The answer in up to four sentences: the first method, its equals, the fastest, the most
    forgiving.
    """
    goal, rows, experiment = context.goal, context.rows, context.experiment
    first = rows[0]
    if not math.isfinite(first.validation):
        return [
            "Every method diverged at every learning rate. Try smaller ones with --learning-rates."
        ]
    scale, digits, unit = (100.0, 1, " %") if goal.accuracy else (1.0, 3, "")
    seeds = experiment.settings.seeds
    over = "one seed" if seeds == 1 else f"the mean over {seeds} seeds"
    where = f"{experiment.data.name} with {experiment.model.name}"
    value = f"test {NAMES[goal.metric]} {scale * first.test:.{digits}f}{unit}, {over}"
    rate = f"learning rate {first.learning_rate:.3g}"
    if len(rows) == 1:
        return [f"{first.method} does best at {rate} on {where}: {value}."]
    best = f"has the best validation result of {len(rows)} methods"
    found = [f"{first.method} at {rate} {best} on {where}: {value}."]
    tied = [row.method for row in rows[1:] if row.tied]
    equals = _list(tied) if len(tied) <= 4 else f"{len(tied)} of the other {len(rows) - 1} methods"
    cannot = f"The test data cannot tell {equals} apart from it."
    found.append(cannot if tied else "The test data tell every other method apart from it.")
    alive = [row for row in rows if math.isfinite(row.validation)]
    arrived = [row for row in alive if row.seeds_at_target == row.seeds]
    if arrived:
        soonest = min(row.epochs_to_target for row in arrived)
        names = [row.method for row in arrived if row.epochs_to_target == soonest]
        epochs = f"{soonest:.3g} epoch{'' if soonest == 1 else 's'}"
        found.append(f"Soonest at the target: {_list(names)}, after {epochs}.")
    spans = {row.method: round(row.works_to / row.works_from, 2) for row in alive}
    if any(row.works_to > row.works_from for row in alive):
        widest = max(spans.values())
        names = _list([name for name, span in spans.items() if span == widest])
        rates = f"with learning rates that work over a factor of {widest:.3g}"
        found.append(f"Most forgiving: {names}, {rates}.")
    return found


def notes(context: Context) -> list[str]:
    """What the marks of the table mean, and whatever the reader must not miss."""
    goal, rows, experiment = context.goal, context.rows, context.experiment
    test, seeds = len(experiment.split.test["y"]), experiment.settings.seeds
    found = []
    if seeds > 1:
        text = f"±: standard deviation over {seeds} seeds"
        point = f"; one row of test data is {100 / test:.2g} points of accuracy."
        unit = "Squared errors are in units of the target's variance"
        error = f". {unit}: 1 is what predicting the mean costs."
        found.append(text + (point if goal.accuracy else error))
    found.append(target_text(context))
    for end, mark, way in (("high", "▲", "larger"), ("low", "▼", "smaller")):
        names = [row.method for row in rows if row.edge == end]
        if names:
            found.append(
                f"{mark} The best learning rate of {_list(names)} is the {end}est one tried: {way} "
                "ones may be better. Widen the range with --learning-rates."
            )
    failed = context.outcome.failed.items()
    return found + [f"{name} could not be trained: {reason}" for name, reason in failed]


def target_text(context: Context) -> str:
    """What the target is, and where it came from."""
    goal = context.goal
    if not math.isfinite(goal.target):
        return "There is no target, since every member diverged."
    accuracy = goal.target_metric == "accuracy"
    limit = f"≥ {100 * goal.target:.1f} %" if accuracy else f"≤ {goal.target:.3g}"
    share = f"{100 * TARGET_SHARE:.0f} % of" if goal.accuracy else f"{TARGET_LOSS:g} ×"
    why = "as asked" if context.target_given else f"{share} the best method's"
    return f"Target: validation {goal.target_metric} {limit}, {why}."


def definitions(context: Context) -> list[tuple[str, str]]:
    """Each column of the table, and each picture, explained."""
    goal, experiment = context.goal, context.experiment
    accuracy, split, name = goal.accuracy, experiment.split, NAMES[goal.metric]
    train, validation, test = (len(part["y"]) for part in split[:3])
    points = f"{100 * ACCURACY_TOLERANCE:g} points of accuracy"
    close = points if accuracy else f"{100 * (LOSS_TOLERANCE - 1):.0f} % of the error"
    kept = "the best epoch (early stopping)" if experiment.settings.patience else "the last epoch"
    shown = "the share of rows classified rightly"
    if not accuracy:
        unit = f"a root mean squared error of {split.target_scale:.4g} in the target's own unit"
        variance = "in units of the target's variance: 1 is what predicting the mean costs"
        shown = f"the mean squared error {variance}, and {unit}"
    loss = (
        "The mean cross-entropy on the test rows, in nats: it also punishes misplaced confidence."
    )
    found = {
        "What was done": f"The rows were split once into {train} for training, {validation} for "
        f"validation and {test} for testing. Every method was trained at every learning rate of "
        "its grid with every seed; a seed fixes the initial parameters and the order of the "
        "batches, and is shared by all methods.",
        "learning rate": f"The rate with the best validation {name} after {kept}, averaged over "
        "the seeds. A rate at which any seed diverged (a loss that is no longer a number) cannot "
        "be chosen. ▲ or ▼: it is the largest or smallest rate tried, so a better one may lie "
        "outside.",
        "order": "By the validation result, as an order is a choice too. Nothing was chosen on the "
        "test data.",
        f"test {name}": f"On the test rows, {shown}; mean ± standard deviation over the seeds.",
        **({"test loss": loss} if accuracy else {}),
        "vs first": "The difference in the test result from the first row. “tied”: the difference "
        "is less than two standard errors, over the rows of test data and over the seeds, taken in "
        "pairs.",
        "epochs to target": f"{target_text(context)} The number is the first epoch that meets it, "
        "averaged over the seeds that do; “(2 of 3)” says how many seeds do if not all.",
        "rates that work": "The run of learning rates around the chosen one whose validation "
        f"{name} is within {close} of its, and how many times the largest is the smallest. A wide "
        "range is a forgiving method.",
        "diverged": "Members, of all learning rates and seeds, whose loss stopped being a number.",
    }
    return list(found.items())


def facts(context: Context) -> list[tuple[str, str]]:
    """The settings, in words."""
    experiment, settings = context.experiment, context.experiment.settings
    data, model, schedule = experiment.data, experiment.model, settings.schedule
    what = f"{len(data.classes)} classes" if data.classes else "one number to predict"
    shape = " × ".join(map(str, data.x.shape[1:]))
    dropout = f", dropout {settings.dropout:g}" if settings.dropout else ""
    batches = f"{settings.epochs} epochs in batches of {experiment.batch_size}"
    most = f", at most (patience {settings.patience})" if settings.patience else ""
    constant = "none: the learning rate is constant"
    changes = f"{schedule}: {SCHEDULES[schedule][1]}"
    decays = [f"decoupled weight decay {settings.weight_decay:g}"] * bool(settings.weight_decay)
    decays += [f"L2 {settings.l2:g}"] * bool(settings.l2)
    rates = f"{_count(RATES, 'rate')} of each method's own grid"
    if settings.learning_rates is not None:
        rates = f"the rates {', '.join(f'{rate:.3g}' for rate in settings.learning_rates)}"
    seconds, compiling = (
        sum(getattr(row, name) for row in context.rows) for name in ("seconds", "compile_seconds")
    )
    init = f"{settings.init} initialisation{dropout}"
    return [
        ("data", f"{data.name}: {len(data.y)} rows of {shape}, {what}"),
        ("model", f"{model.name}, {model.parameters:,} parameters, {init}"),
        ("training", f"{batches}: {experiment.updates} updates{most}"),
        ("schedule", constant if schedule == "none" else changes),
        ("decay", ", ".join(decays) or "none but a method's own"),
        ("members", f"{_count(settings.seeds, 'seed')} × {rates}"),
        ("time", f"{seconds:.0f} s, of which {compiling:.0f} s compiling"),
    ]


def winner_code(context: Context) -> str:
    """The code that builds the first optimizer of the table, imports included."""
    first = context.rows[0]
    rate = float(f"{first.learning_rate:.4g}")
    settings, updates = context.experiment.settings, context.experiment.updates
    return code_of(settings.transformation(context.methods[first.method], rate, updates))


def _against(goal: Goal, first: Row, row: Row, scale: float, digits: int) -> str:
    if row.method == first.method:
        return "first"
    better = (row.test - first.test) * (1 if goal.accuracy else -1)
    if row.tied:
        return "tied"
    return f"{scale * abs(better):.{digits}f} {'better' if better > 0 else 'worse'}"


def _fixed(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:.2g}"


def _spread(mean: float, spread: float, scale: float, digits: int) -> str:
    text = _fixed(scale * mean, digits)
    return text if math.isnan(spread) else f"{text} ± {_fixed(scale * spread, digits)}"


def _epochs(row: Row) -> str:
    if not row.seeds_at_target:
        return "never"
    seeds = "" if row.seeds_at_target == row.seeds else f" ({row.seeds_at_target} of {row.seeds})"
    return f"{row.epochs_to_target:.3g}{seeds}"


def _range(row: Row) -> str:
    if row.works_from == row.works_to:
        return f"{row.works_from:.2g} only"
    return f"{row.works_from:.2g} – {row.works_to:.2g} (×{row.works_to / row.works_from:.3g})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
