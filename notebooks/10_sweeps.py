# %% [markdown]
# # 10. Which numbers? Sixty-four trainings at once
#
# Every notebook so far has chosen its hyperparameters with a wave of the hand. Here they are looked for: by a grid,
# at random, by dropping the losers early, and by the derivative of the whole training. An optimizer is a pytree of
# its numbers, so sixty-four settings are one batch of one compiled program.
#
# Several devices can share the work. To have several on any machine, this notebook asks XLA to pretend that the
# processor is four devices. That must be said before JAX is imported.

# %%
import os

# four devices; and compile quickly, since each program here runs only for a moment
flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import gradxform as gx
from gradxform import plot
from gradxform.sweep import Halving, fit, grid, log_uniform, random, sweep, uniform

print(jax.devices())

# %% [markdown]
# ## What is to be tried
#
# A training as a function of its arguments. `sweep.fit` makes one from a loss, a way to begin, an optimizer and
# data; every number in these is then a name that a sweep can vary: `learning_rate` and `b1` in the optimizer, `l2`
# in the loss, `scale` in the initialisation.

# %%
digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.target))
x, y = (
    jnp.asarray(digits.data[order] / 16, jnp.float32),
    jnp.asarray(digits.target[order]),
)
train, validation = {"x": x[:1300], "y": y[:1300]}, {"x": x[1300:], "y": y[1300:]}


def init(key, *, scale=1.0):
    first, second = jax.random.split(key)
    return {
        "hidden": {
            "kernel": scale * jax.random.normal(first, (64, 32)) * (2 / 64) ** 0.5,
            "bias": jnp.zeros(32),
        },
        "out": {
            "kernel": scale * jax.random.normal(second, (32, 10)) * (1 / 32) ** 0.5,
            "bias": jnp.zeros(10),
        },
    }


