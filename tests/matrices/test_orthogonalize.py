"""Newton-Schulz against the singular value decomposition in float64, for each table."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradxform as gx
from gradxform.matrices.orthogonalize import TABLES, NewtonSchulz, polar, table_of


def conditioned(rows, columns, least=1e-4, seed=0):
    """A matrix with singular values from 1 down to `least`."""
    draw = np.random.default_rng(seed)
    left, right = (np.linalg.qr(draw.normal(size=(n, n)))[0] for n in (rows, columns))
    return (left * np.geomspace(1, least, rows)) @ right[:rows]


def polynomials(sizes, table):
    """What becomes of singular values of a matrix that was divided by its norm."""
    sizes = sizes / table.margin
    for a, b, c in table.steps:
        sizes = a * sizes + b * sizes**3 + c * sizes**5
    return sizes


def by_hand(x, table):
    """What becomes of the matrix, and of its singular values, in float64."""
    left, sizes, right = np.linalg.svd(x / np.linalg.norm(x), full_matrices=False)
    sizes = polynomials(sizes, table)
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
        ("quintic", 0.68, 1.14),
        ("polar_express", 0.85, 1.15),
        ("deepseek", 0.9999, 1.001),
        ("dion", 0.97, 1.04),
    ],
)
def test_singular_values_come_out_near_one(name, low, high):
    """As the docstring says."""
    found = polynomials(np.geomspace(0.01, 1, 2000), table_of("test", name))
    assert low < found.min() < found.max() < high


def test_a_tall_parameter_is_as_its_transpose():
    tx = gx.orthogonalize(matrices=gx.matrix(0, 1))
    x = jnp.asarray(conditioned(6, 20), jnp.float32)
    wide, tall = (tx.update({"w": w}, tx.init({"w": w}))[0]["w"] for w in (x, x.T))
    np.testing.assert_allclose(wide, tall.T, atol=5e-5)


def given(x, **how):
    tx = gx.orthogonalize(matrices=gx.matrix(0, 1), **how)
    return tx.update({"w": jnp.asarray(x)}, tx.init({"w": jnp.asarray(x)}))[0]["w"]


def test_the_reference_is_the_polar_factor():
    x = conditioned(4, 6, 0.1)
    left, _, right = np.linalg.svd(x, full_matrices=False)
    np.testing.assert_allclose(given(x, method="svd"), left @ right, atol=1e-5)
    deficient = np.outer(np.arange(1.0, 4), np.ones(5))
    expected = deficient / np.linalg.norm(deficient)
    np.testing.assert_allclose(given(deficient, method="svd"), expected, atol=1e-6)
    np.testing.assert_array_equal(given(np.zeros((3, 5)), method="svd"), 0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("shape", "complex_"),
    [
        ((3, 5), True),
        pytest.param((3, 5), False, marks=pytest.mark.slow),
        pytest.param((5, 3), True, marks=pytest.mark.slow),
        pytest.param((4, 4), True, marks=pytest.mark.slow),
    ],
)
def test_the_reference_has_the_derivative_of_a_polar_factor(shape, complex_):
    draw = np.random.default_rng(0)
    x, dx = draw.normal(size=(2, *shape))
    if complex_:
        x, dx = x + 1j * dx, dx + 1j * draw.normal(size=shape)
    _, slope = jax.jvp(polar, (x,), (dx,))
    step = 1e-6
    expected = (polar(x + step * dx) - polar(x - step * dx)) / (2 * step)
    np.testing.assert_allclose(slope, expected, atol=1e-8)


@pytest.mark.parametrize("how", [{}, {"gram": False}, {"method": "svd"}], ids=str)
def test_derivatives_are_finite_where_singular_values_meet_or_vanish(how):
    tx = gx.orthogonalize(matrices=gx.matrix(0, 1), **how)
    value = lambda x: jnp.sum(tx.update({"w": x}, tx.init({"w": x}))[0]["w"] ** 3)  # noqa: E731
    slopes = jax.jit(jax.vmap(jax.grad(value)))
    several = [np.zeros((2, 6)), np.eye(2, 6), np.outer(np.ones(2), np.arange(6.0))]
    assert np.isfinite(slopes(jnp.asarray(np.stack(several), jnp.float32))).all()


@pytest.mark.parametrize("preconditioning", ["frobenius", "spectral", "aol", "schatten"])
def test_the_scale_of_the_gradient_does_not_matter(preconditioning):
    """Not where its squares overflow, nor where ε is 0 and they vanish."""
    x = jnp.asarray(conditioned(3, 8, 0.1), jnp.float32)
    alike = [given(x * s, preconditioning=preconditioning, eps=0.0) for s in (1, 1e-30, 1e30)]
    np.testing.assert_allclose(alike[1], alike[0], atol=1e-5)
    np.testing.assert_allclose(alike[2], alike[0], atol=1e-5)
    assert np.linalg.svd(alike[0], compute_uv=False).min() > 0.5


def test_complex_matrices_become_unitary():
    x = conditioned(3, 8, 0.1) + 1j * conditioned(3, 8, 0.1, seed=1)
    u = np.asarray(given(x.astype(np.complex64), ns_coeffs="deepseek"))
    np.testing.assert_allclose(u @ u.conj().T, np.eye(3), atol=5e-3)


def test_bfloat16_rounds_the_products_alone():
    x = jnp.asarray(conditioned(8, 12, 0.05), jnp.float32)
    exact, rounded = given(x), given(x, compute_dtype="bfloat16")
    assert rounded.dtype == jnp.float32
    error = np.linalg.norm(rounded - exact, 2)
    assert 1e-4 < error < 0.1, error
    text = str(jax.make_jaxpr(lambda x: given(x, compute_dtype="bfloat16"))(x))
    assert "bf16[8,12]" in text


def multiplications(jaxpr):
    """Those of all products of matrices, in loops as often as these run."""
    count = 0
    for op in jaxpr.eqns:
        if op.primitive.name == "dot_general":
            (summed, _), _ = op.params["dimension_numbers"]
            left, right = (x.aval.shape for x in op.invars)
            count += int(np.prod(left) * np.prod(right)) // left[summed[0]]
        for inner in op.params.values():
            if hasattr(inner, "eqns"):
                count += multiplications(inner) * op.params.get("length", 1)
    return count


@pytest.mark.parametrize(
    ("columns", "how", "share"),
    [  # of the 5 (2 m² n + m³) that the steps take on X itself
        (9, {}, 1.0),
        (32, {}, 35 / 45),
        (64, {}, 59 / 85),
        (32, {"gram": False}, 1.0),
        (32, {"compute_dtype": "bfloat16"}, 1.0),
        (32, {"ns_coeffs": "polar_express"}, 35 / 45),
    ],
)
def test_wide_matrices_go_through_their_gram_matrix(columns, how, share):
    traced = jax.make_jaxpr(partial(given, **how))(jnp.ones((8, columns)))
    assert multiplications(traced.jaxpr) == share * 5 * (2 * columns + 8) * 8**2


def test_where_products_are_rounded_the_gram_matrix_waits_to_be_asked_for(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    blocks = [
        len(NewtonSchulz(table_of("test", "quintic"), gram=g).blocks(8, 32)) for g in (None, True)
    ]
    assert blocks == [5, 3]


@pytest.mark.parametrize(
    ("ns_coeffs", "error", "message"),
    [
        ("cubic", ValueError, r"ns_coeffs must be one of \['quintic', "),
        ((1.0, 2.0), TypeError, "must be a triple"),
        ([[1.0, 2.0, "c"]], TypeError, "must be a triple"),
        ((), TypeError, "must be a triple"),
        ((1.0, np.nan, 2.0), ValueError, "must be finite"),
    ],
)
def test_coefficients_that_cannot_be_are_named(ns_coeffs, error, message):
    with pytest.raises(error, match=f"orthogonalize: {message}|orthogonalize: ns_coeffs {message}"):
        gx.orthogonalize(ns_coeffs)


def test_a_table_of_one_s_own_and_a_number_of_steps():
    x = jnp.asarray(conditioned(3, 8, 0.3), jnp.float32)
    table = np.array([[1.5, -0.5, 0.0]] * 12)  # Newton and Schulz's own
    np.testing.assert_allclose(given(x, ns_coeffs=table), given(x, method="svd"), atol=1e-4)
    twelve = given(x, ns_coeffs=(1.5, -0.5, 0.0), ns_steps=12)
    np.testing.assert_allclose(twelve, given(x, ns_coeffs=table), atol=1e-6)
    with pytest.raises(ValueError, match=r"orthogonalize: ns_steps must lie in \[1, 1000\]; got 0"):
        gx.orthogonalize(ns_steps=0)


def test_an_embedding_s_shape_is_named_and_a_vector_refused():
    tx = gx.orthogonalize(matrices=gx.matrix(0, 1))
    abstract = lambda *shape: {"tok": {"kernel": jax.ShapeDtypeStruct(shape, jnp.float32)}}  # noqa: E731
    words = r"orthogonalize: 'tok/kernel' has the shape of an embedding, \[50000, 64\]; .*by_path"
    with pytest.warns(UserWarning, match=words):
        jax.eval_shape(tx.init, abstract(50000, 64))
    jax.eval_shape(tx.init, abstract(4096, 1024))
    jax.eval_shape(tx.init, abstract(1000, 4))
    with pytest.raises(
        ValueError, match=r"orthogonalize: 'tok/kernel' of shape \[3\] is no matrix"
    ):
        tx.init({"tok": {"kernel": jnp.ones(3)}})
