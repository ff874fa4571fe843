"""The three pictures: all methods at a glance, a row each; and twice a small panel per method with
every other method in grey behind it.

Fourteen coloured lines in one frame cannot be told apart by anyone; one dark line before thirteen
grey ones can. Errors are on logarithmic axes: from 2 % to 3 % is as much as from 20 % to 30 %.
Roles have a colour and a marker each (validation blue circles, training orange squares, the chosen
rate a black diamond, divergence a vermilion cross), from the colour-blind-safe palette of Okabe and
Ito.
"""

import math
import textwrap

import numpy as np

from gradxform.cli.axes import entry, head, legend, panels, vertical
from gradxform.cli.compare.table import Goal, Result, Row
from gradxform.cli.problems import need
from gradxform.plot.style import LIGHT, Theme, band, crosses, dress, png, upper_limit


def summary(goal: Goal, rows: list[Row], title: str, theme: Theme = LIGHT, narrow=False) -> bytes:
    """PNG: a row per method, ordered as the table: the rates that work, and the test result with
    the interval of its difference to the first; the answer above.
    """
    title = textwrap.fill(title, 58 if narrow else 105)
    above = 0.62 + 0.19 * (title.count("\n") + 1)
    size = 4.6 if narrow else 9.0, above + 0.4 + 0.24 * len(rows)
    figure = need("matplotlib.figure").Figure(figsize=size)
    figure.patch.set_facecolor(theme.page)
    rates, tests = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1))
    scale, digits = (100.0, 1) if goal.accuracy else (1.0, 3)
    alive = [row for row in rows if row.alive]
    first = scale * rows[0].test
    low, high = _test_limits(scale, alive)
    for at, row in enumerate(rows):
        if not row.alive:
            rates.plot(
                [0.5], [at], "x", color=theme.diverged, ms=5, transform=rates.get_yaxis_transform()
            )
            continue
        rates.plot((row.works_from, row.works_to), (at, at), color=theme.works, lw=7, alpha=0.35,
                   solid_capstyle="round")  # fmt: skip
        rates.plot([row.learning_rate], [at], "D", color=theme.ink, ms=4.5)
        value, margin = scale * row.test, scale * row.margin
        color, marker = (theme.validation, "o") if row.alike else (theme.training, "s")
        if math.isfinite(margin) and at:
            ends = np.clip((value - margin, value + margin), low, high)
            tests.plot(ends, (at, at), color=color, lw=3, alpha=0.45, solid_capstyle="butt")
        beyond = "<" if value < low else ">"
        marker = marker if low <= value <= high else beyond
        tests.plot([np.clip(value, low, high)], [at], marker, color=color, ms=5.5, clip_on=False)
        where = {"transform": tests.get_yaxis_transform(), "ha": "right", "va": "center"}
        tests.text(
            1.25 if narrow else 1.13,
            at,
            f"{value:.{digits}f}",
            fontsize=8,
            color=theme.ink,
            **where,
        )
    if alive:
        rates.set_xscale("log")
        tests.axvline(first, color=theme.faint, lw=0.9, zorder=0)
        tests.set_xlim(low, high)
    rates.xaxis.set_minor_locator(need("matplotlib.ticker").NullLocator())
    rates.set_ylim(len(rows) - 0.4, -0.6)
    rates.set_yticks(range(len(rows)), [row.method for row in rows])
    names = (
        "learning rates that work"[9 * narrow :],
        f"test {'accuracy (%)' if goal.accuracy else _error(goal)}",
    )
    for axis, name in zip((rates, tests), names, strict=True):
        dress(axis, theme)
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0, labelcolor=theme.ink)
        axis.grid(False, axis="y")
        head(axis, name, theme, fontsize=8.5 if narrow else 9.5)
    entries = [
        entry(theme.ink, "chosen rate", marker="D", ls="", ms=4.5),
        entry(theme.validation, "not told from the first", marker="o", lw=3, ms=5),
    ]
    if any(not row.alike for row in alive):
        entries.append(entry(theme.training, "told apart", marker="s", lw=3, ms=5))
    width, height = figure.get_size_inches()
    edges = {"left": 1.32 / width, "right": 1 - 0.5 / width, "bottom": 0.3 / height}
    figure.subplots_adjust(**edges, top=1 - above / height, wspace=0.1)
    how = {"bbox_to_anchor": (0, 1 - (above - 0.56) / height), "ncols": 3}
    legend(figure, theme, handles=entries, loc="upper left", fontsize=7 if narrow else 8.5, **how)
    place = {"x": 0.12 / width, "y": 1 - 0.09 / height, "ha": "left", "va": "top"}
    figure.suptitle(title, fontsize=8.2 if narrow else 10, color=theme.ink, **place)
    return png(figure)


