"""States by name, and the table of what an optimizer does to each parameter."""

import pickle
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from instances import TRANSFORMATIONS

import gradxform as gx

PARAMS = {
    "block": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    "head": jnp.ones(4, jnp.bfloat16),
}
RATE = gx.linear_schedule(0.1, 0.0, 10)


def ones(tree):
    return jax.tree.map(jnp.ones_like, tree)


def after(tx, steps, params=PARAMS, state=None):
    state = tx.init(params) if state is None else state
    for _ in range(steps):
        _, state = tx.update(ones(params), state, params)
    return state


same = chex.assert_trees_all_equal


def test_what_a_state_holds_is_found_by_the_end_of_its_path():
    state = after(gx.chain(gx.clip(1.0), gx.adam(0.1)), 3)
    adam = state["adam"]
    for name in ("m", "ema/m", "adam/ema/m"):
        same(gx.get(state, name), adam["ema"].slots["m"])
    same(gx.get(state, "m/block/kernel"), adam["ema"].slots["m"]["block"]["kernel"])
    same(gx.get(state, "v/head"), adam["scale_by_rms"].slots["v"]["head"])
    assert int(gx.get(state, "step")) == 3
    assert int(gx.get(state, "ema/step")) == 3
    assert gx.get(state, "ema") is adam["ema"]


@pytest.mark.usefixtures("standard_promotion")
def test_6_the_number_used_is_found_also_when_scheduled():
    """In Optax the value and the schedule's state share the key, and setting it breaks the state."""
    theirs = optax.inject_hyperparams(optax.sgd)(learning_rate=optax.linear_schedule(0.1, 0.0, 10))
    with pytest.raises(KeyError):
        optax.tree.get(theirs.init(PARAMS), "learning_rate")

    for k, expected in enumerate(
        [0.1, 0.1, 0.09, 0.08]
    ):  # before any update, the first; after k updates what the k-th used
        tx = gx.chain(gx.clip_by_global_norm(1.0), gx.adamw(RATE))
        state = after(tx, k)
        np.testing.assert_allclose(gx.get(state, "learning_rate"), expected, rtol=1e-6)
        np.testing.assert_allclose(
            gx.numbers(tx, state)["adamw/learning_rate"], expected, rtol=1e-6
        )
        tunable = gx.tunable(gx.adamw(RATE))
        np.testing.assert_allclose(gx.get(after(tunable, k), "learning_rate"), expected, rtol=1e-6)
        chained = gx.chain(gx.clip(1.0), tunable)
        np.testing.assert_allclose(gx.get(after(chained, k), "learning_rate"), expected, rtol=1e-6)
    jitted = jax.jit(lambda state: gx.get(state, "learning_rate"))(state)
    np.testing.assert_allclose(jitted, 0.08, rtol=1e-6)


STEP_SIZES = {
    "rprop",
    "rprop_torch",
    "scale_by_rprop",
    "scale_by_rprop_torch",
}  # their learning rate is where the steps of their own begin


def used(tx):
    """At the start, and by each of three updates: the schedule, times a warm-up over two steps where there is one."""
    if tx.name == "schedule_free":
        return [0.1, 0.1, 0.1, 0.1]  # that of the base optimizer
    if tx.arguments.get("warmup_steps") is None:
        return [0.1, 0.1, 0.09, 0.08]
    return [0.0, 0.0, 0.045, 0.08] if tx.convention == "optax" else [0.045, 0.045, 0.08, 0.07]


def with_a_learning_rate():
    """Every one; the variants that differ by convention or a flag in the slow tail, but averages."""
    for name, entry in TRANSFORMATIONS.items():
        if "learning_rate" in getattr(entry.make(), "arguments", ()):
            default = name in vars(gx) or name.startswith("schedule_free")
            yield pytest.param(name, marks=() if default else pytest.mark.slow)


