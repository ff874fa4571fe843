# %% [markdown]
# # 5. Adam looks like RMSprop with momentum. What are the differences?
#
# Both average gradients, and both divide by the root of an average of squared gradients. The course notes leave it
# there, with the question in the title. In gradxform each idea is a part of its own, so the question can be put to
# the machine: build both from the same parts, feed them the same gradients, and look at the steps.

# %%
import jax
import jax.numpy as jnp
import numpy as np

import gradxform as gx
from gradxform import plot

# %% [markdown]
# ## Take both apart
#
# An optimizer knows its composition: `expand()` prints the chain behind the name.

# %%
for tx in (gx.rmsprop(1e-3, momentum=0.9), gx.adam(1e-3)):
    print(f"{tx}\n    = {tx.expand()}\n")

# %% [markdown]
# And in a notebook an optimizer shows itself as its equations, with its numbers:

# %%
gx.rmsprop(1e-3, momentum=0.9)

# %%
gx.adam(1e-3)

# %% [markdown]
# The same two ideas, in the other order:
#
# - **RMSprop with momentum** divides each gradient by the root of $v$ *as it stands at that step*, then accumulates
#   the quotients: a sum of ratios.
# - **Adam** averages the gradients first and divides the average by the root of *today's* $v$: a ratio of averages.
#
# In both, $v$ averages the square of the raw gradient. That is worth a second look, since in Adam the momentum
# comes first: what arrives at `scale_by_rms` is the average $m$, yet $v$ must not measure $m$. In gradxform's
# `chain`, momentum changes where we step, not what the gradient is. So the two parts, chained, are Adam (without
# its bias correction), and the next cell would fail if they were not.

# %%
uncorrected = gx.chain(
    gx.ema(0.9, debias=False), gx.scale_by_rms(0.999), gx.scale_by_learning_rate(1e-3)
)
other_notation = gx.chain(
    gx.momentum(0.9, dampening=0.9),
    gx.scale_by_rms(0.999),
    gx.scale_by_learning_rate(1e-3),
)


def steps(tx, gradients):
    """The updates that one parameter gets from a stream of gradients."""

    def step(state, g):
        update, state = tx.update(g, state, jnp.zeros(()))
        return state, update

    return np.asarray(
        jax.lax.scan(step, tx.init(jnp.zeros(())), jnp.asarray(gradients, jnp.float32))[
            1
        ]
    )


stream = np.random.default_rng(0).normal(size=200)
reference = steps(gx.adam_uncorrected(1e-3), stream)
for tx in (uncorrected, other_notation):
    np.testing.assert_allclose(steps(tx, stream), reference, rtol=1e-5)
print("three notations, the same", len(reference), "steps")

# %% [markdown]
# What if $v$ did measure $m$? That is what the same two parts come to in `optax.chain`. On gradients that are pure
# noise, Adam's average cancels most of the noise and the steps are short; divided by its own root mean square, the
# noise is blown up to full length again.

# %%
import optax

adam_direction = gx.chain(
    gx.ema(0.9), gx.scale_by_rms(0.999, eps_in_sqrt=False, bias_correction=True)
)
measures_m = optax.chain(
    optax.ema(0.9), optax.scale_by_rms(0.999, eps_in_sqrt=False, bias_correction=True)
)
for name, tx in (("v of the gradient (Adam)", adam_direction), ("v of m", measures_m)):
    print(
        f"{name:>25}: root mean square step "
        f"{np.sqrt(np.mean(steps(tx, stream)[20:] ** 2)):.2f}"
    )

# %% [markdown]
# ## Difference 1: the order
#
# To see the order alone, everything else must be equal: averages in both, the same decays, both corrected. The
# gradient is 1 for a while, then 10, then 1 again, as where the terrain gets steep. Steps are in units of the
# learning rate.

# %%
terrain = np.repeat([1.0, 10.0, 1.0], [60, 60, 120])
rms = gx.scale_by_rms(0.99, bias_correction=True)
ratio_of_averages = steps(gx.chain(gx.ema(0.9), rms), terrain)
average_of_ratios = steps(gx.chain(rms, gx.ema(0.9)), terrain)
both = {"Adam's order": ratio_of_averages, "RMSprop's order": average_of_ratios}

for name, line in both.items():
    print(f"longest step, {name}: {line.max():.2f}, at step {line.argmax() + 1}")
    assert abs(line[59] - 1) < 1e-3  # on even ground the two are the same
