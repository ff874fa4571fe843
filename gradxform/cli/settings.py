"""What a comparison or a sweep is: every option of the two commands, written once.

An option is a field of `Settings`; its metadata holds all that is known of it: the group and the
text of `--help`, how its text is read, which values it may have, which commands know it, and
whether it changes what is trained. The command line, the TOML file of a sweep, the checks and the
facts that `--resume` compares are read off the fields.
"""

import argparse
import hashlib
import importlib.util
import inspect
import math
import shlex
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import gradxform as gx
from gradxform.cli.methods import METHODS
from gradxform.cli.own import method_of
from gradxform.cli.parsing import (
    MOST,
    axis_text,
    is_float32,
    parse_axes,
    parse_hidden,
    parse_learning_rates,
    parse_methods,
    parse_rungs,
)
from gradxform.cli.problems import Problem, unknown

TASKS = ("classification", "regression")
INITS = ("default", "zeros", "constant", "xavier", "he")
RATES = 9  # learning rates per method, unless --learning-rates says otherwise
MAX_MEMBERS = 4096
MOST_PROCESSES = 1024
BOTH, COMPARE, SWEEP = ("compare", "sweep"), ("compare",), ("sweep",)
DEFAULTS = {"compare": {}, "sweep": {"methods": ("adam",), "seeds": 1}}  # where they differ

# name -> (the schedule of a peak learning rate over `n` updates, what --help and the report say)
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


COUNT = {"kind": int, "holds": (lambda x: x >= 1, "must be at least 1")}
DECAY = lambda x: x >= 0 and is_float32(x), "must be finite and not negative, in float32"
TOLD = "methods", "axes", "random", "target_accuracy", "target_loss", "rungs"  # beside the facts
KINDS = {int: "a number, a whole one", float: "a number", bool: "true or false", str: "a text"}


def option(group: str, metavar: str, text: str, default: Any = None, **more) -> Any:
    """A field of `Settings`, with its metadata.

    group, metavar, text: as `--help` shows them. commands: which know it. kind: int or float, bool
    for a flag, list for one that may be repeated, str otherwise. parse: from text to the value.
    among, holds: the values that it may have, `holds` as (predicate, words). fact: whether it
    changes what is trained.
    """
    about = {"group": group, "metavar": metavar, "help": text, "commands": BOTH, "kind": str,
             "parse": None, "among": None, "holds": None, "fact": True}  # fmt: skip
    how: dict[str, Any] = {"default_factory": dict} if default is dict else {"default": default}
    return field(metadata=about | more, **how)


_data, _model, _training, _tried = (
    partial(option, group) for group in ("data", "model", "training", "what is tried")
)
_running, _output = (partial(option, group, fact=False) for group in ("how it runs", "output"))


