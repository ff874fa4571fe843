"""A rule is an equation on one array; `leafwise` lifts it to a tree.

The only place that knows about step counts, schedules, tables by path, dtypes and None leaves.
"""

import dataclasses
import difflib
from collections.abc import Callable
from functools import lru_cache
from inspect import signature
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradxform.core import leaves as trees
from gradxform.core.call import pytree
from gradxform.core.hyper import at_step, scalar
from gradxform.core.labels import ByPath
from gradxform.core.leaf import PerLeaf, Site, _ParameterRead, _RuleError, _RuleKey, _run_leaf
from gradxform.core.transform import Transform, check_leaf, check_updates, name_of
from gradxform.display.code import code

RECORDED = "learning_rate"  # the number whose last value a state keeps


class RuleState(NamedTuple):
    """The state of one rule.

    Attributes:
        step: [] int32, the number of updates made.
        slots: named trees. Each mirrors the parameters leaf by leaf, except what the rule keeps
            once for the whole tree. A rule with a learning rate keeps in `slots["learning_rate"]`
            the one used last: a scalar, or one for each leaf where it is a table by path.
    """

    step: jax.Array
    slots: dict[str, Any]


class Run(Transform):
    """A transformation made of parts: `update` runs them over the leaves, as one compiled program
    when called eagerly.
    """

    def update(self, updates, state, params=None, *, gradient=None, **extra):
        arguments = (self, updates, state, params, gradient, extra)
        leaves = jax.tree.leaves(arguments)
        if any(isinstance(x, Tracer) for x in leaves) or not all(map(_is_number, leaves)):
            return _run(*arguments)
        return _run_compiled(*arguments)


