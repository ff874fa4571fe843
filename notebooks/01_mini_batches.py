# %% [markdown]
# # 1. Mini-batches: how many examples should one step see?
#
# The gradient of a loss over $n$ examples is a mean of $n$ gradients. One can pay for all of them at each step (*full
# batch*), for one (*stochastic*), or for a few (*mini-batch*). We do all three on a model with two parameters, so that
# every step can be drawn, and measure what the size of the batch buys.

# %%
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_diabetes, load_digits

import gradxform as gx
from gradxform import plot

# %% [markdown]
# ## A bowl from real data
#
# 442 patients, the progress of their diabetes after one year, and two of the measurements taken at the start: the body
# mass index and the logarithm of the triglycerides. Everything is standardised, so a linear model needs no intercept.

# %%
measured = load_diabetes(as_frame=True).frame
table = (measured - measured.mean()) / measured.std(ddof=0)
patients = {
    "x": table[["bmi", "s5"]].to_numpy(np.float32),
    "y": table["target"].to_numpy(np.float32),
}
n = len(patients["y"])


def loss(w, batch, key=None):
    return jnp.mean((batch["x"] @ w - batch["y"]) ** 2) / 2


best = np.linalg.lstsq(patients["x"], patients["y"])[0]
lowest = float(loss(best, patients))
print(f"{n} examples; the least loss is {lowest:.4f}, at w = {best.round(3)}")

# %% [markdown]
# ## One epoch, three ways
#
# `gx.batches` cuts the shuffled examples into batches; an *epoch* is one pass over all of them. The learning rate is
# the same for all three, and so is what they pay: every example twice.


# %%
@jax.jit
def step(tx, w, state, batch):
    updates, state = tx.update(jax.grad(loss)(w, batch), state, w)
    return gx.apply_updates(w, updates), state


def walk(tx, data, batch_size, epochs, key, start=(-0.6, 1.0)):
    w, points = jnp.array(start), [start]
    state = tx.init(w)
    for epoch in range(epochs):
        order = None if key is None else jax.random.fold_in(key, epoch)
        for batch in gx.batches(order, data, batch_size):
            w, state = step(tx, w, state, batch)
            points.append(w)
    return np.stack(points)


sizes = {"full batch": n, "32 examples": 32, "one example": 1}
paths = {
    name: walk(gx.sgd(0.05), patients, size, 2, jax.random.key(0))
    for name, size in sizes.items()
}
for name, points in paths.items():
    excess = float(loss(points[-1], patients)) - lowest
    print(f"{name:12}  {len(points) - 1:4} steps   loss above the least: {excess:.4f}")

# %%
full = lambda w: loss(w, patients)
window = {
    "xlim": (-0.75, 1.0),
    "ylim": (-0.1, 1.15),
    "xlabel": "weight of body mass index",
    "ylabel": "weight of triglycerides",
}
plot.contour(
    full, paths, minimum=best, title="Two epochs at learning rate 0.05", **window
)

# %% [markdown]
# The full batch makes two good steps and has hardly moved. Single examples make 884 steps; they arrive early and then
# wander about, because no single patient agrees with the mean of all. The mini-batch has nearly the first one's
# straight path and nearly the last one's number of steps. Over more epochs, with five shuffles each:

# %%
assert len(paths["one example"]) - 1 == 884
keys = jax.random.split(jax.random.key(1), 5)


def curve(batch_size, tx, epochs=30):
    """Loss above the least after each epoch, [keys, epochs + 1]."""
    start = jnp.array([-0.6, 1.0])
    train = lambda key: gx.fit(
        loss,
        tx,
        start,
        patients,
        key=key,
        epochs=epochs,
        batch_size=batch_size,
        validation=patients,
    )
    after = jax.vmap(train)(keys).history["val_loss"]
    return np.hstack([np.full((len(keys), 1), full(start)), after]) - lowest


curves = {name: curve(size, gx.sgd(0.05)) for name, size in sizes.items()}
plot.curves(
    curves,
    xlabel="epoch",
    ylabel="loss above the least",
    log=True,
    title="The same rate, 30 epochs",
)

# %%
floor = {name: y[:, -10:].mean() for name, y in curves.items()}
for name, y in curves.items():
    print(
        f"{name:12}  after one epoch {y[:, 1].mean():.4f}   mean of the last ten "
        f"{floor[name]:.6f}"
    )
