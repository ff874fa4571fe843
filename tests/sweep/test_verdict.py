"""Verdicts by simulation: equal methods are told apart in at most 5 % of experiments, and a real difference is
found as often as its interval promises."""

import math

import numpy as np
import pytest

from gradxform.sweep.verdict import judge

ROWS = 360
MIXED = np.linspace(0.5, 2.0, 15)  # the deviation between seeds of each method
WILD = np.array([4.0] + [1.0] * 14)

# methods, seeds, and what else `results` takes: those with numbers small enough for the default run first
CASES = {
    "two": (2, 3, {}),
    "two without an effect of the seed": (2, 5, {"seed": 0.0}),
    "fifteen": (15, 3, {}),
    "fifteen, one wild": (15, 5, {"seed": 0.3, "scale": WILD}),
    "two, five seeds": (2, 5, {}),
    "two, a wild one": (2, 3, {"seed": 0.3, "scale": [4.0, 1.0]}),
    "three": (3, 3, {"seed": 0.3}),
    "fifteen, five seeds": (15, 5, {}),
    "fifteen of mixed variances": (15, 3, {"scale": MIXED}),
    "fifteen, one wild, three seeds": (15, 3, {"seed": 0.3, "scale": WILD}),
    "fifteen, two wild": (15, 3, {"seed": 0.3, "scale": [4.0, 4.0] + [1.0] * 13}),
    "fifteen in two kinds": (15, 5, {"seed": 0.3, "kinds": 2}),
    "fifteen in five kinds": (15, 3, {"seed": 0.3, "kinds": 5}),
    "squared errors": (15, 5, {"seed": 0.3, "classes": False}),
    "nearly no errors": (2, 5, {"noise": 0.1, "easy": 4.0}),
}
FIRST = list(CASES)[:4]


def results(
    rng, methods, seeds, seed=0.15, scale=1.0, shift=0.0, kinds=0, noise=1.0, easy=2.0, classes=True
):
    """Whether each row is classified rightly [methods, seeds, rows], by methods that differ in `shift` alone.

    A row is easy for all or hard for all, and has an effect on each method; a seed has one on all methods, on
    each (times `scale`), or on all methods of a kind; all else is noise.
    """
    scale = np.broadcast_to(scale, (methods,))[:, None, None]
    right = easy + 1.5 * rng.standard_normal(ROWS)
    right = right + 0.6 * rng.standard_normal((methods, 1, ROWS))
    right = right + noise * rng.standard_normal((methods, seeds, ROWS))
    right += 0.1 * rng.standard_normal((1, seeds, 1))
    own = rng.standard_normal((kinds or methods, seeds, 1))[np.arange(methods) % (kinds or methods)]
    right += seed * scale * own + np.broadcast_to(shift, (methods,))[:, None, None]
    return (right > 0).astype(float) if classes else right


def claims(runs, methods, seeds, more, draws):
    """The share of experiments in which some two methods are told apart."""
    rng, found = np.random.default_rng(methods + seeds), 0
    for _ in range(runs):
        judged = judge(results(rng, methods, seeds, **more), draws=draws)
        found += any(judged.apart(first).any() for first in range(methods))
    return found / runs


def most(runs, share=0.05):
    """What a share of 5 % stays below in 999 of 1000 simulations of so many runs."""
    return share + 3.09 * math.sqrt(share * (1 - share) / runs)


@pytest.mark.parametrize("case", FIRST)
def test_equal_methods_are_told_apart_in_one_of_twenty_experiments_at_most(case):
    """100 experiments each: at most 11.7 are allowed for."""
    methods, seeds, more = CASES[case]
    assert claims(100, methods, seeds, more, 500) <= most(100)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_equal_methods_over_hundreds_of_experiments(case):
    """600 experiments each: at most 7.7 % are allowed for."""
    methods, seeds, more = CASES[case]
    assert claims(600, methods, seeds, more, 1000) <= most(600)


def truth(shift, **more):
    """The difference in accuracy that a shift makes, over more rows and seeds than anyone has."""
    rng = np.random.default_rng(1)
    many = [results(rng, 2, 200, shift=[0.0, shift], **more).mean(axis=(1, 2)) for _ in range(20)]
    return float(np.diff(np.mean(many, axis=0))[0])


