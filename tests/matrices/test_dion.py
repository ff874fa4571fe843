"""Dion against NumPy, from the paper's algorithm; no package that installs has it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_matrices_norms as ref

import gradxform as gx

RNG = np.random.default_rng(7)
GRADS, START = RNG.standard_normal((6, 3, 5)), RNG.standard_normal((3, 5))


def walk(tx, grads, start, turned=False):
    """The parameters after each step, and the last state."""
    params = {"kernel": jnp.asarray(start.T if turned else start)}
    state, path = tx.init(params), []
    for g in grads:
        updates, state = tx.update({"kernel": jnp.asarray(g.T if turned else g)}, state, params)
        params = gx.apply_updates(params, updates)
        path.append(params["kernel"].T if turned else params["kernel"])
    return np.asarray(path), state


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rank", [2, *(pytest.param(r, marks=pytest.mark.slow) for r in (1, 128))])
def test_dion(rank):
    tx = gx.dion(0.1, 0.9, rank, weight_decay=0.02)
    q = tx.init({"kernel": jnp.asarray(START)})["dion"]["scale_by_dion"].slots["q"]["kernel"]
    assert q.shape == (5, min(rank, 3))
    path, state = walk(tx, GRADS, START)
    expected = ref.dion(GRADS, START, np.asarray(q), 0.1, 0.9, 0.02)
    np.testing.assert_allclose(path, expected, rtol=1e-9)
    rows = state["dion"]["scale_by_dion"].slots["q"]["kernel"]
    np.testing.assert_allclose(ref.norm(rows, 0), 1, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_declaration_the_other_way_round_is_the_same_layer():
    """Tall or wide, [inputs, outputs] or [outputs, inputs]: the same step of the same layer."""
    straight, _ = walk(gx.dion(0.1, rank=2), GRADS, START)
    turned, _ = walk(gx.dion(0.1, rank=2, matrices=gx.matrix(1, 0)), GRADS, START, turned=True)
    np.testing.assert_allclose(turned, straight, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_at_full_rank_it_is_the_orthogonalised_momentum():
    """Once the power iterations of a lasting gradient have found its singular vectors."""
    g = ref.orthogonal(RNG.standard_normal((3, 5))) * 3
    left, _, right = np.linalg.svd(RNG.standard_normal((3, 5)), full_matrices=False)
    g = (left * np.array([9.0, 3.0, 1.0])) @ right
    path, state = walk(gx.dion(1.0, 0.9, 3, weight_decay=0.0), [g] * 40, START)
    momentum = np.asarray(state["dion"]["scale_by_dion"].slots["m"]["kernel"])
    step = path[-1] - path[-2]
    np.testing.assert_allclose(step, -np.sqrt(5 / 3) * ref.orthogonal(momentum), atol=1e-9)
    np.testing.assert_allclose(step @ step.T, 5 / 3 * np.eye(3), atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_what_a_step_leaves_out_waits():
    """Of rank 1, with nothing that fades, two gradients in a row are all in the momentum."""
    _, state = walk(gx.dion(0.1, mu=1.0, rank=1), GRADS[:2], START)
    kept = state["dion"]["scale_by_dion"].slots["m"]["kernel"]
    np.testing.assert_allclose(kept, GRADS[0] + GRADS[1], rtol=1e-12)


def test_matrices_of_a_stack_are_apart_and_the_rest_is_adamw():
    params = {
        "layers": {"kernel": jnp.asarray(RNG.standard_normal((2, 3, 5)), jnp.float32)},
        "bias": jnp.ones(5),
    }
    grads = jax.tree.map(jnp.sin, params)
    tx = gx.dion(0.1, rank=2, adam_learning_rate=0.01, adam_weight_decay=0.3)
    updates, state = tx.update(grads, tx.init(params), params)
    assert state["dion"]["scale_by_dion"].slots["q"]["layers"]["kernel"].shape == (2, 5, 2)
    for i in range(2):
        one = {"kernel": params["layers"]["kernel"][i]}
        alone, _ = tx.update({"kernel": grads["layers"]["kernel"][i]}, tx.init(one), one)
        np.testing.assert_allclose(updates["layers"]["kernel"][i], alone["kernel"], rtol=1e-5)
    adam = gx.adamw(0.01, weight_decay=0.3)
    expected, _ = adam.update(
        {"b": grads["bias"]}, adam.init({"b": params["bias"]}), {"b": params["bias"]}
    )
    np.testing.assert_allclose(updates["bias"], expected["b"], rtol=1e-6)


def test_a_rank_below_one_is_refused():
    with pytest.raises(ValueError, match=r"rank must lie in \[1, inf\); got 0"):
        gx.dion(0.1, rank=0)
