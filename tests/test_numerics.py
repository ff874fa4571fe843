"""Arithmetic: averages and corrections to the last digits, safe roots and quotients, and what clips, cleans and adds."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradxform as gx
from gradxform.numerics import (
    abs_sq,
    bias_correction,
    debias,
    divide_by_root,
    lerp,
    real_dtype,
    safe_divide,
    safe_sqrt,
    wide_dtype,
)

TIMES = np.array([1, 2, 3, 5, 10, 31, 100, 317, 1000, 3162, 10_000, 100_000, 1_000_000])
DECAYS = [0.0, 1e-6, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.999999]


def exact_correction(decay, t):
    """1 - decayᵗ in float64, without cancellation."""
    return -np.expm1(t * np.log(decay)) if decay > 0 else np.ones_like(t, np.float64)


# Averages


@pytest.mark.parametrize("decay", DECAYS)
def test_bias_correction_of_a_python_number_is_exact(decay):
    got = jax.jit(jax.vmap(lambda t: bias_correction(decay, t, jnp.float32)))(jnp.asarray(TIMES))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, exact_correction(decay, TIMES.astype(np.float64)), rtol=4e-7)
    assert got[0] == np.float32(1 - decay)
    for t in (1, 2, 1000):  # and of a Python step
        np.testing.assert_allclose(
            bias_correction(decay, t, jnp.float32),
            exact_correction(decay, np.float64(t)),
            rtol=4e-7,
        )


def test_bias_correction_of_traced_numbers_is_exact_for_the_rounded_decay():
    decays = np.array(DECAYS, np.float32)
    got = jax.jit(jax.vmap(lambda decay: bias_correction(decay, jnp.asarray(TIMES), jnp.float32)))(
        decays
    )
    for row, decay in zip(got, decays.astype(np.float64), strict=True):
        np.testing.assert_allclose(
            row, exact_correction(decay, TIMES.astype(np.float64)), rtol=4e-7, err_msg=str(decay)
        )


def test_bias_correction_in_double_precision(x64):
    for decay in DECAYS:
        expected = exact_correction(decay, TIMES.astype(np.float64))
        python = jax.vmap(lambda t, decay=decay: bias_correction(decay, t, jnp.float64))(
            jnp.asarray(TIMES)
        )
        np.testing.assert_allclose(python, expected, rtol=1e-13)
        np.testing.assert_allclose(
            bias_correction(jnp.float64(decay), jnp.asarray(TIMES), jnp.float64),
            expected,
            rtol=1e-13,
        )


def test_the_slope_of_bias_correction_is_that_of_the_power():
    def slope(decay, t):
        return jax.grad(lambda decay: bias_correction(decay, t, jnp.float32))(decay)

    for t in (1, 2, 3, 50):
        for decay in (0.0, 0.3, 0.9, 0.999):
            expected = -t * decay ** (t - 1)
            np.testing.assert_allclose(
                slope(jnp.float32(decay), t),
                expected,
                rtol=1e-5,
                atol=1e-7,
                err_msg=f"{decay}, {t}",
            )
    batched = jax.jit(jax.vmap(slope, in_axes=(0, None)))(jnp.array([0.0, 0.5]), jnp.int32(2))
    np.testing.assert_allclose(batched, [0.0, -1.0], atol=1e-6)


def test_lerp_ends_and_keeps_python_precision():
    g, m = jnp.float32(3.0), jnp.float32(-2.0)
    assert lerp(g, m, 0.0) == 3.0
    assert lerp(g, m, 0.25) == 0.75 * 3.0 - 0.25 * 2.0
    assert lerp(jnp.float32(1.0), jnp.float32(0.0), 0.999) == np.float32(0.001)
    assert lerp(jnp.float32(1.0), jnp.float32(0.0), jnp.float32(0.999)) == np.float32(
        1
    ) - np.float32(0.999)


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999, 0.9999])
@pytest.mark.parametrize("how", ["closed over", "traced"])
def test_the_average_of_a_constant_is_that_constant(decay, how):
    """An average and its correction see the same decay, so their quotient stays 1 for thousands of steps."""

    def ratios(decay):
        def body(m, t):
            m = lerp(jnp.float32(1.0), m, decay)
            return m, debias(m, decay, t)

        return jax.lax.scan(body, jnp.float32(0.0), jnp.arange(1, 5001))[1]

    got = jax.jit(lambda: ratios(decay))() if how == "closed over" else jax.jit(ratios)(decay)
    assert got[0] == 1.0
    np.testing.assert_allclose(got[:1000], 1.0, rtol=1e-5)
    np.testing.assert_allclose(got, 1.0, rtol=1e-4)


def test_the_first_debiased_average_is_the_gradient():
    g = jnp.linspace(-3.0, 3.0, 50)
    for decay in (0.0, 0.9, 0.999, 0.9999):
        for number in (decay, jnp.float32(decay)):
            first = debias(lerp(g, jnp.zeros_like(g), number), number, 1)
            np.testing.assert_allclose(first, g, rtol=2e-7)


def test_a_long_run_of_adam_agrees_with_double_precision():
    """2000 steps of Adam on noise, in float32, closed over and traced, against float64 NumPy."""
    noise = np.random.default_rng(0).standard_normal((2000, 3)) * np.array([1e-3, 1.0, 1e3])
    m, v, x = np.zeros(3), np.zeros(3), np.zeros(3)
    b1, b2 = 0.9, 0.999
    for t, g in enumerate(noise.astype(np.float32).astype(np.float64), 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        x = x - 1e-3 * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + 1e-8)

    def train(tx):
        def body(carry, g):
            x, state = carry
            u, state = tx.update(g, state, x)
            return (x + u, state), None

        return jax.lax.scan(
            body, (jnp.zeros(3), tx.init(jnp.zeros(3))), jnp.asarray(noise, jnp.float32)
        )[0][0]

    tx = gx.adam(1e-3, b1, b2)
    for got in (jax.jit(lambda: train(tx))(), jax.jit(train)(tx)):
        np.testing.assert_allclose(got, x, rtol=2e-4, atol=2e-5)


# Roots and quotients


def test_safe_sqrt():
    x = jnp.array([0.0, 1e-30, 0.25, 4.0, 1e30, jnp.inf])
    np.testing.assert_array_equal(safe_sqrt(x), np.sqrt(np.asarray(x)))
    assert np.isnan(safe_sqrt(jnp.float32(-1.0)))
    assert np.isnan(safe_sqrt(jnp.float32(jnp.nan)))
    slope = jax.jit(jax.vmap(jax.grad(safe_sqrt)))(x)
    np.testing.assert_allclose(slope, [0.0, 0.5e15, 1.0, 0.25, 0.5e-15, 0.0], rtol=1e-6)
    np.testing.assert_allclose(
        jax.grad(lambda x: safe_sqrt(x) ** 2)(jnp.float32(3.0)), 1.0, rtol=1e-6
    )


def test_safe_divide():
    x, y = jnp.array([0.0, 1.0, -6.0, 5.0, 0.0]), jnp.array([0.0, 0.0, 3.0, -2.0, 7.0])
    np.testing.assert_array_equal(safe_divide(x, y), [0.0, 0.0, -2.0, -2.5, 0.0])
    by_x, by_y = jax.jit(jax.vmap(jax.grad(safe_divide, argnums=(0, 1))))(x, y)
    np.testing.assert_allclose(by_x, [0.0, 0.0, 1 / 3, -0.5, 1 / 7], rtol=1e-6)
    np.testing.assert_allclose(by_y, [0.0, 0.0, 6 / 9, -5 / 4, 0.0], rtol=1e-6)
    assert np.isnan(safe_divide(jnp.float32(jnp.nan), jnp.float32(1.0)))
    assert np.isnan(safe_divide(jnp.float32(1.0), jnp.float32(jnp.nan)))
    assert safe_divide(jnp.float32(1.0), jnp.float32(jnp.inf)) == 0.0


ROOTS = [(1e-8, 0.0), (0.0, 1e-8), (1e-3, 1e-3), (0.0, 0.0)]


@pytest.mark.parametrize(("eps", "eps_root"), ROOTS)
def test_divide_by_root_values(eps, eps_root):
    x = np.array([0.0, 1e-4, -2.0, 3.0, 1e4], np.float32)
    square = np.array([0.0, 1e-8, 4.0, 1.0, 1e6], np.float32)
    double = x.astype(np.float64), square.astype(np.float64)
    denominator = np.sqrt(double[1] + eps_root) + eps
    expected = np.divide(double[0], denominator, out=np.zeros(5), where=denominator != 0)
    np.testing.assert_allclose(divide_by_root(x, square, eps, eps_root), expected, rtol=1e-6)
    np.testing.assert_allclose(
        jax.jit(divide_by_root)(x, square, jnp.float32(eps), jnp.float32(eps_root)),
        expected,
        rtol=1e-6,
    )


@pytest.mark.parametrize(("eps", "eps_root"), ROOTS)
def test_divide_by_root_slopes(eps, eps_root, x64):
    def plain(x, square, eps, eps_root):
        return x / (jnp.sqrt(square + eps_root) + eps)

    x, square = jnp.array([1e-4, -2.0, 3.0]), jnp.array([1e-6, 4.0, 1.0])
    arguments = (x, square, jnp.float64(eps), jnp.float64(eps_root))

    def slopes(f):
        return jax.jit(jax.vmap(jax.grad(f, argnums=(0, 1, 2, 3)), in_axes=(0, 0, None, None)))(
            *arguments
        )

    for got, expected in zip(slopes(divide_by_root), slopes(plain), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10)


@pytest.mark.parametrize(("eps", "eps_root"), ROOTS)
def test_divide_by_root_is_flat_where_the_square_is_zero(eps, eps_root):
    """Also along the path of an optimizer, where x and its square vanish together."""
    arguments = [jnp.float32(v) for v in (0.0, 0.0, eps, eps_root)]
    assert all(slope == 0 for slope in jax.grad(divide_by_root, argnums=(0, 1, 2, 3))(*arguments))

    def adam_like(g):
        return divide_by_root(0.1 * g, 0.001 * g * g, eps, eps_root)

    slope = jax.jit(jax.vmap(jax.grad(adam_like)))(jnp.array([0.0, 2.0]))
    assert np.all(np.isfinite(slope))
    assert slope[0] == 0.0


@pytest.mark.parametrize(
    "f", [safe_sqrt, lambda x: safe_divide(x, x * x), lambda x: divide_by_root(x, x * x, 1e-8, 0.0)]
)
def test_second_derivatives_are_finite_at_zero(f):
    second = jax.jit(jax.vmap(jax.grad(jax.grad(f))))(jnp.array([0.0, 0.5, -0.5]) ** 2)
    assert np.all(np.isfinite(second))


def test_abs_sq_and_dtypes():
    z = jnp.array([3 + 4j, -1j], jnp.complex64)
    np.testing.assert_array_equal(abs_sq(z), [25.0, 1.0])
    assert abs_sq(z).dtype == jnp.float32
    np.testing.assert_array_equal(abs_sq(jnp.array([-3.0])), [9.0])
    assert real_dtype(jnp.complex64) == jnp.float32
    assert real_dtype(jnp.bfloat16) == jnp.bfloat16
    assert wide_dtype(jnp.bfloat16) == jnp.float32
    assert wide_dtype(jnp.bfloat16, jnp.float16) == jnp.float32
    assert wide_dtype(jnp.complex64, jnp.float16) == jnp.complex64


def test_wide_dtype_in_double_precision(x64):
    assert wide_dtype(np.float64) == np.float64
    assert wide_dtype(np.float64, np.float32) == np.float64
    assert wide_dtype(jnp.bfloat16) == jnp.float32


def test_numpy_trees_are_accepted_without_a_warning():
    """NumPy's default is float64, which JAX reads as float32; every warning is an error here."""
    params = {"w": np.ones(3), "b": np.float64(2.0)}
    tx = gx.chain(gx.clip_by_global_norm(10.0), gx.adamw(0.1))
    for update in (tx.update, jax.jit(tx.update)):
        updates, _ = update(params, tx.init(params), params)
        np.testing.assert_allclose(gx.apply_updates(params, updates)["w"], 0.9, rtol=1e-3)
    jax.jit(
        lambda: tx.update(params, tx.init(params), params)
    )()  # closed over, they stay NumPy arrays


