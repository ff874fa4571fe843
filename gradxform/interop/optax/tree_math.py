"""Arithmetic on whole trees, under the names of Optax's `tree_utils`.

None leaves stay None: where one tree has None, so has the result. Leaves of several dtypes are
promoted, also under strict promotion. A scalar does not widen a leaf, sums of narrow floats are
float32, and averages keep their dtype.
"""

import inspect
import operator
from collections.abc import Callable
from functools import partial, reduce

import jax
import jax.numpy as jnp

from gradxform.core.leaves import is_none, paths, sum_of_squares
from gradxform.numerics import abs_sq, bias_correction, safe_sqrt, wide_dtype


def _map(f: Callable, *trees):
    def on_leaves(*xs):
        return None if any(x is None for x in xs) else f(*xs)

    with jax.numpy_dtype_promotion("standard"):
        return jax.tree.map(on_leaves, *trees, is_leaf=is_none)


def _reduce(f: Callable, each: Callable, leaves, empty):
    with jax.numpy_dtype_promotion("standard"):
        found = [each(x) for x in leaves]
        return reduce(f, found) if found else jnp.asarray(empty)


def _inexact(x) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def _wide(x):
    x = jnp.asarray(x)
    return x.astype(wide_dtype(x.dtype)) if _inexact(x) else x


def _by_scalar(f, x, scalar):
    """f(x, scalar), computed wide; a scalar counts as a Python number, which does not widen the
    dtype.
    """
    real = 0.0 if _inexact(scalar) else 0
    kind = 0j if jnp.iscomplexobj(scalar) else real
    return f(_wide(x), scalar).astype(jnp.result_type(x, kind))


def tree_add(tree_x, tree_y, *other_trees):
    """x + y, and more: the sum of trees, leaf by leaf."""
    return _map(lambda *xs: reduce(operator.add, xs), tree_x, tree_y, *other_trees)


def tree_sub(tree_x, tree_y):
    """x - y, leaf by leaf."""
    return _map(operator.sub, tree_x, tree_y)


def tree_mul(tree_x, tree_y):
    """x y, leaf by leaf."""
    return _map(operator.mul, tree_x, tree_y)


def tree_div(tree_x, tree_y):
    """x / y, leaf by leaf."""
    return _map(operator.truediv, tree_x, tree_y)


def tree_scale(scalar, tree):
    """c x for a scalar c; a leaf keeps its dtype."""
    return _map(lambda x: _by_scalar(operator.mul, x, scalar), tree)


def tree_add_scale(tree_x, scalar, tree_y):
    """x + c y for a scalar c."""
    return _map(lambda x, y: x + _by_scalar(operator.mul, y, scalar), tree_x, tree_y)


def tree_vdot(tree_x, tree_y):
    """Σ x̄ y over all entries of two trees, a scalar."""
    dots = _map(lambda x, y: jnp.sum(jnp.conj(_wide(x)) * _wide(y)), tree_x, tree_y)
    return _reduce(operator.add, lambda x: x, jax.tree.leaves(dots), 0)


def tree_sum(tree, associative_reduction: bool = False):
    """Σ x over all entries, a scalar. `associative_reduction` is accepted; leaves are added one
    after another.
    """
    del associative_reduction
    return _reduce(operator.add, lambda x: jnp.sum(_wide(x)), jax.tree.leaves(tree), 0)


def tree_max(tree):
    """The largest entry; -inf where there is none."""
    return _reduce(jnp.maximum, jnp.max, filter(jnp.size, jax.tree.leaves(tree)), -jnp.inf)


def tree_min(tree):
    """The smallest entry; inf where there is none."""
    return _reduce(jnp.minimum, jnp.min, filter(jnp.size, jax.tree.leaves(tree)), jnp.inf)


def tree_size(tree) -> int:
    """How many entries a tree has."""
    return sum(jnp.size(x) for x in jax.tree.leaves(tree))


def tree_conj(tree):
    """The complex conjugate, leaf by leaf."""
    return _map(jnp.conj, tree)


