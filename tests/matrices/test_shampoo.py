"""Shampoo and KL-Shampoo against NumPy from the papers and pytorch_optimizer's recorded runs, and what must hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_matrices_shampoo as ref
from replay import close, recorded

import gradxform as gx
from gradxform.matrices import placement
from gradxform.matrices.declaration import views
from gradxform.matrices.matrixwise import oriented

GOLDEN = recorded("shampoo")
START, GRADS = GOLDEN["start"], GOLDEN["grads"]
LR = 0.05
ADAM = gx.scale_by_rms(0.999, 1e-8, eps_in_sqrt=False, bias_correction=True)


def walks(several, start=START, grads=GRADS):
    """The matrix after each step of each optimizer, in one program."""

    @jax.jit
    def run(start, grads):
        def step(carry, g):
            new = {}
            for name, tx in several.items():
                params, state = carry[name]
                updates, state = tx.update({"kernel": g}, state, params)
                new[name] = gx.apply_updates(params, updates), state
            return new, {name: params["kernel"] for name, (params, _) in new.items()}

        params = {"kernel": start}
        first = {name: (params, tx.init(params)) for name, tx in several.items()}
        return jax.lax.scan(step, first, grads)[1]

    return run(jnp.asarray(start), jnp.asarray(grads))


OFTEN = {"precondition_frequency": 3, "relative_eps": 0.02}
PAPERS = {
    "mean": (
        lambda: gx.shampoo(LR, 0.8, 0.9, 1e-3, 0.1, **OFTEN),
        lambda: ref.shampoo(GRADS, START, LR, 0.8, 0.9, 1e-3, 0.1, graft_eps=1e-8, **OFTEN),
    ),
    "sum": (
        lambda: gx.shampoo(LR, 0.8, None, 1e-3, graft=None, nesterov=True, **OFTEN),
        lambda: ref.shampoo(GRADS, START, LR, 0.8, None, 1e-3, nesterov=True, **OFTEN),
    ),
    "late": (
        lambda: gx.shampoo(LR, 0.8, 0.9, start_preconditioning_step=5, **OFTEN),
        lambda: ref.shampoo(
            GRADS, START, LR, 0.8, 0.9, start_preconditioning_step=5, graft_eps=1e-8, **OFTEN
        ),
    ),
    "left": (
        lambda: gx.shampoo(LR, 0.8, 0.9, graft=None, sides="left", **OFTEN),
        lambda: ref.shampoo(
            GRADS, START, LR, 0.8, 0.9, exponent=-0.5, sides=(True, False), **OFTEN
        ),
    ),
    "short": (  # which is the right one
        lambda: gx.shampoo(LR, 0.8, 0.9, graft=None, sides="short", exponent=-0.3, **OFTEN),
        lambda: ref.shampoo(
            GRADS, START, LR, 0.8, 0.9, exponent=-0.3, sides=(False, True), **OFTEN
        ),
    ),
    "kl": (
        lambda: gx.kl_shampoo(LR, 0.8, 0.9, weight_decay=0.1, **OFTEN),
        lambda: ref.kl_shampoo(GRADS, START, LR, 0.8, 0.9, 0.1, **OFTEN),
    ),
}


def in_two(cases, *first):
    """The names of the cases, those not named in the slow tail."""
    rest = tuple(name for name in cases if name not in first)
    return [pytest.param(first, id="first"), pytest.param(rest, id="rest", marks=pytest.mark.slow)]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("names", in_two(PAPERS, "mean", "left", "kl"))
def test_the_papers(names):
    found = walks({name: PAPERS[name][0]() for name in names})
    for name in names:
        close(found[name], PAPERS[name][1](), 1e-10, err_msg=name)


def scalable(decay, eps, graft, *after, **how):
    """ScalableShampoo divides the gradient, and averages what comes of it."""
    k = how.pop("k", 1)
    how |= {"precondition_frequency": k, "start_preconditioning_step": k}
    step = gx.scale_by_shampoo(decay, eps, 0.0, **how)
    step = step if graft is None else gx.graft(step, graft, k)
    return gx.chain(step, *after, gx.scale_by_learning_rate(LR))


ADAGRAD = gx.scale_by_rss(0.0, 1e-10, eps_in_sqrt=False)
AHEAD = gx.trace(0.9, nesterov=True)
RECORDED = {
    "shampoo": lambda: scalable(None, 1e-3, None),
    "sgd": lambda: scalable(None, 1e-3, gx.identity(), AHEAD),
    "adagrad": lambda: scalable(None, 1e-3, ADAGRAD, gx.trace(0.9), gx.add_decayed_weights(0.1)),
    "rmsprop": lambda: scalable(0.9, 0.0, gx.scale_by_rms(0.9, 1e-10, eps_in_sqrt=False), k=3),
    "blocks": lambda: scalable(None, 1e-3, gx.identity(), AHEAD, block_size=2),
    "squared": lambda: scalable(None, 1e-3, None, AHEAD, exponent=-0.5),
    "left": lambda: scalable(None, 1e-3, gx.identity(), AHEAD, sides="left"),
    "right": lambda: scalable(None, 1e-3, gx.identity(), AHEAD, sides="right"),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("names", in_two(RECORDED, "adagrad", "rmsprop", "blocks"))
def test_what_pytorch_optimizer_computed(names):
    for name, path in walks({name: RECORDED[name]() for name in names}).items():
        close(path, GOLDEN[f"path/{name}"], 1e-8, err_msg=name)


def test_the_reference_of_kl_shampoo_has_the_factors_of_heavyball():
    """Which begins and corrects otherwise; diagonal gradients, of which its QR step is exact."""
    known = recorded("kl_shampoo")
    how = {"relative_eps": 0.0, "convention": "heavyball"}
    path = ref.kl_shampoo(known["grads"], known["start"], LR, 0.8, 0.9, **how)
    np.testing.assert_allclose(path, known["path"], rtol=2e-5, atol=2e-6)
    other = ref.kl_shampoo(known["grads"], known["start"], LR, 0.8, 0.9)
    assert np.abs(other - known["path"]).max() > 0.01


# --- what must hold

WIDE = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)
BOTH = [gx.scale_by_shampoo, pytest.param(gx.scale_by_kl_shampoo, marks=pytest.mark.slow)]
NO_RIDGE = {"eps": 0.0, "relative_eps": 0.0}


@jax.jit
def first(tx, g):
    """The first step, of a tree of matrices."""
    return tx.update(g, tx.init(g))[0]


def polar(x):
    u, _, v = np.linalg.svd(x, full_matrices=False)
    return u @ v


@pytest.mark.parametrize("g", [WIDE, WIDE.T], ids=["wide", "tall"])
@pytest.mark.parametrize("sides", ["both", "short"])
def test_without_memory_it_orthogonalizes(sides, g):
    tx = gx.scale_by_shampoo(0.0, **NO_RIDGE, sides=sides)
    np.testing.assert_allclose(first(tx, {"kernel": g})["kernel"], polar(g), atol=1e-5)


def test_one_side_without_memory_orthogonalizes_too():
    left, right = (gx.scale_by_shampoo(0.0, **NO_RIDGE, sides=x) for x in ("left", "right"))
    np.testing.assert_allclose(first(left, {"kernel": WIDE})["kernel"], polar(WIDE), atol=1e-5)
    np.testing.assert_allclose(first(right, {"kernel": WIDE.T})["kernel"], polar(WIDE.T), atol=1e-5)


def test_the_exponent_nought_changes_nothing():
    tx = gx.scale_by_shampoo(exponent=0.0)
    np.testing.assert_allclose(first(tx, {"kernel": WIDE})["kernel"], WIDE, atol=1e-5)


@pytest.mark.usefixtures("x64")
def test_diagonal_gradients_give_adagrad_and_adam_entry_by_entry():
    start, grads = np.eye(4), GRADS[:, :, :1] * np.eye(4)
    how = {"precondition_frequency": 1, **NO_RIDGE}
    rms = gx.scale_by_rms(0.9, 0.0, eps_in_sqrt=False, bias_correction=True)
    pairs = {
        "adagrad": (gx.scale_by_shampoo(None, **how), gx.scale_by_rss(0.0, 0.0, eps_in_sqrt=False)),
        "adam": (gx.scale_by_shampoo(0.9, **how), rms),
        "one side": (gx.scale_by_shampoo(0.9, sides="left", **how), rms),
    }
    several = {f"{name}{i}": tx for name, pair in pairs.items() for i, tx in enumerate(pair)}
    found = walks({name: gx.chain(gx.ema(0.8), tx) for name, tx in several.items()}, start, grads)
    for name in pairs:
        close(found[f"{name}0"], found[f"{name}1"], 1e-8, err_msg=name)


def test_blocks_are_matrices_of_their_own():
    """As equal as can be, and filled where they are not; pytorch_optimizer's [4, 3] in twos above."""
    g = {"kernel": np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32)}
    parted = gx.matrix(row_parts=2, column_parts=2)
    blocks, parts = gx.scale_by_shampoo(block_size=3), gx.scale_by_shampoo(matrices=parted)
    np.testing.assert_array_equal(first(blocks, g)["kernel"], first(parts, g)["kernel"])
    (view,) = views("it", gx.matrix(), g)
    assert oriented(view, False, 6) == oriented(view)
    odd = {"kernel": jax.ShapeDtypeStruct((3, 7, 10), np.float32)}
    state = jax.eval_shape(gx.scale_by_shampoo(block_size=4, matrices=gx.matrix()).init, odd)
    assert state.slots["left"]["kernel"].shape == (3, 2, 3, 4, 4)


