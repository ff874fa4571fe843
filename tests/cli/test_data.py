"""Loading, checking, splitting and standardising data."""

import numpy as np
import pytest

from gradxform.cli import data
from gradxform.cli.problems import Problem


@pytest.mark.parametrize(
    ("name", "shape", "outputs"),
    [
        ("digits", (1797, 8, 8, 1), 10),
        ("breast_cancer", (569, 30), 2),
        ("wine", (178, 13), 3),
        ("diabetes", (442, 10), 1),
    ],
)
def test_built_in_data_sets(name, shape, outputs):
    found = data.load(name)
    assert found.x.shape == shape
    assert found.outputs == outputs
    assert found.x.dtype == np.float32
    assert found.y.dtype == (np.int32 if outputs > 1 else np.float32)
    assert found.task == ("classification" if outputs > 1 else "regression")


def test_the_split_is_fixed_disjoint_complete_and_stratified():
    rows = np.arange(200, dtype=np.float64)
    found = data.check("rows", rows[:, None], np.repeat([0, 1, 1, 1], 50))
    parts = data.split(found)
    again = data.split(found)
    seen = []
    for part, other, share in zip(parts[:3], again[:3], (0.6, 0.2, 0.2), strict=True):
        np.testing.assert_array_equal(part["x"], other["x"])
        assert len(part["y"]) == share * 200
        assert np.mean(part["y"]) == 0.75
        seen.append(part["x"][:, 0])
    assert len(np.unique(np.concatenate(seen))) == 200


def test_standardised_by_the_training_part_with_constant_columns_guarded():
    rng = np.random.default_rng(1)
    x = np.stack([rng.normal(1e4, 3, 100), np.full(100, 7.0), np.full(100, 0.0)], axis=1)
    parts = data.split(data.check("columns", x, rng.normal(50, 9, 100)))
    np.testing.assert_allclose(parts.train["x"].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(parts.train["x"].std(axis=0), [1, 0, 0], atol=1e-4)
    np.testing.assert_allclose(parts.train["y"].std(), 1, rtol=1e-4)
    assert 6 < parts.target_scale < 12
    assert all(np.isfinite(part["x"]).all() for part in parts[:3])


@pytest.mark.parametrize(
    ("target", "task", "classes"),
    [
        (["a", "b"] * 20, "classification", ("a", "b")),
        ([3, 5] * 20, "classification", ("3", "5")),
        ([3.0, 5.0] * 20, "classification", ("3", "5")),
        ([0.5, 1.5] * 20, "regression", ()),
        ([True, False] * 20, "classification", ("False", "True")),
    ],
)
def test_the_task_is_inferred_from_the_target(target, task, classes):
    found = data.check("target", np.zeros((40, 2)), np.asarray(target))
    assert (found.task, found.classes) == (task, classes)


def test_the_task_can_be_forced():
    whole = np.asarray([3, 5] * 20)
    assert data.check("target", np.zeros((40, 2)), whole, "regression").task == "regression"
    with pytest.raises(Problem, match="data row 1: 'a' is not a number"):
        data.check("target", np.zeros((40, 2)), np.asarray(["a", "b"] * 20), "regression")


def test_csv_takes_its_target_by_name_or_last(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(
        "size, colour, price\n"
        + "".join(f"{i}, {'red' if i % 2 else 'blue'}, {i}.5\n" for i in range(40))
    )
    found = data.load(str(path), target="colour")
    assert found.classes == ("blue", "red")
    np.testing.assert_array_equal(found.x[:2], [[0, 0.5], [1, 1.5]])
    with pytest.raises(Problem, match=r"column 'colour', data row 1: 'blue' is not a number"):
        data.load(str(path))


def test_equal_numbers_have_equal_digests():
    x, y = np.zeros((40, 2)), np.arange(40) % 2
    first, second = data.check("a", x, y), data.check("b", x.copy(), y.copy())
    assert first.digest() == second.digest()
    x[3, 1] = 1e-3
    assert data.check("a", x, y).digest() != first.digest()
