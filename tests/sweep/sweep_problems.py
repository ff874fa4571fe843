"""Small problems that the tests of sweeps share, importable by other processes."""

import jax
import jax.numpy as jnp

import gradxform as gx
from gradxform.sweep import Paced, fit

X = jax.random.normal(jax.random.key(0), (64, 6))
Y = X @ jnp.arange(6.0)
DATA = {"x": X, "y": Y}
ADAM = gx.adam(1e-1)


def loss(params, batch, key, *, l2=0.0):
    """Squared error with L2."""
    return jnp.mean(jnp.square(batch["x"] @ params["w"] - batch["y"])) + l2 * jnp.sum(
        jnp.square(params["w"])
    )


def init(key, *, scale=1.0):
    """Normal parameters of that scale."""
    return {"w": scale * jax.random.normal(key, (6,))}


def line(tx=ADAM, key=None, *, l2=0.0, data=DATA, steps=12):
    """A whole training in one function."""
    params = init(key)

    def step(carry, _):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, data, None, l2=l2)
        updates, state = tx.update(gradient, state, params)
        return (gx.apply_updates(params, updates), state), value

    (params, _), losses = jax.lax.scan(step, (params, tx.init(params)), length=steps)
    return params, {"loss": losses}


def paced(tx=ADAM, key=None, *, l2=0.0, data=DATA, steps=12):
    """The same training, able to pause."""

    def step(carry):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, data, None, l2=l2)
        updates, state = tx.update(gradient, state, params)
        return (gx.apply_updates(params, updates), state), {"loss": value}

    def start():
        params = init(key)
        return params, tx.init(params)

    return Paced(start, step, steps, params=lambda carry: carry[0])


def fitted(**options):
    """The same problem by `sweep.fit`."""
    return fit(loss, ADAM, init, DATA, epochs=6, batch_size=16, validation=DATA, **options)
