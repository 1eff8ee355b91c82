"""Between protobuf messages and rows; checks of what workers report."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime

from daf_common import names
from daf_common.artifacts import check_artifact
from daf_common.errors import InvalidArgument, Violation
from daf_common.failures import Failure
from daf_common.times import to_timestamp
from daf_common.values import scalars, to_value
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.failure_pb2 import Failure as FailureMessage
from daf_protos.statistics.v1.statistics_service_pb2 import MetricPoint, RecordMetricsRequest
from daf_protos.training.v1 import worker_service_pb2 as worker_pb
from daf_protos.training.v1.training_job_pb2 import (
    Checkpoint,
    TrainingJob,
    TrainingJobState,
    TrainingProgress,
    TrainingSpec,
)
from daf_training.checkpoints import CheckpointRow
from daf_training.jobs import Job, Outcome, Report
from daf_training.logs import clean

MAX_STEPS = 2**62


def job_message(job: Job) -> TrainingJob:
    """The message of a job."""
    message = TrainingJob(
        name=names.TRAINING_JOB.format(job.id),
        spec=TrainingSpec.FromString(job.spec),
        state=TrainingJobState.Value(f"TRAINING_JOB_STATE_{job.state.value}"),
        cancel_requested=job.cancel_requested,
        attempt=job.attempt,
        creator=job.creator,
        revision=job.revision,
        create_time=to_timestamp(job.create_time),
    )
    if job.failure:
        failure = FailureMessage(reason=job.failure.reason, message=job.failure.message, subject=job.failure.subject)
        message.failure.CopyFrom(failure)
    if job.progress:
        message.progress.ParseFromString(job.progress)
    if job.checkpoint:
        message.checkpoint.ParseFromString(job.checkpoint)
    for name, value in job.effective_trainer.items():
        message.effective_trainer[name].CopyFrom(to_value(value))
    if job.start_time:
        message.start_time.CopyFrom(to_timestamp(job.start_time))
    if job.end_time:
        message.end_time.CopyFrom(to_timestamp(job.end_time))
    return message


def report_of(
    request: worker_pb.ReportTrainingRequest, job_id: str, now: datetime
) -> tuple[Report, list[CheckpointRow]]:
    """What a worker's report says.

    Raises:
        InvalidArgument: it cannot be true; names the fields.
    """
    violations = [*_check_progress(request), *_check_checkpoints(request.checkpoints)]
    if request.sequence < 1:
        violations.append(Violation("sequence", f"must be at least 1, not {request.sequence}"))
    if violations:
        raise InvalidArgument.of(violations)
    checkpoints = [_checkpoint(message, job_id, now) for message in request.checkpoints]
    newest = max(checkpoints, key=lambda checkpoint: checkpoint.update, default=None)
    effective = {
        clean(name)[:200]: clean(value) if isinstance(value, str) else value
        for name, value in scalars(request.effective_trainer).items()
        if not isinstance(value, float) or math.isfinite(value)
    }
    report = Report(
        sequence=request.sequence,
        progress=request.progress.SerializeToString() if request.HasField("progress") else b"",
        checkpoint=newest.SerializeToString() if newest else b"",
        effective_trainer=effective,
        log_bytes=len(request.log.encode()),
        outcome=_outcome(request.outcome) if request.HasField("outcome") else None,
    )
    return report, [_checkpoint_row(checkpoint, request.attempt.attempt) for checkpoint in checkpoints]


def says_nothing(request: worker_pb.ReportTrainingRequest) -> bool:
    """Whether a report is a mere heartbeat."""
    return not (
        request.HasField("progress")
        or request.HasField("outcome")
        or request.metrics
        or request.log
        or request.checkpoints
        or request.effective_trainer
    )


def metrics_request(source: str, samples: Iterable[worker_pb.MetricSample]) -> RecordMetricsRequest:
    """The samples as points of the job's series, by update. Values that are not finite go by name."""
    points = []
    for sample in samples:
        finite = {name: value for name, value in sample.values.items() if math.isfinite(value)}
        others = sorted({*sample.non_finite, *(sample.values.keys() - finite.keys())})
        point = MetricPoint(step=sample.update, agent_steps=sample.agent_steps, values=finite, non_finite=others)
        if sample.HasField("time"):
            point.time.CopyFrom(sample.time)
        points.append(point)
    return RecordMetricsRequest(source=source, points=points)


def checkpoint_artifacts(checkpoint: Checkpoint) -> list[Artifact]:
    """The artifacts that a checkpoint names."""
    state = [checkpoint.trainer_state] if checkpoint.HasField("trainer_state") else []
    return [checkpoint.weights, *state]


def _checkpoint(message: Checkpoint, job_id: str, now: datetime) -> Checkpoint:
    checkpoint = Checkpoint()
    checkpoint.CopyFrom(message)
    checkpoint.name = names.CHECKPOINT.format(job_id, message.update)
    checkpoint.create_time.CopyFrom(to_timestamp(now))
    if checkpoint.HasField("reward") and not math.isfinite(checkpoint.reward):
        checkpoint.ClearField("reward")
    return checkpoint


def _checkpoint_row(checkpoint: Checkpoint, attempt: int) -> CheckpointRow:
    return CheckpointRow(
        update=checkpoint.update,
        attempt=attempt,
        reward=checkpoint.reward if checkpoint.HasField("reward") else None,
        artifacts=tuple(artifact.sha256 for artifact in checkpoint_artifacts(checkpoint)),
        message=checkpoint.SerializeToString(),
    )


def _outcome(message: worker_pb.TrainingOutcome) -> Outcome:
    failure = None
    if message.HasField("failure"):
        told = message.failure
        failure = Failure(clean(told.reason)[:80] or "CRASHED", clean(told.message)[:4000], clean(told.subject)[:200])
    return Outcome(failure=failure, stopped=message.stopped)


def _check_progress(request: worker_pb.ReportTrainingRequest) -> Iterable[Violation]:
    if not request.HasField("progress"):
        return
    progress: TrainingProgress = request.progress
    for name in ("agent_steps", "total_agent_steps", "update"):
        value = getattr(progress, name)
        if not 0 <= value <= MAX_STEPS:
            yield Violation(f"progress.{name}", f"must not be negative or over {MAX_STEPS}, but is {value}")
    for name in ("steps_per_second", "learning_rate", "reward"):
        if not math.isfinite(getattr(progress, name)):
            yield Violation(f"progress.{name}", "must be finite: report what is not finite in metrics, by name")


def _check_checkpoints(checkpoints: Iterable[Checkpoint]) -> Iterable[Violation]:
    updates: set[int] = set()
    for index, checkpoint in enumerate(checkpoints):
        field = f"checkpoints[{index}]"
        if not 0 <= checkpoint.update <= MAX_STEPS or checkpoint.update in updates:
            yield Violation(f"{field}.update", f"{checkpoint.update} is negative, too large or there twice")
        updates.add(checkpoint.update)
        for artifact in checkpoint_artifacts(checkpoint):
            try:
                check_artifact(artifact, f"{field}.artifact")
            except InvalidArgument as error:
                yield from error.violations
            else:
                if artifact.owner != "training":
                    yield Violation(f"{field}.artifact.owner", f"must be training, not {artifact.owner}")
