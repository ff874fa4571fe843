"""Edges to other libraries. Optax is imported when asked for, and named in the error where it is
missing.
"""

import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from importlib.util import find_spec

import jax

from gradxform.core import Value, as_transform
from gradxform.core.inject import InjectedNumbers
from gradxform.core.leaves import path_string
from gradxform.display.code import code
from gradxform.interop.optax.real import real


def to_optax(tx):
    """The transformation as an `optax.GradientTransformationExtraArgs`, which keeps extra arguments
    inside `optax.chain`.

    gradxform's transformations work in `optax.chain` as they are, but it hands extra arguments such
    as `value=` only to members of its own class.

    Raises:
        ImportError: Optax is not installed.
    """
    try:
        optax = real()
    except ImportError as error:
        raise ImportError("to_optax needs Optax: pip install optax") from error
    if isinstance(tx, optax.GradientTransformationExtraArgs):
        return tx
    tx = as_transform(tx)
    return optax.GradientTransformationExtraArgs(tx.init, tx.update)


def register_with_flax() -> None:
    """Let `flax.serialization` (msgpack) save states that hold an optimizer, as those of `tunable`
    do.

    gradxform calls it as soon as Flax is imported; transformations of a class of your own need
    another call. Orbax needs nothing of the kind.

    Raises:
        ImportError: Flax is not installed.
    """
    try:
        from flax import serialization
    except ImportError as error:
        raise ImportError("register_with_flax needs Flax: pip install flax") from error
    _register(serialization)


def _register(serialization) -> None:
    for cls in (*_below(Value), InjectedNumbers):
        serialization.register_serialization_state(cls, _numbers, _with_numbers, override=True)


def _below(cls: type) -> Iterator[type]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _below(sub)


class _Flax(MetaPathFinder):
    """Waits for Flax, in whatever order a program imports."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != "flax.serialization":
            return None
        sys.meta_path.remove(cls)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                _register(module)

            spec.loader.exec_module = exec_module
        return spec


def follow_flax() -> None:
    """Call `register_with_flax` as soon as Flax is imported."""
    if "flax.serialization" in sys.modules:
        _register(sys.modules["flax.serialization"])
    elif _Flax not in sys.meta_path:
        sys.meta_path.insert(0, _Flax)


def _numbers(value) -> dict:
    return {path_string(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(value)}


def _with_numbers(value, numbers):
    names = list(_numbers(value))
    if set(names) != set(numbers):
        got = sorted(numbers)
        raise ValueError(f"{code(value)} has the numbers {names}; the saved state has {got}")
    return jax.tree.unflatten(jax.tree.structure(value), [numbers[name] for name in names])
