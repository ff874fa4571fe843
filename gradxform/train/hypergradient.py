"""The derivative of a training with respect to its optimizer, shaped like the optimizer.

    gradient = hypergradient(train, gx.adam(1e-3))        # train(tx) -> the loss after training, a scalar
    gradient.learning_rate, gradient.b1

Reverse mode costs a few trainings whatever the number of hyperparameters, and remembers the course
of the training: all of it with `lax.scan`, its square root with `checkpointed_scan`. Forward mode
remembers nothing and costs one training for each number.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.train.paced import Paced


def hypergradient(
    train: Callable[[Any], Any],
    tx,
    *,
    mode: str = "reverse",
    loss: Callable[[Any], Any] | None = None,
):
    """∂ train(tx) / ∂ tx: a tree like tx with a derivative in place of each number; 0 for whole
    numbers.

    `train(tx)` returns a scalar, or a `Paced`, in which case `loss(params)` is the scalar, and
    reverse mode is checkpointed.

    Memory: mode="reverse": what train remembers; for a Paced of n steps, 2 √n carries.
    mode="forward": the carry times one more than the number of numbers. Raises:
        ValueError: a mode other than "reverse" and "forward", a result that is no scalar.
    """
    return value_and_hypergradient(train, tx, mode=mode, loss=loss)[1]


def value_and_hypergradient(train, tx, *, mode: str = "reverse", loss=None):
    """`(train(tx), hypergradient(train, tx))` in one run."""
    if mode not in ("reverse", "forward"):
        raise ValueError(f'hypergradient: mode must be "reverse" or "forward"; got {mode!r}')
    leaves, treedef = jax.tree.flatten(tx)
    real = [
        i for i, x in enumerate(leaves) if jnp.issubdtype(jax.dtypes.result_type(x), jnp.floating)
    ]
    numbers = [
        jnp.asarray(leaves[i], jax.dtypes.canonicalize_dtype(jax.dtypes.result_type(leaves[i])))
        for i in real
    ]

    def f(numbers):
        given = list(leaves)
        for i, x in zip(real, numbers, strict=True):
            given[i] = x
        value = _scalar(train(treedef.unflatten(given)), loss)
        if jnp.shape(value) != ():
            raise ValueError(
                f"hypergradient: train must return a scalar; got shape {jnp.shape(value)}"
            )
        return value

    value, found = jax.value_and_grad(f)(numbers) if mode == "reverse" else _forward(f, numbers)
    gradient: list[Any] = [0.0] * len(leaves)
    for i, x in zip(real, found, strict=True):
        gradient[i] = x
    return value, treedef.unflatten(gradient)


def _scalar(out, loss):
    if not isinstance(out, Paced):
        return out
    if loss is None:
        raise ValueError(
            "hypergradient: train returned a Paced; loss(params) must say what to differentiate"
        )

    def step(carry, _):
        return out.step(carry)[0], None

    carry, _ = checkpointed_scan(step, out.init(), None, out.steps)
    return loss(out.params(carry))


def _forward(f, numbers):
    sizes = [x.size for x in numbers]
    total, starts = sum(sizes), np.cumsum([0, *sizes])
    basis = []
    for x, start, size in zip(numbers, starts, sizes, strict=False):
        eye = np.zeros((total, size), x.dtype)
        eye[start : start + size] = np.eye(size)
        basis.append(jnp.asarray(eye.reshape(total, *x.shape)))
    value, slopes = jax.vmap(
        lambda tangent: jax.jvp(f, (numbers,), (tangent,)), out_axes=(None, 0)
    )(basis)
    parts = jnp.split(slopes, starts[1:-1])
    return value, [
        part.reshape(x.shape).astype(x.dtype) for part, x in zip(parts, numbers, strict=True)
    ]


def checkpointed_scan(step, carry, xs=None, length: int | None = None):
    """`jax.lax.scan` that remembers about 2 √length carries for reverse mode, and runs every step
    once more.

    Shapes: as lax.scan.
    """
    leaves = jax.tree.leaves(xs)
    n = len(leaves[0]) if leaves else length
    if n is None:
        raise ValueError("checkpointed_scan: give xs or length")
    if n == 0:
        return jax.lax.scan(step, carry, xs, length)
    inner = math.isqrt(n)
    outer = n // inner

    def part(carry, xs, length):
        return jax.checkpoint(lambda c, x: jax.lax.scan(step, c, x, length))(carry, xs)

    blocks = jax.tree.map(lambda x: x[: inner * outer].reshape(outer, inner, *x.shape[1:]), xs)
    carry, ys = jax.lax.scan(lambda c, x: part(c, x, inner), carry, blocks, outer)
    ys = jax.tree.map(lambda y: y.reshape(inner * outer, *y.shape[2:]), ys)
    if inner * outer == n:
        return carry, ys
    carry, rest = part(carry, jax.tree.map(lambda x: x[inner * outer :], xs), n - inner * outer)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, rest)
