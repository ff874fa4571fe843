"""Newton-Schulz against the singular value decomposition in float64, for each table."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradxform as gx
from gradxform.matrices.orthogonalize import TABLES, NewtonSchulz, table_of


def conditioned(rows, columns, least=1e-4, seed=0):
    """A matrix with singular values from 1 down to `least`."""
    draw = np.random.default_rng(seed)
    left, right = (np.linalg.qr(draw.normal(size=(n, n)))[0] for n in (rows, columns))
    return (left * np.geomspace(1, least, rows)) @ right[:rows]


def by_hand(x, table, eps=1e-8):
    """The polynomials of the singular values, and what becomes of the matrix, in float64."""
    left, sizes, right = np.linalg.svd(x, full_matrices=False)
    sizes = sizes / (table.margin * np.linalg.norm(x) + eps)
    for a, b, c in table.steps:
        sizes = a * sizes + b * sizes**3 + c * sizes**5
    return (left * sizes) @ right, sizes


@pytest.mark.parametrize("gram", [False, True], ids=["plain", "gram"])
@pytest.mark.parametrize("name", TABLES)
def test_each_table_gives_the_polynomials_of_the_singular_values(name, gram):
    """To 1e-4 of the largest, whether on X or on X Xᵀ, at a condition of 10⁴."""
    table = table_of("test", name)
    x = conditioned(12, 40)
    expected, sizes = by_hand(x, table)
    got = NewtonSchulz(table, gram=gram).orthogonal(jnp.asarray(x, jnp.float32), 1e-8)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    found = np.linalg.svd(np.asarray(got, float), compute_uv=False)
    np.testing.assert_allclose(np.sort(found), np.sort(np.abs(sizes)), atol=5e-5)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("quintic", 0.67, 1.21),
        ("polar_express", 0.8, 1.15),
        ("deepseek", 0.998, 1.002),
        ("dion", 0.7, 1.15),
    ],
)
def test_singular_values_come_out_near_one(name, low, high):
    _, sizes = by_hand(conditioned(12, 40, 0.02), table_of("test", name))
    assert low < sizes.min(), sizes
    assert sizes.max() < high, sizes


def test_a_tall_parameter_is_as_its_transpose():
    tx = gx.orthogonalize(matrices=gx.matrix(0, 1))
    x = jnp.asarray(conditioned(6, 20), jnp.float32)
    wide, tall = (tx.update({"w": w}, tx.init({"w": w}))[0]["w"] for w in (x, x.T))
    np.testing.assert_allclose(wide, tall.T, atol=5e-5)
