"""An optimizer that lives in its own state, where a running program can change its numbers."""

from collections.abc import MutableMapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradxform.core.call import Call, Value, pytree
from gradxform.core.hyper import at_step
from gradxform.core.schedule import Schedule
from gradxform.core.states import answers
from gradxform.core.transform import Transform, name_of
from gradxform.display.code import code


@answers(inner_state="inner", count=lambda state: _steps(state.inner))
class TunableState(NamedTuple):
    """The optimizer, its numbers as arrays, and its state."""

    tx: Any
    inner: Any

    def replace(self, **numbers) -> "TunableState":
        """The state with other numbers of the same kind: `state.replace(learning_rate=3e-4)`;
        nothing is retraced.

        Also where a framework has wrapped the leaves (Flax nnx Variables): the new number goes
        inside the wrapper.
        """
        tx, new = self.tx, {}
        if not isinstance(tx, Call):
            only = "only a named optimizer has numbers by name"
            raise TypeError(f"tunable: {only}; this one is {code(tx)}")
        for name, x in numbers.items():
            if name not in tx._dynamic:
                raise TypeError(f"{tx.name}: no number named {name!r}; it has {list(tx._dynamic)}")
            new[name] = exchanged(tx._function, name, tx._dynamic[name], x)
        return self._replace(tx=type(tx)(tx._function, tx._dynamic | new, tx._static))

    @property
    def hyperparams(self) -> "Hyperparams":
        """The numbers by name, as `inject_hyperparams` has them."""
        return Hyperparams(self)


def exchanged(function, name: str, old, x):
    """A number in the place of another one, its dtype and its wrapper, checked as the constructor
    checks.
    """
    converter = getattr(function, "converters", {}).get(name)
    given = converter.convert(function.__name__, name, x) if converter else x
    old_nodes, structure = jax.tree.flatten(old, is_leaf=_is_number)
    if jax.tree.structure(given) != structure:
        owner = getattr(function, "__name__", "inject_hyperparams")
        raise ValueError(f"{owner}: {name} is {code(old)} here and cannot become {code(given)}")
    pairs = zip(old_nodes, jax.tree.leaves(given), strict=True)
    return structure.unflatten(jax.tree.map(partial(_like, v), node) for node, v in pairs)


class Hyperparams(MutableMapping[str, Any]):
    """The numbers of a `tunable` optimizer by name, a schedule as the number that the last update
    used.

    As in Optax, assigning changes this very state: `state.hyperparams["learning_rate"] = 3e-4`. A
    pure program says `state = state.replace(learning_rate=3e-4)`.
    """

    def __init__(self, state: TunableState):
        self._state = state

    def __getitem__(self, name):
        number = self._state.tx._dynamic[name]
        if isinstance(number, Schedule):
            return at_step(number, jnp.maximum(_steps(self._state.inner) - 1, 0))
        return number

    def __setitem__(self, name, value):
        new = self._state.replace(**{name: value}).tx
        vars(self._state.tx).clear()  # with the composition it had built from the old numbers
        vars(self._state.tx).update(vars(new))

    def __delitem__(self, name):
        raise TypeError(f"{self._state.tx.name}: its numbers cannot be deleted")

    def __iter__(self):
        return iter(getattr(self._state.tx, "_dynamic", {}))

    def __len__(self):
        return len(list(iter(self)))

    def __repr__(self):
        return repr(dict(self))


def _steps(state):
    """The outermost step counter of a state; 0 where it has none."""
    flat = [(path, x) for path, x in jax.tree_util.tree_leaves_with_path(state) if path]
    counters = [(len(path), x) for path, x in flat if getattr(path[-1], "name", "") == "step"]
    return min(counters, key=lambda found: found[0])[1] if counters else jnp.zeros((), jnp.int32)


def _is_number(node) -> bool:
    """An array, or what a framework wrapped it in."""
    return not isinstance(node, Value | tuple | list | dict)


def _like(new, old):
    return jnp.broadcast_to(jnp.asarray(new, old.dtype), old.shape)


@pytree()
class Tunable(Transform):
    """An optimizer that lives in its own state. Built by `tunable`."""

    inner: Transform

    def __repr__(self):
        return f"tunable({self.inner!r})"

    @property
    def name(self):
        return name_of(self.inner)

    @property
    def direction(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.direction

    def inside(self, state=None, params=None):
        now = TunableState(self.inner, None) if state is None else state
        yield "", now.tx, now.inner, params

    def init(self, params):
        numbers = jax.tree.map(lambda x: jnp.array(x, dtype=jnp.result_type(x)), self.inner)
        return TunableState(numbers, self.inner.init(params))

    def update(self, updates, state, params=None, **extra):
        if not isinstance(state, TunableState):
            got = type(state).__name__
            raise ValueError(f"tunable: this state belongs to another transformation: got {got}")
        updates, inner = state.tx.update(updates, state.inner, params, **extra)
        own = jax.tree.map(lambda x: x, state.tx)  # assigning to hyperparams changes one state only
        return updates, TunableState(own, inner)


def tunable(tx) -> Tunable:
    """Keep the optimizer's numbers in its state, where a running program can change them without
    being compiled again.

    For frameworks that hold the optimizer as static metadata (Flax's `TrainState`,
    `nnx.Optimizer`): `state.tx.learning_rate` reads, `state.replace(learning_rate=3e-4)` sets.
    Scalars are float32 whatever the parameters' dtype.

    >>> tx = gx.tunable(gx.adam(1e-3))
    >>> state = tx.init({"w": jnp.ones(2)}).replace(learning_rate=0.5)
    >>> float(state.tx.learning_rate)
    0.5

    Memory: a few scalars more than the optimizer.
    """
    if not isinstance(tx, Transform):
        raise TypeError(f"tunable: needs a gradxform transformation; got {code(tx)}")
    return Tunable(tx)
