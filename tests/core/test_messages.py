"""A beginner's mistakes: each message says what to write."""

import jax.numpy as jnp
import pytest

import gradxform as gx

PARAMS = {"w": jnp.ones(3)}
ADAM = gx.adam(0.1)
STEP = ADAM.update(PARAMS, ADAM.init(PARAMS), PARAMS)
PAIR = r"is the pair \(updates, state\); write updates, state = tx.update\(...\)"

MISTAKES = {
    "adam(lr=)": (lambda: gx.adam(lr=1e-3), "adam: .* 'lr'; .* did you mean learning_rate"),
    "sgd(step_size=)": (lambda: gx.sgd(step_size=0.1), "did you mean learning_rate"),
    "adam(learningrate=)": (lambda: gx.adam(learningrate=0.1), "did you mean learning_rate"),
    "adam(beta1=)": (lambda: gx.adam(0.1, beta1=0.9), "'beta1'; .* did you mean b1"),
    "adam(beta_2=)": (lambda: gx.adam(0.1, beta_2=0.9), "'beta_2'; .* did you mean b2"),
    "adam(betas=)": (lambda: gx.adam(0.1, betas=(0.9, 0.99)), "did you mean b1 and b2"),
    "adam(epsilon=)": (lambda: gx.adam(0.1, epsilon=1e-8), "did you mean eps"),
    "adamw(wd=)": (lambda: gx.adamw(0.1, wd=0.1), "did you mean weight_decay"),
    "rmsprop(rho=)": (lambda: gx.rmsprop(0.1, rho=0.9), "did you mean decay"),
    "sgd(b1=)": (lambda: gx.sgd(0.1, b1=0.9), "did you mean momentum"),
    "clip_by_global_norm(clip_norm=)": (
        lambda: gx.clip_by_global_norm(clip_norm=1.0),
        "did you mean max_norm",
    ),
    "adam(nonsense=)": (lambda: gx.adam(0.1, nonsense=1), r"'nonsense'; it has \['learning_rate'"),
    "replace(lr=)": (lambda: ADAM.replace(lr=1), "no argument named 'lr'.*did you mean learning_"),
    "adam()": (lambda: gx.adam(), "adam: missing a required argument: 'learning_rate'"),
    "adam('0.1')": (lambda: gx.adam("0.1"), "adam: learning_rate must be a number"),
    "adam(10**400)": (lambda: gx.adam(10**400), "adam: learning_rate is too large for a float"),
    "adam([])": (lambda: gx.adam(jnp.zeros(0)), "adam: learning_rate holds no number"),
    "adam(lambda: 1)": (lambda: gx.adam(lambda: 1), "a schedule is a function of the step"),
    "adam(float)": (lambda: gx.adam(float), "a schedule is a function of the step; got float"),
    "adam(b1=constant(2))": (
        lambda: gx.adam(0.1, b1=gx.constant_schedule(2.0)),
        r"adam: b1 must lie in \[0, 1\]; got 2.0",
    ),
    "adam(constant(-1))": (
        lambda: gx.adam(gx.constant_schedule(-1.0)),
        r"adam: learning_rate must lie in \[0, inf\); got -1.0",
    ),
    "by_path({3: 0.1})": (lambda: gx.by_path({3: 0.1}), "by_path: a pattern must be a text"),
    "chain([a, b])": (lambda: gx.chain([ADAM, ADAM]), r"one by one: chain\(\*parts\)"),
    "chain((a, b, c))": (lambda: gx.chain((ADAM, ADAM, ADAM)), r"one by one: chain\(\*parts\)"),
    "chain(gx.adam)": (lambda: gx.chain(gx.adam), r"got the function adam; call it: adam\(...\)"),
    "chain(3)": (lambda: gx.chain(3), "a part must be a transformation .*; got 3"),
    "accumulate(gx.adam)": (
        lambda: gx.accumulate(gx.adam, 2),
        "accumulate: inner .* call it: adam",
    ),
    "apply_updates(pair, p)": (lambda: gx.apply_updates(STEP, PARAMS), f"params {PAIR}"),
    "apply_updates(real, complex)": (
        lambda: gx.apply_updates(PARAMS, {"w": jnp.ones(3, complex)}),
        "apply_updates: update 'w' is complex, its parameter real; take the real part",
    ),
    "apply_updates(p, pair)": (lambda: gx.apply_updates(PARAMS, STEP), f"updates {PAIR}"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_says_what_to_write(mistake):
    make, says = MISTAKES[mistake]
    with pytest.raises((TypeError, ValueError), match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_pair_of_parameters_is_no_mistake():
    """Parameters that are a tuple of two trees are updated as any others."""
    pair = (jnp.ones(2), {"b": jnp.zeros(1)})
    new = gx.apply_updates(pair, pair)
    assert new[0].tolist() == [2.0, 2.0]


def test_eight_bit_parameters_take_steps():
    """They promote with nothing in JAX; here they count as float32, and stay what they are."""
    params = {"w": jnp.ones(3, jnp.float8_e4m3fn)}
    new = gx.apply_updates(
        params, gx.sgd(0.25).update(params, gx.sgd(0.25).init(params), params)[0]
    )
    assert new["w"].dtype == jnp.float8_e4m3fn
    assert new["w"].astype(float).tolist() == [0.75] * 3
