"""Comparison of policies: every pair over all missions and on each, with what each policy came to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from daf_statistics import aggregates
from daf_statistics.design import Design, count_of
from daf_statistics.pairs import PairMeasures, adjust, at_look, measure
from daf_statistics.samples import Block, Player, by_mission, distinct, distinct_blocks, played_together
from daf_statistics.sequential import Race, adjusted_p_values
from daf_statistics.spread import standard_deviation
from daf_statistics.verdicts import Verdict, verdict


@dataclass(frozen=True)
class PolicyOutcome:
    """What a policy's values come to. None where something cannot be computed."""

    episodes: int
    """That count and are no copies."""
    copies: int
    forfeits: int
    mean: float | None = None
    deviation: float | None = None
    """Standard deviation."""
    extremes: tuple[float, float] | None = None
    """Smallest and largest value."""
    interquartile_mean: float | None = None
    interquartile_interval: tuple[float, float] | None = None
    profile: Sequence[float] = ()
    """The share of episodes with a higher value than each threshold."""


@dataclass(frozen=True)
class PairOutcome:
    """What the comparison of two policies comes to."""

    measures: PairMeasures
    verdict: Verdict
    sentence: str


@dataclass(frozen=True)
class MissionOutcome:
    """A comparison on one mission."""

    mission: str
    pairs: Sequence[PairOutcome]
    policies: Sequence[PolicyOutcome]


@dataclass(frozen=True)
class ComparisonOutcome:
    """A comparison of policies."""

    policies: Sequence[PolicyOutcome]
    pairs: Sequence[PairOutcome]
    missions: Sequence[MissionOutcome]
    """Empty where there is one mission."""
    thresholds: Sequence[float]
    """Of the profiles."""
    problem: str
    """Why no test over all missions can reach its alpha; empty if one can."""
    warnings: Sequence[str]


def compare(
    design: Design, players: Sequence[Player], race: Race | None = None, go_on: Callable[[], None] = lambda: None
) -> ComparisonOutcome:
    """Compares policies by their samples.

    The order of a policy's samples does not matter, and turning two policies round turns their comparison round, to
    the bit. The tests of all pairs over all missions are one family, those of all pairs on each mission another.

    Args:
        design: of the comparison.
        players: the policies.
        race: the one that was run with these samples, if the design has several looks.
        go_on: called before each pair, of which there may be many; what it raises ends the comparison.
    """
    numbers = design.pairs(len(players))
    names = sorted({sample.conditions.mission for player in players for sample in player.samples})
    looks = {pair: min(map(race.looks_of, pair)) for pair in numbers} if race else {}
    together = cache(_together)  # two policies are also all of them

    def measured(among: tuple[Player, ...], pair: tuple[int, int], tests: int) -> PairMeasures:
        go_on()
        missions, copies = together(among[pair[0]], among[pair[1]])
        found = measure(design, pair, missions, copies, tests)
        return at_look(found, looks[pair]) if race else found

    pooled = _decide(design, players, [measured(tuple(players), pair, len(numbers)) for pair in numbers], race)
    policies, thresholds = _policies(design, players, together)
    missions: list[MissionOutcome] = []
    if len(names) > 1:
        there = {name: tuple(_on(name, player) for player in players) for name in names}
        tests = len(names) * len(numbers)
        family = [measured(there[name], pair, tests) for name in names for pair in numbers]
        decided = iter(_decide(design, players, family))
        for name in names:
            missions.append(
                MissionOutcome(name, [next(decided) for _ in numbers], _policies(design, there[name], together)[0])
            )
    problem = "" if race and not _ran_out(race) else _problem(design, pooled)
    warnings = [f"{problem}."] if problem else []
    if not race and (on_one := _problem(design, [pair for mission in missions for pair in mission.pairs])):
        warnings.append(f"On single missions, {on_one}.")
    warnings += _warnings(design, players, policies, len(names), race)
    return ComparisonOutcome(policies, pooled, missions, thresholds, problem, warnings)


def _on(mission: str, player: Player) -> Player:
    """A policy with its samples of one mission."""
    samples = [sample for sample in player.samples if sample.conditions.mission == mission]
    return replace(player, samples=samples, forfeits={mission: player.forfeits.get(mission, 0)})


