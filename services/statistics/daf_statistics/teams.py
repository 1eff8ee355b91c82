"""What whole teams did: one record an episode, for scores of teams that several policies share.

The seed is the unit of their intervals: what several teams did on one seed (one map) is drawn as a whole, and a seed of
which all episodes are copies of another's tells nothing new.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from daf_statistics.aggregation import Aggregation
from daf_statistics.design import count_of
from daf_statistics.episodes import all_finite, seats_by_policy
from daf_statistics.samples import Measured
from daf_statistics.spread import standard_error, t_quantile

_ROUNDING = 1e-12  # of the largest term: less is no variation

type Interval = tuple[float, float]


class TeamEpisode(NamedTuple):
    """One episode of a team. It is a plain tuple because there may be hundreds of thousands."""

    mission: str
    seed: int
    seats: tuple[tuple[int, int], ...]
    """Policies that played, by number, with how many seats each had."""
    values: Mapping[int, float]
    """The metric over the seats of each policy for which the episode counts; finite."""
    team_value: float | None
    """The metric over all seats; None unless the episode counts for all policies."""
    copy_key: bytes
    """See `daf_statistics.episodes.copy_key`."""
    approximate: bool = False

    @property
    def agents(self) -> int:
        """How many seats there are."""
        return sum(count for _, count in self.seats)

    def seats_of(self, policy: int) -> int:
        """How many of the seats a policy has."""
        return next((count for number, count in self.seats if number == policy), 0)


class SeedValue(NamedTuple):
    """What a kind of team did on one seed."""

    value: float
    copy_keys: tuple[bytes, ...]
    """Of its episodes."""


def team_episode(measured: Measured, aggregation: Aggregation = Aggregation.MEAN) -> TeamEpisode:
    """What an episode says of its team. As for samples, no value counts of seats with a reward that is not finite."""
    outcome, measures = measured
    seats, rewards = outcome.seats, outcome.rewards
    aggregate = aggregation.function

    def value(own: Sequence[int]) -> float | None:
        taken = [measures] if isinstance(measures, float) else [measures[seat] for seat in own]
        finite = all_finite(taken) and (measures is rewards or all_finite([rewards[seat] for seat in own]))
        return aggregate(taken) if finite else None

    values = {
        policy: of_policy
        for policy, own in seats_by_policy(seats)
        if policy not in outcome.forfeits and (of_policy := value(own)) is not None
    }
    counts = _seat_counts(seats)
    team_value = value(range(len(seats))) if len(values) == len(counts) else None
    return TeamEpisode(outcome.mission, outcome.seed, counts, values, team_value, outcome.copy_key, outcome.approximate)


def by_mission(played: Iterable[TeamEpisode]) -> dict[str, list[TeamEpisode]]:
    """Episodes by their mission, in alphabetical order."""
    found: dict[str, list[TeamEpisode]] = defaultdict(list)
    for episode in played:
        found[episode.mission].append(episode)
    return {mission: found[mission] for mission in sorted(found)}


def mission_names(missions: Iterable[str]) -> dict[str, str]:
    """What missions are called in a sentence, by their full text: by name where that tells them apart."""
    names = {mission: str(_fields(mission).get("name", mission)) for mission in missions}
    count = Counter(names.values())
    return {mission: name if count[name] == 1 else mission for mission, name in names.items()}


def is_pinned(mission: str) -> bool:
    """Whether a mission has the same map in every episode, by its own choice."""
    return _fields(mission).get("map_seed") is not None


def distinct(played: Iterable[TeamEpisode]) -> list[TeamEpisode]:
    """The episodes without copies of earlier ones."""
    kept: dict[bytes, TeamEpisode] = {}
    for episode in played:
        kept.setdefault(episode.copy_key, episode)
    return list(kept.values())


def by_seed(played: Iterable[TeamEpisode], value: Callable[[TeamEpisode], float | None]) -> dict[int, SeedValue]:
    """A value by seed, over the episodes that have it: their mean where a seed has several."""
    found: dict[int, list[tuple[float, bytes]]] = {}
    for episode in played:
        if (of_episode := value(episode)) is not None:
            found.setdefault(episode.seed, []).append((of_episode, episode.copy_key))
    return {seed: _seed_value(several) for seed, several in found.items()}


def shared_seeds(teams: Sequence[Mapping[int, SeedValue]]) -> list[int]:
    """The seeds that all teams have played, rising, without those whose episodes are all copies of an earlier one's."""
    if not teams:
        return []
    kept: dict[tuple[tuple[bytes, ...], ...], int] = {}
    for seed in sorted(set(teams[0]).intersection(*teams[1:])):
        kept.setdefault(tuple(team[seed].copy_keys for team in teams), seed)
    return list(kept.values())


def interval_around(mean: float, sums: Sequence[Sequence[float]], confidence: float) -> Interval | None:
    """Student's interval around a mean of sums, as wide as independent ones make it; None where they do not vary.

    For few seeds it holds its level better than the bootstrap: `python -m benchmarks scoring` compares them.

    Args:
        mean: what it is around.
        sums: for each seed the terms, by which it is known what is variation and what rounding.
        confidence: level of the interval.
    """
    error = standard_error([math.fsum(terms) for terms in sums])
    if not error or error <= _ROUNDING * max(abs(term) for terms in sums for term in terms):
        return None
    margin = error * t_quantile(len(sums) - 1, (1 + confidence) / 2)
    return mean - margin, mean + margin


def team_warnings(played: Sequence[TeamEpisode]) -> Iterator[str]:
    """What a reader of any score of teams must know of the episodes; without full stops."""
    if uncounted := sum(episode.team_value is None for episode in played):
        total = count_of(len(played), "episode")
        yield f"{uncounted} of {total} do not count: a policy forfeited, or a value is not finite"
    if any(episode.approximate for episode in played):
        yield "Episodes are approximate: played in batches, they are not to the bit those that CoGames would play"


def _seed_value(episodes: Sequence[tuple[float, bytes]]) -> SeedValue:
    if len(episodes) == 1:
        return SeedValue(episodes[0][0], (episodes[0][1],))
    return SeedValue(math.fsum(value for value, _ in episodes) / len(episodes), tuple(key for _, key in episodes))


@lru_cache(maxsize=1000)
def _seat_counts(seats: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(sorted((policy, len(own)) for policy, own in seats_by_policy(seats)))


@lru_cache(maxsize=100)
def _fields(mission: str) -> dict[str, object]:
    """What a mission's text says, which is JSON for what DAF has played; empty otherwise."""
    try:
        fields = json.loads(mission)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
