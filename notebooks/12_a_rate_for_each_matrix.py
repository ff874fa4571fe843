# %% [markdown]
# # 12. A rate for each matrix: is a weight matrix more than a bag of numbers?
#
# Adagrad, RMSprop and Adam gave each *entry* a rate of its own (notebooks 4 and 5), as if a weight matrix were a list.
# But a matrix is a map: it turns inputs into outputs, along directions that need not be those of its entries. Muon,
# Shampoo and SOAP look at these directions. What do they see, and is it worth it?

# %%
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from sklearn.datasets import load_digits

import gradxform as gx
from gradxform import plot
from gradxform.plot import style
from gradxform.plot.picture import Picture

# %% [markdown]
# ## The singular values of a real gradient
#
# A small network on handwritten digits, after three epochs of Adam. We take the gradient of its middle layer, a matrix
# of 64 × 64, on one batch of 100 images.

# %%
digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.target))
x = jnp.asarray(digits.data[order] / 16, jnp.float32)
y = jnp.asarray(digits.target[order])
train, held_out = {"x": x[:1300], "y": y[:1300]}, {"x": x[1300:], "y": y[1300:]}


class Net(nnx.Module):
    def __init__(self, rngs):
        self.layer_1 = nnx.Linear(64, 64, rngs=rngs)
        self.layer_2 = nnx.Linear(64, 64, rngs=rngs)
        self.head = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.layer_2(nnx.relu(self.layer_1(x)))))


graph, params = nnx.split(Net(nnx.Rngs(0)))


def loss(params, batch, key=None):
    scores = nnx.merge(graph, params)(batch["x"])
    return gx.losses.softmax_cross_entropy_with_integer_labels(
        scores, batch["y"]
    ).mean()


def fit(tx, params, key, epochs):
    return gx.fit(
        loss, tx, params, train, key=key, epochs=epochs, batch_size=50,
        validation=held_out,
    )  # fmt: skip


# each program runs once: compiling it quickly matters more than its speed
after_three = fit(gx.adam(1e-3), params, jax.random.key(0), 3).params
batch = jax.tree.map(lambda a: a[:100], train)
G = np.asarray(jax.grad(loss)(after_three, batch)["layer_2"]["kernel"][...])
sizes = np.linalg.svd(G, compute_uv=False)
share = np.cumsum(sizes**2) / np.sum(sizes**2)
print(f"the greatest singular value has {share[0]:.0%} of the squared length,")
print(f"the first eight of {len(sizes)} have {share[7]:.0%};")
print(f"the tenth is {sizes[9] / sizes[0]:.2f} of the first")
assert share[7] > 0.95

# %% [markdown]
# A singular value says how strongly the gradient wants the map to change along one pair of directions: one of inputs,
# one of outputs. A few pairs shout, most whisper. A step along the gradient is a step along the few that shout.
#
# Does Adam help? Its first step divides every entry by its own size, which leaves the signs. Here are the singular
# values of the gradient, of its signs, and of the gradient *orthogonalised*, each relative to its greatest.


# %%
def orthogonal(G, **how):
    """The matrix with all its singular values at about 1, by `gx.orthogonalize`."""
    tx = gx.orthogonalize(**how)
    tree = {"kernel": jnp.asarray(G, jnp.float32)}
    return np.asarray(tx.update(tree, tx.init(tree))[0]["kernel"])


steps = {
    "the gradient": G,
    "its signs (Adam's first step)": np.sign(G),
    "orthogonalised, Newton-Schulz": orthogonal(G),
    "orthogonalised, SVD": orthogonal(G, method="svd"),
}
spectra = {name: np.linalg.svd(U, compute_uv=False) for name, U in steps.items()}
figure = plot.curves(
    {name: s / s[0] for name, s in spectra.items()},
    x=np.arange(1, 65),
    log=True,
    xlabel="singular value, from the greatest",
    ylabel="relative to the greatest",
    title="One gradient, four steps",
)
figure.axes[0].set_ylim(1e-3, 1.5)
figure

