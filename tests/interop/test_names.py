"""What libraries and scripts ask under Optax's name: of what class a thing is, which module a name is in, a saved state."""

import importlib
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization

import gradxform as gx

# Classes


def test_isinstance_of_transformations():
    ours, theirs, plain = gx.adam(0.1), optax.adam(0.1), optax.GradientTransformation(print, print)
    for cls in (gx.GradientTransformation, gx.GradientTransformationExtraArgs):
        assert isinstance(ours, cls)
        assert isinstance(gx.to_optax(ours), cls)
        assert isinstance(theirs, cls)
        assert not isinstance((print, print), cls)
        assert not isinstance(gx.EmptyState(), cls)
    assert isinstance(plain, gx.GradientTransformation)
    assert not isinstance(plain, gx.GradientTransformationExtraArgs)
    assert isinstance(ours._replace(update=print), gx.GradientTransformation)
    assert isinstance(gx.GradientTransformationExtraArgs(print, print), gx.GradientTransformation)


@pytest.mark.parametrize(
    "tx", [gx.sgd(0.1), gx.chain(("first", gx.sgd(0.1))), gx.tunable(gx.sgd(0.1))]
)
def test_a_transformation_is_read_as_a_pair(tx):
    assert tx[0] == tx.init
    assert tx[1] == tx.update
    assert tx[-1:] == (tx.update,)
    with pytest.raises(IndexError):
        tx[2]
    params = {"w": jnp.ones(2)}

    def twice(updates, state, params=None, **extra):
        updates, state = tx.update(updates, state, params, **extra)
        return jax.tree.map(lambda u: 2 * u, updates), state

    other = tx._replace(update=twice)
    updates, _ = other.update(params, other.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.2, rtol=1e-6)
    chained = gx.chain(other, gx.scale(2.0))
    updates, _ = chained.update(params, chained.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.4, rtol=1e-6)
    with pytest.raises(ValueError, match="unexpected field names"):
        tx._replace(step=twice)


def test_extra_arguments_inside_optax_s_chain():
    params = {"w": jnp.ones(2)}
    for tx, fits in ((gx.polyak_sgd(1.0), False), (gx.to_optax(gx.polyak_sgd(1.0)), True)):
        chained = optax.chain(optax.identity(), tx)
        assert isinstance(tx, optax.GradientTransformationExtraArgs) is fits
        state = chained.init(params)
        if fits:
            updates, _ = chained.update(params, state, params, value=1.0)
            np.testing.assert_allclose(updates["w"], -0.5, rtol=1e-6)  # value / |g|²
        else:
            with pytest.raises((TypeError, ValueError), match="value"):
                chained.update(params, state, params, value=1.0)
    theirs = optax.adam(0.1)
    assert gx.to_optax(theirs) is theirs
    assert gx.interop.to_optax is gx.to_optax
    wrapped = gx.to_optax(optax.GradientTransformation(*optax.scale(2.0)))
    assert isinstance(wrapped, optax.GradientTransformationExtraArgs)
    assert wrapped.update(params, wrapped.init(params), params, value=1.0)[0]["w"][0] == 2.0


def test_to_optax_steps_as_the_transformation_does():
    tx, params = gx.chain(gx.clip(0.5), gx.adamw(0.1)), {"w": jnp.arange(3.0)}
    theirs = gx.to_optax(tx)
    state, other = tx.init(params), theirs.init(params)
    for _ in range(2):
        a, state = tx.update(params, state, params)
        b, other = theirs.update(params, other, params)
        jax.tree.map(np.testing.assert_array_equal, (a, state), (b, other))


