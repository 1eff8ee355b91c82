"""Samples: one value per episode and policy, the unit of all statistics here.

The episode is the unit, not the agent, since the agents of one team are not independent. An episode that is a copy of
another tells nothing new, so copies never count twice in an interval or a test.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from daf_protos.statistics.v1.episode_pb2 import Episode
from daf_statistics import episodes
from daf_statistics.aggregation import Aggregation
from daf_statistics.episodes import Conditions, Source, all_finite
from daf_statistics.outcomes import Outcome


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


class Sample(NamedTuple):
    """What one episode says of one policy. It is a plain tuple because there may be hundreds of thousands."""

    scenario: int
    episode: int
    """Its index in the scenario."""
    conditions: Conditions
    value: float
    """The metric in the policy's seats, made one; finite."""
    copy_key: bytes
    """See `daf_statistics.episodes.copy_key`."""
    evaluation: str = ""
    """Where the episode is from; empty for values from elsewhere."""


@dataclass(frozen=True)
class Samples:
    """The samples of one metric of one evaluation."""

    evaluation: str
    by_policy: dict[int, list[Sample]]
    """Those that count, in the order of scenario and index, for each policy that had a seat."""
    forfeits: dict[int, Counter[str]]
    """How many episodes each policy forfeited, by mission."""
    digests: list[tuple[int, int, str]]
    """Scenario, index and digest of each episode, those that do not count among them."""
    latencies: list[bytes]
    """For each episode; see `daf_statistics.outcomes.latencies_of`."""
    approximate: bool
    """Whether any episode is."""


@dataclass(frozen=True, eq=False)
class Player:
    """A policy with its samples of one metric."""

    label: str
    samples: Sequence[Sample]
    """Those that count, of one evaluation after the other, each in the order of scenario and index."""
    forfeits: Mapping[str, int] = field(default_factory=dict)
    """How many episodes it forfeited, by mission."""


type Measured = tuple[Outcome, Sequence[float] | float]
"""An outcome with what a metric came to in it: in every seat, or for the game."""

type Block = tuple[Sample, ...]
"""What several policies did in one episode or under equal conditions, one sample a policy."""


def player(label: str, sources: Iterable[tuple[Samples, int]]) -> Player:
    """A policy with its samples of several evaluations, by its number in each; the order of these does not matter."""
    samples, forfeits = list[Sample](), Counter[str]()
    for of_evaluation, policy in sorted(sources, key=lambda source: source[0].evaluation):
        samples += of_evaluation.by_policy.get(policy, [])
        forfeits.update(of_evaluation.forfeits.get(policy, {}))
    return Player(label, samples, forfeits)


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


def measured(recorded: Iterable[tuple[Outcome, Episode]], metric: str, source: Source) -> Iterator[Measured]:
    """Outcomes with what a metric came to in the episodes, which have their statistics."""
    for outcome, episode in recorded:
        match source:
            case Source.REWARD:
                yield outcome, outcome.rewards
            case Source.AGENT:
                yield outcome, episodes.seat_values(episode, metric)
            case Source.GAME:
                yield outcome, episodes.game_value(episode, metric)


def read_samples(evaluation: str, played: Iterable[Measured], aggregation: Aggregation = Aggregation.MEAN) -> Samples:
    """The samples of an evaluation's episodes, which come in the order of scenario and index.

    A value does not count where it is not finite, nor, whatever the metric, where a reward of the policy's seats is
    not: then the episode was not played to its end.
    """
    samples = Samples(evaluation, {}, defaultdict(Counter), [], [], approximate=False)
    approximate, aggregate = False, aggregation.function
    for outcome, values in played:
        scenario, episode, digest, mission, seed, max_steps, seats, rewards, forfeits, key, approximated, times = (
            outcome
        )
        samples.digests.append((scenario, episode, digest))
        if times:
            samples.latencies.append(times)
        approximate = approximate or approximated
        for policy in forfeits:
            samples.forfeits[policy][mission] += 1
        for policy, own in episodes.seats_by_policy(seats):
            of_policy = samples.by_policy.setdefault(policy, [])
            taken: Sequence[float] = rewards if len(own) == len(rewards) else [rewards[seat] for seat in own]
            if policy in forfeits or not all_finite(taken):
                continue
            if values is not rewards:
                taken = [values] if isinstance(values, float) else [values[seat] for seat in own]
                if not all_finite(taken):
                    continue
            conditions = Conditions(mission, seed, max_steps, len(seats), own)
            of_policy.append(Sample(scenario, episode, conditions, aggregate(taken), key, evaluation))
    return replace(samples, approximate=approximate)


def distinct(samples: Iterable[Sample]) -> list[Sample]:
    """The samples of one policy without those of which the episode is a copy of an earlier one."""
    kept: dict[bytes, Sample] = {}
    for sample in samples:
        kept.setdefault(sample.copy_key, sample)
    return list(kept.values())


def played_together(players: Sequence[Player]) -> list[Block]:
    """What several policies did in the same episodes, or else under equal conditions, in the order of the first's.

    In an evaluation in which the policies sit in one team they share episodes, and nothing else of it counts; other
    episodes are brought together by mission, seed, steps and seats. Where a policy has several under equal conditions,
    the first goes with the first.
    """
    shared = _in_one_team(players)
    teams = {block[0].evaluation for block in shared}
    apart = [[sample for sample in player.samples if sample.evaluation not in teams] for player in players]
    return shared + _joined([_by_conditions(samples) for samples in apart])


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


def _in_one_team(players: Sequence[Player]) -> list[Block]:
    played = [{(sample.evaluation, sample.scenario) for sample in player.samples} for player in players]
    scenarios = {scenario for scenario in set.intersection(*played) if scenario[0]}
    return _joined(
        [
            {
                (sample.evaluation, sample.scenario, sample.episode): sample
                for sample in player.samples
                if (sample.evaluation, sample.scenario) in scenarios
            }
            for player in (players if scenarios else ())
        ]
    )


def _by_conditions(samples: Sequence[Sample]) -> Mapping[Conditions | tuple[Conditions, int], Sample]:
    found: dict[Conditions | tuple[Conditions, int], Sample] = {sample.conditions: sample for sample in samples}
    if len(found) == len(samples):
        return found
    found, seen = {}, Counter[Conditions]()
    for sample in samples:
        again = seen[sample.conditions]
        found[(sample.conditions, again) if again else sample.conditions] = sample
        seen[sample.conditions] += 1
    return found


def _joined[K](players: Sequence[Mapping[K, Sample]]) -> list[Block]:
    if not players:
        return []
    first, *others = players
    if len(others) == 1:
        return [(sample, others[0][key]) for key, sample in first.items() if key in others[0]]
    shared = set(first).intersection(*others)
    return [(sample, *(other[key] for other in others)) for key, sample in first.items() if key in shared]
