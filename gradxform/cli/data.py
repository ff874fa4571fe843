"""Load a data set, check it, split it 60/20/20 and standardise it by the statistics of the training
part.

Every function either returns arrays that training can rely on (finite features, int32 labels 0..k-1
or finite targets; standardised in float64, then float32) or raises a Problem that names the file,
the column and the row.
"""

import hashlib
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gradxform.cli.problems import Problem, need, unknown

BUILT_IN = ("digits", "breast_cancer", "wine", "diabetes")


MIN_ROWS, MIN_CLASS_ROWS, MAX_CLASSES = 20, 5, 1000
ROUNDING = 1e-14  # of a mean: a deviation below it is no more than float64's rounding


class Dataset(NamedTuple):
    """Features `x` [n, features] or [n, height, width, channels], and targets `y` [n] of a task."""

    name: str
    x: np.ndarray
    y: np.ndarray
    task: str  # "classification" or "regression"
    classes: tuple[str, ...]  # names of the labels; empty for regression

    @property
    def outputs(self) -> int:
        """Outputs the model needs: one per class, or one."""
        return len(self.classes) or 1

    @property
    def is_image(self) -> bool:
        return self.x.ndim == 4

    def digest(self) -> str:
        """A hash of the numbers, so that results of other data are never mixed with these."""
        digest = hashlib.sha256(f"{self.task} {self.x.shape} {self.classes}".encode())
        digest.update(self.x.tobytes())
        digest.update(self.y.tobytes())
        return digest.hexdigest()[:16]


class Split(NamedTuple):
    """Three parts, each a dict of `x` and `y`, and the unit of the standardised target in original
    units.
    """

    train: dict
    validation: dict
    test: dict
    target_scale: float


def load(name: str, target: str | None = None, task: str | None = None) -> Dataset:
    """Load a built-in data set by name, or a .csv or .npz file by path."""
    suffix = Path(name).suffix.lower()
    if target is not None and suffix != ".csv":
        text = f"--target names a column of a .csv file; {name} has no columns to choose from"
        raise Problem(text)
    if name in BUILT_IN:
        x, y = _built_in(name)
    elif suffix == ".csv":
        x, y = _csv(_existing(name), target)
    elif suffix == ".npz":
        x, y = _npz(_existing(name))
    elif suffix or "/" in name:
        raise Problem(f"{name}: a data file must end in .csv or .npz")
    else:
        raise unknown("data set", name, (*BUILT_IN, "a path ending in .csv or .npz"))
    return check(name, x, y, task)


def check(name: str, x: np.ndarray, y: np.ndarray, task: str | None = None) -> Dataset:
    """Turn raw arrays into a Dataset, or say what is wrong with them."""
    if x.ndim not in (2, 3, 4) or 0 in x.shape[1:]:
        text = "expected rows × features, or rows × height × width (× channels)"
        raise Problem(f"{name}: x has shape {x.shape}; {text}")
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1:
        raise Problem(f"{name}: y has shape {y.shape}; expected one target per row")
    if len(x) != len(y):
        raise Problem(f"{name}: x has {len(x)} rows and y has {len(y)}; they must be equally many")
    if len(x) < MIN_ROWS:
        few = f"{len(x)} rows are too few to split in three"
        raise Problem(f"{name}: {few}; at least {MIN_ROWS} are needed")
    if x.dtype.kind not in "fiub":
        raise Problem(f"{name}: x holds {x.dtype}; expected real numbers")
    x = x[..., None] if x.ndim == 3 else x
    x = x.astype(x.dtype if x.dtype.kind == "f" else np.float64)  # a copy, whoever has the original
    if (bad := ~_is_finite(x)).any():
        where = ", ".join(str(i) for i in np.argwhere(bad)[0])
        raise Problem(f"{name}: x[{where}] is not a finite number of float32's range")
    task = task or _infer_task(y)
    if task == "regression":
        return Dataset(name, x, _targets(name, y), task, ())
    labels, classes = _labels(name, y)
    return Dataset(name, x, labels, task, classes)


