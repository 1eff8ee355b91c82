"""The plan is cogames' own: its shuffle, its seeds, its rounding of proportions."""

from __future__ import annotations

import io
import random
import subprocess
import sys
from typing import Any

import pytest
from cogames.pickup import pickup
from metta_alo.scoring import allocate_counts
from mettagrid.policy.policy import PolicySpec
from mettagrid.runner import rollout
from rich.console import Console

from daf_cogames.missions import Mission, build_mission
from daf_cogames.seating import (
    EpisodePlan,
    ShuffledSeats,
    pair_seats,
    pickup_seats,
    plan_episodes,
    seat_counts,
    seats_from_proportions,
)


def test_a_plan_is_the_same_whenever_it_is_made() -> None:
    plans = plan_episodes((0, 0, 1, 1), episodes=3, seed=42)

    assert plans == plan_episodes([0, 0, 1, 1], episodes=3, seed=42)
    assert [plan.seed for plan in plans] == [42, 43, 44]
    assert all(sorted(plan.seats) == [0, 0, 1, 1] for plan in plans)
    assert len({plan.seats for plan in plan_episodes((0, 0, 1, 1), episodes=30, seed=42)}) > 1


def test_a_longer_plan_starts_with_the_shorter_one() -> None:
    assert plan_episodes((0, 1, 2), episodes=20, seed=7)[:5] == plan_episodes((0, 1, 2), episodes=5, seed=7)


def test_one_policy_takes_every_seat() -> None:
    assert plan_episodes((0, 0), episodes=1, seed=0) == [EpisodePlan(index=0, seed=0, seats=(0, 0))]


def test_counts_equal_those_of_cogames() -> None:
    generator = random.Random(0)
    for _ in range(2000):
        agents = generator.randint(1, 24)
        proportions = [
            generator.choice([0.0, 1.0, 0.1, 1 / 3, generator.random()]) for _ in range(generator.randint(1, 6))
        ]
        if sum(proportions) > 0:
            assert seat_counts(agents, proportions) == allocate_counts(agents, proportions)


def test_seats_are_runs_of_agents() -> None:
    assert seats_from_proportions(4, [1, 3]) == (0, 1, 1, 1)
    assert seats_from_proportions(4, [1, 0, 1]) == (0, 0, 2, 2)


@pytest.mark.parametrize(("agents", "pool"), [(3, 2), (2, 1), (1, 3)])
def test_a_pickup_is_that_of_cogames_episode_by_episode(
    agents: int, pool: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[tuple[int, tuple[int, ...]]] = []
    run = rollout.run_episode_local

    def note(*, assignments: list[int], seed: int, **others: Any) -> Any:
        played.append((seed, tuple(assignments)))
        return run(assignments=assignments, seed=seed, **others)

    monkeypatch.setattr(rollout, "run_episode_local", note)
    pickup(
        Console(file=io.StringIO()),
        PolicySpec(class_path="noop"),
        [PolicySpec(class_path="noop")] * pool,
        env_cfg=build_mission(Mission("cogsguard_arena.basic", cogs=agents, max_steps=2)),
        mission_name="cogsguard_arena.basic",
        episodes=3,
        seed=11,
        map_seed=None,
        action_timeout_ms=10_000,
        save_replay_dir=None,
    )

    seats = pickup_seats(agents, pool)
    planned = ShuffledSeats(seats, episodes=3, seed=11)
    plans = [planned.episode(scenario, index) for scenario in range(len(seats)) for index in range(3)]
    assert [(plan.seed, plan.seats) for plan in plans] == played
    assert len(played) == 3 * (agents + 1)


def test_shuffles_may_be_asked_for_in_any_order() -> None:
    seats = pickup_seats(4, 2)
    asked = [(scenario, index) for scenario in range(5) for index in range(7)]
    straight = ShuffledSeats(seats, 7, seed=3)
    expected = {place: straight.episode(*place) for place in asked}
    random.Random(1).shuffle(asked)
    again = ShuffledSeats(seats, 7, seed=3)

    assert {place: again.episode(*place) for place in asked} == expected
    assert [straight.episode(0, index) for index in range(7)] == plan_episodes(seats[0], 7, seed=3)


def test_the_pool_of_a_pickup_shares_what_the_candidate_leaves() -> None:
    assert pickup_seats(3, 2) == [(0, 0, 0), (0, 0, 1), (0, 1, 2), (1, 1, 2)]
    with pytest.raises(ValueError, match="pool"):
        pickup_seats(3, 0)


def test_two_policies_share_a_team_by_halves_and_an_odd_seat_goes_to_either_once() -> None:
    assert pair_seats(4, 0, 2) == [(0, 0, 2, 2)]
    assert pair_seats(3, 1, 2) == [(1, 1, 2), (1, 2, 2)]
    with pytest.raises(ValueError, match="2 agents"):
        pair_seats(1, 0, 1)


@pytest.mark.parametrize(
    "proportions", [[], [0.0, 0.0], [-1.0, 2.0], [float("nan")], [float("inf"), 1.0], [1e308, 1e308]]
)
def test_proportions_that_mean_nothing_are_refused(proportions: list[float]) -> None:
    with pytest.raises(ValueError, match=r"propor|policy"):
        seat_counts(4, proportions)


@pytest.mark.parametrize(("episodes", "seed"), [(0, 1), (-1, 1), (1, -1), (2, 2**32 - 1), (1, 2**40)])
def test_plans_outside_the_range_of_seeds_are_refused(episodes: int, seed: int) -> None:
    with pytest.raises(ValueError, match=r"episodes must|seeds"):
        plan_episodes((0,), episodes, seed)


def test_the_last_seeds_can_be_used() -> None:
    assert plan_episodes((0,), episodes=2, seed=2**32 - 2)[-1].seed == 2**32 - 1


def test_services_can_plan_without_cogames() -> None:
    code = (
        "import sys, daf_cogames.seating, daf_cogames.play.digests, daf_cogames.missions, daf_cogames.arguments\n"
        "assert not {'torch', 'cogames', 'mettagrid', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
