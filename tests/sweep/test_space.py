"""Spaces: what is tried, and how numbers are found by name."""

import jax
import numpy as np
import pytest
from sweep_problems import fitted, line

import gradxform as gx
from gradxform.sweep import (
    Space,
    choice,
    grid,
    log_uniform,
    members,
    random,
    rungs,
    sweep,
    uniform,
    zip,
)  # fmt: skip
from gradxform.sweep.members import Arguments, group


def groups_of(train, space):
    """The groups of a space."""
    return group(Arguments(train), space)


def test_grid_zip_and_nesting():
    """The last axis turns fastest; zip goes side by side; spaces multiply and add."""
    assert list(grid(a=[1, 2], b=[3, 4])) == [
        {"a": 1, "b": 3},
        {"a": 1, "b": 4},
        {"a": 2, "b": 3},
        {"a": 2, "b": 4},
    ]
    assert list(zip(a=[1, 2], b=[3, 4])) == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
    nested = grid(zip(a=[1, 2], b=[3, 4]), {"ema.decay": [0.5]}, seed=range(3))
    assert len(nested) == 6
    assert nested[0] == {"a": 1, "b": 3, "ema.decay": 0.5, "seed": 0}
    assert len(grid(a=[1]) + grid(b=[2, 3])) == 3
    assert list(zip(grid(a=[1, 2]), b=[3, 4])) == list(zip(a=[1, 2], b=[3, 4]))
    assert nested.names == ("a", "b", "ema.decay", "seed")


def test_points_hold_both_ends_and_one_point_is_the_median():
    spread = log_uniform(1e-4, 1.0)
    assert spread.points(3) == pytest.approx([1e-4, 1e-2, 1.0])
    assert spread.points(2) == pytest.approx([1e-4, 1.0])
    assert spread.points(1) == pytest.approx([1e-2])
    with pytest.raises(ValueError, match="n of at least 1; got 0"):
        spread.points(0)


def test_random_is_reproducible_and_in_range():
    """The same key gives the same settings; a longer draw begins with a shorter one."""
    axes = {"a": log_uniform(1e-4, 1.0), "b": uniform(2, 3), "c": choice(["x", "y"]), "d": [1, 2]}
    some, more = random(20, jax.random.key(3), axes), random(40, jax.random.key(3), axes)
    assert list(more)[:20] == list(some)
    assert list(random(20, jax.random.key(4), axes)) != list(some)
    a = np.array([s["a"] for s in more])
    assert 1e-4 <= a.min() < 1e-2 < a.max() <= 1
    assert all(2 <= s["b"] <= 3 and s["c"] in "xy" and s["d"] in (1, 2) for s in more)
    assert log_uniform(1e-4, 1.0).points(5) == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: grid(a=[]), "a has no values"),
        (lambda: grid(a=1.0), "a must be a list"),
        (lambda: grid(a=log_uniform(1, 2)), "points"),
        (lambda: zip(a=[1], b=[1, 2]), "a has 1, b has 2"),
        (lambda: grid({"a": [1]}, a=[2]), "'a' is given twice"),
        (lambda: log_uniform(0, 1), "0 < low"),
    ],
)
def test_mistakes_are_named(make, message):
    """Each mistake names the axis."""
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_numbers_share_a_program_and_structure_splits():
    """Floats batch; an int argument, a method, a static option and another schedule are groups of their own."""
    assert (
        len(
            groups_of(
                line, grid(learning_rate=[0.1, 0.2], b1=[0.8, 0.9], l2=[0.0, 1e-3], seed=range(2))
            )
        )
        == 1
    )
    assert len(groups_of(line, grid(steps=[3, 4], b1=[0.8, 0.9]))) == 2
    assert len(groups_of(line, grid(nesterov=[False, True], b1=[0.8, 0.9]))) == 2
    methods = grid(tx=[gx.adam(0.1), gx.sgd(0.1)], learning_rate=[0.1, 0.2, 0.3])
    assert [g.members.tolist() for g in groups_of(line, methods)] == [[0, 1, 2], [3, 4, 5]]
    schedules = [gx.cosine_decay_schedule(a, n) for a in (0.1, 0.2) for n in (10, 20)]
    (one,) = groups_of(line, grid(learning_rate=schedules))
    assert len(one.varying) == 2
    assert "adam(cosine_decay_schedule)" in one.description


def test_names_reach_every_number():
    """A part of a chain, the inside of a schedule or a table, the loss, the initialisation, early stopping."""
    tx = gx.chain(
        gx.clip_by_global_norm(1.0),
        gx.ema(0.9),
        gx.scale_by_learning_rate(
            gx.by_path({"w": gx.linear_schedule(1.0, 0.0, 10), "**/bias": 0.1})
        ),
    )
    names = [
        "ema.decay",
        "init_value",
        "transition_steps",
        "w.end_value",
        "max_norm",
        "tx.ema.decay",
        "ema/decay",
        "tx/ema/decay",
        "w/end_value",
        "**/bias",
    ]
    for name in names:
        (one,) = groups_of(lambda tx=tx, key=None: {"loss": 0.0}, grid({name: [0.25, 0.5]}))
        assert len(one.varying) == 1, name
    train = fitted(stopping=gx.EarlyStopping(3))
    (one,) = groups_of(train, grid(l2=[0.0, 0.1], scale=[0.5, 1.0], patience=[2, 3], seed=[0, 1]))
    assert len(one.varying) == 3
    assert one.seeds.tolist() == [0, 1] * 8


