"""Value over replacement, computed again by other means; and what becomes of data that say little."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from daf_statistics.outcomes import Outcome
from daf_statistics.teams import TeamEpisode, team_episode
from daf_statistics.vor import MissionVor, value_over_replacement

AGENTS = 3
MISSION = json.dumps({"name": "arena", "map_seed": None})
PINNED = json.dumps({"name": "arena", "map_seed": 7})


def episode(
    candidate_seats: int,
    seed: int,
    rewards: Sequence[float],
    mission: str = MISSION,
    forfeits: tuple[int, ...] = (),
    copy_key: bytes = b"",
) -> TeamEpisode:
    """One in which the candidate, 0, has the first seats and one other policy, 1, the others."""
    seats = (0,) * candidate_seats + (1,) * (len(rewards) - candidate_seats)
    key = copy_key or f"{mission} {candidate_seats} {seed}".encode()
    outcome = Outcome(0, 0, "", mission, seed, 100, seats, tuple(rewards), forfeits, key, False, b"")
    return team_episode((outcome, outcome.rewards))


def pickup(rewards: Mapping[int, Sequence[Sequence[float]]], mission: str = MISSION) -> list[TeamEpisode]:
    """Episodes by the candidate's number of seats; the seed is their place in the list."""
    return [
        episode(candidate_seats, seed, of_seats, mission)
        for candidate_seats, played in rewards.items()
        for seed, of_seats in enumerate(played)
    ]


def draw(seeds: int, effect: float, seed: int, spread: float = 1.0) -> dict[int, list[list[float]]]:
    """Rewards of all scenarios: a candidate's seats have `effect` more; a seed is as good for all."""
    generator = random.Random(seed)
    luck = [generator.gauss(0, spread) for _ in range(seeds)]
    return {
        count: [[luck[i] + generator.gauss(0, 1) + effect * (s < count) for s in range(AGENTS)] for i in range(seeds)]
        for count in range(AGENTS, -1, -1)
    }


def vor_of(played: Sequence[TeamEpisode], confidence: float = 0.95) -> tuple[MissionVor, list[str]]:
    (vor,), warnings = value_over_replacement(played, 0, confidence)
    return vor, warnings


def test_each_scenario_is_the_candidates_mean_minus_the_pools() -> None:
    vor, warnings = vor_of(
        pickup(
            {3: [[6, 6, 6], [9, 9, 6]], 2: [[5, 3, 0], [4, 4, 0]], 1: [[1, 9, 9], [2, 9, 9]], 0: [[1, 2, 3], [4, 4, 4]]}
        )
    )

    assert vor.replacement_mean == 3.0
    assert [(one.candidate_seats, dict(one.pool_seats)) for one in vor.scenarios] == [(3, {}), (2, {1: 1}), (1, {1: 2})]
    assert [one.candidate_mean for one in vor.scenarios] == [7.0, 4.0, 1.5]
    assert [one.value_over_replacement for one in vor.scenarios] == [4.0, 1.0, -1.5]
    assert vor.overall == (7.0 * 3 * 2 + 4.0 * 2 * 2 + 1.5 * 2) / 12 - 3.0
    assert (vor.seeds, warnings) == (2, [])


def test_intervals_are_those_of_a_t_test_of_the_differences_by_seed() -> None:
    rewards = draw(seeds=9, effect=1.0, seed=1)

    vor, _ = vor_of(pickup(rewards), confidence=0.9)

    means = {count: np.array([np.mean(of[:count] if count else of) for of in rewards[count]]) for count in rewards}
    for scenario in vor.scenarios:
        expected = stats.ttest_rel(means[scenario.candidate_seats], means[0]).confidence_interval(0.9)
        assert scenario.interval == pytest.approx((expected.low, expected.high))
    overall = (3 * means[3] + 2 * means[2] + means[1]) / 6
    expected = stats.ttest_rel(overall, means[0]).confidence_interval(0.9)
    assert vor.overall == pytest.approx(np.mean(overall - means[0]))
    assert vor.overall_interval == pytest.approx((expected.low, expected.high))
    expected = stats.ttest_1samp(means[0], 0).confidence_interval(0.9)
    assert vor.replacement_interval == pytest.approx((expected.low, expected.high))


