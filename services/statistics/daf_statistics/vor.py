"""Value over replacement: what a candidate's seats score above what a pool scores that plays without it.

Point values are those of `cogames.pickup` and `metta_alo.scoring`, by the same operations in the same order. Intervals
are added: for every seed the difference is formed that the value is the mean of, so that seeds are drawn jointly over
all teams.
"""

from __future__ import annotations

from collections import defaultdict
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
    is_pinned,
    mission_names,
    shared_seeds,
    team_warnings,
)


@dataclass(frozen=True)
class VorScenario:
    """A candidate in so many seats."""

    candidate_seats: int
    pool_seats: Mapping[int, int]
    """Seats of each other policy that has any."""
    candidate_mean: float | None
    """None without an episode that counts."""
    value_over_replacement: float | None
    interval: Interval | None
    episodes: int
    """Those that count."""
    copies: int
    """How many of them are copies of others."""


@dataclass(frozen=True)
class MissionVor:
    """What a candidate is worth on one mission."""

    mission: str
    pinned: bool
    """Whether the map was the same by choice: then nothing has an interval, since the episodes are no sample of the
    mission's maps, and mostly copies."""
    replacement_mean: float | None
    replacement_interval: Interval | None
    scenarios: Sequence[VorScenario]
    """By the number of the candidate's seats, falling, without 0."""
    overall: float | None
    """The mean of the scenarios, weighted by seats and episodes, minus the replacement mean."""
    overall_interval: Interval | None
    seeds: int
    """Seeds that every scenario with an episode that counts has been played with, copies of others left out."""


@dataclass(frozen=True)
class _Team:
    """A scenario's episodes that count, and what they come to."""

    candidate_seats: int
    pool_seats: Mapping[int, int]
    episodes: Sequence[TeamEpisode]
    mean: float | None
    seeds: Mapping[int, SeedValue]


def value_over_replacement(
    played: Iterable[TeamEpisode], candidate: int, confidence: float
) -> tuple[list[MissionVor], list[str]]:
    """A candidate's value over replacement on each mission, and what a reader must know.

    Args:
        played: in the order of scenario and index. An episode that any policy forfeited does not count, since another
            team has played it, nor does one with a value that is not finite.
        candidate: its number; all other policies are of the pool.
        confidence: level of the intervals.
    """
    missions = by_mission(played)
    names = mission_names(missions)
    found, warnings = [], list[str]()
    for mission, episodes in missions.items():
        vor = _on_mission(mission, episodes, candidate, confidence)
        where = f" on {names[mission]}" if len(missions) > 1 else ""
        found.append(vor)
        warnings += [f"{text}{where}." for text in _warnings(vor, episodes)]
    return found, warnings


def _on_mission(mission: str, played: Sequence[TeamEpisode], candidate: int, confidence: float) -> MissionVor:
    groups: dict[tuple[tuple[int, int], ...], list[TeamEpisode]] = defaultdict(list)
    for episode in played:
        groups[episode.seats if episode.seats_of(candidate) else ()].append(episode)
    replacement = _team(groups.pop((), []), candidate)
    teams = sorted((_team(group, candidate) for group in groups.values()), key=lambda team: -team.candidate_seats)
    pinned = is_pinned(mission)

    def interval(point: float | None, terms: Sequence[tuple[float, _Team]]) -> Interval | None:
        """Of a sum of teams' means, each with its factor."""
        if point is None or pinned:
            return None
        seeds = shared_seeds([team.seeds for _, team in terms])
        return interval_around(
            point, [[factor * team.seeds[seed].value for factor, team in terms] for seed in seeds], confidence
        )

    scenarios = []
    for team in teams:
        over = None if team.mean is None or replacement.mean is None else team.mean - replacement.mean
        scenarios.append(
            VorScenario(
                team.candidate_seats,
                team.pool_seats,
                team.mean,
                over,
                interval(over, [(1, team), (-1, replacement)]),
                len(team.episodes),
                len(team.episodes) - len(distinct(team.episodes)),
            )
        )
    counting = [team for team in teams if team.mean is not None]
    seats = sum(team.candidate_seats * len(team.episodes) for team in counting)
    shares = [(team.candidate_seats * len(team.episodes) / seats, team) for team in counting]
    overall = _overall(counting, replacement)
    return MissionVor(
        mission,
        pinned,
        replacement.mean,
        interval(replacement.mean, [(1, replacement)]),
        scenarios,
        overall,
        interval(overall, [*shares, (-1, replacement)]),
        len(shared_seeds([team.seeds for team in (*counting, replacement)])),
    )


def _team(played: Sequence[TeamEpisode], candidate: int) -> _Team:
    """A scenario; without the candidate, one in which the value is that of the whole team."""
    seats = dict(played[0].seats) if played else {}
    own = seats.pop(candidate, 0)

    def value(episode: TeamEpisode) -> float | None:
        if episode.team_value is None:
            return None
        return episode.values[candidate] if own else episode.team_value

    valued = [(episode, of_episode) for episode in played if (of_episode := value(episode)) is not None]
    counted = [episode for episode, _ in valued]
    return _Team(own, seats, counted, _mean([of_episode for _, of_episode in valued]), by_seed(counted, value))


def _mean(values: Sequence[float]) -> float | None:
    total = 0.0
    for value in values:  # not `sum`, which rounds otherwise than `metta_alo.scoring.summarize_vor_scenario`
        total += value
    return total / len(values) if values else None


def _overall(teams: Sequence[_Team], replacement: _Team) -> float | None:
    """As `metta_alo.scoring.VorTotals` and `overall_value_over_replacement`, by the same operations."""
    total, agents = 0.0, 0
    for team in teams:
        assert team.mean is not None
        total += team.mean * team.candidate_seats * len(team.episodes)
        agents += team.candidate_seats * len(team.episodes)
    return total / agents - replacement.mean if agents and replacement.mean is not None else None


def _warnings(vor: MissionVor, played: Sequence[TeamEpisode]) -> Iterator[str]:
    yield from team_warnings(played)
    if vor.replacement_mean is None:
        yield "No episode without the candidate counts, so there is no baseline"
    there = {scenario.candidate_seats for scenario in vor.scenarios if scenario.episodes}
    if missing := [str(seats) for seats in range(played[0].agents, 0, -1) if seats not in there]:
        yield f"No episode counts in which the candidate has {' or '.join(missing)} seats"
    copies, counted = (sum(getattr(one, name) for one in vor.scenarios) for name in ("copies", "episodes"))
    if vor.pinned:
        yield "All episodes were played on one map, and say nothing of others: there are no intervals"
    elif copies:
        yield f"{copies} of {count_of(counted, 'episode')} of the candidate are copies of others and narrow no interval"
    if not vor.pinned and vor.overall is not None and vor.seeds < 2:
        yield "There are no intervals: at least 2 seeds are needed that all teams have played"
