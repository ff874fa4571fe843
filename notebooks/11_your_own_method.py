# %% [markdown]
# # 11. How do I write a method of my own, and know that it is right?
#
# You have an equation: from a paper, from a dream. In gradxform it becomes three lines, the equation on one array;
# schedules, tables by path, dtypes, absent leaves and named state come with them. Whether those three lines are
# right is another matter. This notebook writes a rule with a real bug in it, lets the law kit find it, mends it,
# and puts the method to work.

# %%
import jax
import jax.numpy as jnp
import numpy as np

import gradxform as gx
from gradxform import plot
from gradxform.hyper import Decay
from gradxform.testing import LAWS, check_transformation

# %% [markdown]
# ## The equation
#
# Steps by signs, as in Lion or signum, are all equally long: $u = \mathrm{sign}(m)$. Where the average $m$ is small
# against the gradients it is made of, its sign is a coin toss. So let the step be as long as we trust the sign: the
# average gradient over the average absolute gradient,
#
# $$m ← β\,m + (1 - β)\,g, \qquad a ← β\,a + (1 - β)\,|g|, \qquad u = \frac{m}{a},$$
#
# which lies between -1 and 1, is 1 where all gradients agree, and near 0 where they cancel. Call it *trusted sign*.
#
# ## Three lines
#
# A rule takes `u` (the update so far), `at` (what else there is: `at.g` the gradient, `at.p` the parameter, `at.t`
# = 1, 2, …), what it remembers, and its numbers; it returns the new update and the new memory. `leafwise` lifts it
# from one array to any tree.


# %%
def _trusted_sign(u, at, m, a, *, decay):
    m = decay * m + (1 - decay) * u
    a = decay * a + (1 - decay) * jnp.abs(u)
    return m / a, m, a


@gx.transformation
def trusted_sign(decay: Decay = 0.9):
    """u = m / a: the average gradient over the average absolute gradient."""
    return gx.leafwise(
        _trusted_sign,
        slots={"m": gx.zeros(), "a": gx.zeros()},
        direction=True,
        decay=decay,
    )


# %% [markdown]
# That is all. It prints, compares, refuses bad numbers by name, takes schedules, and goes into a chain.

# %%
tx = gx.chain(trusted_sign(0.95), gx.scale_by_learning_rate(0.01))
print(tx)
print(
    gx.chain(
        trusted_sign(gx.linear_schedule(0.8, 0.95, 100)),
        gx.scale_by_learning_rate(0.01),
    )
)
try:
    trusted_sign(1.5)
except ValueError as error:
    print(error)

# %% [markdown]
# And it works, at least here: three gradients that agree, then one that does not.

# %%
params = {"w": jnp.zeros(2)}
state = trusted_sign(0.5).init(params)
for g in (1.0, 1.0, 1.0, -1.0):
    updates, state = trusted_sign(0.5).update(
        {"w": jnp.array([g, 100 * g])}, state, params
    )
    print(updates["w"])

# %% [markdown]
# ## The bug
#
# The kit knows laws that every transformation should keep: state keeps its types, jit changes nothing, new numbers
# retrace nothing, one leaf does not depend on another, zero gradients are safe, and so on.

# %%
for name, law in LAWS.items():
    print(f"{name:>14}  {law.__doc__.splitlines()[0]}")

# %%
try:
    check_transformation(trusted_sign(0.9))
except AssertionError as error:
    print(error)

# %% [markdown]
# Zero over zero. A parameter whose gradient has always been exactly zero (an unused word in an embedding, a dead
# unit, a pixel that is always black) has $a = 0$, and its update is NaN. On the next step so is everything that it
# touches. On dense test data this would never have shown; on digits, where some pixels are black in every image, it
# does in the first epoch:

# %%
from sklearn.datasets import load_digits

digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.target))
x, y = (
    jnp.asarray(digits.data[order] / 16, jnp.float32),
    jnp.asarray(digits.target[order]),
)
train, validation = {"x": x[:1300], "y": y[:1300]}, {"x": x[1300:], "y": y[1300:]}
print("pixels that are black in every image:", int((x == 0).all(0).sum()))


def loss(params, batch, key):
    logits = batch["x"] @ params["kernel"] + params["bias"]
    return gx.losses.softmax_cross_entropy_with_integer_labels(
        logits, batch["y"]
    ).mean()


def fit(tx, seed=0):
    start = {"kernel": jnp.zeros((64, 10)), "bias": jnp.zeros(10)}
    key = jax.random.key(seed)
    return gx.fit(
        loss, tx, start, train, key=key, epochs=10, batch_size=50, validation=validation
    )


broken = fit(tx)
print("diverged:", bool(broken.diverged), "after epoch", int(broken.epochs_run))
assert broken.diverged

# %% [markdown]
# ## The first mending, and what it gets wrong
#
# The usual reflex is to take the denominator away from zero with `jnp.where`:


# %%
def _with_where(u, at, m, a, *, decay):
    m = decay * m + (1 - decay) * u
    a = decay * a + (1 - decay) * jnp.abs(u)
    return jnp.where(a > 0, m / a, 0.0), m, a