# Clipping


def norm_of(tree):
    with np.errstate(over="ignore"):
        return math.sqrt(
            sum(
                float(np.sum(np.abs(np.asarray(x, np.complex128)) ** 2))
                for x in jax.tree.leaves(tree)
            )
        )


def random_trees():
    """Trees of every scale, some with a zero leaf, one all zero, one of zeros and one large entry."""
    rng = np.random.default_rng(7)
    for scale in (1e-12, 1e-3, 0.3, 1.0, 7.0, 1e4, 1e12):
        yield {
            "a": rng.standard_normal((3, 4)) * scale,
            "b": rng.standard_normal(5) * scale,
            "c": np.zeros(2),
            "d": np.float64(scale),
        }
    yield {"a": np.zeros(3)}
    yield {"a": np.zeros(3), "b": np.array([0.0, -40.0])}


def clip_laws(clip, norm_over):
    """A clip never lengthens, never turns, and leaves alone what is below the bound; `norm_over` lists its groups of leaves."""
    for bound in (0.0, 1e-6, 0.5, 1.0, 100.0):
        for tree in random_trees():
            u = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)
            tx = clip(bound)
            got, _ = tx.update(u, tx.init(u))
            for names in norm_over(u):
                before, after = ({k: t[k] for k in names} for t in (u, got))
                length, bounded = norm_of(before), norm_of(after)
                what = f"bound {bound}, norm {length} -> {bounded}"
                assert bounded <= min(length, bound) * (1 + 1e-5), what
                assert bounded >= min(length, bound) * (1 - 1e-5), what
                if length <= bound * (1 - 1e-5):
                    chex.assert_trees_all_equal(after, before)
                flat = [
                    np.concatenate(
                        [np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(t)]
                    )
                    for t in (before, after)
                ]
                np.testing.assert_allclose(
                    flat[1] * length, flat[0] * bounded, rtol=1e-5, atol=1e-30, err_msg=what
                )


