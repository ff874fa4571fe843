"""A transformation that runs in a basis: on the projections of matrices, its steps brought back."""

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradxform.core import Inner, Real, Transform, transformation
from gradxform.core import leaves as trees
from gradxform.core.call import pytree
from gradxform.core.hyper import Hyper
from gradxform.core.leafwise import Leafwise, Numbers, _keyword_names
from gradxform.core.slots import copied, zeros
from gradxform.core.states import RuleState, answers
from gradxform.core.transform import check_updates
from gradxform.display.code import code
from gradxform.matrices.bases import eigenbasis
from gradxform.matrices.basis import Basis, Here, computing, each_matrix, narrowed, renewed, widened
from gradxform.matrices.matrixwise import MatrixSlot, Matrixwise, Oriented
from gradxform.numerics import abs_sq, mixed, safe_divide, safe_sqrt, wide_dtype
from gradxform.wrappers.wrapper import Wrapper, pick

__all__ = ["in_basis"]


NAMES: dict[str, Any] = {
    "count": lambda state: state.basis.step,
    "inner_state": "inner",
    "base_optimizer_state": "inner",
}


@answers(**NAMES)
class BasisState(NamedTuple):
    """State of `in_basis`: that of the basis, whose slots are None for leaves that are no matrix,
    and the inner one, on the projections.
    """

    basis: RuleState
    inner: trees.Tree


# --- which slots turn with the basis


@lru_cache(maxsize=1024)
def turns(make) -> bool:
    """Whether what a rule remembers turns with the basis, as a sum of gradients does.

    It does where it is linear in them: complex for complex leaves. Squares and absolute values,
    which are real, stay with the vectors of the basis that they belong to.
    """
    if isinstance(make, MatrixSlot):
        return make.axes is None and not make.real
    if isinstance(make, zeros | copied):
        return True
    p = jax.ShapeDtypeStruct((2, 3), jnp.complex64)
    made = jax.eval_shape(partial(make, **dict.fromkeys(_keyword_names(make), 0.0)), p)
    return getattr(made, "shape", None) == p.shape and made.dtype == p.dtype


def _rules(tx: Transform, state) -> Iterator[tuple[Any, Any]]:
    if isinstance(tx, Leafwise | Matrixwise):
        yield tx, state
    for _, part, own, _ in tx.inside(state):
        yield from _rules(part, own)


class _Turning:
    """The slots of the inner transformation that turn with the basis."""

    def __init__(self, tx: Transform, state, structure, places: dict[int, Oriented]):
        leaves, self.whole = jax.tree.flatten(state)
        numbered = self.whole.unflatten(range(len(leaves)))
        columns = [
            structure.flatten_up_to(own.slots[name])
            for part, own in _rules(tx, numbered)
            for name, make in part.slots
            if turns(make)
        ]
        self.places = places
        self.at = {
            i: [x[i] for x in columns if x[i] is not None and leaves[x[i]].shape == here.view.shape]
            for i, here in places.items()
        }

    def of(self, state) -> dict[int, tuple]:
        """The slots of each leaf, as matrices."""
        leaves = jax.tree.leaves(state)
        return {i: tuple(self.places[i].apart(leaves[j]) for j in at) for i, at in self.at.items()}

    def put(self, state, turned: dict[int, tuple]):
        """The state with others in their place."""
        leaves = jax.tree.leaves(state)
        for i, at in self.at.items():
            for j, x in zip(at, turned[i], strict=True):
                leaves[j] = self.places[i].together(x)
        return self.whole.unflatten(leaves)


# --- what happens to one matrix


