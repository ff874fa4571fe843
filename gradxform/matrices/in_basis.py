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
from gradxform.matrices.matrixwise import MatrixSlot, Matrixwise
from gradxform.numerics import abs_sq, mixed, real_dtype, safe_divide, safe_sqrt, wide_dtype
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

    def __init__(self, tx: Transform, state, structure, shapes: dict[int, tuple[int, ...]]):
        leaves, self.whole = jax.tree.flatten(state)
        numbered = self.whole.unflatten(range(len(leaves)))
        columns = [
            structure.flatten_up_to(own.slots[name])
            for part, own in _rules(tx, numbered)
            for name, make in part.slots
            if turns(make)
        ]
        self.at = {
            i: [x[i] for x in columns if x[i] is not None and leaves[x[i]].shape == shape]
            for i, shape in shapes.items()
        }

    def of(self, state) -> dict[int, tuple]:
        """The slots of each leaf."""
        leaves = jax.tree.leaves(state)
        return {i: tuple(leaves[j] for j in at) for i, at in self.at.items()}

    def put(self, state, turned: dict[int, tuple]):
        """The state with others in their place."""
        leaves = jax.tree.leaves(state)
        for i, at in self.at.items():
            for j, x in zip(at, turned[i], strict=True):
                leaves[j] = x
        return self.whole.unflatten(leaves)


# --- what happens to one matrix


def _enter(key, full, low, slots, which, own, when, shared):
    """The projections of updates, gradients and parameters; and what turns."""
    rule, _, late = key
    dtype = computing(full[0], slots)
    numbers = widened(shared | own, dtype)
    vectors = low if rule.full else low[1:]

    def one(full, slots, vectors, which):
        if not late:
            g = full[0] if full[1] is None else full[1]
            slots, vectors = renewed(key, g, slots, vectors, which, numbers, when)
        return tuple(rule.down(x, slots) for x in full if x is not None), slots, vectors

    wide = [widened(x, dtype) for x in (full, slots, vectors)]
    with mixed(full[0]):
        projected, new, turned = each_matrix(one, full[0])(*wide, which)
    turned = () if late else narrowed(turned, vectors)
    return (), (*projected, *turned), narrowed(new, slots)


def _ratio(x, y, axis=None):
    size, whole = (safe_sqrt(jnp.sum(abs_sq(z), axis, keepdims=True)) for z in (x, y))
    return safe_divide(size, whole)


def _leave(key, full, low, slots, which, own, when, shared):
    """The step in full; and what turns."""
    rule, _, (late, back) = key
    dtype = computing(full[0], slots)
    numbers = widened(shared | own, dtype)
    vectors = low[2:]

    def one(full, step, projected, slots, vectors, which):
        u, g = full
        axis = 0 if back == "columns" else None
        stretched = lambda: u * _ratio(step, projected, axis).astype(u.dtype)  # noqa: E731
        out = rule.up(step, slots) if back == "step" else stretched()
        if late:
            out = jnp.where(when.first, jnp.zeros_like(out), out)
            g = u if g is None else g
            slots, vectors = renewed(key, g, slots, vectors, which, numbers, when)
        return out, slots, vectors

    wide = [widened(x, dtype) for x in (full, *low[:2], slots, vectors)]
    with mixed(full[0]):
        out, new, turned = each_matrix(one, full[0])(*wide, which)
    return (out.astype(full[0].dtype),), narrowed(turned, vectors), narrowed(new, slots)


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
        low, seen = list(leaves), self.basis.seen(params)
        for i, how in enumerate(seen):
            if how is not None:
                low[i] = self._projection(leaves[i], how)
        basis = self.basis.init(params)
        return self.State(basis, self.inner.init(structure.unflatten(low)))

    def _projection(self, x, how):
        """That of a leaf at first: itself, or zeros in a subspace."""
        rule, dtype = self.basis.rule, wide_dtype(x.dtype)
        if rule.full:
            return x.astype(dtype)
        return jnp.zeros_like(x, dtype, shape=rule.projections(how).view.shape)

    def step(self, updates, state, params, gradient, extra):
        u, p, structure = check_updates(self.name, updates, params)
        g = None
        if gradient is not None:
            g = trees.align(structure, gradient, self.name, "the gradients", "the updates")
        rule, late, inner = self.basis.rule, self.basis.rule.late, state.inner
        here = Here(self.basis, state.basis, structure, u, p)
        shapes = {i: rule.projections(here.seen[i]).view.shape for i in here.present}
        turning = _Turning(self.inner, inner, structure, shapes if self.carry else {})

        entering = [u, g, p if rule.full else None]
        held, rows = {} if late else turning.of(inner), {}
        many = sum(x is not None for x in entering)
        for i in here.present:
            full, vectors = tuple(x and x[i] for x in entering), held.get(i, ())
            like = () if rule.full else (self._projection(u[i], here.seen[i]),)
            rows[i] = full, (*like, *vectors), (0, many + len(vectors))
        low = {i: x for i, (_, x) in here.run(_enter, rows, late).items()}
        inner = inner if late else turning.put(inner, {i: x[many:] for i, x in low.items()})

        given = []
        for column in entering:
            n = sum(x is not None for x in given)
            own = column and [low[i][n] if i in low else x for i, x in enumerate(column)]
            given.append(own if own is None else structure.unflatten(own))
        projected, measured, known = given
        steps, inner = self.run(projected, inner, known, measured, extra)
        if late:  # of the first gradient comes a basis, and no step
            inner = pick(here.when.first, state.inner, inner)

        out, held, rows = structure.flatten_up_to(steps), turning.of(inner) if late else {}, {}
        for i in here.present:
            full, vectors = (u[i], g and g[i]), held.get(i, ())
            rows[i] = full, (out[i], low[i][0], *vectors), (1, len(vectors))
        left = here.run(_leave, rows, (late, self.back))
        inner = turning.put(inner, {i: x for i, (_, x) in left.items()}) if late else inner

        if late:
            out = [x if x is None else jnp.where(here.when.first, 0, x) for x in out]
        leaves = u if p is None else p
        numbers = Numbers(self, state.basis.step, lambda: trees.paths(updates), leaves)
        for i, ((full,), _) in left.items():
            scale = (numbers.shared(_scaled) | numbers.own(_scaled, i))["scale"]
            out[i] = full * jnp.asarray(scale, real_dtype(full.dtype)).astype(full.dtype)
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
        inner: what runs on the projections. These lie as the parameters, and [.., r, columns] in a
            subspace of r dimensions.
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
