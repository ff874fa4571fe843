"""What a sweep is judged by: its settings, each the mean of its seeds, and what their differences
say.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from gradxform.sweep import SweepResult
from gradxform.sweep.result import better, last, shown
from gradxform.sweep.verdict import judge

SEED = "seed"


class Judged(NamedTuple):
    """One setting, over the members that differ in the seed alone."""

    setting: Mapping  # without the seed
    members: list[int]  # of this setting, seeds ascending
    metrics: dict[str, np.ndarray]  # the last of each member
    diverged: int
    lost: int  # diverged, or dropped at a rung
    epochs: float  # mean
    difference: float  # of the metric to that of the first setting
    margin: float  # half its interval; nan where nothing is known

    @property
    def alike(self) -> bool:
        """Whether the seeds cannot tell it from the first."""
        return not self.lost and not abs(self.difference) > self.margin


def has_seeds(result: SweepResult) -> bool:
    """Whether settings were tried with more than one seed."""
    return len({setting.get(SEED) for setting in result.space}) > 1


def settings(result: SweepResult) -> list[Judged]:
    """The settings, the best mean first; those that lost a member last. A setting that a rung
    dropped, with any of its seeds, is judged no more than one that diverged.
    """
    groups: dict[tuple, list[int]] = {}
    for i, setting in enumerate(result.space):
        key = tuple((name, shown(x)) for name, x in setting.items() if name != SEED)
        groups.setdefault(key, []).append(i)
    most = max(map(len, groups.values()))
    finals = {name: last(x, result.steps) for name, x in result.history.items()}
    out = result.diverged | result.dropped
    goodness = np.full((len(groups), most), np.nan)
    for row, members in zip(goodness, groups.values(), strict=True):
        members.sort(key=lambda i: result.space[i].get(SEED) or 0)
        if len(members) == most and not out[members].any():
            row[:] = better(result.scores[members], result.mode)
    judged = judge(goodness, wild=True)
    order = np.argsort(-np.nan_to_num(judged.mean, nan=-np.inf), kind="stable")
    sign = 1.0 if result.mode == "max" else -1.0
    apart = sign * judged.difference(order[0]), judged.margin(order[0])
    lists = list(groups.values())
    return [
        Judged(
            {k: x for k, x in result.space[lists[i][0]].items() if k != SEED},
            lists[i],
            {name: x[lists[i]].astype(np.float64) for name, x in finals.items()},
            int(result.diverged[lists[i]].sum()),
            int(out[lists[i]].sum()),
            float(result.steps[lists[i]].mean()),
            *(float(x[i]) for x in apart),
        )
        for i in order
    ]
