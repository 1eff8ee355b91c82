"""Weighted scores, computed again by other means."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from daf_statistics.outcomes import Outcome
from daf_statistics.teams import TeamEpisode, team_episode
from daf_statistics.weighted_scores import weighted_scores

MISSION = json.dumps({"name": "arena"})


def episode(
    seats: Sequence[int],
    rewards: Sequence[float],
    seed: int,
    mission: str = MISSION,
    forfeits: tuple[int, ...] = (),
    copy_key: bytes = b"",
) -> TeamEpisode:
    key = copy_key or f"{mission} {seed} {seats}".encode()
    outcome = Outcome(0, 0, "", mission, seed, 100, tuple(seats), tuple(rewards), forfeits, key, False, b"")
    return team_episode((outcome, outcome.rewards))


def test_an_episode_weighs_as_much_as_the_policys_share_of_the_seats() -> None:
    played = [episode([0, 0, 0, 1], [1.0, 2.0, 3.0, 8.0], 1), episode([0, 1, 1, 1], [6.0, 1.0, 2.0, 3.0], 2)]

    first, second = weighted_scores(played, 0.95)

    assert first.score == (2.0 * 0.75 + 6.0 * 0.25) / 1.0
    assert second.score == (8.0 * 0.25 + 2.0 * 0.75) / 1.0
    assert (first.policy, first.episodes, first.mean_share) == (0, 2, 0.5)


def test_with_equal_shares_the_interval_is_students() -> None:
    generator = random.Random(1)
    values = [generator.gauss(5, 2) for _ in range(12)]

    (score,) = weighted_scores([episode([0, 0], [v, v], seed) for seed, v in enumerate(values)], 0.9)

    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert score.score == pytest.approx(np.mean(values))
    assert score.interval == pytest.approx((expected.low, expected.high))


def test_with_unequal_shares_the_interval_is_that_of_a_weighted_regression_with_robust_errors() -> None:
    generator = random.Random(2)
    counts = [generator.randint(1, 3) for _ in range(20)]
    values = [generator.gauss(5, 2) for _ in counts]
    played = [
        episode([0] * c + [1] * (4 - c), [v] * c + [0.0] * (4 - c), seed)
        for seed, (c, v) in enumerate(zip(counts, values, strict=True))
    ]

    score = weighted_scores(played, 0.95)[0]

    fitted = sm.WLS(values, np.ones(20), weights=[c / 4 for c in counts]).fit(cov_type="HC1", use_t=True)
    assert score.score == pytest.approx(fitted.params[0])
    assert score.interval == pytest.approx(tuple(fitted.conf_int(0.05)[0]))


def test_episodes_of_one_seed_are_one_draw() -> None:
    generator = random.Random(3)
    values = [generator.gauss(5, 2) for _ in range(10)]
    once = [episode([0, 1], [v, 0.0], seed) for seed, v in enumerate(values)]
    again = [episode([1, 0], [0.0, v], seed) for seed, v in enumerate(values)]

    one, two = weighted_scores(once, 0.95)[0], weighted_scores([*once, *again], 0.95)[0]

    assert (one.episodes, two.episodes) == (10, 20)
    assert two.score == pytest.approx(one.score)
    assert two.interval == pytest.approx(one.interval)


def test_missions_are_strata() -> None:
    generator = random.Random(4)
    groups = {"one": [generator.gauss(0, 1) for _ in range(6)], "two": [generator.gauss(100, 1) for _ in range(6)]}
    played = [episode([0], [v], seed, mission) for mission, values in groups.items() for seed, v in enumerate(values)]

    (score,) = weighted_scores(played, 0.95)

    error = np.sqrt(sum(np.var(values, ddof=1) / 6 for values in groups.values())) / 2
    margin = error * stats.t.ppf(0.975, 10)
    assert score.score is not None
    assert score.interval == pytest.approx((score.score - margin, score.score + margin))


def test_copies_count_in_the_score_but_narrow_nothing() -> None:
    played = [episode([0], [v], seed, copy_key=b"%d" % (seed % 4)) for seed, v in enumerate([1.0, 2.0, 4.0, 5.0] * 3)]

    (score,) = weighted_scores(played, 0.95)

    assert score.episodes == 12
    assert score.interval == pytest.approx(tuple(stats.ttest_1samp([1, 2, 4, 5], 0).confidence_interval(0.95)))


@pytest.mark.parametrize("values", [[3.0], [0.1] * 7])
def test_where_nothing_varies_there_is_no_interval(values: list[float]) -> None:
    (score,) = weighted_scores([episode([0], [v], seed) for seed, v in enumerate(values)], 0.95)

    assert score.score == pytest.approx(values[0])
    assert score.interval is None


def test_what_a_policy_forfeited_does_not_count_for_it() -> None:
    played = [episode([0, 1], [1.0, 2.0], 1), episode([0, 1], [50.0, 4.0], 2, forfeits=(0,))]

    first, second = weighted_scores(played, 0.95)

    assert (first.score, first.episodes) == (1.0, 1)
    assert (second.score, second.episodes) == (3.0, 2)


def test_a_policy_of_which_nothing_counts_has_no_score() -> None:
    (score,) = weighted_scores([episode([0], [float("nan")], 1)], 0.95)

    assert (score.score, score.interval, score.episodes) == (None, None, 0)