assert floor["32 examples"] < floor["one example"] / 10
assert curves["32 examples"][:, 1].mean() < curves["full batch"][:, 1].mean() / 2
lower = curve(1, gx.sgd(0.005))[:, -10:].mean()
print(f"one example, at a tenth of the rate: {lower:.6f}")
assert lower < floor["one example"] / 3

# %% [markdown]
# Small batches are quick at first and then stop at a *noise floor*, where each step undoes the one before. The floor
# falls with the learning rate, which is one reason to decay it (notebook 6). The full batch has no floor; it only takes
# its time.
#
# ## How noisy is a batch? As $1/\sqrt{B}$
#
# At one point we take the gradient of each example alone, shuffle them 2000 times, and average the first $B$: 2000
# batches of every size. How far are these from the gradient of all examples (root mean square)?

# %%
point = jnp.zeros(2)
alone = jax.vmap(jax.grad(loss), in_axes=(None, 0))(point, patients)  # [n, 2]
shuffled = np.random.default_rng(0).permuted(np.tile(np.arange(n), (2000, 1)), axis=1)
batch_sizes = np.arange(1, n)
# [shuffles, B, 2]
gradients = (
    np.cumsum(np.asarray(alone)[shuffled], axis=1)[:, :-1] / batch_sizes[:, None]
)
truth = np.asarray(alone).mean(axis=0)
noise = np.sqrt(((gradients - truth) ** 2).sum(axis=2).mean(axis=0))

law = noise[0] / np.sqrt(batch_sizes)
finite = law * np.sqrt((n - batch_sizes) / (n - 1))
lines = {"measured": noise, "1/√B": law, "1/√B, n examples in all": finite}
figure = plot.curves(
    lines,
    x=batch_sizes,
    xlabel="batch size B",
    ylabel="noise of the gradient (RMS)",
    log=True,
)
figure.axes[0].set_xscale("log")
figure

# %%
small = batch_sizes <= 64
slope = np.polyfit(np.log(batch_sizes[small]), np.log(noise[small]), 1)[0]
print(
    f"slope up to B = 64: {slope:.2f}; largest distance from the third line: "
    f"{np.abs(noise / finite - 1).max():.1%}"
)
print(
    f"the gradient is {np.linalg.norm(truth):.2f} long; the noise of 32 examples is "
    f"{noise[32 - 1]:.2f}, of one {noise[0]:.2f}"
)
assert abs(slope + 0.5) < 0.05
assert np.allclose(noise, finite, rtol=0.1)

# %% [markdown]
# The slope is $-1/2$. The full batch is exact because it leaves no example out: drawn without replacement, the noise is
# $\sqrt{(n-B)/(n-1)}$ times smaller than $1/\sqrt B$, which is the third line.
#
# So the last examples of a large batch buy little: noise falls as $1/\sqrt{B}$, cost rises as $B$.
#
# ## Shuffle, or forget
#
# Files often come sorted. Here are the digits sorted by their label, 0 first and 9 last, and a linear classifier that
# passes over them in batches of 32, in order and shuffled. After each batch we ask for its accuracy on all digits.

# %%
digits = load_digits()
by_label = np.argsort(digits.target, kind="stable")
images = {
    "x": (digits.data[by_label] / 16).astype(np.float32),
    "y": digits.target[by_label],
}


def cross_entropy(w, batch, key=None):
    scores = jax.nn.log_softmax(batch["x"] @ w)
    return -jnp.mean(scores[jnp.arange(len(batch["y"])), batch["y"]])


def accuracy_per_step(key, epochs=2):
    tx = gx.sgd(0.5)

    @jax.jit
    def step(w, state, batch):
        updates, state = tx.update(jax.grad(cross_entropy)(w, batch), state, w)
        w = gx.apply_updates(w, updates)
        return w, state, jnp.mean(jnp.argmax(images["x"] @ w, axis=1) == images["y"])

    w, accuracies = jnp.zeros((64, 10)), []
    state = tx.init(w)
    for epoch in range(epochs):
        for batch in gx.batches(
            None if key is None else jax.random.fold_in(key, epoch), images, 32
        ):
            w, state, accuracy = step(w, state, batch)
            accuracies.append(accuracy)
    return np.array(accuracies)


