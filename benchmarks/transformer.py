"""A small Transformer that learns to write letter by letter, trained for a fixed number of steps by AdamW and by matrix methods.

    python benchmarks/transformer.py [--methods adamw,muon] [--seeds 5] [--steps 300] [--out benchmarks/transformer]

The text ships with Python: the topics of its `help()`, the last tenth held out. Hidden matrices are the method's; embeddings,
head, norms and biases are AdamW's in every method, with the learning rate that AdamW itself was found to like best. All
have one schedule (warm-up over a tenth, then linearly to zero) and decay on the hidden matrices alone.

First a sweep for each method, over as many settings as for every other, from seed 0. Then the best setting from fresh
seeds, the methods in turn: for each seed all methods start at the same parameters and see the same batches, so that their
losses are compared in pairs. Seconds are of the steps alone; compilation and evaluation stand apart. A result is written
as soon as it is there, one file for each method, and a second call goes on where the first was stopped. In the end:
table.md and picture.png. Run it alone on the machine; it takes about 20 minutes on two cores.
"""

import os

# LAPACK's threads and XLA's on the same cores wait for each other: a QR decomposition takes many times as long
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from transformer_report import write

import gradxform as gx
from gradxform.sweep import grid, sweep

HERE = Path(__file__).parent
DECAYS = (0.0, 0.1)


# --- The text and the model


def read_text():
    """The topics of Python's help, one after another."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


@dataclass(frozen=True)
class Size:
    """Of the model, its batches and its training."""

    layers: int = 2
    width: int = 64
    heads: int = 4
    context: int = 64
    batch: int = 32
    held_out: int = 96  # windows of the text
    steps: int = 300
    every: int = 20  # steps from one evaluation to the next

    def schedule(self):
        """From 0 to 1 in a tenth of the steps, then linearly to 0."""
        warm = max(1, self.steps // 10)
        return gx.warmup(warm) >> gx.cooldown(self.steps - warm)


class Block(nnx.Module):
    """Attention, then a layer four times as wide, each added to what came in."""

    def __init__(self, size, rngs):
        self.norm_1 = nnx.LayerNorm(size.width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(size.heads, size.width, decode=False, rngs=rngs)
        self.norm_2 = nnx.LayerNorm(size.width, rngs=rngs)
        self.up = nnx.Linear(size.width, 4 * size.width, rngs=rngs)
        self.down = nnx.Linear(4 * size.width, size.width, rngs=rngs)

    def __call__(self, x, mask):
        x = x + self.attention(self.norm_1(x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.norm_2(x))))


class Transformer(nnx.Module):
    """Scores of the next letter after each."""

    def __init__(self, size, letters, rngs):
        self.embed = nnx.Embed(letters, size.width, rngs=rngs)
        self.position = nnx.Embed(size.context, size.width, rngs=rngs)
        self.blocks = nnx.List([Block(size, rngs) for _ in range(size.layers)])
        self.norm = nnx.LayerNorm(size.width, rngs=rngs)
        self.head = nnx.Linear(size.width, letters, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens) + self.position(jnp.arange(tokens.shape[1]))
        mask = nnx.make_causal_mask(tokens)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x))


class Task:
    """Start, train some steps, evaluate: all functions of arrays."""

    def __init__(self, size):
        text = read_text()
        letters = sorted(set(text))
        tokens = np.array([letters.index(c) for c in text], np.int32)
        cut = len(tokens) * 9 // 10
        self.size, self.letters = size, len(letters)
        self.train, held_out = jnp.asarray(tokens[:cut]), tokens[cut:]
        starts = np.linspace(0, len(held_out) - size.context - 1, size.held_out).astype(int)
        self.held_out = jnp.asarray(held_out[starts[:, None] + np.arange(size.context + 1)])
        self.graph = nnx.split(self.make(jax.random.key(0)))[0]

    def make(self, key):
        """A model."""
        return Transformer(self.size, self.letters, nnx.Rngs(key))

    def begin(self, key):
        """The parameters."""
        return nnx.state(self.make(key))

    def loss(self, params, tokens):
        """Nats for each letter."""
        scores = nnx.merge(self.graph, params)(tokens[:, :-1])
        losses = gx.losses.softmax_cross_entropy_with_integer_labels(scores, tokens[:, 1:])
        return losses.mean()

    def stretch(self, tx, params, state, key, done):
        """So many steps as lie between two evaluations; the batches depend on key and step alone."""

        def step(carry, i):
            params, state = carry
            among = len(self.train) - self.size.context
            at = jax.random.fold_in(key, i)
            starts = jax.random.randint(at, (self.size.batch, 1), 0, among)
            batch = self.train[starts + jnp.arange(self.size.context + 1)]
            gradients = jax.grad(self.loss)(params, batch)
            updates, state = tx.update(gradients, state, params)
            return (gx.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), done + jnp.arange(self.size.every))[0]

    def evaluate(self, params):
        """The loss on what is held out."""
        return self.loss(params, self.held_out)


# --- The methods: on hidden matrices, beside AdamW for the rest


def adamw(rate, weight_decay=0.0):
    """The baseline, and every method's companion."""
    return gx.adamw(rate, b2=0.95, weight_decay=weight_decay)


