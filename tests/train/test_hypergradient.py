"""Derivatives of a training with respect to its optimizer."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sweep_problems import DATA, line, loss, paced
from thinned import one_in

import gradxform as gx
from gradxform.sweep import checkpointed_scan, hypergradient, value_and_hypergradient

KEY = jax.random.key(0)


def final(tx):
    """The loss after a training of twelve steps."""
    params, _ = line(tx, KEY)
    return loss(params, DATA, None)


TX = gx.adam(gx.by_path({"w": gx.cosine_decay_schedule(0.5, 12)}), b1=0.8)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_it_is_shaped_like_the_optimizer_and_equals_finite_differences(mode):
    """Every number has its derivative, those inside schedules and tables included."""
    with jax.enable_x64(True):
        data = jax.tree.map(lambda x: jnp.asarray(x, float), DATA)

        @jax.jit
        def final(tx):
            params, _ = line(tx, KEY, data=data)
            return loss(params, data, None)

        value, gradient = jax.jit(lambda tx: value_and_hypergradient(final, tx, mode=mode))(TX)
        assert jax.tree.structure(gradient) == jax.tree.structure(TX)
        assert float(value) == pytest.approx(float(final(TX)), rel=1e-9)
        for name in ("b1", "b2"):
            h, x = 1e-5, getattr(TX, name)
            slope = (final(TX.replace(**{name: x + h})) - final(TX.replace(**{name: x - h}))) / (
                2 * h
            )
            assert float(getattr(gradient, name)) == pytest.approx(float(slope), rel=2e-3)
        assert float(jax.tree.leaves(gradient.learning_rate)[0]) != 0


def test_reverse_and_forward_agree():
    """Two ways to the same numbers, also through a training that can pause."""
    reverse, forward, through = jax.jit(
        lambda tx: (
            hypergradient(final, tx),
            hypergradient(final, tx, mode="forward"),
            hypergradient(
                lambda tx: paced(tx, KEY), tx, loss=lambda params: loss(params, DATA, None)
            ),
        )
    )(TX)
    for other in (forward, through):
        chex.assert_trees_all_close(reverse, other, rtol=2e-3, atol=1e-5)


def test_whole_numbers_have_no_derivative():
    """A count stays in the tree as zero."""
    tx = gx.sgd(gx.piecewise_constant_schedule(0.1, {3: 0.5}))
    gradient = jax.jit(lambda tx: hypergradient(final, tx))(tx)
    assert jax.tree.structure(gradient) == jax.tree.structure(tx)
    chex.assert_tree_all_finite(gradient)


@pytest.mark.parametrize("length", one_in(2, [0, 1, 7, 16, 17]))
def test_checkpointed_scan_is_scan(length):
    """Same carry, same outputs, same derivative."""
    xs = jnp.linspace(0.1, 1.0, length)

    def run(scan, a):
        return scan(lambda c, x: (c * a + x, c), a, xs)

    for mine, theirs in zip(
        jax.tree.leaves(
            (run(checkpointed_scan, 0.9), jax.grad(lambda a: run(checkpointed_scan, a)[0])(0.9))
        ),
        jax.tree.leaves((run(jax.lax.scan, 0.9), jax.grad(lambda a: run(jax.lax.scan, a)[0])(0.9))),
        strict=True,
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)
    assert checkpointed_scan(lambda c, _: (c + 1, None), 0, length=length)[0] == length


def test_checkpointing_saves_memory():
    """Reverse mode over 400 steps keeps about 40 carries, not 400."""

    def train(scan, tx):
        params = jnp.ones((1000,))

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jnp.sin(params), state, params)
            return (gx.apply_updates(params, updates), state), None

        return jnp.sum(scan(step, (params, tx.init(params)), None, 400)[0][0])

    def needs(scan):
        return (
            jax.jit(jax.grad(lambda tx: train(scan, tx)))
            .lower(gx.sgd(0.1, 0.9))
            .compile()
            .memory_analysis()
            .temp_size_in_bytes
        )

    assert needs(checkpointed_scan) < 0.25 * needs(jax.lax.scan)


def test_mistakes():
    """A wrong mode and a result that is no scalar."""
    with pytest.raises(ValueError, match="mode"):
        hypergradient(final, TX, mode="sideways")
    with pytest.raises(ValueError, match="scalar"):
        hypergradient(lambda tx: jnp.ones(2), TX)
    with pytest.raises(ValueError, match="loss"):
        hypergradient(lambda tx: paced(tx, KEY), TX)