def loss(params, batch, key, *, l2=0.0):
    h = jax.nn.relu(batch["x"] @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    logits = h @ params["out"]["kernel"] + params["out"]["bias"]
    cross_entropy = gx.losses.softmax_cross_entropy_with_integer_labels(
        logits, batch["y"]
    ).mean()
    squares = sum(jnp.sum(layer["kernel"] ** 2) for layer in params.values())
    return cross_entropy + l2 / 2 * squares, {
        "accuracy": jnp.mean(jnp.argmax(logits, -1) == batch["y"])
    }


def evaluate(params, batch):
    # without l2: what we judge by is the data
    value, metrics = loss(params, batch, None)
    return {"loss": value, **metrics}


def training(tx):
    return fit(
        loss,
        tx,
        init,
        train,
        epochs=8,
        batch_size=50,
        validation=validation,
        evaluate=evaluate,
    )


# %% [markdown]
# ## A grid of 64
#
# Eight learning rates by eight values of $β_1$, for Adam.

# %%
rates, b1s = np.logspace(-4, -0.5, 8), 1 - np.logspace(0, -2, 8)  # b1 from 0 to 0.99
found = sweep(
    training(gx.adam(1e-3)), grid(learning_rate=rates, b1=b1s), metric="val_loss"
)
print(len(found), "members,", len(found.groups), "compiled program:", found.groups)
best = {name: round(float(value), 4) for name, value in found.best.setting.items()}
print(f"best: {best}, validation loss {found.best.score:.3f}")
found.table()[["learning_rate", "b1", "val_loss", "val_accuracy", "diverged"]].head(
    5
).round(4)

# %% [markdown]
# The best member is only the tip. `sensitivity` tells how much each name matters: its *importance* is the share of
# the members' ranks that it explains.

# %%
for name, facts in found.sensitivity().items():
    print(f"{name:>14}: importance {facts['importance']:.2f}")
    for row in facts["values"]:
        print(
            f"{row['value']:>22.4f}: best {row['best']:.3f}, median {row['median']:.3f}"
        )

# %%
curves = {
    f"b1 = {b1:.2f}": found.scores.reshape(8, 8)[:, i]
    for i, b1 in enumerate(b1s)
    if i in (0, 2, 4, 6, 7)
}
importance = {name: facts["importance"] for name, facts in found.sensitivity().items()}
assert importance["learning_rate"] > 0.8
assert importance["b1"] < 0.1
plot.sensitivity(
    rates,
    curves,
    ylabel="validation loss",
    title="Adam on digits: the learning rate decides, b1 hardly",
)

# %% [markdown]
# The learning rate explains nearly everything. Seven eighths of this grid went into a number that matters little,
# which is the usual fate of grids.
#
# ## Methods, rates and seeds
#
# Settings may differ in more than numbers. Here are three methods, and three seeds for each setting; what differs
# in structure is compiled by itself. `seed` is a name that every sweep knows.

# %%
methods = {
    "momentum": gx.sgd(1.0, momentum=0.9),
    "RMSprop": gx.rmsprop(1.0),
    "Adam": gx.adam(1.0),
}
compared = sweep(
    training(gx.adam(1.0)),
    grid(tx=methods, learning_rate=np.logspace(-4, 0, 9), seed=range(3)),
    metric="val_loss",
)
by_method = dict(zip(methods, compared.scores.reshape(3, 9, 3), strict=True))
for name, values in by_method.items():
    mean = values.mean(1)
    print(
        f"{name:>9}: best {mean.min():.3f}; within twice that at "
        f"{int((mean < 2 * mean.min()).sum())} of 9 rates"
    )
print(len(compared), "members,", len(compared.groups), "programs")
plot.sensitivity(
    np.logspace(-4, 0, 9),
    by_method,
    ylabel="validation loss",
    title="Three methods, three seeds",
)

# %% [markdown]
# ## At random, and the losers stop early
#
# With four names a grid of eight values each would have 8⁴ members. Random settings cover each axis better than a
# grid of the same size, and successive halving spends the time on those that deserve it: all start, and at epochs 1
# and 3 only the better third goes on.

# %%
space = random(
    64,
    jax.random.key(0),
    learning_rate=log_uniform(1e-4, 0.3),
    b1=uniform(0.5, 0.99),
    l2=log_uniform(1e-6, 1e-1),
    scale=log_uniform(0.1, 3.0),
)
halved = sweep(
    training(gx.adam(1e-3)),
    space,
    metric="val_loss",
    halving=Halving(rungs=(1, 3), keep=1 / 3),
)
epochs_run = int(halved.steps.sum())
print(
    f"{epochs_run} epochs instead of {8 * len(space)}; members by epochs run:",
    {int(n): int((halved.steps == n).sum()) for n in np.unique(halved.steps)},
)
print(
    f"best: validation loss {halved.best.score:.3f} with",
    {k: f"{v:.2g}" for k, v in halved.best.setting.items()},
)
lines = {
    name: halved.history["val_loss"][halved.steps == n].T
    for n, name in ((1, "out at 1"), (3, "out at 3"), (8, "to the end"))
}
assert epochs_run < 0.4 * 8 * len(space)

# %%
import matplotlib.pyplot as plt

_, axes = plt.subplots(figsize=(6.5, 4), layout="constrained")
for (name, values), colour in zip(
    lines.items(), ("#999999", "#E69F00", "#0072B2"), strict=True
):
    for i, line in enumerate(values.T):
        axes.plot(
            range(1, 9),
            line,
            color=colour,
            marker="o",
            markersize=3,
            linewidth=1,
            label=name if i == 0 else None,
        )
axes.set(
    xlabel="epoch",
    ylabel="validation loss",
    yscale="log",
    title="64 start, the better third goes on at epochs 1 and 3",
)
axes.legend()
plt.show()

# %% [markdown]
# ## Hypergradients
#
# A training is a function of its optimizer, made of differentiable steps. So `jax.grad` gives the derivative of the
# final loss by the learning rate, the decays, all of it, in one run, shaped like the optimizer. Here for softmax
# regression and sixty full-batch steps.


# %%
def final_loss(tx):
    """The validation loss after sixty steps."""

    def of(params, data):
        logits = data["x"] @ params["kernel"] + params["bias"]
        return gx.losses.softmax_cross_entropy_with_integer_labels(
            logits, data["y"]
        ).mean()

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(of)(params, train), state, params)
        return (gx.apply_updates(params, updates), state), None

    params = {"kernel": jnp.zeros((64, 10)), "bias": jnp.zeros(10)}
    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=60)
    return of(params, validation)