def test_what_a_seed_does_to_all_teams_leaves_the_intervals_as_they_are() -> None:
    calm, stormy = (vor_of(pickup(draw(8, 1.0, seed=2, spread=spread)))[0] for spread in (0.0, 100.0))

    assert calm.overall_interval is not None
    assert stormy.overall_interval == pytest.approx(calm.overall_interval)
    assert stormy.replacement_interval is not None
    assert stormy.replacement_interval[1] - stormy.replacement_interval[0] > 50


@pytest.mark.parametrize("seeds", [4, 12])
def test_intervals_hold_the_true_value_as_often_as_they_say(seeds: int) -> None:
    runs = 400
    held = np.zeros(2)
    for run in range(runs):
        vor, _ = vor_of(pickup(draw(seeds, 1.0, seed=run)))
        intervals = [vor.overall_interval, vor.scenarios[1].interval]
        held += [ends is not None and ends[0] <= 1.0 <= ends[1] for ends in intervals]

    assert (abs(held / runs - 0.95) < 0.033).all()  # three standard errors


def test_on_one_map_there_are_point_values_without_intervals() -> None:
    rewards = draw(seeds=6, effect=1.0, seed=3)

    free, pinned = (vor_of(pickup(rewards, mission)) for mission in (MISSION, PINNED))

    assert (free[0].pinned, pinned[0].pinned) == (False, True)
    assert pinned[0].overall == free[0].overall
    assert pinned[0].overall_interval is pinned[0].replacement_interval is None
    assert [scenario.interval for scenario in pinned[0].scenarios] == [None] * 3
    assert pinned[1] == ["All episodes were played on one map, and say nothing of others: there are no intervals."]


def test_one_seed_has_no_interval() -> None:
    vor, warnings = vor_of(pickup(draw(seeds=1, effect=1.0, seed=4)))

    assert vor.overall is not None
    assert (vor.overall_interval, vor.seeds) == (None, 1)
    assert warnings == ["There are no intervals: at least 2 seeds are needed that all teams have played."]


def test_values_that_do_not_vary_have_no_interval() -> None:
    vor, _ = vor_of(pickup({count: [[0.1] * 3] * 5 for count in (3, 2, 1, 0)}))

    assert vor.overall == pytest.approx(0.0, abs=1e-15)
    assert vor.overall_interval is None
    assert [scenario.interval for scenario in vor.scenarios] == [None] * 3


def test_copies_count_in_the_means_as_in_cogames_but_narrow_nothing() -> None:
    rewards = draw(seeds=4, effect=1.0, seed=5)
    once = pickup(rewards)
    copies = [
        episode(count, 100 + seed, of_seats, copy_key=f"{MISSION} {count} {seed}".encode())
        for count, played in rewards.items()
        for seed, of_seats in enumerate(played)
    ]

    alone, (vor, warnings) = vor_of(once)[0], vor_of([*once, *copies])

    assert (vor.seeds, [one.copies for one in vor.scenarios], vor.scenarios[0].episodes) == (4, [4, 4, 4], 8)
    assert vor.overall == pytest.approx(alone.overall)
    assert vor.overall_interval == pytest.approx(alone.overall_interval)
    assert warnings == ["12 of 24 episodes of the candidate are copies of others and narrow no interval."]


def test_forfeited_episodes_do_not_count_for_anybody() -> None:
    rewards = draw(seeds=4, effect=1.0, seed=6)
    played = pickup(rewards)
    lost = [episode(2, 9, [1e6] * 3, forfeits=(0,)), episode(2, 10, [1e6] * 3, forfeits=(1,))]
    lost += [episode(0, 9, [1e6] * 3, forfeits=(1,))]

    vor, warnings = vor_of([*played, *lost])

    assert vor == vor_of(played)[0]
    assert warnings == ["3 of 19 episodes do not count: a policy forfeited, or a value is not finite."]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("seat", range(AGENTS))