def test_unknown_and_ambiguous_names_list_the_candidates():
    """The message says what there is, and what may have been meant."""
    with pytest.raises(KeyError, match=r"'learning_rat'; did you mean 'tx.learning_rate'.*tx.b1"):
        sweep(line, grid(learning_rat=[0.1]))
    two = gx.chain(gx.ema(0.9), gx.ema(0.99))
    with pytest.raises(KeyError, match=r"'decay' may be tx.ema.decay or tx.ema_2.decay"):
        groups_of(lambda tx=two, key=None: {"loss": 0.0}, grid(decay=[0.5]))
    with pytest.raises(KeyError, match="seed"):
        groups_of(lambda tx=two: {"loss": 0.0}, grid(seed=[1]))
    with pytest.raises(ValueError, match=r"adam: b1 must lie in \[0, 1\]; got 1.5"):
        sweep(line, grid(b1=[0.5, 1.5]))
    with pytest.raises(TypeError, match="rate"):
        sweep(lambda rate, key: {"loss": rate}, grid(seed=[1]))
    with pytest.raises(ValueError, match="no settings"):
        sweep(line, Space([]))


def test_a_number_where_there_was_none():
    """An argument that is None by default becomes a number."""
    (one,) = groups_of(line, grid(tx=[gx.sgd(0.1)], momentum=[0.5, 0.9]))
    assert len(one.varying) == 1


WHAT_CANNOT_BE = {
    "key": (lambda: grid(key=[1, 2, 3]), "a key is made from the member's seed"),
    "keys": (lambda: grid(key=[jax.random.key(1)]), "a key is made from the member's seed"),
    "large seed": (lambda: grid(seed=[1, 2**32 + 1]), "seed must be .* below 2.*; got 4294967297"),
    "seed a": (lambda: grid(seed=["a"]), "seed must be a whole number .*; got 'a'"),
    "seed None": (lambda: grid(seed=[None]), "seed must be a whole number .*; got None"),
    "seed nan": (lambda: grid(seed=[float("nan")]), "seed must be a whole number .*; got nan"),
    "too small": (lambda: grid(learning_rate=[0.1, 1e-46]), "learning_rate=1e-46 is 0 in float32"),
    "too large": (lambda: grid(l2=[1e39]), "l2=1e.39 is inf in float32"),
    "twice": (lambda: grid({"tx.b1": [0.5]}, b1=[0.9]), "'b1' and 'tx.b1' are one number"),
    "below": (lambda: grid(learning_rate=[0.1, -1.0]), r"learning_rate must lie in \[0, inf\)"),
    "nickname": (lambda: grid(beta1=[0.5]), r"'beta1'; did you mean 'tx.b1'\?"),
    "nothing near": (lambda: grid(zzz=[0.5]), r"nothing is named 'zzz'\. Candidates: data,"),
}


@pytest.mark.parametrize("name", WHAT_CANNOT_BE)
def test_what_cannot_be_is_an_error_by_name(name):
    space, says = WHAT_CANNOT_BE[name]
    with pytest.raises((ValueError, KeyError, TypeError), match=says):
        groups_of(line, space())


def test_members_cannot_differ_in_keys():
    """Not even in those of another name."""
    keys = [jax.random.key(1), jax.random.key(2)]
    with pytest.raises(TypeError, match="noise is a key, in which members cannot differ; use seed"):
        groups_of(lambda noise: {"loss": jax.random.normal(noise)}, grid(noise=keys))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: random(-3, 0, a=[1]), "random: n must be at least 1; got -3"),
        (lambda: random(2.5, 0, a=[1]), "random: n must be a Python integer"),
        (lambda: random(3, 0.5, a=[1]), "key must be one JAX key"),
        (lambda: uniform(-np.inf, np.inf), "uniform: low and high must be finite"),
        (lambda: uniform(0, np.nan), "uniform: low and high must be finite"),
        (lambda: log_uniform(1, np.inf), "log_uniform: needs 0 < low <= high, finite"),
        (lambda: rungs(1, 20, 1), "rungs: factor must be at least 2"),
    ],
)
def test_a_draw_that_cannot_be_is_refused(make, says):
    with pytest.raises((ValueError, TypeError), match=says):
        make()


def test_a_hundred_thousand_values_are_grouped_in_a_few_passes(monkeypatch):
    """Their optimizer is built once for all of them, and once for each value only if one is wrong."""
    built = []
    real = members.replaced
    monkeypatch.setattr(members, "replaced", lambda *args: built.append(args) or real(*args))
    values = [(i + 1) / 10**5 for i in range(10**5)]
    (one,) = groups_of(line, grid(learning_rate=values))
    np.testing.assert_array_equal(one.columns[0], np.float32(values))
    assert len(built) < 10
