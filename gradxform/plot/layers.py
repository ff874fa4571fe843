"""How far each layer moves for its size: update-to-weight ratios, measured and drawn."""

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.core import leaves as trees
from gradxform.plot.style import BESIDE, LIGHT, arrays, figure_of, name_axes, need


def ratios(updates, params) -> dict[str, jax.Array]:
    """|update| / |weight| of every leaf, in Euclidean norms, by its path: `{"dense/kernel":
    0.001}`. Runs under `jit`.

    A weight of zero that moves has the ratio inf, and one that rests 0. None leaves are left out.

    >>> import jax.numpy as jnp
    >>> from gradxform import plot
    >>> float(plot.ratios({"w": jnp.array([0.3, 0.4])}, {"w": jnp.array([3.0, 4.0])})["w"])
    0.10000000149011612
    """
    u, treedef = jax.tree.flatten(updates, is_leaf=trees.is_none)
    p = trees.align(treedef, params, "ratios", "params", "updates")
    rows = zip(trees.paths(updates), u, p, strict=True)
    norm = trees.global_norm
    return {path: _ratio(norm(a), norm(b)) for path, a, b in rows if a is not None}


def _ratio(update, weight):
    zero = weight == 0
    still = jnp.where(update > 0, jnp.inf, 0.0)
    return jnp.where(zero, still, update / jnp.where(zero, 1.0, weight))


def update_ratios(ratios, *, title=None):
    """Draw how |update| / |weight| of each layer spreads over the steps: the middle half, 5% to
    95%, and the median.

    A layer far right of the mark at 1e-3 moves too fast for its size, one far left of it hardly
    learns.

    Args:
        ratios: {layer path: [steps]}, as `plot.ratios` measures them. Steps whose ratio is 0 or not
            finite are left out.
    """
    layers = arrays("update_ratios", "ratios", ratios, "[steps]", 1)
    figure, ax = figure_of(None, (7.0, max(1.7, 1.0 + 0.3 * len(layers))))
    ax.set_xscale("log")
    wide: dict = {"color": LIGHT.validation, "linewidth": 1}
    half = wide | {"linewidth": 6, "alpha": 0.45}
    median = {"color": LIGHT.ink, "marker": "o", "markersize": 4.5, "linestyle": ""}
    for row, y in enumerate(layers.values()):
        y = y[np.isfinite(y) & (y > 0)]
        if not len(y):
            ax.annotate(
                "does not move", (0.01, row), xycoords=("axes fraction", "data"), va="center",
                fontsize=8, color=LIGHT.faint, style="italic",
            )  # fmt: skip
            continue
        low, left, middle, right, high = np.quantile(y, (0.05, 0.25, 0.5, 0.75, 0.95))
        ax.plot([low, high], [row, row], solid_capstyle="butt", **wide)
        ax.plot([left, right], [row, row], solid_capstyle="butt", **half)
        ax.plot([middle], [row], **median)
    ax.axvline(1e-3, color=LIGHT.training, linewidth=1.2, linestyle="--", zorder=1)
    ax.annotate(
        "1e-3", (1e-3, 1), xycoords=("data", "axes fraction"), xytext=(0, 2),
        textcoords="offset points", ha="center", va="bottom", fontsize=8, color=LIGHT.training,
    )  # fmt: skip
    ax.set_yticks(range(len(layers)), list(layers), fontsize=8.5, color=LIGHT.ink)
    ax.set_ylim(len(layers) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    name_axes(ax, "|update| / |weight|, one step", "")
    parts = {"median over steps": median, "middle half": half, "5% to 95%": wide}
    line = need("matplotlib.lines").Line2D
    handles = [line([], [], label=label, **style) for label, style in parts.items()]
    ax.legend(handles=handles, **BESIDE)
    if title:
        ax.set_title(title, fontsize=10.5, color=LIGHT.ink, loc="left", pad=14)
    return figure
