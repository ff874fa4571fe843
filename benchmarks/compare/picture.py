"""The README's picture: for each method the learning rates that work, the best one, and the test result.

    gradxform compare --out run && python benchmarks/compare/picture.py run/table.csv

Without an argument it draws table.csv beside it, which such a run wrote.
"""

import csv
import sys
from pathlib import Path

from matplotlib.figure import Figure

HERE = Path(__file__).parent
INK, FAINT, BAR, DOT = "#1b1f24", "#5b6470", "#9fd8c4", "#0072b2"  # M. Okabe, K. Ito (2008)


def draw(rows) -> Figure:
    """One row per method, the widest range of learning rates above; 640 pixels wide at 100 dpi."""
    rows = sorted(rows, key=lambda row: float(row["works_to"]) / float(row["works_from"]))
    figure = Figure(figsize=(6.4, 4.9), layout="constrained")
    rates, result = figure.subplots(1, 2, sharey=True, width_ratios=(5, 3))
    for y, row in enumerate(rows):
        low, high, best = (float(row[k]) for k in ("works_from", "works_to", "learning_rate"))
        mean, spread = (100 * float(row[f"test_accuracy{k}"]) for k in ("", "_spread"))
        rates.plot((low, high), (y, y), color=BAR, linewidth=9, solid_capstyle="round")
        rates.plot(best, y, "o", color=DOT, markersize=6)
        result.plot((mean - spread, mean + spread), (y, y), color=BAR, linewidth=3)
        result.plot(mean, y, "o", color=DOT, markersize=6)
    rates.set_xscale("log")
    rates.set_yticks(range(len(rows)), [row["method"] for row in rows])
    rates.set_title("learning rates that work; the best", fontsize=11, color=INK, loc="left")
    result.set_title("test accuracy, %", fontsize=11, color=INK, loc="left")
    for axes in (rates, result):
        axes.spines[:].set_visible(False)
        axes.grid(axis="x", color="#c3c8ce", linewidth=0.5)
        axes.tick_params(which="both", length=0, labelsize=10, colors=FAINT)
        axes.set_axisbelow(True)
    rates.tick_params(axis="y", labelcolor=INK)
    return figure


if __name__ == "__main__":
    table = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "table.csv"
    with open(table, newline="", encoding="utf-8") as file:
        draw(list(csv.DictReader(file))).savefig(HERE / "picture.png", dpi=200)
