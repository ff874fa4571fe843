"""A rule is an equation on one array; `leafwise` lifts it to a tree, and `run` takes an update
through consecutive rules.

The only place that knows about step counts, schedules, tables by path, dtypes and None leaves.
"""

import dataclasses
import difflib
from collections.abc import Callable, Iterable
from functools import lru_cache
from inspect import signature
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradxform.core import leaves as trees
from gradxform.core.call import pytree
from gradxform.core.frozen import Frozen, frozen_paths, refuse_rates, trained
from gradxform.core.hyper import at_step, scalar
from gradxform.core.labels import ByPath
from gradxform.core.leaf import Inputs, PerLeaf, Rule, RuleError, Site, run_leaf
from gradxform.core.schedule import Schedule
from gradxform.core.states import RECORDED, RuleState, at_path, is_empty, rebuilt
from gradxform.core.transform import Transform, check_leaf, check_updates, name_of
from gradxform.display.code import code
from gradxform.numerics import increment

KNOWN_EXTRAS = ("value", "grad", "value_fn", "key", "loss", "hessian", "obj_fn")


class Run(Transform):
    """A transformation made of parts: `update` runs them over the leaves, as one compiled program
    when called eagerly.
    """

    def update(self, updates, state, params=None, *, gradient=None, **extra):
        frozen = Frozen(self.name, updates, params)
        if frozen.some:
            extra = {name: frozen.argument(x) for name, x in extra.items()}
            updates, params, gradient = map(frozen.without, (updates, params, gradient))
        old = state
        if is_empty(state) and not any(path or _remembers(part) for path, part in self.parts()):
            old = self.init(updates if params is None else params)
        out, new = self.transformed(updates, old, params, gradient, extra)
        return frozen.back(out) if frozen.some else out, new if old is state else state

    def transformed(self, updates, state, params, gradient, extra):
        """`update` of the leaves that can be optimized."""
        arguments = (self, updates, state, params, gradient, extra)
        leaves = jax.tree.leaves(arguments)
        if any(isinstance(x, Tracer) for x in leaves) or not all(map(_is_number, leaves)):
            return run(*arguments)
        return _run_compiled(*arguments)

    def trained(self, params):
        """The parameters, None for leaves that cannot be optimized; none has a rate of its own."""
        if (kept := trained(params)) is not params:
            refuse_rates(self, *frozen_paths(params))
        return kept


@pytree(static=("name", "rule", "slots", "measure", "memory", "direction"))
class Leafwise(Run):
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
    def records(self) -> bool:
        """Whether its state keeps the learning rate used last."""
        return RECORDED in self.hypers and RECORDED not in dict(self.slots + self.memory)

    def renamed(self, name: str) -> "Leafwise":
        """The same under another name."""
        return dataclasses.replace(self, name=name)

    def check_state(self, path: tuple[str, ...], state):
        """Raise when the state is not this rule's."""
        names = [name for name, _ in self.slots + self.memory] + [RECORDED] * self.records
        have = sorted(state.slots) if isinstance(state, RuleState) else type(state).__name__
        if have != sorted(names):
            what = f"{'/'.join(path) or self.name}: this state belongs to another transformation"
            raise ValueError(f"{what}: expected slots {names}, got {have}")

    def steps(self) -> bool:
        return self.records

    def reads_gradient(self) -> bool:
        # read off the function: to trace it would cost a millisecond for each rule of a chain
        function = getattr(self.rule, "__code__", None) or type(self.rule).__call__.__code__
        return "g" in function.co_names

    def takes(self, name: str) -> bool:
        return not getattr(self.measure or leafwise, "__module__", "").startswith("gradxform.")

    def init(self, params):
        params = self.trained(params)
        flat, treedef = jax.tree_util.tree_flatten_with_path(params, is_leaf=trees.is_none)
        paths = [trees.path_string(path) for path, _ in flat]
        leaves = [
            check_leaf(self.name, "parameter", path, leaf)
            for path, (_, leaf) in zip(paths, flat, strict=True)
        ]
        step = jnp.zeros((), jnp.int32)
        numbers = Numbers(self, step, lambda: trees.paths(params), leaves)
        slots = {
            name: treedef.unflatten(
                None if p is None else make(p, **numbers.shared(make), **numbers.own(make, i))
                for i, p in enumerate(leaves)
            )
            for name, make in self.slots
        }
        slots |= {name: make(params, **numbers.whole(make)) for name, make in self.memory}
        if self.records:
            slots[RECORDED] = numbers.recorded(
                treedef, params if RECORDED in numbers.rows else step
            )
        return RuleState(step, slots)


