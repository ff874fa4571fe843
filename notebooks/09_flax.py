# %% [markdown]
# # 9. How does gradxform work with Flax, from the first step to the checkpoint?
#
# Flax has two places for an optimizer: `TrainState`, in the older interface of pure functions (linen), and
# `nnx.Optimizer`, beside models that are objects. Both take any gradxform transformation as it is. This notebook
# trains one small network on the handwritten digits in both, and then does what a real project comes to need:
# another learning rate in the middle of a run, parameter groups, bfloat16, checkpoints, and the move from Optax.

# %%
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits

import gradxform as gx

digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.target))
x, y = digits.data[order].astype(np.float32) / 16, digits.target[order]
train, validation = {"x": x[:1300], "y": y[:1300]}, {"x": x[1300:], "y": y[1300:]}


class Net(nn.Module):
    """Two layers and a head."""

    @nn.compact
    def __call__(self, x):
        for i in range(2):
            x = nn.relu(nn.Dense(32, name=f"layer_{i}")(x))
        return nn.Dense(10, name="head")(x)


def cross_entropy(logits, labels):
    return gx.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


# %% [markdown]
# ## `TrainState`

# %%
net = Net()
params = net.init(jax.random.key(0), x[:1])["params"]
state = TrainState.create(apply_fn=net.apply, params=params, tx=gx.adam(3e-3))


@jax.jit
def train_step(state, batch):
    def loss(params):
        return cross_entropy(state.apply_fn({"params": params}, batch["x"]), batch["y"])

    value, gradient = jax.value_and_grad(loss)(state.params)
    return state.apply_gradients(grads=gradient), value


def epochs(step, state, n, first=0):
    """n epochs; the key of an epoch is its number, so that a run can be taken up in the
    middle.
    """
    for epoch in range(first, first + n):
        for batch in gx.batches(jax.random.key(epoch), train, 50):
            state, _ = step(state, batch)
    return state


def accuracy(params):
    return float(
        np.mean(
            np.argmax(net.apply({"params": params}, validation["x"]), -1)
            == validation["y"]
        )
    )


state = epochs(train_step, state, 5)
print(f"{int(state.step)} steps, validation accuracy {accuracy(state.params):.1%}")

# %% [markdown]
# The state of the optimizer has names. What belongs to a parameter lies under the parameter's own path:

# %%
print(
    gx.get(state.opt_state, "step"),
    gx.get(state.opt_state, "m")["head"]["bias"].round(4),
)

# %% [markdown]
# ## Another learning rate in the middle of a run
#
# `TrainState` holds the optimizer as static metadata, as a part of the program. Another number is another program,
# and JAX compiles again. How often? Count the traces.

# %%
traces = []


@jax.jit
def counted_step(state, batch):
    traces.append(1)  # runs only while JAX traces
    return train_step(state, batch)


batch = next(gx.batches(None, train, 50))
for rate in (1e-2, 1e-3, 1e-4):
    state = state.replace(tx=gx.adam(rate))
    state, _ = counted_step(state, batch)
print("static:", len(traces), "compilations for 3 learning rates")
assert len(traces) == 3

# %% [markdown]
# `gx.tunable` moves the numbers of the optimizer into its state, where they are data. All of them, not the learning
# rate alone.

# %%
traces.clear()
state = TrainState.create(
    apply_fn=net.apply, params=params, tx=gx.tunable(gx.adam(1e-2))
)
for numbers in ({}, {"learning_rate": 1e-3}, {"learning_rate": 1e-4, "b1": 0.8}):
    state = state.replace(opt_state=state.opt_state.replace(**numbers))
    state, _ = counted_step(state, batch)
now = state.opt_state.tx
print(
    f"tunable: {len(traces)} compilation; now learning_rate={now.learning_rate:.0e}, "
    f"b1={now.b1:.1f}"
)
assert len(traces) == 1

# %% [markdown]
# Without a framework no wrapper is needed: an optimizer is a pytree, so give it to the step as an argument.

# %%
traces.clear()


@jax.jit
def plain_step(tx, params, state, batch):
    traces.append(1)
    gradient = jax.grad(
        lambda p: cross_entropy(net.apply({"params": p}, batch["x"]), batch["y"])
    )(params)
    updates, state = tx.update(gradient, state, params)
    return gx.apply_updates(params, updates), state


