"""What a training is to a sweep: a function of its arguments that returns its results, or how to go
on step by step.

The user's own pure function, which returns parameters and metrics, metrics alone, or what `gx.fit`
returns:

    def train(tx=gx.adam(1e-3), key=None, l2=0.0):
        ...
        return params, {"loss": losses}

One that can pause, so that its metrics stream and members stop early:

    def train(tx=gx.adam(1e-3), key=None):
        return Paced(init, step, steps=20, params=lambda carry: carry.params)
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradxform.core.leaves import Tree
from gradxform.train import FitResult, Training
from gradxform.train.batches import whole


@dataclasses.dataclass(frozen=True)
class Paced:
    """A training that can pause after every step, which is an epoch, or whatever its author calls
    one.

    Attributes:
        init: () -> carry, all that one step hands to the next: arrays.
        step: carry -> (carry, dict of scalar metrics).
        steps: how many.
        params: carry -> the parameters to keep.
        active: carry -> [] bool, False once it has stopped; a member that has is left as it is.
        draw: carry -> what a step draws at random. With it, `step` takes that as its second
            argument, and it is compiled by itself: once for all structures that draw alike.
    """

    init: Callable[[], Tree]
    step: Callable[..., tuple[Tree, dict[str, jax.Array]]]
    steps: int
    params: Callable[[Tree], Tree] = lambda carry: carry
    active: Callable[[Tree], Tree] = lambda carry: jnp.ones((), bool)
    draw: Callable[[Tree], Tree] = lambda carry: None

    def __post_init__(self):
        whole("Paced: steps", self.steps)

    def advance(self, carry, drawn):
        """One step with what it draws, and its metrics as wide scalars.

        Raises:
            TypeError: no metrics, or one that is no real scalar.
        """
        carry, metrics = self.step(carry) if drawn is None else self.step(carry, drawn)
        if not isinstance(metrics, dict) or not metrics:
            must = "return (carry, metrics), a dict of scalars with at least one in it"
            raise TypeError(f"Paced: step must {must}; got {metrics!r}")
        return carry, {name: _real("Paced", name, x, 0) for name, x in metrics.items()}


def _real(owner: str, name: str, x, most: int) -> jax.Array:
    """A metric as real numbers of at most so many axes."""
    number = isinstance(x, float | int) or hasattr(x, "dtype")
    if not number or jnp.ndim(x) > most or jnp.iscomplexobj(x):
        each = "a real scalar" + " or one number per step" * (most > 0)
        raise TypeError(f"{owner}: each metric must be {each}; {name!r} is {x!r}")
    return jnp.asarray(x, float)


class Trained(NamedTuple):
    """A member after training.

    Attributes:
        params: any tree of arrays, or None.
        history: metrics by name, each [steps].
        ran: [] int32, steps that were run; later entries of history mean nothing.
    """

    params: Tree
    history: dict
    ran: int | jax.Array


def trained(out) -> Trained:
    """What the user's function returned, in one form.

    Raises:
        TypeError: neither metrics, (params, metrics) nor what `gx.fit` returns.
    """
    if isinstance(out, Trained):
        return out
    if isinstance(out, FitResult):
        return Trained(out.params, out.history, out.epochs_run)
    params, metrics = out if isinstance(out, tuple) and len(out) == 2 else (None, out)
    given: dict = metrics if isinstance(metrics, dict) else {"loss": metrics}
    history = {}
    for name, x in given.items():
        must = "sweep: train must return metrics, or (params, metrics)"
        history[name] = jnp.atleast_1d(_real(must, name, x, 1))
    lengths = {name: len(x) for name, x in history.items()}
    steps = max(lengths.values(), default=0)
    if not steps:
        raise TypeError("sweep: train returned no metrics")
    for name, n in lengths.items():
        if n not in (1, steps):
            they = f"{name!r} has {n}, another {steps}"
            raise TypeError(f"sweep: metrics have different numbers of steps: {they}")
        if n < steps:  # a scalar metric is what the member ended with
            history[name] = jnp.full(steps, jnp.nan, float).at[-1].set(history[name][-1])
    return Trained(params, history, jnp.full((), steps, jnp.int32))


def fit(
    loss, tx, params, data, *, epochs: int, batch_size: int, validation=None, evaluate=None,
    stopping=None, plateau=None, watch: str = "loss", drop_last: bool = False, eval_params=None,
):  # fmt: skip
    """`gx.fit` as a function to sweep: every argument here, and every keyword-only one of loss and
    init, is a name.

        def loss(params, batch, key, *, l2=0.0, label_smoothing=0.0): ...
        def init(key, *, scale=1.0): ...
        train = fit(loss, gx.adam(1e-3), init, data, epochs=20, batch_size=32)
        sweep(train, grid(learning_rate=[...], l2=[...], scale=[...]))

    `params` is a tree, or a function of the key; a step of the sweep is an epoch. `stopping` is a
    `gx.EarlyStopping`, whose patience is then a name too. The rest is said in `Training`.
    """
    if not callable(getattr(tx, "update", None)):
        order = "(loss, tx, params, data), as those of gx.fit"
        kind = f"tx is {type(tx).__name__}, no optimizer"
        raise TypeError(f"sweep.fit: the arguments are {order}; {kind}")
    if evaluate is not None and validation is None:
        raise ValueError("sweep.fit: evaluate judges validation data; give validation")
    if stopping is None and plateau is None and watch != "loss":
        what = "is for stopping or a plateau; neither is asked for"
        raise ValueError(f"sweep.fit: watch={watch!r} {what}")
    of_loss, of_init = _keywords(loss), _keywords(params) if callable(params) else {}
    own = {
        "tx": tx, "params": None if callable(params) else params, "epochs": epochs,
        "batch_size": batch_size, "data": data, "validation": validation, "stopping": stopping,
        "plateau": plateau,
    }  # fmt: skip
    for name in (*of_loss, *of_init):
        if name in own or (name in of_loss and name in of_init):
            advice = "give the one of loss or init another name"
            raise ValueError(f"sweep.fit: the keyword argument {name!r} is taken; {advice}")
    defaults = own | of_loss | of_init

    def train(*, key, **given):
        a = defaults | given
        of_this = functools.partial(loss, **{k: a[k] for k in of_loss}) if of_loss else loss
        training = Training(
            of_this, a["tx"], a["batch_size"], evaluate, a["stopping"], watch, a["plateau"],
            drop_last, True, eval_params,
        )  # fmt: skip
        training.check(a["data"], a["validation"], a["epochs"])

        def start():
            init_key, run_key = jax.random.split(key)
            own = a["params"]
            if own is None:
                own = params(init_key, **{k: a[k] for k in of_init})
            return training.init(own, run_key)

        return Paced(
            init=start,
            step=lambda carry: training.epoch(carry, a["data"], a["validation"]),
            steps=a["epochs"],
            params=lambda carry: training.result(carry, {}).params,
            active=lambda carry: carry.active,
        )

    named = functools.partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY)
    listed = [named("key"), *(named(name, default=x) for name, x in defaults.items())]
    train.__signature__ = inspect.Signature(listed)  # pyright: ignore[reportFunctionMemberAccess]
    return train


def _keywords(function):
    taken = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return {p.name: p.default for p in taken if p.default is not p.empty}
