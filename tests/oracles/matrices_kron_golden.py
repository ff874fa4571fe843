"""What pytorch_optimizer's Kron computes with given normal numbers: writes matrices_kron.npz, or with --check compares.

Needs torch 2.13.0 and pytorch_optimizer 4.1.0, no dependency of gradxform: python tests/oracles/matrices_kron_golden.py [--check].
In float64, but for its triangular solve, which is in float32. Its factors take a step each time and are never balanced.
"""

import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from pytorch_optimizer import Kron
from recorded import main

FILE = Path(__file__).with_name("matrices_kron.npz")
STEPS, SHAPE = 8, (4, 3)
CASES = {
    "triangular": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1},
    "diagonal": {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.0, "max_size_triangular": 3},
    "gradient": {"lr": 0.05, "momentum": 0.9, "momentum_into_precondition_update": False},
}


def walk(start, grads, normals, arguments):
    """The parameters after each step."""
    p = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = Kron(
        [p],
        pre_conditioner_update_probability=1.0,
        precondition_dtype=torch.float64,
        balance_prob=0.0,
        **arguments,
    )
    path, draws = [], map(torch.from_numpy, normals)
    with mock.patch.object(torch, "randn_like", side_effect=draws):
        for g in grads:
            p.grad = torch.from_numpy(g.copy())
            optimizer.step()
            path.append(p.detach().numpy().copy())
    return np.stack(path)


def compute():
    """Start, gradients, normal numbers, and the parameters of each case."""
    rng = np.random.default_rng(0)
    start, grads, normals = (rng.normal(size=(n, *SHAPE)) for n in (1, STEPS, STEPS))
    out = {"start": start[0], "grads": grads, "normals": normals, "meta": json.dumps(CASES)}
    out = {key: np.asarray(x) for key, x in out.items()}
    return out | {f"path/{k}": walk(start[0], grads, normals, x) for k, x in CASES.items()}


if __name__ == "__main__":
    versions = {"torch": "2.13.0", "pytorch_optimizer": "4.1.0"}
    sys.exit(main(__doc__, FILE, compute, versions))
