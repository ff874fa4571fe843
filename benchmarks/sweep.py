"""64 Adam settings (8 learning rates × 8 b1) on the digits with a 64-64 MLP: wall time in all, compilation included.

    python benchmarks/sweep.py [--epochs 20] [--rounds 3] [--only a,b,c,sweep]

Against (a) a Python loop over Optax, jitted afresh for every setting, (b) a loop over Optax's inject_hyperparams with
one jit, (c) vmap around Optax by hand. All train the same members on the same batches, interleaved in one run, each
from empty caches; it checks that they find the same losses. Then, in processes of their own, the sweep on one and on
two host devices, --work times as long, interleaved too. Prints medians of the times and of the ratios of neighbours.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from statistics import median

BATCH, LAST = 32, 40  # the loss of the last epoch is compared


def problem(epochs):
    """Batches of the digits in the order they are met [steps, batch, ...], initial parameters, the loss."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = (digits.data / 16.0).astype(np.float32)[:1280], digits.target.astype(np.int32)[:1280]
    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(len(x)) for _ in range(epochs)]).reshape(-1, BATCH)
    data = jnp.asarray(x), jnp.asarray(y), jnp.asarray(order, jnp.int32)
    sizes = (64, 64, 64, 10)
    keys = jax.random.split(jax.random.key(0), 3)
    params = [
        (jax.random.normal(k, (m, n)) * (2 / m) ** 0.5, jnp.zeros((n,)))
        for k, m, n in zip(keys, sizes, sizes[1:], strict=False)
    ]

    def loss(params, x, y):
        *hidden, (w, b) = params
        for w1, b1 in hidden:
            x = jax.nn.relu(x @ w1 + b1)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(x @ w + b), y[:, None], axis=1))

    return data, params, loss


def settings():
    """The 64 pairs of learning rate and b1."""
    import numpy as np

    return [
        (float(lr), float(b1))
        for lr in np.geomspace(1e-4, 3e-2, 8)
        for b1 in np.linspace(0.6, 0.95, 8)
    ]


def python_loop(step, params, state, data):
    """One training, a call for each batch; the loss of each, fetched at the end."""
    x, y, order = data
    losses = []
    for rows in order:
        params, state, value = step(params, state, x[rows], y[rows])
        losses.append(value)
    return losses


def optax_step(loss, tx):
    """A step of Optax, ready to be jitted."""
    import jax
    import optax

    def step(params, state, x, y):
        value, gradient = jax.value_and_grad(loss)(params, x, y)
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    return step


def afresh(data, params, loss):
    """(a) Optax, jitted afresh."""
    import jax
    import numpy as np
    import optax

    found = []
    for lr, b1 in settings():
        tx = optax.adam(lr, b1=b1)
        step = jax.jit(optax_step(loss, tx))
        found.append(np.mean(python_loop(step, params, tx.init(params), data)[-LAST:]))
    return np.array(found)


def injected(data, params, loss):
    """(b) Optax's inject_hyperparams, one jit."""
    import jax
    import numpy as np
    import optax

    tx = optax.inject_hyperparams(optax.adam)(1e-3, b1=0.9)
    step, found = jax.jit(optax_step(loss, tx)), []
    for lr, b1 in settings():
        state = tx.init(params)
        state.hyperparams.update(learning_rate=jax.numpy.float32(lr), b1=jax.numpy.float32(b1))
        found.append(np.mean(python_loop(step, params, state, data)[-LAST:]))
    return np.array(found)


