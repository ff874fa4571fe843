"""What heavyball's KLShampoo computes of diagonal gradients: writes kl_shampoo.npz, or with --check compares.

Needs heavyball, no dependency of gradxform: TORCHDYNAMO_DISABLE=1 python tests/oracles/kl_shampoo_golden.py [--check]
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
from recorded import main

FILE = Path(__file__).with_name("kl_shampoo.npz")
STEPS, SEED, SHAPE = 12, 20261122, (4, 3)
CASE = {"lr": 0.05, "betas": (0.8, 0.9), "shampoo_beta": 0.9, "eps": 1e-12, "weight_decay": 0.0}
CASE |= {"precondition_frequency": 1, "use_precond_schedule": False, "merge_dims": False}
CASE |= {"dampening": 0.0, "multi_tensor": False}


def golden():
    """Everything the file holds, by key; heavyball has float32."""
    rng = np.random.default_rng(SEED)
    start = rng.standard_normal(SHAPE).astype(np.float32)
    grads = (rng.standard_normal((STEPS, *SHAPE)) * np.eye(*SHAPE)).astype(np.float32)
    w = torch.nn.Parameter(torch.tensor(start))
    optimizer = importlib.import_module("heavyball").KLShampoo([w], **CASE)
    points = []
    for g in grads:
        w.grad = torch.tensor(g)
        optimizer.step()
        points.append(w.detach().numpy().copy())
    arrays = {"start": start, "grads": grads, "path": np.stack(points)}
    return arrays | {"meta": np.array(json.dumps(CASE, sort_keys=True))}


if __name__ == "__main__":
    sys.exit(main(__doc__, FILE, golden, {"torch": "2.13.0", "heavyball": "3.2.1"}))
