"""Which parameters: groups behave as if they were alone, frozen ones have no state, and nothing is chosen by accident."""

import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradxform as gx
from gradxform.core.labels import Labels
from gradxform.testing import check_law

PARAMS = {
    "embed": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3),
    "block": {"kernel": jnp.linspace(0.5, 2.0, 4).reshape(2, 2), "bias": jnp.array([0.3, -0.7])},
}
MASKS = {
    "pattern": "**/kernel",
    "predicate": lambda path, leaf: path.endswith("kernel"),
    "tree": {"embed": False, "block": {"kernel": True, "bias": False}},
    "function": lambda params: {"embed": False, "block": {"kernel": True, "bias": False}},
    "table": gx.by_path({"block/kernel": True, "**": False}),
    "arrays": {"embed": np.False_, "block": {"kernel": jnp.array(True), "bias": np.bool_(False)}},
}


def gradients(step, params):
    return jax.tree.map(lambda p: jnp.cos(3 * p + step) + p / 2, params)


def train(tx, params, steps=6, given=True):
    """Parameters and state after some updates."""
    state = tx.init(params)
    step = jax.jit(tx.update)
    for t in range(steps):
        updates, state = step(
            gradients(jnp.asarray(t, params_dtype(params)), params),
            state,
            params if given else None,
        )
        params = optax.apply_updates(params, updates)
    return params, state


def params_dtype(params):
    return jax.tree.leaves(params)[0].dtype


def close(got, expected, rtol=1e-6):
    chex.assert_trees_all_close(got, expected, rtol=rtol, atol=rtol)


