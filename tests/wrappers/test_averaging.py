"""Parameters to evaluate: averages over time against their references, Optax, and each other."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from optax import contrib

import gradxform as gx
from gradxform.core import ChainState

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.array([0.3, -0.7])}
STEPS = 60


def gradient(params, step):
    return jax.tree.map(lambda p: jnp.cos(3 * p + jnp.asarray(step, p.dtype)) + p / 2, params)


def train(tx, params, steps=STEPS, evaluate=gx.eval_params):
    """Parameters and parameters to evaluate after each step, and the last state."""

    def body(carry, step):
        params, state = carry
        updates, state = tx.update(gradient(params, step), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, evaluate(state, params))

    (_, state), (path, to_evaluate) = jax.lax.scan(
        body, (params, tx.init(params)), jnp.arange(steps)
    )
    return path, to_evaluate, state


def close(got, expected, rtol):
    chex.assert_trees_all_close(got, expected, rtol=rtol, atol=rtol)


def in_float64():
    return jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), PARAMS)


def sgd_path(lr=0.1, momentum=0.9, steps=STEPS):
    """[steps + 1] parameters of heavy ball in NumPy, the first ones included."""
    path = [{name: np.asarray(p, np.float64) for name, p in PARAMS.items()}]
    v = {name: np.zeros_like(p) for name, p in path[0].items()}
    for step in range(steps):
        v = {
            name: momentum * v[name] + np.cos(3 * p + step) + p / 2 for name, p in path[-1].items()
        }
        path.append({name: p - lr * v[name] for name, p in path[-1].items()})
    return path


def stacked(path):
    return {name: np.stack([p[name] for p in path]) for name in path[0]}


def exponential(path, decay, debias):
    out, average = [], path[0] if not debias else {name: 0 * p for name, p in path[0].items()}
    for t, p in enumerate(path[1:], 1):
        average = {name: decay * average[name] + (1 - decay) * p[name] for name in p}
        out.append({name: a / (1 - decay**t) if debias else a for name, a in average.items()})
    return out


def mean_from(path, start, period):
    """Before `start` the parameters; then the mean of those at start, start + period, …"""
    return [
        {
            name: np.mean([path[i][name] for i in range(start, t + 1, period)], axis=0)
            if t >= start
            else path[t][name]
            for name in path[0]
        }
        for t in range(1, len(path))
    ]


def latest(path, window, period):
    out = []
    for t in range(1, len(path)):
        kept = [path[i] for i in range(period, t + 1, period)][-window:] or [path[t]]
        out.append({name: np.mean([p[name] for p in kept], axis=0) for name in path[0]})
    return out


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("make", "reference"),
    [
        (lambda tx: gx.params_ema(tx, 0.9), lambda path: exponential(path, 0.9, True)),
        (
            lambda tx: gx.params_ema(tx, 0.9, debias=False),
            lambda path: exponential(path, 0.9, False),
        ),
        (lambda tx: gx.swa(tx, 7, 3), lambda path: mean_from(path, 7, 3)),
        (gx.swa, lambda path: mean_from(path, 0, 1)),
        (lambda tx: gx.lawa(tx, 4, 3), lambda path: latest(path, 4, 3)),
    ],
    ids=["ema", "ema biased", "swa", "swa from the start", "lawa"],
)
def test_an_average_is_its_reference_and_leaves_training_alone(make, reference):
    path, to_evaluate, _ = train(make(gx.sgd(0.1, 0.9)), in_float64())
    expected = sgd_path()
    close(path, stacked(expected[1:]), 1e-10)
    close(to_evaluate, stacked(reference(expected)), 1e-10)


@pytest.mark.usefixtures("x64", "standard_promotion")
def test_the_corrected_average_is_optax_ema_of_the_parameters():
    path, to_evaluate, _ = train(gx.params_ema(gx.adam(0.05), 0.95), in_float64(), 200)
    average = optax.ema(0.95, debias=True)
    state = average.init(in_float64())
    _, expected = jax.lax.scan(lambda state, p: average.update(p, state)[::-1], state, path)
    close(to_evaluate, expected, 1e-9)


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("reset_state", [False, True])
def test_lookahead_follows_optax(reset_state):
    def theirs(params, steps):
        tx = optax.lookahead(optax.adam(0.05), 5, 0.5, reset_state)

        def body(carry, step):
            params, state = carry
            updates, state = tx.update(gradient(params.fast, step), state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), (params.fast, params.slow)

        params = optax.LookaheadParams.init_synced(params)
        return jax.lax.scan(body, (params, tx.init(params)), jnp.arange(steps))[1]

    mine = gx.lookahead(gx.adam(0.05), 5, 0.5, reset_state)
    close(train(mine, PARAMS, 200)[:2], theirs(PARAMS, 200), 1e-5)
    with jax.enable_x64(True):
        close(train(mine, in_float64(), 200)[:2], theirs(in_float64(), 200), 1e-9)


@pytest.mark.usefixtures("standard_promotion")
def test_8_lookahead_can_be_donated():
    """In Optax slow and fast parameters begin as one buffer, which cannot be donated twice."""
    theirs = optax.lookahead(optax.sgd(0.1), 2, 0.5)
    params = optax.LookaheadParams.init_synced(jax.tree.map(jnp.array, PARAMS))
    step = jax.jit(
        lambda params, state: theirs.update(params.fast, state, params), donate_argnums=(0, 1)
    )
    with pytest.raises(jax.errors.JaxRuntimeError, match="donate the same buffer twice"):
        step(params, theirs.init(params))
    tx, params = gx.lookahead(gx.sgd(0.1), 2, 0.5), jax.tree.map(jnp.array, PARAMS)
    jax.jit(lambda params, state: tx.update(params, state, params), donate_argnums=(0, 1))(
        params, tx.init(params)
    )


def schedule_free_reference(
    rate, steps, b1=0.9, b2=None, eps=1e-8, weight_decay=0.0, power=2.0, c=None
):
    """The paper's three sequences, all of them kept, in NumPy; with b2, its AdamW. `c`: a constant share (GPA)."""
    x = {name: np.asarray(p, np.float64) for name, p in PARAMS.items()}
    z, y = dict(x), dict(x)
    v = {name: 0 * p for name, p in x.items()}
    weight_sum, max_rate, path, to_evaluate = 0.0, 0.0, [], []
    for t in range(1, steps + 1):
        lr = rate(t)
        max_rate = max(max_rate, lr)
        weight_sum += max_rate**power
        share = (max_rate**power / weight_sum if weight_sum else 0.0) if c is None else c
        for name in x:  # noqa: PLC0206
            g = np.cos(3 * y[name] + t - 1) + y[name] / 2
            u = g
            if b2 is not None:
                v[name] = b2 * v[name] + (1 - b2) * g * g
                u = g / (np.sqrt(v[name] / (1 - b2**t)) + eps)
            z[name] = z[name] - lr * (u + weight_decay * y[name])
            x[name] = (1 - share) * x[name] + share * z[name]
            y[name] = b1 * x[name] + (1 - b1) * z[name]
        path.append(dict(y))
        to_evaluate.append(dict(x))
    return stacked(path), stacked(to_evaluate)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("convention", ["optax", "paper"])
