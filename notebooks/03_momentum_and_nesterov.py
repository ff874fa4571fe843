# %% [markdown]
# # 3. Momentum and Nesterov: why does a ball get down a ravine faster than a hiker?
#
# A hiker looks at the slope under the feet and takes a step downhill: gradient descent. A ball keeps most of its
# velocity and lets the slope change the rest: momentum. We put both into a ravine.

# %%
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_breast_cancer

import gradxform as gx
from gradxform import plot

# %% [markdown]
# ## A ravine
#
# The function $f(x, y) = \frac12 x^2 + \frac{25}{2} y^2$ is 25 times as steep across as along: its curvatures are 1 and
# 25.


# %%
def ravine(p):
    return (p[0] ** 2 + 25 * p[1] ** 2) / 2


start = [-4.0, 1.0]
window = {"xlim": (-4.5, 1.2), "ylim": (-1.9, 1.9), "minimum": (0, 0)}
rates = (0.01, 0.075, 0.0804)
paths = {
    f"learning rate {rate}": plot.path(gx.sgd(rate), ravine, start, 30)
    for rate in rates
}
plot.contour(ravine, paths, title="Gradient descent, 30 steps", **window)

# %% [markdown]
# Along $y$ a step multiplies the distance by $1 - 25\,α$, along $x$ by $1 - α$. The steep direction limits the rate:
# beyond $α = 2/25$ it throws $y$ farther at each step. The flat direction then has to make do with that rate.

# %%
for rate in rates:
    x, y = plot.path(gx.sgd(rate), ravine, start, 30)[-1]
    print(
        f"α = {rate}: after 30 steps x = {x:6.3f}, y = {y:6.3f}; per step x × "
        f"{1 - rate:.3f}, y × {1 - 25 * rate:.3f}"
    )
    assert np.allclose(
        [x, y], [-4 * (1 - rate) ** 30, (1 - 25 * rate) ** 30], atol=1e-3
    )

# %% [markdown]
# ## Let it keep its velocity
#
# Momentum remembers where it was going, $v ← β v + g$, and steps along $-α v$. Across the ravine the gradients change
# sign and cancel in $v$; along it they agree and add up.

# %%
racers = {
    "gradient descent": gx.sgd(0.075),
    "momentum, β = 0.7": gx.sgd(0.075, momentum=0.7),
    "momentum, β = 0.95": gx.sgd(0.075, momentum=0.95),
}
paths = {name: plot.path(tx, ravine, start, 60) for name, tx in racers.items()}
plot.animate(
    ravine, paths, title="The same learning rate", **window | {"xlim": (-4.5, 4.5)}
)

# %%
heights = {name: [float(ravine(p)) for p in points] for name, points in paths.items()}
plot.curves(
    heights, log=True, ylabel="height f(x, y)", title="Height above the minimum"
)

# %%
for name, height in heights.items():
    first = next((step for step, h in enumerate(height) if h < 0.01), "more than 60")
    print(
        f"{name:20} after 60 steps {height[-1]:.1e}; below 0.01 first after {first} "
        "steps"
    )
assert heights["momentum, β = 0.7"][-1] < heights["gradient descent"][-1] / 1000
assert heights["momentum, β = 0.95"][-1] > heights["momentum, β = 0.7"][-1]

# %% [markdown]
# Some momentum is much better than none. Too much is a ball without friction: with β = 0.95 it shoots past the minimum
# and comes back, and the height goes down in swings.
#
# How much faster does it get? On a slope that does not change, the velocity grows until $v = βv + g$, that is to
# $g/(1-β)$:

# %%
for beta in (0.5, 0.7, 0.9, 0.95):
    slide = plot.path(gx.sgd(1.0, momentum=beta), lambda p: -p[0], [0.0], 300)[:, 0]
    print(
        f"β = {beta}: a step grows from {slide[1]:.0f} to "
        f"{slide[-1] - slide[-2]:.2f} times the gradient; 1/(1-β) = {1 / (1 - beta):.2f}"
    )
    assert np.isclose(slide[-1] - slide[-2], 1 / (1 - beta), rtol=1e-3)

# %% [markdown]
# ## Two conventions
#
# Textbooks write momentum in two ways:
#
# | | velocity | on a constant slope |
# |---|---|---|
# | a sum | $v ← βv + g$ | $g/(1-β)$ |
# | an average | $v ← βv + (1-β)\,g$ | $g$ |
#
# The average is the sum times $1-β$, so the same path needs a learning rate $1/(1-β)$ times as large. In gradxform the
# second is `momentum(β, dampening=β)`.

