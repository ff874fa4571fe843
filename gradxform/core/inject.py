"""Optax's `inject_hyperparams`: the arguments of a function that builds an optimizer live in its
state.

Whatever the function does with them, a chain, a doubled rate, another library's optimizer, it is
called again at every update, with the numbers that the state has then.
"""

import inspect
from collections.abc import Callable, Collection, Iterable
from functools import cached_property, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import DictKey

from gradxform.core.call import ARRAY, Value, _leaf_equal, pytree
from gradxform.core.chain import Foreign, as_transform
from gradxform.core.hyper import at_step
from gradxform.core.schedule import Schedule, from_function
from gradxform.core.transform import Transform, name_of
from gradxform.core.tunable import exchanged
from gradxform.display.code import code
from gradxform.numerics import increment


@jax.tree_util.register_pytree_with_keys_class
class InjectedNumbers(dict[str, Any]):
    """The hyperparameters by name, arrays: a dict to assign to, which refuses what no update would
    read, and checks the numbers of a constructor.
    """

    def __init__(self, numbers, function=None, scheduled: Iterable[str] = ()):
        super().__init__(numbers)
        self._function, self._scheduled = function, (*scheduled,)

    def __setitem__(self, name, value):
        owner = getattr(self._function, "__name__", "inject_hyperparams")
        if name not in self:
            raise TypeError(f"{owner}: no number named {name!r}; it has {list(self)}")
        if name in self._scheduled:
            is_one = f"{name} is a schedule, of which this is the last value"
            raise ValueError(f"{owner}: {is_one}: it cannot become {code(value)}")
        super().__setitem__(name, exchanged(self._function, name, self[name], value))

    def __delitem__(self, name):
        raise TypeError("inject_hyperparams: its numbers cannot be deleted")

    def update(self, *others, **named):
        """As of a dict, each number checked."""
        for name, value in dict(*others, **named).items():
            self[name] = value

    def __reduce__(self):
        return InjectedNumbers, (dict(self), self._function, self._scheduled)

    def tree_flatten_with_keys(self):
        """For JAX: the numbers with their names."""
        children = tuple((DictKey(name), x) for name, x in self.items())
        return children, (tuple(self), self._function, self._scheduled)

    @classmethod
    def tree_unflatten(cls, aux, children):
        """For JAX: other numbers under the same names."""
        names, *checks = aux
        return cls(zip(names, children, strict=True), *checks)


class InjectStatefulHyperparamsState(NamedTuple):
    """The state of `inject_hyperparams`, with Optax's name and fields.

    Attributes:
        count: [] int32, the number of updates made.
        hyperparams: the arguments that are numbers, as arrays; a schedule as the number that the
            last update used. To assign to: `state.hyperparams["learning_rate"] = 3e-4`.
        hyperparams_states: the states of those schedules that have one.
        inner_state: that of the optimizer.
    """

    count: jax.Array
    hyperparams: InjectedNumbers
    hyperparams_states: dict[str, Any]
    inner_state: Any

    def replace(self, **numbers) -> "InjectStatefulHyperparamsState":
        """The state with other numbers: `state.replace(learning_rate=3e-4)`; nothing is retraced.

        Also where a framework has wrapped the leaves (Flax nnx Variables).
        """
        new = jax.tree.map(lambda x: x, self.hyperparams)
        new.update(numbers)
        return self._replace(hyperparams=new)


