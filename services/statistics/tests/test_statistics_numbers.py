"""Every number of a comparison against an independent computation: another library, a published table, or by hand."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from daf_statistics import aggregates, intervals, sign_flips
from daf_statistics.effect_sizes import (
    bias_correction,
    cohens_d,
    cohens_d_paired,
    hedges_g,
    pearson_correlation,
    probability_of_improvement,
)
from daf_statistics.equivalence import equivalence_p_value
from daf_statistics.intervals import mean_interval
from daf_statistics.metrics import thinned
from daf_statistics.multiplicity import Family, adjusted
from daf_statistics.power import MOST_PAIRS, pairs_needed, power
from daf_statistics.sign_flips import fewest_pairs, sign_flip_test, smallest_p_value
from daf_statistics.spread import standard_deviation, standard_error

DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
"""Differences in height of cross- and self-fertilized maize in eighths of an inch: Fisher, The Design of Experiments,
1935, section 17."""
SLEEP = ([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0], [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
"""Student's sleep data (The probable error of a mean, 1908), as R has it."""


def draws(count: int, mean: float, seed: int) -> list[float]:
    generator = random.Random(seed)
    return [generator.gauss(mean, 1.0) for _ in range(count)]


def enumerated_p_value(differences: list[float]) -> float:
    flips = list(itertools.product((1, -1), repeat=len(differences)))
    sums = [abs(sum(sign * d for sign, d in zip(signs, differences, strict=True))) for signs in flips]
    return sum(value >= sums[0] - 1e-12 for value in sums) / len(flips)


def bca_interval(values: list[float], confidence: float, seed: int) -> tuple[float, float]:
    """Efron and Tibshirani, An Introduction to the Bootstrap, section 14.3; with other random numbers than scipy's."""
    generator, normal, mean = random.Random(seed), statistics.NormalDist(), statistics.fmean(values)
    means = sorted(statistics.fmean(generator.choices(values, k=len(values))) for _ in range(20_000))
    bias = normal.inv_cdf(sum(m < mean for m in means) / len(means))
    left_out = [(sum(values) - value) / (len(values) - 1) for value in values]
    centre = statistics.fmean(left_out)
    acceleration = sum((centre - x) ** 3 for x in left_out) / (6 * sum((centre - x) ** 2 for x in left_out) ** 1.5)

    def end(quantile: float) -> float:
        z = bias + normal.inv_cdf(quantile)
        return means[round(normal.cdf(bias + z / (1 - acceleration * z)) * (len(means) - 1))]

    return end((1 - confidence) / 2), end((1 + confidence) / 2)


# The test


def test_fishers_own_sign_flips_of_darwins_maize() -> None:
    # Section 21: of the 2^15 = 32768 flips, 1726 have a sum as far from 0 as the 314 observed.
    test = sign_flip_test([float(d) for d in DARWIN])

    assert (test.p_value, test.method) == (1726 / 32768, "exact sign flips")


@pytest.mark.parametrize("count", [1, 2, 5, 8, 11])
def test_the_p_value_is_the_share_of_sign_flips_with_as_large_a_sum(count: int) -> None:
    differences = draws(count, 0.5, seed=count)
    assert sign_flip_test(differences).p_value == pytest.approx(enumerated_p_value(differences))


