"""What every picture shares: colours, line styles, axes, scales, and the way to PNG. matplotlib is
imported when a picture is drawn.
"""

import importlib
import io
import math
from itertools import cycle, islice
from typing import Any, NamedTuple

import numpy as np

DPI = 130
SIZE = (7.0, 4.0)  # inches


class Theme(NamedTuple):
    """Colours on a light or a dark page."""

    page: str
    ink: str
    faint: str
    others: str
    validation: str
    training: str
    diverged: str
    works: str


LIGHT = Theme(
    "#ffffff", "#1b1f24", "#5b6470", "#c3c8ce", "#0072b2", "#d55e00", "#cc3311", "#009e73"
)
DARK = Theme("#14181d", "#e6e8eb", "#9aa3ad", "#4a525b", "#56b4e9", "#e69f00", "#ff7f5c", "#2fc79a")
THEMES = {"light": LIGHT, "dark": DARK}

# M. Okabe, K. Ito (2008)
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1b1f24")
LINES = ("-", "--", "-.", (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5, 1, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")

BESIDE: dict = {  # where a legend hides no data
    "loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0, "fontsize": 8.5,
    "frameon": False,
}  # fmt: skip


def need(module: str) -> Any:
    """Return a module of matplotlib, or raise an error that names what installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("matplotlib", "PIL"):
            raise
        text = 'which is not installed: pip install "gradxform[cli]"'
        text = f"gradxform.plot needs {error.name}, {text}"
        raise ModuleNotFoundError(text, name=error.name) from error


def styles(count: int) -> list[dict]:
    """A colour, a line style and a marker for each of so many series; no two of the first 315 agree
    in all three.
    """
    triples = zip(cycle(PALETTE), cycle(LINES), cycle(MARKERS), strict=False)
    return [{"color": c, "linestyle": line, "marker": m} for c, line, m in islice(triples, count)]


def figure_of(ax, size: tuple[float, float] = SIZE) -> tuple:
    """The figure and the axes to draw in: those given, or a new figure with one axes, dressed."""
    if ax is not None:
        return ax.figure, ax
    figure = need("gradxform.plot.picture").Picture(figsize=size, layout="constrained")
    ax = figure.subplots()
    dress(ax)
    return figure, ax


def dress(axis, theme: Theme = LIGHT):
    """Two spines, a faint grid behind the data, small ticks."""
    axis.set_facecolor(theme.page)
    axis.tick_params(which="both", labelsize=8, colors=theme.faint, length=3)
    axis.tick_params(which="minor", length=0)
    axis.grid(True, color=theme.others, linewidth=0.4, alpha=0.6)
    axis.set_axisbelow(True)
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.faint)


def name_axes(axis, x: str, y: str, title: str | None = None, theme: Theme = LIGHT):
    """What the two axes show, and the title."""
    axis.set_xlabel(x, fontsize=9.5, color=theme.ink)
    axis.set_ylabel(y, fontsize=9.5, color=theme.ink)
    if title:
        axis.set_title(title, fontsize=10.5, color=theme.ink, loc="left")


def legend_beside(axis, theme: Theme = LIGHT):
    """The legend to the right of the axes, where it hides no data; none if nothing has a label."""
    if axis.get_legend_handles_labels()[1]:
        axis.legend(**BESIDE, labelcolor=theme.ink, handlelength=3.2)


def staggered(series: int, count: int, points: int) -> tuple[int, int]:
    """Where a line has its markers, so that lines of one course do not hide each other's."""
    every = max(1, points // 8)
    return (series * every // max(1, count)), every


def logarithmic_scale(axis, which: str, log: bool):
    """Make an axis ("x" or "y") logarithmic, with plain numbers, if asked to."""
    if not log:
        return
    ticker = need("matplotlib.ticker")
    getattr(axis, f"set_{which}scale")("log")
    of = getattr(axis, f"{which}axis")
    of.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    of.set_minor_locator(ticker.NullLocator())  # `dress` shows none: to place them takes time


def band(axis, x, values, color, **more):
    """From the least to the greatest of the members [members, x], behind their mean."""
    low, high = values.min(axis=0), values.max(axis=0)
    axis.fill_between(x, low, high, color=color, alpha=0.22, linewidth=0, **more)


def crosses(axis, x, height: float, color=LIGHT.diverged, **more):
    """Crosses at the given share of the height of the axes, if there are any."""
    if len(x):
        more |= {"color": color, "clip_on": False, "transform": axis.get_xaxis_transform()}
        axis.plot(x, np.full(len(x), height), "x", markersize=5, zorder=4, **more)


def array(owner: str, name: str, x, shapes: str, *dims: int) -> np.ndarray:
    """The argument as float64, or an error that names it and the shapes it may have."""
    try:
        x = np.asarray(x, np.float64)
    except (TypeError, ValueError):
        kind = type(x).__name__
        raise TypeError(f"{owner}: {name} must be an array {shapes}; got {kind}") from None
    if x.ndim not in dims or 0 in x.shape:
        raise ValueError(f"{owner}: {name} must be an array {shapes}; got shape {x.shape}")
    return x


def labelled(owner: str, name: str, x) -> dict:
    """A dict from label to data that has entries, or an error that names it."""
    if not isinstance(x, dict):
        kind = type(x).__name__
        raise TypeError(f"{owner}: {name} must be a dict from label to data; got {kind}")
    if not x:
        raise ValueError(f"{owner}: {name} is empty")
    return {str(label): data for label, data in x.items()}


def arrays(owner: str, name: str, x, shapes: str, *dims: int) -> dict[str, np.ndarray]:
    """`array` of every entry of a dict from label to data."""
    entries = labelled(owner, name, x).items()
    return {k: array(owner, f"{name}[{k!r}]", y, shapes, *dims) for k, y in entries}


def upper_limit(values: np.ndarray, log: bool) -> float:
    """What most values reach: one that explodes must not flatten the rest. nan where none is
    finite.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return math.nan
    return min(float(finite.max()), float(np.quantile(finite, 0.9)) * (10 if log else 2))


def png(figure, dpi: int = DPI) -> bytes:
    """The figure as PNG with a palette of 255 colours, at less than half the size."""
    canvas = need("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    figure.set_dpi(dpi)
    canvas.draw()
    file = io.BytesIO()
    # A palette without refinement and level 8: a fifth of the time, and 2 % more bytes.
    reduced(pixels(canvas), 255, 0).save(file, format="png", compress_level=8, dpi=(dpi, dpi))
    return file.getvalue()


def pixels(canvas):
    """What an Agg canvas has drawn, as an image."""
    return need("PIL.Image").fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def reduced(picture, colours: int, rounds: int = 2):
    """An image with a palette of so many colours, fitted to it; refined in so many rounds."""
    image = need("PIL.Image")
    how = {"method": image.Quantize.MEDIANCUT, "dither": image.Dither.NONE}
    return picture.quantize(colours, kmeans=rounds, **how)
