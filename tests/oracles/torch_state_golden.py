"""The state_dict of torch.optim after some steps, and how training goes on: writes torch_state.npz, or with --check compares.

Needs torch 2.13.0, which is no dependency of gradxform: python tests/oracles/torch_state_golden.py [--check]
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from recorded import main

FILE = Path(__file__).with_name("torch_state.npz")
BEFORE, AFTER, SEED = 8, 12, 20261120
SHAPES = {"weight": (3, 4), "bias": (3,)}  # of torch.nn.Linear(4, 3)

ADAM = {"lr": 0.05, "betas": (0.9, 0.95), "eps": 1e-8}
MOMENTUM = {"lr": 0.05, "momentum": 0.9}

# name: (class, arguments, what the bias has otherwise, factor by which lr shrinks at each step)
CASES = {
    "sgd": ("SGD", {"lr": 0.05}, {}, 1.0),
    "sgd_momentum": ("SGD", MOMENTUM, {}, 1.0),
    "sgd_momentum_scheduled": ("SGD", MOMENTUM, {}, 0.9),
    "sgd_dampening": ("SGD", {**MOMENTUM, "dampening": 0.5}, {}, 1.0),
    "sgd_nesterov": ("SGD", {**MOMENTUM, "nesterov": True}, {}, 1.0),
    "adam": ("Adam", ADAM, {}, 1.0),
    "adam_l2": ("Adam", {**ADAM, "weight_decay": 0.1}, {}, 1.0),
    "adam_amsgrad": ("Adam", {**ADAM, "amsgrad": True}, {}, 1.0),
    "adamw_scheduled": ("AdamW", {**ADAM, "weight_decay": 0.1}, {}, 0.9),
    "adamw_amsgrad": ("AdamW", {**ADAM, "weight_decay": 0.1, "amsgrad": True}, {}, 1.0),
    "adamw_groups": (
        "AdamW",
        {**ADAM, "weight_decay": 0.1},
        {"weight_decay": 0.0, "lr": 0.02},
        1.0,
    ),
    "nadam": ("NAdam", ADAM, {}, 1.0),
    "radam": ("RAdam", ADAM, {}, 1.0),
    "rmsprop": ("RMSprop", {"lr": 0.02}, {}, 1.0),
}


def inputs():
    """The start, and gradients that shrink with time."""
    rng = np.random.default_rng(SEED)
    fading = np.exp(-np.arange(BEFORE + AFTER) / 6.0)
    start = {leaf: rng.standard_normal(shape) for leaf, shape in SHAPES.items()}
    grads = {
        leaf: rng.standard_normal((BEFORE + AFTER, *shape))
        * fading.reshape(-1, *(1 for _ in shape))
        for leaf, shape in SHAPES.items()
    }
    return start, grads


def run(name, start, grads):
    """The arrays of one case, and its parameter groups."""
    kind, arguments, bias, factor = CASES[name]
    leaves = {leaf: torch.nn.Parameter(torch.tensor(value)) for leaf, value in start.items()}
    groups = (
        [{"params": [leaves["weight"]]}, {"params": [leaves["bias"]], **bias}]
        if bias
        else leaves.values()
    )
    optimizer = getattr(torch.optim, kind)(groups, foreach=False, **arguments)
    rates = [group["lr"] for group in optimizer.param_groups]
    arrays, points = {}, {leaf: [] for leaf in leaves}
    for step in range(BEFORE + AFTER):
        if step == BEFORE:
            saved = optimizer.state_dict()
            arrays |= {
                f"at/{name}/{leaf}": parameter.detach().numpy().copy()
                for leaf, parameter in leaves.items()
            }
            for index, entry in saved["state"].items():
                arrays |= {
                    f"state/{name}/{index}/{key}": x.numpy().copy()
                    for key, x in entry.items()
                    if x is not None
                }
            meta = {
                "optimizer": kind,
                "param_groups": saved["param_groups"],
                "lr_factor": factor,
                "rates": rates,
            }
            meta = json.loads(json.dumps(meta))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor**step
        for leaf, parameter in leaves.items():
            parameter.grad = torch.tensor(grads[leaf][step])
        optimizer.step()
        for leaf, parameter in leaves.items():
            points[leaf].append(parameter.detach().numpy().copy())
    arrays |= {f"path/{name}/{leaf}": np.stack(points[leaf][BEFORE:]) for leaf in leaves}
    return arrays, meta


def golden():
    """Everything the file holds, by key."""
    torch.set_default_dtype(torch.float64)
    start, grads = inputs()
    arrays = {f"grads/{leaf}": value[BEFORE:] for leaf, value in grads.items()}
    meta = {"torch": torch.__version__, "seed": SEED, "before": BEFORE, "after": AFTER, "cases": {}}
    for name in CASES:
        found, meta["cases"][name] = run(name, start, grads)
        arrays |= found
    arrays["meta"] = np.array(json.dumps(meta, sort_keys=True))
    return arrays


if __name__ == "__main__":
    sys.exit(main(__doc__, FILE, golden, {"torch": "2.13.0"}))
