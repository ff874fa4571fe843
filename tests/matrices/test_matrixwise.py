"""A rule on one matrix, lifted to a tree: in calls and in stacks, whatever the declaration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradxform as gx
from gradxform.matrices import placement
from gradxform.matrices.matrixwise import MatrixSlot, matrixwise

MATRICES = gx.by_path({"heads": gx.matrix(0, 2), "stack": gx.matrix(), "**": "names"})


def tree():
    draw = iter(jax.random.split(jax.random.key(0), 9))
    shapes = {"wide": (2, 5), "tall": (5, 2), "heads": (5, 3, 2), "stack": (4, 2, 5)}
    return {name: jax.random.normal(next(draw), shape) for name, shape in shapes.items()}


def whitened(u, at, left, *, decay, scale):
    left = decay * left + (1 - decay) * u @ u.T
    return scale * jnp.linalg.solve(left, u), left


def make(**numbers):
    slots = {"left": MatrixSlot(("rows", "rows"), "eye")}
    numbers = {"decay": 0.9, "scale": 2.0} | numbers
    return matrixwise(whitened, slots=slots, matrices=MATRICES, **numbers)


def by_hand(g, decay=0.9, scale=2.0):
    left = decay * np.eye(len(g)) + (1 - decay) * g @ g.T
    return scale * np.linalg.solve(left, g)


@pytest.mark.parametrize("way", ["calls", "stack"])
def test_the_rule_sees_each_matrix_with_its_short_side_first(monkeypatch, way):
    monkeypatch.setattr(placement, "way", lambda: way)
    tx, params = make(), tree()
    updates, state = jax.jit(tx.update)(params, tx.init(params))
    np.testing.assert_allclose(updates["wide"], by_hand(params["wide"]), rtol=1e-5)
    np.testing.assert_allclose(updates["tall"].T, by_hand(params["tall"].T), rtol=1e-5)
    for i in range(3):
        found, g = updates["heads"][:, i].T, params["heads"][:, i].T
        np.testing.assert_allclose(found, by_hand(g), rtol=1e-5)
    for i in range(4):
        np.testing.assert_allclose(updates["stack"][i], by_hand(params["stack"][i]), rtol=1e-5)
    assert jax.tree.map(jnp.shape, state.slots["left"]) == {
        "heads": (3, 2, 2),
        "stack": (4, 2, 2),
        "tall": (2, 2),
        "wide": (2, 2),
    }


@pytest.mark.parametrize("way", ["calls", "stack"])
def test_numbers_may_be_tables_schedules_and_batched(monkeypatch, way):
    monkeypatch.setattr(placement, "way", lambda: way)
    params = tree()
    table = gx.by_path({"wide": 0.5, "tall": jnp.float32(0.7), "**": 0.9})
    tx = make(decay=table, scale=gx.linear_schedule(2.0, 3.0, 9))
    updates, _ = tx.update(params, tx.init(params))
    np.testing.assert_allclose(updates["wide"], by_hand(params["wide"], 0.5), rtol=1e-5)
    np.testing.assert_allclose(updates["tall"].T, by_hand(params["tall"].T, 0.7), rtol=1e-5)
    first = lambda tx: tx.update(params, tx.init(params))[0]  # noqa: E731
    both = jax.vmap(first)(gx.stack([make(scale=1.0), make(scale=3.0)]))
    np.testing.assert_allclose(both["wide"][1], by_hand(params["wide"], scale=3.0), rtol=1e-5)


def test_matrices_of_one_shape_are_traced_once():
    traced = []

    def counted(u, at):
        traced.append(u.shape)
        return u

    tx = matrixwise(counted)
    params = {f"{i}": jnp.ones((2, 5) if i % 2 else (5, 2)) for i in range(7)}
    jax.jit(tx.update).lower(params, tx.init(params))
    assert traced == [(2, 5)]


def test_what_is_no_matrix_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"whitened: 'b' of shape \[3\] is no matrix; give it to"):
        make().init({**tree(), "b": jnp.ones(3)})


def test_a_state_of_another_transformation_is_refused():
    with pytest.raises(ValueError, match=r"whitened: this state belongs to another"):
        make().update(tree(), gx.sgd(0.1).init(tree()))
