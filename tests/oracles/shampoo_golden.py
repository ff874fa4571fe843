"""What pytorch_optimizer's Shampoo and ScalableShampoo compute in float64: writes shampoo.npz, or with --check compares.

Needs the extra `oracles`, no dependency of gradxform: python tests/oracles/shampoo_golden.py [--check]
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
from recorded import main

FILE = Path(__file__).with_name("shampoo.npz")
STEPS, SEED, SHAPE = 20, 20261121, (4, 3)
SCALABLE = {"lr": 0.05, "use_svd": True, "shape_interpretation": False, "matrix_eps": 1e-3}
SCALABLE |= {"start_preconditioning_step": 1, "preconditioning_compute_steps": 1}
SUM = {"betas": (0.9, 1.0)}

# name: (optimizer, arguments); graft_type is 0 none, 1 SGD, 2 Adagrad, 3 RMSprop
CASES = {
    "shampoo": ("Shampoo", {"lr": 0.05, "matrix_eps": 1e-3}),
    "sgd": ("ScalableShampoo", {**SCALABLE, **SUM, "graft_type": 1}),
    "adagrad": (
        "ScalableShampoo",
        {
            **SCALABLE,
            **SUM,
            "graft_type": 2,
            "nesterov": False,
            "weight_decay": 0.1,
            "decoupled_weight_decay": True,
        },
    ),
    "rmsprop": (
        "ScalableShampoo",
        {
            **SCALABLE,
            "betas": (0.0, 0.9),
            "graft_type": 3,
            "matrix_eps": 1e-12,
            "start_preconditioning_step": 3,
            "preconditioning_compute_steps": 3,
        },
    ),
    "blocks": ("ScalableShampoo", {**SCALABLE, **SUM, "graft_type": 1, "block_size": 2}),
    "squared": (
        "ScalableShampoo",
        {**SCALABLE, **SUM, "graft_type": 0, "inverse_exponent_override": 2},
    ),
    "left": ("ScalableShampoo", {**SCALABLE, **SUM, "graft_type": 1, "pre_conditioner_type": 1}),
    "right": ("ScalableShampoo", {**SCALABLE, **SUM, "graft_type": 1, "pre_conditioner_type": 2}),
}


def inputs():
    """A start, and a sequence of gradients of several sizes."""
    rng = np.random.default_rng(SEED)
    sizes = 10 ** rng.uniform(-1, 0.5, SHAPE)
    return rng.standard_normal(SHAPE), rng.standard_normal((STEPS, *SHAPE)) * sizes + 0.3


def path(name, start, grads):
    """The parameter after each step."""
    kind, arguments = CASES[name]
    w = torch.nn.Parameter(torch.tensor(start))
    given = {k: x for k, x in arguments.items() if k != "betas"}
    optimizer = getattr(importlib.import_module("pytorch_optimizer"), kind)([w], **given)
    if "betas" in arguments:  # here, where 1 is not refused: it stands for sums
        optimizer.param_groups[0]["betas"] = arguments["betas"]
    points = []
    for g in grads:
        w.grad = torch.tensor(g)
        optimizer.step()
        points.append(w.detach().numpy().copy())
    return np.stack(points)


def golden():
    """Everything the file holds, by key."""
    torch.set_default_dtype(torch.float64)
    start, grads = inputs()
    arrays = {"start": start, "grads": grads}
    arrays |= {f"path/{name}": path(name, start, grads) for name in CASES}
    arrays["meta"] = np.array(json.dumps({"cases": CASES}, sort_keys=True))
    return arrays


if __name__ == "__main__":
    versions = {"torch": "2.13.0", "pytorch_optimizer": "4.1.0"}
    sys.exit(main(__doc__, FILE, golden, versions))
