"""Episodes as rows of a table: one an episode, or one a seat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from daf.evaluation_results import team_name
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation
from daf_protos.statistics.v1.episode_pb2 import Episode

type Shape = Literal["episode", "seat"]
"""What a row is."""

type Cell = str | int | float | bool | list[int] | list[float] | list[str] | None
type Row = dict[str, Cell]

FIXED: dict[str, type | tuple[type, type]] = {
    "evaluation": str,
    "mission": str,
    "variants": (list, str),
    "cogs": int,
    "difficulty": str,
    "map_seed": int,
    "team": str,
    "scenario": int,
    "episode": int,
    "seed": int,
    "seat": int,
    "policy": str,
    "policy_number": int,
    "forfeited": bool,
    "seats": (list, int),
    "reward": float,
    "rewards": (list, float),
    "action_timeout": int,
    "action_timeouts": (list, int),
    "steps": int,
    "max_steps": int,
    "forfeits": (list, str),
    "approximate": bool,
    "wall_seconds": float,
    "worker": str,
    "digest": str,
    "map_digest": str,
    "replay": str,
    "step_ms": float,
    "longest_step_ms": float,
}
"""Columns that have one name in every evaluation, in their order, with what is in them. All others are numbers, but for
`version.PACKAGE`: `game.STATISTIC`, `game_average.STATISTIC` and `agent.STATISTIC`; and in rows of episodes, of each
policy, `reward[POLICY]`, `step_ms[POLICY]`, `longest_step_ms[POLICY]` and `agent.STATISTIC[POLICY]`, the mean over its
seats."""


def rows_of(evaluation: Evaluation, episode: Episode, shape: Shape) -> Iterator[Row]:
    """The rows of an episode. A statistic that it lacks is left out; where only some seats of a policy have it, it is 0
    for the others."""
    labels = [policy.label for policy in evaluation.spec.policies]
    common = _common(evaluation, episode, labels)
    if shape == "seat":
        for seat in range(len(episode.seats)):
            yield {**common, **_seat(episode, seat, labels)}
    else:
        yield {**common, **_all_seats(episode, labels)}


def _common(evaluation: Evaluation, episode: Episode, labels: list[str]) -> Row:
    scenario = evaluation.scenarios[episode.scenario]
    mission = evaluation.spec.missions[scenario.mission]
    return {
        "evaluation": evaluation.name,
        "mission": mission.name,
        "variants": list(mission.variants),
        "cogs": len(episode.seats),
        "difficulty": mission.difficulty,
        "map_seed": mission.map_seed if mission.HasField("map_seed") else None,
        "team": team_name(scenario, labels),
        "scenario": episode.scenario,
        "episode": episode.index,
        "seed": episode.seed,
        "steps": episode.steps,
        "max_steps": episode.max_steps,
        "forfeits": [f"{labels[int(one.subject)]}: {one.reason}: {one.message}" for one in episode.forfeits],
        "approximate": episode.approximate,
        "wall_seconds": episode.wall_seconds,
        "worker": episode.worker,
        "digest": episode.digest,
        "map_digest": episode.map_digest,
        "replay": episode.replay.sha256,
        **{f"game.{name}": value for name, value in episode.game_statistics.values.items()},
        **{f"game_average.{name}": value for name, value in episode.average_game_statistics.values.items()},
        **{f"version.{name}": version for name, version in episode.versions.items()},
    }


def _seat(episode: Episode, seat: int, labels: list[str]) -> Row:
    policy = episode.seats[seat]
    return {
        "seat": seat,
        "policy": labels[policy],
        "policy_number": policy,
        "forfeited": any(int(forfeit.subject) == policy for forfeit in episode.forfeits),
        "reward": episode.rewards[seat],
        "action_timeout": episode.action_timeouts[seat] if seat < len(episode.action_timeouts) else None,
        **_latency(episode, policy, ""),
        **{f"agent.{name}": value for name, value in _statistics(episode, seat).items()},
    }


def _all_seats(episode: Episode, labels: list[str]) -> Row:
    row: Row = {
        "seats": list(episode.seats),
        "rewards": list(episode.rewards),
        "action_timeouts": list(episode.action_timeouts),
    }
    for policy in sorted(set(episode.seats)):
        seats = [seat for seat, other in enumerate(episode.seats) if other == policy]
        of_policy = f"[{labels[policy]}]"
        row[f"reward{of_policy}"] = sum(episode.rewards[seat] for seat in seats) / len(seats)
        row |= _latency(episode, policy, of_policy)
        statistics = [_statistics(episode, seat) for seat in seats]
        for name in sorted(set().union(*statistics)):
            row[f"agent.{name}{of_policy}"] = sum(one.get(name, 0.0) for one in statistics) / len(seats)
    return row


def _statistics(episode: Episode, seat: int) -> dict[str, float]:
    return dict(episode.agent_statistics[seat].values) if seat < len(episode.agent_statistics) else {}


def _latency(episode: Episode, policy: int, of_policy: str) -> Row:
    for one in episode.latencies:
        if one.policy == policy and one.steps:
            return {
                f"step_ms{of_policy}": 1000 * one.total_seconds / one.steps,
                f"longest_step_ms{of_policy}": 1000 * one.longest_seconds,
            }
    return {}
