"""The slow tail: the main job with its defaults, and the benchmarks, run as a user runs them."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from gradxform.cli.methods import METHODS

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def test_compare_with_its_defaults(tmp_path):
    command = [sys.executable, "-m", "gradxform", "compare", "--out", str(tmp_path / "run")]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    with open(tmp_path / "run" / "table.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == set(METHODS)
    assert min(float(row["test_accuracy"]) for row in rows) > 0.9, (
        "every textbook method learns the digits"
    )
    for name in ("report.html", "summary.png", "curves.png", "sensitivity.png", "members.csv"):
        assert (tmp_path / "run" / name).stat().st_size > 1000


def test_the_step_benchmark_runs():
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "step.py"),
        "--trees",
        "150",
        "--methods",
        "sgd,adam",
        "--repeats",
        "3",
        "--starts",
        "1",
    ]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    assert out.stdout.count("| 150 |") == 2


def test_the_transformer_benchmark_runs_and_goes_on(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "transformer.py"), "--quick"]
    command += ["--methods", "muon,soap", "--out"]
    out = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert table.count("| `") == len(list(tmp_path.glob("*.json"))) > 1
    assert (tmp_path / "picture.png").stat().st_size > 1000
    again = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "seed 1" not in again.stdout, "what was measured is not measured again"
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == table
