"""What is played: scenarios from the policies and missions of an evaluation, and the episodes of each."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from daf_cogames.seating import EpisodePlan, plan_episodes, seats_from_proportions


class Team(Enum):
    """Who plays with whom."""

    MIXED = "mixed"
    """One team of all policies, in their proportions."""
    SOLO = "solo"
    """Each policy alone, in all seats."""


@dataclass(frozen=True)
class Scenario:
    """A mission played by one team. Numbers count missions and policies of the evaluation from 0."""

    mission: int
    policies: tuple[int, ...]
    seats: tuple[int, ...]
    """The policy of each seat before the first shuffle."""


def scenarios(team: Team, policies: int, agents: Sequence[int], proportions: Sequence[float]) -> tuple[Scenario, ...]:
    """The scenarios, mission by mission.

    Args:
        team: who plays with whom.
        policies: how many policies there are.
        agents: the number of seats of each mission; 0 where it is not known yet.
        proportions: shares of the seats, one for each policy; empty means equal shares. For a mixed team only.
    """
    if team is Team.SOLO:
        return tuple(
            Scenario(mission, (policy,), (policy,) * seats)
            for mission, seats in enumerate(agents)
            for policy in range(policies)
        )
    shares = tuple(proportions) or (1.0,) * policies
    everyone = tuple(range(policies))
    return tuple(
        Scenario(mission, everyone, seats_from_proportions(seats, shares) if seats else ())
        for mission, seats in enumerate(agents)
    )


@functools.lru_cache(maxsize=64)
def episodes(seats: tuple[int, ...], count: int, seed: int) -> tuple[EpisodePlan, ...]:
    """All episodes of a scenario; without seats, where it has none yet.

    They are kept, since each depends on the shuffles of those before it.
    """
    if not seats:
        return tuple(EpisodePlan(index, seed + index, ()) for index in range(count))
    return tuple(plan_episodes(seats, count, seed))