# %%
within = {name: int(np.sum(s > 0.1 * s[0])) for name, s in spectra.items()}
for name, count in within.items():
    print(f"{name:31} {count:2} of 64 directions within a tenth of the greatest")
gradient, signs, newton, exact = within.values()
assert gradient < signs < newton < exact < 64

# %% [markdown]
# Signs raise the whisper a little. Orthogonalising makes all directions about equally loud, but for those that are silent:
# units that are zero for every image say nothing, and zero stays zero.
#
# > **What orthogonalising is.** Every matrix is $G = U S V^\top$ with orthonormal $U$ and $V$ and singular values on
# > the diagonal of $S$. Orthogonalised it is $U V^\top$: the same directions, all sizes 1. Where Adam's rate for an
# > entry is one over its size, this is a rate for each *direction*, one over *its* size.
#
# ## Why this is a steepest descent
#
# "Steepest" depends on how one measures steps. If a step is to be short as a list of numbers, the steepest is along
# $G$. If no *entry* may move by more than 1, it is the signs. If no *input* may be moved by more than its own length,
# so that the largest singular value of the step is 1, it is $U V^\top$. Let us see which promises most, for steps
# scaled to that measure:

# %%
promised = {
    name: float(np.sum(G * U) / np.linalg.norm(U, 2)) for name, U in steps.items()
}
for name, value in promised.items():
    print(
        f"{name:31} descends {value / sizes.sum():4.0%} of the sum of singular values"
    )
rng = np.random.default_rng(0)
others = rng.normal(size=(200, 64, 64))
best_other = max(np.sum(G * other) / np.linalg.norm(other, 2) for other in others)
print(f"the best of 200 random directions: {best_other / sizes.sum():.0%}")
assert np.isclose(promised["orthogonalised, SVD"], sizes.sum(), rtol=1e-3)
assert promised["orthogonalised, SVD"] == max(*promised.values(), best_other)

# %% [markdown]
# ## Five polynomials in place of a decomposition
#
# A singular value decomposition at every step is slow, slower still on a GPU. But $X ↦ a X + b\, X X^\top X + c\, (X
# X^\top)^2 X$ keeps the singular vectors, and maps each singular value by the polynomial $p(σ) = aσ + bσ^3 + cσ^5$.
# So find $a, b, c$ that push everything between 0 and 1 towards 1, and apply it a few times. That is Newton-Schulz,
# products of matrices alone. What the tables of coefficients do to $σ$:

# %%
grid = np.geomspace(1e-3, 1, 300)


def polynomials(coefficients, x):
    for a, b, c in coefficients:
        x = a * x + b * x**3 + c * x**5
    return x


jordan = [(3.4445, -4.7750, 2.0315)]
classical = [(1.5, -0.5, 0.0)]
figure = plot.curves(
    {
        "x 1.5, -0.5: once": polynomials(classical, grid),
        "x 1.5, -0.5: five times": polynomials(5 * classical, grid),
        "quintic: once": polynomials(jordan, grid),
        "quintic: five times": polynomials(5 * jordan, grid),
    },
    x=grid,
    xlabel="σ before",
    ylabel="σ after",
    target=1.0,
    title="The classical polynomial converges; the quintic is quick",
)
figure.axes[0].set_xscale("log")
figure

# %% [markdown]
# The quintic gives up convergence, it goes on wobbling between 0.7 and 1.2, for a slope of 3.4 at zero: five steps
# raise a small singular value by $3.4^5 ≈ 485$. Polar Express has another polynomial for each step, each the best
# one for the interval that those before it leave. `gx.orthogonalize` knows both. We give it a matrix whose singular
# values we know.

# %%
U, _ = np.linalg.qr(rng.normal(size=(64, 64)))
V, _ = np.linalg.qr(rng.normal(size=(64, 64)))
known = np.geomspace(1, 1e-3, 64)
norm = np.linalg.norm(known)
after = {
    name: np.diag(U.T @ orthogonal(U * known @ V.T, **how) @ V)
    for name, how in {
        "quintic": {},
        "Polar Express": {"ns_coeffs": "polar_express"},
        "SVD": {"method": "svd"},
    }.items()
}
figure = plot.curves(
    after,
    x=known / norm,
    xlabel="singular value / norm, before",
    ylabel="after",
    title="Five steps each",
)
figure.axes[0].set_xscale("log")
figure

