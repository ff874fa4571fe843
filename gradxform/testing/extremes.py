"""Laws at the ends of the numbers: the last step that a counter holds, and gradients from 1e-30 to
1e30.
"""

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.testing.samples import assert_close, gradients_of, step, train, tree
from gradxform.versions import enable_x64

LAST = 2**31 - 1


def _at(state, count):
    """The state with every count of steps at this one."""

    def moved(path, x):
        is_step = getattr(path[-1], "name", getattr(path[-1], "key", "")) == "step"
        return jnp.full_like(x, count) if is_step else x

    return jax.tree_util.tree_map_with_path(moved, state)


def counters_stop(tx, extra):
    """At the last step that a counter holds it goes on as just before: no counter wraps."""

    @jax.jit
    def trained(start):
        params, state = train(tx, tree(), extra, steps=2)

        def body(carry, k):
            params, state = carry
            return step(tx, params, state, extra, k), params

        (params, state), way = jax.lax.scan(body, (params, _at(state, start)), jnp.arange(4))
        return (params, way), state

    got, state = trained(jnp.int32(LAST - 1))
    for path, x in jax.tree_util.tree_leaves_with_path(state):
        assert not jnp.issubdtype(x.dtype, jnp.integer) or np.all(x >= 0), jax.tree_util.keystr(
            path
        )
    expected, _ = trained(jnp.int32(LAST - 9))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(expected)), "not finite before"
    assert_close(got, expected, "at the last step")


SCALES = 10.0 ** np.arange(-30, 31, 6)
SQUARES = 1e15  # the squares of larger gradients, or of smaller ones than 1e-15, may be no numbers
TINY = 1e-36  # what single precision need not tell from zero


def magnitudes_change_nothing(tx, extra):
    """With gradients from 1e-30 to 1e30 no update is NaN or infinite, and no state NaN. Where
    their squares are numbers of single precision it is what it is in double precision; elsewhere
    it is not much longer, and of tiny gradients it has the same sign.
    """
    single, state = _updates(tx, extra, np.float32)
    with enable_x64():
        double, _ = _updates(tx, extra, np.float64)
    for path, x in jax.tree_util.tree_leaves_with_path(state):
        if jnp.issubdtype(x.dtype, jnp.inexact):
            assert not np.isnan(x).any(), f"the state is NaN at {jax.tree_util.keystr(path)}"
    rows = zip(jax.tree_util.tree_leaves_with_path(single), jax.tree.leaves(double), strict=True)
    for (path, mine), exact in rows:
        for scale, got, expected in zip(SCALES, mine.astype(np.float64), exact, strict=True):
            at = f"gradients of {scale:.0e}, at {jax.tree_util.keystr(path)}"
            largest = np.abs(expected).max()
            if largest > np.finfo(np.float32).max:
                continue
            assert np.isfinite(got).all(), f"{at}: {got}"
            if 1 / SQUARES <= scale <= SQUARES:
                bound = {"rtol": 2e-3, "atol": 1e-4 * largest + TINY}
                np.testing.assert_allclose(got, expected, **bound, err_msg=at)
                continue
            assert np.abs(got).max() <= 4 * largest + TINY, f"{at}: {got} for {expected}"
            clear = np.abs(expected) > max(0.02 * largest, TINY)
            same = np.sign(got) == np.sign(expected)
            assert scale > 1 or same[clear].all(), f"{at}: {got} for {expected}"


def _updates(tx, extra, dtype):
    """The updates of three steps for each scale, and the state after them."""

    def run(scale):
        def body(state, k):
            params = jax.tree.map(lambda p: p * (1 + k.astype(dtype) / 8), tree(dtype=dtype))
            gradients = jax.tree.map(lambda g: g * scale, gradients_of(k, params))
            updates, state = tx.update(gradients, state, params, **extra)
            return state, updates

        state, updates = jax.lax.scan(body, tx.init(tree(dtype=dtype)), jnp.arange(3))
        return updates, state

    return jax.device_get(jax.jit(jax.vmap(run))(jnp.asarray(SCALES, dtype)))
