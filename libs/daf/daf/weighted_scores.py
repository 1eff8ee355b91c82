"""Weighted scores: each policy's mean over the episodes of an evaluation, weighted by its share of the seats."""

from __future__ import annotations

from dataclasses import dataclass

from daf.client import Client
from daf.comparison_results import given
from daf.team_evaluations import SCORING_SECONDS, labels_of
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation
from daf_protos.statistics.v1.metric_pb2 import Metric
from daf_protos.statistics.v1.scoring_service_pb2 import ComputeWeightedScoresRequest, WeightedScore


@dataclass(frozen=True)
class WeightedScoreResult:
    """A policy's mean over the episodes, weighted by its share of the seats. None where it cannot be computed."""

    score: float | None
    interval: tuple[float, float] | None
    episodes: int
    """Those that count."""
    mean_share: float
    """Of the seats."""


def weighted_scores(
    client: Client, evaluation: Evaluation, metric: str, confidence: float
) -> dict[str, WeightedScoreResult]:
    """The weighted scores of an evaluation, by the labels of its policies.

    Raises:
        InvalidArgument: there is no such metric; lists those that there are.
    """
    request = ComputeWeightedScoresRequest(
        evaluation=evaluation.name, metric=Metric(name=metric), confidence=confidence
    )
    scores = client.scoring.ComputeWeightedScores(request, timeout=SCORING_SECONDS).scores
    labels = labels_of(evaluation)
    return {labels[score.policy]: _result(score) for score in scores}


def _result(score: WeightedScore) -> WeightedScoreResult:
    return WeightedScoreResult(
        given(score, "score"),
        (score.low, score.high) if score.HasField("low") else None,
        score.episodes,
        score.mean_share,
    )
