"""Against NumPy written from the papers, and against what torch, pytorch_optimizer and prodigyopt computed in float64."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_structure as ref
from replay import flat, recorded

import gradxform as gx

GOLDEN = recorded("structure")
START = {leaf: GOLDEN[f"start/{leaf}"] for leaf in "wb"}
GRADS = {leaf: GOLDEN[f"grads/{leaf}"] for leaf in "wb"}
STEPS = len(GRADS["b"])
VALUES = np.abs(np.linspace(30.0, 1.0, STEPS) + np.sin(np.arange(STEPS)))


def walk(tx, start, grads):
    """The parameters after each step, and the states."""

    def body(carry, at):
        params, state = carry
        g, value = at
        updates, state = tx.update(g, state, params, value=value)
        params = gx.apply_updates(params, updates)
        return (params, state), (params, state)

    start = jax.tree.map(jnp.asarray, start)
    return jax.lax.scan(
        body, (start, tx.init(start)), (jax.tree.map(jnp.asarray, grads), jnp.asarray(VALUES))
    )[1]


def flat_pair():
    return flat(GRADS), flat(START)


def by_leaf(method):
    return lambda: flat({leaf: method(GRADS[leaf], START[leaf]) for leaf in "wb"})


def whole(method):
    return lambda: method(*flat_pair())


LR = 0.07
PAPERS = {
    "adafactor": (
        lambda: gx.adafactor(LR, convention="paper"),
        by_leaf(lambda g, x: ref.adafactor(g, x, LR)),
    ),
    "adafactor_torch": (
        lambda: gx.adafactor(LR, decay_rate=0.6, weight_decay_rate=0.1, convention="torch"),
        by_leaf(
            lambda g, x: ref.adafactor(
                g, x, LR, decay_rate=0.6, weight_decay=0.1, convention="torch"
            )
        ),
    ),
    "came": (
        lambda: gx.came(LR, 0.8, 0.97, 0.99, weight_decay=0.1),
        by_leaf(lambda g, x: ref.came(g, x, LR, b1=0.8, b2=0.97, b3=0.99, weight_decay=0.1)),
    ),
    "adam_mini": (
        lambda: gx.adam_mini(LR, 0.8, 0.97, 1e-3, weight_decay=0.1),
        by_leaf(lambda g, x: ref.adam_mini(g, x, LR, b1=0.8, b2=0.97, eps=1e-3, weight_decay=0.1)),
    ),
    "adam_mini_rows": (
        lambda: gx.adam_mini(LR, blocks=lambda p: (0,) if p.ndim == 2 else ()),
        by_leaf(lambda g, x: ref.adam_mini(g, x, LR, axes=1 if g.ndim == 3 else None)),
    ),
    "polyak_sgd": (
        lambda: gx.polyak_sgd(0.05, eps=0.1),
        whole(lambda g, x: ref.polyak(g, VALUES, x, cap=0.05, eps=0.1)),
    ),
    "momo": (
        lambda: gx.momo(0.05, 0.8, 0.5, 0.1),
        whole(lambda g, x: ref.momo(g, VALUES, x, 0.05, beta=0.8, f_min=0.5, weight_decay=0.1)),
    ),
    "dog": (
        lambda: gx.dog(1.0, ("heuristic", 0.01)),
        whole(lambda g, x: ref.dog(g, x, heuristic=0.01)),
    ),
    "dog_distance": (
        lambda: gx.dog(1.0, ("distance", 0.1)),
        whole(lambda g, x: ref.dog(g, x, first=0.1)),
    ),
    "ldog": (
        lambda: gx.scale_by_distance_over_gradients(0.01, global_scale=-1.0),
        by_leaf(lambda g, x: ref.dog(g, x, heuristic=0.01)),
    ),
    "dowg": (lambda: gx.dowg(1.0, 0.01), whole(lambda g, x: ref.dowg(g, x, first=0.01))),
    "cocob": (lambda: gx.cocob(1.0, 20.0), by_leaf(lambda g, x: ref.cocob(g, x, alpha=20.0))),
    "dadapt_adamw": (
        lambda: gx.dadapt_adamw(0.5, (0.8, 0.97), 1e-3, 1e-2, 0.1),
        whole(
            lambda g, x: ref.dadapt_adam(
                g, x, 0.5, b1=0.8, b2=0.97, eps=1e-3, d0=1e-2, weight_decay=0.1
            )
        ),
    ),
    "prodigy": (
        lambda: gx.prodigy(0.5, (0.8, 0.97), 0.9, 1e-3, 1e-2, 0.7, 0.1),
        whole(
            lambda g, x: ref.prodigy(
                g,
                x,
                0.5,
                b1=0.8,
                b2=0.97,
                b3=0.9,
                eps=1e-3,
                d0=1e-2,
                coefficient=0.7,
                weight_decay=0.1,
            )
        ),
    ),
    "mechanize": (
        lambda: gx.mechanize(gx.sgd(0.5), 0.1, 1e-6, 1e-2, 3),
        whole(lambda g, x: ref.mechanic(g, x, 0.5, weight_decay=0.1, eps=1e-6, s_init=1e-2, n=3)),
    ),
    "madgrad": (
        lambda: gx.madgrad(LR, 0.8, eps=1e-4),
        by_leaf(lambda g, x: ref.madgrad(g, x, LR, momentum=0.8, eps=1e-4)),
    ),
    "mars": (
        lambda: gx.mars(LR, 0.8, 0.97, 0.1, 1e-3, 0.1, max_norm=2.0),
        by_leaf(
            lambda g, x: ref.mars(
                g, x, LR, b1=0.8, b2=0.97, gamma=0.1, eps=1e-3, weight_decay=0.1, max_norm=2.0
            )
        ),
    ),
    **{
        f"schedule_free_adamw_at_{place}": (
            lambda place=place: gx.schedule_free_adamw(
                LR, 7, 0.8, 0.97, 1e-3, 0.1, 1.5, r=0.5, decay_at=place, convention="paper"
            ),
            by_leaf(
                lambda g, x, place=place: ref.schedule_free_adamw(
                    g,
                    x,
                    LR,
                    warmup=7,
                    b1=0.8,
                    b2=0.97,
                    eps=1e-3,
                    weight_decay=0.1,
                    power=1.5,
                    r=0.5,
                    decay=place,
                )
            ),
        )
        for place in "yz"
    },
    "asgd": (
        lambda: gx.asgd(LR, 0.1, 0.6, 5.0),
        by_leaf(lambda g, x: ref.asgd(g, x, LR, lambd=0.1, alpha=0.6, t0=5.0)[0]),
    ),
}


@cache
def walks(several):
    """Of several optimizers in one program, which compiles in a fraction of the time: the parameters, and those to evaluate."""

    def all_of_them():
        walked = {name: walk(make(), START, GRADS) for name, make in several}
        averages = {
            name: jax.vmap(gx.eval_params)(states, points)
            for name, (points, states) in walked.items()
        }
        return {name: points for name, (points, _) in walked.items()}, averages

    return jax.jit(all_of_them)()


@pytest.mark.parametrize("name", PAPERS)
def test_follows_its_paper(name, x64):
    points, _ = walks(tuple((name, make) for name, (make, _) in PAPERS.items()))
    np.testing.assert_allclose(flat(points[name]), PAPERS[name][1](), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("convention", ["optax", "paper"])
def test_galore_follows_its_paper(convention, x64):
    for flip in (False, True):  # either side may be the longer
        turn = (lambda x: np.swapaxes(x, -1, -2)) if flip else (lambda x: x)
        expected = ref.galore(
            turn(GRADS["w"]), turn(START["w"]), LR, rank=2, gap=10, scale=0.5, convention=convention
        )
        tx = gx.galore(LR, 2, 10, 0.5, convention=convention)
        got = walk(tx, {"w": turn(START["w"])}, {"w": turn(GRADS["w"])})[0]["w"]
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("convention", ["optax", "paper"])
def test_sophia_follows_its_paper(convention, x64):
    hessians = np.abs(GRADS["w"])
    tx = gx.sophia(
        LR,
        gamma=0.5,
        update_interval=4,
        hessian_diagonal_fn=ABSOLUTE,
        weight_decay=0.1,
        convention=convention,
    )
    expected = ref.sophia(
        GRADS["w"],
        hessians,
        START["w"],
        LR,
        gamma=0.5,
        interval=4,
        weight_decay=0.1,
        convention=convention,
    )
    np.testing.assert_allclose(
        walk(tx, {"w": START["w"]}, {"w": GRADS["w"]})[0]["w"], expected, rtol=1e-10, atol=1e-11
    )


# an estimator without chance
ABSOLUTE = gx.stateless(lambda updates, params: jax.tree.map(jnp.abs, updates))


def _rows(p):
    """A block for each row of a matrix, one for a vector."""
    return (0,) if p.ndim == 2 else ()


# GaLore decomposes in float32, Adam-mini averages in it, and D-Adaptation keeps its sums in it
LOOSE = {"galore": 1e-5, "adam_mini": 1e-5, "dadapt": 1e-6, "dadapt_corrected": 1e-6}
OTHERS = {
    "adafactor": lambda: gx.adafactor(0.05, weight_decay_rate=0.1, convention="torch"),
    "adafactor_late": lambda: gx.adafactor(
        10.0, decay_rate=0.6, clipping_threshold=1.5, convention="torch"
    ),
    "asgd": lambda: gx.asgd(0.05, 0.01, 0.6, 8.0, 0.1),
    "came": lambda: gx.came(0.05, 0.9, 0.99, 0.999, weight_decay=0.1),
    "mars": lambda: gx.mars(0.05, eps=1e-30, weight_decay=0.1),
    "madgrad": lambda: gx.madgrad(0.05, weight_decay=0.1),
    "adagc": lambda: gx.chain(gx.adagc(warmup_steps=6), gx.adam(0.05, 0.9, 0.99)),
    "prodigy": lambda: gx.prodigy(0.5, estim_lr0=1e-2, weight_decay=0.1),
    "prodigy_uncorrected": lambda: gx.prodigy(0.5, estim_lr0=1e-2, convention="prodigyopt"),
    "prodigy_coupled": lambda: gx.chain(
        gx.add_decayed_weights(0.1), gx.prodigy(0.5, estim_lr0=1e-2)
    ),
    "dadapt": lambda: gx.dadapt_adamw(
        estim_lr0=1e-2, weight_decay=0.1, convention="pytorch_optimizer"
    ),
    "dadapt_corrected": lambda: gx.dadapt_adamw(estim_lr0=1e-2),
    "schedule_free_sgd": lambda: gx.schedule_free_sgd(
        0.05, 6, weight_decay=0.1, r=1.0, convention="paper"
    ),
    "schedule_free_adamw": lambda: gx.schedule_free_adamw(
        0.05, 6, 0.8, 0.95, 1e-3, weight_decay=0.1, convention="paper"
    ),
    "schedule_free_at_z": lambda: gx.schedule_free_sgd(
        0.05, b1=0.8, weight_decay=0.1, decay_at="z"
    ),
    "sophia": lambda: gx.sophia(
        0.05, 0.9, 0.95, 1e-3, 0.1, None, 1.0, 0.5, 1, ABSOLUTE, convention="paper"
    ),
    "adam_mini": lambda: gx.adam_mini(0.05, 0.9, 0.95, 1e-3, 0.1, blocks=_rows),
    "prodigy_safeguarded": lambda: gx.prodigy(
        beta3=0.9, estim_lr0=1e-2, estim_lr_coef=0.8, safeguard_warmup=True
    ),
    # one projector throughout: pytorch_optimizer, counting from 1, finds a new one a step earlier; and it decomposes in float32
    "galore": lambda: gx.galore(
        0.05,
        2,
        100,
        base_optimizer=gx.chain(
            gx.ema(0.9), gx.scale_by_rms(0.999, 1e-30, eps_in_sqrt=False, bias_correction=True)
        ),
        convention="paper",
    ),
}


def test_every_recorded_run_is_compared():
    assert {name.split("/")[1] for name in GOLDEN if name.startswith("path/")} == set(OTHERS)


@pytest.mark.parametrize("name", OTHERS)
def test_follows_what_others_computed(name, x64):
    points, averages = (of[name] for of in walks(tuple(OTHERS.items())))
    for leaf in "wb":
        limit = LOOSE.get(name, 1e-9)
        np.testing.assert_allclose(
            points[leaf], GOLDEN[f"path/{name}/{leaf}"], rtol=max(limit, 1e-7), atol=limit
        )
    if f"path/{name}/average_w" in GOLDEN:
        for leaf in "wb":
            np.testing.assert_allclose(
                averages[leaf], GOLDEN[f"path/{name}/average_{leaf}"], rtol=1e-9, atol=1e-10
            )


def test_mars_with_the_gradient_of_this_batch(x64):
    """Its correction is the change of the gradient on one batch, between the last two points."""
    centres = GRADS["w"]

    def loss(params, t):
        return jnp.sum(jnp.cosh(params["w"] - jnp.asarray(centres)[t]))

    def body(carry, t):
        params, state = carry
        g = jax.grad(loss)(params, t)
        updates, state = tx.update(g, state, params, obj_fn=lambda p: loss(p, t))
        params = gx.apply_updates(params, updates)
        return (params, state), params["w"]

    start = {"w": jnp.asarray(START["w"])}
    tx = gx.mars(LR, 0.8, 0.97, 0.3, 1e-3, max_norm=2.0, exact=True)
    got = jax.lax.scan(body, (start, tx.init(start)), jnp.arange(STEPS))[1]
    expected = ref.mars_exact(
        lambda t, x: np.sinh(x - centres[t - 1]),
        START["w"],
        LR,
        b1=0.8,
        b2=0.97,
        gamma=0.3,
        eps=1e-3,
        max_norm=2.0,
        steps=STEPS,
    )
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-11)
    with pytest.raises(TypeError, match="obj_fn="):
        tx.update(start, tx.init(start), start)


def test_numbers_of_sophia_by_path(x64):
    table = {
        name: gx.by_path({"w": 0.5 * x, "**": x})
        for name, x in (("gamma", 0.5), ("b1", 0.9), ("clip_threshold", 1.0))
    }
    tx = gx.sophia(LR, update_interval=4, hessian_diagonal_fn=ABSOLUTE, **table)
    together = walk(tx, START, GRADS)[0]
    for leaf, factor in (("w", 0.5), ("b", 1.0)):
        alone = gx.sophia(
            LR,
            b1=0.9 * factor,
            gamma=0.5 * factor,
            clip_threshold=factor,
            update_interval=4,
            hessian_diagonal_fn=ABSOLUTE,
        )
        expected = walk(alone, {leaf: START[leaf]}, {leaf: GRADS[leaf]})[0][leaf]
        np.testing.assert_allclose(together[leaf], expected, rtol=1e-12)
    with pytest.raises(ValueError, match="update_interval is one number for the whole tree"):
        tx.replace(update_interval=gx.by_path({"**": 4})).update(START, tx.init(START), START)


def test_the_average_of_asgd_is_what_is_evaluated():
    tx, params = gx.asgd(0.1, t0=0.0), {"w": jnp.ones(3)}
    updates, state = tx.update(params, tx.init(params), params)
    params = gx.apply_updates(params, updates)
    np.testing.assert_allclose(gx.eval_params(state, params)["w"], params["w"], rtol=1e-6)


def test_scaling_of_polyak_sgd():
    """Optax measures the scaled gradient, so below the cap a smaller scaling makes a longer step; the paper's form does not."""
    params, g = jnp.ones(3), jnp.array([1.0, 2.0, 2.0])
    steps = {}
    for convention in ("optax", "paper"):
        tx = gx.polyak_sgd(100.0, 0.5, convention=convention)
        steps[convention] = tx.update(g, tx.init(params), params, value=9.0)[0]
    np.testing.assert_allclose(steps["optax"], -2.0 * g, rtol=1e-6)
    np.testing.assert_allclose(steps["paper"], -0.5 * g, rtol=1e-6)


