"""Evaluations as the client sees them: created, read, and their episodes page by page."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Iterator, Sequence

from daf.client import Client, all_pages
from daf.config import DAFEvaluationConfig
from daf.convert import evaluation_spec
from daf.convert.metrics import metric_message
from daf.missions import is_file
from daf.references import MissionConfig
from daf.resources import Resources
from daf_common.errors import InvalidArgument, Unimplemented
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation
from daf_protos.evaluation.v1.evaluation_service_pb2 import CreateEvaluationRequest, GetEvaluationRequest
from daf_protos.statistics.v1.episode_pb2 import Episode
from daf_protos.statistics.v1.metric_pb2 import Metric
from daf_protos.statistics.v1.statistics_service_pb2 import (
    CheckMetricRequest,
    ListEpisodesRequest,
    SummarizeEvaluationRequest,
    SummarizeEvaluationResponse,
)

log = logging.getLogger("daf")

_PAGE_SIZE = 1000
_SUMMARY_SECONDS = 300.0


def create_evaluation(client: Client, config: DAFEvaluationConfig, evaluation_id: str = "") -> Evaluation:
    """Uploads what an evaluation needs and creates it.

    Raises:
        InvalidArgument: there is no such metric; names those that are near.
        DafError: it is refused.
    """
    check_metric(client, metric_message(config.objective_metric, config.aggregation), config.missions)
    request = CreateEvaluationRequest(
        request_id=uuid.uuid4().hex,
        evaluation_id=evaluation_id,
        spec=evaluation_spec(config, Resources(client)),
    )
    return client.evaluation.CreateEvaluation(request).evaluation


def read_evaluation(client: Client, name: str) -> Evaluation:
    """An evaluation by its name.

    Raises:
        NotFound: there is none.
    """
    return client.evaluation.GetEvaluation(GetEvaluationRequest(name=name)).evaluation


def check_metric(client: Client, metric: Metric, missions: Iterable[MissionConfig]) -> None:
    """Checks that a metric is known before anything is played. What missions of the user's own have is known only
    afterwards: then it warns.

    Raises:
        InvalidArgument: no mission of CoGames has it; names those that are near.
    """
    try:
        client.statistics.CheckMetric(CheckMetricRequest(metric=metric))
    except Unimplemented:  # services that are older than this client say it when they summarize
        pass
    except InvalidArgument:
        if not any(mission.file or is_file(mission.mission) for mission in missions):
            raise
        log.warning("no mission of CoGames has a statistic %r: your own must, or there is no score", metric.name)


def summarize(client: Client, evaluation: str, metric: Metric) -> SummarizeEvaluationResponse:
    """The scores of an evaluation's policies.

    Raises:
        InvalidArgument: there is no such metric; lists those that there are.
        NotFound: no episode is recorded.
    """
    request = SummarizeEvaluationRequest(evaluation=evaluation, metric=metric)
    return client.statistics.SummarizeEvaluation(request, timeout=_SUMMARY_SECONDS)


def list_episodes(client: Client, evaluation: str) -> Iterator[Episode]:
    """The episodes that are recorded, by scenario and index; read page by page."""
    return (episode for page in _pages(client, evaluation) for episode in page)


def forfeit_reasons(client: Client, evaluation: Evaluation) -> list[str]:
    """Why policies could not play, each reason once, from the first episodes that were forfeited."""
    labels = {str(number): policy.label for number, policy in enumerate(evaluation.spec.policies)}
    for episodes in _pages(client, evaluation.name):
        forfeits = [forfeit for episode in episodes for forfeit in episode.forfeits]
        if forfeits:
            return list(dict.fromkeys(f"{labels.get(f.subject, f.subject)}: {f.message}" for f in forfeits))
    return []


def _pages(client: Client, evaluation: str) -> Iterator[Sequence[Episode]]:
    def page(token: str) -> tuple[list[Sequence[Episode]], str]:
        request = ListEpisodesRequest(evaluation=evaluation, page_size=_PAGE_SIZE, page_token=token)
        answer = client.statistics.ListEpisodes(request)
        return [answer.episodes], answer.next_page_token

    return all_pages(page)
