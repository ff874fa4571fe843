"""What keras.optimizers compute in float64, on JAX: writes keras.npz, or with --check compares with the committed.

Needs the extra `oracles`, no dependency of gradxform: python tests/oracles/keras_golden.py [--check]
Start and gradients are those in torch_2.13.npz.
"""

import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = (
    "jax"  # on torch, ScheduleFreeAdamW reads its momentum after overwriting it
)
os.environ["JAX_ENABLE_X64"] = "1"

import keras
import numpy as np
from recorded import main

FILE = Path(__file__).with_name("keras.npz")
RATE = 0.05
ADAM = {"beta_2": 0.95}
DECAY = {**ADAM, "weight_decay": 0.1}

# name: (class, arguments, factor by which the rate shrinks at each step)
CASES = {
    "sgd_momentum": ("SGD", {"momentum": 0.9}, 0.9),
    "sgd_nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}, 0.9),
    "adagrad": ("Adagrad", {}, 1.0),
    "adadelta": ("Adadelta", {}, 1.0),
    "rmsprop": ("RMSprop", {}, 1.0),
    "rmsprop_centered": ("RMSprop", {"centered": True, "momentum": 0.9}, 0.9),
    "adam": ("Adam", {}, 1.0),
    "adamw": ("AdamW", {}, 1.0),
    "amsgrad": ("Adam", {**ADAM, "amsgrad": True}, 1.0),
    "adamax": ("Adamax", {}, 1.0),
    "adamaxw": ("Adamax", DECAY, 1.0),
    "nadam": ("Nadam", {}, 1.0),
    "nadamw": ("Nadam", DECAY, 1.0),
    "lion": ("Lion", {}, 1.0),
    "lamb": ("Lamb", {}, 1.0),
    "lamb_decayed": ("Lamb", DECAY, 0.9),
    "adafactor": ("Adafactor", {}, 1.0),
    "adafactor_decayed": ("Adafactor", {"weight_decay": 0.1}, 1.0),
    "schedule_free": ("ScheduleFreeAdamW", {"warmup_steps": 6}, 1.0),
    "schedule_free_decayed": ("ScheduleFreeAdamW", {**DECAY, "warmup_steps": 6}, 1.0),
}


def path(name, start, grads):
    """The parameters after each step."""
    kind, arguments, factor = CASES[name]
    leaves = {leaf: keras.Variable(value, dtype="float64") for leaf, value in start.items()}
    optimizer = getattr(keras.optimizers, kind)(learning_rate=RATE, **arguments)
    optimizer.build(list(leaves.values()))
    points = {leaf: [] for leaf in leaves}
    for step in range(len(grads["w"])):
        optimizer.learning_rate = RATE * factor**step
        optimizer.apply(
            [keras.ops.convert_to_tensor(grads[leaf][step]) for leaf in leaves],
            list(leaves.values()),
        )
        for leaf, variable in leaves.items():
            points[leaf].append(np.array(keras.ops.convert_to_numpy(variable)))
    return {leaf: np.stack(p) for leaf, p in points.items()}


def compute():
    """Everything the file holds, by key."""
    keras.config.set_floatx("float64")
    with np.load(FILE.with_name("torch_2.13.npz")) as file:
        start, grads = (
            {leaf: file[f"{kind}/{leaf}"] for leaf in "wb"} for kind in ("start", "grads")
        )
    return {
        f"path/{name}/{leaf}": x for name in CASES for leaf, x in path(name, start, grads).items()
    }


if __name__ == "__main__":
    sys.exit(main(__doc__, FILE, compute, {"keras": "3.15.1"}))
