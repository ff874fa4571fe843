"""What torch, pytorch_optimizer and lion-pytorch compute in float64: writes catalogue.npz, or with --check compares.

Needs torch 2.13.0, pytorch_optimizer 4.1.0 and lion-pytorch 0.2.5, none a dependency of gradxform:
python tests/oracles/catalogue_golden.py [--check]. Start and gradients are those in torch_2.13.npz.
"""

import sys
from pathlib import Path

import lion_pytorch
import numpy as np
import pytorch_optimizer
import torch
from lion_pytorch import cautious_lion
from recorded import main
from torch_golden import STEPS, inputs

FILE = Path(__file__).with_name("catalogue.npz")
ADAM = {"lr": 0.05, "betas": (0.9, 0.95), "eps": 1e-3}
DECAY = {"weight_decay": 0.1, "weight_decouple": True}

# name: (package, class, arguments). eps is large enough to show in which place it stands.
CASES = {
    "rprop": (torch.optim, "Rprop", {"lr": 0.05}),
    "radam": (torch.optim, "RAdam", ADAM),
    "lion": (lion_pytorch, "Lion", {"lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.1}),
    "lion_cautious": (
        pytorch_optimizer,
        "Lion",
        {"lr": 0.01, "betas": (0.9, 0.95), "cautious": True},
    ),
    "lamb": (pytorch_optimizer, "Lamb", {**ADAM, "weight_decay": 0.1, "weight_decouple": False}),
    "lars": (
        pytorch_optimizer,
        "LARS",
        {
            "lr": 0.05,
            "momentum": 0.9,
            "weight_decay": 0.1,
            "trust_coefficient": 0.1,
            "nesterov": False,
        },
    ),
    "adan": (
        pytorch_optimizer,
        "Adan",
        {
            "lr": 0.05,
            "betas": (0.9, 0.8, 0.95),
            "eps": 1e-3,
            "weight_decay": 0.1,
            "max_grad_norm": 0.0,
        },
    ),
    "adopt": (pytorch_optimizer, "ADOPT", {**ADAM, "eps": 1e-6}),
    "novograd": (
        pytorch_optimizer,
        "NovoGrad",
        {**ADAM, "betas": (0.9, 0.5), "weight_decay": 0.1, "weight_decouple": False},
    ),
    "adabelief": (pytorch_optimizer, "AdaBelief", {**ADAM, "weight_decay": 0.0, "rectify": False}),
    "yogi": (pytorch_optimizer, "Yogi", {**ADAM, "weight_decay": 0.0, "initial_accumulator": 1e-6}),
    "padam": (pytorch_optimizer, "PAdam", {**ADAM, **DECAY, "partial": 0.2}),
    "laprop": (pytorch_optimizer, "LaProp", {**ADAM, **DECAY}),
    "qhm": (pytorch_optimizer, "QHM", {"lr": 0.05, "momentum": 0.9, "nu": 0.7}),
    "qhadam": (pytorch_optimizer, "QHAdam", {**ADAM, **DECAY, "nus": (0.7, 0.8)}),
    "stable_adamw": (pytorch_optimizer, "StableAdamW", {**ADAM, **DECAY, "kahan_sum": False}),
    "ademamix": (
        pytorch_optimizer,
        "AdEMAMix",
        {**ADAM, **DECAY, "betas": (0.9, 0.95, 0.99), "alpha": 2.0, "t_alpha_beta3": 20},
    ),
    "sm3": (pytorch_optimizer, "SM3", {"lr": 0.05, "momentum": 0.9, "eps": 1e-3}),
    "fromage": (pytorch_optimizer, "Fromage", {"lr": 0.05}),
    "lion_cautious_lion_pytorch": (
        cautious_lion,
        "Lion",
        {"lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.1, "cautious_factor": 0.0},
    ),
    "signum": (pytorch_optimizer, "SignSGD", {"lr": 0.05, "momentum": 0.9}),
    "laprop_cautious": (pytorch_optimizer, "LaProp", {**ADAM, "cautious": True}),
    "grams": (pytorch_optimizer, "Grams", {**ADAM, **DECAY}),
}


def path(name, start, grads):
    """The parameters after each step."""
    package, kind, arguments = CASES[name]
    leaves = {leaf: torch.nn.Parameter(torch.tensor(value)) for leaf, value in start.items()}
    optimizer = getattr(package, kind)(list(leaves.values()), **arguments)
    for group in optimizer.param_groups:
        group["foreach"] = False
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
    versions = {"torch": "2.13.0", "pytorch_optimizer": "4.1.0", "lion-pytorch": "0.2.5"}
    sys.exit(main(__doc__, FILE, compute, versions))
