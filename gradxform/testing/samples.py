"""What the laws run on: small trees, their gradients, a few steps of training, and comparisons."""

import jax
import jax.numpy as jnp
import numpy as np

from gradxform.core.chain import apply_updates


def tree(scale=1.0, dtype=jnp.float32):
    """A matrix, within a dict, and a vector."""
    matrix = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3) * np.float32(scale)
    vector = matrix[0] + np.float32(0.3 * scale)
    return {"a": {"kernel": jnp.asarray(matrix, dtype)}, "b": jnp.asarray(vector, dtype)}


def gradients_of(step, params):
    """Gradients that depend on the step and the parameters."""

    def slope(p):
        return (jnp.sin(3 * p + jnp.asarray(step, p.dtype)) + p).astype(p.dtype)

    return jax.tree.map(slope, params)


def step(tx, params, state, extra, k=0):
    """The parameters and the state after the k-th update."""
    updates, state = tx.update(gradients_of(k, params), state, params, **extra)
    return apply_updates(params, updates), state


def train(tx, params, extra, steps=3):
    """A few updates in a scan; gives the parameters and the state."""

    def body(carry, k):
        params, state = carry
        return step(tx, params, state, extra, k), None

    return jax.lax.scan(body, (params, tx.init(params)), jnp.arange(steps))[0]


def assert_close(got, expected, what, rtol=2e-5, atol=2e-6):
    """The trees agree, leaf by leaf."""
    assert jax.tree.structure(got) == jax.tree.structure(expected), f"{what}: the structures differ"
    rows = zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True)
    for (path, a), b in rows:
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        at = f"{what} at {jax.tree_util.keystr(path)}"
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=at)


def assert_same(got, expected, what):
    """The trees agree bit for bit."""
    assert_close(got, expected, what, rtol=0, atol=0)
