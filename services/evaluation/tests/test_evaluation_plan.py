"""What is played: scenarios, shards, slots. Pure."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daf_cogames.seating import EpisodePlan
from daf_evaluation import plan
from daf_evaluation.plan import Scenario, Team
from daf_evaluation.shards import MAX_SHARD, OutOfOrder, Shard, cut, progress
from daf_evaluation.slots import Claim, grant


def test_a_mixed_team_is_one_scenario_a_mission_and_seats_follow_the_proportions() -> None:
    assert plan.scenarios(Team.MIXED, 2, (4, 8), (3.0, 1.0)) == (
        Scenario(0, (0, 1), (0, 0, 0, 1)),
        Scenario(1, (0, 1), (0, 0, 0, 0, 0, 0, 1, 1)),
    )


def test_without_proportions_shares_are_equal() -> None:
    (scenario,) = plan.scenarios(Team.MIXED, 2, (4,), ())
    assert scenario.seats == (0, 0, 1, 1)


def test_alone_each_policy_has_all_seats_of_each_mission() -> None:
    found = plan.scenarios(Team.SOLO, 2, (2, 3), ())
    assert [(scenario.mission, scenario.seats) for scenario in found] == [
        (0, (0, 0)),
        (0, (1, 1)),
        (1, (0, 0, 0)),
        (1, (1, 1, 1)),
    ]


def test_a_mission_whose_seats_are_not_known_has_its_scenarios_and_seeds_already() -> None:
    mixed = plan.scenarios(Team.MIXED, 2, (0, 4), (3.0, 1.0))
    alone = plan.scenarios(Team.SOLO, 2, (0,), ())
    assert mixed == (Scenario(0, (0, 1), ()), Scenario(1, (0, 1), (0, 0, 0, 1)))
    assert alone == (Scenario(0, (0,), ()), Scenario(0, (1,), ()))
    assert mixed[0].counts == ()
    assert plan.episodes(mixed, Team.MIXED, 0, 3, 7, 1, 3) == [EpisodePlan(1, 8, ()), EpisodePlan(2, 9, ())]


def test_a_pickup_has_the_candidate_in_ever_fewer_seats_of_each_mission() -> None:
    found = plan.scenarios(Team.PICKUP, 3, (3, 1), ())
    assert [(scenario.mission, scenario.policies, scenario.counts) for scenario in found] == [
        (0, (0,), (3,)),
        (0, (0, 1), (2, 1)),
        (0, (0, 1, 2), (1, 1, 1)),
        (0, (1, 2), (2, 1)),
        (1, (0,), (1,)),
        (1, (1,), (1,)),
    ]


def test_cross_play_has_each_alone_and_every_pair_by_halves() -> None:
    even = plan.scenarios(Team.PAIRS, 3, (4,), ())
    assert [(scenario.policies, scenario.counts) for scenario in even] == [
        ((0,), (4,)),
        ((1,), (4,)),
        ((2,), (4,)),
        ((0, 1), (2, 2)),
        ((0, 2), (2, 2)),
        ((1, 2), (2, 2)),
    ]
    odd = plan.scenarios(Team.PAIRS, 2, (3,), ())
    assert [(scenario.policies, scenario.counts) for scenario in odd] == [
        ((0,), (3,)),
        ((1,), (3,)),
        ((0, 1), (2, 1)),
        ((0, 1), (1, 2)),
    ]


@given(st.sampled_from(Team), st.integers(2, 5), st.lists(st.integers(2, 6), min_size=1, max_size=3))
def test_scenarios_are_as_many_as_are_counted_and_fill_all_seats(team: Team, policies: int, agents: list[int]) -> None:
    found = plan.scenarios(team, policies, tuple(agents), ())
    assert len(found) == plan.count_scenarios(team, policies, agents)
    assert all(sum(scenario.counts) == agents[scenario.mission] for scenario in found)
    assert all(set(scenario.seats) <= set(scenario.policies) <= set(range(policies)) for scenario in found)


def test_one_generator_goes_through_a_pickup_and_starts_anew_in_the_next_mission() -> None:
    found = plan.scenarios(Team.PICKUP, 2, (3, 3), ())
    generator, expected = random.Random(5), []
    for seats in ([0, 0, 0], [0, 0, 1], [0, 1, 1], [1, 1, 1]):
        for index in range(4):
            generator.shuffle(seats)
            expected.append(EpisodePlan(index, 5 + index, tuple(seats)))
    for mission in (1, 0):
        numbers = range(4 * mission, 4 * mission + 4)
        assert [
            episode for number in numbers for episode in plan.episodes(found, Team.PICKUP, number, 4, 5, 0, 4)
        ] == expected


def test_scenarios_of_cross_play_are_shuffled_alike_so_that_they_are_paired() -> None:
    found = plan.scenarios(Team.PAIRS, 3, (4,), ())
    first, second = (plan.episodes(found, Team.PAIRS, number, 9, 5, 0, 9) for number in (3, 5))
    renamed = [tuple({0: 1, 1: 2}[policy] for policy in episode.seats) for episode in first]
    assert renamed == [episode.seats for episode in second]
    assert len(set(renamed)) > 1


def test_episodes_are_shuffled_one_after_another_by_one_generator_and_seeds_count_up() -> None:
    generator, seats = random.Random(5), [0, 0, 1, 1]
    expected = []
    for index in range(10):
        generator.shuffle(seats)
        expected.append((index, 5 + index, tuple(seats)))
    mixed = plan.scenarios(Team.MIXED, 2, (4,), ())
    episodes = [
        *plan.episodes(mixed, Team.MIXED, 0, 10, 5, 6, 10),
        *plan.episodes(mixed, Team.MIXED, 0, 10, 5, 0, 6),
    ]
    episodes.sort(key=lambda episode: episode.index)
    assert [(episode.index, episode.seed, episode.seats) for episode in episodes] == expected


@given(st.integers(1, 5), st.integers(1, 2000), st.integers(1, 16))
def test_shards_hold_every_episode_of_every_scenario_once(scenarios: int, episodes: int, workers: int) -> None:
    shards = cut(scenarios, episodes, workers)
    held = [(shard.scenario, shard.first + i) for shard in shards for i in range(shard.count)]
    assert held == [(scenario, index) for scenario in range(scenarios) for index in range(episodes)]
    assert [shard.number for shard in shards] == list(range(len(shards)))
    assert all(1 <= shard.count <= MAX_SHARD for shard in shards)


def test_one_worker_gets_one_shard_since_nobody_waits_for_its_last() -> None:
    assert [shard.count for shard in cut(1, 20, workers=1)] == [20]


@given(st.integers(1, 500), st.integers(2, 8))
def test_no_shard_is_more_than_a_fair_share_of_a_quarter(episodes: int, workers: int) -> None:
    assert all(shard.count * 4 * workers <= max(episodes, 4 * workers) for shard in cut(1, episodes, workers))


def test_episodes_are_recorded_in_order_and_count_once() -> None:
    shard = Shard(number=0, scenario=0, first=10, count=4)
    assert progress(shard, []) == 0
    assert progress(shard, [11, 10]) == 2
    assert progress(replace(shard, recorded=2), [10, 11]) == 2
    assert progress(replace(shard, recorded=2), [11, 12, 13]) == 4


@pytest.mark.parametrize("indices", [[11], [10, 12], [9], [14], [10, 11, 12, 13, 14]])
def test_reports_with_gaps_or_strange_episodes_are_refused(indices: list[int]) -> None:
    with pytest.raises(OutOfOrder):
        progress(Shard(number=0, scenario=0, first=10, count=4), indices)


def test_slots_go_to_those_who_wait_in_order_and_nobody_overtakes() -> None:
    claims = [Claim("a", 2, 2), Claim("b", 0, 4), Claim("c", 0, 1)]
    assert grant(8, claims) == {"b": 4, "c": 1}
    assert grant(4, claims) == {"b": 2}
    assert grant(2, claims) == {}
    assert grant(1, claims) == {}


@given(st.integers(1, 20), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=12))
def test_no_more_slots_are_granted_than_are_free(slots: int, pairs: list[tuple[int, int]]) -> None:
    claims = [Claim(str(number), held, wanted) for number, (held, wanted) in enumerate(pairs)]
    granted = grant(slots, claims)
    assert sum(granted.values()) <= max(0, slots - sum(claim.held for claim in claims))
    assert all(claim.held == 0 for claim in claims if claim.id in granted)