def _test_limits(scale: float, rows: list[Row]) -> tuple[float, float]:
    """Around the results and their intervals; far worse ones stand at the edge."""
    if not rows:
        return 0.0, 1.0
    first = rows[0].test
    reach = max([2 * x.margin for x in rows if math.isfinite(x.margin)] + [0.05 * abs(first), 1e-9])
    ends = [
        x.test + side * (0 if math.isnan(x.margin) else x.margin) for x in rows for side in (-1, 1)
    ]
    low, high = max(min(ends), first - 2 * reach), min(max(ends), first + 2 * reach)
    room = 0.06 * (high - low) or 0.05
    return scale * (low - room), scale * (high + room)


def sensitivity(
    goal: Goal, rows: list[Row], results: list[Result], theme: Theme = LIGHT, narrow=False
) -> bytes:
    """PNG: the final validation error against learning rate, a panel per method, ordered as the
    table.
    """
    by_name = {result.method: result for result in results}
    lines = {row.method: _over_rates(goal, by_name[row.method]) for row in rows}
    entries = [
        entry(theme.validation, "mean over seeds (dots: each seed)", marker="o", lw=1.4, ms=4),
        entry(theme.ink, "chosen rate", marker="D", ls="", ms=5),
        entry(theme.works, "rates that work", lw=7, alpha=0.3),
        entry(theme.diverged, "a seed diverged", marker="x", ls="", ms=5),
        entry(theme.others, "the other methods", lw=1.2),
    ]
    names, values = ("learning rate", f"final validation {_error(goal)}"), {}
    for row in rows:
        values[row.method] = f"{100 * row.validation:.1f} %" if goal.accuracy else ""
        if row.alive and not goal.accuracy:
            values[row.method] = f"{row.validation:.3g}"
    figure, axes = _panels(rows, values, theme, narrow, names, entries)
    low, high = _limits(np.concatenate([members.ravel() for *_, members in lines.values()]))
    lines = {k: (x, *(np.clip(y, low, None) for y in both)) for k, (x, *both) in lines.items()}
    behind = _in_one([(rates, mean) for rates, mean, _ in lines.values()])
    for row, axis in zip(rows, axes, strict=True):
        axis.plot(*behind, color=theme.others, lw=0.8, zorder=1)
        rates, mean, members = lines[row.method]
        if math.isfinite(row.works_from):
            steps = len(rates) - 1
            widen = (rates[-1] / rates[0]) ** (0.35 / steps) if steps else 1.1
            ends = row.works_from / widen, row.works_to * widen
            axis.axvspan(*ends, color=theme.works, alpha=0.16, lw=0, zorder=0)
        dots = np.repeat(rates, members.shape[1]), members.ravel()
        axis.plot(*dots, ".", color=theme.validation, alpha=0.45, ms=3, zorder=2)
        axis.plot(rates, mean, "-o", color=theme.validation, lw=1.4, ms=3, zorder=3)
        crosses(axis, rates[by_name[row.method].diverged.any(axis=1)], 0.94, theme.diverged)
        if row.alive:
            axis.plot(
                [row.learning_rate],
                [mean[row.chosen]],
                "D",
                color=theme.ink,
                ms=5,
                zorder=5,
                clip_on=False,
            )
    axes[0].set_xscale("log")  # the panels share their axes
    axes[0].xaxis.set_minor_locator(need("matplotlib.ticker").NullLocator())
    vertical(axes[0], low / 1.2, high, True)
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
    finals = {name: loss[-1].mean() for name, (_, loss) in chosen.items()}
    values = {name: f"{x:.3g}" if np.isfinite(x) else "" for name, x in finals.items()}
    names = "epoch", f"loss ({unit})"
    figure, axes = _panels(rows, values, theme, narrow, names, entries)
    ticker = need("matplotlib.ticker")
    shown = [loss.ravel() for both in chosen.values() for loss in both]
    low, high = _limits(np.concatenate(shown))
    styles = ("--s", theme.training), ("-o", theme.validation)
    last = max(len(loss) for _, loss in chosen.values())
    axes[0].set_xlim(1 - 0.05 * (last - 1), last + 0.05 * (last - 1))  # nothing is left to be found
    means = [loss.mean(axis=1) for _, loss in chosen.values()]
    behind = _in_one([(np.arange(1.0, len(mean) + 1), mean) for mean in means])
    for row, axis in zip(rows, axes, strict=True):
        axis.plot(*behind, color=theme.others, lw=0.8, zorder=1)
        for loss, (style, color) in zip(chosen[row.method], styles, strict=True):
            epochs, often = np.arange(1, len(loss) + 1), max(1, len(loss) // 8)
            band(axis, epochs, loss.T, color, zorder=2)
            how = {"color": color, "lw": 1.4, "ms": 2.6, "markevery": often}
            axis.plot(epochs, loss.mean(axis=1), style, zorder=3, **how)
    axis = axes[0]  # the panels share their axes
    axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, nbins=4, steps=[1, 2, 5, 10]))
    vertical(axis, low / 1.25, high * 1.25, True)
    return png(figure)


