"""Large batches in small pieces: gradients collected over steps, or over the micro-batches of one
step.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from gradxform.core import Count, Inner, Named, Transform, dtype_name, transformation, zeros
from gradxform.core import leaves as trees
from gradxform.core.call import define, pytree
from gradxform.core.states import answers
from gradxform.display.code import code
from gradxform.numerics import increment, wide_dtype
from gradxform.wrappers.skipping import skip_not_finite
from gradxform.wrappers.wrapper import Wrapper, cast, counter, zeros_like

__all__ = ["accumulate", "microbatch"]


@answers(gradient_step="step", acc_grads="accumulator", inner_opt_state="inner")
class AccumulateState(NamedTuple):
    """State of `accumulate`: micro-batches collected, optimizer steps made, micro-batches dropped,
    and the collection.
    """

    mini_step: jax.Array
    step: jax.Array
    dropped: jax.Array
    accumulator: trees.Tree
    inner: trees.Tree


@pytree(static=("mean", "skip", "dtype"))
class Accumulate(Wrapper):
    """Built by `accumulate`."""

    State: ClassVar[type] = AccumulateState
    inner: Transform
    every_k: Count
    mean: bool
    skip: Callable | None
    dtype: str | None

    def reads_gradient(self) -> bool:
        return False  # the collected updates are the inner one's gradient

    def init(self, params):
        accumulator, inner = trees.tree_map(zeros(self.dtype), params), self.inner.init(params)
        return AccumulateState(counter(), counter(), counter(), accumulator, inner)

    def step(self, updates, state, params, gradient, extra):
        drop = jnp.array(False) if self.skip is None else self.skip(updates, state.step, params)
        drop = drop[0] if isinstance(drop, tuple) else drop
        mini_step = jnp.where(drop, state.mini_step, increment(state.mini_step))

        def add(acc, u):
            u = u.astype(acc.dtype)
            change = (u - acc) / increment(state.mini_step).astype(acc.dtype) if self.mean else u
            return jnp.where(drop, acc, acc + change)

        accumulator = trees.tree_map(add, state.accumulator, updates)
        emit = ~drop & (mini_step.astype(jnp.float32) >= self.number("every_k", state.step))

        def run(accumulator, inner):
            out, inner = self.run(accumulator, inner, params, None, extra)
            return cast(out, updates), zeros_like(accumulator), inner

        def wait(accumulator, inner):
            return zeros_like(updates), accumulator, inner

        out, accumulator, inner = jax.lax.cond(emit, run, wait, accumulator, state.inner)
        step = jnp.where(emit, increment(state.step), state.step)
        dropped = jnp.where(drop, increment(state.dropped), state.dropped)
        mini_step = jnp.where(emit, 0, mini_step)
        return out, AccumulateState(mini_step, step, dropped, accumulator, inner)


@transformation
def accumulate(
    inner: Inner, every_k: Count, *, mean: bool = True, skip: Callable | None = skip_not_finite,
    accumulator_dtype=None,
):  # fmt: skip
    """Collect the gradients of k micro-batches, then step once with their mean; zero updates in
    between.

        a ← a + (g - a) / n        n = 1, 2, …, k: the mean so far (a ← a + g with mean=False)
        at n = k:                  inner runs on a; a ← 0

    Between steps the inner optimizer does not run at all (`lax.cond`; under vmap both branches
    run). Its schedules count optimizer steps. k is a number or a schedule of the optimizer step,
    and may be traced. params and extra arguments are those of the last micro-batch.

    Args:
        inner: the optimizer.
        every_k: k.
        mean: of the micro-batches, or their sum.
        skip: `skip(updates, step, params)`, a boolean or a pair whose first is one: a micro-batch
            to drop, as if it had never been: by default one with an entry that is not finite.
            `state.dropped` counts them. None drops nothing.
        accumulator_dtype: float32 or wider by default, and the inner optimizer sees the mean in
            that dtype.

    Memory: 4 bytes per parameter and three scalars, beside the inner state.

    Source: M. Ott et al., Scaling Neural Machine Translation (2018), section 3.2; the running mean:
    B. P. Welford (1962).

    Not: `microbatch`, which splits one batch within one step; `apply_every`, which collects
    finished updates.
    """
    return Accumulate(inner, every_k, mean, skip, dtype_name(accumulator_dtype))


class _MultiSteps(Named):
    """`accumulate` with the methods of Optax's class of that name."""

    def gradient_transformation(self):
        """Itself: here it is a transformation already."""
        return self

    def has_updated(self, state):
        """Whether the last call made an optimizer step."""
        return (state.mini_step == 0) & (state.step > 0)


@define(_MultiSteps)
def MultiSteps(
    opt: Inner, every_k_schedule: Count, use_grad_mean: bool = True,
    should_skip_update_fn: Callable | None = skip_not_finite, accumulator_dtype=None,
):  # fmt: skip
    """Optax's name for `accumulate`.

    Differences: the inner optimizer really runs only at every k-th step, and a micro-batch that is
    not finite is dropped. A chain inside means what `chain` means: see `on_updates`.

    >>> tx = gx.MultiSteps(gx.sgd(1.0), every_k_schedule=2)
    >>> state = tx.init(jnp.zeros(()))
    >>> first, state = tx.update(jnp.array(1.0), state)
    >>> second, state = tx.update(jnp.array(3.0), state)
    >>> float(first), float(second)
    (0.0, -2.0)

    Memory: 4 bytes per parameter.

    Source: M. Ott et al., Scaling Neural Machine Translation (2018), section 3.2.
    """
    skip, dtype = should_skip_update_fn, accumulator_dtype
    return accumulate(opt, every_k_schedule, mean=use_grad_mean, skip=skip, accumulator_dtype=dtype)


