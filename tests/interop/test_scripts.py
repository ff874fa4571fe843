"""Training scripts written for Optax give the same parameters under `import gradxform as optax`."""

import chex
import jax
import pytest
from thinned import one_in

pytestmark = pytest.mark.usefixtures("standard_promotion")

DATA = """
import jax
import jax.numpy as jnp
import numpy as np

rng = np.random.default_rng(0)
x = jnp.asarray(rng.normal(size=(64, 5)), jnp.float32)
labels = jnp.asarray(rng.integers(0, 3, size=64))
params = {
    "hidden": {"kernel": jnp.asarray(rng.normal(size=(5, 8)) / 3, jnp.float32), "bias": jnp.zeros(8)},
    "out": {"kernel": jnp.asarray(rng.normal(size=(8, 3)) / 3, jnp.float32), "bias": jnp.zeros(3)},
}

def model(params, x):
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["out"]["kernel"] + params["out"]["bias"]
"""

SCRIPTS = {
    "a Flax classifier": """
from flax.training.train_state import TrainState

schedule = optax.warmup_cosine_decay_schedule(init_value=0.0, peak_value=3e-2, warmup_steps=5, decay_steps=40, end_value=1e-4)
decay_mask = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
tx = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(schedule, b2=0.98, weight_decay=1e-2, mask=decay_mask),
)
state = TrainState.create(apply_fn=model, params=params, tx=tx)

@jax.jit
def train_step(state):
    def loss_fn(params):
        logits = state.apply_fn(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    return state.apply_gradients(grads=grads), {"loss": loss, "grad_norm": optax.global_norm(grads)}

for _ in range(40):
    state, metrics = train_step(state)
params = state.params
""",
    "a rate that is changed by hand": """
def make_optimizer(learning_rate, weight_decay) -> optax.GradientTransformation:
    return optax.chain(optax.scale_by_adam(b1=0.8), optax.add_decayed_weights(weight_decay), optax.scale_by_learning_rate(learning_rate))

tx = optax.inject_hyperparams(optax.adamw)(learning_rate=1e-2, b1=optax.linear_schedule(0.8, 0.95, 20))
opt_state: optax.OptState = tx.init(params)

@jax.jit
def step(params, opt_state):
    grads = jax.grad(lambda p: optax.losses.softmax_cross_entropy(model(p, x), jax.nn.one_hot(labels, 3)).mean())(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state

for i in range(30):
    if i == 10:
        opt_state.hyperparams["learning_rate"] = jnp.asarray(5e-3)
    if i == 20:
        opt_state = optax.tree_utils.tree_set(opt_state, learning_rate=jnp.asarray(1e-3))
    params, opt_state = step(params, opt_state)
assert float(opt_state.hyperparams["learning_rate"]) == float(optax.tree_utils.tree_get(opt_state, "learning_rate"))
by_hand = make_optimizer(1e-2, 1e-3)
state = by_hand.init(params)
for _ in range(5):
    grads = jax.grad(lambda p: optax.l2_loss(model(p, x)).sum())(params)
    updates, state = by_hand.update(grads, state, params)
    params = optax.apply_updates(params, updates)
""",
    "groups, accumulation and bad batches": """
def label_fn(params):
    return {name: "body" if name == "hidden" else "head" for name in params}

schedule = optax.join_schedules([optax.linear_schedule(0.0, 2e-2, 3), optax.cosine_decay_schedule(2e-2, 20)], [3])
inner = optax.multi_transform({"body": optax.sgd(schedule, momentum=0.9, nesterov=True), "head": optax.adam(1e-2)}, label_fn)
tx = optax.apply_if_finite(optax.chain(optax.clip(1.0), optax.MultiSteps(inner, every_k_schedule=2).gradient_transformation()), 5)
opt_state = tx.init(params)

@jax.jit
def step(params, opt_state, batch, batch_labels, poison):
    def loss_fn(params):
        return optax.softmax_cross_entropy_with_integer_labels(model(params, batch), batch_labels).mean() * poison

    updates, opt_state = tx.update(jax.grad(loss_fn)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state

for i in range(32):
    at = slice(16 * (i % 4), 16 * (i % 4) + 16)
    params, opt_state = step(params, opt_state, x[at], labels[at], jnp.where(i == 7, jnp.nan, 1.0))
""",
    "averages of the parameters": """
def add_gradient_noise_free_sign() -> optax.GradientTransformation:
    def init_fn(params):
        return optax.EmptyState()

    def update_fn(updates, state, params=None):
        return jax.tree.map(lambda g: g + 0.01 * jnp.sign(g), updates), state

    return optax.GradientTransformation(init_fn, update_fn)

class Averages:
    params: optax.Params

tx = optax.named_chain(
    ("own", add_gradient_noise_free_sign()),
    ("momentum", optax.trace(decay=0.9)),
    ("rate", optax.scale_by_schedule(optax.piecewise_constant_schedule(-0.05, {10: 0.5}))),
)
opt_state, averaged, target = tx.init(params), params, params
frozen = optax.masked(optax.set_to_zero(), {"hidden": {"kernel": False, "bias": True}, "out": False})
frozen_state = frozen.init(params)

@jax.jit
def step(i, params, opt_state, averaged, target):
    def loss_fn(params):
        targets = optax.smooth_labels(jax.nn.one_hot(labels, 3), 0.1)
        return optax.softmax_cross_entropy(model(params, x), targets).mean() + 1e-3 * optax.tree.norm(params, squared=True)

    updates, opt_state = tx.update(jax.grad(loss_fn)(params), opt_state, params)
    updates, _ = frozen.update(updates, frozen_state, params)
    params = optax.apply_updates(params, updates)
    averaged = optax.incremental_update(params, averaged, step_size=0.1)
    target = optax.periodic_update(params, target, i, 8)
    return params, opt_state, averaged, target

for i in range(30):
    params, opt_state, averaged, target = step(i, params, opt_state, averaged, target)
params = optax.tree_utils.tree_add_scale(params, 0.5, optax.tree_utils.tree_sub(averaged, target))
params = jax.tree.map(optax.projections.projection_l2_ball, params)
""",
}


def final(script, module):
    variables: dict = {}
    exec(f"import {module} as optax\n{DATA}\nbefore = params\n{script}", variables)
    return variables["before"], variables["params"]


@pytest.mark.filterwarnings("ignore:optax.global_norm is deprecated")
@pytest.mark.parametrize("name", one_in(2, SCRIPTS))
def test_a_script_gives_the_same_parameters(name):
    before, theirs = final(SCRIPTS[name], "optax")
    _, mine = final(SCRIPTS[name], "gradxform")
    moved = [
        float(abs(a - b).max())
        for a, b in zip(*map(jax.tree.leaves, (theirs, before)), strict=True)
    ]
    assert max(moved) > 0.05, "the script trains"
    chex.assert_trees_all_close(mine, theirs, rtol=2e-4, atol=2e-5)
