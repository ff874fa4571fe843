"""Loading, checking, splitting and standardising data."""

import zipfile

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
    parts = data.split(found)
    assert {part["x"].dtype for part in parts[:3]} == {np.dtype(np.float32)}
    assert parts.train["y"].dtype == (np.int32 if outputs > 1 else np.float32)
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


def test_a_column_is_centred_before_it_is_narrowed():
    """Large numbers that differ little: Unix times, identities, a price in yen."""
    rng = np.random.default_rng(2)
    small = rng.normal(size=(60, 3))
    offsets = np.array([1e8, 1.7e9, -3e12])
    near, far = (
        data.split(data.check("rows", small + at, 2 * small[:, 0] + at[0]))
        for at in (np.zeros(3), offsets)
    )
    np.testing.assert_allclose(far.train["x"], near.train["x"], atol=1e-3)
    np.testing.assert_allclose(far.test["y"], near.test["y"], atol=1e-6)
    np.testing.assert_allclose(far.target_scale, near.target_scale, rtol=1e-6)


def test_a_target_that_is_constant_where_it_is_learned_is_named():
    """It varies in the held-out rows alone: there is nothing to learn."""
    x = np.random.default_rng(0).normal(size=(40, 2))
    y = np.full(40, 0.3)
    held = np.setdiff1d(np.arange(40), np.random.default_rng(0).permutation(np.arange(40))[16:])
    y[held] = 9.5
    with pytest.raises(Problem, match=r"rows: every target of the training part is 0\.3; there is"):
        data.split(data.check("rows", x, y, "regression"))


@pytest.mark.parametrize(
    ("rows", "columns"), [(["1,2,0,9"] * 30, 3), (["1,2,0,9,8"] * 30, 3), (["1,2,0,"] * 30, 3)]
)
def test_rows_longer_than_the_header_are_refused(tmp_path, rows, columns):
    """One field more would make the first column an index, and shift the others."""
    path = tmp_path / "long.csv"
    path.write_text("\n".join(["a,b,y", *rows]))
    with pytest.raises(Problem, match=f"rows have more fields than its first line.*{columns}"):
        data.load(str(path))


def test_an_archive_of_other_things_is_refused(tmp_path):
    """A member that is no array."""
    path = tmp_path / "odd.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x", "text")
        file.writestr("y", b"")
    with pytest.raises(Problem, match=r"expected arrays named x \(or X\) and y; found nothing"):
        data.load(str(path))


def test_what_lies_too_far_from_the_training_part_is_named():
    """Float32 cannot hold it once it is scaled."""
    x = np.zeros((40, 1))
    x[:, 0] = np.arange(40) * 1e-23
    x[np.random.default_rng(0).permutation(np.arange(40))[0]] = 1e30
    with pytest.raises(Problem, match="too far from those of the training part"):
        data.split(data.check("rows", x, np.arange(40.0), "regression"))
