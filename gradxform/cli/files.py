"""What a command leaves behind: tables as CSV, pictures, versions, the table on the terminal."""

import csv
import io
import math
import platform
import re
import textwrap
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import gradxform as gx
from gradxform.cli.problems import need
from gradxform.plot.style import THEMES
from gradxform.sweep.store import write_atomically

MODULE = r"([A-Za-z_][\w.]*)\.\w+\("  # of a function that is called by its full name
KNOWN = {"jnp", "jax", "jax.random"}
Pictures = dict[tuple[str, str], bytes]  # by theme (light, dark) and shape (wide, narrow)


def to_csv(lines: list[dict]) -> bytes:
    """CSV with short numbers; what is not a number is left empty."""

    def short(x):
        if isinstance(x, float):
            return "" if math.isnan(x) else f"{x:.6g}"
        return x

    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: short(value) for name, value in line.items()} for line in lines)
    return text.getvalue().encode()


def drawn(draw: Callable[..., bytes], *given) -> Pictures:
    """A picture for light and dark pages, wide and narrow ones."""
    kinds = ((name, shape) for name in THEMES for shape in ("wide", "narrow"))
    return {at: draw(*given, theme=THEMES[at[0]], narrow=at[1] == "narrow") for at in kinds}


def write_files(folder: Path, files: dict[str, bytes], pictures: dict[str, Pictures]) -> None:
    """Write files, and pictures as they are on a light and wide page."""
    files = files | {f"{name}.png": found["light", "wide"] for name, found in pictures.items()}
    for name, content in files.items():
        write_atomically(folder / name, content)


def versions() -> dict[str, str]:
    """The versions that a result may depend on."""
    found = {"python": platform.python_version()}
    for name in ("gradxform", "jax", "jaxlib", "flax", "numpy", "scikit-learn"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def code_of(tx) -> str:
    """The code that builds an optimizer, imports included."""
    text = re.sub(r"\d+\.\d{9,}", lambda number: f"{float(number[0]):.6g}", repr(tx))
    names = sorted({name for name in re.findall(r"\b[a-z]\w*(?=\()", text) if hasattr(gx, name)})
    lines = [f"from gradxform import {', '.join(names)}"] if names else []
    lines += [f"import {module}" for module in sorted(set(re.findall(MODULE, text)) - KNOWN)]
    if "is_kernel" in text:
        lines.append("from gradxform.cli.settings import is_kernel")
    return "\n".join([*lines, "", f"tx = {text}"])


def _console():
    console = need("rich.console").Console(highlight=False)
    return console if console.is_terminal else type(console)(highlight=False, width=150)


def show_table(columns: dict[str, list[str]], left: str, least: tuple[str, ...] = ()) -> None:
    """Print a table on standard output, as wide as the terminal: cells by heading, those of `left`
    to the left. The columns of `least` give way where there is no room.
    """
    console = _console()
    heads = {name: "\n".join(textwrap.wrap(name, 11, break_long_words=False)) for name in columns}
    room = {name: [heads[name], *cells] for name, cells in columns.items()}
    names = fitting(room, console.width, least) if least else list(columns)
    table = need("rich.table").Table(box=need("rich.box").SIMPLE_HEAD, pad_edge=False)
    for name in names:
        justify = "left" if name == left else "right"
        table.add_column(heads[name] if least else name, justify=justify, no_wrap=True)
    text = need("rich.text").Text
    for cells in zip(*(columns[name] for name in names), strict=True):
        table.add_row(*map(text, cells))
    console.print(table)
    if hidden := [name for name in columns if name not in names and any(columns[name])]:
        say(f"For want of room, only in table.csv: {', '.join(hidden)}.")


def say(*lines: str) -> None:
    """Print sentences on standard output, broken where the terminal ends."""
    console = _console()
    for line in lines:
        console.print(line, markup=False)


def fitting(columns: dict[str, list[str]], width: int, least: tuple[str, ...]) -> list[str]:
    """The columns to show, each its heading and its cells: those with something in them, less the
    least important until they fit.
    """
    widths = {name: max(map(len, "\n".join(cells).split("\n"))) for name, cells in columns.items()}
    shown = [name for name, cells in columns.items() if any(cells[1:])]
    for start in least:
        if sum(widths[name] + 3 for name in shown) > width:
            shown = [name for name in shown if not name.startswith(start)]
    return shown
