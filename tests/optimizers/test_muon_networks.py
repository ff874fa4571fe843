"""Muon with nothing declared, on networks of Flax linen and nnx; and a sweep over its numbers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gradxform as gx


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x + nn.MultiHeadDotProductAttention(2, name="attention")(nn.LayerNorm()(x))
        return x + nn.Dense(8)(nn.gelu(nn.Dense(32)(nn.LayerNorm()(x))))


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(11, 8)(tokens) + self.param("pos_embedding", nn.zeros, (6, 8))
        return nn.Dense(11, name="lm_head")(nn.LayerNorm()(Block()(x)))


class LinenCNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        x = nn.relu(nn.Conv(8, (3, 3), strides=2)(x)).reshape(x.shape[0], -1)
        return nn.Dense(5, name="classifier")(nn.relu(nn.Dense(16)(x)))


class NnxCNN(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.hidden = nnx.Linear(4 * 36, 16, rngs=rngs)
        self.head = nnx.Linear(16, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.conv(x)).reshape(x.shape[0], -1)
        return self.head(nnx.relu(self.hidden(x)))


def linen(model, x, labels):
    params = model.init(jax.random.key(0), x)["params"]
    value = optax.softmax_cross_entropy_with_integer_labels
    return params, lambda params: value(model.apply({"params": params}, x), labels).mean()


def transformer():
    tokens = jax.random.randint(jax.random.key(1), (4, 6), 0, 11)
    return linen(Transformer(), tokens, jnp.roll(tokens, 1, axis=1))


def images():
    return jax.random.normal(jax.random.key(1), (20, 6, 6, 1)), jnp.arange(20) % 5


def cnn():
    return linen(LinenCNN(), *images())


def nnx_cnn():
    graph, params = nnx.split(NnxCNN(nnx.Rngs(0)))
    x, labels = images()
    value = optax.softmax_cross_entropy_with_integer_labels
    return params, lambda params: value(nnx.merge(graph, params)(x), labels).mean()


MATRICES = {
    transformer: {
        *(f"Block_0/attention/{name}/kernel" for name in ("query", "key", "value", "out")),
        "Block_0/Dense_0/kernel",
        "Block_0/Dense_1/kernel",
    },
    cnn: {"Conv_0/kernel", "Conv_1/kernel", "Dense_0/kernel"},
    nnx_cnn: {"conv/kernel", "hidden/kernel"},
}


@pytest.mark.parametrize("network", MATRICES)
def test_each_parameter_is_told_by_its_name(network):
    params = jax.eval_shape(lambda: network()[0])
    state = jax.eval_shape(gx.muon(0.02).init, params)
    held = {k: state[k]["ema"].slots["m"] for k in ("muon", "adam")}
    found = {k: jax.tree_util.tree_leaves_with_path(x) for k, x in held.items()}
    names = {gx.core.leaves.path_string(path) for path, _ in found["muon"]}
    assert {name.removesuffix("/value") for name in names} == MATRICES[network]
    assert len(found["muon"]) + len(found["adam"]) == len(jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("network", "name"),
    [
        (nnx_cnn, "muon"),
        pytest.param(cnn, "muon", marks=pytest.mark.slow),
        pytest.param(transformer, "muon", marks=pytest.mark.slow),
        pytest.param(transformer, "normuon", marks=pytest.mark.slow),
        pytest.param(transformer, "adamuon", marks=pytest.mark.slow),
    ],
)
def test_a_network_trains_with_nothing_declared(network, name):
    params, loss = network()
    tx = getattr(gx, name)(0.02, adam_learning_rate=0.003)

    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params)
        return (gx.apply_updates(params, updates), state), value

    start = params, tx.init(params)
    _, losses = jax.jit(lambda x: jax.lax.scan(step, x, length=30))(start)
    assert losses[-1] < 0.5 * losses[0]


def test_a_sweep_over_rate_momentum_and_decay_is_one_compilation():
    params = {"a": {"kernel": jnp.eye(3, 5), "bias": jnp.ones(5)}}
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(0), (3, *p.shape)), params)

    def train(tx):
        def step(carry, g):
            params, state = carry
            updates, state = tx.update(g, state, params)
            return (gx.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), grads)[0][0]

    members = [
        gx.muon(lr, beta=beta, weight_decay=decay)
        for lr, beta, decay in ((0.02, 0.95, 0.0), (0.1, 0.9, 0.1), (0.5, 0.5, 0.2))
    ]
    swept = jax.jit(jax.vmap(train))
    together = swept(gx.stack(members))
    swept(gx.stack([tx.replace(learning_rate=0.3) for tx in members]))
    assert swept._cache_size() == 1
    alone = jax.jit(train)
    for i, tx in enumerate(members):
        member = jax.tree.map(lambda x, i=i: x[i], together)
        expected = alone(tx)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), member, expected)
