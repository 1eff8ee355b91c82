"""Evaluations as the client sees them: created, and summarized policy by policy."""

from __future__ import annotations

import uuid

from daf.client import Client
from daf.config import DAFEvaluationConfig
from daf.convert import evaluation_spec
from daf.resources import Resources
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation
from daf_protos.evaluation.v1.evaluation_service_pb2 import CreateEvaluationRequest
from daf_protos.statistics.v1.statistics_service_pb2 import (
    Metric,
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