def _enter(key, given, slots, vectors, which, own, when, shared):
    """The projections of updates, gradients and parameters."""
    rule, _, late = key
    dtype = computing(given[0], slots)
    numbers = widened(shared | own, dtype)

    def one(given, slots, vectors, which):
        if not late:
            g = given[0] if given[1] is None else given[1]
            slots, vectors = renewed(key, g, slots, vectors, which, numbers, when)
        u, g, p = given
        seen = u, g, p if rule.full else None
        return jax.tree.map(lambda x: rule.down(x, slots), seen), slots, vectors

    wide = [widened(x, dtype) for x in (given, slots, vectors)]
    with mixed(given[0]):
        low, new, turned = each_matrix(one, given[0])(*wide, which)
    return low, narrowed(new, slots), narrowed(turned, vectors)


def _ratio(x, y, axis=None):
    size, whole = (safe_sqrt(jnp.sum(abs_sq(z), axis, keepdims=True)) for z in (x, y))
    return safe_divide(size, whole)


def _leave(key, step, low, given, scale, slots, vectors, which, own, when, shared):
    """The step in full."""
    rule, _, (late, back) = key
    dtype = computing(given[0], slots)
    numbers = widened(shared | own, dtype)

    def one(step, low, given, slots, vectors, which):
        u, g = given
        axis = 0 if back == "columns" else None
        stretched = lambda: u * _ratio(step, low, axis).astype(u.dtype)  # noqa: E731
        full = rule.up(step, slots) if back == "step" else stretched()
        if late:
            full = jnp.where(when.first, jnp.zeros_like(full), full)
            g = u if g is None else g
            slots, vectors = renewed(key, g, slots, vectors, which, numbers, when)
        return full, slots, vectors

    wide = [widened(x, dtype) for x in (step, low, given, slots, vectors)]
    with mixed(given[0]):
        full, new, turned = each_matrix(one, given[0])(*wide, which)
        full = full * widened(scale, dtype)
    return full.astype(given[0].dtype), narrowed(new, slots), narrowed(turned, vectors)


STATIC = ("carry", "back", "called")


@pytree(static=STATIC)
class InBasis(Wrapper):
    """Built by `in_basis`."""

    State: ClassVar[type] = BasisState
    inner: Transform
    basis: Basis
    scale: Hyper
    carry: bool = True
    back: str = "step"
    called: str = "in_basis"

    def inside(self, state=None, params=None):
        own = None if params is None else self.basis.matrices_of(params)
        yield "basis", self.basis, state and state.basis, own
        yield "inner", self.inner, state and state.inner, params

    @property
    def hypers(self) -> dict[str, Any]:
        """Its own number."""
        return {"scale": self.scale}

    def init(self, params):
        leaves, structure = jax.tree.flatten(params, is_leaf=trees.is_none)
        rule, low = self.basis.rule, []
        for x, how in zip(leaves, self.basis.seen(params), strict=True):
            if how is None:
                low.append(x)
                continue
            here, dtype = rule.projections(how), wide_dtype(x.dtype)
            if rule.full:
                low.append(here.together(how.apart(x)).astype(dtype))
            else:
                low.append(jnp.zeros_like(x, shape=here.view.shape, dtype=dtype))
        basis = self.basis.init(params)
        return self.State(basis, self.inner.init(structure.unflatten(low)))

    def step(self, updates, state, params, gradient, extra):
        u, p, structure = check_updates(self.name, updates, params)
        g = None
        if gradient is not None:
            g = trees.align(structure, gradient, self.name, "the gradients", "the updates")
        rule, late, inner = self.basis.rule, self.basis.rule.late, state.inner
        here = Here(self.basis, state.basis, structure, u, p)
        places = {i: rule.projections(here.seen[i]) for i in here.present}
        turning = _Turning(self.inner, inner, structure, places if self.carry else {})

        apart = {i: here.seen[i].apart for i in here.present}
        rows = {i: [x if x is None else to(x[i]) for x in (u, g, p)] for i, to in apart.items()}
        held = {} if late else turning.of(inner)
        low, turned = here.run(_enter, {i: (row,) for i, row in rows.items()}, late, held)
        inner = inner if late else turning.put(inner, turned)

        columns: list[Any] = [x and [*x] for x in (u, g, p if rule.full else None)]
        for i, place in places.items():
            for column, x in zip(columns, low[i], strict=True):
                if column is not None:
                    column[i] = place.together(x)
        projected, measured, known = (x if x is None else structure.unflatten(x) for x in columns)
        steps, inner = self.run(projected, inner, known, measured, extra)
        if late:  # of the first gradient comes a basis, and no step
            inner = pick(here.when.first, state.inner, inner)

        out, leaves = structure.flatten_up_to(steps), u if p is None else p
        numbers = Numbers(self, state.basis.step, lambda: trees.paths(updates), leaves)
        scales = {i: numbers.shared(_scaled) | numbers.own(_scaled, i) for i in places}
        back = {
            i: (place.apart(out[i]), low[i][0], rows[i][:2], jnp.asarray(scales[i]["scale"]))
            for i, place in places.items()
        }
        held = turning.of(inner) if late else {}
        full, turned = here.run(_leave, back, (late, self.back), held)
        inner = turning.put(inner, turned) if late else inner
        if late:
            out = [x if x is None else jnp.where(here.when.first, 0, x) for x in out]
        for i, x in full.items():
            out[i] = here.seen[i].together(x)
        return structure.unflatten(out), self.State(here.state(), inner)


