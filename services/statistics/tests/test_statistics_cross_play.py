"""Cross-play: cells, gains and places, computed again by other means."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from daf_statistics.cross_play import MissionCrossPlay, cross_play
from daf_statistics.outcomes import Outcome
from daf_statistics.teams import TeamEpisode, team_episode

MISSION = json.dumps({"name": "arena"})


def episode(
    seats: Sequence[int],
    rewards: Sequence[float],
    seed: int,
    forfeits: tuple[int, ...] = (),
    copy_key: bytes = b"",
    mission: str = MISSION,
) -> TeamEpisode:
    key = copy_key or f"{mission} {seed} {seats}".encode()
    outcome = Outcome(0, 0, "", mission, seed, 100, tuple(seats), tuple(rewards), forfeits, key, False, b"")
    return team_episode((outcome, outcome.rewards))


def pairs(quality: Sequence[float], seeds: int, seed: int, noise: float = 1.0, luck: float = 1.0) -> list[TeamEpisode]:
    """Every team of two seats; a policy's seat has its quality, a seed is as good for all."""
    generator = random.Random(seed)
    good = [generator.gauss(0, luck) for _ in range(seeds)]
    return [
        episode([a, b], [good[i] + quality[p] + generator.gauss(0, noise) for p in (a, b)], i)
        for a, b in itertools.combinations_with_replacement(range(len(quality)), 2)
        for i in range(seeds)
    ]


def played(episodes: Sequence[TeamEpisode], confidence: float = 0.95) -> tuple[MissionCrossPlay, list[str]]:
    (found,), warnings = cross_play(episodes, confidence)
    return found, warnings


def test_cells_are_means_of_teams_and_seats() -> None:
    found, warnings = played(
        [
            episode([0, 0], [1.0, 3.0], 1),
            episode([0, 0], [3.0, 5.0], 2),
            episode([0, 1], [4.0, 6.0], 1),
            episode([1, 0], [0.0, 2.0], 2),
            episode([1, 1], [9.0, 9.0], 1),
            episode([1, 1], [1.0, 1.0], 2),
        ]
    )

    alone, together, other = found.cells
    assert [(cell.first, cell.second, cell.team_mean) for cell in found.cells] == [
        (0, 0, 3.0),
        (0, 1, 3.0),
        (1, 1, 5.0),
    ]
    assert (together.first_mean, together.second_mean) == (3.0, 3.0)
    assert (alone.gain, other.gain) == (None, None)
    assert together.gain == 3.0 - (3.0 + 5.0) / 2
    assert [cell.episodes for cell in found.cells] == [2, 2, 2]
    assert warnings == []


def test_intervals_are_those_of_t_tests_over_the_seeds() -> None:
    episodes = pairs([0.0, 1.0, 2.0], seeds=8, seed=1)

    found, _ = played(episodes, 0.9)

    teams = {
        pair: np.array([e.team_value for e in episodes if dict(e.seats).keys() == set(pair)], float)
        for pair in itertools.combinations_with_replacement(range(3), 2)
    }
    for cell in found.cells:
        together = teams[cell.first, cell.second]
        expected = stats.ttest_1samp(together, 0).confidence_interval(0.9)
        assert cell.team_interval == pytest.approx((expected.low, expected.high))
        if cell.first != cell.second:
            alone = (teams[cell.first, cell.first] + teams[cell.second, cell.second]) / 2
            expected = stats.ttest_rel(together, alone).confidence_interval(0.9)
            assert cell.gain == pytest.approx(np.mean(together - alone))
            assert cell.gain_interval == pytest.approx((expected.low, expected.high))
    for rank in found.ranking:
        shared = np.mean(
            [teams[min(rank.policy, other), max(rank.policy, other)] for other in {0, 1, 2} - {rank.policy}], 0
        )
        expected = stats.ttest_1samp(shared, 0).confidence_interval(0.9)
        assert rank.mean == pytest.approx(np.mean(shared))
        assert rank.interval == pytest.approx((expected.low, expected.high))


def test_an_odd_number_of_seats_is_played_both_ways_and_a_seed_is_one_draw() -> None:
    episodes = []
    for seed, value in enumerate([1.0, 4.0, 6.0]):
        episodes += [episode([0, 0, 1], [value] * 3, seed), episode([0, 1, 1], [value + 2] * 3, seed)]

    found, _ = played(episodes)

    (cell,) = [cell for cell in found.cells if cell.first != cell.second]
    assert cell.episodes == 6
    assert cell.team_mean == pytest.approx(np.mean([2.0, 5.0, 7.0]))
    assert cell.team_interval == pytest.approx(tuple(stats.ttest_1samp([2, 5, 7], 0).confidence_interval(0.95)))


