"""The training service as its workers see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from daf_common import names
from daf_common.artifacts import ArtifactStore, check_artifact
from daf_common.channel import raising
from daf_common.clock import Clock
from daf_common.errors import FailedPrecondition, InvalidArgument
from daf_common.store import Store
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceStub
from daf_protos.training.v1 import worker_service_pb2 as pb
from daf_protos.training.v1.training_job_pb2 import TrainingSpec
from daf_protos.training.v1.worker_service_pb2_grpc import TrainingWorkerServiceServicer
from daf_training import store
from daf_training.attempts import admit, check_not_ended
from daf_training.convert import checkpoint_artifacts, metrics_request, report_of, says_nothing
from daf_training.jobs import Job
from daf_training.logs import clean
from daf_training.settings import TrainingSettings
from daf_training.specs import artifacts_of, resolve_spec

Context = grpc.aio.ServicerContext[Any, Any]

ARTIFACT_MISSING = "ARTIFACT_MISSING"


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

    async def GetAssignment(self, request: pb.GetAssignmentRequest, context: Context) -> pb.GetAssignmentResponse:
        """See the proto."""
        job = await self._admit(request.attempt)
        check_not_ended(job)
        spec = resolve_spec(TrainingSpec.FromString(job.spec))
        downloads = [await self._artifacts.reading(artifact) for _, artifact in artifacts_of(spec)]
        return pb.GetAssignmentResponse(
            spec=spec, downloads=downloads, report_interval_seconds=self._settings.report_interval_seconds
        )

    async def ReportTraining(self, request: pb.ReportTrainingRequest, context: Context) -> pb.ReportTrainingResponse:
        """See the proto."""
        job_id, now = _job_id(request.attempt), self._clock.now()
        report, checkpoints = report_of(request, job_id, now)
        if request.metrics or says_nothing(request):
            job = await self._admit(request.attempt)
            if report.sequence <= job.reports:
                return pb.ReportTrainingResponse(stop=job.cancel_requested)
            check_not_ended(job)
            if says_nothing(request):
                return pb.ReportTrainingResponse(stop=job.cancel_requested)
        for checkpoint in request.checkpoints:
            for artifact in checkpoint_artifacts(checkpoint):
                await self._check_stored(artifact)
        if request.metrics:
            # Before the report counts as taken: sent again, the same points are recorded once.
            metrics = metrics_request(request.attempt.training_job, request.metrics)
            await raising(self._statistics.RecordMetrics(metrics))
        job, next_jobs = await self._store.run(
            store.record_report,
            job_id,
            (request.attempt.attempt, request.attempt.token, request.attempt.rank),
            report,
            checkpoints,
            clean(request.log),
            self._settings.max_log_bytes,
            self._settings.training_slots,
            now,
        )
        self._enqueue(*next_jobs)
        return pb.ReportTrainingResponse(stop=job.cancel_requested)

    async def PrepareUpload(self, request: pb.PrepareUploadRequest, context: Context) -> pb.PrepareUploadResponse:
        """See the proto."""
        check_not_ended(await self._admit(request.attempt))
        wanted = Artifact()
        wanted.CopyFrom(request.artifact)
        wanted.owner = self._artifacts.owner
        check_artifact(wanted, "artifact")
        return pb.PrepareUploadResponse(location=await self._artifacts.writing(wanted))

    async def _admit(self, attempt: pb.Attempt) -> Job:
        job = await self._store.read(store.get_job, _job_id(attempt))
        admit(job, attempt.attempt, attempt.token)
        return job

    async def _check_stored(self, artifact: Artifact) -> None:
        if not await self._artifacts.exists(artifact):
            message = f"the artifact {artifact.sha256[:12]} is not in the store: write it and report again"
            raise FailedPrecondition(message, reason=ARTIFACT_MISSING)


def _job_id(attempt: pb.Attempt) -> str:
    if attempt.rank != 0:
        raise InvalidArgument.field("attempt.rank", f"must be 0, the only worker, not {attempt.rank}")
    return names.TRAINING_JOB.parse(attempt.training_job, "attempt.training_job")[0]
