"""Samples: one value per episode and policy, the unit of all statistics here.

The episode is the unit, not the agent, since the agents of one team are not independent. An episode that is a copy of
another tells nothing new, so copies never count twice in an interval or a test.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

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
    forfeits: dict[int, Counter[str]]
    """How many episodes each policy forfeited, by mission."""
    digests: list[tuple[int, int, str]]
    """Scenario, index and digest of each episode, those that do not count among them."""


@dataclass(frozen=True)
class Player:
    """A policy with its samples of one metric."""

    label: str
    samples: Sequence[Sample]
    """Those that count, in the order of scenario and index."""
    forfeits: Mapping[str, int] = field(default_factory=dict)
    """How many episodes it forfeited, by mission."""
    evaluation: str = ""
    """Where they are from; empty for values from elsewhere."""


type Block = tuple[Sample, ...]
"""What several policies did in one episode or under equal conditions, one sample a policy."""


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
    samples = Samples({}, defaultdict(Counter), [])
    for episode in recorded:
        samples.digests.append((episode.scenario, episode.index, episode.digest))
        forfeited = episodes.forfeited_by(episode)
        for policy in forfeited:
            samples.forfeits[policy][episode.mission] += 1
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


def played_together(players: Sequence[Player]) -> list[Block]:
    """What several policies did in the same episodes, or else under equal conditions, in the order of the first's.

    Policies of one evaluation that sit in one team share episodes; others are brought together by mission, seed, steps
    and seats. Where a policy has several episodes under equal conditions, the first goes with the first.
    """
    if len({player.evaluation for player in players}) == 1:
        shared = _joined([{(sample.scenario, sample.index): sample for sample in p.samples} for p in players])
        if shared:
            return shared
    return _joined([_by_conditions(player.samples) for player in players])


def distinct_blocks(blocks: Iterable[Block]) -> list[Block]:
    """The blocks without those of which all episodes are copies of an earlier block's."""
    kept: dict[tuple[bytes, ...], Block] = {}
    for block in blocks:
        kept.setdefault(tuple([sample.copy_key for sample in block]), block)
    return list(kept.values())


def by_mission(blocks: Iterable[Block]) -> dict[str, list[Block]]:
    """Blocks by their mission, in alphabetical order, each mission's in an order that does not depend on theirs."""
    found: dict[str, list[Block]] = defaultdict(list)
    for block in blocks:
        found[block[0].conditions.mission].append(block)
    return {mission: _in_order(found[mission]) for mission in sorted(found)}


def _in_order(blocks: Sequence[Block]) -> list[Block]:
    seeds = {block[0].conditions.seed for block in blocks}
    return sorted(blocks, key=_seed if len(seeds) == len(blocks) else _rank)


def _seed(block: Block) -> int:
    return block[0].conditions.seed


def _rank(block: Block) -> tuple[int, list[float], tuple[float, ...]]:
    values = tuple(sample.value for sample in block)
    return block[0].conditions.seed, sorted(values), values


def _by_conditions(samples: Iterable[Sample]) -> dict[tuple[Conditions, int], Sample]:
    seen: Counter[Conditions] = Counter()
    found = {}
    for sample in samples:
        found[sample.conditions, seen[sample.conditions]] = sample
        seen[sample.conditions] += 1
    return found


def _joined[K](players: Sequence[dict[K, Sample]]) -> list[Block]:
    shared = set(players[0]).intersection(*players[1:])
    return [tuple([player[key] for player in players]) for key in players[0] if key in shared]
