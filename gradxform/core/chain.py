"""Compositions: chains of named parts, constructors that are names for them, and what other
libraries bring.

A chain runs its consecutive rules together, leaf by leaf, and passes them, beside the updates so
far, the gradient as it was when it entered the first direction.
"""

import dataclasses
from collections.abc import Callable
from functools import cached_property, partial
from inspect import signature
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from gradxform.core import leaves as trees
from gradxform.core.call import Call, define, pytree
from gradxform.core.frozen import Frozen, count_on
from gradxform.core.leafwise import Leafwise, Run, leafwise
from gradxform.core.states import ChainState
from gradxform.core.transform import Transform, check_updates, name_of, warn_of_directions
from gradxform.display.code import code
from gradxform.numerics import wide_dtype

__all__ = ["Chain", "Inner", "Named", "apply_updates", "as_transform", "chain"]
__all__ += [
    "identity",
    "nesterov_point",
    "stack",
    "stateless",
    "stateless_with_tree_map",
    "transformation",
]


class Named(Call, Run):
    """A transformation that is a name for a composition: `adam(1e-3)`. Its leaves are its numeric
    arguments.
    """

    @property
    def direction(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.expand().direction

    @cached_property
    def _composition(self) -> Transform:
        tx = as_transform(self._function.build(**self.arguments))
        return tx.renamed(self.name) if isinstance(tx, Leafwise) else tx

    def check(self) -> None:
        self.expand()  # so that what cannot be built is an error where the user calls

    def expand(self) -> Transform:
        """The composition it is a name for: `adam(1e-3).expand()` is a chain."""
        return self._composition

    def init(self, params):
        return self.expand().init(self.trained(params))

    def parts(self):
        return self.expand().parts()

    def inside(self, state=None, params=None):
        yield "", self.expand(), state, params


def transformation(function=None, *, conventions=None):
    """Decorator: a function that composes transformations becomes a constructor whose value is a
    pytree of its arguments.

    `conventions` maps each value of the argument `convention` to the defaults that change with it.
    """
    if function is None:
        return partial(transformation, conventions=conventions)
    return define(Named, conventions=conventions)(function)


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Chain(Run):
    """Parts applied one after another, by name. Built by `chain`."""

    name: ClassVar[str] = "chain"  # pyright: ignore[reportIncompatibleVariableOverride]
    # in the order of application, which a plain dict would lose as a pytree
    items: dict[str, Transform]

    def tree_flatten_with_keys(self):
        parts, names = self.tree_flatten()
        return tuple(zip(map(jax.tree_util.DictKey, names), parts, strict=True)), names

    def tree_flatten(self):
        return tuple(self.items.values()), tuple(self.items)

    @classmethod
    def tree_unflatten(cls, names, children):
        return cls(dict(zip(names, children, strict=True)))

    def __getitem__(self, name):
        return self.items[name] if isinstance(name, str) else super().__getitem__(name)

    def __repr__(self):
        shown, before = [], []
        for name, part in self.items.items():
            *_, automatic = _named([*before, part])
            shown.append(repr(part) if name == automatic else f"({name!r}, {part!r})")
            before.append((name, part))
        return f"chain({', '.join(shown)})"

    @property
    def direction(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return any(part.direction for part in self.items.values())

    def init(self, params):
        params = self.trained(params)
        return ChainState({name: part.init(params) for name, part in self.items.items()})

    def parts(self):
        for name, part in self.items.items():
            for path, leaf_part in part.parts():
                yield (name, *path), leaf_part

    def inside(self, state=None, params=None):
        for name, part in self.items.items():
            yield name, part, None if state is None else state[name], params


def chain(*parts) -> Chain:
    """Apply transformations one after another; the first one sees the gradient.

    Each part is a transformation, a `(name, transformation)` pair, an Optax `(init, update)` pair,
    or None, which is skipped. Parts are named after their constructor (`ema`, `ema_2`, …), and the
    state is a record of theirs, by name, by position and by unpacking: `state["ema"].slots["m"]`,
    `state[0]`, `first, second = state`.

    Beside the updates so far, parts see *the gradient*. From the first direction on (`momentum`,
    `ema`, …) it is frozen at what entered that direction: a preconditioner after it goes on
    measuring the gradient, and `chain(ema(0.9, debias=False), scale_by_rms(0.999))` is Adam without
    bias correction. Where no direction comes first, a chain means what it means in Optax. A nested
    chain means the same as its parts written out. Where a direction meets a whole optimizer, as in
    `chain(ema(0.9), adam(0.1))`, a warning says so, and `on_updates` gives Optax's meaning.

    >>> tx = gx.chain(gx.clip_by_global_norm(1.0), gx.adam(1e-3))
    >>> tx["adam"].learning_rate
    0.001
    >>> tx.init({"w": jnp.ones(2)}).keys()
    ('clip_by_global_norm', 'adam')

    Memory: the sum of its parts; a step makes one pass over the leaves, and no temporary the size
    of the parameters.
    """
    items = _named(parts)
    warn_of_directions([*items.values()])
    return Chain(items)


def _named(parts) -> dict[str, Transform]:
    items: dict[str, Transform] = {}
    for part in parts:
        if part is None:
            continue
        explicit = isinstance(part, tuple) and len(part) == 2 and isinstance(part[0], str)
        name, tx = (part[0], as_transform(part[1])) if explicit else ("", as_transform(part))
        if explicit and name in items:
            raise ValueError(f"chain: two parts are named {name!r}")
        base, n = name_of(tx), 1
        while not explicit and (not name or name in items):
            name, n = base if n == 1 else f"{base}_{n}", n + 1
        items[name] = tx
    return items


@pytree(static=("init_fn", "update_fn"))
class Foreign(Transform):
    """Any other `(init, update)` pair, for example from Optax, as a part of a chain. Its numbers
    stay closed over.
    """

    init_fn: Callable[..., Any]
    update_fn: Callable[..., Any]

    @property
    def name(self):
        return getattr(self.update_fn, "__qualname__", "foreign").split(".")[0]

    def __repr__(self):
        return f"Foreign({self.name})"

    def init(self, params):
        return self.init_fn(params)

    def takes(self, name: str) -> bool:
        parameters = signature(self.update_fn).parameters
        return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    def update(self, updates, state, params=None, **extra):
        if "gradient" not in signature(self.update_fn).parameters:  # that of a chain is not for it
            extra.pop("gradient", None)
        taken = {name: x for name, x in extra.items() if self.takes(name)}
        return self.update_fn(updates, state, params, **taken)


def as_transform(x) -> Transform:
    """A transformation as it is, and any object or pair with `init` and `update` wrapped as one."""
    if isinstance(x, Transform):
        return x
    if callable(getattr(x, "init", None)) and callable(getattr(x, "update", None)):
        return Foreign(x.init, x.update)
    if isinstance(x, tuple) and len(x) == 2 and all(map(callable, x)):
        return Foreign(*x)
    raise TypeError(f"chain: a part must be {PART}; {_instead(x)}")


PART = "a transformation or an (init, update) pair"


def _instead(x) -> str:
    """What was given in place of a transformation, and what to write."""
    if isinstance(x, list | tuple) and len(x) > 0 and all(hasattr(part, "update") for part in x):
        return "got several in a list; pass them one by one: chain(*parts)"
    if callable(x):
        name = getattr(x, "__name__", "it")
        return f"got the function {name}; call it: {name}(...)"
    return f"got {code(x)}"


def _add(key, p, u):
    dtype = wide_dtype(p.dtype, u.dtype)
    return (p.astype(dtype) + u.astype(dtype)).astype(p.dtype)


def _alike(a, b) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b)


def apply_updates(params, updates) -> Any:
    """p + u, leaf by leaf, in the parameter's dtype; a None update keeps the parameter.

    Raises:
        ValueError: the trees differ in structure, or a leaf in shape, naming the path.
    """
    if params is None:
        if updates is None:  # an absent tree, as an absent leaf
            return None
        raise ValueError("apply_updates: there are no parameters: apply_updates(params, updates)")
    for name, x, other in (("params", params, updates), ("updates", updates, params)):
        if type(x) is tuple and len(x) == 2 and _alike(x[0], other) and not _alike(x, other):
            write = "updates, state = tx.update(...), then apply_updates(params, updates)"
            raise TypeError(f"apply_updates: {name} is the pair (updates, state); write {write}")
    frozen = Frozen("apply_updates", updates, params)
    p: Any
    u, p, treedef = check_updates("apply_updates", *map(frozen.without, (updates, params)))
    present = [i for i, leaf in enumerate(u) if leaf is not None]
    rows = [(jnp.asarray(p[i]), u[i]) for i in present]
    for i, row in zip(present, rows, strict=True):
        if jnp.iscomplexobj(row[1]) and not jnp.iscomplexobj(row[0]):
            real = "is complex, its parameter real; take the real part of the gradient"
            raise ValueError(f"apply_updates: update {trees.paths(updates)[i]!r} {real}")
    for i, new in zip(present, trees.map_leaves(_add, [None] * len(rows), rows), strict=True):
        p[i] = new
    new = treedef.unflatten(p)
    return frozen.put(new, map(count_on, frozen.p, frozen.u)) if frozen.some else new


def nesterov_point(tx: Transform, state, params):
    """The parameters to which a zero gradient would carry: for `momentum`, Nesterov's point x -
    lr·β·v.

    Nesterov's method as first written takes the gradient there: `g = grad(f)(nesterov_point(tx,
    state, params))`, then `tx.update(g, state, params)` with heavy-ball `momentum`.
    `momentum(nesterov=True)` is its usual reformulation, whose parameters are these look-ahead
    points.

    Source: Y. Nesterov (1983); I. Sutskever et al. (2013), equations 3 and 4.
    """
    zeros = trees.tree_map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, state, params)
    return apply_updates(params, updates)


