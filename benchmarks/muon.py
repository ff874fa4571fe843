"""Muon's step, and what it takes to trace, lower and compile it, against Optax's, interleaved in one run.

    python benchmarks/muon.py [--trees 12x256,48x128] [--repeats 15] [--starts 3] [--clock cpu]

Trees are those of a GPT, layers x width: in each layer four square matrices, two of 1:4 and seven vectors, beside them two
embeddings. Coefficients, float32, donation and who goes where (embeddings and vectors to Adam) are the same for both.
Prints, for each tree, the medians of the step and of each stage of the start from cold caches, their ratios to Optax's, and
the temporaries. "adam" beside them is the same tree with the matrices left to Adam too, of both libraries: what a start costs
without a single product of matrices. With --repeats 0 it only starts: `--trees 3x64,6x64,12x64,24x64,48x64 --repeats 0` shows
how that grows with the number of leaves. On a machine that others use, processor time (--clock cpu, of all threads) is steadier.
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

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
STAGES = ("trace", "lower", "compile")
RATE = 0.02


def gpt(layers, width, vocabulary=512):
    """Parameters by name, as Flax would have them."""
    generator = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(0.02 * generator.normal(size=shape), jnp.float32)

    def norm():
        return {"scale": draw(width), "bias": draw(width)}

    def layer():
        attention = {
            name: {"kernel": draw(width, width)} for name in ("query", "key", "value", "out")
        }
        up = {"kernel": draw(width, 4 * width), "bias": draw(4 * width)}
        down = {"kernel": draw(4 * width, width), "bias": draw(width)}
        return {"ln_1": norm(), "attention": attention, "ln_2": norm(), "up": up, "down": down}

    embeddings = {
        f"{name}_embed": {"embedding": draw(vocabulary, width)} for name in ("token", "position")
    }
    return embeddings | {f"block_{i}": layer() for i in range(layers)} | {"ln": norm()}


def dimensions(params):
    """Optax's declaration: the kernels, and nothing else, are matrices."""
    is_matrix = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
    return jax.tree.map(
        lambda yes: optax.contrib.MuonDimensionNumbers() if yes else None, is_matrix
    )


PAIRS = {
    "muon": (
        lambda: gx.muon(RATE),
        lambda: optax.contrib.muon(RATE, muon_weight_dimension_numbers=dimensions),
    ),
    "adam": (lambda: gx.nadam(RATE), lambda: optax.nadam(RATE)),
}


class Contestant:
    """One library's optimizer on one tree."""

    def __init__(self, tx, apply, tree, clock):
        self.tx, self.apply, self.tree, self.clock = tx, apply, tree, clock
        self.starts, self.times = [], []

    def start(self):
        """Trace, lower and compile from cold caches."""

        def step(params, state, gradients):
            updates, state = self.tx.update(gradients, state, params)
            return self.apply(params, updates), state

        jax.clear_caches()
        gc.collect()
        state = jax.eval_shape(self.tx.init, self.tree)
        ticks = [self.clock()]
        traced = jax.jit(step, donate_argnums=(0, 1)).trace(self.tree, state, self.tree)
        ticks.append(self.clock())
        lowered = traced.lower()
        ticks.append(self.clock())
        self.run = lowered.compile()
        ticks.append(self.clock())
        self.starts.append(np.diff(ticks))
        self.temporaries = self.run.memory_analysis().temp_size_in_bytes

    def prepare(self):
        """Parameters and state of its own."""
        self.params = jax.tree.map(jnp.array, self.tree)
        self.state = self.tx.init(self.params)

    def step(self, gradients):
        """One timed step."""
        began = self.clock()
        done = self.run(self.params, self.state, gradients)
        self.params, self.state = jax.block_until_ready(done)
        self.times.append(self.clock() - began)

    def stages(self):
        """Medians of the stages, and of their sum."""
        rows = np.array(self.starts)
        return [*np.median(rows, axis=0), np.median(rows.sum(axis=1))]


def race(pair, tree, repeats, starts, clock):
    """Both contestants, in shuffled turns."""
    applied = (gx.apply_updates, optax.apply_updates)
    both = [
        Contestant(make(), apply, tree, clock) for make, apply in zip(pair, applied, strict=True)
    ]
    for i in range(starts):
        for c in both[:: 1 if i % 2 else -1]:
            c.start()
    for c in both:
        c.prepare()
    gradients = jax.tree.map(lambda x: 0.1 * x, tree)
    shuffled = random.Random(0)
    for _ in range(repeats and repeats + 2):
        for c in shuffled.sample(both, 2):
            c.step(gradients)
    return both


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trees", default="12x256,48x128", help="layers x width, several")
    parser.add_argument("--methods", default=",".join(PAIRS))
    parser.add_argument("--repeats", type=int, default=15, help="timed steps of each")
    parser.add_argument("--starts", type=int, default=3, help="timed starts of each")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    args = parser.parse_args()

    print(
        f"jax {jax.__version__}, optax {optax.__version__}, {jax.devices()[0].device_kind}, {args.clock} time"
    )
    print(
        "| tree | leaves | method | step ms | / Optax's | trace, lower, compile s | / Optax's | start s "
        "| / Optax's | temporaries MB | Optax's |"
    )
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for size in args.trees.split(","):
        layers, width = map(int, size.split("x"))
        tree = gpt(layers, width)
        leaves = len(jax.tree.leaves(tree))
        for method in args.methods.split(","):
            ours, theirs = race(PAIRS[method], tree, args.repeats, args.starts, CLOCKS[args.clock])
            *each, start = ours.stages()
            *other, their_start = theirs.stages()
            step = "| | "
            if args.repeats:
                steps = median(ours.times[2:]), median(theirs.times[2:])
                step = f"| {steps[0] * 1e3:.1f} | {steps[0] / steps[1]:.2f} "
            seconds = ", ".join(f"{x:.2f}" for x in each)
            ratios = ", ".join(f"{x / y:.2f}" for x, y in zip(each, other, strict=True))
            megabytes = ours.temporaries / 1e6, theirs.temporaries / 1e6
            print(
                f"| {size} | {leaves} | {method} {step}| {seconds} | {ratios} | {start:.2f} "
                f"| {start / their_start:.2f} | {megabytes[0]:.1f} | {megabytes[1]:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
