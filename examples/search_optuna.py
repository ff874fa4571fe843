"""Optuna proposes, gradxform evaluates: sixteen proposals at once, all trained by one compiled program.

    python examples/search_optuna.py

A search that proposes one setting at a time leaves the machine idle; asking for a batch costs a little of the search's
knowledge and gains a factor in throughput. `search` is all there is to it, for any library with ask and tell.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import gradxform as gx
from gradxform.sweep import Space, sweep

X = jax.random.normal(jax.random.key(0), (256, 16))
Y = jnp.tanh(X @ jax.random.normal(jax.random.key(1), (16, 4)))

ADAM = gx.adam(1e-2)


def train(tx=ADAM, key=None, l2=0.0, x=X, y=Y):
    """A small network on a made-up problem: parameters, and its losses on held-out rows."""
    first, second = jax.random.split(key)
    params = {
        "hidden": jax.random.normal(first, (16, 32)) / 4,
        "out": jax.random.normal(second, (32, 4)) / 6,
    }

    def loss(params, x, y):
        return jnp.mean(jnp.square(jnp.tanh(x @ params["hidden"]) @ params["out"] - y))

    def regularised(params):
        squares = sum(jnp.sum(jnp.square(p)) for p in jax.tree.leaves(params))
        return loss(params, x[:192], y[:192]) + l2 * squares

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(regularised)(params), state, params)
        params = gx.apply_updates(params, updates)
        return (params, state), loss(params, x[192:], y[192:])

    (params, _), losses = jax.lax.scan(step, (params, tx.init(params)), length=100)
    return params, {"val_loss": losses}


def propose(trial):
    """A setting, in Optuna's own words."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1.0, log=True),
        "b1": trial.suggest_float("b1", 0.0, 0.99),
        "l2": trial.suggest_float("l2", 1e-8, 1e-2, log=True),
    }


def search(study, train, propose, rounds: int, batch: int):
    """So many rounds of a batch of proposals, each trained at once and told back; returns the last sweep."""
    import optuna

    for _ in range(rounds):
        trials = [study.ask() for _ in range(batch)]
        result = sweep(train, Space(propose(trial) for trial in trials))
        for trial, score, lost in zip(trials, result.scores, result.diverged, strict=True):
            if lost:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, float(score))
    return result


def main(rounds: int = 4, batch: int = 16):
    """Search, and print what was found."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, constant_liar=True))
    search(study, train, propose, rounds, batch)
    scores = [trial.value for trial in study.trials if trial.value is not None]
    print(f"{len(study.trials)} settings, best loss {study.best_value:.5f} at {study.best_params}")
    print(
        "best after each round:",
        *(f"{np.min(scores[:n]):.5f}" for n in range(batch, len(scores) + 1, batch)),
    )
    tx = functools.partial(gx.adam, **{k: v for k, v in study.best_params.items() if k != "l2"})()
    print(repr(tx))
    return study


if __name__ == "__main__":
    main()
