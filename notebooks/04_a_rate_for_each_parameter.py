# %% [markdown]
# # 4. A rate for each parameter: should all of them move at one speed?
#
# Gradient descent has one learning rate for all parameters. But a weight whose input is there in every example hears
# from the loss at every step, and one whose input is rare hears from it rarely. Adagrad, RMSprop and Adadelta give each
# parameter a rate of its own, from the gradients it has had.

# %%
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import gradxform as gx
from gradxform import plot

# %% [markdown]
# ## One dense feature, one sparse
#
# We make up a regression with two features. The first is +1 or -1 in every example; the second in one of twenty, and 0
# in the others. Both matter alike when they are there: $y = x_1 + x_2$.

# %%
rng = np.random.default_rng(0)
signs = rng.choice([-1.0, 1.0], size=(4000, 2))
x = np.stack([signs[:, 0], signs[:, 1] * (rng.random(4000) < 1 / 20)], axis=1)
x = jnp.asarray(x, jnp.float32)
y = x.sum(axis=1)


def loss(w, x=x, y=y):
    return jnp.mean((x @ w - y) ** 2) / 2


def batch_gradient(w, step):
    rows = jax.random.randint(
        jax.random.fold_in(jax.random.key(0), step), (16,), 0, 4000
    )
    return jax.grad(loss)(w, x[rows], y[rows])


bends = jnp.diag(jax.hessian(loss)(jnp.zeros(2)))
print(
    f"curvature {bends[0]:.2f} for the dense weight, {bends[1]:.3f} for the sparse one"
)

# %%
racers = {
    "gradient descent": gx.sgd(0.2),
    "Adagrad": gx.adagrad(0.3, initial_accumulator_value=0.0),
}
window = {
    "xlim": (-1.2, 1.5),
    "ylim": (-1.2, 1.5),
    "minimum": (1, 1),
    "xlabel": "dense weight",
    "ylabel": "sparse weight",
}
paths = {
    name: plot.path(tx, loss, [-1.0, -1.0], 100, gradient=batch_gradient)
    for name, tx in racers.items()
}
plot.animate(loss, paths, title="Batches of 16", **window)

# %%
for name, path in paths.items():
    there = [
        next((step for step, p in enumerate(path) if abs(p[i] - 1) < 0.2), None)
        for i in range(2)
    ]
    print(
        f"{name:16} within 0.2 of the best after {there[0]} steps (dense), "
        f"{there[1] or 'more than 100'} steps (sparse)"
    )
assert (
    abs(paths["gradient descent"][-1, 1] - 1) > 0.2 > abs(paths["Adagrad"][-1, 1] - 1)
)

# %% [markdown]
# Gradient descent goes right first, then up: the dense weight is done when the sparse one has hardly begun. Adagrad
# goes nearly straight to the corner.
#
# ## Adagrad divides by all it has seen
#
# $$s ← s + g^2, \qquad p ← p - \frac{α}{\sqrt{s}}\, g .$$
#
# Each weight has its own $s$, and so its own rate $α/\sqrt s$. We watch the two.

# %%
tx = gx.adagrad(0.3, initial_accumulator_value=0.0)


def adagrad_rates(w, steps=100):
    def step(carry, i):
        w, state = carry
        updates, state = tx.update(batch_gradient(w, i), state, w)
        return (gx.apply_updates(w, updates), state), 0.3 / jnp.sqrt(gx.get(state, "v"))

    rates = np.asarray(jax.lax.scan(step, (w, tx.init(w)), jnp.arange(steps))[1])
    # until the first example with the sparse feature
    return np.where(np.isinf(rates), np.nan, rates)


rates = adagrad_rates(jnp.array([-1.0, -1.0]))
plot.curves(
    {"dense weight": rates[:, 0], "sparse weight": rates[:, 1]},
    log=True,
    ylabel="rate α/√s",
)

# %% [markdown]
# The rare weight has a rate several times as large, and both only ever fall. On a slope that does not change, the steps
# shrink like $1/\sqrt t$:

# %%
print(
    f"after 100 steps the rates are {rates[-1, 0]:.3f} and {rates[-1, 1]:.3f}: "
    f"{rates[-1, 1] / rates[-1, 0]:.1f} times"
)
assert rates[-1, 1] > 2 * rates[-1, 0]
slope = lambda p: -p[0]
slide = plot.path(gx.adagrad(1.0, initial_accumulator_value=0.0), slope, [0.0], 100)[
    :, 0
]
moved = np.diff(slide)
print("steps 1, 4, 25, 100:", moved[[0, 3, 24, 99]].round(3))
assert np.allclose(moved, 1 / np.sqrt(np.arange(1, 101)), rtol=1e-3)