ScaleType = Literal["columns", "matrix"]


def _scaled(*, scale):
    return scale


class _Basis:
    """A basis of `in_basis`."""

    def convert(self, owner: str, name: str, x):
        if isinstance(x, Basis):
            return x
        raise TypeError(f"{owner}: {name} must be a basis, such as eigenbasis(); got {code(x)}")


@transformation
def in_basis(
    inner: Inner, basis: Annotated[Any, _Basis()] = None, *, scale: Real = 1.0, carry: bool = True,
    back: Literal["step", "columns", "matrix"] = "step",
):  # fmt: skip
    """Run a transformation in a basis: on the projections of matrices, its steps brought back.

        x = Uᵀ g V      and so the updates of the parts before it
        u = s U inner(x) Vᵀ

    So SOAP is Adam in the eigenbasis of the gradients, `in_basis(scale_by_adam(), eigenbasis())`,
    and `in_basis(scale_by_lion(), eigenbasis())` is SOAP of Lion. In a chain the updates so far and
    the gradient that entered a direction are both projected: `chain(ema(b1), in_basis(scale_by_rms(
    b2)))` is SOAP that averages in the coordinates of the weights, which is the same.

    Where the basis changes, what the inner transformation remembers is carried over: a sum of
    gradients is turned into the new basis, m ← Uᵀ U₋₁ m V₋₁ᵀ V, and squares stay with the vectors
    that they belong to. It is given the parameters in the basis, where this spans the space, and
    none in a subspace. Leaves that are no matrix it sees as they are. What an (init, update) pair
    from elsewhere remembers is not known, and stays.

    Args:
        inner: what runs on the projections [.., rows, columns].
        basis: by default `eigenbasis()`. Its `matrices` says what is a matrix.
        scale: s, for matrices alone.
        carry: False leaves all that the inner transformation remembers as it is.
        back: what comes back: the "step"; or the update itself, as much longer as the inner
            transformation makes its projection: that of each of the "columns", the rows being the
            side that is projected, or that of the "matrix".

    SOAP before Muon, its orthogonal steps in the coordinates of the weights:

    >>> parts = gx.in_basis(gx.scale_by_adam()), gx.orthogonalize(), gx.scale(-0.02)
    >>> tx, params = gx.chain(*parts), {"kernel": jnp.ones((2, 3))}
    >>> gx.get(tx.init(params), "left_basis")["kernel"].shape
    (2, 2)

    Memory: that of the basis, and of the inner transformation on the projections.

    Source: N. Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam (2024), algorithm 3.
    """
    basis = eigenbasis() if basis is None else basis
    return InBasis(inner, basis, scale, carry, back)