def test_statistics_are_of_the_gradient_and_what_is_divided_is_the_momentum():
    tx = gx.chain(gx.ema(0.5, debias=False), gx.scale_by_shampoo(0.0, **NO_RIDGE))
    np.testing.assert_allclose(first(tx, {"kernel": WIDE})["kernel"], polar(WIDE) / 2, atol=1e-5)


@pytest.mark.parametrize("make", BOTH)
def test_any_rank_is_finite_and_so_are_its_meta_gradients(make):
    """Repeated eigenvalues, rank one, nothing at all, and nothing at first."""

    def total(g, decay, late):
        tx = make(decay, precondition_frequency=1)

        def body(state, g):
            u, state = tx.update({"kernel": g}, state)
            return state, u["kernel"]

        grads = jnp.stack([g * late, g])
        return jnp.sum(jax.lax.scan(body, tx.init({"kernel": g}), grads)[1][1] ** 3)

    both = jax.vmap(jax.value_and_grad(total, (0, 1)), (0, None, None))
    g = jnp.stack([jnp.eye(3, 4), jnp.ones((3, 4)), jnp.zeros((3, 4))])
    for late in (0.0, 1.0):
        for x in jax.tree.leaves(jax.jit(both)(g, 0.9, late)):
            assert np.isfinite(x).all(), x
            assert np.abs(x).max() < 1e4, x