def _kinds(accumulator, out):
    """How each leaf of the function's result is combined: "sum", "mean" or "concat", given for all
    or by subtree.
    """

    def kind(x):
        name = str(getattr(x, "name", x)).lower().removeprefix("running_")
        if name not in ("sum", "mean", "concat"):
            wanted = "'sum', 'mean' or 'concat'"
            raise ValueError(f"microbatch: accumulator must be {wanted}; got {code(x)}")
        return name

    is_kind = lambda x: isinstance(x, str) or not isinstance(x, tuple | list | dict)  # noqa: E731
    each = lambda x, part: jax.tree.map(lambda _: kind(x), part)  # noqa: E731
    return jax.tree.map(each, accumulator, out, is_leaf=is_kind)


def microbatch(
    fun: Callable, argnums: int | Sequence[int], microbatch_size: int | None, accumulator="sum", *,
    argnames: str | Sequence[str] = (),
):  # fmt: skip
    """The function, evaluated on one micro-batch after another in a scan, and its results combined:
    less memory, more time.

        grad_fn = microbatch(jax.value_and_grad(loss), argnums=1, microbatch_size=32,
        accumulator="mean") value, gradient = grad_fn(params, batch)

    For a loss that is a mean over examples, the mean over micro-batches of equal size is the value
    and gradient of the whole batch. Micro-batch i holds the examples i, i + n, i + 2n, … (n the
    number of micro-batches), so that each device of a sharded batch works on its own examples in
    every one of them.

    Args:
        fun: any function of arrays, usually `jax.grad` or `jax.value_and_grad` of a loss.
        argnums: the positional arguments with a leading batch axis, as in `jax.grad`.
        microbatch_size: examples per micro-batch; None gives the function as it is.
        accumulator: "sum" (Optax's default), "mean" or "concat" for the whole result, or a tree of
            them, a prefix of the result.
        argnames: keyword arguments with a leading batch axis.

    Memory: the sums, float32 or wider, and what one micro-batch takes.

    Raises:
        ValueError: the size does not divide the batch; the batch axes differ; an unknown
            accumulator.

    Source: M. Ott et al., Scaling Neural Machine Translation (2018), section 3.2, within one step.
    """
    if microbatch_size is None:
        return fun
    positions = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    names = (argnames,) if isinstance(argnames, str) else tuple(argnames)

    def microbatched(*args, **kwargs):
        batch = ([args[i] for i in positions], {name: kwargs[name] for name in names})
        sizes = sorted({jnp.shape(x)[0] for x in jax.tree.leaves(batch)})
        if len(sizes) != 1 or sizes[0] % microbatch_size:
            what = f"microbatch: microbatch_size={microbatch_size} must divide the one batch size"
            raise ValueError(f"{what}; got {sizes}")
        count = sizes[0] // microbatch_size

        def split(x):
            return x.reshape(microbatch_size, count, *x.shape[1:]).swapaxes(0, 1)

        pieces = jax.tree.map(split, batch)

        def evaluate(piece):
            given = list(args)
            for i, x in zip(positions, piece[0], strict=True):
                given[i] = x
            return fun(*given, **kwargs | piece[1])

        out = jax.eval_shape(evaluate, jax.tree.map(lambda x: x[0], pieces))
        kinds, structure = jax.tree.flatten(_kinds(accumulator, out))
        leaves = jax.tree.leaves(out)
        total = [_total(kind, x) for kind, x in zip(kinds, leaves, strict=True)]

        def body(total, piece):
            new = jax.tree.leaves(evaluate(piece))
            parts = [x if a is None else None for a, x in zip(total, new, strict=True)]
            return trees.tree_map(lambda a, x: a + x.astype(a.dtype), total, new), parts

        total, parts = jax.lax.scan(body, total, pieces)
        rows = zip(kinds, leaves, total, parts, strict=True)
        return structure.unflatten([_combined(*row, count) for row in rows])

    return microbatched


def _total(kind, x):
    """Zeros to add to: wide floats, integers as they are."""
    inexact = jnp.issubdtype(x.dtype, jnp.inexact)
    if kind == "mean" and not inexact:
        what = f"microbatch: the mean of a result of dtype {x.dtype} is not of that dtype"
        raise ValueError(f"{what}; use 'sum' or 'concat'")
    dtype = wide_dtype(x.dtype) if inexact else x.dtype
    return None if kind == "concat" else jnp.zeros(x.shape, dtype)


def _combined(kind, like, total, parts, count):
    if kind == "concat":
        return jnp.swapaxes(parts, 0, 1).reshape(-1, *parts.shape[2:])
    return (total / count if kind == "mean" else total).astype(like.dtype)
