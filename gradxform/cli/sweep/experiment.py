"""What `gradxform sweep` trains: compare's data and models, as a function of everything that may be
swept.
"""

import dataclasses
import inspect
import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.cli import data as datasets
from gradxform.cli import models
from gradxform.cli.compare import run as compare
from gradxform.cli.methods import METHODS
from gradxform.cli.problems import Problem, unknown
from gradxform.cli.settings import RATES, Settings, is_kernel, parse_hidden, parse_methods
from gradxform.sweep import Distribution, Space, choice, fit, grid, log_uniform, random, uniform

RATE_IN = {
    "warmup_cosine": "peak_value"
}  # what the learning rate is called in a schedule; elsewhere init_value


OPTIONS = (
    "data", "target", "task", "model", "hidden", "init", "dropout", "batch_size", "epochs", "schedule", "weight_decay",
    "methods", "seeds", "random", "rungs", "chunk",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What is swept: the settings that compare knows, the axes by name, and how it runs."""

    settings: Settings
    methods: tuple[str, ...] = ("adam",)
    axes: dict[str, Any] = field(default_factory=dict)
    random: int | None = None
    rungs: tuple[int, ...] = ()
    chunk: int | None = None


def plan(given: dict[str, Any], axes: dict[str, str], file: str | None) -> Plan:
    """The plan of flags (None where not given) over the choices of a TOML file over the defaults."""
    chosen: dict[str, Any] = {"seeds": 1}
    if file is not None:
        chosen |= _toml(Path(file))
        axes = chosen.pop("axes", {}) | axes
    chosen |= {name: x for name, x in given.items() if x is not None}
    known = Settings.__dataclass_fields__
    rest = {name: chosen.pop(name) for name in list(chosen) if name not in known}
    if "hidden" in chosen:
        chosen["hidden"] = (
            parse_hidden(chosen["hidden"])
            if isinstance(chosen["hidden"], str)
            else tuple(chosen["hidden"])
        )
    methods = rest.get("methods", "adam")
    drawn = rest.get("random")
    try:
        rungs = rest.get("rungs", ())
        rungs = tuple(int(x) for x in (rungs.split(",") if isinstance(rungs, str) else rungs))
    except ValueError as error:
        raise Problem(f"--rungs {rest['rungs']!r}: expected epochs, such as 2,6") from error
    return Plan(
        Settings(**chosen).check(),
        parse_methods(methods if isinstance(methods, str) else ",".join(methods), METHODS),
        {name: parse_axis(name, x, drawn is not None) for name, x in axes.items()},
        drawn,
        rungs,
        rest.get("chunk"),
    )


def _toml(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text())
    except OSError as error:
        raise Problem(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Problem(f"{path}: is no TOML: {error}") from error
    for name in found:
        if name not in (*OPTIONS, "axes"):
            raise unknown(f"option in {path}:", name, (*OPTIONS, "axes"))
    if not isinstance(found.get("axes", {}), dict):
        raise Problem(
            f"{path}: axes must be a table, such as [axes] and then learning_rate = [0.01, 0.1]"
        )
    return found


def parse_axis(name: str, x: Any, drawn: bool) -> list[Any] | Distribution:
    """The values of an axis: a list; `low:high:count` evenly spaced in the logarithm,
    `lin:low:high:count` evenly.

    Where settings are drawn, `low:high` and `lin:low:high` are ranges to draw from.
    """
    if isinstance(x, list):
        return choice([_value(name, v) for v in x]) if drawn else [_value(name, v) for v in x]
    text = str(x)
    bad = Problem((f"--axis {name}={text}: expected a list such as 0.8,0.9, or low:high:count, "
                  "lin:low:high:count")
                  + (", or with --random low:high, lin:low:high" if drawn else ""))  # fmt: skip
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
    if not sound or (count is None and not drawn) or (count is not None and count < 1):
        raise bad
    span = uniform(low, high) if even else log_uniform(low, high)
    if count is None:
        return span
    values = [float(f"{v:.6g}") for v in span.points(count)]
    return choice(values) if drawn else values


def _value(name: str, x: Any) -> Any:
    if name == "hidden":
        return tuple(int(v) for v in (x if isinstance(x, list) else str(x).split("x")))
    if isinstance(x, str):
        for kind in (int, float):
            try:
                return kind(x)
            except ValueError:
                continue
    return x


class Experiment:
    """The data, split and standardised, and the function that is swept."""

    def __init__(self, chosen: Plan):
        self.plan, settings = chosen, chosen.settings
        self.data = datasets.load(settings.data, settings.target, settings.task)
        self.split = datasets.split(self.data)
        self.base = compare.Experiment(
            settings, self.data, self.split, self.model(settings.hidden)
        ).check()
        self.train_data, self.validation, self.test = (
            jax.tree.map(jnp.asarray, part) for part in self.split[:3]
        )

    def model(self, hidden) -> models.Model:
        """The model with hidden layers of these widths."""
        settings = self.plan.settings
        return models.build(settings.model, self.data, hidden, settings.init, settings.dropout)

    def train(self):
        """The function that is swept: every keyword is a name that an axis may have."""
        settings, task = self.plan.settings, self.data.task
        built = settings.model in ("mlp", "cnn")
        own = {
            "tx": self.optimizer(self.plan.methods[0]), "l2": settings.l2, "label_smoothing": 0.0, "init_scale": 1.0,
            "batch_size": self.base.batch_size, "epochs": settings.epochs,
            "data": self.train_data, "validation": self.validation,
        }  # fmt: skip
        own |= {"hidden": settings.hidden or (64, 64)} if built else {}
        if task == "regression":
            del own["label_smoothing"]

        def train(*, key, **given):
            a = own | given
            model = self.model(a["hidden"]) if built else self.base.model

            def loss(params, batch, key):
                outputs = model.apply(params, batch["x"], key)
                value = jnp.mean(compare.row_losses(task, outputs, batch["y"]))
                if task == "classification":
                    even = -jnp.mean(jax.nn.log_softmax(outputs))
                    value = value + a["label_smoothing"] * (even - value)
                kernels = [p for p in jax.tree.leaves(params) if is_kernel("", p)]
                return value + a["l2"] / 2 * sum(jnp.sum(jnp.square(p)) for p in kernels)

            def start(key):
                return jax.tree.map(
                    lambda p: p * a["init_scale"] if is_kernel("", p) else p, model.init(key)
                )

            def evaluate(params, data):
                return compare.evaluate(self.base._replace(model=model), params, data)[0]

            return fit(
                loss, a["tx"], start, a["data"], epochs=a["epochs"], batch_size=a["batch_size"],
                validation=a["validation"], evaluate=evaluate, drop_last=True,
            )(key=key)  # fmt: skip

        kinds = inspect.Parameter
        listed = [
            kinds("key", kinds.KEYWORD_ONLY),
            *(kinds(n, kinds.KEYWORD_ONLY, default=x) for n, x in own.items()),
        ]
        train.__signature__ = inspect.Signature(listed)  # pyright: ignore[reportFunctionMemberAccess]
        return train

    def optimizer(self, name: str):
        """A method at the middle of its range, with the schedule and the decay that were asked for."""
        method = METHODS[name]
        rate = float(np.sqrt(method.grid[0] * method.grid[1]))
        settings = dataclasses.replace(
            self.plan.settings, l2=0.0
        )  # which is a number of the loss here
        return settings.transformation(method, rate, self.base.updates)

    def space(self) -> Space:
        """Every combination of the axes, or as many draws, for each method and seed."""
        chosen = self.plan
        found = Space([])
        for name in chosen.methods:
            axes = dict(chosen.axes)
            rate = (
                "learning_rate"
                if chosen.settings.schedule == "none"
                else RATE_IN.get(chosen.settings.schedule, "init_value")
            )
            if "learning_rate" in axes and rate != "learning_rate":
                axes = {
                    rate if k == "learning_rate" else k: x for k, x in axes.items()
                }  # the schedule's peak
            if not {rate, "tx"} & set(axes):
                span = log_uniform(*METHODS[name].grid)
                axes = {
                    rate: span if chosen.random else [float(f"{x:.4g}") for x in span.points(RATES)]
                } | axes
            drawn = random(chosen.random, 0, axes) if chosen.random else grid(axes)
            found = found + grid(
                {"tx": {name: self.optimizer(name)}} if len(chosen.methods) > 1 else {}, drawn
            )
        return (
            grid(found, seed=range(chosen.settings.seeds)) if chosen.settings.seeds > 1 else found
        )

    def test_of(self, params, hidden=None) -> dict[str, float]:
        """The metrics of parameters on the test data."""
        model = self.model(hidden) if hidden else self.base.model
        metrics = compare.evaluate(self.base._replace(model=model), params, self.test)[0]
        return {name: float(x) for name, x in metrics.items()}