def test_clear_differences_leave_no_doubt_of_the_places() -> None:
    found, _ = played(pairs([0.0, 20.0, 10.0], seeds=6, seed=2))

    assert [(rank.policy, rank.best_rank, rank.worst_rank) for rank in found.ranking] == [
        (1, 1, 1),
        (2, 2, 2),
        (0, 3, 3),
    ]


def test_what_a_seed_does_to_all_teams_does_not_blur_the_places() -> None:
    found, _ = played(pairs([0.0, 20.0, 10.0], seeds=6, seed=2, luck=1000.0))

    assert [(rank.best_rank, rank.worst_rank) for rank in found.ranking] == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize(
    ("quality", "seeds", "noise"),
    [([0.0, 0.0, 0.0], 6, 0.0), ([0.0, 5.0, 9.0], 1, 1.0), ([0.0, 5.0], 6, 1.0)],
    ids=["all equal", "one seed", "two policies share their only team"],
)
def test_where_nothing_tells_policies_apart_every_place_is_possible(
    quality: list[float], seeds: int, noise: float
) -> None:
    found, _ = played(pairs(quality, seeds, seed=3, noise=noise))

    assert {(rank.best_rank, rank.worst_rank) for rank in found.ranking} == {(1, len(quality))}


@pytest.mark.parametrize("seeds", [3, 8])
def test_ranges_of_places_hold_the_true_ones_at_least_as_often_as_they_say(seeds: int) -> None:
    quality = [0.0, 0.5, 1.0, 1.5]
    runs, held = 150, 0
    for run in range(runs):
        found, _ = played(pairs(quality, seeds, seed=run))
        held += sum(rank.best_rank <= 4 - rank.policy <= rank.worst_rank for rank in found.ranking)

    assert held / (4 * runs) >= 0.95 - 0.018  # two standard errors


def test_copies_are_left_out() -> None:
    episodes = pairs([0.0, 1.0], seeds=4, seed=4)
    copies = [
        episode([p for p, n in e.seats for _ in range(n)], [7.0, 7.0], 50 + i, copy_key=e.copy_key)
        for i, e in enumerate(episodes)
    ]

    found, warnings = played([*episodes, *copies])

    plain, _ = played(episodes)
    assert [cell.copies for cell in found.cells] == [4, 4, 4]
    assert [cell.team_mean for cell in found.cells] == [cell.team_mean for cell in plain.cells]
    assert [cell.team_interval for cell in found.cells] == [cell.team_interval for cell in plain.cells]
    assert found.ranking == plain.ranking
    assert warnings == ["12 episodes are left out as copies of others: same map, seats, steps and statistics."]


def test_a_policy_that_forfeits_everything_has_no_place() -> None:
    episodes = [
        episode(
            [p for p, n in e.seats for _ in range(n)],
            [v or 0.0 for v in e.values.values()] * (3 - len(e.values)),
            e.seed,
        )
        if not e.seats_of(2)
        else episode([p for p, n in e.seats for _ in range(n)], [1e6, 1e6], e.seed, forfeits=(2,))
        for e in pairs([0.0, 1.0, 2.0], seeds=3, seed=5)
    ]

    found, warnings = played(episodes)

    last = found.ranking[-1]
    assert (last.policy, last.mean, last.interval, last.best_rank, last.worst_rank) == (2, None, None, 1, 3)
    assert warnings == [
        "9 of 18 episodes do not count: a policy forfeited, or a value is not finite.",
        "No episode counts of policies 0 and 2, 1 and 2, 2 and 2.",
    ]


def test_teams_of_another_shape_are_left_out() -> None:
    episodes = [
        episode([0, 0, 0, 1], [9.0] * 4, 1),
        episode([0, 1, 2, 2], [9.0] * 4, 1),
        episode([0, 1, 0, 1], [1.0] * 4, 1),
    ]

    found, warnings = played(episodes)

    assert {(cell.first, cell.second): cell.episodes for cell in found.cells if cell.episodes} == {(0, 1): 1}
    assert warnings[0] == "2 episodes of teams that are not two policies with half of the seats are left out."


@settings(deadline=None)  # the first computation imports numpy and scipy
@given(st.integers(0, 2**16), st.randoms(use_true_random=False))
def test_the_order_of_episodes_does_not_matter(seed: int, order: random.Random) -> None:
    episodes = pairs([0.0, 0.3, 0.6], seeds=4, seed=seed)
    shuffled = list(episodes)
    order.shuffle(shuffled)

    assert played(shuffled)[0] == played(episodes)[0]
