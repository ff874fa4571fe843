"""The training loop: against the same loop in plain Python, and the laws of stopping, diverging and batching members."""

import functools
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradxform as gx
from gradxform.train import EarlyStopping, Training, batches, fit

KEY = jax.random.key(3)
INPUTS = np.random.default_rng(0).normal(size=(22, 3)).astype(np.float32)
DATA = {"x": INPUTS, "y": INPUTS @ np.array([1.0, -2.0, 3.0], np.float32) + 0.5}
VALIDATION = jax.tree.map(lambda leaf: leaf[:6], DATA)
PARAMS = {"w": jnp.zeros(3), "b": jnp.zeros(())}


def squared(params, batch, key):
    error = batch["x"] @ params["w"] + params["b"] - batch["y"]
    return jnp.mean(error**2), {"mae": jnp.mean(jnp.abs(error))}


def upwards(params, batch, key):
    """A gradient of -1 everywhere: with sgd(1) and one batch, w counts the epochs."""
    return -params["w"]


def distance(target):
    return lambda params, data: {
        "loss": (params["w"] - target) ** 2,
        "closeness": -jnp.abs(params["w"] - target),
    }


regress = functools.partial(fit, squared, params=PARAMS, data=DATA, key=KEY, batch_size=5)
climb = functools.partial(
    fit, upwards, params={"w": jnp.zeros(())}, data=np.zeros(4, np.float32), key=KEY, batch_size=4
)


assert_same = chex.assert_trees_all_equal


def assert_close(a, b, rtol=1e-5):
    chex.assert_trees_all_close(a, b, rtol=rtol, atol=1e-6)


