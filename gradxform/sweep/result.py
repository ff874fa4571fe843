"""What a sweep returns: every member's hyperparameters, metrics and parameters."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import numpy as np

from gradxform.core.leaves import Tree
from gradxform.core.transform import Transform
from gradxform.display.code import code
from gradxform.sweep.members import Arguments, Group
from gradxform.sweep.space import Labelled, Setting, Space
from gradxform.sweep.store import Memory, unflat


def better(values, mode: str) -> np.ndarray:
    """The values as goodness: more is better, what is not finite is worst."""
    values = np.asarray(values, np.float64)
    return np.where(np.isfinite(values), values if mode == "max" else -values, -np.inf)


class Trial(NamedTuple):
    """Some members of one group over some steps: position [n], ran [n], active [n], metrics [n,
    steps].
    """

    group: int
    positions: np.ndarray
    ran: np.ndarray
    active: np.ndarray
    history: dict[str, np.ndarray]
    numbers: list[np.ndarray]
    seconds: np.ndarray  # [2], spent on training and on compiling

    @property
    def length(self) -> int:
        """How many steps its history has."""
        return next(iter(self.history.values())).shape[1]

    def scores(self, metric: str) -> np.ndarray:
        """The metric at the last step run [n]."""
        return last(self.history[metric], self.ran)

    def diverged(self) -> np.ndarray:
        """Whether some metric was not finite at the last step run [n]."""
        return ~np.all([np.isfinite(last(x, self.ran)) for x in self.history.values()], axis=0)

    def goodness(self, metric: str, mode: str) -> np.ndarray:
        """Scores as goodness [n]; diverged members are worst."""
        return np.where(self.diverged(), -np.inf, better(self.scores(metric), mode))


def last(history: np.ndarray, ran: np.ndarray) -> np.ndarray:
    """The entry of the last step run: [n, steps] and [n] to [n]."""
    at = np.clip(ran, 1, history.shape[1]) - 1
    return np.take_along_axis(history, at[:, None], axis=1)[:, 0]


class Member(NamedTuple):
    """One member of a sweep."""

    index: int
    setting: Setting
    score: float
    optimizer: Transform | None
    params: Tree


@dataclass(frozen=True)
class SweepResult:
    """Every member of a sweep, in the order of its space.

    Attributes:
        space: the settings.
        metric, mode: what members are judged by, and whether less ("min") or more is better.
        history: metrics by name, each [members, steps]; NaN where a member did not run.
        steps: [members], steps run.
        diverged: [members], whether a metric was not finite at the end.
        dropped: [members], whether successive halving did not let it go on to the end.
        groups: how many members share each compiled program, and what they have in common.
        seconds, compile_seconds: wall time of this call, and what of it went into compiling.
        spent: seconds of training and of compiling, of every chunk, in this call or an earlier one.
    """

    space: Space
    metric: str
    mode: str
    history: dict[str, np.ndarray]
    steps: np.ndarray
    diverged: np.ndarray
    groups: list[tuple[int, str]]
    seconds: float
    compile_seconds: float
    dropped: np.ndarray
    spent: tuple[float, float]
    _arguments: Arguments = field(repr=False)
    _groups: list[Group] = field(repr=False)
    _where: list[tuple[str, int, int]] = field(repr=False)  # of each member: chunk, row, group
    _numbers: dict[int, list[np.ndarray]] = field(repr=False)
    _store: Memory = field(repr=False)
    _like: Callable[[int], Tree] = field(repr=False)

    @classmethod
    def of(
        cls, arguments, space, groups: list[Group], trials: dict[str, Trial], store, like, metric,
        mode, seconds, compiling,
    ):  # fmt: skip
        """Put the chunks together; those of later rungs continue earlier ones."""
        n = len(space)
        where, numbers = [("", 0, 0)] * n, {}
        steps, lengths, filled = np.zeros((3, n), int)
        diverged, dropped = np.zeros((2, n), bool)
        for t in trials.values():
            lengths[groups[t.group].members[t.positions]] += t.length
        blank = np.full((n, lengths.max()), np.nan, jax.dtypes.canonicalize_dtype(float))
        names = dict.fromkeys(name for t in trials.values() for name in t.history)
        history = {name: blank.copy() for name in names}
        top = max(int(chunk.split("-")[0]) for chunk in trials)
        for chunk, t in trials.items():
            members, length = groups[t.group].members[t.positions], t.length
            for row, member in enumerate(members.tolist()):
                for name, values in t.history.items():
                    history[name][member, filled[member] : filled[member] + length] = values[row]
                where[member] = (chunk, row, t.group)
                if t.numbers:
                    numbers[member] = [x[row] for x in t.numbers]
            filled[members] += length
            steps[members] += t.ran
            diverged[members] = t.diverged()
            dropped[members] = t.active & (int(chunk.split("-")[0]) < top)
        found = [(len(g.members), g.description) for g in groups]
        spent = tuple(np.sum([t.seconds for t in trials.values()], axis=0).tolist())
        return cls(
            space, metric, mode, history, steps, diverged, found, seconds, compiling, dropped,
            spent, arguments, groups, where, numbers, store, like,
        )  # fmt: skip

    def __len__(self):
        return len(self.space)

    @property
    def scores(self) -> np.ndarray:
        """The metric of every member at its last step [members]."""
        return last(self.history[self.metric], self.steps)

    @property
    def goodness(self) -> np.ndarray:
        """Scores as goodness [members]: more is better; a diverged member is worst."""
        return np.where(self.diverged, -np.inf, better(self.scores, self.mode))

    def order(self) -> np.ndarray:
        """Members from best to worst: those that finished, those that were dropped early, those
        that diverged.
        """
        rank = np.where(self.diverged, 2, self.dropped)
        return np.lexsort((np.arange(len(self)), -self.goodness, rank))

    @property
    def best(self) -> Member:
        """The best member.

        Raises:
            ValueError: every member diverged.
        """
        if self.diverged.all():
            raise ValueError("sweep: every member diverged")
        return self.member(int(self.order()[0]))

    def member(self, i: int) -> Member:
        """A member by its index in the space."""
        tx = next(iter(self._optimizers(i)), None)
        return Member(i, self.setting(i), float(self.scores[i]), tx, self.params(i))

    def setting(self, i: int) -> Setting:
        """A member's setting."""
        return dict(self.space[i])

    def arguments(self, i: int) -> Setting:
        """What `train` was called with for a member, but its key; in a population, the numbers it
        ended with.
        """
        args = self._arguments.of(self.setting(i))
        if i in self._numbers:
            group = self._groups[self._where[i][2]]
            given = {name: args[name] for name in group.treedef.unflatten(group.leaves)}
            leaves, treedef = jax.tree.flatten(given)
            for at, x in zip(group.varying, self._numbers[i], strict=True):
                leaves[at] = x.item() if np.ndim(x) == 0 else x
            args = args | treedef.unflatten(leaves)
        return args

    def optimizer(self, i: int) -> Transform:
        """The optimizer of a member, ready to use.

        Raises:
            ValueError: no argument of train is a gradxform optimizer.
        """
        found = self._optimizers(i)
        if not found:
            raise ValueError("sweep: no argument of train is an optimizer")
        return found[0]

    def _optimizers(self, i: int) -> list[Transform]:
        return [x for x in self.arguments(i).values() if isinstance(x, Transform)]

    def params(self, i: int) -> Tree:
        """The parameters that a member ended with, read from disk where the sweep has a folder."""
        chunk, row, g = self._where[i]
        arrays = self._store.load(chunk, "params/")
        return unflat(self._like(g), {name: x[row] for name, x in arrays.items()})

    def stacked(self) -> Tree:
        """The parameters of all members, [members, ...], where all are of one structure."""
        chunks = {name: self._store.load(name, "params/") for name, *_ in self._where}
        names = next(iter(chunks.values()))
        arrays = {k: np.stack([chunks[c][k][row] for c, row, _ in self._where]) for k in names}
        return unflat(self._like(self._where[0][2]), arrays)

    def rows(self) -> list[Setting]:
        """One dict for each member: its setting as text and numbers, its last metrics, steps,
        whether it diverged.
        """
        finals = {name: last(x, self.steps) for name, x in self.history.items()}
        names = self.space.names
        return [
            {"member": i}
            | {name: shown(setting.get(name)) for name in names}
            | {name: float(x[i]) for name, x in finals.items()}
            | {"steps": int(self.steps[i]), "diverged": bool(self.diverged[i])}
            for i, setting in enumerate(self.space)
        ]

    def table(self):
        """A pandas data frame, one line for each member, the best first. `rows` gives the same
        without pandas.
        """
        import pandas  # optional, and needed only here

        frame = pandas.DataFrame(self.rows())
        return frame.iloc[self.order()].reset_index(drop=True)

    def sensitivity(self) -> dict[str, dict]:
        """How much each name matters: for every value the best and the median score, and the share
        of ranks it explains.

        `importance` is the variance between the mean ranks of its values, over the variance of all
        ranks: 0 where the name makes no difference, 1 where nothing else does. `among_best` is the
        same among the better half of all members: a range that is wide enough makes any name
        important, and this says whether it still decides where things go well. Many distinct
        numbers are put into eight bins of equally many members first.
        """
        ranks = np.empty(len(self))
        ranks[self.order()] = np.arange(len(self))
        high = (ranks < (len(self) + 1) // 2) & ~self.diverged
        found, final = {}, self.scores
        for name in self.space.names:
            values = [shown(setting.get(name)) for setting in self.space]
            kept = [i for i, v in enumerate(values) if v is not None]
            rows: list[dict] = []
            groups: list[np.ndarray] = []
            for label, inside in _bins([values[i] for i in kept]):
                at = np.array([kept[j] for j in inside])
                alive = at[~self.diverged[at]]
                scores = final[alive] if len(alive) else np.array([np.nan])
                best = float(scores.max() if self.mode == "max" else scores.min())
                row = {"value": label, "best": best, "median": float(np.median(scores))}
                rows.append(row | {"diverged": len(at) - len(alive), "members": len(at)})
                groups.append(at)
            among = _share(ranks, [at[high[at]] for at in groups])
            found[name] = {
                "importance": _share(ranks, groups), "among_best": among, "values": rows,
            }  # fmt: skip
        return dict(sorted(found.items(), key=lambda item: -item[1]["importance"]))


def _share(ranks: np.ndarray, groups: list[np.ndarray]) -> float:
    """The share of the variance of ranks that lies between groups of members."""
    groups = [ranks[at] for at in groups if len(at)]
    every = np.concatenate([*groups, []])
    total = np.square(every - every.mean()).sum() if len(every) else 0.0
    between = sum(len(x) * (x.mean() - every.mean()) ** 2 for x in groups)
    return float(between / total) if total else 0.0


def shown(x):
    """A value as a table shows it: numbers as they are, the rest as text."""
    if isinstance(x, Labelled):
        return x.label
    if x is None or isinstance(x, bool | int | float | str):
        return x
    if isinstance(x, np.generic):
        return x.item()
    return code(x)


def _bins(values: list, most: int = 8) -> list[tuple]:
    distinct = list(dict.fromkeys(values))
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in distinct)
    if numeric:
        distinct.sort()
    if not numeric or len(distinct) <= 2 * most:
        at = {v: [] for v in distinct}
        for i, v in enumerate(values):
            at[v].append(i)
        return list(at.items())
    parts = np.array_split(np.argsort(values, kind="stable"), most)
    return [(float(np.median([values[i] for i in part])), part.tolist()) for part in parts]
