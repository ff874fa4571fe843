# %% [markdown]
# # 6. How should the learning rate change while we train?
#
# With a large learning rate mini-batch gradient descent gets near the minimum quickly and then wanders about it;
# with a small one it arrives late. So: start large, end small. The course knows half a dozen formulas for it,
# practice has added warm-up, cosine and the rest. Here they are, all drawn, all tried, and put together from
# pieces. In gradxform a schedule is a value like an optimizer: it prints as code, its numbers can be batched and
# differentiated, and any hyperparameter takes one.

# %%
import jax
import jax.numpy as jnp
import numpy as np

import gradxform as gx
from gradxform import plot

# %% [markdown]
# ## Why decay at all
#
# A bowl with noisy gradients, $f(x) = x^2/2$ and $g = x + $ noise, as mini-batches give them. Four constant rates,
# then one that decays. Each line is the mean over 200 runs.


# %%
def distance(tx, key, steps=400):
    """|x| along one noisy descent from x = 10."""

    def step(carry, key):
        x, state = carry
        update, state = tx.update(x + jax.random.normal(key), state, x)
        return (x + update, state), jnp.abs(x)

    start = jnp.float32(10.0)
    return jax.lax.scan(step, (start, tx.init(start)), jax.random.split(key, steps))[1]


@jax.jit
def mean_distance(tx):
    return jax.vmap(distance, in_axes=(None, 0))(
        tx, jax.random.split(jax.random.key(0), 200)
    ).mean(0)


runs = {
    f"constant {rate}": mean_distance(gx.sgd(rate)) for rate in (0.3, 0.1, 0.03, 0.01)
}
runs["0.3 / (1 + 0.1 step)"] = mean_distance(gx.sgd(gx.inverse_time_decay(0.3, 0.1)))
final = {name: float(line[-50:].mean()) for name, line in runs.items()}
print({name: round(value, 3) for name, value in final.items()})
assert min(final, key=final.get).startswith("0.3 /")
assert final["constant 0.3"] > final["constant 0.1"] > final["constant 0.03"]
plot.curves(
    runs,
    log=True,
    ylabel="mean |x|",
    title="A noisy bowl: a constant rate stops at its noise floor",
)

# %% [markdown]
# Every constant rate comes to a floor, and the lower the floor, the longer the way down. The decaying rate goes
# down with the fastest and then below all of them.
#
# ## Every decay of the course

# %%
n = 1000
course = {
    "step decay": gx.step_decay(0.1, factor=0.5, every=250),
    "exponential": gx.exponential_decay(0.1, transition_steps=250, decay_rate=0.5),
    "exponential, staircase": gx.exponential_decay(
        0.1, transition_steps=250, decay_rate=0.5, staircase=True
    ),
    "natural exponential": gx.natural_exp_decay(0.1, k=0.003),
    "1 / (1 + kt)": gx.inverse_time_decay(0.1, k=0.01),
    "1 / √t": gx.inverse_sqrt_decay(0.1, transition_steps=10),
    "polynomial": gx.polynomial_schedule(0.1, 0.0, power=2, transition_steps=n),
    "linear": gx.linear_schedule(0.1, 0.0, n),
    "manual": gx.manual_schedule([0.1, 0.02, 0.05, 0.005], boundaries=[300, 500, 800]),
}
plot.schedules(course, n, columns=3, title="The decays of the course")

# %% [markdown]
# A schedule is a function of the step (0 at the first update) and can be read as a table. Formulas that look
# different may be the same: 0.5 every 250 steps is a natural exponential with $k = \ln 2 / 250$, and step decay is
# the exponential's staircase.

# %%
at = range(0, n, 125)
print(course["exponential"].table(at))
k = np.log(2) / 250
same = gx.natural_exp_decay(0.1, k)
np.testing.assert_allclose(
    [same(i) for i in at], [course["exponential"](i) for i in at], rtol=1e-5
)
np.testing.assert_allclose(
    [course["step decay"](i) for i in at],
    [course["exponential, staircase"](i) for i in at],
    rtol=1e-5,
)

# %% [markdown]
# Many books count epochs, not steps. `per_epoch` translates: here 0.1 / (1 + epoch) with 26 mini-batches to an
# epoch.

# %%
by_epoch = gx.per_epoch(gx.inverse_time_decay(0.1, k=1.0), steps_per_epoch=26)
print(by_epoch.table([0, 25, 26, 51, 52]))

# %% [markdown]
# ## What practice has added: warm-up, cosine, one cycle, warm-up–stable–decay

# %%
practice = {
    "warm-up, constant": gx.warmup_constant_schedule(0.0, 0.1, warmup_steps=100),
    "cosine": gx.cosine_decay_schedule(0.1, n),
    "warm-up, cosine": gx.warmup_cosine_decay_schedule(
        0.0, 0.1, warmup_steps=100, decay_steps=n
    ),
    "warm-up, linear": gx.warmup_linear_decay_schedule(
        0.0, 0.1, warmup_steps=100, decay_steps=n
    ),
    "one cycle": gx.cosine_onecycle_schedule(n, 0.1),
    "warm-up, stable, decay": gx.wsd_schedule(
        0.1, warmup_steps=100, stable_steps=650, decay_steps=250, shape="sqrt"
    ),
    "warm restarts": gx.cosine_restarts_schedule(0.1, first_decay_steps=150, t_mul=2.0),
    "triangles": gx.cyclic_schedule(0.01, 0.1, step_size_up=125, mode="triangular2"),
    "REX": gx.rex_schedule(0.1, n),
}
plot.schedules(practice, n, columns=3, title="The schedules of practice")

