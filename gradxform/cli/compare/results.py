"""Results on disk: one file per finished method, written whole or not at all, and read back only if
sound.
"""

import io
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gradxform.cli.files import write_atomically
from gradxform.cli.problems import Problem

FORMAT = (
    1  # raise it when a result of an older version can no longer be read as one of this version
)


ARRAYS = ("rates", "rows", "diverged", "epochs", "best")


class Result(NamedTuple):
    """One method, trained at each learning rate (L) with each seed (S) for E epochs; N rows of test
    data.
    """

    method: str
    code: str  # the code that builds the transformation at learning rate 1.0
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
    updates_per_second: float

    def final(self, name: str) -> np.ndarray:
        """A metric of each member [L, S] with the parameters that were kept."""
        return np.take_along_axis(self.history[name], self.best[None], axis=0)[0]


class Folder:
    """The folder of one comparison: settings.json, results/METHOD.npz, and the report."""

    def __init__(self, path: Path, facts: dict):
        self.path, self.facts = Path(path), {"format": FORMAT, **facts}

    def open(self, resume: bool) -> None:
        """Make the folder, or go on with one that holds results of the same settings."""
        if self.path.exists() and not self.path.is_dir():
            raise Problem(f"--out {self.path}: is a file, not a folder")
        settings = self.path / "settings.json"
        if settings.exists() and not resume:
            raise Problem(
                f"--out {self.path}: holds results already; go on with --resume, or choose another "
                "folder"
            )
        if resume and not settings.exists():
            raise Problem(f"--resume: {self.path} holds no comparison to go on with")
        if resume:
            self._same(settings)
            return
        try:
            text = json.dumps(self.facts, indent=1).encode()
            write_atomically(settings, lambda file: file.write(text))
        except OSError as error:
            raise Problem(f"--out {self.path}: cannot be written: {error.strerror}") from error

    def _same(self, settings: Path) -> None:
        try:
            before = json.loads(settings.read_text())
            names = [
                name
                for name in {**before, **self.facts}
                if before.get(name) != self.facts.get(name)
            ]
        except (ValueError, OSError, TypeError, AttributeError) as error:
            raise Problem(
                f"--resume: {settings} is damaged ({error}); choose another --out"
            ) from error
        if names:
            changed = ", ".join(
                f"{name} was {before.get(name)!r}, now {self.facts.get(name)!r}" for name in names
            )
            raise Problem(
                f"--resume: {self.path} holds results of other settings ({changed}); "
                "repeat those, or choose another --out"
            )

    def file(self, method: str) -> Path:
        """Where the result of a method is kept."""
        return self.path / "results" / f"{method}.npz"

    def save(self, result: Result) -> None:
        """Keep a finished method."""
        arrays = {name: getattr(result, name) for name in ARRAYS}
        arrays |= {f"history_{name}": value for name, value in result.history.items()}
        arrays |= {f"test_{name}": value for name, value in result.test.items()}
        facts = {
            name: getattr(result, name)
            for name in ("method", "code", "seconds", "compile_seconds", "updates_per_second")
        }
        arrays["facts"] = np.array(json.dumps(facts))
        write_atomically(self.file(result.method), lambda file: np.savez_compressed(file, **arrays))

    def load(self, method: str, rates: np.ndarray, code: str) -> Result | None:
        """The finished result of a method, None if there is none, a Problem if damaged or
        another's.
        """
        path = self.file(method)
        if not path.exists():
            return None
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            result = Result(
                **json.loads(str(arrays.pop("facts"))),
                **{name: arrays.pop(name) for name in ARRAYS},
                history={
                    name[8:]: value for name, value in arrays.items() if name.startswith("history_")
                },
                test={
                    name[5:]: value for name, value in arrays.items() if name.startswith("test_")
                },
            )
            members = result.diverged.shape
            sound = (
                members == result.epochs.shape == result.best.shape == result.rows.shape[:2]
                and members[0] == len(result.rates)
                and {"train_loss", "val_loss"} <= set(result.history)
                and "loss" in result.test
                and all(value.shape[1:] == members for value in result.history.values())
                and all(value.shape == members for value in result.test.values())
            )
        except Exception as error:  # a damaged archive fails in as many ways as there are bytes
            raise Problem(
                f"{path} is damaged ({type(error).__name__}: {error}); delete it to train {method} "
                "again"
            ) from error
        if not sound:
            raise Problem(
                f"{path} is damaged (its arrays do not fit together); delete it to train {method} "
                "again"
            )
        if (
            result.method != method
            or result.code != code
            or not np.array_equal(result.rates, rates)
        ):
            raise Problem(
                f"{path} holds {result.code} at other rates or of another version, not {code}; "
                "delete it to "
                f"train {method} again"
            )
        return result
