"""One small comparison that the tests of the report share."""

import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from gradxform.cli import main as cli

SMALL = "compare --data wine --methods sgd,adam --learning-rates 0.01,0.1 --seeds 2 --epochs 2 --hidden 8"


class Run(NamedTuple):
    """A finished comparison: its arguments, its folder, and what it printed."""

    arguments: list[str]
    folder: Path
    out: str
    err: str


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Compare two methods on the wines at two learning rates with two seeds, for two epochs."""
    folder = tmp_path_factory.mktemp("compare") / "out"
    arguments = [*shlex.split(SMALL), "--out", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        captured = {"stdout": "", "stderr": ""}
        for stream in captured:
            patch.setattr(f"sys.{stream}", _Tape(captured, stream))
        assert cli.main(arguments) == 0
    return Run(arguments, folder, captured["stdout"], captured["stderr"])


class _Tape:
    """A stream that remembers: session fixtures cannot use capsys."""

    encoding = "utf-8"

    def __init__(self, captured: dict, name: str):
        self.captured, self.name = captured, name

    def write(self, text: str) -> int:
        self.captured[self.name] += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False
