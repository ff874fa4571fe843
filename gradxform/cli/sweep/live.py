"""What is shown while a sweep runs: a live table on a terminal, one line per chunk elsewhere.

with live(space) as progress:
    sweep(train, space, progress=progress)
"""

import sys
import time

import numpy as np

from gradxform.cli.problems import need
from gradxform.sweep.engine import Progress
from gradxform.sweep.result import better, shown
from gradxform.sweep.space import as_space

SHOWN = 8  # best members in the live table


class Plain(Progress):
    """One line per chunk on standard error, for logs and pipes."""

    def __init__(self, space):
        self.space = as_space(space)
        self.finished, self.trained, self.began, self.busy = 0, 0, time.perf_counter(), 0.0
        self.metric, self.mode = "", "min"
        self.latest: dict[int, tuple[float, int]] = {}  # member: its metric, at which step

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def begin(self, members, notes):
        for text in notes:
            self.say(text)

    def note(self, text):
        self.say(text)

    def step(self, members, step, metrics, metric, mode):
        self.metric, self.mode = metric, mode
        for member, value in zip(members.tolist(), metrics[metric], strict=True):
            if np.isfinite(value):
                self.latest[member] = float(value), step

    def done(self, members, trial, metric, mode, seconds, compile_seconds):
        self.metric, self.mode = metric, mode
        self.finished += len(members)
        self.trained += len(members)
        self.busy += seconds
        for member, value, ran in zip(
            members.tolist(), trial.scores(metric), trial.ran, strict=True
        ):
            self.latest[member] = float(value), int(ran)
        rows = self.best(1)
        best = f"best {rows[0][2]} (member {rows[0][0]})" if rows else "all diverged"
        compiling = f", {compile_seconds:.1f} s compiling" if compile_seconds > 0.05 else ""
        self.say(f"{best}; {self.speed()}{compiling}{self.left()}")

    def kept(self, members):
        self.finished += members

    def say(self, text: str) -> None:
        """Show a line."""
        print(f"[{self.finished}/{len(self.space)}] {text}", file=sys.stderr, flush=True)

    def speed(self) -> str:
        """Members trained per second, compilation aside."""
        return f"{self.trained / max(self.busy, 1e-9):,.3g} members/s"

    def left(self) -> str:
        """The time that remains, judged by the members trained so far."""
        rest = max(0, len(self.space) - self.finished)
        return (
            f", about {rest * self.busy / self.trained:.0f} s left" if rest and self.trained else ""
        )

    def best(self, most: int) -> list[tuple[int, str, str, int]]:
        """The best members so far: index, setting, metric, step."""
        values = [(member, *x) for member, x in self.latest.items() if np.isfinite(x[0])]
        values.sort(key=lambda row: -float(better(row[1], self.mode)))
        return [
            (member, _setting(self.space[member]), f"{value:.5g}", step)
            for member, value, step in values[:most]
        ]


class Live(Plain):
    """A table of the best members, under a bar with throughput and time left."""

    listens = True

    def __init__(self, space):
        super().__init__(space)
        self.lines: list[str] = []
        self.now = ""
        self.screen = need("rich.live").Live(
            console=need("rich.console").Console(stderr=True), auto_refresh=False
        )

    def __enter__(self):
        self.screen.start()
        return self

    def __exit__(self, *_):
        self.show()
        self.screen.stop()

    def say(self, text):
        self.lines = [*self.lines[-3:], text]
        self.show()

    def start(self, members, what):
        self.now = f"{len(members)} members under way: {what}"
        self.show()

    def step(self, members, step, metrics, metric, mode):
        super().step(members, step, metrics, metric, mode)
        self.now = f"{len(members)} members at step {step}"
        self.show()

    def kept(self, members):
        super().kept(members)
        self.show()

    def show(self) -> None:
        """Draw it anew."""
        table = need("rich.table").Table(box=need("rich.box").SIMPLE_HEAD, pad_edge=False)
        for name in ("member", "setting", self.metric or "metric", "step"):
            table.add_column(name, justify="left" if name == "setting" else "right")
        text = need("rich.text").Text
        for member, setting, value, step in self.best(SHOWN):
            table.add_row(str(member), text(setting), value, str(step))
        bar = need("rich.progress_bar").ProgressBar(
            total=len(self.space), completed=self.finished, width=40
        )
        head = text(
            f"{self.finished} of {len(self.space)} members, "
            f"{self.speed() if self.trained else 'compiling'}{self.left()}"
        )
        parts = [head, bar, text(self.now), table, *(text(line) for line in self.lines)]
        self.screen.update(need("rich.console").Group(*parts), refresh=True)


class Silent(Progress):
    """Shows nothing."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def live(space, quiet: bool = False):
    """The display that fits: none, a live table, or plain lines. To be used in a with statement."""
    return Silent() if quiet else Live(space) if sys.stderr.isatty() else Plain(space)


def _setting(setting) -> str:
    return ", ".join(
        f"{name}={x:.4g}" if isinstance(x := shown(v), float) else f"{name}={x}"
        for name, v in setting.items()
    )