def test_random_flips_and_the_normal_limit_agree_with_the_exact_p_value(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = draws(30, 0.25, seed=1)
    exact = sign_flip_test(differences).p_value
    assert 0.005 < exact < 0.2

    monkeypatch.setattr(sign_flips, "EXACT_PAIRS", 10)
    drawn = sign_flip_test(differences)
    monkeypatch.setattr(sign_flips, "NORMAL_PAIRS", 11)
    limit = sign_flip_test(differences)

    assert drawn.p_value == pytest.approx(exact, abs=3 * math.sqrt(2 * exact / sign_flips.RANDOM_FLIPS))
    assert limit.p_value == pytest.approx(exact, abs=0.01)
    assert (drawn.method, limit.method) == ("9999 random sign flips", "normal limit of sign flips")


def test_ties_and_zeros_are_counted_exactly() -> None:
    assert sign_flip_test([0.1, 0.2, 0.3, 0.0, 0.0]).p_value == 2 / 8
    assert sign_flip_test([0.3, -0.1, -0.2]).p_value == 1.0  # 0.1 + 0.2 is not 0.3 in binary, but equal all the same
    assert sign_flip_test([1.0] * 4 + [-1.0]).p_value == pytest.approx(12 / 32)
    assert sign_flip_test([0.0] * 9).p_value == 1.0


def test_many_tests_get_as_many_flips_as_their_alpha_needs() -> None:
    differences = draws(40, 3.0, seed=1)

    alone, among_many = sign_flip_test(differences), sign_flip_test(differences, alpha=0.001, tests=100)

    assert alone.p_value == smallest_p_value(40) == 2 / 10_000
    assert among_many.p_value == smallest_p_value(40, 0.001, 100) == 2 / 100_000


@pytest.mark.parametrize("tests", [1, 3, 45])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.5])
def test_the_fewest_pairs_are_those_with_which_the_smallest_p_value_is_small_enough(alpha: float, tests: int) -> None:
    count = fewest_pairs(alpha, tests)
    assert tests * 2 / 2**count <= alpha * (1 + 1e-9)
    assert tests * 2 / 2 ** (count - 1) > alpha


# The interval


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_interval_is_that_of_the_bca_bootstrap(confidence: float) -> None:
    skewed = [math.exp(value) for value in draws(30, 0.0, seed=1)]

    interval, method = mean_interval([skewed], confidence)

    assert method == "BCa bootstrap"
    assert interval == pytest.approx(bca_interval(skewed, confidence, seed=2), abs=0.06 * statistics.stdev(skewed))


def test_within_missions_what_sets_missions_apart_does_not_widen_the_interval() -> None:
    one, other = draws(12, 0.0, seed=1), draws(12, 100.0, seed=2)

    interval, method = mean_interval([one, other], 0.95)

    assert method == "BCa bootstrap within missions"
    assert interval is not None
    error = math.sqrt(statistics.pvariance(one) / 12 + statistics.pvariance(other) / 12) / 2
    assert interval[1] - interval[0] == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_the_interval_of_many_values_is_students() -> None:
    values = draws(intervals.RESAMPLED_PAIRS, 0.3, seed=5)

    interval, method = mean_interval([values], 0.95)

    assert method == "Student's t"
    assert interval == pytest.approx(tuple(scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)))


def test_a_huge_number_of_pairs_is_no_trouble() -> None:
    values = np.random.default_rng(1).normal(0.01, 1.0, 200_000).tolist()

    interval, _ = mean_interval([values], 0.95)

    assert interval == pytest.approx(tuple(scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)))
    assert sign_flip_test(values).p_value == pytest.approx(scipy.stats.ttest_1samp(values, 0).pvalue, rel=0.01)


# Effect sizes


def test_effect_sizes_of_students_sleep_data() -> None:
    first, second = SLEEP[1], SLEEP[0]
    differences = [a - b for a, b in zip(first, second, strict=True)]

    # mean difference 1.58, variances 4.009 and 3.200556, standard deviation of the differences 1.229995 (R: sleep)
    assert cohens_d(first, second) == pytest.approx(1.58 / math.sqrt((4.009 + 3.2005556) / 2))
    assert cohens_d_paired(differences) == pytest.approx(1.58 / 1.2299955)
    assert pearson_correlation(first, second) == pytest.approx(0.7951702, abs=1e-6)
    t = scipy.stats.ttest_rel(first, second).statistic
    assert cohens_d_paired(differences) == pytest.approx(t / math.sqrt(10))
    assert pearson_correlation(first, second) == pytest.approx(scipy.stats.pearsonr(first, second).statistic)


