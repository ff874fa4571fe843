"""What a compiled program says it needs, and how large the blocks of a halving are."""

from types import SimpleNamespace

import pytest

from gradxform.sweep import Halving
from gradxform.sweep.engine import needed


def test_a_program_needs_what_goes_in_comes_out_and_is_in_between():
    found = SimpleNamespace(
        temp_size_in_bytes=1000,
        output_size_in_bytes=100,
        argument_size_in_bytes=10,
        alias_size_in_bytes=5,
    )
    assert needed(SimpleNamespace(memory_analysis=lambda: found)) == 1105
    assert needed(SimpleNamespace(memory_analysis=lambda: None)) == 0, "a backend that does not say"


@pytest.mark.parametrize(("keep", "fan"), [(1 / 2, 2), (1 / 3, 3), (1 / 4, 4), (0.9, 2), (0.3, 3)])
def test_as_many_blocks_rise_as_one_as_members_fall(keep, fan):
    assert Halving((1,), keep).fan == fan
