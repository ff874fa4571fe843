"""What the methods beyond the textbook are to each other, and what they do at their edges."""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradxform as gx
from gradxform.rules.rms_variants import _rectification

LR, B1, B2 = 0.05, 0.8, 0.95


def start():
    rng = np.random.default_rng(3)
    return {
        "a": {"kernel": jnp.asarray(rng.standard_normal((4, 3)))},
        "b": jnp.asarray(rng.standard_normal(3)),
    }


def gradients(step, params):
    return jax.tree.map(lambda p: jnp.sin(3 * p + step) + p, params)


def walk(tx, params, steps=12, scale=1.0):
    def step(carry, t):
        params, state = carry
        g = jax.tree.map(lambda g: scale * g, gradients(t.astype(float), params))
        updates, state = tx.update(g, state, params)
        return (gx.apply_updates(params, updates), state), updates

    (params, _), updates = jax.lax.scan(step, (params, tx.init(params)), jnp.arange(steps))
    return params, updates


def descend(*parts):
    return gx.chain(*parts, gx.scale_by_learning_rate(LR))


# Each pair is one method under two names
SAME = {
    "qhm of nu 1 is an average": (
        lambda: gx.qhm(LR, B1, 1.0),
        lambda: descend(gx.ema(B1, debias=False)),
    ),
    "qhm of nu beta is its Nesterov form": (
        lambda: gx.qhm(LR, B1, B1),
        lambda: descend(gx.ema(B1, debias=False, nesterov=True)),
    ),
    "qhadam of nus 1 is adam": (
        lambda: gx.qhadam(LR, B1, B2, 1.0, 1.0),
        lambda: gx.adam(LR, B1, B2),
    ),
    "padam of power 1/2 is amsgrad": (
        lambda: gx.padam(LR, B1, B2, 0.5, 1e-8),
        lambda: gx.amsgrad(LR, B1, B2, 1e-8, convention="paper"),
    ),
    "padam of power 0 is an average": (
        lambda: gx.padam(LR, B1, B2, 0.0),
        lambda: descend(gx.ema(B1, debias=False)),
    ),
    "ademamix of alpha 0 is adam": (
        lambda: gx.ademamix(LR, B1, B2, alpha=0.0),
        lambda: gx.adam(LR, B1, B2),
    ),
    "simplified ademamix of alpha 0 is momentum and rms": (
        lambda: gx.simplified_ademamix(LR, B1, B2),
        lambda: descend(
            gx.momentum(B1), gx.scale_by_rms(B2, eps_in_sqrt=False, bias_correction=True)
        ),
    ),
    "radam that never trusts is an average": (
        lambda: gx.radam(LR, B1, B2, threshold=1e9),
        lambda: descend(gx.ema(B1)),
    ),
    "nadamw without decay is nadam": (
        lambda: gx.nadamw(LR, B1, B2, weight_decay=0.0),
        lambda: gx.nadam(LR, B1, B2),
    ),
    "signum of beta 0 is sign_sgd": (lambda: gx.signum(LR, 0.0), lambda: gx.sign_sgd(LR)),
    "lion of one beta is signum with decay": (
        lambda: gx.lion(LR, B1, B1, weight_decay=0.1),
        lambda: descend(gx.ema(B1, debias=False), gx.scale_by_sign(), gx.add_decayed_weights(0.1)),
    ),
    "optimism 0 is descent": (
        lambda: gx.optimistic_gradient_descent(LR, beta=0.0),
        lambda: gx.sgd(LR),
    ),
    "both optimistic adams": (lambda: gx.optimistic_adam(LR), lambda: gx.optimistic_adam_v2(LR)),
    "laprop of b1 0 is rmsprop with correction": (
        lambda: gx.laprop(LR, 0.0, B2, 1e-8),
        lambda: gx.rmsprop(LR, B2, eps_in_sqrt=False, bias_correction=True),
    ),
    "a cautious sgd keeps everything": (
        lambda: gx.cautious(gx.sgd(LR)),
        lambda: gx.stateless_with_tree_map(lambda u, p: -LR * u * (u.size / (u.size + 1))),
    ),
    "grams of sgd is sgd": (lambda: gx.grams(gx.sgd(LR)), lambda: gx.sgd(LR)),
}


@cache
def all_walks():
    with jax.enable_x64(True):
        several = {(name, i): make() for name, pair in SAME.items() for i, make in enumerate(pair)}
        return jax.jit(lambda params: {k: walk(tx, params)[0] for k, tx in several.items()})(
            start()
        )


@pytest.mark.parametrize("name", SAME)
def test_identity(name):
    one, other = (all_walks()[name, i] for i in (0, 1))
    chex.assert_trees_all_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["adam_atan2", "lion", "laprop", "novograd"])
def test_the_scale_of_the_loss_does_not_matter(name):
    tx = getattr(gx, name)(LR, **({"eps": 0.0} if name in ("laprop", "novograd") else {}))
    one, other = (jax.jit(partial(walk, tx, scale=scale))(start())[0] for scale in (1.0, 1e-6))
    chex.assert_trees_all_close(one, other, rtol=1e-9)


