"""Every registered transformation × every law.

The default run holds every instance to the cheap laws, and a representative of every rule to all
others but a few; the slow tail is the rest of the product.
"""

from functools import cache

import pytest
from instances import TRANSFORMATIONS

from gradxform.testing import LAWS, check_law

CHEAP = {"abstract_init", "value"}
# what the runner keeps for all rules, and what is in most rules the same: by one in so many
KEPT_BY_THE_RUNNER = ("tools", "pair", "extra", "associative", "schedule", "subtree", "retrace")
DEAR = ("zero_gradient", "vmap", "sharding", "jit", "table", "dtypes", "donation", "temporary")
SELDOM = {"counter": 6, "magnitudes": 9, "platforms": 4}
SELDOM |= dict.fromkeys(KEPT_BY_THE_RUNNER, 6) | dict.fromkeys(DEAR, 3)


@cache
def made(name):
    """One instance for all laws, which share what they compile for it."""
    return TRANSFORMATIONS[name].make()


@cache
def rules_of(name):
    """The rules that an instance runs: the equations of its parts, and the wrappers around them."""
    return frozenset(
        (type(part).__qualname__, getattr(getattr(part, "rule", None), "__qualname__", ""))
        for _, part in made(name).parts()
    )


@cache
def representatives():
    """Instances that together run every rule: again and again the one with most rules yet unseen."""
    unseen = frozenset().union(*map(rules_of, TRANSFORMATIONS))
    chosen = []
    while unseen:
        chosen.append(max(TRANSFORMATIONS, key=lambda name: len(rules_of(name) & unseen)))
        unseen -= rules_of(chosen[-1])
    return frozenset(chosen)


def in_the_default_run(name, law):
    if law in SELDOM:
        return name in sorted(representatives())[:: SELDOM[law]]
    return law in CHEAP or name in representatives()


def cases():
    for name in TRANSFORMATIONS:
        for law in LAWS:
            marks = () if in_the_default_run(name, law) else pytest.mark.slow
            yield pytest.param(name, law, id=f"{name}-{law}", marks=marks)


@pytest.mark.parametrize(("name", "law"), list(cases()))
def test_law(name, law):
    entry = TRANSFORMATIONS[name]
    check_law(law, made(name), entry.extra, entry.exceptions)


def test_every_rule_and_every_law_is_in_the_default_run():
    chosen = [name for name in TRANSFORMATIONS if in_the_default_run(name, "leaves")]
    assert len(chosen) < len(TRANSFORMATIONS) / 2, "the rest is the slow tail"
    kept = frozenset().union(*map(rules_of, chosen))
    for name in TRANSFORMATIONS:
        assert rules_of(name) <= kept, f"{name}: {rules_of(name) - kept}"
    for law in LAWS:
        tried = [name for name in TRANSFORMATIONS if in_the_default_run(name, law)]
        assert any(law not in TRANSFORMATIONS[name].exceptions for name in tried), law


def test_what_runs_is_what_is_marked():
    """The cases are the whole product, and those without a mark are the default run."""
    found = {tuple(case.values): not case.marks for case in cases()}
    assert found == {(n, law): in_the_default_run(n, law) for n in TRANSFORMATIONS for law in LAWS}
