"""Every constructor given what it does not expect, drawn with a fixed seed: it works, or says in one clear line why not."""

import decimal
import fractions
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradxform as gx
from gradxform.cli.methods import CONSTRUCTORS

pytestmark = pytest.mark.filterwarnings("ignore")  # advice is welcome too
CONSTANT, TABLE = gx.constant_schedule(0.5), gx.by_path({"**": 0.1})
HOSTILE = [
    None, True, False, 0, 1, -1, 2.5, -0.5, float("nan"), float("inf"), -float("inf"), 1e-46, 1e39,
    1e308, 5e-324, 10**400, 1j, complex("nan"), "", "x", "cosine", "\n", b"x", [], [1], [0.5, "a"], (),
    (1, 2), {}, {"a": 1}, {3: 0.1}, {"w": 0.5}, set(), {1}, range(3), slice(1), object(), ...,
    NotImplemented, type, float, lambda: 1, lambda step: 0.5, lambda a, b, c: 1,
    np.array(3), np.array(["a"]), np.array(None), np.ma.masked, np.float16(0.5), np.int8(1),
    np.bool_(True), np.datetime64("2020"), jnp.float32(0.5), jnp.zeros(0), jnp.ones((2, 2)),
    jnp.array([0.5, -3.0]), jax.random.key(0), jax.ShapeDtypeStruct((), jnp.float32),
    decimal.Decimal("0.5"), fractions.Fraction(1, 2), gx.adam, gx.adam(0.1), [gx.clip(1.0)],
    CONSTANT, gx.constant_schedule(-2.0), TABLE,
]  # fmt: skip
GIVEN = {
    "key": 0, "inner": gx.sgd(0.1), "tx": gx.sgd(0.1), "optimizer": gx.sgd(0.1), "mask": "**",
    "where": "**", "schedules": (1.0, 2.0), "boundaries": (3,), "values": (1.0, 2.0),
    "boundaries_and_scales": {3: 0.1}, "function": lambda step: 1.0, "param_labels": {"w": "a"},
    "transforms": {"a": gx.sgd(0.1)},
}  # fmt: skip
ARGUMENTS = [
    (name, p.name)
    for name, made in CONSTRUCTORS.items()
    for p in inspect.signature(made).parameters.values()
    if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
]


def try_it(name, argument, value):
    """Call a constructor with a value, and use what it gives as any value is used."""
    parameters = inspect.signature(CONSTRUCTORS[name]).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and (name, p.name) in ARGUMENTS]
    given = {p.name: GIVEN.get(p.name, 0.5) for p in needed} | {argument: value}
    if made := call(name, given):
        assert repr(made)
        assert made == made.replace()
        assert hash(made) == hash(made.replace())


def call(name, given):
    """What a constructor makes of these arguments, None where it refuses them in one clear line."""
    said = ""
    try:
        return CONSTRUCTORS[name](**given)
    except (TypeError, ValueError) as error:
        said = str(error)
    assert name in said or said.startswith("chain:"), (name, given, said)
    assert "\n" not in said, (name, given, said)
    return None


def test_a_sample_of_hostile_calls():
    rng = np.random.default_rng(0)
    assert len(ARGUMENTS) > 700
    for at in rng.choice(len(ARGUMENTS), 400):
        try_it(*ARGUMENTS[at], HOSTILE[rng.integers(len(HOSTILE))])


@pytest.mark.slow
def test_every_argument_of_every_constructor():
    for name, argument in ARGUMENTS:
        for value in HOSTILE:
            try_it(name, argument, value)


@pytest.mark.slow
def test_several_hostile_arguments_at_once():
    rng = np.random.default_rng(1)
    for name, made in CONSTRUCTORS.items():
        names = list(inspect.signature(made).parameters)
        for _ in range(40):
            chosen = rng.choice(names, min(len(names), 3), replace=False) if names else []
            call(name, {str(k): HOSTILE[rng.integers(len(HOSTILE))] for k in chosen})
