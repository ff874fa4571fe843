"""Keep attention logits within bounds by the weights they come from.

A logit is a product of a query and a key, each linear in its weights: where the largest one of a
head exceeds a bound, these weights of that head are shrunk until it would not have.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.core import Positive, RuleState, Transform, transformation
from gradxform.core import leaves as trees
from gradxform.core.call import pytree
from gradxform.core.hyper import Fraction
from gradxform.core.labels import ByPath, Table, as_mask, label_leaves
from gradxform.core.leaf import Site
from gradxform.core.leafwise import Numbers
from gradxform.core.transform import check_updates, require_params
from gradxform.display.code import code
from gradxform.numerics import increment, real_dtype, wide_dtype

__all__ = ["qk_clip"]

NAME = "max_logits"  # the argument of update(), and what a Flax module sows it as


class _Heads:
    """Which axes of a parameter those of its maxima are: an axis, several, or a table by path."""

    static = True
    text = (
        "the axis of a parameter that is its heads, or that falls into them; several where the "
        "maxima have more axes than that of the heads, such as (0, -2) for stacked layers; or a "
        "by_path table of these"
    )

    def __repr__(self):
        return "axes"

    def convert(self, owner: str, name: str, x):
        if isinstance(x, Table):
            return x
        if isinstance(x, ByPath | Mapping):
            rows = x.items() if isinstance(x, Mapping) else zip(x.patterns, x.values, strict=True)
            return Table((p, self._axes(owner, f"{name}[{p!r}]", v)) for p, v in rows)
        return self._axes(owner, name, x)

    def _axes(self, owner: str, name: str, x) -> tuple[int, ...]:
        axes = x if isinstance(x, Sequence) and not isinstance(x, str) else (x,)
        if not all(isinstance(a, int | np.integer) and not isinstance(a, bool) for a in axes):
            what = "an axis, several, or a by_path table of these"
            raise TypeError(f"{owner}: {name} must be {what}; got {code(x)}")
        return tuple(map(int, axes))


Heads = Annotated[Any, _Heads()]


class _Which:
    """Which leaves; None for none."""

    static = True
    text = as_mask.text

    def __repr__(self):
        return "leaves"

    def convert(self, owner: str, name: str, x):
        return as_mask.convert(owner, name, x)


Which = Annotated[Any, _Which()]


def _by_module(owner: str, maxima, paths: Sequence[str]) -> list[tuple[str, Any]]:
    """The maxima of the attention that each parameter is in: path and array, by the longest path
    that the parameter's begins with.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(maxima)
    named, used = {}, set()
    for path, x in flat:
        steps = trees.path_string(path).split("/")
        steps = steps[: steps.index(NAME)] if NAME in steps else steps
        named["/".join(steps)] = x
    found = []
    for path in paths:
        steps = path.split("/")
        above = ("/".join(steps[:i]) for i in range(len(steps), -1, -1))
        module = next((m for m in above if m in named), None)
        if module is None:
            have = f"it has {list(named)[:8]}" if named else "it is empty"
            raise ValueError(f"{owner}: {NAME} has nothing for {path!r}; {have}")
        used.add(module)
        found.append((module, named[module]))
    if paths and (idle := [m for m in named if m not in used]):
        raise ValueError(f"{owner}: {NAME} of {idle[:8]} belong to no query; these are {paths[:8]}")
    return found


