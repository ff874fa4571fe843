"""The two pictures: a small panel per method with every other method in grey behind it.

Fourteen coloured lines in one frame cannot be told apart by anyone; one dark line before thirteen
grey ones can. Roles have a colour and a marker each (validation blue circles, training orange
squares, the chosen rate a black diamond, divergence a vermilion cross), from the colour-blind-safe
palette of Okabe and Ito.
"""

import math

import numpy as np

from gradxform.cli.axes import entry, head, legend, panels
from gradxform.cli.compare.table import Goal, Result, Row
from gradxform.cli.problems import need
from gradxform.plot.style import LIGHT, Theme, band, crosses, logarithmic_scale, png


def sensitivity(
    goal: Goal, rows: list[Row], results: list[Result], theme: Theme = LIGHT, narrow=False
) -> bytes:
    """PNG: the final validation result against learning rate, a panel per method, ordered as the
    table.
    """
    accuracy, variance = goal.metric == "accuracy", "squared error ÷ target variance"
    scale, label = (100.0, "accuracy (%)") if accuracy else (1.0, variance)
    by_name = {result.method: result for result in results}
    lines = {row.method: _over_rates(goal, by_name[row.method], scale) for row in rows}
    entries = [
        entry(theme.validation, "mean over seeds (dots: each seed)", marker="o", lw=1.4, ms=4),
        entry(theme.ink, "chosen rate", marker="D", ls="", ms=5),
        entry(theme.works, "rates that work", lw=7, alpha=0.3),
        entry(theme.diverged, "a seed diverged", marker="x", ls="", ms=5),
        entry(theme.others, "the other methods", lw=1.2),
    ]
    names = "learning rate", f"final validation {label}"
    figure, axes = _panels(rows, theme, narrow, names, entries)
    low, high = _limits(goal, [values for rates, *both in lines.values() for values in both])
    for row, axis in zip(rows, axes, strict=True):
        for name, (rates, mean, _) in lines.items():
            if name != row.method:
                axis.plot(rates, mean, color=theme.others, lw=0.8, zorder=1)
        rates, mean, members = lines[row.method]
        if math.isfinite(row.works_from):
            steps = len(rates) - 1
            widen = (rates[-1] / rates[0]) ** (0.35 / steps) if steps else 1.1
            ends = row.works_from / widen, row.works_to * widen
            axis.axvspan(*ends, color=theme.works, alpha=0.16, lw=0, zorder=0)
        dots = np.repeat(rates, members.shape[1]), members.ravel()
        axis.plot(*dots, ".", color=theme.validation, alpha=0.45, ms=3, zorder=2)
        axis.plot(rates, mean, "-o", color=theme.validation, lw=1.4, ms=3, zorder=3)
        crosses(axis, rates[by_name[row.method].diverged.any(axis=1)], 0.06, theme.diverged)
        if math.isfinite(row.validation):
            best = [row.learning_rate], [np.clip(scale * row.validation, low, high)]
            axis.plot(*best, "D", color=theme.ink, ms=5, zorder=5, clip_on=False)
    axes[0].set_xscale("log")  # the panels share their axes
    axes[0].xaxis.set_minor_locator(need("matplotlib.ticker").NullLocator())
    axes[0].set_ylim(low, high)
    return png(figure)


