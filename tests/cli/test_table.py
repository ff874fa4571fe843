"""From members to the table, on made-up results where every answer is known."""

import csv
import io

import numpy as np
import pytest

from gradxform.cli.compare.table import (
    Result,
    choose,
    goal_for,
    members_csv,
    safe_choice,
    summarise,
    table_csv,
    working_range,
)
from gradxform.cli.compare.write import LEAST
from gradxform.cli.files import fitting, to_csv

RATES = np.float32([0.001, 0.01, 0.1, 1.0])


def made(
    method="a",
    accuracy=(0.5, 0.9, 0.89, 0.2),
    seeds=2,
    losses=None,
    diverged=(),
    test=None,
    epochs=3,
    rows=100,
):
    """A result with the same final validation accuracy for every seed, reached linearly over the epochs."""
    accuracy = np.repeat(np.asarray(accuracy, np.float32)[:, None], seeds, axis=1)
    members = accuracy.shape
    loss = (
        1 - accuracy
        if losses is None
        else np.repeat(np.asarray(losses, np.float32)[:, None], seeds, axis=1)
    )
    ramp = (np.arange(1, epochs + 1) / epochs).astype(np.float32)[:, None, None]
    lost = np.zeros(members, bool)
    for at in diverged:
        lost[at] = True
    test = accuracy if test is None else np.broadcast_to(np.asarray(test, np.float32), members)
    right = (np.arange(rows) < np.round(test[..., None] * rows)).astype(np.float32)
    history = {
        "train_loss": loss * ramp,
        "val_loss": loss * np.ones_like(ramp),
        "val_accuracy": accuracy * ramp,
    }
    return Result(
        method,
        RATES[: len(accuracy)],
        history,
        {"loss": 1 - test, "accuracy": test},
        right,
        lost,
        np.full(members, epochs),
        np.full(members, epochs - 1),
        1.0,
        0.5,
        10,
    )


def goal_of(*results, accuracy=None, loss=None):
    return goal_for(list(results), accuracy, loss)


def test_the_rate_is_chosen_on_validation_data_and_not_on_test_data():
    result = made(test=[[1.0], [0.6], [0.7], [1.0]])
    (row,) = summarise(goal_of(result), [result])
    assert row.learning_rate == pytest.approx(0.01)
    assert row.validation == pytest.approx(0.9)
    assert row.test == pytest.approx(0.6)


def test_equal_accuracies_are_told_apart_by_the_loss():
    result = made(accuracy=(0.9, 0.9, 0.9, 0.1), losses=(0.3, 0.2, 0.4, 0.0))
    assert choose(goal_of(result), result) == 1


def test_a_rate_at_which_one_seed_diverged_cannot_be_chosen():
    result = made(diverged=[(1, 0)])
    (row,) = summarise(goal_of(result), [result])
    assert row.learning_rate == pytest.approx(0.1)
    assert (row.diverged, row.members) == (1, 8)
    assert (row.works_from, row.works_to) == (pytest.approx(0.1), pytest.approx(0.1))


def test_a_method_that_diverged_everywhere_comes_last_and_has_no_numbers():
    lost = made("lost", diverged=[(at, 1) for at in range(4)])
    rows = summarise(goal_of(lost, made("b")), [lost, made("b")])
    assert [row.method for row in rows] == ["b", "lost"]
    assert np.isnan(rows[1].test)
    assert not rows[1].alike
    both = summarise(goal_of(lost), [lost])
    assert np.isnan(both[0].validation)


@pytest.mark.parametrize(
    ("accuracy", "edge"),
    [
        ((0.9, 0.5, 0.4, 0.3), "low"),
        ((0.1, 0.2, 0.3, 0.9), "high"),
        ((0.1, 0.9, 0.3, 0.2), ""),
        ((0.9,), ""),
    ],
)
def test_the_edge_of_the_grid_is_flagged(accuracy, edge):
    result = made(accuracy=accuracy)
    assert summarise(goal_of(result), [result])[0].edge == edge


def test_the_working_range_is_the_run_around_the_chosen_rate():
    result = made(accuracy=(0.885, 0.5, 0.9, 0.885))
    assert working_range(goal_of(result), result, 2) == (2, 3)


def test_epochs_to_target():
    result = made(
        epochs=10
    )  # reaches 0.9 linearly, so 0.97 of it in the tenth epoch and 0.5 of it in the sixth
    goal = goal_of(result)
    assert goal.target == pytest.approx(0.97 * 0.9)
    assert summarise(goal, [result])[0].epochs_to_target == 10
    (row,) = summarise(goal_of(result, accuracy=0.5), [result])
    assert (row.epochs_to_target, row.seeds_at_target, row.seeds) == (6, 2, 2)
    (row,) = summarise(goal_of(result, accuracy=0.99), [result])
    assert np.isnan(row.epochs_to_target)
    assert row.seeds_at_target == 0
    assert summarise(goal_of(result, loss=0.2), [result])[0].epochs_to_target == 1


def test_differences_are_judged_on_the_rows_and_the_seeds_of_the_test_data():
    first, close, far = (
        made("first", test=0.95),
        made("close", (0.5, 0.89, 0.1, 0.1), test=0.94),
        made("far", (0.5, 0.8, 0.1, 0.1), test=0.7),
    )
    rows = summarise(goal_of(first), [far, close, first])
    assert [(row.method, row.alike) for row in rows] == [
        ("first", True),
        ("close", True),
        ("far", False),
    ]
    assert [row.difference for row in rows] == pytest.approx([0, -0.01, -0.25])
    assert rows[0].margin == 0
    assert 0.01 < rows[1].margin < 0.06
    assert 0.05 < rows[2].margin < 0.25