def together(u):
    return [list(u)]


def apart(u):
    return [[name] for name in u]


def test_clips_keep_the_laws_of_clipping():
    clip_laws(gx.clip_by_global_norm, together)
    clip_laws(gx.clip_by_leaf_norm, apart)


def _grows(u, at, *, max_norm):
    return u * safe_divide(jnp.asarray(max_norm, jnp.float32), safe_sqrt(jnp.sum(abs_sq(u))))


def _by_largest(u, at, *, max_norm):
    return u * jnp.minimum(
        1.0, safe_divide(jnp.asarray(max_norm, jnp.float32), jnp.max(jnp.abs(u), initial=0.0))
    )


def _by_entry(u, at, *, max_norm):
    return jnp.clip(u, -max_norm, max_norm)


def _shaves(u, at, *, max_norm):
    return (
        u
        * jnp.minimum(1.0, max_norm / (safe_sqrt(jnp.sum(abs_sq(u))) + 1e-6 * max_norm + 1e-30))
        * (1 - 1e-4)
    )


@pytest.mark.parametrize("mutant", [_grows, _by_largest, _by_entry, _shaves])
def test_the_laws_of_clipping_catch_mutants(mutant):
    """Among them one that scales small gradients up, which passes Optax's own tests."""
    with pytest.raises(AssertionError):
        clip_laws(lambda bound: gx.leafwise(mutant, max_norm=bound), apart)
    with pytest.raises(AssertionError):
        clip_laws(gx.clip_by_leaf_norm, together)  # and a clip of each leaf is no clip of the whole


