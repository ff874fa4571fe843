"""`compare` races the matrix methods on its own models, whose kernels need no declaration."""

import csv

import jax
import jax.numpy as jnp
import pytest

import gradxform as gx
from gradxform.cli import main as cli
from gradxform.cli.catalogue import QUESTIONS
from gradxform.cli.methods import RACED
from gradxform.cli.models import CNN, INITS, MLP

FAMILY = QUESTIONS["How do I give each matrix a rate?"]
METHODS = [
    name
    for name, method in RACED.items()
    if method.constructor.__module__.removeprefix("gradxform.") in FAMILY
]


def test_the_family_has_them():
    assert {"muon", "normuon", "shampoo", "soap", "kron"} <= set(METHODS)


@pytest.mark.parametrize("kind", [MLP, CNN])
def test_they_take_the_models_as_they_are(kind):
    model = kind(10, (8,), INITS["default"], 0.0)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 8, 8, 1)))
    for name in METHODS:
        rows = gx.describe(RACED[name].make(0.1), params["params"]).rows
        told = {row.path: row.rules for row in rows}
        kernel = "MLP_0/Dense_0/kernel" if kind is CNN else "Dense_0/kernel"
        assert any("×" in rule or "([64, 8]" in rule for rule in told[kernel]), f"{name}: {told}"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_they_learn_the_digits(tmp_path, model):
    names = "muon,kron,soap,shampoo"
    command = f"compare --methods {names} --model {model} --hidden 16 --learning-rates 0.01,0.1"
    command += f" --seeds 1 --epochs 2 --quiet --out {tmp_path / 'out'}"
    assert cli.main(command.split()) == 0
    with open(tmp_path / "out" / "table.csv", encoding="utf-8") as file:
        rows = {row["method"]: float(row["test_accuracy"]) for row in csv.DictReader(file)}
    assert rows.keys() == set(names.split(","))
    assert min(rows.values()) > 0.5 * max(rows.values()) > 0.2, rows