def recorded(state):
    """The learning rate used last; of an optimizer that has another one for the rest, its own."""
    try:
        return gx.get(state, "learning_rate")
    except KeyError as error:
        own = [
            x for x in re.findall(r"'([^' ]+)'", str(error)) if not x.startswith(("adam/", "rest/"))
        ]
        (path,) = [x for x in own if "/" in x]
        return gx.get(state, path)


@pytest.mark.parametrize("name", list(with_a_learning_rate()))
def test_every_optimizer_with_a_learning_rate_records_it(name):
    entry = TRANSFORMATIONS[name]
    tx = entry.make().replace(learning_rate=RATE)
    params = {"a": jnp.ones((2, 3)), "b": jnp.ones(3)}
    state = tx.init(params)
    update = jax.jit(lambda state: tx.update(ones(params), state, params, **entry.extra)[1])
    if name in STEP_SIZES:
        with pytest.raises(KeyError, match="step_size"):
            gx.get(state, "learning_rate")
        return
    for k, expected in enumerate(used(tx)):
        state = update(state) if k else state
        np.testing.assert_allclose(recorded(state), expected, rtol=1e-6)
    assert recorded(state).shape == ()


def test_the_record_is_there_whatever_the_learning_rate_is():
    """A number, an array, a schedule: the same structure and types; a table: a tree like the parameters."""
    params = {"a": jnp.ones((2, 3)), "b": None, "c": jnp.ones((), jnp.bfloat16)}
    states = []
    for rate in (
        0.1,
        np.float32(0.1),
        jnp.float32(0.1),
        gx.constant_schedule(0.1),
        lambda step: 0.1,
    ):
        tx = gx.chain(gx.trace(0.9), gx.scale_by_learning_rate(rate))
        for state in (
            tx.init(params),
            after(tx, 2, params),
            jax.jit(lambda tx=tx: after(tx, 2, params))(),
        ):
            states.append(jax.tree.map(jax.typeof, state))
            np.testing.assert_allclose(gx.get(state, "learning_rate"), 0.1, rtol=1e-6)
    assert all(state == states[0] for state in states)
    tx = gx.scale_by_learning_rate(gx.by_path({"a": 0.5, "**": RATE}))
    for k, expected in enumerate([0.1, 0.1, 0.09]):
        got = gx.get(after(tx, k, params), "learning_rate")
        assert jax.tree.structure(got) == jax.tree.structure(params)
        np.testing.assert_allclose([got["a"], got["c"]], [0.5, expected], rtol=1e-6)
    same(gx.get(after(tx, 1, params), "learning_rate/a"), jnp.float32(0.5))
    some = tx.update({"a": jnp.ones((2, 3)), "b": None, "c": None}, tx.init(params))[1]
    assert jax.tree.structure(some) == jax.tree.structure(tx.init(params))


def test_a_record_belongs_to_no_optimizer_and_can_be_donated():
    rate = jnp.float32(0.1)
    params = {"a": jnp.ones(3)}
    tx = gx.sgd(rate, momentum=0.9)

    def step(tx, state):
        return tx.update(params, state, params)[1]

    donating = jax.jit(step, donate_argnums=1)
    state = tx.init(params)
    for _ in range(3):
        state = donating(tx, state)
    assert rate + 0 == gx.get(state, "learning_rate") == jnp.float32(0.1)
    tunable = gx.tunable(tx)
    state = donating(tunable, donating(tunable, tunable.init(params)))
    assert float(gx.get(state, "learning_rate")) == jnp.float32(0.1)


@pytest.mark.slow
def test_stacked_optimizers_record_each_its_own():
    stacked = gx.stack([gx.adam(rate) for rate in (0.1, 0.2)])
    states = jax.vmap(lambda tx: after(tx, 2))(stacked)
    np.testing.assert_allclose(gx.get(states, "learning_rate"), [0.1, 0.2], rtol=1e-6)
    slope = jax.grad(lambda tx: gx.get(after(tx, 2), "learning_rate"))(gx.adam(0.1))
    assert float(slope.learning_rate) == 1.0