def in_float64():
    return jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), PARAMS)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_masked_is_the_identity_elsewhere(mask):
    updates = gradients(0.0, PARAMS)
    tx = gx.masked(gx.scale(-2.0), mask)
    got, state = tx.update(updates, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(got["block"]["kernel"], -2 * updates["block"]["kernel"])
    np.testing.assert_array_equal(got["embed"], updates["embed"])
    np.testing.assert_array_equal(got["block"]["bias"], updates["block"]["bias"])
    assert jax.tree.structure(state.inner) == jax.tree.structure(gx.scale(-2.0).init({}))


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_frozen_means_zero_update_and_no_state(mask):
    tx = gx.freeze(mask, gx.adamw(0.1, weight_decay=0.5))
    params, state = train(tx, PARAMS)
    np.testing.assert_array_equal(params["block"]["kernel"], PARAMS["block"]["kernel"])
    rest = {"embed": PARAMS["embed"], "block": {"kernel": None, "bias": PARAMS["block"]["bias"]}}
    alone, alone_state = train(gx.adamw(0.1, weight_decay=0.5), rest)
    np.testing.assert_array_equal(params["embed"], alone["embed"])
    assert jax.tree.structure(state) == jax.tree.structure(alone_state)
    close(state, alone_state, rtol=0)


def test_freeze_alone_zeroes_updates_and_the_rest_passes():
    tx = gx.chain(gx.sgd(0.1), gx.freeze("block"))
    with pytest.raises(
        ValueError, match=r"pattern 'block' matches no leaf; the leaves are \['block/bias'"
    ):
        tx.init(PARAMS)
    params, _ = train(gx.chain(gx.sgd(0.1), gx.freeze("block/**")), PARAMS)
    close(params["block"], PARAMS["block"], rtol=0)
    assert not np.allclose(params["embed"], PARAMS["embed"])


def test_10_masked_around_an_optimizer_warns_and_freeze_freezes():
    """Optax lets the raw gradient of a masked leaf through, silently; here it is said, with what was probably meant."""
    mask = {"embed": True, "block": False}
    theirs = optax.masked(
        optax.sgd(0.1), {"embed": True, "block": {"kernel": False, "bias": False}}
    )
    grads = gradients(0.0, PARAMS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        updates, _ = theirs.update(grads, theirs.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["block"]["bias"], grads["block"]["bias"])

    for whole in (
        gx.sgd(0.1),
        gx.chain(gx.clip(1.0), gx.adam(0.1)),
        gx.rmsprop(0.1, momentum=0.9),
        gx.tunable(gx.sgd(0.1)),
        gx.accumulate(gx.sgd(0.1), 2),
    ):
        with pytest.warns(UserWarning, match=r"raw gradient passes.*freeze\(mask, ") as seen:
            gx.masked(whole, mask)
        assert seen[0].filename == __file__
    gx.masked(gx.add_decayed_weights(0.1), mask)  # a part of a chain: no warning
    tx = gx.freeze({"embed": False, "block": True}, gx.sgd(0.1))
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    close(
        updates,
        {"embed": -0.1 * grads["embed"], "block": jax.tree.map(jnp.zeros_like, grads["block"])},
    )


LABELS = {
    "tree": {"embed": "slow", "block": {"kernel": "fast", "bias": "slow"}},
    "table": gx.by_path({"**/kernel": "fast", "**": "slow"}),
    "function": lambda params: jax.tree.map(
        lambda p: "fast" if p.shape == (2, 2) else "slow", params
    ),
    "predicate": lambda path, leaf: "fast" if path.endswith("kernel") else "slow",
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
@pytest.mark.parametrize("make", [gx.partition, gx.multi_transform])
def test_a_group_behaves_as_if_run_alone(make, labels):
    groups = {
        "fast": gx.chain(gx.clip_by_global_norm(0.5), gx.adam(0.1)),
        "slow": gx.sgd(0.01, 0.9),
    }
    params, state = train(make(groups, labels), PARAMS)
    kernel = {"embed": None, "block": {"kernel": PARAMS["block"]["kernel"], "bias": None}}
    rest = {"embed": PARAMS["embed"], "block": {"kernel": None, "bias": PARAMS["block"]["bias"]}}
    alone = [train(groups["fast"], kernel), train(groups["slow"], rest)]
    np.testing.assert_array_equal(params["block"]["kernel"], alone[0][0]["block"]["kernel"])
    np.testing.assert_array_equal(params["embed"], alone[1][0]["embed"])
    assert state.keys() == {"fast", "slow"}
    close(state["fast"], alone[0][1], rtol=0)
    close(state["slow"], alone[1][1], rtol=0)


@pytest.mark.usefixtures("x64", "standard_promotion")
def test_partition_masked_and_freeze_follow_optax():
    labels = LABELS["tree"]
    mask = MASKS["tree"]
    mine = gx.chain(
        gx.masked(gx.add_decayed_weights(0.1), mask),
        gx.multi_transform(
            {"fast": gx.adamw(0.02, weight_decay=0.1), "slow": gx.sgd(0.01, 0.9)}, labels
        ),
    )
    theirs = optax.chain(
        optax.masked(optax.add_decayed_weights(0.1), mask),
        optax.multi_transform(
            {"fast": optax.adamw(0.02, weight_decay=0.1), "slow": optax.sgd(0.01, 0.9)}, labels
        ),
    )
    close(train(mine, in_float64(), 200)[0], train(theirs, in_float64(), 200)[0], rtol=1e-9)
    mine = gx.selective_transform(gx.adam(0.02), freeze_mask=mask)
    theirs = optax.selective_transform(optax.adam(0.02), freeze_mask=mask)
    close(train(mine, in_float64(), 200)[0], train(theirs, in_float64(), 200)[0], rtol=1e-9)
    mine, theirs = (
        gx.chain(gx.sgd(0.1), gx.freeze(mask)),
        optax.chain(optax.sgd(0.1), optax.freeze(mask)),
    )
    close(train(mine, in_float64(), 50)[0], train(theirs, in_float64(), 50)[0], rtol=1e-9)


def test_float32_follows_optax():
    labels = LABELS["tree"]
    with jax.numpy_dtype_promotion("standard"):
        theirs = optax.partition({"fast": optax.adam(0.02), "slow": optax.sgd(0.01, 0.9)}, labels)
        expected = train(theirs, PARAMS, 200)[0]
    got = train(
        gx.partition({"fast": gx.adam(0.02), "slow": gx.sgd(0.01, 0.9)}, labels), PARAMS, 200
    )[0]
    close(got, expected, rtol=1e-5)


class Model:
    """A module with a call, as in Equinox: a pytree that is callable."""

    def __init__(self, w, b):
        self.w, self.b = w, b

    def __call__(self, x):
        raise AssertionError("a tree of labels is not a function of the parameters")


jax.tree_util.register_pytree_with_keys(
    Model,
    lambda m: (((jax.tree_util.GetAttrKey("w"), m.w), (jax.tree_util.GetAttrKey("b"), m.b)), None),
    lambda aux, children: Model(*children),
)


def test_15_labels_see_parameters_and_may_be_a_callable_pytree():
    """Optax calls the label function with the updates, of another dtype, and takes a callable tree of labels for a function."""
    seen = []

    def by_dtype(tree):
        seen.append({str(x.dtype) for x in jax.tree.leaves(tree)})
        return jax.tree.map(lambda x: "half" if x.dtype == jnp.bfloat16 else "full", tree)

    params = {"w": jnp.ones(3, jnp.bfloat16)}
    grads = {"w": jnp.ones(3, jnp.float32)}
    for library in (optax, gx):
        seen.clear()
        tx = library.partition({"half": library.sgd(0.5), "full": library.sgd(0.25)}, by_dtype)
        updates, _ = tx.update(grads, tx.init(params), params)
        assert seen[-1] == ({"float32"} if library is optax else {"bfloat16"})
        np.testing.assert_allclose(
            np.asarray(updates["w"], np.float32), -0.25 if library is optax else -0.5
        )

    model, labels = Model(jnp.ones(2), jnp.ones(3)), Model("fast", "slow")
    theirs = optax.partition({"fast": optax.sgd(0.5), "slow": optax.sgd(0.25)}, labels)
    with pytest.raises(AssertionError, match="not a function"):
        theirs.init(model)
    tx = gx.partition({"fast": gx.sgd(0.5), "slow": gx.sgd(0.25)}, labels)
    updates, _ = tx.update(model, tx.init(model), model)
    np.testing.assert_array_equal(updates.w, -0.5)
    np.testing.assert_array_equal(updates.b, -0.25)
    frozen = gx.freeze(Model(True, False), gx.sgd(0.5))
    np.testing.assert_array_equal(frozen.update(model, frozen.init(model), model)[0].w, 0.0)


def test_16_one_global_clip_stays_global():
    """In Optax as here a clip inside `partition` sees its group. A table by path keeps one optimizer, and one clip."""
    params = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([30.0, 40.0])}
    norm = lambda tree: float(optax.tree.norm(tree))  # noqa: E731
    theirs = optax.partition(
        {k: optax.clip_by_global_norm(1.0) for k in "ab"}, {"a": "a", "b": "b"}
    )
    assert norm(theirs.update(params, theirs.init(params))[0]) == pytest.approx(2**0.5, rel=1e-6)
    mine = gx.partition({k: gx.clip_by_global_norm(1.0) for k in "ab"}, {"a": "a", "b": "b"})
    assert norm(mine.update(params, mine.init(params))[0]) == pytest.approx(2**0.5, rel=1e-6)
    tx = gx.chain(
        gx.clip_by_global_norm(1.0), gx.scale_by_learning_rate(gx.by_path({"a": 1.0, "b": 0.5}))
    )
    updates, _ = tx.update(params, tx.init(params), params)
    assert norm({"a": updates["a"], "b": 2 * updates["b"]}) == pytest.approx(1.0, rel=1e-6)
    before = gx.chain(
        gx.clip_by_global_norm(1.0),
        gx.partition({"a": gx.sgd(1.0), "b": gx.sgd(1.0)}, {"a": "a", "b": "b"}),
    )
    assert norm(before.update(params, before.init(params), params)[0]) == pytest.approx(
        1.0, rel=1e-6
    )


def test_what_is_not_chosen_is_listed():
    sgd = gx.sgd(0.1)
    for make, message in {
        lambda: gx.partition(
            {"x": sgd}, {"embed": "x", "block": "y"}
        ): r"no transformation for the labels \['y'\] of \['block/bias', 'block/kernel'\]",
        lambda: gx.partition(
            {"x": sgd}, {"embed": "x"}
        ): r"no label for the leaves \['block/bias', 'block/kernel'\]",
        lambda: gx.partition(
            {"x": sgd}, gx.by_path({"embed": "x"})
        ): r"no pattern of \['embed'\] covers \['block/bias', 'block/kernel'\]",
        lambda: gx.partition(
            {"x": sgd}, gx.by_path({"head": "x", "**": "x"})
        ): r"pattern 'head' matches no leaf",
        lambda: gx.freeze(
            "**/kernels", sgd
        ): r"pattern '\*\*/kernels' matches no leaf; the leaves are",
        lambda: gx.freeze(
            {"embed": True, "block": False, "head": True}, sgd
        ): r"labels for \['head'\]",
    }.items():
        with pytest.raises(ValueError, match=message):
            make().init(PARAMS)
    with pytest.raises(TypeError, match="tree of booleans"):
        gx.masked(gx.scale(1.0), {"embed": 1})
    with pytest.raises(TypeError, match="dict from label to transformation"):
        gx.partition([sgd], "x")
    with pytest.raises(TypeError, match=r"transforms\['x'\] must be a transformation"):
        gx.partition({"x": 3}, "x")
    tx = gx.partition({"x": sgd}, "x")
    with pytest.raises(ValueError, match="belongs to another transformation"):
        tx.update(PARAMS, sgd.init(PARAMS), PARAMS)


@pytest.mark.parametrize("law", ["dtypes", "abstract_init", "retrace", "donation", "value"])
def test_the_laws_hold_where_a_choice_is_real(law):
    table = gx.by_path({"a/**": "fast", "**": "slow"})
    check_law(law, gx.partition({"fast": gx.adam(0.1), "slow": gx.sgd(0.2, 0.9)}, table))
    check_law(
        law,
        gx.chain(
            gx.ema(0.9), gx.masked(gx.scale_by_rms(0.9), "a/*"), gx.freeze("a/*", gx.sgd(0.1))
        ),
    )


def test_the_gradient_is_divided_with_the_updates():
    """After a direction, a masked preconditioner measures the gradient of its own leaves, as if it stood there alone."""
    tx = gx.chain(
        gx.ema(0.9, debias=False), gx.masked(gx.scale_by_rms(0.9), "embed"), gx.scale(-0.1)
    )
    params, _ = train(tx, PARAMS)
    alone, _ = train(
        gx.chain(gx.ema(0.9, debias=False), gx.scale_by_rms(0.9), gx.scale(-0.1)),
        {"embed": PARAMS["embed"]},
    )
    np.testing.assert_array_equal(params["embed"], alone["embed"])
    other, _ = train(
        gx.chain(gx.ema(0.9, debias=False), gx.scale(-0.1)), {"block": PARAMS["block"]}
    )
    close(params["block"], other["block"], rtol=0)


def test_extra_arguments_are_handed_on_and_may_be_divided():
    def halve(updates, state, params=None, *, tags, value):
        assert jax.tree.structure(tags) == jax.tree.structure(updates)
        return jax.tree.map(lambda u, tag: u * tag * value, updates, tags), state

    inner = (lambda params: (), halve)
    tags = jax.tree.map(lambda p: jnp.full_like(p, 2.0), PARAMS)
    tx = gx.masked(inner, "embed", mask_compatible_extra_args=True)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, tags=tags, value=jnp.float32(3.0))
    np.testing.assert_allclose(updates["embed"], 6 * PARAMS["embed"])
    tx = gx.masked(inner, "embed")
    with pytest.raises(AssertionError):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, tags=tags, value=jnp.float32(3.0))


def test_labels_print_as_the_tree_they_came_from():
    assert (
        repr(Labels((("a/b", "x"), ("a/c", "y"), ("d", "x"))))
        == "{'a': {'b': 'x', 'c': 'y'}, 'd': 'x'}"
    )
    assert (
        repr(gx.partition({"x": gx.sgd(0.1)}, "x"))
        == "partition(transforms={'x': sgd(learning_rate=0.1)}, param_labels='x')"
    )
    lists = gx.freeze([True, {"a": False}], gx.sgd(0.1))
    assert eval(repr(lists), vars(gx)) == lists


def test_updates_without_parameters():
    tx = gx.partition({"fast": gx.sgd(0.5, 0.9), "slow": gx.sgd(0.25)}, LABELS["table"])
    with_params, _ = train(tx, PARAMS)
    without, _ = train(tx, PARAMS, given=False)
    close(with_params, without, rtol=0)
