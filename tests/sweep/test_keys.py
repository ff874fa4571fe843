"""A key that train has by default is one of its arguments like any other."""

import jax
import numpy as np

from gradxform.sweep import grid, sweep


def train(scale=1.0, key=jax.random.key(3)):  # noqa: B008
    return {"loss": scale * jax.random.uniform(key)}


def drawn(seed):
    return jax.random.uniform(jax.random.fold_in(jax.random.key(3), seed))


def test_a_default_key_is_folded_with_the_seed():
    result = sweep(train, grid(scale=[1.0, 2.0]), metric="loss", mode="min")
    np.testing.assert_allclose(result.best.score, drawn(0), rtol=1e-6)
    seeds = sweep(train, grid(scale=[1.0], seed=[0, 1, 2]), metric="loss", mode="min")
    np.testing.assert_allclose(
        [row["loss"] for row in seeds.rows()], [drawn(seed) for seed in range(3)], rtol=1e-6
    )
