"""What a transformation remembers: the state of one rule, and the states of a chain's parts."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
from jax.tree_util import DictKey, register_pytree_with_keys_class


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


@register_pytree_with_keys_class
class ChainState(tuple):
    """The states of a chain's parts in their order: `state["ema"]`, `state[0]`, `a, b = state`.

    A tuple that knows the names of its entries. `keys()`, `values()` and `items()` are those of a
    dict, key paths are the names, and to Flax's serialization it is a named tuple.
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
        if name.startswith("_") or name not in self._fields:
            raise AttributeError(f"a chain's state has no {name!r}; it has {list(self._fields)}")
        return self[name]

    def __contains__(self, key):
        return key in self._fields if isinstance(key, str) else super().__contains__(key)

    def __repr__(self):
        return f"ChainState({', '.join(f'{name}={state!r}' for name, state in self.items())})"

    def __reduce__(self):
        return ChainState, (dict(self.items()),)

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
        return ChainState(dict(self.items()) | states)

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
