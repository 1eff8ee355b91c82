"""What holds for every comparison: order, mirror, error rates, and the verdicts on degenerate data."""

from __future__ import annotations

import asyncio
import math
import random
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daf_statistics import comparison, comparison_servicer
from daf_statistics.comparison import ComparisonOutcome, PairOutcome, compare
from daf_statistics.design import Design
from daf_statistics.episodes import Conditions
from daf_statistics.multiplicity import Family
from daf_statistics.samples import Player, Sample
from daf_statistics.sign_flips import sign_flip_test
from daf_statistics.verdicts import Verdict

ZEROS = [0.0] * 20


def player(label: str, *missions: Sequence[float]) -> Player:
    samples = [
        Sample(
            number, index, Conditions(f"mission {number}", index, 0, 0, ()), value, f"{label} {number} {index}".encode()
        )
        for number, values in enumerate(missions)
        for index, value in enumerate(values)
    ]
    return Player(label, samples)


def compared(first: Sequence[float], second: Sequence[float], **design: object) -> PairOutcome:
    outcome = compare(Design(**{"metric": "reward", **design}), [player("A", first), player("B", second)])
    return outcome.pairs[0]


def draws(count: int, mean: float, seed: int) -> list[float]:
    generator = random.Random(seed)
    return [generator.gauss(mean, 1.0) for _ in range(count)]


VALUES = st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0, 2.5])
MISSION = st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=9)
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@QUICK
@given(missions=st.lists(MISSION, min_size=1, max_size=2), order=st.randoms(use_true_random=False))
def test_the_order_of_episodes_never_changes_anything(
    missions: list[list[tuple[float, float, float]]], order: random.Random
) -> None:
    players = [player(label, *([row[n] for row in mission] for mission in missions)) for n, label in enumerate("ABC")]
    shuffled = [replace(one, samples=order.sample(list(one.samples), len(one.samples))) for one in players]

    design = Design("reward", margin=0.5)

    assert compare(design, shuffled) == compare(design, players)


@QUICK
@given(missions=st.lists(MISSION, min_size=1, max_size=2))
def test_turning_two_policies_round_turns_their_comparison_round(
    missions: list[list[tuple[float, float, float]]],
) -> None:
    players = [player(label, *([row[n] for row in mission] for mission in missions)) for n, label in enumerate("AB")]
    design = Design("reward", margin=0.5)

    outcome, turned = compare(design, players), compare(design, players[::-1])

    assert turned.policies == outcome.policies[::-1]
    assert turned.thresholds == outcome.thresholds
    assert turned.warnings == outcome.warnings
    assert [_mirrored(pair) for pair in _all_pairs(turned)] == [_numbers(pair) for pair in _all_pairs(outcome)]


def _all_pairs(outcome: ComparisonOutcome) -> list[PairOutcome]:
    return [*outcome.pairs, *(pair for mission in outcome.missions for pair in mission.pairs)]


def _numbers(pair: PairOutcome) -> tuple[object, ...]:
    m = pair.measures
    improvement = None if m.probability_of_improvement is None else round(m.probability_of_improvement, 12)
    ends = m.interval or (None, None)
    means, deviations = (m.first_mean, m.second_mean), (m.first_deviation, m.second_deviation)
    signed = (m.difference, *ends, m.cohens_d, m.cohens_d_paired, m.hedges_g)
    alike = (m.pairs, m.p_value, m.adjusted_p_value, m.equivalence_p_value, m.correlation, m.interval_method)
    return pair.verdict, improvement, means, deviations, signed, alike


def _mirrored(pair: PairOutcome) -> tuple[object, ...]:
    verdict, improvement, means, deviations, signed, alike = _numbers(pair)
    turned = {Verdict.FIRST_BETTER: Verdict.SECOND_BETTER, Verdict.SECOND_BETTER: Verdict.FIRST_BETTER}
    difference, low, high, *effects = (None if value is None else -value for value in signed)
    return (
        turned.get(verdict, verdict),
        None if improvement is None else round(1 - improvement, 12),
        means[::-1],
        deviations[::-1],
        (difference, high, low, *effects),
        alike,
    )