# %% [markdown]
# For sparse features and convex losses that is what one wants: it is a decay that needs no schedule. But $s$ never
# forgets.
#
# ## A cliff, then a plain
#
# Here a path begins on a cliff and goes on over a plain, where the gradients are much smaller. What one learned on the
# cliff is of no use on the plain. RMSprop averages in place of adding, so that it forgets:
#
# $$v ← βv + (1-β)\,g^2, \qquad p ← p - \frac{α}{\sqrt{v}}\, g .$$


# %%
def cliff(p):
    return (
        0.05 * (p[0] - 4) ** 2 + 0.5 * p[1] ** 2 + 5 * jax.nn.softplus(-4 * (p[0] + 2))
    )


start = [-3.0, 1.0]
racers = {
    "Adagrad, α = 0.3": gx.adagrad(0.3, initial_accumulator_value=0.0),
    "RMSprop, α = 0.1": gx.rmsprop(0.1, decay=0.9),
    "Adadelta": gx.adadelta(),
}
paths = {name: plot.path(tx, cliff, start, 150) for name, tx in racers.items()}
field = {"xlim": (-3.5, 5.2), "ylim": (-1.5, 2), "minimum": (4, 0), "log": True}
plot.animate(cliff, paths, title="A cliff at the left, a plain at the right", **field)

# %%
lengths = {
    name: np.linalg.norm(np.diff(path, axis=0), axis=1) for name, path in paths.items()
}
plot.curves(lengths, x=np.arange(1, 151), log=True, ylabel="length of the step")

# %%
at_start, on_plain = (
    float(jnp.linalg.norm(jax.grad(cliff)(jnp.array(p)))) for p in (start, [0.0, 0.0])
)
print(
    f"the gradient is {at_start:.0f} long at the start, {on_plain:.1f} on the plain "
    "at x = 0"
)
for name, path in paths.items():
    print(
        f"{name:17} is {np.linalg.norm(path[-1] - np.array([4.0, 0.0])):.2f} from "
        "the minimum after 150 steps"
    )
assert paths["RMSprop, α = 0.1"][-1, 0] > 3.5 > paths["Adagrad, α = 0.3"][-1, 0]

# %% [markdown]
# Adagrad carries the cliff with it to the end. In RMSprop's average the cliff loses a factor of $e$ every $1/(1-β)$
# steps, so it takes a while as well until the plain is all it knows:

# %%
forgotten = np.log((at_start / on_plain) ** 2) / (1 - 0.9)
print(
    f"squared, the cliff is {(at_start / on_plain) ** 2:.0f} times the plain: "
    f"forgotten after about {forgotten:.0f} steps"
)
longest = int(np.argmax(lengths["RMSprop, α = 0.1"][20:])) + 21
dx, dy = np.abs(np.diff(paths["RMSprop, α = 0.1"], axis=0))[longest - 1]
print(
    f"RMSprop's longest step on the plain is step {longest}: {dx:.2f} along x, "
    f"{dy:.2f} along y"
)
assert dy > dx
assert abs(longest - forgotten) < 15

# %% [markdown]
# Then it walks at its own pace. (The wobble at that moment is the other coordinate: $y$ has long arrived, its $v$ has
# shrunk to nothing, and so the least gradient makes a full step.) There are two sides to that pace:

# %%
steady = np.diff(plot.path(gx.rmsprop(0.1, decay=0.9), slope, [0.0], 100)[:, 0])
print(
    f"RMSprop on a constant slope: the first step is {steady[0]:.3f}, the last "
    f"{steady[-1]:.3f}, whatever the slope"
)
steeper = np.diff(
    plot.path(gx.rmsprop(0.1, decay=0.9), lambda p: -1000 * p[0], [0.0], 100)[:, 0]
)
assert np.allclose(steady, steeper, rtol=1e-3)
# v starts at 0 and is not corrected: notebook 5
assert np.isclose(steady[0], 0.1 / np.sqrt(1 - 0.9), rtol=1e-3)

bowl = lambda p: p[0] ** 2 / 2
for rate in (0.1, 0.01):
    resting = np.abs(
        plot.path(gx.rmsprop(rate, decay=0.9), bowl, [1.0], 2000)[-200:, 0]
    )
    print(
        f"α = {rate}: around a minimum it goes on moving, up to {resting.max():.3f} "
        "away"
    )
    assert rate / 4 < resting.max() < rate

