"""Roots of symmetric matrices and their derivatives, against double precision and differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradxform.matrices.roots import eigh, matrix_power

DRAW = np.random.default_rng(0)
FULL = DRAW.normal(size=(4, 6))
GRAMS = {
    "distinct": FULL,
    "repeated": np.diag([1.0, 1.0, 2.0, 2.0]),
    "identity": np.eye(4),
    "nearly repeated": np.diag([1.0, 1.0 + 1e-9, 1.0 - 1e-6, 2.0]),
}


def slope(f, *x):
    """The largest difference of the derivative from a quotient of differences, relative to it."""
    by = [np.random.default_rng(1).normal(size=np.shape(y)) for y in x]
    h = 1e-5
    moved = lambda s: f(*(y + s * d for y, d in zip(x, by, strict=True)))  # noqa: E731
    both = jax.jit(lambda s: jax.jvp(moved, (s,), (jnp.ones_like(s),)))
    found, *ends = both(0.0)[1], both(h)[0], both(-h)[0]
    expected = (ends[0] - ends[1]) / (2 * h)
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", GRAMS)
def test_powers_and_their_derivatives(name):
    g = GRAMS[name]
    w, v = np.linalg.eigh(g @ g.T)
    root = lambda g, p, e, r: matrix_power(g @ g.T, p, eps=e, relative_eps=r)  # noqa: E731
    exponents = np.array([-0.25, -1.0, 0.0, 0.5, 1.0])
    powers = jax.jit(jax.vmap(lambda p: root(g, p, 0.2, 0.1)))(exponents)
    for p, found in zip(exponents, powers, strict=True):
        expected = v * (np.maximum(w, 0.1 * w[-1]) + 0.2) ** p @ v.T
        np.testing.assert_allclose(found, expected, atol=1e-12)
    if name == "distinct":  # elsewhere the largest eigenvalue has no derivative of its own
        assert slope(root, g, -0.25, 0.2, 0.1) < 1e-7
        assert slope(root, g, -0.25, 0.2, 0.9) < 1e-7
    assert slope(lambda g, p, e: root(g, p, e, 0.0), g, -0.5, 0.2) < 1e-7


@pytest.mark.usefixtures("x64")
def test_the_derivative_of_a_root_times_what_it_is_the_root_of():
    g = FULL[:, :2]  # of rank 2
    assert slope(lambda g: matrix_power(g @ g.T, -0.5, eps=0.1) @ g, g) < 1e-7


def test_any_size_and_rank_is_finite():
    kinds = jnp.stack([jnp.zeros((3, 3)), jnp.ones((3, 3)), jnp.eye(3)])
    scales = jnp.array([1e-36, 1e-15, 1.0, 1e15, 1e36])
    p, eps, scale = jnp.meshgrid(jnp.array([-0.5, -0.25, 0.0, 0.5]), jnp.array([0, 1e-6]), scales)

    def total(a, p, eps, scale):
        return jnp.sum(matrix_power(a * scale, p, relative_eps=eps))

    each = jax.vmap(jax.value_and_grad(total, (0, 1, 2)), (None, 0, 0, 0))
    both = jax.vmap(each, (0, None, None, None))
    value, by = jax.jit(both)(kinds, p.ravel(), eps.ravel(), scale.ravel())
    assert np.isfinite(value).all(), value
    usual = (scale > 1e-30) & (scale < 1e30)  # else the derivatives are too large to be numbers
    for x in by:
        assert np.isfinite(x[:, usual.ravel()]).all(), x
    unit = jax.jit(jax.vmap(lambda s: matrix_power(jnp.eye(3) * s, -0.25) * s**0.25))(scales)
    np.testing.assert_allclose(unit, [np.eye(3)] * 5, rtol=1e-5)


def test_the_power_nought_is_the_identity_and_nothing_has_the_inverse_nothing():
    several = jnp.stack([jnp.zeros((3, 3)), jnp.ones((3, 3)), jnp.diag(jnp.arange(3.0))])
    power = jax.jit(lambda a, p, eps: matrix_power(a, p, eps=eps))
    np.testing.assert_allclose(power(several, 0.0, 0.0), [np.eye(3)] * 3, atol=1e-6)
    assert not power(several, -0.5, 0.0)[0].any()
    np.testing.assert_allclose(power(several, -0.5, 4.0)[0], np.eye(3) / 2, rtol=1e-6)


@jax.jit
def decomposed(a):
    return *eigh(a), matrix_power(a, -0.5)


def test_complex_matrices_and_batches():
    c = DRAW.normal(size=(2, 3, 3)) + 1j * DRAW.normal(size=(2, 3, 3))
    a = (c @ c.conj().swapaxes(-1, -2)).astype(np.complex64)
    w, v, root = map(np.asarray, decomposed(a))
    np.testing.assert_allclose(root @ a @ root, [np.eye(3)] * 2, atol=2e-4)
    np.testing.assert_allclose(v * w[:, None] @ v.conj().swapaxes(-1, -2), a, atol=1e-4)
    np.testing.assert_allclose(decomposed(a[1])[0], w[1], rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_the_derivative_of_eigenvectors():
    a = FULL @ FULL.T
    assert slope(lambda a: eigh(a + a.T)[0], a) < 1e-7
    assert slope(lambda a: jnp.abs(eigh(a + a.T)[1]), a) < 1e-7


def test_the_derivative_of_eigenvectors_is_finite_where_values_meet():
    meet = np.stack([np.zeros((3, 3)), np.eye(3), np.diag([1, 1, 2]), np.ones((3, 3))])
    turned = jax.jit(jax.vmap(jax.jacobian(lambda a: eigh(a)[1])))(jnp.asarray(meet, jnp.float32))
    assert np.isfinite(turned).all()
    assert np.abs(turned).max() < 10
