"""What a basis is: orthonormal vectors on either side of a matrix, found from its gradients.

    x = Uᵀ g V      the projection into the basis
    u = U x Vᵀ      the way back

A side without vectors is left as it is. A basis is measured at every step and found anew at every
k-th; in between, that work is skipped. It is a constant to differentiation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from gradxform.core import Transform
from gradxform.core import leaves as trees
from gradxform.core.call import Call, define
from gradxform.core.hyper import one_number
from gradxform.core.leafwise import Numbers, arrays
from gradxform.core.states import RuleState
from gradxform.core.transform import check_updates
from gradxform.matrices.declaration import View, views
from gradxform.matrices.matrixwise import MatrixSlot, Oriented
from gradxform.matrices.placement import run_alike
from gradxform.numerics import increment, mixed, real_dtype, wide_dtype
from gradxform.wrappers.wrapper import counter, is_multiple

__all__ = ["Basis", "BasisRule", "When", "a_basis"]


class When(NamedTuple):
    """The step of a basis: `t` is 1 at the first; whether it is the first, and whether the basis is
    found anew.
    """

    t: Any
    first: Any
    due: Any


@dataclass(frozen=True)
class BasisRule:
    """How a basis is found, on one matrix g [rows, columns].

    Attributes:
        names: of what it remembers of each matrix, the statistics and the vectors.
        left, right: which of these are the vectors, as columns; a slot that is a scalar stands for
            a side that is left as it is, and so does None.
        full: whether the vectors span the space, so that nothing is lost.
        late: whether a step is made in the basis that the gradients before it gave.
    """

    names: ClassVar[tuple[str, ...]] = ()
    left: ClassVar[str | None] = None
    right: ClassVar[str | None] = None
    full: ClassVar[bool] = True
    late: ClassVar[bool] = False

    def flipped(self, view: View) -> bool:
        """Whether it is given the transposed matrices: tall ones, if no rule says otherwise."""
        return view.rows > view.columns

    def on(self, seen: Oriented) -> "BasisRule":
        """The rule for matrices seen so: itself, where it does not ask which side is which."""
        return self

    def slots(self, seen: Oriented) -> dict[str, MatrixSlot]:
        """What it remembers, by name."""
        raise NotImplementedError(f"{type(self).__name__} defines no slots")

    def measured(self, g, slots, when: When, **numbers) -> dict[str, Any]:
        """The slots after a gradient."""
        return slots

    def found(self, g, slots, when: When, which, **numbers) -> dict[str, Any]:
        """The new vectors; `which` tells this matrix from the others."""
        raise NotImplementedError(f"{type(self).__name__} defines no found")

    def _vectors(self, slots):
        sides = (slots.get(name) for name in (self.left, self.right))
        return (None if q is None or q.ndim < 2 else q for q in sides)

    def down(self, x, slots):
        """A matrix in the basis."""
        left, right = self._vectors(slots)
        x = x if left is None else jnp.conj(left).T @ x
        return x if right is None else x @ right

    def up(self, x, slots):
        """And back."""
        left, right = self._vectors(slots)
        x = x if left is None else left @ x
        return x if right is None else x @ jnp.conj(right).T

    def projections(self, seen: Oriented) -> Oriented:
        """How the projections of a leaf fall into matrices: where nothing is lost, as the leaf; one
        axis of the batch after another in a subspace.
        """
        if self.full:
            return seen
        slots = self.slots(seen)
        sides: list[Any] = [seen.rows, seen.columns]
        for i, name in enumerate((self.left, self.right)):
            if axes := slots[name].axes if name else None:
                sides[i] = axes[1]
        rows, columns = reversed(sides) if seen.flipped else sides
        shape = (*seen.view.batch, rows, columns)
        view = View(shape, tuple(range(len(shape))), len(shape) - 2, rows, columns, 1, 1)
        return Oriented(view, seen.flipped)


class Plan(NamedTuple):
    """What the function of a basis returns: the rule, what is a matrix, the numbers by name, among
    them `every`.
    """

    rule: BasisRule
    matrices: Any
    numbers: dict[str, Any]


class Basis(Call, Transform):
    """A basis of the gradients of matrices, for `in_basis`. By itself it finds its vectors, and
    changes nothing: u ← u.
    """

    @cached_property
    def plan(self) -> Plan:
        """What it is made of."""
        return self._function.build(**self.arguments)

    def check(self) -> None:
        assert isinstance(self.plan, Plan)

    @property
    def rule(self) -> BasisRule:
        """How it is found."""
        return self.plan.rule

    @property
    def hypers(self) -> dict[str, Any]:
        """Its numbers by name."""
        return self.plan.numbers

    def reads_gradient(self) -> bool:
        return True

    def seen(self, tree) -> list[Oriented | None]:
        """How the rule sees each leaf; None for one that is absent or is no matrix."""
        found = views(self.name, self.plan.matrices, tree)
        return [view and Oriented(view, self.rule.flipped(view)) for view in found]

    def matrices_of(self, tree):
        """The tree of matrices; None for all other leaves."""
        leaves, structure = jax.tree.flatten(tree, is_leaf=trees.is_none)
        rows = zip(leaves, self.seen(tree), strict=True)
        return structure.unflatten(x if how else None for x, how in rows)

    def init(self, params):
        leaves, structure = jax.tree.flatten(params, is_leaf=trees.is_none)
        made = [
            how and {k: slot.make(x, how) for k, slot in self.rule.slots(how).items()}
            for x, how in zip(leaves, self.seen(params), strict=True)
        ]
        slots = {k: structure.unflatten(x and x[k] for x in made) for k in self.rule.names}
        return RuleState(counter(), slots)

    def update(self, updates, state, params=None, *, gradient=None, **extra):
        u, p, structure = check_updates(self.name, updates, params)
        g = u
        if gradient is not None:
            g = trees.align(structure, gradient, self.name, "the gradients", "the updates")
        here = Here(self, state, structure, u, p)
        here.run(_found, {i: ((g[i],), (), (0, 0)) for i in here.present})
        return structure.unflatten(u), here.state()


a_basis = define(Basis)


class _Leaf(NamedTuple):
    """How the arrays of a leaf fall into matrices: those like the parameter, those like its
    projection, the slots of the basis; and how many of the first two there are of a result.
    """

    seen: Oriented
    low: Oriented
    slots: tuple[tuple[str, MatrixSlot], ...]
    gives: tuple[int, int]

    @property
    def many(self) -> int | None:
        """How many matrices, where they have an axis."""
        return self.seen.many if self.seen.batch else None

    def apart(self, arrays):
        """The arrays as matrices."""
        full, low, slots, which = arrays
        return *self._each("apart", full, low, slots), which

    def together(self, result):
        """A result in the leaf's layout."""
        return self._each("together", *result)

    def _each(self, way: str, full, low, slots):
        turn, turn_low = getattr(self.seen, way), getattr(self.low, way)
        kept = {k: getattr(slot, way)(slots[k], self.seen) for k, slot in self.slots}
        return tuple(x if x is None else turn(x) for x in full), tuple(map(turn_low, low)), kept

    def like(self, arrays):
        """The arrays that a result is sharded as."""
        full, low, slots, _ = arrays
        here, there = self.gives
        projected = full if self.low == self.seen else low
        return (full[0],) * here, projected[:1] * there, slots