STATES = {
    "ScaleByAdamState": lambda: gx.scale_by_adam(),
    "ScaleByLionState": lambda: gx.scale_by_lion(),
    "ScaleByBeliefState": lambda: gx.scale_by_belief(),
    "TraceState": lambda: gx.trace(0.9),
    "EmaState": lambda: gx.ema(0.9),
    "ScaleByRmsState": lambda: gx.scale_by_rms(),
    "EmptyState": lambda: gx.scale(2.0),
    "MultiStepsState": lambda: gx.MultiSteps(gx.sgd(0.1), 2),
    "ApplyIfFiniteState": lambda: gx.apply_if_finite(gx.sgd(0.1), 2),
    "InjectStatefulHyperparamsState": lambda: gx.inject_hyperparams(gx.sgd)(0.1),
    "InjectHyperparamsState": lambda: gx.inject_hyperparams(gx.sgd)(0.1),
    "ScaleByScheduleState": lambda: gx.scale_by_learning_rate(gx.linear_schedule(1.0, 0.0, 9)),
}


@pytest.mark.parametrize("name", STATES)
def test_isinstance_of_states(name):
    cls = getattr(gx, name)
    assert isinstance(STATES[name]().init({"w": jnp.ones(2)}), cls)
    others = [x().init({"w": jnp.ones(2)}) for other, x in STATES.items() if other[:6] != name[:6]]
    wrong = [x for x in others if isinstance(x, cls)]
    by_slots = {"TraceState", "ScaleByRmsState", "EmaState", "ScaleByLionState"}
    assert not wrong or name in by_slots
    assert not isinstance(jnp.ones(2), cls)
    assert not isinstance((), cls)


def test_states_are_found_in_a_tree():
    params = {"w": jnp.ones(2)}
    for o in (optax, gx):
        tx = o.chain(o.clip_by_global_norm(1.0), o.scale_by_adam(), o.scale(-1.0))
        found = jax.tree.leaves(
            tx.init(params), is_leaf=lambda x, o=o: isinstance(x, o.ScaleByAdamState)
        )
        assert sum(isinstance(x, o.ScaleByAdamState) for x in found) == 1
    assert not isinstance(gx.adabelief(0.1).init(params), gx.ScaleByAdamState)
    assert isinstance(gx.adamw(0.1).init(params), gx.ScaleByAdamState)
    assert not isinstance(gx.adamw(0.1).init(params), gx.EmaState)
    assert isinstance(gx.chain(gx.scale(2.0), gx.sgd(0.1, 0.9)).init(params)[1], gx.TraceState)


def test_a_masked_leaf_is_a_masked_node():
    params = {"w": jnp.ones(2), "b": jnp.ones(1)}
    for o in (optax, gx):
        tx = o.masked(o.trace(0.9), {"w": True, "b": False})
        is_masked = lambda x, o=o: isinstance(x, o.MaskedNode)  # noqa: E731
        leaves = jax.tree.leaves(tx.init(params), is_leaf=is_masked)
        assert [is_masked(x) for x in leaves if is_masked(x) or jnp.ndim(x)] == [True, False]


def test_a_state_class_makes_optax_s_state():
    state = gx.ScaleByAdamState(count=1, mu=2, nu=3)
    assert type(state) is optax.ScaleByAdamState
    assert isinstance(state, gx.ScaleByAdamState)
    assert not isinstance(state, gx.EmaState)
    assert gx.ScaleByAdamState._fields == optax.ScaleByAdamState._fields
    assert issubclass(gx.ScaleByAdamState, optax.ScaleByAdamState)
    assert isinstance(optax.adam(0.1).init(jnp.ones(2))[0], gx.ScaleByAdamState)
    assert isinstance(optax.EmptyState(), gx.EmptyState)
    assert gx.MultiTransformState is gx.PartitionState
    assert gx.ScaleState is gx.EmptyState
    assert jax.tree.map(lambda x: x, gx.EmptyState()) == gx.EmptyState() == optax.EmptyState()
    assert pickle.loads(pickle.dumps(gx.EmptyState())) == ()


def test_parameters_in_a_pair_for_lookahead_are_an_error():
    """They are plain here: what Optax's `LookaheadParams` holds would be twice the parameters."""
    tx = gx.lookahead(gx.sgd(0.1), 5, 0.5)
    for params in ({"w": jnp.ones(2)}, jnp.ones(2)):
        pair = gx.LookaheadParams.init_synced(params)
        with pytest.raises(ValueError, match=r"the parameters .*'fast.*'slow"):
            tx.update(params, tx.init(pair), pair)