assert ratio_of_averages.max() < average_of_ratios.max()
plot.curves(
    both,
    ylabel="step / learning rate",
    title="The gradient is 1, then 10 (steps 61 to 120), then 1",
)

# %% [markdown]
# On even ground both take steps of one learning rate, whatever the size of the gradient: that is what the division
# is for. At the edge the average of ratios overshoots more: the first steep gradients were divided by the root of a
# $v$ that still remembered the plain, and those large quotients stay in the average. Adam divides the whole
# average, old and new gradients alike, by a $v$ that has seen the edge. Behind the edge both creep, until $v$ has
# forgotten: its memory of about 1/(1 - 0.99) = 100 steps is why.

# %% [markdown]
# ## Difference 2: a sum or an average
#
# RMSprop's momentum is the heavy ball, $v ← 0.9\,v + g$: a *sum* with fading weights. Adam's is an *average*, $m ←
# 0.9\,m + 0.1\,g$. On a constant gradient the first settles at 1/(1 - 0.9) times the second. No picture is needed;
# it is a matter of units, and it moves the best learning rate.

# %%
ones = np.ones(300)
total, average = (
    steps(direction, ones)[-1]
    for direction in (gx.momentum(0.9), gx.momentum(0.9, dampening=0.9))
)
print(
    f"sum {total:.3f}, average {average:.3f}: a learning rate for one is "
    f"{total / average:.1f} times that for the other"
)
assert abs(total / average - 1 / (1 - 0.9)) < 1e-3

# %% [markdown]
# ## Difference 3: bias correction
#
# Averages that start at zero are too small at first, by the factor $1 - β^t$. Adam's two have different decays, so
# the errors do not cancel: after one step $m$ is a tenth of the gradient, and $\sqrt v$ is only $\sqrt{0.001}$ of
# it.

# %%
without, corrected = (
    -steps(gx.adam(1.0, bias_correction=on), np.ones(2000)) for on in (False, True)
)
print(
    f"first step:    {without[0]:.2f} learning rates without the correction, "
    f"{corrected[0]:.2f} with it"
)
print(f"longest step:  {without.max():.2f}, at step {without.argmax() + 1}")
rmsprop = -steps(gx.rmsprop(1.0, decay=0.9), np.ones(2000))
for name, line in (("uncorrected Adam", without), ("RMSprop", rmsprop)):
    print(
        f"{name}: more than 1.1 learning rates until step "
        f"{np.max(np.where(line > 1.1)) + 1}"
    )
assert np.allclose(corrected, 1, atol=1e-3)
plot.curves(
    {"uncorrected": without, "corrected": corrected},
    x=np.arange(1, 2001),
    ylabel="step / learning rate",
    title="A constant gradient: how long are Adam's steps?",
)

# %% [markdown]
# Without the correction the early steps are several times too long, just when the averages know least. RMSprop with
# its usual decay of 0.9 hardly notices, since its $v$ is soon full; Adam with $β_2$ = 0.999 is concerned for more
# than a thousand steps.
#
# The two errors depend on the step number alone. So to leave out the correction is to ask for a learning-rate
# schedule without knowing it, and with the schedule written out, the two are the same optimizer:

# %%
hidden_schedule = gx.from_function(
    lambda step: (1 - 0.9 ** (step + 1.0)) / jnp.sqrt(1 - 0.999 ** (step + 1.0))
)
np.testing.assert_allclose(
    steps(gx.adam(hidden_schedule, eps=1e-12), stream),
    steps(gx.adam(1.0, eps=1e-12, bias_correction=False), stream),
    rtol=1e-3,
    atol=1e-5,
)

# %% [markdown]
# What does that do on data? Softmax regression on scikit-learn's handwritten digits (1797 images of 8 × 8 pixels),
# four epochs, at nine learning rates, with five shuffles of the examples. An optimizer is a pytree of its numbers,
# so both `vmap`s, over rates and over shuffles, are one program.

# %%
from sklearn.datasets import load_digits

digits = load_digits()
assert digits.images.shape == (1797, 8, 8)
order = np.random.default_rng(0).permutation(len(digits.target))
x, y = (
    jnp.asarray(digits.data[order] / 16, jnp.float32),
    jnp.asarray(digits.target[order]),
)
train, validation = (x[:1300], y[:1300]), (x[1300:], y[1300:])
params = {"kernel": jnp.zeros((64, 10)), "bias": jnp.zeros(10)}