def test_a_record_cannot_be_set():
    for rate in (0.1, RATE, gx.by_path({"head": 0.1, "**": RATE})):
        state = after(gx.chain(gx.clip(1.0), gx.adam(rate)), 2)
        for name in ("learning_rate", "adam/scale_by_learning_rate/learning_rate"):
            with pytest.raises(
                ValueError, match=r"records what the last update used.* tunable\(tx\)"
            ):
                gx.set(state, name, 0.5)
    with pytest.raises(ValueError, match="learning_rate/head records what"):
        gx.set(state, "learning_rate/head", 0.5)


def test_a_tunable_state_gives_its_own_number_and_each_schedule_at_its_own_step():
    for tx in (
        gx.sgd(0.1),
        gx.chain(gx.scale_by_rms(0.9), gx.scale_by_learning_rate(0.1)),
        gx.scale_by_learning_rate(0.1),
        gx.accumulate(gx.adam(0.1), 2),
    ):
        state = gx.set(after(gx.tunable(tx), 1), "learning_rate", 0.3)
        assert gx.get(state, "learning_rate") == jnp.float32(0.3)
    for tx in (
        gx.accumulate(gx.adam(RATE), 2),
        gx.chain(gx.clip(1.0), gx.accumulate(gx.adamw(RATE), 2)),
    ):
        np.testing.assert_allclose(
            gx.get(after(gx.tunable(tx), 5), "learning_rate"), 0.09, rtol=1e-6
        )
        np.testing.assert_allclose(gx.get(after(tx, 5), "learning_rate"), 0.09, rtol=1e-6)


def test_a_record_is_no_obstacle_to_another_optimizer():
    table = gx.by_path({"head": 0.1, "**": RATE})
    for old, new in (
        (gx.adam(0.1), gx.adam(table)),
        (gx.adam(table), gx.adam(0.1)),
        (gx.adam(0.1), gx.scale_by_adam()),
        (gx.scale_by_adam(), gx.adam(0.1)),
    ):
        state = gx.migrate(after(old, 2), new.init(PARAMS))
        same(gx.get(state, "m"), gx.get(after(old, 2), "m"))
        assert jax.tree.structure(state) == jax.tree.structure(new.init(PARAMS))
        assert int(gx.get(after(new, 1, state=state), "step")) == 3
    with pytest.raises(ValueError, match="leaves of slot 'learning_rate' and the updates differ"):
        gx.adam(table).update(ones(PARAMS), after(gx.adam(0.1), 2))


