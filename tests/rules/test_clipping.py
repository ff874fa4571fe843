"""Adaptive clipping, single examples, shape of the gradient, monitors: against Optax and NumPy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
import reference_structure as ref
from walking import RTOL, distance

import gradxform as gx


def sgd(*parts):
    return lambda: gx.chain(*parts, gx.scale(-0.05))


def optax_sgd(*parts):
    return lambda: optax.chain(*parts, optax.scale(-0.05))


PAIRS = {
    "clip_by_block_rms": (sgd(gx.clip_by_block_rms(0.2)), optax_sgd(optax.clip_by_block_rms(0.2))),
    "adaptive_grad_clip": (
        sgd(gx.adaptive_grad_clip(0.3)),
        optax_sgd(optax.adaptive_grad_clip(0.3)),
    ),
    "adaptive_grad_clip_axis": (
        lambda: gx.chain(gx.adaptive_grad_clip(0.3, 1e-2, axis=()), gx.scale(-0.05)),
        lambda: optax.chain(optax.adaptive_grad_clip(0.3, 1e-2, axis=()), optax.scale(-0.05)),
    ),
    "centralize": (sgd(gx.centralize()), optax_sgd(optax.centralize())),
    "normalize_by_update_norm": (
        sgd(gx.normalize_by_update_norm(2.0, 1e-3)),
        optax_sgd(optax.normalize_by_update_norm(2.0, 1e-3)),
    ),
    "keep_params_nonnegative": (
        lambda: gx.chain(gx.scale(-0.05), gx.keep_params_nonnegative()),
        lambda: optax.chain(optax.scale(-0.05), optax.keep_params_nonnegative()),
    ),
}


@pytest.mark.parametrize("dtype", RTOL)
@pytest.mark.parametrize("name", PAIRS)
def test_follows_optax(name, dtype):
    assert distance(*PAIRS[name], dtype) < RTOL[dtype]


@pytest.mark.parametrize(
    "shape", [(), (5,), (1, 7), (4, 5), (3, 4, 5), (2, 3, 4, 5), (2, 2, 3, 4, 5)]
)
def test_units_are_those_of_optax(shape):
    from optax.transforms import _clipping

    x = jax.random.normal(jax.random.key(0), shape)
    np.testing.assert_allclose(gx.unitwise_norm(x), _clipping.unitwise_norm(x), rtol=1e-6)
    with pytest.raises(ValueError, match="give axis"):
        gx.unitwise_norm(jnp.ones((2,) * 6))


def examples(n=5):
    rng = np.random.default_rng(1)
    return [
        jnp.asarray(rng.standard_normal((n, *shape)) * s, jnp.float32)
        for shape, s in (((4, 3), 1.0), ((3,), 3.0), ((), 0.1))
    ]


@pytest.mark.parametrize("bound", [0.0, 2.0, 5.0, np.inf])
def test_single_examples_are_clipped_as_in_optax(bound):
    grads = examples()
    ours, n = gx.per_example_global_norm_clip(grads, bound)
    theirs, expected = optax.per_example_global_norm_clip(grads, bound)
    assert n == expected
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for uniform in (True, False):
        ours, n = gx.per_example_layer_norm_clip(grads, bound, uniform)
        theirs, expected = optax.per_example_layer_norm_clip(grads, bound, uniform)
        assert n == expected
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_dpsgd_draws_and_steps_as_optax(momentum):
    grads = dict(zip("abc", examples(), strict=True))
    params = jax.tree.map(lambda x: x[0], grads)
    ours = gx.dpsgd(0.1, 2.0, 0.3, 7, momentum)
    theirs = optax.chain(  # optax.contrib.dpsgd itself warns of its own seed
        optax.contrib.differentially_private_aggregate(2.0, 0.3, jax.random.key(7)),
        optax.identity() if momentum is None else optax.trace(momentum),
        optax.scale_by_learning_rate(0.1),
    )
    state, other = ours.init(params), theirs.init(params)
    for _ in range(3):
        updates, state = ours.update(grads, state, params)
        expected, other = theirs.update(grads, other, params)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), updates, expected
        )


def test_examples_without_an_axis_are_an_error_that_names_the_leaves():
    tx = gx.differentially_private_aggregate(1.0, 0.1, 0)
    params = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"first axis.*'b'"):
        tx.update(params, tx.init(params), params)


@pytest.mark.parametrize("max_norm", [1.0, np.inf])
def test_zclip_follows_its_paper(max_norm, x64):
    rng = np.random.default_rng(3)
    grads = rng.standard_normal((120, 6)) * (1 + 9 * (rng.uniform(size=(120, 1)) > 0.9))
    expected = ref.zclip(
        grads, np.zeros(6), 0.1, threshold=2.0, decay=0.9, warmup_steps=10, max_norm=max_norm
    )
    tx = gx.chain(
        gx.zclip(2.0, 0.9, 10, max_norm if np.isfinite(max_norm) else None), gx.scale(-0.1)
    )
    assert np.max(np.abs(run(tx, grads) - expected)) < 1e-12
    assert ref.zclip.spikes > 3


def run(tx, grads):
    start = jnp.zeros(grads.shape[1:])

    def body(carry, g):
        x, state = carry
        updates, state = tx.update(g, state, x)
        return (x + updates, state), x + updates

    return np.asarray(jax.lax.scan(body, (start, tx.init(start)), jnp.asarray(grads))[1])


def test_adagc_follows_its_paper(x64):
    rng = np.random.default_rng(4)
    grads = rng.standard_normal((80, 6)) * (1 + 9 * (rng.uniform(size=(80, 1)) > 0.9))
    expected = ref.adagc(grads, np.zeros(6), 0.1, warmup_steps=10)
    tx = gx.chain(gx.adagc(warmup_steps=10), gx.scale(-0.1))
    assert np.max(np.abs(run(tx, grads) - expected)) < 1e-12


@pytest.mark.parametrize(
    "tx",
    [
        gx.zclip(warmup_steps=2),
        gx.adagc(warmup_steps=2),
        gx.clip_by_block_rms(0.5),
        gx.adaptive_grad_clip(0.1),
    ],
)
def test_a_clip_never_lengthens_nor_turns(tx):
    rng = np.random.default_rng(5)
    params = {"w": jnp.asarray(rng.standard_normal((4, 1)), jnp.float32)}
    state = tx.init(params)
    for scale in (1.0, 0.3, 100.0, 0.0, 1e-20, 5.0):
        g = {"w": jnp.asarray(rng.standard_normal((4, 1)) * scale, jnp.float32)}
        updates, state = tx.update(g, state, params)
        u, g = np.ravel(updates["w"]), np.ravel(g["w"])
        assert np.linalg.norm(u) <= np.linalg.norm(g) * (1 + 1e-6)
        assert u @ g >= (1 - 1e-5) * np.linalg.norm(u) * np.linalg.norm(g) - 1e-30
    updates, state = tx.update({"w": jnp.full((4, 1), jnp.inf)}, state, params)
    assert np.all(np.asarray(updates["w"]) == 0)
    chex.assert_tree_all_finite(state)


def test_centralize_takes_the_mean_of_each_output():
    u = jnp.arange(12.0).reshape(4, 3)
    for outputs, axis in (("first", 1), ("last", 0)):
        out, _ = gx.centralize(outputs=outputs).update(u, gx.centralize().init(u), u)
        np.testing.assert_allclose(out, u - u.mean(axis, keepdims=True), atol=1e-6)


def test_kinds_of_weight_decay():
    p, u = jnp.array([1.0, -1.0, 2.0]), jnp.array([0.5, 0.5, 0.0])
    for kind, expected in {
        "decoupled": u + 0.1 * p,
        "independent": u - 0.1 * p,
        "cautious": u + 0.1 * p * jnp.array([1.0, 0.0, 1.0]),
    }.items():
        tx = gx.add_decayed_weights(0.1, kind=kind)
        np.testing.assert_allclose(tx.update(u, tx.init(p), p)[0], expected, rtol=1e-6)
    with pytest.raises(ValueError, match="kind must be one of"):
        gx.add_decayed_weights(0.1, kind="brave").expand()
    # the share that is removed does not know the learning rate
    tx = gx.chain(gx.scale_by_learning_rate(1e-6), gx.add_decayed_weights(0.1, kind="independent"))
    np.testing.assert_allclose(p + tx.update(u, tx.init(p), p)[0], 0.9 * p, rtol=1e-5)


def test_monitors_measure_where_they_stand():
    tx = gx.chain(
        gx.sgd(0.1, 0.9),
        gx.snapshot("before", gx.global_norm),
        gx.clip_by_global_norm(0.05),
        gx.monitor(
            {
                "after": gx.global_norm,
                "often": gx.measure_with_ema(lambda u: gx.global_norm(u) > 0.04, 0.9),
            }
        ),
    )
    other = optax.chain(optax.sgd(0.1, 0.9), optax.clip_by_global_norm(0.05))
    params = jnp.array([1.0, 2.0, 3.0])
    state, theirs = tx.init(params), other.init(params)
    assert state["snapshot"]["before"] == 0
    for _ in range(2):
        updates, state = tx.update(2 * params, state, params)
        expected, theirs = other.update(2 * params, theirs, params)
        np.testing.assert_allclose(updates, expected, rtol=1e-6)
        params = params + updates
    np.testing.assert_allclose(state["snapshot"]["before"], 1.41, atol=0.01)
    np.testing.assert_allclose(state["monitor"]["after"], 0.05, rtol=1e-5)
    np.testing.assert_allclose(state["monitor"]["often"].slots["value"], 1.0, rtol=1e-6)
    with pytest.raises(TypeError, match="must be a function"):
        gx.monitor({"a": 3})


def test_the_private_mean_may_be_chained_with_any_optimizer():
    """The chain takes examples in front; after the mean, and for a gradient of the wrong shape, the parameters count."""
    grads = dict(zip("abc", examples(), strict=True))
    params = jax.tree.map(lambda x: x[0], grads)
    aggregate, adamw = gx.differentially_private_aggregate(1.0, 0.3, 7), gx.adamw(0.1)
    tx = gx.chain(aggregate, gx.clip_by_global_norm(0.5), adamw)
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    mean, _ = aggregate.update(grads, aggregate.init(params))
    after = gx.chain(gx.clip_by_global_norm(0.5), adamw)
    expected, _ = after.update(mean, after.init(params), params)
    chex.assert_trees_all_close(updates, expected, rtol=1e-6)
    wrong = grads | {"a": grads["a"][:, :1]}
    with pytest.raises(ValueError, match=r"chain: update 'a' has shape"):
        tx.update(wrong, tx.init(params), params)
