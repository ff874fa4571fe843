"""What pytorch_optimizer's Scion computes in float64: writes scion.npz, or with --check compares.

Needs torch 2.13.0 and pytorch_optimizer 4.1.0, none a dependency of gradxform:
python tests/oracles/scion_golden.py [--check]. Start and gradients are those in torch_2.13.npz.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from pytorch_optimizer import SCION
from pytorch_optimizer.optimizer import scion
from pytorch_optimizer.optimizer.scion import LMONorm
from recorded import main
from torch_golden import STEPS, inputs

FILE = Path(__file__).with_name("scion.npz")

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


def compute():
    """Everything the file holds, by key."""
    torch.set_default_dtype(torch.float64)
    start, grads, _ = inputs()
    arrays = {}
    for name in CASES:
        arrays |= {f"path/{name}/{leaf}": value for leaf, value in path(name, start, grads).items()}
    return arrays


if __name__ == "__main__":
    versions = {"torch": "2.13.0", "pytorch_optimizer": "4.1.0"}
    sys.exit(main(__doc__, FILE, compute, versions))
