"""Early stopping: a state machine against a plain Python reading of its equation."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradxform.train import EarlyStopping

PARAMS = {"w": jnp.zeros(2), "half": jnp.zeros((), jnp.bfloat16), "absent": None}


def params_at(epoch):
    return {
        "w": jnp.full(2, epoch, jnp.float32),
        "half": jnp.asarray(epoch, jnp.bfloat16),
        "absent": None,
    }


def drive(stopping, values):
    """All states, after the first 0, 1, 2, … values."""
    update = jax.jit(EarlyStopping.update)
    states = [stopping.init(params_at(-1))]
    for epoch, value in enumerate(values):
        states.append(update(stopping, states[-1], jnp.float32(value), params_at(epoch), epoch))
    return states


def reference(values, patience, min_delta, mode):
    """(best, best epoch, stopped) as one would write it with branches."""
    sign = 1.0 if mode == "min" else -1.0
    best, best_epoch, wait = np.float32(np.inf), -1, 0
    for epoch, value in enumerate(values):
        if not np.isfinite(value):
            return sign * best, best_epoch, True
        if sign * value < best - np.float32(min_delta):
            best, best_epoch, wait = np.float32(sign * value), epoch, 0
        else:
            wait += 1
        if wait >= patience:
            return sign * best, best_epoch, True
    return sign * best, best_epoch, False


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(("patience", "min_delta"), [(1, 0.0), (3, 0.0), (3, 0.2), (20, 0.0)])
def test_against_the_reference(patience, min_delta, mode):
    outcomes = set()
    for seed in range(6):
        values = np.random.default_rng(seed).normal(size=12).astype(np.float32)
        if seed == 5:
            values[7] = np.nan
        states = drive(EarlyStopping(patience, min_delta, mode), values)
        for n, state in enumerate(states):
            best, best_epoch, stopped = reference(values[:n], patience, min_delta, mode)
            assert (float(state.best), int(state.best_epoch), bool(state.stopped)) == (
                best,
                best_epoch,
                stopped,
            )
            np.testing.assert_array_equal(state.best_params["w"], params_at(best_epoch)["w"])
        outcomes.add(stopped)
    assert any(outcomes), "no run stopped: the comparison would show nothing"


@pytest.mark.parametrize("mode", ["min", "max"])
def test_what_equals_the_best_is_not_better(mode):
    states = drive(EarlyStopping(3, mode=mode), [2.0, 2.0, 2.0, 2.0])
    assert [int(state.best_epoch) for state in states] == [-1, 0, 0, 0, 0]
    assert [int(state.wait) for state in states] == [0, 0, 1, 2, 3]
    assert [bool(state.stopped) for state in states] == [False, False, False, False, True]


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_stops_and_is_never_best(bad, mode):
    state = drive(EarlyStopping(10, mode=mode), [2.0, bad])[-1]
    assert state.stopped
    assert state.diverged
    assert float(state.best) == 2.0
    assert int(state.best_epoch) == 0
    first = drive(EarlyStopping(10, mode=mode), [bad])[-1]
    assert first.stopped
    assert int(first.best_epoch) == -1
    np.testing.assert_array_equal(first.best_params["w"], params_at(-1)["w"])


def test_running_out_of_patience_is_no_divergence():
    state = drive(EarlyStopping(2), [1.0, 2.0, 2.0])[-1]
    assert state.stopped
    assert not state.diverged


def test_a_stopped_state_stays():
    states = drive(EarlyStopping(2), [3.0, 4.0, 4.0, 1.0, np.nan])
    assert [bool(state.stopped) for state in states] == [False, False, False, True, True, True]
    chex.assert_trees_all_equal(states[3], states[4])
    chex.assert_trees_all_equal(states[3], states[5])


def test_members_of_a_vmap_equal_each_alone():
    patience, values = jnp.array([1, 2, 9]), jnp.array([3.0, 3.5, 2.0, 2.5, 2.6])

    def run(patience):
        stopping = EarlyStopping(patience)

        def body(state, inputs):
            return stopping.update(state, inputs[0], params_at(inputs[1]), inputs[1]), state.wait

        return jax.lax.scan(body, stopping.init(PARAMS), (values, jnp.arange(5)))[0]

    together = jax.vmap(run)(patience)
    assert together.best_epoch.tolist() == [0, 2, 2]
    assert together.stopped.tolist() == [True, True, False]
    for i, alone in enumerate(patience):
        member = jax.tree.map(lambda x, i=i: x[i], together)
        chex.assert_trees_all_equal(member, run(alone))


def test_new_numbers_retrace_nothing_and_the_state_keeps_its_types():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def update(stopping, state, value):
        return stopping.update(state, value, params_at(1), 1)

    state = EarlyStopping(2, 0.0).init(PARAMS)
    for patience, value in [(2, 1.0), (5, 2.0), (3, 0.5)]:
        new = update(EarlyStopping(patience, 0.1), state, jnp.float32(value))
        assert jax.tree.map(lambda x: x.aval, new) == jax.tree.map(lambda x: x.aval, state)
        state = new
    narrow = EarlyStopping(2).update(state, jnp.bfloat16(0.5), params_at(1), 1)
    assert narrow.best.dtype == state.best.dtype


@pytest.mark.parametrize(
    "init", [EarlyStopping.init, jax.jit(EarlyStopping.init)], ids=["eager", "jit"]
)
def test_the_state_shares_no_buffer_with_the_parameters(init):
    params = params_at(1)
    state = init(EarlyStopping(2), params)

    def step(params, state):
        return jax.tree.map(jnp.negative, params), EarlyStopping(2).update(
            state, jnp.float32(1), params, 0
        )

    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((params, state))]
    assert len(set(buffers)) == len(buffers)
    _, state = jax.jit(step, donate_argnums=(0, 1))(params, state)
    np.testing.assert_array_equal(state.best_params["w"], [1.0, 1.0])


@pytest.mark.parametrize(
    ("stopping", "message"),
    [
        (EarlyStopping(0), "patience must be at least 1 epoch; got 0"),
        (EarlyStopping(2, -0.1), "min_delta must be at least 0; got -0.1"),
        (EarlyStopping(2, mode="least"), "mode must be .*'least'"),
    ],
)
def test_bad_numbers_are_named(stopping, message):
    with pytest.raises(ValueError, match=message):
        stopping.init(PARAMS)


def test_a_vector_cannot_be_watched():
    stopping = EarlyStopping(2)
    with pytest.raises(ValueError, match=r"must be a scalar; got shape \(2,\)"):
        stopping.update(stopping.init(PARAMS), jnp.ones(2), PARAMS, 0)


def test_prints_as_the_code_that_builds_it():
    stopping = EarlyStopping(patience=3, min_delta=0.1, mode="max")
    assert eval(repr(stopping)) == stopping