# The learning rates of each method's sweep.
METHODS = {
    "adamw": (3e-3, 6e-3, 1.2e-2, 2.4e-2),
    "muon": (1e-2, 2e-2, 4e-2, 8e-2),
    "normuon": (1e-2, 2e-2, 4e-2, 8e-2),
    "soap": (3e-3, 6e-3, 1.2e-2, 2.4e-2),
    "shampoo": (3e-3, 6e-3, 1.2e-2, 2.4e-2),
    "kron": (3e-3, 6e-3, 1.2e-2, 2.4e-2),
}


def optimizer(task, method, rate, decay, companion):
    """A method, otherwise with its defaults, on the hidden matrices; AdamW on the rest."""
    schedule = task.size.schedule()
    make = adamw if method == "adamw" else getattr(gx, method)
    hidden = make(rate * schedule, weight_decay=decay)
    parts = {"matrix": hidden, "rest": adamw(companion * schedule)}
    return gx.partition(parts, gx.matrix_labels())


# --- Running


def searched(task, method, companion, settings):
    """The final loss at every setting [settings], from seed 0. AdamW's companion is itself."""
    stretches = task.size.steps // task.size.every

    def train(rate=1e-3, decay=0.0, key=jax.random.key(0)):  # noqa: B008
        other = rate if companion is None else companion
        tx = optimizer(task, method, rate, decay, other)
        start = task.begin(key)

        def go_on(carry, i):
            carry = task.stretch(tx, *carry, key, i * task.size.every)
            return carry, task.evaluate(carry[0])

        _, losses = jax.lax.scan(go_on, (start, tx.init(start)), jnp.arange(stretches))
        return {"val_loss": losses}

    found = sweep(train, grid(settings, seed=[0]), metric="val_loss", mode="min")
    return np.asarray(found.history["val_loss"])[:, -1]


class Runner:
    """One method at one setting, compiled once, from any seed."""

    def __init__(self, task, method, rate, decay, companion):
        self.task, self.tx = task, optimizer(task, method, rate, decay, companion)
        self.begin = jax.jit(task.begin)
        params = self.begin(jax.random.key(0))
        given = (params, self.tx.init(params), jax.random.key(0), jnp.int32(0))
        began = time.perf_counter()
        stretch = jax.jit(lambda *x: task.stretch(self.tx, *x), donate_argnums=(0, 1))
        self.stretch = stretch.lower(*given).compile()
        self.compiled = time.perf_counter() - began
        self.evaluate = jax.jit(task.evaluate)

    def run(self, seed):
        """Losses [evaluations], and the seconds of the steps until each of them."""
        key = jax.random.key(seed)
        params = self.begin(key)
        state = self.tx.init(params)
        losses, seconds, spent = [float(self.evaluate(params))], [0.0], 0.0
        for done in range(0, self.task.size.steps, self.task.size.every):
            jax.block_until_ready((params, state))
            began = time.perf_counter()
            params, state = jax.block_until_ready(self.stretch(params, state, key, jnp.int32(done)))
            spent += time.perf_counter() - began
            losses.append(float(self.evaluate(params)))
            seconds.append(spent)
        return {"losses": losses, "seconds": seconds}


