"""Two optimizers side by side through 200 steps of one problem whose gradients depend on the parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradxform as gx

STEPS = 200
SHAPES = {"w": (4, 3), "k": (8, 12), "b": (3,), "s": ()}
RTOL = {"float32": 1e-5, "float64": 1e-9}


def problem(dtype, steps=STEPS, seed=0, shapes=SHAPES):
    """The start, and a loss of (params, step): a quadratic about a point that jitters, so that no gradient stays zero."""
    rng = np.random.default_rng(seed)
    start = {k: jnp.asarray(rng.standard_normal(shape), dtype) for k, shape in shapes.items()}
    scale = {
        k: jnp.asarray(10 ** rng.uniform(-1, 0.5, shape), dtype) for k, shape in shapes.items()
    }
    jitter = {
        k: jnp.asarray(rng.standard_normal((steps, *shape)) * 0.5, dtype)
        for k, shape in shapes.items()
    }

    def loss(params, step):
        terms = [jnp.sum(scale[k] * (params[k] - jitter[k][step]) ** 2) for k in shapes]
        return 0.5 * sum(terms[1:], terms[0])

    return start, loss


def walk(tx, dtype, apply, extra=("value",), steps=STEPS, shapes=SHAPES):
    """The parameters after each step, flat: [T, n]."""
    start, loss = problem(dtype, steps, shapes=shapes)

    def body(carry, step):
        params, state = carry
        value, g = jax.value_and_grad(loss)(params, step)
        known = {"value": value, "obj_fn": lambda p: loss(p, step), "grad": g}
        updates, state = tx.update(g, state, params, **{k: known[k] for k in extra})
        params = apply(params, updates)
        return (params, state), jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(params)])

    return np.asarray(jax.lax.scan(body, (start, tx.init(start)), jnp.arange(steps))[1])


def distance(make_ours, make_theirs, dtype, extra=("value",), steps=STEPS, shapes=SHAPES):
    """The largest difference between gradxform and Optax, relative to the largest parameter."""
    with jax.enable_x64(dtype == "float64"):
        ours = walk(make_ours(), dtype, gx.apply_updates, extra, steps, shapes)
        with jax.numpy_dtype_promotion("standard"):
            theirs = optax.with_extra_args_support(make_theirs())
            theirs = walk(theirs, dtype, optax.apply_updates, extra, steps, shapes)
    assert np.all(np.isfinite(theirs))
    assert np.max(np.abs(theirs[-1] - theirs[0])) > 0, "nothing moved"
    return np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs))
