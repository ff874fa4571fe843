"""From trained members to the table: choose a learning rate on validation data, then read off the
test data.

Whatever is a choice (the learning rate, the order of the rows, the target) looks at validation data
only, so the test columns are what the chosen optimizer does on data that nothing was tuned on.
"""

import math
from typing import NamedTuple

import numpy as np

from gradxform.cli.files import to_csv

ACCURACY_TOLERANCE, LOSS_TOLERANCE = (
    0.02,
    1.05,
)  # a rate works within 2 points of accuracy, or 5 % of loss, of the best


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
    history: dict[
        str, np.ndarray
    ]  # train_loss, val_loss and, for classes, val_accuracy: each [E, L, S]
    test: dict[str, np.ndarray]  # loss and, for classes, accuracy: each [L, S]
    rows: (
        np.ndarray
    )  # [L, S, N] the goodness on each row of test data: right or wrong, or minus the squared error
    diverged: np.ndarray  # [L, S] bool
    epochs: (
        np.ndarray
    )  # [L, S] epochs trained, fewer where training stopped; later ones are nan in the history
    best: np.ndarray  # [L, S] index of the epoch whose parameters were kept: the last one, or the best with --patience
    seconds: float
    compile_seconds: float

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

    def goodness(self, result: Result) -> np.ndarray:
        """Validation result of each member [L, S], more is better; a diverged member is worse than
        any.
        """
        last = result.final(f"val_{self.metric}")
        return np.where(result.diverged, -np.inf, last if self.metric == "accuracy" else -last)

    def reached(self, values: np.ndarray) -> np.ndarray:
        """Whether each value meets the target."""
        with np.errstate(invalid="ignore"):
            return (
                values >= self.target if self.target_metric == "accuracy" else values <= self.target
            )


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
    tied: bool  # not told apart from the first row by the test data
    seconds: float
    compile_seconds: float
    chosen: int  # index of the learning rate


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
    return goal._replace(
        target=TARGET_SHARE * best if metric == "accuracy" else TARGET_LOSS * -best
    )


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
    best = goodness[chosen]
    works = goodness >= (
        best - ACCURACY_TOLERANCE if goal.metric == "accuracy" else LOSS_TOLERANCE * best
    )
    low = high = chosen
    while low > 0 and works[low - 1]:
        low -= 1
    while high + 1 < len(works) and works[high + 1]:
        high += 1
    return low, high


def summarise(goal: Goal, results: list[Result]) -> list[Row]:
    """The rows of the table, best validation result first; a method that diverged at every rate is
    last.
    """
    rows = [_row(goal, result) for result in results]
    sign = -1.0 if goal.metric == "accuracy" else 1.0
    rows.sort(
        key=lambda row: (
            sign * row.validation if math.isfinite(row.validation) else math.inf,
            row.test_loss,
        )
    )
    by_name = {result.method: result for result in results}
    first = rows[0]
    return [
        row._replace(tied=_tied(by_name[first.method], first, by_name[row.method], row))
        for row in rows
    ]


def _row(goal: Goal, result: Result) -> Row:
    at = choose(goal, result)
    low, high = working_range(goal, result, at)
    epochs = epochs_to_target(goal, result, at)
    dead = result.diverged[at].any()
    end = len(result.rates) - 1

    def mean_spread(values):
        if dead:
            return math.nan, math.nan
        return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else math.nan

    validation = mean_spread(result.final(f"val_{goal.metric}")[at].astype(np.float64))
    test = mean_spread(result.test[goal.metric][at].astype(np.float64))
    test_loss = mean_spread(result.test["loss"][at].astype(np.float64))
    edge = "" if not end or dead else "low" if at == 0 else "high" if at == end else ""
    got = np.isfinite(epochs)
    return Row(
        result.method,
        float(result.rates[at]),
        edge,
        *validation,
        *test,
        *test_loss,
        float(epochs[got].mean()) if got.any() else math.nan,
        int(got.sum()),
        len(got),
        float(result.rates[low]) if not dead else math.nan,
        float(result.rates[high]) if not dead else math.nan,
        int(result.diverged.sum()),
        result.diverged.size,
        False,
        result.seconds,
        result.compile_seconds,
        at,
    )


def _tied(first: Result, first_row: Row, other: Result, row: Row) -> bool:
    """Whether the mean difference on the test data is within two standard errors, over rows and
    over seeds.

    Seeds are shared (the same initial parameters and order of batches), so differences are taken in
    pairs.
    """
    if not (math.isfinite(row.test) and math.isfinite(first_row.test)):
        return False
    difference = first.rows[first_row.chosen].astype(np.float64) - other.rows[row.chosen]  # [S, N]
    by_row, by_seed = difference.mean(axis=0), difference.mean(axis=1)
    error = math.hypot(
        by_row.std() / math.sqrt(len(by_row)), by_seed.std() / math.sqrt(max(1, len(by_seed) - 1))
    )
    return abs(float(difference.mean())) <= 2 * error


def table_csv(goal: Goal, rows: list[Row]) -> bytes:
    """table.csv: numbers only, one line per method, in the order of the table."""
    lines = []
    for rank, row in enumerate(rows, 1):
        line = {"rank": rank, **row._asdict()}
        del line["chosen"]
        for name in ("validation", "test"):
            line[f"{name}_{goal.metric}"], line[f"{name}_{goal.metric}_spread"] = (
                line.pop(name),
                line.pop(f"{name}_spread"),
            )
        lines.append(line)
    order = ["rank", "method", "learning_rate", f"test_{goal.metric}", f"test_{goal.metric}_spread"]
    order += [name for name in lines[0] if name not in order]
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
                line |= {
                    f"test_{name}": float(value[at, seed]) for name, value in result.test.items()
                }
                lines.append(line | {"epochs_to_target": float(reached[seed])})
    return to_csv(lines)
