"""What came out of an evaluation: over all, by mission and by team."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from google.protobuf.json_format import MessageToDict

from daf.client import Client
from daf.comparison_results import given, labels_of_missions
from daf.evaluations import forfeit_reasons, read_evaluation, summarize
from daf.results import ScoreResult
from daf_protos.evaluation.v1 import evaluation_pb2
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation, EvaluationSpec, Scenario
from daf_protos.statistics.v1.metric_pb2 import Metric
from daf_protos.statistics.v1.statistics_service_pb2 import PolicySummary, SummarizeEvaluationResponse


@dataclass(frozen=True)
class PartScore:
    """A policy's score in a part of the episodes."""

    policy: int
    mission: str
    team: str
    """Who played, for example `2 starter, 2 random`; empty where the policies play in one team, or alone."""
    score: ScoreResult
    copies: int
    """How many of the score's episodes are copies of others."""


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
        return _labels(self.evaluation)


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
        part_scores(evaluation, summary.policies),
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


def part_scores(evaluation: Evaluation, policies: Iterable[PolicySummary]) -> list[PartScore]:
    """The scores by mission, where there are several, and by team, where a policy plays in several."""
    missions, labels, teams = mission_names(evaluation.spec), _labels(evaluation), has_teams(evaluation)
    found = []
    for policy in policies:
        for part in policy.scenarios:
            played = evaluation.scenarios[part.scenario]
            low, high = given(part, "interval_low"), given(part, "interval_high")
            score = ScoreResult(part.mean, given(part, "standard_error"), low, high, part.episodes)
            team = team_name(played, labels) if teams else ""
            found.append(PartScore(policy.policy, missions[played.mission], team, score, part.copies))
    return found


def _labels(evaluation: Evaluation) -> list[str]:
    return [policy.label for policy in evaluation.spec.policies]
