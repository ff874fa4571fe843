"""From trained members to the table: choose a learning rate on validation data, then read off the
test data.

Whatever is a choice (the learning rate, the order of the rows, the target) looks at validation data
only, so the test columns are what the chosen optimizer does on data that nothing was tuned on.
"""

import math
from typing import NamedTuple

import numpy as np

from gradxform.cli.files import to_csv
from gradxform.sweep.verdict import judge

# A rate works within 2 points of accuracy, or 5 % of loss, of the best; beyond 10 points, or half
# of the loss more, there is a cliff.
ACCURACY_TOLERANCE, LOSS_TOLERANCE = 0.02, 1.05
ACCURACY_CLIFF, LOSS_CLIFF = 0.1, 1.5
TARGET_SHARE, TARGET_LOSS = (
    0.97,
    1.10,
)  # the default target, as shares of the best validation result


class Result(NamedTuple):
    """One method, trained at each learning rate (L) with each seed (S) for E epochs; N rows of test
    data.
    """

    method: str
    rates: np.ndarray  # [L]
    history: dict[str, np.ndarray]  # train_loss, val_loss, for classes val_accuracy: each [E, L, S]
    test: dict[str, np.ndarray]  # loss and, for classes, accuracy: each [L, S]
    rows: np.ndarray  # [L, S, N] the goodness on each row of test data: row_goodness
    diverged: np.ndarray  # [L, S] bool
    epochs: np.ndarray  # [L, S] epochs trained; later ones are nan in the history
    best: (
        np.ndarray
    )  # [L, S] index of the epoch whose parameters were kept: last, or best (--patience)
    seconds: float
    compile_seconds: float
    updates: int  # in an epoch

    def final(self, name: str) -> np.ndarray:
        """A metric of each member [L, S] with the parameters that were kept."""
        return np.take_along_axis(self.history[name], self.best[None], axis=0)[0]


class Goal(NamedTuple):
    """What counts as good, accuracy (more is better) or squared error (less is better), and the
    target.
    """

    metric: str  # "accuracy" or "loss"
    target_metric: str
    target: float

    @property
    def accuracy(self) -> bool:
        """Whether accuracy is what counts."""
        return self.metric == "accuracy"

    def goodness(self, result: Result) -> np.ndarray:
        """Validation result of each member [L, S], more is better; a diverged member is worse than
        any.
        """
        last = result.final(f"val_{self.metric}")
        return np.where(result.diverged, -np.inf, last if self.accuracy else -last)

    def reached(self, values: np.ndarray) -> np.ndarray:
        """Whether each value meets the target."""
        meets = np.greater_equal if self.target_metric == "accuracy" else np.less_equal
        with np.errstate(invalid="ignore"):
            return meets(values, self.target)

    def least(self, best: float, points: float, factor: float) -> float:
        """The goodness that is so many points of accuracy, or so many times the loss, from the
        best.
        """
        return best - points if self.accuracy else factor * best


def epochs_to_target(goal: Goal, result: Result, chosen: int) -> np.ndarray:
    """The first epoch (from 1) at which each seed meets the target [S]; nan where it never does."""
    reached = goal.reached(result.history[f"val_{goal.target_metric}"][:, chosen])
    return np.where(reached.any(axis=0), reached.argmax(axis=0) + 1.0, np.nan)


class Row(NamedTuple):
    """One method at its chosen learning rate; means and standard deviations are over the seeds."""

    method: str
    learning_rate: float
    edge: str  # "low" or "high" where the chosen rate ends the grid, else ""
    validation: float
    validation_spread: float
    test: float
    test_spread: float
    test_loss: float
    test_loss_spread: float
    epochs_to_target: float  # mean over the seeds that got there; nan if none did
    seeds_at_target: int
    seeds: int
    works_from: float
    works_to: float
    diverged: int  # members, over all rates and seeds
    members: int
    cliff: float  # the next larger rate, where results fall off; nan if they do not
    difference: float  # of the test result to the first row's
    margin: float  # half its interval; nan where one seed, or none that is finite, says nothing
    microseconds: float  # per update of one member, compilation apart
    seconds: float
    compile_seconds: float
    chosen: int  # index of the learning rate

    @property
    def alive(self) -> bool:
        """Whether some rate did not diverge."""
        return math.isfinite(self.validation)

    @property
    def alike(self) -> bool:
        """Whether the data cannot tell it from the first row."""
        return self.alive and not abs(self.difference) > self.margin

    @property
    def middle(self) -> float:
        """The middle of the rates that work, in the logarithm."""
        return math.sqrt(self.works_from * self.works_to)


def goal_for(
    results: list[Result], target_accuracy: float | None, target_loss: float | None
) -> Goal:
    """The goal of these results, with the target given or derived from the best method."""
    metric = "accuracy" if "val_accuracy" in results[0].history else "loss"
    if target_accuracy is not None:
        return Goal(metric, "accuracy", target_accuracy)
    if target_loss is not None:
        return Goal(metric, "loss", target_loss)
    goal = Goal(metric, metric, math.nan)
    best = max(float(goal.goodness(result).mean(axis=1).max()) for result in results)
    if not math.isfinite(best):
        return goal
    return goal._replace(target=TARGET_SHARE * best if goal.accuracy else TARGET_LOSS * -best)