def split(data: Dataset) -> Split:
    """Split 60/20/20 by a fixed key, each class in proportion, and standardise by the training
    part.

    A column that is constant in the training part is centred and left unscaled. Regression targets
    are standardised too, so that a squared error of 1 is what predicting the mean costs.
    """
    order = np.random.default_rng(0)
    groups = [np.flatnonzero(data.y == c) for c in range(len(data.classes))]
    parts: tuple[list, list, list] = ([], [], [])
    for group in groups or [np.arange(len(data.y))]:
        rows = order.permutation(group)
        held = max(1, round(0.2 * len(rows)))
        chosen = rows[2 * held :], rows[:held], rows[held : 2 * held]
        for part, some in zip(parts, chosen, strict=True):
            part.append(some)
    train, validation, test = (np.sort(np.concatenate(part)) for part in parts)

    x64 = data.x[train].astype(np.float64)
    centre, scale = x64.mean(axis=0), x64.std(axis=0)
    scale = np.where(scale > ROUNDING * np.maximum(np.abs(centre), 1e-24), scale, 1.0)
    y, target_scale = data.y, 1.0
    if data.task == "regression":
        y64 = data.y.astype(np.float64)
        middle, target_scale = y64[train].mean(), float(y64[train].std())
        if not target_scale > ROUNDING * abs(middle):
            same = f"every target of the training part is {y64[train][0]:g}"
            raise Problem(f"{data.name}: {same}; there is nothing to learn")
        y = _narrow(data.name, "target", (y64 - middle) / target_scale)

    def standardised(rows):
        x = (data.x[rows].astype(np.float64) - centre) / scale
        return {"x": _narrow(data.name, "x", x), "y": y[rows]}

    return Split(standardised(train), standardised(validation), standardised(test), target_scale)


def _is_finite(x: np.ndarray) -> np.ndarray:
    """Where numbers are finite, and would be as float32."""
    return np.abs(x) <= np.finfo(np.float32).max


def _narrow(name: str, what: str, x: np.ndarray) -> np.ndarray:
    """Standardised numbers as float32, which may not hold what lies too far from the rest."""
    if not (held := _is_finite(x)).all():
        row = np.argwhere(~held)[0][0]
        far = "lies too far from those of the training part"
        raise Problem(f"{name}: {what}, row {row} of a part of the data, {far}")
    return x.astype(np.float32)


