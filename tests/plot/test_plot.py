"""The pictures: what is drawn, where, how it is labelled, and what is refused."""

import base64
import io
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib.figure import Figure
from PIL import Image

import gradxform as gx
from gradxform import plot
from gradxform.plot.style import PALETTE, styles, upper_limit


def bowl(x):
    return x[0] ** 2 + 4 * x[1] ** 2


WINDOW = {"xlim": (-2, 3), "ylim": (-1, 2)}


def by_label(ax):
    return {line.get_label(): line for line in ax.get_lines()}


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def drawn(figure):
    """The pixels, and so a proof that matplotlib can draw it."""
    return np.asarray(Image.open(io.BytesIO(shown(figure)[0])).convert("RGB"))


def shown(figure):
    """What a notebook gets: the PNG and its size on the page."""
    data, size = figure._repr_mimebundle_()
    return base64.b64decode(data["image/png"]), size["image/png"]


# paths


def test_a_path_is_what_the_loop_visits():
    tx, point = gx.adam(0.1), jnp.array([1.0, -2.0])
    state, expected = tx.init(point), [point]
    for _ in range(5):
        updates, state = tx.update(jax.grad(bowl)(point), state, point)
        point = gx.apply_updates(point, updates)
        expected.append(point)
    np.testing.assert_allclose(plot.path(tx, bowl, [1.0, -2.0], 5), expected, rtol=1e-6)


def test_a_path_takes_a_gradient_an_optax_pair_and_what_needs_the_loss():
    points = plot.path(
        gx.sgd(1.0),
        bowl,
        [0.0, 0.0],
        3,
        gradient=lambda point, step: jnp.ones(2) * (step + 1).astype(jnp.float32),
    )
    np.testing.assert_allclose(points[:, 0], [0, -1, -3, -6])
    np.testing.assert_allclose(
        plot.path(optax.sgd(0.1), bowl, [1.0, 0.0], 1)[1], [0.8, 0.0], rtol=1e-6
    )
    polyak = plot.path(gx.polyak_sgd(10.0), bowl, [1.0, 0.0], 1)  # f / ‖g‖² = 1/4: half of the way
    np.testing.assert_allclose(polyak[1], [0.5, 0.0], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start": [[1.0, 2.0]]}, r"path: start must be an array \[n\]; got shape \(1, 2\)"),
        ({"steps": -1}, "steps must not"),
    ],
)
def test_a_path_refuses(change, words):
    with pytest.raises(ValueError, match=words):
        plot.path(**({"tx": gx.sgd(0.1), "f": bowl, "start": [1.0, 2.0], "steps": 2} | change))


# contours


def test_a_contour_has_the_paths_the_levels_and_the_minimum():
    track = plot.path(gx.sgd(0.1), bowl, [2.5, 1.5], 20)
    figure = plot.contour(
        bowl,
        {"sgd": track, "still": track[:1]},
        **WINDOW,
        minimum=(0, 0),
        title="A bowl",
        xlabel="w",
    )
    (ax,) = figure.axes
    lines = by_label(ax)
    np.testing.assert_allclose(np.transpose(lines["sgd"].get_data()), track)
    np.testing.assert_allclose(np.transpose(lines["minimum"].get_data()), [[0, 0]])
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title(loc="left")) == ("w", "y", "A bowl")
    assert (ax.get_xlim(), ax.get_ylim()) == ((-2, 3), (-1, 2))
    assert labels(ax) == ["sgd", "still", "minimum"]
    _, levels = [c for c in ax.collections if hasattr(c, "levels")]
    assert len(levels.levels) > 10
    assert levels.levels[-1] >= bowl((3, 2)) > levels.levels[-3]
    np.testing.assert_allclose(np.diff(levels.levels), levels.levels[1] - levels.levels[0])
    some = next(
        path for path in levels.get_paths()[5:6]
    ).vertices  # a level line lies where the function has that value
    np.testing.assert_allclose(bowl(some.T), levels.levels[5], rtol=0.02)


