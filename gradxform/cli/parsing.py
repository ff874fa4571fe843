"""From the text of an option to its value."""

import contextlib
import math

import numpy as np

from gradxform.cli.methods import METHODS
from gradxform.cli.problems import Problem
from gradxform.sweep import Distribution, choice, log_uniform, uniform

NUMBERS = "a list such as 0.8,0.9, or low:high:count, lin:low:high:count"
MOST = 1_000_000  # values on an axis, and members


def is_float32(x: float) -> bool:
    """Whether a number is still finite, and not nothing, as a float32."""
    with np.errstate(over="ignore", under="ignore"):
        narrow = np.float32(x)
    return bool(np.isfinite(narrow)) and bool(narrow) == bool(x)


def parse_methods(text: str) -> tuple[str, ...]:
    """The methods that `--methods` names: a comma-separated list, or `all`."""
    if text == "all":
        return tuple(METHODS)
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def parse_learning_rates(text: str) -> tuple[float, ...]:
    """`0.001:1:9` is nine rates evenly spaced in the logarithm, `0.01,0.1` a list; ascending, no
    repeats.
    """
    expected = "expected low:high:count, such as 1e-4:1:9, or a list, such as 0.01,0.1"
    bad = Problem(f"--learning-rates {text!r}: {expected}")
    try:
        if ":" in text:
            low, high, count = text.split(":")
            low, high, count = float(low), float(high), int(count)
            if not (0 < low <= high < math.inf and 1 <= count <= MOST):
                raise bad
            rates = np.geomspace(low, high, count).tolist()
        else:
            rates = [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise bad from error
    if not rates or not all(rate > 0 and is_float32(rate) for rate in rates):
        must = "every rate must be positive and finite, in float32"
        raise Problem(f"--learning-rates {text!r}: {must}")
    return tuple(sorted({float(f"{rate:.6g}") for rate in rates}))


def parse_hidden(text: str) -> tuple[int, ...]:
    """`64,64` is two hidden layers; the empty string is none."""
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise Problem(f"--hidden {text!r}: expected whole numbers, such as 64,64") from error


def parse_rungs(text: str) -> tuple[int, ...]:
    """`2,6`: after two epochs and after six."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise Problem(f"--rungs {text!r}: expected epochs, such as 2,6") from error


def parse_axes(axes, drawn: bool) -> dict:
    """The axes of a sweep by name, from a table, or from texts `NAME=VALUES`."""
    if not isinstance(axes, dict):
        given, axes = axes, {}
        for text in given:
            name, values = (part.strip() for part in text.partition("=")[::2])
            if not name or not values:
                raise Problem(f"--axis {text!r}: expected NAME=VALUES, such as b1=0.8,0.9")
            if name in axes:
                raise Problem(f"--axis {name}: is given twice; write all values in one list")
            axes[name] = values
    return {name: parse_axis(name, x, drawn) for name, x in axes.items()}


def parse_axis(name: str, x, drawn: bool) -> list | Distribution:
    """The values of an axis: a list; `low:high:count` evenly spaced in the logarithm,
    `lin:low:high:count` evenly.

    Where settings are drawn, `low:high` and `lin:low:high` are ranges to draw from.
    """
    if isinstance(x, list):
        if not x:
            raise Problem(f"--axis {name}: has no values")
        values = [_value(name, v) for v in x]
        return choice(values) if drawn else values
    text = str(x)
    ranges = ", or with --random low:high, lin:low:high" if drawn else ""
    bad = Problem(f"--axis {name}={text}: expected {NUMBERS}{ranges}")
    if ":" not in text:
        values = [_value(name, part.strip()) for part in text.split(",") if part.strip()]
        if not values:
            raise bad
        return choice(values) if drawn else values
    even, parts = text.startswith("lin:"), text.removeprefix("lin:").split(":")
    try:
        low, high = float(parts[0]), float(parts[1])
        count = int(parts[2]) if len(parts) > 2 else None
    except (ValueError, IndexError) as error:
        raise bad from error
    sound = len(parts) <= 3 and -math.inf < low <= high < math.inf and (even or low > 0)
    if not sound or not (1 <= count <= MOST if count is not None else drawn):
        raise bad
    span = uniform(low, high) if even else log_uniform(low, high)
    if count is None:
        return span
    values = [float(f"{v:.6g}") for v in span.points(count)]
    return choice(values) if drawn else values


def axis_text(x: list | Distribution) -> str:
    """The text of which `parse_axis` makes these values again."""
    if isinstance(x, Distribution):
        if x.name.startswith("choice of "):
            return axis_text(x.points(int(x.name.removeprefix("choice of "))))
        low, high = x.points(2)
        return f"{'lin:' * x.name.startswith('uniform')}{low!r}:{high!r}"
    return ",".join("x".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in x)


def _value(name: str, x):
    if name == "hidden":
        try:
            return tuple(int(v) for v in (x if isinstance(x, list) else str(x).split("x")))
        except (TypeError, ValueError) as error:
            widths = "expected whole numbers, such as 32,64x64"
            raise Problem(f"--axis {name}={x}: {widths}") from error
    if isinstance(x, str):
        for kind in (int, float):
            with contextlib.suppress(ValueError):
                return kind(x)
        return {"true": True, "false": False}.get(x.lower(), x)
    if not isinstance(x, int | float):
        raise Problem(f"--axis {name}: {x!r} is neither a number nor a text")
    return x
