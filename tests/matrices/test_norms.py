"""Norms under control: Hyperball, update floor, radial brake and spectral clipping against NumPy, and what each keeps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_matrices_norms as ref
from replay import GRADS as RECORDED
from replay import START, close, recorded, walks

import gradxform as gx
from gradxform.matrices.spectral import hardcap

RNG = np.random.default_rng(3)
W, STACK = RNG.standard_normal((4, 6)), RNG.standard_normal((2, 3, 5))
GRADS = RNG.standard_normal((5, 4, 6))
BIAS = np.ones(5)


def once(tx, u, w):
    """The update of one matrix, with a bias beside it that must pass."""
    params, updates = {"kernel": w, "bias": BIAS}, {"kernel": u, "bias": BIAS}
    params, updates = (jax.tree.map(jnp.asarray, x) for x in (params, updates))
    out, _ = tx.update(updates, tx.init(params), params)
    np.testing.assert_array_equal(out["bias"], BIAS)
    return np.asarray(out["kernel"])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_hyperball_walks_on_the_sphere():
    tx = gx.hyperball(0.1)
    params = {"kernel": jnp.asarray(W)}
    state, path = tx.init(params), []
    for g in GRADS:
        updates, state = tx.update({"kernel": jnp.asarray(g)}, state, params)
        params = gx.apply_updates(params, updates)
        path.append(params["kernel"])
        np.testing.assert_allclose(ref.norm(path[-1]), ref.norm(W), rtol=1e-14)
    np.testing.assert_allclose(path, ref.hyperball(GRADS, W, 0.1), rtol=1e-13)
    np.testing.assert_allclose(state.slots["radius"]["kernel"], ref.norm(W))


@pytest.mark.usefixtures("x64")
def test_hyperball_is_that_of_heavyball():
    start, grads = ({"w": jnp.asarray(x["w"])} for x in (START, RECORDED))
    path = walks({"hyperball": gx.hyperball(0.05)}, start, grads)["hyperball"]["w"]
    close(path, recorded("matrices_norms")["path/hyperball/w"])
    close(path, ref.hyperball(RECORDED["w"], START["w"], 0.05))


def test_hyperball_keeps_the_norm_of_each_matrix_of_a_stack_after_any_optimizer():
    params = {"layers": {"kernel": jnp.asarray(STACK, jnp.float32)}, "bias": jnp.ones(3)}
    ball = gx.chain(gx.scale_by_adam(), gx.hyperball(0.3))
    tx = gx.partition({"matrix": ball, "rest": gx.adam(0.1)}, gx.matrix_labels())
    whole = gx.chain(gx.adam(7.0), gx.hyperball(0.3, flip_sign=False))
    same = gx.partition({"matrix": whole, "rest": gx.adam(0.1)}, gx.matrix_labels())
    grads = jax.tree.map(jnp.sin, params)
    steps = [t.update(grads, t.init(params), params)[0] for t in (tx, same)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), *steps)
    moved = gx.apply_updates(params, steps[0])["layers"]["kernel"]
    np.testing.assert_allclose(ref.norm(moved, (1, 2)), ref.norm(STACK, (1, 2)), rtol=1e-6)


def test_a_matrix_of_zeros_has_no_sphere():
    with pytest.raises(ValueError, match=r"hyperball: a matrix of shape \[2, 3\] is zero"):
        gx.hyperball(0.1).init({"kernel": jnp.zeros((2, 3))})


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("per", "axis"), [("matrix", None), ("output", 0), ("input", 1)])
def test_update_floor(per, axis):
    u = 0.3 * GRADS[0] * np.geomspace(0.1, 2, 6) * np.geomspace(0.2, 3, 4)[:, None]
    got = once(gx.update_floor(0.35, per=per), u, W)
    np.testing.assert_allclose(got, ref.update_floor(u, W, 0.35, axis), rtol=1e-13)
    assert np.all(ref.norm(got, axis) >= (0.35 - 1e-12) * ref.norm(W, axis))
    kept = ref.norm(u, axis) >= 0.35 * ref.norm(W, axis)
    np.testing.assert_array_equal(np.where(kept, got, 0), np.where(kept, u, 0))
    if axis is not None:
        assert kept.any(), "or nothing is kept"
        assert not kept.all()


def test_update_floor_reads_the_declaration():
    """Outputs are what is declared as columns, also where these are the first axis."""
    u, w = np.float32(0.1) * GRADS[0].astype(np.float32), W.astype(np.float32)
    straight = once(gx.update_floor(per="output"), u, w)
    turned = once(gx.update_floor(per="output", matrices=gx.matrix(1, 0)), u.T, w.T)
    np.testing.assert_allclose(turned.T, straight, rtol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "size", [0.1, -3.0, *(pytest.param(x, marks=pytest.mark.slow) for x in (1e-9, -0.1, 3.0))]
)
def test_radial_brake(size):
    u = size * (W + 0.2 * GRADS[0])
    got = once(gx.radial_brake(0.5, 0.25), u, W)
    np.testing.assert_allclose(W + got, W + ref.radial_brake(u, W, 0.5, 0.25), rtol=1e-13)
    grown = ref.norm(W + u) - ref.norm(W)
    share = 0.5 if grown > 0 else 0.25
    np.testing.assert_allclose(ref.norm(W + got) - ref.norm(W), share * grown, rtol=1e-5)


def test_radial_brake_takes_back_nothing_of_what_turns_or_shrinks():
    across = np.asarray([[0.0, 1.0], [0.0, 0.0]], np.float32)
    w = np.asarray([[2.0, 0.0], [0.0, 1.0]], np.float32)
    np.testing.assert_array_equal(once(gx.radial_brake(), -w / 4, w), -w / 4)
    np.testing.assert_array_equal(once(gx.radial_brake(outward=1.0), across + w, w), across + w)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("method", "shape"),
    [
        ("newton_schulz", (4, 6)),
        ("svd", (6, 4)),
        pytest.param("newton_schulz", (5, 5), marks=pytest.mark.slow),
        pytest.param("svd", (5, 5), marks=pytest.mark.slow),
    ],
)
def test_spectral_clip(method, shape):
    x = RNG.standard_normal(shape)
    sizes = np.linalg.svd(x, compute_uv=False)
    for bound in (1.1 * sizes[0], 0.9 * sizes[1], 0.5 * sizes[-1]):
        got = once(gx.spectral_clip(bound, method=method), x, x)
        np.testing.assert_allclose(got, ref.spectral_clip(x, bound), atol=1e-9)
    near = once(gx.spectral_clip(sizes[1] * 1.0001, method=method), x, x)
    np.testing.assert_allclose(near, ref.spectral_clip(x, sizes[1] * 1.0001), atol=1e-3)


def test_spectral_clip_changes_nothing_below_the_bound():
    x = W.astype(np.float32)
    np.testing.assert_array_equal(once(gx.spectral_clip(np.inf), x, x), x)
    np.testing.assert_array_equal(once(gx.spectral_clip(1.01 * ref.norm(W)), x, x), x)
    np.testing.assert_array_equal(once(gx.spectral_clip(1.0), 0 * x, x), 0 * x)


def test_spectral_clip_bounds_the_weights_of_each_matrix_of_a_stack():
    w = {"layers": {"kernel": jnp.asarray(3 * STACK, jnp.float32)}, "bias": jnp.ones(3)}
    tx = gx.chain(gx.sgd(0.1), gx.spectral_clip(2.0, of="params"))
    updates, _ = tx.update(w, tx.init(w), w)
    moved = gx.apply_updates(w, updates)
    for before, after in zip(w["layers"]["kernel"], moved["layers"]["kernel"], strict=True):
        np.testing.assert_allclose(after, ref.spectral_clip(0.9 * before, 2.0), atol=1e-5)
    np.testing.assert_allclose(moved["bias"], 0.9)


@pytest.mark.parametrize("method", ["newton_schulz", pytest.param("svd", marks=pytest.mark.slow)])
def test_the_derivative_of_clipping_is_that_of_its_definition(method):
    """Along its own singular vectors a value above the bound does not move, one below does."""
    x, one = jnp.diag(jnp.array([3.0, 0.5])), jnp.eye(2)
    _, slope = jax.jit(partial(jax.jvp, partial(hardcap, bound=1.0, method=method)))((x,), (one,))
    np.testing.assert_allclose(slope, [[0, 0], [0, 1]], atol=1e-4)


@pytest.mark.slow
def test_complex_matrices():
    x = (GRADS[0] + 1j * GRADS[1]).astype(np.complex64)
    for tx in (gx.hyperball(0.1), gx.scale_by_dion(rank=2)):
        params = {"kernel": jnp.asarray(x)}
        updates, _ = tx.update(params, tx.init(params), params)
        assert updates["kernel"].dtype == jnp.complex64
        assert np.isfinite(updates["kernel"]).all()
    got = once(gx.spectral_clip(2.0), x, x)
    np.testing.assert_allclose(got, ref.spectral_clip(x, 2.0), atol=1e-5)
    brake = once(gx.radial_brake(), x, x)
    np.testing.assert_allclose(ref.norm(np.abs(brake)), 0.5 * ref.norm(np.abs(x)), rtol=1e-5)
