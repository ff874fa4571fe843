"""Transformations in a basis: against float64 NumPy, and identities between methods."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_matrices_bases as ref
from jax.extend.core import jaxprs_in_params
from replay import recorded, walks

import gradxform as gx
from gradxform.matrices import bases, placement
from gradxform.matrices.in_basis import turns

T, SHAPE, LR = 9, (3, 4), 0.07
DRAW = np.random.default_rng(20260912)
GRADS = DRAW.standard_normal((T, *SHAPE)) * 10 ** DRAW.uniform(-1, 1, SHAPE)
START = DRAW.standard_normal(SHAPE)
WHOLE = gx.matrix()


def walk(tx, grads=GRADS, start=START):
    """The parameters after each step."""

    def body(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        params = gx.apply_updates(params, updates)
        return (params, state), params

    start = jax.tree.map(jnp.asarray, start)
    return jax.jit(lambda x, g: jax.lax.scan(body, (x, tx.init(x)), g)[1])(start, grads)


def rotated(inner, **how):
    basis = gx.eigenbasis(0.8, 3, matrices=WHOLE, **how)
    return gx.chain(gx.in_basis(inner, basis), gx.scale_by_learning_rate(LR))


HOW = {"shampoo_beta": 0.8, "every": 3}
ADAM, ADAM_REF = (lambda: gx.scale_by_adam(0.8, 0.9, 1e-3)), (lambda: ref.Adam(0.8, 0.9, 1e-3))
FOLLOWS = {
    "adam": (lambda: rotated(ADAM()), ADAM_REF, {}),
    "adam_at_once": (lambda: rotated(ADAM(), current=True), ADAM_REF, {"current": True}),
    "adam_one_sided": (lambda: rotated(ADAM(), sides="short"), ADAM_REF, {"sides": (True, False)}),
    "adam_columns": (lambda: rotated(ADAM(), sides="columns"), ADAM_REF, {"sides": (False, True)}),
    "adam_too_long": (lambda: rotated(ADAM(), max_dim=3), ADAM_REF, {"max_dim": 3}),
    "lion": (lambda: rotated(gx.scale_by_lion()), ref.Lion, {}),
    "adagrad": (lambda: rotated(gx.scale_by_rss()), ref.Adagrad, {}),
    "adafactor": (
        lambda: rotated(gx.scale_by_factored_rms(min_dim_size_to_factor=2)),
        ref.Adafactor,
        {},
    ),
    "kl": (
        lambda: gx.chain(
            gx.in_basis(ADAM(), gx.kl_eigenbasis(0.8, 3, initial=0.3, matrices=WHOLE)),
            gx.scale_by_learning_rate(LR),
        ),
        ADAM_REF,
        {"kl_initial": 0.3},
    ),
    "adam_in_the_coordinates_of_the_weights": (
        # the average is that of the gradients of before, too
        lambda: gx.chain(
            gx.ema(0.8),
            gx.in_basis(
                gx.scale_by_rms(0.9, 1e-3, eps_in_sqrt=False, bias_correction=True),
                gx.eigenbasis(0.8, 3, current=True, matrices=WHOLE),
            ),
            gx.scale_by_learning_rate(LR),
        ),
        ADAM_REF,
        {"current": True},
    ),
}


@cache
def walked(turned):
    """All of them in one program, on matrices of which the one or the other side is longer."""
    turn = (lambda x: np.swapaxes(x, -1, -2)) if turned else (lambda x: x)
    several = {name: make() for name, (make, _, _) in FOLLOWS.items()}
    return jax.jit(lambda x, g: walks(several, x, g))(turn(START), turn(GRADS))


@pytest.mark.parametrize("turned", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FOLLOWS)
def test_follows_its_paper(name, turned, x64):
    _, inner, how = FOLLOWS[name]
    turn = (lambda x: np.swapaxes(x, -1, -2)) if turned else (lambda x: x)
    if turned and name == "adam_one_sided":  # the short side is the other one
        how = {"sides": (False, True)}
    expected = ref.in_eigenbasis(turn(GRADS), turn(START), LR, inner(), **HOW, **how)
    np.testing.assert_allclose(walked(turned)[name], expected, rtol=1e-8, atol=1e-9)


GOLDEN = recorded("matrix_bases")
RECORDED = {
    "soap": (1e-6, {"precondition_frequency": 4}),  # it decomposes in float32
    "soap_one_side": (1e-6, {"precondition_frequency": 4, "max_precond_dim": 3}),
    "soap_heavyball": (5e-5, {"precondition_frequency": 1}),  # all in float32
}


def test_soap_follows_what_pytorch_optimizer_and_heavyball_computed(x64):
    start, grads = ({k: GOLDEN[f"{what}/{k}"] for k in "wb"} for what in ("start", "grads"))
    same = {"weight_decay": 0.0, "shampoo_beta": 0.8}
    several = {k: gx.soap(0.05, 0.9, 0.95, **same, **how) for k, (_, how) in RECORDED.items()}
    found = walks(several, jax.tree.map(jnp.asarray, start), jax.tree.map(jnp.asarray, grads))
    for name, (limit, _) in RECORDED.items():
        for leaf in "wb":
            expected = GOLDEN[f"path/{name}/{leaf}"]
            np.testing.assert_allclose(found[name][leaf], expected, rtol=limit, atol=limit)


@pytest.mark.parametrize("per", ["columns", pytest.param("matrix", marks=pytest.mark.slow)])
def test_apollo_follows_its_paper(per, x64):
    how = {"scale_type": per, "growth": 1.05, "matrices": WHOLE}
    tx = gx.scale_by_apollo(2, 4, 0.5, 0.8, 0.9, 1e-3, **how)

    def body(state, g):
        updates, state = tx.update(g, state)
        return state, (updates, gx.get(state, "projector"))

    run = jax.jit(lambda grads: jax.lax.scan(body, tx.init(jnp.zeros(SHAPE)), grads)[1])
    updates, projectors = run(jnp.asarray(GRADS))
    numbers = {"b1": 0.8, "b2": 0.9, "eps": 1e-3, "scale": 0.5, "per": per, "growth": 1.05}
    expected = ref.apollo(GRADS, np.zeros(SHAPE), 1.0, projectors, **numbers)
    np.testing.assert_allclose(-np.cumsum(updates, axis=0), expected, rtol=1e-9, atol=1e-10)
    drawn = {x.tobytes() for x in np.asarray(projectors)}
    assert len(drawn) == 3, "anew at steps 1, 5 and 9"


# --- identities


def test_in_a_full_basis_momentum_is_momentum(x64):
    """Nothing is lost, and what is remembered is carried over each time that the basis changes."""
    momentum = gx.sgd(LR, 0.8)
    basis = gx.eigenbasis(0.8, 2, current=True, matrices=WHOLE)
    np.testing.assert_allclose(walk(gx.in_basis(momentum, basis)), walk(momentum), rtol=1e-10)
    left = gx.in_basis(momentum, basis, carry=False)
    assert np.max(np.abs(walk(left) - walk(momentum))) > 0.01


def test_in_the_identity_it_is_the_inner_transformation(x64):
    basis = gx.eigenbasis(max_dim=1, current=True, matrices=WHOLE)
    adam = gx.adam(LR)
    np.testing.assert_allclose(walk(gx.in_basis(adam, basis)), walk(adam), rtol=1e-12)


def test_soap_turns_with_the_coordinates_of_the_weights(x64):
    left, right = (np.linalg.qr(DRAW.standard_normal((n, n)))[0] for n in SHAPE)
    tx, zero = rotated(ADAM()), np.zeros(SHAPE)
    turned = walk(tx, left @ GRADS @ right, zero)
    np.testing.assert_allclose(turned, left @ walk(tx, GRADS, zero) @ right, rtol=1e-7, atol=1e-8)


def test_averaging_before_the_basis_is_averaging_in_it(x64):
    """Decision 3: the average and the gradient are both rotated."""
    rms = gx.scale_by_rms(0.9, 1e-3, eps_in_sqrt=False, bias_correction=True)
    basis = gx.eigenbasis(0.8, 2, current=True, matrices=WHOLE)
    outside = gx.chain(gx.ema(0.8), gx.in_basis(rms, basis), gx.scale(-LR))
    inside = gx.chain(gx.in_basis(gx.chain(gx.ema(0.8), rms), basis), gx.scale(-LR))
    np.testing.assert_allclose(walk(outside), walk(inside), rtol=1e-9)


def test_soap_goes_before_muon():
    """Its steps in the coordinates of the weights, made orthogonal."""
    soap = gx.in_basis(gx.scale_by_adam(), gx.eigenbasis(matrices=WHOLE))
    tx = gx.chain(soap, gx.orthogonalize(matrices=WHOLE, method="svd"))
    first, second = jnp.asarray(GRADS[:2], jnp.float32)
    _, state = tx.update(first, tx.init(jnp.zeros(SHAPE)))
    updates, _ = tx.update(second, state)
    np.testing.assert_allclose(updates @ updates.T, np.eye(3), atol=1e-5)


# --- many matrices


MATRICES = gx.by_path({"heads": gx.matrix(0, 2), "**": "names"})


def several():
    draw = iter(jax.random.split(jax.random.key(0), 9))
    shapes = {"wide": (2, 5), "tall": (5, 2), "heads": (5, 3, 2), "b": (5,)}
    return {name: jax.random.normal(next(draw), shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("way", ["calls", pytest.param("stack", marks=pytest.mark.slow)])
def test_each_matrix_runs_as_if_it_were_alone(monkeypatch, way):
    monkeypatch.setattr(placement, "way", lambda: way)
    tree = several()
    tx = gx.scale_by_soap(0.8, 0.9, 1e-3, precondition_frequency=2, matrices=MATRICES)
    alone = tx.replace(matrices=WHOLE)

    def steps(tx, start):
        state, out = tx.init(start), None
        for k in range(3):
            out, state = tx.update(jax.tree.map(lambda x, k=k: jnp.sin((k + 1) * x), start), state)
        return out, state

    out, state = jax.jit(steps, static_argnums=0)(tx, tree)
    assert jax.tree.map(jnp.shape, gx.get(state, "left_basis")) == {
        "heads": (3, 2, 2),
        "tall": (2, 2),
        "wide": (2, 2),
        "b": None,
    }
    assert jax.tree.map(jnp.shape, gx.get(state, "m"))["heads"] == (5, 3, 2)
    expected = jax.jit(lambda x: steps(alone, x)[0])
    heads = expected(tree["heads"].swapaxes(0, 1)).swapaxes(0, 1)
    np.testing.assert_allclose(out["heads"], heads, rtol=1e-4, atol=1e-5)
    for name in ("wide", "tall"):
        np.testing.assert_allclose(out[name], expected(tree[name]), rtol=1e-4, atol=1e-5)
    late = gx.scale_by_adam(0.8, 0.9, 1e-3)  # the first step is not made
    _, adams = late.update(jnp.sin(2 * tree["b"]), late.init(tree["b"]))
    np.testing.assert_allclose(out["b"], late.update(jnp.sin(3 * tree["b"]), adams)[0], rtol=1e-5)


def primitives(jaxpr, inside=False):
    """The operations of a program, each with whether it stands in a branch."""
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name, inside
        for sub in jaxprs_in_params(eqn.params):
            yield from primitives(sub, inside or eqn.primitive.name == "cond")


def test_the_work_of_a_new_basis_is_skipped_in_between_and_traced_once_for_each_shape(monkeypatch):
    traced = []
    original = bases._power_iteration

    def counted(a, q, in_order=True):
        traced.append(a.shape)
        return original(a, q, in_order)

    monkeypatch.setattr(bases, "_power_iteration", counted)
    tx = gx.scale_by_soap()
    params = {f"{i}": jnp.ones((2, 5) if i % 2 else (5, 2)) for i in range(7)}
    program = jax.make_jaxpr(tx.update)(params, tx.init(params))
    assert sorted(traced) == [(2, 2), (5, 5)]
    where = dict(primitives(program.jaxpr))
    assert where["eigh"]
    assert where["qr"]


# --- where there is nothing to find


HARD = {
    "zero": jnp.zeros((4, *SHAPE)),
    "rank one": jnp.ones((4, *SHAPE)),
    "repeated": jnp.broadcast_to(jnp.eye(*SHAPE), (4, *SHAPE)),
    "huge": 1e30 * jnp.asarray(GRADS[:4], jnp.float32),
    "tiny": 1e-30 * jnp.asarray(GRADS[:4], jnp.float32),
}
METHODS = {
    "soap": lambda: gx.soap(LR, precondition_frequency=2, matrices=WHOLE),
    "kl_soap": lambda: gx.kl_soap(LR, precondition_frequency=2, matrices=WHOLE),
    "apollo": lambda: gx.apollo(LR, 2, 2, matrices=WHOLE),
}


@pytest.mark.parametrize("method", METHODS)
def test_hard_gradients_leave_it_finite_and_so_its_derivative(method):
    def last(rate, scale, grads):
        tx = METHODS[method]().replace(learning_rate=rate)
        return jnp.sum(walk(tx, scale * grads, jnp.ones(SHAPE))[-1])

    slopes = jax.jit(jax.vmap(jax.value_and_grad(last, (0, 1)), (None, None, 0)))
    found = slopes(0.07, 1.0, jnp.stack([*HARD.values()]))
    for leaf in jax.tree.leaves(found):
        assert np.isfinite(leaf).all(), dict(zip(HARD, leaf, strict=True))


def test_complex_matrices():
    turned = jnp.asarray(np.exp(1j * GRADS[:4]), jnp.complex64)
    found = walk(rotated(gx.scale_by_adam()), turned, jnp.zeros(SHAPE, jnp.complex64))
    assert np.isfinite(found).all()
    phase = jnp.complex64(np.exp(0.7j))  # multiplies the basis, and nothing else
    again = walk(rotated(gx.scale_by_adam()), phase * turned, jnp.zeros(SHAPE, jnp.complex64))
    np.testing.assert_allclose(again, phase * found, rtol=1e-3, atol=1e-4)


# --- what the tools see


def test_which_slots_turn():
    table = {
        gx.scale_by_adam(): {"m": True, "v": False},
        gx.scale_by_lion(): {"m": True},
        gx.scale_by_rss(): {"v": False},
        gx.scale_by_adan(): {"m": True, "v": True, "n": False, "previous": True},
        gx.scale_by_factored_rms(): {"v_row": False, "v_col": False, "v": False},
    }
    for tx, expected in table.items():
        found = {name: turns(make) for _, part in tx.parts() for name, make in part.slots}
        assert found == expected, tx


def test_what_is_inside_is_seen():
    params = {"kernel": jnp.ones(SHAPE)}
    tx = gx.in_basis(gx.adam(0.1, b1=0.8), gx.eigenbasis(0.7))
    state = tx.init(params)
    assert gx.numbers(tx, state)["basis/decay"] == 0.7
    assert gx.get(state, "inner/b1", tx) == 0.8
    (row,) = gx.describe(tx, params).rows
    assert row.rules[:3] == (
        "in_basis(scale=1)",
        "eigenbasis([3, 4], decay=0.7, every=10)",
        "ema(decay=0.8)",
    )
    assert row.slots["basis/left_basis"] == 4 * 9
    with pytest.raises(TypeError, match=r"in_basis: basis must be a basis, such as eigenbasis\(\)"):
        gx.in_basis(gx.adam(0.1), gx.adam(0.1))
    with pytest.raises(ValueError, match="eigenbasis: this state belongs to another"):
        tx.update(params, gx.in_basis(gx.adam(0.1), gx.leading_basis(1)).init(params))