def loss(params, x, y):
    logits = x @ params["kernel"] + params["bias"]
    return gx.losses.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def run(tx, batches):
    """Train on the mini-batches, [steps, examples] of indices, and return the
    validation loss.
    """

    def step(carry, batch):
        params, state = carry
        gradient = jax.grad(loss)(params, train[0][batch], train[1][batch])
        updates, state = tx.update(gradient, state, params)
        return (gx.apply_updates(params, updates), state), None

    (trained, _), _ = jax.lax.scan(step, (params, tx.init(params)), batches)
    return loss(trained, *validation)


def shuffles(n, epochs=4, batch_size=50):
    """[n, steps, examples]: the order of the examples in n trainings."""
    epoch = [
        np.random.default_rng(seed).permutation(1300) for seed in range(n * epochs)
    ]
    return jnp.asarray(np.array(epoch).reshape(n, -1, batch_size))


# %%
rates = np.logspace(-4, 0, 9)


@jax.jit
def final_losses(optimizers):
    return jax.vmap(jax.vmap(run, (None, 0)), (0, None))(optimizers, shuffles(5))


by_rate = {
    name: np.asarray(
        final_losses(gx.stack([gx.adam(rate, bias_correction=on) for rate in rates]))
    )
    for name, on in (("corrected", True), ("uncorrected", False))
}
best_rate = {name: rates[values.mean(1).argmin()] for name, values in by_rate.items()}
print("best learning rate:", {name: f"{rate:.2g}" for name, rate in best_rate.items()})
print(
    "best loss:",
    {name: f"{values.mean(1).min():.3f}" for name, values in by_rate.items()},
)
assert best_rate["uncorrected"] < best_rate["corrected"]
plot.sensitivity(
    rates,
    by_rate,
    ylabel="validation loss",
    title="Digits: Adam after 4 epochs, five shuffles",
)

# %% [markdown]
# Nearly the same curve, moved to smaller rates. This training of a hundred steps lies within the first thousand, so
# the uncorrected Adam is simply an Adam with a larger learning rate. It is not worse at its own best rate; but the
# number that one writes down no longer says how long a step is, and a rate found in a short trial is another rate
# in a long run.

# %% [markdown]
# ## What all this division buys: indifference to units
#
# Multiply the loss by 1000 and every gradient is 1000 times as long. Adam divides it out again (but for ε) and
# takes the same path. Plain gradient descent would need a learning rate 1000 times smaller.

# %%
for tx in (gx.adam(0.01), gx.sgd(0.01)):
    apart = np.abs(steps(tx, 1000 * stream) / steps(tx, stream))
    print(
        f"{tx.name}: steps grow by a factor of {apart.min():.4f} to {apart.max():.4f}"
    )

# %% [markdown]
# ## The whole grid
#
# If Adam is one direction times one preconditioner, there is a grid of methods: every way to use more gradients
# (rows) with every way to give each parameter its own rate (columns). Textbook names belong to a few cells. We race
# them all on the digits, each at eleven learning rates and with three shuffles at once.
#
# One cell needs care. AdaBelief's preconditioner measures how far gradients lie from their average, so it must see
# the average uncorrected; corrected, the first average *is* the first gradient, the deviation is 0, and the step
# explodes.

# %%
print(gx.scale_by_belief().expand())

# %%
directions = {
    "none": None,
    "momentum": gx.momentum(0.9),
    "nesterov": gx.momentum(0.9, nesterov=True),
    "ema": gx.ema(0.9),
    "nesterov ema": gx.ema(0.9, nesterov=True),
    "two emas": gx.two_emas(0.9, 0.99, 1.0),
}
preconditioners = {
    "none": None,
    "sum": gx.scale_by_rss(),
    "mean": gx.scale_by_rms(0.999, eps_in_sqrt=False, bias_correction=True),
    "max": gx.scale_by_rms_max(),
    "inf-norm": gx.scale_by_inf_norm(),
    "yogi": gx.scale_by_yogi_rms(),
    "deviation": gx.scale_by_deviation(),
}


def parts(row, column):
    if column == "deviation" and row in ("ema", "nesterov ema"):
        average = gx.ema(0.9, debias=False, nesterov=row == "nesterov ema")
        return average, preconditioners[column], gx.correct_bias(0.9)
    return directions[row], preconditioners[column]


rates = np.logspace(-4, 1, 11)
orders = shuffles(3)


def race(row):
    """The final validation losses of a row's methods: each [rates, shuffles]."""

    def train_all(rate, batches):
        step_size = gx.scale_by_learning_rate(rate)
        return {
            (row, column): run(gx.chain(*parts(row, column), step_size), batches)
            for column in preconditioners
        }

    everywhere = jax.vmap(jax.vmap(train_all, (None, 0)), (0, None))
    # each program runs once, for a moment: compiling it quickly matters more than its
    # speed
    return jax.jit(everywhere, compiler_options={"xla_backend_optimization_level": 0})(
        rates, orders
    )


