"""What one recorded episode says: who played under which conditions, and what a metric came to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from daf_protos.statistics.v1.episode_pb2 import Episode

LARGEST = 1e100
"""Values beyond are read as infinite, so that their squares can be added up."""


class Source(Enum):
    """Where in an episode a metric is found."""

    REWARD = "reward"
    AGENT = "agent"
    GAME = "game"


class Conditions(NamedTuple):
    """Under what a policy played an episode. Results under equal conditions can be paired. It is a plain tuple because
    there may be hundreds of thousands, by which samples are looked up."""

    mission: str
    seed: int
    max_steps: int
    agents: int
    seats: tuple[int, ...]
    """The seats of the policy itself."""


@lru_cache(maxsize=1000)
def seats_by_policy(seats: tuple[int, ...]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """The number of every policy that played, with the seats where it sat."""
    found: dict[int, tuple[int, ...]] = {}
    for seat, policy in enumerate(seats):
        found[policy] = (*found.get(policy, ()), seat)
    return tuple(found.items())


def forfeited_by(episode: Episode) -> frozenset[int]:
    """The policies that could not play this episode."""
    return frozenset(int(forfeit.subject) for forfeit in episode.forfeits)


def source_of(episode: Episode, metric: str) -> Source | None:
    """Where this episode has the metric, agents before the game; None if it lacks it."""
    if metric == Source.REWARD.value:
        return Source.REWARD
    if any(metric in statistics.values for statistics in episode.agent_statistics):
        return Source.AGENT
    if metric in episode.game_statistics.values:
        return Source.GAME
    return None


def seat_values(episode: Episode, metric: str) -> tuple[float, ...]:
    """A statistic of the agents in every seat; where it is lacking it is 0."""
    values = [agent.values.get(metric, 0.0) for agent in episode.agent_statistics]
    return tuple(values or [0.0] * len(episode.seats))


def game_value(episode: Episode, metric: str) -> float:
    """A statistic of the game; where it is lacking it is 0."""
    return episode.game_statistics.values.get(metric, 0.0)


def statistic_names(episode: Episode) -> set[str]:
    """The names of all statistics of agents and of the game in this episode."""
    return {*episode.game_statistics.values}.union(*(agent.values for agent in episode.agent_statistics))


def copy_key(episode: Episode) -> bytes:
    """Equal for two episodes if one is a copy of the other: same map, seats, steps, rewards and statistics.

    The seed stays out, since a pinned map and policies without randomness play the same episode whatever the seed.
    """
    content = Episode(
        seats=episode.seats,
        rewards=episode.rewards,
        steps=episode.steps,
        max_steps=episode.max_steps,
        agent_statistics=episode.agent_statistics,
        game_statistics=episode.game_statistics,
        average_game_statistics=episode.average_game_statistics,
        mission=episode.mission,
        map_digest=episode.map_digest,
    )
    return hashlib.sha256(content.SerializeToString(deterministic=True)).digest()


def all_finite(values: Iterable[float]) -> bool:
    """Whether no value is NaN or beyond LARGEST."""
    for value in values:  # noqa: SIM110 - a generator takes twice as long, and there are hundreds of thousands
        if not -LARGEST <= value <= LARGEST:
            return False
    return True
