"""What benchmarks/transformer.py measured, as a table and a picture; it calls this in the end.

    python benchmarks/transformer_report.py [FOLDER]

draws both anew from the files of a folder.
"""

import json
import sys
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from gradxform.plot import style
from gradxform.plot.picture import Picture

CONFIDENCE = 0.99  # of one interval: five methods are compared with AdamW, and all shall hold together with 0.95


class Seeds:
    """A method's runs: losses and seconds [seeds, evaluations], and when it came to AdamW's final loss [seeds]."""

    def __init__(self, record, baseline, seeds):
        runs = [record[f"seed {seed}"] for seed in range(1, seeds + 1)]
        size = record["facts"]["size"]
        self.losses = np.array([run["losses"] for run in runs])
        self.seconds = np.array([run["seconds"] for run in runs])
        self.steps = np.arange(self.losses.shape[1]) * size["every"]
        targets = [baseline[f"seed {seed}"]["losses"][-1] for seed in range(1, seeds + 1)]
        there = self.losses <= np.array(targets)[:, None]
        self.reached = there.any(axis=1)
        self.first = there.argmax(axis=1)

    def at_target(self, values):
        """The values [seeds that came to it] at the first evaluation that found AdamW's final loss or less."""
        values = np.broadcast_to(values, self.losses.shape)
        return np.take_along_axis(values, self.first[:, None], axis=1)[self.reached, 0]


def interval(x):
    """Mean of x [n], and half the length of its interval."""
    n = len(x)
    if n < 2:
        return float(np.mean(x)), np.nan
    quantile = student.ppf((1 + CONFIDENCE) / 2, n - 1)
    return float(np.mean(x)), float(quantile * np.std(x, ddof=1) / np.sqrt(n))


def spread(x, digits):
    """Mean (least to greatest)."""
    return f"{np.mean(x):.{digits}f} ({np.min(x):.{digits}f} to {np.max(x):.{digits}f})"


def verdict(mean, half):
    """In words, what the interval allows to be said."""
    if not abs(mean) > half:
        return "cannot be told apart"
    return "lower" if mean < 0 else "higher"


def table(records, seeds):
    """The results in Markdown."""
    facts = records["adamw"]["facts"]
    size = facts["size"]
    base = Seeds(records["adamw"], records["adamw"], seeds)
    rows = []
    for method, record in records.items():
        found, settings = Seeds(record, records["adamw"], seeds), record["facts"]["settings"]
        chosen, rates = record["chosen"], sorted({s["rate"] for s in settings})
        edge = " (edge)" if chosen["rate"] in (rates[0], rates[-1]) else ""
        reached = found.reached.sum()
        when = ["never", "never"]
        if reached:
            when = [spread(found.at_target(x), 0) for x in (found.steps, found.seconds)]
            when[0] += "" if reached == seeds else f"; {reached} of {seeds} seeds"
        against = "" if method == "adamw" else "–"
        if method != "adamw" and seeds > 1:
            mean, half = interval(found.losses[:, -1] - base.losses[:, -1])
            against = f"{mean:+.4f} ± {half:.4f}: {verdict(mean, half)}"
        step = found.seconds[:, -1] / size["steps"]
        rows.append([
            f"`{method}`", f"{chosen['rate']:g}{edge}, {chosen['decay']:g}",
            spread(found.losses[:, -1], 4), against, *when, f"{1e3 * np.median(step):.1f}",
            f"{record['compile_seconds']:.1f}",
        ])  # fmt: skip
    names = [
        "method", "learning rate, decay", "final loss", "less AdamW's, by seed",
        "steps to AdamW's final loss", "seconds to it", "ms a step", "compilation, s",
    ]  # fmt: skip
    lines = [" | ".join(row) for row in (names, ["---"] * len(names), *rows)]
    many = len(records["adamw"]["facts"]["settings"])
    return f"""# A character-level Transformer, AdamW and matrix methods

Made by `python benchmarks/transformer.py` with gradxform {facts["gradxform"]} and JAX {facts["jax"]} on {facts["cores"]} CPU cores,
LAPACK in one thread. {size["layers"]} layers of width {size["width"]}, {size["heads"]} heads, context {size["context"]};
{size["steps"]} steps in batches of {size["batch"]}; the topics of Python's `help()` (SHA-256 {facts["text"]}…), the last
tenth held out. Loss in nats for each letter, every {size["every"]} steps on {size["held_out"]} windows.

{chr(10).join(f"| {line} |" for line in lines)}

- Each method's learning rate and decay are the best of {many} settings from seed 0; "(edge)" marks a learning rate at the
  end of those tried. The numbers are from {seeds} other seeds: mean (least to greatest).
- The fourth column is the mean difference over seeds to AdamW from the same start on the same batches, with Student's
  {CONFIDENCE:.0%} interval: where it holds zero, nothing is claimed.
- Hidden matrices are the method's; embeddings, head, norms and biases AdamW's, at the rate AdamW chose. Decay on hidden
  matrices alone. One schedule for all: warm-up over a tenth, then linearly to zero.
- Steps and seconds to the final loss that AdamW has from the same seed, at the first evaluation that finds it. Seconds
  are of the steps alone. One small model and one text: other sizes may rank otherwise.
"""


def picture(records, seeds):
    """Loss against steps, and against seconds: the mean over seeds, and from the least to the greatest."""
    figure = Picture(figsize=(9.5, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    kinds = zip(records.items(), style.styles(len(records)), strict=True)
    low, high = np.inf, -np.inf
    for i, ((method, record), look) in enumerate(kinds):
        found = Seeds(record, records["adamw"], seeds)
        mean = found.losses.mean(axis=0)
        marks = {"markevery": style.staggered(i, len(records), len(mean)), "markersize": 4}
        for axis, x in zip(panels, (found.steps, found.seconds.mean(axis=0)), strict=True):
            style.band(axis, x, found.losses, look["color"], zorder=2)
            axis.plot(x, mean, linewidth=1.5, label=method, zorder=3, **look, **marks)
        late = mean[len(mean) // 5 :]
        late = late[np.isfinite(late)]
        low, high = min(low, late.min()), max(high, late.max())
    for axis, x in zip(panels, ("steps", "seconds of steps"), strict=True):
        style.dress(axis)
        style.name_axes(axis, x, "loss on held-out text")
        target = np.mean([records["adamw"][f"seed {s}"]["losses"][-1] for s in range(1, seeds + 1)])
        axis.axhline(target, color=style.LIGHT.faint, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    panels[0].set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    panels[1].set_ylabel("")
    style.legend_beside(panels[1])
    return figure


def write(folder, records, seeds):
    """Both into the folder; returns the table."""
    text = table(records, seeds)
    (folder / "table.md").write_text(text, encoding="utf-8")
    (folder / "picture.png").write_bytes(style.png(picture(records, seeds), 200))
    return text


def main(folder):
    """From the files of a folder, AdamW's first, the others in the order in which they were measured."""
    found = {path.stem: json.loads(path.read_text()) for path in Path(folder).glob("*.json")}
    records = dict(sorted(found.items(), key=lambda item: item[1]["place"]))
    print(write(Path(folder), records, min(map(seeds_of, records.values()))))


def seeds_of(record):
    """How many seeds were run."""
    return sum(name.startswith("seed ") for name in record)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "transformer")
