"""Shampoo and KL-Shampoo against NumPy from the papers and pytorch_optimizer's recorded runs, and what must hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_matrices_shampoo as ref
from replay import close, recorded

import gradxform as gx
from gradxform.matrices import placement

GOLDEN = recorded("shampoo")
START, GRADS = GOLDEN["start"], GOLDEN["grads"]
LR = 0.05
ADAM = gx.scale_by_rms(0.999, 1e-8, eps_in_sqrt=False, bias_correction=True)


def walks(several, start=START, grads=GRADS):
    """The matrix after each step of each optimizer, in one program."""

    @jax.jit
    def run(start, grads):
        def step(carry, g):
            new = {}
            for name, tx in several.items():
                params, state = carry[name]
                updates, state = tx.update({"kernel": g}, state, params)
                new[name] = gx.apply_updates(params, updates), state
            return new, {name: params["kernel"] for name, (params, _) in new.items()}

        params = {"kernel": start}
        first = {name: (params, tx.init(params)) for name, tx in several.items()}
        return jax.lax.scan(step, first, grads)[1]

    return run(jnp.asarray(start), jnp.asarray(grads))


OFTEN = {"precondition_frequency": 3, "relative_eps": 0.02}
PAPERS = {
    "mean": (
        lambda: gx.shampoo(LR, 0.8, 0.9, 1e-3, 0.1, **OFTEN),
        lambda: ref.shampoo(GRADS, START, LR, 0.8, 0.9, 1e-3, 0.1, graft_eps=1e-8, **OFTEN),
    ),
    "sum": (
        lambda: gx.shampoo(LR, 0.8, None, 1e-3, graft=None, nesterov=True, **OFTEN),
        lambda: ref.shampoo(GRADS, START, LR, 0.8, None, 1e-3, nesterov=True, **OFTEN),
    ),
    "late": (
        lambda: gx.shampoo(LR, 0.8, 0.9, start_preconditioning_step=5, **OFTEN),
        lambda: ref.shampoo(
            GRADS, START, LR, 0.8, 0.9, start_preconditioning_step=5, graft_eps=1e-8, **OFTEN
        ),
    ),
    "left": (
        lambda: gx.shampoo(LR, 0.8, 0.9, graft=None, sides="left", **OFTEN),
        lambda: ref.shampoo(
            GRADS, START, LR, 0.8, 0.9, exponent=-0.5, sides=(True, False), **OFTEN
        ),
    ),
    "short": (  # which is the right one
        lambda: gx.shampoo(LR, 0.8, 0.9, graft=None, sides="short", exponent=-0.3, **OFTEN),
        lambda: ref.shampoo(
            GRADS, START, LR, 0.8, 0.9, exponent=-0.3, sides=(False, True), **OFTEN
        ),
    ),
    "kl": (
        lambda: gx.kl_shampoo(LR, 0.8, 0.9, weight_decay=0.1, **OFTEN),
        lambda: ref.kl_shampoo(GRADS, START, LR, 0.8, 0.9, 0.1, **OFTEN),
    ),
}


@pytest.mark.usefixtures("x64")
def test_the_papers():
    found = walks({name: make() for name, (make, _) in PAPERS.items()})
    for name, (_, oracle) in PAPERS.items():
        close(found[name], oracle(), 1e-10, err_msg=name)


def scalable(decay, eps, graft, *after, **how):
    """ScalableShampoo divides the gradient, and averages what comes of it."""
    k = how.pop("k", 1)
    how |= {"precondition_frequency": k, "start_preconditioning_step": k}
    step = gx.scale_by_shampoo(decay, eps, 0.0, **how)
    step = step if graft is None else gx.graft(step, graft, k)
    return gx.chain(step, *after, gx.scale_by_learning_rate(LR))


ADAGRAD = gx.scale_by_rss(0.0, 1e-10, eps_in_sqrt=False)
AHEAD = gx.trace(0.9, nesterov=True)
RECORDED = {
    "shampoo": lambda: scalable(None, 1e-3, None),
    "sgd": lambda: scalable(None, 1e-3, gx.identity(), AHEAD),
    "adagrad": lambda: scalable(None, 1e-3, ADAGRAD, gx.trace(0.9), gx.add_decayed_weights(0.1)),
    "rmsprop": lambda: scalable(0.9, 0.0, gx.scale_by_rms(0.9, 1e-10, eps_in_sqrt=False), k=3),
    "blocks": lambda: scalable(None, 1e-3, gx.identity(), AHEAD, block_size=2),
    "squared": lambda: scalable(None, 1e-3, None, AHEAD, exponent=-0.5),
    "left": lambda: scalable(None, 1e-3, gx.identity(), AHEAD, sides="left"),
    "right": lambda: scalable(None, 1e-3, gx.identity(), AHEAD, sides="right"),
}


@pytest.mark.usefixtures("x64")
def test_what_pytorch_optimizer_computed():
    found = walks({name: make() for name, make in RECORDED.items()})
    for name, path in found.items():
        close(path, GOLDEN[f"path/{name}"], 1e-8, err_msg=name)
