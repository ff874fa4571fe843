"""What torch's Muon and pytorch_optimizer's NorMuon compute: writes muon.npz, or with --check compares.

Needs torch 2.13.0 and pytorch_optimizer 4.1.0, none a dependency of gradxform: python tests/oracles/muon_golden.py [--check].
"exact" is in float64, with their rounding to bfloat16 switched off; "bfloat16" as they are, in float32.
"""

import json
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytorch_optimizer
import torch
from pytorch_optimizer.optimizer.muon import normuon
from recorded import main

FILE = Path(__file__).with_name("muon.npz")
BEFORE, STEPS, SEED = 5, 12, 20261121
SHAPES = {"wide": (3, 5), "tall": (6, 3)}  # of torch.nn.Linear(5, 3) and (3, 6)

MUON = {"lr": 0.05, "weight_decay": 0.1}
NORMUON = {"lr": 0.05, "weight_decay": 0.1, "beta2": 0.8, "eps": 1e-8, "foreach": False}

# name: (class, arguments)
CASES = {
    "muon": (torch.optim.Muon, MUON),
    "muon_plain": (torch.optim.Muon, {**MUON, "nesterov": False, "momentum": 0.8}),
    "muon_rms": (torch.optim.Muon, {**MUON, "adjust_lr_fn": "match_rms_adamw"}),
    "normuon": (pytorch_optimizer.NorMuon, NORMUON),
    "normuon_paper": (
        pytorch_optimizer.NorMuon,
        {**NORMUON, "nesterov": False, "update_scale": "match_rms"},
    ),
}


def inputs():
    """The start, and gradients that shrink with time."""
    draw = np.random.default_rng(SEED)
    fading = np.exp(-np.arange(STEPS) / 6.0).reshape(-1, 1, 1)
    start = {k: draw.normal(size=shape) for k, shape in SHAPES.items()}
    return start, {k: draw.normal(size=(STEPS, *shape)) * fading for k, shape in SHAPES.items()}


@contextmanager
def no_rounding():
    """Without rounding to bfloat16."""
    kept = torch.Tensor.bfloat16, normuon.zero_power_via_newton_schulz_5
    torch.Tensor.bfloat16 = lambda x: x.clone()
    normuon.zero_power_via_newton_schulz_5 = partial(kept[1], dtype=torch.float64)
    try:
        yield
    finally:
        torch.Tensor.bfloat16, normuon.zero_power_via_newton_schulz_5 = kept


def run(name, dtype, start, grads):
    """The parameters after each step, and of torch's the momentum after `BEFORE`."""
    kind, arguments = CASES[name]
    leaves = {k: torch.nn.Parameter(torch.tensor(x, dtype=dtype)) for k, x in start.items()}
    groups = [{"params": list(leaves.values())}]
    if kind is not torch.optim.Muon:
        groups[0]["use_muon"] = True
    optimizer = kind(groups, **arguments)
    points, saved = {k: [] for k in leaves}, {}
    for step in range(STEPS):
        if step == BEFORE and kind is torch.optim.Muon:
            saved = optimizer.state_dict()
            rows = saved["state"].items()
            saved["state"] = {i: x["momentum_buffer"].numpy().copy() for i, x in rows}
        for k, p in leaves.items():
            p.grad = torch.tensor(grads[k][step], dtype=dtype)
        optimizer.step()
        for k, p in leaves.items():
            points[k].append(p.detach().numpy().copy())
    return {k: np.stack(x) for k, x in points.items()}, saved


def golden():
    """Everything the file holds, by key."""
    start, grads = inputs()
    arrays = {f"start/{k}": x for k, x in start.items()}
    arrays |= {f"grads/{k}": x for k, x in grads.items()}
    meta = {"before": BEFORE, "cases": {k: x for k, (_, x) in CASES.items()}, "param_groups": {}}
    for name, (kind, _) in CASES.items():
        with no_rounding():
            path, saved = run(name, torch.float64, start, grads)
        arrays |= {f"exact/{name}/{k}": x for k, x in path.items()}
        if kind is torch.optim.Muon:
            arrays |= {f"state/{name}/{i}": x for i, x in saved["state"].items()}
            meta["param_groups"][name] = saved["param_groups"]
            path, _ = run(name, torch.float32, start, grads)
            arrays |= {f"bfloat16/{name}/{k}": x for k, x in path.items()}
    arrays["meta"] = np.array(json.dumps(meta, sort_keys=True))
    return arrays


if __name__ == "__main__":
    versions = {"torch": "2.13.0", "pytorch_optimizer": "4.1.0"}
    sys.exit(main(__doc__, FILE, golden, versions))