def test_numbers_are_those_of_the_last_update_each_at_its_own_step():
    tx = gx.chain(
        gx.scale(gx.linear_schedule(1.0, 0.0, 10)),
        gx.accumulate(gx.chain(gx.scale_by_rms(0.9), gx.scale_by_learning_rate(RATE)), 2),
        gx.partition(
            {"a": gx.sgd(0.1, 0.9), "b": gx.params_ema(gx.sgd(RATE), 0.5)},
            gx.by_path({"head": "a", "**": "b"}),
        ),
        gx.add_decayed_weights(gx.by_path({"head": 0.0, "**": RATE})),
    )
    got = gx.numbers(tx, after(tx, 5))
    assert got["accumulate/every_k"] == 2
    assert got["partition/a/momentum"] == 0.9
    assert got["partition/b/decay"] == 0.5
    expected = {
        "scale/step_size": 0.6,  # the 5th update used step 4
        "accumulate/inner/scale_by_learning_rate/learning_rate": 0.09,  # the inner optimizer has run twice
        "partition/b/sgd/learning_rate": 0.06,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(
        got["add_decayed_weights/weight_decay"].values, [0.0, 0.06], rtol=1e-6
    )
    assert gx.get(after(tx, 5), "a/learning_rate", tx) == 0.1


def test_an_unknown_or_ambiguous_name_lists_what_there_is():
    tx = gx.adam(0.1)
    state = tx.init(PARAMS)
    with pytest.raises(
        KeyError,
        match=r"there is no 'mean'; there are \['ema/step', 'ema/m', .*'scale_by_rms/v'.*\]; the numbers of an",
    ):
        gx.get(state, "mean")
    with pytest.raises(KeyError, match=r"no 'lr'; there are .*'learning_rate'"):
        gx.get(state, "lr", tx)
    with pytest.raises(KeyError, match="get: there is no 'b1'"):
        gx.get(state, "b1")
    with pytest.raises(KeyError, match="set: there is no 'b1'"):
        gx.set(state, "b1", 0.1)
    two = gx.partition({"a": tx, "b": tx}, gx.by_path({"head": "a", "**": "b"}))
    with pytest.raises(KeyError, match=r"'m' may be any of \['a/ema/m', 'b/ema/m'\]"):
        gx.get(two.init(PARAMS), "m")
    with pytest.raises(KeyError, match=r"'b1' may be any of \['a/b1', 'b/b1'\]"):
        gx.get(two.init(PARAMS), "b1", two)
    same(gx.get(two.init(PARAMS), "b/ema/m")["head"], None)


def test_set_changes_one_thing_and_no_types():
    state = after(gx.adam(0.1), 2)
    for name, value in (
        ("step", 0),
        ("m", 0.0),
        ("v/head", 2.0),
        ("ema/m", jax.tree.map(jnp.zeros_like, PARAMS)),
    ):
        changed = gx.set(state, name, value)
        assert jax.tree.map(jax.typeof, changed) == jax.tree.map(jax.typeof, state)
        assert sum(
            x is not y
            for x, y in zip(jax.tree.leaves(changed), jax.tree.leaves(state), strict=True)
        ) == {"step": 3, "m": 3, "ema/m": 3}.get(name, 1)
    np.testing.assert_array_equal(gx.get(gx.set(state, "v/head", 2.0), "v")["head"], 2.0)
    with pytest.raises(ValueError, match="m/head has shape"):
        gx.set(state, "m/head", jnp.ones(3))
    with pytest.raises(ValueError, match="m has the structure"):
        gx.set(state, "m", {"head": jnp.ones(4), "tail": jnp.ones(2)})


def test_6_a_number_in_the_state_is_set_and_a_schedule_is_not_overridden():
    tx = gx.tunable(gx.adam(0.1))
    step = jax.jit(chex.assert_max_traces(lambda state: tx.update(ones(PARAMS), state, PARAMS), 1))
    state = tx.init(PARAMS)
    first, state = step(state)
    second, _ = step(gx.set(state, "learning_rate", 0.2))
    np.testing.assert_allclose(second["head"] / first["head"], 2.0, rtol=1e-2)
    with pytest.raises(ValueError, match=r"learning_rate must lie in \[0, inf\); got -1.0"):
        gx.set(state, "learning_rate", -1.0)
    with pytest.raises(
        ValueError, match=r"learning_rate is linear_schedule.* and cannot become 0.5"
    ):
        gx.set(gx.tunable(gx.adam(RATE)).init(PARAMS), "learning_rate", 0.5)
    inside = gx.tunable(gx.accumulate(gx.adam(0.1), 2)).init(PARAMS)
    assert gx.get(gx.set(inside, "learning_rate", 0.3), "learning_rate") == jnp.float32(0.3)
    with pytest.raises(ValueError, match="b1 must lie in"):
        gx.set(inside, "b1", 1.5)


def test_reset_begins_again_for_all_or_for_some():
    tx = gx.chain(gx.accumulate(gx.adam(RATE), 2), gx.scale(1.0))
    state = after(tx, 5)
    same(gx.reset(state, tx, PARAMS), tx.init(PARAMS))
    some = gx.reset(state, tx, PARAMS, where="block/*")
    fresh = tx.init(PARAMS)
    for slot in ("m", "v", "accumulator"):
        same(gx.get(some, slot)["block"], gx.get(fresh, slot)["block"])
        same(gx.get(some, slot)["head"], gx.get(state, slot)["head"])
        assert np.any(np.asarray(gx.get(state, slot)["head"], np.float32))
    assert int(gx.get(some, "ema/step")) == 2
    for where in (
        lambda path, leaf: path == "head",
        {"block": False, "head": True},
        lambda params: {"block": False, "head": True},
    ):
        one = gx.reset(state, tx, PARAMS, where)
        same(gx.get(one, "m")["head"], jnp.zeros(4))
        same(gx.get(one, "m")["block"], gx.get(state, "m")["block"])
    with pytest.raises(ValueError, match="pattern 'tail' matches no leaf"):
        gx.reset(state, tx, PARAMS, "tail")
    with pytest.raises(ValueError, match="belongs to another transformation"):
        gx.reset(state, gx.adam(0.1), PARAMS)
    tunable = gx.tunable(gx.adam(0.1))
    tuned = gx.set(after(tunable, 2), "learning_rate", 0.7)
    begun = gx.reset(tuned, tunable, PARAMS)
    assert float(gx.get(begun, "learning_rate")) == jnp.float32(0.7)
    assert int(gx.get(begun, "step")) == 0


def test_reset_knows_a_parameter_by_its_path_and_not_by_its_name():
    """A parameter called like a counter or like what a rule keeps for the whole tree."""
    params = {"step": jnp.ones(2), "b1": jnp.ones(3), "m": jnp.ones(2)}
    tx = gx.schedule_free(gx.chain(gx.ema(0.9), gx.scale(-0.1)), 0.1)
    state = after(tx, 3, params)
    got = gx.reset(state, tx, params, where=lambda path, leaf: path in ("step", "b1"))
    same(got["schedule_free"].slots["b1"], state["schedule_free"].slots["b1"])
    same(got["chain"]["ema"].step, state["chain"]["ema"].step)
    same(got["chain"]["ema"].slots["m"]["step"], jnp.zeros(2))
    same(got["chain"]["ema"].slots["m"]["m"], state["chain"]["ema"].slots["m"]["m"])
    single = after(gx.adam(0.1), 2, jnp.ones(3))
    same(gx.reset(single, gx.adam(0.1), jnp.ones(3), "**")["ema"].slots["m"], jnp.zeros(3))


def test_a_state_survives_a_new_part():
    """Clip before, a scale after, a wrapper around: the same moments, the same step, and training goes on as it would have."""
    old = gx.adamw(RATE)
    saved = after(old, 4)
    for new in (
        gx.chain(gx.clip_by_global_norm(1e6), old),
        gx.chain(old, gx.scale(gx.constant_schedule(1.0))),
        gx.skip_nonfinite(old),
        gx.tunable(old),
    ):
        state = gx.migrate(
            saved,
            new.init(PARAMS),
            strict=not isinstance(new, type(gx.tunable(old))) and new.name != "skip_nonfinite",
        )
        expected, _ = old.update(ones(PARAMS), saved, PARAMS)
        got, _ = new.update(ones(PARAMS), state, PARAMS)
        same(got, expected)
        assert int(gx.get(state, "step")) == 4
    back = gx.migrate(gx.migrate(saved, gx.chain(gx.clip(1.0), old).init(PARAMS)), old.init(PARAMS))
    same(back, saved)


def test_a_checkpoint_of_plain_dicts_is_a_state():
    saved = after(gx.adam(0.1), 2)
    plain = {
        name: {"step": np.asarray(part.step), "slots": jax.tree.map(np.asarray, part.slots)}
        for name, part in saved.items()
    }
    same(gx.migrate(plain, gx.adam(0.1).init(PARAMS)), saved)


def test_what_does_not_fit_is_listed():
    saved = after(gx.adam(0.1), 2)
    with pytest.raises(ValueError, match=r"saved without a place: \['ema/m/block/bias'"):
        gx.migrate(saved, gx.sgd(0.1).init(PARAMS))
    with pytest.raises(ValueError, match=r"without a saved value: .*'scale_by_rms/v/head'"):
        gx.migrate(after(gx.ema(0.9), 2), gx.adam(0.1).init(PARAMS))
    with pytest.raises(
        ValueError, match=r"shapes that differ: \['ema/m/head: \(4,\) saved, \(5,\) here"
    ):
        gx.migrate(saved, gx.adam(0.1).init(PARAMS | {"head": jnp.ones(5)}))
    loose = gx.migrate(saved, gx.amsgrad(0.1).init(PARAMS), strict=False)
    same(gx.get(loose, "m"), gx.get(saved, "m"))


def test_describe_has_a_row_for_each_parameter():
    tx = gx.freeze(
        "head",
        gx.chain(gx.clip_by_global_norm(1.0), gx.adamw(RATE, weight_decay=0.1, mask="**/kernel")),
    )
    table = gx.describe(tx, PARAMS)
    assert [row.path for row in table.rows] == ["block/bias", "block/kernel", "head"]
    bias, kernel, head = table.rows
    assert head[:5] == ("head", (4,), "bfloat16", ("set_to_zero",), {})
    assert kernel.slots == {"adamw/ema/m": 24, "adamw/scale_by_rms/v": 24}
    assert kernel.rules[0] == "clip_by_global_norm(max_norm=1)"
    assert "add_decayed_weights(weight_decay=0.1)" in kernel.rules
    assert "add_decayed_weights(weight_decay=0)" in bias.rules
    assert any("linear_schedule(init_value=0.1" in rule for rule in bias.rules)
    assert sum(table.shared.values()) == 6 * 4  # five step counts and the learning rate
    lines = repr(table).splitlines()
    assert len(lines) == 6
    assert lines[0].split() == ["path", "shape", "dtype", "slots", "bytes", "rules"]
    assert lines[3].split()[:5] == ["head", "[4]", "bfloat16", "none", "0"]
    assert lines[-1].split() == ["total", "96"]
    assert "0x" not in repr(table)


def test_describe_needs_shapes_alone_and_counts_every_byte():
    shapes = jax.eval_shape(lambda: PARAMS)
    for tx in (
        gx.accumulate(gx.params_ema(gx.adam(0.1)), 2),
        gx.partition(
            {"a": gx.schedule_free_adamw(0.1), "b": gx.lawa(gx.sgd(0.1, 0.9), 3)},
            gx.by_path({"head": "a", "**": "b"}),
        ),
        gx.sam(gx.adamw(0.1), gx.sgd(0.1)),
        gx.tunable(gx.adagrad(0.1)),
        gx.adam(gx.by_path({"head": 0.1, "**": RATE})),
        gx.chain(optax.adam(0.1), gx.scale(0.1)),
    ):
        table = gx.describe(tx, shapes)
        assert repr(table) == repr(gx.describe(tx, PARAMS))
        total = sum(sum(row.slots.values()) for row in table.rows) + sum(table.shared.values())
        assert total == sum(
            x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(tx.init, shapes))
        )
    assert "lawa" in str(gx.describe(gx.lawa(gx.sgd(0.1), 2), PARAMS))
    assert gx.describe(gx.adam(0.1), {"a": jnp.ones(2), "b": None}).rows[-1].path == "a"
    assert pickle.loads(pickle.dumps(table)) == table


