# %% [markdown]
# # 8. Saddle points and plateaus: why does training stall, and what gets it going again?
#
# Loss curves often go flat for a long time and then fall again. A minimum is not left again; so what was it? We draw
# the two usual suspects, a saddle and a plateau, and then find one in a small network.

# %%
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from sklearn.datasets import load_digits

import gradxform as gx
from gradxform import plot
from gradxform.plot.picture import Picture

# %% [markdown]
# ## A saddle one can draw
#
# $f(x, y) = \frac12 x^2 - \frac12 y^2 + \frac14 y^4$ has two minima, at $y = ±1$, and between them a saddle: uphill
# along $x$, downhill along $y$, and level at the origin itself.


# %%
def saddle(p):
    return p[0] ** 2 / 2 - p[1] ** 2 / 2 + p[1] ** 4 / 4


side = np.linspace(-1.3, 1.3, 60)
grid = np.stack(np.meshgrid(side, side), axis=-1)
figure = Picture(figsize=(5.5, 3.8), layout="constrained")
axes = figure.add_subplot(projection="3d")
axes.plot_surface(
    *np.moveaxis(grid, -1, 0),
    np.asarray(jax.vmap(jax.vmap(saddle))(grid)),
    cmap="cividis",
    linewidth=0,
)
axes.set(xlabel="x", ylabel="y", zlabel="f(x, y)")
axes.tick_params(labelsize=7)
axes.view_init(28, -35)
figure

# %%
print(
    "gradient at the origin",
    jax.grad(saddle)(jnp.zeros(2)),
    "curvatures",
    jnp.linalg.eigvalsh(jax.hessian(saddle)(jnp.zeros(2))),
)

# %% [markdown]
# A path that comes down along the ridge, a hair's breadth from $y = 0$, finds nearly no slope to the side.

# %%
start = [-1.2, 1e-4]
racers = {
    "gradient descent": gx.sgd(0.05),
    "momentum": gx.sgd(0.05, momentum=0.9),
    "RMSprop": gx.rmsprop(0.05),
    "Adam": gx.adam(0.05),
}
paths = {name: plot.path(tx, saddle, start, 300) for name, tx in racers.items()}
window = {"xlim": (-1.4, 1.0), "ylim": (-0.4, 1.3), "minimum": (0, 1)}
plot.animate(saddle, paths, title="The same learning rate", **window)

# %%
plot.curves(
    {name: [float(saddle(p)) for p in path] for name, path in paths.items()},
    ylabel="f(x, y)",
    title="A plateau in the loss, and no minimum",
)

# %%
leaving = {
    name: int(np.argmax(np.abs(path[:, 1]) > 0.5)) for name, path in paths.items()
}
for name, step in leaving.items():
    print(f"{name:16} leaves the saddle (|y| > 0.5) at step {step}")
assert leaving["gradient descent"] > 2 * leaving["momentum"] > 2 * leaving["Adam"]

# %% [markdown]
# ## How long does one stay?
#
# Near the saddle the slope to the side is $-y$. Gradient descent multiplies $y$ by $1 + α$ per step: it grows like
# interest, from next to nothing. Momentum's interest is higher: $y$ and the velocity grow together by the larger root
# of $z^2 - (1 + β + α)\,z + β = 0$. RMSprop and Adam divide by the size of the gradient, however small it is, and so
# walk away at α per step. What does it cost to start ten times nearer to the ridge?

# %%
nearness = 10.0 ** -np.arange(1, 8)
stay = {}
for name, tx in racers.items():
    visited = [plot.path(tx, saddle, [-1.2, near], 1000)[:, 1] for near in nearness]
    stay[name] = np.array([np.argmax(np.abs(y) > 0.5) for y in visited])
figure = plot.curves(
    stay,
    x=nearness,
    xlabel="distance from the ridge at the start",
    ylabel="steps until |y| > 0.5",
)
figure.axes[0].set_xscale("log")
figure

# %%
alpha, beta = 0.05, 0.9
interest = {
    "gradient descent": 1 + alpha,
    "momentum": np.roots([1, -(1 + beta + alpha), beta]).max(),
}
for name, factor in interest.items():
    longer = (stay[name][-1] - stay[name][1]) / 5
    print(
        f"{name:16} × {factor:.3f} per step: {np.log(10) / np.log(factor):.1f} steps "
        f"more for each factor of ten; measured {longer:.1f}"
    )
    assert np.isclose(longer, np.log(10) / np.log(factor), rtol=0.05)
for name in ("RMSprop", "Adam"):
    print(
        f"{name:16} {stay[name][1]} steps from 1e-2, {stay[name][-1]} steps from 1e-7"
    )
    assert stay[name][-1] < stay["momentum"][-1] / 2

# %% [markdown]
# So nobody stays for ever, unless they start *on* the ridge: there the gradient to the side is exactly zero, and no
# method that looks at gradients alone can tell left from right. Noise can. The noise of mini-batches is there for
# nothing; we imitate it with a little random gradient.