@dataclass(frozen=True)
class Settings:
    """Every option of `gradxform compare` and `gradxform sweep`, by the name of its flag."""

    # data
    data: str = _data("DATA",
        "digits (default), breast_cancer, wine, diabetes, a .csv with a header, or a .npz with "
        "arrays x (or X) and y; images are rows × height × width (× channels)",
        "digits")  # fmt: skip
    target: str | None = _data("COLUMN", "the column of a .csv to predict; the last one by default")
    task: str | None = _data("TASK",
        "classification or regression; by default, regression if the target is numeric and not "
        "whole numbers",
        among=TASKS)  # fmt: skip
    # model
    model: str = _model("MODEL",
        "linear, mlp (default), cnn, or module:factory, a function that is called with outputs=N "
        "and returns a flax.linen.Module taking (x) or (x, train), x as the data has it",
        "mlp")  # fmt: skip
    hidden: tuple[int, ...] | None = _model("WIDTHS",
        "hidden layers of mlp and cnn (default: 64,64)", parse=parse_hidden,
        holds=(lambda widths: all(w >= 1 for w in widths),
               "must hold widths of at least 1"))  # fmt: skip
    init: str = _model("INIT",
        "default (LeCun), zeros, constant (0.1), xavier or he, for all kernels",
        "default", among=INITS)  # fmt: skip
    dropout: float = _model("P", "after each hidden layer (default: 0)", 0.0, kind=float,
        holds=(lambda p: 0 <= p < 1, "must lie in [0, 1)"))  # fmt: skip
    # training
    epochs: int = _training("N", "default: 20", 20, **COUNT)
    batch_size: int | None = _training("N",
        "default: a power of two from 8 to 64, for about 16 updates per epoch or more",
        **COUNT)  # fmt: skip
    schedule: str = _training("NAME",
        "none (default), step (× 0.1 after each third), exponential (to 1 %%), inverse_time (to "
        "10 %%), inverse_sqrt, linear (to 0), cosine (to 0), warmup_cosine (a tenth of warmup)",
        "none", among=SCHEDULES)  # fmt: skip
    weight_decay: float = _training("X",
        "decoupled decay of kernels, instead of a method's own", 0.0,
        kind=float, holds=DECAY)  # fmt: skip
    l2: float = _training("X",
        "add X · kernel to the gradient of each kernel, instead of a method's own",
        0.0, kind=float, holds=DECAY, commands=COMPARE)  # fmt: skip
    patience: int | None = _training("N",
        "stop a member after N epochs without a better validation loss, and keep its best epoch",
        **COUNT, commands=COMPARE)  # fmt: skip
    # what is tried
    methods: tuple[str, ...] = _tried("LIST",
        "comma-separated: names, see `gradxform list`; all, the textbook's; module:factory, a "
        "function of the learning rate that returns a transformation or an Optax pair (default: "
        "all; in a sweep, adam)",
        tuple(METHODS), parse=parse_methods, fact=False)  # fmt: skip
    learning_rates: tuple[float, ...] | None = _tried("RATES",
        "low:high:count, evenly spaced in the logarithm, or a comma-separated list, for all "
        "methods; by default 9 in each method's own range",
        parse=parse_learning_rates, commands=COMPARE)  # fmt: skip
    axes: dict[str, Any] = option(  # noqa: RUF009
        "what is tried", "NAME=VALUES",
        "a list such as 0.8,0.9; low:high:count, evenly spaced in the logarithm; "
        "lin:low:high:count; may be repeated. Without an axis for it, the learning rate takes 9 "
        "values of the method's own range",
        dict, kind=list, commands=SWEEP, fact=False, flag="--axis")  # fmt: skip
    random: int | None = _tried("N",
        "draw N settings instead of every combination; axes may be low:high",
        kind=int, holds=(lambda n: 1 <= n <= MOST, f"must be at least 1 and at most {MOST:,}"),
        commands=SWEEP, fact=False)  # fmt: skip
    seeds: int = _tried("N",
        "initial parameters and batch orders to average over (default: 5; in a sweep, 1)",
        5, **COUNT)  # fmt: skip
    target_accuracy: float | None = _tried("A",
        "for `epochs to target`, from 0 to 1; by default 97 %% of the best method's",
        kind=float, holds=(lambda a: 0 < a <= 1, "must lie in (0, 1]"),
        commands=COMPARE, fact=False)  # fmt: skip
    target_loss: float | None = _tried("L",
        "the same for the loss; by default, for regression, 1.1 × the best method's",
        kind=float, holds=(lambda loss: 0 < loss < math.inf, "must be positive and finite"),
        commands=COMPARE, fact=False)  # fmt: skip
    rungs: tuple[int, ...] = _tried("EPOCHS",
        "compare members after these epochs, such as 2,6, and let the best third go on",
        (), parse=parse_rungs, commands=SWEEP, fact=False)  # fmt: skip
    # how it runs
    chunk: int | None = _running("N",
        "members trained at once (default: as many as fit into memory)",
        **COUNT)  # fmt: skip
    processes: int = _running("N", "processes that share the work (default: 1)", 1, kind=int,
        holds=(lambda n: 1 <= n <= MOST_PROCESSES,
               f"must be at least 1 and at most {MOST_PROCESSES}"))  # fmt: skip
    process: int | None = _running("I", "which of them this is, where each is started by hand",
        kind=int)  # fmt: skip
    wait: float = _running("SECONDS",
        "how long to wait for a sign of life from another process (default: 600)", 600.0,
        kind=float, holds=(lambda x: 0 < x < math.inf, "must be positive and finite"))  # fmt: skip
    no_cache: bool = _running("",
        "compile everything anew: neither read nor write the compiled programs "
        "that are kept in the user's cache folder", False, kind=bool)  # fmt: skip
    # output
    out: str | None = _output("DIR",
        "where to write; by default a new folder COMMAND-DATA-MODEL here")  # fmt: skip
    resume: bool = _output("",
        "go on with --out (by default the latest folder): skip what finished",
        False, kind=bool)  # fmt: skip
    quiet: bool = _output("", "no progress, only the table", False, kind=bool)

    @classmethod
    def of(cls, command: str, given: Mapping[str, Any], file: str | None = None) -> "Settings":
        """The settings given over those of a TOML file over the defaults of a command; checked."""
        before = _toml(Path(file), command) if file is not None else {}
        chosen = {**DEFAULTS[command], **before, **given}
        drawn = chosen.get("random") is not None
        axes = [parse_axes(some.get("axes", {}), drawn) for some in (before, given)]
        chosen["axes"] = axes[0] | axes[1]
        for about in fields(cls):
            parse, value = about.metadata["parse"], chosen.get(about.name)
            if parse and value is not None and not isinstance(value, tuple):  # a text, or of TOML
                text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
                chosen[about.name] = parse(text)
        return cls(**chosen).check()

    def check(self) -> "Settings":
        """Return self, or raise the Problem of the first impossible option."""
        for about in fields(self):
            value, more = getattr(self, about.name), about.metadata
            among, holds = more["among"], more["holds"]
            if value is None:
                continue
            if not more["parse"] and not _is(value, more["kind"]):
                raise Problem(f"{flag(about)} {value!r}: expected {KINDS[more['kind']]}")
            if among and value not in among:
                raise unknown(flag(about), value, among)
            if holds and not holds[0](value):
                shown = f"{value:g}" if isinstance(value, float) else value
                raise Problem(f"{flag(about)} {holds[1]}; got {shown}")
        if not self.methods:
            raise Problem("--methods is empty")
        for name in self.methods:
            method_of(name)
        if None not in (self.target_accuracy, self.target_loss):
            raise Problem("argument --target-loss: not allowed with argument --target-accuracy")
        if self.hidden is not None and self.model not in ("mlp", "cnn"):
            raise Problem(f"--hidden applies to mlp and cnn, not {self.model}")
        members = self.seeds * len(self.learning_rates or range(RATES))
        if members > MAX_MEMBERS:
            many = f"{members} members per method are more than {MAX_MEMBERS}"
            raise Problem(f"{many}; use fewer --seeds or --learning-rates")
        return self

    def command(self, name: str) -> str:
        """The command that these settings amount to, from scratch, without what a run's folder and
        display are.
        """
        words, default = ["gradxform", name], Settings.of(name, {})
        for about in fields(self):
            value, more = getattr(self, about.name), about.metadata
            told = more["fact"] or about.name in TOLD
            if not told or name not in more["commands"] or value == getattr(default, about.name):
                continue
            if more["kind"] is list:
                words += [w for k, x in value.items() for w in (flag(about), f"{k}={axis_text(x)}")]
                continue
            many = isinstance(value, tuple)
            words += [flag(about), ",".join(map(str, value)) if many else str(value)]
        return shlex.join(words)

    @property
    def share(self) -> tuple[int, int]:
        """Which process this is, of how many that share the work."""
        return (0, 1) if self.process is None else (self.process, self.processes)

    def facts(self, digest: str) -> dict[str, Any]:
        """The choices that change a trained member, as JSON values, with hashes of the data and of
        the user's own model file. Two runs with equal facts may share a folder.
        """
        names = [about.name for about in fields(self) if about.metadata["fact"]]
        facts = {name: getattr(self, name) for name in names} | {"data_digest": digest}
        if ":" in self.model:
            found = importlib.util.find_spec(self.model.partition(":")[0])
            if found and found.origin and Path(found.origin).is_file():
                content = Path(found.origin).read_bytes()
                facts["model_digest"] = hashlib.sha256(content).hexdigest()[:16]
        return {k: list(x) if isinstance(x, tuple) else x for k, x in facts.items()}

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
        if self.weight_decay:  # a schedule is proportional to its peak: the product is one again
            decay = schedule(self.weight_decay * learning_rate, updates)
            decayed = gx.add_decayed_weights(decay, mask=is_kernel)
            tx = gx.chain(tx, gx.scale(-1.0), decayed, gx.scale(-1.0))
        return gx.chain(gx.add_decayed_weights(self.l2, mask=is_kernel), tx) if self.l2 else tx