@transformation
def identity():
    """The transformation that changes nothing: u ← u. It has no state."""
    return chain()


@pytree(static=("function",))
class Stateless(Transform):
    """A function of updates and params. Built by `stateless`."""

    function: Callable[..., Any]

    @property
    def name(self):
        return getattr(self.function, "__name__", "stateless").strip("_<>")

    def __repr__(self):
        return f"stateless({code(self.function)})"

    def init(self, params):
        return ()

    def update(self, updates, state, params=None, **extra):
        return self.function(updates, params), state


def stateless(f) -> Transform:
    """A transformation without state from `f(updates, params) -> updates` on whole trees."""
    return Stateless(f)


def stateless_with_tree_map(f) -> Transform:
    """A transformation without state from `f(u, p) -> u` on one leaf and its parameter (None when
    not given).
    """
    return leafwise(_Stateless(f), name=getattr(f, "__name__", "stateless").strip("_<>"))


@dataclasses.dataclass(frozen=True)
class _Stateless:
    function: Callable[..., Any]

    @property
    def equation(self) -> str:
        return f"u ← `{getattr(self.function, '__name__', 'stateless').strip('_<>')}`(u, p)"

    def __repr__(self):
        return code(self.function)

    def __call__(self, u, at):
        return self.function(u, at.given_p)


