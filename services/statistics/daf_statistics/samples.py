"""Samples: one value per episode and policy, the unit of all statistics here.

The episode is the unit, not the agent, since the agents of one team are not independent. An episode that is a copy of
another tells nothing new, so copies never count twice in an interval or a test.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from daf_protos.statistics.v1.episode_pb2 import Episode
from daf_statistics import episodes
from daf_statistics.episodes import Conditions, Source


@dataclass(frozen=True, slots=True)
class KnownStatistics:
    """Names that a metric may have even where no recorded episode has such a statistic."""

    agent: frozenset[str] = frozenset()
    game: frozenset[str] = frozenset()


class UnknownMetricError(ValueError):
    """A metric that is neither known nor seen in the episodes; `known` are the names to choose from."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name)
        self.name = name
        self.known = known


@dataclass(frozen=True, slots=True)
class Sample:
    """What one episode says of one policy."""

    scenario: int
    index: int
    conditions: Conditions
    value: float
    """Mean of the metric over the policy's seats; finite."""
    copy_key: bytes
    """See `daf_statistics.episodes.copy_key`."""


@dataclass(frozen=True)
class Samples:
    """The samples of one metric of one evaluation."""

    by_policy: dict[int, list[Sample]]
    """Those that count, in the order of scenario and index, for each policy that had a seat."""
    forfeits: Counter[int]
    """How many episodes each policy forfeited."""
    digests: list[tuple[int, int, str]]
    """Scenario, index and digest of each episode, those that do not count among them."""


Pair = tuple[Sample, Sample]


def find_source(recorded: Iterable[Episode], metric: str, known: KnownStatistics) -> Source:
    """Where the episodes have a metric: what is known of its name decides, then the first episode that has it.

    A name that is a statistic both of agents and of the game means that of the agents.

    Raises:
        UnknownMetricError: the name is not known and no episode has it.
    """
    if metric == Source.REWARD.value:
        return Source.REWARD
    if metric in known.agent:
        return Source.AGENT
    if metric in known.game:
        return Source.GAME
    seen: set[str] = set()
    for episode in recorded:
        if source := episodes.source_of(episode, metric):
            return source
        seen |= episodes.statistic_names(episode)
    raise UnknownMetricError(metric, [Source.REWARD.value, *sorted(seen | known.agent | known.game)])


def read_samples(recorded: Iterable[Episode], metric: str, source: Source) -> Samples:
    """The samples of an evaluation's episodes, which come in the order of scenario and index."""
    samples = Samples({}, Counter(), [])
    for episode in recorded:
        samples.digests.append((episode.scenario, episode.index, episode.digest))
        forfeited = episodes.forfeited_by(episode)
        samples.forfeits.update(forfeited)
        key = episodes.copy_key(episode)
        for policy, seats in episodes.seats_by_policy(episode).items():
            of_policy = samples.by_policy.setdefault(policy, [])
            value = episodes.value(episode, seats, source, metric)
            if policy not in forfeited and math.isfinite(value):
                conditions = episodes.conditions(episode, seats)
                of_policy.append(Sample(episode.scenario, episode.index, conditions, value, key))
    return samples


def distinct(samples: Iterable[Sample]) -> list[Sample]:
    """The samples of one policy without those of which the episode is a copy of an earlier one."""
    kept: dict[bytes, Sample] = {}
    for sample in samples:
        kept.setdefault(sample.copy_key, sample)
    return list(kept.values())


def pairs_within(first: Iterable[Sample], second: Iterable[Sample]) -> list[Pair]:
    """Pairs of what two policies did in the very same episodes of one evaluation."""
    others = {(sample.scenario, sample.index): sample for sample in second}
    return [(sample, other) for sample in first if (other := others.get((sample.scenario, sample.index))) is not None]


def pairs_across(first: Iterable[Sample], second: Iterable[Sample]) -> list[Pair]:
    """Pairs of episodes under equal conditions. Where one policy has several such, the first goes with the first."""
    others: dict[Conditions, deque[Sample]] = defaultdict(deque)
    for sample in second:
        others[sample.conditions].append(sample)
    return [(sample, others[sample.conditions].popleft()) for sample in first if others[sample.conditions]]


def distinct_pairs(pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs without those of which both episodes are copies of an earlier pair's."""
    kept: dict[tuple[bytes, bytes], Pair] = {}
    for first, second in pairs:
        kept.setdefault((first.copy_key, second.copy_key), (first, second))
    return list(kept.values())
