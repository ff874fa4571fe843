"""Rules one after another on one leaf: what a rule sees, and the function that runs them."""

import difflib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradxform.core import leaves as trees
from gradxform.display.code import code
from gradxform.numerics import real_dtype, wide_dtype


class Site:
    """What a rule sees beside the update so far: the gradient, the parameter, the time.

    Attributes:
        g: the gradient of this leaf: what entered the first direction of the chain, or the update
            so far.
        p: the parameter; reading it when update() was given no params is an error that names the
            rule.
        t: [] int32, 1 at the first update.
        scalars: what the rule's measure of the whole tree returned.
        extra: the keyword arguments of update().
    """

    __slots__ = ("_p", "extra", "g", "owner", "scalars", "t")

    def __init__(self, owner, g, p, t, scalars=None, extra: Mapping[str, Any] | None = None):
        self.owner, self.g, self._p, self.t, self.scalars, self.extra = (
            owner,
            g,
            p,
            t,
            scalars,
            extra or {},
        )

    @property
    def p(self):
        if self._p is _UNREAD:
            raise _ParameterRead
        if self._p is None:
            raise ValueError(
                f"{self.owner}: update() needs the parameters: update(updates, state, params)"
            )
        return self._p

    @property
    def given_p(self):
        """The parameter, or None when update() was given no params."""
        return None if self._p is None else self.p

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


class _ParameterRead(Exception):
    """A rule that does not name the parameter has read it after all."""


_UNREAD = object()


class _RuleError(ValueError):
    """A rule returned something that does not fit its leaf, which has this shape."""

    def __init__(self, message: str, shape: tuple[int, ...]):
        super().__init__(message)
        self.shape = shape


class _RuleKey(NamedTuple):
    """What a leaf function is compiled for: the rule, and the numbers given in Python, which keep
    their precision.
    """

    rule: Callable[..., Any]
    name: str
    direction: bool
    numbers: tuple[tuple[str, type, Any], ...]


def _run_leaf(key, u, g, p, slots, own_numbers, own_scalars, numbers, scalars, ts):
    keep, p_dtype, rules = key
    came_in, shape = u.dtype, u.shape
    dtype = wide_dtype(u.dtype, p_dtype or u.dtype)
    real = real_dtype(dtype)

    def widen(x):
        if x is None or not jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        return x.astype(dtype if jnp.iscomplexobj(x) else real)

    u = u.astype(dtype)
    p = widen(p) if p is not None else _UNREAD if p_dtype else None
    frozen = g = None if g is None else g.astype(dtype)
    all_new = []
    numbers = [
        common if own is None else own for own, common in zip(own_numbers, numbers, strict=True)
    ]
    scalars = [
        common if own is None else own for own, common in zip(own_scalars, scalars, strict=True)
    ]
    for rule, old, dynamic, t, scalar_values in zip(
        rules, slots, numbers, ts, scalars, strict=True
    ):
        if rule.direction and g is None:
            frozen = g = u
        hypers = {k: v for k, _, v in rule.numbers} | {k: widen(v) for k, v in dynamic.items()}
        site = Site(rule.name, u if g is None else g, p, t, jax.tree.map(widen, scalar_values))
        with (
            jax.numpy_dtype_promotion("standard") if jnp.iscomplexobj(u) else nullcontext()
        ):  # rules mix |g|² with g
            try:
                out = rule.rule(u, site, *jax.tree.map(widen, old), **hypers)
            except TypeError as error:
                if all(jnp.shape(x) in (shape, ()) for x in jax.tree.leaves(old)):
                    raise
                raise _RuleError(f"{rule.name}: {error}", shape) from error
        u, *new = out if isinstance(out, tuple) else (out,)
        for what, x in (
            ("an update", u),
            *(("a slot", x) for x in jax.tree.leaves(new, is_leaf=trees.is_none)),
        ):
            if not hasattr(x, "shape"):
                raise _RuleError(
                    f"{rule.name}: the rule returned {code(x)} as {what}, which is no array", shape
                )
        if u.shape != shape:
            raise _RuleError(
                f"{rule.name}: the rule made an update of shape {u.shape} for a gradient of shape "
                f"{shape}",
                shape,
            )
        if len(new) != len(old) or jax.tree.map(jnp.shape, tuple(new)) != jax.tree.map(
            jnp.shape, old
        ):
            raise _RuleError(
                f"{rule.name}: the rule returned slots of other shapes than it was given: "
                f"{jax.tree.map(jnp.shape, tuple(new))}",
                shape,
            )
        all_new.append(jax.tree.map(lambda o, n: n.astype(o.dtype), old, tuple(new)))
    return (
        u.astype(came_in),
        frozen.astype(came_in) if keep and frozen is not None else None,
        tuple(all_new),
    )
