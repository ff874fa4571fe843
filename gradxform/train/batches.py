"""Mini-batches of any pytree of arrays that share their leading axis, the examples.

One epoch is one permutation of the indices 0 .. n-1, cut into pieces of batch_size. The Python
iterator `batches` and the scan `scan_batches` cut the same permutation at the same places, so with
the same key they see the same batches in the same order. The last, smaller batch is kept unless it
is dropped on request.
"""

import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradxform.core.leaves import Tree, path_string
from gradxform.numerics import is_key

__all__ = ["batches", "count", "partition", "scan_batches", "shuffle"]


def whole(name: str, x, least: int = 1) -> int:
    """A whole number known now, as a Python int; anything else is an error by name."""
    try:
        if isinstance(x, bool | np.bool_):
            raise TypeError
        number = operator.index(x)
    except TypeError as error:  # a tracer or a float: shapes must be known before tracing
        raise TypeError(f"{name} must be a Python integer; got {x!r}") from error
    if number < least:
        raise ValueError(f"{name} must be at least {least}; got {number}")
    return number


def one_key(key):
    """The key as it is; anything else is an error that says what to write."""
    raw = hasattr(key, "dtype") and key.dtype == np.uint32 and np.ndim(key) == 1
    if not (raw or (is_key(key) and key.ndim == 0)):
        raise TypeError(f"key must be one JAX key, such as jax.random.key(0); got {key!r}")
    return key


def count(data, name="data"):
    """Number of examples n: the length of the leading axis that all leaves share.

    Shapes: every leaf of data is [n, ...]; returns a Python int. Raises: ValueError when there is
    no array, no example, a leaf without a leading axis, or when lengths disagree (the message names
    the leaves by path, and what was counted by `name`).
    """
    leaves = jax.tree_util.tree_leaves_with_path(data)
    if not leaves:
        raise ValueError(f"{name}: there is no array in it")
    named = [(path_string(path), np.shape(leaf)) for path, leaf in leaves]
    for leaf, shape in named:
        if not shape:
            why = "every leaf needs a leading axis of examples"
            raise ValueError(f"{name}: leaf {leaf!r} is a scalar; {why}")
    n, *others = {shape[0] for _, shape in named}
    if others:
        listed = ", ".join(f"{leaf!r} has {shape[0]}" for leaf, shape in named)
        raise ValueError(f"{name}: the leaves disagree on the number of examples: {listed}")
    if n == 0:
        raise ValueError(f"{name}: there are 0 examples")
    return n


def _cut(data, batch_size, drop_last):
    """(n, k): the number of examples and of full batches, both checked."""
    n, size = count(data), whole("batch_size", batch_size)
    if drop_last and size > n:
        why = "so drop_last=True leaves no batch"
        raise ValueError(f"batch_size={size} exceeds the {n} examples, {why}")
    return n, n // size


def _take(leaf, index):
    # NumPy data stays on the host: only the rows of one batch are ever moved to the device.
    if isinstance(leaf, np.ndarray) and not isinstance(index, Tracer):
        return leaf[np.asarray(index)]
    return jnp.asarray(leaf).at[index].get(mode="promise_in_bounds")


def shuffle(key, data):
    """The same data with one permutation of the examples applied to every leaf.

    Shapes: leaves [n, ...] to [n, ...]. Works inside jit; NumPy leaves stay NumPy outside it.
    Raises: ValueError as `count` does. Not: `jax.random.permutation(key, leaf)` on each leaf, which
    tears inputs from targets if keys differ.
    """
    order = jax.random.permutation(one_key(key), count(data))
    return jax.tree.map(lambda leaf: _take(leaf, order), data)


def partition(data, batch_size, *, drop_last=False):
    """The data, in order, as `(full, last)`: all full batches stacked, and the smaller remainder or
    None.

    Shapes: leaves [n, ...] to full [n // batch_size, batch_size, ...] and last [n % batch_size,
    ...]. Raises: ValueError as `count` does, when batch_size < 1, or when drop_last leaves no
    batch.
    """
    n, k = _cut(data, batch_size, drop_last)
    split = k * batch_size
    full = jax.tree.map(lambda leaf: leaf[:split].reshape(k, batch_size, *leaf.shape[1:]), data)
    if drop_last or split == n:
        return full, None
    return full, jax.tree.map(lambda leaf: leaf[split:], data)


def batches(key, data, batch_size, *, drop_last=False):
    """Python iterator over the batches of one epoch, shuffled by key, or in order when key is None.

        for batch in batches(jax.random.fold_in(key, epoch), (inputs, targets), 32): ...

    >>> [batch.shape for batch in gx.batches(jax.random.key(0), jnp.zeros((7, 2)), 3)]
    [(3, 2), (3, 2), (1, 2)]

    Shapes: each batch has leaves [batch_size, ...], the last one [n % batch_size, ...] when that is
    not 0. NumPy leaves give NumPy batches (views of the data when key is None). Raises: at the
    call, not at the first batch: ValueError as `partition` does. Not: reshuffled by iterating
    again. One key is one order; give each epoch its own.
    """
    n, k = _cut(data, batch_size, drop_last)
    end = k * batch_size if drop_last else n
    order = None if key is None else jax.random.permutation(one_key(key), n)
    if order is not None and not isinstance(order, Tracer):
        order = np.asarray(order)  # once, so that a batch costs no trip to the device and back
    return _iterate(order, data, batch_size, end)


def _iterate(order, data, batch_size, end):
    for start in range(0, end, batch_size):
        rows = slice(start, min(start + batch_size, end))
        if order is None:
            yield jax.tree.map(lambda leaf, rows=rows: leaf[rows], data)
        else:
            yield jax.tree.map(lambda leaf, index=order[rows]: _take(leaf, index), data)


def scan_batches(step, carry, data, batch_size, *, key=None, drop_last=False, order=None):
    """`carry, out = step(carry, batch)` over one epoch: a `lax.scan`, and a call for the last
    smaller batch. `order`, a permutation of the indices, may be given in place of a key.

    Shapes: leaves [n, ...]; each batch as in `batches` with the same key; returns `(carry, outs)`
    with every leaf of out stacked to [number of batches, ...]. Memory: the data is read batch by
    batch through the permuted indices, never copied as a whole, so that under vmap over keys the
    members share one data set. Raises: ValueError as `partition` does, or when the shape of out
    depends on the size of the batch.
    """
    n, k = _cut(data, batch_size, drop_last)
    data = jax.tree.map(jnp.asarray, data)
    if key is not None:
        order = jax.random.permutation(one_key(key), n)
    full, last = partition(data if order is None else order, batch_size, drop_last=drop_last)

    def drawn(carry, index):
        return step(carry, jax.tree.map(lambda leaf: _take(leaf, index), data))

    body = step if order is None else drawn  # step itself is traced once however often it is given
    outs: Tree = None
    if k:
        carry, outs = jax.lax.scan(body, carry, full)
    if last is None:
        return carry, outs
    carry, out = body(carry, last)
    if not k:
        return carry, jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], out)
    return carry, jax.tree_util.tree_map_with_path(_append, outs, out)


def _append(path, stacked, leaf):
    leaf = jnp.asarray(leaf)
    if stacked.shape[1:] != leaf.shape:
        raise ValueError(
            f"scan_batches: the shape of out {path_string(path)!r} depends on the size of the "
            f"batch: {stacked.shape[1:]} for a full one, {leaf.shape} for the last; reduce it "
            "inside step, or pass drop_last=True"
        )
    return jnp.concatenate([stacked, leaf[None]])