@pytree(static=("factory", "fixed", "dtype"))
class Injected(Transform):
    """A function that builds an optimizer, and its arguments. Built by `inject_hyperparams`."""

    factory: Callable[..., Any]
    numbers: dict[str, Any]
    schedules: dict[str, Any]
    inner: dict[str, Any]  # transformations
    fixed: tuple[tuple[str, Any], ...]  # all other arguments
    dtype: Any

    def __repr__(self):
        given = dict(self.fixed) | self.numbers | self.schedules | self.inner
        parameters = inspect.signature(self.factory).parameters
        default = {name: p.default for name, p in parameters.items()}
        names = sorted(given, key=[*parameters, *given].index)
        changed = [k for k in names if k not in default or not _leaf_equal(given[k], default[k])]
        shown = (f"{name}={code(given[name])}" for name in changed)
        return f"inject_hyperparams({code(self.factory)})({', '.join(shown)})"

    @property
    def name(self):
        return name_of(self._first)

    @property
    def direction(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._first.direction

    @property
    def per_example(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._first.per_example

    @cached_property
    def _first(self) -> Transform:
        """What the function builds of the numbers before the first update."""
        states = {name: x.init() for name, x in self._stateful.items()}
        return self._built(self.numbers | self._scheduled(0, states, {}))

    @property
    def _stateful(self) -> dict[str, Any]:
        return {name: x for name, x in self.fixed if _is_stateful(x)}

    def _built(self, numbers: dict[str, Any]) -> Transform:
        fixed = {name: x.value if isinstance(x, _Kept) else x for name, x in self.fixed}
        return as_transform(self.factory(**(fixed | self.inner | numbers)))

    def _scheduled(self, step, states, extra) -> dict[str, Any]:
        now = {name: f(states[name], **extra) for name, f in self._stateful.items()}
        return now | {name: at_step(x, step) for name, x in self.schedules.items()}

    def _arrays(self, numbers, params):
        """Numbers in their dtypes: float32, or what was asked for; what Optax's own optimizers
        compute with has the parameters' dtype, as there, so that their states keep theirs.
        """
        dtype = self.dtype
        if dtype is None and isinstance(self._first, Foreign):
            dtypes = [jnp.finfo(x.dtype) for x in jax.tree.leaves(params) if _is_floating(x)]
            dtype = max(dtypes, key=lambda kind: kind.bits).dtype if dtypes else None

        def array(x):
            if isinstance(x, jax.Array) and not getattr(x, "weak_type", False):
                return jnp.array(x)
            kept = dtype is None or not _is_floating(x)
            return jnp.array(x, jnp.result_type(x) if kept else dtype)

        function = self.factory if hasattr(self.factory, "converters") else None
        scheduled = (*self.schedules, *self._stateful)
        return InjectedNumbers(jax.tree.map(array, numbers), function, sorted(scheduled))

    def inside(self, state=None, params=None):
        if state is None:
            yield "inner_state", self._first, None, params
        else:
            yield "inner_state", self._built(state.hyperparams), state.inner_state, params

    def init(self, params):
        states = {name: x.init() for name, x in self._stateful.items()}
        numbers = self._arrays(self.numbers | self._scheduled(0, states, {}), params)
        inner = self._built(numbers).init(params)
        count = jnp.zeros((), jnp.int32)
        return InjectStatefulHyperparamsState(count, numbers, states, inner)

    def update(self, updates, state, params=None, **extra):
        if not isinstance(state, InjectStatefulHyperparamsState):
            what = "this state belongs to another transformation"
            raise ValueError(f"inject_hyperparams: {what}: got {type(state).__name__}")
        count, given, states, inner = state
        now = dict(given) | self._scheduled(count, states, extra)
        known = {*self.numbers, *self.schedules, *self._stateful}
        if other := now.keys() ^ known:
            must = f"hyperparams must have the names {sorted(known)}"
            raise TypeError(f"inject_hyperparams: {must}; {min(other)!r} is too many or missing")
        numbers = self._arrays(now, params)
        updates, inner = self._built(numbers).update(updates, inner, params, **extra)
        states = {name: x.update(states[name], **extra) for name, x in self._stateful.items()}
        return updates, InjectStatefulHyperparamsState(increment(count), numbers, states, inner)


class _Kept:
    """An argument that has no hash: it is compared by identity."""

    def __init__(self, value):
        self.value = value

    def __repr__(self):
        return code(self.value)


def _kept(x):
    try:
        hash(x)
    except TypeError:
        return _Kept(x)
    return x


def _is_floating(x) -> bool:
    return jnp.issubdtype(getattr(x, "dtype", type(x)), jnp.floating)


def _is_stateful(x) -> bool:
    """Whether it is what Optax calls a `StatefulSchedule`."""
    methods = [getattr(x, name, None) for name in ("init", "update", "__call__")]
    return not inspect.isclass(x) and all(map(callable, methods))


def _is_known(x) -> bool:
    return isinstance(x, Transform | Schedule)


def _arguments(factory, args, kwargs) -> tuple[dict[str, Any], Collection[str]]:
    """The arguments of a call by name, those left out too, and which of them may be numbers."""
    if hasattr(factory, "converters"):  # a constructor knows its numbers
        call = factory(*args, **kwargs)
        return call.arguments, call._dynamic
    signature = inspect.signature(factory)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    given = dict(bound.arguments)
    for name, p in signature.parameters.items():
        if p.kind is p.VAR_KEYWORD:
            given |= given.pop(name)
    return given, given


def inject_hyperparams(
    inner_factory: Callable[..., Any], static_args: str | Iterable[str] = (), hyperparam_dtype=None
) -> Callable[..., Injected]:
    """The arguments of a function that builds an optimizer, as numbers in the optimizer's state.

    `inject_hyperparams(f)(...)` takes what `f` takes; at every update `f` is called with the
    numbers that are in the state. So the numbers have the names of *its* arguments, whatever it
    does with them: a chain of its own, twice the rate, an optimizer of Optax. An argument that is a
    function of the step gives the number of each step.

    >>> @gx.inject_hyperparams
    ... def clipped(rate, limit=1.0):
    ...     return gx.chain(gx.clip_by_global_norm(limit), gx.adam(2 * rate))
    >>> tx = clipped(rate=1e-3)
    >>> state = tx.init({"w": jnp.ones(2)})
    >>> float(state.hyperparams["limit"])
    1.0
    >>> state.hyperparams["rate"] = 1e-4

    Assigning changes this very state; `state.replace(rate=1e-4)` is its pure form. `tunable(tx)`
    does the same with the numbers of an optimizer that is built already, checked as at
    construction.

    Args:
        inner_factory: a function of named arguments that returns a transformation.
        static_args: the names of arguments that are neither numbers nor schedules, though their
            values look so: an integer that shapes depend on, a function of the parameters. Of
            gradxform's own constructors they are known.
        hyperparam_dtype: the dtype of the numbers; None is float32 whatever that of the parameters,
            and the parameters' for an optimizer of Optax itself, as there.

    Memory: a few scalars more than the optimizer.

    Raises:
        TypeError: what is given builds nothing: an optimizer and no function.
        ValueError: `static_args` names no argument.
    """
    if isinstance(inner_factory, Transform) or not callable(inner_factory):
        needs = "needs a function that builds an optimizer, adam and not adam(1e-3)"
        raise TypeError(f"inject_hyperparams: {needs}; got {code(inner_factory)}")
    static = {static_args} if isinstance(static_args, str) else {*static_args}
    parameters = inspect.signature(inner_factory).parameters
    if unknown := static - parameters.keys():
        has = f"the function has {list(parameters)}"
        raise ValueError(f"inject_hyperparams: static_args: no argument {min(unknown)!r}; {has}")

    @wraps(inner_factory, updated=())
    def construct(*args, **kwargs) -> Injected:
        numbers, schedules, inner, fixed = {}, {}, {}, {}
        given, varying = _arguments(inner_factory, args, kwargs)
        for name, x in given.items():
            known = [y for y in jax.tree.leaves(x, is_leaf=_is_known) if _is_known(y)]
            function = getattr(x, "function", x) if isinstance(x, Schedule) else x
            if name in static or name not in varying or isinstance(x, bool):
                fixed[name] = x
            elif any(isinstance(y, Transform) for y in known):
                inner[name] = x
            elif _is_stateful(function):
                fixed[name] = function
            elif known:
                schedules[name] = x
            elif callable(x) and not inspect.isclass(x):
                schedules[name] = from_function(x)
            elif isinstance(x, int | float | ARRAY | Value) or hasattr(inner_factory, "converters"):
                numbers[name] = x
            else:
                fixed[name] = x
        kept = tuple((name, _kept(x)) for name, x in fixed.items())
        return Injected(inner_factory, numbers, schedules, inner, kept, hyperparam_dtype)

    return construct