def test_schedule_free_is_the_papers_three_sequences(convention):
    # with a constant rate both conventions are the paper's; a warm-up begins at rate / warmup_steps in the paper
    flat, rising = (lambda t: 0.1), (lambda t: 0.1 * min(1.0, t / 10))
    cases = [
        (gx.schedule_free_sgd(0.1, convention=convention), schedule_free_reference(flat, STEPS)),
        (
            gx.schedule_free(gx.sgd(0.1), 0.1, 0.8, 1.0, convention=convention),
            schedule_free_reference(flat, STEPS, 0.8, power=1.0),
        ),
        (
            gx.schedule_free_sgd(0.1, weight_decay=0.2, convention=convention),
            schedule_free_reference(flat, STEPS, weight_decay=0.2),
        ),
        (
            gx.schedule_free_adamw(0.1, b2=0.99, weight_decay=0.2, convention=convention),
            schedule_free_reference(flat, STEPS, b2=0.99, weight_decay=0.2),
        ),
        (
            gx.schedule_free_adamw(0.1, 10, b2=0.99, weight_decay=0.2, convention="paper"),
            schedule_free_reference(rising, STEPS, b2=0.99, weight_decay=0.2),
        ),
    ]
    for tx, reference in cases[:1] if convention == "optax" else cases[1:]:
        close(train(tx, in_float64())[:2], reference, 1e-9)


def rising(peak):
    """Optax's own warm-up is float32 also under x64, off by 4e-9; the same line in the widest float."""
    return lambda count: peak * jnp.minimum(jnp.asarray(count, float) / 10, 1)


def optax_sgd(warmup):
    base = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(warmup(0.1)))
    return contrib.schedule_free(base, warmup(0.1))


