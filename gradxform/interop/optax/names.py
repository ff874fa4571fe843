"""Optax's public names, and what each is here: the same, different, or passed through to Optax.

`import gradxform as optax` finds its names by this module, and `gradxform list --compatibility`
prints them. What a machine can check is not written down: a name is the same where every call that
Optax's signature takes is taken here, with the same defaults, and tests compare the two. The words
for what differs stand in `HOW`. What is not ours is Optax's own, resolved when it is asked for.
"""

import collections.abc
import difflib
import functools
import inspect
import types
import typing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any, NamedTuple

from gradxform.interop.optax import aliases
from gradxform.interop.optax.classes import is_state, state_class
from gradxform.interop.optax.real import real

# Optax's modules, in the order of the table. The names of the second group are their own; those of
# the first are gradxform's too.
SHARED = ("optax", "optax.contrib", "optax.schedules", "optax.transforms", "optax.losses")


APART = ("tree", "tree_utils", "projections", "second_order", "microbatching", "assignment")
APART += ("perturbations", "experimental", "experimental.aggregating")

SAME, DIFFERENT, PASSED, ABSENT = "same", "different", "passed through", "absent"

_NO_SEED = "there is no `seed=`, which Optax deprecates"
_KEY = f"`key=` is required, an integer or a `jax.random` key; {_NO_SEED}"
_SCALAR = "a scalar does not widen a leaf: bfloat16 times a float32 scalar is bfloat16"
_SUM = "computed in float32 or wider: of a bfloat16 tree it is float32"
_NORM = f"{_SUM}; its slope at a zero tree is 0, not NaN"
_AVERAGE = "the average keeps its dtype, whatever that of the update"
_NAMES = "`count`, `mu` and `nu` also find `step`, `m` and `v`, their names here"
_DIRECTED = "what a momentum in front changes is where we step, not what later preconditioners "
_DIRECTED += "measure: before a whole optimizer it warns, and `on_updates` gives Optax's steps"
_AT_ONCE = "a stretch of length 0 is over at once; Optax's stays at its first value"
_MEASURED = "in a chain, later preconditioners go on measuring the gradient that entered it"

# of the functions that Optax has at its top as well as in its modules of trees
_MOMENTS = {
    **dict.fromkeys(["update_moment", "update_infinity_moment"], _AVERAGE),
    "update_moment_per_elem_norm": _AVERAGE,
    "bias_correction": "the correction is computed in float32 or wider, without cancellation",
}

_TREE = _MOMENTS | {
    "add_scale": _SCALAR,
    "scale": _SCALAR,
    "sum": f"{_SUM}; `associative_reduction` changes nothing",
    "norm": _NORM,
    "vdot": _SUM,
    **dict.fromkeys(["max", "min"], "of integers it is an integer"),
    "get": "of several entries the outermost is meant; a schedule is the number that the last "
    f"update used; {_NAMES}",
    "get_all_with_path": _NAMES,
    "set": f"values take the dtype of what was there and are checked as at construction; {_NAMES}",
}

_TYPES = ["Params", "Updates", "OptState", "ScalarOrSchedule", "MaskOrFn", "ConditionFn"]
_TYPES += ["TransformInitFn", "TransformUpdateFn", "TransformUpdateExtraArgsFn"]
_TYPES += ["ShouldSkipUpdateFunction"]

HOW = {
    "GradientTransformation": "makes a part of a chain of `(init, update)`; every transformation, "
    "here and in Optax, is an instance",
    "GradientTransformationExtraArgs": "the same; of Optax's, those that take extra arguments",
    "MultiSteps": "the inner optimizer runs at every k-th step only; a micro-batch that is not "
    "finite is dropped, unless `should_skip_update_fn=None`; the accumulator is float32 or wider; "
    "a chain inside means what `chain` means",
    "Schedule": "the class of the schedules here; where one is taken, any function of the step is",
    "adadelta": "`learning_rate=1.0`; Optax's None leaves the sign as it is, so that the step "
    "ascends",
    "adafactor": "`dtype_momentum=None`, which is float32 or wider",
    "add_noise": _KEY,
    "apply_updates": "an update of another shape than its parameter is an error",
    "chain": f"the state is a record by name; {_DIRECTED}; None is a part that does nothing",
    "named_chain": f"the state is a record by name; {_DIRECTED}",
    **dict.fromkeys(
        ["cosine_onecycle_schedule", "linear_onecycle_schedule"],
        "phases that end at one step are both there; Optax leaves out the first",
    ),
    **dict.fromkeys(
        ["linear_schedule", "polynomial_schedule", "warmup_constant_schedule"], _AT_ONCE
    ),
    "differentially_private_aggregate": _KEY,
    "dpsgd": "`key` in place of `seed`: an integer or a `jax.random` key",
    "ema": _MEASURED,
    "global_norm": _NORM,
    "hutchinson_estimator_diag_hessian": "`random_seed=0` by default",
    "incremental_update": "a leaf keeps the dtype of `old_tensors`",
    "inject_hyperparams": "numbers are float32 whatever the parameters' dtype; assigning to a "
    "scheduled one is an error; `state.replace(learning_rate=3e-4)` is the pure form of assigning",
    "lars": "None is the default of both masks, and means everywhere as Optax's True does",
    "lookahead": "parameters are plain, without `LookaheadParams`; `eval_params(state, params)` "
    "gives the slow ones",
    "masked": "leaves that are left out are None to the inner transformation, not `MaskedNode`; "
    "around a whole optimizer it warns; what stands before it counts as for `chain`",
    "microbatch": 'no `in_axes=` and `num_real_microbatches=`; `accumulator` is "sum", "mean" or '
    '"concat", or Optax\'s enumeration',
    **dict.fromkeys(
        ["muon", "scale_by_muon"],
        "`adaptive=True` takes the dual norm of each matrix of a stack, not of the whole array",
    ),
    "nadam": "no `nesterov=`: without it, it is `adam`",
    "nadamw": "no `nesterov=`: without it, it is `adamw`",
    "noisy_sgd": f"`key=0` by default; {_NO_SEED}",
    "normalize": "a zero gradient stays zero and does not become NaN",
    "scale_by_distance_over_gradients": "`param_dtype=None`, which is float32 or wider",
    "scale_by_factored_rms": "`decay_rate_fn=None`, which is Optax's default function",
    "scale_by_learning_rate": "`learning_rate` is required: Optax's None leaves the sign as it is",
    "schedule_free_eval_params": "`eval_params`, which knows every average",
    "sophia": "`hessian_diagonal_fn=None`, which is Hutchinson's estimator",
    "trace": _MEASURED,
    **dict.fromkeys(_TYPES, "a type for annotations"),
    **_MOMENTS,
    **{f"tree.{name}": how for name, how in _TREE.items()},
    **{f"tree_utils.tree_{name}": how for name, how in _TREE.items()},
}

