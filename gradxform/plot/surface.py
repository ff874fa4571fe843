"""Optimizers on a surface: the points they visit, contour pictures with these paths, still and
moving.
"""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.core.chain import apply_updates, as_transform
from gradxform.plot import style as page
from gradxform.plot.style import LIGHT

GRID = 201  # points along each axis at which a contour evaluates the function
COLOURS = 200  # of an animation


def path(tx, f, start, steps: int, *, gradient: Callable | None = None) -> np.ndarray:
    """The points [steps + 1, n] that an optimizer visits from `start` [n], the start first.

    Args:
        tx: the optimizer. Its update is also given `value=`, `grad=`, `value_fn=` and `obj_fn=`,
            for those that use them.
        f: the function to minimise, from an array [n] to a scalar.
        gradient: `gradient(point, step)`, by default the gradient of f; for noise, one that draws
            from a key folded with the step.

    Raises:
        ValueError: `start` is no vector, or `steps` is negative.

    >>> import gradxform as gx
    >>> from gradxform import plot
    >>> plot.path(gx.sgd(0.25), lambda x: x @ x, [1.0, -2.0], 2).tolist()
    [[1.0, -2.0], [0.5, -1.0], [0.25, -0.5]]
    """
    start = jnp.asarray(start, float)
    if start.ndim != 1:
        raise ValueError(f"path: start must be an array [n]; got shape {start.shape}")
    if steps < 0:
        raise ValueError(f"path: steps must not be negative; got {steps}")
    return np.asarray(_walk(as_transform(tx), start, f, int(steps), gradient))


@partial(jax.jit, static_argnums=(2, 3, 4))
def _walk(tx, start, f, steps, gradient):
    def move(carry, step):
        point, state = carry
        value, slope = jax.value_and_grad(f)(point)
        slope = slope if gradient is None else gradient(point, step)
        known = {"value": value, "grad": slope, "value_fn": f, "obj_fn": f}
        updates, state = tx.update(slope, state, point, **known)
        point = apply_updates(point, updates)
        return (point, state), point

    _, points = jax.lax.scan(move, (start, tx.init(start)), jnp.arange(steps))
    return jnp.concatenate([start[None], points])


def contour(
    f, paths=None, *, xlim, ylim, minimum=None, levels: int = 24, log: bool = False, title=None,
    xlabel="x", ylabel="y", ax=None,
):  # fmt: skip
    """Draw the level lines of a function of two variables, and paths upon it: an open circle at the
    start, a filled mark at the end.

    Args:
        f: the function, from an array [2] to a scalar.
        paths: {label: [steps + 1, 2]}, as `plot.path` gives them.
        xlim, ylim: (low, high) of each axis.
        minimum: (x, y) of a point to mark with a star, or several of them.
        levels: how many level lines.
        log: whether the levels are spaced by their logarithm; f must be positive then, except at
            its minimum.
        ax: the axes to draw in; by default those of a new figure.

    Raises:
        ValueError: a path has another shape, naming its label, or f is negative with `log`.
    """
    figure, ax, tracks = _scene("contour", f, paths or {}, xlim, ylim, levels, log, ax)
    for label, (points, style) in tracks.items():
        ax.plot(*points.T, **_line(label, points, style))
        ax.plot(*points[-1], **_mark(style))
    _finish("contour", ax, minimum, (xlabel, ylabel, title))
    return figure


