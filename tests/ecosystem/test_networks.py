"""Libraries of networks: the loop of each as its documentation writes it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = [pytest.mark.ecosystem, pytest.mark.filterwarnings("ignore")]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 4)).astype(np.float32)
Y = np.tanh(X @ RNG.normal(size=(4, 2)) + 0.3).astype(np.float32)


def decayed(o, rate=1e-2):
    """Clipping, warm-up and decayed weights, as most scripts have them."""
    schedule = o.warmup_cosine_decay_schedule(0.0, rate, 3, 20)
    return o.chain(o.clip_by_global_norm(1.0), o.adamw(schedule, weight_decay=1e-2))


def test_nnx_optimizer(beside):
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.hidden = nnx.Linear(4, 8, use_bias=False, rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs)
            self.drop = nnx.Dropout(0.2, rngs=rngs)
            self.out = nnx.Linear(8, 2, rngs=rngs)

        def __call__(self, x):
            return self.out(self.drop(nnx.relu(self.norm(self.hidden(x)))))

    def program(o):
        model = Model(nnx.Rngs(0, dropout=1))
        optimizer = nnx.Optimizer(model, decayed(o), wrt=nnx.Param)
        metrics = nnx.MultiMetric(loss=nnx.metrics.Average("loss"))
        before = jax.tree.map(jnp.copy, nnx.to_pure_dict(nnx.state(model, nnx.Param)))

        @nnx.jit
        def step(model, optimizer, metrics, x, y):
            loss, grads = nnx.value_and_grad(lambda m: jnp.mean((m(x) - y) ** 2))(model)
            metrics.update(loss=loss)
            optimizer.update(model, grads)

        model.train()
        for _ in range(8):
            step(model, optimizer, metrics, X, Y)
        after = nnx.to_pure_dict(nnx.state(model, nnx.Param))
        return before, after, metrics.compute(), optimizer.step[...]

    beside(program)


def test_flax_train_state(beside):
    nn = pytest.importorskip("flax.linen")
    from flax.training.train_state import TrainState

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(nn.LayerNorm()(nn.relu(nn.Dense(8)(x))))

    def program(o):
        model = Model()
        params = model.init(jax.random.key(0), X)["params"]
        kernels = jax.tree_util.tree_map_with_path(
            lambda path, _: "rest" if path[-1].key == "scale" else "kernels", params
        )
        groups = {"kernels": decayed(o), "rest": o.sgd(1e-2, momentum=0.9)}
        tx = o.multi_transform(groups, kernels)
        state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)

        @jax.jit
        def step(state):
            def loss(p):
                return jnp.mean((state.apply_fn({"params": p}, X) - Y) ** 2)

            value, grads = jax.value_and_grad(loss)(state.params)
            return state.apply_gradients(grads=grads), value

        for _ in range(8):
            state, value = step(state)
        return params, state.params, value, state.step

    beside(program)


def test_equinox(beside):
    eqx = pytest.importorskip("equinox")

    def program(o):
        model = eqx.nn.MLP(4, 2, 8, 1, key=jax.random.key(0))
        before = eqx.filter(model, eqx.is_inexact_array)
        tx = o.MultiSteps(decayed(o), every_k_schedule=2)
        state = tx.init(before)

        @eqx.filter_jit
        def step(model, state):
            loss = eqx.filter_value_and_grad(lambda m: jnp.mean((jax.vmap(m)(X) - Y) ** 2))
            value, grads = loss(model)
            params = eqx.filter(model, eqx.is_inexact_array)
            updates, state = tx.update(grads, state, params)
            return eqx.apply_updates(model, updates), state, value

        for _ in range(16):
            model, state, value = step(model, state)
        return *map(jax.tree.leaves, (before, eqx.filter(model, eqx.is_inexact_array))), value

    beside(program)


def test_penzai_trainer(beside):
    pz = pytest.importorskip("penzai.pz")
    from penzai.models import simple_mlp
    from penzai.toolshed.basic_training import StatefulTrainer

    x, y = pz.nx.wrap(X).tag("batch", "features"), pz.nx.wrap(Y).tag("batch", "features")

    def loss(model, rng, state, **_):
        error = (model(x) - y).untag("batch", "features").unwrap()
        value = jnp.mean(error**2)
        return value, state, {"loss": value}

    def program(o):
        model = simple_mlp.MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[4, 8, 2])
        trainer = StatefulTrainer.build(
            root_rng=jax.random.key(1), model=model, optimizer_def=decayed(o), loss_fn=loss
        )
        before = [p.value.unwrap(*p.value.named_shape) for p in pz.unbind_params(model)[1]]
        losses = [trainer.step()["loss"] for _ in range(8)]
        after = [p.value.unwrap(*p.value.named_shape) for p in pz.unbind_params(trainer.model)[1]]
        return before, after, losses

    beside(program)


def test_haiku(beside):
    hk = pytest.importorskip("haiku")

    def program(o):
        model = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([8, 2])(x)))
        before = params = model.init(jax.random.key(0), X)
        tx = o.masked(decayed(o), hk.data_structures.map(lambda m, n, p: True, params))
        state = tx.init(params)

        @jax.jit
        def step(params, state):
            grads = jax.grad(lambda p: jnp.mean((model.apply(p, X) - Y) ** 2))(params)
            updates, state = tx.update(grads, state, params)
            return o.apply_updates(params, updates), state

        for _ in range(8):
            params, state = step(params, state)
        return before, params

    beside(program)


def test_chex_dataclass_and_variants(beside):
    """Parameters in a chex dataclass; `assert_max_traces` and `assert_trees_all_equal_structs`
    hold of a step and of its state.
    """

    @chex.dataclass
    class Params:
        w: chex.Array
        b: chex.Array

    def program(o):
        before = params = Params(w=jnp.ones((4, 2)) / 4, b=jnp.zeros(2))
        tx = decayed(o)
        state = tx.init(params)
        chex.clear_trace_counter()

        @jax.jit
        @chex.assert_max_traces(n=1)
        def step(params, state):
            grads = jax.grad(lambda p: jnp.mean((X @ p.w + p.b - Y) ** 2))(params)
            updates, state = tx.update(grads, state, params)
            return o.apply_updates(params, updates), state

        for _ in range(8):
            old = state
            params, state = step(params, state)
            chex.assert_trees_all_equal_structs(old, state)
            chex.assert_trees_all_equal_shapes_and_dtypes(old, state)
        return dict(before), dict(params)

    beside(program)


def test_rlax_temporal_differences(beside):
    """Q-learning with a target network, renewed as rlax's examples do."""
    rlax = pytest.importorskip("rlax")

    rewards, actions = RNG.normal(size=32), RNG.integers(0, 2, size=32)
    after = RNG.normal(size=(32, 4)).astype(np.float32)

    def program(o):
        before = params = {"w": jnp.ones((4, 2)) / 4, "b": jnp.zeros(2)}
        tx = o.chain(o.clip_by_global_norm(0.5), o.rmsprop(1e-2, decay=0.95, centered=True))
        state, target = tx.init(params), params
        td = jax.vmap(rlax.double_q_learning)

        def q(p, x):
            return x @ p["w"] + p["b"]

        @jax.jit
        def step(i, params, target, state):
            def loss(p):
                discount = jnp.full(32, 0.9)
                errors = td(q(p, X), actions, rewards, discount, q(target, after), q(p, after))
                return jnp.mean(rlax.l2_loss(errors))

            updates, state = tx.update(jax.grad(loss)(params), state)
            params = o.apply_updates(params, updates)
            return params, o.periodic_update(params, target, i, 4), state

        for i in range(12):
            params, target, state = step(i, params, target, state)
        return before, params, target

    beside(program)
