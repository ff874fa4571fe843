"""MuonClip's QK-clip: heads whose largest logit exceeds a bound, and no others, are shrunk to it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_matrices_norms as ref

import gradxform as gx

RNG = np.random.default_rng(11)


def draw(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def attention(heads=3):
    return {
        "query": {"kernel": draw(4, heads, 2), "bias": draw(heads, 2)},
        "key": {"kernel": draw(4, heads, 2), "bias": draw(heads, 2)},
        "out": {"kernel": draw(heads, 2, 4)},
    }


PARAMS = {"block_0": {"attention": attention()}, "block_1": {"attention": attention()}}
MAXIMA = {"block_0/attention": jnp.array([50.0, 400.0, 101.0]), "block_1/attention": jnp.ones(3)}


def moved(tx, params, maxima, updates=None):
    updates = jax.tree.map(jnp.zeros_like, params) if updates is None else updates
    out, _ = tx.update(updates, tx.init(params), params, max_logits=maxima)
    return gx.apply_updates(params, out)


@pytest.mark.parametrize("alpha", [0.5, 0.2, 1.0])
def test_the_heads_that_exceed_the_bound_are_shrunk(alpha):
    got = moved(gx.qk_clip(100.0, alpha), PARAMS, MAXIMA)
    old, new = (x["block_0"]["attention"] for x in (PARAMS, got))
    for leaf in ("kernel", "bias"):
        pair = old["query"][leaf], old["key"][leaf]
        query, key = ref.qk_clip(*map(np.asarray, pair), MAXIMA["block_0/attention"], 100.0, alpha)
        np.testing.assert_allclose(new["query"][leaf], query, rtol=1e-5)
        np.testing.assert_allclose(new["key"][leaf], key, rtol=1e-5)
    np.testing.assert_array_equal(new["query"]["kernel"][:, 0], old["query"]["kernel"][:, 0])
    np.testing.assert_array_equal(new["out"]["kernel"], old["out"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, got["block_1"], PARAMS["block_1"])


def test_the_largest_logit_is_then_the_bound():
    x = 9 * draw(2, 5, 4)

    def largest(params):
        of = params["block_0"]["attention"]
        q, k = (
            jnp.einsum("bpi,ihw->bphw", x, of[n]["kernel"]) + of[n]["bias"]
            for n in ("query", "key")
        )
        return jnp.max(jnp.einsum("bphw,bqhw->bhpq", q, k), (0, 2, 3))

    before = largest(PARAMS)
    tau = float(jnp.sort(before)[1]) * 0.99
    maxima = {"block_0": {"attention": before}, "block_1": {"attention": jnp.zeros(3)}}
    after = largest(moved(gx.qk_clip(tau), PARAMS, maxima))
    np.testing.assert_allclose(after, np.minimum(before, tau), rtol=1e-5)


def test_it_acts_on_the_parameters_after_the_step():
    grads = jax.tree.map(jnp.sin, PARAMS)
    tx = gx.chain(gx.sgd(0.1), gx.qk_clip())
    updates, _ = jax.jit(tx.update)(grads, tx.init(PARAMS), PARAMS, max_logits=MAXIMA)
    stepped = jax.tree.map(lambda p, g: p - 0.1 * g, PARAMS, grads)
    expected = moved(gx.qk_clip(), stepped, MAXIMA)
    got = gx.apply_updates(PARAMS, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, expected)


def test_stacked_layers_and_heads_side_by_side():
    """Axes of the maxima are named in order; n entries are divided among the heads."""
    params = {"query": {"kernel": draw(2, 4, 6)}, "key": {"kernel": draw(2, 4, 6)}}
    maxima = jnp.array([[50.0, 400.0, 25.0], [100.0, 100.0, 1600.0]])
    got = moved(gx.qk_clip(heads=(0, -1)), params, maxima)
    for layer in range(2):
        pair = (np.asarray(params[n]["kernel"][layer]).reshape(4, 3, 2) for n in ("query", "key"))
        query, key = ref.qk_clip(*pair, maxima[layer], 100.0)
        np.testing.assert_allclose(got["query"]["kernel"][layer], query.reshape(4, 6), rtol=1e-5)
        np.testing.assert_allclose(got["key"]["kernel"][layer], key.reshape(4, 6), rtol=1e-5)
    turned = jax.tree.map(lambda x: x.swapaxes(0, 2), params)
    again = moved(gx.qk_clip(heads=(2, 0)), turned, maxima)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.swapaxes(0, 2), b), again, got)


def test_where_heads_share_keys_the_queries_take_it_all():
    params = {"query": {"kernel": draw(4, 4, 2)}, "key": {"kernel": draw(4, 2, 2)}}
    maxima = jnp.array([400.0, 10.0, 10.0, 10.0])
    with pytest.raises(ValueError, match="do not fall into 4 heads; where heads share keys write"):
        moved(gx.qk_clip(), params, maxima)
    got = moved(gx.qk_clip(keys=None), params, maxima)
    np.testing.assert_allclose(
        got["query"]["kernel"][:, 0], params["query"]["kernel"][:, 0] / 4, 1e-6
    )
    np.testing.assert_array_equal(got["query"]["kernel"][:, 1:], params["query"]["kernel"][:, 1:])
    np.testing.assert_array_equal(got["key"]["kernel"], params["key"]["kernel"])


def test_maxima_that_are_no_numbers_change_nothing():
    params = {"query": {"kernel": draw(4, 3, 2)}, "key": {"kernel": draw(4, 3, 2)}}
    got = moved(gx.qk_clip(1.0), params, jnp.array([jnp.nan, jnp.inf, -jnp.inf]))
    jax.tree.map(np.testing.assert_array_equal, got, params)


def test_numbers_may_be_tables_and_schedules():
    alpha = gx.by_path({"block_0/**": 1.0, "**": 0.5})
    tau = gx.linear_schedule(100.0, 50.0, 1)
    tx = gx.qk_clip(tau, alpha)
    state, maxima = tx.init(PARAMS), dict.fromkeys(MAXIMA, jnp.full(3, 200.0))
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    for k in range(2):
        updates, state = tx.update(zeros, state, PARAMS, max_logits=maxima)
        for block, query, key in (
            ("block_0", 2.0**-k / 2, 1.0),
            ("block_1", *[(2.0**-k / 2) ** 0.5] * 2),
        ):
            share = jax.tree.map(lambda u, p: (p + u) / p, updates, PARAMS)[block]["attention"]
            np.testing.assert_allclose(share["query"]["kernel"], query, rtol=1e-4)
            np.testing.assert_allclose(share["key"]["kernel"], key, rtol=1e-4)


@pytest.mark.parametrize(
    ("maxima", "kind", "words"),
    [
        ({}, ValueError, r"qk_clip: max_logits has nothing for 'block_0/attention/key/bias'; it is"),
        ({"block_0/attention": jnp.ones(3)}, ValueError, r"nothing for 'block_1/attention/key/bias'"),
        (MAXIMA | {"block_2": jnp.ones(3)}, ValueError, r"\['block_2'\] belong to no query; these"),
        (MAXIMA | {"block_1/attention": jnp.ones(())}, ValueError, "needs one number for each head"),
        (MAXIMA | {"block_1/attention": jnp.ones(2)}, ValueError, "3 entries do not fall into 2 heads"),
    ],
)  # fmt: skip
def test_maxima_that_do_not_fit_are_an_error_that_names_them(maxima, kind, words):
    with pytest.raises(kind, match=words):
        moved(gx.qk_clip(), PARAMS, maxima)


def test_what_is_missing_is_an_error():
    tx = gx.chain(gx.sgd(0.1), gx.qk_clip())
    state = tx.init(PARAMS)
    with pytest.raises(
        TypeError, match=r"qk_clip: update\(\) needs the keyword argument max_logits="
    ):
        tx.update(PARAMS, state, PARAMS)
    with pytest.raises(TypeError, match="did you misspell it as 'max_logit'"):
        tx.update(PARAMS, state, PARAMS, max_logit=MAXIMA)
    with pytest.raises(ValueError, match=r"qk_clip: update\(\) needs the parameters"):
        gx.qk_clip().update(PARAMS, gx.qk_clip().init(PARAMS), max_logits=MAXIMA)
    with pytest.raises(ValueError, match=r"'\*\*/q_proj/\*\*' matches no leaf"):
        gx.qk_clip(queries="**/q_proj/**").init(PARAMS)
    with pytest.raises(ValueError, match="are both query and key"):
        gx.qk_clip(keys="**/kernel").init(PARAMS)
    with pytest.raises(TypeError, match="heads must be an axis, several, or a by_path table"):
        gx.qk_clip(heads="heads")


@pytest.mark.slow  # the recipe does it in the default run
def test_what_a_flax_module_sows_is_found():
    def measured(query, key, value, mask=None, module=None):
        logits = jnp.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
        if module is not None:
            module.sow("intermediates", "max_logits", jnp.max(logits, (0, 2, 3)))
        return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), value)

    model = nn.MultiHeadDotProductAttention(2, attention_fn=measured, name="attention")
    x = draw(1, 3, 4)
    params = model.init(jax.random.key(0), x)["params"]
    _, sown = model.apply({"params": params}, x, sow_weights=True, mutable="intermediates")
    largest = sown["intermediates"]["max_logits"][0]
    assert largest.shape == (2,)
    got = moved(gx.qk_clip(float(largest.min()) / 4), params, sown["intermediates"])
    _, after = model.apply({"params": got}, x, sow_weights=True, mutable="intermediates")
    np.testing.assert_allclose(
        after["intermediates"]["max_logits"][0], largest.min() / 4, rtol=1e-4
    )
