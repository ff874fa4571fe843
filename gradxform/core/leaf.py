"""Rules one after another on one leaf: what a rule sees, and the function that runs them."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradxform.core.leaves import is_none
from gradxform.display.code import code
from gradxform.numerics import mixed, real_dtype, wide_dtype


class Site:
    """What a rule sees beside the update so far: the gradient, the parameter, the time.

    Attributes:
        g: the gradient of this leaf: what entered the first direction of the chain, or the update
            so far.
        p: the parameter; reading it when update() was given no params is an error that names the
            rule.
        given_p: the parameter, or None when update() was given no params.
        t: [] int32, 1 at the first update.
        scalars: what the rule's measure of the whole tree returned.
        extra: the keyword arguments of update().
    """

    __slots__ = ("extra", "g", "given_p", "owner", "scalars", "t")

    def __init__(self, owner, g, p, t, scalars=None, extra: Mapping[str, Any] | None = None):
        self.owner, self.g, self.given_p, self.t = owner, g, p, t
        self.scalars, self.extra = scalars, extra or {}

    @property
    def p(self):
        if self.given_p is None:
            needed = "update() needs the parameters: update(updates, state, params)"
            raise ValueError(f"{self.owner}: {needed}")
        return self.given_p

    def need(self, name: str):
        """A keyword argument of update() that this rule cannot do without."""
        if name not in self.extra:
            near = difflib.get_close_matches(name, self.extra, n=1)
            hint = f"; did you misspell it as {near[0]!r}?" if near else ""
            raise TypeError(f"{self.owner}: update() needs the keyword argument {name}={hint}")
        return self.extra[name]


class PerLeaf(NamedTuple):
    """Scalars that a measure returns one per leaf, in the order of the leaves."""

    values: list[Any]


class RuleError(ValueError):
    """A rule returned something that does not fit its leaf, which has this shape."""

    def __init__(self, message: str, shape: tuple[int, ...]):
        super().__init__(message)
        self.shape = shape


class Rule(NamedTuple):
    """What a leaf function is traced for: an equation, and the numbers given in Python, which keep
    their precision.
    """

    equation: Callable[..., Any]
    name: str
    direction: bool
    numbers: tuple[tuple[str, type, Any], ...]

    def run(self, u, site, old, numbers):
        """The new update and slots, checked against the leaf."""
        with mixed(u):
            try:
                out = self.equation(u, site, *old, **{k: v for k, _, v in self.numbers}, **numbers)
            except TypeError as error:
                if all(jnp.shape(x) in (u.shape, ()) for x in jax.tree.leaves(old)):
                    raise
                raise RuleError(f"{self.name}: {error}", u.shape) from error
        new, *slots = out if isinstance(out, tuple) else (out,)
        self._check(u.shape, new, tuple(slots), old)
        return new, tuple(slots)

    def _check(self, shape, u, slots, old):
        def refuse(words):
            raise RuleError(f"{self.name}: the rule {words}", shape)

        arrays = jax.tree.leaves(slots, is_leaf=is_none)
        for what, x in (("an update", u), *(("a slot", x) for x in arrays)):
            if not hasattr(x, "shape"):
                refuse(f"returned {code(x)} as {what}, which is no array")
        if u.shape != shape:
            refuse(f"made an update of shape {u.shape} for a gradient of shape {shape}")
        shapes = jax.tree.map(jnp.shape, slots)
        if shapes != jax.tree.map(jnp.shape, old):
            refuse(f"returned slots of other shapes than it was given: {shapes}")


class Inputs(NamedTuple):
    """What a rule is given beside its leaf: numbers by name, and what its measure returned."""

    numbers: dict[str, Any]
    scalars: Any = None


def run_leaf(key, u, g, p, slots, own, common, ts):
    """Rules one after another on one leaf: the update, the gradient that was frozen, the slots.

    `own` are the inputs of each rule that are this leaf's alone, `common` those of all leaves.
    """
    keep, rules = key
    came_in = u.dtype
    dtype = wide_dtype(u.dtype, u.dtype if p is None else p.dtype)
    real = real_dtype(dtype)

    def widen(x):
        if x is None or not jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        return x.astype(dtype if jnp.iscomplexobj(x) else real)

    u, g, p = u.astype(dtype), g if g is None else g.astype(dtype), widen(p)
    new_slots = []
    for rule, old, mine, shared, t in zip(rules, slots, own, common, ts, strict=True):
        if rule.direction and g is None:
            g = u
        measured = shared.scalars if mine.scalars is None else mine.scalars
        given = old, shared.numbers | mine.numbers, measured
        wide, numbers, scalars = jax.tree.map(widen, given)
        u, new = rule.run(u, Site(rule.name, u if g is None else g, p, t, scalars), wide, numbers)
        new_slots.append(jax.tree.map(lambda o, n: n.astype(o.dtype), old, new))
    frozen = g.astype(came_in) if keep and g is not None else None
    return u.astype(came_in), frozen, tuple(new_slots)
