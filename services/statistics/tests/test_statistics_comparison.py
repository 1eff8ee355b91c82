"""Comparisons and summaries against independent computations, and the traps of constant data."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import pytest
import scipy.stats

from daf_statistics import comparison
from daf_statistics.comparison import Verdict, compare, fewest_pairs, mean_interval, pairs_needed, sign_flip_p_value
from daf_statistics.metrics import thinned
from daf_statistics.summary import standard_error

ZEROS = [0.0] * 20


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


@pytest.mark.parametrize("count", [2, 5, 8, 11])
def test_the_p_value_is_the_share_of_sign_flips_with_as_large_a_mean(count: int) -> None:
    differences = draws(count, 0.5, seed=count)
    assert sign_flip_p_value(differences) == pytest.approx(enumerated_p_value(differences))


def test_random_flips_and_their_normal_limit_agree_with_the_exact_p_value(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = draws(16, 0.55, seed=1)
    exact = enumerated_p_value(differences)

    assert 0.01 < exact < 0.2
    assert sign_flip_p_value(differences) == pytest.approx(exact, abs=3 * math.sqrt(exact / comparison.RESAMPLES))
    monkeypatch.setattr(comparison, "RESAMPLED_PAIRS", 10)
    assert sign_flip_p_value(differences) == pytest.approx(exact, abs=0.02)


def test_the_test_rejects_equal_policies_no_more_often_than_it_says() -> None:
    rejected = sum(sign_flip_p_value(draws(9, 0.0, seed)) <= 0.05 for seed in range(400))
    assert rejected <= 400 * 0.05 + 3 * math.sqrt(400 * 0.05 * 0.95)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_interval_is_that_of_the_bca_bootstrap(confidence: float) -> None:
    skewed = [math.exp(value) for value in draws(30, 0.0, seed=1)]

    interval, method = mean_interval(skewed, confidence)

    assert method == "BCa bootstrap"
    assert interval == pytest.approx(bca_interval(skewed, confidence, seed=2), abs=0.06 * statistics.stdev(skewed))


def test_the_interval_of_many_values_is_students() -> None:
    values = draws(comparison.RESAMPLED_PAIRS, 0.3, seed=5)

    interval, method = mean_interval(values, 0.95)

    assert method == "Student's t"
    assert interval == pytest.approx(tuple(scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)))


def test_the_same_values_always_give_the_same_answer() -> None:
    first, second = draws(40, 0.3, seed=1), draws(40, 0.0, seed=2)
    assert compare("reward", first, second, 0.95) == compare("reward", first, second, 0.95)


def test_a_clear_difference_is_found_in_either_direction() -> None:
    better, worse = draws(20, 2.0, seed=1), draws(20, 0.0, seed=2)

    outcome = compare("reward", better, worse, 0.95)

    assert outcome.verdict is Verdict.FIRST_BETTER
    assert outcome.interval is not None
    assert outcome.interval[0] > 0
    assert outcome.difference == pytest.approx(statistics.fmean(better) - statistics.fmean(worse))
    assert outcome.correlation == pytest.approx(statistics.correlation(better, worse))
    assert compare("reward", worse, better, 0.95).verdict is Verdict.SECOND_BETTER


def test_equal_policies_are_undecided_with_the_number_of_pairs_that_is_needed() -> None:
    outcome = compare("reward", draws(20, 0.2, seed=1), draws(20, 0.0, seed=9), 0.95)

    assert outcome.verdict is Verdict.UNDECIDED
    assert "pairs are needed" in outcome.sentence


@pytest.mark.parametrize(
    ("count", "verdict"), [(1, Verdict.UNDECIDED), (5, Verdict.UNDECIDED), (6, Verdict.FIRST_BETTER)]
)
def test_fewer_pairs_than_the_test_needs_decide_nothing(count: int, verdict: Verdict) -> None:
    first = [10.0 + value for value in range(count)]

    outcome = compare("reward", first, [float(value % 2) for value in range(count)], 0.95)

    assert outcome.verdict is verdict
    assert ("at least 6" in outcome.sentence) == (verdict is Verdict.UNDECIDED)


def test_the_fewest_pairs_are_those_with_which_the_smallest_p_value_is_small_enough() -> None:
    for confidence in (0.5, 0.8, 0.9, 0.95, 0.99, 0.999):
        count = fewest_pairs(confidence)
        assert 2 / 2**count <= 1 - confidence + 1e-12 < 2 / 2 ** (count - 1)


def test_only_pairs_that_differ_can_decide() -> None:
    outcome = compare("reward", [1.0] * 5 + ZEROS, [0.0] * 25, 0.95)

    assert outcome.verdict is Verdict.UNDECIDED
    assert "25 pairs of which 5 differ" in outcome.sentence


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_the_pairs_needed_are_those_of_the_power_tables(effect: float, pairs: int) -> None:
    # Cohen's effect size of the differences, two-sided 5 %, power 80 %: as G*Power and statsmodels' TTestPower say.
    spread = math.sqrt(19 / 20)  # makes the standard deviation of the twenty values exactly 1
    differences = [effect + (spread if number % 2 else -spread) for number in range(20)]

    assert pairs_needed(differences, 0.95) == pairs


def test_an_effect_too_small_to_be_found_names_no_number() -> None:
    assert pairs_needed([1.0, -1.0] * 10, 0.95) is None


@pytest.mark.parametrize("constant", [0.0, 0.1, -3.5])
def test_a_constant_metric_is_degenerate(constant: float) -> None:
    outcome = compare("hearts", [constant] * 20, [constant] * 20, 0.95)

    assert (outcome.verdict, outcome.p_value, outcome.interval) == (Verdict.DEGENERATE, None, None)
    assert "hearts does not vary" in outcome.sentence


def test_policies_that_are_equal_in_every_pair_are_undecided() -> None:
    values = draws(20, 0.0, seed=1)

    outcome = compare("reward", values, values, 0.95)

    assert (outcome.verdict, outcome.difference, outcome.p_value) == (Verdict.UNDECIDED, 0.0, 1.0)
    assert (outcome.interval, outcome.method) == (None, "none: the differences do not vary")


def test_a_constant_difference_is_decided_by_the_test_without_an_interval() -> None:
    outcome = compare("reward", [2.0] * 10, [1.0] * 10, 0.95)

    assert (outcome.verdict, outcome.interval, outcome.correlation) == (Verdict.FIRST_BETTER, None, None)
    assert outcome.p_value == pytest.approx(2 / 2**10)


@pytest.mark.parametrize(
    "differences",
    [
        [0.0] * 19 + [1.0],
        [1.0] * 19 + [1.0 + 1e-15],
        [0.3 - 0.1, 0.2] * 10,
        [1e-300, 2e-300] * 10,
        [1e99, -1e98] * 10,
        [5.0, 5.0],
        [5.0, 6.0],
    ],
)
def test_degenerate_differences_never_end_in_nan(differences: list[float]) -> None:
    outcome = compare("reward", differences, [0.0] * len(differences), 0.95)

    assert outcome.verdict in (Verdict.FIRST_BETTER, Verdict.UNDECIDED)
    assert outcome.p_value is not None
    assert 0 < outcome.p_value <= 1
    assert outcome.interval is None or outcome.interval[0] <= outcome.interval[1]
    assert "nan" not in outcome.sentence


def test_the_standard_error_is_that_of_the_mean() -> None:
    values = draws(12, 1.0, seed=4)

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
