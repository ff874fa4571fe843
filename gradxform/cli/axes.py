"""What the pictures of both reports share: panels, scales, limits, and places on an axis."""

import math

import numpy as np

from gradxform.cli.problems import need
from gradxform.plot.style import Theme, dress, logarithmic_scale, upper_limit
from gradxform.sweep.result import SweepResult, shown

LINES = 300  # curves and lines drawn at most: the best ones, and others taken evenly from the rest


def panels(count: int, theme: Theme, narrow: bool, heights, most=3, layout="constrained", **how):
    """A figure of so many panels, `most` of them side by side, and their axes; `heights` of the
    first line and of each further one, lengths in inches.
    """
    columns = min(count, most)
    lines = math.ceil(count / columns)
    size = 4.6 if narrow else max(9.0, 2.2 * columns + 0.7), heights[0] + (lines - 1) * heights[1]
    figure = need("matplotlib.figure").Figure(figsize=size, layout=layout)
    figure.patch.set_facecolor(theme.page)
    axes = list(figure.subplots(lines, columns, squeeze=False, **how).flat)
    for index, axis in enumerate(axes):
        dress(axis, theme)
        axis.set_visible(index < count)
    return figure, axes[:count]


def entry(color: str, label: str, **style):
    """An entry of a legend: a line of this style."""
    return need("matplotlib.lines").Line2D([], [], color=color, label=label, **style)


def legend(where, theme: Theme, **how) -> None:
    """The legend of an axis or a figure, above it."""
    where.legend(frameon=False, labelcolor=theme.ink, **how)


def head(axis, title: str, theme: Theme, side: str = "left", **how) -> None:
    """The title of a panel, or what stands above it at the right."""
    how = {"fontsize": 9.5, "color": theme.ink, "pad": 4, "y": 1.0} | how
    axis.set_title(title, loc=side, **how)


def suits_logarithm(mode: str, values: np.ndarray) -> bool:
    """Whether a metric is better seen in the logarithm: less is better, all positive, a wide
    span.
    """
    finite = values[np.isfinite(values)]
    return (
        mode == "min"
        and len(finite) > 0
        and bool((finite > 0).all())
        and finite.max() > 5 * finite.min()
    )


def limits(mode: str, values: np.ndarray, log: bool) -> tuple[float, float]:
    """Between the best and what most members reach: one that explodes must not flatten the rest."""
    finite = np.sort(values[np.isfinite(values)].ravel())
    if not len(finite):
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = float(finite[0]), float(finite[-1])
    if mode == "min":
        high = upper_limit(finite, log)
    else:
        low = max(low, 2 * float(np.quantile(finite, 0.1)) - high)
    if log:
        return low / 1.15, max(high * 1.15, low * 1.3)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def vertical(axis, low: float, high: float, log: bool) -> None:
    """The vertical axis between two ends; a logarithmic one has so many numbers as there is room
    for.
    """
    logarithmic_scale(axis, "y", log)
    if log:
        subs = (1.0, 2.0, 5.0) if high < 200 * low else (1.0,)
        axis.yaxis.set_major_locator(need("matplotlib.ticker").LogLocator(subs=subs))
    axis.set_ylim(low, high)


def places(values: list) -> tuple[np.ndarray, list]:
    """Where values stand on an axis: numbers at themselves, others side by side, with labels."""
    labels = list(dict.fromkeys(values))
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in labels)
    if numbers and not (len(labels) <= 10 and all(isinstance(v, int) for v in labels)):
        return np.array(values, float), []
    labels = sorted(labels) if numbers else labels
    return np.array([labels.index(v) for v in values], float), labels


def is_wide(x: np.ndarray) -> bool:
    """Whether numbers are better seen in the logarithm: positive, and most of them far below the
    largest.
    """
    return bool((x > 0).all()) and x.max() > 20 * x.min() and np.median(x) < 0.3 * x.max()


def unit(x: np.ndarray) -> np.ndarray:
    """Scaled to lie between 0 and 1."""
    low, high = np.nanmin(x, initial=np.inf), np.nanmax(x, initial=-np.inf)
    return np.full(x.shape, 0.5) if not high > low else (x - low) / (high - low)


def ends(x: np.ndarray, labels: list, log: bool) -> list[tuple[float, str]]:
    """Where an axis of parallel coordinates has labels, from 0 to 1, and which."""
    if labels:
        even = np.linspace(0, 1, len(labels)) if len(labels) > 1 else [0.5]
        return [(float(y), short(v, 14)) for y, v in zip(even, labels, strict=True)]
    middle = math.sqrt(x.min() * x.max()) if log else (x.min() + x.max()) / 2
    return [(0.0, f"{x.min():.3g}"), (0.5, f"{middle:.2g}"), (1.0, f"{x.max():.3g}")]


def bins(result: SweepResult, name: str, most: int = 12) -> tuple[list[int], list]:
    """The column of every member, -1 where it has no such value, and the label of every column."""
    given = [shown(setting.get(name)) for setting in result.space]
    kept = [v for v in given if v is not None]
    distinct = list(dict.fromkeys(kept))
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in distinct)
    if numeric:
        distinct.sort()
    if not numeric or len(distinct) <= most:
        return [distinct.index(v) if v is not None else -1 for v in given], distinct
    parts = np.array_split(np.array(distinct), 8)
    starts = [float(part[0]) for part in parts]
    at = [-1 if v is None else int(np.searchsorted(starts, v, side="right")) - 1 for v in given]
    return at, [float(np.median(part)) for part in parts]


def short(x, width: int) -> str:
    """A value as text of at most this width."""
    text = f"{x:.3g}" if isinstance(x, float) else str(x)
    return text if len(text) <= width else text[: width - 1] + "…"


def some(order: np.ndarray) -> np.ndarray:
    """The members to draw, the best first: all of them, or a fair selection."""
    if len(order) <= LINES:
        return order
    rest = order[3:]
    return np.concatenate([order[:3], rest[np.linspace(0, len(rest) - 1, LINES - 3).astype(int)]])
