"""Cross-play: how well every two policies do in one team, and who is the best partner."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from daf_statistics.design import count_of
from daf_statistics.teams import (
    Interval,
    SeedValue,
    TeamEpisode,
    by_mission,
    by_seed,
    distinct,
    interval_around,
    mission_names,
    shared_seeds,
    team_warnings,
)

DRAWS = 4_000
"""Of the means of all policies together, by which the range of ranks is found."""

_SEED = 0

type Pair = tuple[int, int]


@dataclass(frozen=True)
class CrossPlayCell:
    """Two policies in one team, half of the seats each; or one in all of them."""

    first: int
    second: int
    team_mean: float | None
    """Over all seats; like the other means over the episodes that are no copies."""
    team_interval: Interval | None
    first_mean: float | None
    second_mean: float | None
    gain: float | None
    """The team's mean minus the mean of the two policies' self-play on the same seeds; None in self-play."""
    gain_interval: Interval | None
    episodes: int
    """Those that count and are no copies."""
    copies: int


@dataclass(frozen=True)
class CrossPlayRank:
    """A policy's place among all, by the mean of the teams that it shares with each of the others."""

    policy: int
    mean: float | None
    interval: Interval | None
    best_rank: int
    worst_rank: int


@dataclass(frozen=True)
class MissionCrossPlay:
    """Cross-play on one mission."""

    mission: str
    cells: Sequence[CrossPlayCell]
    """Every two policies, `first` at most `second`."""
    ranking: Sequence[CrossPlayRank]
    """Best first."""


@dataclass(frozen=True)
class _Team:
    """What two policies did together."""

    distinct: Sequence[TeamEpisode]
    copies: int
    seeds: Mapping[int, SeedValue]


def cross_play(played: Iterable[TeamEpisode], confidence: float) -> tuple[list[MissionCrossPlay], list[str]]:
    """Cross-play on each mission, and what a reader must know.

    Args:
        played: in the order of scenario and index; teams of other shapes are left out.
        confidence: level of the intervals and of the ranges of ranks.
    """
    missions = by_mission(played)
    names = mission_names(missions)
    found, warnings = [], list[str]()
    for mission, episodes in missions.items():
        where = f" on {names[mission]}" if len(missions) > 1 else ""
        policies = sorted({policy for episode in episodes for policy, _ in episode.seats})
        found.append(_on_mission(mission, episodes, policies, confidence))
        warnings += [f"{text}{where}." for text in _warnings(found[-1], episodes)]
    return found, warnings


def _on_mission(
    mission: str, played: Sequence[TeamEpisode], policies: Sequence[int], confidence: float
) -> MissionCrossPlay:
    together: dict[Pair, list[TeamEpisode]] = {
        (first, second): [] for at, first in enumerate(policies) for second in policies[at:]
    }
    for episode in played:
        if (pair := _pair(episode)) is not None:
            together[pair].append(episode)
    teams = {pair: _team(episodes) for pair, episodes in together.items()}
    return MissionCrossPlay(
        mission,
        [_cell(pair, teams, confidence) for pair in teams],
        _ranking(policies, teams, confidence),
    )


def _pair(episode: TeamEpisode) -> Pair | None:
    """The policies that share the seats evenly, up to the odd one."""
    match episode.seats:
        case ((policy, _),):
            return policy, policy
        case ((first, some), (second, others)) if abs(some - others) <= 1:
            return first, second
    return None


def _team(played: Sequence[TeamEpisode]) -> _Team:
    counted = [episode for episode in played if episode.team_value is not None]
    kept = distinct(counted)
    return _Team(kept, len(counted) - len(kept), by_seed(counted, lambda episode: episode.team_value))


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _team_mean(team: _Team) -> float | None:
    return _mean([episode.team_value for episode in team.distinct if episode.team_value is not None])


