"""A torch checkpoint goes on here: the same path as torch's own, in float64. Needs no torch."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradxform as gx

FILE = Path(__file__).parents[1] / "oracles" / "torch_state.npz"
with np.load(FILE) as _file:
    ARRAYS = dict(_file)
META = json.loads(str(ARRAYS["meta"]))
ADAM = {"b1": 0.9, "b2": 0.95, "eps": 1e-8}
FALLING = gx.exponential_decay(0.05, 1, 0.9)
ORDER = ["dense/kernel", "dense/bias"]  # in torch's order, which is not that of the leaves

CASES = {
    "sgd": lambda: gx.sgd(0.05),
    "sgd_momentum": lambda: gx.sgd(0.05, 0.9),
    "sgd_dampening": lambda: gx.chain(
        gx.momentum(0.9, 0.5, convention="torch"), gx.scale_by_learning_rate(0.05)
    ),
    "sgd_nesterov": lambda: gx.sgd(0.05, 0.9, nesterov=True),
    "adam": lambda: gx.adam(0.05, **ADAM),
    "adam_l2": lambda: gx.adam_l2(0.05, **ADAM, l2=0.1),
    "adam_amsgrad": lambda: gx.amsgrad(0.05, **ADAM, convention="torch"),
    "adamw_scheduled": lambda: gx.adamw(FALLING, **ADAM, weight_decay=0.1),
    "adamw_amsgrad": lambda: gx.chain(
        gx.ema(0.9),
        gx.scale_by_rms_max(0.95, 1e-8, convention="torch"),
        gx.add_decayed_weights(0.1),
        gx.scale_by_learning_rate(0.05),
    ),
    "adamw_groups": lambda: gx.adamw(
        gx.by_path({"**/kernel": 0.05, "**": 0.02}),
        **ADAM,
        weight_decay=gx.by_path({"**/kernel": 0.1, "**": 0.0}),
    ),
}


def to_flax(path, x):
    return x.T if path == "dense/kernel" else x


def tree(weight, bias):
    return {"dense": {"kernel": jnp.asarray(weight).T, "bias": jnp.asarray(bias)}}


def state_dict(case):
    state = {}
    for key, value in ARRAYS.items():
        if key.startswith(f"state/{case}/"):
            index, field = key.split("/")[2:]
            state.setdefault(int(index), {})[field] = value
    return {"state": state, "param_groups": META["cases"][case]["param_groups"]}


def params_of(case):
    return tree(*(ARRAYS[f"at/{case}/{leaf}"] for leaf in ("weight", "bias")))


def goes_on(case, tx, state):
    params = params_of(case)
    update = jax.jit(lambda g, s, p: tx.update(g, s, p))
    for k in range(META["after"]):
        updates, state = update(
            tree(ARRAYS["grads/weight"][k], ARRAYS["grads/bias"][k]), state, params
        )
        params = gx.apply_updates(params, updates)
        expected = tree(*(ARRAYS[f"path/{case}/{leaf}"][k] for leaf in ("weight", "bias")))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9), params, expected
        )
    return state


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", CASES)
def test_training_goes_on_as_in_torch(case):
    tx = CASES[case]()
    state = gx.import_torch_state(tx, state_dict(case), params_of(case), ORDER, to_flax)
    fresh = tx.init(params_of(case))
    assert jax.tree.map(jax.typeof, state) == jax.tree.map(jax.typeof, fresh)
    if "adam" in case:
        assert int(gx.get(state, "step")) == META["before"]
        assert int(gx.get(goes_on(case, tx, state), "step")) == META["before"] + META["after"]
    else:
        goes_on(case, tx, state)


@pytest.mark.usefixtures("x64")
def test_around_it_may_be_a_clip_and_its_numbers_may_be_in_the_state():
    for around in (lambda tx: gx.chain(gx.clip_by_global_norm(1e9), tx), gx.tunable):
        tx = around(CASES["adamw_scheduled"]())
        state = gx.import_torch_state(
            tx, state_dict("adamw_scheduled"), params_of("adamw_scheduled"), ORDER, to_flax
        )
        np.testing.assert_allclose(gx.get(state, "learning_rate"), 0.05 * 0.9**7, rtol=1e-6)
        goes_on("adamw_scheduled", tx, state)


@pytest.mark.usefixtures("x64")
def test_torch_counts_no_steps_of_sgd():
    case, tx = "sgd_momentum_scheduled", gx.sgd(FALLING, 0.9)
    with pytest.raises(
        ValueError, match=r"sgd/scale_by_learning_rate has a schedule, .* give step="
    ):
        gx.import_torch_state(tx, state_dict(case), params_of(case), ORDER, to_flax)
    state = gx.import_torch_state(
        tx, state_dict(case), params_of(case), ORDER, to_flax, step=META["before"]
    )
    np.testing.assert_allclose(gx.get(state, "learning_rate"), 0.05 * 0.9**7, rtol=1e-6)
    goes_on(case, tx, state)


def refused(match, tx, case="adam", saved=None, names=ORDER, transform=to_flax, params=None):
    saved = state_dict(case) if saved is None else saved
    params = params_of(case) if params is None else params
    with pytest.raises(ValueError, match=match):
        gx.import_torch_state(tx, saved, params, names, transform)


def test_what_does_not_fit_is_named():
    adam = gx.adam(0.05)
    refused(
        r"exp_avg of 'dense/kernel' has shape \(3, 4\), the parameter \(4, 3\); give transform=",
        adam,
        transform=None,
    )
    refused(
        r"exp_avg of 'dense/bias' has shape \(3, 4\), the parameter \(3,\)", adam, names=ORDER[::-1]
    )
    refused(
        r"missing \['dense/bias'\], unknown \['dense/b'\]", adam, names=["dense/kernel", "dense/b"]
    )
    refused(r"missing \['dense/bias'\], unknown \[\]", adam, names=["dense/kernel", "dense/kernel"])
    refused(
        "the state_dict has 2 parameters, params 1",
        adam,
        names=["dense/kernel"],
        params={"dense": {"kernel": jnp.ones((4, 3))}},
    )
    saved = state_dict("adam")
    del saved["state"][1]
    refused("no exp_avg for 'dense/bias'", adam, saved=saved)
    saved = state_dict("adam")
    saved["state"][1]["step"] = saved["state"][1]["step"] + 1
    refused(
        r"same number of steps; here are \{'dense/kernel': 8, 'dense/bias': 9\}", adam, saved=saved
    )
    for case in ("nadam", "radam", "rmsprop"):
        refused("none of SGD, Adam, AdamW and Muon: it keeps", adam, case)
    refused("'state' and 'param_groups'", adam, saved=state_dict("adam")["state"])


def test_another_method_is_refused():
    refused(
        r"nothing in the state_dict gives sgd/momentum its slots \['v'\]; the next there is Adam",
        gx.sgd(0.1, 0.9),
    )
    refused(
        r"\['exp_avg', 'exp_avg_sq'\] of Adam at state_dict has no place in the state of sgd",
        gx.sgd(0.1),
    )
    refused("gives adamax/scale_by_inf_norm its slots", gx.adamax(0.1))
    refused("gives rmsprop/scale_by_rms its slots", gx.rmsprop(0.1), "sgd_momentum")
    refused("gives adam/scale_by_rms its slots", gx.adam(0.1), "adam_amsgrad")
    refused(
        "keeps something else than AMSGrad at state_dict in this convention",
        gx.amsgrad(0.1),
        "adam_amsgrad",
    )
    refused(
        "the learning rate inside the velocity",
        gx.sgd(0.1, 0.9, convention="keras"),
        "sgd_momentum",
    )
    refused("accumulate cannot be made from Adam", gx.accumulate(gx.adam(0.1), 2))


def test_indices_may_be_strings_and_leaves_in_order_need_no_names():
    """As a checkpoint in JSON or msgpack has them."""
    saved, params = state_dict("adam"), {"a": jnp.ones((3, 4)), "b": jnp.ones(3)}
    plain = gx.import_torch_state(gx.adam(0.1), saved, params)
    saved["state"] = {str(index): entry for index, entry in saved["state"].items()}
    jax.tree.map(
        np.testing.assert_array_equal, plain, gx.import_torch_state(gx.adam(0.1), saved, params)
    )
    np.testing.assert_array_equal(gx.get(plain, "m/a"), np.float32(ARRAYS["state/adam/0/exp_avg"]))