def _is(value, kind) -> bool:
    """Whether a value is of the kind of its option; a whole number is a number too."""
    if kind is list:
        return True  # the axes, which were parsed
    also = (int, float) if kind is float else kind
    return isinstance(value, also) and (kind is bool or not isinstance(value, bool))


def is_kernel(path: str, leaf) -> bool:
    """Whether decay acts on a parameter: one of two or more axes, so neither biases nor scales."""
    return leaf.ndim >= 2


def flag(about) -> str:
    """The flag of a field: `batch_size` is `--batch-size`."""
    return about.metadata.get("flag", "--" + about.name.replace("_", "-"))


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Every flag of a command, in the groups and in the order of the fields; what the user does not
    give is left out of the namespace.
    """
    groups: dict[str, Any] = {}
    for about in fields(Settings):
        more = about.metadata
        if command not in more["commands"]:
            continue
        if more["group"] not in groups:
            groups[more["group"]] = parser.add_argument_group(more["group"])
        how: dict[str, Any] = {"metavar": more["metavar"], "type": more["kind"]}
        if more["kind"] is bool:
            how = {"action": "store_true"}
        elif more["kind"] is list:
            how = {"metavar": more["metavar"], "action": "append"}
        how |= {"dest": about.name, "default": argparse.SUPPRESS, "help": more["help"]}
        groups[more["group"]].add_argument(flag(about), **how)


def _toml(path: Path, command: str) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text())
    except OSError as error:
        raise Problem(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Problem(f"{path}: is no TOML: {error}") from error
    known = [about.name for about in fields(Settings) if command in about.metadata["commands"]]
    for name in found:
        if name not in known:
            raise unknown(f"option in {path}:", name, known)
    if not isinstance(found.get("axes", {}), dict):
        text = "axes must be a table, such as [axes] and then learning_rate = [0.01, 0.1]"
        raise Problem(f"{path}: {text}")
    return found