def test_a_contour_in_the_logarithm():
    figure = plot.contour(bowl, xlim=(-1, 1), ylim=(-1, 1), log=True, levels=12)
    levels = next(c for c in figure.axes[0].collections if hasattr(c, "levels")).levels
    np.testing.assert_allclose(levels[2:] / levels[1:-1], levels[-1] / levels[-2], rtol=0.06)
    assert figure.axes[0].get_legend() is None


def test_a_contour_in_given_axes():
    axes = Figure().subplots(1, 2)
    assert plot.contour(bowl, **WINDOW, ax=axes[1]) is axes[1].figure
    assert axes[1].collections
    assert not axes[0].collections


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"paths": {"a": np.ones((3, 3))}},
            r"paths\['a'\] must be an array \[steps \+ 1, 2\]; got shape \(3, 3\)",
        ),
        ({"paths": {"a": np.ones(2)}}, r"paths\['a'\]"),
        ({"xlim": (1, 0)}, r"xlim must be \(low, high\)"),
        ({"f": lambda x: x}, "f must map an array"),
        ({"f": lambda x: x[0] * jnp.nan}, "nowhere finite"),
        ({"f": lambda x: x[0], "log": True}, "not negative; its least value here is -2"),
        ({"minimum": 1.0}, r"minimum must be an array \[2\]"),
    ],
)
def test_a_contour_refuses(change, words):
    with pytest.raises(ValueError, match=words):
        plot.contour(**({"f": bowl, "paths": None} | WINDOW | change))


# animations


def gif(animation):
    picture = Image.open(io.BytesIO(animation.gif))
    return picture, [np.asarray(_at(picture, i)) for i in range(picture.n_frames)]


def _at(picture, i):
    picture.seek(i)
    return picture.convert("RGB")


def test_an_animation_has_its_frames_and_shows_itself(tmp_path):
    track = plot.path(gx.sgd(0.05), bowl, [2.5, 1.5], 50)
    animation = plot.animate(
        bowl, {"sgd": track, "short": track[:3]}, **WINDOW, frames=8, fps=10, minimum=(0, 0)
    )
    picture, frames = gif(animation)
    assert len(frames) == 8
    assert picture.info["loop"] == 0
    blue = np.array([int(PALETTE[0][i : i + 2], 16) for i in (1, 3, 5)])
    seen = [(np.abs(frame.astype(int) - blue).sum(axis=-1) < 30).sum() for frame in frames]
    assert seen[0] < seen[3] < seen[-1]  # the path grows
    assert animation.save(tmp_path / "a.gif").read_bytes() == animation.gif
    assert animation._repr_mimebundle_()["image/gif"] == animation.gif
    assert repr(animation).startswith("Animation(")


def test_an_animation_has_no_more_frames_than_steps():
    assert (
        len(
            gif(plot.animate(bowl, {"sgd": plot.path(gx.sgd(0.1), bowl, [2.0, 1.0], 4)}, **WINDOW))[
                1
            ]
        )
        == 5
    )


def test_an_animation_refuses():
    with pytest.raises(ValueError, match="frames must be at least 2"):
        plot.animate(bowl, {"a": np.ones((3, 2))}, **WINDOW, frames=1)
    with pytest.raises(ValueError, match="paths is empty"):
        plot.animate(bowl, {}, **WINDOW)


# curves


def test_curves_have_the_mean_and_the_spread():
    seeds = np.array([[1.0, 2.0, 4.0], [3.0, 2.0, 0.5]])
    figure = plot.curves(
        {"sgd": seeds, "adam": [3.0, 2.0, 1.0]},
        target=1.5,
        title="Loss",
        ylabel="loss (nats)",
        log=True,
    )
    (ax,) = figure.axes
    lines = by_label(ax)
    np.testing.assert_allclose(lines["sgd"].get_data(), [[0, 1, 2], [2, 2, 2.25]])
    np.testing.assert_allclose(lines["adam"].get_ydata(), [3, 2, 1])
    np.testing.assert_allclose(lines["target"].get_ydata(), 1.5)
    (band,) = ax.collections
    corners = {tuple(v) for v in band.get_paths()[0].vertices}
    assert {(0, 1), (0, 3), (1, 2), (2, 0.5), (2, 4)} <= corners
    assert ax.get_yscale() == "log"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "loss (nats)")
    assert labels(ax) == ["sgd", "adam", "target"]


