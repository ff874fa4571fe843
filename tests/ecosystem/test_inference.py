"""Libraries of probability: variational inference, Gaussian processes, flows, state spaces.

NumPyro and GPJax ask for an instance of Optax's own class, which `gx.to_optax` makes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradxform as gx

pytestmark = [pytest.mark.ecosystem, pytest.mark.filterwarnings("ignore")]

RNG = np.random.default_rng(0)
X = np.sort(RNG.uniform(-2, 2, size=(24, 1)))
Y = np.sin(2 * X) + 0.1 * RNG.normal(size=X.shape)


def of_optaxs_class(o, tx):
    """The optimizer where a library checks its class: Optax's as it is, ours through `gx.to_optax`."""
    return gx.to_optax(tx) if o is gx else tx


def log_density(x):
    return -0.5 * jnp.sum((x["loc"] - 1.0) ** 2) - 0.5 * jnp.sum((x["scale"] / 2.0) ** 2)


@pytest.mark.parametrize("guide", ["AutoNormal", "AutoMultivariateNormal"])
def test_numpyro_svi(guide, beside):
    numpyro = pytest.importorskip("numpyro")
    from numpyro import distributions as dist
    from numpyro.infer import SVI, Trace_ELBO, autoguide

    def model(x, y):
        weights = numpyro.sample("weights", dist.Normal(jnp.zeros(3), 1.0).to_event(1))
        noise = numpyro.sample("noise", dist.LogNormal(-1.0, 0.5))
        powers = jnp.stack([x**k for k in range(3)], -1)
        numpyro.sample("y", dist.Normal(powers @ weights, noise), obs=y)

    def program(o):
        tx = o.chain(o.clip_by_global_norm(10.0), o.adam(o.exponential_decay(2e-2, 10, 0.9)))
        svi = SVI(model, getattr(autoguide, guide)(model), of_optaxs_class(o, tx), Trace_ELBO())
        x, y = X[:, 0], Y[:, 0]
        before = svi.get_params(svi.init(jax.random.key(0), x, y))
        result = svi.run(jax.random.key(0), 20, x, y, progress_bar=False)
        return before, result.params, result.losses

    beside(program)


def test_numpyro_svi_hands_the_loss_to_the_optimizer(beside):
    numpyro = pytest.importorskip("numpyro")
    from numpyro import distributions as dist
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoDelta

    def model(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("mean", dist.Normal(3.0, 1.0)), 1.0), obs=y)

    def program(o):
        reduce = o.contrib.reduce_on_plateau(patience=1, cooldown=0, factor=0.5, rtol=0.5)
        tx = of_optaxs_class(o, o.chain(o.adam(0.1), reduce))
        svi = SVI(model, AutoDelta(model), tx, Trace_ELBO())
        y = jnp.asarray(Y[:, 0])
        before = svi.get_params(svi.init(jax.random.key(0), y))
        result = svi.run(jax.random.key(0), 20, y, progress_bar=False, stable_update=True)
        return before, result.params, result.losses

    beside(program)


def test_numpyro_stein(beside):
    numpyro = pytest.importorskip("numpyro")
    from numpyro import distributions as dist
    from numpyro.contrib.einstein import RBFKernel, SteinVI
    from numpyro.infer.autoguide import AutoNormal
    from numpyro.optim import optax_to_numpyro

    def model(y):
        mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    def program(o):
        tx = optax_to_numpyro(o.adagrad(0.3))  # no check here: ours as it is
        stein = SteinVI(model, AutoNormal(model), tx, RBFKernel(), num_stein_particles=3)
        y = jnp.asarray(Y[:, 0])
        state = stein.init(jax.random.PRNGKey(0), y)
        before = stein.get_params(state)
        after = stein.run(jax.random.PRNGKey(0), 6, y, progress_bar=False)
        return before, after.params, after.losses

    beside(program)


def test_gpjax_fit(beside, x64):
    gpx = pytest.importorskip("gpjax")

    def program(o):
        data = gpx.Dataset(X=jnp.asarray(X), y=jnp.asarray(Y))
        mean, kernel = gpx.mean_functions.Constant(), gpx.kernels.RBF()
        prior = gpx.gps.Prior(mean_function=mean, kernel=kernel)
        model = prior * gpx.likelihoods.Gaussian()
        fitted, history = gpx.fit(
            model=model,
            objective=lambda p, d: -gpx.objectives.conjugate_mll(p, d),
            train_data=data,
            optim=of_optaxs_class(o, o.adamw(3e-2, weight_decay=1e-3)),
            num_iters=15,
            verbose=False,
        )
        return history[0], history[-1], jax.tree.leaves(fitted), history

    beside(program, rtol=1e-7)