# %%
on_ridge = [-1.2, 0.0]
for tx in racers.values():
    assert np.all(plot.path(tx, saddle, on_ridge, 1000)[:, 1] == 0)


def with_noise(size):
    def gradient(p, step):
        return jax.grad(saddle)(p) + size * jax.random.normal(
            jax.random.fold_in(jax.random.key(0), step), (2,)
        )

    return gradient


print("steps until |y| > 0.5, from the ridge itself, by the size of the noise")
left = {}
for size in (1e-6, 1e-4, 1e-2):
    visited = {
        name: plot.path(tx, saddle, on_ridge, 1000, gradient=with_noise(size))
        for name, tx in racers.items()
    }
    left[size] = {
        name: int(np.argmax(np.abs(path[:, 1]) > 0.5)) for name, path in visited.items()
    }
    print(
        f"{size:g}: ", ", ".join(f"{name} {step}" for name, step in left[size].items())
    )
    assert all(step > 0 for step in left[size].values())

# %% [markdown]
# ## Why saddles and not minima?
#
# At a point without slope, each direction can bend up or down. A minimum needs all of them to bend up. Toss a coin for
# each curvature and that is rare in high dimensions; for random symmetric matrices it is rarer still. We count.

# %%
dimensions = np.arange(1, 8)
draws = np.random.default_rng(0).normal(size=(200_000, 7, 7))
share = []
for d in dimensions:
    square = draws[:, :d, :d] + np.swapaxes(draws[:, :d, :d], 1, 2)
    share.append(np.mean(np.linalg.eigvalsh(square)[:, 0] > 0))
for d, s in zip(dimensions, share, strict=True):
    print(
        f"{d} dimensions: {s:8.4%} bend up in all directions; of coins {0.5**d:6.2%} "
        "show heads only"
    )
assert np.all(np.array(share)[1:4] < 0.5 ** dimensions[1:4])

# %% [markdown]
# A network has thousands of dimensions. Its Hessian is no random matrix, and low in the landscape the odds turn in
# favour of minima; but high up, where training starts, a point without slope is nearly surely a saddle.
#
# ## A plateau
#
# Where a function is flat far and wide, there is nothing to amplify. Here is one with a hole in the middle,
# $f(x) = -e^{-x^2/2}$, and a start far out.


# %%
def hole(p):
    return -jnp.exp(-jnp.sum(p**2) / 2)


out_there = [3.5]
print(
    "the slope at the start is "
    f"{float(jax.grad(hole)(jnp.array(out_there))[0]):.4f}; the steepest anywhere is {np.exp(-0.5):.2f}"
)
walks = {
    name: plot.path(tx, hole, out_there, 20_000)[:, 0] for name, tx in racers.items()
}
arrived = {name: int(np.argmax(np.abs(x) < 0.5)) for name, x in walks.items()}
for name, step in arrived.items():
    print(f"{name:16} arrives after {step} steps")
plot.curves(
    {name: x[:1200] for name, x in walks.items()},
    ylabel="x",
    title="From the plateau into the hole at 0",
)

# %%
gain = arrived["gradient descent"] / arrived["momentum"]
print(
    f"momentum needs {gain:.1f} times fewer steps; it can gain up to 1/(1-β) = "
    f"{1 / (1 - beta):.0f}"
)
print(
    f"at α per step the way of 3 takes {3 / alpha:.0f} steps; RMSprop and Adam need "
    f"{arrived['RMSprop']} and {arrived['Adam']}"
)
assert 7 < gain < 11
assert max(arrived["RMSprop"], arrived["Adam"]) < 2.5 * 3 / alpha

# %% [markdown]
# On a plateau momentum is worth a factor of $1/(1-β)$ and no more. Methods that divide by the size of the gradient do
# not notice that it is flat.
#
# That has its price. Where the slope is smaller than the noise, they magnify the noise as well, and so does momentum:

# %%
noisy_hole = lambda p, step: (
    jax.grad(hole)(p)
    + 0.1 * jax.random.normal(jax.random.fold_in(jax.random.key(1), step), (1,))
)
drift = {
    name: plot.path(tx, hole, [4.5], 1200, gradient=noisy_hole)[:, 0]
    for name, tx in racers.items()
}
print(f"slope {abs(float(jax.grad(hole)(jnp.array([4.5]))[0])):.5f} in noise of 0.1")
for name, x in drift.items():
    print(f"{name:16} wandered between {x.min():5.2f} and {x.max():5.2f}")
    assert name == "gradient descent" or np.ptp(x) > 5 * np.ptp(
        drift["gradient descent"]
    )
plot.curves(drift, ylabel="x", title="A plateau with noise: steps that mean nothing")

# %% [markdown]
# ## The start of a small network
#
# Now a network with one hidden layer of eight tanh units, on the digits. With all weights zero, hidden units and
# outputs wait for each other: each gets its gradient through the other's weights. Is that a minimum?

# %%
digits = load_digits()
data = {
    "x": jnp.asarray(digits.data / 16, jnp.float32),
    "y": jnp.asarray(digits.target),
}