# %%
seen = known / norm > 0.01
for name, s in after.items():
    print(
        f"{name:13} takes [0.01, 1] to [{s[seen].min():.2f}, {s[seen].max():.2f}], "
        f"off by {np.sqrt(np.mean((s[seen] - 1) ** 2)):.3f}"
    )
error = {name: np.sqrt(np.mean((s[seen] - 1) ** 2)) for name, s in after.items()}
assert error["SVD"] < 1e-3 < error["Polar Express"] < error["quintic"]
by_hand = polynomials(5 * jordan, known / norm)
np.testing.assert_allclose(after["quintic"], by_hand, atol=2e-3)

# %% [markdown]
# The last line is the point of it: on the diagonal of $U^\top X V$ stands $p(p(p(p(p(σ)))))$, so the singular vectors
# have not moved.
#
# ## Muon, and what a matrix factorisation does under it
#
# **Muon** is momentum, orthogonalised: $m ← μ m + g$, then a step along $U V^\top$ of $m$. To see what changes, take
# the smallest network that has matrices: two layers without anything between them, $W = A B$, which shall become a
# given matrix of rank five with singular values 1, ½, ¼, 0.12 and 0.06. We draw how far each of the five has come.

# %%
target_sizes = np.array([1, 0.5, 0.25, 0.12, 0.06])
rng = np.random.default_rng(0)
left, right = (np.linalg.qr(rng.normal(size=(16, 16)))[0][:, :5] for _ in range(2))
left, right = jnp.asarray(left, jnp.float32), jnp.asarray(right, jnp.float32)
target = left * target_sizes @ right.T
factors = {
    name: {"kernel": jnp.asarray(0.01 * rng.normal(size=(16, 16)), jnp.float32)}
    for name in ("layer_1", "layer_2")
}


def product(p):
    return p["layer_1"]["kernel"] @ p["layer_2"]["kernel"]


def distance(p):
    return jnp.sum((product(p) - target) ** 2) / 2


@jax.jit
def learned(tx):
    """The five singular values on their way, [steps, 5]."""

    def step(carry, _):
        p, state = carry
        updates, state = tx.update(jax.grad(distance)(p), state, p)
        p = gx.apply_updates(p, updates)
        return (p, state), jnp.diag(left.T @ product(p) @ right)

    return jax.lax.scan(step, (factors, tx.init(factors)), length=200)[1]


racers = {
    "gradient descent": gx.sgd(0.3),
    "Adam": gx.adam(0.003),
    "Muon": gx.chain(
        gx.momentum(0.9), gx.orthogonalize(), gx.scale_by_learning_rate(0.01)
    ),
}
ways = {name: np.asarray(learned(tx)) for name, tx in racers.items()}
figure = Picture(figsize=(9, 2.9), layout="constrained")
panels = figure.subplots(1, 3, sharey=True)
for axes, (name, way) in zip(panels, ways.items(), strict=True):
    style.dress(axes)
    for i, look in enumerate(style.styles(5)):
        axes.plot(way[:, i], **look, markevery=(8 * i, 40), markersize=4)
        axes.axhline(target_sizes[i], color=look["color"], lw=0.6, alpha=0.5)
    style.name_axes(axes, "step", "singular value of A B", name)
figure

# %%
half_way = {
    name: [int(np.argmax(way[:, i] > target_sizes[i] / 2)) for i in range(5)]
    for name, way in ways.items()
}
for name, when in half_way.items():
    print(f"{name:17} half of each is learned at steps {when}")
assert half_way["gradient descent"] == sorted(half_way["gradient descent"])
assert half_way["Muon"] == sorted(half_way["Muon"], reverse=True)