def _line(label, points, style):
    marks = {"markevery": max(1, len(points) // 12), "markersize": 3.5}
    return style | marks | {"label": label, "linewidth": 1.5, "zorder": 4}


def _mark(style):
    edge = {"markersize": 7, "markeredgecolor": LIGHT.page, "markeredgewidth": 0.8}
    return style | edge | {"linestyle": "", "zorder": 5}


def _scene(owner, f, paths, xlim, ylim, levels, log, ax):
    """The level lines and the starts; the figure, the axes, and each path with its style."""
    paths = page.arrays(owner, "paths", paths, "[steps + 1, 2]", 2) if paths else {}
    for label, points in paths.items():
        if points.shape[1] != 2:
            must = f"must be an array [steps + 1, 2]; got shape {points.shape}"
            raise ValueError(f"{owner}: paths[{label!r}] {must}")
    (left, right), (low, high) = _interval(owner, "xlim", xlim), _interval(owner, "ylim", ylim)
    x, y = np.linspace(left, right, GRID), np.linspace(low, high, GRID)
    points = jnp.asarray(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2), float)
    heights = np.asarray(jax.jit(jax.vmap(f))(points), np.float64)
    if heights.shape != (GRID * GRID,):
        shape = heights.shape[1:]
        raise ValueError(f"{owner}: f must map an array [2] to a scalar; got shape {shape}")
    z = np.where(np.isfinite(heights), heights, np.nan).reshape(GRID, GRID)
    at = _levels(owner, z, levels, log)
    figure, ax = page.figure_of(ax, (7.0, 4.4))
    ax.grid(False)
    colours = page.need("matplotlib.colors")
    shade = colours.LinearSegmentedColormap.from_list("", ["#ffffff", "#dfe4ea"])
    norm = colours.BoundaryNorm(at, 256)
    ax.contourf(x, y, np.clip(z, at[0], at[-1]), at, cmap=shade, norm=norm, zorder=0)
    thin = {"colors": LIGHT.faint, "linewidths": 0.4, "alpha": 0.7, "negative_linestyles": "solid"}
    lines = ax.contour(x, y, z, at, zorder=1, **thin)
    ax.clabel(lines, lines.levels[2::5], fontsize=6.5, fmt=_number, colors=LIGHT.faint)
    ring = {"marker": "o", "markerfacecolor": LIGHT.page, "markeredgecolor": LIGHT.ink}
    for points in paths.values():
        ax.plot(*points[0], linestyle="", markersize=7, zorder=5, **ring)
    ax.set_xlim(left, right)
    ax.set_ylim(low, high)
    drawn = zip(paths.items(), page.styles(len(paths)), strict=True)
    return figure, ax, {label: (points, style) for (label, points), style in drawn}


def _interval(owner, name, pair):
    pair = page.array(owner, name, pair, "(low, high)", 1)
    if pair.shape != (2,) or not pair[0] < pair[1]:
        got = tuple(pair.tolist())
        raise ValueError(f"{owner}: {name} must be (low, high) with low < high; got {got}")
    return pair


def _levels(owner, z, count, log):
    if not np.isfinite(z).any():
        raise ValueError(f"{owner}: f is nowhere finite between xlim and ylim")
    least, most = np.nanmin(z), np.nanmax(z)
    if log:
        if least < 0:
            why = f"its least value here is {least:g}"
            raise ValueError(f"{owner}: log=True needs a function that is not negative; {why}")
        positive = z[z > 0]
        even = np.geomspace(np.quantile(positive, 0.002), positive.max(), count)
        return np.unique([float(f"{level:.2g}") for level in even])
    locator = page.need("matplotlib.ticker").MaxNLocator(count, min_n_ticks=1)
    return locator.tick_values(least, most)


def _number(level: float) -> str:
    """A level in as few digits as it has."""
    return f"{level:g}" if abs(level) < 1e5 else f"{level:.0e}".replace("e+0", "e")


def _finish(owner, ax, minimum, names):
    if minimum is not None:
        stars = np.atleast_2d(page.array(owner, "minimum", minimum, "[2] or [minima, 2]", 1, 2))
        edge = {"color": LIGHT.ink, "markeredgecolor": LIGHT.page}
        ax.plot(*stars.T, "*", markersize=11, zorder=6, label="minimum", **edge)
    page.name_axes(ax, *names)
    page.legend_beside(ax)


class Animation:
    """A moving picture as GIF; a notebook shows it, `save` writes it."""

    def __init__(self, gif: bytes):
        self.gif = gif

    def save(self, path) -> Path:
        """Write the GIF to a file and return its path."""
        path = Path(path)
        path.write_bytes(self.gif)
        return path

    def __repr__(self):
        return f"Animation({len(self.gif):,} bytes of GIF)"

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"image/gif": self.gif, "text/plain": repr(self)}


def animate(
    f, paths, *, xlim, ylim, minimum=None, frames: int = 60, fps: float = 12, levels: int = 24,
    log: bool = False, title=None, xlabel="x", ylabel="y",
) -> Animation:  # fmt: skip
    """Draw paths as they grow over the level lines of a function of two variables: `contour`,
    moving.

    Args:
        f, paths, xlim, ylim, minimum, levels, log: as for `contour`.
        frames: how many pictures at most; they are spread evenly over the steps of the longest
            path.
        fps: pictures per second; the last one stays for two seconds.
    """
    if frames < 2 or fps <= 0:
        got = f"{frames} and {fps}"
        raise ValueError(f"animate: frames must be at least 2 and fps positive; got {got}")
    page.labelled("animate", "paths", paths)
    figure, ax, tracks = _scene("animate", f, paths, xlim, ylim, levels, log, None)
    last = max(len(points) for points, _ in tracks.values()) - 1
    drawn = []
    for label, (points, style) in tracks.items():
        (line,) = ax.plot([], [], **_line(label, points, style))
        (head,) = ax.plot([], [], **_mark(style))
        drawn.append((points, line, head))
    _finish("animate", ax, minimum, (xlabel, ylabel, title))
    counter = ax.set_title(f"step {last}", loc="right", fontsize=9, color=LIGHT.faint)
    canvas = page.need("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    figure.set_dpi(100)
    canvas.draw()  # the layout, with a counter as wide as it gets
    figure.set_layout_engine("none")
    pictures = []
    for step in np.unique(np.linspace(0, last, min(frames, last + 1)).round().astype(int)):
        counter.set_text(f"step {step}")
        for points, line, head in drawn:
            line.set_data(*points[: step + 1].T)
            head.set_data(*points[min(step, len(points) - 1)][:, None])
        canvas.draw()
        pictures.append(page.pixels(canvas))
    palette = page.reduced(pictures[-1], COLOURS)
    first, *others = (picture.quantize(palette=palette, dither=0) for picture in pictures)
    file = io.BytesIO()
    times = {"duration": [round(1000 / fps)] * len(others) + [2000], "loop": 0}
    first.save(file, "gif", save_all=True, append_images=others, optimize=True, **times)
    return Animation(file.getvalue())
