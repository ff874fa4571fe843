"""What repeated trainings can tell: differences between methods, with intervals that hold all at
once.

    judged = judge(goodness)             # [methods, seeds] or [methods, seeds, rows of test data]
    judged.difference(0), judged.margin(0)      # to method 0: the true one lies within ±margin

Two sources make a result uncertain, and both are drawn from more than was seen: the rows of test
data, and the seeds. All methods share both, so that only what differs between methods counts.

Rows: the covariance between methods of the seeds' mean on each row; with hundreds of rows it is
known. Seeds: three or five say little, so that their variance is pooled over all methods, with
up to (M - 1)(S - 1) degrees of freedom; where a method varies more than that, its own counts. What
varies from seed to seed and from row to row at once is seen by both, and taken from one.

The interval's factor is such that in 95 of 100 experiments *every* difference between two methods
lies in its interval (J. W. Tukey, 1953, the range; here by simulation, since neither variances nor
covariances are equal, the unknown variance drawn from what the seeds leave possible, as W. U.
Behrens, 1929, and R. A. Fisher did). So it does not matter which method was chosen as first, nor by
what: the choice is among pairs that are all covered.
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np

LEVEL, DRAWS = 0.95, 10_000
ENOUGH = 6  # methods, for the median of their variances to say what is common
MANY = 256  # methods beyond which a bound takes the place of all pairs
ROOM, EFFORT = 4_000_000, 200_000_000  # numbers held at once, and in all


class Judged(NamedTuple):
    """M methods, and what is known of the differences between them.

    Attributes:
        mean: [M], over seeds and rows; nan where a member is not finite.
        seeds: the variance that the choice of seeds gives the means.
        rows: the variance that the choice of rows gives them.
        factor: how many standard errors an interval has on each side, and where a method is
            wild; nan where nothing is known.
    """

    mean: np.ndarray
    seeds: "_Seeds"
    rows: "_Rows"
    factor: tuple[float, float]

    def difference(self, first: int) -> np.ndarray:
        """The mean of each method less that of the first [M]."""
        return self.mean - self.mean[first]

    def margin(self, first: int) -> np.ndarray:
        """Half the width of the interval of each difference [M]; 0 for the first itself, nan where
        nothing is known.
        """
        found = np.full(len(self.mean), np.nan)
        at = np.flatnonzero(np.isfinite(self.mean))
        if np.isfinite(self.factor[0]) and first in at:
            here, wild = int(np.searchsorted(at, first)), self.seeds.wild
            factor = np.where(wild | wild[here], *self.factor[::-1])
            found[at] = factor * np.sqrt(_variance(self.seeds, self.rows, here))
            found[first] = 0.0
        return found

    def apart(self, first: int) -> np.ndarray:
        """Whether the data tell each method from the first [M]."""
        with np.errstate(invalid="ignore"):
            return np.abs(self.difference(first)) > self.margin(first)


class _Seeds(NamedTuple):
    """Of the methods that are finite: what the seeds leave uncertain of their means."""

    own: np.ndarray  # [M, S] the mean over rows of each seed, less that of all seeds
    pooled: float  # the variance of a method between seeds, where all have the same
    each: np.ndarray  # [M] its own
    freedom: float  # degrees of freedom of the pooled one
    wild: np.ndarray  # [M] whether its own is too large to be pooled


class _Rows(NamedTuple):
    """Of the methods that are finite: what the rows leave uncertain of their means."""

    alone: np.ndarray  # [M, M] covariance of the means, less what varies with the seed as well
    all: np.ndarray  # [M, M] covariance of the means


def judge(goodness, level: float = LEVEL, draws: int = DRAWS, wild: bool = False) -> Judged:
    """Compare methods by the results of their members: [methods, seeds], or of each on every row of
    test data, [methods, seeds, rows], the same seeds and rows for all.

    A method with a result that is not finite is out. Of one seed, or one method, nothing is known.
    With `wild`, those that vary far more between seeds than most are judged by their own seeds
    alone: where many are tried, some hardly train, and pooled they would blur all intervals. One
    that is as good as the others, but wild, may then be told apart more often than it should.
    """
    goodness = np.asarray(goodness, np.float64)
    goodness = goodness[..., None] if goodness.ndim == 2 else goodness
    alive = np.isfinite(goodness).all(axis=(1, 2))
    mean = np.where(alive, goodness.mean(axis=(1, 2)), np.nan)
    goodness = goodness[alive]
    seeds, rows, factor = _of_seeds(goodness, wild), _of_rows(goodness), (np.nan, np.nan)
    if min(goodness.shape[:2]) > 1 and (seeds.pooled > 0 or rows.all.any()):
        factor = _factor(seeds, rows, level, draws)
    return Judged(mean, seeds, rows, factor)


def _of_seeds(goodness: np.ndarray, some_wild: bool) -> _Seeds:
    """The pooled variance between seeds, each method's own, and how well the former is known.

    The seeds give S - 1 vectors of methods; how many dimensions these fill, (tr Σ)² / tr Σ², says
    how many of the methods vary by themselves (S. W. Greenhouse, S. Geisser, 1959; both traces
    without bias, as H. Huynh and L. S. Feldt, 1976, want them).
    """
    own = goodness.mean(axis=2)
    own = own - own.mean(axis=1, keepdims=True)
    methods, count = own.shape[0], own.shape[1] - 1
    wild = np.zeros(methods, bool)
    if min(methods, 1 + count) < 2:
        return _Seeds(own, 0.0, np.zeros(methods), 1.0, wild)
    if some_wild and ENOUGH <= methods <= MANY:
        wild = _wild(_each(own, own), count)
    alike = np.flatnonzero(~wild)
    each, double = _each(own, own[alike]), own[alike] - own[alike].mean(axis=0)
    total, others = float(np.square(double).sum()), len(alike) - 1
    if not total:
        return _Seeds(own, 0.0, each, 1.0, wild)
    squares, filled = np.square(double.T @ double / total).sum(), float(others)
    if count > 1 and others > 1:
        excess = max(count * squares - 1, 1e-12)
        filled = min(filled, max(1.0, (count + 1 - 2 * squares) / excess))
    return _Seeds(own, total / (others * count), each, count * filled, wild)


def _each(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The variance between seeds of each method, less what the others have in common."""
    methods, count = len(others), own.shape[1] - 1
    double = own - others.mean(axis=0)
    return np.square(double).sum(axis=1) * methods / ((methods - 1) * count)