# %% [markdown]
# Gradient descent learns one direction after another, the largest first: what the data say twice as loud is learned
# about twice as early. Under Muon all directions grow at one speed, so the *small* ones are done first, and the time it
# takes is that of the largest. That is what is meant by a rate for each matrix rather than for each entry: what is
# rare in the data need not wait.
#
# It cuts both ways. Where the whisper is noise, Muon learns the noise as fast as the signal; hence its momentum, which
# averages before it orthogonalises. And a step is as long at the goal as far from it: see the curves tremble. A
# learning rate for Muon must fall to zero.
#
# ## Shampoo's basis and Adam's axes
#
# The other way to respect a matrix is to ask *in which coordinates* Adam should run. We draw it for a matrix of two
# rows and one column: a ravine, along the axes, and the same ravine turned by 45 degrees.


# %%
def turned(degrees):
    angle = np.radians(degrees)
    return jnp.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], jnp.float32
    )


def ravine(p, Q):
    return jnp.sum(jnp.array([0.5, 50.0]) * (Q.T @ p) ** 2)


@jax.jit
def walk(tx, Q, start):
    """The 60 points that an optimizer of a matrix [2, 1] visits."""

    def step(carry, _):
        p, state = carry
        gradient = jax.grad(lambda p: ravine(p["kernel"][:, 0], Q))(p)
        updates, state = tx.update(gradient, state, p)
        p = gx.apply_updates(p, updates)
        return (p, state), p["kernel"][:, 0]

    p = {"kernel": start[:, None]}
    way = jax.lax.scan(step, (p, tx.init(p)), length=60)[1]
    return jnp.concatenate([start[None], way])


rate = 0.1 * gx.cooldown(60)
optimizers = {
    "Adam": gx.adam(rate, b2=0.95),
    "SOAP": gx.soap(rate, b1=0.9, weight_decay=0.0, precondition_frequency=1),
}
figure = Picture(figsize=(9, 3.4), layout="constrained")
ended = {}
for axes, degrees in zip(figure.subplots(1, 2), (0, 45), strict=True):
    Q = turned(degrees)
    f = lambda p, Q=Q: ravine(p, Q)
    found = {
        name: np.asarray(walk(tx, Q, Q @ jnp.array([-2.0, 0.6])))
        for name, tx in optimizers.items()
    }
    ended[degrees] = {name: float(f(way[-1])) for name, way in found.items()}
    style.dress(axes)
    plot.contour(
        f, found, xlim=(-2.4, 1.2), ylim=(-1.9, 1.2), minimum=(0, 0), log=True,
        title=f"turned by {degrees}°", ax=axes,
    )  # fmt: skip
figure.axes[0].get_legend().remove()
figure

# %%
for degrees, values in ended.items():
    print(f"turned by {degrees:2}°:", {name: f"{v:.2g}" for name, v in values.items()})
assert ended[45]["Adam"] > 10 * ended[0]["Adam"]
assert ended[45]["SOAP"] < 3 * ended[0]["SOAP"]

# %% [markdown]
# Along the axes Adam divides each coordinate by its own size, and the ravine is a bowl to it. Turned by 45 degrees,
# both coordinates have the same size at every point, the division does nothing, and Adam is back to momentum.
#
# **Shampoo** averages $L ← β L + (1-β)\,G G^\top$ over the rows and $R ← β R + (1-β)\,G^\top G$ over the columns, and
# steps along $L^{-1/4} G R^{-1/4}$. In the eigenvectors of $L$ and $R$ that is a division of each coordinate by its
# size, almost as Adagrad's; which is to say that *Shampoo is Adagrad in other axes*. **SOAP** takes that at its word:
# it runs Adam in these axes, $Q_L^\top G Q_R$, and turns the step back.
#
# Once more for matrices of 12 × 8 whose ravine has curvatures from 1 to 10,000, along the axes and turned on both sides.
# The gradients are noisy, with the noise that a regression has: in proportion to the curvature.

# %%
spread = [np.diag(np.geomspace(1, 10, n)) for n in (12, 8)]
turn = [np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (12, 8)]
start = rng.normal(size=(12, 8))
problems = {
    "straight": (*spread, start),
    "turned": (
        turn[0] @ spread[0] @ turn[0].T,
        turn[1] @ spread[1] @ turn[1].T,
        turn[0] @ start @ turn[1].T,
    ),
}


