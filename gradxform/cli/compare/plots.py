"""The two pictures: a small panel per method with every other method in grey behind it.

Fourteen coloured lines in one frame cannot be told apart by anyone; one dark line before thirteen
grey ones can. Roles have a colour and a marker each (validation blue circles, training orange
squares, the chosen rate a black diamond, divergence a vermilion cross), from the colour-blind-safe
palette of Okabe and Ito.
"""

import math
from typing import Any

import numpy as np

from gradxform.cli.compare.table import Goal, Result, Row
from gradxform.cli.problems import need
from gradxform.plot.style import LIGHT, Theme, band, crosses, dress, png


def sensitivity(
    goal: Goal, rows: list[Row], results: list[Result], theme: Theme = LIGHT, narrow=False
) -> bytes:
    """PNG: the final validation result against learning rate, a panel per method, ordered as the
    table.
    """
    by_name = {result.method: result for result in results}
    scale, label = _unit(goal)
    lines = {row.method: _over_rates(goal, by_name[row.method], scale) for row in rows}
    figure, axes = _panels(
        rows,
        theme,
        narrow,
        f"final validation {label}",
        "learning rate",
        [
            {
                "color": theme.validation,
                "marker": "o",
                "linewidth": 1.4,
                "markersize": 4,
                "label": "mean over seeds (dots: each seed)",
            },
            {
                "color": theme.ink,
                "marker": "D",
                "linestyle": "",
                "markersize": 5,
                "label": "chosen rate",
            },
            {"color": theme.works, "linewidth": 7, "alpha": 0.3, "label": "rates that work"},
            {
                "color": theme.diverged,
                "marker": "x",
                "linestyle": "",
                "markersize": 5,
                "label": "a seed diverged",
            },
            {"color": theme.others, "linewidth": 1.2, "label": "the other methods"},
        ],
    )
    low, high = _limits(goal, [line for lines_of in lines.values() for line in lines_of[1:]], scale)
    for row, axis in zip(rows, axes, strict=False):
        result = by_name[row.method]
        for name, (rates, mean, _) in lines.items():
            if name != row.method:
                axis.plot(rates, mean, color=theme.others, linewidth=0.8, zorder=1)
        rates, mean, members = lines[row.method]
        if math.isfinite(row.works_from):
            widen = (
                (rates[-1] / rates[0]) ** (0.35 / max(1, len(rates) - 1)) if len(rates) > 1 else 1.1
            )
            axis.axvspan(
                row.works_from / widen,
                row.works_to * widen,
                color=theme.works,
                alpha=0.16,
                linewidth=0,
                zorder=0,
            )
        axis.plot(
            np.repeat(rates, members.shape[1]),
            members.ravel(),
            ".",
            color=theme.validation,
            alpha=0.45,
            markersize=3,
            zorder=2,
        )
        axis.plot(rates, mean, "-o", color=theme.validation, linewidth=1.4, markersize=3, zorder=3)
        lost = rates[result.diverged.any(axis=1)]
        crosses(axis, lost, 0.06, theme.diverged)
        if math.isfinite(row.validation):
            best = float(np.clip(scale * row.validation, low, high))
            axis.plot(
                [row.learning_rate],
                [best],
                "D",
                color=theme.ink,
                markersize=5,
                zorder=5,
                clip_on=False,
            )
        axis.set_xscale("log")
        axis.set_ylim(low, high)
    return png(figure)


def curves(
    goal: Goal, rows: list[Row], results: list[Result], theme: Theme = LIGHT, narrow=False
) -> bytes:
    """PNG: loss against epochs at the chosen rate, a panel per method, ordered as the table."""
    by_name = {result.method: result for result in results}
    chosen = {
        row.method: {
            name: by_name[row.method].history[name][:, row.chosen]
            for name in ("train_loss", "val_loss")
        }
        for row in rows
    }
    unit = "cross-entropy, nats" if goal.metric == "accuracy" else "squared error ÷ target variance"
    figure, axes = _panels(
        rows,
        theme,
        narrow,
        f"loss ({unit})",
        "epoch",
        [
            {
                "color": theme.validation,
                "marker": "o",
                "linewidth": 1.4,
                "markersize": 4,
                "label": "validation",
            },
            {
                "color": theme.training,
                "marker": "s",
                "linestyle": "--",
                "linewidth": 1.4,
                "markersize": 4,
                "label": "training",
            },
            {
                "color": theme.validation,
                "linewidth": 7,
                "alpha": 0.3,
                "label": "lowest to highest seed",
            },
            {"color": theme.others, "linewidth": 1.2, "label": "validation of the other methods"},
        ],
    )
    ticker = need("matplotlib.ticker")
    # The scale is that of validation: training loss goes to zero when a model can learn its data by
    # heart.
    values = np.concatenate([pair["val_loss"].ravel() for pair in chosen.values()]).astype(
        np.float64
    )
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (values.min() / 3, np.quantile(values, 0.995)) if len(values) else (0.1, 1.0)
    for row, axis in zip(rows, axes, strict=False):
        for name, pair in chosen.items():
            if name != row.method:
                epochs = np.arange(1, len(pair["val_loss"]) + 1)
                axis.plot(
                    epochs,
                    pair["val_loss"].mean(axis=1),
                    color=theme.others,
                    linewidth=0.8,
                    zorder=1,
                )
        for name, style, color in (
            ("train_loss", "--s", theme.training),
            ("val_loss", "-o", theme.validation),
        ):
            loss = chosen[row.method][name]
            epochs = np.arange(1, len(loss) + 1)
            band(axis, epochs, loss.T, color, zorder=2)
            axis.plot(
                epochs,
                loss.mean(axis=1),
                style,
                color=color,
                linewidth=1.4,
                markersize=2.6,
                markevery=max(1, len(loss) // 8),
                zorder=3,
            )
        axis.set_yscale("log")
        axis.set_ylim(low, high * 1.25)
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, nbins=4, steps=[1, 2, 5, 10]))
        axis.yaxis.set_major_locator(
            ticker.LogLocator(subs=(1.0, 2.0, 5.0) if high < 200 * low else (1.0,))
        )
        axis.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_locator(ticker.NullLocator())
    return png(figure)


