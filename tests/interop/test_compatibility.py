"""What a script that said `import optax` finds under `import gradxform as optax`, beyond the transformations."""

import importlib
import sys
import types
from collections import Counter
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradxform as gx
from gradxform.cli import main as cli
from gradxform.interop.optax import names as compatibility
from gradxform.interop.optax.classes import is_state


def test_losses_are_those_of_optax():
    assert gx.softmax_cross_entropy is optax.losses.softmax_cross_entropy
    assert gx.losses.l2_loss is optax.losses.l2_loss
    with pytest.raises(
        AttributeError, match=r"gradxform\.losses has no 'l3_loss'; did you mean 'l2_loss'"
    ):
        gx.losses.l3_loss  # noqa: B018


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Adam", "gradxform has no 'Adam'; did you mean 'adam'?"),
        ("adm", "gradxform has no 'adm'; did you mean 'adam'?"),
        ("chian", "gradxform has no 'chian'; did you mean 'chain'?"),
        ("lbgfs", "gradxform has no 'lbgfs'; did you mean 'lbfgs'?"),
        ("clip_by_globalnorm", "did you mean 'clip_by_global_norm'"),
        ("no_such_thing", "gradxform has no 'no_such_thing'"),
    ],
)
def test_an_unknown_name_names_the_nearest(name, words):
    with pytest.raises(AttributeError) as error:
        getattr(gx, name)
    assert words in str(error.value)
    assert "losses" not in str(error.value)