def member(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


@pytest.mark.parametrize("drop_last", [False, True])
def test_equals_the_loop_in_python(drop_last):
    result = regress(gx.sgd(0.1), epochs=2, validation=VALIDATION, drop_last=drop_last)
    params, slope = PARAMS, jax.jit(jax.value_and_grad(squared, has_aux=True))
    for epoch in range(2):
        order, _ = jax.random.split(jax.random.fold_in(KEY, epoch))
        total, examples = 0.0, 0
        for batch in batches(order, DATA, 5, drop_last=drop_last):
            (value, _), grads = slope(params, batch, None)
            params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
            total, examples = total + len(batch["x"]) * float(value), examples + len(batch["x"])
        assert examples == (20 if drop_last else 22)
        np.testing.assert_allclose(result.history["train_loss"][epoch], total / examples, rtol=1e-5)
    assert_close(result.params, params)
    value, metrics = squared(params, VALIDATION, None)
    assert set(result.history) == {"train_loss", "train_mae", "val_loss", "val_mae"}
    np.testing.assert_allclose(result.history["val_loss"][1], value, rtol=1e-5)
    np.testing.assert_allclose(result.history["val_mae"][1], metrics["mae"], rtol=1e-5)
    assert (int(result.epochs_run), int(result.best_epoch), bool(result.stopped)) == (2, 1, False)


def test_an_epoch_at_a_time_is_the_same_run():
    training = Training(squared, gx.sgd(0.1), 5)
    carry, losses = training.init(PARAMS, KEY), []
    for _ in range(3):
        carry, metrics = training.epoch(carry, DATA)
        losses.append(metrics["train_loss"])
    whole = regress(gx.sgd(0.1), epochs=3)
    assert_close(
        training.result(carry, {"train_loss": jnp.stack(losses)})._replace(history={}),
        whole._replace(history={}),
    )
    np.testing.assert_allclose(losses, whole.history["train_loss"], rtol=1e-5)
    halfway, _ = training.run(training.init(PARAMS, KEY), DATA, epochs=2)
    assert_close(training.run(halfway, DATA, epochs=1)[0].params, whole.params)


def test_every_batch_has_its_own_key_and_evaluation_has_none():
    def noisy(params, batch, key):
        draw = jnp.zeros(()) if key is None else jax.random.uniform(key)
        return params["w"] ** 2, {"draw": draw, "square": draw**2}

    history = fit(
        noisy,
        gx.sgd(0.1),
        {"w": jnp.ones(())},
        np.zeros(6),
        key=KEY,
        epochs=3,
        batch_size=3,
        validation=np.zeros(2),
    ).history
    means, squares = history["train_draw"], history["train_square"]
    assert len(set(means.tolist())) == 3, "each epoch draws anew"
    assert (squares - means**2 > 1e-6).all(), "and so does each batch"
    assert not history["val_draw"].any()


def test_order_is_kept_without_shuffle():
    def first(params, batch, key):
        return params["w"] * 0, {"first": batch[0]}

    run = functools.partial(
        fit,
        first,
        gx.sgd(0.1),
        {"w": jnp.ones(())},
        np.arange(9.0),
        key=KEY,
        epochs=1,
        batch_size=3,
    )
    assert run(shuffle=False).history["train_first"][0] == 3.0 != run().history["train_first"][0]


def test_the_optimizer_and_the_plateau_get_the_values():
    recorder = SimpleNamespace(
        init=lambda params: jnp.zeros(()),
        update=lambda u, state, params=None, *, value, **extra: (u, value),
    )
    result = climb(recorder, epochs=2, plateau=recorder, validation=0.0, evaluate=distance(7.0))
    np.testing.assert_allclose(
        result.state, -result.last_params["w"] - 1.0
    )  # the loss before the last step
    plain = SimpleNamespace(
        init=lambda params: (), update=lambda updates, state, params=None: (updates, state)
    )
    assert climb(plain, epochs=2).params["w"] == -2.0


def test_early_stopping_restores_the_best_parameters():
    result = climb(gx.sgd(1.0), epochs=9, patience=2, validation=0.0, evaluate=distance(3.0))
    np.testing.assert_array_equal(result.history["val_loss"], [4, 1, 0, 1, 4] + 4 * [np.nan])
    np.testing.assert_array_equal(result.history["train_loss"], [0, -1, -2, -3, -4] + 4 * [np.nan])
    assert (float(result.params["w"]), float(result.last_params["w"])) == (3.0, 5.0)
    assert (int(result.best_epoch), int(result.epochs_run)) == (2, 5)
    assert result.stopped
    assert not result.diverged
    rising = climb(
        gx.sgd(1.0),
        epochs=9,
        patience=1,
        mode="max",
        watch="closeness",
        validation=0.0,
        evaluate=distance(2.0),
    )
    assert (float(rising.params["w"]), int(rising.epochs_run)) == (2.0, 3)


def test_alone_it_really_ends_early():
    calls = []

    def evaluate(params, data):
        jax.debug.callback(lambda: calls.append(1))
        return distance(1.0)(params, data)

    result = climb(gx.sgd(1.0), epochs=50, patience=2, validation=0.0, evaluate=evaluate)
    jax.block_until_ready(result)
    jax.effects_barrier()
    assert len(calls) == int(result.epochs_run) == 3


def test_plateau_scales_every_update_of_the_next_epochs():
    def flat(params, data):
        return {"loss": jnp.ones(()), "w": params["w"]}

    plateau = gx.reduce_on_plateau(factor=0.5, patience=1)
    result = climb(gx.sgd(1.0), epochs=4, plateau=plateau, validation=0.0, evaluate=flat)
    np.testing.assert_allclose(result.history["val_w"], np.cumsum([1.0, 1.0, 0.5, 0.25]))
    falling = climb(
        gx.sgd(1.0), epochs=4, plateau=plateau
    )  # without validation it reads the training loss
    assert falling.params["w"] == 4.0


@pytest.mark.parametrize("patience", [None, 4], ids=["scan", "early stopping"])
def test_a_diverged_member_changes_nothing_for_the_others(patience):
    @jax.jit
    def sweep(tx):
        return jax.vmap(lambda tx: regress(tx, epochs=8, validation=VALIDATION, patience=patience))(
            tx
        )

    rates, wild = [0.02, 0.05, 0.1], [0.02, 1e35, 0.1]
    calm, mixed = (sweep(gx.stack([gx.sgd(rate) for rate in row])) for row in (rates, wild))
    assert mixed.diverged.tolist() == [False, True, False]
    assert not calm.diverged.any()
    for i in (0, 2):
        assert_same(member(mixed, i), member(calm, i))
        assert_close(
            member(mixed, i),
            regress(gx.sgd(rates[i]), epochs=8, validation=VALIDATION, patience=patience),
            1e-4,
        )
    lost = member(mixed, 1)
    ran = int(lost.epochs_run)
    assert 0 < ran < 8
    assert lost.stopped
    assert not np.isfinite(lost.history["val_loss"][ran - 1])
    assert all(np.isnan(row[ran:]).all() for row in lost.history.values())
    assert int(gx.get(lost.state, "step")) == 5 * ran, (
        "the optimizer's step count: five batches an epoch, and then no more"
    )
    if patience:
        assert_same(
            lost.params, PARAMS
        )  # the best ones: here none was good, so those it began with


@pytest.mark.parametrize("where", ["training", "validation"])
def test_a_loss_that_is_not_finite_ends_the_run_wherever_it_is(where):
    def broken(params, batch, key):
        return upwards(params, batch, key) * jnp.where(params["w"] < 2, 1.0, jnp.nan)

    def evaluate(params, data):
        return {
            "loss": jnp.where(params["w"] < 3, -params["w"], jnp.inf)
            if where == "validation"
            else jnp.zeros(())
        }

    loss = broken if where == "training" else upwards
    watched = {"evaluate": evaluate, "validation": 0.0, "patience": 9}
    result = fit(
        loss,
        gx.sgd(1.0),
        {"w": jnp.zeros(())},
        np.zeros(4),
        key=KEY,
        epochs=9,
        batch_size=4,
        **watched,
    )
    assert int(result.epochs_run) == 3
    assert result.stopped
    assert result.diverged
    assert float(result.params["w"]) == (1.0 if where == "training" else 2.0)


def test_a_stopped_member_stays_as_it_was():
    patience = jnp.array([1, 2, 9])
    run = functools.partial(climb, gx.sgd(1.0), validation=0.0, evaluate=distance(2.0))
    together = jax.jit(jax.vmap(lambda n: run(patience=n, epochs=6)))(patience)
    assert together.epochs_run.tolist() == [3, 4, 6]
    for i, n in enumerate(patience):
        assert_same(member(together, i), run(patience=n, epochs=6))


def test_an_inactive_epoch_changes_nothing():
    training = Training(upwards, gx.sgd(1.0), 4, distance(0.0), EarlyStopping(1))
    carry = training.init({"w": jnp.zeros(())}, KEY)
    data = np.zeros(4)
    for _ in range(2):
        carry, _ = training.epoch(carry, data, 0.0)
    assert not carry.active
    after, metrics = training.epoch(carry, data, 0.0)
    assert_same(after._replace(key=0), carry._replace(key=0))
    assert all(np.isnan(metric) for metric in metrics.values())


def test_members_with_their_own_keys_and_parameters_equal_each_alone():
    keys = jax.random.split(KEY, 2)
    params = {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(2)}
    run = functools.partial(fit, squared, gx.sgd(0.05), data=DATA, epochs=2, batch_size=5)
    together = jax.vmap(lambda params, key: run(params=params, key=key))(params, keys)
    for i in range(2):
        assert_close(member(together, i), run(params=member(params, i), key=keys[i]))


def test_gradients_through_training():
    def after(tx, start):
        return fit(
            lambda p, b, k: 0.5 * p["w"] ** 2,
            tx,
            {"w": start},
            np.zeros(4),
            key=KEY,
            epochs=3,
            batch_size=4,
        ).params["w"]

    by_tx, by_start = jax.jit(jax.grad(after, argnums=(0, 1)))(gx.sgd(0.1), jnp.float32(2.0))
    np.testing.assert_allclose(
        jax.tree.leaves(by_tx), [-3 * 0.9**2 * 2.0], rtol=1e-5
    )  # w₃ = (1 - lr)³ w₀
    np.testing.assert_allclose(by_start, 0.9**3, rtol=1e-5)

    def outcome(tx):
        return squared(regress(tx, epochs=2, validation=VALIDATION).params, VALIDATION, None)[0]

    chex.assert_tree_all_finite(jax.jit(jax.grad(outcome))(gx.adam(0.1)))


def test_new_numbers_retrace_nothing():
    traces = []

    def counted(params, batch, key):
        traces.append(1)
        return squared(params, batch, key)

    for rate in (0.1, 0.2):
        fit(
            counted,
            gx.sgd(rate),
            PARAMS,
            DATA,
            key=KEY,
            epochs=2,
            batch_size=5,
            validation=VALIDATION,
            patience=2,
        )
        assert len(traces) == 3, "the full batch, the last one, the validation data"
    training = Training(counted, gx.sgd(0.1), 5)
    carry = training.init(PARAMS, KEY)
    for _ in range(3):
        carry, _ = training.epoch(carry, DATA)
        assert len(traces) == 5


def test_eval_params_are_judged_and_returned():
    result = climb(
        gx.sgd(1.0), epochs=3, validation=0.0, evaluate=distance(0.0),
        eval_params=lambda state, params: jax.tree.map(lambda p: p / 2, params),
    )  # fmt: skip
    np.testing.assert_allclose(result.history["val_loss"], [0.25, 1.0, 2.25])
    assert (float(result.params["w"]), float(result.last_params["w"])) == (1.5, 3.0)


def test_complex_parameters_go_downhill():
    def loss(params, batch, key):
        return jnp.abs(params["z"] - (1 + 2j)) ** 2

    result = fit(
        loss,
        gx.sgd(0.2),
        {"z": jnp.zeros((), jnp.complex64)},
        np.zeros(4),
        key=KEY,
        epochs=20,
        batch_size=4,
    )
    np.testing.assert_allclose(result.params["z"], 1 + 2j, atol=1e-3)


def test_narrow_parameters_keep_their_dtype_and_metrics_are_wide():
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    data = np.ones((6, 3), jnp.bfloat16)
    plateau = gx.reduce_on_plateau(factor=0.5, patience=1)
    result = fit(
        lambda p, b, k: jnp.mean((b @ p["w"]) ** 2), gx.adam(0.1), params, data,
        key=KEY, epochs=2, batch_size=4, validation=data, patience=3, plateau=plateau,
    )  # fmt: skip
    assert result.params["w"].dtype == result.last_params["w"].dtype == jnp.bfloat16
    assert result.history["train_loss"].dtype == jnp.zeros(()).dtype


def test_the_carry_may_be_donated():
    training = Training(squared, gx.sgd(0.1), 5, stopping=EarlyStopping(2))
    params, key = jax.tree.map(jnp.array, PARAMS), jax.random.key(0)
    carry = training.init(params, key)
    carry, _ = jax.jit(Training.epoch, donate_argnums=1)(training, carry, DATA, VALIDATION)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((params, key)))
    assert int(carry.epoch) == 1


