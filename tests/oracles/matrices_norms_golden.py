"""What pytorch_optimizer's Scion and heavyball's Hyperball compute in float64: writes matrices_norms.npz, or with
--check compares.

Needs torch 2.13.0, pytorch_optimizer 4.1.0 and heavyball 3.2.1, none a dependency of gradxform:
TORCHDYNAMO_DISABLE=1 python tests/oracles/matrices_norms_golden.py [--check]. Start and gradients are those in torch_2.13.npz.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from heavyball import chainable
from pytorch_optimizer import SCION
from pytorch_optimizer.optimizer import scion
from pytorch_optimizer.optimizer.scion import LMONorm
from recorded import main
from torch_golden import STEPS, inputs

FILE = Path(__file__).with_name("matrices_norms.npz")

# its orthogonalisation rounds to bfloat16 unless it is told otherwise
scion.zero_power_via_newton_schulz_5 = partial(
    scion.zero_power_via_newton_schulz_5, dtype=torch.float64
)

# name: the norm of the matrix, its options, and whether weights stay in their ball
CASES = {
    "spectral": (LMONorm.SPECTRAL, {}, True),
    "one_hot_spectral": (LMONorm.SPECTRAL, {"normalize": False}, False),
    "sign": (LMONorm.SIGN, {}, True),
    "one_hot_sign": (LMONorm.SIGN, {"normalize": False}, False),
    "column": (LMONorm.COL, {"normalized": True}, False),
    "one_hot_column": (LMONorm.COL, {}, True),
    "row": (LMONorm.ROW, {}, True),
    "one_hot_row": (LMONorm.ROW, {"normalized": False}, False),
}


def path(name, start, grads):
    """The parameters after each step; the vector is a bias."""
    norm, options, constraint = CASES[name]
    leaves = {leaf: torch.nn.Parameter(torch.tensor(value)) for leaf, value in start.items()}
    groups = [
        {"params": [leaves["w"]], "norm_type": norm, "norm_kwargs": options, "scale": 3.0},
        {"params": [leaves["b"]], "norm_type": LMONorm.BIAS, "scale": 2.0},
    ]
    optimizer = SCION(groups, lr=0.05, momentum=0.2, constraint=constraint, foreach=False)
    points = {leaf: [] for leaf in leaves}
    for step in range(STEPS):
        for leaf, parameter in leaves.items():
            parameter.grad = torch.tensor(grads[leaf][step])
        optimizer.step()
        for leaf, parameter in leaves.items():
            points[leaf].append(parameter.detach().numpy().copy())
    return {leaf: np.stack(p) for leaf, p in points.items()}


class Hyperball(chainable.BaseOpt):
    """The gradient itself on the sphere, without decay."""

    def __init__(self, params):
        settings = {"lr": 0.05, "weight_decay": 0.0, "caution": False, "warmup_steps": 0}
        settings |= {"storage_dtype": "float64", "promote": False, "multi_tensor": True}
        settings |= {"ecc": None, "param_ecc": None, "betas": (0.9, 0.99), "eps": 1e-8}
        super().__init__(params, settings, None, None, False, (chainable.update_by_hyperball,))


def sphere(start, grads):
    """The matrix after each step of Hyperball."""
    parameter, points = torch.nn.Parameter(torch.tensor(start["w"])), []
    optimizer = Hyperball([parameter])
    for step in range(STEPS):
        parameter.grad = torch.tensor(grads["w"][step])
        optimizer.step()
        points.append(parameter.detach().numpy().copy())
    return np.stack(points)


def compute():
    """Everything the file holds, by key."""
    torch.set_default_dtype(torch.float64)
    start, grads, _ = inputs()
    arrays = {"path/hyperball/w": sphere(start, grads)}
    for name in CASES:
        arrays |= {f"path/{name}/{leaf}": value for leaf, value in path(name, start, grads).items()}
    return arrays


if __name__ == "__main__":
    versions = {"torch": "2.13.0", "pytorch_optimizer": "4.1.0", "heavyball": "3.2.1"}
    sys.exit(main(__doc__, FILE, compute, versions))
