"""The laws that every transformation keeps, as a kit: `check_transformation(tx)` for your own."""

from collections.abc import Callable, Mapping
from typing import Any

from gradxform.testing import extremes, laws, tools

Extra = Mapping[str, Any] | None  # keyword arguments that an update needs

Exceptions = Mapping[str, str] | None  # law -> why it is not kept

LAWS: dict[str, Callable] = {
    "pair": laws.is_a_pair, "dtypes": laws.dtypes_are_a_fixed_point,
    "abstract_init": laws.init_is_abstract, "jit": laws.jit_equals_eager,
    "retrace": laws.new_numbers_retrace_nothing, "vmap": laws.vmap_equals_loop,
    "schedule": laws.constant_schedule_is_constant, "table": laws.uniform_table_is_constant,
    "leaves": laws.absent_empty_and_scalar_leaves,
    "frozen": laws.what_cannot_be_optimized_is_frozen,
    "zero_gradient": laws.zero_gradients_are_safe,
    "donation": laws.parameters_and_state_can_be_donated,
    "temporary": laws.large_temporaries_are_absent, "value": laws.is_a_value,
    "extra": laws.unknown_arguments_are_ignored, "associative": laws.chains_associate,
    "subtree": laws.a_subtree_runs_alone, "sharding": laws.sharding_changes_nothing,
    "tools": tools.tools_see_all_of_it, "platforms": tools.lowers_for_every_platform,
    "counter": extremes.counters_stop, "magnitudes": extremes.magnitudes_change_nothing,
}  # fmt: skip


def check_transformation(tx, *, extra: Extra = None, exceptions: Exceptions = None) -> None:
    """Run every law over a transformation; the first one broken raises AssertionError, naming the
    law.

    Args:
        tx: any gradxform transformation, your own included.
        extra: keyword arguments that its update needs, such as `{"value": 0.5}`.
        exceptions: laws that it does not keep, each with the reason: `{"subtree": "it looks at the
            whole tree"}`.

    Raises:
        AssertionError: a law is broken, or does hold although it is listed as an exception.
        ValueError: exceptions name an unknown law.
    """
    exceptions = exceptions or {}
    unknown = sorted(set(exceptions) - set(LAWS))
    if unknown:
        what = f"check_transformation: no law is called {unknown[0]!r}"
        raise ValueError(f"{what}; the laws are {sorted(LAWS)}")
    for name in LAWS:
        check_law(name, tx, extra, exceptions)


def check_law(name: str, tx, extra: Extra = None, exceptions: Exceptions = None) -> None:
    """Run one law; an exception must really be one."""
    reason = (exceptions or {}).get(name)
    try:
        LAWS[name](tx, dict(extra or {}))
    except Exception as error:
        if reason:
            return
        law = f"the law {name!r} ({LAWS[name].__doc__})"
        raise AssertionError(f"{tx!r} breaks {law}: {error}") from error
    if reason:
        what = f"{tx!r} keeps the law {name!r} although it is listed as an exception"
        raise AssertionError(f"{what}: {reason}")


def __getattr__(name: str):
    return getattr(extremes if hasattr(extremes, name) else laws, name)  # each law by its function