def test_names_survive_jit_and_sorting():
    """A chain's state comes back from jit with its keys sorted; names mean the same."""
    tx = gx.chain(("z", gx.ema(0.9)), ("a", gx.scale(-0.1)))
    state = jax.jit(tx.init)(PARAMS)
    assert int(gx.get(gx.set(state, "z/step", 3), "z/step")) == 3
    same(gx.get(state, "m"), gx.get(tx.init(PARAMS), "m"))


def test_setting_the_step_sets_every_counter():
    """The counters of a chain run together, nested or not, and bias corrections read each its own."""
    tx, params = gx.chain(gx.clip_by_global_norm(1.0), gx.adamw(1e-3)), {"w": jnp.ones(3)}
    state = gx.set(tx.init(params), "step", 100)
    counters = [
        x
        for path, x in jax.tree_util.tree_leaves_with_path(state)
        if getattr(path[-1], "name", "") == "step"
    ]
    assert len(counters) > 3
    assert all(int(x) == 100 for x in counters)
    one = gx.set(tx.init(params), "ema/step", 7)
    assert int(gx.get(one, "ema/step")) == 7
    assert int(gx.get(one, "scale_by_rms/step")) == 0


def _grow(u, at, *, size):
    return u * size


ESTIMATOR = gx.chain(gx.ema(0.9), gx.scale(2.0))
# a wrapper, the path of a number inside it, its value, and how describe shows it
WRAPPED = {
    "cautious": (gx.cautious(gx.adam(0.1, b1=0.8)), "b1", 0.8, "ema(decay=0.8)"),
    "grams": (gx.grams(gx.adam(0.1, b1=0.8)), "b1", 0.8, "ema(decay=0.8)"),
    "mechanize": (gx.mechanize(gx.adam(0.1, b1=0.8)), "inner/b1", 0.8, "ema(decay=0.8)"),
    "galore": (
        gx.scale_by_galore(1, base_optimizer=gx.adam(0.1, b1=0.8)),
        "inner/b1",
        0.8,
        "ema(decay=0.8)",
    ),
    "sophia": (
        gx.scale_by_sophia(hessian_diagonal_fn=ESTIMATOR),
        "hessian/scale/step_size",
        2.0,
        "scale(step_size=2)",
    ),
    "a rule": (gx.lawa(gx.leafwise(_grow, size=0.8)), "grow/size", 0.8, "grow(size=0.8)"),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_what_is_wrapped_keeps_its_numbers_and_its_rules(name):
    tx, path, value, rule = WRAPPED[name]
    state = tx.init({"w": jnp.ones((2, 2))})
    assert gx.numbers(tx, state)[path] == value
    assert gx.get(state, path, tx) == value
    (row,) = gx.describe(tx, {"w": jnp.ones((2, 2))}).rows
    assert rule in row.rules


def test_a_number_of_its_own_is_meant_before_those_of_what_is_inside():
    """`get` by the whole path of a number, where the state records several of that name below."""
    params = {"w": jnp.ones(2)}
    tx = gx.schedule_free(gx.sam(gx.sgd(0.2), gx.sgd(0.3)), 0.1)
    state = tx.init(params)
    assert gx.get(state, "learning_rate", tx) == 0.1
    with pytest.raises(KeyError, match="may be any of"):
        gx.get(state, "learning_rate")


def test_describe_counts_the_numbers_of_a_schedule_in_the_state():
    params = {"w": jnp.ones(2)}
    tx = gx.tunable(gx.sgd(gx.linear_schedule(1.0, 0.5, 10)))
    told = gx.describe(tx, params)
    size = sum(x.nbytes for x in jax.tree.leaves(tx.init(params)))
    assert sum(told.shared.values()) == size


def test_the_walk_gives_every_part_its_state_and_its_share():
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    tx = gx.chain(gx.accumulate(gx.freeze("a", gx.ema(0.9)), 2), gx.tunable(gx.scale(2.0)))
    state = tx.init(params)

    def walk(tx, state, params, at=""):
        for label, part, own, share in tx.inside(state, params):
            yield f"{at}/{label}", type(part).__name__, own, share
            yield from walk(part, own, share, f"{at}/{label}")

    found = list(walk(tx, state, params))
    assert [kind for _, kind, _, _ in found if kind != "Named"] == [
        "Accumulate",
        "Partition",
        "Leafwise",
        "Stateless",
        "Tunable",
        "Leafwise",
    ]
    ends = {at: (own, share) for at, kind, own, share in found if kind == "Leafwise"}
    (trained, scaled) = ends.values()
    assert trained[0] is state["accumulate"].inner
    assert trained[1] == {"a": None, "b": params["b"]}
    assert scaled[0] is state["scale"].inner
    assert scaled[1] is params
    bare = [(at, kind) for at, kind, _, _ in walk(tx, None, None)]
    assert bare == [(at, kind) for at, kind, _, _ in found], "the same parts without a state"
