"""Comparisons on the wire: requests to transactions and pure functions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import grpc

from daf_common import names, pages
from daf_common.auth import PRINCIPAL
from daf_common.clock import Clock
from daf_common.errors import FailedPrecondition, InvalidArgument, NotFound
from daf_common.ids import Ids
from daf_common.store import Store, Transaction
from daf_common.times import to_timestamp
from daf_protos.statistics.v1 import comparison_service_pb2 as pb
from daf_protos.statistics.v1.comparison_pb2 import ComparedPolicy, Comparison
from daf_protos.statistics.v1.comparison_service_pb2_grpc import ComparisonServiceServicer
from daf_statistics import comparison_messages, convert, plans, store
from daf_statistics.collector import paused_collector
from daf_statistics.comparison import ComparisonOutcome, compare
from daf_statistics.design import Design
from daf_statistics.races import RaceError, run_race
from daf_statistics.samples import KnownStatistics, Player, Samples, UnknownMetricError, player
from daf_statistics.sequential import Race

MAX_RESPONSE_BYTES = 3 << 20
"""Clients take messages of at most 4 MiB."""

APPROXIMATE = (
    "The episodes are approximate: they were played in batches that may change the last bits of a network's output, so "
    "CoGames would not play the same."
)

type Call = grpc.aio.ServicerContext[Any, Any]
type Request = pb.ComparePoliciesRequest | pb.CompareValuesRequest


class ComparisonServicer(ComparisonServiceServicer):
    """Answers the calls of `ComparisonService`."""

    def __init__(self, database: Store, known: KnownStatistics, clock: Clock, ids: Ids) -> None:
        self._store, self._known, self._clock, self._ids = database, known, clock, ids

    async def ComparePolicies(self, request: pb.ComparePoliciesRequest, context: Call) -> pb.ComparePoliciesResponse:
        design = comparison_messages.policies_design(request)
        samples = await self._samples(request, design)
        of_policies = [[(samples[one.evaluation], one.policy) for one in policy.sources] for policy in request.policies]
        labels = comparison_messages.labels(request)
        players = [player(label, sources) for label, sources in zip(labels, of_policies, strict=True)]
        policies = [
            ComparedPolicy(label=label, episodes=episodes)
            for label, episodes in zip(labels, request.policies, strict=True)
        ]
        race = None
        if design.looks > 1:
            looks = [[found.by_policy.get(number, []) for found, number in sources] for sources in of_policies]
            try:
                race = await asyncio.to_thread(run_race, design, looks)
            except RaceError as error:
                raise InvalidArgument.field(f"policies[{error.policy}].sources", str(error)) from None
        approximate = any(found.approximate for found in samples.values())
        kept = await self._compare("ComparePolicies", request, design, players, policies, race, approximate)
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

    async def _samples(self, request: pb.ComparePoliciesRequest, design: Design) -> dict[str, Samples]:
        """The samples of all evaluations that the policies name."""
        evaluations = sorted({source.evaluation for policy in request.policies for source in policy.sources})
        try:
            samples = await self._store.scan(_all_samples, evaluations, design.metric, self._known, design.aggregation)
        except UnknownMetricError as error:
            raise convert.unknown_metric(error, "design.metric") from None
        for evaluation in evaluations:
            if not samples[evaluation].digests:
                raise NotFound(f"no episodes of {evaluation} are recorded")
        exact = [evaluation for evaluation in evaluations if not samples[evaluation].approximate]
        if exact and len(exact) < len(evaluations):
            approximate = next(evaluation for evaluation in evaluations if samples[evaluation].approximate)
            raise FailedPrecondition(
                f"{approximate} has approximate episodes and {exact[0]} exact ones: play both in the same way",
                reason="MIXED_EXACTNESS",
            )
        return samples

    async def _compare(
        self,
        method: str,
        request: Request,
        design: Design,
        players: Sequence[Player],
        policies: list[ComparedPolicy],
        race: Race | None = None,
        approximate: bool = False,
    ) -> Comparison:
        id = names.new_id(request.comparison_id, "comparison", self._ids, "comparison_id")
        comparison_messages.check_size(design, players)
        outcome = await _compared(design, players, race)
        if request.design.strict and outcome.problem:
            raise FailedPrecondition(outcome.problem, reason="DESIGN_CANNOT_DECIDE")
        name, now = names.COMPARISON.format(id), self._clock.now()
        message = comparison_messages.comparison_message(name, design, request.design.strict, policies, outcome, race)
        if approximate:
            message.warnings.append(APPROXIMATE)
        message.create_time.CopyFrom(to_timestamp(now))
        message.creator = PRINCIPAL.get()
        return await self._store.run(store.add_comparison, method, request.request_id, request, message, now)

    async def _find(self, name: str) -> Comparison:
        names.COMPARISON.parse(name)
        found = await self._store.read(store.find_comparison, name)
        if found is None:
            raise NotFound(f"there is no {name}")
        return found


def _all_samples(tx: Transaction, *asked: Any) -> dict[str, Samples]:
    with paused_collector():
        return store.samples_of_several(tx, *asked)


async def _compared(design: Design, players: Sequence[Player], race: Race | None) -> ComparisonOutcome:
    """The comparison, made in a thread, which ends soon after nobody waits for it any longer."""
    abandoned = threading.Event()

    def go_on() -> None:
        if abandoned.is_set():
            raise _Abandoned

    def work() -> ComparisonOutcome:
        with paused_collector():
            return compare(design, players, race, go_on)

    try:
        return await asyncio.to_thread(work)
    except asyncio.CancelledError:
        abandoned.set()
        raise


class _Abandoned(Exception):
    """Nobody waits for the comparison."""


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
