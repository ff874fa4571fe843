"""A matrix rule is an equation on one matrix; `matrixwise` lifts it to a tree.

Every parameter falls into matrices as its declaration says; tall ones are transposed, so that rows
are the short side. Matrices of one shape run one program: called for each of them, or once on their
stack (`placement` chooses).
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradxform.core import leaves as trees
from gradxform.core.call import pytree
from gradxform.core.leaf import Inputs, Rule, Site, run_leaf
from gradxform.core.leafwise import Numbers, arrays
from gradxform.core.states import RuleState
from gradxform.core.transform import Transform, check_updates
from gradxform.display.code import code
from gradxform.matrices.declaration import View, views
from gradxform.matrices.placement import run_alike
from gradxform.numerics import increment, mixed, real_dtype, wide_dtype

__all__ = ["MatrixSlot", "Matrixwise", "Oriented", "matrixwise", "oriented"]


class Oriented(NamedTuple):
    """How a leaf falls into matrices, these perhaps into equal blocks, and whether they are
    transposed to have no more rows than columns.
    """

    view: View
    flipped: bool
    blocks: tuple[int, int] = (1, 1)

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns of a block, as declared."""
        return -(-self.view.rows // self.blocks[0]), -(-self.view.columns // self.blocks[1])

    @property
    def rows(self) -> int:
        """Rows of the matrices that a rule is given."""
        return self.sides[self.flipped]

    @property
    def columns(self) -> int:
        """And their columns."""
        return self.sides[not self.flipped]

    @property
    def batch(self) -> tuple[int, ...]:
        """How many matrices there are, by axis."""
        return self.view.batch + self.blocks * (self.blocks != (1, 1))

    @property
    def many(self) -> int:
        """How many matrices there are."""
        return math.prod(self.batch)

    def apart(self, x):
        """[many, rows, columns], or [rows, columns] for a leaf that is one matrix."""
        x = self.view.apart(x)
        if self.blocks != (1, 1):
            pairs = zip(self.blocks, self.sides, x.shape[-2:], strict=True)
            room = [(0, n * size - long) for n, size, long in pairs]
            x = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + room)
            (m, n), (rows, columns) = self.blocks, self.sides
            x = x.reshape(*x.shape[:-2], m, rows, n, columns).swapaxes(-3, -2)
        x = x.swapaxes(-2, -1) if self.flipped else x
        return x.reshape(self.many, self.rows, self.columns) if self.batch else x[...]

    def together(self, x):
        """The leaf of which these are the matrices."""
        x = x.reshape(*self.batch, self.rows, self.columns)
        x = x.swapaxes(-2, -1) if self.flipped else x
        if self.blocks != (1, 1):
            (m, n), (rows, columns) = self.blocks, self.sides
            x = x.swapaxes(-3, -2).reshape(*self.view.batch, m * rows, n * columns)
            x = x[..., : self.view.rows, : self.view.columns]
        return self.view.together(x)


