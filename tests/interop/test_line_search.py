"""Optax's L-BFGS and line searches as parts of our chains: the extra arguments reach them, and they minimise as in Optax alone."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from thinned import one_in

import gradxform as gx

pytestmark = pytest.mark.usefixtures("x64", "standard_promotion")


def rosenbrock(params):
    x = params["x"]
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def logistic(params):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 4)), np.sign(rng.standard_normal(60))
    return jnp.mean(jnp.logaddexp(0, -y * (x @ params["w"] + params["b"]))) + 0.01 * jnp.sum(
        params["w"] ** 2
    )


PROBLEMS = {
    "rosenbrock": (rosenbrock, {"x": jnp.array([-1.2, 1.0, -0.5, 0.8])}),
    "logistic": (logistic, {"w": jnp.full(4, 0.5), "b": jnp.array(1.0)}),
}


def minimised(tx, problem, steps, from_state=False, jit=True):
    function, start = PROBLEMS[problem]
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), start)

    def step(params, state):
        if from_state:
            value, gradient = optax.value_and_grad_from_state(function)(params, state=state)
        else:
            value, gradient = jax.value_and_grad(function)(params)
        updates, state = tx.update(
            gradient, state, params, value=value, grad=gradient, value_fn=function
        )
        return optax.apply_updates(params, updates), state

    step = jax.jit(step) if jit else step
    state = tx.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params, function(params)


def zoom(steps=20):
    return optax.scale_by_zoom_linesearch(steps)


def backtracking(steps=20, store_grad=False):
    return optax.scale_by_backtracking_linesearch(steps, store_grad=store_grad)


PAIRS = {
    "lbfgs": (lambda: optax.lbfgs(), lambda: gx.chain(optax.lbfgs())),
    "clip, lbfgs": (
        lambda: optax.chain(optax.clip_by_global_norm(2.0), optax.lbfgs()),
        lambda: gx.chain(gx.clip_by_global_norm(2.0), optax.lbfgs()),
    ),
    "lbfgs in parts": (
        lambda: optax.chain(optax.scale_by_lbfgs(), optax.scale(-1.0), zoom()),
        lambda: gx.chain(optax.scale_by_lbfgs(), gx.scale(-1.0), zoom()),
    ),
    "sgd, backtracking": (
        lambda: optax.chain(optax.sgd(1.0), backtracking()),
        lambda: gx.chain(gx.sgd(1.0), backtracking()),
    ),
    "momentum, zoom": (
        lambda: optax.chain(optax.sgd(1.0, 0.9), zoom()),
        lambda: gx.chain(gx.sgd(1.0, 0.9), zoom()),
    ),
    "adam, zoom": (
        lambda: optax.chain(optax.adam(1.0), zoom()),
        lambda: gx.chain(gx.adam(1.0), zoom()),
    ),
    "inside optax.chain": (
        lambda: optax.chain(optax.sgd(1.0), backtracking()),
        lambda: optax.chain(gx.sgd(1.0), backtracking()),
    ),
}


@pytest.mark.parametrize(
    "problem", ["rosenbrock", pytest.param("logistic", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", one_in(2, PAIRS))
def test_it_minimises_as_optax_alone(name, problem):
    theirs, mine = (make() for make in PAIRS[name])
    expected, _ = minimised(theirs, problem, 12)
    got, value = minimised(mine, problem, 12)
    chex.assert_trees_all_close(got, expected, rtol=0, atol=1e-9)
    assert value < 0.7 * PROBLEMS[problem][0](PROBLEMS[problem][1])


def test_lbfgs_in_a_chain_finds_the_minimum():
    got, value = minimised(gx.chain(gx.zero_nans(), optax.lbfgs()), "rosenbrock", 60)
    assert value < 1e-20
    np.testing.assert_allclose(got["x"], 1.0, rtol=1e-8)


@pytest.mark.parametrize(
    "search", [zoom, lambda: backtracking(store_grad=True)], ids=["zoom", "backtracking"]
)
def test_value_and_gradient_are_found_in_our_state(search):
    """`optax.value_and_grad_from_state` looks them up by name, as deep as they are."""
    tx = gx.chain(gx.clip_by_global_norm(10.0), gx.chain(gx.sgd(1.0), search()))
    expected, _ = minimised(tx, "rosenbrock", 15)
    got, _ = minimised(tx, "rosenbrock", 15, from_state=True)
    np.testing.assert_allclose(got["x"], expected["x"], rtol=0, atol=1e-9)


@pytest.mark.slow
def test_it_runs_without_jit_too():
    tx = gx.chain(gx.clip_by_global_norm(10.0), optax.lbfgs())
    expected, _ = minimised(tx, "rosenbrock", 4)
    got, _ = minimised(tx, "rosenbrock", 4, jit=False)
    np.testing.assert_allclose(got["x"], expected["x"], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "around",
    [
        gx.tunable,
        gx.skip_nonfinite,
        lambda tx: gx.partition({"all": tx}, gx.by_path({"**": "all"})),
    ],
    ids=["tunable", "skip_nonfinite", "partition"],
)
def test_wrappers_hand_the_extra_arguments_on(around):
    inner = gx.chain(gx.sgd(1.0), backtracking())
    expected, _ = minimised(inner, "logistic", 10)
    got, _ = minimised(around(inner), "logistic", 10)
    chex.assert_trees_all_close(got, expected, rtol=0, atol=1e-9)


def test_the_step_size_that_was_found_has_a_name():
    tx = gx.chain(gx.scale(-1.0), backtracking())
    function, params = PROBLEMS["rosenbrock"]
    value, gradient = jax.value_and_grad(function)(params)
    updates, state = tx.update(
        gradient, tx.init(params), params, value=value, grad=gradient, value_fn=function
    )
    rate = gx.get(state, "learning_rate")
    assert 0 < rate < 1
    np.testing.assert_allclose(updates["x"], -rate * gradient["x"], rtol=1e-6)


def test_a_missing_argument_is_named():
    function, params = PROBLEMS["rosenbrock"]
    tx = gx.chain(gx.clip(1.0), optax.lbfgs())
    with pytest.raises(TypeError, match="value_fn"):
        tx.update(jax.grad(function)(params), tx.init(params), params, value=1.0, grad=params)
