"""An Optax run goes on here: five steps there, the state carried over, then the same path on both sides, in float64."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from thinned import one_in

import gradxform as gx

pytestmark = pytest.mark.usefixtures("x64", "standard_promotion")
BEFORE, AFTER = 5, 7
MASK = {"w": True, "b": False}


def falling(step):
    return 0.1 / (1 + 0.1 * step)


def params_and_gradients():
    rng = np.random.default_rng(0)
    params = {
        "w": jnp.asarray(rng.standard_normal((4, 3))),
        "b": jnp.asarray(rng.standard_normal(3)),
    }
    return params, [
        {k: jnp.asarray(rng.standard_normal(v.shape)) for k, v in params.items()}
        for _ in range(BEFORE + AFTER)
    ]


def stepper(tx):
    takes_extra = isinstance(tx, gx.core.Transform | optax.GradientTransformationExtraArgs)

    @jax.jit
    def step(gradients, state, params, value):
        updates, state = tx.update(
            gradients, state, params, **({"value": value} if takes_extra else {})
        )
        return optax.apply_updates(params, updates), state

    return step


def trained(theirs, steps=BEFORE):
    params, gradients = params_and_gradients()
    state, step = theirs.init(params), stepper(theirs)
    for k in range(steps):
        params, state = step(gradients[k], state, params, 1.0 + k)
    return params, state


def follows(theirs, mine, tolerance=1e-9):
    _, gradients = params_and_gradients()
    params, optax_state = trained(theirs)
    state = gx.import_optax_state(mine, optax_state, params)
    assert jax.tree.map(jax.typeof, state) == jax.tree.map(jax.typeof, mine.init(params))
    first = state
    there, here, their_step, my_step = params, params, stepper(theirs), stepper(mine)
    for k in range(BEFORE, BEFORE + AFTER):
        there, optax_state = their_step(gradients[k], optax_state, there, 1.0 + k)
        here, state = my_step(gradients[k], state, here, 1.0 + k)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance), here, there
        )
    assert any(
        bool(jnp.any(x != y))
        for x, y in zip(jax.tree.leaves(here), jax.tree.leaves(params), strict=True)
    )
    return first


SCHEDULED = [
    "adabelief",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamaxw",
    "adamw",
    "adan",
    "amsgrad",
    "fromage",
    "lamb",
    "lars",
    "lion",
    "nadam",
    "nadamw",
    "novograd",
    "optimistic_adam_v2",
    "optimistic_gradient_descent",
    "radam",
    "rmsprop",
    "sgd",
    "sign_sgd",
    "signum",
    "yogi",
    "contrib.acprop",
    "contrib.ademamix",
    "contrib.adopt",
    "contrib.cocob",
    "contrib.dadapt_adamw",
    "contrib.dog",
    "contrib.dowg",
    "contrib.momo",
    "contrib.momo_adam",
    "contrib.prodigy",
    "contrib.schedule_free_adamw",
    "contrib.schedule_free_sgd",
    "contrib.simplified_ademamix",
]


def find(package, name):
    return getattr(
        package.contrib if name.startswith("contrib.") else package, name.removeprefix("contrib.")
    )


@pytest.mark.parametrize("name", one_in(6, SCHEDULED))
@pytest.mark.parametrize("rate", [0.05, falling], ids=["number", "schedule"])
def test_a_named_optimizer_goes_on(name, rate):
    mine = getattr(gx, name.removeprefix("contrib."))(learning_rate=rate)
    state = follows(find(optax, name)(learning_rate=rate), mine)
    if callable(rate) and "schedule_free" not in name:
        np.testing.assert_allclose(gx.get(state, "learning_rate"), falling(BEFORE - 1), rtol=1e-12)


@pytest.mark.parametrize("name", ["sm3", "rprop", "polyak_sgd"])
def test_a_named_optimizer_without_schedules_goes_on(name):
    number = {} if name == "polyak_sgd" else {"learning_rate": 0.05}
    follows(find(optax, name)(**number), getattr(gx, name)(**number))


def test_optimistic_adam_goes_on():
    with pytest.warns(DeprecationWarning, match="optimistic_adam_v2"):
        theirs = optax.optimistic_adam(0.05)
    follows(theirs, gx.optimistic_adam(0.05))


def test_adafactor_goes_on():
    """To 1e-7: Optax takes the power of the step in float32."""
    follows(optax.adafactor(0.05), gx.adafactor(0.05), 1e-7)


PAIRS = {
    "momentum": lambda o: o.sgd(falling, 0.9),
    "nesterov": lambda o: o.sgd(0.05, 0.9, nesterov=True),
    "rmsprop with momentum": lambda o: o.rmsprop(falling, momentum=0.9, nesterov=True),
    "centred rmsprop": lambda o: o.rmsprop(0.05, centered=True, momentum=0.9),
    "corrected rmsprop": lambda o: o.rmsprop(0.05, bias_correction=True),
    "corrected centred rmsprop": lambda o: o.rmsprop(0.05, centered=True, bias_correction=True),
    "adabelief with nesterov": lambda o: o.adabelief(0.05, nesterov=True),
    "ema": lambda o: o.chain(o.ema(0.9), o.scale(-0.1)),
    "trace": lambda o: o.chain(o.trace(0.9), o.scale(-0.1)),
    "clip, adamw, mask": lambda o: o.chain(o.clip_by_global_norm(1.0), o.adamw(falling, mask=MASK)),
    "written out": lambda o: o.chain(
        o.zero_nans(),
        o.scale_by_adam(),
        o.add_decayed_weights(0.1),
        o.scale_by_schedule(lambda k: -falling(k)),
    ),
    "masked": lambda o: o.chain(o.masked(o.scale_by_adam(), MASK), o.scale(-0.01)),
    "freeze and train": lambda o: o.partition(
        {"train": o.adam(falling), "rest": o.set_to_zero()}, {"w": "train", "b": "rest"}
    ),
    "partition": lambda o: o.partition(
        {"z": o.adam(falling), "a": o.sgd(0.1, 0.9)}, {"w": "z", "b": "a"}
    ),
    "partition in another order": lambda o: o.partition(
        dict([("z", o.adam(falling)), ("a", o.sgd(0.1, 0.9))][:: 1 if o is gx else -1]),
        {"w": "z", "b": "a"},
    ),
    "apply_if_finite": lambda o: o.apply_if_finite(o.adam(falling), 3),
    "conditionally_mask": lambda o: o.conditionally_mask(
        o.adam(falling), lambda step: step % 2 == 0
    ),
    "conditionally_transform": lambda o: o.chain(
        o.scale(0.01), o.conditionally_transform(o.scale_by_adam(), lambda step: step % 2 == 0)
    ),
    "apply_every": lambda o: o.chain(o.adam(0.1), o.apply_every(3)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_composition_goes_on(name):
    follows(PAIRS[name](optax), PAIRS[name](gx))


def test_a_plateau_goes_on():
    theirs = optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau(patience=3))
    follows(theirs, gx.chain(gx.adam(0.1), gx.reduce_on_plateau(patience=3)))


def test_named_chains_go_on():
    theirs = optax.named_chain(
        ("z", optax.scale_by_adam()), ("a", optax.scale_by_learning_rate(falling))
    )
    follows(theirs, gx.chain(gx.scale_by_adam(), gx.scale_by_learning_rate(falling)))


@pytest.mark.parametrize("mean", [True, False])
def test_accumulation_goes_on_in_the_middle(mean):
    theirs = optax.MultiSteps(
        optax.adamw(falling), 3, mean, accumulator_dtype=jnp.float64
    ).gradient_transformation()
    state = follows(theirs, gx.MultiSteps(gx.adamw(falling), 3, mean))
    assert (int(state.mini_step), int(state.step)) == (2, 1)
    assert int(gx.get(state, "ema/step")) == 1


def test_injected_numbers_go_into_the_state():
    params, state = trained(optax.inject_hyperparams(optax.adam)(0.1))
    state.hyperparams["learning_rate"] = jnp.asarray(0.03)
    got = gx.import_optax_state(gx.tunable(gx.adam(0.5)), state, params)
    np.testing.assert_allclose(gx.get(got, "learning_rate"), 0.03)
    follows(optax.inject_hyperparams(optax.adam)(0.1), gx.tunable(gx.adam(0.5)))
    follows(optax.inject_hyperparams(optax.adam)(falling), gx.tunable(gx.adam(falling)))
    follows(optax.inject_hyperparams(optax.adam)(falling), gx.adam(falling))


def test_the_steps_may_be_given():
    params, state = trained(optax.sgd(0.1, 0.9))
    with pytest.raises(
        ValueError,
        match=r"sgd/scale_by_learning_rate has a schedule, and .* counts no steps; give step=",
    ):
        gx.import_optax_state(gx.sgd(falling, 0.9), state, params)
    got = gx.import_optax_state(gx.sgd(falling, 0.9), state, params, step=BEFORE)
    assert int(gx.get(got, "step")) == BEFORE
    np.testing.assert_allclose(gx.get(got, "learning_rate"), falling(BEFORE - 1), rtol=1e-12)


REFUSED = {
    r"nothing in the Optax state gives sgd/momentum its slots \['v'\]; the next there is ScaleByAdamState at state\[0\]": (
        lambda: optax.adam(0.1),
        lambda: gx.sgd(0.1, 0.9),
    ),
    "gives sgd/momentum its slots .* the next there is ScaleByRmsState": (
        lambda: optax.rmsprop(0.1),
        lambda: gx.sgd(0.1, 0.9),
    ),
    r"gives adam/ema its slots \['m'\]; the next there is its end": (
        lambda: optax.sgd(0.1),
        lambda: gx.adam(0.1),
    ),
    r"\['mu', 'nu'\] of ScaleByAdamState at state\[0\] has no place in the state of sgd": (
        lambda: optax.adam(0.1),
        lambda: gx.sgd(0.1),
    ),
    r"amsgrad/scale_by_rms_max keeps something else than ScaleByAmsgradState": (
        lambda: optax.amsgrad(0.1),
        lambda: gx.amsgrad(0.1, convention="torch"),
    ),
    r"state.inner_state\[0\].mu: only in the saved state \[\], only here \['b'\]": (
        lambda: optax.masked(optax.adam(0.1), MASK),
        lambda: gx.adam(0.1),
    ),
    r"gives noisy_sgd/add_noise its slots \['key'\]; the next there is AddNoiseState": (
        lambda: optax.noisy_sgd(0.1, key=0),
        lambda: gx.noisy_sgd(0.1),
    ),
    r"skip_nonfinite cannot be made from ScaleByAdamState at state\[0\]": (
        lambda: optax.adam(0.1),
        lambda: gx.skip_nonfinite(gx.adam(0.1)),
    ),
    r"SnapshotState at state\[1\] has no place": (
        lambda: optax.chain(optax.adam(0.1), optax.snapshot("norm", optax.tree.norm)),
        lambda: gx.adam(0.1),
    ),
    r"state has the labels \['a', 'b'\], partition has \['b', 'c'\]": (
        lambda: optax.partition({"a": optax.adam(0.1), "b": optax.sgd(0.1)}, {"w": "a", "b": "b"}),
        lambda: gx.partition({"c": gx.adam(0.1), "b": gx.sgd(0.1)}, {"w": "c", "b": "b"}),
    ),
}


@pytest.mark.parametrize("match", REFUSED)
def test_what_cannot_be_carried_over_is_named(match):
    theirs, mine = REFUSED[match]
    params, state = trained(theirs(), 1)
    with pytest.raises(ValueError, match=match):
        gx.import_optax_state(mine(), state, params)


def test_another_shape_is_named():
    params, state = trained(optax.adam(0.1), 1)
    with pytest.raises(ValueError, match=r"state\[0\].mu: b has shape \(3,\), here \(5,\)"):
        gx.import_optax_state(gx.adam(0.1), state, params | {"b": jnp.ones(5)})
    with pytest.raises(
        ValueError, match=r"state\[0\].mu: only in the saved state \['b'\], only here \['c'\]"
    ):
        gx.import_optax_state(gx.adam(0.1), state, {"w": params["w"], "c": params["b"]})


def test_it_works_under_jit_and_shares_no_buffers():
    params, state = trained(optax.adam(falling))
    tx = gx.adam(falling)
    got = gx.import_optax_state(tx, state, params)
    traced = jax.jit(lambda state, params: gx.import_optax_state(tx, state, params))(state, params)
    chex.assert_trees_all_equal(got, traced)
    jax.jit(lambda state: jax.tree.map(jnp.zeros_like, state), donate_argnums=0)(got)
    chex.assert_tree_all_finite(state)


def test_a_frozen_group_goes_on():
    """`freeze` keeps the state of the group that is trained, as Optax's `masked` does."""
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    theirs = optax.masked(optax.adam(0.1), {"a": False, "b": True})
    gradients = jax.tree.map(lambda p: 0.5 * p, params)
    _, saved = theirs.update(gradients, theirs.init(params), params)
    tx = gx.freeze("a", gx.adam(0.1))
    state = gx.import_optax_state(tx, saved, params)
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(params))
    assert gx.get(state, "m")["a"] is None
    np.testing.assert_allclose(gx.get(state, "m")["b"], 0.05 * np.ones(3), rtol=1e-6)
    assert int(gx.get(state, "step")) == 1