def test_values_that_are_not_finite_do_not_count(bad: float, seat: int) -> None:
    played = pickup(draw(seeds=4, effect=1.0, seed=7))
    rewards = [1.0] * AGENTS
    rewards[seat] = bad

    vor, warnings = vor_of([*played, episode(2, 9, rewards), episode(0, 9, rewards)])

    assert vor == vor_of(played)[0]
    assert warnings == ["2 of 18 episodes do not count: a policy forfeited, or a value is not finite."]


def test_without_a_baseline_nothing_is_over_it() -> None:
    rewards = draw(seeds=4, effect=1.0, seed=8)
    del rewards[0]

    vor, warnings = vor_of(pickup(rewards))

    assert (vor.replacement_mean, vor.overall, vor.overall_interval) == (None, None, None)
    assert [one.value_over_replacement for one in vor.scenarios] == [None] * 3
    assert all(one.candidate_mean is not None for one in vor.scenarios)
    assert warnings == ["No episode without the candidate counts, so there is no baseline."]


def test_a_candidate_that_forfeits_everything_has_no_value() -> None:
    played = [
        episode(count, seed, [1.0] * 3, forfeits=(0,) if count else ()) for count in (3, 2, 1, 0) for seed in (0, 1)
    ]

    vor, warnings = vor_of(played)

    assert (vor.replacement_mean, vor.overall) == (1.0, None)
    assert [(one.candidate_mean, one.episodes) for one in vor.scenarios] == [(None, 0)] * 3
    assert "No episode counts in which the candidate has 3 or 2 or 1 seats." in warnings


def test_a_scenario_that_is_missing_is_told() -> None:
    rewards = draw(seeds=4, effect=1.0, seed=9)
    del rewards[2]

    vor, warnings = vor_of(pickup(rewards))

    assert [one.candidate_seats for one in vor.scenarios] == [3, 1]
    assert vor.overall_interval is not None
    assert warnings == ["No episode counts in which the candidate has 2 seats."]


def test_missions_are_apart_and_told_apart() -> None:
    other = json.dumps({"name": "machina", "map_seed": None})
    one, two = draw(3, 1.0, seed=10), draw(3, 2.0, seed=11)
    del two[0]

    found, warnings = value_over_replacement([*pickup(two, other), *pickup(one)], 0, 0.95)

    assert [vor.mission for vor in found] == [MISSION, other]
    assert found[0] == vor_of(pickup(one))[0]
    assert warnings == ["No episode without the candidate counts, so there is no baseline on machina."]


@settings(deadline=None)  # the first computation imports numpy and scipy
@given(st.integers(0, 2**16), st.randoms(use_true_random=False))
def test_the_order_of_seeds_changes_values_by_rounding_alone(seed: int, order: random.Random) -> None:
    played = pickup(draw(5, 0.5, seed))
    shuffled = list(played)
    order.shuffle(shuffled)

    vor, other = vor_of(played)[0], vor_of(shuffled)[0]

    assert other.overall == pytest.approx(vor.overall)
    assert other.overall_interval == pytest.approx(vor.overall_interval)
    assert other.seeds == vor.seeds


def test_what_differs_by_rounding_alone_does_not_vary() -> None:
    values = [0.1, 0.7, 1.3, 2.2]

    vor, _ = vor_of(pickup({count: [[value] * 3 for value in values] for count in (3, 2, 1, 0)}))

    assert vor.overall == pytest.approx(0.0, abs=1e-15)
    assert vor.overall_interval is None
    assert [scenario.interval for scenario in vor.scenarios] == [None] * 3
    assert vor.replacement_interval is not None
