"""The state of an Optax optimizer in the state of the same method here, so that a run goes on.

Both states are walked in the order of their chains. Optax's are named tuples; which of their fields
becomes which slot of which rule is one table, by their names, so that nothing here imports Optax.
"""

from collections import namedtuple
from collections.abc import Iterator
from typing import ClassVar

import jax
import jax.numpy as jnp

from gradxform.core import Chain, Injected, RuleState, Schedule, Tunable, TunableState, as_transform
from gradxform.core import leaves as trees
from gradxform.core.leafwise import RECORDED, Leafwise
from gradxform.core.states import MaskedState
from gradxform.core.transform import name_of
from gradxform.matrices.matrixwise import Matrixwise
from gradxform.state.access import with_children
from gradxform.wrappers.accumulation import Accumulate
from gradxform.wrappers.conditional import Conditional
from gradxform.wrappers.masking import Partition
from gradxform.wrappers.skipping import SkipNonfinite

# the fields of a saved state: rules here | named tuples in Optax | slots here=fields there
_TABLE = """
momentum trace | TraceState | v=trace
ema | EmaState | m=ema
ema | ScaleByAdamState ScaleByAmsgradState ScaleByBeliefState | m=mu
ema | MuonState | m=mu
ema_from | ScaleByAdamState | m=mu
two_emas | ScaleByAdemamixState | m1 m2
momentum_plus_gradient | ScaleBySimplifiedAdEMAMixState | m
scale_by_rms | ScaleByRmsState ScaleByRmsWithCountState ScaleByAdemamixState ScaleByAdamState | v=nu
scale_by_rms | ScaleBySimplifiedAdEMAMixState | v=n
scale_by_rss | ScaleByRssState | v=sum_of_squares
scale_by_stddev | ScaleByRStdDevState ScaleByRStdDevWithCountState | m=mu v=nu
scale_by_adadelta | ScaleByAdaDeltaState | e_g e_x
scale_by_inf_norm scale_by_yogi_rms scale_by_rectified_rms | ScaleByAdamState | v=nu
scale_by_rms_max | ScaleByAmsgradState | v=nu v_max=nu_max
scale_by_deviation | ScaleByBeliefState | s=nu
scale_by_belief scale_by_acprop | ScaleByBeliefState | m=mu s=nu
scale_by_adopt | ScaleByAdamState | m=mu v=nu
scale_by_lion | ScaleByLionState | m=mu
scale_by_novograd | ScaleByNovogradState | m=mu v=nu
scale_by_adan | ScaleByAdanState | m v n previous=g
scale_by_factored_rms | FactoredState | v_row v_col v
scale_by_sm3 | ScaleBySM3State | mu m=nu
scale_by_rprop | ScaleByRpropState | step_size=step_sizes previous=prev_updates
scale_by_optimistic_gradient descend_optimistically | ScaleByOptimisticGradientState | \
    previous=previous_gradient
scale_by_dog | DoGState | x0=init_params max_dist square_sum=sum_sq_norm_grads
scale_by_dowg | DoWGState | x0=init_params square_dist=estim_sq_dist weighted=weighted_sq_norm_grads
prodigy | ProdigyState | m=exp_avg v=exp_avg_sq s=grad_sum x0=params0 \
    estim_lr numerator=numerator_weighted
dadapt_adamw | DAdaptAdamWState | m=exp_avg v=exp_avg_sq s=grad_sum \
    estim_lr numerator=numerator_weighted
momo | MomoState | m=exp_avg barf gamma lb
momo_adam | MomoAdamState | m=exp_avg v=exp_avg_sq barf gamma lb
schedule_free | ScheduleFreeState | z b1 weight_sum max_lr
scale_by_cocob | COCOBState | x0=init_particles bets=cumulative_gradients scale \
    absolute=subgradients reward
reduce_on_plateau | ReduceLROnPlateauState | scale best=best_value mean=avg_value \
    bad=plateau_count cooling=cooldown_count seen=count
zero_nans | ZeroNansState | found_nan
apply_every | ApplyEvery | total=grad_acc
"""


def _fields() -> dict[str, dict[str, dict]]:
    """Rule here -> named tuple in Optax -> slot here: field there."""
    found: dict[str, dict[str, dict]] = {}
    for row in _TABLE.strip().splitlines():
        rules, states, slots = (cell.split() for cell in row.split(" | "))
        pairs = {slot.split("=")[0]: slot.split("=")[-1] for slot in slots}
        for rule in rules:
            found.setdefault(rule, {}).update(dict.fromkeys(states, pairs))
    return found


_FIELDS = _fields()


_HYPERPARAMS = ("InjectHyperparamsState", "InjectStatefulHyperparamsState")
_INSIDE: dict[str, str] = dict.fromkeys(("MaskedState", *_HYPERPARAMS), "inner_state")
_INSIDE |= {"ScheduleFreeState": "base_optimizer_state"}