@pytest.mark.parametrize("family", ["meanfield_vi", "fullrank_vi"])
def test_blackjax_variational_inference(family, beside):
    blackjax = pytest.importorskip("blackjax")

    def program(o):
        vi = getattr(blackjax, family)(log_density, o.adabelief(3e-2), 10)
        state = first = vi.init({"loc": jnp.zeros(2), "scale": jnp.zeros(3)})
        step = jax.jit(vi.step)
        for key in jax.random.split(jax.random.key(0), 12):
            state, info = step(key, state)
        return list(first[:-1]), list(state[:-1]), info.elbo

    beside(program)


def test_blackjax_svgd(beside):
    blackjax = pytest.importorskip("blackjax")

    def program(o):
        svgd = blackjax.svgd(jax.grad(log_density), o.rmsprop(5e-2, momentum=0.5, nesterov=True))
        drawn = jax.random.normal(jax.random.key(0), (6, 5))
        state = first = svgd.init({"loc": drawn[:, :2], "scale": drawn[:, 2:]}, {"length_scale": 1})
        step = jax.jit(svgd.step)
        for _ in range(12):
            state = step(state)
        return first.particles, state.particles

    beside(program)


def test_blackjax_chees(beside):
    blackjax = pytest.importorskip("blackjax")

    def program(o):
        positions = {"loc": jnp.zeros((4, 2)), "scale": jnp.zeros((4, 3))}
        warmup = blackjax.chees_adaptation(log_density, num_chains=4, max_leapfrog_steps=8)
        tx = o.adam(0.5, b1=0.0, b2=0.95)
        (states, found), _ = warmup.run(jax.random.key(0), positions, 0.1, tx, 12)
        numbers = {k: x for k, x in found.items() if not callable(x) and jnp.ndim(x) == 0}
        return jnp.full((), 0.1), found["step_size"], numbers, states.position

    beside(program, rtol=1e-3, atol=1e-4)


def test_flowjax_fit_to_data(beside):
    eqx, bijections = pytest.importorskip("equinox"), pytest.importorskip("flowjax.bijections")
    from flowjax.distributions import Normal, Transformed
    from flowjax.train import fit_to_data

    def program(o):
        start = Transformed(Normal(jnp.zeros(2)), bijections.Affine(jnp.zeros(2), jnp.ones(2)))
        data = np.concatenate([X, Y], 1).astype(np.float32) + 1.0
        tx = o.chain(o.clip_by_global_norm(5.0), o.nadam(3e-2))
        how = {"max_epochs": 6, "batch_size": 8, "optimizer": tx, "show_progress": False}
        fitted, losses = fit_to_data(jax.random.key(0), start, data, return_best=False, **how)
        leaves = [jax.tree.leaves(eqx.filter(x, eqx.is_inexact_array)) for x in (start, fitted)]
        return *leaves, losses

    beside(program)


def test_dynamax_fit_sgd(beside):
    hmm = pytest.importorskip("dynamax.hidden_markov_model")

    def program(o):
        model = hmm.GaussianHMM(num_states=2, emission_dim=1)
        params, props = model.initialize(jax.random.PRNGKey(0))
        tx = o.chain(o.scale_by_lion(), o.scale(-1e-2))  # it gives update() no parameters
        how = {"optimizer": tx, "num_epochs": 3, "batch_size": 2, "shuffle": True}
        emissions = jnp.asarray(Y.reshape(4, 6, 1), jnp.float32)
        fitted, losses = model.fit_sgd(params, props, emissions, **how)
        return *map(jax.tree.leaves, (params, fitted)), losses

    beside(program)


def test_distrax_bijector(beside):
    distrax = pytest.importorskip("distrax")

    def program(o):
        before = params = {"shift": jnp.zeros(2), "log_scale": jnp.zeros(2)}
        tx = o.inject_hyperparams(o.adamax)(learning_rate=5e-2)
        state = tx.init(params)
        data = jnp.asarray(np.concatenate([X, Y], 1) + 1.0, jnp.float32)

        @jax.jit
        def step(params, state):
            def loss(p):
                flow = distrax.ScalarAffine(p["shift"], log_scale=p["log_scale"])
                base = distrax.Normal(jnp.zeros(2), jnp.ones(2))
                return -distrax.Transformed(base, flow).log_prob(data).mean()

            value, grads = jax.value_and_grad(loss)(params)
            updates, state = tx.update(grads, state, params)
            return o.apply_updates(params, updates), state, value

        for i in range(12):
            if i == 6:
                state.hyperparams["learning_rate"] = jnp.asarray(1e-2)
            params, state, value = step(params, state)
        return before, params, value

    beside(program)
