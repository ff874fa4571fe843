"""The registry is complete: what is public has an instance, and what is written by hand is used."""

import inspect

import pytest
from instances import ARGUMENTS, EXCEPTIONS, EXTRA, FLAGS, OTHERS, TRANSFORMATIONS

import gradxform as gx
from gradxform.core.chain import Chain, Named
from gradxform.matrices.basis import Basis
from gradxform.testing import LAWS
from gradxform.testing.tools import constructors, representative


def instances_of():
    """Constructor -> the values of `convention` that its instances have, None where it has none."""
    found = {}
    for entry in TRANSFORMATIONS.values():
        tx = entry.make()
        parts = tx.items if isinstance(tx, Chain) else {}
        if isinstance(tx, Named):  # what takes matrices alone runs in a partition
            parts = tx.arguments.get("transforms", {})
        for part in (tx, *parts.values()):
            if isinstance(part, Named | Basis):
                seen = found.setdefault(part._function, set())
                seen.add(part.arguments.get("convention"))
    return found


def test_every_public_constructor_has_an_instance_for_each_convention():
    found = instances_of()
    for name, constructor in constructors().items():
        assert constructor in found, f"{name} has no instance"
        missing = set(constructor.conventions) - found[constructor]
        assert not missing, f"{name} has no instance for {missing}"


def test_what_is_public_is_found():
    assert constructors().keys() >= {"adam", "ema", "clip", "identity", "masked", "MultiSteps"}
    assert "linear_schedule" not in constructors(), "no transformation"
    assert {"chain", "leafwise", "stateless", "tunable"} <= OTHERS.keys()


def test_what_is_written_by_hand_is_used():
    made = constructors()
    assert ARGUMENTS.keys() <= made.keys()
    assert {constructor for constructor, _ in FLAGS.values()} <= made.keys()
    assert EXTRA.keys() | EXCEPTIONS.keys() <= TRANSFORMATIONS.keys()
    for name, laws in EXCEPTIONS.items():
        assert laws.keys() <= LAWS.keys(), name
    for name, given in ARGUMENTS.items():
        assert given.keys() <= inspect.signature(made[name]).parameters.keys(), name


def test_a_representative_is_given_what_it_needs_and_no_more():
    assert representative(gx.adam) == gx.adam(0.1)
    assert representative(gx.every) == gx.every(2, gx.adam(0.1))
    assert representative(gx.restart, inner=gx.sgd(0.3)) == gx.restart(gx.sgd(0.3), 2)
    with pytest.raises(TypeError, match="no_such"):
        representative(gx.adam, no_such=1)