def test_clip_bounds_each_entry():
    u = {"a": jnp.array([-3.0, -0.5, 0.0, 0.5, 3.0, jnp.inf, -jnp.inf]), "b": None}
    for bound in (0.0, 0.5, 1.0, 100.0):
        got, _ = gx.clip(bound).update(u, gx.clip(bound).init(u))
        np.testing.assert_array_equal(got["a"], np.clip(u["a"], -bound, bound))
    z = jnp.array([3 + 0.5j, -0.1 - 9j], jnp.complex64)
    np.testing.assert_array_equal(
        gx.clip(1.0).update(z, gx.clip(1.0).init(z))[0],
        np.array([1 + 0.5j, -0.1 - 1j], np.complex64),
    )


CLIPS = [gx.clip_by_global_norm, gx.clip_by_leaf_norm]


def clipped(clip, bound, leaf):
    tx = clip(bound)
    return np.asarray(tx.update({"a": leaf}, tx.init({"a": leaf}))[0]["a"])


@pytest.mark.parametrize("clip", CLIPS)
def test_clipping_at_zero_at_infinity_and_at_nan(clip):
    np.testing.assert_array_equal(clipped(clip, 0.0, jnp.zeros(3)), 0.0)
    np.testing.assert_array_equal(clipped(clip, 0.0, jnp.ones(3)), 0.0)
    np.testing.assert_array_equal(clipped(clip, 1.0, jnp.zeros(3)), 0.0)
    for inf in (jnp.inf, -jnp.inf):
        np.testing.assert_array_equal(clipped(clip, 1.0, jnp.array([1.0, inf, 2.0])), 0.0)
    assert np.all(np.isnan(clipped(clip, 1.0, jnp.array([1.0, jnp.nan]))))
    mixed = clipped(clip, 1.0, jnp.array([1.0, jnp.nan, jnp.inf]))
    assert np.isnan(mixed).any(), "NaN must stay visible beside infinity"


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_squares_that_overflow_a_narrow_dtype_are_no_infinity(clip, dtype):
    """300² is infinite in float16; sums of many small squares stop growing in bfloat16."""
    large = clipped(clip, 1.0, jnp.full(4, 300.0, dtype))
    assert large.dtype == dtype
    np.testing.assert_allclose(large.astype(np.float32), 0.5, rtol=1e-2)
    many = clipped(clip, 1.0, jnp.full(10_000, 0.1, dtype))
    np.testing.assert_allclose(norm_of(many), 1.0, rtol=1e-2)
    tiny = jnp.full(4, 1e-4, dtype)  # its squares underflow in float16
    np.testing.assert_array_equal(clipped(clip, 1.0, tiny), tiny)
    np.testing.assert_allclose(
        clipped(clip, 1e-5, tiny).astype(np.float32), 0.5e-5, rtol=2e-2, atol=1e-7
    )


