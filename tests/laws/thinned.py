"""What of a long list of alike cases the default run takes; the slow tail takes the rest."""

import pytest


def one_in(n, cases):
    """The cases, of which the slow tail has all but every nth."""
    slow = pytest.mark.slow
    return [pytest.param(x, marks=[slow] if i % n else []) for i, x in enumerate(cases)]
