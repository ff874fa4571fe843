"""What pytorch_optimizer and heavyball compute: writes matrix_bases.npz, or with --check compares.

Needs torch, pytorch_optimizer and heavyball, no dependency of gradxform:
TORCHDYNAMO_DISABLE=1 python tests/oracles/matrix_bases_golden.py [--check]
"""

import json
import sys
import warnings
from pathlib import Path

import heavyball
import numpy as np
import pytorch_optimizer
import torch
from recorded import main

FILE = Path(__file__).with_name("matrix_bases.npz")
STEPS, SEED = 25, 20261121
SHAPES = {"w": (4, 3), "b": (3,)}
SOAP = {"lr": 0.05, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.0}

# name: (package, optimizer, arguments, dtype)
CASES = {
    "soap": (
        "pytorch_optimizer",
        "SOAP",
        SOAP | {"shampoo_beta": 0.8, "precondition_frequency": 4},
        "float64",
    ),
    "soap_one_side": (
        "pytorch_optimizer",
        "SOAP",
        SOAP | {"shampoo_beta": 0.8, "precondition_frequency": 4, "max_precondition_dim": 3},
        "float64",
    ),
    "soap_heavyball": (
        "heavyball",
        "SOAP",
        SOAP
        | {
            "shampoo_beta": 0.8,
            "precondition_frequency": 1,
            "max_precond_dim": 10000,
            "merge_dims": False,
        },
        "float32",
    ),
}


def inputs():
    """A start, and a sequence of gradients for each leaf."""
    rng = np.random.default_rng(SEED)
    start = {leaf: rng.standard_normal(shape) for leaf, shape in SHAPES.items()}
    grads = {
        leaf: rng.standard_normal((STEPS, *shape)) * 10 ** rng.uniform(-1, 1, shape) + 1
        for leaf, shape in SHAPES.items()
    }
    return start, grads


def path(name, start, grads):
    """The parameters after each step."""
    package, kind, arguments, dtype = CASES[name]
    kinds = {"float32": torch.float32, "float64": torch.float64}
    leaves = {
        leaf: torch.nn.Parameter(torch.tensor(value, dtype=kinds[dtype]))
        for leaf, value in start.items()
    }
    module = {"pytorch_optimizer": pytorch_optimizer, "heavyball": heavyball}[package]
    optimizer = getattr(module, kind)([*leaves.values()], **arguments)
    points = {leaf: [] for leaf in leaves}
    for step in range(STEPS):
        for leaf, parameter in leaves.items():
            parameter.grad = torch.tensor(grads[leaf][step], dtype=kinds[dtype])
        optimizer.step()
        for leaf, parameter in leaves.items():
            points[leaf].append(parameter.detach().numpy().astype(np.float64))
    return {leaf: np.stack(p) for leaf, p in points.items()}


def golden():
    """Everything the file holds, by key."""
    warnings.simplefilter("ignore")
    start, grads = inputs()
    arrays = {f"start/{leaf}": x for leaf, x in start.items()}
    arrays |= {f"grads/{leaf}": x for leaf, x in grads.items()}
    for name in CASES:
        arrays |= {f"path/{name}/{leaf}": x for leaf, x in path(name, start, grads).items()}
    meta = {"torch": torch.__version__, "cases": CASES}
    arrays["meta"] = np.array(json.dumps(meta, sort_keys=True))
    return arrays


if __name__ == "__main__":
    versions = {"torch": "2.13.0", "pytorch_optimizer": "4.1.0", "heavyball": "3.2.1"}
    sys.exit(main(__doc__, FILE, golden, versions))