def test_what_is_factored():
    tx = gx.scale_by_factored_rms(min_dim_size_to_factor=4)
    state = tx.init(
        {"a": jnp.ones((4, 6)), "b": jnp.ones((3, 6)), "c": jnp.ones((5, 2, 7)), "d": jnp.ones(9)}
    )
    shapes = {k: {leaf: x.shape for leaf, x in tree.items()} for k, tree in state.slots.items()}
    assert shapes["v_row"] == {"a": (4,), "b": (1,), "c": (5, 2), "d": (1,)}
    assert shapes["v_col"] == {"a": (6,), "b": (1,), "c": (2, 7), "d": (1,)}
    assert shapes["v"] == {"a": (1,), "b": (3, 6), "c": (1,), "d": (9,)}


def test_missing_arguments_are_named():
    params = {"w": jnp.ones(3)}
    for tx in (gx.momo(), gx.polyak_sgd()):
        with pytest.raises(TypeError, match="value="):
            tx.update(params, tx.init(params), params)
    for tx in (gx.sophia(0.1), gx.hutchinson_estimator_diag_hessian()):
        with pytest.raises(TypeError, match="obj_fn="):
            tx.update(params, tx.init(params), params)
    with pytest.raises(ValueError, match="init_step must begin"):
        gx.dog(1.0, ("guess", 1.0))
    with pytest.raises(TypeError, match="a pair of numbers"):
        gx.prodigy(betas=0.9)
    with pytest.raises(ValueError, match="must name every axis"):
        gx.scale_by_galore(weight_dimension_numbers=gx.GaLoreDimensionNumbers(0, 2)).init(
            {"w": jnp.ones((2, 3, 4))}
        )