_STATE = "Optax's own, of which what stands in its place here is an instance too"

NOTES = {
    "LookaheadParams": "Optax's own, for Optax's `lookahead`; ours takes plain parameters",
    "inject_stateful_hyperparams": "Optax's own; `inject_hyperparams` takes such schedules too",
}

_HEAD = """\
# Optax {version}, name by name

`import gradxform as optax` keeps a training script working. Of Optax's {total} public names

- **{counts[same]} are the same**: every call that Optax takes is taken here and means the same;
- **{counts[different]} are different**: the name is here, with the difference given;
- **{counts[passed through]} are passed through**: they resolve to Optax's own, where it is \
installed, and work beside ours;
- **{counts[absent]} are absent**.

Names of `optax.contrib`, `optax.schedules`, `optax.transforms` and `optax.losses` are at the top \
of gradxform and in `gradxform.contrib` and so on; Optax's other modules are imported under our \
name, as in `from gradxform.projections import projection_simplex`. Optimizers' results are \
compared with Optax's in `tests/optimizers`.

Made by `gradxform list --compatibility`, which looks each name up."""


class Row(NamedTuple):
    """One public name of Optax: where it is, what it is here, and how."""

    module: str
    name: str
    status: str
    note: str
    theirs: Any
    ours: Any


def public(module) -> list[str]:
    """The public names of a module of Optax, functions first; without modules and what it has from
    Python's own.
    """
    found = {name: x for name, x in vars(module).items() if not isinstance(x, types.ModuleType)}
    python = (vars(typing), vars(collections.abc))
    names = [name for name, x in found.items() if not any(own.get(name) is x for own in python)]
    names = [name for name in names if not name.startswith("_")]
    return sorted(names, key=lambda name: (name[0].isupper(), name))


def rows(package) -> Iterator[Row]:
    """Every public name of Optax once, beside what `package` has under it; a name of `APART` with
    its module in front.

    Raises:
        ImportError: Optax is not installed.
    """
    try:
        optax = real()
    except ImportError as error:
        raise ImportError("the table of Optax's names needs Optax: pip install optax") from error
    seen = []
    for path in (*SHARED, *(f"optax.{module}" for module in APART)):
        short = path.removeprefix("optax.")
        module = optax if path == "optax" else attrgetter(short)(optax)
        for name in public(module):
            theirs = getattr(module, name)
            full = f"{short}.{name}" if short in APART else name
            if (full, theirs) in seen or (short == "microbatching" and hasattr(optax, name)):
                continue
            seen.append((full, theirs))
            ours = _ours(package, f"contrib.{full}" if short == "contrib" else full)
            yield Row(path, full, *_entry(full, theirs, ours), theirs, ours)


_NOTHING = object()


def _ours(package, name: str):
    """What gradxform has under a name of the table."""
    for part in name.split("."):
        package = getattr(package, part, _NOTHING)
    return package