class Numbers:
    """The hyperparameters of one rule at one step."""

    def __init__(self, part, step, paths: Callable[[], list[str]], leaves: list[Any]):
        self.owner = part.name
        found = {k: at_step(x, step) for k, x in part.hypers.items()}
        tables = {k: x for k, x in found.items() if isinstance(x, ByPath)}
        self.rows = {k: x.rows(self.owner, paths(), leaves) for k, x in tables.items()}
        self.common = {k: self._scalar(k, x) for k, x in found.items() if k not in tables}

    def _scalar(self, name: str, x):
        return scalar(self.owner, name, x)

    def shared(self, function) -> dict[str, Any]:
        """Of those that `function` names among its keyword arguments, what is the same for all
        leaves.
        """
        return {k: x for k, x in self.common.items() if k in _keyword_names(function)}

    def own(self, function, i: int) -> dict[str, Any]:
        """And what tables give the i-th leaf."""
        names = _keyword_names(function)
        return {k: self._scalar(k, rows[i]) for k, rows in self.rows.items() if k in names}

    def whole(self, function) -> dict[str, Any]:
        """All that it names, for the whole tree."""
        if tabled := self.rows.keys() & _keyword_names(function):
            one = "is one number for the whole tree; it takes no by_path table"
            raise ValueError(f"{self.owner}: {min(tabled)} {one}")
        return self.shared(function)

    def recorded(self, treedef, old):
        """The learning rate in buffers of its own, where the old one or, for a table, the
        parameters have leaves.
        """
        if RECORDED in self.common:
            return jax.tree.map(lambda _: _copy(self.common[RECORDED]), old)
        what = f"the leaves of slot {RECORDED!r}"
        leaves = trees.align(treedef, old, self.owner, what, "the updates")
        return treedef.unflatten(
            None if leaf is None else _copy(self._scalar(RECORDED, x))
            for leaf, x in zip(leaves, self.rows[RECORDED], strict=True)
        )


def _copy(x):
    """A number as an array that no optimizer holds, so that a state can be donated."""
    return jnp.array(x, float, copy=True)


@lru_cache(maxsize=4096)
def _keyword_names(function) -> frozenset[str]:
    parameters = signature(function).parameters.values()
    return frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


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


def _remembers(part) -> bool:
    """Whether a part may do another thing at another step."""
    if not isinstance(part, Leafwise) or part.slots or part.memory:
        return True
    numbers = jax.tree.leaves(part.hypers, is_leaf=lambda x: isinstance(x, Schedule))
    return any(isinstance(x, Schedule) for x in numbers)


def _is_number(x) -> bool:
    return isinstance(x, int | float | complex | np.ndarray | np.generic | jax.Array)


def run(tx: Run, updates, state, params, gradient, extra):
    """The update of a transformation made of parts: consecutive rules run together, leaf by leaf;
    any other part runs by itself.
    """
    for name in extra:
        near = difflib.get_close_matches(name, KNOWN_EXTRAS, n=1, cutoff=0.75)
        if near and name not in KNOWN_EXTRAS and near[0] not in extra and not tx.takes(name):
            words = f"update() got an unknown keyword argument {name!r}; did you mean {near[0]!r}?"
            raise TypeError(f"{tx.name}: {words}")
    parts = [(path, part, at_path(state, path)) for path, part in tx.parts()]
    going = _Pass(tx.name, updates, params, gradient, extra, parts)
    new_states: dict[tuple[str, ...], Any] = {}
    segment: list[_Part] = []
    for path, part, part_state in parts:
        if isinstance(part, Leafwise):
            part.check_state(path, part_state)
            if part.measure:  # it looks at the updates so far, so these must exist
                new_states |= going.through(segment)
                segment = []
            segment.append((path, part, part_state))
        else:
            new_states |= going.through(segment)
            new_states[path] = going.by_itself(part, part_state)
            segment = []
    new_states |= going.through(segment, last=True)
    return going.treedef.unflatten(going.u), rebuilt(state, new_states)


_run_compiled = jax.jit(run)
_Part = tuple[tuple[str, ...], Any, Any]  # the path of its state, a transformation, its state


class _Running(NamedTuple):
    """One rule of a segment during an update."""

    path: tuple[str, ...]
    part: Leafwise
    numbers: Numbers
    t: jax.Array
    scalars: Any  # what its measure returned
    flat: list[list[Any]]  # the leaves of each slot
    kept: dict[str, Any]  # all its slots, those of the whole tree already new

    def rule(self, own: dict[str, Any]) -> Rule:
        """Its static half for a leaf with these numbers of its own."""
        given = self.numbers.shared(self.part.rule) | own
        static = tuple((k, type(x), x) for k, x in given.items() if isinstance(x, float | int))
        return Rule(self.part.rule, self.part.name, self.part.direction, static)


def arrays(numbers: dict[str, Any]) -> dict[str, Any]:
    return {k: x for k, x in numbers.items() if not isinstance(x, float | int)}


def _to_float(x):
    """A number in the default float, so that a measure can mix it under strict promotion."""
    array = not isinstance(x, float | int)
    return x.astype(float) if array and jnp.issubdtype(x.dtype, jnp.floating) else x


