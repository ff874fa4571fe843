"""The jitted, donated step of each textbook method against Optax's, interleaved in one run.

    python benchmarks/step.py [--trees 1,150,1000] [--methods adam,sgd] [--repeats 50] [--copies 6]

Prints, for each method and tree, the medians of the step time and of the time to trace and lower, their ratios to Optax's,
and the temporaries of the compiled step. Only ratios mean anything. At 1000 leaves the fastest steps of two copies of one and
the same program differ by up to a fifth; so each library steps several copies, all of them in shuffled turns.
The column "bare" is the least that tracing and lowering can cost, relative to Optax's: a step with the same arguments and
results that makes each result by a single operation.
"""

import argparse
import gc
import random
import time
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradxform as gx

PAIRS = {
    "sgd": (gx.sgd(0.1), optax.sgd(0.1)),
    "momentum": (gx.sgd(0.1, 0.9), optax.sgd(0.1, 0.9)),
    "nesterov": (gx.sgd(0.1, 0.9, nesterov=True), optax.sgd(0.1, 0.9, nesterov=True)),
    "adagrad": (gx.adagrad(0.1), optax.adagrad(0.1)),
    "adadelta": (gx.adadelta(1.0), optax.adadelta(1.0)),
    "rmsprop": (gx.rmsprop(0.01), optax.rmsprop(0.01)),
    "rmsprop_centered": (gx.rmsprop(0.01, centered=True), optax.rmsprop(0.01, centered=True)),
    "adam": (gx.adam(1e-3), optax.adam(1e-3)),
    "adamw": (gx.adamw(1e-3), optax.adamw(1e-3)),
    "nadam": (gx.nadam(1e-3), optax.nadam(1e-3)),
    "adamax": (gx.adamax(1e-3), optax.adamax(1e-3)),
    "amsgrad": (gx.amsgrad(1e-3), optax.amsgrad(1e-3)),
    "clip+adamw": (
        gx.chain(gx.clip_by_global_norm(1.0), gx.adamw(1e-3)),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)),
    ),
}

SHAPES = {
    1: [(2000, 2000)],
    150: [[(256, 256), (256,), (256, 64)][i % 3] for i in range(150)],
    1000: [(16 + i % 4,) for i in range(1000)],
}


def make_step(tx, apply):
    """One update and its application."""

    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return apply(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1))


def bare(tx, tree):
    """Seconds to trace and lower a step that makes each of its results by a single operation."""
    state = tx.init(tree)

    def step(params, state, gradients):
        return jax.tree.map(jax.lax.sub, params, gradients), jax.tree.map(jax.lax.neg, state)

    jax.clear_caches()
    gc.collect()
    began = time.perf_counter()
    jax.jit(step, donate_argnums=(0, 1)).lower(tree, state, tree)
    return time.perf_counter() - began


class Contestant:
    """One library's optimizer on one tree, in several copies: a step's time depends on where its buffers happen to lie."""

    def __init__(self, tx, apply, tree):
        self.tx, self.apply, self.tree = tx, apply, tree
        self.starts, self.copies = [], []

    def start(self):
        """Trace, lower and compile from cold caches."""
        jax.clear_caches()
        gc.collect()
        state = self.tx.init(self.tree)
        began = time.perf_counter()
        lowered = make_step(self.tx, self.apply).lower(self.tree, state, self.tree)
        self.starts.append(time.perf_counter() - began)
        return lowered

    def prepare(self):
        """Compile, once for all copies."""
        self.run = self.start().compile()
        self.temporaries = self.run.memory_analysis().temp_size_in_bytes

    def copy(self):
        """Parameters and state of their own."""
        params = jax.tree.map(jnp.array, self.tree)
        self.copies.append([params, self.tx.init(params), []])

    def step(self, i, gradients):
        """One timed step of one copy."""
        params, state, times = self.copies[i]
        began = time.perf_counter()
        self.copies[i][:2] = jax.block_until_ready(self.run(params, state, gradients))
        times.append(time.perf_counter() - began)

    def steps(self):
        """The times of all copies, without the first ten of each."""
        return [t for *_, times in self.copies for t in times[10:]]


def race(pair, tree, repeats, starts, copies):
    """Both contestants, in shuffled turns."""
    contestants = [
        Contestant(pair[0], gx.apply_updates, tree),
        Contestant(pair[1], optax.apply_updates, tree),
    ]
    floors = []
    for i in range(starts):
        for c in contestants[:: 1 if i % 2 else -1]:
            c.start()
        floors.append(bare(pair[0], tree))
    for c in contestants:
        c.prepare()
    for i in range(copies):
        for c in contestants[:: 1 if i % 2 else -1]:
            c.copy()
    gradients = jax.tree.map(lambda x: 0.1 * x, tree)
    turns = [(c, i) for c in contestants for i in range(copies)]
    shuffled = random.Random(0)
    for _ in range(repeats + 10):
        shuffled.shuffle(turns)
        for c, i in turns:
            c.step(i, gradients)
    return *contestants, median(floors)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trees", default="1,150,1000", help="numbers of leaves: 1, 150, 1000")
    parser.add_argument("--methods", default=",".join(PAIRS))
    parser.add_argument("--repeats", type=int, default=50, help="timed steps of each copy")
    parser.add_argument(
        "--copies", type=int, default=6, help="copies of parameters and state of each"
    )
    parser.add_argument("--starts", type=int, default=3, help="timed traces of each")
    args = parser.parse_args()

    print(f"jax {jax.__version__}, optax {optax.__version__}, {jax.devices()[0].device_kind}")
    print(
        "| leaves | method | step ms | step / Optax's | trace and lower s | / Optax's | bare | temporaries bytes | Optax's |"
    )
    print("|---:|---|---:|---:|---:|---:|---:|---:|---:|")
    generator = np.random.default_rng(0)
    for leaves in map(int, args.trees.split(",")):
        tree = {
            f"l{i}": jnp.asarray(generator.normal(size=shape), jnp.float32)
            for i, shape in enumerate(SHAPES[leaves])
        }
        for method in args.methods.split(","):
            ours, theirs, floor = race(PAIRS[method], tree, args.repeats, args.starts, args.copies)
            steps = median(ours.steps()), median(theirs.steps())
            starts = median(ours.starts), median(theirs.starts)
            print(
                f"| {leaves} | {method} | {steps[0] * 1e3:.3f} | {steps[0] / steps[1]:.2f} | {starts[0]:.3f} "
                f"| {starts[0] / starts[1]:.2f} | {floor / starts[1]:.2f} | {ours.temporaries} | {theirs.temporaries} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
