"""What is shown while members train: a live table on a terminal, lines elsewhere, or nothing."""

import sys
import time

import numpy as np

from gradxform.cli.problems import need
from gradxform.cli.words import is_accuracy, measure, measured
from gradxform.sweep.result import better, shown
from gradxform.sweep.space import as_space
from gradxform.sweep.stretches import Progress

SHOWN = 8  # best members in the live table


class Lines(Progress):
    """One line for each thing that ends, on standard error, for logs and pipes; `total` things."""

    heads: tuple[str, ...] = ()

    def __init__(self, total: int, quiet: bool = False):
        self.total, self.quiet, self.began = total, quiet, time.perf_counter()
        self.finished, self.trained, self.now = 0, 0, ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def say(self, text: str) -> None:
        """Show a line."""
        if not self.quiet:
            print(f"[{self.finished}/{self.total}] {text}", file=sys.stderr, flush=True)

    def show(self) -> None:
        """Draw anew what is drawn."""

    def left(self) -> str:
        """The time that remains, judged by what was trained so far."""
        rest, passed = self.total - self.finished, time.perf_counter() - self.began
        return f", about {rest * passed / self.trained:.0f} s left" if rest and self.trained else ""

    def rows(self) -> list[tuple[str, ...]]:
        """The rows of the live table."""
        return []


class Screen(Lines):
    """A live table under a bar, with the last lines below it."""

    listens = True

    def __enter__(self):
        console = need("rich.console").Console(stderr=True)
        self.lines: list[str] = []
        self.screen = need("rich.live").Live(console=console, auto_refresh=False)
        self.screen.start()
        return self

    def __exit__(self, *_):
        self.show()
        self.screen.stop()

    def say(self, text):
        self.lines = [*self.lines[-3:], text]
        self.show()

    def show(self):
        table = need("rich.table").Table(box=need("rich.box").SIMPLE_HEAD, pad_edge=False)
        for name in self.heads:
            table.add_column(name, justify="left" if name in ("method", "setting", "") else "right")
        text = need("rich.text").Text
        for row in self.rows():
            table.add_row(*map(text, row))
        bar = need("rich.progress_bar").ProgressBar(self.total, self.finished, width=40)
        parts = [text(f"{self.finished} of {self.total}{self.left()}"), bar, text(self.now), table]
        parts += map(text, self.lines)
        self.screen.update(need("rich.console").Group(*parts), refresh=True)


class Members(Lines):
    """A sweep: a line for each chunk, or the best members so far."""

    def __init__(self, space, quiet: bool = False):
        super().__init__(len(as_space(space)), quiet)
        self.space, self.busy, self.metric, self.mode = as_space(space), 0.0, "metric", "min"
        self.latest: dict[int, tuple[float, int]] = {}  # member: its metric, at which step

    @property
    def heads(self):
        return "member", "setting", measure(self.metric), "epoch"

    def begin(self, members, notes):
        for text in notes:
            self.say(text)

    def note(self, text):
        self.say(text)

    def start(self, members, what):
        self.now = f"{len(members)} members under way: {what}"
        self.show()

    def step(self, members, step, metrics, metric, mode):
        self.metric, self.mode = metric, mode
        self.now = f"{len(members)} members at epoch {step}"
        for member, value in zip(members.tolist(), metrics[metric], strict=True):
            if np.isfinite(value):
                self.latest[member] = float(value), step
        self.show()

    def done(self, members, trial, metric, mode, seconds, compile_seconds):
        self.metric, self.mode = metric, mode
        self.finished += len(members)
        self.trained += len(members)
        self.busy += seconds
        scores = zip(members.tolist(), trial.scores(metric), trial.ran, strict=True)
        self.latest |= {member: (float(value), int(ran)) for member, value, ran in scores}
        rows, percent = self.rows(), " %" * is_accuracy(metric)
        best = f"best {rows[0][2]}{percent} (member {rows[0][0]})" if rows else "all diverged"
        compiling = f", {compile_seconds:.1f} s compiling" if compile_seconds > 0.05 else ""
        speed = f"{self.trained / max(self.busy, 1e-9):,.3g} members/s"
        self.say(f"{best}; {speed}{compiling}{self.left()}")

    def kept(self, members):
        self.finished += members
        self.show()

    def rows(self):
        values = [(member, *x) for member, x in self.latest.items() if np.isfinite(x[0])]
        values.sort(key=lambda row: -float(better(row[1], self.mode)))
        return [
            (str(member), _setting(self.space[member]), measured(self.metric, value), str(step))
            for member, value, step in values[:SHOWN]
        ]


class Methods(Lines):
    """A comparison: a line for each method, or what each of them is doing."""

    heads = ("method", "")

    def __init__(self, names: list[str], epochs: int, quiet: bool = False):
        super().__init__(len(names), quiet)
        self.epochs, self.name, self.best = epochs, "", np.nan
        self.doing = dict.fromkeys(names, "")

    def turn(self, name: str) -> None:
        """A method starts: it is compiled first."""
        self.name, self.best = name, np.nan
        self._is("compiling")

    def step(self, members, step, metrics, metric, mode):
        pick, values = np.fmax if mode == "max" else np.fmin, metrics[metric]
        self.best = pick.reduce(values, initial=self.best, where=np.isfinite(values))
        self.shown = f"{100 * self.best:.1f} %" if mode == "max" else f"{self.best:.4g}"
        self._is(f"epoch {step}/{self.epochs}   best {self.shown}")

    def ended(self, result, speed: float) -> None:
        """The method is trained, tested and saved."""
        self.trained += 1
        text = f"best validation {self.shown}, {speed:,.0f} updates/s, {result.seconds:.1f} s"
        self._end(f"{text} ({result.compile_seconds:.1f} s compiling)", left=True)

    def found(self, name: str) -> None:
        """A method was finished in an earlier run."""
        self.name = name
        self._end("finished before")

    def failed(self, reason: str) -> None:
        """The method could not be trained."""
        self._end(f"failed: {reason}")

    def _is(self, text: str) -> None:
        self.doing[self.name] = text
        self.show()

    def _end(self, text: str, left: bool = False) -> None:
        self.finished += 1
        self._is(text)
        self.say(f"{self.name}: {text}{self.left() if left else ''}")

    def rows(self):
        return list(self.doing.items())


class MembersScreen(Screen, Members):
    """A sweep on a terminal."""


class MethodsScreen(Screen, Methods):
    """A comparison on a terminal."""

    def say(self, text):
        self.show()  # its row says it


def on_terminal(quiet: bool) -> bool:
    """Whether the live display is wanted and can be shown."""
    return not quiet and sys.stderr.isatty()


def members(space, quiet: bool = False) -> Members:
    """The display of a sweep that fits: none, a live table, or lines; for a with statement."""
    return (MembersScreen if on_terminal(quiet) else Members)(space, quiet)


def methods(names: list[str], epochs: int, quiet: bool = False) -> Methods:
    """The display of a comparison that fits."""
    return (MethodsScreen if on_terminal(quiet) else Methods)(names, epochs, quiet)


def _setting(setting) -> str:
    values = {name: shown(v) for name, v in setting.items()}
    texts = {name: f"{x:.4g}" if isinstance(x, float) else str(x) for name, x in values.items()}
    return ", ".join(map("=".join, texts.items()))