# Modules


def test_modules_of_optax_are_imported_under_our_name():
    import gradxform.assignment
    import gradxform.microbatching
    import gradxform.perturbations
    from gradxform.experimental import aggregating
    from gradxform.projections import projection_simplex
    from gradxform.second_order import hvp

    assert aggregating is optax.experimental.aggregating
    assert projection_simplex is optax.projections.projection_simplex
    assert hvp is optax.second_order.hvp
    assert gradxform.assignment is optax.assignment is gx.assignment
    assert gradxform.perturbations is optax.perturbations
    assert gradxform.microbatching is optax.microbatching
    assert "microbatching" not in dir(gx)
    assert importlib.import_module("gradxform._src.base") is optax._src.base
    assert gx.schedules.WrappedSchedule is optax.schedules.WrappedSchedule
    assert gx.schedules.inject_hyperparams is gx.inject_hyperparams
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'gradxform\.no_such_module'"):
        importlib.import_module("gradxform.no_such_module")


SHIM = """
import sys
{before}
import gradxform
sys.modules["optax"] = gradxform
import optax, optax.contrib, optax.projections
from optax.losses import l2_loss
from optax.second_order import hvp
from optax._src import base
import jax, pickle
assert optax is gradxform and optax.adam is gradxform.adam
assert optax.softmax_cross_entropy.__module__.startswith("optax.losses")
assert optax.lbfgs.__module__ == "optax._src.alias"
assert optax.contrib.prodigy is gradxform.prodigy
assert optax.projections.projection_simplex is gradxform.projections.projection_simplex
assert isinstance(base.identity(), optax.GradientTransformation)
state = optax.ScaleByAdamState(1, 2, 3)
assert pickle.loads(pickle.dumps(state)) == state and type(state).__module__ == "optax._src.transform"
assert type(optax.to_optax(optax.adam(0.1))).__module__ == "optax._src.base"
assert optax is sys.modules["optax"] is gradxform
try:
    optax.no_such_thing
except AttributeError as error:
    print(error)
"""


SLOW = pytest.mark.slow


@pytest.mark.parametrize("before", ["", pytest.param("import optax", marks=SLOW)])
def test_gradxform_under_optax_s_name(before):
    code = SHIM.format(before=before)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    assert out.stdout == "gradxform has no 'no_such_thing'\n"


FLAX = """
{first}
import jax.numpy as jnp
tx = gx.tunable(gx.chain(gx.clip(1.0), gx.adam(gx.linear_schedule(1.0, 0.5, 9))))
state = tx.init({{"w": jnp.ones(2)}})
from flax import serialization
back = serialization.from_bytes(state, serialization.to_bytes(state))
import jax
assert jax.tree.structure(back) == jax.tree.structure(state)
for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True):
    assert (a == b).all()
assert "flax" in sys.modules
"""


@pytest.mark.parametrize(
    "first",
    [
        "import sys, gradxform as gx",
        pytest.param("import sys, flax, gradxform as gx", marks=SLOW),
        pytest.param("import sys, gradxform as gx, flax", marks=SLOW),
    ],
)
def test_flax_serializes_an_optimizer_in_its_state_in_any_order_of_imports(first):
    code = FLAX.format(first=first)
    subprocess.run([sys.executable, "-c", code], check=True)


def test_flax_serializes_every_kind_of_optimizer():
    params = {"w": jnp.ones(2)}
    inside = (
        gx.adam(0.1),
        gx.dpsgd(0.1, 1.0, 1.0, 0),
        gx.accumulate(gx.sgd(0.1), 2),
        gx.scale(2.0),
    )
    for tx in inside:
        state = gx.tunable(tx).init(params)
        back = serialization.from_bytes(state, serialization.to_bytes(state))
        assert jax.tree.structure(back) == jax.tree.structure(state), tx
