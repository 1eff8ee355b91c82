"""EvaluationWorkerService: leases of shards, and what comes back."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from daf_common import names
from daf_common.artifacts import ArtifactStore
from daf_common.channel import raising
from daf_common.clock import Clock
from daf_common.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from daf_common.leases import Observer
from daf_common.store import Store, Transaction
from daf_evaluation import convert, shard_store, store
from daf_evaluation.evaluations import Evaluation
from daf_evaluation.replays import Replays
from daf_evaluation.settings import EvaluationSettings
from daf_evaluation.shards import OutOfOrder, Shard, ShardState, progress
from daf_protos.evaluation.v1 import worker_service_pb2 as pb
from daf_protos.evaluation.v1.worker_service_pb2_grpc import EvaluationWorkerServiceServicer
from daf_protos.statistics.v1.statistics_service_pb2 import RecordEpisodesRequest

if TYPE_CHECKING:
    from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceAsyncStub

RETRY_SECONDS = 1.0
"""When a worker for which no shard is free asks again."""

HEARTBEATS_PER_LEASE = 5

MAX_SEATS = 10_000


class EvaluationWorkerServicer(EvaluationWorkerServiceServicer):
    """Serves the workers. A shard is one worker's at a time, by its fence; results of others are refused."""

    def __init__(
        self,
        settings: EvaluationSettings,
        database: Store,
        artifacts: ArtifactStore,
        replays: Replays,
        statistics: StatisticsServiceAsyncStub,
        clock: Clock,
        enqueue: Callable[[str], None],
    ) -> None:
        self._store, self._artifacts, self._replays, self._statistics = database, artifacts, replays, statistics
        self._clock, self._enqueue = clock, enqueue
        self._heartbeat_seconds = settings.lease_seconds / HEARTBEATS_PER_LEASE
        self._observer = Observer(settings.lease_seconds)

    async def LeaseShard(self, request: pb.LeaseShardRequest, context: Any) -> pb.LeaseShardResponse:
        id, holder = _identify(request.worker)

        def take(tx: Transaction) -> tuple[Evaluation, Shard | None, Sequence[Shard]]:
            evaluation = _checked(store.get(tx, id), request.worker)
            if evaluation.idle:
                return evaluation, None, ()
            return evaluation, *store.take_shard(tx, evaluation, holder, self._clock.now())

        evaluation, shard, others = await self._store.run(take)
        if evaluation.idle:
            return pb.LeaseShardResponse(finished=True)
        response = await self._answer(evaluation, holder, shard, others)
        if request.first and not response.finished:
            spec = convert.read_spec(evaluation)
            response.spec.CopyFrom(convert.resolved(spec))
            response.downloads.extend([await self._artifacts.reading(found) for _, found in convert.artifacts(spec)])
        return response

    async def ReportShard(self, request: pb.ReportShardRequest, context: Any) -> pb.ReportShardResponse:
        id, holder = _identify(request.worker)

        def look(tx: Transaction) -> tuple[Evaluation, Shard | None]:
            evaluation = _checked(store.get(tx, id), request.worker)
            return evaluation, shard_store.held(tx, id, request.shard, holder, request.fence)

        evaluation, shard = await self._store.read(look)
        if evaluation.idle and not (shard and shard.state is ShardState.DONE):
            return pb.ReportShardResponse(stop=True)
        if shard is None:
            raise _stale(request)
        if request.HasField("seats"):
            return await self._seat(evaluation, shard, request.seats)
        indices = _check_report(evaluation, shard, request)
        if request.episodes:
            await self._replays.check(id, request.episodes)
            # Recorded first: what is done here is never more than what is there, and recording twice is harmless.
            await raising(self._statistics.RecordEpisodes(RecordEpisodesRequest(episodes=request.episodes)))
        if request.HasField("failure"):
            await self._store.run(store.note_failure, id, convert.to_failure(request.failure))
            self._enqueue(id)
            return pb.ReportShardResponse(stop=True)

        def write(tx: Transaction) -> tuple[Shard | None, Sequence[Shard]]:
            if store.report(tx, id, request.shard, holder, request.fence, indices) is None:
                raise _stale(request)
            return store.take_shard(tx, evaluation, holder, self._clock.now()) if request.done else (None, ())

        following, others = await self._store.run(write)
        if not request.done:
            return pb.ReportShardResponse()
        self._observer.forget(_lease_name(id, shard))
        return pb.ReportShardResponse(next=await self._answer(evaluation, holder, following, others))

    async def PrepareUpload(self, request: pb.PrepareUploadRequest, context: Any) -> pb.PrepareUploadResponse:
        id, _ = _identify(request.worker)
        evaluation = _checked(await self._store.read(store.get, id), request.worker)
        if evaluation.idle:
            raise Aborted(f"{request.worker.evaluation} is over", reason="STALE_LEASE")
        if not convert.read_spec(evaluation).save_replays:
            raise FailedPrecondition(f"{request.worker.evaluation} keeps no replays", reason="NO_REPLAYS")
        return pb.PrepareUploadResponse(location=await self._replays.prepare(id, request.artifact))

    async def _seat(self, evaluation: Evaluation, shard: Shard, seats: int) -> pb.ReportShardResponse:
        """The lease again, with the seats that its mission has: as told now, or by a worker before."""
        if not 1 <= seats <= MAX_SEATS:
            raise InvalidArgument.field("seats", f"must be between 1 and {MAX_SEATS}, not {seats}")
        mission = convert.mission_of(evaluation, shard)
        seated = await self._store.run(store.note_seats, evaluation.id, mission, seats)
        if seated is None:
            raise NotFound(f"there is no {names.EVALUATION.format(evaluation.id)}")
        lease = convert.to_lease(seated, shard, self._heartbeat_seconds)
        return pb.ReportShardResponse(next=pb.LeaseShardResponse(lease=lease))

    async def _answer(
        self, evaluation: Evaluation, holder: str, shard: Shard | None, others: Sequence[Shard]
    ) -> pb.LeaseShardResponse:
        """The answer to a worker that got a shard, or for which none was free while others hold theirs."""
        if shard is None and (silent := [other for other in others if self._is_silent(evaluation.id, other)]):
            shard, others = await self._store.run(store.take_shard, evaluation, holder, self._clock.now(), silent)
        if shard is not None:
            return pb.LeaseShardResponse(lease=convert.to_lease(evaluation, shard, self._heartbeat_seconds))
        if others:
            return pb.LeaseShardResponse(retry_seconds=RETRY_SECONDS)
        self._enqueue(evaluation.id)
        return pb.LeaseShardResponse(finished=True)

    def _is_silent(self, id: str, shard: Shard) -> bool:
        return self._observer.expired(_lease_name(id, shard), shard.fence, shard.beat, self._clock.monotonic())


