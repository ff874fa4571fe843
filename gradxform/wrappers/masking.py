"""Which parameters: another transformation for each group, the identity for some, nothing at all
for the frozen.

Leaves are chosen by path pattern, by predicate, by a tree of labels, or by a function of the
parameters. What is not chosen is None to the inner transformation, as an absent leaf is everywhere,
so that it has no state and a selected subtree behaves as if it were run alone. A measure of the
whole tree inside a group, such as the norm of `clip_by_global_norm`, sees that group alone: for one
global clip, put it in the chain before the groups, or keep one optimizer and give its numbers by
`by_path`.
"""

import warnings
from collections.abc import Hashable, Iterator, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from gradxform.core import Transform
from gradxform.core import leaves as trees
from gradxform.core.call import pytree
from gradxform.core.chain import AnyTransform, Inner, as_inner, stateless, transformation
from gradxform.core.labels import ParamLabels, Where, label_leaves
from gradxform.core.states import MaskedState, PartitionState
from gradxform.display.code import code
from gradxform.wrappers.wrapper import Wrapper, updated

__all__ = ["freeze", "masked", "partition", "set_to_zero"]


@pytree(static=("labels", "extras", "called", "bare"))
class Partition(Wrapper):
    """Built by `partition`, `masked` and `freeze`: a transformation for each label.

    With `bare`, labels are booleans, the state is that of the transformation with this label, the
    other one has none, and leaves whose label has no transformation pass. That of `masked` holds it
    as its `inner`.
    """

    transforms: dict[Hashable, Transform]
    labels: Any
    extras: bool = False
    called: str = "partition"
    bare: bool | None = None

    @property
    def direction(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return any(tx.direction for tx in self.transforms.values())

    def groups(self, tree) -> Iterator[tuple[Hashable, Transform, list[bool]]]:
        """Each label, its transformation, and which leaves carry it. A label with no transformation
        is an error.
        """
        labels = label_leaves(self.called, self.labels, tree, self.bare is not None)
        unknown = {label for label in labels if label is not None} - self.transforms.keys()
        if unknown and self.bare is None:
            rows = zip(trees.paths(tree), labels, strict=True)
            at, named = [path for path, x in rows if x in unknown], sorted(map(str, unknown))
            what = f"{self.called}: no transformation for the labels {named} of {at[:8]}"
            raise ValueError(f"{what}; there are transformations for {list(self.transforms)}")
        for label, tx in self.transforms.items():
            yield label, tx, [x is not None and x == label for x in labels]

    def share(self, label, state):
        """The state of one of the transformations."""
        if self.bare is None:
            known = isinstance(state, PartitionState | dict)
            if not known or {*state.keys()} != self.transforms.keys():
                have = sorted(map(str, state.keys())) if known else type(state).__name__
                what = f"{self.called}: this state belongs to another transformation"
                raise ValueError(f"{what}: it has {have}, not {list(self.transforms)}")
            return state[label]
        if label != self.bare:
            return ()
        return state.inner if isinstance(state, MaskedState) else state

    def packed(self, states: dict, held: bool):
        """The states of the transformations as one, in an order that `jit` keeps."""
        if self.bare is None:
            return PartitionState((label, states[label]) for label in sorted(states))
        return MaskedState(states[self.bare]) if held else states[self.bare]

    def init(self, params):
        groups = self.groups(params)
        states = {label: tx.init(_only(chosen, params)) for label, tx, chosen in groups}
        return self.packed(states, self.called == "masked")

    def update(self, updates, state, params=None, *, gradient=None, **extra):
        structure = jax.tree.structure(updates)
        out, states = updates, {}
        for label, tx, chosen in self.groups(updates if params is None else params):
            u, p, g = (x if x is None else _only(chosen, x) for x in (updates, params, gradient))
            own = {
                k: _only(chosen, x) if self.extras and jax.tree.structure(x) == structure else x
                for k, x in extra.items()
            }
            new, states[label] = updated(tx, u, self.share(label, state), p, g, own)
            out = _merge(chosen, new, out)
        return out, self.packed(states, isinstance(state, MaskedState))

    def inside(self, state=None, params=None):
        groups = [] if params is None else self.groups(params)
        shares = {label: _only(chosen, params) for label, _, chosen in groups}
        for label, tx in self.transforms.items():
            own = None if state is None else self.share(label, state)
            name = str(label) if self.bare is None else "inner" * (self.called == "masked")
            yield name, tx, own, shares.get(label)


def _only(chosen: list[bool], tree):
    """The chosen leaves; None for the others."""
    leaves, structure = jax.tree.flatten(tree, is_leaf=trees.is_none)
    return structure.unflatten(x if y else None for y, x in zip(chosen, leaves, strict=True))


def _merge(chosen: list[bool], new, old):
    leaves, structure = jax.tree.flatten(old, is_leaf=trees.is_none)
    found = trees.align(structure, new, "partition", "the new updates", "the updates")
    rows = zip(chosen, found, leaves, strict=True)
    return structure.unflatten(n if keep else o for keep, n, o in rows)


class _Transforms:
    """A dict from label to transformation; it must not be empty."""

    def convert(self, owner: str, name: str, x):
        if not isinstance(x, Mapping) or not x:
            what = f"{owner}: {name} must be a dict from label to transformation"
            raise TypeError(f"{what}; got {code(x)}")
        return {label: as_inner.convert(owner, f"{name}[{label!r}]", tx) for label, tx in x.items()}


Transforms = Annotated[Mapping[Any, Any], _Transforms()]


@transformation
def partition(
    transforms: Transforms, param_labels: ParamLabels, *, mask_compatible_extra_args: bool = False
):
    """Another transformation for each group of parameters.

        partition({"hidden": sgd(0.02), "rest": adamw(1e-3)}, by_path({"**/kernel": "hidden", "**":
        "rest"}))

    Each group runs as if the others were not there: it has its own step counter, its state holds
    its own leaves, and a norm over the whole tree is a norm over the group. Where only numbers
    differ, one optimizer with a `by_path` table as that number keeps the norm global.

    Args:
        transforms: a transformation for each label; one that no leaf carries is no error.
        param_labels: a tree of labels like the parameters, or a prefix of it (also a module that
            can be called); a `by_path` table; a function `f(params)` that gives a tree; a function
            `f(path, leaf)`. Functions are given the parameters at init and at update alike, and the
            updates only where update() is given no parameters.
        mask_compatible_extra_args: divide extra arguments that have the structure of the updates
            among the groups as well.

    Memory: the sum over the groups; nothing for `set_to_zero` and `identity`.

    Raises:
        ValueError: a leaf without a label, a label without a transformation, a pattern that matches
            nothing, each listed.

    Source: Optax (I. Babuschkin et al., The DeepMind JAX Ecosystem, 2020); parameter groups in
    torch.
    """
    return Partition(dict(transforms), param_labels, extras=bool(mask_compatible_extra_args))


@transformation
def multi_transform(
    transforms: Transforms, param_labels: ParamLabels, *, mask_compatible_extra_args: bool = False
):
    """Optax's older name for `partition`.

    >>> params = {"embed": jnp.ones(2), "head": jnp.ones(2)}
    >>> labels = {"embed": "slow", "head": "fast"}
    >>> tx = gx.multi_transform({"slow": gx.sgd(0.1), "fast": gx.sgd(1.0)}, labels)
    >>> updates, _ = tx.update(params, tx.init(params), params)
    >>> updates["embed"], updates["head"]
    (Array([-0.1, -0.1], dtype=float32), Array([-1., -1.], dtype=float32))

    Memory: as `partition`.

    Source: Optax (I. Babuschkin et al., The DeepMind JAX Ecosystem, 2020).
    """
    extras = mask_compatible_extra_args
    return partition(transforms, param_labels, mask_compatible_extra_args=extras)


class _Masked(AnyTransform):
    """As `Inner`; a whole optimizer makes it warn."""

    def convert(self, owner: str, name: str, x):
        tx = super().convert(owner, name, x)
        if tx.steps():
            warnings.warn(
                f"{owner}: {tx.name} is a whole optimizer: elsewhere the raw gradient passes, and "
                "apply_updates would add it to the parameters. To keep those fixed use "
                f"freeze(mask, {tx.name}(...)); for another optimizer there, partition",
                stacklevel=3,
            )
        return tx


@transformation
def masked(
    inner: Annotated[Any, _Masked()], mask: Where, *, mask_compatible_extra_args: bool = False
):
    """Run the transformation on some leaves; the others pass through as they are.

        u ← inner(u)        where the mask is true
        u ← u               elsewhere: the identity, and no state

    For parts of a chain, such as weight decay on kernels alone. What precedes it there decides what
    a preconditioner inside measures: see `on_updates`.

    Args:
        inner: the transformation. A whole optimizer makes it warn, since elsewhere the gradient
            itself would be the step: see `freeze`.
        mask: a path pattern ("**/kernel"), a predicate `f(path, leaf)`, a tree of booleans or a
            prefix of it, or a function `f(params)` that gives one.
        mask_compatible_extra_args: mask extra arguments that have the structure of the updates as
            well.

    >>> params = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
    >>> tx = gx.masked(gx.add_decayed_weights(0.5), "kernel")
    >>> updates, _ = tx.update(gx.tree.tree_map(jnp.zeros_like, params), tx.init(params), params)
    >>> updates["kernel"], updates["bias"]
    (Array([0.5, 0.5], dtype=float32), Array([0., 0.], dtype=float32))

    Memory: that of the inner transformation on the chosen leaves.

    Raises:
        ValueError: a pattern that matches nothing, or a tree of booleans that does not fit.

    Source: Optax (I. Babuschkin et al., The DeepMind JAX Ecosystem, 2020).

    Not: `freeze`, where the leaves that are not trained get a zero update.
    """
    return Partition({True: inner}, mask, bool(mask_compatible_extra_args), "masked", True)


def _to_zero(updates, params):
    """u ← 0"""
    return trees.tree_map(jnp.zeros_like, updates)


@transformation
def set_to_zero():
    """Zero updates: u ← 0. It has no state and reads nothing: no gradient need be computed."""
    return stateless(_to_zero)


@transformation
def freeze(mask: Where, inner: Inner | None = None):
    """Keep the chosen parameters fixed: zero update, and no state.

        freeze("embed/**", adamw(1e-3))               trains all but the embedding
        chain(adamw(1e-3), freeze("embed/**"))        the same steps, with Adam's averages for all

    Args:
        mask: which leaves to freeze: a path pattern, a predicate `f(path, leaf)`, a tree of
            booleans or a prefix of it, or a function `f(params)` that gives one.
        inner: the optimizer of the other leaves, which runs as if the frozen ones were not there;
            None leaves their updates as they are.

    >>> params = {"embed": jnp.ones(2), "head": jnp.ones(2)}
    >>> tx = gx.freeze("embed", gx.sgd(0.1))
    >>> updates, _ = tx.update(params, tx.init(params), params)
    >>> updates["embed"], updates["head"]
    (Array([0., 0.], dtype=float32), Array([-0.1, -0.1], dtype=float32))

    Memory: that of the inner optimizer on the leaves that are trained.

    Raises:
        ValueError: a pattern that matches nothing, or a tree of booleans that does not fit.

    Source: Optax (I. Babuschkin et al., The DeepMind JAX Ecosystem, 2020), its `freeze` and
    `selective_transform`.
    """
    if inner is None:
        return Partition({True: set_to_zero()}, mask, called="freeze", bare=True)
    return Partition({False: inner, True: set_to_zero()}, mask, called="freeze", bare=False)


@transformation
def selective_transform(optimizer: Inner, *, freeze_mask: Where):
    """Optax's name for `freeze(freeze_mask, optimizer)`.

    Memory: that of the optimizer on the leaves that are trained.

    Source: Optax (I. Babuschkin et al., The DeepMind JAX Ecosystem, 2020).
    """
    return freeze(freeze_mask, optimizer)
