"""What `gradxform sweep` trains: compare's data and models, as a function of everything that may be
swept.
"""

import contextlib
import dataclasses
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.cli.experiment import Experiment, evaluate, row_losses
from gradxform.cli.own import method_of
from gradxform.cli.parsing import MOST, NUMBERS, is_float32
from gradxform.cli.problems import Problem
from gradxform.cli.settings import COUNT, DECAY, RATES, is_kernel
from gradxform.sweep import Space, fit, grid, log_uniform, random
from gradxform.sweep.members import Arguments, find, interval

RATE_IN = {"warmup_cosine": "peak_value"}  # elsewhere init_value

# Limits of what belongs to the training and not to the optimizer, whose numbers have their own.
LIMITS = {
    "l2": DECAY,
    "label_smoothing": (lambda x: 0 <= x <= 1, "must lie in [0, 1]"),
    "init_scale": (is_float32, "must be finite, in float32"),
    "batch_size": COUNT["holds"], "epochs": COUNT["holds"],
    "hidden": (lambda widths: all(w >= 1 for w in widths), "must hold widths of at least 1"),
}  # fmt: skip
WHOLE = {"batch_size", "epochs"}
OTHERWISE = {
    "tx": "the methods are chosen with --methods", "key": "is made of the seed: --axis seed=0,1,2",
    "data": "is chosen with --data", "validation": "is a part of --data",
}  # fmt: skip


def _whole(x):
    """A float that is a whole number as an int, anything else as it is."""
    return int(x) if isinstance(x, float) and x.is_integer() else x


class Swept:
    """An experiment as the function that is swept, and its space."""

    def __init__(self, base: Experiment):
        self.base, self.settings = base, base.settings

    def train(self):
        """The function that is swept: every keyword is a name that an axis may have."""
        base, settings, task = self.base, self.settings, self.base.data.task
        built = settings.model in ("mlp", "cnn")
        own = {
            "tx": self.optimizer(self.settings.methods[0]), "l2": settings.l2,
            "label_smoothing": 0.0, "init_scale": 1.0,
            "batch_size": base.batch_size, "epochs": settings.epochs,
            "data": base.parts[0], "validation": base.parts[1],
        }  # fmt: skip
        own |= {"hidden": settings.hidden or (64, 64)} if built else {}
        if task == "regression":
            del own["label_smoothing"]

        def train(*, key, **given):
            a = own | given
            this = base.widened(a["hidden"]) if built else base

            def loss(params, batch, key):
                outputs = this.model.apply(params, batch["x"], key)
                value = jnp.mean(row_losses(task, outputs, batch["y"]))
                if task == "classification":
                    even = -jnp.mean(jax.nn.log_softmax(outputs))
                    value = value + a["label_smoothing"] * (even - value)
                kernels = [p for p in jax.tree.leaves(params) if is_kernel("", p)]
                return value + a["l2"] / 2 * sum(jnp.sum(jnp.square(p)) for p in kernels)

            def scaled(p):
                return p * a["init_scale"] if is_kernel("", p) else p

            def start(key):
                return jax.tree.map(scaled, this.model.init(key))

            return fit(
                loss, a["tx"], start, a["data"], epochs=a["epochs"], batch_size=a["batch_size"],
                validation=a["validation"],
                evaluate=lambda p, data: evaluate(this, p, data)[0], drop_last=True,
            )(key=key)  # fmt: skip

        kinds = inspect.Parameter
        named = [kinds(n, kinds.KEYWORD_ONLY, default=x) for n, x in own.items()]
        signature = inspect.Signature([kinds("key", kinds.KEYWORD_ONLY), *named])
        train.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
        return train

    def optimizer(self, name: str):
        """A method at the middle of its range, with the schedule and the decay asked for."""
        method = method_of(name)
        rate = float(np.sqrt(method.grid[0] * method.grid[1]))
        settings = dataclasses.replace(self.settings, l2=0.0)  # which is a number of the loss here
        return settings.transformation(method, rate, self.base.updates)

    def space(self) -> Space:
        """Every combination of the axes, or as many draws, for each method and seed."""
        settings, found = self.settings, Space([])
        for name in settings.axes.keys() & OTHERWISE.keys():
            raise Problem(f"--axis {name}: {OTHERWISE[name]}")
        many = math.prod(len(x) for x in settings.axes.values() if isinstance(x, list))
        if (settings.random or many) * settings.seeds * len(settings.methods) > MOST:
            raise Problem(f"--axis: these are more than {MOST:,} members; use fewer values")
        for name in settings.methods:  # the learning rate of a schedule is its peak
            scheduled = RATE_IN.get(settings.schedule, "init_value")
            method = method_of(name)
            rate = method.rate if settings.schedule == "none" else scheduled
            axes = {rate if k == "learning_rate" else k: x for k, x in settings.axes.items()}
            if not {rate, "tx"} & set(axes):
                span = log_uniform(*method.grid)
                values = [float(f"{x:.4g}") for x in span.points(RATES)]
                axes = {rate: span if settings.random else values} | axes
            drawn = random(settings.random, 0, axes) if settings.random else grid(axes)
            which = {"tx": {name: self.optimizer(name)}} if len(settings.methods) > 1 else {}
            found = found + grid(which, drawn)
        found = self.checked(found)
        return grid(found, seed=range(settings.seeds)) if settings.seeds > 1 else found

    def checked(self, space: Space) -> Space:
        """The space with whole numbers as such, or the Problem of a value that cannot be."""
        arguments, whole = Arguments(self.train()), WHOLE & {*space.names}
        known, rows = arguments.known_of(arguments.base), len(self.base.split.train["y"])
        if whole:  # of a range they come as floats
            space = Space(one | {k: _whole(one[k]) for k in whole & one.keys()} for one in space)
        for name in space.names:
            number, (holds, words) = name in LIMITS, LIMITS.get(name, (lambda x: True, ""))
            with contextlib.suppress(KeyError):  # that nothing has the name is said later
                number |= interval(arguments.base, find(name, known)) is not None
            for value in {one[name] for one in space if name in one and number}:
                text = f"--axis {name}={value}"
                if name in WHOLE and type(value) is not int:
                    raise Problem(f"{text}: expected whole numbers, a list such as 32,64")
                if isinstance(value, str | bool):
                    raise Problem(f"{text}: {value!r} is no number; expected {NUMBERS}")
                if not holds(value):
                    raise Problem(f"{text}: {name} {words}")
                if name == "batch_size" and value > rows:
                    raise Problem(f"{text}: is larger than the training part, {rows} rows")
        return space

    def test_of(self, params, hidden=None) -> dict[str, float]:
        """The metrics of parameters on the test data."""
        this = self.base.widened(hidden) if hidden else self.base
        metrics = evaluate(this, params, self.base.parts[2])[0]
        return {name: float(x) for name, x in metrics.items()}