class Here:
    """A basis at one step: how each leaf stands in it, its slots, and its numbers."""

    def __init__(self, basis: Basis, state, structure, u: list, p: list | None):
        self.basis, self.structure = basis, structure
        self.seen: list[Any] = basis.seen(structure.unflatten(u))
        self.present = [i for i, how in enumerate(self.seen) if how is not None]
        names = basis.rule.names
        if not isinstance(state, RuleState) or sorted(state.slots) != sorted(names):
            have = sorted(state.slots) if isinstance(state, RuleState) else type(state).__name__
            what = f"{basis.name}: this state belongs to another transformation"
            raise ValueError(f"{what}: expected slots {[*names]}, got {have}")
        like = "the updates"
        flat = {
            k: trees.align(structure, state.slots[k], basis.name, f"the slot {k!r}", like)
            for k in names
        }
        self.slots: dict[int, Any] = {i: {k: flat[k][i] for k in names} for i in self.present}
        every = one_number(basis.name, "every", basis.hypers["every"], state.step)
        self.period = jnp.asarray(every, jnp.int32)
        due = is_multiple(state.step, self.period)
        self.when = When(increment(state.step, self.period), state.step == 0, due)
        self.which, first = {}, 0
        for i in self.present:
            how = self.seen[i]
            these = jnp.arange(first, first + how.many, dtype=jnp.int32)
            self.which[i] = these if how.batch else these[0]
            first += how.many
        paths = lambda: trees.paths(structure.unflatten(u))  # noqa: E731
        self.numbers = Numbers(basis, state.step, paths, u if p is None else p)

    def run(self, f, rows: dict[int, tuple], static=()):
        """What f makes of each matrix. A row has arrays like the parameter and arrays like its
        projection, and how many of both it makes; the slots that it gives are those from now on.
        It is called as `f((rule, numbers, static), full, low, slots, which, own, when, shared)`.
        """
        rule, keys, leaves, whole = self.basis.rule, [], [], []
        shared = self.numbers.shared(rule.measured)
        for i, (full, low, gives) in rows.items():
            seen, own = self.seen[i], self.numbers.own(rule.measured, i)
            known = (shared | own).items()
            fixed = tuple((k, type(x), x) for k, x in known if isinstance(x, float | int))
            keys.append((rule.on(seen), fixed, static))
            slots = tuple(rule.slots(seen).items())
            leaves.append(_Leaf(seen, rule.projections(seen), slots, gives))
            whole.append((full, low, self.slots[i], self.which[i], arrays(own)))
        found: Any = run_alike(f, keys, leaves, whole, (self.when, arrays(shared)))
        made = {}
        for i, (full, low, slots) in zip(rows, found, strict=True):
            made[i], self.slots[i] = (full, low), slots
        return made

    def state(self) -> RuleState:
        """The state after this step."""
        flat = {k: [None] * len(self.seen) for k in self.basis.rule.names}
        for i, slots in self.slots.items():
            for k, x in slots.items():
                flat[k][i] = x
        kept = {k: self.structure.unflatten(x) for k, x in flat.items()}
        return RuleState(self.when.t, kept)


