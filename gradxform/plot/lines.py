"""Lines over steps and over rates: curves with their spread, sensitivity to the learning rate,
schedules.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.plot import style as page
from gradxform.plot.style import LIGHT


def curves(
    series, *, x=None, xlabel="step", ylabel="loss", log=False, title=None, target=None, ax=None
):
    """Draw each series against the step: the mean over seeds as a line, the least to the greatest
    seed as a band.

    Args:
        series: {label: [steps] or [seeds, steps]}. Where a seed is no longer finite, the line ends
            in a cross.
        x: [steps], where the values stand; by default 0, 1, 2, …
        log: whether the vertical axis is logarithmic.
        target: a value to be reached, drawn as a horizontal line.
        ax: the axes to draw in; by default those of a new figure.

    Raises:
        ValueError: an array has another shape, naming its label.
    """
    series = page.arrays("curves", "series", series, "[steps] or [seeds, steps]", 1, 2)
    series = {label: np.atleast_2d(y) for label, y in series.items()}
    if x is not None:
        x = page.array("curves", "x", x, "[steps]", 1)
        for label, y in series.items():
            if y.shape[1] != len(x):
                has = f"has {y.shape[1]} steps, x has {len(x)}"
                raise ValueError(f"curves: series[{label!r}] {has}")
    figure, ax = page.figure_of(ax)
    drawn = zip(series.items(), page.styles(len(series)), strict=True)
    for i, ((label, y), style) in enumerate(drawn):
        at = np.arange(y.shape[1]) if x is None else x
        mean = y.mean(axis=0)
        if len(y) > 1:
            page.band(ax, at, y, style["color"], zorder=2)
        style |= {"markevery": page.staggered(i, len(series), len(mean)), "label": label}
        ax.plot(at, mean, linewidth=1.5, markersize=4, zorder=3, **style)
        alive = np.flatnonzero(np.isfinite(mean))
        if len(alive) and (end := alive[-1]) < len(mean) - 1:
            ax.plot(at[end], mean[end], "x", color=LIGHT.diverged, markersize=7, zorder=4)
    if target is not None:
        dashed: dict = {"color": LIGHT.faint, "linewidth": 1, "linestyle": (0, (4, 3))}
        ax.axhline(float(target), label="target", zorder=1, **dashed)
    page.logarithmic_scale(ax, "y", log)
    page.name_axes(ax, xlabel, ylabel, title)
    page.legend_beside(ax)
    return figure


def sensitivity(
    rates, values, *, xlabel="learning rate", ylabel="final loss", title=None, log=True, ax=None
):
    """Draw what a training comes to against its learning rate: the mean over seeds as a line, each
    seed as a dot.

    Args:
        rates: [rates], the learning rates, on a logarithmic axis.
        values: {label: [rates] or [rates, seeds]}. A rate at which a seed is not finite has a cross
            at the top.
        log: whether the vertical axis is logarithmic too.
        ax: the axes to draw in; by default those of a new figure.

    Raises:
        ValueError: an array has another shape, naming its label, or a rate is not positive.
    """
    rates = page.array("sensitivity", "rates", rates, "[rates]", 1)
    if not (rates > 0).all():
        raise ValueError(f"sensitivity: rates must be positive; got {rates.min():g}")
    members = page.arrays("sensitivity", "values", values, "[rates] or [rates, seeds]", 1, 2)
    for label, y in members.items():
        if len(y) != len(rates):
            has = f"has {len(y)} rates, rates has {len(rates)}"
            raise ValueError(f"sensitivity: values[{label!r}] {has}")
        members[label] = y.reshape(len(rates), -1)
    order = np.argsort(rates)
    rates = rates[order]
    figure, ax = page.figure_of(ax)
    ax.set_xscale("log")
    page.logarithmic_scale(ax, "y", log)
    drawn = zip(members.items(), page.styles(len(members)), strict=True)
    for row, ((label, y), style) in enumerate(drawn):
        y, color = np.where(np.isfinite(y), y, np.nan)[order], style["color"]
        if (seeds := y.shape[1]) > 1:
            dots = np.repeat(rates, seeds), y.ravel(), "."
            ax.plot(*dots, color=color, alpha=0.45, markersize=3.5)
        ax.plot(rates, y.mean(axis=1), linewidth=1.5, markersize=4, label=label, zorder=3, **style)
        page.crosses(ax, rates[np.isnan(y).any(axis=1)], 0.985 - 0.035 * row, color)
    everything = np.concatenate([y.ravel() for y in members.values()])
    finite = np.isfinite(everything)
    seen = everything[finite & (everything > 0)] if log else everything[finite]
    if len(seen):
        low, high = seen.min(), page.upper_limit(seen, log)
        if log:
            ax.set_ylim(low / 1.3, high * 1.3 * (high / low) ** 0.1)
        else:
            room = 0.15 * (high - low) or abs(high) or 1.0
            ax.set_ylim(low - room / 3, high + room)
    if not finite.all():
        ax.plot([], [], "x", color=LIGHT.faint, markersize=5, label="diverged")
    page.name_axes(ax, xlabel, ylabel, title)
    page.legend_beside(ax)
    return figure


def schedules(
    schedules, steps, *, xlabel="step", ylabel="learning rate", log=False, title=None, columns=None
):
    """Draw schedules against the step: in one axes up to six of them, in small panels of one scale
    beyond, or when `columns` is given.

    Args:
        schedules: {label: schedule}; any function of the step, or a number.
        steps: how many steps, from 0.
        log: whether the vertical axis is logarithmic.
        columns: how many panels stand side by side.
    """
    steps = int(steps)
    if steps < 1:
        raise ValueError(f"schedules: steps must be at least 1; got {steps}")
    at = np.arange(steps)
    lines = {}
    for label, schedule in page.labelled("schedules", "schedules", schedules).items():
        value = schedule if callable(schedule) else lambda step, number=schedule: number
        values = np.asarray(jax.vmap(value)(jnp.asarray(at)), np.float64)
        lines[label] = np.broadcast_to(values, (steps,))
    if len(lines) <= 6 and columns is None:
        return curves(lines, x=at, xlabel=xlabel, ylabel=ylabel, log=log, title=title)
    columns = min(columns or 4, len(lines))
    rows = math.ceil(len(lines) / columns)
    size = max(4.6, 1.85 * columns), 0.7 + 1.3 * rows
    figure = page.need("gradxform.plot.picture").Picture(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axis in axes.flat[len(lines) :]:
        axis.set_visible(False)
    for i, ((label, y), axis) in enumerate(zip(lines.items(), axes.flat, strict=False)):
        page.dress(axis)
        axis.tick_params(labelbottom=i + columns >= len(lines))
        page.logarithmic_scale(axis, "y", log)
        axis.plot(at, y, color=LIGHT.validation, linewidth=1.5)
        axis.set_title(label, fontsize=9, color=LIGHT.ink, loc="left", pad=3)
    figure.supxlabel(xlabel, fontsize=9.5, color=LIGHT.ink)
    figure.supylabel(ylabel, fontsize=9.5, color=LIGHT.ink)
    if title:
        figure.suptitle(title, fontsize=10.5, color=LIGHT.ink, x=0.01, ha="left")
    return figure