def check_a_real_difference(runs, methods, seeds, shift, draws):
    """Its interval holds it, and it is found where the interval excludes 0: as often as an estimate with that
    interval's standard error is so far from 0."""
    rng, more = np.random.default_rng(0), {"seed": 0.15}
    real, held, found, promised = truth(shift, **more), 0, 0, []
    shifts = np.where(np.arange(methods) == 1, shift, 0.0)
    for _ in range(runs):
        judged = judge(results(rng, methods, seeds, shift=shifts, **more), draws=draws)
        difference, margin = judged.difference(0)[1], judged.margin(0)[1]
        held += abs(difference - real) <= margin
        found += abs(difference) > margin
        error = margin / judged.factor[0]
        promised.append(0.5 * math.erfc((margin - abs(real)) / error / math.sqrt(2)))
    assert held / runs >= 0.95 - 3.09 * math.sqrt(0.95 * 0.05 / runs)
    power = float(np.mean(promised))
    assert 0.25 < power < 0.95  # neither hopeless nor certain: a rate that says something
    slack = 3.09 * math.sqrt(power * (1 - power) / runs)
    assert power - slack - 0.08 <= found / runs <= power + slack + 0.08, (found / runs, power)


def test_a_real_difference_is_found_as_often_as_its_interval_promises():
    check_a_real_difference(100, 2, 5, -0.5, 500)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("methods", "seeds", "shift"), [(2, 3, -0.9), (2, 5, -0.4), (15, 3, -0.9), (15, 5, -0.6)]
)
def test_a_real_difference_among_more_methods(methods, seeds, shift):
    check_a_real_difference(300, methods, seeds, shift, 1000)


def test_seeds_that_all_differ_by_the_same_are_not_beyond_doubt():
    """Two of 359 rows in each of three seeds: the seeds agree, the rows do not."""
    rows = np.ones((2, 3, 359))
    rows[:, :, :6], rows[1, :, 6:8] = 0.0, 0.0
    judged = judge(rows)
    assert judged.difference(0)[1] == pytest.approx(-2 / 359)
    assert judged.margin(0)[1] > 2 / 359
    assert not judged.apart(0).any()


def test_one_seed_or_one_method_tells_nothing():
    rows = np.random.default_rng(0).random((3, 1, 50))
    for some in (rows, rows[:1], np.repeat(rows[:1], 4, axis=1)):
        judged = judge(some)
        assert not np.isfinite(np.delete(judged.margin(0), 0)).any()
        assert not judged.apart(0).any()


def test_a_method_that_is_not_finite_is_out():
    """And changes nothing for the others."""
    rows = np.random.default_rng(0).random((4, 3, 50))
    lost = np.insert(rows, 1, np.nan, axis=0)
    lost[1, :2] = 0.5
    with_it, without = judge(lost), judge(rows)
    assert with_it.factor == without.factor
    np.testing.assert_array_equal(np.delete(with_it.margin(0), 1), without.margin(0))
    assert np.isnan([with_it.mean[1], with_it.margin(0)[1], with_it.difference(0)[1]]).all()
    assert np.isnan(with_it.margin(1)).all()
    assert not with_it.apart(0)[1]
    assert not judge(np.full((3, 2), np.nan)).apart(0).any()


def test_methods_that_agree_on_every_row_are_not_told_apart():
    rows = (np.random.default_rng(0).random((3, 4, 90)) < 0.9).astype(float)
    rows[1] = rows[0]
    judged = judge(rows)
    assert judged.difference(0)[1] == 0
    assert not judged.apart(0)[1]
    assert not judge(np.ones((2, 3, 90))).apart(0).any()


@pytest.mark.parametrize(
    ("methods", "seeds", "quantile"),
    [(2, 3, 4.303), (3, 5, 4.041 / 2**0.5), (10, 4, 4.864 / 2**0.5)],
)
def test_without_rows_the_factor_is_the_range_of_tukey(methods, seeds, quantile):
    """t of two degrees of freedom for two methods; tabled ranges for 8 and 27 degrees, where the estimate of the
    degrees of freedom does not fall below."""
    rng, factors = np.random.default_rng(0), []
    for _ in range(20):
        factors.append(judge(rng.standard_normal((methods, seeds)), draws=4000).factor[0])
    assert min(factors) == pytest.approx(quantile, rel=0.12)
    assert np.isnan(judge(np.zeros((3, 2))).factor[0])  # nothing to go by


def test_settings_that_hardly_train_do_not_blur_the_others():
    """Eight that differ by 0.01 between the seeds, and two by 0.2."""
    rng = np.random.default_rng(0)
    scores = np.linspace(0.9, 0.5, 10)[:, None] + 0.01 * rng.standard_normal((10, 3))
    scores[[3, 7]] += [[-0.2, 0.0, 0.2], [0.25, 0.0, -0.25]]
    margin = judge(scores, wild=True).margin(0)
    assert np.delete(margin, [0, 3, 7]).max() < 0.06
    assert margin[[3, 7]].min() > 0.5
    assert judge(scores).margin(0)[1:].min() > 0.2


def test_hundreds_of_settings_are_judged_by_a_bound():
    """Equal ones are hardly told apart, and one that is far off is."""
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((300, 3))
    scores[7] += 40.0
    judged = judge(scores, draws=1000)
    assert np.flatnonzero(judged.apart(0)).tolist() == [7]
    assert judged.apart(7).sum() == 299
