"""The pictures of a sweep: curves, sensitivity, parallel coordinates, and the heat map of two
hyperparameters.

    Path("curves.png").write_bytes(curves(result))

Hundreds of members cannot each have a colour: all are grey or on one scale (cividis, which reads
the same to every eye and in print), and what matters stands out by weight and mark as well: the
best in ink with a diamond, a divergence as a cross. An accuracy is drawn as an error in percent, on
a logarithmic axis where the members are far apart.
"""

from collections.abc import Callable

import numpy as np

from gradxform.cli.axes import (
    bins,
    ends,
    entry,
    head,
    is_wide,
    legend,
    limits,
    panels,
    places,
    short,
    some,
    suits_logarithm,
    unit,
    vertical,
)
from gradxform.cli.problems import need
from gradxform.cli.words import is_accuracy, measure, measured
from gradxform.plot.style import LIGHT, Theme, crosses, logarithmic_scale, name_axes, png
from gradxform.sweep.result import SweepResult, shown

ABOVE = {
    "loc": "lower left",
    "bbox_to_anchor": (0, 1),
    "fontsize": 8,
    "borderaxespad": 0.2,
    "handlelength": 3,
}
TOP = (("-", "D"), ("--", "o"), (":", "s"))  # how the three best curves differ beside their colour