def choose(goal: Goal, result: Result) -> int:
    """The learning rate that is best on validation data; equal accuracies are told apart by the
    loss.
    """
    goodness = goal.goodness(result).mean(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        loss = np.where(result.diverged.any(axis=1), np.inf, result.final("val_loss").mean(axis=1))
    return int(np.lexsort((np.arange(len(loss)), loss, -goodness))[0])


def working_range(goal: Goal, result: Result, chosen: int) -> tuple[int, int]:
    """The first and last rate of the run around the chosen one whose results are within the
    tolerance.
    """
    goodness = goal.goodness(result).mean(axis=1)
    works = goodness >= goal.least(goodness[chosen], ACCURACY_TOLERANCE, LOSS_TOLERANCE)
    low = high = chosen
    while low > 0 and works[low - 1]:
        low -= 1
    while high + 1 < len(works) and works[high + 1]:
        high += 1
    return low, high


def cliff(goal: Goal, result: Result, chosen: int) -> float:
    """The rate tried next above the chosen one, if a seed diverged there or the result falls off;
    else nan.
    """
    goodness, above = goal.goodness(result).mean(axis=1), chosen + 1
    least = goal.least(goodness[chosen], ACCURACY_CLIFF, LOSS_CLIFF)
    falls = above < len(goodness) and goodness[above] < least
    return float(result.rates[above]) if falls else math.nan


def safe_choice(goal: Goal, rows: list[Row]) -> Row | None:
    """Of the methods that cannot be told from the first, and whose validation result is within what
    counts as working, the one with the widest range of rates that work; None if all diverged.
    """
    sign = 1 if goal.accuracy else -1
    least = goal.least(sign * rows[0].validation, ACCURACY_TOLERANCE, LOSS_TOLERANCE)
    good = [row for row in rows if row.alike and sign * row.validation >= least]
    spans = [round(math.log(row.works_to / row.works_from), 6) for row in good]
    return good[spans.index(max(spans))] if good else None  # the first of equals: by validation


def summarise(goal: Goal, results: list[Result]) -> list[Row]:
    """The rows of the table, best validation result first; a method that diverged at every rate is
    last.
    """
    by_name = {result.method: result for result in results}
    sign = -1.0 if goal.accuracy else 1.0

    def place(row):
        return sign * row.validation if math.isfinite(row.validation) else math.inf, row.test_loss

    rows = sorted((_row(goal, result) for result in results), key=place)
    finals = [by_name[row.method].rows[row.chosen] for row in rows]  # each [S, N]
    found = judge([x if row.alive else np.nan * x for row, x in zip(rows, finals, strict=True)])
    apart = found.difference(0) * -sign, found.margin(0)
    return [
        row._replace(difference=float(difference), margin=float(margin))
        for row, difference, margin in zip(rows, *apart, strict=True)
    ]


def _row(goal: Goal, result: Result) -> Row:
    at = choose(goal, result)
    epochs = epochs_to_target(goal, result, at)
    got, dead, end = np.isfinite(epochs), result.diverged[at].any(), len(result.rates) - 1
    low, high = (float(result.rates[i]) for i in working_range(goal, result, at))

    def mean_spread(values):
        if dead:
            return math.nan, math.nan
        return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else math.nan

    finals = result.final(f"val_{goal.metric}"), result.test[goal.metric], result.test["loss"]
    validation, test, loss = (mean_spread(values[at].astype(np.float64)) for values in finals)
    means = *validation, *test, *loss
    edge = {0: "low", end: "high"}.get(at, "") if end and not dead else ""
    soonest = float(epochs[got].mean()) if got.any() else math.nan
    works = (math.nan, math.nan) if dead else (low, high)
    lost, members = int(result.diverged.sum()), result.diverged.size
    updates = result.epochs.sum() * result.updates
    each = 1e6 * (result.seconds - result.compile_seconds) / max(1, updates)
    spent = each, result.seconds, result.compile_seconds
    near = math.nan if dead else cliff(goal, result, at)
    reached = soonest, int(got.sum()), len(got)
    rate = float(result.rates[at])
    return Row(
        result.method,
        rate,
        edge,
        *means,
        *reached,
        *works,
        lost,
        members,
        near,
        math.nan,
        math.nan,
        *spent,
        at,
    )


def table_csv(goal: Goal, rows: list[Row]) -> bytes:
    """table.csv: numbers only, one line per method, in the order of the table."""
    named = {
        f"{k}{end}": f"{k}_{goal.metric}{end}"
        for k in ("validation", "test")
        for end in ("", "_spread")
    } | {"difference": "test_difference", "margin": "test_difference_margin",
         "cliff": "cliff_at", "microseconds": "microseconds_per_step"}  # fmt: skip
    lines = [{"rank": i, **row._asdict()} for i, row in enumerate(rows, 1)]
    lines = [{named.get(k, k): x for k, x in line.items() if k != "chosen"} for line in lines]
    order = ["rank", "method", "learning_rate", named["test"], named["test_spread"]]
    order += [named["difference"], named["margin"]]
    last = [named["validation"], named["validation_spread"]]
    order += [k for k in lines[0] if k not in [*order, *last]] + last
    return to_csv([{name: line[name] for name in order} for line in lines])


def members_csv(goal: Goal, results: list[Result]) -> bytes:
    """members.csv: one line per member, a method at one learning rate with one seed."""
    lines = []
    for result in results:
        for at, rate in enumerate(result.rates):
            reached = epochs_to_target(goal, result, at)
            for seed in range(result.diverged.shape[1]):
                line = {
                    "method": result.method,
                    "learning_rate": float(rate),
                    "seed": seed,
                    "epochs": int(result.epochs[at, seed]),
                    "diverged": bool(result.diverged[at, seed]),
                }
                line |= {name: float(result.final(name)[at, seed]) for name in result.history}
                line |= {f"test_{name}": float(x[at, seed]) for name, x in result.test.items()}
                lines.append(line | {"epochs_to_target": float(reached[seed])})
    return to_csv(lines)