def _existing(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise Problem(f"{name}: no such file")
    return path


def _built_in(name: str) -> tuple[np.ndarray, np.ndarray]:
    datasets = need("sklearn.datasets")
    bunch = getattr(datasets, f"load_{name}")()
    return (bunch.images if name == "digits" else bunch.data), bunch.target


def _csv(path: Path, target: str | None) -> tuple[np.ndarray, np.ndarray]:
    pandas = need("pandas")
    try:
        frame = pandas.read_csv(path, skipinitialspace=True, low_memory=False)
    except Exception as error:  # of a file that is not what it claims
        raise Problem(f"{path}: cannot be read as CSV: {error}") from error
    columns = [str(c) for c in frame.columns]
    if not isinstance(frame.index, pandas.RangeIndex):  # made of what is left of the columns
        many = f"its rows have more fields than its first line, which names {len(columns)}"
        raise Problem(f"{path}: cannot be read as CSV: {many}")
    if len(columns) < 2:
        raise Problem(f"{path}: one column only ({columns[0]!r}); the separator must be a comma")
    if sum(_is_number(c) for c in columns) > len(columns) / 2:
        text = "a first line with the names of the columns is needed"
        raise Problem(f"{path}: the first line holds numbers; {text}")
    target = columns[-1] if target is None else target
    if target not in columns:
        raise unknown(f"column (--target, in {path})", target, columns)
    at = columns.index(target)
    others = (i for i in range(len(columns)) if i != at)
    features = [_numeric(path, columns[i], frame.iloc[:, i]) for i in others]
    column = frame.iloc[:, at]
    if column.isna().any():
        raise Problem(f"{_place(path, target, column.isna())}: the target is missing")
    x, y = np.stack(features, axis=1), column.to_numpy()
    return x, y if y.dtype.kind in "fiub" else y.astype(str)


def _numeric(path: Path, name: str, column) -> np.ndarray:
    if column.dtype == object:  # which may hold whole numbers that no float can
        column = column.where(column.isna(), column.astype(str))
    numbers = need("pandas").to_numeric(column, errors="coerce")
    text = numbers.isna() & column.notna()
    if text.any():
        value = str(column[text].iloc[0])
        raise Problem(f"{_place(path, name, text)}: {value!r} is not a number")
    if column.isna().any():
        raise Problem(f"{_place(path, name, column.isna())}: the value is missing or NaN")
    values = numbers.to_numpy(np.float64)
    bad = ~_is_finite(values)
    if bad.any():
        raise Problem(f"{_place(path, name, bad)}: {values[bad][0]:g} is not a finite float32")
    return values


def _place(path: Path, column: str, mask) -> str:
    return f"{path}: column {column!r}, data row {_row(mask)}"


def _row(mask) -> int:
    """The first marked data row, counted from 1 below the header."""
    return int(np.argmax(np.asarray(mask))) + 1


def _npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise Problem(f"{path}: is not a .npz archive, or is damaged")
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # half a dozen types for a file that is not what it claims
        raise Problem(f"{path}: cannot be read as .npz: {error}") from error
    arrays = {name: x for name, x in arrays.items() if isinstance(x, np.ndarray)}
    x = arrays.get("x", arrays.get("X"))
    if x is None or "y" not in arrays:
        found = ", ".join(arrays) or "nothing"
        raise Problem(f"{path}: expected arrays named x (or X) and y; found {found}")
    return x, arrays["y"]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _infer_task(y: np.ndarray) -> str:
    if y.dtype.kind != "f":
        return "classification"
    whole = np.isfinite(y).all() and (y == np.round(y)).all() and len(np.unique(y)) <= 20
    return "classification" if whole else "regression"


def _targets(name: str, y: np.ndarray) -> np.ndarray:
    if y.dtype.kind not in "fiub":
        bad = next((row for row, value in enumerate(y.tolist()) if not _is_number(str(value))), 0)
        text = f"{str(y[bad])!r} is not a number, as regression needs"
        raise Problem(f"{name}: target, data row {bad + 1}: {text}")
    y = y.astype(np.float64)
    if not _is_finite(y).all():
        raise Problem(f"{name}: target, data row {_row(~_is_finite(y))}: not a finite number")
    if np.ptp(y) == 0:
        raise Problem(f"{name}: every target is {y[0]:g}; there is nothing to learn")
    return y


def _labels(name: str, y: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    if y.dtype.kind not in "fiubU":
        raise Problem(f"{name}: y holds {y.dtype}; expected numbers or text")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise Problem(f"{name}: target, data row {_row(~np.isfinite(y))}: not a finite number")
    classes, labels, counts = np.unique(y, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        only = str(classes[0])
        raise Problem(f"{name}: every row has the class {only!r}; two classes are needed")
    regress = "" if y.dtype.kind == "U" else "; to predict a number, use --task regression"
    if len(classes) > MAX_CLASSES:
        many = f"{len(classes)} classes, more than {MAX_CLASSES}"
        raise Problem(f"{name}: the target has {many}{regress}")
    if counts.min() < MIN_CLASS_ROWS:
        rare = str(classes[np.argmin(counts)])
        rows = f"{counts.min()} of the {MIN_CLASS_ROWS} rows it needs"
        raise Problem(f"{name}: class {rare!r} has {rows}{regress}")
    names = tuple(str(int(c)) if y.dtype.kind == "f" and c == int(c) else str(c) for c in classes)
    return labels.astype(np.int32), names