# %%
sum_form = gx.chain(gx.momentum(0.9), gx.scale_by_learning_rate(0.01))
average_form = gx.chain(
    gx.momentum(0.9, dampening=0.9), gx.scale_by_learning_rate(0.01 / (1 - 0.9))
)
same = {"sum, α = 0.01": sum_form, "average, α = 0.1": average_form}
paths = {name: plot.path(tx, ravine, start, 80) for name, tx in same.items()}
apart = np.abs(paths["sum, α = 0.01"] - paths["average, α = 0.1"]).max()
print(f"largest distance between the two paths: {apart:.1e}")
assert apart < 1e-5
plot.contour(
    ravine, paths, title="One path, written in two ways", **window | {"xlim": (-4.5, 3)}
)

# %% [markdown]
# The choice matters when one changes β. With how large a learning rate does each still reach $f < 10^{-4}$, and how
# soon?


# %%
@jax.jit
def steps_needed(tx, curvature=25.0, most=50_000, below=1e-4):
    """Steps until f is below a height, in a ravine of that curvature; inf if it takes
    more than `most` or diverges.
    """
    scale = jnp.array([1.0, curvature])
    p = jnp.array([-4.0, 1.0])
    height = lambda p: jnp.sum(scale * p**2) / 2

    def step(carry):
        p, state, count = carry
        updates, state = tx.update(scale * p, state, p)
        return gx.apply_updates(p, updates), state, count + 1

    going = lambda carry: (
        (height(carry[0]) > below) & (height(carry[0]) < 1e6) & (carry[2] < most)
    )
    p, _, count = jax.lax.while_loop(going, step, (p, tx.init(p), 0))
    return jnp.where(height(p) <= below, count, jnp.inf)


rates = np.geomspace(1e-3, 10, 81)
needed = {}
for beta in (0.5, 0.9, 0.98):
    for form, dampening in (("sum", 0.0), ("average", beta)):
        grid = [
            gx.chain(gx.momentum(beta, dampening), gx.scale_by_learning_rate(rate))
            for rate in rates
        ]
        needed[form, beta] = np.asarray(jax.vmap(steps_needed)(gx.stack(grid)))
        largest = rates[np.isfinite(needed[form, beta])].max()
        print(
            f"β = {beta:4}, {form:7}: the largest learning rate that works is "
            f"{largest:.2f}"
        )
plot.sensitivity(
    rates,
    {f"{form}, β = {beta}": y for (form, beta), y in needed.items() if beta < 0.98},
    ylabel="steps until f < 1e-4",
)

# %% [markdown]
# The curves of one β have the same shape; the average form's is moved to the right by a factor of $1/(1-β)$. In the sum
# form the largest rate hardly depends on β (it is $2(1+β)/25$), so one can turn momentum on without touching the rate.
# But the noise of mini-batches comes to rest at a height that goes with $α/(1-β)$, and there the average form is the
# one that needs no new rate:

# %%
# 20 rates are a factor of 10
assert np.array_equal(needed["sum", 0.9][:-20], needed["average", 0.9][20:])
for beta in (0.5, 0.9, 0.98):
    largest = rates[np.isfinite(needed["sum", beta])].max()
    # to the next rate on the grid
    assert largest < 2 * (1 + beta) / 25 < largest * 1.13


def noisy(p, step):
    return jax.grad(ravine)(p) + jax.random.normal(
        jax.random.fold_in(jax.random.key(0), step), (2,)
    )


for beta in (0.0, 0.5, 0.9):
    resting = []
    for dampening in (0.0, beta):
        tx = gx.chain(gx.momentum(beta, dampening), gx.scale_by_learning_rate(0.002))
        resting.append(
            np.mean(
                [
                    ravine(p)
                    for p in plot.path(tx, ravine, [0.0, 0.0], 30_000, gradient=noisy)[
                        3000::10
                    ]
                ]
            )
        )
    print(
        f"β = {beta}: height in the noise {resting[0]:.4f} in the sum form, "
        f"{resting[1]:.4f} in the average form"
    )

# %% [markdown]
# Neither is wrong. But a learning rate means nothing until one says which of the two it belongs to.
#
# ## What momentum buys
#
# The longer the ravine for its width, the more. We give both methods the best numbers for each ravine (theory gives
# them: Polyak 1964) and count.