accuracies = {
    "shuffled": accuracy_per_step(jax.random.key(3)),
    "sorted by label": accuracy_per_step(None),
}
plot.curves(
    accuracies,
    xlabel="batch",
    ylabel="accuracy on all digits",
    title="Two epochs of digits",
)

# %%
for name, y in accuracies.items():
    print(
        f"{name:16} at the end of the second epoch {y[-1]:.0%}, at best {y.max():.0%}"
    )
assert accuracies["shuffled"][-1] > 0.9
assert accuracies["sorted by label"][-1] < 0.5

# %% [markdown]
# The sorted pass learns each digit as it comes and unlearns it while the next ones pass: the mean over a run of nines
# says nothing of the zeros. A batch is an estimate of the whole only if it is drawn from the whole. `gx.fit` shuffles
# each epoch anew, unless told `shuffle=False`.
#
# ## The last, smaller batch
#
# 442 examples are no multiple of 32, nor of 49:

# %%
for size in (32, 49):
    print(
        size,
        [len(batch["y"]) for batch in gx.batches(jax.random.key(4), patients, size)],
    )
assert n == 13 * 32 + 26 == 9 * 49 + 1

# %% [markdown]
# There are three ways to go wrong with the last one.
#
# **Average the batches as if they were equal**, and the few count as much as the many. A learning rate of 0 lets us see
# it: `gx.fit` weights each batch with its size, so that its training loss is the loss.

# %%
standing = gx.fit(
    loss,
    gx.sgd(0.0),
    jnp.zeros(2),
    patients,
    key=jax.random.key(4),
    epochs=1,
    batch_size=49,
)
reported, true = float(standing.history["train_loss"][0]), float(full(jnp.zeros(2)))
pieces = list(gx.batches(jax.random.key(4), patients, 49))
naive = float(np.mean([loss(jnp.zeros(2), piece) for piece in pieces]))
print(
    f"the loss {true:.4f}, reported {reported:.4f}, plain mean of the batches "
    f"{naive:.4f}"
)
assert np.isclose(reported, true, rtol=1e-6)
assert abs(naive - true) > 0.005

# %% [markdown]
# **Drop it**, and 26 patients sit out each epoch: harmless when the data are shuffled (others sit out next time), but
# never for validation. `drop_last=True` does so.
#
# **Keep it when it is tiny**: here the last one is a single patient, who has as much say as 49 others together.

# %%
remainder = {size: n % size for size in (32, 34, 49, 64)}
print("size of the last batch:", remainder)
print(
    f"noise of the gradient of 49 patients {noise[49 - 1]:.2f}, of one "
    f"{noise[0]:.2f}: {noise[0] / noise[49 - 1]:.1f} times as much"
)
assert remainder[49] == 1
assert remainder[34] == 0

# %% [markdown]
# A batch size that divides $n$, or leaves much, is free: here 34 leaves nothing.
#
# ## Large batches and sharp minima
#
# It is often said that large batches end in sharp minima. Here is a model on which one can see how. It is linear, with
# its one weight written as a product, $y ≈ a\,b\,x$ ($x$ the body mass index). All points of the hyperbola $ab = c$ are
# minima and all make the same predictions, but where $a$ and $b$ are unequal the valley is narrow: its curvature across
# is $a^2 + b^2$ (since $x$ has variance 1).

# %%
bmi = {"x": patients["x"][:, 0], "y": patients["y"]}


def product_loss(p, batch, key=None):
    return jnp.mean((p[0] * p[1] * batch["x"] - batch["y"]) ** 2) / 2


c = float(bmi["x"] @ bmi["y"] / n)
sharpness = lambda p: float(jnp.linalg.eigvalsh(jax.hessian(product_loss)(p, bmi))[-1])
narrow, wide = jnp.array([3.0, c / 3]), jnp.array([c**0.5, c**0.5])
print(
    f"c = {c:.3f}; curvature {sharpness(narrow):.2f} in a narrow place, "
    f"{sharpness(wide):.2f} in the widest"
)
for p in (narrow, wide):
    assert np.isclose(sharpness(p), jnp.sum(p**2), rtol=1e-4)

# %% [markdown]
# We start on the narrow side and train with the full batch, 32 and 4 examples, all at learning rate 0.1.


# %%
def walk_product(batch_size, key, epochs=40):
    train = gx.Training(product_loss, gx.sgd(0.1), batch_size)
    carry, points = train.init(jnp.array([3.0, 0.5]), key), [np.array([3.0, 0.5])]
    for _ in range(epochs):
        carry, _ = train.epoch(carry, bmi)
        points.append(np.asarray(carry.params))
    return np.stack(points)


