"""Scores weighted by shares of the seats, as `metta_alo.scoring.compute_weighted_scores`, with intervals."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from daf_statistics.spread import standard_deviation, t_quantile
from daf_statistics.teams import Interval, TeamEpisode, distinct, is_pinned


@dataclass(frozen=True)
class WeightedScore:
    """A policy's mean over its episodes, each with the weight of the policy's share of the seats."""

    policy: int
    score: float | None
    """None without an episode that counts."""
    interval: Interval | None
    episodes: int
    mean_share: float


def weighted_scores(played: Sequence[TeamEpisode], confidence: float) -> list[WeightedScore]:
    """The weighted score of each policy that had a seat, by number.

    Args:
        played: in the order of scenario and index.
        confidence: level of the intervals.
    """
    policies = sorted({policy for episode in played for policy, _ in episode.seats})
    return [_score(policy, played, confidence) for policy in policies]


def _score(policy: int, played: Sequence[TeamEpisode], confidence: float) -> WeightedScore:
    counted = [episode for episode in played if policy in episode.values]
    weighted, weights = 0.0, 0.0
    for episode in counted:  # the same operations in the same order as metta_alo's
        weight = _share(policy, episode)
        weighted += episode.values[policy] * weight
        weights += weight
    if not counted:
        return WeightedScore(policy, None, None, 0, 0.0)
    score = weighted / weights
    pinned = any(is_pinned(episode.mission) for episode in counted)  # its episodes are no sample of maps
    margin = None if pinned else _margin(policy, distinct(counted), confidence)
    return WeightedScore(
        policy,
        score,
        None if margin is None else (score - margin, score + margin),
        len(counted),
        math.fsum(_share(policy, episode) for episode in counted) / len(counted),
    )


def _margin(policy: int, counted: Sequence[TeamEpisode], confidence: float) -> float | None:
    """Half of Student's interval of a ratio of sums, by linearization (Cochran, Sampling Techniques, 1977, 6.3).

    Episodes of one mission and seed are one draw, as they share the map. Missions are strata, if each has two draws.
    """
    values = [episode.values[policy] for episode in counted]
    if min(values) == max(values):
        return None
    shares = [_share(policy, episode) for episode in counted]
    mean = math.fsum(map(math.prod, zip(values, shares, strict=True))) / math.fsum(shares)
    draws: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for episode, value, share in zip(counted, values, shares, strict=True):
        draws[episode.mission][episode.seed] += share * (value - mean)
    deviations = _strata(draws)
    degrees = sum(len(stratum) - 1 for stratum in deviations)
    if not degrees:
        return None
    variance = math.fsum(len(stratum) * (standard_deviation(stratum) or 0.0) ** 2 for stratum in deviations)
    if not variance:
        return None
    return math.sqrt(variance) / math.fsum(shares) * t_quantile(degrees, (1 + confidence) / 2)


def _strata(draws: Mapping[str, Mapping[int, float]]) -> list[list[float]]:
    strata = [list(of_mission.values()) for of_mission in draws.values()]
    return strata if min(map(len, strata)) > 1 else [[one for stratum in strata for one in stratum]]


def _share(policy: int, episode: TeamEpisode) -> float:
    return episode.seats_of(policy) / episode.agents