@gx.transformation
def with_where(decay: Decay = 0.9):
    """The same, with a zero update where a is zero."""
    return gx.leafwise(
        _with_where,
        slots={"m": gx.zeros(), "a": gx.zeros()},
        direction=True,
        decay=decay,
    )


try:
    check_transformation(with_where(0.9))
except AssertionError as error:
    print(str(error)[:400])

# %% [markdown]
# The update is finite now, and still the law is broken: the *derivative* of the training is NaN. `where` chooses
# between two results, but differentiation goes through both branches, and 0 · ∞ is NaN. Whoever takes a
# hypergradient through this rule, or learns an initialisation with it, gets nothing. The remedy is to make the
# denominator safe before dividing.
#
# ## The rule, mended


# %%
def _trusted_sign(u, at, m, a, *, decay):
    m = decay * m + (1 - decay) * u
    a = decay * a + (1 - decay) * jnp.abs(u)
    return m / jnp.where(a > 0, a, 1.0), m, a


@gx.transformation
def trusted_sign(decay: Decay = 0.9):
    """u = m / a: the average gradient over the average absolute gradient; 0 where there
    never was a gradient.

        m ← β m + (1 - β) g
        a ← β a + (1 - β) |g|
        u = m / a

    Memory: slots `m` and `a`, 8 bytes per parameter.
    """
    return gx.leafwise(
        _trusted_sign,
        slots={"m": gx.zeros(), "a": gx.zeros()},
        direction=True,
        decay=decay,
    )


check_transformation(trusted_sign(0.9))
print(len(LAWS), "laws kept")

# %% [markdown]
# ## The equation, once more, by someone else
#
# Laws do not know your equation. For that write it a second time, as plainly as possible, in NumPy and float64, and
# compare.


# %%
def reference(gradients, decay):
    m = a = 0.0
    for g in gradients:
        m, a = decay * m + (1 - decay) * g, decay * a + (1 - decay) * abs(g)
        yield m / a


gradients = np.random.default_rng(0).normal(size=(50, 3))
state, seen = trusted_sign(0.9).init(jnp.zeros(3)), []
for g in gradients:
    update, state = trusted_sign(0.9).update(jnp.asarray(g, jnp.float32), state)
    seen.append(update)
np.testing.assert_allclose(seen, list(reference(gradients, 0.9)), rtol=1e-4, atol=1e-6)
print("50 steps agree with the reference; largest |u|:", float(np.abs(seen).max()))

# %% [markdown]
# ## To work
#
# In a chain it meets everything else: decay by path, clipping, schedules. And it meets its relatives, each at nine
# learning rates from three shuffles.

# %%
tx = gx.chain(
    gx.clip_by_global_norm(1.0),
    trusted_sign(0.9),
    gx.add_decayed_weights(gx.by_path({"kernel": 0.01, "bias": 0.0})),
    gx.scale_by_learning_rate(0.02 * (gx.warmup(26) >> gx.cooldown(9 * 26))),
)
print(f"validation loss with everything: {float(fit(tx).history['val_loss'][-1]):.3f}")

rates = np.logspace(-4, 0, 9)
seeds = jnp.arange(3)


def everywhere(method):
    """The final validation loss at every rate, from every shuffle: [rates, shuffles]."""
    at = lambda rate, seed: fit(method(rate), seed).history["val_loss"][-1]
    # each program runs once: compiling it quickly matters more than its speed
    quick = jax.jit(
        jax.vmap(jax.vmap(at, (None, 0)), (0, None)),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    return np.asarray(quick(rates, seeds))


race = {
    "trusted sign": everywhere(
        lambda rate: gx.chain(trusted_sign(0.9), gx.scale_by_learning_rate(rate))
    ),
    "signum": everywhere(lambda rate: gx.signum(rate)),
    "Adam": everywhere(lambda rate: gx.adam(rate)),
    "momentum": everywhere(lambda rate: gx.sgd(rate, momentum=0.9)),
}
for name, values in race.items():
    print(
        f"{name:>13}: best {values.mean(1).min():.3f} at "
        f"{rates[values.mean(1).argmin()]:.2g}"
    )
plot.sensitivity(
    rates,
    race,
    ylabel="validation loss",
    title="Softmax regression on digits, 10 epochs",
)

# %% [markdown]
# ## What to remember
#
# - A rule is the equation on one array: `rule(u, at, *slots, **numbers) -> (u, *slots)`. `leafwise` does the rest.
# - `direction=True` says that the rule changes where we step, so that preconditioners after it go on measuring the
#   gradient.
# - Run `check_transformation` before you believe it. Zero gradients, None leaves, bfloat16 and derivatives are
#   where rules break.
# - The laws do not know the equation; a second, slow reference does.
#
# ## Try
#
# 1. In the mended rule, let the second slot begin at one: `"a": lambda p: jnp.ones(p.shape)`. Do the laws object?
#    Does the reference?
# 2. Break the rule in another way: `"m": jnp.zeros_like`, which looks the same as `gx.zeros()`. Which law finds it,
#    and why is it right?
# 3. Divide by $\sqrt{v}$ instead of $a$, with $v$ the average of $g^2$ and the same $β$. Which named cell of
#    notebook 5's grid is this, and does it do better?
