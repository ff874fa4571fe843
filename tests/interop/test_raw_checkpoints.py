"""Checkpoints that are read without a target: plain dicts and lists, as Orbax, Flax and nnx leave them."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from flax import nnx, serialization
from test_import_optax import PAIRS, SCHEDULED, find

import gradxform as gx

pytestmark = pytest.mark.usefixtures("standard_promotion")
PARAMS = {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}


def numbered(state):
    """The state with other numbers in every leaf, so that none can be taken for another."""
    count = itertools.count(1)
    return jax.tree.map(lambda x: jnp.full_like(x, next(count) % 100), state)


def same(theirs, mine, raw):
    saved = numbered(theirs.init(PARAMS))
    expected = gx.import_optax_state(mine, saved, PARAMS, step=5)
    got = gx.import_optax_state(mine, raw(saved), PARAMS, step=5)
    chex.assert_trees_all_equal(got, expected)


@pytest.mark.parametrize("name", SCHEDULED)
def test_a_named_optimizer_is_known_by_its_fields(name):
    mine = getattr(gx, name.removeprefix("contrib."))(learning_rate=0.05)
    same(find(optax, name)(learning_rate=0.05), mine, serialization.to_state_dict)


@pytest.mark.parametrize("name", PAIRS)
def test_a_composition_is_known_by_its_fields(name):
    same(PAIRS[name](optax), PAIRS[name](gx), serialization.to_state_dict)


@pytest.mark.parametrize("name", ["MultiSteps", "inject_hyperparams", "plateau", "named"])
def test_wrappers_are_known_by_their_fields(name):
    multi = optax.MultiSteps(optax.adam(0.1), 3).gradient_transformation()
    plateau = optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau(patience=3))
    named = optax.named_chain(("z", optax.trace(0.9)), ("a", optax.scale(0.1)))
    theirs, mine = {
        "MultiSteps": (multi, gx.MultiSteps(gx.adam(0.1), 3)),
        "plateau": (plateau, gx.chain(gx.adam(0.1), gx.reduce_on_plateau(patience=3))),
        "named": (named, gx.named_chain(("z", gx.trace(0.9)), ("a", gx.scale(0.1)))),
        "inject_hyperparams": (
            optax.inject_hyperparams(optax.sgd)(0.1, momentum=0.0),
            gx.tunable(gx.sgd(0.1, momentum=0.0)),
        ),
    }[name]
    if name == "inject_hyperparams":  # numbers that are checked
        saved = theirs.init(PARAMS)
        raw = serialization.to_state_dict(saved)
        got, expected = (gx.import_optax_state(mine, x, PARAMS, step=5) for x in (raw, saved))
        chex.assert_trees_all_equal(got, expected)
    else:
        same(theirs, mine, serialization.to_state_dict)


def restored(tree, folder):
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "state", tree)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "state")


def test_orbax_without_a_target(tmp_path):
    theirs = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.masked(optax.trace(0.9), {"w": True, "b": False}),
        optax.adamw(lambda step: 0.1),
    )
    masked = gx.masked(gx.trace(0.9), {"w": True, "b": False})
    mine = gx.chain(gx.clip_by_global_norm(1.0), masked, gx.on_updates(gx.adamw(lambda step: 0.1)))
    same(theirs, mine, lambda saved: restored(saved, tmp_path))


def test_what_does_not_fit_is_still_named():
    raw = serialization.to_state_dict(optax.adam(0.1).init(PARAMS))
    with pytest.raises(
        ValueError, match=r"gives sgd/momentum its slots \['v'\]; the next there is"
    ):
        gx.import_optax_state(gx.sgd(0.1, 0.9), raw, PARAMS)
    with pytest.raises(ValueError, match=r"\['mu', 'nu'\] of .* has no place in the state of sgd"):
        gx.import_optax_state(gx.sgd(0.1), raw, PARAMS)


class Model(nnx.Module):
    """With a parameter whose name is that of nnx's own leaves."""

    def __init__(self):
        self.dense = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        self.value = nnx.Param(jnp.ones(2))


@pytest.mark.parametrize("raw", ["orbax", "pure"])
def test_migrate_takes_raw_nnx_trees(raw, tmp_path):
    model, tx = Model(), gx.chain(gx.clip_by_global_norm(1.0), gx.sgd(0.1, momentum=0.9))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    params = nnx.state(model, nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.ones_like, params))
    saved = nnx.state(optimizer)
    plain = restored(saved, tmp_path) if raw == "orbax" else nnx.to_pure_dict(saved)
    expected = jax.tree.leaves(gx.get(optimizer.opt_state, "v"))
    for into in (optimizer.opt_state, tx.init(params), tx.init(nnx.to_pure_dict(params))):
        state = gx.migrate(plain["opt_state"], into)
        assert jax.tree.structure(state) == jax.tree.structure(into)
        for got, want in zip(jax.tree.leaves(gx.get(state, "v")), expected, strict=True):
            np.testing.assert_array_equal(got, want)
        assert int(jax.tree.leaves(gx.get(state, "momentum/step"))[0]) == 1