@QUICK
@given(values=st.lists(VALUES, min_size=1, max_size=40), margin=st.none() | st.floats(1e-3, 1e3))
def test_a_policy_is_never_better_than_itself(values: list[float], margin: float | None) -> None:
    outcome = compared(values, values, margin=margin)

    assert outcome.verdict not in (Verdict.FIRST_BETTER, Verdict.SECOND_BETTER)


def test_equal_policies_are_told_apart_in_at_most_alpha_of_a_thousand_runs() -> None:
    # Each run: three equal policies whose values share the seed's difficulty, skewed, 9 episodes. A decision about any
    # pair is wrong; the verdict needs the adjusted test, so that test decides the rate.
    generator = np.random.default_rng(1)
    wrong = 0
    for _ in range(1000):
        values = generator.exponential(1.0, (9, 1)) + generator.exponential(1.0, (9, 3))
        p_values = [sign_flip_test(list(values[:, a] - values[:, b])).p_value for a, b in ((0, 1), (0, 2), (1, 2))]
        wrong += 3 * min(p_values) <= 0.05

    assert wrong <= 1000 * 0.05 + 2 * math.sqrt(1000 * 0.05 * 0.95)


def test_verdicts_themselves_are_wrong_no_more_often() -> None:
    generator = np.random.default_rng(2)
    wrong = 0
    for _ in range(60):
        values = generator.normal(size=(10, 1)) + generator.normal(size=(10, 2))
        verdict = compared(values[:, 0].tolist(), values[:, 1].tolist()).verdict
        wrong += verdict is not Verdict.UNDECIDED

    assert wrong <= 60 * 0.05 + 3 * math.sqrt(60 * 0.05 * 0.95)


def test_a_clear_difference_is_found_in_either_direction() -> None:
    better, worse = draws(20, 2.0, seed=1), draws(20, 0.0, seed=2)

    outcome = compared(better, worse)

    assert outcome.verdict is Verdict.FIRST_BETTER
    assert outcome.measures.interval is not None
    assert outcome.measures.interval[0] > 0
    assert outcome.sentence.startswith("A has a higher reward than B: a difference of ")
    assert compared(worse, better).sentence.startswith("A has a higher") is False


def test_undecided_policies_come_with_the_number_of_pairs_that_is_needed() -> None:
    outcome = compared(draws(20, 0.2, seed=1), draws(20, 0.0, seed=9))

    assert outcome.verdict is Verdict.UNDECIDED
    assert "pairs are needed" in outcome.sentence


@pytest.mark.parametrize(
    ("count", "verdict"), [(1, Verdict.UNDECIDED), (5, Verdict.UNDECIDED), (6, Verdict.FIRST_BETTER)]
)
def test_fewer_pairs_than_the_test_needs_decide_nothing(count: int, verdict: Verdict) -> None:
    outcome = compared([10.0 + value for value in range(count)], [float(value % 2) for value in range(count)])

    assert outcome.verdict is verdict
    assert ("at least 6" in outcome.sentence) == (verdict is Verdict.UNDECIDED)


def test_only_pairs_that_differ_can_decide() -> None:
    outcome = compared([1.0] * 5 + ZEROS, [0.0] * 25)

    assert outcome.verdict is Verdict.UNDECIDED
    assert "of 25 pairs 5 differ" in outcome.sentence


@pytest.mark.parametrize("constant", [0.0, 0.1, -3.5])
def test_a_constant_metric_is_degenerate(constant: float) -> None:
    outcome = compared([constant] * 20, [constant] * 20, metric="hearts", margin=1.0)

    assert (outcome.verdict, outcome.measures.p_value) == (Verdict.DEGENERATE, None)
    assert "hearts does not vary" in outcome.sentence


def test_policies_that_are_equal_in_every_pair_are_undecided_or_equivalent() -> None:
    values = draws(20, 0.0, seed=1)

    outcome = compared(values, values)

    assert (outcome.verdict, outcome.measures.difference, outcome.measures.p_value) == (Verdict.UNDECIDED, 0.0, 1.0)
    assert (outcome.measures.interval, outcome.measures.cohens_d_paired) == (None, None)
    assert compared(values, values, margin=0.01).verdict is Verdict.EQUIVALENT
    assert compared(values[:4], values[:4], margin=0.01).verdict is Verdict.UNDECIDED