@pytest.mark.parametrize("b2", [0.9, 0.99, 0.999, 0.9999])
def test_rectification_keeps_float32(b2):
    """ρₜ to 1e-5 in float32, where 2t β₂ᵗ / (1 - β₂ᵗ) subtracted as it stands would be off by 1e-3 at first."""
    t = np.unique(np.geomspace(1, 1e6, 200).astype(int))
    for number in (b2, jnp.float32(b2)):
        wide = np.longdouble(float(number))
        exact = 2 / (1 - wide) - 1 - 2 * t / np.expm1(np.minimum(-t * np.log(wide), 700))
        now, _ = _rectification(number, jnp.asarray(t), jnp.float32)
        limit = 2e-5 if number is b2 else 2e-3  # 1 - b2 loses digits when b2 is an array
        np.testing.assert_allclose(now, exact.astype(float), rtol=limit)


def test_noisy_sgd_falls_as_its_source_says():
    params = {"w": jnp.zeros(20_000), "v": jnp.zeros(20_000)}
    tx = gx.noisy_sgd(0.5, eta=0.04, gamma=1.0, key=7)
    state = tx.init(params)
    for t in (1, 2, 3):
        updates, state = tx.update(params, state, params)
        for leaf in updates.values():
            np.testing.assert_allclose(np.std(leaf), 0.5 * np.sqrt(0.04 / t), rtol=0.03)
            assert abs(np.mean(leaf)) < 4 * np.std(leaf) / 20_000**0.5
        assert not np.array_equal(updates["w"], updates["v"])
    assert gx.noisy_sgd(0.5, key=7) == gx.noisy_sgd(0.5, key=7) != gx.noisy_sgd(0.5, key=8)


INNERS = {
    "adam": lambda: gx.adam(LR, B1),
    "momentum": lambda: gx.sgd(LR, 0.9),
    "rmsprop with momentum": lambda: gx.rmsprop(LR, momentum=0.9),
    "lion": lambda: gx.lion(LR, weight_decay=1.0),
    "optax": lambda: optax.sgd(LR, momentum=0.9),
}


@pytest.mark.parametrize("inner", INNERS)
def test_a_wrapped_step_agrees_with_its_gradient(inner):
    params = jax.tree.map(lambda p: p.astype(jnp.float32), start())
    for wrap in (gx.cautious, gx.grams):
        tx = wrap(INNERS[inner]())
        state = tx.init(params)
        raw, raw_state = INNERS[inner](), None
        raw_state = raw.init(params)
        p, dropped = params, 0
        for t in range(6):
            g = gradients(jnp.float32(5 * t), p)
            updates, state = tx.update(g, state, p)
            plain, raw_state = raw.update(g, raw_state, p)
            for u, v, x in zip(*map(jax.tree.leaves, (updates, plain, g)), strict=True):
                agree = np.asarray(v * x < 0)
                dropped += np.sum(~agree)
                kept = np.where(agree, v * (agree.size / (agree.sum() + 1)), 0)
                expected = kept if wrap is gx.cautious else -np.sign(x) * np.abs(v)
                np.testing.assert_allclose(u, expected, rtol=2e-5, atol=1e-7)
            p = gx.apply_updates(p, plain)
        assert dropped > 0, "everything agreed, so nothing was tested"


def test_inside_a_chain_the_gradient_is_the_one_that_was_frozen():
    params = {"w": jnp.array([1.0, 1.0])}
    tx = gx.chain(gx.ema(0.9, debias=False), gx.cautious(gx.identity(), descends=False))
    state = tx.init(params)
    _, state = tx.update({"w": jnp.array([1.0, 1.0])}, state, params)
    updates, _ = tx.update({"w": jnp.array([-0.1, 1.0])}, state, params)
    np.testing.assert_allclose(
        updates["w"], [0.0, 0.19 * 2 / 2], rtol=1e-5
    )  # the average of the first still goes up


def test_a_cautious_optimizer_is_a_part_like_others():
    assert gx.cautious(gx.adam(0.1)).direction
    assert not gx.cautious(gx.sgd(0.1)).direction
    swept = gx.stack([gx.cautious(gx.adam(lr)) for lr in (0.1, 0.2)])
    assert swept.inner.learning_rate.shape == (2,)
    with pytest.raises(TypeError, match="cautious: inner must be a transformation"):
        gx.cautious(3.0)