@pytest.mark.parametrize(("degrees", "factor"), [(2, 0.5642), (10, 0.9228), (20, 0.9619), (50, 0.9849)])
def test_hedges_factor_is_that_of_his_table(degrees: int, factor: float) -> None:
    # Hedges and Olkin, Statistical Methods for Meta-Analysis, 1985, chapter 5, table 2: exact values of J(m).
    assert bias_correction(degrees) == pytest.approx(factor, abs=6e-5)
    assert bias_correction(degrees) == pytest.approx(1 - 3 / (4 * degrees - 1), rel=0.03)


def test_hedges_g_is_the_corrected_d() -> None:
    first, second = draws(10, 1.0, 1), draws(10, 0.0, 2)
    assert hedges_g(first, second) == pytest.approx((cohens_d(first, second) or 0) * (1 - 3 / (4 * 18 - 1)), rel=1e-3)


def test_the_probability_of_improvement_is_mann_whitneys() -> None:
    generator = random.Random(1)
    first, second = ([float(generator.randrange(8)) for _ in range(count)] for count in (30, 20))

    found = probability_of_improvement(first, second)

    assert found == pytest.approx(scipy.stats.mannwhitneyu(first, second).statistic / 600)
    assert found == pytest.approx(sum((a > b) + (a == b) / 2 for a in first for b in second) / 600)


# Families, equivalence, power


@pytest.mark.parametrize(("family", "theirs"), [(Family.HOLM, "holm"), (Family.BENJAMINI_HOCHBERG, "fdr_bh")])
def test_adjusted_p_values_are_those_of_statsmodels(family: Family, theirs: str) -> None:
    generator = random.Random(3)
    for count in (1, 2, 5, 30):
        p_values = [round(generator.random() ** 3, 2) for _ in range(count)]  # rounded, so that there are ties
        assert adjusted(p_values, family) == pytest.approx(list(multipletests(p_values, method=theirs)[1]))


def test_tests_that_could_not_be_carried_out_stay_in_the_family() -> None:
    for family in Family:
        assert adjusted([0.01, 0.2], family, tests=4) == adjusted([0.01, 0.2, 1.0, 1.0], family)[:2]


@pytest.mark.parametrize("margin", [0.1, 0.5, 1.0, 2.0])
def test_equivalence_is_that_of_statsmodels(margin: float) -> None:
    first, second = draws(25, 0.1, 1), draws(25, 0.0, 2)
    differences = [a - b for a, b in zip(first, second, strict=True)]

    theirs = ttost_paired(np.asarray(first), np.asarray(second), -margin, margin)[0]

    assert equivalence_p_value(differences, margin) == pytest.approx(theirs)


def test_equivalence_of_differences_that_do_not_vary_is_no_more_sure_than_sign_flips() -> None:
    assert equivalence_p_value([0.0] * 5, 0.1) == 1 / 32
    assert equivalence_p_value([0.1] * 5, 0.1) == 1.0
    assert equivalence_p_value([0.0], 0.1) == 1.0


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_the_pairs_needed_are_those_of_the_power_tables(effect: float, pairs: int) -> None:
    # Two-sided 5 %, power 80 %: as G*Power's manual and Cohen's tables have it.
    assert pairs_needed(effect, 0.05) == pairs


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 3, 0.001])
@pytest.mark.parametrize("effect", [0.1, 0.35, 0.9])
def test_power_is_that_of_statsmodels(effect: float, alpha: float) -> None:
    # Of the right sign: with both signs, statsmodels answers NaN for large powers and small alphas.
    right_sign = {"alpha": alpha / 2, "alternative": "larger"}

    for pairs in (10, 40, 300):
        assert power(effect, pairs, alpha) == pytest.approx(TTestPower().power(effect, pairs, **right_sign))
    needed = TTestPower().solve_power(effect, power=0.9, **right_sign)
    assert pairs_needed(effect, alpha, 0.9) == math.ceil(needed - 1e-6)


def test_a_family_needs_the_pairs_of_its_smallest_share() -> None:
    assert pairs_needed(0.5, 0.05, tests=3) == pairs_needed(0.5, 0.05 / 3)