def _identify(worker: pb.Worker) -> tuple[str, str]:
    (id,) = names.EVALUATION.parse(worker.evaluation, "worker.evaluation")
    if not 0 < len(worker.worker) <= 80 or not worker.worker.isprintable():
        raise InvalidArgument.field("worker.worker", "use 1 to 80 printable characters")
    return id, worker.worker


def _checked(evaluation: Evaluation | None, worker: pb.Worker) -> Evaluation:
    if evaluation is None:
        raise NotFound(f"there is no {worker.evaluation}")
    if not hmac.compare_digest(evaluation.token.encode(), worker.token.encode()):
        raise PermissionDenied(f"this is not the token of {worker.evaluation}", reason="WRONG_TOKEN")
    return evaluation


def _check_report(evaluation: Evaluation, shard: Shard, request: pb.ReportShardRequest) -> list[int]:
    """The indices of the episodes in a report that are of its lease and in order."""
    seed = convert.read_spec(evaluation).seed
    for number, episode in enumerate(request.episodes):
        field = f"episodes[{number}]"
        if episode.evaluation != request.worker.evaluation:
            raise InvalidArgument.field(f"{field}.evaluation", "is not the worker's evaluation")
        if episode.scenario != shard.scenario:
            raise InvalidArgument.field(f"{field}.scenario", f"the shard is of scenario {shard.scenario}")
        if episode.seed != seed + episode.index:
            raise InvalidArgument.field(f"{field}.seed", f"episode {episode.index} has seed {seed + episode.index}")
    indices = [episode.index for episode in request.episodes]
    try:
        recorded = progress(shard, indices)
    except OutOfOrder as error:
        raise InvalidArgument.field("episodes", str(error)) from error
    if request.done and recorded < shard.count:
        raise InvalidArgument.field("done", f"only {recorded} of {shard.count} episodes have been reported")
    return indices


def _stale(request: pb.ReportShardRequest) -> Aborted:
    message = f"the lease of shard {request.shard} with fence {request.fence} was taken over"
    return Aborted(message, reason="STALE_LEASE")


def _lease_name(id: str, shard: Shard) -> str:
    return f"{id}/{shard.number}"