def tree_real(tree):
    """The real part, leaf by leaf."""
    return _map(jnp.real, tree)


def tree_norm(tree, ord: int | str | float | None = None, squared: bool = False):
    """The norm of a whole tree as one vector, or its square; its slope at a zero tree is 0.

    Args:
        tree: arrays; None leaves are absent.
        ord: 2 (or None), 1, or "inf" (also `jnp.inf`).
        squared: the square of it.

    Raises:
        ValueError: another `ord`.
    """
    if ord is None or ord == 2:
        total = sum_of_squares(jax.tree.leaves(tree))
        return total if squared else safe_sqrt(total)
    if ord != 1 and ord not in (jnp.inf, "inf", "infinity"):
        raise ValueError(f"tree_norm: ord must be 1, 2 or 'inf'; got {ord!r}")
    sizes = _map(lambda x: jnp.abs(_wide(x)), tree)
    norm = tree_sum(sizes) if ord == 1 else tree_max(sizes)
    return norm * norm if squared else norm


def tree_batch_shape(tree, shape: tuple[int, ...] = ()):
    """Each leaf repeated along new leading axes of this shape."""
    return _map(lambda x: jnp.broadcast_to(x, (*shape, *jnp.shape(x))), tree)


def tree_zeros_like(tree, dtype=None):
    """Zeros, in the dtype of each leaf or in a given one."""
    return _map(partial(jnp.zeros_like, dtype=dtype), tree)


def tree_ones_like(tree, dtype=None):
    """Ones, in the dtype of each leaf or in a given one."""
    return _map(partial(jnp.ones_like, dtype=dtype), tree)


def tree_full_like(tree, fill_value, dtype=None):
    """One value everywhere, in the dtype of each leaf or in a given one."""
    return _map(lambda x: jnp.full_like(x, fill_value, dtype=dtype), tree)


def tree_clip(tree, min_value=None, max_value=None):
    """min(max(x, low), high), entry by entry; None is no bound."""

    def clip(x):
        dtype, bounds = jnp.result_type(x), (min_value, max_value)
        return jnp.clip(x, *(b if b is None else jnp.asarray(b, dtype) for b in bounds))

    return _map(clip, tree)


def _average(new, old, decay):
    """(1 - β) new + β old in the dtype of the old one."""
    old = jnp.asarray(old)
    return ((1 - decay) * _wide(new) + decay * _wide(old)).astype(old.dtype)


def tree_update_moment(updates, moments, decay, order):
    """m ← β m + (1 - β) gⁿ, n = `order`: one step of the average of a power."""
    return _map(lambda g, m: _average(_wide(g) ** order, m, decay), updates, moments)


def tree_update_moment_per_elem_norm(updates, moments, decay, order):
    """m ← β m + (1 - β) |g|ⁿ: as `tree_update_moment`, and real for complex gradients.

    For real gradients it is gⁿ, as in Optax, also where n is odd.
    """

    def power(g):
        half = order / 2 if order % 2 else order // 2
        return abs_sq(g) ** half if jnp.iscomplexobj(g) else g**order

    return _map(lambda g, m: _average(power(_wide(g)), m, decay), updates, moments)


def tree_update_infinity_moment(updates, moments, decay, eps):
    """m ← max(|g| + ε, β m): the infinity norm of AdaMax."""

    def step(g, m):
        m = jnp.asarray(m)
        return jnp.maximum(jnp.abs(_wide(g)) + eps, decay * _wide(m)).astype(m.dtype)

    return _map(step, updates, moments)


def tree_bias_correction(moment, decay, count):
    """m / (1 - βᵗ), t = `count`: an average without its pull towards the zero it began at."""

    def correct(m):
        wide = _wide(m)
        corrected = wide / bias_correction(decay, count, jnp.real(wide).dtype)
        return corrected.astype(jnp.result_type(m))

    return _map(correct, moment)


def tree_where(condition, tree_x, tree_y):
    """x where the condition holds, y elsewhere."""
    return _map(lambda x, y: jnp.where(condition, x, y), tree_x, tree_y)