def test_a_sure_difference_within_the_margin_is_equivalent() -> None:
    first, second = [1.0 + i for i in range(20)], [1.01 + i + 0.001 * (i % 2) for i in range(20)]

    assert compared(first, second).verdict is Verdict.SECOND_BETTER
    assert compared(first, second, margin=0.1).verdict is Verdict.EQUIVALENT


def test_a_constant_difference_is_decided_by_the_test_without_an_interval() -> None:
    outcome = compared([2.0] * 10, [1.0] * 10)

    assert (outcome.verdict, outcome.measures.interval) == (Verdict.FIRST_BETTER, None)
    assert (outcome.measures.correlation, outcome.measures.cohens_d) == (None, None)
    assert outcome.measures.p_value == pytest.approx(2 / 2**10)


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
        [5.0],
    ],
)
def test_degenerate_differences_never_end_in_nan(differences: list[float]) -> None:
    outcome = compared(differences, [0.0] * len(differences), margin=1.0)

    assert outcome.verdict in (Verdict.FIRST_BETTER, Verdict.UNDECIDED, Verdict.EQUIVALENT)
    assert "nan" not in outcome.sentence
    for name, value in vars(outcome.measures).items():
        if isinstance(value, float):
            assert not math.isnan(value), name
    assert outcome.measures.p_value is not None
    assert 0 < outcome.measures.p_value <= 1


def test_more_policies_make_every_decision_harder() -> None:
    better = [1.0 + value for value in draws(7, 0.0, 1)]
    players = [
        player("A", better),
        player("B", ZEROS[:7]),
        player("C", draws(7, 0.0, 3)),
        player("D", draws(7, 0.0, 4)),
    ]

    alone = compare(Design("reward"), players[:2]).pairs[0].measures
    among_four = compare(Design("reward"), players).pairs[0].measures
    against_one = compare(Design("reward", baseline=1), players).pairs[0].measures
    exploring = compare(Design("reward", family=Family.BENJAMINI_HOCHBERG), players).pairs[0].measures

    assert alone.p_value == among_four.p_value == against_one.p_value == exploring.p_value
    assert alone.adjusted_p_value == alone.p_value
    assert among_four.adjusted_p_value is not None
    assert against_one.adjusted_p_value is not None
    assert exploring.adjusted_p_value is not None
    assert among_four.adjusted_p_value >= against_one.adjusted_p_value >= alone.adjusted_p_value
    assert among_four.adjusted_p_value >= exploring.adjusted_p_value


def test_tens_of_thousands_of_pairs_are_no_trouble() -> None:
    values = np.random.default_rng(1).normal(size=(20_000, 2))

    outcome = compared((values[:, 0] + 0.05).tolist(), values[:, 1].tolist())

    assert outcome.verdict is Verdict.FIRST_BETTER
    assert outcome.measures.pairs == 20_000
    assert (outcome.measures.interval_method, outcome.measures.test_method) == (
        "Student's t",
        "normal limit of sign flips",
    )


async def test_a_comparison_for_which_nobody_waits_any_longer_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    first, goes_on, ended = threading.Event(), threading.Event(), threading.Event()
    measure = comparison.measure

    def when_told(*arguments: Any) -> Any:
        measured.append(arguments)
        first.set()
        assert goes_on.wait(60)
        return measure(*arguments)

    def compare_to_its_end(*arguments: Any) -> ComparisonOutcome:
        try:
            return compare(*arguments)
        finally:
            ended.set()

    monkeypatch.setattr(comparison, "measure", when_told)
    monkeypatch.setattr(comparison_servicer, "compare", compare_to_its_end)
    players = [player(name, [float(seed) for seed in range(8)]) for name in "abcdefghijklmnop"]
    task = asyncio.create_task(comparison_servicer._compared(Design("reward"), players, None))
    assert await asyncio.to_thread(first.wait, 30)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    goes_on.set()
    assert await asyncio.to_thread(ended.wait, 30)
    assert len(measured) == 1  # of 120 pairs