# %% [markdown]
# **Warm-up** shortens the first steps. **Cosine** is a smooth way from large to small. **One cycle** does both.
# **Warm-up–stable–decay** keeps the peak until the end is in sight, so that the length of the training can be
# decided late: only the last stretch depends on it.
#
# ## Build your own from stretches
#
# A *stretch* is a schedule that lasts. `>>` puts one after another, `*` and `+` combine, and the result prints as
# it was written.

# %%
wsd = 0.1 * (gx.warmup(100) >> gx.constant(650) >> gx.cooldown(250, shape="sqrt"))
wavy = wsd * (1 + 0.2 * gx.cyclic_schedule(-1.0, 1.0, step_size_up=25))
print(wsd)
print(wavy)
print(wsd.table([0, 50, 100, 500, 749, 750, 800, 1000]))
np.testing.assert_allclose(
    [wsd(i) for i in at], [practice["warm-up, stable, decay"](i) for i in at], rtol=1e-5
)
plot.schedules(
    {"wsd": wsd, "wavy": wavy}, n, title="Products and sequences of schedules"
)

# %% [markdown]
# What has no length cannot be followed. The message says what to do:

# %%
try:
    gx.constant() >> gx.cooldown(100)
except TypeError as error:
    print(error)

# %% [markdown]
# ## Do they matter? Digits
#
# A small network on scikit-learn's handwritten digits, twelve epochs, every schedule at seven peak rates and from
# three random starts. The peak is a leaf of the schedule, which is a leaf of the optimizer, so that `vmap` runs
# over rates here too.

# %%
from sklearn.datasets import load_digits

digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.target))
x, y = (
    jnp.asarray(digits.data[order] / 16, jnp.float32),
    jnp.asarray(digits.target[order]),
)
train, validation = {"x": x[:1300], "y": y[:1300]}, {"x": x[1300:], "y": y[1300:]}


def init(key, hidden=32):
    first, second = jax.random.split(key)
    return {
        "hidden": {
            "kernel": jax.random.normal(first, (64, hidden)) * (2 / 64) ** 0.5,
            "bias": jnp.zeros(hidden),
        },
        "out": {
            "kernel": jax.random.normal(second, (hidden, 10)) * (1 / hidden) ** 0.5,
            "bias": jnp.zeros(10),
        },
    }