def tree_allclose(a, b, rtol=1e-5, atol=1e-8, equal_nan: bool = False):
    """Whether all entries agree: |a - b| ≤ atol + rtol |b|, a boolean scalar."""
    close = _map(partial(jnp.allclose, rtol=rtol, atol=atol, equal_nan=equal_nan), a, b)
    return reduce(operator.and_, jax.tree.leaves(close), jnp.array(True))


def tree_cast(tree, dtype):
    """Every leaf in a dtype; None leaves the tree as it is."""
    return tree if dtype is None else _map(lambda x: jnp.asarray(x).astype(dtype), tree)


def tree_cast_like(tree, other_tree):
    """Every leaf in the dtype of the other tree's; a leaf of that tree without a dtype changes
    nothing.
    """
    cast = lambda x, y: jnp.asarray(x).astype(y.dtype) if hasattr(y, "dtype") else x  # noqa: E731
    return _map(cast, tree, other_tree)


def tree_dtype(tree, mixed_dtype_handler: str | None = None):
    """The dtype of a tree; for one without leaves, JAX's default float.

    Args:
        tree: arrays; None leaves are absent.
        mixed_dtype_handler: what to do with several dtypes: None raises, "promote" gives what they
            promote to, "highest" and "lowest" the one that all promote to, and the one that
            promotes to all.

    Raises:
        ValueError: several dtypes with None; none among them is the highest or lowest; another
            handler.
    """
    if mixed_dtype_handler not in (None, "promote", "highest", "lowest"):
        wanted = "None, 'promote', 'highest' or 'lowest'"
        got = repr(mixed_dtype_handler)
        raise ValueError(f"tree_dtype: mixed_dtype_handler must be {wanted}; got {got}")
    rows = zip(paths(tree), jax.tree.leaves(tree, is_leaf=is_none), strict=True)
    flat = [(path, jnp.asarray(x).dtype) for path, x in rows if x is not None]
    dtypes = list(dict.fromkeys(dtype for _, dtype in flat))
    if len(dtypes) < 2:
        return dtypes[0] if dtypes else jnp.zeros(()).dtype
    if mixed_dtype_handler is None:
        found = [f"{path}: {dtype}" for path, dtype in flat][:8]
        raise ValueError(f"tree_dtype: the leaves differ in dtype: {found}")
    if mixed_dtype_handler == "promote":
        return reduce(_promoted, dtypes)
    found = dtypes[0]
    for dtype in dtypes[1:]:
        both = _promoted(found, dtype)
        if both not in (found, dtype):
            raise ValueError(f"tree_dtype: neither of {found} and {dtype} promotes to the other")
        if (both == dtype) == (mixed_dtype_handler == "highest"):
            found = dtype
    return found


def _promoted(a, b):
    with jax.numpy_dtype_promotion("standard"):
        return jnp.promote_types(a, b)


def tree_split_key_like(rng_key, target_tree):
    """A random key for each leaf."""
    structure = jax.tree.structure(target_tree)
    return jax.tree.unflatten(structure, jax.random.split(rng_key, structure.num_leaves))


def tree_random_like(rng_key, target_tree, sampler: Callable = jax.random.normal, dtype=None):
    """Random leaves of the shapes and shardings of a tree: `sampler(key, shape, dtype)`, in the
    dtype of each leaf by default.
    """
    placed = "out_sharding" in inspect.signature(sampler).parameters

    def sample(x, key):
        where = {"out_sharding": jax.typeof(x).sharding} if placed else {}
        return sampler(key, jnp.shape(x), dtype or jnp.result_type(x), **where)

    return jax.tree.map(sample, target_tree, tree_split_key_like(rng_key, target_tree))


def tree_unwrap_random_key_data(input_tree):
    """Typed random keys as the arrays of their data; other leaves as they are."""

    def data(x):
        key = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(x) if key else x

    return jax.tree.map(data, input_tree)


__all__ = [name for name in vars() if name.startswith("tree_")]
