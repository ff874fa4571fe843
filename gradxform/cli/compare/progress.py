"""What is shown while methods train: live bars on a terminal, one line per method elsewhere, or
nothing.
"""

import sys
import time

from gradxform.cli.compare.results import Result
from gradxform.cli.problems import need


class Quiet:
    """Shows nothing. The other displays override what they show."""

    def __init__(self, methods: list[str], epochs: int):
        self.methods, self.epochs = methods, epochs
        self.finished, self.began = 0, time.perf_counter()
        self.trained = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def begin(self, name: str) -> None:
        """A method starts: it is compiled first."""

    def epoch(self, name: str, number: int, best: str, speed: float) -> None:
        """An epoch of all members of a method has ended."""

    def done(self, name: str, result: Result) -> None:
        """A method is trained, tested and saved."""
        self.finished += 1
        self.trained += 1

    def kept(self, name: str) -> None:
        """A method was finished in an earlier run."""
        self.finished += 1

    def failed(self, name: str, reason: str) -> None:
        """A method could not be trained."""
        self.finished += 1

    def left(self) -> float | None:
        """Seconds that remain, judged by the methods trained so far."""
        if not self.trained:
            return None
        return (
            (time.perf_counter() - self.began) / self.trained * (len(self.methods) - self.finished)
        )


class Plain(Quiet):
    """One line per method on standard error, for logs and pipes."""

    def _line(self, text: str) -> None:
        print(f"[{self.finished}/{len(self.methods)}] {text}", file=sys.stderr, flush=True)

    def epoch(self, name, number, best, speed):
        self.best = best

    def done(self, name, result):
        super().done(name, result)
        left = self.left()
        self._line(
            f"{name}: best validation {self.best}, {result.updates_per_second:,.0f} updates/s, "
            f"{result.seconds:.1f} s ({result.compile_seconds:.1f} s compiling), about {left:.0f} "
            "s left"
        )

    def kept(self, name):
        super().kept(name)
        self._line(f"{name}: finished before")

    def failed(self, name, reason):
        super().failed(name, reason)
        self._line(f"{name}: failed: {reason}")


class Live(Quiet):
    """A row per method: a bar of epochs, the best result, the throughput; and the time left for
    all.
    """

    def __init__(self, methods, epochs):
        super().__init__(methods, epochs)
        rich = need("rich.progress")
        console = need("rich.console").Console(stderr=True)
        self.bars = rich.Progress(
            rich.TextColumn("{task.description:<18}"),
            rich.BarColumn(bar_width=24),
            rich.TextColumn("{task.fields[note]}"),
            console=console,
        )
        self.tasks = {name: self.bars.add_task(name, total=epochs, note="") for name in methods}
        self.total = self.bars.add_task("[bold]all methods", total=len(methods), note="")

    def __enter__(self):
        self.bars.start()
        return self

    def __exit__(self, *_):
        self.bars.stop()

    def _all(self) -> None:
        left = self.left()
        note = (
            ""
            if left is None
            else f"about {left:.0f} s left"
            if self.finished < len(self.methods)
            else ""
        )
        self.bars.update(self.total, completed=self.finished, note=note)

    def begin(self, name):
        self.bars.update(self.tasks[name], note="compiling")

    def epoch(self, name, number, best, speed):
        note = f"epoch {number}/{self.epochs}   best {best}   {speed:,.0f} updates/s"
        self.bars.update(self.tasks[name], completed=number, note=note)

    def done(self, name, result):
        super().done(name, result)
        self.bars.update(self.tasks[name], completed=self.epochs)
        self._all()

    def kept(self, name):
        super().kept(name)
        self.bars.update(self.tasks[name], completed=self.epochs, note="finished before")
        self._all()

    def failed(self, name, reason):
        super().failed(name, reason)
        self.bars.update(self.tasks[name], note=f"[red]failed[/red]: {reason[:60]}")
        self._all()


def display(methods: list[str], epochs: int, quiet: bool) -> Quiet:
    """The display that fits: none, live, or plain lines."""
    kind = Quiet if quiet else Live if sys.stderr.isatty() else Plain
    return kind(methods, epochs)
