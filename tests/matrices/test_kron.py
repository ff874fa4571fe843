"""PSGD-Kron: steps with given random numbers against NumPy, and where it comes to rest without."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_matrices_kron as ref
from replay import recorded

import gradxform as gx
from gradxform.matrices import kron, placement

STEPS, SHAPE = 4, (3, 5)


def drawn(seed, shape=(STEPS, *SHAPE), dtype=np.float32):
    rng = np.random.default_rng(seed)
    real, imaginary = rng.normal(size=(2, *shape))
    whole = real + 1j * imaginary if np.issubdtype(dtype, np.complexfloating) else real
    return whole.astype(dtype)


def walk(tx, gradients, monkeypatch, normals):
    """The updates of all steps, and the state after them; `normals` are what is drawn."""

    @jax.jit
    def step(g, state, v):
        monkeypatch.setattr(kron, "_normal", lambda key, x: v.reshape(x.shape))
        return tx.update(g, state, jax.tree.map(jnp.zeros_like, g))

    def at(i):
        return jax.tree.map(lambda x: jnp.asarray(x[i]), gradients)

    state, out = tx.init(at(0)), []
    for i, v in enumerate(normals):
        u, state = step(at(i), state, v)
        out.append(u)
    return jax.tree.map(lambda *x: np.stack(x), *out), state


@pytest.mark.parametrize(
    ("dtype", "arguments", "numpys"),
    [
        (np.float32, {"max_size_triangular": 3}, {"max_size": 3}),
        (
            np.float32,
            {"max_skew": 1, "precond_init_scale": 0.7},
            {"max_size": 3, "init_scale": 0.7},
        ),
        pytest.param(np.complex64, {}, {}, marks=pytest.mark.slow),
    ],
)
def test_steps_are_those_of_numpy(monkeypatch, dtype, arguments, numpys):
    g, v = drawn(1, dtype=dtype), drawn(2, dtype=dtype)
    tx = gx.scale_by_kron(1.0, 0.2, matrices=gx.matrix(), **arguments)
    got, state = walk(tx, g.swapaxes(1, 2), monkeypatch, v.swapaxes(1, 2))  # tall ones are turned
    expected, (left, right) = ref.kron(g, v, 0.2, **numpys)
    np.testing.assert_allclose(got.swapaxes(1, 2), expected, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(state.slots["q_left"], left, rtol=1e-4, atol=1e-5)
    diagonal = np.diag(right) if "max_size" in numpys else right
    np.testing.assert_allclose(state.slots["q_right"], diagonal, rtol=1e-4, atol=1e-5)


def covariance(n, seed):
    """Symmetric, with eigenvalues from 0.2 to 5."""
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]
    return basis * np.geomspace(0.2, 5, n) @ basis.T


def test_it_comes_to_rest_at_the_inverse_root_of_the_covariance():
    rows, columns = covariance(3, 0), covariance(4, 1)
    turn, stretch = (jnp.asarray(np.linalg.cholesky(x), float) for x in (rows, columns))
    tx = gx.scale_by_kron(1.0, gx.exponential_decay(0.1, 700, 0.2), matrices=gx.matrix())

    def step(state, key):
        g = turn @ jax.random.normal(key, (3, 4)) @ stretch.T
        return tx.update(g, state)[1], None

    keys = jax.random.split(jax.random.key(1), 3000)
    state = jax.jit(lambda s: jax.lax.scan(step, s, keys)[0])(tx.init(jnp.zeros((3, 4))))
    left, right = (np.asarray(state.slots[k], float) for k in ("q_left", "q_right"))
    found, wanted = np.kron(left.T @ left, right.T @ right), ref.whitening(np.kron(rows, columns))
    assert np.linalg.norm(found - wanted) < 0.04 * np.linalg.norm(wanted)


def test_the_scale_of_the_gradient_changes_nothing(monkeypatch):
    g, v = drawn(1), drawn(2)
    scaled = {"one": g, "tiny": g * np.float32(1e-30), "huge": g * np.float32(1e30)}
    got, state = walk(gx.scale_by_kron(matrices=gx.matrix()), scaled, monkeypatch, v)
    for name in ("tiny", "huge"):
        np.testing.assert_allclose(got[name], got["one"], rtol=1e-4)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))


def test_a_gradient_of_zeros_or_nans_leaves_the_factors(monkeypatch):
    g, v = drawn(1), drawn(2)
    g[0], g[2, 1, 1] = 0, np.nan
    got, state = walk(gx.scale_by_kron(matrices=gx.matrix()), g, monkeypatch, v)
    expected, (left, _) = ref.kron(g[1::2], v[1::2])
    np.testing.assert_array_equal(got[0], 0)
    np.testing.assert_allclose(got[1::2], expected, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(state.slots["q_left"], left, rtol=1e-4, atol=1e-5)


def test_the_work_of_a_step_that_is_not_made_is_skipped():
    tx, g = gx.scale_by_kron(0.0, matrices=gx.matrix()), jnp.asarray(drawn(1)[0])
    state = tx.init(g)
    jaxpr = jax.make_jaxpr(tx.update)(g, state)
    assert "triangular_solve" in str(jaxpr)
    outside = [x for x in _operations(jaxpr.jaxpr) if "triangular_solve" in x or "normal" in x]
    assert not outside, outside
    _, first = tx.update(g, state)  # which always makes one
    _, second = tx.update(2 * g, first)
    np.testing.assert_array_equal(first.slots["q_left"], second.slots["q_left"])
    assert (first.slots["key"] != second.slots["key"]).any()


def _operations(jaxpr):
    """The operations that always run: those of no branch."""
    for equation in jaxpr.eqns:
        yield str(equation.primitive)
        if "jaxpr" in equation.params and str(equation.primitive) != "cond":
            inner = equation.params["jaxpr"]
            yield from _operations(getattr(inner, "jaxpr", inner))


def test_stacks_and_batches_give_what_single_matrices_do(monkeypatch):
    g, v = drawn(1, (2, 2, *SHAPE)), drawn(2, (2, 2, *SHAPE))
    tx = gx.scale_by_kron(matrices=gx.matrix())
    batched, state = walk(tx, g, monkeypatch, v)
    assert state.slots["q_right"].shape == (2, 5, 5)
    monkeypatch.setattr(placement, "way", lambda: "stack")
    stacked, _ = walk(tx, g, monkeypatch, v)
    for i in range(2):
        alone, _ = ref.kron(g[:, i], v[:, i])
        np.testing.assert_allclose(batched[:, i], alone, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(stacked[:, i], alone, rtol=1e-4, atol=1e-5)


def test_kron_sends_matrices_and_the_rest_apart(monkeypatch):
    g, v = {"kernel": drawn(1), "bias": drawn(3, (STEPS, 5))}, drawn(2)
    got, state = walk(gx.kron(0.1), g, monkeypatch, v)
    m, t = np.zeros(SHAPE), np.arange(1, STEPS + 1)[:, None, None]
    averaged = np.stack([m := 0.9 * m + 0.1 * x for x in g["kernel"]]) / (1 - 0.9**t)
    whitened, _ = ref.kron(averaged, v, measured=g["kernel"])
    size = np.sqrt(np.mean(whitened**2, axis=(1, 2), keepdims=True))
    expected = -0.1 * whitened * np.minimum(1, 1.1 / size)
    np.testing.assert_allclose(got["kernel"], expected, rtol=2e-4, atol=1e-6)
    assert state["partition"]["rest"].slots["v"]["bias"].shape == (5,)
    assert state["partition"]["rest"].slots["v"]["kernel"] is None


GOLDEN = recorded("matrices_kron")
ARGUMENTS = {"lr": "learning_rate", "momentum": "b1"}


@pytest.mark.parametrize("case", json.loads(str(GOLDEN["meta"])))
def test_kron_follows_what_pytorch_optimizer_computed(monkeypatch, case):
    given = json.loads(str(GOLDEN["meta"]))[case]
    convention = "pytorch_optimizer"
    if not given.pop("momentum_into_precondition_update", True):
        given |= {"convention": "paper", "precond_init_scale": 1.0}
    given = {"convention": convention} | {ARGUMENTS.get(k, k): x for k, x in given.items()}
    tx = gx.kron(precond_probability=1.0, matrices=gx.matrix(), **given)
    turned = {
        k: GOLDEN[k].swapaxes(-2, -1).astype(np.float32) for k in ("start", "grads", "normals")
    }
    params, state = jnp.asarray(turned["start"]), tx.init(jnp.asarray(turned["start"]))

    @jax.jit
    def step(g, v, params, state):
        monkeypatch.setattr(kron, "_normal", lambda key, x: v)
        updates, state = tx.update(g, state, params)
        return gx.apply_updates(params, updates), state

    for g, v, expected in zip(
        turned["grads"], turned["normals"], GOLDEN[f"path/{case}"], strict=True
    ):
        params, state = step(g, v, params, state)
        np.testing.assert_allclose(params.T, expected, rtol=1e-4, atol=1e-5)