# %%
curvatures = np.array([10, 30, 100, 300, 1000, 3000])
roots = np.sqrt(curvatures)
counts = {
    "gradient descent": [
        steps_needed(gx.sgd(2 / (1 + k)), float(k)) for k in curvatures
    ],
    "momentum": [
        steps_needed(
            gx.sgd((2 / (1 + r)) ** 2, momentum=((r - 1) / (r + 1)) ** 2), float(k)
        )
        for k, r in zip(curvatures, roots, strict=True)
    ],
}
figure = plot.curves(
    counts,
    x=curvatures,
    xlabel="curvature across / curvature along",
    ylabel="steps until f < 1e-4",
    log=True,
)
figure.axes[0].set_xscale("log")
figure

# %%
slope = {
    name: np.polyfit(np.log(curvatures[2:]), np.log(y[2:]), 1)[0]
    for name, y in counts.items()
}
for name, y in counts.items():
    print(
        f"{name:16} {int(y[-1]):6} steps for a ratio of {curvatures[-1]}; the steps "
        f"grow like the ratio to the power of {slope[name]:.2f}"
    )
assert abs(slope["gradient descent"] - 1) < 0.15
assert abs(slope["momentum"] - 0.5) < 0.15

# %% [markdown]
# Gradient descent needs steps about in proportion to the ratio, momentum about in proportion to its square root.
#
# ## Nesterov: look before you step
#
# Momentum will carry the ball by $-αβv$ whatever the slope says. So ask for the slope *there*:
#
# $$g = ∇f(x - αβv), \qquad v ← βv + g, \qquad x ← x - αv .$$
#
# `gx.nesterov_point(tx, state, params)` is that point: where a zero gradient would carry the parameters. It turns any
# momentum into Nesterov's.

# %%
tx = gx.sgd(0.03, momentum=0.9)
slope_at = jax.grad(ravine)
x = jnp.array(start)
state = tx.init(x)
points, ahead = [], []
for _ in range(41):
    there = gx.nesterov_point(tx, state, x)
    points.append(x)
    ahead.append(there)
    updates, state = tx.update(slope_at(there), state, x)
    x = gx.apply_updates(x, updates)
points, ahead = np.stack(points), np.stack(ahead)

# %% [markdown]
# The usual code has no look-ahead. It keeps the look-ahead points $x̃ = x - αβv$ as its parameters, and then Nesterov's
# method reads $v ← βv + g$, $x̃ ← x̃ - α(g + βv)$, with the gradient taken where one stands. That is `nesterov=True`:

# %%
reformulated = plot.path(gx.sgd(0.03, momentum=0.9, nesterov=True), ravine, start, 40)
apart = np.abs(reformulated - ahead).max()
print(
    "largest distance between the look-ahead points and the path of nesterov=True: "
    f"{apart:.1e}"
)
assert apart < 1e-5
shown = {
    "x, as first written": points[:12],
    "its look-ahead points": ahead[:12],
    "nesterov=True": reformulated[:12],
}
plot.contour(
    ravine, shown, title="Eleven steps: two of the three are one path", **window
)

# %% [markdown]
# ## Why looking ahead helps
#
# Heavy ball and Nesterov, with the same rate and the same β:

# %%
racers = {
    "gradient descent": gx.sgd(0.03),
    "momentum": gx.sgd(0.03, momentum=0.9),
    "Nesterov": gx.sgd(0.03, momentum=0.9, nesterov=True),
}
paths = {name: plot.path(tx, ravine, start, 60) for name, tx in racers.items()}
plot.animate(
    ravine, paths, title="Learning rate 0.03, β = 0.9", **window | {"xlim": (-4.5, 3.0)}
)

# %%
for name, path in paths.items():
    print(
        f"{name:16} farthest beyond the minimum {max(path[:, 0].max(), 0):.2f}; "
        f"height after 60 steps {ravine(path[-1]):.1e}"
    )
assert ravine(paths["Nesterov"][-1]) < ravine(paths["momentum"][-1]) / 2

# %% [markdown]
# The heavy ball swings across the ravine for long; Nesterov's swings die at once. By how much they die at each step can
# be worked out, and measured: by $\sqrt β$ for the ball, in every direction; by $\sqrt{β(1-αλ)}$ for Nesterov, λ being
# the curvature. So looking ahead is a *brake that works where it is steep*.

