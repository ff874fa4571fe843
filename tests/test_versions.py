"""The lowest versions: those that pyproject.toml states are those that .ci/run tests."""

import importlib
import re
import tomllib
from pathlib import Path

import jax
import numpy as np

from gradxform import versions

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINNED = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / ".ci/lowest.txt").read_text(), re.MULTILINE))


def number(version):
    parts = [int(part) for part in version.split(".")]
    return [*parts, *[0] * (3 - len(parts))]


def test_the_lowest_versions_are_tested():
    stated = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["cli"]]
    lowest = dict(re.fullmatch(r"([\w-]+)>=([\d.]+)", line).groups() for line in stated)
    assert lowest.keys() >= {"jax", "jaxlib", "numpy", "flax"}
    for name, version in lowest.items():
        assert number(PINNED[name]) == number(version), name


def test_the_pages_name_them():
    pages = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")}
    assert f"JAX {PINNED['jax']}" in pages["README.md"]
    for library, name in {"JAX": "jax", "NumPy": "numpy", "Flax": "flax", "Optax": "optax"}.items():
        assert f"{library} {PINNED[name]}" in pages["CONTRIBUTING.md"]


def test_they_are_no_downloads():
    text = (ROOT / ".ci/lowest.txt").read_text()
    assert "http" not in text
    assert "hash" not in text


def test_double_precision_has_another_home_in_older_versions(monkeypatch):
    home = importlib.import_module("jax.experimental")
    monkeypatch.setattr(home, "enable_x64", jax.enable_x64, raising=False)
    monkeypatch.delattr(jax, "enable_x64")
    with versions.enable_x64():
        assert jax.dtypes.canonicalize_dtype(np.float64) == np.float64
    assert jax.dtypes.canonicalize_dtype(np.float64) == np.float32