def _together(*players: Player) -> tuple[dict[str, list[Block]], int]:
    """What policies did together, by mission and without copies, and how many copies there were."""
    blocks = played_together(players)
    counted = distinct_blocks(blocks)
    return by_mission(counted), len(blocks) - len(counted)


def _decide(
    design: Design, players: Sequence[Player], family: Sequence[PairMeasures], race: Race | None = None
) -> list[PairOutcome]:
    """The verdicts of one family of tests; with a race, those that it has come to."""
    of_race = adjusted_p_values(race) if race else {}
    decided = []
    for measures in adjust(design, family):
        pair, standing = (measures.first, measures.second), None
        if race:
            standing = race.standing(pair)
            if measures.p_value is not None:
                p_value = race.p_values[measures.look - 1][pair]
                measures = replace(measures, p_value=p_value, adjusted_p_value=of_race[pair])
        labels = players[measures.first].label, players[measures.second].label
        decided.append(PairOutcome(measures, *verdict(design, measures, labels, len(family), standing)))
    return decided


def _policies(
    design: Design, players: Sequence[Player], together: Callable[..., tuple[dict[str, list[Block]], int]]
) -> tuple[list[PolicyOutcome], list[float]]:
    """What each policy came to, and the thresholds of the profiles."""
    outcomes = [_alone(player) for player in players]
    playing = [number for number, player in enumerate(players) if player.samples]
    missions = together(*(players[number] for number in playing))[0] if playing else {}
    if not missions:
        return outcomes, []
    blocks = _values(missions)
    at = aggregates.thresholds(blocks)
    means = aggregates.interquartile_means(blocks)
    intervals = aggregates.interquartile_intervals(blocks, design.confidence)
    profiles = aggregates.performance_profiles(blocks, at)
    for number, mean, interval, profile in zip(playing, means, intervals, profiles, strict=True):
        outcomes[number] = replace(
            outcomes[number], interquartile_mean=mean, interquartile_interval=interval, profile=profile
        )
    return outcomes, at


def _values(missions: Mapping[str, Sequence[Block]]) -> list[list[list[float]]]:
    return [[[sample.value for sample in block] for block in blocks] for blocks in missions.values()]


def _alone(player: Player) -> PolicyOutcome:
    values = sorted(sample.value for sample in distinct(player.samples))
    copies, forfeits = len(player.samples) - len(values), sum(player.forfeits.values())
    if not values:
        return PolicyOutcome(0, copies, forfeits)
    return PolicyOutcome(
        len(values),
        copies,
        forfeits,
        mean=math.fsum(values) / len(values),
        deviation=standard_deviation(values),
        extremes=(values[0], values[-1]),
    )


def _problem(design: Design, family: Sequence[PairOutcome]) -> str:
    """What is wrong with a design, looking at the most pairs that any two policies have."""
    most = max((pair.measures.pairs for pair in family), default=None)
    return "" if most is None else design.problem(most, len(family))


def _ran_out(race: Race) -> bool:
    """Whether a race ended for want of looks."""
    return race.over and len(race.racing) > 1


def _warnings(
    design: Design, players: Sequence[Player], policies: Sequence[PolicyOutcome], missions: int, race: Race | None
) -> list[str]:
    found = []
    complete = race.racing if race and _ran_out(race) else range(0 if race else len(players))
    for number, (player, policy) in enumerate(zip(players, policies, strict=True)):
        if policy.forfeits:
            found.append(f"{player.label} forfeited {count_of(policy.forfeits, 'episode')}, which do not count.")
        if policy.copies:
            found.append(
                f"{policy.copies} of {count_of(len(player.samples), 'episode')} of {player.label} are copies of others "
                "and count once: same map, seats, steps and statistics."
            )
        if not policy.episodes:
            found.append(f"{player.label} has no episode that counts.")
        planned = design.episodes * missions
        if number in complete and len(player.samples) < planned:
            found.append(f"{player.label} has {len(player.samples)} of {planned} planned episodes.")
    return found
