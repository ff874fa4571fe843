"""What one comparison is: every choice that changes a trained member, checked, and hashed for
`--resume`.
"""

import dataclasses
import hashlib
import importlib.util
import inspect
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

import gradxform as gx
from gradxform.cli.problems import Problem, unknown

TASKS = ("classification", "regression")


INITS = ("default", "zeros", "constant", "xavier", "he")


RATES = 9  # learning rates per method, unless --learning-rates says otherwise


MAX_MEMBERS = 4096


# name -> (the schedule of a peak learning rate over `n` updates, what --help and the report say of
# it)
SCHEDULES: dict[str, tuple[Callable, str]] = {
    "none": (lambda lr, n: lr, "constant"),
    "step": (
        lambda lr, n: gx.exponential_decay(lr, n / 3, 0.1, staircase=True),
        "× 0.1 after each third",
    ),
    "exponential": (lambda lr, n: gx.exponential_decay(lr, n, 0.01), "smoothly to 1 %"),
    "inverse_time": (lambda lr, n: gx.inverse_time_decay(lr, 9.0 / n), "lr / (1 + 9 t/T), to 10 %"),
    "inverse_sqrt": (lambda lr, n: gx.inverse_sqrt_decay(lr), "lr / √(1 + t)"),
    "linear": (lambda lr, n: gx.linear_schedule(lr, 0.0, n), "straight to 0"),
    "cosine": (gx.cosine_decay_schedule, "half a cosine to 0"),
    "warmup_cosine": (
        lambda lr, n: gx.warmup_cosine_decay_schedule(0.0, lr, max(1, n // 10), n),
        "up from 0 over a tenth, then half a cosine to 0",
    ),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Every choice that changes a trained member. Two runs with equal `facts` may share a folder."""

    data: str = "digits"
    target: str | None = None
    task: str | None = None
    model: str = "mlp"
    hidden: tuple[int, ...] | None = None  # (64, 64) where the model has hidden layers
    init: str = "default"
    dropout: float = 0.0
    batch_size: int | None = None
    epochs: int = 20
    schedule: str = "none"
    weight_decay: float = 0.0
    l2: float = 0.0
    patience: int | None = None
    learning_rates: tuple[float, ...] | None = None
    seeds: int = 3

    def check(self) -> "Settings":
        """Return self, or raise the Problem of the first impossible option."""
        _in("--task", self.task, (None, *TASKS))
        _in("--init", self.init, INITS)
        _in("--schedule", self.schedule, SCHEDULES)
        for flag in ("--batch-size", "--epochs", "--seeds", "--patience"):
            value = getattr(self, flag[2:].replace("-", "_"))
            _require(value is None or value >= 1, f"{flag} must be at least 1; got {value}")
        _require(0 <= self.dropout < 1, f"--dropout must lie in [0, 1); got {self.dropout:g}")
        for flag, value in (("--weight-decay", self.weight_decay), ("--l2", self.l2)):
            _require(
                0 <= value < math.inf, f"{flag} must be finite and not negative; got {value:g}"
            )
        _require(
            self.hidden is None or self.model in ("mlp", "cnn"),
            f"--hidden applies to mlp and cnn, not {self.model}",
        )
        _require(
            all(width >= 1 for width in self.hidden or ()),
            f"--hidden must hold widths of at least 1; got {self.hidden}",
        )
        members = self.seeds * len(self.learning_rates or range(RATES))
        _require(
            members <= MAX_MEMBERS,
            f"{members} members per method are more than {MAX_MEMBERS}; use fewer --seeds or "
            "--learning-rates",
        )
        return self

    def facts(self, digest: str) -> dict:
        """The settings as JSON values, with hashes of the data and of the user's own model file."""
        facts = dataclasses.asdict(self) | {"data_digest": digest}
        if ":" in self.model:
            found = importlib.util.find_spec(self.model.partition(":")[0])
            if found and found.origin and Path(found.origin).is_file():
                facts["model_digest"] = hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()[
                    :16
                ]
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in facts.items()
        }

    def rates(self, method) -> np.ndarray:
        """The learning rates a method is tried at, ascending."""
        if self.learning_rates is not None:
            return np.asarray(self.learning_rates, np.float32)
        low, high = method.grid
        return np.geomspace(low, high, RATES).astype(np.float32)

    def transformation(self, method, learning_rate, updates: int):
        """The method at one learning rate, scheduled over so many updates, with the decay that was
        asked for.

        L2 joins the gradient before the method sees it. Decoupled decay joins the step after it,
        times the learning rate. Both act on kernels, and take the place of a decay that the method
        has by default.
        """
        schedule = SCHEDULES[self.schedule][0]
        arguments = inspect.signature(method.constructor).parameters
        replaced = {"weight_decay": self.weight_decay, "l2": self.l2}
        without = {name: 0.0 for name, value in replaced.items() if value and name in arguments}
        tx = method.make(schedule(learning_rate, updates), **without)
        if (
            self.weight_decay
        ):  # every schedule is proportional to its peak, so the product is a schedule again
            decay = gx.add_decayed_weights(
                schedule(self.weight_decay * learning_rate, updates), mask=is_kernel
            )
            tx = gx.chain(tx, gx.scale(-1.0), decay, gx.scale(-1.0))
        return gx.chain(gx.add_decayed_weights(self.l2, mask=is_kernel), tx) if self.l2 else tx


def is_kernel(path: str, leaf) -> bool:
    """Whether decay acts on a parameter: if it has two or more axes, so neither biases nor scales."""
    return leaf.ndim >= 2


def parse_methods(text: str, known: dict) -> tuple[str, ...]:
    """The methods that `--methods` names: a comma-separated list, or `all`."""
    if text == "all":
        return tuple(known)
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    _require(bool(names), "--methods is empty")
    for name in names:
        if name not in known:
            raise unknown("method", name, known)
    return names


def parse_learning_rates(text: str) -> tuple[float, ...]:
    """`0.001:1:9` is nine rates evenly spaced in the logarithm, `0.01,0.1` a list; ascending, no
    repeats.
    """
    bad = Problem(
        f"--learning-rates {text!r}: expected low:high:count, such as 1e-4:1:9, or a list, such as "
        "0.01,0.1"
    )
    try:
        if ":" in text:
            low, high, count = text.split(":")
            low, high, count = float(low), float(high), int(count)
            if not (0 < low <= high < math.inf and count >= 1):
                raise bad
            rates = np.geomspace(low, high, count).tolist()
        else:
            rates = [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise bad from error
    _require(
        bool(rates) and all(0 < rate < math.inf for rate in rates),
        f"--learning-rates {text!r}: every rate must be positive and finite",
    )
    return tuple(sorted({float(f"{rate:.6g}") for rate in rates}))


def parse_hidden(text: str) -> tuple[int, ...]:
    """`64,64` is two hidden layers; the empty string is none."""
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise Problem(f"--hidden {text!r}: expected whole numbers, such as 64,64") from error


def _in(flag: str, value, known) -> None:
    if value not in known:
        raise unknown(flag, value, [name for name in known if name])


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Problem(otherwise)
