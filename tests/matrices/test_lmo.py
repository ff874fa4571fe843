"""Scion's oracles: against NumPy and pytorch_optimizer, and that they are what they are called."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_matrices_norms as ref
from replay import GRADS, START, recorded, walks

import gradxform as gx
from gradxform.matrices.lmo import CHOICES

GOLDEN = recorded("matrices_norms")
RNG = np.random.default_rng(5)
LIMIT = 1e-6  # pytorch_optimizer adds 1e-8 to norms


@pytest.mark.usefixtures("x64")
def test_scion_is_that_of_pytorch_optimizer():
    """Torch's weights have outputs first; the bias is a layer with one input."""
    constrained = ("spectral", "sign", "one_hot_column", "row")
    several = {
        name: gx.scion(
            0.05, 0.8, gx.by_path({"b": 2.0, "**": 3.0}), 3.0, 3.0,
            norms=gx.by_path({"b": "column", "**": name}), constrained=name in constrained,
            matrices=gx.matrix(1, 0),
        )
        for name in CHOICES
    }  # fmt: skip
    paths = jax.jit(lambda s, g: walks(several, s, g))(
        *(jax.tree.map(jnp.asarray, x) for x in (START, GRADS))
    )
    for name in CHOICES:
        for leaf in ("w", "b"):
            expected = GOLDEN[f"path/{name}/{leaf}"]
            near = {"rtol": 10 * LIMIT, "atol": 10 * LIMIT}  # of gradients of 1e-3
            np.testing.assert_allclose(paths[name][leaf], expected, **near, err_msg=name)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in CHOICES if name != "spectral"]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["spectral", *SLOW])
def test_scion_is_that_of_numpy(name):
    grads, start = RNG.standard_normal((4, 3, 5)), RNG.standard_normal((3, 5))
    tx = gx.scion(0.1, 0.7, 2.0, 2.0, 2.0, norms=name)
    params = {"kernel": jnp.asarray(start)}
    state = tx.init(params)
    norm = name.removeprefix("one_hot_")
    path = ref.scion(grads, start, 0.1, 0.7, 2.0, norm, norm != name)
    for g, expected in zip(grads, path, strict=True):
        updates, state = tx.update({"kernel": jnp.asarray(g)}, state, params)
        params = gx.apply_updates(params, updates)
        np.testing.assert_allclose(params["kernel"], expected, LIMIT, LIMIT)


def test_each_kind_of_parameter_has_its_norm():
    shapes = {
        "embedding": (11, 4),
        "layers": {"kernel": (2, 4, 4), "bias": (2, 4)},
        "dense": {"weight": (6, 4), "bias": (6,)},
        "head": {"weight": (3, 4)},
    }
    params = jax.tree.map(
        lambda s: jnp.asarray(RNG.standard_normal(s), jnp.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    tx = gx.scale_by_lmo()
    u, state = tx.update(params, tx.init(params), params)
    assert {*state.keys()} == {"column", "one_hot_sign", "sign", "spectral"}
    np.testing.assert_array_equal(u["embedding"], np.sign(params["embedding"]))
    np.testing.assert_allclose(u["head"]["weight"], np.sign(params["head"]["weight"]) / 4)
    np.testing.assert_allclose(np.mean(u["layers"]["bias"] ** 2, axis=1), 1, rtol=1e-5)
    dense = ref.lmo(np.asarray(params["dense"]["weight"].T, float), "spectral")
    np.testing.assert_allclose(u["dense"]["weight"].T, dense, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(np.sqrt(np.mean(u["dense"]["bias"] ** 2)), 1, rtol=1e-6)
    absent = gx.tree.tree_map(lambda x: None if x.ndim == 1 else x, params)
    only = gx.scale_by_lmo()
    again, _ = only.update(absent, only.init(absent), absent)
    np.testing.assert_array_equal(again["head"]["weight"], u["head"]["weight"])


def test_with_signs_everywhere_it_is_signum():
    params = {"kernel": jnp.asarray(RNG.standard_normal((3, 2)), jnp.float32), "bias": jnp.ones(2)}
    ours = gx.scion(0.1, 0.8, one_hot_radius=1.0, norms="one_hot_sign", constrained=False)
    pair = [(tx, tx.init(params)) for tx in (ours, gx.signum(0.1, 0.8))]
    for k in range(3):
        grads = jax.tree.map(lambda p, k=k: jnp.sin(3 * p + k), params)
        (one, a), (other, b) = (tx.update(grads, state, params) for tx, state in pair)
        jax.tree.map(np.testing.assert_array_equal, one, other)
        pair = [(pair[0][0], a), (pair[1][0], b)]


@pytest.mark.parametrize("name", ["sign", "column", "row"])
def test_an_oracle_is_the_steepest_within_its_ball(name):
    """No matrix of norm 1 has a larger inner product with the gradient."""
    g, others = RNG.standard_normal((3, 4)), RNG.standard_normal((200, 3, 4))
    inputs = len(g)
    size = {
        "sign": lambda x: inputs * np.abs(x).max(),
        "column": lambda x: inputs * np.sqrt(np.mean(x**2, axis=1)).max(),
        "row": lambda x: np.sqrt(inputs) * ref.norm(x, 0).max(),
    }[name]
    tx, params = gx.scale_by_lmo(name), {"kernel": jnp.asarray(g, jnp.float32)}
    u = np.asarray(tx.update(params, tx.init(params), params)[0]["kernel"])
    np.testing.assert_allclose(size(u), 1, rtol=1e-6)
    assert max(np.sum(g * x / size(x)) for x in others) < np.sum(g * u)


def test_weights_stay_in_the_ball_they_begin_in():
    params = {"kernel": jnp.zeros((3, 3))}
    tx = gx.scion(0.3, radius=2.0, norms=gx.by_path({"**": "sign"}), sign_radius=2.0)
    state = tx.init(params)
    for _ in range(20):
        updates, state = tx.update({"kernel": -jnp.ones((3, 3))}, state, params)
        params = gx.apply_updates(params, updates)
    largest = float(3 * jnp.max(jnp.abs(params["kernel"])))
    assert 1.99 < largest <= 2.0 + 1e-5


def test_the_name_of_no_norm_is_refused():
    with pytest.raises(ValueError, match=r"scion: norms must be one of \['auto', 'spectral'"):
        gx.scion(0.1, norms="nuclear")
    with pytest.raises(ValueError, match=r"scale_by_lmo: norms\['\*\*'\] must be one of"):
        gx.scale_by_lmo(gx.by_path({"**": "nuclear"}))
    with pytest.raises(ValueError, match=r"'w' of shape \[2, 3, 4\] may be a stack"):
        gx.scale_by_lmo().init({"w": jnp.ones((2, 3, 4))})
