"""What torch.optim computes in float64: writes torch_2.13.npz, or with --check compares with the committed.

Needs torch 2.13.0, which is no dependency of gradxform: python tests/oracles/torch_golden.py [--check]
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from recorded import main

FILE = Path(__file__).with_name("torch_2.13.npz")
STEPS, SEED = 25, 20130512
SHAPES = {"w": (4, 3), "b": (3,)}

ADAM = {"lr": 0.05, "betas": (0.9, 0.95), "eps": 1e-8}
RMS = {"lr": 0.02, "alpha": 0.9, "eps": 1e-8}

# name: (class, arguments, factor by which lr shrinks at each step)
CASES = {
    "sgd": ("SGD", {"lr": 0.05}, 1.0),
    "sgd_momentum": ("SGD", {"lr": 0.05, "momentum": 0.9}, 1.0),
    "sgd_momentum_scheduled": ("SGD", {"lr": 0.05, "momentum": 0.9}, 0.9),
    "sgd_dampening": ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.5}, 1.0),
    "sgd_nesterov": ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}, 1.0),
    "adagrad": ("Adagrad", {"lr": 0.1}, 1.0),
    "adagrad_initial": (
        "Adagrad",
        {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.1},
        1.0,
    ),
    "adadelta": ("Adadelta", {"lr": 1.0, "rho": 0.9, "eps": 1e-6}, 1.0),
    "rmsprop": ("RMSprop", RMS, 1.0),
    "rmsprop_centered": ("RMSprop", {**RMS, "centered": True}, 1.0),
    "rmsprop_momentum": ("RMSprop", {**RMS, "momentum": 0.9}, 1.0),
    "rmsprop_momentum_scheduled": ("RMSprop", {**RMS, "momentum": 0.9}, 0.9),
    "adam": ("Adam", ADAM, 1.0),
    "adam_l2": ("Adam", {**ADAM, "weight_decay": 0.1}, 1.0),
    "adam_amsgrad": ("Adam", {**ADAM, "amsgrad": True}, 1.0),
    "adamw": ("AdamW", {**ADAM, "weight_decay": 0.1}, 1.0),
    "adamax": ("Adamax", ADAM, 1.0),
    "nadam": ("NAdam", ADAM, 1.0),
    "nadam_l2": ("NAdam", {**ADAM, "weight_decay": 0.1}, 1.0),
    "nadam_decoupled": (
        "NAdam",
        {**ADAM, "weight_decay": 0.1, "decoupled_weight_decay": True},
        1.0,
    ),
}

SCHEDULE_STEPS = 30
SCHEDULES = {
    "step": ("StepLR", {"step_size": 7, "gamma": 0.5}),
    "multistep": ("MultiStepLR", {"milestones": [5, 12, 20], "gamma": 0.3}),
    "exponential": ("ExponentialLR", {"gamma": 0.9}),
    "linear": ("LinearLR", {"start_factor": 0.1, "end_factor": 0.8, "total_iters": 12}),
    "polynomial": ("PolynomialLR", {"total_iters": 20, "power": 2.0}),
    "cosine": ("CosineAnnealingLR", {"T_max": 20, "eta_min": 0.01}),
    "plateau": ("ReduceLROnPlateau", {"factor": 0.5, "patience": 2, "threshold": 0.01}),
    "plateau_cooldown": (
        "ReduceLROnPlateau",
        {"factor": 0.5, "patience": 2, "cooldown": 2, "threshold": 0.01},
    ),
    "plateau_absolute": (
        "ReduceLROnPlateau",
        {"factor": 0.1, "patience": 1, "threshold": 0.05, "threshold_mode": "abs", "min_lr": 1e-3},
    ),
}
SCHEDULE_LR = 0.2


def inputs():
    """Gradients over five orders of magnitude that shrink with time, with zeros first or throughout."""
    rng = np.random.default_rng(SEED)
    start, grads = {}, {}
    fading = np.exp(-np.arange(STEPS) / 6.0)
    for leaf, shape in SHAPES.items():
        start[leaf] = rng.standard_normal(shape)
        scale = 10.0 ** rng.uniform(-3, 2, shape)
        grads[leaf] = (
            rng.standard_normal((STEPS, *shape)) * scale * fading.reshape(-1, *(1 for _ in shape))
        )
    grads["w"][:, 0, 0] = 0.0
    grads["b"][:4, 0] = 0.0
    values = np.abs(
        2.0 * np.exp(-np.arange(SCHEDULE_STEPS) / 4.0) + 0.1 * rng.standard_normal(SCHEDULE_STEPS)
    )
    return start, grads, values


def path(name, start, grads):
    """The parameters after each step, and every argument torch ran with."""
    kind, arguments, factor = CASES[name]
    leaves = {leaf: torch.nn.Parameter(torch.tensor(value)) for leaf, value in start.items()}
    optimizer = getattr(torch.optim, kind)(list(leaves.values()), foreach=False, **arguments)
    points = {leaf: [] for leaf in leaves}
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = arguments["lr"] * factor**step
        for leaf, parameter in leaves.items():
            parameter.grad = torch.tensor(grads[leaf][step])
        optimizer.step()
        for leaf, parameter in leaves.items():
            points[leaf].append(parameter.detach().numpy().copy())
    used = {key: value for key, value in optimizer.defaults.items() if key != "foreach"}
    return {leaf: np.stack(p) for leaf, p in points.items()}, {
        "optimizer": kind,
        "lr_factor": factor,
        "kwargs": used,
    }


def defaults(kind):
    """What torch takes for every argument that is not given."""
    return getattr(torch.optim, kind)([torch.nn.Parameter(torch.zeros(1))]).defaults


def rates(name, values):
    """The learning rate of each step; of a plateau, the rate after each value."""
    kind, arguments = SCHEDULES[name]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=SCHEDULE_LR)
    scheduler = getattr(torch.optim.lr_scheduler, kind)(optimizer, **arguments)
    plateau, found = kind == "ReduceLROnPlateau", []
    for value in values:
        if plateau:
            scheduler.step(float(value))
        found.append(optimizer.param_groups[0]["lr"])
        if not plateau:
            optimizer.step()
            scheduler.step()
    return np.array(found, np.float64), {"scheduler": kind, "lr": SCHEDULE_LR, "kwargs": arguments}


def golden():
    """Everything the file holds, by key."""
    # NAdam keeps its product of momenta in the default dtype, and not in the parameter's
    torch.set_default_dtype(torch.float64)
    start, grads, values = inputs()
    arrays = {f"start/{leaf}": value for leaf, value in start.items()}
    arrays |= {f"grads/{leaf}": value for leaf, value in grads.items()}
    arrays["plateau_values"] = values
    meta = {"torch": torch.__version__, "seed": SEED, "steps": STEPS, "cases": {}, "schedules": {}}
    meta["defaults"] = {
        kind: defaults(kind) for kind in sorted({case[0] for case in CASES.values()})
    }
    for name in CASES:
        points, meta["cases"][name] = path(name, start, grads)
        arrays |= {f"path/{name}/{leaf}": value for leaf, value in points.items()}
    for name in SCHEDULES:
        arrays[f"rate/{name}"], meta["schedules"][name] = rates(name, values)
    arrays["meta"] = np.array(json.dumps(meta, sort_keys=True))
    return arrays


if __name__ == "__main__":
    sys.exit(main(__doc__, FILE, golden, {"torch": "2.13.0"}))