# %% [markdown]
# Each step is about α long, on a plain as on a cliff, *and at the minimum*. RMSprop needs a learning rate that decays
# (notebook 6).
#
# ## Units, and Adadelta
#
# Suppose that a parameter is a length in metres. A gradient is then loss per metre. Now write the same thing in
# millimetres, or multiply the loss by 1000: does the method still walk the same path? We let each walk 100 steps down a
# slope, and compare how many metres it covers.


# %%
def metres(tx, loss_unit=1.0, length_unit=1.0):
    """How far it walks in 100 steps, in metres, when it sees the loss and the length in
    other units.
    """
    walked = plot.path(tx, lambda p: -loss_unit * p[0] * length_unit, [0.0], 100)[-1, 0]
    return walked * length_unit


methods = {
    "gradient descent": gx.sgd(0.01),
    "Adagrad": gx.adagrad(0.01, initial_accumulator_value=0.0),
    "RMSprop": gx.rmsprop(0.01),
    "Adadelta": gx.adadelta(),
}
print("times as far, when     the loss is × 1000     metres become millimetres")
ratios = {}
for name, tx in methods.items():
    ratios[name] = (
        metres(tx, loss_unit=1000.0) / metres(tx),
        metres(tx, length_unit=1e-3) / metres(tx),
    )
    print(f"{name:22} {ratios[name][0]:14.4g}       {ratios[name][1]:20.2g}")
assert np.isclose(ratios["gradient descent"][0], 1000, rtol=1e-3)
assert np.isclose(ratios["gradient descent"][1], 1e-6, rtol=1e-3)
for name in ("Adagrad", "RMSprop", "Adadelta"):
    assert np.isclose(ratios[name][0], 1, rtol=1e-3)

# %% [markdown]
# Dividing by the root of squared gradients makes a method indifferent to the unit of the loss. To the unit of the
# parameter Adagrad and RMSprop are not: a step is α long, and α has the parameter's unit. Zeiler's Adadelta wants to
# get that right as well. It keeps an average of its own squared *steps* and multiplies by its root:
#
# $$Δ = \frac{\sqrt{E[Δ^2] + ε}}{\sqrt{E[g^2] + ε}}\; g, \qquad p ← p - Δ .$$
#
# The fraction has the unit (parameter / gradient), so Δ has the parameter's, and no learning rate is needed. Yet the
# table says that in millimetres it does not walk as far. Why not? Because $E[Δ^2]$ starts at zero, and grows from ε
# alone:

# %%
steps_taken = {
    f"ε = {eps:g}": np.diff(
        plot.path(gx.adadelta(eps=eps), lambda p: -100 * p[0], [0.0], 300)[:, 0]
    )
    for eps in (1e-8, 1e-6, 1e-4)
}
plot.curves(
    steps_taken,
    x=np.arange(1, 301),
    log=True,
    ylabel="length of the step",
    title="Adadelta on a constant slope, α = 1",
)

# %%
for name, steps in steps_taken.items():
    law = np.sqrt(float(name.split()[-1]) * (1 + (1 - 0.9) * 300))
    print(f"{name:10} step 300 is {steps[-1]:.2e}; √(ε (1 + (1-ρ) t)) = {law:.2e}")
    assert np.isclose(steps[-1], law, rtol=0.2)
for less, more in (("ε = 1e-08", "ε = 1e-06"), ("ε = 1e-06", "ε = 0.0001")):
    assert np.isclose(steps_taken[more][-1] / steps_taken[less][-1], 10, rtol=0.05)

# %% [markdown]
# A hundred times the ε makes ten times the step. On a constant slope the step is about $\sqrt{ε\,(1 + (1-ρ)\,t)}$:
# Adadelta's learning rate has not gone, it is called $\sqrt ε$, and that is what carries the unit.
#
# ## Real features, sparse and dense
#
# The images of digits have 64 pixels with values from 0 to 16. We make one feature of each (pixel, value) that occurs,
# which is 1 where the pixel has that value: what one does with words or categories. Some features are there in every
# image, some in one of a thousand.

# %%
digits = load_digits()
one_hot = (digits.data[:, :, None] == np.arange(17)).reshape(len(digits.data), -1)
one_hot = one_hot[:, one_hot.any(axis=0)].astype(np.float32)
order = rng.permutation(len(one_hot))
train = {"x": one_hot[order[:1200]], "y": digits.target[order[:1200]]}
held_out = {"x": one_hot[order[1200:]], "y": digits.target[order[1200:]]}
share = one_hot.mean(axis=0)
print(
    f"{one_hot.shape[1]} features: the rarest in {share.min():.2%} of the images, "
    f"the densest in {share.max():.0%}"
)
print(f"half of them are in less than {np.median(share):.1%}")


