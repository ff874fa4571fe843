"""Edges to other libraries. Optax is imported when asked for, and named in the error where it is
missing.
"""

import jax

from gradxform.core import ByPath, Chain, Leafwise, Named, Schedule, as_transform
from gradxform.core.leaves import path_string
from gradxform.display.code import code


def to_optax(tx):
    """The transformation as an `optax.GradientTransformationExtraArgs`, which keeps extra arguments
    inside `optax.chain`.

    gradxform's transformations work in `optax.chain` as they are, but it hands extra arguments such
    as `value=` only to members of its own class.

    Raises:
        ImportError: Optax is not installed.
    """
    try:
        import optax
    except ImportError as error:
        raise ImportError("to_optax needs Optax: pip install optax") from error
    tx = as_transform(tx)
    return optax.GradientTransformationExtraArgs(tx.init, tx.update)


def register_with_flax() -> None:
    """Let `flax.serialization` (msgpack) save states that hold an optimizer, as those of `tunable`
    do.

    Orbax needs nothing of the kind. To be called once, before saving or restoring.

    Raises:
        ImportError: Flax is not installed.
    """
    try:
        from flax import serialization
    except ImportError as error:
        raise ImportError("register_with_flax needs Flax: pip install flax") from error
    for cls in (Named, Chain, Leafwise, Schedule, ByPath):
        serialization.register_serialization_state(cls, _numbers, _with_numbers, override=True)


def _numbers(value) -> dict:
    return {path_string(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(value)}


def _with_numbers(value, numbers):
    names = list(_numbers(value))
    if set(names) != set(numbers):
        got = sorted(numbers)
        raise ValueError(f"{code(value)} has the numbers {names}; the saved state has {got}")
    return jax.tree.unflatten(jax.tree.structure(value), [numbers[name] for name in names])
