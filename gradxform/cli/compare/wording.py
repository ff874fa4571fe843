"""What the report says, in words and cells: shared by the terminal and the page."""

import math
from typing import NamedTuple

from gradxform.cli.compare.run import Outcome
from gradxform.cli.compare.table import (
    ACCURACY_CLIFF,
    ACCURACY_TOLERANCE,
    LOSS_CLIFF,
    LOSS_TOLERANCE,
    TARGET_LOSS,
    TARGET_SHARE,
    Goal,
    Row,
    safe_choice,
)
from gradxform.cli.experiment import Experiment
from gradxform.cli.files import code_of
from gradxform.cli.settings import RATES, SCHEDULES
from gradxform.cli.words import SCALES, count, difference, fixed, listed, spread

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
    costs = "epochs to target", "µs per step"
    return ["method", "learning rate", *results, *costs, "rates that work", "diverged"]


def cells(goal: Goal, rows: list[Row], row: Row) -> list[str]:
    """One row of the table."""
    lost = "" if not row.diverged else f"{row.diverged} of {row.members}"
    if not row.alive:
        return [row.method, "none", *["–"] * (len(headings(goal)) - 3), lost]
    loss = [spread(row.test_loss, row.test_loss_spread, 1.0, 3)] * goal.accuracy
    scale, digits = SCALES[goal.accuracy]
    return [
        row.method,
        f"{row.learning_rate:.3g}{EDGE[row.edge]}",
        spread(row.test, row.test_spread, scale, digits),
        _against(rows[0], row, scale, digits),
        fixed(scale * row.validation, digits),
        *loss,
        _epochs(row),
        f"{row.microseconds:.3g}",
        _range(row),
        lost,
    ]


def answers(context: Context) -> list[str]:
    """The answer in up to five sentences: who cannot be told apart, a safe choice, the best of
    validation, the fastest, the most forgiving.
    """
    goal, rows, experiment = context.goal, context.rows, context.experiment
    first, seeds = rows[0], experiment.settings.seeds
    if not first.alive:
        return [
            "Every method diverged at every learning rate. Try smaller ones with --learning-rates."
        ]
    (scale, digits), unit = SCALES[goal.accuracy], " %" * goal.accuracy
    over = "one seed" if seeds == 1 else f"the mean over {seeds} seeds"
    value = f"test {NAMES[goal.metric]} {fixed(scale * first.test, digits)}{unit}, {over}"
    rate = f"learning rate {first.learning_rate:.3g}"
    found = [_group(context)] if len(rows) > 1 else []
    safe, beside = safe_choice(goal, rows), _beside(first)
    assert safe is not None  # the first one at least
    tried = len(experiment.settings.rates(context.methods[safe.method]))
    works = "the only rate tried"
    if tried > 1:
        works = f"the only one of {tried} rates tried that works"
    if safe.works_to > safe.works_from:
        span = f"{safe.works_from:.2g} to {safe.works_to:.2g}"
        works = f"the middle of those that work, {span}"
    found.append(f"A safe choice: {safe.method} at learning rate {safe.middle:.3g}, {works}.")
    what = "Best on validation data" if len(rows) > 1 else "Best"
    found.append(f"{what}: {first.method} at {rate}, {value}{f'; {beside}' if beside else ''}.")
    alive = [row for row in rows if row.alive]
    arrived = [row for row in alive if row.seeds_at_target == row.seeds]
    if arrived and len(rows) > 1:
        soonest = min(row.epochs_to_target for row in arrived)
        names = [row.method for row in arrived if row.epochs_to_target == soonest]
        epochs = f"{soonest:.3g} epoch{'' if soonest == 1 else 's'}"
        found.append(f"Soonest at the target: {listed(names)}, after {epochs}.")
    spans = {row.method: round(row.works_to / row.works_from, 2) for row in alive}
    if max(spans.values()) > 1 and len(rows) > 1:
        widest = max(spans.values())
        names = listed([name for name, span in spans.items() if span == widest])
        rates = f"with learning rates that work over a factor of {widest:.3g}"
        found.append(f"Most forgiving: {names}, {rates}.")
    return found


def _group(context: Context) -> str:
    """Which methods cannot be told from the first."""
    rows, experiment = context.rows, context.experiment
    where, many = f"on {experiment.data.name} with {experiment.model.name}", len(rows)
    if experiment.settings.seeds == 1:
        seed = "One seed of each cannot tell methods apart"
        return f"{seed}, so nothing is claimed of these {many} {where}: use --seeds 5."
    names = [row.method for row in rows if row.alike]
    if len(names) == many:
        return f"The {many} methods cannot be told apart {where}."
    if len(names) > 1:
        return f"{len(names)} of {many} methods cannot be told apart {where}: {listed(names)}."
    return f"{names[0]} is told apart from all others, {many - 1} of {many} methods, {where}."


