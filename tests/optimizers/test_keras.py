"""The conventions of Keras against what Keras 3.15.1 computed in float64."""

from functools import cache, partial

import jax
import pytest
from replay import GRADS, LEAVES, START, close, recorded, walks

import gradxform as gx

GOLDEN = recorded("keras")
LR = 0.05
FADING = gx.exponential_decay(LR, 1, 0.9)
K = {"convention": "keras"}
D = {"b2": 0.95, "weight_decay": 0.1, **K}

CASES = {
    "sgd_momentum": lambda: gx.sgd(FADING, 0.9, **K),
    "sgd_nesterov": lambda: gx.sgd(FADING, 0.9, nesterov=True, **K),
    "adagrad": lambda: gx.adagrad(LR, **K),
    "adadelta": lambda: gx.adadelta(LR, **K),
    "rmsprop": lambda: gx.rmsprop(LR, **K),
    "rmsprop_centered": lambda: gx.rmsprop(FADING, centered=True, momentum=0.9, **K),
    "adam": lambda: gx.adam(LR, **K),
    "adamw": lambda: gx.adamw(LR, **K),
    "amsgrad": lambda: gx.amsgrad(LR, b2=0.95, **K),
    "adamax": lambda: gx.adamax(LR, **K),
    "adamaxw": lambda: gx.adamaxw(LR, **D),
    "nadam": lambda: gx.nadam(LR, **K),
    "nadamw": lambda: gx.nadamw(LR, **D),
    "lion": lambda: gx.lion(LR, **K),
    "lamb": lambda: gx.lamb(LR, **K),
    "lamb_decayed": lambda: gx.lamb(FADING, **D),
    "adafactor": lambda: gx.adafactor(LR, **K),
    "adafactor_decayed": lambda: gx.adafactor(LR, weight_decay_rate=0.1, **K),
    "schedule_free": lambda: gx.schedule_free_adamw(LR, 6, **K),
    "schedule_free_decayed": lambda: gx.schedule_free_adamw(LR, 6, **D),
}


@cache
def all_walks():
    return jax.jit(partial(walks, {name: make() for name, make in CASES.items()}))(START, GRADS)


def test_every_recorded_run_is_compared():
    assert {name.split("/")[1] for name in GOLDEN} == set(CASES)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CASES)
def test_keras_path(name):
    limit = (
        1e-6 if name.startswith("adafactor") else 1e-12
    )  # some of Keras' numbers there are float32
    for leaf in LEAVES:
        close(
            all_walks()[name][leaf],
            GOLDEN[f"path/{name}/{leaf}"],
            limit,
            err_msg=f"{CASES[name]()!r} at {leaf}",
        )
