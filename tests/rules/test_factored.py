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