_COUNTS = ("count", "t", "step_count")
_FIRST = ("is_initial_step", "is_init_step")
_COUNTERS = {*_COUNTS, *_FIRST, "count_m2"}
_SLOTS = {field for rule in _FIELDS.values() for pairs in rule.values() for field in pairs.values()}
_SCHEDULES = ("ScaleByScheduleState", "WeightDecaySchedule")


# what a checkpoint that is read as plain dicts keeps of a class: a field that only it has
_SIGNS = {
    "hyperparams": "InjectHyperparamsState",
    "base_optimizer_state": "ScheduleFreeState",
    "inner_states": "PartitionState",
    "inner_opt_state": "MultiStepsState",
    "notfinite_count": "ApplyIfFiniteState",
    "ns_coeffs": "MuonState",
}
_ALONE = {
    ("inner_state",): "MaskedState",
    ("inner_state", "step"): "ConditionallyMaskState",
    ("count",): "ScaleByScheduleState",
}
_SAVED = "Saved"  # any other, which the fields alone tell


def _kind(node) -> str:
    return type(node).__name__ if isinstance(node, tuple) and hasattr(node, "_fields") else ""


def _read(node):
    """A node of a checkpoint that was read without a target, where tuples are lists, or dicts with
    numbers as keys, and named tuples are dicts of their fields.
    """
    if isinstance(node, list):
        return tuple(node)
    if not isinstance(node, dict) or not node:
        return node
    if all(str(key).isdigit() for key in node):
        return tuple(node[key] for key in sorted(node, key=int))
    kind = _ALONE.get(tuple(sorted(map(str, node)))) or next(
        (kind for field, kind in _SIGNS.items() if field in node), ""
    )
    if not kind and node.keys() <= _SLOTS | _COUNTERS:
        kind = _SAVED
    return namedtuple(kind, node)(**node) if kind else node


class _Unit:
    """A named tuple of a saved state, its place, and the fields that nothing has taken yet."""

    def __init__(self, path: str, state, fields: dict[str, dict]):
        self.path, self.state, self.kind = path, state, _kind(state)
        rules = [rule.get(self.kind, {}) for rule in fields.values()]
        self.known = {field for rule in rules for field in rule.values()}
        if self.kind == _SAVED:
            self.known = _SLOTS - _COUNTERS
        self.open = [field for field in state._fields if field in self.known]

    def __repr__(self):
        return f"{self.kind} at {self.path}"

    @property
    def count(self):
        """The updates made, where it counts them."""
        for name in _COUNTS:
            if name in self.state._fields and name not in self.known:
                return getattr(self.state, name)
        for name in _FIRST:
            if name in self.state._fields:
                return 1 - jnp.asarray(getattr(self.state, name), jnp.int32)
        return None

    def pairs(self, rule: dict[str, dict]) -> dict[str, str]:
        """Which of its fields are a rule's slots, of the classes that give that rule its state."""
        if self.kind != _SAVED:
            return rule.get(self.kind, {})
        fits = (x for x in rule.values() if {*x.values()} <= {*self.state._fields})
        return next(fits, {})


def _units(node, path: str, fields: dict) -> Iterator[_Unit]:
    node = _read(node)
    kind = _kind(node)
    if kind in _INSIDE:
        yield from _units(getattr(node, _INSIDE[kind]), f"{path}.{_INSIDE[kind]}", fields)
    if kind and kind != "MaskedState":
        yield _Unit(path, node, fields)
    if not kind and isinstance(node, tuple | list | dict):  # a dict is that of `named_chain`
        for name, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _units(child, f"{path}[{name!r}]", fields)


def _absent(node):
    """Masked leaves as None."""
    is_masked = lambda x: _kind(x) == "MaskedNode"  # noqa: E731
    return jax.tree.map(lambda x: None if is_masked(x) else x, node, is_leaf=is_masked)


def like(owner: str, name: str, value, fresh):
    """The value in the containers, shapes and dtypes of a fresh one; what differs is an error that
    names it.
    """
    theirs, ours = dict(leaves(value)), dict(leaves(fresh))
    if theirs.keys() != ours.keys():
        saved, here = sorted(theirs.keys() - ours.keys()), sorted(ours.keys() - theirs.keys())
        what = f"only in the saved state {saved[:8]}, only here {here[:8]}"
        raise ValueError(f"{owner}: {name}: {what}")
    for path, old in ours.items():
        if jnp.shape(theirs[path]) != old.shape:
            at = f"{name}: {path}" if path else name
            raise ValueError(f"{owner}: {at} has shape {jnp.shape(theirs[path])}, here {old.shape}")
    new = (jnp.array(theirs[path], old.dtype) for path, old in ours.items())
    return jax.tree.structure(fresh).unflatten(new)


