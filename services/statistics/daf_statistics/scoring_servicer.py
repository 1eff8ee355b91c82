"""Scores of teams on the wire: requests to transactions and pure functions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from daf_common.errors import InvalidArgument, NotFound
from daf_common.store import Store, Transaction
from daf_protos.statistics.v1 import scoring_service_pb2 as pb
from daf_protos.statistics.v1.scoring_service_pb2_grpc import ScoringServiceServicer
from daf_statistics import convert, scoring_messages, store
from daf_statistics.aggregation import Aggregation
from daf_statistics.collector import paused_collector
from daf_statistics.cross_play import cross_play
from daf_statistics.samples import KnownStatistics, UnknownMetricError
from daf_statistics.scoring_messages import DEFAULT_CONFIDENCE, Request
from daf_statistics.teams import TeamEpisode, team_episode
from daf_statistics.vor import value_over_replacement
from daf_statistics.weighted_scores import weighted_scores

type Call = grpc.aio.ServicerContext[Any, Any]


class ScoringServicer(ScoringServiceServicer):
    """Answers the calls of `ScoringService`."""

    def __init__(self, database: Store, known: KnownStatistics) -> None:
        self._store, self._known = database, known

    async def ComputeVor(self, request: pb.ComputeVorRequest, context: Call) -> pb.ComputeVorResponse:
        played = await self._played(request)
        policies = sorted({policy for episode in played for policy, _ in episode.seats})
        if request.candidate not in policies:
            there = ", ".join(map(str, policies))
            raise InvalidArgument.field(
                "candidate", f"{request.candidate} has no seat in any episode; there are {there}"
            )
        confidence = request.confidence or DEFAULT_CONFIDENCE
        found = await asyncio.to_thread(_compute, value_over_replacement, played, request.candidate, confidence)
        return scoring_messages.vor_response(*found)

    async def ComputeWeightedScores(
        self, request: pb.ComputeWeightedScoresRequest, context: Call
    ) -> pb.ComputeWeightedScoresResponse:
        played = await self._played(request)
        scores = await asyncio.to_thread(_compute, weighted_scores, played, request.confidence or DEFAULT_CONFIDENCE)
        return scoring_messages.weighted_response(scores)

    async def ComputeCrossPlay(self, request: pb.ComputeCrossPlayRequest, context: Call) -> pb.ComputeCrossPlayResponse:
        played = await self._played(request)
        found = await asyncio.to_thread(_compute, cross_play, played, request.confidence or DEFAULT_CONFIDENCE)
        return scoring_messages.cross_play_response(*found)

    async def _played(self, request: Request) -> list[TeamEpisode]:
        metric, aggregation = scoring_messages.metric_of(request)
        try:
            played = await self._store.scan(_read, request.evaluation, metric, self._known, aggregation)
        except UnknownMetricError as error:
            raise convert.unknown_metric(error, "metric.name") from None
        if not played:
            raise NotFound(f"no episodes of {request.evaluation} are recorded")
        return played


def _read(
    tx: Transaction, evaluation: str, metric: str, known: KnownStatistics, aggregation: Aggregation
) -> list[TeamEpisode]:
    with paused_collector():
        return [team_episode(one, aggregation) for one in store.measured_episodes(tx, evaluation, metric, known)]


def _compute[**P, T](score: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    with paused_collector():
        return score(*args, **kwargs)
