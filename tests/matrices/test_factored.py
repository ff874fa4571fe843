"""What the factored rules do with their thresholds."""

import jax
import jax.numpy as jnp
import numpy as np

import gradxform as gx


def test_came_limits_the_rms_of_a_step_to_its_threshold():
    """The first quotient is ±1/√(1 - β₂), far above every threshold, and is cut down to it."""
    params = {"b": jnp.ones(3)}
    gradients = {"b": jnp.array([0.5, -2.0, 1.0])}
    for threshold in (0.5, 1.0, 2.0):
        tx = gx.scale_by_came(b1=0.9, clipping_threshold=threshold)
        updates, _ = jax.jit(tx.update)(gradients, tx.init(params), params)
        expected = 0.1 * threshold * np.sign(gradients["b"])
        np.testing.assert_allclose(updates["b"], expected, rtol=1e-5)


def test_epsilon_is_added_to_the_squares_before_they_are_averaged():
    """At the first step ρ₁ = 0, so that R and C are the means of g² + ε themselves."""
    g, eps = np.array([[0.5, -2.0, 1.0], [0.1, 0.3, -0.2]]), 0.7
    tx = gx.scale_by_factored_rms(min_dim_size_to_factor=2, epsilon=eps)
    params = {"w": jnp.asarray(g, jnp.float32)}
    updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
    rows, columns = (np.mean(g**2 + eps, axis) for axis in (1, 0))
    expected = g / np.sqrt(np.outer(rows, columns) / rows.mean())
    np.testing.assert_allclose(updates["w"], expected, rtol=1e-5)