def test_an_effect_too_small_or_too_large_is_no_trouble() -> None:
    assert pairs_needed(0.0, 0.05) is None
    assert pairs_needed(1e-6, 0.05) is None
    assert pairs_needed(1e-3, 0.05) == pytest.approx(7_848_900, rel=1e-3)  # (1.96 + 0.8416)^2 / effect^2
    assert pairs_needed(math.inf, 0.05) == fewest_pairs(0.05)
    assert MOST_PAIRS == 10_000_000


# Aggregates


def matrix(rows: int, seed: int) -> list[list[float]]:
    generator = random.Random(seed)
    return [[generator.gauss(0, 1), generator.gauss(1, 2)] for _ in range(rows)]


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 40])
def test_interquartile_means_are_scipys_trimmed_means(rows: int) -> None:
    blocks = [matrix(rows, 1), matrix(rows, 2)]
    flat = np.asarray([row for mission in blocks for row in mission])

    assert aggregates.interquartile_means(blocks) == pytest.approx(list(scipy.stats.trim_mean(flat, 0.25, axis=0)))


def test_their_intervals_are_those_of_a_stratified_bootstrap() -> None:
    blocks = [matrix(20, 1), [[100 + value for value in row] for row in matrix(30, 2)]]
    generator = random.Random(9)
    drawn = []
    for _ in range(1500):
        rows = [row for mission in blocks for row in generator.choices(mission, k=len(mission))]
        drawn.append(scipy.stats.trim_mean(rows, 0.25, axis=0))
    expected = np.percentile(drawn, [2.5, 97.5], axis=0).T

    found = aggregates.interquartile_intervals(blocks, 0.95)

    spread = np.std(drawn, axis=0)
    for interval, ends, error in zip(found, expected, spread, strict=True):
        assert interval == pytest.approx(tuple(ends), abs=0.2 * error)


def test_the_interval_of_many_values_is_the_limit_of_the_bootstraps(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [matrix(600, 1)]
    drawn = aggregates.interquartile_intervals(blocks, 0.95)

    monkeypatch.setattr(aggregates, "RESAMPLED_BLOCKS", 600)
    limit = aggregates.interquartile_intervals(blocks, 0.95)

    for one, other in zip(drawn, limit, strict=True):
        assert one is not None
        assert one == pytest.approx(other, abs=0.15 * (one[1] - one[0]))


def test_a_constant_policy_has_no_interval_and_the_others_keep_theirs() -> None:
    blocks = [[[1.0, value] for value in draws(9, 0.0, 1)], [[2.0, value] for value in draws(9, 0.0, 2)]]

    constant, other = aggregates.interquartile_intervals(blocks, 0.95)

    assert constant is None
    assert other is not None


def test_profiles_are_shares_of_higher_values_with_equal_weight_for_missions() -> None:
    blocks = [[[0.0, 4.0], [1.0, 4.0]], [[2.0, 4.0]] * 5]
    at = [-1.0, 0.0, 1.0, 2.0]

    first, second = aggregates.performance_profiles(blocks, at)

    assert first == pytest.approx([1.0, (0.5 + 1) / 2, (0 + 1) / 2, 0.0])
    assert second == [1.0] * 4
    assert aggregates.thresholds(blocks)[0] == 0.0
    assert aggregates.thresholds(blocks)[-1] == 4.0


# Spread


def test_standard_deviation_and_error() -> None:
    values = draws(12, 1.0, seed=4)

    assert standard_deviation(values) == pytest.approx(statistics.stdev(values))
    assert standard_error(values) == pytest.approx(statistics.stdev(values) / math.sqrt(12))
    assert standard_error([0.1] * 3) == 0.0
    assert standard_error([0.1]) is None


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 100])
@pytest.mark.parametrize("at_most", [0, 1, 2, 3, 50])
def test_thinning_keeps_order_and_the_last_point(count: int, at_most: int) -> None:
    kept = thinned(range(count), at_most)

    assert len(kept) == (min(count, at_most) if at_most else count)
    assert list(kept) == sorted(set(kept))
    assert not count or kept[-1] == count - 1