def _beside(row: Row) -> str:
    """That a row's learning rate stands next to a cliff."""
    if math.isnan(row.cliff):
        return ""
    return f"next to a cliff at the next larger rate, {row.cliff:.3g}"


def notes(context: Context) -> list[str]:
    """What the marks of the table mean, and whatever the reader must not miss."""
    goal, rows, experiment = context.goal, context.rows, context.experiment
    test, seeds = len(experiment.split.test["y"]), experiment.settings.seeds
    found = []
    if seeds > 1:
        text = f"±: standard deviation over {seeds} seeds"
        if len(rows) > 1:
            text += "; under “vs first”, half of the interval that holds the true difference"
        point = f". One row of test data is {100 / test:.2g} points of accuracy."
        unit = "Squared errors are in units of the target's variance"
        error = f". {unit}: 1 is what predicting the mean costs."
        found.append(text + (point if goal.accuracy else error))
    found.append(target_text(context))
    cliffs = [f"{row.method} at {row.cliff:.3g}" for row in rows if math.isfinite(row.cliff)]
    if cliffs:
        found.append(f"There is a cliff at the next larger rate for {listed(cliffs)}.")
    for end, mark, way in (("high", "▲", "larger"), ("low", "▼", "smaller")):
        names = [row.method for row in rows if row.edge == end]
        if names:
            found.append(
                f"{mark} The best learning rate of {listed(names)} is the {end}est one tried: "
                f"{way} ones may be better. Widen the range with --learning-rates."
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
    far = f"{100 * ACCURACY_CLIFF:g} points" if accuracy else f"{100 * (LOSS_CLIFF - 1):.0f} %"
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
        "vs first": "The difference of the test result to the first row's, and half the width of "
        "its interval. In 95 of 100 such experiments the intervals of all pairs of methods hold "
        "the true differences, all at once, so it does not matter which method came first. They "
        "take in that other rows of test data and other seeds would have given other results, both "
        "shared by all methods. Methods whose interval holds 0 cannot be told from the first."
        + (" Of one seed no interval can be had." if experiment.settings.seeds == 1 else ""),
        "epochs to target": f"{target_text(context)} The number is the first epoch that meets it, "
        "averaged over the seeds that do; “(2 of 3)” says how many seeds do if not all.",
        "µs per step": "Microseconds of one update of one member, members side by side as they "
        "were trained, evaluation included, compiling not: on this machine, as busy as it was.",
        "rates that work": "The run of learning rates around the chosen one whose validation "
        f"{name} is within {close} of its, and how many times the largest is the smallest. A wide "
        "range is a forgiving method, and its middle, in the logarithm, a safe choice. There is a "
        f"cliff where the next larger rate than the chosen one loses more than {far}, or diverges.",
        "diverged": "Members, of all learning rates and seeds, whose loss stopped being a number.",
    }
    return list(found.items())


def summary_caption(context: Context) -> str:
    """What the summary picture shows."""
    left = "Left: the learning rates that work, and the chosen one as a diamond. Right: the test "
    right = f"{left}{NAMES[context.goal.metric]} at the chosen rate"
    if context.experiment.settings.seeds == 1 or len(context.rows) == 1:
        return f"{right}."
    return (
        f"{right}, with the interval of its difference to the first row, whose result is the line. "
        "All intervals hold at once in 95 of 100 experiments; those that cross the line, with "
        "circles, cannot be told from the first; squares can."
    )


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
    rates = f"{count(RATES, 'rate')} of each method's own grid"
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
        ("members", f"{count(settings.seeds, 'seed')} × {rates}"),
        ("time", f"{seconds:.0f} s, of which {compiling:.0f} s compiling"),
    ]


def safe_code(context: Context) -> str:
    """The code that builds the safe choice, imports included; empty if every method diverged."""
    safe = safe_choice(context.goal, context.rows)
    if safe is None:
        return ""
    settings, updates = context.experiment.settings, context.experiment.updates
    rate = float(f"{safe.middle:.3g}")
    return code_of(settings.transformation(context.methods[safe.method], rate, updates))


def _against(first: Row, row: Row, scale: float, digits: int) -> str:
    if row.method == first.method:
        return "first"
    return difference(row.difference, row.margin, scale, digits)


def _epochs(row: Row) -> str:
    if not row.seeds_at_target:
        return "never"
    seeds = "" if row.seeds_at_target == row.seeds else f" ({row.seeds_at_target} of {row.seeds})"
    return f"{row.epochs_to_target:.3g}{seeds}"


def _range(row: Row) -> str:
    if row.works_from == row.works_to:
        return f"{row.works_from:.2g} only"
    return f"{row.works_from:.2g} – {row.works_to:.2g} (×{row.works_to / row.works_from:.3g})"
