"""Early stopping of members by comparison, and populations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sweep_problems import fitted, line, paced

import gradxform as gx
from gradxform.sweep import Halving, Population, evolve, grid, promoted, rungs, sweep

SPACE = grid(learning_rate=np.geomspace(1e-3, 1, 18).tolist(), seed=[0])


def test_promoted():
    """The best share of those seen goes on; what is not finite never does."""
    goodness = np.array([3.0, 1.0, -np.inf, 2.0, 5.0, 4.0])
    assert promoted(goodness, np.arange(6), 0.5).tolist() == [0, 4, 5]
    assert promoted(goodness, np.array([3, 4]), 0.5).tolist() == [4]
    assert promoted(goodness[:3], np.arange(3), 0.9).tolist() == [0, 1]
    assert promoted(np.array([-np.inf]), np.arange(1), 0.5).tolist() == []
    assert rungs(1, 30) == (1, 3, 9, 27)


def test_successive_halving_keeps_the_best_and_compacts():
    """A third goes on at each rung, in full batches, and ends where it would have ended anyway."""
    full = sweep(paced, SPACE)
    some = sweep(paced, SPACE, halving=Halving((2, 6)), chunk=6)
    assert sorted(some.steps.tolist()) == [2] * 12 + [6] * 4 + [12] * 2
    assert some.dropped.sum() == 16
    kept = np.flatnonzero(some.steps == 12)
    np.testing.assert_allclose(some.history["loss"][kept], full.history["loss"][kept], rtol=5e-5)
    np.testing.assert_allclose(some.params(kept[0])["w"], full.params(kept[0])["w"], rtol=5e-5)
    at_two = np.argsort(full.history["loss"][:, 1])[:6]
    assert sorted(np.flatnonzero(some.steps > 2)) == sorted(at_two)
    assert some.best.index in kept


@pytest.mark.parametrize("wait", [True, False])
def test_halving_goes_on_after_an_interruption(tmp_path, wait):
    """Stopped after any task, it ends with the same bits and trains nothing twice."""
    halving = Halving((2, 6), 0.5, wait=wait)
    whole = sweep(paced, SPACE, halving=halving, chunk=4, out=tmp_path / "whole")
    files = sorted((tmp_path / "whole" / "chunks").iterdir())
    for path in files[::3]:  # as if these had not been reached yet
        path.unlink()
    times = {path: path.stat().st_mtime_ns for path in files if path.exists()}
    again = sweep(paced, SPACE, halving=halving, chunk=4, out=tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == t for path, t in times.items())
    np.testing.assert_array_equal(again.history["loss"], whole.history["loss"])
    assert again.best.index == whole.best.index


def test_asynchronous_halving_decides_block_by_block():
    """It keeps the best of the sweep too, with a start that does not wait."""
    some = sweep(paced, SPACE, halving=Halving((2, 6), wait=False), chunk=3)
    assert (some.steps == 12).any()
    assert (some.steps == 2).any()
    assert some.best.index in np.argsort(sweep(paced, SPACE).scores)[:3]


def test_halving_needs_a_training_that_can_pause():
    """A whole function cannot be stopped half-way."""
    with pytest.raises(TypeError, match="can pause"):
        sweep(line, SPACE, halving=Halving((2,)))
    with pytest.raises(ValueError, match="rungs"):
        sweep(paced, SPACE, halving=Halving((6, 2)))
    with pytest.raises(ValueError, match="choose one"):
        sweep(paced, SPACE, halving=Halving((2,)), population=Population(2))


def test_stopped_and_diverged_members_are_not_promoted():
    """They have ended: their place goes to others."""
    found = sweep(paced, grid(learning_rate=[3e38, 0.1, 0.2, 0.3]), halving=Halving((2,), 0.5))
    assert found.steps[0] == 2
    assert (found.steps == 12).sum() == 2


def test_evolve_copies_and_perturbs_leaf_by_leaf():
    """The worst take over all of the best, and only their numbers are perturbed."""
    carries = {"w": jnp.arange(10.0)[:, None] * jnp.ones((1, 3)), "step": jnp.arange(10)}
    numbers = {"lr": jnp.full(10, 0.1), "decay": jnp.full(10, 0.9)}
    goodness = jnp.arange(10.0).at[3].set(jnp.nan)
    new, changed, parents = jax.jit(evolve)(
        jax.random.key(0), goodness, carries, numbers, high={"lr": jnp.inf, "decay": 0.95}
    )
    parents = np.asarray(parents)
    assert set(np.flatnonzero(parents != np.arange(10))) == {0, 3}
    assert set(parents[[0, 3]]) <= {8, 9}
    np.testing.assert_array_equal(new["w"], carries["w"][parents])
    np.testing.assert_array_equal(new["step"], parents)
    untouched = [i for i in range(10) if i not in (0, 3)]
    np.testing.assert_array_equal(changed["lr"][jnp.array(untouched)], np.float32(0.1))
    assert np.all(
        np.isin(
            np.round(changed["lr"][jnp.array([0, 3])], 6), np.round(np.float32([0.08, 0.125]), 6)
        )
    )
    assert float(changed["decay"].max()) <= np.float32(0.95)


def test_a_population_moves_towards_what_works():
    """Members that began with a useless rate end with a better one, and say which."""
    space = grid(learning_rate=[1e-5] * 6 + [0.3] * 2)
    still = sweep(fitted(), space, devices=1)
    found = sweep(fitted(), space, population=Population(2, share=0.25), devices=1)
    assert (
        found.scores.max() < still.scores.max() or (found.scores < still.scores * 0.99).sum() >= 2
    )
    rates = [found.optimizer(i).learning_rate for i in range(8)]
    assert sum(rate > 0.1 for rate in rates) > 2
    assert found.optimizer(0).b1 == 0.9


def test_a_population_stays_inside_the_intervals_of_its_numbers():
    """However often a number is multiplied: a growth stays at least 1."""
    tx, how = gx.rprop(0.1), Population(4, share=0.5, factors=(0.5,))
    found = sweep(
        lambda tx=tx, key=None: paced(tx, key), grid(eta_plus=[1.1, 1.2, 1.3]), population=how
    )
    ended = [found.optimizer(i).eta_plus for i in range(3)]
    assert min(ended) == 1.0
    assert max(ended) == pytest.approx(1.3)