def optax_adamw(warmup):
    base = optax.chain(
        optax.scale_by_rms(0.999, 1e-8, eps_in_sqrt=False, bias_correction=True),
        optax.add_decayed_weights(0.1),
        optax.scale_by_learning_rate(warmup(0.05)),
    )
    return contrib.schedule_free(base, warmup(0.05))


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(
    ("mine", "theirs", "precise"),
    [
        (
            gx.schedule_free_sgd(0.1, 10, weight_decay=0.1),
            contrib.schedule_free_sgd(0.1, 10, weight_decay=0.1),
            optax_sgd(rising),
        ),
        (
            gx.schedule_free_adamw(0.05, 10, weight_decay=0.1),
            contrib.schedule_free_adamw(0.05, 10, weight_decay=0.1),
            optax_adamw(rising),
        ),
        (
            gx.schedule_free(gx.rmsprop(0.05), 0.05, 0.8, 1.0),
            contrib.schedule_free(optax.rmsprop(0.05), 0.05, 0.8, 1.0),
            None,
        ),
    ],
    ids=["sgd", "adamw", "any"],
)
def test_schedule_free_follows_optax(mine, theirs, precise):
    evaluate = contrib.schedule_free_eval_params
    close(train(mine, PARAMS, 200)[:2], train(theirs, PARAMS, 200, evaluate)[:2], 1e-5)
    with jax.enable_x64(True):
        close(
            train(mine, in_float64(), 200)[:2],
            train(precise or theirs, in_float64(), 200, evaluate)[:2],
            1e-9,
        )


@pytest.mark.usefixtures("x64")
def test_gpa_is_its_equations_and_nesterov_where_both_shares_agree():
    close(
        train(gx.gpa(gx.sgd(0.1), 0.8, 0.95), in_float64())[:2],
        schedule_free_reference(lambda t: 0.1, STEPS, 0.8, c=0.05),
        1e-9,
    )
    # y = x + μ (x - x_before), x a gradient step from y
    x = before = {name: np.asarray(p, np.float64) for name, p in PARAMS.items()}
    y = x
    for step in range(STEPS):
        before, x = x, {name: p - 0.1 * (np.cos(3 * p + step) + p / 2) for name, p in y.items()}
        y = {name: x[name] + 0.9 * (x[name] - before[name]) for name in x}
    path, to_evaluate, _ = train(gx.gpa(gx.sgd(1.0), 0.9, 0.9), in_float64())
    close(jax.tree.map(lambda p: p[-1], (path, to_evaluate)), (y, x), 1e-9)


def test_eval_params_is_the_identity_where_nothing_is_averaged():
    for tx in (
        gx.adamw(0.1),
        gx.chain(),
        gx.accumulate(gx.sgd(0.1), 2),
        gx.tunable(gx.adam(0.1)),
        optax.adam(0.1),
    ):
        got = gx.eval_params(tx.init(PARAMS), PARAMS)
        close(got, PARAMS, 0)
    params = {"w": jnp.ones(2, jnp.bfloat16), "none": None}
    tx = gx.params_ema(gx.sgd(0.1))
    fresh = gx.eval_params(tx.init(params), params)
    assert fresh["none"] is None
    assert fresh["w"].dtype == jnp.bfloat16
    assert tx.init(params)["params_ema"].slots["average_params"]["w"].dtype == jnp.float32


NESTED = {
    "chain": lambda tx: gx.chain(gx.clip(10.0), tx),
    "accumulate": lambda tx: gx.accumulate(tx, 1),
    "skip": gx.skip_nonfinite,
    "tunable": gx.tunable,
    "two of them": lambda tx: gx.skip_spikes(gx.chain(gx.accumulate(tx, 1), gx.identity()), 100.0),
}


AVERAGES = {
    "ema": lambda: gx.params_ema(gx.sgd(0.1), 0.5),
    "lookahead": lambda: gx.lookahead(gx.sgd(0.1), 3, 0.5),
    "schedule_free": lambda: gx.schedule_free_sgd(0.1),
    "lawa": lambda: gx.lawa(gx.sgd(0.1), 2),
}


@pytest.mark.parametrize(
    ("average", "around"),
    [("ema", name) for name in NESTED]
    + [(name, "two of them") for name in AVERAGES if name != "ema"],
)
def test_eval_params_finds_an_average_wherever_it_is(average, around):
    expected = train(AVERAGES[average](), PARAMS, 8)
    got = train(NESTED[around](AVERAGES[average]()), PARAMS, 8)
    close(got[:2], expected[:2], 1e-5)
    assert not np.allclose(got[0]["w"][-2], got[1]["w"][-2])


def test_eval_params_of_groups_and_frozen_leaves():
    tx = gx.partition(
        {"averaged": gx.params_ema(gx.sgd(0.1), 0.5), "plain": gx.sgd(0.2)},
        {"w": "averaged", "b": "plain"},
    )
    path, to_evaluate, _ = train(tx, PARAMS, 5)
    alone = train(gx.params_ema(gx.sgd(0.1), 0.5), {"w": PARAMS["w"]}, 5)
    close(to_evaluate["w"], alone[1]["w"], 0)
    close(to_evaluate["b"], path["b"], 0)
    frozen = train(gx.freeze("b", gx.params_ema(gx.sgd(0.1), 0.5)), PARAMS, 5)
    close(frozen[1]["b"][-1], PARAMS["b"], 0)
    close(frozen[1]["w"], alone[1]["w"], 0)