def test_a_curve_that_diverges_ends_in_a_cross():
    (ax,) = plot.curves(
        {"sgd": [[1.0, 2.0, 9.0, 9.0], [1.0, 4.0, np.inf, np.nan]]}, x=[10, 20, 30, 40]
    ).axes
    (cross,) = [line for line in ax.get_lines() if line.get_marker() == "x"]
    np.testing.assert_allclose(cross.get_xydata(), [[20, 3]])


def test_series_differ_without_colour():
    found = styles(12)
    assert len({(s["linestyle"], s["marker"]) for s in found}) == 12
    assert len({s["color"] for s in found[:7]}) == 7


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"series": {"a": np.ones((2, 2, 2))}},
            r"series\['a'\] must be an array \[steps\] or \[seeds, steps\]; got shape \(2, 2, 2\)",
        ),
        ({"series": {"a": [1.0, 2.0]}, "x": [1.0]}, r"series\['a'\] has 2 steps, x has 1"),
        ({"series": {}}, "series is empty"),
        ({"series": {"a": []}}, r"series\['a'\]"),
    ],
)
def test_curves_refuse(arguments, words):
    with pytest.raises(ValueError, match=words):
        plot.curves(**arguments)
    with pytest.raises(TypeError, match="series must be a dict from label to data; got list"):
        plot.curves([1.0, 2.0])


# sensitivity


def test_sensitivity_sorts_the_rates_and_crosses_what_diverged():
    rates = [1.0, 0.01, 0.1]
    values = {"sgd": [[np.nan, 3.0], [1.0, 3.0], [0.5, 1.5]], "adam": [2.0, 1.0, np.inf]}
    figure = plot.sensitivity(rates, values, ylabel="error (%)")
    (ax,) = figure.axes
    lines = by_label(ax)
    np.testing.assert_allclose(lines["sgd"].get_data(), [[0.01, 0.1, 1.0], [2.0, 1.0, np.nan]])
    np.testing.assert_allclose(lines["adam"].get_ydata(), [1.0, np.nan, 2.0])
    crosses = [
        line for line in ax.get_lines() if line.get_marker() == "x" and len(line.get_xdata())
    ]
    assert [tuple(line.get_xdata()) for line in crosses] == [(1.0,), (0.1,)]
    assert all(
        0.9 < y < 1 for line in crosses for y in line.get_ydata()
    )  # at the top, in shares of the height
    assert [line.get_color() for line in crosses] == list(PALETTE[:2])
    dots = next(line for line in ax.get_lines() if line.get_marker() == ".")
    assert len(dots.get_xdata()) == 6
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("learning rate", "error (%)")
    assert labels(ax) == ["sgd", "adam", "diverged"]
    assert drawn(figure).std() > 0


def test_one_explosion_does_not_flatten_the_rest():
    (ax,) = plot.sensitivity(
        np.geomspace(1e-3, 1, 20), {"sgd": [*np.linspace(1, 2, 19), 1e30]}, log=False
    ).axes
    assert ax.get_ylim()[1] < 10
    assert ax.get_yscale() == "linear"
    assert upper_limit(np.array([1.0, 2.0]), log=True) == 2.0


def test_sensitivity_refuses():
    with pytest.raises(ValueError, match=r"values\['a'\] has 3 rates, rates has 2"):
        plot.sensitivity([0.1, 1.0], {"a": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match="rates must be positive; got 0"):
        plot.sensitivity([0.0, 1.0], {"a": [1.0, 2.0]})


# schedules


def test_schedules_share_an_axes_or_have_panels():
    some = {
        "linear": gx.linear_schedule(1.0, 0.0, 4),
        "number": 0.5,
        "function": lambda step: 1 / (1 + step),
    }
    (ax,) = plot.schedules(some, 5, log=False).axes
    np.testing.assert_allclose(
        by_label(ax)["linear"].get_data(), [np.arange(5), [1, 0.75, 0.5, 0.25, 0]]
    )
    np.testing.assert_allclose(by_label(ax)["number"].get_ydata(), 0.5)
    np.testing.assert_allclose(by_label(ax)["function"].get_ydata()[:2], [1, 0.5])
    many = {f"step {i}": gx.step_decay(1.0, 0.5, i + 1) for i in range(7)}
    figure = plot.schedules(many, 10, title="Seven")
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in shown] == list(many)
    np.testing.assert_allclose(shown[1].get_lines()[0].get_ydata(), many["step 1"](jnp.arange(10)))
    assert figure.get_supxlabel() == "step"
    assert figure.get_suptitle() == "Seven"
    assert len([ax for ax in plot.schedules(some, 5, columns=2).axes if ax.get_visible()]) == 3
    with pytest.raises(ValueError, match="steps must be at least 1"):
        plot.schedules(some, 0)