def test_names_of_optax_without_optax_say_where_to_get_them(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "optax"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optax", None)
    for name in ("l2_loss", "lbfgs", "MaskedNode"):
        with pytest.raises(AttributeError, match=f"no '{name}'.*pip install optax"):
            getattr(gx, name)
    with pytest.raises(AttributeError, match="did you mean 'adam'"):
        gx.adm  # noqa: B018
    with pytest.raises(AttributeError, match="pip install optax"):
        gx.losses.l2_loss  # noqa: B018
    monkeypatch.delitem(sys.modules, "gradxform.projections", raising=False)
    with pytest.raises(ImportError, match=r"named 'gradxform\.projections'; .*pip install optax"):
        importlib.import_module("gradxform.projections")
    with pytest.raises(ImportError, match="to_optax needs Optax: pip install optax"):
        gx.to_optax(gx.adam(0.1))
    assert gx.EmptyState() == ()


ROWS = {row.name: row for row in compatibility.rows(gx)}


def rows(status):
    return [name for name, row in ROWS.items() if row.status == status]


def test_the_page_is_what_the_command_prints(capsys):
    assert cli.main(["list", "--compatibility"]) == 0
    page = Path(__file__).parents[2] / "docs" / "compatibility.md"
    assert capsys.readouterr().out == page.read_text(), (
        "gradxform list --compatibility > docs/compatibility.md"
    )


def test_the_readme_links_the_page():
    assert "(docs/compatibility.md)" in (Path(__file__).parents[2] / "README.md").read_text()


def test_every_public_name_of_optax_has_a_row():
    modules = {
        name: x
        for name, x in vars(optax).items()
        if isinstance(x, types.ModuleType) and not name.startswith("_")
    }
    apart = {name for name in compatibility.APART if "." not in name}
    assert modules.keys() == {path.partition(".")[2] for path in compatibility.SHARED[1:]} | apart
    for module in (optax, *modules.values(), optax.experimental.aggregating):
        for name in compatibility.public(module):
            full = f"{module.__name__.removeprefix('optax.').replace('._', '.')}.{name}"
            assert name in ROWS or full in ROWS, full
    assert set(optax.__all__) & vars(optax).keys() - modules.keys() <= ROWS.keys()
    assert len(ROWS) > 350


@pytest.mark.parametrize("name", rows(compatibility.SAME))
def test_what_is_the_same_takes_the_same_calls(name):
    row = ROWS[name]
    assert compatibility.mismatch(row.theirs, row.ours) is None


def test_what_differs_is_here_and_said_once():
    assert {*rows(compatibility.DIFFERENT)} == compatibility.HOW.keys()


@pytest.mark.parametrize("name", rows(compatibility.PASSED))
def test_what_is_passed_through_is_optax_s(name):
    found = gx
    for part in name.split("."):
        found = getattr(found, part)
    theirs = ROWS[name].theirs
    assert found is theirs or (is_state(theirs) and issubclass(found, theirs))


def test_nothing_is_absent():
    assert not rows(compatibility.ABSENT)
    assert Counter(row.status for row in ROWS.values()).keys() == {
        "same",
        "different",
        "passed through",
    }


def test_what_optax_has_anew_is_passed_through(monkeypatch):
    monkeypatch.setattr(optax, "novel", lambda x: x, raising=False)
    assert gx.novel is optax.novel
    found = {row.name: row.status for row in compatibility.rows(gx)}
    assert found["novel"] == compatibility.PASSED
    monkeypatch.setattr(optax.tree, "novel", lambda x: x, raising=False)
    found = {row.name: row.status for row in compatibility.rows(gx)}
    assert found["tree.novel"] == compatibility.ABSENT, "so that the page cannot say otherwise"


def optaxs(a, b=2, *, c=3):
    pass


@pytest.mark.parametrize(
    ("ours", "words"),
    [
        (lambda a, b=2, *, c=3: 0, None),
        (lambda a=1, b=2, c=3, *, d=4: 0, None),
        (lambda a, b=2: 0, "no c="),
        (lambda b, a=2, *, c=3: 0, "a is not argument 0"),
        (lambda a, *, b=2, c=3: 0, "b is not argument 1"),
        (lambda a, b=1, *, c=3: 0, "b=1, not 2"),
        (lambda a, b=2, *, c=3, d: 0, "d is required"),
        (lambda a, /, b=2, *, c=3: 0, "a is positional only"),
    ],
)
def test_how_signatures_are_compared(ours, words):
    assert compatibility.mismatch(optaxs, ours) == words


def test_defaults_that_are_functions_are_compared_by_value():
    assert compatibility.mismatch(lambda f=lambda x: x + 1: 0, lambda f=lambda y: 1 + y: 0) is None
    assert compatibility.mismatch(lambda f=lambda x: x: 0, lambda f=lambda x: 2 * x: 0) is not None


@pytest.mark.parametrize(
    "module", ["contrib", "schedules", "transforms", "losses", "tree", "tree_utils", "projections"]
)
def test_modules_of_names(module):
    mine, theirs = getattr(gx, module), importlib.import_module(f"optax.{module}")
    for name in compatibility.public(theirs):
        assert getattr(mine, name) is not None
    if module in ("contrib", "transforms"):
        assert set(dir(mine)) <= set(dir(theirs))
        with pytest.raises(AttributeError, match="no_such_thing"):
            mine.no_such_thing  # noqa: B018


def test_names_are_imported_from_modules():
    from gradxform.contrib import prodigy
    from gradxform.transforms import ema

    assert prodigy is gx.prodigy
    assert ema is gx.ema


# What is left to Optax works inside our chain


def quadratic(params):
    return jnp.sum((params["w"] - jnp.arange(4.0)) ** 2 * jnp.array([1.0, 2.0, 4.0, 8.0]))


def minimised(tx, steps):
    params = {"w": jnp.zeros(4)}
    state = tx.init(params)

    @jax.jit
    def step(params, state):
        value, gradients = jax.value_and_grad(quadratic)(params)
        updates, state = tx.update(
            gradients, state, params, value=value, grad=gradients, value_fn=quadratic
        )
        return gx.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
    return params["w"]


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(
    "make",
    [
        lambda: gx.chain(optax.lbfgs()),
        lambda: gx.chain(
            gx.clip_by_global_norm(1e3),
            optax.scale_by_lbfgs(),
            gx.scale(-1.0),
            optax_backtracking(),
        ),
        lambda: gx.chain(gx.scale(-1.0), optax.scale_by_zoom_linesearch(max_linesearch_steps=15)),
        lambda: gx.chain(gx.sgd(1.0), optax_backtracking()),
    ],
    ids=["lbfgs", "scale_by_lbfgs", "zoom", "backtracking"],
)
def test_lbfgs_and_line_searches_work_inside_our_chain(make):
    np.testing.assert_allclose(minimised(make(), 40), jnp.arange(4.0), atol=1e-2)


def optax_backtracking():
    return optax.scale_by_backtracking_linesearch(max_backtracking_steps=15)


@pytest.mark.usefixtures("standard_promotion")
def test_other_transformations_of_optax_work_inside_our_chain():
    params = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
    for part in (
        optax.flatten(optax.scale(2.0)),
        optax.contrib.split_real_and_imaginary(optax.scale(2.0)),
    ):
        tx = gx.chain(part, gx.scale(-1.0))
        updates, _ = tx.update(params, tx.init(params), params)
        jax.tree.map(lambda u: np.testing.assert_allclose(u, -2.0), updates)


def test_perturbations_and_assignment_work_beside_ours():
    argmax = optax.perturbations.make_perturbed_fun(
        lambda x: jax.nn.one_hot(jnp.argmax(x), 3), num_samples=100
    )
    params = jnp.array([0.1, 0.2, 0.3])
    tx = gx.adam(0.1)
    gradient = jax.grad(lambda p: -argmax(jax.random.key(0), p)[0])(params)
    updates, _ = tx.update(gradient, tx.init(params), params)
    assert updates[0] > 0
    rows, columns = optax.assignment.hungarian_algorithm(jnp.array([[0.0, 1.0], [1.0, 0.0]]))
    assert rows.tolist() == columns.tolist() == [0, 1]


# The smaller names


def test_a_transformation_of_two_functions():
    def init(params):
        return gx.EmptyState()

    def update(updates, state, params=None):
        return jax.tree.map(lambda u: -u, updates), state

    tx = gx.GradientTransformation(init, update)
    assert isinstance(tx, gx.GradientTransformation)
    assert isinstance(gx.adam(0.1), gx.GradientTransformationExtraArgs)
    assert gx.with_extra_args_support(optax.scale(2.0)).init(jnp.ones(2)) == optax.ScaleState()
    chained = gx.named_chain(("minus", tx), ("twice", gx.scale(2.0)))
    updates, state = chained.update({"w": jnp.ones(2)}, chained.init({"w": jnp.ones(2)}))
    np.testing.assert_array_equal(updates["w"], -2.0)
    assert state["minus"] == gx.init_empty_state({"w": jnp.ones(2)}) == ()
    with pytest.raises(TypeError, match=r"\(name, transformation\) pair"):
        gx.named_chain(gx.scale(2.0))


def test_target_networks():
    new, old = {"w": jnp.arange(3.0), "b": None}, {"w": jnp.ones(3), "b": None}
    mine, theirs = gx.incremental_update(new, old, 0.1), optax.incremental_update(new, old, 0.1)
    np.testing.assert_allclose(mine["w"], theirs["w"], rtol=1e-6)
    assert mine["b"] is None
    narrow = gx.incremental_update(
        {"w": jnp.ones(3)}, {"w": jnp.zeros(3, jnp.bfloat16)}, jnp.float32(0.5)
    )
    assert narrow["w"].dtype == jnp.bfloat16
    for step in (0, 3, 4):
        mine, theirs = (
            gx.periodic_update(new, old, step, 4),
            optax.periodic_update(new, old, step, 4),
        )
        np.testing.assert_array_equal(mine["w"], theirs["w"])


@pytest.mark.parametrize(
    "count", [np.int32(3), np.int32(2**31 - 1), np.uint8(255), np.float32(1.5)]
)
def test_counters_stop_at_the_largest_number(count):
    assert gx.safe_increment(count) == optax.safe_increment(count)
    assert gx.safe_int32_increment(count).dtype == count.dtype
    with pytest.raises(ValueError, match="a count must be integer or real"):
        gx.safe_increment(1j)


@pytest.mark.parametrize("x", [np.zeros((2, 3), np.float32), np.full((2, 3), 2.0, np.float32)])
def test_norms_with_a_bound_and_their_slopes(x):
    for keywords in ({}, {"axis": 0}, {"axis": 1, "keepdims": True}, {"ord": 1}):
        pairs = [(gx.safe_norm, optax.safe_norm)] if not keywords else []
        np.testing.assert_allclose(
            gx.safe_norm(x, 0.1, **keywords), optax.safe_norm(x, 0.1, **keywords), rtol=1e-6
        )
        for mine, theirs in [*pairs, (gx.safe_root_mean_squares, optax.safe_root_mean_squares)]:
            np.testing.assert_allclose(mine(x, 0.1), theirs(x, 0.1), rtol=1e-6)
            slopes = jax.grad(mine)(x, 0.1), jax.grad(theirs)(x, 0.1)
            np.testing.assert_allclose(*slopes, rtol=1e-6)
            assert np.isfinite(slopes[0]).all()


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, -2.0])
def test_a_gradient_scaled_on_its_way_back(scale):
    def through(module):
        return jax.value_and_grad(
            lambda x: jnp.sum(module.scale_gradient({"x": x}, scale)["x"] ** 2)
        )(jnp.arange(3.0))

    chex.assert_trees_all_close(through(gx), through(optax), rtol=1e-7)


