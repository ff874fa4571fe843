"""The derivative of a training with respect to its optimizer, shaped like the optimizer.

    gradient = hypergradient(train, gx.adam(1e-3))  # train(tx) -> the loss after training, a scalar
    gradient.learning_rate, gradient.b1

Reverse mode costs a few trainings whatever the number of hyperparameters, and remembers the course
of the training: all of it with `lax.scan`, its square root with `checkpointed_scan`. Forward mode
remembers nothing and costs one training for each number.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.train.paced import Paced


def hypergradient(train: Callable, tx, *, mode: str = "reverse", loss: Callable | None = None):
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
    dtypes = [jax.dtypes.result_type(x) for x in leaves]
    real = [i for i, dtype in enumerate(dtypes) if jnp.issubdtype(dtype, jnp.floating)]
    numbers = [jnp.asarray(leaves[i], jax.dtypes.canonicalize_dtype(dtypes[i])) for i in real]

    def put(numbers, rest):
        given = dict(enumerate(rest)) | dict(zip(real, numbers, strict=True))
        return treedef.unflatten(given.values())

    def f(numbers):
        value = _scalar(train(put(numbers, leaves)), loss)
        if shape := jnp.shape(value):
            raise ValueError(f"hypergradient: train must return a scalar; got shape {shape}")
        return value

    value, found = jax.value_and_grad(f)(numbers) if mode == "reverse" else _forward(f, numbers)
    return value, put(found, [0.0] * len(leaves))


def _scalar(out, loss):
    if not isinstance(out, Paced):
        return out
    if loss is None:
        must = "loss(params) must say what to differentiate"
        raise ValueError(f"hypergradient: train returned a Paced; {must}")
    step = lambda carry, _: (out.step(carry)[0], None)  # noqa: E731
    return loss(out.params(checkpointed_scan(step, out.init(), None, out.steps)[0]))


def _forward(f, numbers):
    ends = np.cumsum([x.size for x in numbers])
    eyes = zip(np.split(np.eye(ends[-1]), ends[:-1], axis=1), numbers, strict=True)
    basis = [jnp.asarray(eye.reshape(-1, *x.shape), x.dtype) for eye, x in eyes]
    slope = lambda tangent: jax.jvp(f, (numbers,), (tangent,))  # noqa: E731
    value, slopes = jax.vmap(slope, out_axes=(None, 0))(basis)
    parts = zip(jnp.split(slopes, ends[:-1]), numbers, strict=True)
    return value, [part.reshape(x.shape).astype(x.dtype) for part, x in parts]


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
    outer, rest = divmod(n, inner)
    full = n - rest

    def part(carry, xs, length):
        return jax.checkpoint(lambda c, x: jax.lax.scan(step, c, x, length))(carry, xs)

    blocks = jax.tree.map(lambda x: x[:full].reshape(outer, inner, *x.shape[1:]), xs)
    carry, ys = jax.lax.scan(lambda c, x: part(c, x, inner), carry, blocks, outer)
    ys = jax.tree.map(lambda y: y.reshape(full, *y.shape[2:]), ys)
    if not rest:
        return carry, ys
    carry, more = part(carry, jax.tree.map(lambda x: x[full:], xs), rest)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, more)