def cross_entropy(w, batch, key=None):
    scores = jax.nn.log_softmax(batch["x"] @ w)
    return -jnp.mean(jnp.take_along_axis(scores, batch["y"][:, None], axis=1))


def fit(tx, epochs=5):
    w = jnp.zeros((one_hot.shape[1], 10))
    return gx.fit(
        cross_entropy,
        tx,
        w,
        train,
        key=jax.random.key(0),
        epochs=epochs,
        batch_size=16,
        validation=held_out,
    )


# %% [markdown]
# Each method at thirteen learning rates. An optimizer is a pytree of its numbers, so `gx.stack` makes one of thirteen,
# and `vmap` trains them all at once.

# %%
learning_rates = np.geomspace(1e-4, 100, 13)
families = {
    "gradient descent": gx.sgd,
    "Adagrad": lambda rate: gx.adagrad(rate, initial_accumulator_value=0.0),
    "RMSprop": gx.rmsprop,
    "Adadelta": gx.adadelta,
}
results = {
    name: jax.vmap(fit)(gx.stack([make(rate) for rate in learning_rates]))
    for name, make in families.items()
}
final = {
    name: np.asarray(result.history["val_loss"][:, -1])
    for name, result in results.items()
}
figure = plot.sensitivity(
    learning_rates, final, ylabel="loss on held-out digits", title="After five epochs"
)
figure.axes[0].set_ylim(0.1, 10)
figure

# %%
best = {name: int(np.nanargmin(y)) for name, y in final.items()}
for name, i in best.items():
    print(
        f"{name:16} best at α = {learning_rates[i]:<7.3g} with loss "
        f"{final[name][i]:.3f}"
    )
print(f"Adadelta at its α = 1: {final['Adadelta'][8]:.3f}")
assert learning_rates[8] == 1.0
assert final["Adadelta"][8] > 1.3 * final["Adadelta"].min()

# %% [markdown]
# Well tuned, all four come out close to each other. The curves lie at different rates, since their learning rates mean
# different things; and Adadelta without a learning rate (α = 1) does leave something on the table.
#
# Where they do differ is in *which* weights they move. After one epoch, each at its best rate:

# %%
moved = {}
for name, i in best.items():
    w = fit(families[name](learning_rates[i]), epochs=1).params
    moved[name] = np.linalg.norm(w, axis=1)
in_train = train["x"].mean(axis=0)
bins = np.geomspace(0.002, 1, 9)
group = np.digitize(in_train, bins[1:-1])
seen = in_train > 0.002
centres = np.sqrt(bins[:-1] * bins[1:])
by_share = {
    name: [m[seen & (group == k)].mean() for k in range(8)] for name, m in moved.items()
}
figure = plot.curves(
    by_share,
    x=centres,
    log=True,
    xlabel="share of the images that have the feature",
    ylabel="how far its weights moved",
)
figure.axes[0].set_xscale("log")
figure

# %%
spread = {name: y[6] / y[0] for name, y in by_share.items()}
for name, y in spread.items():
    print(
        f"{name:16} weights of features in {centres[6]:.0%} of the images move "
        f"{y:4.1f} times as far as those in {centres[0]:.1%}"
    )
assert (
    spread["gradient descent"]
    > spread["Adadelta"]
    > spread["RMSprop"]
    > spread["Adagrad"]
)

# %% [markdown]
# Under gradient descent the weights of rare features hardly move. Adagrad lets them catch up the most. Whether that is
# a gain depends on what the rare features know: here, single grey values of single pixels know little; in text, the
# rare words are often the telling ones.
#
# ## What to remember
#
# - Adagrad divides by the root of the *sum* of squared gradients: rare parameters keep large rates, all rates only
#   fall.
# - RMSprop takes the *average*: it forgets a cliff, by a factor of $e$ in $1/(1-β)$ steps; it walks α per step on any
#   slope, and so does not come to rest by itself.
# - Both do not care about the unit of the loss. Their α has the unit of the parameter.
# - Adadelta replaces α by the size of its own past steps; that starts from ε, so $\sqrt ε$ is the learning rate in
#   disguise.
# - Compare methods at their best learning rates, or not at all.
#
# ## Try
#
# 1. In the first race, make the sparse feature ten times as rare (1/200). Which path changes?
# 2. On the cliff, give RMSprop β = 0.999. Which of the two methods does it then resemble, and for how long?
# 3. Give Adadelta `eps=1e-4` on the digits. Where does its best α go, and why there?
