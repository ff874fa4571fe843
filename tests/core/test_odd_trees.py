"""Whatever tree of parameters, gradient or state is given, it works, or one clear line says why not.

Drawn from fixed seeds. Nothing is compiled: what a call would do is seen from its shapes.
"""

import random
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from instances import TRANSFORMATIONS

import gradxform as gx

pytestmark = pytest.mark.filterwarnings("ignore")  # what warns, says so elsewhere

OWNER = re.compile(r"^[\w./]+: \S")


class Pair(NamedTuple):
    first: Any
    second: Any


SHAPES = [(), (3,), (2, 3), (0,), (2, 1, 2)]
DTYPES = [jnp.float32, jnp.float32, jnp.bfloat16, jnp.float16, jnp.complex64]
ODD = [  # what stands in trees beside real and complex arrays
    lambda: None,
    lambda: np.ones((2, 3)),
    lambda: 0.5,
    lambda: 3,
    lambda: True,
    lambda: 1j,
    lambda: np.float32(2),
    lambda: jnp.arange(3),
    lambda: jnp.array([True, False]),
    lambda: jax.random.key(0),
    lambda: np.zeros(2, jax.dtypes.float0),
    lambda: jnp.full(3, jnp.nan),
    lambda: "text",
    lambda: b"bytes",
    lambda: np.array(["a"]),
    lambda: jnp.tanh,
    lambda: object(),
    lambda: {1, 2},
]
WRAPPERS = [
    lambda tx: gx.chain(gx.clip(1.0), tx),
    lambda tx: gx.accumulate(tx, 2),
    lambda tx: gx.tunable(tx),
    lambda tx: gx.freeze("a/**", tx),
    lambda tx: gx.skip_nonfinite(tx),
    lambda tx: gx.skip_spikes(tx, 3.0),
    lambda tx: gx.master_weights(tx),
    lambda tx: gx.params_ema(tx, 0.9),
    lambda tx: gx.lookahead(tx, 2, 0.5),
    lambda tx: gx.every(2, tx),
    lambda tx: gx.masked(tx, lambda p: jax.tree.map(lambda x: np.ndim(x) > 1, p)),
]


def leaf(rng, odd):
    if rng.random() < odd:
        return rng.choice(ODD)()
    return jnp.full(rng.choice(SHAPES), rng.choice([1.0, -2.0, 0.0, 1e-30]), rng.choice(DTYPES))


def tree(rng, odd, depth=0):
    """A tree of dicts, lists, tuples and records, whose leaves are `odd` now and then."""
    kind = rng.choice(["dict", "list", "tuple", "pair", *["leaf"] * (1 + 2 * depth)])
    if kind == "leaf" or depth > 3:
        return leaf(rng, odd)
    inside = [tree(rng, odd, depth + 1) for _ in range(2 if kind == "pair" else rng.randint(0, 3))]
    if kind == "dict":
        return dict(zip(rng.choice(["abc", (0, 1, 2), ("a/b", "*", "**")]), inside, strict=False))
    return {"list": list, "tuple": tuple, "pair": lambda xs: Pair(*xs)}[kind](inside)


def optimizer(rng):
    """An instance of the registry, wrapped once or not at all; and what its update needs."""
    entry = TRANSFORMATIONS[rng.choice(sorted(TRANSFORMATIONS))]
    tx = entry.make()
    return (rng.choice(WRAPPERS)(tx) if rng.random() < 0.6 else tx), entry.extra


def spoiled(rng, given):
    """A tree with one change somewhere: a leaf exchanged, cut off, reshaped, or a node retyped."""
    leaves, structure = jax.tree.flatten(given, is_leaf=lambda x: x is None)
    if not leaves:
        return rng.choice([None, {}, (), [jnp.ones(2)], {"new": jnp.ones(2)}])
    i = rng.randrange(len(leaves))
    x = leaves[i]
    size = (*np.shape(x), 2)
    leaves[i] = rng.choice([None, jnp.ones(size), jnp.ones(1), *(make() for make in ODD)])
    changed = structure.unflatten(leaves)
    if isinstance(changed, dict) and changed and rng.random() < 0.3:
        changed.pop(min(changed, key=str))
    return list(changed) if type(changed) is tuple and rng.random() < 0.3 else changed


def kind_of(x):
    """Shape and dtype of a leaf, the type of what is no array."""
    return (np.shape(x), x.dtype) if hasattr(x, "dtype") else type(x)


def kinds(given):
    """Structure, shapes and dtypes."""
    leaves, structure = jax.tree.flatten(given)
    return structure, [kind_of(x) for x in leaves]