@pytest.mark.parametrize("clip", CLIPS)
def test_a_norm_above_the_root_of_the_largest_float_is_skipped(clip):
    """An infinite norm gives a zero update, as documented."""
    np.testing.assert_array_equal(clipped(clip, 1.0, jnp.full(3, 1e30)), 0.0)


@pytest.mark.parametrize("clip", CLIPS)
def test_clipping_has_finite_slopes(clip):
    def loss(bound, u):
        return jnp.sum(clip(bound).update({"a": u}, clip(0.5).init({"a": u}))[0]["a"] ** 2)

    for u in (jnp.zeros(2), jnp.array([3.0, 4.0]), jnp.array([0.1, 0.0])):
        assert all(np.all(np.isfinite(x)) for x in jax.jit(jax.grad(loss, argnums=(0, 1)))(1.0, u))
    by_bound, _ = jax.grad(loss, argnums=(0, 1))(1.0, jnp.array([3.0, 4.0]))
    np.testing.assert_allclose(by_bound, 2.0, rtol=1e-6)  # d c² / dc


def test_a_complex_norm_counts_both_parts():
    np.testing.assert_allclose(
        clipped(gx.clip_by_global_norm, 1.0, jnp.array([3 + 4j], jnp.complex64)),
        [0.6 + 0.8j],
        rtol=1e-6,
    )


