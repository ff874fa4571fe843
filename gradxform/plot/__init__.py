"""Pictures of optimizers at work, in matplotlib: paths on a surface, curves, sensitivity,
schedules, update-to-weight ratios.

    from gradxform import plot paths = {"sgd": plot.path(gx.sgd(0.02), f, start, 50), "adam":
    plot.path(gx.adam(0.2), f, start, 50)} plot.contour(f, paths, xlim=(-2, 2), ylim=(-1, 1),
    minimum=(0, 0))

Every function returns a figure of its own, which a notebook shows as the value of a cell and
`.savefig` writes. Series differ in colour (Okabe and Ito's palette, which colour-blind readers tell
apart), in line style and in marker, so that they also differ in print.
"""

from gradxform.plot.layers import ratios, update_ratios
from gradxform.plot.lines import curves, schedules, sensitivity
from gradxform.plot.surface import Animation, animate, contour, path

__all__ = [
    "Animation", "animate", "contour", "curves", "path", "ratios", "schedules", "sensitivity",
    "update_ratios",
]  # fmt: skip