# %%
for name, law in (
    ("momentum", lambda curvature: 0.9),
    ("Nesterov", lambda curvature: 0.9 * (1 - 0.03 * curvature)),
):
    for curvature in (1.0, 25.0):
        here = gx.sgd(0.03, momentum=0.9, nesterov=name == "Nesterov")
        swings = np.abs(
            plot.path(here, lambda q, k=curvature: k * q[0] ** 2 / 2, [1.0], 120)[:, 0]
        )
        envelope = np.array([swings[i:].max() for i in range(60)])
        rate = np.exp(np.polyfit(np.arange(60), np.log(envelope), 1)[0])
        print(
            f"{name:9} curvature {curvature:4.0f}: swings × {rate:.3f} per step; by "
            f"the law {law(curvature) ** 0.5:.3f}"
        )
        assert np.isclose(rate, law(curvature) ** 0.5, atol=0.02)

# %% [markdown]
# ## A real ravine
#
# Logistic regression on the breast cancer data: 569 tumours, 30 measurements each, standardised. Many of the
# measurements say nearly the same (radius, perimeter, area), and that makes a ravine in 30 dimensions.

# %%
x, labels = load_breast_cancer(return_X_y=True)
x, labels = (
    jnp.asarray((x - x.mean(0)) / x.std(0), jnp.float32),
    jnp.asarray(2 * labels - 1, jnp.float32),
)


def loss(w):
    return jnp.mean(jax.nn.softplus(-labels * (x @ w))) + 1e-3 * jnp.sum(w**2)


bends = jnp.linalg.eigvalsh(jax.hessian(loss)(jnp.zeros(30)))
print(
    f"curvatures at the start from {bends[0]:.4f} to {bends[-1]:.2f}: a ratio of "
    f"{bends[-1] / bends[0]:.0f}"
)
rate = float(1 / bends[-1])
racers = {
    "gradient descent": gx.sgd(rate),
    "momentum, β = 0.9": gx.sgd(rate, momentum=0.9),
    "Nesterov, β = 0.9": gx.sgd(rate, momentum=0.9, nesterov=True),
    "Nesterov, β = 0.98": gx.sgd(rate, momentum=0.98, nesterov=True),
}
trained = {name: plot.path(tx, loss, jnp.zeros(30), 500) for name, tx in racers.items()}
lowest = float(
    loss(
        plot.path(
            gx.sgd(rate, momentum=0.98, nesterov=True), loss, jnp.zeros(30), 20_000
        )[-1]
    )
)
curves = {
    name: np.asarray(jax.vmap(loss)(path)) - lowest for name, path in trained.items()
}
plot.curves(
    curves,
    log=True,
    ylabel="loss above the least",
    title="Full batch, one learning rate",
)

# %%
for name, y in curves.items():
    print(f"{name:18} loss above the least after 500 steps {y[-1]:.1e}")
assert curves["momentum, β = 0.9"][-1] < curves["gradient descent"][-1] / 100
assert 0.5 < curves["Nesterov, β = 0.9"][-1] / curves["momentum, β = 0.9"][-1] < 2
assert curves["Nesterov, β = 0.98"][-1] > curves["Nesterov, β = 0.9"][-1]
assert np.any(np.diff(curves["Nesterov, β = 0.98"]) > 0)

# %% [markdown]
# Momentum and Nesterov end alike here: at this learning rate the last directions left are flat, and there is nothing to
# brake. The price of β = 0.98 shows as well: its loss falls in swings, and is behind that of β = 0.9 to the end.
#
# ## What to remember
#
# - Across a ravine gradients cancel, along it they add up: momentum steps up to $1/(1-β)$ times as far where it
#   matters.
# - With well-chosen numbers the steps grow like the square root of the ratio of curvatures, not like the ratio.
# - $v ← βv + g$ and $v ← βv + (1-β)g$ are the same method with learning rates $1/(1-β)$ apart. Ask which one a number
#   is for.
# - Nesterov takes the gradient where momentum is about to carry it, and so brakes where it is steep. `nesterov=True`
#   walks the look-ahead points.
#
# ## Try
#
# 1. In the first animation, find the β that has the ravine done in the fewest steps. Is it near
#    $((\sqrt{25}-1)/(\sqrt{25}+1))^2$?
# 2. Make the ravine ten times as steep (250 in place of 25). Which of the rates above still work?
# 3. Give the breast cancer race β = 0.995. What does too little friction look like in 30 dimensions?