def test_global_norm():
    tree = {"a": jnp.array([3.0, 0.0]), "b": [jnp.array(4.0, jnp.bfloat16), None]}
    assert gx.tree.global_norm(tree) == 5.0
    assert gx.tree.global_norm(tree).dtype == jnp.float32
    assert gx.tree.global_norm({}) == 0.0
    slope = jax.grad(gx.tree.global_norm)({"a": jnp.zeros(2)})
    np.testing.assert_array_equal(slope["a"], 0.0)


# Cleaning and adding


def test_zero_nans():
    u = {
        "a": jnp.array([1.0, jnp.nan, jnp.inf, -jnp.inf]),
        "b": jnp.ones(2, jnp.bfloat16),
        "c": jnp.array([1j, jnp.nan], jnp.complex64),
    }
    tx = gx.zero_nans()
    got, state = tx.update(u, tx.init(u))
    np.testing.assert_array_equal(got["a"], [1.0, 0.0, np.inf, -np.inf])
    np.testing.assert_array_equal(got["b"], u["b"])
    np.testing.assert_array_equal(got["c"], np.array([1j, 0], np.complex64))
    assert {k: bool(v) for k, v in state.slots["found_nan"].items()} == {
        "a": True,
        "b": False,
        "c": True,
    }
    _, state = tx.update(jax.tree.map(jnp.zeros_like, u), state)
    assert not any(map(bool, jax.tree.leaves(state.slots)))


def noise_at(tx, params, step):
    """What it adds at the given step (1 first)."""
    state = tx.init(params)._replace(step=jnp.int32(step - 1))
    return tx.update(jax.tree.map(jnp.zeros_like, params), state, params)[0]


@pytest.mark.parametrize(("eta", "gamma"), [(0.3, 0.55), (2.0, 0.0), (0.1, 1.0)])
def test_the_variance_of_the_noise_falls_with_time(eta, gamma):
    tx, params = gx.add_noise(eta, gamma, 3), {"a": jnp.zeros((200, 200)), "b": jnp.zeros(40_000)}
    for t in (1, 2, 10, 1000):
        noise = noise_at(tx, params, t)
        for leaf in noise.values():
            np.testing.assert_allclose(np.var(leaf), eta / t**gamma, rtol=0.03)
            np.testing.assert_allclose(np.mean(leaf) / np.std(leaf), 0.0, atol=0.02)
        correlation = np.corrcoef(np.ravel(noise["a"]), noise["b"])[0, 1]
        assert abs(correlation) < 0.02, "leaves must not share their noise"


def test_noise_is_new_at_each_step_and_the_same_for_the_same_key():
    params = {"a": jnp.zeros(1000)}

    def first_two(key):
        tx = gx.add_noise(1.0, 0.0, key)
        one, state = tx.update(params, tx.init(params))
        two, _ = tx.update(params, state)
        return np.asarray(one["a"]), np.asarray(two["a"])

    one, two = first_two(3)
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.1
    assert not np.allclose(first_two(4)[0], one)