class Fused(Run):
    """A transformation that runs leaf by leaf, together with its neighbours in a chain."""

    @property
    def measures(self) -> bool:
        """Whether it looks at the whole tree before it runs on a leaf."""
        return False

    def check_state(self, path: tuple[str, ...], state) -> None:
        """Raise when the state is not this transformation's."""
        raise NotImplementedError(f"{type(self).__name__} defines no check_state")

    def run_segment(self, segment, u, g, p, treedef, updates, extra, last):
        """Run consecutive parts `(path, part, state)` over all leaves: the updates, the frozen
        gradients, and the states by path.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no run_segment")


@pytree(static=("name", "rule", "slots", "measure", "memory", "direction"))
class Leafwise(Fused):
    """A rule on one array, lifted to a tree. Built by `leafwise`."""

    name: str
    rule: Callable[..., Any]
    slots: tuple[tuple[str, Callable[..., Any]], ...]
    measure: Callable[..., Any] | None
    memory: tuple[tuple[str, Callable[..., Any]], ...]
    hypers: dict[str, Any]
    direction: bool = False

    def __repr__(self):
        shown = [code(self.rule), *(f"{k}={code(v)}" for k, v in self.hypers.items())]
        return f"leafwise({', '.join(shown)})"

    @property
    def measures(self) -> bool:
        return self.measure is not None

    @property
    def records(self) -> bool:
        """Whether its state keeps the learning rate used last."""
        return RECORDED in self.hypers and RECORDED not in dict(self.slots + self.memory)

    def renamed(self, name: str) -> "Leafwise":
        """The same under another name."""
        return dataclasses.replace(self, name=name)

    def check_state(self, path: tuple[str, ...], state):
        names = [name for name, _ in self.slots + self.memory] + [RECORDED] * self.records
        have = sorted(state.slots) if isinstance(state, RuleState) else type(state).__name__
        if have != sorted(names):
            where = "/".join(path) or self.name
            raise ValueError(
                f"{where}: this state belongs to another transformation: expected slots {names}, "
                f"got {have}"
            )

    def run_segment(self, segment, u, g, p, treedef, updates, extra, last):
        return _run_segment(segment, u, g, p, treedef, updates, extra, last)

    def init(self, params):
        flat, treedef = jax.tree_util.tree_flatten_with_path(params, is_leaf=trees.is_none)
        leaves = [
            check_leaf(self.name, "parameter", trees.path_string(path), leaf) for path, leaf in flat
        ]
        step = jnp.zeros((), jnp.int32)
        hypers = {name: at_step(x, step) for name, x in self.hypers.items()}
        tables = _Hypers(self.name, hypers, lambda: trees.paths(params), leaves)
        slots = {}
        for name, make in self.slots:
            made = [
                None if p is None else make(p, **tables.of(make, i)) for i, p in enumerate(leaves)
            ]
            slots[name] = treedef.unflatten(made)
        for name, make in self.memory:
            slots[name] = make(params, **tables.of(make, None))
        if self.records:
            slots[RECORDED] = tables.recorded(treedef, params if RECORDED in tables.rows else step)
        return RuleState(step, slots)


class _Hypers:
    """The hyperparameters of one rule at one step, for the whole tree (index None) or for one leaf
    of it.
    """

    def __init__(
        self, owner: str, hypers: dict[str, Any], paths: Callable[[], list[str]], leaves: list[Any]
    ):
        self.owner = owner
        self.rows = {
            k: v.rows(owner, paths(), leaves) for k, v in hypers.items() if isinstance(v, ByPath)
        }
        self.common = {k: scalar(owner, k, v) for k, v in hypers.items() if k not in self.rows}

    def of(self, function, index: int | None) -> dict[str, Any]:
        """The hyperparameters that `function` names among its keyword arguments."""
        names = _keyword_names(function)
        if index is None and self.rows.keys() & names:
            raise ValueError(
                f"{self.owner}: {min(self.rows.keys() & names)} is one number for the whole tree; "
                "it takes no by_path table"
            )
        common = {k: v for k, v in self.common.items() if k in names}
        if index is None:
            return common
        return common | {
            k: scalar(self.owner, k, v[index]) for k, v in self.rows.items() if k in names
        }

    def recorded(self, treedef, old):
        """The learning rate in buffers of its own, where the old one or, for a table, the
        parameters have leaves.
        """
        if RECORDED in self.common:
            return jax.tree.map(lambda _: _own(self.common[RECORDED]), old)
        leaves = trees.align(
            treedef, old, self.owner, f"the leaves of slot {RECORDED!r}", "the updates"
        )
        rows = zip(leaves, self.rows[RECORDED], strict=True)
        return treedef.unflatten(
            [None if o is None else _own(scalar(self.owner, RECORDED, x)) for o, x in rows]
        )


def _own(x):
    """A number as an array that no optimizer holds, so that a state can be donated."""
    return jnp.array(x, float, copy=True)


@lru_cache(maxsize=4096)
def _keyword_names(function) -> frozenset[str]:
    return frozenset(
        name for name, p in signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY
    )


def leafwise(
    rule, *, slots=None, measure=None, memory=None, direction=False, name=None, **hypers
) -> Leafwise:
    """Lift a rule, an equation on one array, to a transformation of trees.

    Args:
        rule: `rule(u, at, *slots, **hypers) -> (u, *slots)`, or just `u` for a rule without slots:
            u the update so far, `at` a `Site`. It computes in float32 or wider; results return in
            the dtypes they came in.
        slots: what it remembers of each leaf: `{name: make(p, **hypers)}`.
        measure: a look at the whole tree first: `measure(updates, at, *memory, **hypers) ->
            (scalars, *memory)`; `updates` and `at.g` are lists of leaves (None where absent). The
            rule finds the scalars in `at.scalars`; a `PerLeaf` gives each leaf its own.
        memory: what it remembers of the whole tree: `{name: make(params, **hypers)}`.
        direction: whether it changes where we step rather than what the gradient is: later parts of
            a chain go on seeing, in `at.g`, the gradient that entered it.
        name: the name of its state in a chain; by default that of the rule.
        **hypers: numbers, arrays, schedules or tables by path. Rule, measure and factories get
            those they name.
    """
    name = name or rule.__name__.strip("_")
    return Leafwise(
        name,
        rule,
        tuple((slots or {}).items()),
        measure,
        tuple((memory or {}).items()),
        dict(hypers),
        direction,
    )


class _Running(NamedTuple):
    """One rule of a segment during an update."""

    path: tuple[str, ...]
    part: Leafwise
    hypers: _Hypers
    t: Any
    scalars: Any  # what its measure returned
    flat: list[list[Any]]  # the leaves of each slot
    kept: dict[str, Any]  # all its slots, those of the whole tree already new


def _measured(path, part, state, u, g, p, treedef, updates, extra, names) -> _Running:
    """The rule, its hyperparameters at this step, and what it measures of the whole tree."""
    hypers = _Hypers(
        part.name,
        {k: at_step(x, state.step) for k, x in part.hypers.items()},
        names,
        u if p is None else p,
    )
    t = state.step + jnp.ones((), jnp.int32)
    kept, scalars = dict(state.slots), None
    if part.measure:
        old = [kept[name] for name, _ in part.memory]
        site = Site(part.name, u if g is None else g, p, t, extra=extra)
        numbers = {
            k: v if isinstance(v, float | int) else _to_float(v)
            for k, v in hypers.of(part.measure, None).items()
        }
        measured = part.measure(u, site, *old, **numbers)
        if not isinstance(measured, tuple) or len(measured) != 1 + len(old):
            names_of = [name for name, _ in part.memory]
            raise ValueError(
                f"{part.name}: the measure must return a tuple (scalars, *memory) with memory "
                f"{names_of}; got {code(measured)}"
            )
        scalars, *new = measured
        for (name, _), o, n in zip(part.memory, old, new, strict=True):
            kept[name] = jax.tree.map(lambda o, n: jnp.asarray(n).astype(o.dtype), o, n)
    flat = [
        trees.align(treedef, kept[name], part.name, f"the leaves of slot {name!r}", "the updates")
        for name, _ in part.slots
    ]
    return _Running(path, part, hypers, t, scalars, flat, kept)


def _run_segment(segment, u, g, p, treedef, updates, extra, last):
    """Consecutive rules over all leaves: one `_run_leaf` per leaf. After the last segment nobody
    reads the gradients.
    """
    names = lru_cache(maxsize=1)(lambda: trees.paths(updates))
    rules = [
        _measured(path, part, state, u, g, p, treedef, updates, extra, names)
        for path, part, state in segment
    ]
    present = [i for i, leaf in enumerate(u) if leaf is not None]
    keys, rows, common = _rows(rules, present, u, g, p, not last)
    try:
        try:
            results = trees.map_leaves(_run_leaf, keys, rows, common)
        except _ParameterRead:  # by a helper of the rule, to which it passed its site
            rows = [(*row[:2], p[i], *row[3:]) for i, row in zip(present, rows, strict=True)]
            results = trees.map_leaves(_run_leaf, keys, rows, common)
    except _RuleError as error:
        culprit = next((i for i in present if jnp.shape(u[i]) == error.shape), present[0])
        raise ValueError(f"{error} (leaf {names()[culprit]!r})") from None

    entered = [None] * len(u)  # the gradients that this segment's first direction freezes
    for i, (new_u, frozen, new) in zip(present, results, strict=True):
        u[i], entered[i] = new_u, frozen
        for rule, values in zip(rules, new, strict=True):
            for flat, value in zip(rule.flat, values, strict=True):
                flat[i] = value
    if g is None and any(rule.part.direction for rule in rules):
        g = entered
    states = {}
    for rule in rules:
        new = {
            name: treedef.unflatten(values)
            for (name, _), values in zip(rule.part.slots, rule.flat, strict=True)
        }
        if rule.part.records:
            new[RECORDED] = rule.hypers.recorded(treedef, rule.kept[RECORDED])
        states[rule.path] = RuleState(rule.t, rule.kept | new)
    return u, g, states


def _rows(
    rules: list[_Running], present, u, g: Any, p: Any, keep
) -> tuple[list[Any], list[Any], tuple[Any, ...]]:
    """The arguments of `_run_leaf`: for each leaf a static key and a row of its own, and what all
    leaves share.
    """
    nothing = (None,) * len(rules)
    shared: list[Any] = [
        None if r.hypers.rows else _split(r.part, r.hypers.of(r.part.rule, 0)) for r in rules
    ]
    shared_keys = tuple(s and s[0] for s in shared)
    tabled, scattered = None in shared, any(isinstance(r.scalars, PerLeaf) for r in rules)
    slots = list(
        zip(*(zip(*r.flat, strict=True) if r.flat else [()] * len(u) for r in rules), strict=True)
    )
    reads_p = any(
        "p" in getattr(getattr(r.part.rule, "__code__", None), "co_names", "p") for r in rules
    )
    keys, rows = [], []
    for i in present:
        own_keys, own, scalars = shared_keys, nothing, nothing
        if tabled:
            split = [
                _split(r.part, r.hypers.of(r.part.rule, i)) if s is None else s
                for s, r in zip(shared, rules, strict=True)
            ]
            own_keys = tuple(key for key, _ in split)
            own = tuple(
                None if s else numbers for s, (_, numbers) in zip(shared, split, strict=True)
            )
        if scattered:
            scalars = tuple(
                r.scalars.values[i] if isinstance(r.scalars, PerLeaf) else None for r in rules
            )
        p_dtype = None if p is None else p[i].dtype
        keys.append((keep, p_dtype, own_keys))
        parameter = p[i] if p is not None and reads_p else None
        rows.append((u[i], g and g[i], parameter, slots[i], own, scalars))
    common = (
        tuple(s and s[1] for s in shared),
        tuple(None if isinstance(r.scalars, PerLeaf) else r.scalars for r in rules),
        tuple(r.t for r in rules),
    )
    return keys, rows, common


def _to_float(x):
    """Numbers that a measure sees are in the default float, so that they mix under strict
    promotion.
    """
    return x.astype(float) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _split(part: Leafwise, hypers: dict[str, Any]):
    static = tuple((k, type(v), v) for k, v in hypers.items() if isinstance(v, float | int))
    return _RuleKey(part.rule, part.name, part.direction, static), {
        k: v for k, v in hypers.items() if not isinstance(v, float | int)
    }


KNOWN_EXTRAS = ("value", "grad", "value_fn", "key", "loss", "hessian", "obj_fn")


def _is_number(x) -> bool:
    return isinstance(x, int | float | complex | np.ndarray | np.generic | jax.Array)


def _run(tx: Run, updates, state, params, gradient, extra):
    for name in extra:
        near = difflib.get_close_matches(name, KNOWN_EXTRAS, n=1, cutoff=0.75)
        if near and name not in KNOWN_EXTRAS and near[0] not in extra:
            raise TypeError(
                f"{tx.name}: update() got an unknown keyword argument {name!r}; did you mean "
                f"{near[0]!r}?"
            )
    parts = list(tx.parts())
    per_example = any(part.per_example for _, part in parts)
    u, p, treedef = check_updates(tx.name, updates, params, shapes=not per_example)
    g = (
        None
        if gradient is None
        else trees.align(treedef, gradient, tx.name, "the gradients", "the updates")
    )
    new_states: dict[tuple[str, ...], Any] = {}
    segment: list[tuple[tuple[str, ...], Fused, Any]] = []

    def flush(u, g, last=False):
        if segment:
            u, g, states = segment[0][1].run_segment(
                segment, u, g, p, treedef, updates, extra, last
            )
            new_states.update(states)
            segment.clear()
        return u, g

    for path, part in parts:
        part_state = _at_path(state, path)
        if isinstance(part, Fused):
            part.check_state(path, part_state)
            if part.measures:  # it looks at the updates so far, so these must exist
                u, g = flush(u, g)
            segment.append((path, part, part_state))
            continue
        u, g = flush(u, g)
        known = {} if g is None else {"gradient": treedef.unflatten(g)}
        out, new_states[path] = part.update(
            treedef.unflatten(u), part_state, params, **known, **extra
        )
        if g is None and part.direction:
            g = u
        u = trees.align(treedef, out, name_of(part), "the new updates", "the updates")
        if part.per_example:
            check_updates(tx.name, out, params)
    u, g = flush(u, g, last=True)
    return treedef.unflatten(u), _rebuild(state, new_states, ())


_run_compiled = jax.jit(_run)


def _at_path(state, path):
    for name in path:
        if not isinstance(state, dict) or name not in state:
            have = sorted(state) if isinstance(state, dict) else type(state).__name__
            raise ValueError(
                f"{'/'.join(path)}: this state belongs to another chain: it has {have}, not "
                f"{name!r}"
            )
        state = state[name]
    return state


def _rebuild(state, new_states, path):
    if path in new_states:
        return new_states[path]
    return {name: _rebuild(sub, new_states, (*path, name)) for name, sub in state.items()}
