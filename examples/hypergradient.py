"""Tune an optimizer by gradient descent: a learning rate for each layer and both betas, against a grid of 64 points.

    python examples/hypergradient.py

The loss on validation data after a whole training is a function of the optimizer, and `hypergradient` is its
derivative. The grid tries 8 learning rates × 8 b1 at once; descent begins at Adam's defaults, moves the logarithms of
the rates and of 1 - β, and may give every layer its own rate, which no grid of 64 points can.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import gradxform as gx
from gradxform.sweep import checkpointed_scan, grid, sweep, value_and_hypergradient

LAYERS = ("first", "second", "third")


def problem(steps: int, batch: int = 64):
    """Training, validation and test rows of the digits, and the rows of each step."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.data))
    x, y = (digits.data[order] / 16).astype(np.float32), digits.target[order].astype(np.int32)
    parts = [
        {"x": jnp.asarray(x[a:b]), "y": jnp.asarray(y[a:b])}
        for a, b in ((0, 1000), (1000, 1400), (1400, 1797))
    ]
    rows = np.random.default_rng(1).integers(0, 1000, (steps, batch))
    return *parts, jnp.asarray(rows, jnp.int32)


def init(key):
    """A 64-32-32-10 network."""
    sizes = (64, 32, 32, 10)
    keys = jax.random.split(key, len(LAYERS))
    return {
        name: {"kernel": jax.random.normal(k, (m, n)) * (2 / m) ** 0.5, "bias": jnp.zeros((n,))}
        for name, k, m, n in zip(LAYERS, keys, sizes, sizes[1:], strict=False)
    }


def loss(params, data):
    """Cross-entropy in nats."""
    x = data["x"]
    for name in LAYERS[:-1]:
        x = jnp.tanh(x @ params[name]["kernel"] + params[name]["bias"])
    scores = jax.nn.log_softmax(x @ params[LAYERS[-1]]["kernel"] + params[LAYERS[-1]]["bias"])
    return -jnp.mean(jnp.take_along_axis(scores, data["y"][:, None], axis=1))


def trained(tx, key, data, rows):
    """The parameters after a step for each of the rows."""
    params = init(key)

    def step(carry, chosen):
        params, state = carry
        gradient = jax.grad(loss)(params, jax.tree.map(lambda x: x[chosen], data))
        updates, state = tx.update(gradient, state, params)
        return (gx.apply_updates(params, updates), state), None

    return checkpointed_scan(step, (params, tx.init(params)), rows)[0][0]


def optimizer(numbers):
    """Adam with a rate for each layer, from numbers that may be anything."""
    rates = {f"{name}/**": jnp.exp(numbers["log_rates"][i]) for i, name in enumerate(LAYERS)}
    b1, b2 = 1 - jnp.exp(numbers["log_1_minus_b"])
    return gx.adam(gx.by_path(rates), b1, b2)


def descend(objective, iterations: int, rate: float = 0.3):
    """Adam on the numbers of Adam; returns the best optimizer met, its loss, and all losses."""
    numbers = {
        "log_rates": jnp.log(jnp.full(len(LAYERS), 1e-3)),
        "log_1_minus_b": jnp.log(jnp.array([0.1, 0.001])),
    }
    outer = gx.adam(gx.cosine_decay_schedule(rate, iterations, 0.05), b1=0.8)
    state = outer.init(numbers)

    @jax.jit
    def step(numbers, state):
        tx, pull = jax.vjp(optimizer, numbers)
        value, gradient = value_and_hypergradient(objective, tx)
        (slope,) = pull(gradient)
        updates, state = outer.update(slope, state, numbers)
        new = gx.apply_updates(numbers, updates)
        # A decay rate is at least 0, and at most what leaves some of the new gradient.
        return (
            {**new, "log_1_minus_b": jnp.clip(new["log_1_minus_b"], jnp.log(1e-4), 0.0)},
            state,
            value,
        )

    best, losses = (float("inf"), numbers), []
    for _ in range(iterations):
        before = numbers
        numbers, state, value = step(numbers, state)
        losses.append(float(value))
        best = min(best, (losses[-1], before), key=lambda found: found[0])
    return optimizer(best[1]), best[0], losses


def main():
    """Race the two and print what they found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100, help="updates in one training")
    parser.add_argument("--iterations", type=int, default=60, help="steps of descent")
    arguments = parser.parse_args()
    data, validation, test, rows = problem(arguments.steps)
    key = jax.random.key(0)

    default = gx.adam(1e-3)

    def member(tx=default, data=data, validation=validation):
        params = trained(tx, key, data, rows)
        return params, {"val_loss": loss(params, validation)}

    began = time.perf_counter()
    result = sweep(
        member,
        grid(
            learning_rate=np.geomspace(1e-4, 1e-1, 8).tolist(),
            b1=np.linspace(0.5, 0.95, 8).tolist(),
        ),
    )
    best = result.best
    print(
        f"grid of 64:  validation {best.score:.4f}, test {loss(best.params, test):.4f}, "
        f"{time.perf_counter() - began:.1f} s: "
        f"{best.optimizer}"
    )

    began = time.perf_counter()
    tx, value, losses = descend(
        lambda tx: loss(trained(tx, key, data, rows), validation), arguments.iterations
    )
    final = jax.jit(lambda tx: loss(trained(tx, key, data, rows), test))(tx)
    print(
        f"descent:     validation {value:.4f}, test {final:.4f}, {time.perf_counter() - began:.1f} s: {tx}"
    )
    print("its course: ", *(f"{x:.3f}" for x in losses[:: max(1, len(losses) // 10)]))
    later = jnp.asarray(np.random.default_rng(2).integers(0, 1000, rows.shape), jnp.int32)
    other = jax.jit(lambda tx, key: loss(trained(tx, key, data, later), test))
    fresh = [
        [float(other(t, jax.random.key(k))) for k in range(1, 6)] for t in (best.optimizer, tx)
    ]
    print(
        f"with other initial parameters and batches, test loss of each: "
        f"{np.mean(fresh[0]):.4f} and {np.mean(fresh[1]):.4f} (5 seeds)"
    )
    return best.score, value


if __name__ == "__main__":
    main()