def test_other_small_names():
    g = jnp.arange(1.0, 5.0)
    mine, theirs = (m.transforms.unitwise_clip(g, jnp.full(4, 2.0), 3 * g) for m in (gx, optax))
    np.testing.assert_allclose(mine, theirs)
    with pytest.raises(ValueError, match="all must have one shape"):
        gx.unitwise_clip(g, jnp.ones(()), g)
    tx = gx.contrib.normalize()
    np.testing.assert_allclose(
        tx.update(g, tx.init(g))[0], optax.contrib.normalize().update(g, ())[0], rtol=1e-6
    )
    np.testing.assert_array_equal(tx.update(0 * g, tx.init(g))[0], 0.0)
    averaged = gx.params_ema(gx.sgd(0.1), 0.9)
    state = averaged.init(g)
    np.testing.assert_array_equal(
        gx.contrib.schedule_free_eval_params(state, g), gx.eval_params(state, g)
    )


@pytest.mark.slow
def test_masks_are_functions_of_the_parameters():
    params = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "norm": jnp.ones(3)}
    masks = (
        lambda p: jax.tree.map(lambda x: x.ndim > 1, p),
        lambda p: {"dense": True, "norm": False},  # a prefix of the parameters
        {"dense": {"kernel": True, "bias": False}, "norm": False},
        True,
    )
    for mask in masks:
        for make in (
            lambda o, mask: o.adamw(0.1, weight_decay=0.5, mask=mask),
            lambda o, mask: o.chain(o.add_decayed_weights(0.5, mask=mask), o.scale(-1.0)),
            lambda o, mask: o.lamb(0.1, weight_decay=0.5, mask=mask),
            lambda o, mask: o.lars(
                0.1, weight_decay=0.5, weight_decay_mask=mask, trust_ratio_mask=mask
            ),
            lambda o, mask: o.masked(o.scale(2.0), mask),
            lambda o, mask: o.contrib.dog(weight_decay=0.5, mask=mask),
        ):
            with jax.numpy_dtype_promotion("standard"):
                theirs = make(optax, mask)
                expected, _ = theirs.update(params, theirs.init(params), params)
            mine = make(gx, mask)
            updates, _ = jax.jit(mine.update)(params, mine.init(params), params)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updates, expected
            )
