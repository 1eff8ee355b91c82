"""What came out of an evaluation: over all, by mission and by team."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.json_format import MessageToDict

from daf.client import Client
from daf.comparison_results import labels_of_missions
from daf.evaluations import forfeit_reasons, list_episodes, read_evaluation, summarize
from daf_protos.evaluation.v1 import evaluation_pb2
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation, EvaluationSpec, Scenario
from daf_protos.statistics.v1.episode_pb2 import Episode
from daf_protos.statistics.v1.metric_pb2 import Metric
from daf_protos.statistics.v1.statistics_service_pb2 import PolicySummary, SummarizeEvaluationResponse

type Place = tuple[int, int]
"""Scenario and index of an episode."""


@dataclass(frozen=True)
class PartScore:
    """A policy's score in a part of the episodes."""

    policy: int
    mission: str
    team: str
    """Who played, for example `2 starter, 2 random`; empty over all teams."""
    episodes: int
    """Those that count."""
    mean: float | None
    standard_error: float | None
    """None below two episodes, and where some are copies of others."""


@dataclass(frozen=True)
class EvaluationResult:
    """An evaluation with its scores in one metric."""

    evaluation: Evaluation
    metric: Metric
    summary: SummarizeEvaluationResponse
    """Every policy's score over all of its episodes."""
    parts: list[PartScore] = field(default_factory=list)
    """The same by mission where there are several, and by team where a policy plays in several."""
    forfeits: list[str] = field(default_factory=list)
    """Why policies could not play, each reason once."""

    @property
    def labels(self) -> list[str]:
        """What the policies are called, by number."""
        return [policy.label for policy in self.evaluation.spec.policies]


def read_result(client: Client, name: str, metric: Metric) -> EvaluationResult:
    """The result of an evaluation, as far as it has come.

    Raises:
        NotFound: there is no such evaluation.
        InvalidArgument: there is no such metric; lists those that there are.
    """
    evaluation = read_evaluation(client, name)
    if not evaluation.done_episodes:
        return EvaluationResult(evaluation, metric, SummarizeEvaluationResponse())
    summary = summarize(client, name, metric)
    forfeited = any(policy.forfeits for policy in summary.policies)
    return EvaluationResult(
        evaluation,
        metric,
        summary,
        _parts(client, evaluation, summary.policies),
        forfeit_reasons(client, evaluation) if forfeited else [],
    )


def mission_names(spec: EvaluationSpec) -> list[str]:
    """What tables call the missions: the name, and what changes it where two have the same name."""
    fields = [MessageToDict(mission, preserving_proto_field_name=True) for mission in spec.missions]
    texts = [json.dumps({key: value for key, value in one.items() if key != "file"}) for one in fields]
    labels = labels_of_missions(list(dict.fromkeys(texts)))
    return [labels[text] for text in texts]


def team_name(scenario: Scenario, labels: Sequence[str]) -> str:
    """Who plays in a scenario, for example `2 starter, 2 random`."""
    seated = zip(scenario.policies, scenario.seats, strict=False)
    return ", ".join(f"{count} {labels[policy]}" for policy, count in seated if count)


def has_teams(evaluation: Evaluation) -> bool:
    """Whether policies play in several teams."""
    return evaluation.spec.team in (evaluation_pb2.TEAM_PICKUP, evaluation_pb2.TEAM_PAIRS)


def part_scores(
    evaluation: Evaluation, policies: Iterable[PolicySummary], counted: Mapping[int, Sequence[Place]]
) -> list[PartScore]:
    """The scores by mission, where there are several, and by team, where a policy plays in several.

    Args:
        evaluation: with its scenarios.
        policies: every policy's values, by scenario and index.
        counted: for every policy the episodes that its values are of. Where these are not as many, it is left out.
    """
    missions, labels = mission_names(evaluation.spec), [policy.label for policy in evaluation.spec.policies]
    by_team = has_teams(evaluation)
    found = []
    for policy in policies:
        places = counted.get(policy.policy, ())
        if len(places) != len(policy.values):
            continue
        groups: dict[tuple[int, str], list[float]] = {}
        for (scenario, _), value in zip(places, policy.values, strict=True):
            played = evaluation.scenarios[scenario]
            if len(missions) > 1:
                groups.setdefault((played.mission, ""), []).append(value)
            if by_team:
                groups.setdefault((played.mission, team_name(played, labels)), []).append(value)
        found += [
            PartScore(policy.policy, missions[mission], team, len(values), *_mean(values, policy.copies))
            for (mission, team), values in groups.items()
        ]
    return found


def planned_places(evaluation: Evaluation) -> dict[int, list[Place]]:
    """The episodes that every policy is to play."""
    places: dict[int, list[Place]] = {number: [] for number in range(len(evaluation.spec.policies))}
    for number, scenario in enumerate(evaluation.scenarios):
        seats = scenario.seats or [1] * len(scenario.policies)
        for policy, count in zip(scenario.policies, seats, strict=True):
            if count:
                places[policy] += [(number, index) for index in range(evaluation.spec.episodes)]
    return places


def counted_places(episodes: Iterable[Episode]) -> dict[int, list[Place]]:
    """The episodes that count for every policy: it did not forfeit them, and its rewards are finite."""
    places: dict[int, list[Place]] = {}
    for episode in episodes:
        forfeited = {int(forfeit.subject) for forfeit in episode.forfeits}
        broken = {
            seat for seat, reward in zip(episode.seats, episode.rewards, strict=False) if not math.isfinite(reward)
        }
        for policy in sorted({*episode.seats} - forfeited - broken):
            places.setdefault(policy, []).append((episode.scenario, episode.index))
    return places


def _parts(client: Client, evaluation: Evaluation, policies: Sequence[PolicySummary]) -> list[PartScore]:
    if len(evaluation.spec.missions) == 1 and not has_teams(evaluation):
        return []
    counted: Mapping[int, Sequence[Place]] = planned_places(evaluation)
    if any(len(counted[policy.policy]) != len(policy.values) for policy in policies):
        counted = counted_places(list_episodes(client, evaluation.name))
    return part_scores(evaluation, policies, counted)


def _mean(values: Sequence[float], copies: int) -> tuple[float, float | None]:
    exact = len(values) > 1 and not copies
    error = statistics.stdev(values) / math.sqrt(len(values)) if exact else None
    return math.fsum(values) / len(values), error
