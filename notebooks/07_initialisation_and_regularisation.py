# %% [markdown]
# # 7. Where should the weights start, and what keeps them from learning the noise?
#
# Two questions at the two ends of a training. Before the first step someone has to choose the weights: zero, equal,
# random, and how large? And when the loss on the training data is down, what about the data that we have not seen:
# dropout, weight decay, early stopping? A Flax network on scikit-learn's handwritten digits answers both.

# %%
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from sklearn.datasets import load_digits

import gradxform as gx
from gradxform import plot

digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.target))
x, y = (
    jnp.asarray(digits.data[order] / 16, jnp.float32),
    jnp.asarray(digits.target[order]),
)
train, validation = {"x": x[:1200], "y": y[:1200]}, {"x": x[1200:], "y": y[1200:]}


class MLP(nn.Module):
    """Dense layers of one width with an activation between them, dropout after it, and
    ten outputs.
    """

    width: int = 64
    depth: int = 2
    kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()
    activation: callable = nn.relu
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, train=False):
        for _ in range(self.depth):
            x = self.activation(nn.Dense(self.width, kernel_init=self.kernel_init)(x))
            self.sow("intermediates", "layer", x)  # so that we can look at it
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(10, kernel_init=self.kernel_init)(x)


def make_loss(model):
    """A loss for `gx.fit`: (params, batch, key) to the cross-entropy and the accuracy;
    a key means training.
    """

    def loss(params, batch, key):
        rngs = None if key is None else {"dropout": key}
        logits = model.apply(params, batch["x"], train=key is not None, rngs=rngs)
        cross_entropy = gx.losses.softmax_cross_entropy_with_integer_labels(
            logits, batch["y"]
        ).mean()
        return cross_entropy, {
            "accuracy": jnp.mean(jnp.argmax(logits, axis=-1) == batch["y"])
        }

    return loss


key = jax.random.key(0)

# %% [markdown]
# ## All zero, all equal
#
# Train the same network from three starts: every kernel zero, every kernel 0.1, and random (He).

# %%
starts = {
    "zero": nn.initializers.zeros,
    "equal": nn.initializers.constant(0.1),
    "random": nn.initializers.he_normal(),
}