p, s = params, gx.adam(1e-2).init(params)
for rate in (1e-2, 1e-3, 1e-4):
    p, s = plain_step(gx.adam(rate), p, s, batch)
print("as an argument:", len(traces), "compilation")
assert len(traces) == 1

# %% [markdown]
# ## `nnx.Optimizer`
#
# The same with a model that is an object. The optimizer updates the model in place; `tunable` works alike.


# %%
class NnxNet(nnx.Module):
    """The same network."""

    def __init__(self, rngs):
        self.layer_0 = nnx.Linear(64, 32, rngs=rngs)
        self.layer_1 = nnx.Linear(32, 32, rngs=rngs)
        self.head = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.layer_1(nnx.relu(self.layer_0(x)))))


model = NnxNet(nnx.Rngs(0))
optimizer = nnx.Optimizer(model, gx.tunable(gx.adam(3e-3)), wrt=nnx.Param)
traces.clear()


@nnx.jit
def nnx_step(model, optimizer, batch):
    traces.append(1)
    value, gradient = nnx.value_and_grad(
        lambda model: cross_entropy(model(batch["x"]), batch["y"])
    )(model)
    optimizer.update(model, gradient)
    return value


for epoch, rate in enumerate((3e-3, 3e-3, 3e-3, 1e-3, 3e-4)):
    optimizer.opt_state = optimizer.opt_state.replace(learning_rate=rate)
    for batch in gx.batches(jax.random.key(epoch), train, 50):
        nnx_step(model, optimizer, batch)
correct = np.mean(np.argmax(model(validation["x"]), -1) == validation["y"])
print(f"validation accuracy {correct:.1%} with {len(traces)} compilation")
assert len(traces) == 1

# %% [markdown]
# ## Parameter groups by path
#
# Where only numbers differ, give one optimizer a table: weight decay for kernels alone, a tenth of the rate for the
# first layer. Where a part must not move, `freeze` it; it gets no state. `gx.describe` tells, parameter by
# parameter, what will happen and how many bytes it takes, before any step is made.

# %%
groups = gx.adamw(
    learning_rate=gx.by_path({"layer_0/*": 3e-4, "**": 3e-3}),
    weight_decay=gx.by_path({"**/kernel": 0.1, "**": 0.0}),
)
frozen = gx.freeze("layer_0/**", gx.adam(3e-3))
for row in gx.describe(groups, params).rows:
    numbers = ", ".join(rule.split("(")[1].rstrip(")") for rule in row.rules[-2:])
    print(f"{row.path:>15} {sum(row.slots.values()):>6} bytes: {numbers}")
print()
for row in gx.describe(frozen, params).rows:
    rules = " > ".join(rule.split("(")[0] for rule in row.rules)
    print(f"{row.path:>15} {sum(row.slots.values()):>6} bytes: {rules}")

# %% [markdown]
# A pattern that matches nothing is an error at once, not a group that silently never trained:

# %%
try:
    gx.freeze("layer_7/**", gx.adam(3e-3)).init(params)
except ValueError as error:
    print(error)

# %% [markdown]
# ## bfloat16 parameters, float32 state
#
# Half the memory for the parameters, and the same range, but only eight bits of precision: 0.999 in bfloat16 is 1,
# so an average kept in bfloat16 with that decay never forgets. gradxform computes in float32 and keeps its state
# there, and returns the update in the gradient's dtype, or in the parameter's where that is wider.

# %%
half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
state = TrainState.create(apply_fn=net.apply, params=half, tx=gx.adam(3e-3))
state = epochs(train_step, state, 5)
kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(gx.get(state.opt_state, "m"))}
print(
    "parameters",
    {str(p.dtype) for p in jax.tree.leaves(state.params)},
    "averages",
    kinds,
)
print(
    f"0.999 in bfloat16 is {jnp.bfloat16(0.999)}; validation accuracy "
    f"{accuracy(state.params):.1%}"
)
assert kinds == {"float32"}