def vector(params, batch, key):
    return (batch["x"] @ params["w"]) ** 2


def renamed(params, batch, key):
    return squared(params, batch, key)[0], {"loss": jnp.zeros(())}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be .* at least 1; got 0"),
        ({"epochs": 1.5}, "epochs must be a Python integer"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"patience": 2}, "needs validation data"),
        ({"patience": 0, "validation": VALIDATION}, "patience must be at least 1"),
        ({"mode": "max"}, "needs patience"),
        (
            {"watch": "accuracy", "patience": 2, "validation": VALIDATION},
            r"watch='accuracy' .*\['loss', 'mae'\]",
        ),
        ({"evaluate": lambda p, d: jnp.zeros(()), "validation": VALIDATION}, "must return a dict"),
        (
            {"evaluate": lambda p, d: {"loss": p["w"]}, "validation": VALIDATION},
            r"evaluate: 'loss' .*shape \(3,\)",
        ),
        ({"loss": vector}, r"loss: 'loss' must be a scalar; got shape \(5,\)"),
        ({"loss": renamed}, 'dict of metrics but "loss"'),
        ({"data": {"x": INPUTS, "y": INPUTS[:3]}}, "'x' has 22, 'y' has 3"),
        (
            {"validation": {"x": INPUTS, "y": INPUTS[:3]}},
            "validation: .* disagree .* 'x' has 22, 'y' has 3",
        ),
        ({"validation": jax.tree.map(lambda x: x[:0], DATA)}, "validation: there are 0 examples"),
        (
            {"validation": jax.tree.map(lambda x: x[:0], DATA), "evaluate": distance(0.0)},
            "validation: there are 0 examples",
        ),
        ({"min_delta": 0.1}, "min_delta=0.1 is of early stopping; it needs patience"),
        ({"watch": "mae"}, "watch='mae' is for early stopping or a plateau"),
        ({"evaluate": distance(0.0)}, "evaluate judges validation data; give validation"),
        ({"eval_params": lambda state, params: 3}, "eval_params must return parameters; got int"),
    ],
)
def test_bad_input_is_named(changes, message):
    call = {
        "loss": squared,
        "tx": gx.sgd(0.1),
        "params": PARAMS,
        "data": DATA,
        "key": KEY,
        "epochs": 1,
        "batch_size": 5,
    }
    with pytest.raises(ValueError, match=message):
        fit(**(call | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": 0}, r"key must be one JAX key, such as jax.random.key\(0\); got 0"),
        ({"key": jax.random.split(KEY, 3)}, "key must be one JAX key"),
        (
            {"loss": lambda params, batch: 0.0},
            r"loss is called as loss\(params, batch, key\); it takes \(params, batch\)",
        ),
        ({"loss": gx.sgd(0.1), "tx": squared}, "loss must be a function, loss.*; got sgd"),
        (
            {"evaluate": lambda params: {}, "validation": VALIDATION},
            r"evaluate is called as evaluate\(params, validation\)",
        ),
        ({"batch_size": True}, "batch_size must be a Python integer; got True"),
        ({"batch_size": 2.5}, "batch_size must be a Python integer; got 2.5"),
        ({"shuffle": "no"}, "shuffle must be True or False; got 'no'"),
        ({"drop_last": 1}, "drop_last must be True or False; got 1"),
        ({"plateau": gx.sgd(0.1)}, "plateau must watch a value, as gx.reduce_on_plateau"),
        ({"tx": gx.sgd}, r"got the function sgd; call it: sgd\(...\)"),
    ],
)
def test_what_cannot_be_an_argument_is_named(changes, message):
    """By the name of the argument, and with what to write."""
    call = {"loss": squared, "tx": gx.sgd(0.1), "params": PARAMS, "data": DATA, "key": KEY}
    with pytest.raises(TypeError, match=message):
        fit(**(call | {"epochs": 1, "batch_size": 5} | changes))


def test_a_traced_batch_size_is_named():
    """Shapes must be known before tracing."""
    with pytest.raises(TypeError, match=r"batch_size must be a Python integer; got .*Tracer"):
        jax.jit(lambda n: regress(gx.sgd(0.1), epochs=1, batch_size=n))(5)


def test_a_raw_key_serves_too():
    """Keys as `jax.random.PRNGKey` makes them, also from NumPy."""
    for key in (jax.random.PRNGKey(3), np.array(jax.random.PRNGKey(3))):
        training = Training(squared, gx.sgd(0.1), 5)
        assert jax.eval_shape(training.init, PARAMS, key).epoch.shape == ()