def network(key, scale):
    first, second = jax.random.split(key)
    return {
        "hidden": {"w": scale * jax.random.normal(first, (64, 8)), "b": jnp.zeros(8)},
        "output": {"w": scale * jax.random.normal(second, (8, 10)), "b": jnp.zeros(10)},
    }


def loss(params, batch=data):
    hidden = jnp.tanh(batch["x"] @ params["hidden"]["w"] + params["hidden"]["b"])
    scores = jax.nn.log_softmax(hidden @ params["output"]["w"] + params["output"]["b"])
    return -jnp.mean(jnp.take_along_axis(scores, batch["y"][:, None], axis=1))


zero = network(jax.random.key(0), 0.0)
print(
    f"loss at zero weights {loss(zero):.3f}, ln 10 = {np.log(10):.3f}; the gradient "
    f"is {gx.global_norm(jax.grad(loss)(zero)):.4f} long"
)
flat, rebuild = ravel_pytree(zero)
bends = np.linalg.eigvalsh(jax.jit(jax.hessian(lambda v: loss(rebuild(v))))(flat))
up, down = np.sum(bends > 1e-4), np.sum(bends < -1e-4)
print(
    f"of {len(bends)} curvatures {up} are positive, {down} negative, the others "
    f"zero; the least is {bends[0]:.3f}"
)
assert up > 0
assert down > 0

# %% [markdown]
# It is a saddle with many ways down. (What little gradient there is belongs to the last biases: the ten digits are not
# quite equally frequent.) We start near it, with random weights of size $10^{-4}$, on the full batch.


# %%
@jax.jit
def train(tx, params):
    def step(carry, _):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = tx.update(gradient, state, params)
        return (gx.apply_updates(params, updates), state), value

    return jax.lax.scan(step, (params, tx.init(params)), None, length=200)[1]


runners = {
    "gradient descent": gx.sgd(0.5),
    "momentum": gx.sgd(0.5, momentum=0.9),
    "RMSprop": gx.rmsprop(0.01),
    "Adam": gx.adam(0.01),
}
near = jax.vmap(lambda key: network(key, 1e-4))(jax.random.split(jax.random.key(1), 5))
curves = {
    name: np.asarray(jax.vmap(train, in_axes=(None, 0))(tx, near))
    for name, tx in runners.items()
}
plot.curves(
    curves,
    ylabel="training loss",
    title="Digits, weights of 1e-4 at the start, five seeds",
)

# %%
waiting = {name: np.argmax(y < 2.0, axis=1) for name, y in curves.items()}
for name, steps in waiting.items():
    print(f"{name:16} below 2.0 after {steps.min()} to {steps.max()} steps")
assert (
    waiting["gradient descent"].min()
    > 2 * waiting["momentum"].max()
    > 2 * waiting["RMSprop"].max()
)

# %% [markdown]
# The same picture as on the drawn saddle, and the same law: gradient descent amplifies the small weights by
# $1 + α\,|λ|$ per step, λ being the least curvature. So a start ten times smaller should cost a constant number of
# steps more.

# %%
sizes = 10.0 ** -np.arange(2, 7)
starts = [network(jax.random.key(2), size) for size in sizes]
until = np.array(
    [int(np.argmax(np.asarray(train(gx.sgd(0.5), start)) < 2.0)) for start in starts]
)
print(
    "steps of gradient descent from",
    dict(zip([f"{size:g}" for size in sizes], until.tolist(), strict=True)),
)
measured, law = np.diff(until).mean(), np.log(10) / np.log(1 + 0.5 * -bends[0])
print(f"{measured:.1f} steps more for each factor of ten; by the curvature {law:.1f}")
assert np.isclose(measured, law, rtol=0.15)
adam = [
    int(np.argmax(np.asarray(train(gx.adam(0.01), start)) < 2.0)) for start in starts
]
print("Adam from the same starts:", adam)
assert np.ptp(adam) <= 2

# %% [markdown]
# This is why networks start from random weights of a certain size and not from tiny ones (notebook 7), and one reason
# why Adam is so forgiving: it leaves the saddle of a bad start as soon as one of a good start.
#
# ## What to remember
#
# - A long flat stretch in a loss curve is rarely a minimum: look for a saddle (something to amplify) or a plateau
#   (something to cross).
# - At a saddle gradient descent amplifies its distance from the ridge by $1 + α|λ|$ per step; momentum by more.
# - On a plateau momentum is worth up to $1/(1-β)$.
# - Adaptive methods walk α per step whether it is flat or steep, so they leave both soon, and follow noise where there
#   is nothing else.
# - Exactly on the ridge only noise helps, and mini-batches bring it.
#
# ## Try
#
# 1. Give momentum β = 0.99 on the drawn saddle. How long does it stay, and what does it do afterwards?
# 2. Start the network from weights of size 1. Which methods still differ?
# 3. Divide the noise on the plateau by 1000. Which walkers now find the hole?