def test_sm3_remembers_rows_and_columns():
    params = {"m": jnp.ones((4, 3)), "t": jnp.ones((2, 3, 5)), "v": jnp.ones(6), "s": jnp.ones(())}
    state = gx.scale_by_sm3().init(params)
    shapes = jax.tree.map(jnp.shape, state.slots["mu"])
    assert jax.tree.leaves(
        shapes, is_leaf=lambda x: isinstance(x, tuple) and all(isinstance(n, int) for n in x)
    ) == [(4,), (3,), (1,), (2,), (3,), (5,), (6,)]
    # on a vector it is Adagrad from 0, and so it is on a scalar
    tx, adagrad = (descend(x) for x in (gx.scale_by_sm3(0.0, eps=0.0), gx.scale_by_rss(0.0, 0.0)))
    for leaf in ("v", "s"):
        g = params[leaf] * 0.3
        for x in (tx, adagrad):
            assert x.init(params[leaf])
        np.testing.assert_allclose(
            tx.update(g, tx.init(g), g)[0], adagrad.update(g, adagrad.init(g), g)[0], rtol=1e-6
        )


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"scale_by_lion: b2 must lie in \(0, 1\]; got 0.0"):
        gx.scale_by_lion(b2=0.0)
    with pytest.raises(ValueError, match="mode must be"):
        gx.scale_by_lion(mode="soft").expand()
    with pytest.raises(ValueError, match=r"rprop: eta_plus must lie in \[1, inf\)"):
        gx.rprop(0.1, eta_plus=0.9)
    with pytest.raises(ValueError, match="convention must be one of"):
        gx.adan(0.1, convention="keras")
    with pytest.raises(ValueError, match="corrects both averages"):
        gx.amsgrad(0.1, bias_correction_nu=False, convention="torch").init(jnp.ones(2))
    for tx in (gx.lamb(0.1), gx.lars(0.1), gx.fromage(0.1), gx.novograd(0.1), gx.stable_adamw(0.1)):
        with pytest.raises(ValueError, match=r"update\(\) needs the parameters"):
            tx.update(jnp.ones(2), tx.init(jnp.ones(2)))


@pytest.mark.usefixtures("x64")
def test_the_ramps_of_ademamix():
    alpha, b3 = gx.ademamix_alpha(5.0, 100), gx.ademamix_b3(0.9999, 0.9, 100)
    assert alpha.table((0, 49, 99, 500)) == pytest.approx({0: 0.05, 49: 2.5, 99: 5.0, 500: 5.0})
    table = b3.table(range(-1, 100))
    assert (table[-1], table[99], float(b3(500))) == pytest.approx((0.9, 0.9999, 0.9999), rel=1e-6)
    half_lives = [-np.log(2) / np.log(table[n]) for n in range(-1, 90)]
    np.testing.assert_allclose(np.diff(half_lives), np.diff(half_lives)[0], rtol=1e-6)


def test_the_first_steps_that_only_set_a_state():
    g, p = jnp.array([1.0, -2.0]), jnp.ones(2)
    for tx in (gx.adopt(0.1), gx.rprop(0.1)):
        updates, _ = tx.update(g, tx.init(p), p)
        np.testing.assert_array_equal(updates, 0)
    np.testing.assert_allclose(
        gx.rprop(0.1, convention="torch").update(g, gx.rprop(0.1).init(p), p)[0], [-0.1, 0.1]
    )


def test_another_convention_brings_its_defaults():
    """What is still the old convention's default becomes the new one's; what was chosen stays."""
    assert gx.adam(0.1).replace(convention="keras") == gx.adam(0.1, convention="keras")
    assert gx.adam(0.1, eps=1e-3).replace(convention="keras").eps == 1e-3
    assert gx.adamw(0.1, convention="torch").replace(convention="optax") == gx.adamw(0.1)
    assert (
        gx.adagrad(0.1, convention="torch").replace(convention="keras", eps=1e-2).arguments["eps"]
        == 1e-2
    )
    assert gx.rmsprop(0.1, decay=0.8).replace(convention="torch") == gx.rmsprop(
        0.1, 0.8, convention="torch"
    )
    assert gx.rmsprop(0.1, convention="torch").replace(learning_rate=0.2).decay == 0.99
    traced = jax.jit(lambda tx: tx.replace(convention="torch"))(gx.rmsprop(0.1))
    assert traced.decay == jnp.float32(0.9), "a number that is traced is nobody's default"


def test_the_length_of_an_opaque_ascent_may_be_traced():
    """sync_period as an argument of the program is a loop, and no other program for another length."""
    params = {"w": jnp.array([1.0, -2.0])}

    def slope(p, i):
        return jax.tree.map(lambda x: jnp.cos(x) + jnp.asarray(i, x.dtype), p)

    @jax.jit
    def step(tx):
        return tx.update(slope(params, 0), tx.init(params), params, grad_fn=slope)[0]

    def tx(k):
        return gx.sam(gx.sgd(0.1), gx.sgd(0.3), k, opaque_mode=True)

    for k in (1, 2, 4):
        written_out = tx(k).update(slope(params, 0), tx(k).init(params), params, grad_fn=slope)[0]
        np.testing.assert_allclose(step(tx(k))["w"], written_out["w"], rtol=1e-6)
    assert step._cache_size() == 1
    with pytest.raises(TypeError, match="sync_period is a number in opaque mode"):
        step(tx(gx.constant_schedule(2)))
