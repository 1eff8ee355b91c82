"""Evaluations as the client sees them: created, and summarized policy by policy."""

from __future__ import annotations

import uuid

from daf.client import Client
from daf.config import DAFEvaluationConfig
from daf.convert import evaluation_spec
from daf.resources import Resources
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation
from daf_protos.evaluation.v1.evaluation_service_pb2 import CreateEvaluationRequest
from daf_protos.statistics.v1.metric_pb2 import Metric
from daf_protos.statistics.v1.statistics_service_pb2 import (
    ListEpisodesRequest,
    SummarizeEvaluationRequest,
    SummarizeEvaluationResponse,
)


def create_evaluation(client: Client, config: DAFEvaluationConfig, evaluation_id: str = "") -> Evaluation:
    """Uploads what an evaluation needs and creates it.

    Raises:
        DafError: it is refused.
    """
    request = CreateEvaluationRequest(
        request_id=uuid.uuid4().hex,
        evaluation_id=evaluation_id,
        spec=evaluation_spec(config, Resources(client)),
    )
    return client.evaluation.CreateEvaluation(request).evaluation


def summarize(client: Client, evaluation: str, metric: str) -> SummarizeEvaluationResponse:
    """The scores of an evaluation's policies.

    Raises:
        InvalidArgument: there is no such metric; lists those that there are.
    """
    request = SummarizeEvaluationRequest(evaluation=evaluation, metric=Metric(name=metric))
    return client.statistics.SummarizeEvaluation(request)


def forfeit_reasons(client: Client, evaluation: Evaluation) -> list[str]:
    """Why policies could not play, each reason once, from the first episodes."""
    labels = {str(number): policy.label for number, policy in enumerate(evaluation.spec.policies)}
    episodes = client.statistics.ListEpisodes(ListEpisodesRequest(evaluation=evaluation.name)).episodes
    forfeits = [forfeit for episode in episodes for forfeit in episode.forfeits]
    return list(dict.fromkeys(f"{labels.get(f.subject, f.subject)}: {f.message}" for f in forfeits))