sizes = {"full batch": n, "32 examples": 32, "4 examples": 4}
walks = {
    name: np.stack([walk_product(size, key) for key in keys])
    for name, size in sizes.items()
}
plot.contour(
    lambda p: product_loss(p, bmi),
    {name: w[0] for name, w in walks.items()},
    xlim=(0, 3.3),
    ylim=(0, 1.6),
    log=True,
    levels=16,
    xlabel="a",
    ylabel="b",
    title="40 epochs, one mark for several epochs",
)

# %%
plot.curves(
    {name: (w**2).sum(axis=2) for name, w in walks.items()},
    xlabel="epoch",
    ylabel="curvature across the valley, a² + b²",
    target=2 * c,
    title="Sharpness; the dashed line is the widest minimum",
)

# %% [markdown]
# All three reach the valley. Then the full batch rests where it arrived, and the small batches drift *along* the
# valley, to where it is wide. There is no mystery in it. If $r$ is the batch's mean of (residual × input), a step leads
# from $(a, b)$ to $(a - ηrb,\ b - ηra)$, and multiplying out gives exactly
#
# $$a'^2 - b'^2 = (a^2 - b^2)\,(1 - η^2 r^2).$$
#
# Each step shrinks the imbalance, by the *square* of its noise, and at a minimum only a small batch has noise left:
# $r^2 ∝ 1/B$.

# %%
first = next(gx.batches(jax.random.key(6), bmi, 4))
p = jnp.array([3.0, 0.5])
r = jnp.mean((p[0] * p[1] * first["x"] - first["y"]) * first["x"])
after = p - 0.1 * jax.grad(product_loss)(p, first)
print(
    f"a² - b² after one step: {after[0] ** 2 - after[1] ** 2:.6f}; by the law "
    f"{(p[0] ** 2 - p[1] ** 2) * (1 - 0.01 * r**2):.6f}"
)
assert np.isclose(
    after[0] ** 2 - after[1] ** 2,
    (p[0] ** 2 - p[1] ** 2) * (1 - 0.01 * r**2),
    rtol=1e-5,
)
final = {name: (w[:, -1] ** 2).sum(axis=1).mean() for name, w in walks.items()}
for name, curvature in final.items():
    print(
        f"{name:12} curvature {curvature:5.2f}: the largest stable learning rate is "
        f"{2 / curvature:.2f}"
    )
assert final["4 examples"] < final["32 examples"] < final["full batch"]

# %% [markdown]
# What is a wide minimum good for? Not for the predictions: here they are the same everywhere in the valley, so "sharp"
# is no synonym of "bad". But a wide minimum bears larger learning rates, and weights that are rounded or disturbed.
# Watch what a disturbance of 0.1 costs:

# %%
disturbed = 0.1 * jax.random.normal(jax.random.key(7), (2000, 2))
cost = {
    name: float(
        jnp.mean(
            jax.vmap(lambda d, q=q: product_loss(q + d, bmi) - product_loss(q, bmi))(
                disturbed
            )
        )
    )
    for name, q in {"narrow": narrow, "wide": wide}.items()
}
print(
    f"mean rise of the loss: {cost['narrow']:.4f} in the narrow minimum, "
    f"{cost['wide']:.4f} in the wide one"
)
assert cost["narrow"] > 3 * cost["wide"]

# %% [markdown]
# ## What to remember
#
# - A mini-batch gradient is the full gradient plus noise, and the noise falls as $1/\sqrt B$ while the cost rises as
#   $B$.
# - Small batches make many steps per epoch and stop at a noise floor; a smaller learning rate lowers the floor.
# - Shuffle each epoch. A batch of sorted data estimates nothing.
# - The last batch is smaller: weight it by its size, and avoid batch sizes that leave one example.
# - Noise pushes along a valley to where it is wide. Large batches have less of it.
#
# ## Try
#
# 1. Set the learning rate of the second section to 0.2, then 0.01. Which noise floors move, and by how much?
# 2. In `walk_product`, divide the learning rate by 10. By the law above, how many more epochs does the same drift need?
#    Check.
# 3. In `accuracy_per_step`, sort the digits but draw batches of 512. Does a large batch replace shuffling?
