"""Muon beside Optax's, through 100 steps on a small network: every argument, and every way to say what is a matrix."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import gradxform as gx
from gradxform.interop.optax.names import mismatch

STEPS = 100
LIMIT = {"float32": 1e-5, "float64": 1e-9}


def dimensions(numbers, none=None):
    """A projection to heads and one back, as one matrix each; the rest is no matrix."""
    return {
        "in": {"kernel": numbers(0, (1, 2)), "bias": none},
        "out": {"kernel": numbers((0, 1), 2), "bias": none},
    }


def heads(numbers):
    """A matrix for each head."""
    return {
        "in": {"kernel": numbers(0, 2), "bias": None},
        "out": {"kernel": numbers(1, 2), "bias": None},
    }


def parts(package, muon, shape, **numbers):
    """Muon's parts by themselves; Optax's need to be told of every matrix."""
    label = partial(jax.tree.map, lambda x: "muon" if x.ndim == 2 else "rest")
    tx = package.chain(muon(**numbers), shape(consistent_rms=0.2, **numbers), package.scale(-0.01))
    return package.partition({"muon": tx, "rest": package.sgd(0.01)}, label)


def two_dimensional(tree):
    return jax.tree.map(lambda _: contrib.MuonDimensionNumbers(), tree)


def both(*args, **kwargs):
    return [partial(package.contrib.muon, *args, **kwargs) for package in (gx, optax)]


# name: (ours, Optax's). "3d" is of parameters of rank 3
PAIRS = {
    "defaults": both(0.02),
    "decay": both(
        0.02,
        weight_decay=0.1,
        adam_weight_decay=0.05,
        nesterov=False,
        consistent_rms=0.2,
        adam_learning_rate=0.003,
        adam_b1=0.8,
        adam_b2=0.95,
        adam_eps_root=1e-8,
    ),
    "masked": both(
        0.02, weight_decay=0.1, weight_decay_mask=partial(jax.tree.map, lambda x: x.shape[0] == 24)
    ),
    "dion": both(0.02, "dion", 5, 0.9, 1e-6, preconditioning="aol"),
    "table": both(0.02, ((3.0, -3.2, 1.2), (2.0, -1.5, 0.5)), preconditioning="schatten"),
    "adaptive": both(0.01, adaptive=True, preconditioning="spectral"),
    "parts": [
        lambda: parts(gx, gx.contrib.scale_by_muon, gx.scale_by_shape),
        lambda: parts(
            optax,
            contrib.scale_by_muon,
            contrib._muon.scale_by_shape,
            weight_dimension_numbers=two_dimensional,
        ),
    ],
    "3d": [
        lambda: gx.contrib.muon(0.02, muon_weight_dimension_numbers=dimensions(gx.matrix)),
        lambda: contrib.muon(
            0.02, muon_weight_dimension_numbers=dimensions(contrib.MuonDimensionNumbers)
        ),
    ],
    "3d_function": [
        lambda: gx.contrib.muon(
            0.02, muon_weight_dimension_numbers=lambda _: heads(gx.MuonDimensionNumbers)
        ),
        lambda: contrib.muon(
            0.02, muon_weight_dimension_numbers=lambda _: heads(contrib.MuonDimensionNumbers)
        ),
    ],
}


def problem(dtype):
    draw = np.random.default_rng(7)
    params = {
        layer: {
            "kernel": draw.normal(size=shape) / shape[0] ** 0.5,
            "bias": 0.1 * draw.normal(size=shape[1]),
        }
        for layer, shape in {"in": (6, 24), "out": (24, 3)}.items()
    }
    x = draw.normal(size=(STEPS, 16, 6))
    y = np.tanh(x @ draw.normal(size=(6, 3)))
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), (params, x, y))


def loss(params, x, y):
    hidden = jnp.tanh(x @ params["in"]["kernel"].reshape(6, 24) + params["in"]["bias"])
    out = hidden @ params["out"]["kernel"].reshape(24, 3) + params["out"]["bias"]
    return jnp.mean((out - y) ** 2)


def in_heads(params):
    shapes = {"in": (6, 3, 8), "out": (3, 8, 3)}
    return {k: p | {"kernel": p["kernel"].reshape(shapes[k])} for k, p in params.items()}


def train(names, params, x, y):
    """The losses and last parameters of these pairs, in one program."""

    def steps(tx, params):
        def step(carry, batch):
            params, state = carry
            value, grads = jax.value_and_grad(loss)(params, *batch)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), value

        (params, _), losses = jax.lax.scan(step, (params, tx.init(params)), (x, y))
        return losses, params

    start = lambda name: in_heads(params) if name[:2] == "3d" else params  # noqa: E731
    return {name: [steps(make(), start(name)) for make in PAIRS[name]] for name in names}


@pytest.mark.parametrize(
    ("names", "dtype"),
    [
        (("defaults", "3d"), "float32"),
        pytest.param(tuple(PAIRS), "float32", marks=pytest.mark.slow),
        pytest.param(tuple(PAIRS), "float64", marks=pytest.mark.slow),
    ],
    ids=lambda x: x if isinstance(x, str) else f"{len(x)} pairs",
)
def test_follows_optax(names, dtype):
    with jax.enable_x64(dtype == "float64"), jax.numpy_dtype_promotion("standard"):
        trained = jax.device_get(jax.jit(partial(train, names))(*problem(dtype)))
    gaps = {}
    for name, ((losses, ours), (_, theirs)) in trained.items():
        assert losses[-10:].mean() < 0.9 * losses[:10].mean(), f"{name}: nothing was trained"
        pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
        gaps[name] = max(float(np.max(np.abs(a - b))) for a, b in pairs)
    assert {name: gap for name, gap in gaps.items() if not gap < LIMIT[dtype]} == {}


@pytest.mark.parametrize("name", ["muon", "scale_by_muon"])
def test_every_call_of_optax_s_is_taken(name):
    assert mismatch(getattr(contrib, name), getattr(gx.contrib, name)) is None
    assert mismatch(contrib._muon.scale_by_shape, gx.scale_by_shape) is None


def test_contrib_sends_what_optax_does_and_names_an_embedding():
    shapes = {"embed": (2000, 16), "conv": (3, 3, 4, 8), "kernel": (4, 8), "bias": (8,)}
    params = {k: jax.ShapeDtypeStruct(shape, jnp.float32) for k, shape in shapes.items()}
    with pytest.warns(UserWarning, match="'embed' has the shape of an embedding, .2000, 16.; "):
        state = jax.eval_shape(gx.contrib.muon(0.02).init, params)
    held = {k: x for k, x in state["muon"]["ema"].slots["m"].items() if x is not None}
    assert held.keys() == {"embed", "kernel"}
    given = gx.by_path({"kernel": gx.matrix(), "**": None})
    tx = gx.muon(0.02, muon_weight_dimension_numbers=given)
    assert tx == gx.muon(0.02, matrices=given)
    state = jax.eval_shape(tx.init, params)
    held = {k: x for k, x in state["muon"]["ema"].slots["m"].items() if x is not None}
    assert held.keys() == {"kernel"}
    jax.eval_shape(lambda p: tx.update(p, tx.init(p), p), params)