def equations_outside_branches(jaxpr):
    """The names of primitives, those in the branches of a `cond` left out."""
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name
        if eqn.primitive.name != "cond":
            inside = jax.tree.leaves(eqn.params, is_leaf=lambda x: hasattr(x, "jaxpr"))
            for inner in inside:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations_outside_branches(inner)


@pytest.mark.parametrize("way", ["calls", "stack"])
@pytest.mark.parametrize("make", BOTH)
def test_roots_are_really_skipped(monkeypatch, make, way):
    """Decompositions stand in the branches of conditions alone, as calls, as stacks, in batches of
    matrices and in a sweep over another number; in a sweep over k they cannot.
    """
    monkeypatch.setattr(placement, "way", lambda: way)
    params = {"a": jnp.ones((3, 5)), "b": jnp.ones((5, 3)), "layers": {"w": jnp.ones((2, 3, 5))}}

    def outside(tx, axes=None):
        update = lambda tx, g, s: tx.update(g, s, g)  # noqa: E731
        swept = update if axes is None else jax.vmap(update, (axes, None, None))
        state = jax.eval_shape(make(matrices=gx.matrix()).init, params)
        return {*equations_outside_branches(jax.make_jaxpr(swept)(tx, params, state).jaxpr)}

    names = outside(make(matrices=gx.matrix(), spread=2))
    assert "cond" in names
    assert "eigh" not in names
    decays = make(jnp.array([0.8, 0.9]), matrices=gx.matrix())
    assert "eigh" not in outside(decays, jax.tree.map(lambda x: 0 if jnp.ndim(x) else None, decays))
    often = make(matrices=gx.matrix(), precondition_frequency=jnp.array([2, 3]))
    assert "eigh" in outside(often, jax.tree.map(lambda x: 0 if jnp.ndim(x) else None, often))


