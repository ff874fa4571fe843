"""What torch, pytorch_optimizer, schedulefree and prodigyopt compute in float64: writes structure.npz, or with --check compares.

Needs the extra `oracles`, no dependency of gradxform: python tests/oracles/structure_golden.py [--check]
"""

import importlib
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from recorded import main
from torch.optim import lr_scheduler

FILE = Path(__file__).with_name("structure.npz")
STEPS, SEED = 25, 20260901
SHAPES = {"w": (4, 3), "b": (3,)}

# name: (scheduler, arguments, steps)
SCHEDULES = {
    "onecycle_cosine": ("OneCycleLR", {"max_lr": 0.2, "total_steps": 37}, 37),
    "onecycle_linear": (
        "OneCycleLR",
        {"max_lr": 0.2, "total_steps": 37, "anneal_strategy": "linear", "three_phase": True},
        37,
    ),
    "cyclic_triangular": (
        "CyclicLR",
        {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 5, "step_size_down": 8},
        40,
    ),
    "cyclic_triangular2": (
        "CyclicLR",
        {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 5, "mode": "triangular2"},
        40,
    ),
    "cyclic_exp_range": (
        "CyclicLR",
        {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 5, "mode": "exp_range", "gamma": 0.97},
        40,
    ),
    "restarts": ("CosineAnnealingWarmRestarts", {"T_0": 5, "T_mult": 2, "eta_min": 0.02}, 60),
    "restarts_even": ("CosineAnnealingWarmRestarts", {"T_0": 7, "T_mult": 1}, 30),
}

WARM = {"lr": 0.05, "warmup_steps": 6, "weight_decay": 0.1}