def oriented(view: View, keep_sides: bool = False, block_size: int | None = None) -> Oriented:
    """A view whose tall matrices are transposed, unless their sides are to be kept; those with
    longer sides in blocks, as equal as can be, the last ones filled with zeros.
    """
    sides = view.rows, view.columns
    blocks = [max(1, -(-n // block_size)) if block_size else 1 for n in sides]
    rows, columns = (-(-n // many) for n, many in zip(sides, blocks, strict=True))
    return Oriented(view, rows > columns and not keep_sides, (blocks[0], blocks[1]))


@dataclass(frozen=True)
class MatrixSlot:
    """What a matrix rule remembers of each matrix: an array with these axes.

    Attributes:
        axes: "rows", "columns", or a length (at most that of the short side): `("rows", "rows")` is
            the left factor, `("columns",)` a number for each column, `()` one for the matrix. None
            is an array like the parameter itself, which the rule sees as its matrices.
        fill: "zeros", "ones", or "eye" for an identity; or a function that makes it of the matrices
            [*many, rows, columns] at the beginning, whatever `axes` are but None.
        real: whether it stays real where the parameter is complex.
    """

    axes: tuple[Any, ...] | None = None
    fill: str | Callable[..., Any] = "zeros"
    real: bool = False

    def make(self, p, seen: Oriented):
        """The array at the beginning."""
        dtype = wide_dtype(p.dtype)
        dtype = real_dtype(dtype) if self.real else dtype
        if self.axes is None:
            return jnp.full_like(p, self.fill == "ones", dtype=dtype)
        if callable(self.fill):
            with mixed(p):
                made = self.fill(seen.apart(p.astype(wide_dtype(p.dtype))))
            return self.together(made, seen).astype(dtype)
        long = {"rows": seen.rows, "columns": seen.columns}
        sides = [long[a] if isinstance(a, str) else min(a, seen.rows) for a in self.axes]
        one = jnp.eye(*sides, dtype=dtype) if self.fill == "eye" else jnp.ones(sides, dtype)
        one = jnp.zeros_like(one) if self.fill == "zeros" else one
        # which varies over devices, within a shard_map, as the parameter does
        return jnp.broadcast_to(one, (*seen.batch, *sides)) + jnp.zeros_like(p, dtype, shape=())

    def apart(self, x, seen: Oriented):
        """As the rule sees it, with one axis of matrices in front where there are many."""
        if self.axes is None:
            return seen.apart(x)
        return x.reshape(seen.many, *x.shape[len(seen.batch) :]) if seen.batch else x

    def together(self, x, seen: Oriented):
        """As the state holds it."""
        if self.axes is None:
            return seen.together(x)
        return x.reshape(*seen.batch, *x.shape[1:]) if seen.batch else x


class MatrixSite(Site):
    """What a matrix rule sees: as of every rule, and of which side is which.

    Attributes:
        fans: (inputs, outputs) of the layer: the rows and columns as declared.
        flipped: whether the rule sees the transposed matrix, whose rows are the outputs.
        turn: which of the groups, 0, 1, …, that take turns at what is not done at every step.
    """

    __slots__ = ("fans", "flipped", "turn")


@dataclass(frozen=True)
class _OnMatrices:
    """A matrix rule on a matrix, or on a batch of them one after another."""

    rule: Callable[..., Any]
    fans: tuple[int, int] | None
    flipped: bool | None
    turn: int = 0
    entrywise: bool = False

    def __call__(self, u, at, *slots, **numbers):
        given = u, at.g, at.given_p, slots
        if u.ndim == 2 or self.entrywise:
            return self.one(at, *given, **numbers)
        out = jax.lax.map(lambda row: self.one(at, *row, **numbers), given)
        return out if isinstance(out, tuple) else (out,)

    def one(self, at, u, g, p, slots, **numbers):
        """The rule on one matrix."""
        site = MatrixSite(at.owner, g, p, at.t, at.scalars, at.extra)
        site.fans, site.flipped, site.turn = self.fans, self.flipped, self.turn
        return self.rule(u, site, *slots, **numbers)


class _Leaf(NamedTuple):
    """How what `run_leaf` takes of a leaf, and what it gives, falls into matrices."""

    how: Oriented
    slots: tuple[MatrixSlot, ...]

    @property
    def many(self) -> int | None:
        """How many matrices, where they have an axis."""
        return self.how.many if self.how.batch else None

    def apart(self, arrays):
        """(u, g, p, slots) as matrices."""
        *leaves, (slots,) = arrays
        apart = tuple(x if x is None else self.how.apart(x) for x in leaves)
        pairs = zip(self.slots, slots, strict=True)
        return (*apart, (tuple(slot.apart(x, self.how) for slot, x in pairs),))

    def together(self, result):
        """(u, None, slots) in the leaf's layout again."""
        u, _, (slots,) = result
        pairs = zip(self.slots, slots, strict=True)
        return self.how.together(u), None, (tuple(s.together(x, self.how) for s, x in pairs),)

    @staticmethod
    def like(arrays):
        """The arrays that the results are to lie as: the parameter, or what stands for it."""
        u, g, p, slots = arrays
        return next(x for x in (p, g, u) if x is not None), None, slots


STATIC = ("name", "rule", "slots", "matrices", "direction", "keep_sides", "sided")


@pytree(static=(*STATIC, "block_size", "turns", "entrywise"))
class Matrixwise(Transform):
    """A rule on one matrix, lifted to a tree. Built by `matrixwise`."""

    name: str
    rule: Callable[..., Any]
    slots: tuple[tuple[str, MatrixSlot], ...]
    hypers: dict[str, Any]
    matrices: Any = None
    direction: bool = False
    keep_sides: bool = False
    sided: bool = False
    block_size: int | None = None
    turns: int = 1
    entrywise: bool = False

    def __repr__(self):
        rule = code(self.rule) if inspect.isfunction(self.rule) else self.name
        shown = [rule, *(f"{k}={code(v)}" for k, v in self.hypers.items())]
        return f"matrixwise({', '.join(shown)})"

    def reads_gradient(self) -> bool:
        function = getattr(self.rule, "__code__", None) or type(self.rule).__call__.__code__
        return "g" in function.co_names

    def renamed(self, name: str) -> "Matrixwise":
        """The same under another name."""
        return replace(self, name=name)

    def seen(self, tree) -> list[Oriented | None]:
        """How the rule sees each leaf; None for an absent one. One that is no matrix raises."""
        found = views(self.name, self.matrices, tree)
        leaves = jax.tree.leaves(tree, is_leaf=trees.is_none)
        for i, (view, leaf) in enumerate(zip(found, leaves, strict=True)):
            if view is None and leaf is not None:
                what = (
                    f"{self.name}: {trees.paths(tree)[i]!r} of shape {[*leaf.shape]} is no matrix"
                )
                give = "partition({'matrix': ..., 'rest': adamw(1e-3)}, matrix_labels())"
                raise ValueError(f"{what}; give it to another transformation: {give}")
        return [view and oriented(view, self.keep_sides, self.block_size) for view in found]

    def init(self, params):
        leaves, structure = jax.tree.flatten(params, is_leaf=trees.is_none)
        seen = self.seen(params)
        for look in filter(None, [getattr(self.rule, "look", None)]):
            look(self.name, trees.paths(params), seen)
        pairs = [*zip(leaves, seen, strict=True)]
        slots = {
            name: structure.unflatten(how and slot.make(x, how) for x, how in pairs)
            for name, slot in self.slots
        }
        return RuleState(jnp.zeros((), jnp.int32), slots)

    def check_state(self, state):
        """Raise when the state is not this rule's."""
        names = [name for name, _ in self.slots]
        have = sorted(state.slots) if isinstance(state, RuleState) else type(state).__name__
        if have != sorted(names):
            what = f"{self.name}: this state belongs to another transformation"
            raise ValueError(f"{what}: expected slots {names}, got {have}")

    def update(self, updates, state, params=None, *, gradient=None, **extra):
        self.check_state(state)
        u, p, structure = check_updates(self.name, updates, params)
        g = gradient
        if g is not None:
            g = trees.align(structure, g, self.name, "the gradients", "the updates")
        seen = self.seen(structure.unflatten(u))
        present = [i for i, x in enumerate(u) if x is not None]
        numbers = Numbers(self, state.step, lambda: trees.paths(updates), u if p is None else p)
        flat = [
            trees.align(structure, state.slots[k], self.name, f"the slot {k!r}", "the updates")
            for k, _ in self.slots
        ]
        shared = arrays(numbers.shared(self.rule))
        keys, leaves, rows, alike = [], [], [], {}
        for i in present:
            how: Any = seen[i]
            turn = alike.setdefault(how, len(alike)) % self.turns
            alike[how] += 1
            own = numbers.own(self.rule, i)
            keys.append((False, (self._rule(how, numbers.shared(self.rule) | own, turn),)))
            leaves.append(_Leaf(how, tuple(slot for _, slot in self.slots)))
            slots = tuple(x[i] for x in flat)
            arrays_of = (x and x[i] for x in (u, g, p))
            rows.append((*arrays_of, (slots,), (Inputs(arrays(own)),)))
        t = increment(state.step)
        common = (Inputs(shared),), (t,)
        results = self._run(keys, leaves, rows, common)
        out = list(u)
        for i, (new, _, (slots,)) in zip(present, results, strict=True):
            out[i] = new
            for x, new_slot in zip(flat, slots, strict=True):
                x[i] = new_slot
        names = (name for name, _ in self.slots)
        kept = {k: structure.unflatten(x) for k, x in zip(names, flat, strict=True)}
        return structure.unflatten(out), RuleState(t, kept)

    def _run(self, keys, leaves, rows, common) -> Any:
        if self.entrywise:
            return trees.map_leaves(run_leaf, keys, rows, common)
        return run_alike(run_leaf, keys, leaves, rows, common)

    def _rule(self, how: Oriented, numbers, turn: int) -> Rule:
        """What a program is traced for: matrices that differ in none of it share one."""
        fans = (how.view.rows, how.view.columns) if self.sided else None
        flipped = how.flipped if self.sided else None
        static = tuple((k, type(x), x) for k, x in numbers.items() if isinstance(x, float | int))
        on_matrices = _OnMatrices(self.rule, fans, flipped, turn, self.entrywise)
        return Rule(on_matrices, self.name, self.direction, static)


def matrixwise(
    rule, *, slots=None, matrices=None, direction=False, keep_sides=False, sided=False,
    block_size=None, turns=1, entrywise=False, name=None, **hypers,
) -> Matrixwise:  # fmt: skip
    """Lift a rule, an equation on one matrix, to a transformation of trees.

    Args:
        rule: `rule(u, at, *slots, **hypers) -> (u, *slots)`, or just `u` for a rule without slots:
            u [rows, columns] with no more rows than columns, float32 or wider, `at` a
            `MatrixSite`, whose `g` and `p` are matrices as well.
        slots: what it remembers of each matrix: `{name: MatrixSlot(...)}`.
        matrices: the declaration of rows and columns.
        direction: whether it changes where we step rather than what the gradient is.
        keep_sides: whether rows stay what is declared as rows, and tall matrices tall.
        sided: whether the rule asks `at.fans` or `at.flipped`; then only parameters that agree in
            these share a program.
        block_size: matrices with a longer side fall into blocks, which the rule takes for matrices
            of their own; None for whole matrices.
        turns: into how many groups the matrices of each shape are dealt out, for a rule that asks
            `at.turn`; those of one shape and group share a program.
        entrywise: whether the rule does the same to each entry, so that it is given the parameter
            as it is, and nothing is transposed, stacked or exchanged for it.
        name: the name of its state in a chain; by default that of the rule.
        **hypers: numbers, arrays, schedules or tables by path.
    """
    own = tuple((slots or {}).items())
    name = name or getattr(rule, "__name__", type(rule).__name__).strip("_")
    how = matrices, direction, keep_sides, sided, block_size, turns, entrywise
    return Matrixwise(name, rule, own, dict(hypers), *how)
