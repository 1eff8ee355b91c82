"""The training service as its users see it: protobuf to calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

import grpc

from daf_common import ids, names, pages
from daf_common.artifacts import ArtifactStore
from daf_common.auth import PRINCIPAL
from daf_common.channel import raising
from daf_common.clock import Clock
from daf_common.errors import FailedPrecondition, InvalidArgument
from daf_common.requests import once
from daf_common.store import Store, Transaction
from daf_common.watch import Watcher
from daf_common.workloads import Backend, obstacle
from daf_protos.statistics.v1.statistics_service_pb2 import DeleteNumbersRequest
from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceStub
from daf_protos.training.v1 import training_service_pb2 as pb
from daf_protos.training.v1.training_job_pb2 import Checkpoint, TrainingJob, TrainingSpec
from daf_protos.training.v1.training_service_pb2_grpc import TrainingServiceServicer
from daf_training import attempt_store, checkpoint_store, log_store, store
from daf_training.admission import Capacity
from daf_training.attempts import Attempt
from daf_training.checkpoints import kept_checkpoints
from daf_training.convert import attempt_message, job_message
from daf_training.jobs import Job, cancel
from daf_training.portions import portions
from daf_training.profiles import with_fewer
from daf_training.resumption import check_resumption, resumed
from daf_training.settings import TrainingSettings
from daf_training.specs import artifacts_of, check_fits, check_spec, compute_of

Context = grpc.aio.ServicerContext[Any, Any]

OWNER = "training"
"""Of the artifacts that this service may delete, and keeps while they are needed."""
WATCHED_AT_ONCE = 200
LOG_PIECES_AT_ONCE = 20


class TrainingServicer(TrainingServiceServicer):
    """See `training_service.proto`."""

    def __init__(
        self,
        database: Store,
        artifacts: ArtifactStore,
        statistics: StatisticsServiceStub,
        watcher: Watcher,
        settings: TrainingSettings,
        backend: Backend,
        clock: Clock,
        new_ids: ids.Ids,
        enqueue: Callable[..., None],
    ) -> None:
        self._store, self._artifacts, self._statistics, self._watcher = database, artifacts, statistics, watcher
        self._profiles, self._capacity = settings.profiles(), settings.capacity()
        self._backend, self._clock, self._ids, self._enqueue = backend, clock, new_ids, enqueue

    async def CreateTrainingJob(
        self, request: pb.CreateTrainingJobRequest, context: Context
    ) -> pb.CreateTrainingJobResponse:
        """See the proto."""
        check_spec(request.spec, self._profiles)
        compute = compute_of(request.spec, self._profiles)
        check_fits(with_fewer(compute, request.spec.min_workers), self._capacity)
        job_id = names.new_id(request.job_id, "job", self._ids, "job_id")
        await self._check_artifacts(request.spec)
        in_the_way = await obstacle(self._backend)
        if request.validate_only:
            if in_the_way:
                raise in_the_way
            name = names.TRAINING_JOB.format(job_id) if request.job_id else ""
            return pb.CreateTrainingJobResponse(training_job=TrainingJob(name=name, spec=request.spec))
        now = self._clock.now()
        job = Job(
            id=job_id,
            spec=request.spec.SerializeToString(deterministic=True),
            create_time=now,
            compute=compute,
            min_workers=request.spec.min_workers,
            creator=PRINCIPAL.get(),
            max_restarts=request.spec.max_restarts,
            max_checkpoints=kept_checkpoints(request.spec),
        )
        name, is_new = await self._store.run(_create, request, job, now, in_the_way)
        if not is_new:  # the request was carried out before
            return pb.CreateTrainingJobResponse(training_job=await self._read(_job_id(name)))
        self._enqueue(job_id)
        return pb.CreateTrainingJobResponse(training_job=job_message(job))

    async def GetTrainingJob(self, request: pb.GetTrainingJobRequest, context: Context) -> pb.GetTrainingJobResponse:
        """See the proto."""
        return pb.GetTrainingJobResponse(training_job=await self._read(_job_id(request.name)))

    async def ListTrainingJobs(
        self, request: pb.ListTrainingJobsRequest, context: Context
    ) -> pb.ListTrainingJobsResponse:
        """See the proto."""
        scope = "ListTrainingJobs"
        size, before = pages.page_size(request.page_size), _position(scope, request.page_token)
        rows = await self._store.read(store.page_of_jobs, before, size + 1)
        jobs = next(portions((job_message(job) for _, job in rows), size))
        token = pages.encode(scope, rows[len(jobs) - 1][0]) if len(rows) > len(jobs) else ""
        return pb.ListTrainingJobsResponse(training_jobs=jobs, next_page_token=token)

    async def WatchTrainingJobs(
        self, request: pb.WatchTrainingJobsRequest, context: Context
    ) -> AsyncIterator[pb.WatchTrainingJobsResponse]:
        """See the proto."""
        job_id = _job_id(request.name) if request.name else ""
        if job_id and not request.cursor:
            await self._store.read(store.get_job, job_id)
        scope, cursor = f"WatchTrainingJobs:{job_id}", request.cursor
        async for changes in self._watcher.changes(scope, store.KIND, store.jobs_changed(job_id), request.cursor):
            *first, last = portions((job_message(job) for job in changes.rows), WATCHED_AT_ONCE)
            for jobs in first:  # the cursor moves on only once all has been sent
                yield pb.WatchTrainingJobsResponse(training_jobs=jobs, cursor=cursor)
            cursor = changes.cursor
            deleted = [names.TRAINING_JOB.format(gone) for gone in changes.deleted if job_id in ("", gone)]
            yield pb.WatchTrainingJobsResponse(training_jobs=last, deleted=deleted, cursor=cursor)

    async def CancelTrainingJob(
        self, request: pb.CancelTrainingJobRequest, context: Context
    ) -> pb.CancelTrainingJobResponse:
        """See the proto."""
        job_id, now = _job_id(request.name), self._clock.now()
        next_jobs = await self._store.run(store.cancel_job, job_id, lambda job: cancel(job, now), now, self._capacity)
        self._enqueue(job_id, *next_jobs)
        return pb.CancelTrainingJobResponse(training_job=await self._read(job_id))

    async def ResumeTrainingJob(
        self, request: pb.ResumeTrainingJobRequest, context: Context
    ) -> pb.ResumeTrainingJobResponse:
        """See the proto."""
        job_id = _job_id(request.name)
        check_resumption(request)
        await self._store.run(_resume, request, job_id, self._capacity, self._clock.now())
        self._enqueue(job_id)
        return pb.ResumeTrainingJobResponse(training_job=await self._read(job_id))

    async def DeleteTrainingJob(
        self, request: pb.DeleteTrainingJobRequest, context: Context
    ) -> pb.DeleteTrainingJobResponse:
        """See the proto."""
        job_id = _job_id(request.name)
        job = await self._store.read(store.get_job, job_id)
        if not job.ended:
            raise FailedPrecondition(f"{request.name} has not ended: cancel it first")
        # The numbers first: should this end half-way, the job is still there to be deleted again.
        await raising(self._statistics.DeleteNumbers(DeleteNumbersRequest(name=request.name)))
        await self._store.run(store.delete_job, job_id)
        return pb.DeleteTrainingJobResponse()

    async def ListAttempts(self, request: pb.ListAttemptsRequest, context: Context) -> pb.ListAttemptsResponse:
        """See the proto."""
        job_id = _job_id(request.parent, "parent")
        scope = f"ListAttempts:{job_id}"
        size, before = pages.page_size(request.page_size), _position(scope, request.page_token)
        job, rows = await self._store.read(_attempts, job_id, before, size + 1)
        token = pages.encode(scope, rows[size - 1].number) if len(rows) > size else ""
        attempts = [attempt_message(attempt, job) for attempt in rows[:size]]
        return pb.ListAttemptsResponse(attempts=attempts, next_page_token=token)

    async def ListCheckpoints(self, request: pb.ListCheckpointsRequest, context: Context) -> pb.ListCheckpointsResponse:
        """See the proto."""
        job_id = _job_id(request.parent, "parent")
        scope = f"ListCheckpoints:{job_id}"
        size, before = pages.page_size(request.page_size), _position(scope, request.page_token)
        await self._store.read(store.get_job, job_id)
        rows = await self._store.read(checkpoint_store.page_of_checkpoints, job_id, before, size + 1)
        checkpoints = next(portions((Checkpoint.FromString(message) for _, message in rows), size))
        token = pages.encode(scope, rows[len(checkpoints) - 1][0]) if len(rows) > len(checkpoints) else ""
        return pb.ListCheckpointsResponse(checkpoints=checkpoints, next_page_token=token)

    async def ReadLogs(self, request: pb.ReadLogsRequest, context: Context) -> AsyncIterator[pb.ReadLogsResponse]:
        """See the proto."""
        job_id = _job_id(request.name)
        if request.attempt < 0:
            raise InvalidArgument.field("attempt", f"must not be negative, but is {request.attempt}")
        await self._store.read(store.get_job, job_id)
        last = 0
        async for changes in self._watcher.changes(f"ReadLogs:{job_id}", store.KIND, store.jobs_changed(job_id), ""):
            while pieces := await self._store.read(
                log_store.log_after, job_id, last, request.attempt, LOG_PIECES_AT_ONCE
            ):
                last = pieces[-1].id
                for piece in pieces:
                    yield pb.ReadLogsResponse(attempt=piece.attempt, worker=piece.worker, text=piece.text)
            if not request.follow or job_id in changes.deleted or any(job.ended for job in changes.rows):
                return

    async def _read(self, job_id: str) -> TrainingJob:
        return job_message(await self._store.read(store.get_job, job_id))

    async def _check_artifacts(self, spec: TrainingSpec) -> None:
        for field, artifact in artifacts_of(spec):
            if not await self._artifacts.exists(artifact):
                raise InvalidArgument.field(
                    field, f"there is no artifact {artifact.sha256[:12]} of {artifact.owner} with this size: upload it"
                )


def _create(
    tx: Transaction,
    request: pb.CreateTrainingJobRequest,
    job: Job,
    now: datetime,
    in_the_way: FailedPrecondition | None,
) -> tuple[str, bool]:
    """The name of the job that this request creates or created, and whether it is new."""
    is_new = False

    def create() -> str:
        nonlocal is_new
        start = request.spec.start.weights
        store.add_job(tx, job, start.sha256 if start.owner == OWNER else "")
        if in_the_way:
            raise in_the_way
        is_new = True
        return names.TRAINING_JOB.format(job.id)

    return once(tx, "CreateTrainingJob", request.request_id, request, now, create), is_new


def _resume(
    tx: Transaction, request: pb.ResumeTrainingJobRequest, job_id: str, capacity: Capacity, now: datetime
) -> None:
    store.get_job(tx, job_id, lock=True)  # first, so that of two equal requests the second sees what the first did

    def resume() -> str:
        store.resume_job(tx, job_id, lambda job, newest: resumed(job, request, newest, capacity, now), now)
        return request.name

    once(tx, "ResumeTrainingJob", request.request_id, request, now, resume)


def _attempts(tx: Transaction, job_id: str, before: int | None, limit: int) -> tuple[Job, list[Attempt]]:
    return store.get_job(tx, job_id), attempt_store.page_of_attempts(tx, job_id, before, limit)


def _job_id(name: str, field: str = "name") -> str:
    return names.TRAINING_JOB.parse(name, field)[0]


def _position(scope: str, token: str) -> int | None:
    keys = pages.decode(scope, token)
    return int(keys[0]) if keys else None
