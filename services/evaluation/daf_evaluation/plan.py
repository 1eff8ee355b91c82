"""What is played: scenarios from the policies and missions of an evaluation, and the episodes of each."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from daf_cogames.seating import EpisodePlan, ShuffledSeats, pair_seats, pickup_seats, seats_from_proportions


class Team(Enum):
    """Who plays with whom."""

    MIXED = "mixed"
    """One team of all policies, in their proportions."""
    SOLO = "solo"
    """Each policy alone, in all seats."""
    PICKUP = "pickup"
    """The first policy in ever fewer seats, the others equally in the rest."""
    PAIRS = "pairs"
    """Each policy alone, and every two in one team."""


@dataclass(frozen=True)
class Scenario:
    """A mission played by one team. Numbers count missions and policies of the evaluation from 0."""

    mission: int
    policies: tuple[int, ...]
    seats: tuple[int, ...]
    """The policy of each seat before the first shuffle; empty while the number of seats is not known."""

    @property
    def counts(self) -> tuple[int, ...]:
        """How many seats each policy has; empty while that is not known."""
        return tuple(self.seats.count(policy) for policy in self.policies) if self.seats else ()


@functools.lru_cache(maxsize=64)
def scenarios(
    team: Team, policies: int, agents: tuple[int, ...], proportions: tuple[float, ...]
) -> tuple[Scenario, ...]:
    """The scenarios, mission by mission.

    Args:
        team: who plays with whom.
        policies: how many policies there are; at least two for pickup and pairs.
        agents: the number of seats of each mission; 0 where it is not known yet, which pickup and pairs cannot have.
        proportions: shares of the seats, one for each policy; empty means equal shares. For a mixed team only.
    """
    return tuple(
        scenario
        for mission, seats in enumerate(agents)
        for scenario in _of_mission(team, mission, policies, seats, proportions)
    )


def count_scenarios(team: Team, policies: int, agents: Sequence[int]) -> int:
    """How many scenarios there are, without making them."""
    match team:
        case Team.MIXED:
            return len(agents)
        case Team.SOLO:
            return policies * len(agents)
        case Team.PICKUP:
            return sum(seats + 1 for seats in agents)
        case Team.PAIRS:
            pairs = policies * (policies - 1) // 2
            return sum(policies + pairs * (1 + seats % 2) for seats in agents)


def episodes(
    scenarios: Sequence[Scenario], team: Team, number: int, count: int, seed: int, first: int, last: int
) -> list[EpisodePlan]:
    """Some episodes of a scenario; without seats, where it has none yet.

    Args:
        scenarios: all scenarios of the evaluation.
        team: who plays with whom.
        number: which scenario.
        count: how many episodes it has.
        seed: of its first episode.
        first: the first that is wanted.
        last: the one after the last.
    """
    scenario = scenarios[number]
    if not scenario.seats:
        return [EpisodePlan(index, seed + index, ()) for index in range(first, last)]
    # A pickup's scenarios share one generator, as in cogames; all others have one each, so that they are paired.
    together = [number]
    if team is Team.PICKUP:
        together = [other for other, found in enumerate(scenarios) if found.mission == scenario.mission]
    shuffled = _shuffled(tuple(scenarios[other].seats for other in together), count, seed)
    return [shuffled.episode(together.index(number), index) for index in range(first, last)]


@functools.lru_cache(maxsize=64)
def _shuffled(seats: tuple[tuple[int, ...], ...], count: int, seed: int) -> ShuffledSeats:
    """Kept, since each episode depends on the shuffles of those before it, and leases ask in their order."""
    return ShuffledSeats(seats, count, seed)


def _of_mission(
    team: Team, mission: int, policies: int, seats: int, proportions: tuple[float, ...]
) -> Iterator[Scenario]:
    everyone = tuple(range(policies))
    match team:
        case Team.MIXED:
            shares = proportions or (1.0,) * policies
            yield Scenario(mission, everyone, seats_from_proportions(seats, shares) if seats else ())
        case Team.SOLO:
            yield from _alone(mission, policies, seats)
        case Team.PICKUP:
            for seating in pickup_seats(seats, policies - 1):
                yield _of_players(mission, seating)
        case Team.PAIRS:
            yield from _alone(mission, policies, seats)
            for pair in itertools.combinations(everyone, 2):
                for seating in pair_seats(seats, *pair):
                    yield _of_players(mission, seating)


def _alone(mission: int, policies: int, seats: int) -> Iterator[Scenario]:
    return (Scenario(mission, (policy,), (policy,) * seats) for policy in range(policies))


def _of_players(mission: int, seating: tuple[int, ...]) -> Scenario:
    return Scenario(mission, tuple(sorted(set(seating))), seating)