def curves(result: SweepResult, theme: Theme = LIGHT, narrow: bool = False) -> bytes:
    """PNG: the metric of every member against the epoch, the three best marked, a cross where a
    member diverged.
    """
    figure, (axis,) = panels(1, theme, narrow, (4.4, 0))
    label, mode, drawn = _measure(result)
    values = drawn(result.history[result.metric].astype(np.float64))
    steps = np.arange(1, values.shape[1] + 1)
    log = suits_logarithm(mode, values)
    order = result.order()
    low, high = limits(mode, values, log)
    for i in some(order)[::-1]:
        axis.plot(steps, values[i], color=theme.others, lw=0.7, alpha=0.8, zorder=1)
    for i in np.flatnonzero(result.diverged):
        finite = np.flatnonzero(np.isfinite(values[i]))
        last = finite[-1] if len(finite) else 0
        at = float(np.clip(values[i, last], low, high)) if len(finite) else high
        axis.plot(steps[last], at, "x", color=theme.diverged, ms=5, zorder=3, clip_on=False)
    colours = (theme.ink, theme.validation, theme.training)
    for place, i in enumerate(order[:3]):
        if result.diverged[i]:
            continue
        line, marker = TOP[place]
        text = f"{place + 1}. {describe(result, i, 46 if narrow else 90)}"
        how = {
            "markevery": (place * 2, max(1, len(steps) // 8)),
            "zorder": 6 - place,
            "label": text,
        }
        axis.plot(steps, values[i], line, color=colours[place], lw=1.8, marker=marker, ms=4, **how)
    if result.diverged.any():
        lost = f"diverged ({result.diverged.sum()} of {len(result)})"
        axis.plot([], [], "x", color=theme.diverged, ms=5, label=lost)
    axis.plot([], [], color=theme.others, lw=1.2, label="the other members")
    vertical(axis, low, high, log)
    if len(steps) == 1:
        axis.set_xlim(0, 2)
    axis.xaxis.set_major_locator(need("matplotlib.ticker").MaxNLocator(integer=True))
    name_axes(axis, "epoch", label, theme=theme)
    legend(axis, theme, **ABOVE)
    return png(figure)


def sensitivity(result: SweepResult, theme: Theme = LIGHT, narrow: bool = False) -> bytes:
    """PNG: the final metric against each hyperparameter, a panel each, the most important first."""
    found = result.sensitivity()
    figure, axes = panels(len(found), theme, narrow, (3.0, 2.4), 1 if narrow else 3)
    label, mode, drawn = _measure(result)
    scores = drawn(np.where(result.diverged, np.nan, result.scores.astype(np.float64)))
    log = suits_logarithm(mode, scores)
    low, high = limits(mode, scores, log)
    best = int(result.order()[0])
    for (name, about), axis in zip(found.items(), axes, strict=True):
        given = [shown(setting.get(name)) for setting in result.space]
        kept = np.array([i for i, v in enumerate(given) if v is not None])
        x, labels = places([given[i] for i in kept])
        clipped = np.clip(scores[kept], low, high)
        axis.plot(x, clipped, ".", color=theme.validation, alpha=0.4, ms=4, zorder=2)
        crosses(axis, x[result.diverged[kept]], 0.04, theme.diverged)
        at, tops, medians = (
            [row[k] for row in about["values"]] for k in ("value", "best", "median")
        )
        at = [labels.index(value) for value in at] if labels else at
        tops, medians = (drawn(np.array(x, np.float64)) for x in (tops, medians))
        axis.plot(at, tops, "-o", color=theme.ink, lw=1.5, ms=3.5, zorder=4)
        axis.plot(at, medians, "--", color=theme.training, lw=1.5, zorder=3)
        if best in kept and not result.diverged[best]:
            axis.plot(x[kept == best], scores[[best]], "D", color=theme.ink, ms=7, zorder=5)
        head(axis, f"{name}: {about['importance']:.0%}", theme)
        among = f"better half {about['among_best']:.0%}"
        head(axis, among, theme, "right", fontsize=8.5, color=theme.faint)
        vertical(axis, low, high, log)
        if labels:
            turned = {"fontsize": 7.5, "rotation": 20 if len(labels) > 3 else 0}
            axis.set_xticks(range(len(labels)), [short(v, 14) for v in labels], **turned)
        elif is_wide(x):
            logarithmic_scale(axis, "x", True)
    name_axes(axes[0], "", f"final {label}", theme=theme)
    entries = [
        entry(theme.ink, "best", marker="o", ms=3.5),
        entry(theme.training, "median", ls="--"),
        entry(theme.validation, "members", marker=".", ls=""),
        entry(theme.ink, "best of all", marker="D", ls=""),
    ]
    if result.diverged.any():
        entries.append(entry(theme.diverged, "diverged", marker="x", ls=""))
    columns = 2 if narrow else 5
    legend(figure, theme, handles=entries, loc="outside upper left", ncols=columns, fontsize=8.5)
    return png(figure)


def parallel(result: SweepResult, theme: Theme = LIGHT, narrow: bool = False) -> bytes:
    """PNG: each member a line across its hyperparameters to its final metric; what is good stands
    out.
    """
    names = [name for name in result.space.names if name in varied(result)]
    figure, (axis,) = panels(1, theme, narrow, (4.0, 0))
    label, mode, drawn = _measure(result)
    scores = drawn(np.where(result.diverged, np.nan, result.scores.astype(np.float64)))
    columns, ticks = [], []
    for name in names:
        given = [shown(setting.get(name)) for setting in result.space]
        x, labels = places(["–" if v is None else v for v in given])
        log = not labels and is_wide(x)
        columns.append(unit(np.log(x) if log else x))
        ticks.append(ends(x, labels, log))
    log = suits_logarithm(mode, scores)
    low, high = limits(mode, scores, log)
    clipped = np.clip(scores, low, high)
    final = unit(np.log(clipped) if log else clipped)
    final = 1 - final if mode == "min" else final
    columns.append(np.where(np.isfinite(final), final, -0.06))
    extremes = (high, low) if mode == "min" else (low, high)
    ticks.append([(0.0, f"{extremes[0]:.3g}"), (1.0, f"{extremes[1]:.3g}")])
    table = np.stack(columns, axis=1)
    ranks = np.argsort(np.where(np.isfinite(final), final, -1), kind="stable")
    ranks = np.argsort(ranks, kind="stable") / max(1, len(final) - 1)
    scale = need("matplotlib").colormaps["cividis"]
    order = result.order()
    dark = theme.page != LIGHT.page
    for i in some(order)[::-1]:
        if result.diverged[i]:
            axis.plot(table[i], ":", color=theme.diverged, lw=0.8, alpha=0.5, zorder=1)
        else:  # bright on a dark page, dark on a light one: what is good stands out on both
            colour = scale(ranks[i] if dark else 1 - ranks[i])
            alpha = 0.35 + 0.5 * ranks[i]
            axis.plot(table[i], color=colour, lw=0.9, alpha=alpha, zorder=2 + ranks[i])
    if not result.diverged.all():
        axis.plot(table[order[0]], "-D", color=theme.ink, lw=2.4, ms=5, zorder=5, label="best")
    axis.set_xticks(range(len(columns)), [*names, label], fontsize=9, color=theme.ink)
    axis.set_yticks([])
    axis.set_ylim(-0.1, 1.1)
    axis.set_xlim(-0.2, len(columns) - 0.6)
    for j, column in enumerate(ticks):
        axis.axvline(j, color=theme.faint, lw=0.9, zorder=0)
        for y, text in column:
            place = j + 0.03, y + 0.012
            axis.text(*place, text, fontsize=7.5, color=theme.faint, zorder=7, va="bottom")
    if result.diverged.any():
        axis.plot([], [], ":", color=theme.diverged, label="diverged")
        place = len(columns) - 0.97, -0.06
        axis.text(*place, "diverged", fontsize=7.5, color=theme.diverged, va="center")
    for side in axis.spines.values():
        side.set_visible(False)
    axis.grid(False)
    legend(axis, theme, **ABOVE)
    return png(figure)


def heat(
    result: SweepResult, x: str | None = None, y: str | None = None, theme=LIGHT, narrow=False
) -> bytes:
    """PNG: the best final metric for each pair of values of two hyperparameters, by default the
    most important.
    """
    names = varied(result)
    x = x or names[0]
    y = y or next((name for name in names if name != x), x)
    figure, (axis,) = panels(1, theme, narrow, (4.4, 0))
    (xs, across), (ys, up) = bins(result, x), bins(result, y)
    cells = np.full((len(up), len(across)), np.nan)
    count = np.zeros(cells.shape, int)
    label, mode, drawn = _measure(result)
    scores = drawn(result.scores.astype(np.float64))
    pick = np.fmax if mode == "max" else np.fmin
    for i, (a, b) in enumerate(zip(xs, ys, strict=True)):
        if a >= 0 and b >= 0:
            count[b, a] += 1
            if not result.diverged[i]:
                cells[b, a] = pick(cells[b, a], scores[i])
    log = suits_logarithm(mode, cells)
    colours = need("matplotlib.colors")
    low, high = limits(mode, cells, log)
    norm = colours.LogNorm(low, high, clip=True) if log else colours.Normalize(low, high, clip=True)
    scale = need("matplotlib").colormaps["cividis" if mode == "max" else "cividis_r"]
    picture = axis.imshow(cells, origin="lower", aspect="auto", cmap=scale, norm=norm)
    axis.grid(False)
    turned = {"fontsize": 7.5, "rotation": 35 if len(across) > 6 else 0}
    axis.set_xticks(range(len(across)), [short(v, 9) for v in across], **turned)
    axis.set_yticks(range(len(up)), [short(v, 14) for v in up], fontsize=7.5)
    for b, a in np.ndindex(cells.shape):
        if not np.isfinite(cells[b, a]) and count[b, a]:
            axis.plot([a], [b], "x", color=theme.diverged, ms=7)
        elif np.isfinite(cells[b, a]) and cells.size <= (48 if narrow else 120):
            bright = np.mean(scale(norm(cells[b, a]))[:3]) > 0.5
            how = {"fontsize": 6.5 if narrow else 7.5, "color": "#000" if bright else "#fff"}
            axis.text(a, b, f"{cells[b, a]:.3g}", ha="center", va="center", **how)
    if np.isfinite(cells).any():
        flat = np.nanargmax(cells) if mode == "max" else np.nanargmin(cells)
        b, a = np.unravel_index(flat, cells.shape)
        how = {"edgecolor": theme.training, "fill": False, "lw": 2.5, "clip_on": False, "zorder": 5}
        axis.add_patch(need("matplotlib.patches").Rectangle((a - 0.5, b - 0.5), 1, 1, **how))
    bar = figure.colorbar(picture, ax=axis, pad=0.02)
    bar.ax.tick_params(labelsize=7.5, colors=theme.faint)
    bar.set_label(f"best {label}", fontsize=9, color=theme.ink)
    name_axes(axis, x, y, theme=theme)
    return png(figure)


def varied(result: SweepResult) -> list[str]:
    """The names that take more than one value, the most important first, seeds last."""
    values = {
        name: {str(shown(s.get(name))) for s in result.space} for name in result.sensitivity()
    }
    found = [name for name, given in values.items() if len(given) > 1]
    return sorted(found, key=lambda name: name == "seed") or list(result.space.names)


def _measure(result: SweepResult) -> tuple[str, str, Callable]:
    """What the pictures show of the metric: its name, whether less is better, its values."""
    name = measure(result.metric).replace("\u00a0", " ")
    if is_accuracy(result.metric):
        return name.replace("accuracy", "error"), "min", lambda x: 100 * (1 - x)
    return name, result.mode, lambda x: x


def describe(result: SweepResult, i: int, width: int = 200) -> str:
    """A member in a line: its setting."""
    value = measured(result.metric, float(result.scores[i])) + " %" * is_accuracy(result.metric)
    name = measure(result.metric).partition(",")[0]
    return f"{short(setting_text(result, i, ()), width)}: {name} {value}"


def setting_text(result: SweepResult, i: int, without: tuple[str, ...] = ("seed",)) -> str:
    """A member's setting in a line; by default all of it but the seed."""
    given = {name: x for name, x in result.space[i].items() if name not in without}
    return ", ".join(f"{name} {short(shown(x), 24)}" for name, x in given.items())