@pytest.mark.parametrize(
    "same", [jax.random.key(3), jax.random.PRNGKey(3), np.int32(3), jnp.uint32(3)], ids=repr
)
def test_a_key_may_be_a_number_a_key_or_its_data(same):
    params = {"a": jnp.zeros(10)}
    tx, expected = gx.add_noise(1.0, 0.0, same), gx.add_noise(1.0, 0.0, 3)
    np.testing.assert_array_equal(
        tx.update(params, tx.init(params))[0]["a"],
        expected.update(params, expected.init(params))[0]["a"],
    )


@pytest.mark.parametrize(
    "params", [{"a": jnp.zeros(5)}, {"a": jnp.zeros(5), "b": jnp.zeros((2, 3)), "c": jnp.zeros(())}]
)
def test_noise_equals_that_of_optax_for_the_same_key(params, standard_promotion):
    mine, theirs = (
        gx.add_noise(0.3, 0.55, jax.random.key(3)),
        optax.add_noise(0.3, 0.55, jax.random.key(3)),
    )
    state, their_state = mine.init(params), theirs.init(params)
    for _ in range(3):
        got, state = mine.update(params, state)
        expected, their_state = theirs.update(params, their_state)
        chex.assert_trees_all_close(got, expected, rtol=1e-5)


def test_noise_of_narrow_and_complex_leaves():
    params = {"a": jnp.zeros(10_000, jnp.bfloat16), "z": jnp.zeros(10_000, jnp.complex64)}
    noise = noise_at(gx.add_noise(1.0, 0.0, 0), params, 1)
    assert noise["a"].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.var(np.asarray(noise["a"], np.float32)), 1.0, rtol=0.05)
    np.testing.assert_allclose(np.var(noise["z"]), 1.0, rtol=0.05)
    np.testing.assert_allclose(np.var(noise["z"].imag), 0.5, rtol=0.05)


NET = {
    "hidden": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, 3.0)},
    "scale": jnp.full(1, 5.0),
}
WHERE = {
    "everything": None,
    "a pattern": "**/kernel",
    "all": "**",
    "a predicate": lambda path, leaf: path.endswith("kernel") and leaf.ndim == 2,
    "booleans": {"hidden": {"kernel": True, "bias": False}, "scale": False},
    "booleans all": {"hidden": {"kernel": True, "bias": True}, "scale": True},
    "booleans none": {"hidden": {"kernel": False, "bias": False}, "scale": False},
}
HITS = {"everything": 3, "all": 3, "booleans all": 3, "booleans none": 0}


@pytest.mark.parametrize("name", WHERE)
@pytest.mark.parametrize(
    "make",
    [
        lambda where: gx.add_decayed_weights(0.5, where),
        lambda where: gx.adamw(1.0, weight_decay=0.5, mask=where),
    ],
)
def test_where_weights_decay(name, make):
    tx = make(WHERE[name])
    zero = jax.tree.map(jnp.zeros_like, NET)
    updates, _ = jax.jit(tx.update)(zero, tx.init(NET), NET)
    sign = 1.0 if tx.name == "add_decayed_weights" else -1.0
    hit = (
        {"hidden/kernel", "hidden/bias", "scale"}
        if HITS.get(name) == 3
        else set()
        if HITS.get(name) == 0
        else {"hidden/kernel"}
    )
    for path, u, p in zip(
        gx.tree.paths(NET), jax.tree.leaves(updates), jax.tree.leaves(NET), strict=True
    ):
        np.testing.assert_array_equal(u, sign * 0.5 * p if path in hit else 0.0)


def test_where_must_match_something():
    for where in ("**/kernels", lambda path, leaf: False):
        with pytest.raises(
            ValueError, match=r"add_decayed_weights: by_path: pattern .* matches no leaf"
        ):
            gx.add_decayed_weights(0.5, where).init(NET)