def final_loss(tx, A, B, W):
    """|A W B|² / 2 after 300 steps."""
    residual = lambda p: A @ p["kernel"] @ B

    def step(carry, key):
        p, state = carry
        noise = jax.random.normal(key, W.shape)
        seen = lambda p: jnp.sum(residual(p) * (residual(p) / 2 + noise))
        updates, state = tx.update(jax.grad(seen)(p), state, p)
        return (gx.apply_updates(p, updates), state), None

    p = {"kernel": jnp.asarray(W, jnp.float32)}
    keys = jax.random.split(jax.random.key(0), 300)
    (p, _), _ = jax.lax.scan(step, (p, tx.init(p)), keys)
    return jnp.sum(residual(p) ** 2) / 2


rates = np.geomspace(0.01, 1, 9)
falling = lambda rate: rate * gx.cooldown(300)
makers = {
    "Adam": lambda rate: gx.adam(falling(rate), b2=0.95),
    "SOAP": lambda rate: gx.soap(
        falling(rate), b1=0.9, weight_decay=0.0, precondition_frequency=1
    ),
}
ends = {}
for name, make in makers.items():
    everywhere = jax.jit(jax.vmap(final_loss, (0, None, None, None)))
    for which, problem in problems.items():
        arrays = [jnp.asarray(x, jnp.float32) for x in problem]
        txs = gx.stack([make(rate) for rate in rates])
        ends[f"{name}, {which}"] = np.asarray(everywhere(txs, *arrays))
plot.sensitivity(rates, ends, title="After 300 steps, 12 × 8")

# %%
best = {name: values.min() for name, values in ends.items()}
print("best:", {name: f"{value:.2f}" for name, value in best.items()})
assert best["Adam, turned"] > 2 * best["Adam, straight"]
assert 0.67 < best["SOAP, turned"] / best["SOAP, straight"] < 1.5
assert best["SOAP, turned"] < best["Adam, turned"]

# %% [markdown]
# To Adam the turned problem is another, harder one. To SOAP it is the same problem. Whether real losses are turned is
# a question for experiments; along the axes, SOAP has nothing to gain.
#
# ## Who goes where
#
# Not every parameter is a matrix in this sense. A bias is none; an embedding is a list of vectors, of which a batch
# sees a few; the head's outputs are the classes themselves. The matrix methods of gradxform leave these to Adam.
# `describe` shows it, before the first step:

# %%
tx = gx.muon(0.02)
for row in gx.describe(tx, params).rows:
    print(f"{row.path:16} {list(row.shape)!s:9} {' > '.join(row.rules)[:48]}…")

# %% [markdown]
# ## Muon against Adam, with a ruler
#
# Eight learning rates for each from one seed, then the best of them from eight other seeds. One schedule for both, six
# epochs. Both train from the same start on the same batches for each seed, so that we may compare in pairs.

# %%
EPOCHS, STEPS = 6, 6 * 26
schedule = gx.warmup(16) >> gx.cooldown(STEPS - 16)
methods = {
    "Adam": (lambda rate: gx.adam(rate * schedule), np.geomspace(2e-3, 2e-1, 8)),
    "Muon": (
        lambda rate: gx.muon(rate * schedule, adam_learning_rate=0.01 * schedule),
        np.geomspace(3e-3, 1.5e-1, 8),
    ),
}


def final(tx, seed):
    key = jax.random.key(seed)
    start = nnx.state(Net(nnx.Rngs(key)))
    return fit(tx, start, key, EPOCHS).history["val_loss"][-1]