# update-to-weight ratios


def test_ratios_are_measured_by_path_under_jit():
    params = {
        "dense": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.zeros(2)},
        "rest": jnp.zeros(1),
        "frozen": jnp.ones(1),
    }
    updates = {
        "dense": {"kernel": jnp.full((2, 2), 0.2), "bias": jnp.ones(2)},
        "rest": jnp.zeros(1),
        "frozen": None,
    }
    found = jax.jit(plot.ratios)(updates, params)
    assert sorted(found) == ["dense/bias", "dense/kernel", "rest"]
    np.testing.assert_allclose(
        [found["dense/kernel"], found["dense/bias"], found["rest"]], [0.1, np.inf, 0], rtol=1e-6
    )


def test_update_ratios_show_median_and_spread_per_layer():
    steps = 10.0 ** np.linspace(-4, -2, 101)
    figure = plot.update_ratios({"a/kernel": steps, "b": [0.0, np.inf]}, title="Adam")
    (ax,) = figure.axes
    assert ax.get_xscale() == "log"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a/kernel", "b"]
    points = [line.get_xdata() for line in ax.get_lines()]
    low, middle, median, mark = points
    np.testing.assert_allclose(np.log10(low), [-3.9, -2.1], atol=0.02)
    np.testing.assert_allclose(np.log10(middle), [-3.5, -2.5], atol=0.02)
    np.testing.assert_allclose(median, [1e-3], rtol=1e-6)
    np.testing.assert_allclose(mark, 1e-3)
    assert {text.get_text() for text in ax.texts} == {"does not move", "1e-3"}
    with pytest.raises(ValueError, match=r"ratios\['a'\] must be an array \[steps\]"):
        plot.update_ratios({"a": 1.0})


# figures


def test_a_figure_shows_itself_once_and_belongs_to_no_window():
    figure = plot.curves({"a": [1.0, 2.0]})
    png, size = shown(figure)
    assert png.startswith(b"\x89PNG")
    assert size == {"width": 700, "height": 400}
    assert Image.open(io.BytesIO(png)).size == (1400, 800)
    assert figure.canvas.manager is None


def test_the_legend_hides_no_data():
    figure = plot.curves({f"series {i}": np.ones(5) for i in range(9)})
    drawn(figure)
    (ax,) = figure.axes
    assert ax.get_legend().get_window_extent().x0 >= ax.get_window_extent().x1
    assert ax.get_legend().get_window_extent().x1 <= figure.bbox.x1


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    for name in [
        n
        for n in sys.modules
        if n.partition(".")[0] == "matplotlib" or n == "gradxform.plot.picture"
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        ModuleNotFoundError,
        match=r'gradxform.plot needs matplotlib.*pip install "gradxform\[cli\]"',
    ):
        plot.curves({"a": [1.0, 2.0]})


def test_importing_gradxform_imports_no_matplotlib():
    code = "import sys, gradxform; from gradxform import plot; print('matplotlib' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_the_palette_reads_the_same_to_colour_blind_eyes():
    """Any two of the first seven colours differ in lightness or in blue against yellow, which every kind of eye sees."""
    channels = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in PALETTE]) / 255
    light = channels @ [0.2126, 0.7152, 0.0722]
    yellow = channels[:, :2].mean(axis=1) - channels[:, 2]
    far = np.hypot(light[:, None] - light, yellow[:, None] - yellow)
    assert far[~np.eye(len(PALETTE), dtype=bool)].min() > 0.1