def test_of_one_seed_nothing_is_claimed():
    """However far apart."""
    results = [made("first", seeds=1), made("far", (0.1, 0.2, 0.3, 0.1), seeds=1)]
    rows = summarise(goal_of(*results), results)
    assert [row.alike for row in rows] == [True, True]
    assert np.isnan(rows[1].margin)
    assert safe_choice(goal_of(*results), rows).method == "first"  # whose validation is not far off


def test_the_safe_choice_is_the_widest_of_those_that_cannot_be_told_apart():
    """Not the first, and not a wide one that is worse; ties by validation; at the middle of its rates."""
    results = [
        made("best", (0.2, 0.5, 0.9, 0.1), test=0.9),
        made("wide", (0.895, 0.895, 0.89, 0.1), test=0.9),
        made("as_wide", (0.89, 0.89, 0.89, 0.1), test=0.9),
        made("worse", (0.5, 0.5, 0.5, 0.5), test=0.5),
    ]
    goal = goal_of(*results)
    rows = summarise(goal, results)
    safe = safe_choice(goal, rows)
    assert (rows[0].method, safe.method) == ("best", "wide")
    assert safe.middle == pytest.approx(0.01)
    lost = made("lost", diverged=[(at, 1) for at in range(4)])
    assert safe_choice(goal_of(lost), summarise(goal_of(lost), [lost])) is None


@pytest.mark.parametrize(
    ("accuracy", "diverged", "at"),
    [
        ((0.5, 0.9, 0.7, 0.2), [], 0.1),
        ((0.5, 0.9, 0.88, 0.2), [], None),
        ((0.5, 0.8, 0.88, 0.9), [], None),
        ((0.85, 0.9, 0.88, 0.2), [(2, 0)], 0.1),
    ],
)
def test_a_cliff_is_a_fall_at_the_next_larger_rate(accuracy, diverged, at):
    result = made(accuracy=accuracy, diverged=diverged)
    (row,) = summarise(goal_of(result), [result])
    assert row.cliff == pytest.approx(at) if at else np.isnan(row.cliff)


def test_a_step_of_a_member_takes_what_is_left_after_compiling():
    (row,) = summarise(goal_of(made()), [made()])
    assert row.microseconds == pytest.approx(1e6 * 0.5 / (8 * 3 * 10))


def synthetic(rng, methods, shift=0.0):
    """Results of made-up methods: equal, but for the last one, at every rate; rows in common, effects of the
    seed, noise."""
    easy, found = 2 + 1.5 * rng.standard_normal(360), []
    for method in range(methods):
        right = easy + 0.5 * rng.standard_normal(360) + 0.1 * rng.standard_normal((3, 3, 1))
        right = right + rng.standard_normal((3, 3, 360)) + shift * (method == methods - 1) > 0
        found.append(made(f"m{method}", accuracy=(0.9, 0.9, 0.9), seeds=3, test=0.5))
        jitter = 0.01 * rng.standard_normal((1, 3, 3)).astype(np.float32)
        history = found[-1].history | {"val_accuracy": found[-1].history["val_accuracy"] + jitter}
        rows = right.astype(np.float32)
        test = {"accuracy": rows.mean(axis=2), "loss": 1 - rows.mean(axis=2)}
        found[-1] = found[-1]._replace(rows=rows, test=test, history=history)
    return found


def claimed(runs, methods, shift=0.0):
    """The share of comparisons in which some method is told from the first."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(runs):
        results = synthetic(rng, methods, shift)
        found += not all(row.alike for row in summarise(goal_of(*results), results))
    return found / runs


def test_a_comparison_of_equal_methods_claims_nothing_and_one_of_unequal_ones_does():
    """End to end; `tests/sweep/test_verdict.py` has the rates."""
    assert claimed(10, 4) <= 0.2
    assert claimed(3, 4, shift=-3.0) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("methods", [2, 15])
def test_comparisons_of_equal_methods_claim_a_difference_in_one_of_twenty(methods):
    """300 of them: 8.9 % are allowed for."""
    assert claimed(300, methods) <= 0.05 + 3.09 * (0.05 * 0.95 / 300) ** 0.5


def test_csv_has_a_line_per_method_and_per_member():
    results = [made("a"), made("b", (0.5, 0.8, 0.3, 0.2), diverged=[(3, 0)])]
    goal = goal_of(*results)
    table = list(csv.DictReader(io.StringIO(table_csv(goal, summarise(goal, results)).decode())))
    assert [line["method"] for line in table] == ["a", "b"]
    assert float(table[0]["test_accuracy"]) == pytest.approx(0.9)
    assert float(table[1]["test_difference"]) == pytest.approx(-0.1)
    assert float(table[1]["test_difference_margin"]) > 0
    assert float(table[1]["microseconds_per_step"]) > 0
    members = list(csv.DictReader(io.StringIO(members_csv(goal, results).decode())))
    assert len(members) == 16
    assert sum(line["diverged"] == "True" for line in members) == 1


def test_a_narrow_terminal_gets_the_columns_that_matter():
    columns = {
        name: [name, "1.0"]
        for name in ("method", "test error", "validation error", "rates that work")
    }
    columns["diverged"] = ["diverged", ""]
    assert fitting(columns, 100, LEAST) == [
        "method",
        "test error",
        "validation error",
        "rates that work",
    ]
    assert fitting(columns, 40, LEAST) == ["method", "test error", "rates that work"]
    assert fitting(columns, 10, LEAST) == ["method", "test error"]


def test_csv_leaves_what_is_not_a_number_empty():
    assert to_csv([{"a": float("nan"), "b": 1.0, "c": "x,y"}]) == b'a,b,c\n,1,"x,y"\n'