def _wild(each: np.ndarray, count: int) -> np.ndarray:
    """Which methods vary more than chance makes of a common variance in 19 of 20 experiments: so
    many times the median (quantiles of chi-square after E. B. Wilson and M. M. Hilferty, 1931).
    Those that hardly train, or now and then, must not blur all intervals.
    """
    top = NormalDist().inv_cdf(1 - 0.05 / len(each))
    most, middle = ((1 - 2 / (9 * count) + z * (2 / (9 * count)) ** 0.5) ** 3 for z in (top, 0.0))
    return each > most / middle * np.median(each)


def _of_rows(goodness: np.ndarray) -> _Rows:
    """The covariance of the means that the choice of rows gives; empty where there is one row."""
    methods, seeds, count = goodness.shape
    if count == 1 or not methods:
        return _Rows(*np.zeros((2, 0, 0)))
    by_row = goodness.mean(axis=1)
    found = np.atleast_2d(np.cov(by_row)) / count
    if seeds == 1:
        return _Rows(found, found)
    both = goodness - by_row[:, None] - goodness.mean(axis=2, keepdims=True)
    both = (both + goodness.mean(axis=(1, 2))[:, None, None]).reshape(methods, -1)
    both = both @ both.T / ((seeds - 1) * (count - 1) * seeds * count)
    root = _root(found - both)
    return _Rows(root @ root.T, found)


def _variance(seeds: _Seeds, rows: _Rows, first: int | None = None) -> np.ndarray:
    """The variance of the difference of every two means [M, M], or of each and the first [M]."""
    count = seeds.own.shape[1] - 1
    if first is None:
        found = _spread(seeds.own @ seeds.own.T)
        pick = slice(None)
    else:
        found = np.square(seeds.own - seeds.own[first]).sum(axis=1)
        pick = first
    wild = np.where(seeds.wild, seeds.each, 0.0)
    wild = (wild[:, None] + wild)[pick] if wild.any() else 0.0
    found = np.maximum(found / count, np.maximum(2 * seeds.pooled, wild)) / (count + 1)
    if not rows.all.size:
        return found
    return np.maximum(found + _spread(rows.alone)[pick], _spread(rows.all)[pick])


def _spread(covariance: np.ndarray) -> np.ndarray:
    """The variance of all differences [M, M] of what has this covariance."""
    diagonal = np.diagonal(covariance)
    return np.maximum(diagonal[:, None] + diagonal - 2 * covariance, 0)


def _root(covariance: np.ndarray) -> np.ndarray:
    """A root of a covariance, or of the nearest that can be one."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))


def _factor(seeds: _Seeds, rows: _Rows, level: float, draws: int) -> tuple[float, float]:
    """The quantile of the largest of all studentized differences, were all methods equal; and that
    where a method is wild, whose variance its own seeds alone must tell: half of the errors.
    """
    methods, count = seeds.own.shape
    rng, many = np.random.default_rng(0), methods > MANY and not rows.all.size
    draws = min(draws, max(1000, EFFORT // (methods if many else methods**2)))
    deviations = np.sqrt(np.maximum(seeds.each, seeds.pooled) / count)
    root = _root(rows.alone) if rows.all.size else np.zeros((methods, 0))
    least = 2 * seeds.pooled / count  # no variance of a difference is below
    variance = np.full((1, 1), least) if many else _variance(seeds, rows)
    known = variance > 1e-12 * variance.max()
    weights = np.where(known, 1 / np.sqrt(np.where(known, variance, 1.0)), 0.0).astype(np.float32)
    wild = seeds.wild[:, None] | seeds.wild
    kinds = [np.where(pairs, weights, 0) for pairs in (~wild, wild)[: 1 + wild.any()] if not many]
    part, found = max(1, ROOM // (methods * (1 if many else methods))), []
    for start in range(0, draws, part):
        n = min(part, draws - start)
        possible = np.sqrt(seeds.freedom / rng.chisquare(seeds.freedom, (n, 1)))
        if wild.any():
            own = np.sqrt((count - 1) / rng.chisquare(count - 1, (n, methods)))
            possible = np.where(seeds.wild, own, possible)
        means = possible * deviations * rng.standard_normal((n, methods))
        means = (means + rng.standard_normal((n, root.shape[1])) @ root.T).astype(np.float32)
        if many:
            found.append([np.ptp(means, axis=1) * weights[0, 0]])
        else:
            apart = np.abs(means[:, :, None] - means[:, None])
            found.append([(apart * some).max(axis=(1, 2)) for some in kinds])
    largest, share = np.concatenate(found, axis=1), 1 - level
    if len(largest) == 1:
        factor = float(np.quantile(largest, level))
        return factor, factor
    common = float(np.quantile(largest[0], 1 - share / 2))
    return common, max(common, float(np.quantile(largest[1], 1 - share / 2)))