def _spread(owner: str, path: str, shape, axes, at: str, maxima):
    """The maxima, each repeated for its entries of a parameter, to multiply with that."""

    def refuse(words):
        where = f"of {at!r}" if at else "it"
        has = f"{path!r} of shape {[*shape]} has heads={axes[0] if len(axes) == 1 else axes}"
        raise ValueError(f"{owner}: {has}, and {NAME} {where} the shape {[*maxima.shape]}: {words}")

    if maxima.ndim != len(axes):
        refuse("it needs one number for each head, an axis for each axis of heads")
    if any(not -len(shape) <= a < len(shape) for a in axes):
        refuse(f"it has {len(shape)} axes")
    order = [a % len(shape) for a in axes]
    for i, (axis, heads) in enumerate(zip(order, maxima.shape, strict=True)):
        if not heads or shape[axis] % heads:
            words = f"{shape[axis]} entries do not fall into {heads} heads"
            refuse(f"{words}; where heads share keys write keys=None, so that queries take it all")
        maxima = jnp.repeat(maxima, shape[axis] // heads, axis=i)
    maxima = maxima.transpose(np.argsort(order))
    return maxima.reshape([n if a in order else 1 for a, n in enumerate(shape)])


def _shrink(u, p, largest, share, *, tau, alpha):
    """u + (γᵅ - 1) (p + u), γ = min(1, τ / S); a maximum that is no number changes nothing."""
    dtype = wide_dtype(u.dtype, p.dtype)
    real = real_dtype(dtype)
    largest, tau, alpha = (jnp.asarray(x, real) for x in (largest, tau, alpha))
    over = (largest > tau) & jnp.isfinite(largest)
    gamma = tau / jnp.where(over, largest, tau)
    factor = gamma ** (alpha if share == "query" else 1 - alpha)
    whole = p.astype(dtype) + u.astype(dtype)
    return (u.astype(dtype) + (factor - 1).astype(dtype) * whole).astype(u.dtype)


@pytree(static=("queries", "keys", "heads"))
class QKClip(Transform):
    """Built by `qk_clip`."""

    name = "qk_clip"
    hypers: dict[str, Any]
    queries: Any
    keys: Any
    heads: Any

    def init(self, params):
        self._shares(params)
        return RuleState(jnp.zeros((), jnp.int32), {})

    def _shares(self, tree) -> list[str | None]:
        """Which leaves are "query" and which "key"."""
        query = label_leaves(self.name, self.queries, tree, True)
        key = [None] * len(query)
        if self.keys is not None:
            key = label_leaves(self.name, self.keys, tree, True)
        both = [p for p, q, k in zip(trees.paths(tree), query, key, strict=True) if q and k]
        if both:
            raise ValueError(f"{self.name}: {both[:8]} are both query and key")
        return ["query" if q else (k and "key") or None for q, k in zip(query, key, strict=True)]

    def update(self, updates, state, params=None, *, gradient=None, **extra):
        require_params(self.name, params)
        if not isinstance(state, RuleState):
            what = f"{self.name}: this state belongs to another transformation"
            raise ValueError(f"{what}: got {type(state).__name__}")
        maxima = Site(self.name, None, None, None, extra=extra).need(NAME)
        p: Any
        u, p, structure = check_updates(self.name, updates, params)
        paths, shares = trees.paths(updates), self._shares(params)
        chosen = [i for i, share in enumerate(shares) if share and u[i] is not None]
        axes: Any = [self.heads] * len(u)
        if isinstance(self.heads, Table):
            axes = label_leaves(self.name, self.heads, params, False)
        numbers = Numbers(self, state.step, lambda: paths, p)
        found = _by_module(self.name, maxima, [paths[i] for i in chosen])
        for i, (at, largest) in zip(chosen, found, strict=True):
            largest = jnp.asarray(largest)
            largest = _spread(self.name, paths[i], u[i].shape, axes[i], at, largest)
            own = numbers.shared(_shrink) | numbers.own(_shrink, i)
            u[i] = _shrink(u[i], p[i], largest, shares[i], **own)
        return structure.unflatten(u), RuleState(increment(state.step), state.slots)


@transformation
def qk_clip(
    tau: Positive = 100.0, alpha: Fraction | None = None, *, queries: Which = "**/query/**",
    keys: Which | None = "**/key/**", heads: Heads = -2,
):  # fmt: skip
    """Shrink the weights of queries and keys where the largest attention logit of their head
    exceeds a bound: MuonClip's QK-clip.

        γ = min(1, τ / S)                       S the largest logit of the head
        p ← γᵅ (p + u)                          queries
        p ← γ¹⁻ᵅ (p + u)                        keys

    It comes last, after any optimizer, and `update` is given the logits' maxima of the same step:

        tx = chain(muon(0.02), qk_clip(tau=100.0))
        updates, state = tx.update(grads, state, params, max_logits={"layers_0/attention": maxima})

    `max_logits` is a tree that has, under the path of each attention, its maxima [heads], before
    the softmax and after the scale 1/√d, over the batch and all pairs of positions. What a Flax
    module sows as "max_logits" is found where it lies. One array alone is that of all.

    Args:
        tau: τ.
        alpha: α, by default 1/2, and 1 where `keys` is None.
        queries: the parameters, biases included: logits are linear in them as well.
        keys: the same; None for none, where several heads share a key: then queries take all of γ.

    Shapes: maxima [heads], or with an axis for each of `heads`. An axis of n entries is divided
    among the heads, n / heads for each, one after another: -2 is that of a Flax kernel [inputs,
    heads, width] and its bias [heads, width], -1 that of a kernel [inputs, heads·width].

    Memory: none.

    Raises:
        TypeError: update() without max_logits.
        ValueError: update() without params; a pattern that matches nothing; no maxima for a query,
            maxima of no query, or of another number of heads.

    Source: Kimi Team, Kimi K2: Open Agentic Intelligence (2025), algorithm 1.
    """
    if alpha is None:
        alpha = 1.0 if keys is None else 0.5
    return QKClip({"tau": tau, "alpha": alpha}, queries, keys, heads)