def curves(
    goal: Goal, rows: list[Row], results: list[Result], theme: Theme = LIGHT, narrow=False
) -> bytes:
    """PNG: loss against epochs at the chosen rate, a panel per method, ordered as the table."""
    histories = {result.method: result.history for result in results}
    chosen = {
        row.method: [
            histories[row.method][name][:, row.chosen] for name in ("train_loss", "val_loss")
        ]
        for row in rows
    }
    unit = "cross-entropy, nats" if goal.metric == "accuracy" else "squared error ÷ target variance"
    entries = [
        entry(theme.validation, "validation", marker="o", lw=1.4, ms=4),
        entry(theme.training, "training", marker="s", ls="--", lw=1.4, ms=4),
        entry(theme.validation, "lowest to highest seed", lw=7, alpha=0.3),
        entry(theme.others, "validation of the other methods", lw=1.2),
    ]
    figure, axes = _panels(rows, theme, narrow, ("epoch", f"loss ({unit})"), entries)
    ticker = need("matplotlib.ticker")
    # The scale is that of validation: training loss goes to zero when a model can learn its data by
    # heart.
    values = np.concatenate([loss.ravel() for _, loss in chosen.values()]).astype(np.float64)
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (values.min() / 3, np.quantile(values, 0.995)) if len(values) else (0.1, 1.0)
    styles = ("--s", theme.training), ("-o", theme.validation)
    last = max(len(loss) for _, loss in chosen.values())
    axes[0].set_xlim(1 - 0.05 * (last - 1), last + 0.05 * (last - 1))  # nothing is left to be found
    axes[0].set_ylim(low, high * 1.25)
    for row, axis in zip(rows, axes, strict=True):
        for name, (_, loss) in chosen.items():
            if name != row.method:
                epochs = np.arange(1, len(loss) + 1)
                axis.plot(epochs, loss.mean(axis=1), color=theme.others, lw=0.8, zorder=1)
        for loss, (style, color) in zip(chosen[row.method], styles, strict=True):
            epochs, often = np.arange(1, len(loss) + 1), max(1, len(loss) // 8)
            band(axis, epochs, loss.T, color, zorder=2)
            how = {"color": color, "lw": 1.4, "ms": 2.6, "markevery": often}
            axis.plot(epochs, loss.mean(axis=1), style, zorder=3, **how)
    axis = axes[0]  # the panels share their axes
    logarithmic_scale(axis, "y", True)
    axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, nbins=4, steps=[1, 2, 5, 10]))
    subs = (1.0, 2.0, 5.0) if high < 200 * low else (1.0,)
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=subs))
    return png(figure)


def _over_rates(goal: Goal, result: Result, scale: float):
    """Rates [L], the mean over seeds [L] and each seed [L, S]; nan where a member diverged."""
    final = result.final(f"val_{goal.metric}").astype(np.float64)
    members = scale * np.where(result.diverged, np.nan, final)
    return result.rates.astype(np.float64), members.mean(axis=1), members


def _limits(goal: Goal, values: list[np.ndarray]) -> tuple[float, float]:
    if goal.metric == "accuracy":
        return 0.0, 103.0
    finite = np.concatenate([value[np.isfinite(value)].ravel() for value in values])
    return 0.0, max(1.25, min(np.quantile(finite, 0.9) * 1.1, 3.0)) if len(finite) else 1.0


def _panels(rows: list[Row], theme: Theme, narrow: bool, names: tuple[str, str], entries: list):
    """A figure with a titled panel per row of the table, and its axes in that order. A layout in
    inches: to fit one to fifteen panels would double the time of drawing.
    """
    most, ncols = (2, 1) if narrow else ((5, len(entries)) if len(rows) > 8 else (4, 3))
    how = {"layout": None, "sharex": True, "sharey": True}
    figure, axes = panels(len(rows), theme, narrow, (3.3, 1.66), most, **how)
    for at, (row, axis) in enumerate(zip(rows, axes, strict=True)):
        head(axis, row.method, theme)
        axis.tick_params(which="both", labelbottom=at + most >= len(rows))  # none below it
    width, height = figure.get_size_inches()
    edges = {"left": 0.72 / width, "right": 1 - 0.12 / width, "bottom": 0.55 / height}
    top = 1 - (0.4 + 0.2 * math.ceil(len(entries) / ncols)) / height
    figure.subplots_adjust(**edges, top=top, wspace=0.07, hspace=0.27)
    figure.supxlabel(names[0], y=0.1 / height, va="bottom", fontsize=9.5, color=theme.ink)
    figure.supylabel(names[1], x=0.12 / width, ha="left", fontsize=9.5, color=theme.ink)
    legend(figure, theme, handles=entries, loc="upper left", ncols=ncols, fontsize=8.5)
    return figure, axes
