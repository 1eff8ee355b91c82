"""The statistics service on the wire: requests to transactions and pure functions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import grpc

from daf_common import pages
from daf_common.errors import InvalidArgument, NotFound, ResourceExhausted
from daf_common.store import Store, Transaction
from daf_protos.statistics.v1 import statistics_service_pb2 as pb
from daf_protos.statistics.v1.episode_pb2 import Episode
from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceServicer
from daf_statistics import convert, metric_messages, store
from daf_statistics.aggregation import Aggregation
from daf_statistics.collector import paused_collector
from daf_statistics.curves import MAX_POINTS, Curve, curve, default_metrics
from daf_statistics.latencies import added_up
from daf_statistics.metrics import thinned
from daf_statistics.outcomes import latencies_of
from daf_statistics.samples import KnownStatistics, Samples, UnknownMetricError, find_source
from daf_statistics.summary import by_scenario, evaluation_digest, is_loaded, summarize

log = logging.getLogger(__name__)

MAX_RESPONSE_BYTES = 3 << 20
"""Clients take messages of at most 4 MiB."""

type Call = grpc.aio.ServicerContext[Any, Any]


class StatisticsServicer(StatisticsServiceServicer):
    """Answers the calls of `StatisticsService`."""

    def __init__(self, database: Store, known: KnownStatistics) -> None:
        self._store = database
        self._known = known

    async def RecordMetrics(self, request: pb.RecordMetricsRequest, context: Call) -> pb.RecordMetricsResponse:
        rows = metric_messages.metric_rows(request)
        after_step = request.after_step if request.HasField("after_step") else None
        if not rows and after_step is None:
            return pb.RecordMetricsResponse()
        recorded = await self._store.run(store.add_metrics, request.source, rows, after_step, request.attempt)
        return pb.RecordMetricsResponse(recorded=recorded)

    async def ReadMetrics(self, request: pb.ReadMetricsRequest, context: Call) -> pb.ReadMetricsResponse:
        metric_messages.check_read_metrics(request)
        return await self._store.scan(_read_metrics, request)

    async def PlotMetrics(self, request: pb.PlotMetricsRequest, context: Call) -> pb.PlotMetricsResponse:
        metric_messages.check_plot_metrics(request)
        curves = await self._store.scan(_read_curves, request)
        return await asyncio.to_thread(_plot, request, curves)

    async def ListMetrics(self, request: pb.ListMetricsRequest, context: Call) -> pb.ListMetricsResponse:
        source = convert.source_name(request.source, "source")
        return pb.ListMetricsResponse(metrics=await self._store.scan(store.metric_names, source))

    async def RecordEpisodes(self, request: pb.RecordEpisodesRequest, context: Call) -> pb.RecordEpisodesResponse:
        rows, outcome_rows = convert.episode_rows(request)
        if not rows:
            return pb.RecordEpisodesResponse()
        recorded, different = await self._store.run(store.add_episodes, rows, outcome_rows)
        for scenario, index in different:
            log.warning(
                "episode %s of scenario %s of %s came again with another digest; the first is kept",
                index,
                scenario,
                rows[0]["evaluation"],
            )
        return pb.RecordEpisodesResponse(recorded=recorded)

    async def ListEpisodes(self, request: pb.ListEpisodesRequest, context: Call) -> pb.ListEpisodesResponse:
        evaluation = convert.evaluation_name(request.evaluation, "evaluation")
        size = pages.page_size(request.page_size)
        scope = f"ListEpisodes/{evaluation}"
        after = pages.decode(scope, request.page_token)
        return await self._store.scan(_page_of_episodes, evaluation, scope, after, size)

    async def CheckMetric(self, request: pb.CheckMetricRequest, context: Call) -> pb.CheckMetricResponse:
        try:
            find_source([], convert.metric_name(request.metric), self._known)
        except UnknownMetricError as error:
            raise convert.unknown_metric(error, "metric.name") from None
        return pb.CheckMetricResponse()

    async def SummarizeEvaluation(
        self, request: pb.SummarizeEvaluationRequest, context: Call
    ) -> pb.SummarizeEvaluationResponse:
        evaluation = convert.evaluation_name(request.evaluation, "evaluation")
        samples = await self._samples(evaluation, *convert.metric_of(request.metric))
        if len(samples.digests) <= store.FEW_EPISODES and is_loaded():
            return _summarize(samples)
        return await asyncio.to_thread(_summarize, samples)

    async def DeleteNumbers(self, request: pb.DeleteNumbersRequest, context: Call) -> pb.DeleteNumbersResponse:
        await self._store.run(store.delete_numbers, convert.source_name(request.name, "name"))
        return pb.DeleteNumbersResponse()

    async def _samples(self, evaluation: str, metric: str, aggregation: Aggregation) -> Samples:
        asked = evaluation, metric, self._known, aggregation
        try:
            # Handing a few episodes to a thread would cost more than reading them.
            samples = await self._store.read(store.few_samples, *asked)
            if samples is None:
                samples = await self._store.scan(_all_samples, *asked)
        except UnknownMetricError as error:
            raise convert.unknown_metric(error, "metric.name") from None
        if not samples.digests:
            raise NotFound(f"no episodes of {evaluation} are recorded")
        return samples


def _all_samples(tx: Transaction, *asked: Any) -> Samples:
    with paused_collector():
        return store.samples(tx, *asked)


def _read_metrics(tx: Transaction, request: pb.ReadMetricsRequest) -> pb.ReadMetricsResponse:
    response = pb.ReadMetricsResponse()
    size = 0
    after = request.after_step if request.HasField("after_step") else None
    for metric, points in store.series(tx, request.source, request.metrics, after):
        series = metric_messages.series_message(metric, points, request.max_points)
        size += series.ByteSize()
        if size > MAX_RESPONSE_BYTES:
            raise ResourceExhausted(
                f"the series of {request.source} do not fit into one response: set max_points, or ask for fewer metrics"
            )
        response.series.append(series)
    return response


def _read_curves(tx: Transaction, request: pb.PlotMetricsRequest) -> list[Curve]:
    names = {source: store.metric_names(tx, source) for source in dict.fromkeys(request.sources)}
    for source, recorded in names.items():
        if not recorded:
            raise NotFound(f"no metrics of {source} are recorded")
    known = sorted(set().union(*names.values()))
    for number, metric in enumerate(request.metrics):
        if metric not in known:
            raise InvalidArgument.field(f"metrics[{number}]", convert.unknown_name(metric, known))
    wanted = list(request.metrics) or default_metrics(known)[: metric_messages.MAX_PANELS]
    return [
        curve(source, metric, thinned(points, MAX_POINTS))
        for source in names
        for metric, points in store.series(tx, source, wanted, after_step=None)
    ]


def _plot(request: pb.PlotMetricsRequest, curves: Sequence[Curve]) -> pb.PlotMetricsResponse:
    from daf_statistics.plot import draw  # matplotlib takes a second to import

    sources = list(dict.fromkeys(request.sources))
    metrics = list(dict.fromkeys(request.metrics)) or default_metrics({curve.metric for curve in curves})
    return pb.PlotMetricsResponse(png=draw(curves, metrics, sources, request.title, MAX_RESPONSE_BYTES))


def _page_of_episodes(
    tx: Transaction, evaluation: str, scope: str, after: tuple[str | int, ...], size: int
) -> pb.ListEpisodesResponse:
    response = pb.ListEpisodesResponse()
    position = (int(after[0]), int(after[1])) if after else None
    left = MAX_RESPONSE_BYTES
    for message in store.page_of_episodes(tx, evaluation, position, size + 1):
        left -= len(message)
        if response.episodes and (len(response.episodes) == size or left < 0):
            last = response.episodes[-1]
            response.next_page_token = pages.encode(scope, last.scenario, last.index)
            break
        response.episodes.append(Episode.FromString(message))
    return response


def _summarize(samples: Samples) -> pb.SummarizeEvaluationResponse:
    histograms = added_up(latencies_of(samples.latencies))
    return pb.SummarizeEvaluationResponse(
        policies=[
            convert.summary_message(
                policy,
                summarize(of_policy),
                samples.forfeits[policy].total(),
                histograms.get(policy),
                by_scenario(of_policy),
            )
            for policy, of_policy in sorted(samples.by_policy.items())
        ],
        digest=evaluation_digest(samples.digests),
        episodes=len(samples.digests),
        approximate=samples.approximate,
    )