def outcome(call):
    """Structures, shapes and dtypes of what a call gives; None where it says in one line what is
    wrong with what.
    """
    found = []
    try:
        jax.eval_shape(lambda: found.extend(map(kinds, call())))
        return found
    except (TypeError, ValueError) as error:
        line = str(error.args[0] if error.args else "")
        assert OWNER.match(line), f"the message does not begin with who says it: {line!r}"
        assert "\n" not in line, line
        assert len(line) < 500, line


def try_trees(seed):
    rng = random.Random(seed)
    tx, extra = optimizer(rng)
    odd = rng.choice([0.0, 0.1, 0.4])
    params = tree(rng, odd)
    gradients = rng.choice([lambda: params, lambda: params, lambda: spoiled(rng, params)])()
    given = params if rng.random() < 0.8 else None

    def steps():
        state = tx.init(params)
        updates, new = tx.update(gradients, state, given, **extra)
        return updates, state, new

    found = outcome(steps)
    if found is not None:
        updates, state, new = found
        assert updates[0] == kinds(gradients)[0] or not updates[1], (tx, params)
        assert state == new or not updates[1], (tx, params)
    return found is not None


NOT_STATES = [None, (), {}, [], 0, "state", gx.sgd(0.1), jnp.zeros(()), gx.RuleState(0, {})]


def try_states(seed):
    """The state of another optimizer, of other parameters, a part of it, or one leaf changed."""
    rng = random.Random(seed)
    (tx, extra), (other, _) = optimizer(rng), optimizer(rng)
    params = {"a": jnp.ones((2, 3)), "b": [jnp.ones(3), jnp.ones(())]}
    state = tx.init(params)
    kept = jax.tree.leaves(state, is_leaf=lambda x: x is not state)
    make = rng.choice(
        [
            lambda: rng.choice(NOT_STATES),
            lambda: other.init(params),
            lambda: tx.init({"c": jnp.ones((2, 3))}),
            lambda: tx.init({"a": jnp.ones((4, 3)), "b": [jnp.ones(3), jnp.ones(())]}),
            lambda: rng.choice([state, *kept]),
            lambda: (state, state),
            lambda: spoiled(rng, state),
            lambda: spoiled(rng, state),
            lambda: spoiled(rng, state),
        ]
    )
    found = outcome(lambda: tx.update(params, make(), params, **extra))
    if found is not None:
        assert found[0] == kinds(params), tx
    return found is not None


P, OTHER = {"a": jnp.ones((2, 3)), "b": [None]}, {"a": jnp.ones((4, 3)), "b": [None]}
TWICE, SOPHIA = gx.accumulate(gx.adam(0.1), 2), gx.scale_by_sophia()
KEPT = "this state is not that of these parameters"
FOUND = {
    "a wrapper: its own": (
        lambda: TWICE.update(P, TWICE.init(OTHER), P),
        f"accumulate: {KEPT}: 'accumulator/a' is float32[4, 3], not float32[2, 3]",
    ),
    "a whole method": (
        lambda: SOPHIA.update(P, SOPHIA.init(P)._replace(mu=OTHER), P, obj_fn=lambda p: 0.0),
        f"scale_by_sophia: {KEPT}: 'mu/a' is float32[4, 3], not float32[2, 3]",
    ),
    "text": (
        lambda: gx.master_weights(gx.sgd(0.1)).init({"a": "text"}),
        "master_weights: parameter 'a' is not an array: 'text'",
    ),
    "a number of Python's": (
        lambda: gx.master_weights(gx.sgd(0.1)).init({"a": 1j}),
        "master_weights: parameter 'a' is 1j: write jnp.asarray(1j)",
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_it_says_which(name):
    call, line = FOUND[name]
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert str(caught.value) == line


def test_an_error_of_a_users_own_stays():
    def broken(u, at, v):
        raise ValueError("not yet written")

    tx = gx.leafwise(broken, slots={"v": gx.zeros()})
    with pytest.raises(ValueError, match="not yet written"):
        tx.update(P, tx.init(P), P)


CASES = {"trees": try_trees, "states": try_states}


def run(kind, seeds):
    """How many of the calls work. JAX's ordinary promotion, as users have it."""
    taken = 0
    with jax.numpy_dtype_promotion("standard"):
        for seed in seeds:
            try:
                taken += CASES[kind](seed)
            except Exception as error:
                raise AssertionError(f"{kind}, seed {seed}: {error!r}") from error
    return taken


@pytest.mark.parametrize("kind", CASES)
def test_it_works_or_one_line_says_why_not(kind):
    seeds = range(30)
    assert 0 < run(kind, seeds) < 30, "some work, and some do not"


@pytest.mark.slow
@pytest.mark.parametrize("start", range(100, 1100, 250))
@pytest.mark.parametrize("kind", CASES)
def test_a_thousand_times(kind, start):
    seeds = range(start, start + 250)
    assert 10 < run(kind, seeds) < 225
