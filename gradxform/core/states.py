"""What a transformation remembers: the state of one rule, and the states of a chain's parts.

Programs written for Optax read states by its names, `state.count`, `state.mu`. What a state calls
otherwise it answers to under these names too, to be read only.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
from jax.tree_util import DictKey, register_pytree_with_keys_class

RECORDED = "learning_rate"  # the number whose last value a state keeps

# Optax's names of what a rule remembers, and what they may be here
OURS = {
    "count": ("step",),
    "mu": ("m",),
    "nu": ("v", "s"),
    "trace": ("v",),
    "ema": ("m",),
    "plateau_count": ("bad",),
    "best_value": ("best",),
}
NOTHING = object()  # what a state answers to a name that is none of its own


def answers(**names: str | tuple[str, ...] | Callable):
    """Decorator of a state: Optax's names, each with the field that answers, or a function of the
    state.
    """

    def decorate(cls):
        cls.answers = names
        cls.__getattr__ = _read
        cls.count = property(lambda state: _read(state, "count"))  # in place of the tuple's method
        return cls

    return decorate


def answer(state, name: str):
    """What a state has under one of Optax's names; `NOTHING` where that is no name of it."""
    known = getattr(type(state), "answers", {})
    ours = known.get(name, ())
    if callable(ours):
        return ours(state)
    slots = state.slots if isinstance(state, RuleState) else {}
    for field in (ours,) if isinstance(ours, str) else (*ours, name):
        if field in state._fields:
            return getattr(state, field)
        if field in slots:
            return slots[field]
    return NOTHING


def _read(state, name: str):
    found = NOTHING if name.startswith("_") else answer(state, name)
    if found is NOTHING:
        has = ["step", *state.slots] if isinstance(state, RuleState) else [*state._fields]
        what = f"{type(state).__name__} has no {name!r}; it has {has}"
        raise AttributeError(f"{what}; gx.get(state, {name!r}) looks for it in the whole state")
    return found


@answers(**OURS)
class RuleState(NamedTuple):
    """The state of one rule.

    `count`, `mu`, `nu`, `trace` and `ema`, Optax's names, read `step`, `m`, `v` (or `s`), `v` and
    `m`; every slot is an attribute, too.

    Attributes:
        step: [] int32, the number of updates made.
        slots: named trees. Each mirrors the parameters leaf by leaf, except what the rule keeps
            once for the whole tree. A rule with a learning rate keeps in `slots["learning_rate"]`
            the one used last: a scalar, or one for each leaf where it is a table by path.
    """

    step: jax.Array
    slots: dict[str, Any]


@register_pytree_with_keys_class
class ChainState(tuple):
    """The states of a chain's parts in their order: `state["ema"]`, `state[0]`, `a, b = state`.

    A tuple that knows the names of its entries. `keys()`, `values()` and `items()` are those of a
    dict, key paths are the names, and to Flax's serialization it is a named tuple. Optax's names
    (`state.mu`) are looked up in the parts.
    """

    _fields: tuple[str, ...]

    def __new__(cls, states: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **named):
        given = dict(states, **named)
        made = super().__new__(cls, given.values())
        made._fields = tuple(given)
        return made

    def __getitem__(self, key):
        if not isinstance(key, str):
            return super().__getitem__(key)
        if key not in self._fields:
            raise KeyError(f"this chain has no state {key!r}; it has {list(self._fields)}")
        return super().__getitem__(self._fields.index(key))

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(f"a chain's state has no {name!r}")
        if name in self._fields:
            return self[name]
        found = [x for state in self if (x := _of_part(state, name)) is not NOTHING]
        if len(found) == 1 or (found and name == "count"):  # counters of one chain run together
            return found[0]
        what = f"has {len(found) or 'no'} {name!r}; it has {list(self._fields)}"
        raise AttributeError(f"a chain's state {what}; gx.get(state, {name!r}) looks inside")

    @property
    def count(self):  # pyright: ignore[reportIncompatibleMethodOverride]
        """The updates made, under Optax's name."""
        return self.__getattr__("count")

    def __contains__(self, key):
        return key in self._fields if isinstance(key, str) else super().__contains__(key)

    def __repr__(self):
        shown = ", ".join(f"{name}={state!r}" for name, state in self.items())
        return f"{type(self).__name__}({shown})"

    def __reduce__(self):
        return type(self), (dict(self.items()),)

    def keys(self):
        """The names of the parts."""
        return self._fields

    def values(self):
        """The states of the parts."""
        return tuple(self)

    def items(self):
        """Names and states."""
        return tuple(zip(self._fields, self, strict=True))

    def _replace(self, **states):
        if unknown := states.keys() - {*self._fields}:
            raise ValueError(f"this chain has no state {min(unknown)!r}: {list(self._fields)}")
        return type(self)(dict(self.items()) | states)

    def tree_flatten_with_keys(self):
        """For JAX: the states with their names."""
        return tuple((DictKey(name), state) for name, state in self.items()), self._fields

    def tree_flatten(self):
        """For JAX: the states."""
        return tuple(self), self._fields

    @classmethod
    def tree_unflatten(cls, names, states):
        """For JAX: the same names with other states."""
        return cls(zip(names, states, strict=True))


def is_empty(state) -> bool:
    """Whether it is what Optax takes for the state of what has none: EmptyState(), () or None."""
    return state is None or (isinstance(state, tuple) and not state)


def at_path(state, path):
    """The state of a part of a chain, by its path."""
    for name in path:
        known = isinstance(state, ChainState | dict)
        if not known or name not in state:
            have = sorted(state.keys()) if known else type(state).__name__
            what = f"{'/'.join(path)}: this state belongs to another chain"
            raise ValueError(f"{what}: it has {have}, not {name!r}")
        state = state[name]
    return state


def rebuilt(state, new_states, path=()):
    """The state of a chain, from those of its parts by path."""
    if path in new_states:
        return new_states[path]
    if not isinstance(state, ChainState | dict):
        what = f"{'/'.join(path)}: this state belongs to another chain"
        raise ValueError(f"{what}: {path[-1]!r} has no part here")
    names = state.keys()
    if isinstance(state, dict):  # a checkpoint's, which JAX sorts
        parts = [p[len(path)] for p in new_states if p[: len(path)] == path]
        names = dict.fromkeys([*parts, *names])
    return ChainState({k: rebuilt(state[k], new_states, (*path, k)) for k in names})


def _of_part(state, name: str):
    if isinstance(state, ChainState):
        return getattr(state, name, NOTHING)
    return answer(state, name) if name in getattr(type(state), "answers", {}) else NOTHING


@answers(inner_state="inner")
class MaskedState(NamedTuple):
    """State of `masked`: that of the inner transformation; `inner_state` in Optax."""

    inner: Any


@register_pytree_with_keys_class
class PartitionState(ChainState):
    """The states of the groups of a `partition`, by label: `state["fast"]`, and
    `state.inner_states["fast"].inner_state` for programs written for Optax.
    """

    def __getitem__(self, key: Hashable):
        if key not in self._fields:
            raise KeyError(f"there is no group {key!r}; there are {list(self._fields)}")
        return tuple.__getitem__(self, self._fields.index(key))

    def __contains__(self, key):
        return key in self._fields

    def keys(self):
        """The labels."""
        return dict.fromkeys(self._fields).keys()

    @property
    def inner_states(self) -> dict[Hashable, MaskedState]:
        """The states by label, each inside a named tuple, as Optax has them."""
        return {label: MaskedState(state) for label, state in self.items()}