def leaves(tree) -> list[tuple]:
    """The leaves with their paths."""
    rows = jax.tree_util.tree_leaves_with_path(tree)
    return [(trees.path_string(path), leaf) for path, leaf in rows]


# wrapper here, named tuple in Optax -> field here: field there
_CONDITIONAL = {"step": "step", "inner": "inner_state"}
_SKIP = {"consecutive": "notfinite_count", "skipped": "total_notfinite", "inner": "inner_state"}
_ACCUMULATE = {"mini_step": "mini_step", "step": "gradient_step", "accumulator": "acc_grads"}
_WRAPPERS: dict[tuple[type, str], dict[str, str]] = {
    (Accumulate, "MultiStepsState"): _ACCUMULATE | {"inner": "inner_opt_state"},
    (SkipNonfinite, "ApplyIfFiniteState"): _SKIP,
    (Conditional, "ConditionallyMaskState"): _CONDITIONAL,
    (Conditional, "ConditionallyTransformState"): _CONDITIONAL,
    (Partition, "PartitionState"): {},  # by label
}


class Import:
    """One level of the states: a chain, written out, and what was saved in its place."""

    owner = "import_optax_state"
    saved = "the Optax state"
    fields = _FIELDS
    # of one name, with the same contents
    rules: ClassVar[dict] = {"scale_by_rms_max": ("_max_of_debiased", "_max")}

    def __init__(self, theirs, path="state", step=None):
        self.units = list(_units(theirs, path, self.fields))
        self.queue = [u for u in self.units if u.open or u.kind not in (*_INSIDE, *_SCHEDULES)]
        self.queue = [u for u in self.queue if u.open or jax.tree.leaves(u.state)]
        counted = [u for u in self.units if u.count is not None]
        counted.sort(key=lambda u: u.kind not in _SCHEDULES)
        self.step = counted[0].count if counted else step

    def error(self, text: str) -> ValueError:
        """What does not fit."""
        return ValueError(f"{self.owner}: {text}")

    def run(self, tx, state):
        """The state with the saved values in it."""
        out = self.part("", tx, state)
        if self.queue:
            unit = self.queue[0]
            what = f"{unit.open} of {unit}" if unit.open else repr(unit)
            raise self.error(f"{what} has no place in the state of {tx!r}")
        return out

    def part(self, path: str, tx, state):
        """The state of one part, the next of the saved values taken."""
        if isinstance(tx, Leafwise | Matrixwise):
            return self.rule(path or tx.name, tx, state)
        if isinstance(tx, Tunable):
            return self.tunable(path, tx, state)
        if isinstance(tx, Injected):
            return self.injected(path, tx, state)
        for _, part, below, _ in tx.inside(state):
            if below is state and state != ():  # a name for it, or the one group of a mask
                return self.part(path or name_of(tx), part, state)
            if isinstance(state, MaskedState):
                return MaskedState(self.part(path or name_of(tx), part, below))
        if isinstance(tx, Chain):
            at = f"{path}/" if path else ""
            parts = tx.inside(state)
            named = {name: self.part(f"{at}{name}", part, below) for name, part, below, _ in parts}
            return with_children(state, named)
        if not jax.tree.leaves(state):
            return state
        unit = self.queue.pop(0) if self.queue else None
        if unit and (type(tx), unit.kind) in _WRAPPERS:
            return self.wrapper(tx, state, unit)
        what = f"{path or name_of(tx)} cannot be made from {unit or 'nothing'}"
        raise self.error(f"{what} in {self.saved}")

    def wrapper(self, tx, state, unit: _Unit):
        """The state of a wrapper: its own fields, and what it wraps."""
        theirs, at, fields = unit.state, unit.path, _WRAPPERS[type(tx), unit.kind]
        inside = {label: (part, below) for label, part, below, _ in tx.inside(state)}
        places = {k: (f"{at}.{v}", getattr(theirs, v)) for k, v in fields.items() if k in inside}
        if isinstance(tx, Partition):
            groups = {str(label): group for label, group in theirs.inner_states.items()}
            if groups.keys() != inside.keys():
                has = f"{at} has the labels {sorted(groups)}"
                raise self.error(f"{has}, {tx.name} has {sorted(inside)}")
            places = {label: (f"{at}[{label!r}]", group) for label, group in groups.items()}
        step = getattr(theirs, "gradient_step", None if isinstance(tx, Conditional) else self.step)
        new = {}
        for label, (place, group) in places.items():
            new[label] = type(self)(group, place, step).run(*inside[label])
        for ours, field in fields.items():
            if ours not in new:
                value = _absent(getattr(theirs, field))
                new[ours] = like(self.owner, f"{at}.{field}", value, getattr(state, ours))
        return with_children(state, new)

    def rule(self, path: str, tx: Leafwise | Matrixwise, state: RuleState):
        """The state of one rule."""
        kept = {RECORDED} if getattr(tx, "records", False) else set()
        own = [name for name in state.slots if name not in kept]
        count, slots = self.step, {}
        if own:
            unit = self.queue[0] if self.queue else None
            fields = unit.pairs(self.fields.get(tx.name, {})) if unit else {}
            if unit is None or fields.keys() != set(own):
                what = f"nothing in {self.saved} gives {path} its slots {own}"
                raise self.error(f"{what}; the next there is {unit or 'its end'}")
            rule = getattr(tx.rule, "__name__", "")
            if rule not in self.rules.get(tx.name, (rule,)):
                raise self.error(f"{path} keeps something else than {unit} in this convention")
            for name, field in fields.items():
                value = _absent(getattr(unit.state, field))
                slots[name] = like(self.owner, f"{unit.path}.{field}", value, state.slots[name])
                unit.open = [x for x in unit.open if x != field]
            counts = unit.count is not None and not {*_COUNTS} & {*fields.values()}
            count = unit.count if counts else self.step
            if not unit.open:
                self.queue.pop(0)
        numbers = jax.tree.leaves(tx.hypers, is_leaf=_is_schedule)
        if count is None and any(map(_is_schedule, numbers)):
            raise self.error(f"{path} has a schedule, and {self.saved} counts no steps; give step=")
        return RuleState(jnp.array(0 if count is None else count, jnp.int32), state.slots | slots)

    def hyperparams(self) -> dict:
        """The numbers of a saved `inject_hyperparams`."""
        injected = next((u.state for u in self.units if "hyperparams" in u.state._fields), None)
        return {} if injected is None else injected.hyperparams

    def injected(self, path: str, tx: Injected, state):
        """The state of `inject_hyperparams`, with the saved numbers of the same names."""
        inner = next(self.part(path, part, below) for _, part, below, _ in tx.inside(state))
        numbers = {k: v for k, v in self.hyperparams().items() if k in state.hyperparams}
        count = jnp.array(0 if self.step is None else self.step, jnp.int32)
        return state._replace(count=count, inner_state=inner).replace(**numbers)

    def tunable(self, path: str, tx: Tunable, state: TunableState):
        inner = self.part(path, tx.inner, state.inner)
        known = getattr(state.tx, "_dynamic", {})
        given = self.hyperparams()
        numbers = {k: v for k, v in given.items() if k in known and not _is_schedule(known[k])}
        new = TunableState(state.tx, inner)
        return new.replace(**numbers) if numbers else new


