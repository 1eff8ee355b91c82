"""Scores of teams are CoGames' own, to the bit: those of the client, of the services, and of the planned seats."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metta_alo import scoring
from mettagrid.simulator.multi_episode.rollout import EpisodeRolloutResult, MultiEpisodeRolloutResult

from daf.scoring_analysis import (
    daf_allocate_agents,
    daf_compute_vor,
    daf_compute_weighted_score,
    daf_validate_proportions,
)
from daf_statistics.outcomes import Outcome
from daf_statistics.teams import TeamEpisode, team_episode
from daf_statistics.vor import value_over_replacement
from daf_statistics.weighted_scores import weighted_scores

MISSION = json.dumps({"name": "arena", "map_seed": None})

rewards = st.floats(-1e6, 1e6)
shares = st.lists(st.floats(0, 1e6), min_size=1, max_size=6).filter(lambda values: sum(values) > 0)


@st.composite
def pickups(draw: st.DrawFn) -> list[tuple[int, list[tuple[list[int], list[float]]]]]:
    """For each number of the candidate's seats, falling, the seats and rewards of its episodes."""
    agents, pool, episodes = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 5))
    generator = random.Random(draw(st.integers(0, 2**32)))
    played = []
    for count in range(agents, -1, -1):
        others = scoring.allocate_counts(agents - count, [1.0] * pool, allow_zero_total=True)
        seats = [policy for policy, some in enumerate([count, *others]) for _ in range(some)]
        of_count = []
        for _ in range(episodes):
            generator.shuffle(seats)
            of_count.append((list(seats), draw(st.lists(rewards, min_size=agents, max_size=agents))))
        played.append((count, of_count))
    return played


def episodes_of(played: Sequence[tuple[Sequence[int], Sequence[float]]], scenario: int) -> list[TeamEpisode]:
    return [
        team_episode((outcome, outcome.rewards))
        for index, (seats, of_seats) in enumerate(played)
        for outcome in [
            Outcome(
                scenario,
                index,
                "",
                MISSION,
                index,
                9,
                tuple(seats),
                tuple(of_seats),
                (),
                b"%d %d" % (scenario, index),
                False,
                b"",
            )
        ]
    ]


def rollout_of(played: Sequence[tuple[list[int], list[float]]]) -> MultiEpisodeRolloutResult:
    episodes: list[Any] = [
        EpisodeRolloutResult(
            assignments=seats,
            rewards=of_seats,
            action_timeouts=[],
            stats={"game": {}, "agent": []},
            replay_path=None,
            steps=9,
            max_steps=9,
            time_averaged_game_stats={},
        )
        for seats, of_seats in played
    ]
    return MultiEpisodeRolloutResult(episodes=episodes)


@settings(deadline=None)  # the first computation imports scipy
@given(pickups())
def test_value_over_replacement_is_that_of_pickup(
    played: list[tuple[int, list[tuple[list[int], list[float]]]]],
) -> None:
    totals, means = scoring.VorTotals(), {}
    for count, of_count in played:  # as in cogames.pickup.pickup
        summary = scoring.summarize_vor_scenario(rollout_of(of_count), candidate_policy_index=0, candidate_count=count)
        means[count] = summary.candidate_mean
        totals.update(count, summary)
    assert totals.replacement_mean is not None
    overall = scoring.overall_value_over_replacement(
        totals.total_candidate_weighted_sum, totals.total_candidate_agents, totals.replacement_mean
    )

    (vor,), warnings = value_over_replacement(
        [e for scenario, (_, of_count) in enumerate(played) for e in episodes_of(of_count, scenario)], 0, 0.95
    )

    assert vor.replacement_mean == totals.replacement_mean
    assert [one.candidate_mean for one in vor.scenarios] == [means[count] for count, _ in played[:-1]]
    for one in vor.scenarios:
        assert one.candidate_mean is not None
        expected = scoring.value_over_replacement(one.candidate_mean, totals.replacement_mean)
        assert one.value_over_replacement == expected
    assert vor.overall == overall
    own = {
        count: [[r for p, r in zip(seats, of_seats, strict=True) if p == 0] for seats, of_seats in of_count]
        for count, of_count in played[:-1]
    }
    assert daf_compute_vor(own, [of_seats for _, of_seats in played[-1][1]]) == overall
    assert len(warnings) <= 1  # too few seeds


@dataclass
class Match:
    """What `metta_alo.scoring` calls a scored match."""

    policy_scores: dict[int, float]
    policy_agent_counts: dict[int, int]
    assignments: list[int] = field(default_factory=list)
    policy_version_ids: list[int] = field(default_factory=list)


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 3), rewards), min_size=1, max_size=6), min_size=1, max_size=8))
def test_weighted_scores_are_those_of_cogames(played: list[list[tuple[int, float]]]) -> None:
    episodes = episodes_of([([p for p, _ in seats], [r for _, r in seats]) for seats in played], 0)
    matches = [Match(dict(episode.values), dict(episode.seats)) for episode in episodes]
    policies: list[Any] = sorted({policy for match in matches for policy in match.policy_scores})
    expected: dict[Any, float] = scoring.compute_weighted_scores(policies, matches)  # type: ignore[arg-type]

    found = weighted_scores(episodes, 0.95)
    of_numbers = daf_compute_weighted_score(
        [match.policy_scores for match in matches], [match.policy_agent_counts for match in matches]
    )

    assert {score.policy: score.score for score in found} == expected
    assert of_numbers == expected


@given(st.integers(0, 1000), shares)
def test_agents_are_allocated_as_in_cogames(agents: int, proportions: list[float]) -> None:
    assert daf_allocate_agents(agents, proportions) == scoring.allocate_counts(agents, proportions)


@given(shares)
def test_what_are_valid_proportions_is_valid_in_cogames(proportions: list[float]) -> None:
    daf_validate_proportions(proportions, len(proportions))
    scoring.validate_proportions(proportions, len(proportions))


@pytest.mark.parametrize(("proportions", "policies"), [([1.0], 2), ([0.0, 0.0], 2), ([-1.0], 1), ([], 0)])
def test_what_cogames_refuses_is_refused(proportions: list[float], policies: int) -> None:
    with pytest.raises(ValueError, match="Proportions"):
        scoring.validate_proportions(proportions, policies)
    with pytest.raises(ValueError, match="proportions"):
        daf_validate_proportions(proportions, policies)
