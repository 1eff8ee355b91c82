"""The training service as its workers see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakValueDictionary

import grpc

from daf_common import names
from daf_common.artifacts import ArtifactStore
from daf_common.channel import raising
from daf_common.clock import Clock
from daf_common.errors import InvalidArgument
from daf_common.store import Store
from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceStub
from daf_protos.training.v1 import worker_service_pb2 as pb
from daf_protos.training.v1.training_job_pb2 import Checkpoint, TrainingSpec
from daf_protos.training.v1.worker_service_pb2_grpc import TrainingWorkerServiceServicer
from daf_training import checkpoint_store, store
from daf_training.attempts import admit, check_alive, check_new
from daf_training.checkpoints import checkpoint_artifacts
from daf_training.convert import metrics_request, report_of, says_nothing
from daf_training.jobs import OCCUPYING, Job
from daf_training.report_store import check_resumed_update, record_report
from daf_training.reports import WorkerReport
from daf_training.settings import TrainingSettings
from daf_training.specs import artifacts_of, resolve_spec

Context = grpc.aio.ServicerContext[Any, Any]


class TrainingWorkerServicer(TrainingWorkerServiceServicer):
    """See `worker_service.proto`."""

    def __init__(
        self,
        database: Store,
        artifacts: ArtifactStore,
        statistics: StatisticsServiceStub,
        settings: TrainingSettings,
        clock: Clock,
        enqueue: Callable[..., None],
    ) -> None:
        self._store, self._artifacts, self._statistics = database, artifacts, statistics
        self._settings, self._clock, self._enqueue = settings, clock, enqueue
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Of the jobs for which a report is being taken here. At another replica the same report may be taken at once:
        what it writes here is guarded by its sequence number, and its numbers by the attempt's."""

    async def GetAssignment(self, request: pb.GetAssignmentRequest, context: Context) -> pb.GetAssignmentResponse:
        """See the proto."""
        job = await self._admit(request.attempt)
        check_alive(job)
        check_new(job, request.attempt.rank)
        spec = resolve_spec(TrainingSpec.FromString(job.spec), job.granted)
        resume = await self._resumable(job)
        wanted = [artifact for _, artifact in artifacts_of(spec)]
        wanted += [artifact for checkpoint in resume for artifact in checkpoint_artifacts(checkpoint)]
        return pb.GetAssignmentResponse(
            spec=spec,
            downloads=[await self._artifacts.reading(artifact) for artifact in wanted],
            resume=resume,
            report_interval_seconds=self._settings.report_interval_seconds,
            cpus=job.compute.cpus,
            stall_seconds=self._settings.stall_seconds,
        )

    async def ReportTraining(self, request: pb.ReportTrainingRequest, context: Context) -> pb.ReportTrainingResponse:
        """See the proto."""
        # One after the other: a report that went back to an earlier update, and that its worker sends again since it
        # got no answer, must not go back once more after the reports that follow it.
        async with self._turns.setdefault(_job_id(request.attempt), asyncio.Lock()):
            return await self._take_report(request)

    async def PrepareUpload(self, request: pb.PrepareUploadRequest, context: Context) -> pb.PrepareUploadResponse:
        """See the proto."""
        if request.attempt.rank != 0:
            raise InvalidArgument.field(
                "attempt.rank", f"only rank 0 writes artifacts, not rank {request.attempt.rank}"
            )
        check_alive(await self._admit(request.attempt))
        wanted = self._artifacts.owned(request.artifact, "artifact")
        return pb.PrepareUploadResponse(location=await self._artifacts.writing(wanted))

    async def _take_report(self, request: pb.ReportTrainingRequest) -> pb.ReportTrainingResponse:
        now = self._clock.now()
        told = report_of(request, _job_id(request.attempt), now)
        if request.metrics or says_nothing(request) or told.attempt > 1:
            job = await self._admit(request.attempt)
            if told.report.sequence <= job.reports.get(told.report.rank, 0):
                return _answer(job)
            if says_nothing(request):
                check_alive(job)
                return _answer(job)
            await self._record_metrics(request, job, told)
        for checkpoint in told.checkpoints:
            for artifact in checkpoint_artifacts(checkpoint):
                if not await self._artifacts.exists(artifact):
                    raise checkpoint_store.artifact_missing(artifact.sha256)
        job, next_jobs = await self._store.run(
            record_report, told, self._settings.max_log_bytes, self._settings.capacity(), now
        )
        self._enqueue(*next_jobs)
        return _answer(job)

    async def _record_metrics(self, request: pb.ReportTrainingRequest, job: Job, told: WorkerReport) -> None:
        """Before the report counts as taken: sent again, the same points are recorded once."""
        after_update = told.resumed_update
        if after_update is not None:
            await self._store.read(check_resumed_update, job, after_update)
        elif job.attempt > 1 and told.report.rank == 0 and 0 not in job.reports and not await self._resumable(job):
            after_update = 0  # the attempts before left nothing to go on from
        if request.metrics or after_update is not None:
            check_alive(job)
            metrics = metrics_request(request.attempt.training_job, job.attempt, request.metrics, after_update)
            await raising(self._statistics.RecordMetrics(metrics))

    async def _resumable(self, job: Job) -> Sequence[Checkpoint]:
        """What the current attempt may go on from, newest first."""
        if job.attempt == 1:
            return ()
        return await self._store.read(checkpoint_store.resumable_checkpoints, job.id, job.attempt)

    async def _admit(self, attempt: pb.Attempt) -> Job:
        job = await self._store.read(store.get_job, _job_id(attempt))
        admit(job, attempt.attempt, attempt.token, attempt.rank)
        return job


def _answer(job: Job) -> pb.ReportTrainingResponse:
    return pb.ReportTrainingResponse(stop=job.cancel_requested or job.state not in OCCUPYING)


def _job_id(attempt: pb.Attempt) -> str:
    return names.TRAINING_JOB.parse(attempt.training_job, "attempt.training_job")[0]