class Record:
    """What is known of a method, in a file that is always whole."""

    def __init__(self, folder, method, facts):
        self.path = folder / f"{method}.json"
        self.known = {"facts": facts}
        if self.path.exists():
            self.known = json.loads(self.path.read_text())
            if self.known["facts"] != facts:
                was = f"holds a run with {self.known['facts']}, this is one with {facts}"
                raise SystemExit(f"{self.path} {was}: remove it, or choose another --out")

    def __contains__(self, name):
        return name in self.known

    def __getitem__(self, name):
        return self.known[name]

    def __setitem__(self, name, value):
        self.known[name] = value
        partial = self.path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(self.known, indent=1) + "\n")
        os.replace(partial, self.path)


def measure(task, methods, seeds, settings_of, folder):
    """All sweeps, AdamW's first; then all seeds, the methods in turn. Returns the records."""
    text = hashlib.sha256(read_text().encode()).hexdigest()[:12]
    versions = {
        "jax": jax.__version__,
        "gradxform": gx.__version__,
        "text": text,
        "cores": os.cpu_count(),
    }
    records = {}
    for method in methods:
        settings = settings_of(method)
        facts = versions | {"size": vars(task.size), "settings": settings}
        records[method] = record = Record(folder, method, facts)
        companion = None if method == "adamw" else records["adamw"]["chosen"]["rate"]
        if "sweep" not in record:
            began = time.perf_counter()
            losses = searched(task, method, companion, settings)
            record["sweep"] = losses.tolist()
            print(f"{method}: sweep of {len(losses)} in {time.perf_counter() - began:.0f} s")
        losses, record["place"] = np.array(record["sweep"]), methods.index(method)
        if not np.isfinite(losses).any():
            raise SystemExit(f"{method}: no setting of its sweep came to a finite loss")
        record["chosen"] = settings[int(np.nanargmin(losses))]
        print(f"{method}: {record['chosen']}, loss {np.nanmin(losses):.4f}", flush=True)
    companion, runners = records["adamw"]["chosen"]["rate"], {}
    for seed in range(1, seeds + 1):
        for method, record in records.items():
            if f"seed {seed}" in record:
                continue
            if method not in runners:
                runners[method] = Runner(task, method, **record["chosen"], companion=companion)
                record["compile_seconds"] = runners[method].compiled
            record[f"seed {seed}"] = found = runners[method].run(seed)
            print(
                f"seed {seed}, {method}: {found['losses'][-1]:.4f} in {found['seconds'][-1]:.1f} s",
                flush=True,
            )
    return records


def main():
    """Measure what is not yet measured, and write table and picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", default=",".join(METHODS), help="adamw is always among them")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=Size.steps, help="a multiple of 20")
    parser.add_argument("--out", type=Path, default=HERE / "transformer")
    parser.add_argument(
        "--quick", action="store_true", help="a tiny model for a few steps: does it run?"
    )
    arguments = parser.parse_args()
    methods = list(dict.fromkeys(["adamw", *arguments.methods.split(",")]))
    if unknown := [m for m in methods if m not in METHODS]:
        parser.error(f"--methods: {', '.join(unknown)}; there are {', '.join(METHODS)}")
    size, seeds = Size(steps=arguments.steps), arguments.seeds
    if arguments.quick:
        size, seeds = Size(1, 8, 2, 8, 4, 4, steps=20, every=10), 2
    if size.steps % size.every or size.steps < 1:
        parser.error(f"--steps must be a multiple of {size.every}; got {size.steps}")

    def settings_of(method):
        settings = [{"rate": r, "decay": d} for r in METHODS[method] for d in DECAYS]
        return settings[2:4] if arguments.quick else settings

    arguments.out.mkdir(parents=True, exist_ok=True)
    records = measure(Task(size), methods, seeds, settings_of, arguments.out)
    print(write(arguments.out, {name: record.known for name, record in records.items()}, seeds))


if __name__ == "__main__":
    main()