def _cell(pair: Pair, teams: Mapping[Pair, _Team], confidence: float) -> CrossPlayCell:
    first, second = pair
    team = teams[pair]
    mean = _team_mean(team)
    values = [[team.seeds[seed].value] for seed in shared_seeds([team.seeds])]
    gains = list[list[float]]()
    if first != second:
        alone = teams[first, first], teams[second, second]
        gains = [
            [team.seeds[seed].value, *(-one.seeds[seed].value / 2 for one in alone)]
            for seed in shared_seeds([one.seeds for one in (team, *alone)])
        ]
    gain = _mean([math.fsum(terms) for terms in gains])
    return CrossPlayCell(
        first,
        second,
        mean,
        None if mean is None else interval_around(mean, values, confidence),
        _mean([episode.values[first] for episode in team.distinct]),
        _mean([episode.values[second] for episode in team.distinct]),
        gain,
        None if gain is None else interval_around(gain, gains, confidence),
        len(team.distinct),
        team.copies,
    )


def _ranking(policies: Sequence[int], teams: Mapping[Pair, _Team], confidence: float) -> list[CrossPlayRank]:
    shared = {pair: team for pair, team in teams.items() if pair[0] != pair[1] and team.distinct}
    cells = {policy: [pair for pair in shared if policy in pair] for policy in policies}
    means = {
        policy: _mean([mean for pair in pairs if (mean := _team_mean(shared[pair])) is not None])
        for policy, pairs in cells.items()
    }
    seeds = shared_seeds([team.seeds for team in shared.values()])
    ranked = [policy for policy in policies if cells[policy]]
    by_policy = {
        policy: [[shared[pair].seeds[seed].value / len(cells[policy]) for pair in cells[policy]] for seed in seeds]
        for policy in ranked
    }
    ranges = _rank_ranges([[math.fsum(terms) for terms in by_policy[policy]] for policy in ranked], confidence)
    ranking = [
        CrossPlayRank(policy, mean, interval_around(mean, by_policy[policy], confidence), *ranges[ranked.index(policy)])
        for policy in ranked
        if (mean := means[policy]) is not None
    ]
    ranking.sort(key=lambda rank: (-(rank.mean or 0.0), rank.policy))
    # Nothing is known of those without a team: any place could be theirs.
    return ranking + [CrossPlayRank(p, None, None, 1, len(policies)) for p in policies if p not in ranked]


def _rank_ranges(values: Sequence[Sequence[float]], confidence: float) -> list[tuple[int, int]]:
    """The best and the worst place of each policy within an interval.

    The means of all policies are drawn together, from Student's distribution around those that were seen with the
    covariance over the seeds: for few seeds it keeps its level, which drawing the seeds anew does not. Equal means are
    equal places.

    Args:
        values: of each policy, on the same seeds.
        confidence: level of the interval.
    """
    import numpy as np

    count = len(values)
    if not values or len(values[0]) < 2:
        return [(1, count)] * count
    table = np.asarray(values, float).T
    seeds = len(table)
    generator = np.random.default_rng(_SEED)
    means = np.array([math.fsum(of_policy) / seeds for of_policy in values])
    _, spread, axes = np.linalg.svd((table - means) / math.sqrt(seeds * (seeds - 1)), full_matrices=False)
    normal = generator.standard_normal((DRAWS, len(spread))) * spread @ axes
    stretch = np.sqrt((seeds - 1) / generator.chisquare(seeds - 1, DRAWS))
    drawn = means + normal * stretch[:, None]
    better = (drawn[:, None, :] > drawn[:, :, None]).sum(axis=2)
    worse = (drawn[:, None, :] < drawn[:, :, None]).sum(axis=2)
    tail = 50 * (1 - confidence)
    best = np.percentile(1 + better, tail, axis=0, method="lower")
    worst = np.percentile(count - worse, 100 - tail, axis=0, method="higher")
    return [(int(low), int(high)) for low, high in zip(best, worst, strict=True)]


def _warnings(found: MissionCrossPlay, played: Sequence[TeamEpisode]) -> Iterator[str]:
    yield from team_warnings(played)
    if others := sum(_pair(episode) is None for episode in played):
        yield f"{count_of(others, 'episode')} of teams that are not two policies with half of the seats are left out"
    if copies := sum(cell.copies for cell in found.cells):
        yield f"{count_of(copies, 'episode')} are left out as copies of others: same map, seats, steps and statistics"
    if missing := [f"{cell.first} and {cell.second}" for cell in found.cells if not cell.episodes]:
        yield f"No episode counts of policies {', '.join(missing)}"