def widened(tree, dtype):
    """The tree in this dtype, what is real in its real one."""

    def wide(x):
        known = jnp.issubdtype(x.dtype, jnp.inexact)
        return x.astype(dtype if jnp.iscomplexobj(x) else real_dtype(dtype)) if known else x

    return jax.tree.map(wide, tree)


def renewed(key, g, slots, vectors, which, numbers, when):
    """The slots after a gradient, and these vectors in the new basis; all in one dtype."""
    rule, static, _ = key
    numbers = {k: x for k, _, x in static} | numbers
    g, slots, numbers = jax.lax.stop_gradient((g, slots, numbers))
    slots = rule.measured(g, slots, when, **numbers)

    def anew(slots, vectors):
        # a basis is chosen, not differentiated: where eigenvalues meet it has no slope
        new = jax.lax.stop_gradient(slots | rule.found(g, slots, when, which, **numbers))
        return new, tuple(rule.down(rule.up(v, slots), new) for v in vectors)

    return jax.lax.cond(when.due, anew, lambda *same: same, slots, vectors)


def each_matrix(f, x) -> Callable[..., Any]:
    """f on a matrix, or on each of a batch of them."""
    return jax.vmap(f) if x.ndim == 3 else f


def computing(x, slots):
    """The dtype to compute in."""
    return wide_dtype(x.dtype, *(slot.dtype for slot in slots.values()))


def narrowed(new, old):
    """The slots in the dtypes that they had."""
    return jax.tree.map(lambda o, n: n.astype(o.dtype), old, new)


def _found(key, full, low, slots, which, own, when, shared):
    (g,) = full
    dtype = computing(g, slots)
    numbers = widened(shared | own, dtype)

    def one(g, slots, which):
        return renewed(key, g, slots, (), which, numbers, when)[0]

    with mixed(g):
        new = each_matrix(one, g)(g.astype(dtype), widened(slots, dtype), which)
    return (), (), narrowed(new, slots)