def test_decay_in_narrow_dtypes_is_computed_wide():
    p, g = jnp.asarray([3.0], jnp.bfloat16), jnp.asarray([1.0], jnp.bfloat16)
    updates, _ = gx.add_decayed_weights(1e-3).update(g, gx.add_decayed_weights(1e-3).init(p), p)
    assert updates[0] == jnp.asarray(1.003, jnp.bfloat16)
    mixed, _ = gx.add_decayed_weights(1e-3).update(
        g.astype(jnp.float32), gx.add_decayed_weights(1e-3).init(p), p
    )
    np.testing.assert_allclose(mixed[0], 1.003, rtol=1e-7)


# Complex parameters


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (gx.sgd(0.1), optax.sgd(0.1)),
        (gx.sgd(0.1, 0.9, nesterov=True), optax.sgd(0.1, 0.9, nesterov=True)),
        (gx.adagrad(0.1), optax.adagrad(0.1)),
        (gx.rmsprop(0.1), optax.rmsprop(0.1)),
        (gx.rmsprop(0.1, centered=True), optax.rmsprop(0.1, centered=True)),
        (gx.adam(0.1), optax.adam(0.1)),
        (gx.adam(0.1, nesterov=True), optax.adam(0.1, nesterov=True)),
        (gx.adamw(0.1, weight_decay=0.1), optax.adamw(0.1, weight_decay=0.1)),
        (gx.amsgrad(0.1), optax.amsgrad(0.1)),
    ],
    ids=lambda x: repr(x) if hasattr(x, "name") else "",
)
@pytest.mark.parametrize("promotion", ["standard", "strict"])
def test_complex_parameters_as_in_optax(mine, theirs, promotion):
    """Squares are |g|², so the second moment is real; under strict promotion, too, where Optax itself cannot run."""
    rng = np.random.default_rng(1)
    shape = (5, 4)
    grads = jnp.asarray(rng.standard_normal(shape) + 1j * rng.standard_normal(shape), jnp.complex64)
    start = jnp.asarray([1 - 2j, 0.5j, 3.0, -1 + 1j], jnp.complex64)

    def train(tx):
        params, state = {"z": start}, tx.init({"z": start})
        for g in grads:
            updates, state = tx.update({"z": g}, state, params)
            params = gx.apply_updates(params, updates)
        return params["z"], state

    with jax.numpy_dtype_promotion("standard"):
        expected, _ = jax.jit(lambda: train(theirs))()
    with jax.numpy_dtype_promotion(promotion):
        closed_over, state = jax.jit(lambda: train(mine))()
        traced, _ = jax.jit(train)(mine)
    assert closed_over.dtype == jnp.complex64
    np.testing.assert_allclose(closed_over, expected, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(traced, expected, rtol=5e-5, atol=5e-6)
    seconds = [
        x
        for path, x in jax.tree_util.tree_leaves_with_path(state)
        if "'v" in jax.tree_util.keystr(path)
    ]
    assert all(jnp.isrealobj(x) for x in seconds) or "momentum" in repr(mine) or "sgd" in repr(mine)


def test_a_complex_leaf_is_its_two_parts_for_what_acts_by_entry():
    """Adam treats |g|² as one number: z is no pair of real parameters there. Plain descent is the pair."""
    g = jnp.asarray([1 + 10j], jnp.complex64)
    pair = jnp.asarray([1.0, 10.0])
    sgd = gx.sgd(0.1)
    z, xy = sgd.update(g, sgd.init(g))[0], sgd.update(pair, sgd.init(pair))[0]
    np.testing.assert_allclose([z[0].real, z[0].imag], xy, rtol=1e-6)
    adam = gx.adam(0.1)
    u, g = np.asarray(adam.update(g, adam.init(g))[0]), np.asarray(g)
    np.testing.assert_allclose(abs(u[0]), 0.1, rtol=1e-5)
    np.testing.assert_allclose(u[0] / abs(u[0]), -g[0] / abs(g[0]), rtol=1e-5)