def stack(transforms) -> Any:
    """One optimizer whose numbers are arrays with a leading axis, to `jax.vmap` over:
    `stack([adam(lr) for lr in rates])`.

    >>> params = jnp.zeros(())
    >>> first_step = lambda tx: tx.update(jnp.ones(()), tx.init(params), params)[0]
    >>> jax.vmap(first_step)(gx.stack([gx.sgd(0.1), gx.sgd(0.2)]))
    Array([-0.1, -0.2], dtype=float32)

    Raises:
        ValueError: the optimizers differ in more than their numbers.
    """
    transforms = list(transforms)
    if not transforms:
        raise ValueError("stack: nothing to stack")
    structures = [jax.tree.structure(tx) for tx in transforms]
    for i, structure in enumerate(structures):
        if structure != structures[0]:
            shown = f"\n  {transforms[i]!r}\n  {transforms[0]!r}"
            raise ValueError(f"stack: item {i} is built differently from item 0:{shown}")
    return jax.tree.map(lambda *xs: jnp.stack([jnp.asarray(x) for x in xs]), *transforms)


class Whole(Named):
    """A name for a transformation that looks at trees as they are; nothing is checked before it
    runs.
    """

    @property
    def per_example(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.expand().per_example

    def transformed(self, updates, state, params, gradient, extra):
        return self.expand().update(updates, state, params, **extra)

    def parts(self):
        yield (), self


def whole(function):
    """Decorator: as `transformation`, for what is not leaf by leaf."""
    return define(Whole)(function)


class AnyTransform:
    """A transformation, or an (init, update) pair from elsewhere."""

    def convert(self, owner: str, name: str, x: Any) -> Transform:
        try:
            return as_transform(x)
        except TypeError:
            raise TypeError(f"{owner}: {name} must be {PART}; {_instead(x)}") from None


as_inner = AnyTransform()


Inner = Annotated[Any, as_inner]