def _in_one(lines: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Lines as one with gaps: to draw fifteen in each of fifteen panels takes long."""
    x, y = (np.concatenate([np.append(line[i], np.nan) for line in lines]) for i in (0, 1))
    return x, y


def _error(goal: Goal) -> str:
    return "error (%)" if goal.accuracy else "squared error ÷ target variance"


def _over_rates(goal: Goal, result: Result):
    """Rates [L], the mean error over seeds [L] and that of each seed [L, S]; nan where a member
    diverged.
    """
    final = result.final(f"val_{goal.metric}").astype(np.float64)
    error = 100 * (1 - final) if goal.accuracy else final
    members = np.where(result.diverged, np.nan, error)
    return result.rates.astype(np.float64), members.mean(axis=1), members


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Between the least that is not zero, whose half stands for zero, and what most reach: one that
    explodes must not flatten the rest, nor one that learns its data by heart.
    """
    values = values[np.isfinite(values)].astype(np.float64)
    least = values[values > 0].min(initial=np.inf)
    if not np.isfinite(least):
        return 0.1, 1.0
    high = max(upper_limit(values[values > 0], True), 1.5 * least)
    return max(least if (values > 0).all() else least / 2, high * 1e-6), high


def _panels(rows: list[Row], values: dict, theme: Theme, narrow: bool, names, entries: list):
    """A figure with a panel per row of the table, headed by rank, name and value, and its axes in
    that order. A layout in inches: to fit one to fifteen panels would double the time of drawing.
    """
    most, ncols = (2, 1) if narrow else ((5, len(entries)) if len(rows) > 8 else (4, 3))
    how = {"layout": None, "sharex": True, "sharey": True}
    figure, axes = panels(len(rows), theme, narrow, (3.3, 1.66), most, **how)
    for at, (row, axis) in enumerate(zip(rows, axes, strict=True)):
        fonts = (8.2, 7.6) if narrow else (9.5, 8.5)
        head(axis, f"{at + 1}. {row.method}", theme, fontsize=fonts[0])
        head(axis, values[row.method], theme, "right", fontsize=fonts[1], color=theme.faint)
        axis.tick_params(which="both", labelbottom=at + most >= len(rows))  # none below it
    width, height = figure.get_size_inches()
    edges = {"left": 0.72 / width, "right": 1 - 0.12 / width, "bottom": 0.55 / height}
    top = 1 - (0.4 + 0.2 * math.ceil(len(entries) / ncols)) / height
    figure.subplots_adjust(**edges, top=top, wspace=0.07, hspace=0.27)
    figure.supxlabel(names[0], y=0.1 / height, va="bottom", fontsize=9.5, color=theme.ink)
    figure.supylabel(names[1], x=0.12 / width, ha="left", fontsize=9.5, color=theme.ink)
    legend(figure, theme, handles=entries, loc="upper left", ncols=ncols, fontsize=8.5)
    return figure, axes