# name: (module, optimizer, arguments)
CASES = {
    "adafactor": ("torch.optim", "Adafactor", {"lr": 0.05, "weight_decay": 0.1}),
    "adafactor_late": ("torch.optim", "Adafactor", {"lr": 10.0, "beta2_decay": -0.6, "d": 1.5}),
    "asgd": (
        "torch.optim",
        "ASGD",
        {"lr": 0.05, "lambd": 0.01, "alpha": 0.6, "t0": 8, "weight_decay": 0.1},
    ),
    "came": (
        "pytorch_optimizer",
        "CAME",
        {"lr": 0.05, "betas": (0.9, 0.99, 0.999), "weight_decay": 0.1},
    ),
    "mars": (
        "pytorch_optimizer",
        "MARS",
        {"lr": 0.05, "eps": 1e-30, "optimize_1d": True, "weight_decay": 0.1},
    ),
    "madgrad": ("pytorch_optimizer", "MADGRAD", {"lr": 0.05, "weight_decay": 0.1}),
    "adagc": (
        "pytorch_optimizer",
        "AdaGC",
        {"lr": 0.05, "betas": (0.9, 0.99), "warmup_steps": 6, "weight_decay": 0.0},
    ),
    "prodigy": (
        "prodigyopt",
        "Prodigy",
        {"lr": 0.5, "d0": 1e-2, "weight_decay": 0.1, "use_bias_correction": True},
    ),
    "prodigy_uncorrected": ("prodigyopt", "Prodigy", {"lr": 0.5, "d0": 1e-2}),
    "prodigy_safeguarded": (
        "prodigyopt",
        "Prodigy",
        {
            "d0": 1e-2,
            "d_coef": 0.8,
            "beta3": 0.9,
            "use_bias_correction": True,
            "safeguard_warmup": True,
        },
    ),
    "prodigy_coupled": (
        "prodigyopt",
        "Prodigy",
        {
            "lr": 0.5,
            "d0": 1e-2,
            "weight_decay": 0.1,
            "decouple": False,
            "use_bias_correction": True,
        },
    ),
    "dadapt": (
        "pytorch_optimizer",
        "DAdaptAdam",
        {"d0": 1e-2, "weight_decay": 0.1, "weight_decouple": True},
    ),
    "dadapt_corrected": ("pytorch_optimizer", "DAdaptAdam", {"d0": 1e-2, "bias_correction": True}),
    "schedule_free_sgd": ("schedulefree", "SGDScheduleFree", {**WARM, "r": 1.0}),
    "schedule_free_adamw": (
        "schedulefree",
        "AdamWScheduleFree",
        {**WARM, "betas": (0.8, 0.95), "eps": 1e-3},
    ),
    "schedule_free_at_z": ("torch.optim", "SGD", {"lr": 0.05, "weight_decay": 0.1}),
    "sophia": (
        "pytorch_optimizer",
        "SophiaH",
        {"lr": 0.05, "betas": (0.9, 0.95), "p": 0.5, "eps": 1e-3, "weight_decay": 0.1},
    ),
    "adam_mini": ("pytorch_optimizer", "AdamMini", {"lr": 0.05, "betas": (0.9, 0.95), "eps": 1e-3}),
    "galore": ("pytorch_optimizer", "GaLore", {"lr": 0.05, "weight_decay": 0.0, "eps": 1e-30}),
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


def model(leaves):
    """What AdamMini reads names from: w is a matrix of queries, one head for each row, b one block."""
    module = torch.nn.Module()
    module.q_proj = torch.nn.Module()
    module.q_proj.weight, module.b = leaves["w"], leaves["b"]
    return module


def path(name, start, grads):
    """The parameters after each step; of ASGD and schedule-free methods also their averages."""
    module, kind, arguments = CASES[name]
    leaves = {leaf: torch.nn.Parameter(torch.tensor(value)) for leaf, value in start.items()}
    groups = list(leaves.values())
    if kind == "AdamMini":
        arguments, groups = arguments | {"num_embeds": 3, "num_heads": 3}, model(leaves)
    if kind == "GaLore":
        groups = [
            {
                "params": [leaves["w"]],
                "rank": 2,
                "update_proj_gap": 100,
                "scale": 1.0,
                "projection_type": "std",
            },
            {"params": [leaves["b"]]},
        ]
    optimizer = getattr(importlib.import_module(module), kind)(groups, **arguments)
    if name == "schedule_free_at_z":
        optimizer = importlib.import_module("schedulefree").ScheduleFreeWrapper(
            optimizer, momentum=0.8
        )
    averaged = name.startswith("schedule_free")
    points = {leaf: [] for leaf in leaves}
    averages = {f"average_{leaf}": [] for leaf in leaves}
    for step in range(STEPS):
        for leaf, parameter in leaves.items():
            parameter.grad = torch.tensor(grads[leaf][step])
        if averaged:
            optimizer.train()
        optimizer.step(**({"hessian": [p.grad.abs() for p in groups]} if kind == "SophiaH" else {}))
        for leaf, parameter in leaves.items():
            points[leaf].append(parameter.detach().numpy().copy())
        if averaged:
            optimizer.eval()
        for leaf, parameter in leaves.items():
            if averaged:
                averages[f"average_{leaf}"].append(parameter.detach().numpy().copy())
            if kind == "ASGD":
                averages[f"average_{leaf}"].append(optimizer.state[parameter]["ax"].numpy().copy())
    return {leaf: np.stack(p) for leaf, p in (points | averages).items() if p}


def rates(name):
    """The learning rate of each step."""
    kind, arguments, steps = SCHEDULES[name]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2, momentum=0.9)
    scheduler, found = getattr(lr_scheduler, kind)(optimizer, **arguments), []
    for _ in range(steps):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return np.array(found)


def golden():
    """Everything the file holds, by key."""
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    arrays = {f"rate/{name}": rates(name) for name in SCHEDULES}
    start, grads = inputs()
    arrays |= {f"start/{leaf}": x for leaf, x in start.items()} | {
        f"grads/{leaf}": x for leaf, x in grads.items()
    }
    for name in CASES:
        arrays |= {f"path/{name}/{leaf}": x for leaf, x in path(name, start, grads).items()}
    arrays["meta"] = np.array(
        json.dumps(
            {"torch": torch.__version__, "schedules": SCHEDULES, "cases": CASES}, sort_keys=True
        )
    )
    return arrays


if __name__ == "__main__":
    versions = {
        "torch": "2.13.0",
        "pytorch_optimizer": "4.1.0",
        "schedulefree": "1.4.1",
        "prodigyopt": "1.1.2",
    }
    sys.exit(main(__doc__, FILE, golden, versions))