def _entry(name: str, theirs, ours) -> tuple[str, str]:
    if ours is _NOTHING:
        return ABSENT, ""
    if name in HOW:
        return DIFFERENT, HOW[name]
    if ours is theirs:
        return PASSED, NOTES.get(name, "Optax's own")
    return (PASSED, _STATE) if is_state(theirs) and issubclass(ours, theirs) else (SAME, "")


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def mismatch(theirs: Callable, ours: Callable) -> str | None:
    """The first call that Optax's signature takes and ours does not, or takes otherwise; None where
    there is none.

    An argument may have a default here that Optax's has not, and ours may be more: keyword only, or
    behind Optax's, with a default.
    """
    mine = dict(inspect.signature(ours).parameters)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positions = [p.name for p in mine.values() if p.kind in positional]
    for i, (name, p) in enumerate(inspect.signature(theirs).parameters.items()):
        if p.kind in _VARIADIC:
            if not any(q.kind is p.kind for q in mine.values()):
                return f"no *{name}"
            continue
        q = mine.pop(name, None)
        if q is None:
            return f"no {name}="
        if p.kind is not p.KEYWORD_ONLY and (i >= len(positions) or positions[i] != name):
            return f"{name} is not argument {i}"
        if p.kind is not p.POSITIONAL_ONLY and q.kind is q.POSITIONAL_ONLY:
            return f"{name} is positional only"
        if p.default is not p.empty and not _alike(p.default, q.default):
            return f"{name}={q.default!r}, not {p.default!r}"
    needed = [q for q in mine.values() if q.default is q.empty and q.kind not in _VARIADIC]
    return f"{needed[0].name} is required" if needed else None


def _alike(a, b) -> bool:
    """Whether two defaults are the same; functions of a number are compared by what they give."""
    if a is b:
        return True
    if inspect.isfunction(a) and inspect.isfunction(b):
        return all(abs(float(a(x)) - float(b(x))) < 1e-6 for x in (1.0, 16.0, 100.0))
    return bool(a == b)


def more(theirs: Callable, ours: Callable) -> list[str]:
    """The arguments that ours has beside Optax's."""
    known, mine = (inspect.signature(f).parameters for f in (theirs, ours))
    return [name for name, p in mine.items() if name not in known and p.kind not in _VARIADIC]


def markdown(package) -> str:
    """The table of `docs/compatibility.md`."""
    found = list(rows(package))
    counts = Counter(row.status for row in found)
    version = real().__version__
    lines = [_HEAD.format(version=version, counts=counts, total=len(found))]
    module = ""
    for row in found:
        if row.module != module:
            module = row.module
            lines += ["", f"## `{module}`", "", "| name | here | |", "|---|---|---|"]
        extra = more(row.theirs, row.ours) if row.status == SAME and callable(row.ours) else []
        note = row.note or (f"also {', '.join(f'`{name}=`' for name in extra)}" if extra else "")
        name, note = row.name.rpartition(".")[2], note.replace("|", "\\|")
        lines.append(f"| `{name}` | {row.status} | {note} |".replace("|  |", "| |"))
    return "\n".join(lines)


def find(name: str, shown: Iterable[str]):
    """What a name that gradxform does not show is: what only Optax's users need, Optax's own, or an
    error that gives the nearest of the names that there are.

    Raises:
        AttributeError: nobody has the name, or Optax's is needed and is not installed.
    """
    if name.startswith("_") and name != "_src":
        raise AttributeError(name)
    if name in aliases.__all__:
        return getattr(aliases, name)
    known, hint = [*shown, *aliases.__all__], ""
    try:
        for module in map(real, SHARED):
            if name in vars(module):
                return _passed(getattr(module, name))
            known += public(module)
    except ImportError:
        hint = "; if it is Optax's: pip install optax"
    raise AttributeError(f"gradxform has no {name!r}{nearest(name, known)}{hint}", name=name)


def _passed(theirs):
    return state_class(theirs) if is_state(theirs) else theirs


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the known one that is written most alike."""
    plain = {x.lower().replace("_", ""): x for x in known}
    near = difflib.get_close_matches(name.lower().replace("_", ""), plain, n=1, cutoff=0.7)
    return "".join(f"; did you mean {plain[x]!r}?" for x in near)


def loss(name: str):
    """One of Optax's losses.

    Raises:
        AttributeError: it has none of this name, or is not installed.
    """
    if name.startswith("__"):
        raise AttributeError(name)
    try:
        losses = real("optax.losses")
    except ImportError as error:
        what = f"the losses are Optax's, {name!r} too: pip install optax"
        raise AttributeError(what) from error
    if not hasattr(losses, name):
        near = nearest(name, public(losses))
        raise AttributeError(f"gradxform.losses has no {name!r}{near}", name=name)
    return getattr(losses, name)


def as_optax(constructor: Callable) -> Callable:
    """A constructor in its convention "optax", with the signature that this has."""
    changed = constructor.conventions["optax"]
    signature = inspect.signature(constructor)
    kept = [p for p in signature.parameters.values() if p.name != "convention"]
    kept = [p.replace(default=changed.get(p.name, p.default)) for p in kept]

    @functools.wraps(constructor)
    def construct(*args, **kwargs):
        return constructor(*args, **kwargs, convention="optax")

    construct.__dict__["__signature__"] = signature.replace(parameters=kept)
    return construct


def namespace(package, module: str) -> tuple[Callable, Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a module that gives gradxform's names under those of one of
    Optax's modules.
    """

    def get(name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(package, name)

    def names() -> list[str]:
        return public(real(module))

    return get, names