def loss(params, batch, key):
    h = jax.nn.relu(batch["x"] @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    logits = h @ params["out"]["kernel"] + params["out"]["bias"]
    return gx.losses.softmax_cross_entropy_with_integer_labels(
        logits, batch["y"]
    ).mean()


def fit(tx, key, **options):
    return gx.fit(
        loss,
        tx,
        init(key),
        train,
        key=key,
        epochs=12,
        batch_size=50,
        validation=validation,
        **options,
    )


# %%
steps = 12 * 1300 // 50
shapes = {
    "constant": gx.constant(),
    "step decay": gx.step_decay(1.0, 0.3, every=steps // 3),
    "1 / (1 + kt)": gx.inverse_time_decay(1.0, 10 / steps),
    "cosine": gx.cosine_decay_schedule(1.0, steps),
    "warm-up, cosine": gx.warmup(steps // 10)
    >> gx.cooldown(steps - steps // 10, shape="cosine"),
    "wsd": gx.warmup(steps // 10)
    >> gx.constant(steps // 2)
    >> gx.cooldown(steps - steps // 10 - steps // 2),
}
peaks = np.logspace(-2, 1, 7)
keys = jax.random.split(jax.random.key(0), 3)


def at_all_peaks(shape):
    """The final validation loss of gradient descent with momentum, at every peak rate,
    from every start.
    """

    def at(peak, key):
        return fit(gx.sgd(peak * shape, momentum=0.9), key).history["val_loss"][-1]

    return jax.vmap(jax.vmap(at, (None, 0)), (0, None))(
        jnp.asarray(peaks, jnp.float32), keys
    )


# each program runs once: compiling it quickly matters more than its speed
quick = jax.jit(at_all_peaks, compiler_options={"xla_backend_optimization_level": 0})
losses = {name: np.asarray(quick(shape)) for name, shape in shapes.items()}
mean = {
    name: np.nan_to_num(values.mean(1), nan=np.inf) for name, values in losses.items()
}
for name, line in mean.items():
    print(
        f"{name:>16}: best {line.min():.3f}, at a peak of "
        f"{peaks[line.argmin()]:.2g}; at a peak of 1: {line[4]:.2f}"
    )
ending_low = [
    mean[name].min() for name in ("step decay", "cosine", "warm-up, cosine", "wsd")
]
assert max(ending_low) < mean["constant"].min()
assert mean["warm-up, cosine"].min() > 0.9 * mean["cosine"].min()
assert min(mean, key=lambda name: mean[name][4]) == "1 / (1 + kt)"
plot.sensitivity(
    peaks,
    losses,
    xlabel="peak learning rate",
    ylabel="validation loss",
    title="Momentum on digits",
)

# %% [markdown]
# At its best peak every schedule that ends low beats the constant rate. Too large a peak is forgiven by 1/(1 + kt)
# alone, which has left it before the damage is done. And warm-up? On this shallow network it gains nothing on the
# cosine alone; it is made for first steps that would break something: deep networks, large batches, averages that
# know little yet.
#
# ## Let the loss decide: decay on plateau
#
# `reduce_on_plateau` multiplies the steps by a factor each time a watched value has stopped improving. In `gx.fit`
# it watches the validation loss once an epoch; in a chain of your own it reads `update(..., value=loss)`.
# `gx.Training` is the loop behind `fit`, one epoch at a time, and its carry shows the scale.

# %%
training = gx.Training(
    loss,
    gx.sgd(0.5),
    batch_size=50,
    plateau=gx.reduce_on_plateau(factor=0.3, patience=2, rtol=0.01),
)
carry = training.init(init(keys[0]), keys[0])
scale, curve = [], []
for _ in range(30):
    scale.append(float(carry.scale))
    carry, metrics = training.epoch(carry, train, validation)
    curve.append(float(metrics["val_loss"]))
drops = [epoch for epoch in range(1, 30) if scale[epoch] < scale[epoch - 1]]
print(
    "the scale fell in epochs", drops, "to", [round(scale[epoch], 4) for epoch in drops]
)
assert drops
plot.curves(
    {"validation loss": np.array(curve), "scale of the steps": np.array(scale)},
    log=True,
    xlabel="epoch",
    ylabel="loss, scale",
    title="Decay on plateau: 0.3 times after two epochs without an improvement of 1 %",
)

# %% [markdown]
# ## Schedule anything
#
# There is one mechanism for all hyperparameters: wherever a number may stand, a schedule may, and a table by
# parameter path may hold schedules. Any function of the step is a schedule, too. `gx.numbers` reads what was used
# at the last update.

# %%
everything = gx.adamw(
    0.01 * (gx.warmup(20) >> gx.cooldown(80)),
    b1=gx.linear_schedule(0.85, 0.95, 100),
    b2=lambda step: 1 - 1 / (step + 10.0),
    weight_decay=gx.by_path({"**/kernel": gx.constant_schedule(0.1), "**": 0.0}),
)
params = init(keys[0])
state = everything.init(params)
for step in range(51):
    updates, state = everything.update(params, state, params)  # any gradient will do
    if step % 25 == 0:
        used = gx.numbers(everything, state)
        print(
            step,
            {
                name: f"{float(used[name]):.4f}"
                for name in ("learning_rate", "b1", "b2")
            },
        )
np.testing.assert_allclose(used["learning_rate"], 0.01 * (1 - 30 / 80), rtol=1e-5)

# %% [markdown]
# And since the schedule's numbers are leaves of the optimizer, the result of a whole training can be differentiated
# by them. Back to the noisy bowl: should 0.3 / (1 + 0.1 step) start higher, or decay faster? The derivative is
# shaped like the optimizer.


# %%
@jax.jit
def final_distance(tx):
    return mean_distance(tx)[-50:].mean()


tx = gx.sgd(gx.inverse_time_decay(0.3, 0.1))
slope = gx.hypergradient(final_distance, tx).learning_rate
print(f"slope by the first rate: {slope.init_value:+.3f}, by k: {slope.k:+.3f}")
moved = gx.sgd(gx.inverse_time_decay(0.3 - 0.1 * slope.init_value, 0.1 - 0.1 * slope.k))
print(
    f"from {final_distance(tx):.4f} to {final_distance(moved):.4f} by one step downhill"
)
assert final_distance(moved) < final_distance(tx)

# %% [markdown]
# ## What to remember
#
# - A constant rate stops at a noise floor; decay goes below it. The floor falls with the rate, and so does the
#   speed.
# - Step, staircase, exponential, 1/(1 + kt), 1/√t and polynomial decays are curves through the same two demands:
#   large at first, small at the end.
# - Warm-up is for the first steps, decay for the last; the peak in between is what must be tuned.
# - Stretches and `>>` write a schedule as one says it, and every hyperparameter takes one.
#
# ## Try
#
# 1. In *Why decay at all*, change k in `inverse_time_decay(0.3, 0.1)` to 1.0 and to 0.01. When does it arrive too
#    late, when does it stay too noisy?
# 2. In *Do they matter?*, set `momentum=0.0`. Where do the best peaks go, and by what factor?
# 3. Write a schedule that warms up over 50 steps, holds for 200, falls to a tenth in 50, holds again and ends in a
#    cosine. Draw it with `plot.schedules`.