def _unit(goal: Goal) -> tuple[float, str]:
    return (
        (100.0, "accuracy (%)")
        if goal.metric == "accuracy"
        else (1.0, "squared error ÷ target variance")
    )


def _over_rates(goal: Goal, result: Result, scale: float):
    """Rates [L], the mean over seeds [L] and each seed [L, S]; nan where a member diverged."""
    members = scale * np.where(
        result.diverged, np.nan, result.final(f"val_{goal.metric}").astype(np.float64)
    )
    return result.rates.astype(np.float64), members.mean(axis=1), members


def _limits(goal: Goal, values: list[np.ndarray], scale: float) -> tuple[float, float]:
    if goal.metric == "accuracy":
        return 0.0, 103.0
    finite = np.concatenate([value[np.isfinite(value)].ravel() for value in values])
    if not len(finite):
        return 0.0, 1.0
    return 0.0, float(max(1.25, min(np.quantile(finite, 0.9) * 1.1, 3.0)))


def _panels(
    rows: list[Row], theme: Theme, narrow: bool, ylabel: str, xlabel: str, legend: list[dict]
) -> tuple[Any, list]:
    """A figure with a titled panel per row of the table, and its axes in that order. Lengths in
    inches.
    """
    columns = min(len(rows), 2 if narrow else 5 if len(rows) > 8 else 4)
    lines = math.ceil(len(rows) / columns)
    width = 4.6 if narrow else max(8.6, 2.2 * columns + 0.7)
    entries = 1 if narrow else len(legend) if width > 10 else 3
    top = 0.45 + 0.2 * math.ceil(len(legend) / entries)
    left, right, bottom, across, down = 0.72, 0.12, 0.62, 0.16, 0.36
    panel = 1.3 if lines > 1 else 2.3
    height = top + lines * panel + (lines - 1) * down + bottom
    figure = need("matplotlib.figure").Figure(figsize=(width, height))
    figure.patch.set_facecolor(theme.page)
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    panel_width = (width - left - right - (columns - 1) * across) / columns
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        top=1 - top / height,
        bottom=bottom / height,
        wspace=across / panel_width,
        hspace=down / panel,
    )
    axes = list(grid.flat)
    for index, axis in enumerate(axes):
        if index >= len(rows):
            axis.set_visible(False)
            continue
        dress(axis, theme)
        axis.set_title(rows[index].method, fontsize=9.5, color=theme.ink, loc="left", pad=4)
        axis.tick_params(which="both", labelbottom=index + columns >= len(rows))
    middle = (bottom + (height - top - bottom) / 2) / height
    figure.text(
        0.12 / width,
        middle,
        ylabel,
        rotation=90,
        ha="left",
        va="center",
        fontsize=9.5,
        color=theme.ink,
    )
    figure.text(
        (left + (width - left - right) / 2) / width,
        0.1 / height,
        xlabel,
        ha="center",
        va="bottom",
        fontsize=9.5,
        color=theme.ink,
    )
    line = need("matplotlib.lines").Line2D
    figure.legend(
        handles=[line([], [], **entry) for entry in legend],
        loc="upper left",
        ncols=entries,
        fontsize=8.5,
        bbox_to_anchor=((left - 0.1) / width, 1 - 0.12 / height),
        borderpad=0,
        borderaxespad=0,
        frameon=False,
        labelcolor=theme.ink,
        labelspacing=0.35,
    )
    return figure, axes[: len(rows)]