results = {
    cell: np.asarray(losses) for row in directions for cell, losses in race(row).items()
}
trainings = sum(losses.size for losses in results.values())
print(f"{len(results)} methods, {trainings} trainings")

# %%
import matplotlib.pyplot as plt

mean = {
    cell: np.nan_to_num(losses.mean(1), nan=np.inf) for cell, losses in results.items()
}
best = {cell: line.min() for cell, line in mean.items()}
table = np.array(
    [[best[row, column] for column in preconditioners] for row in directions]
)

_, axes = plt.subplots(figsize=(8, 4), layout="constrained")
axes.imshow(np.minimum(table, 0.3), cmap="cividis_r", vmin=table.min(), vmax=0.3)
axes.set(
    xlabel="preconditioner",
    ylabel="direction",
    title="Validation loss after 4 epochs, at each cell's best learning rate",
)
axes.set_xticks(range(len(preconditioners)), preconditioners)
axes.set_yticks(range(len(directions)), directions)
for (i, j), value in np.ndenumerate(table):
    text = f"{value:.3f}" if value < 10 else "fails"
    axes.text(
        j, i, text, ha="center", va="center", color="white" if value > 0.2 else "black"
    )
plt.show()

# %% [markdown]
# Read it by rows and by columns, but with a ruler: three shuffles differ, and so do the cells.

# %%
ranked = sorted(best, key=best.get)
for cell in ranked[:5]:
    at = mean[cell].argmin()
    shuffle_to_shuffle = results[cell][at].max() - results[cell][at].min()
    print(
        f"{cell[0]:>12} × {cell[1]:<9}  {best[cell]:.3f} at rate {rates[at]:<8.2g}  "
        f"shuffles differ by {shuffle_to_shuffle:.3f}"
    )
adam = ranked.index(("ema", "mean")) + 1
plain = ranked.index(("none", "none")) + 1
failed = [cell for cell in ranked if best[cell] > 1]
print(
    f"\nAdam is number {adam}, plain gradient descent number {plain} of "
    f"{len(ranked)}; {len(failed)} fail: {failed}"
)
assert all(cell[1] == "deviation" for cell in failed)

# %% [markdown]
# A short race on easy data is no verdict on forty methods. What it shows is how a question like "is it the momentum
# or the preconditioner?" is asked: change one of the two and hold the other. And the best result is half of the
# matter; the other half is how carefully the learning rate must be chosen for it.

# %%
shown = {
    "gradient descent": ("none", "none"),
    "momentum": ("momentum", "none"),
    "RMSprop (corrected)": ("none", "mean"),
    "Adam": ("ema", "mean"),
    "AdaMax": ("ema", "inf-norm"),
}
for name, cell in shown.items():
    good = rates[mean[cell] < 2 * min(best.values())]
    print(
        f"{name:>20}: within twice the best loss at {len(good)} of {len(rates)} rates"
    )
plot.sensitivity(
    rates,
    {name: results[cell] for name, cell in shown.items()},
    ylabel="validation loss",
    title="How forgiving is each?",
)

# %% [markdown]
# ## What to remember
#
# - Adam differs from RMSprop with momentum in three things: it divides the *averaged* gradient (ratio of averages,
#   not average of ratios); its momentum is an average, not a sum, which rescales the learning rate; and it corrects
#   both averages for their start at zero.
# - In both, $v$ averages the square of the *raw* gradient. In gradxform a chain of momentum and RMS scaling means
#   just that.
# - The correction matters because $β_2$ is close to 1. To leave it out is a hidden learning-rate schedule: early
#   steps several times too long.
# - The Adam family is a grid, direction × preconditioner. `chain` builds every cell, named or not.
#
# ## Try
#
# 1. In *Difference 1*, change `scale_by_rms(0.99, …)` to 0.9. How much of the difference is left?
# 2. In *Difference 3*, set $β_1$ = $β_2$ = 0.9 (`gx.adam(1.0, b1=0.9, b2=0.9, …)`). Where is the longest
#    uncorrected step now? And if both are 0.999?
# 3. In the grid, replace `gx.two_emas(0.9, 0.99, 1.0)` by `gx.quasi_hyperbolic(0.9, 0.7)`. Does the row change more
#    than the shuffles differ?