def _is_schedule(x) -> bool:
    return isinstance(x, Schedule)


def import_optax_state(tx, state, params, *, step=None):
    """The state of an Optax optimizer as the state of the same method here.

        theirs = optax.adamw(1e-3)
        state = import_optax_state(adamw(1e-3), optax_state, params)

    What fits is decided by the order of the chain and by the types of Optax's states. Chains with
    clipping, decay and schedules, `masked`, `partition`, `MultiSteps`, `apply_if_finite`,
    `inject_hyperparams` (its numbers go into the state of `tunable`) are walked through. Numbers
    are those of `tx`. A wrapper that Optax's side lacks is added after the import, by `migrate`.

    Args:
        tx: the optimizer whose state it becomes.
        state: what `init` or `update` of the Optax optimizer gave, or the plain dicts and lists
            that a checkpoint (Orbax without a target, Flax msgpack) makes of it.
        params: the parameters.
        step: the updates made, for methods of which Optax counts none.

    Raises:
        ValueError: something of either side has no counterpart, or another shape; it is named.
    """
    tx = as_transform(tx)
    level = Import(state, step=step)
    fresh = level.run(tx, tx.init(params))
    return with_records(tx, fresh, params, level.step)


def with_records(tx, state, params, step):
    """The state with the learning rates on record that its last update used."""
    if step is None:
        return state

    def last(x):
        return x(jnp.maximum(jnp.asarray(step) - 1, 0)) if _is_schedule(x) else x

    return _recorded(state, jax.tree.map(last, tx, is_leaf=_is_schedule).init(params))


def _recorded(state, recent):
    if isinstance(state, TunableState):
        return TunableState(state.tx, _recorded(state.inner, recent.inner))
    if isinstance(state, RuleState):
        records = {k: v for k, v in recent.slots.items() if k == RECORDED}
        return RuleState(state.step, state.slots | records)
    is_node = lambda x: x is not state and isinstance(x, RuleState | TunableState)  # noqa: E731
    new = lambda x, y: _recorded(x, y) if is_node(x) else x  # noqa: E731
    return jax.tree.map(new, state, recent, is_leaf=is_node)
