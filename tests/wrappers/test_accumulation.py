"""Large batches in small pieces, and steps that are better not made."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradxform as gx

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.array([0.3, -0.7])}
GOOD = {"w": jnp.full((2, 3), 0.5), "b": jnp.array([1.0, -1.0])}
BAD = {"w": jnp.full((2, 3), 0.5), "b": jnp.array([1.0, jnp.inf])}


def gradient(step, params):
    return jax.tree.map(lambda p: jnp.cos(3 * p + jnp.asarray(step, p.dtype)) + p / 2, params)


def train(tx, params, steps, apply=optax.apply_updates):
    """All parameters on the way, and the last state."""

    def body(carry, step):
        params, state = carry
        updates, state = tx.update(gradient(step, params), state, params)
        params = apply(params, updates)
        return (params, state), params

    (_, state), path = jax.lax.scan(body, (params, tx.init(params)), jnp.arange(steps))
    return path, state


def close(got, expected, rtol):
    chex.assert_trees_all_close(got, expected, rtol=rtol, atol=rtol)


def in_float64():
    return jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), PARAMS)


def accumulated_adam(start, k, steps, mean, lr, b1=0.9, b2=0.999, eps=1e-8):
    """The reference: collect k gradients in a list, then a step of Adam on their mean or sum, in NumPy."""
    params = {name: np.asarray(p, np.float64) for name, p in start.items()}
    m = {name: np.zeros_like(p) for name, p in params.items()}
    v = {name: np.zeros_like(p) for name, p in params.items()}
    collected, path, t = [], [], 0
    for step in range(steps):
        collected.append({name: np.cos(3 * p + step) + p / 2 for name, p in params.items()})
        if len(collected) == k(t):
            for name in params:  # noqa: PLC0206
                g = (np.mean if mean else np.sum)([each[name] for each in collected], axis=0)
                m[name] = b1 * m[name] + (1 - b1) * g
                v[name] = b2 * v[name] + (1 - b2) * g * g
                step_size = (
                    m[name] / (1 - b1 ** (t + 1)) / (np.sqrt(v[name] / (1 - b2 ** (t + 1))) + eps)
                )
                params[name] = params[name] - lr(t) * step_size
            collected, t = [], t + 1
        path.append(dict(params))
    return {name: np.stack([each[name] for each in path]) for name in params}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mean", [True, False])
def test_accumulate_is_its_reference(mean):
    rate = gx.linear_schedule(0.1, 0.01, 30)
    expected = accumulated_adam(
        PARAMS, lambda t: 3, 100, mean, lambda t: max(0.1 + (0.01 - 0.1) * t / 30, 0.01)
    )
    got, state = train(gx.accumulate(gx.adam(rate), 3, mean=mean), in_float64(), 100)
    close(got, expected, 1e-10)
    assert (int(state.mini_step), int(state.step), int(state.dropped)) == (1, 33, 0)


@pytest.mark.usefixtures("x64")
def test_k_may_follow_a_schedule_of_optimizer_steps():
    expected = accumulated_adam(PARAMS, lambda t: 1 if t < 4 else 3, 40, True, lambda t: 0.1)
    got, state = train(
        gx.accumulate(gx.adam(0.1), lambda step: jnp.where(step < 4, 1, 3)), in_float64(), 40
    )
    close(got, expected, 1e-10)
    assert int(state.step) == 4 + 36 // 3


@pytest.mark.usefixtures("x64", "standard_promotion")
@pytest.mark.parametrize("mean", [True, False])
def test_accumulate_follows_optax(mean):
    theirs = optax.MultiSteps(
        optax.adamw(0.05, weight_decay=0.1), 4, mean, accumulator_dtype=jnp.float64
    )
    mine = gx.MultiSteps(gx.adamw(0.05, weight_decay=0.1), 4, mean)
    close(train(mine, in_float64(), 200)[0], train(theirs, in_float64(), 200)[0], 1e-9)
    assert mine.gradient_transformation() is mine
    state = mine.init(in_float64())
    assert not bool(mine.has_updated(state))
    assert bool(mine.has_updated(state._replace(step=state.step + 1)))
    assert not bool(
        mine.has_updated(state._replace(step=state.step + 1, mini_step=state.mini_step + 1))
    )
    params = PARAMS
    with jax.enable_x64(False):
        theirs = optax.MultiSteps(optax.sgd(0.05, 0.9), 4, mean)
        close(
            train(gx.MultiSteps(gx.sgd(0.05, 0.9), 4, mean), params, 200)[0],
            train(theirs, params, 200)[0],
            1e-5,
        )


def counting(calls):
    """A transformation that notes each time it really runs."""

    def update(updates, state, params=None):
        jax.debug.callback(lambda: calls.append(1))
        return jax.tree.map(lambda u: -0.1 * u, updates), state

    return lambda params: (), update


@pytest.mark.usefixtures("standard_promotion")
def test_5_the_inner_optimizer_runs_only_at_every_kth_step():
    """In Optax it runs at every micro-step, and the result is thrown away."""
    for library, expected in ((optax, 8), (gx, 2)):
        calls = []
        inner = counting(calls)
        tx = library.MultiSteps(
            optax.GradientTransformation(*inner) if library is optax else inner, 4
        )
        step = jax.jit(tx.update)
        state = tx.init(PARAMS)
        for _ in range(8):
            _, state = step(GOOD, state, PARAMS)
        jax.effects_barrier()
        assert len(calls) == expected


@pytest.mark.usefixtures("standard_promotion")
def test_5_a_micro_batch_that_is_not_finite_is_dropped():
    """In Optax one infinite entry makes the very next update NaN, on a step that emits nothing, and the accumulator for ever."""
    theirs = optax.MultiSteps(optax.sgd(0.1), 2)
    state = theirs.init(PARAMS)
    updates, state = theirs.update(BAD, state, PARAMS)
    assert np.isnan(updates["b"][1])
    for _ in range(5):
        updates, state = theirs.update(GOOD, state, PARAMS)
    assert np.isnan(state.acc_grads["b"][1]) or np.isnan(updates["b"][1])

    tx = gx.MultiSteps(gx.sgd(0.1), 2)
    state = tx.init(PARAMS)
    for grads, expected in (
        (GOOD, 0.0),
        (BAD, 0.0),
        (GOOD, -0.1),
        (BAD, 0.0),
        (BAD, 0.0),
        (GOOD, 0.0),
        (GOOD, -0.1),
    ):
        updates, state = tx.update(grads, state, PARAMS)
        np.testing.assert_allclose(updates["b"], expected * GOOD["b"], rtol=1e-6)
    assert (int(state.dropped), int(state.step)) == (3, 2)


def test_what_is_dropped_can_be_chosen():
    large = partial(gx.skip_large_updates, max_squared_norm=1.0)
    assert bool(large(GOOD, 0, None)[0])
    assert not bool(large(jax.tree.map(lambda g: g / 10, GOOD), 0, None)[0])
    assert bool(gx.skip_not_finite(BAD, 0, None))
    tx = gx.accumulate(gx.sgd(1.0), 1, skip=large)
    _, state = tx.update(GOOD, tx.init(PARAMS), PARAMS)
    assert (int(state.dropped), int(state.step)) == (1, 0)
    keeps = gx.accumulate(gx.sgd(1.0), 1, skip=None)
    assert np.isinf(keeps.update(BAD, keeps.init(PARAMS), PARAMS)[0]["b"][1])


def test_a_mean_of_narrow_gradients_is_wide():
    """bfloat16 sums lose what float32 keeps; the update comes back in bfloat16."""
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    tx = gx.accumulate(gx.sgd(1.0), 256, mean=False)
    state = tx.init(params)
    assert state.accumulator["w"].dtype == jnp.float32
    step = jax.jit(tx.update)
    for _ in range(256):
        updates, state = step({"w": jnp.full(2, 1.0 + 2**-7, jnp.bfloat16)}, state, params)
    assert updates["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(updates["w"], np.float32), -258.0)


def loss(params, x, y):
    return jnp.mean((x @ params["w"].T + params["b"] - y) ** 2), jnp.sum(x, 1)


def test_microbatch_is_the_whole_batch():
    x, y = jnp.linspace(0, 1, 36).reshape(12, 3), jnp.linspace(-1, 1, 24).reshape(12, 2)
    whole = jax.value_and_grad(loss, has_aux=True)
    kinds = (("mean", "concat"), "mean")
    for size in (1, 4, 12):
        small = jax.jit(gx.microbatch(whole, (1, 2), size, kinds))
        close(small(PARAMS, x, y), whole(PARAMS, x, y), 1e-6)
    assert gx.microbatch(whole, 1, None) is whole
    sums = gx.microbatch(lambda x, *, scale: jnp.sum(x) * jnp.sum(scale), 0, 3, argnames="scale")
    np.testing.assert_allclose(sums(jnp.arange(6.0), scale=jnp.ones(6)), 45.0)
    for size, kind, message in (
        (5, "sum", r"microbatch_size=5 must divide the one batch size; got \[12\]"),
        (4, "median", "must be 'sum', 'mean' or 'concat'"),
    ):
        with pytest.raises(ValueError, match=message):
            gx.microbatch(whole, (1, 2), size, kind)(PARAMS, x, y)
    with pytest.raises(ValueError, match=r"got \[6, 12\]"):
        gx.microbatch(whole, (1, 2), 2)(PARAMS, x, y[:6])


def test_microbatch_follows_optax():
    kinds = optax.microbatching.AccumulationType
    fun = lambda x: (x + 1, jnp.sum(3 * x), jnp.mean(x))  # noqa: E731
    args = (0, 2, (kinds.CONCAT, kinds.SUM, kinds.MEAN))
    close(
        gx.microbatch(fun, *args)(jnp.arange(6.0)),
        optax.microbatch(fun, *args)(jnp.arange(6.0)),
        1e-6,
    )


def test_microbatch_scans():
    """One evaluation is traced, whatever their number, and no more than one micro-batch of activations is alive."""
    traces = []

    def grad(params, x):
        traces.append(x.shape)
        return jax.grad(lambda p: jnp.mean(jnp.tanh(x @ p) ** 2))(params)

    def temporary(fun):
        return (
            jax.jit(fun)
            .lower(jnp.ones((64, 512)), jnp.ones((512, 64)))
            .compile()
            .memory_analysis()
            .temp_size_in_bytes
        )

    small = temporary(gx.microbatch(grad, 1, 8, "mean"))
    assert set(traces) == {(8, 64)}
    assert small < temporary(grad) / 2


@pytest.mark.parametrize("vmapped", [False, True])
@pytest.mark.parametrize(
    "make", [lambda: gx.skip_nonfinite(gx.adam(0.1)), lambda: gx.skip_spikes(gx.adam(0.1))]
)
def test_a_bad_step_changes_nothing_but_the_counts(make, vmapped):
    tx = make()
    update = tx.update
    if vmapped:
        batch = lambda tree: jax.tree.map(lambda x: jnp.stack([x, x]), tree)  # noqa: E731
        two = jax.vmap(tx.update)
        mixed = lambda g: jax.tree.map(lambda x, y: jnp.stack([x, y]), g, GOOD)  # noqa: E731

        def update(grads, state, params):
            out = two(mixed(grads), batch(state), batch(params))
            other = jax.tree.map(lambda x: x[1], out)
            assert not np.allclose(other[0]["w"], 0.0)  # its neighbour steps
            return jax.tree.map(lambda x: x[0], out)

    _, state = update(GOOD, tx.init(PARAMS), PARAMS)
    updates, after = update(BAD, state, PARAMS)
    close(updates, jax.tree.map(jnp.zeros_like, PARAMS), 0)
    close(after.inner, state.inner, 0)
    assert (int(after.skipped), int(after.consecutive)) == (1, 1)
    updates, last = update(GOOD, after, PARAMS)
    assert (int(last.skipped), int(last.consecutive)) == (1, 0)
    close(last.inner, update(GOOD, state, PARAMS)[1].inner, 0)


@pytest.mark.usefixtures("standard_promotion")
def test_skip_nonfinite_follows_optax():
    pattern = [GOOD, BAD, GOOD, BAD, BAD, BAD, GOOD, BAD, BAD]
    mine, theirs = (
        gx.apply_if_finite(gx.sgd(0.1, 0.9), 2),
        optax.apply_if_finite(optax.sgd(0.1, 0.9), 2),
    )
    s, t = mine.init(PARAMS), theirs.init(PARAMS)
    for i, grads in enumerate(pattern):
        u, s = mine.update(grads, s, PARAMS)
        w, t = theirs.update(grads, t, PARAMS)
        close(u, w, 1e-6)
        assert int(s.consecutive) == int(t.notfinite_count)
        assert np.isfinite(u["b"][1]) == (
            i not in (5, 6)
        )  # the third in a row was let through, and shows
    assert int(t.total_notfinite) == 6
    assert int(s.skipped) == 5  # those that were really skipped


def test_14_under_vmap_each_member_skips_for_itself():
    """Optax's `cond` becomes selects under vmap: another program than without. Here the program is the same, has no `cond`, and touches
    no more memory for each member of a batch than for one optimizer alone."""

    def bytes_touched(tx, members):
        def step(params, state, grads):
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        shape = {"w": jnp.ones((256, 256))}
        args = (shape, tx.init(shape), shape)
        if members:
            args, step = jax.tree.map(lambda x: jnp.stack([x] * members), args), jax.vmap(step)
        compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*args).compile()
        cost = compiled.cost_analysis()
        return cost["bytes accessed"] / max(members, 1)

    mine, theirs = gx.skip_nonfinite(gx.adam(0.1)), optax.apply_if_finite(optax.adam(0.1), 3)
    with jax.numpy_dtype_promotion("standard"):
        alone, batched = bytes_touched(mine, 0), bytes_touched(mine, 8)
        assert batched < 1.02 * alone
        assert batched < 1.001 * bytes_touched(theirs, 8)

        def program(tx):
            return str(jax.make_jaxpr(lambda g: tx.update(g, tx.init(PARAMS), PARAMS))(PARAMS))

        assert "cond[" in program(theirs)
        assert "cond[" not in program(mine)


def spiking(norms, threshold, decay, warmup, limit, by):
    """The reference: which of these norms are skipped, in plain Python."""
    mean = variance = 0.0
    seen = consecutive = 0
    out = []
    for norm in norms:
        correction = 1 - decay**seen if seen else 1.0
        m, s = mean / correction, (variance / correction) ** 0.5
        bound = threshold * m if by == "factor" else m + threshold * s
        bad = not np.isfinite(norm) or (seen >= warmup and norm > bound)
        consecutive = consecutive + 1 if bad else 0
        skip = bad and consecutive <= limit
        out.append(skip)
        if not skip and np.isfinite(norm):
            variance = decay * variance + (1 - decay) * ((norm - m) ** 2 if seen else 0.0)
            mean = decay * mean + (1 - decay) * norm
            seen += 1
    return out


@pytest.mark.parametrize(("by", "threshold"), [("factor", 2.0), ("zscore", 3.0)])
def test_spikes_are_those_of_the_reference(by, threshold):
    rng = np.random.default_rng(0)
    norms = rng.uniform(0.8, 1.2, 60)
    norms[[3, 20, 21, 22, 23]] = 10.0
    norms[[30, 31]] = np.inf, 50.0
    norms[45:] *= 8  # for good
    expected = spiking(norms, threshold, 0.9, 5, 3, by)
    assert sum(expected[:5]) == 0
    assert sum(expected[20:24]) == 3
    assert 0 < sum(expected[45:]) < 15
    tx = gx.skip_spikes(gx.sgd(1.0), threshold, 0.9, 5, 3, by=by)
    state, step, got = tx.init(PARAMS), jax.jit(tx.update), []
    direction = jnp.array([0.6, 0.8])
    for norm in norms:
        updates, state = step(
            {"w": jnp.zeros((2, 3)), "b": jnp.float32(norm) * direction}, state, PARAMS
        )
        got.append(not np.any(updates["b"]))
    assert got == expected
    assert int(state.skipped) == sum(expected)


def test_spikes_say_how():
    with pytest.raises(ValueError, match="by must be 'factor' or 'zscore'"):
        gx.skip_spikes(gx.sgd(1.0), by="percentile").init(PARAMS)


def test_a_state_of_another_transformation_is_refused():
    for tx in (
        gx.accumulate(gx.sgd(0.1), 2),
        gx.skip_nonfinite(gx.sgd(0.1)),
        gx.skip_spikes(gx.sgd(0.1)),
    ):
        with pytest.raises(ValueError, match="belongs to another transformation"):
            tx.update(PARAMS, gx.sgd(0.1).init(PARAMS), PARAMS)
    table = gx.by_path({"**": 2})
    tx = gx.accumulate(gx.sgd(0.1), table)
    with pytest.raises(ValueError, match="every_k is one number for the whole tree"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


def test_the_number_of_micro_batches_batches():
    """vmap over k: each member steps when its own count is full."""
    txs = gx.stack([gx.accumulate(gx.sgd(0.1), k) for k in (1, 2, 3)])
    states = jax.vmap(lambda tx: train(tx, PARAMS, 6)[1])(txs)
    np.testing.assert_array_equal(states.step, [6, 3, 2])