def test_roots_spread_over_steps():
    """Two groups of matrices of one shape: all at first, then each at its own step."""
    g = {name: {"kernel": jnp.asarray(WIDE)} for name in "abcd"}
    tx = gx.scale_by_shampoo(0.5, precondition_frequency=4, spread=2)

    def body(state, scale):
        _, state = tx.update(jax.tree.map(lambda x: x * scale, g), state)
        return state, [state.slots["left_root"][name]["kernel"] for name in "abcd"]

    roots = jax.jit(lambda: jax.lax.scan(body, tx.init(g), 1.0 + jnp.arange(9.0)))()[1]
    changed = np.array([[*(np.abs(np.diff(x, axis=0)).max((1, 2)) > 0)] for x in roots]).T
    steps = {2 + int(i): "".join(np.array([*"abcd"])[row]) for i, row in enumerate(changed)}
    assert {t: names for t, names in steps.items() if names} == {2: "bd", 5: "ac", 6: "bd", 9: "ac"}


def test_grafted_steps_have_the_other_lengths_matrix_by_matrix():
    g = {"layers": {"w": jnp.asarray(np.stack([WIDE, 3 * WIDE[::-1]]))}, "b": jnp.arange(3.0)}
    matrices = gx.by_path({"b": None, "**": gx.matrix()})
    shampoo = gx.partition(
        {"matrix": gx.scale_by_shampoo(matrices=matrices), "rest": gx.scale(7.0)},
        gx.matrix_labels(matrices),
    )
    step, own = (first(tx, g) for tx in (gx.graft(shampoo, ADAM, matrices=matrices), shampoo))
    w = step["layers"]["w"]
    lengths = np.linalg.norm(w, axis=(1, 2))
    np.testing.assert_allclose(lengths, np.sqrt(15), rtol=1e-5)  # Adam's first step is of signs
    directions = own["layers"]["w"] / np.linalg.norm(own["layers"]["w"], axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(w / lengths[:, None, None], directions, atol=1e-6)
    np.testing.assert_allclose(step["b"], np.sqrt(2 / 5) * np.arange(3.0), rtol=1e-5)
    late = first(gx.graft(shampoo, ADAM, 2, matrices=matrices), g)
    np.testing.assert_allclose(late["layers"]["w"], np.sign(g["layers"]["w"]), rtol=1e-5)


def test_kl_shampoo_is_the_same_at_any_scale_and_whitens():
    def step(scale):
        return first(gx.scale_by_kl_shampoo(), {"kernel": scale * WIDE})["kernel"]

    for scale in (1e-25, 1e25):
        np.testing.assert_allclose(step(np.float32(scale)), step(1.0), rtol=2e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_kl_shampoo_finds_a_kronecker_product():
    """Of gradients A^1/2 Z B^1/2 the covariance is A ⊗ B, which is where L ⊗ R goes."""
    draw = np.random.default_rng(2)
    a, b = np.diag([1.0, 4.0]), np.array([[2.0, 1.0, 0.0], [1.0, 3.0, 0.0], [0.0, 0.0, 0.5]])
    z = draw.normal(size=(4000, 2, 3))
    grads = np.linalg.cholesky(a) @ z @ np.linalg.cholesky(b).T
    tx = gx.scale_by_kl_shampoo(0.999, precondition_frequency=1)

    def body(state, g):
        return tx.update({"kernel": g}, state)[1], None

    state = tx.init({"kernel": jnp.zeros((2, 3))})
    slots = jax.jit(lambda s, g: jax.lax.scan(body, s, g))(state, jnp.asarray(grads))[0].slots
    found = np.kron(slots["left"]["kernel"], slots["right"]["kernel"])
    np.testing.assert_allclose(found, np.kron(a, b), atol=0.15 * np.kron(a, b).max())


def test_complex_matrices():
    c = (WIDE + 1j * WIDE[:, ::-1]).astype(np.complex64)
    tx = gx.graft(gx.scale_by_shampoo(0.0, **NO_RIDGE), gx.identity())
    u = np.asarray(first(tx, {"kernel": c})["kernel"])
    u = u * np.sqrt(3) / np.linalg.norm(c)
    np.testing.assert_allclose(u @ u.conj().T, np.eye(3), atol=1e-5)


def test_what_is_no_matrix_goes_to_the_rest():
    params = {"dense": {"kernel": jnp.ones((3, 5)), "bias": jnp.ones(5)}}
    for make in (gx.shampoo, gx.kl_shampoo):
        state = jax.eval_shape(make(1e-3).init, params)
        assert jax.tree.leaves(state["rest"])
    with pytest.raises(ValueError, match=r"scale_by_shampoo: 'dense/bias' of shape \[5\] is no"):
        gx.scale_by_shampoo().init(params)
    with pytest.raises(ValueError, match="scale_by_shampoo: sides must be one of"):
        gx.scale_by_shampoo(sides="top")