at = gx.sgd(0.1, momentum=0.8)
slope = gx.hypergradient(final_loss, at)
print(
    f"slope by the learning rate {slope.learning_rate:+.3f}, by the momentum "
    f"{slope.momentum:+.3f}"
)

h = 1e-3
difference = (
    final_loss(gx.sgd(0.1 + h, momentum=0.8))
    - final_loss(gx.sgd(0.1 - h, momentum=0.8))
) / (2 * h)
print(f"by finite differences {difference:+.3f}")
np.testing.assert_allclose(slope.learning_rate, difference, rtol=2e-2)

# %% [markdown]
# Then the learning rate can be trained as well, by gradient descent on its logarithm and on that of 1 - momentum,
# from a bad start.


# %%
def tuned(theta):
    return gx.sgd(jnp.exp(theta["log_rate"]), momentum=1 - jnp.exp(theta["log_rest"]))


@jax.jit
def outer_step(theta, state):
    value, gradient = jax.value_and_grad(lambda theta: final_loss(tuned(theta)))(theta)
    updates, state = outer.update(gradient, state, theta)
    return gx.apply_updates(theta, updates), state, value


outer = gx.adam(0.15)
theta = {"log_rate": jnp.log(0.01), "log_rest": jnp.log(0.5)}
state, values = outer.init(theta), []
for _ in range(25):
    theta, state, value = outer_step(theta, state)
    values.append(float(value))
print(
    f"from {values[0]:.3f} to {min(values):.3f}: "
    f"learning rate {float(jnp.exp(theta['log_rate'])):.2f}, momentum "
    f"{1 - float(jnp.exp(theta['log_rest'])):.2f}"
)
assert min(values) < 0.5 * values[0]
plot.curves(
    {"after 60 steps": np.array(values)},
    xlabel="outer step",
    ylabel="validation loss",
    title="Training the optimizer",
)

# %% [markdown]
# ## Several devices, and a sweep that survives
#
# A sweep spreads its members over all local devices by itself; the ones above ran on four. The result must not
# depend on it. With `out=` every finished chunk is kept in a folder, and the same call goes on where an earlier one
# was stopped: here the second call finds everything done.

# %%
import tempfile

few = grid(learning_rate=np.logspace(-3, -1, 8))
with tempfile.TemporaryDirectory() as folder:
    on_four = sweep(training(gx.adam(1e-3)), few, metric="val_loss", out=folder)
    again = sweep(training(gx.adam(1e-3)), few, metric="val_loss", out=folder)
on_one = sweep(training(gx.adam(1e-3)), few, metric="val_loss", devices=1)
print(
    "largest difference between four devices and one:",
    f"{np.abs(on_four.scores - on_one.scores).max():.1e}",
)
print(
    "the second call trained nothing anew:",
    bool((again.scores == on_four.scores).all()),
)
np.testing.assert_allclose(on_four.scores, on_one.scores, rtol=1e-3)

# %% [markdown]
# ## What to remember
#
# - `sweep(train, space)`: members that differ in numbers are one program, others are compiled apart. A name is any
#   number anywhere.
# - Look at the whole curve of a method, over rates and seeds, before you believe its best point.
# - Random settings and halving spend time where it counts.
# - The derivative of a training has the shape of its optimizer. It takes one training, forwards and back, and it
#   sees only the valley it is in.
#
# ## Try
#
# 1. In *A grid of 64*, sweep `b2` instead of `b1`: `b2=1 - np.logspace(0, -4, 8)`. Which of the two matters more?
# 2. In *At random*, set `keep=1 / 2`. How many more epochs are run, and does the best member change?
# 3. In *Hypergradients*, start from a learning rate that is too large: `jnp.log(30.0)`. Does the outer descent find
#    back?