for dtype in (jnp.bfloat16, jnp.float32):
    average = jnp.ones((), dtype)
    for _ in range(1000):
        average = dtype(0.999) * average  # gradients of zero
    print(
        f"an average of 1 after 1000 gradients of 0, in {average.dtype}: {average:.2f}"
    )

# %% [markdown]
# ## Checkpoints with Orbax
#
# A state is a pytree of named arrays, and Orbax saves it as it is. The test of a checkpoint: six epochs in one go,
# and three epochs, a checkpoint, a new process's empty state filled from disk, three epochs more. Every bit must
# agree.

# %%
import tempfile
from pathlib import Path

import orbax.checkpoint as ocp


def fresh():
    tx = gx.chain(
        gx.clip_by_global_norm(1.0),
        gx.adamw(gx.cosine_decay_schedule(3e-3, 6 * 26), weight_decay=0.01),
    )
    return TrainState.create(apply_fn=net.apply, params=params, tx=tx)


in_one_go = epochs(train_step, fresh(), 6)
with (
    tempfile.TemporaryDirectory() as folder,
    ocp.StandardCheckpointer() as checkpointer,
):
    half_way = epochs(train_step, fresh(), 3)
    checkpointer.save(Path(folder) / "half_way", half_way)
    checkpointer.wait_until_finished()
    restored = checkpointer.restore(Path(folder) / "half_way", jax.eval_shape(fresh))

in_two = epochs(train_step, restored, 3, first=3)
same = jax.tree.map(lambda a, b: bool((a == b).all()), in_one_go.params, in_two.params)
print(f"{int(in_two.step)} steps, bit for bit the same: {all(jax.tree.leaves(same))}")
assert all(jax.tree.leaves(same))

# %% [markdown]
# ## Moving a script from Optax
#
# What Optax has goes by Optax's names, arguments and defaults, so a script moves by its import. Here is one, run
# with both:

# %%
import optax


def script(o):
    """A typical optimizer of an Optax script; `o` is optax or gradxform."""
    schedule = o.warmup_cosine_decay_schedule(
        0.0, 3e-3, warmup_steps=20, decay_steps=130
    )
    return o.chain(
        o.clip_by_global_norm(1.0), o.adamw(schedule, b2=0.99, weight_decay=1e-2)
    )


after = {}
for o in (optax, gx):
    state = TrainState.create(apply_fn=net.apply, params=params, tx=script(o))
    after[o.__name__] = epochs(train_step, state, 5).params
apart = jax.tree.map(
    lambda a, b: float(jnp.abs(a - b).max()), after["optax"], after["gradxform"]
)
print(
    "after 130 steps the parameters differ by at most "
    f"{max(jax.tree.leaves(apart)):.1e}"
)
assert max(jax.tree.leaves(apart)) < 1e-3

# %% [markdown]
# And nothing must move at once. A part of one library works in a chain of the other:

# %%
ours_in_theirs = optax.chain(optax.clip_by_global_norm(1.0), gx.adam(3e-3))
theirs_in_ours = gx.chain(optax.clip_by_global_norm(1.0), gx.adam(3e-3))
for tx in (ours_in_theirs, theirs_in_ours):
    state = TrainState.create(apply_fn=net.apply, params=params, tx=tx)
    print(f"{accuracy(epochs(train_step, state, 3).params):.1%}")

# %% [markdown]
# ## What to remember
#
# - Any gradxform transformation goes into `TrainState` and `nnx.Optimizer` as it is.
# - A framework that holds the optimizer as metadata compiles again for each number; `gx.tunable` makes the numbers
#   data. In your own step, pass the optimizer as an argument.
# - Groups are tables by path; `describe` shows them before the run, and a pattern that matches nothing is an error.
# - State is float32 whatever the parameters are, has names, and goes through Orbax as it is.
#
# ## Try
#
# 1. In *Another learning rate*, replace `{"learning_rate": 1e-3}` by `{"b1": 1.5}`, then by `{"beta1": 0.8}`. What
#    do the messages say?
# 2. In *Parameter groups*, freeze the head instead of the first layer. How many bytes of state are left?
# 3. In *Checkpoints*, leave out `first=3`, so that the second half sees the batches of the first again. Are the
#    bits still the same?
