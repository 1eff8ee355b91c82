"""Comparisons on the wire: requests to transactions and pure functions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc

from daf_common import names, pages
from daf_common.clock import Clock
from daf_common.errors import FailedPrecondition, NotFound
from daf_common.ids import Ids
from daf_common.store import Store, Transaction
from daf_common.times import to_timestamp
from daf_protos.statistics.v1 import comparison_service_pb2 as pb
from daf_protos.statistics.v1.comparison_pb2 import ComparedPolicy, Comparison
from daf_protos.statistics.v1.comparison_service_pb2_grpc import ComparisonServiceServicer
from daf_statistics import comparison_messages, convert, plans, store
from daf_statistics.comparison import compare
from daf_statistics.design import Design
from daf_statistics.samples import KnownStatistics, Player, UnknownMetricError, player

MAX_RESPONSE_BYTES = 3 << 20
"""Clients take messages of at most 4 MiB."""

type Call = grpc.aio.ServicerContext[Any, Any]
type Request = pb.ComparePoliciesRequest | pb.CompareValuesRequest


class ComparisonServicer(ComparisonServiceServicer):
    """Answers the calls of `ComparisonService`."""

    def __init__(self, database: Store, known: KnownStatistics, clock: Clock, ids: Ids) -> None:
        self._store, self._known, self._clock, self._ids = database, known, clock, ids

    async def ComparePolicies(self, request: pb.ComparePoliciesRequest, context: Call) -> pb.ComparePoliciesResponse:
        design = comparison_messages.policies_design(request)
        players = await self._players(request, design)
        policies = [
            ComparedPolicy(label=player.label, episodes=episodes)
            for player, episodes in zip(players, request.policies, strict=True)
        ]
        kept = await self._compare("ComparePolicies", request, design, players, policies)
        return pb.ComparePoliciesResponse(comparison=kept)

    async def CompareValues(self, request: pb.CompareValuesRequest, context: Call) -> pb.CompareValuesResponse:
        design = comparison_messages.values_design(request)
        players = comparison_messages.players_of(request)
        policies = [ComparedPolicy(label=player.label) for player in players]
        kept = await self._compare("CompareValues", request, design, players, policies)
        return pb.CompareValuesResponse(comparison=kept)

    async def PlanComparison(self, request: pb.PlanComparisonRequest, context: Call) -> pb.PlanComparisonResponse:
        design = comparison_messages.plan_design(request)
        pilot = await self._find(request.pilot) if request.pilot else None
        plan = await asyncio.to_thread(plans.plan, request, design, pilot)
        if request.design.strict and plan.warnings:
            raise FailedPrecondition(" ".join(plan.warnings), reason="DESIGN_CANNOT_DECIDE")
        return plan

    async def GetComparison(self, request: pb.GetComparisonRequest, context: Call) -> pb.GetComparisonResponse:
        return pb.GetComparisonResponse(comparison=await self._find(request.name))

    async def ListComparisons(self, request: pb.ListComparisonsRequest, context: Call) -> pb.ListComparisonsResponse:
        size = pages.page_size(request.page_size)
        position = pages.decode("ListComparisons", request.page_token)
        return await self._store.scan(_page, int(position[0]) if position else None, size)

    async def DeleteComparison(self, request: pb.DeleteComparisonRequest, context: Call) -> pb.DeleteComparisonResponse:
        names.COMPARISON.parse(request.name)
        if not await self._store.run(store.delete_comparison, request.name):
            raise NotFound(f"there is no {request.name}")
        return pb.DeleteComparisonResponse()

    async def _players(self, request: pb.ComparePoliciesRequest, design: Design) -> list[Player]:
        evaluations = sorted({source.evaluation for policy in request.policies for source in policy.sources})
        try:
            samples = await self._store.scan(store.samples_of_several, evaluations, design.metric, self._known)
        except UnknownMetricError as error:
            raise convert.unknown_metric(error, "design.metric") from None
        for evaluation in evaluations:
            if not samples[evaluation].digests:
                raise NotFound(f"no episodes of {evaluation} are recorded")
        return [
            player(label, [(samples[source.evaluation], source.policy) for source in policy.sources])
            for label, policy in zip(comparison_messages.labels(request), request.policies, strict=True)
        ]

    async def _compare(
        self, method: str, request: Request, design: Design, players: Sequence[Player], policies: list[ComparedPolicy]
    ) -> Comparison:
        id = names.new_id(request.comparison_id, "comparison", self._ids, "comparison_id")
        comparison_messages.check_size(design, players)
        outcome = await asyncio.to_thread(compare, design, players)
        if request.design.strict and outcome.problem:
            raise FailedPrecondition(outcome.problem, reason="DESIGN_CANNOT_DECIDE")
        name, now = names.COMPARISON.format(id), self._clock.now()
        message = comparison_messages.comparison_message(name, design, request.design.strict, policies, outcome)
        message.create_time.CopyFrom(to_timestamp(now))
        return await self._store.run(store.add_comparison, method, request.request_id, request, message, now)

    async def _find(self, name: str) -> Comparison:
        names.COMPARISON.parse(name)
        found = await self._store.read(store.find_comparison, name)
        if found is None:
            raise NotFound(f"there is no {name}")
        return found


def _page(tx: Transaction, before: int | None, size: int) -> pb.ListComparisonsResponse:
    response, left, last = pb.ListComparisonsResponse(), MAX_RESPONSE_BYTES, 0
    for number, message in store.page_of_comparisons(tx, before, size + 1):
        left -= len(message)
        if response.comparisons and (len(response.comparisons) == size or left < 0):
            response.next_page_token = pages.encode("ListComparisons", last)
            break
        response.comparisons.append(Comparison.FromString(message))
        last = number
    return response
