"""Optax's classes of states: what `isinstance` says of the states here.

`isinstance(state, gx.ScaleByAdamState)` holds for Optax's own and for the state here that stands in
its place; `gx.ScaleByAdamState(count, mu, nu)` makes Optax's.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from gradxform.core import ChainState, RuleState
from gradxform.core.leafwise import RECORDED
from gradxform.interop.optax.state import _FIELDS

_INJECT = ("InjectHyperparamsState", "InjectStatefulHyperparamsState")
_CONDITIONAL = ("ConditionallyMaskState", "ConditionallyTransformState")

# a wrapper's state here -> Optax's names of it
_WRAPPERS: dict[str, tuple[str, ...]] = {
    "AccumulateState": ("MultiStepsState",),
    "ConditionState": _CONDITIONAL,
    "InjectStatefulHyperparamsState": _INJECT,
    "LowRankState": ("GaLoreState",),
    "MaskedState": ("MaskedState",),
    "MechanicState": ("MechanicState",),
    "PartitionState": ("PartitionState",),
    "SamState": ("SAMState",),
    "SkipState": ("ApplyIfFiniteState",),
    "SophiaState": ("SophiaState",),
}


def stands_for(x) -> set[str]:
    """The names of Optax's classes that a state is an instance of, or stands in the place of.

    An absent leaf is a `MaskedNode`. A rule by itself is known by its slots, a chain of rules by
    the names of its parts.
    """
    kind = type(x)
    if x is None:
        return {"MaskedNode"}
    if kind.__module__.startswith("gradxform.") and kind.__name__ in _WRAPPERS:
        return {*_WRAPPERS[kind.__name__]}
    if isinstance(x, RuleState):
        return _of_slots(x)
    if isinstance(x, ChainState):
        return _of_parts(x)
    theirs = isinstance(x, tuple) and kind.__module__.startswith("optax.")
    return {cls.__name__ for cls in kind.__mro__} if theirs else set()


def _slots(state: RuleState) -> set[str]:
    return {*state.slots} - {RECORDED}


def _of_slots(state: RuleState) -> set[str]:
    slots = _slots(state)
    if not slots:
        return {"ScaleByScheduleState"} if RECORDED in state.slots else {"EmptyState"}
    found = ((kind, pairs) for rule in _FIELDS.values() for kind, pairs in rule.items())
    return {k for k, pairs in found if {*pairs} == slots and {*pairs.values()} == _known(k)}


def _of_parts(state: ChainState) -> set[str]:
    with_slots = [(k, x) for k, x in state.items() if not isinstance(x, RuleState) or _slots(x)]
    rules = [_FIELDS.get(re.sub(r"_\d+$", "", name), {}) for name, _ in with_slots]
    rows = [*zip(rules, (x for _, x in with_slots), strict=True)]
    if not rows or not all(isinstance(x, RuleState) for _, x in rows):
        return set()
    shared = set.intersection(*({*rule} for rule in rules))
    fits = lambda kind: all({*rule[kind]} == _slots(x) for rule, x in rows)  # noqa: E731
    fields = lambda kind: {field for rule in rules for field in rule[kind].values()}  # noqa: E731
    return {kind for kind in shared if fits(kind) and fields(kind) == _known(kind)}


@lru_cache
def _known(kind: str) -> set[str]:
    """The fields of one of Optax's classes that have a slot here."""
    return {field for rule in _FIELDS.values() for field in rule.get(kind, {}).values()}


class StateClass(type):
    """The class of such classes."""

    def __instancecheck__(cls, instance):
        return super().__instancecheck__(instance) or cls.__name__ in stands_for(instance)


class _Empty(NamedTuple):
    pass


class EmptyState(_Empty, metaclass=StateClass):
    """The state of a transformation that remembers nothing."""

    __slots__ = ()


def is_state(x) -> bool:
    """Whether it is one of Optax's classes of states."""
    named = isinstance(x, type) and issubclass(x, tuple) and hasattr(x, "_fields")
    return named and (x.__name__.endswith("State") or x.__name__ in ("ApplyEvery", "MaskedNode"))


@lru_cache
def state_class(theirs: type) -> type:
    """The class that goes by the name of one of Optax's: it makes Optax's own."""
    if theirs.__name__ == "EmptyState":
        return EmptyState
    doc = f"Optax's `{theirs.__name__}`, and what stands in its place here."

    def new(cls, *args, **kwargs):
        return theirs(*args, **kwargs)

    return StateClass(theirs.__name__, (theirs,), {"__slots__": (), "__new__": new, "__doc__": doc})