class _Pass:
    """An update on its way through the parts: the updates so far, and the gradients once they are
    frozen.
    """

    def __init__(self, owner: str, updates, params, gradient, extra, parts: Iterable[_Part]):
        self.owner, self.updates, self.params, self.extra = owner, updates, params, extra
        whole = not any(part.per_example for _, part, _ in parts)
        self.u, self.p, self.treedef = check_updates(owner, updates, params, shapes=whole)
        self.g: Any = None
        if gradient is not None:
            self.g = self.align(owner, gradient, "the gradients")
        self.paths = lru_cache(maxsize=1)(lambda: trees.paths(updates))
        self.present = [i for i, leaf in enumerate(self.u) if leaf is not None]

    def align(self, owner: str, tree, what: str) -> list[Any]:
        return trees.align(self.treedef, tree, owner, what, "the updates")

    def by_itself(self, part: Transform, state):
        """Run one part on whole trees; its new state."""
        known = {} if self.g is None else {"gradient": self.treedef.unflatten(self.g)}
        u = self.treedef.unflatten(self.u)
        out, state = part.update(u, state, self.params, **known, **self.extra)
        if self.g is None and part.direction:
            self.g = self.u
        self.u = self.align(name_of(part), out, "the new updates")
        if part.per_example:
            check_updates(self.owner, out, self.params)
        return state

    def through(self, segment: list[_Part], last: bool = False) -> dict[tuple[str, ...], RuleState]:
        """Run consecutive rules, one `run_leaf` for each leaf; their new states. After the last
        segment nobody reads the gradients.
        """
        if not segment:
            return {}
        rules = [self._measured(*part) for part in segment]
        try:
            results = trees.map_leaves(run_leaf, *self._arguments(rules, not last))
        except RuleError as error:
            at = (i for i in self.present if jnp.shape(self.u[i]) == error.shape)
            raise ValueError(f"{error} (leaf {self.paths()[next(at)]!r})") from None
        entered = [None] * len(self.u)  # the gradients that the first direction here freezes
        for i, (new_u, frozen, slots) in zip(self.present, results, strict=True):
            self.u[i], entered[i] = new_u, frozen
            for rule, new in zip(rules, slots, strict=True):
                for flat, x in zip(rule.flat, new, strict=True):
                    flat[i] = x
        if self.g is None and any(rule.part.direction for rule in rules):
            self.g = entered
        return {rule.path: self._state(rule) for rule in rules}

    def _measured(self, path, part: Leafwise, state: RuleState) -> _Running:
        """The rule, its numbers at this step, and what it measures of the whole tree."""
        leaves = self.u if self.p is None else self.p
        numbers = Numbers(part, state.step, self.paths, leaves)
        t = increment(state.step)
        kept, scalars = dict(state.slots), None
        if part.measure:
            old = [kept[name] for name, _ in part.memory]
            g = self.u if self.g is None else self.g
            site = Site(part.name, g, self.p, t, extra=self.extra)
            given = {k: _to_float(x) for k, x in numbers.whole(part.measure).items()}
            measured = part.measure(self.u, site, *old, **given)
            if not isinstance(measured, tuple) or len(measured) != 1 + len(old):
                names = [name for name, _ in part.memory]
                must = f"the measure must return a tuple (scalars, *memory) with memory {names}"
                raise ValueError(f"{part.name}: {must}; got {code(measured)}")
            scalars, *new = measured
            for (name, _), o, n in zip(part.memory, old, new, strict=True):
                kept[name] = jax.tree.map(lambda o, n: jnp.asarray(n).astype(o.dtype), o, n)
        names = [name for name, _ in part.slots]
        flat = [self.align(part.name, kept[k], f"the leaves of slot {k!r}") for k in names]
        return _Running(path, part, numbers, t, scalars, flat, kept)

    def _arguments(self, rules: list[_Running], keep: bool):
        """Those of `run_leaf`: for each leaf a static key and a row of its own; what all share."""
        alone = tuple(rule.rule({}) for rule in rules)
        tabled = any(rule.numbers.rows for rule in rules)
        nothing = tuple(Inputs({}) for _ in rules)
        scattered = [isinstance(rule.scalars, PerLeaf) for rule in rules]
        by_rule = (list(zip(*r.flat, strict=True)) or [()] * len(self.u) for r in rules)
        slots = list(zip(*by_rule, strict=True))
        keys, rows = [], []
        for i in self.present:
            static, own = alone, nothing
            if tabled or any(scattered):
                numbers = [rule.numbers.own(rule.part.rule, i) for rule in rules]
                static = tuple(r.rule(mine) for r, mine in zip(rules, numbers, strict=True))
                own = tuple(
                    Inputs(arrays(mine), rule.scalars.values[i] if alone else None)
                    for rule, mine, alone in zip(rules, numbers, scattered, strict=True)
                )
            keys.append((keep, static))
            rows.append((self.u[i], self.g and self.g[i], self.p and self.p[i], slots[i], own))
        common = tuple(
            Inputs(arrays(rule.numbers.shared(rule.part.rule)), None if alone else rule.scalars)
            for rule, alone in zip(rules, scattered, strict=True)
        )
        return keys, rows, (common, tuple(rule.t for rule in rules))

    def _state(self, rule: _Running) -> RuleState:
        names = [name for name, _ in rule.part.slots]
        slots = {k: self.treedef.unflatten(flat) for k, flat in zip(names, rule.flat, strict=True)}
        if rule.part.records:
            slots[RECORDED] = rule.numbers.recorded(self.treedef, rule.kept[RECORDED])
        return RuleState(rule.t, rule.kept | slots)
