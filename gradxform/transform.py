"""What every transformation is, and how its parts run over the leaves of a tree."""

import difflib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradxform import tree as trees
from gradxform.define import Value, code
from gradxform.mathematics import to_mathematics

KNOWN_EXTRAS = ("value", "grad", "value_fn", "key", "loss", "hessian", "obj_fn")


class Transform(Value):
    """A transformation of gradients: `init_fn, update_fn = tx`, and a pytree whose leaves are its numbers."""

    direction: bool = False  # whether it freezes the gradient that later parts of a chain measure

    per_example: bool = False  # whether it is given gradients with an axis of examples in front, and makes one of them

    name: str  # what its state goes by in a chain; without one, the name of the class

    def init(self, params) -> Any:
        """The state before the first update. Works under `jax.eval_shape`; no buffer of params is reused."""
        raise NotImplementedError(f"{type(self).__name__} defines no init")

    def update(self, updates, state, params=None, **extra) -> tuple[Any, Any]:
        """The transformed updates, each leaf in its own dtype, and the next state."""
        raise NotImplementedError(f"{type(self).__name__} defines no update")

    def parts(self) -> Iterator[tuple[tuple[str, ...], "Transform"]]:
        """The rules it consists of, nested chains written out, each with the path of its state."""
        yield (), self

    def _repr_latex_(self) -> str:
        return to_mathematics(self)

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter((self.init, self.update))


def name_of(tx) -> str:
    """The name of a transformation: its own, or that of its class."""
    return getattr(tx, "name", type(tx).__name__.lower())


class Run(Transform):
    """A transformation made of parts: `update` runs them over the leaves, as one compiled program when called eagerly."""

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
        """Run consecutive parts `(path, part, state)` over all leaves: the updates, the frozen gradients, and the states by path."""
        raise NotImplementedError(f"{type(self).__name__} defines no run_segment")


def _is_number(x) -> bool:
    return isinstance(x, int | float | complex | np.ndarray | np.generic | jax.Array)


def _run(tx: Run, updates, state, params, gradient, extra):
    for name in extra:
        near = difflib.get_close_matches(name, KNOWN_EXTRAS, n=1, cutoff=0.75)
        if near and name not in KNOWN_EXTRAS and near[0] not in extra:
            raise TypeError(f"{tx.name}: update() got an unknown keyword argument {name!r}; did you mean {near[0]!r}?")
    parts = list(tx.parts())
    per_example = any(part.per_example for _, part in parts)
    u, p, treedef = check_updates(tx.name, updates, params, shapes=not per_example)
    g = None if gradient is None else trees.align(treedef, gradient, tx.name, "the gradients", "the updates")
    new_states: dict[tuple[str, ...], Any] = {}
    segment: list[tuple[tuple[str, ...], Fused, Any]] = []

    def flush(u, g, last=False):
        if segment:
            u, g, states = segment[0][1].run_segment(segment, u, g, p, treedef, updates, extra, last)
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
        out, new_states[path] = part.update(treedef.unflatten(u), part_state, params, **known, **extra)
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
            raise ValueError(f"{'/'.join(path)}: this state belongs to another chain: it has {have}, not {name!r}")
        state = state[name]
    return state


def _rebuild(state, new_states, path):
    if path in new_states:
        return new_states[path]
    return {name: _rebuild(sub, new_states, (*path, name)) for name, sub in state.items()}


def check_leaf(owner: str, what: str, path: str, leaf):
    """The leaf as an array (None as it is); an integer, key or float0 leaf is an error that names its path."""
    if leaf is None:
        return None
    if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape"):
        try:
            leaf = jnp.asarray(leaf)
        except (TypeError, ValueError):
            raise TypeError(f"{owner}: {what} {path!r} is not an array: {code(leaf)}") from None
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        raise TypeError(
            f"{owner}: {what} {path!r} has dtype {leaf.dtype}; only real and complex leaves can be optimized: leave it out, or make it None"
        )
    return jnp.asarray(leaf) if isinstance(leaf, np.ndarray | np.generic) else leaf


def check_updates(owner, updates, params, shapes: bool = True):
    """Leaves of updates and params side by side, or an error that names the leaf that does not fit."""
    leaves, treedef = jax.tree.flatten(updates, is_leaf=trees.is_none)
    u: list[Any] = list(leaves)
    p: Any = None if params is None else trees.align(treedef, params, owner, "the parameters", "the updates")
    leaf: Any
    for i, leaf in enumerate(u):
        if leaf is None:
            continue
        if not isinstance(leaf, jax.Array) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            u[i] = leaf = check_leaf(owner, "update", trees.paths(updates)[i], leaf)
        if p is not None and shapes and np.shape(leaf) != np.shape(p[i]):
            path = trees.paths(updates)[i]
            raise ValueError(f"{owner}: update {path!r} has shape {np.shape(leaf)}, its parameter has {np.shape(p[i])}")
        if p is not None and isinstance(p[i], np.ndarray | np.generic | float):
            p[i] = jnp.asarray(p[i])
    return u, p, treedef
