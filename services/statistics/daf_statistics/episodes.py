"""What one recorded episode says: who played under which conditions, and what a metric came to."""

from __future__ import annotations

import hashlib
import math
from enum import Enum
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


def seats_by_policy(episode: Episode) -> dict[int, tuple[int, ...]]:
    """The seats of every policy that played, by the policy's number."""
    seats: dict[int, tuple[int, ...]] = {}
    for seat, policy in enumerate(episode.seats):
        seats[policy] = (*seats.get(policy, ()), seat)
    return seats


def conditions(episode: Episode, seats: tuple[int, ...]) -> Conditions:
    """The conditions of the policy in these seats."""
    return Conditions(episode.mission, episode.seed, episode.max_steps, len(episode.seats), seats)


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


def value(episode: Episode, seats: tuple[int, ...], source: Source, metric: str) -> float:
    """The metric's mean over some seats, or its value for the game. A statistic that is lacking is 0.

    NaN where a value is not finite, and, whatever the metric, where a reward of the seats is not: then the episode was
    not played to its end.
    """
    values = [episode.rewards[seat] for seat in seats]
    if not _all_finite(values):
        return math.nan
    if source is Source.GAME:
        values = [episode.game_statistics.values.get(metric, 0.0)]
    elif source is Source.AGENT:
        agents = episode.agent_statistics
        values = [agents[seat].values.get(metric, 0.0) if seat < len(agents) else 0.0 for seat in seats]
    return sum(values) / len(values) if _all_finite(values) else math.nan


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


def _all_finite(values: list[float]) -> bool:
    return all(abs(value) <= LARGEST for value in values)  # false for NaN