def test_of_two_averages_the_outermost_is_evaluated():
    for outer, inner in (
        (lambda tx: gx.params_ema(tx, 0.5), lambda tx: gx.lookahead(tx, 2, 0.5)),
        (lambda tx: gx.lookahead(tx, 2, 0.5), lambda tx: gx.params_ema(tx, 0.5)),
        (lambda tx: gx.params_ema(tx, 0.5), lambda tx: gx.params_ema(tx, 0.9)),
        (gx.swa, lambda tx: gx.schedule_free(tx, 0.1)),
        (lambda tx: gx.params_ema(tx, 0.5), lambda tx: gx.accumulate(gx.params_ema(tx, 0.9), 1)),
    ):
        base = gx.sgd(0.1)
        path, to_evaluate, state = train(outer(inner(base)), PARAMS, 9)
        assert isinstance(state, ChainState)
        # the outer average of the inner optimizer's own path
        if outer(base).name == "lookahead":
            close(to_evaluate, train(outer(base), PARAMS, 9)[1], 1e-6)
        else:
            inner_path = train(inner(base), PARAMS, 9)[0]
            close(path, inner_path, 1e-6)
            full = [PARAMS] + [
                jax.tree.map(lambda p, i=i: np.asarray(p[i]), inner_path) for i in range(9)
            ]
            reference = (
                mean_from(full, 0, 1) if outer(base).name == "swa" else exponential(full, 0.5, True)
            )
            close(to_evaluate, stacked(reference), 1e-5)


def test_bfloat16_parameters_are_averaged_in_float32():
    params = {"w": jnp.ones(4, jnp.bfloat16)}
    for tx in (
        gx.params_ema(gx.sgd(0.1)),
        gx.swa(gx.sgd(0.1)),
        gx.lookahead(gx.sgd(0.1), 2, 0.5),
        gx.schedule_free_sgd(0.1),
        gx.gpa(gx.sgd(0.1)),
    ):
        _, to_evaluate, state = train(tx, params, 4)
        assert to_evaluate["w"].dtype == jnp.bfloat16
        assert all(x.dtype != jnp.bfloat16 for x in jax.tree.leaves(state))
        assert np.all(np.isfinite(np.asarray(to_evaluate["w"], np.float32)))


def test_eval_params_of_an_nnx_model():
    """Flax wraps the leaves of the state one way and those of the model another; paths tell which belongs to which."""
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(
        model, gx.accumulate(gx.params_ema(gx.sgd(0.1), 0.5), 1), wrt=nnx.Param
    )
    before = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    optimizer.update(model, nnx.grad(lambda model: jnp.sum(model(jnp.ones(3))))(model))
    after = nnx.state(model, nnx.Param)
    got = gx.eval_params(optimizer.opt_state, after)
    close(
        nnx.to_pure_dict(got), nnx.to_pure_dict(after), 1e-6
    )  # the first corrected average is the first new value
    assert not np.allclose(nnx.to_pure_dict(got)["kernel"], before["kernel"])
    with pytest.raises(ValueError, match=r"no leaf for \['other'\]"):
        gx.eval_params(gx.params_ema(gx.sgd(0.1)).init(PARAMS), {"other": jnp.ones(2)})


def test_numbers_out_of_range_and_missing_parameters():
    with pytest.raises(ValueError, match=r"b1 must lie in \(0, 1\]; got 0.0"):
        gx.schedule_free_sgd(0.1, b1=0.0)
    with pytest.raises(ValueError, match="convention must be one of"):
        gx.schedule_free(gx.sgd(0.1), 0.1, convention="torch").init(PARAMS)
    with pytest.raises(ValueError, match="window must be at least 1"):
        gx.lawa(gx.sgd(0.1), 0).init(PARAMS)
    tx = gx.params_ema(gx.sgd(0.1))
    with pytest.raises(ValueError, match=r"params_ema: update\(\) needs the parameters"):
        tx.update(PARAMS, tx.init(PARAMS))


def test_a_sweep_over_averages():
    """Decays, windows' periods and look-ahead steps batch like every number."""
    decays = jax.vmap(
        lambda decay: train(gx.params_ema(gx.sgd(0.1), decay), PARAMS, 5)[1]["b"][-1]
    )(jnp.array([0.0, 0.9]))
    np.testing.assert_allclose(decays[0], train(gx.sgd(0.1), PARAMS, 5)[0]["b"][-1], rtol=1e-6)
    periods = jax.vmap(lambda tx: train(tx, PARAMS, 6)[1]["b"][-1])(
        gx.stack([gx.lookahead(gx.sgd(0.1), k, 0.5) for k in (2, 3)])
    )
    np.testing.assert_allclose(
        periods[1], train(gx.lookahead(gx.sgd(0.1), 3, 0.5), PARAMS, 6)[1]["b"][-1], rtol=1e-5
    )