def by_hand(data, params, loss):
    """(c) scan and vmap around Optax, by hand."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    def train(lr, b1, data):
        tx = optax.adam(lr, b1=b1)
        step = optax_step(loss, tx)
        x, y, order = data

        def body(carry, rows):
            *carry, value = step(*carry, x[rows], y[rows])
            return tuple(carry), value

        (end, _), losses = jax.lax.scan(body, (params, tx.init(params)), order)
        return end, losses

    rates, decays = (jnp.array(column) for column in zip(*settings(), strict=True))
    end, losses = jax.jit(jax.vmap(train, in_axes=(0, 0, None)))(rates, decays, data)
    jax.block_until_ready(end)
    return np.asarray(losses)[:, -LAST:].mean(axis=1)


def swept(data, params, loss, devices=1):
    """`gradxform.sweep`."""
    import jax

    import gradxform as gx
    from gradxform.sweep import Space, sweep

    default = gx.adam(1e-3)

    def train(tx=default, data=data):
        x, y, order = data

        def body(carry, rows):
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, x[rows], y[rows])
            updates, state = tx.update(gradient, state, params)
            return (gx.apply_updates(params, updates), state), value

        (end, _), losses = jax.lax.scan(body, (params, tx.init(params)), order)
        return end, {"loss": losses}

    result = sweep(
        train, Space({"learning_rate": lr, "b1": b1} for lr, b1 in settings()), devices=devices
    )
    return result.history["loss"][:, -LAST:].mean(axis=1)


CONTESTANTS = {"a": afresh, "b": injected, "c": by_hand, "sweep": swept}


def measured(name, given, devices=1):
    """Seconds from empty caches, and what was found."""
    import jax

    jax.clear_caches()
    gc.collect()
    began = time.perf_counter()
    found = CONTESTANTS[name](*given) if name != "sweep" else swept(*given, devices=devices)
    return time.perf_counter() - began, found


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument(
        "--rounds", type=int, default=3, help="of c and the sweep; a and b run --slow-rounds times"
    )
    parser.add_argument("--slow-rounds", type=int, default=1)
    parser.add_argument("--only", default="a,b,c,sweep,devices")
    parser.add_argument(
        "--work",
        type=int,
        default=4,
        help="epochs of the two-device comparison, in multiples of --epochs",
    )
    parser.add_argument("--devices", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.devices:
        seconds, found = measured("sweep", problem(arguments.epochs), arguments.devices)
        print(json.dumps([seconds, float(found.min())]))
        return
    import numpy as np

    only = arguments.only.split(",")
    names = [name for name in CONTESTANTS if name in only]
    times, losses = {name: [] for name in names}, {}
    given = problem(arguments.epochs)
    measured("sweep", problem(1))  # imports, the first contact with the device
    for i in range(arguments.rounds):
        for name in names if i % 2 else names[::-1]:
            if name in "ab" and i >= arguments.slow_rounds:
                continue
            seconds, losses[name] = measured(name, given)
            times[name].append(seconds)
            print(
                f"{name:6} {seconds:8.2f} s   best loss {np.nanmin(losses[name]):.5f}", flush=True
            )
    for name in names:
        if name != "sweep" and "sweep" in times:
            ratios = [a / b for a, b in zip(times[name], times["sweep"], strict=False)]
            apart = np.median(np.abs(np.log(losses[name] / losses["sweep"])))
            print(f"{name}: {median(times[name]):.2f} s, the sweep {median(times['sweep']):.2f} s: {median(ratios):.3g} × "
                  f"({min(ratios):.3g} to {max(ratios):.3g}); "
                  f"final losses differ by {100 * apart:.2g} % in the median")  # fmt: skip
    if "devices" in only:
        pairs = []
        for _ in range(arguments.rounds):
            pairs.append([])
            for n in (1, 2):
                cores = "0" if n == 1 else "0,1"
                environment = os.environ | {
                    "XLA_FLAGS": f"--xla_force_host_platform_device_count={n}",
                    "JAX_PLATFORMS": "cpu",
                }
                command = [
                    sys.executable,
                    __file__,
                    "--devices",
                    str(n),
                    "--epochs",
                    str(arguments.epochs * arguments.work),
                ]
                pinned = subprocess.run(
                    ["taskset", "-c", cores, *command],
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=True,
                )
                free = subprocess.run(
                    command, env=environment, capture_output=True, text=True, check=True
                )
                pairs[-1] += [json.loads(pinned.stdout)[0], json.loads(free.stdout)[0]]
            print(
                "one device on one core {:.2f} s, on all {:.2f} s; two devices on two cores {:.2f} s, on all {:.2f} s".format(
                    *pairs[-1]
                ),
                flush=True,
            )
        print(f"two devices against one: {median(p[1] / p[3] for p in pairs):.3g} ×; "
              f"against one that has one core: {median(p[0] / p[2] for p in pairs):.3g} ×")  # fmt: skip


if __name__ == "__main__":
    main()