def fit_all(inits, tx, width=64, depth=2, **options):
    """Train one network from several initialisations at once, as one batch: {name:
    result}.
    """
    model = MLP(width, depth)
    params = [
        MLP(width, depth, kernel_init).init(key, x[:1])
        for kernel_init in inits.values()
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    loss = make_loss(model)
    fit = jax.vmap(
        lambda p: gx.fit(
            loss, tx, p, train, key=key, validation=validation, batch_size=50, **options
        )
    )
    found = fit(stacked)
    return {
        name: jax.tree.map(lambda leaf, i=i: leaf[i], found)
        for i, name in enumerate(inits)
    }


fits = fit_all(starts, gx.sgd(0.1), epochs=20)
accuracy = {name: fit.history["val_accuracy"] for name, fit in fits.items()}
print({name: f"{float(line[-1]):.1%}" for name, line in accuracy.items()})
plot.curves(
    accuracy,
    xlabel="epoch",
    ylabel="validation accuracy",
    title="Three starts of one network",
)

# %% [markdown]
# Why? Count how many *different* neurons each hidden layer has after training: columns of a kernel that are not
# copies of one another.


# %%
def different_neurons(kernel):
    return len(np.unique(np.asarray(kernel).round(5), axis=1).T)


for name, fit in fits.items():
    layers = fit.params["params"]
    counts = [different_neurons(layers[f"Dense_{i}"]["kernel"]) for i in range(2)]
    moved = [float(jnp.abs(layers[f"Dense_{i}"]["kernel"]).max()) for i in range(2)]
    print(
        f"{name:>7}: {counts[0]} and {counts[1]} different neurons of 64; largest "
        f"weights {moved[0]:.2f}, {moved[1]:.2f}"
    )

# %% [markdown]
# From **zero**, nothing but the last bias ever moves: a hidden layer of zeros passes no signal forwards and no
# gradient back. From **equal** weights every neuron of a layer computes the same, gets the same gradient, and so
# stays the same for ever: 64 neurons that are one. No optimizer that treats entries alike can tell them apart.
# Randomness breaks the symmetry; that is its whole purpose.
#
# ## How large? Xavier and He, measured
#
# Ten layers, the digits as input, and the root mean square of the activations layer by layer, before any training.
# If each layer multiplies the scale by a factor other than 1, ten layers multiply it by the factor's tenth power.


# %%
def layer_scales(activation, kernel_init, depth=10, width=64, inputs=x[:500]):
    model = MLP(width, depth, kernel_init, activation)
    params = model.init(key, x[:1])
    _, seen = model.apply(params, inputs, mutable="intermediates")
    return np.array(
        [
            float(jnp.sqrt(jnp.mean(layer**2)))
            for layer in seen["intermediates"]["layer"]
        ]
    )


kinds = {
    "too small: std 0.02": nn.initializers.normal(0.02),
    "too large: std 0.4": nn.initializers.normal(0.4),
    "Xavier: var 2/(in + out)": nn.initializers.xavier_normal(),
    "He: var 2/in": nn.initializers.he_normal(),
}
layer = np.arange(1, 11)
relu = {name: layer_scales(nn.relu, kind) for name, kind in kinds.items()}
plot.curves(
    relu,
    x=layer,
    log=True,
    xlabel="layer",
    ylabel="root mean square activation",
    title="ReLU",
)

# %%
factor = {name: (line[-1] / line[0]) ** (1 / 9) for name, line in relu.items()}
for name, line in relu.items():
    print(
        f"{name:>25}: × {factor[name]:.2f} per layer, × {line[-1] / line[0]:.1e} in all"
    )
np.testing.assert_allclose(factor["Xavier: var 2/(in + out)"], 0.5**0.5, rtol=0.1)
np.testing.assert_allclose(factor["He: var 2/in"], 1, rtol=0.1)

# %% [markdown]
# The arithmetic behind it: a sum of $n$ terms with weights of variance $σ^2$ has $n σ^2$ times the mean square of
# its inputs, and ReLU throws half of it away. So He's $σ^2 = 2/n$ keeps the scale, and Xavier's (in layers of equal
# width $1/n$) loses a factor of $\sqrt{1/2}$ per layer. For tanh it is the other way round. Near zero tanh is the
# identity and throws nothing away: there Xavier keeps the scale and He multiplies it by $\sqrt 2$. We measure it
# where that is so, with inputs a hundred times smaller.

# %%
for name in ("Xavier: var 2/(in + out)", "He: var 2/in"):
    line = layer_scales(jnp.tanh, kinds[name], inputs=x[:500] / 100)
    tanh = (line[4] / line[0]) ** (1 / 4)
    print(
        f"{name:>25}: × {tanh:.2f} per layer with tanh, × {factor[name]:.2f} with ReLU"
    )
    np.testing.assert_allclose(tanh, factor[name] * 2**0.5, rtol=0.1)

# %% [markdown]
# Gradients travel the same road backwards. What does it mean for learning? Ten layers of 64, Adam, ten epochs:

# %%
deep = {
    name: fit.history["val_accuracy"]
    for name, fit in fit_all(kinds, gx.adam(1e-3), depth=10, epochs=10).items()
}
print({name: f"{float(line[-1]):.1%}" for name, line in deep.items()})
plot.curves(
    deep, xlabel="epoch", ylabel="validation accuracy", title="Ten hidden layers, Adam"
)

# %% [markdown]
# ## The other end: overfitting
#
# To see it clearly, only 150 training examples, nearly a fifth of them with a wrong label, and a wide network. Left
# alone, it learns the wrong labels, too.

# %%
few = 150
wrong = jax.random.bernoulli(jax.random.key(1), 0.2, (few,))
labels = jnp.where(wrong, jax.random.randint(jax.random.key(2), (few,), 0, 10), y[:few])
small = {"x": x[:few], "y": labels}
print(f"{int((labels != y[:few]).sum())} of {few} labels are wrong")


def study(tx, dropout=0.0, **options):
    model = MLP(128, 2, dropout=dropout)
    params = model.init(key, x[:1])
    return gx.fit(
        make_loss(model),
        tx,
        params,
        small,
        key=key,
        epochs=100,
        batch_size=25,
        validation=validation,
        **options,
    )


alone = study(gx.adam(1e-3))
best = int(np.argmin(alone.history["val_loss"]))
print(
    f"validation loss: lowest after epoch {best + 1} "
    f"({alone.history['val_loss'][best]:.2f}), "
    f"at the end {alone.history['val_loss'][-1]:.2f}; training accuracy at the end "
    f"{alone.history['train_accuracy'][-1]:.0%}"
)
plot.curves(
    {"training": alone.history["train_loss"], "validation": alone.history["val_loss"]},
    log=True,
    xlabel="epoch",
    title="Left alone",
)

# %% [markdown]
# ## Early stopping, dropout, weight decay
#
# - **Early stopping**: `gx.fit(..., patience=10)` ends after ten epochs without improvement and returns the
#   parameters of the best epoch.
# - **Dropout** switches off each hidden unit with some probability while training. It lives in the model; `fit`
#   gives the loss a fresh `key` per batch, and none for validation.
# - **Weight decay** pulls the weights towards zero at every step; here those of the kernels alone, chosen by path.

# %%
remedies = {
    "alone": alone,
    "early stopping": study(gx.adam(1e-3), patience=10),
    "dropout 0.5": study(gx.adam(1e-3), dropout=0.5),
    "weight decay 1": study(gx.adamw(1e-3, weight_decay=1.0, mask="**/kernel")),
}


def norm(params):
    return float(gx.global_norm(params))


for name, fit in remedies.items():
    at = int(fit.best_epoch)
    print(
        f"{name:>15}: epoch {at + 1:>3} of {int(fit.epochs_run):>3}, validation loss "
        f"{fit.history['val_loss'][at]:.2f}, "
        f"accuracy {fit.history['val_accuracy'][at]:.1%}, norm of the parameters "
        f"{norm(fit.params):.1f}"
    )
final = {
    name: float(fit.history["val_loss"][int(fit.best_epoch)])
    for name, fit in remedies.items()
}
assert final["alone"] == max(final.values())
plot.curves(
    {name: fit.history["val_loss"] for name, fit in remedies.items()},
    xlabel="epoch",
    ylabel="validation loss",
    title="Remedies",
)

# %% [markdown]
# Each remedy beats none, at its own price: early stopping even saves time but needs validation data, dropout makes
# training noisier and slower, weight decay has a number to tune.
#
# ## Weight decay or L2?
#
# For gradient descent they are one: a term $λ\,\|p\|^2/2$ in the loss adds $λp$ to the gradient, and each step
# removes the share $αλ$ of the weight.

# %%
w, rate, l2 = jnp.array([1.0, -2.0, 0.5]), 0.1, 0.01


def of_data(w):
    return jnp.sum(jnp.sin(w))


def with_l2(w):
    return of_data(w) + l2 / 2 * jnp.sum(w**2)


def one_step(tx, gradient):
    return gx.apply_updates(w, tx.update(gradient, tx.init(w), w)[0])


in_the_loss = one_step(gx.sgd(rate), jax.grad(with_l2)(w))
in_the_step = one_step(
    gx.chain(gx.add_decayed_weights(l2), gx.sgd(rate)), jax.grad(of_data)(w)
)
np.testing.assert_allclose(in_the_loss, in_the_step, rtol=1e-6)
np.testing.assert_allclose(
    in_the_step, (1 - rate * l2) * w - rate * jax.grad(of_data)(w), rtol=1e-6
)

# %% [markdown]
# For Adam they are not. The term $λp$ in the gradient is divided by $\sqrt v$ like everything else: where gradients
# are large, the decay is divided away; where they are small, it becomes the whole step. Take weights that start at
# 1 and that the data pull about with noise, some strongly, some weakly, and let both regularisations act with λ =
# 0.1.

# %%
# 500 weights that are pulled about strongly, 500 weakly
spread = jnp.array([[10.0], [0.01]])
noise = spread * jax.random.normal(jax.random.key(3), (1000, 2, 500))


@jax.jit
def remaining(tx):
    """The mean of the two kinds of weights during a thousand steps of gradients that
    are nothing but noise.
    """

    def step(carry, g):
        w, state = carry
        updates, state = tx.update(g, state, w)
        return (gx.apply_updates(w, updates), state), w.mean(1)

    start = jnp.ones((2, 500))
    return jax.lax.scan(step, (start, tx.init(start)), noise)[1]


weights = {}
for name, tx in {
    "AdamW": gx.adamw(0.01, weight_decay=0.1),
    "L2": gx.adam_l2(0.01, l2=0.1),
}.items():
    large, small = remaining(tx).T
    weights |= {f"{name}, large gradients": large, f"{name}, small gradients": small}
print({name: round(float(line[-1]), 2) for name, line in weights.items()})
print(f"(1 - 0.01 · 0.1)^1000 = {(1 - 0.01 * 0.1) ** 1000:.2f}")
for l2 in (0.1, 1.0):
    pace = (1 - remaining(gx.adam_l2(0.01, l2=l2))[50, 1]) / 50 / 0.01
    print(
        f"L2 with λ = {l2}: small-gradient weights lose {pace:.2f} learning rates "
        "per step at first"
    )
assert np.allclose(
    [weights[f"AdamW, {kind} gradients"][-1] for kind in ("large", "small")],
    0.37,
    atol=0.05,
)
plot.curves(weights, ylabel="weight", title="λ = 0.1, learning rate 0.01")

# %% [markdown]
# AdamW shrinks both kinds alike, by the share αλ per step, as the number says. Under L2 the weights with large
# gradients hardly notice the regularisation, and those with small gradients are driven to zero at nearly one
# learning rate per step, with ten times the λ as well. So "weight decay" without a further word should mean AdamW;
# `gx.adam_l2` has its own name.
#
# ## What to remember
#
# - Zero weights pass nothing on, equal weights stay equal: randomness breaks the symmetry between neurons.
# - The scale must survive the depth. He (variance 2/in) is for ReLU, which halves the mean square; Xavier (2/(in +
#   out)) is for activations that are the identity near zero.
# - Early stopping costs validation data, dropout time, weight decay one number to tune. All three beat none here.
# - L2 in the loss and weight decay are the same for gradient descent and different for Adam: prefer AdamW.
#
# ## Try
#
# 1. In `starts`, add `"tiny": nn.initializers.normal(1e-4)`. Does it break the symmetry? How many epochs does it
#    lose?
# 2. In *Xavier and He*, set `depth=30`. By which factor does a standard deviation of 0.02 shrink the signal now?
# 3. In the remedies, combine dropout with weight decay. Is the validation loss still falling after 300 epochs?