runs, swept = {}, {}
for name, (make, rates) in methods.items():
    race = jax.jit(jax.vmap(final))  # eight at once; compiled once for both calls
    swept[name] = np.asarray(
        race(gx.stack([make(r) for r in rates]), jnp.zeros(8, int))
    )
    chosen = rates[np.nanargmin(swept[name])]
    runs[name] = np.asarray(race(gx.stack([make(chosen)] * 8), jnp.arange(1, 9)))
    print(
        f"{name}: best of {rates[0]:.3g} … {rates[-1]:.3g} is {chosen:.3g}; "
        f"held-out loss {runs[name].mean():.3f} ± {runs[name].std(ddof=1):.3f} over seeds"
    )

# %%
difference = runs["Muon"] - runs["Adam"]
half = 2.365 * difference.std(ddof=1) / np.sqrt(8)  # Student's 95 % for 8 pairs
print(
    f"Muon minus Adam, by seed: {difference.mean():+.4f}, 95 % interval "
    f"{difference.mean() - half:+.4f} to {difference.mean() + half:+.4f}"
)
assert difference.mean() + half < 0

# %% [markdown]
# On this task, at this size, after six epochs, Muon's held-out loss is lower, and the interval says that this is not the
# luck of the seeds. It does not say more: Adam takes less time for a step, and longer training, another schedule or a
# wider network may rank otherwise. (Without the pairs, the interval would be wider. Try it.) A larger comparison, of six
# methods on a Transformer, with steps and seconds, is `benchmarks/transformer.py`.
#
# ## What to remember
#
# - A gradient is a sum of a few loud directions and many quiet ones. One learning rate for all of them serves the loud.
# - Orthogonalising ($U S V^\top ↦ U V^\top$) makes all directions equally loud. It is the steepest descent when a step
#   is measured by its largest singular value. Newton-Schulz does it in products of matrices.
# - Muon is momentum, orthogonalised. Small directions are learned as fast as large ones, and steps do not get shorter
#   by themselves.
# - Adam depends on the axes. Shampoo and SOAP find axes of their own, from the second moments of rows and columns.
# - Embeddings, heads, norms and biases go to Adam; `describe` shows who goes where.
# - A claim needs an interval, and seeds that were not used to tune.
#
# ## Try
#
# 1. Replace `gx.momentum(0.9)` before `gx.orthogonalize()` in the factorisation by nothing. What changes in the
#    trembling at the end, and why?
#
#    <details><summary>Hint</summary>
#
#    Every step is α long in every direction, however small the gradient. Close to the goal only the sign of a direction
#    can change: it jumps back and forth over it. A schedule is the remedy, not momentum.
#    </details>
#
# 2. Give the factorisation a sixth direction of noise: a target that is redrawn at every step with size 0.02. Which
#    of the three methods learns it first?
#
#    <details><summary>Hint</summary>
#
#    Add `jax.random` noise to `target` inside `step`, with a key for each step. What is small and always there and what
#    is small and changes look the same to one gradient; only the average tells.
#    </details>
#
# 3. In the ravine, raise `precondition_frequency` to 10, then to 60. How long may SOAP go on in old axes?
#
#    <details><summary>Hint</summary>
#
#    The axes of this ravine never change, so the question is how soon they are known. In a network they change, slowly.
#    </details>
#
# 4. `gx.muon(0.02, ns_coeffs="polar_express")`: does the comparison with Adam change by more than its interval?
#
#    <details><summary>Hint</summary>
#
#    Pair it with Muon's own runs, not with Adam's: same seeds, one difference for each.
#    </details>
#
# ## Sources
#
# - K. Jordan et al., *Muon: An optimizer for hidden layers in neural networks* (2024).
# - N. Amsel et al., *The Polar Express: Optimal matrix sign methods and their application to the Muon algorithm* (2025).
# - J. Bernstein, L. Newhouse, *Old optimizer, new norm: an anthology* (2024): steepest descent in other norms.
# - V. Gupta, T. Koren, Y. Singer, *Shampoo: Preconditioned stochastic tensor optimization* (2018).
# - N. Vyas et al., *SOAP: Improving and stabilizing Shampoo using Adam* (2024).
# - A. M. Saxe, J. L. McClelland, S. Ganguli, *Exact solutions to the nonlinear dynamics of learning in deep linear neural
#   networks* (2013): one singular value after another.
