"""The recorded runs of other packages, and optimizers replayed on the gradients of those runs."""

import json
from pathlib import Path

import jax
import numpy as np

import gradxform as gx

LEAVES = ("w", "b")


def recorded(name):
    """The arrays of a file beside this one."""
    with np.load(Path(__file__).with_name(f"{name}.npz")) as file:
        return dict(file)


TORCH = recorded("torch_2.13")
META = json.loads(str(TORCH["meta"]))
# 25 steps over five orders of magnitude, one element without any gradient, and one without at first
START = {leaf: TORCH[f"start/{leaf}"] for leaf in LEAVES}
GRADS = {leaf: TORCH[f"grads/{leaf}"] for leaf in LEAVES}


def close(actual, expected, limit=1e-12, **kwargs):
    """In float64 the library and NumPy round differently in the last bits, which 25 steps carry on."""
    np.testing.assert_allclose(actual, expected, rtol=limit, atol=limit, **kwargs)


def flat(leaves):
    """w and b as one vector, for each step."""
    return np.concatenate(
        [np.reshape(leaves["w"], (*np.shape(leaves["w"])[:-2], -1)), leaves["b"]], axis=-1
    )


def arguments(case, *used):
    """The named arguments of a recorded case; every other one must be switched off, so that none is silently ignored."""
    left = {key: value for key, value in case["kwargs"].items() if key != "lr"}
    found = [left.pop(key) for key in used]
    assert not any(left.values()), f"{left} would be ignored"
    return found


def walks(several, start, grads):
    """The parameters after each step, for many optimizers in one program: a program each would take six times as long."""

    def step(carry, g):
        new = {}
        for name, tx in several.items():
            params, state = carry[name]
            updates, state = tx.update(g, state, params)
            new[name] = gx.apply_updates(params, updates), state
        return new, {name: params for name, (params, _) in new.items()}

    first = {name: (start, tx.init(start)) for name, tx in several.items()}
    return jax.lax.scan(step, first, grads)[1]
