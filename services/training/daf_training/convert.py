"""Between protobuf messages and rows; checks of what workers report."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, MutableMapping
from datetime import datetime

from daf_common import names
from daf_common.artifacts import check_artifact
from daf_common.errors import InvalidArgument, Violation
from daf_common.failures import Failure
from daf_common.times import to_timestamp
from daf_common.values import scalars, to_value
from daf_protos.common.v1.failure_pb2 import Failure as FailureMessage
from daf_protos.statistics.v1.statistics_service_pb2 import MetricPoint, RecordMetricsRequest
from daf_protos.training.v1 import worker_service_pb2 as worker_pb
from daf_protos.training.v1.training_job_pb2 import (
    Checkpoint,
    TrainingAttempt,
    TrainingJob,
    TrainingJobState,
    TrainingProgress,
    TrainingSpec,
)
from daf_training.attempts import Attempt
from daf_training.checkpoints import checkpoint_artifacts, done_agent_steps
from daf_training.jobs import Job, JobState, Outcome, Report
from daf_training.logs import clean
from daf_training.profiles import MAX_WORKERS
from daf_training.reports import WorkerReport

MAX_STEPS = 2**62
MAX_METRICS = 1000
"""Metrics of a checkpoint and losses of a progress; the rest, by name, is left out."""
MAX_NAME = 200


def job_message(job: Job) -> TrainingJob:
    """The message of a job."""
    message = TrainingJob(
        name=names.TRAINING_JOB.format(job.id),
        spec=TrainingSpec.FromString(job.spec),
        state=TrainingJobState.Value(f"TRAINING_JOB_STATE_{job.state.value}"),
        cancel_requested=job.cancel_requested,
        attempt=job.attempt,
        creator=job.creator,
        waiting_for=job.waiting_for if job.state in (JobState.PENDING, JobState.STARTING) else "",
        revision=job.revision,
        create_time=to_timestamp(job.create_time),
    )
    if job.failure:
        message.failure.CopyFrom(_failure_message(job.failure))
    if job.progress:
        message.progress.ParseFromString(job.progress)
    if job.checkpoint:
        message.checkpoint.ParseFromString(job.checkpoint)
    if job.best_checkpoint:
        message.best_checkpoint.ParseFromString(job.best_checkpoint)
    for name, value in job.effective_trainer.items():
        message.effective_trainer[name].CopyFrom(to_value(value))
    if job.start_time:
        message.start_time.CopyFrom(to_timestamp(job.start_time))
    if job.end_time:
        message.end_time.CopyFrom(to_timestamp(job.end_time))
    return message


def attempt_message(attempt: Attempt, job: Job) -> TrainingAttempt:
    """The message of one of a job's attempts."""
    message = TrainingAttempt(
        number=attempt.number,
        workers=attempt.workers,
        resumed_from=attempt.resumed_from,
        agent_steps=attempt.agent_steps if attempt.end_time else done_agent_steps(job.progress),
        start_time=to_timestamp(attempt.start_time),
        end_time=to_timestamp(attempt.end_time),
    )
    if attempt.failure:
        message.failure.CopyFrom(_failure_message(attempt.failure))
    return message


def report_of(request: worker_pb.ReportTrainingRequest, job_id: str, now: datetime) -> WorkerReport:
    """What a worker's report says.

    Raises:
        InvalidArgument: it cannot be true; names the fields.
    """
    violations = [*_check_rank(request), *_check_progress(request), *_check_checkpoints(request.checkpoints)]
    if request.sequence < 1:
        violations.append(Violation("sequence", f"must be at least 1, not {request.sequence}"))
    if request.HasField("resumed_update") and not 0 <= request.resumed_update <= MAX_STEPS:
        violations.append(Violation("resumed_update", f"must not be negative or over {MAX_STEPS}"))
    if violations:
        raise InvalidArgument.of(violations)
    effective = {
        clean(name)[:MAX_NAME]: clean(value) if isinstance(value, str) else value
        for name, value in scalars(request.effective_trainer).items()
        if not isinstance(value, float) or math.isfinite(value)
    }
    report = Report(
        sequence=request.sequence,
        rank=request.attempt.rank,
        progress=_progress(request.progress).SerializeToString() if request.HasField("progress") else b"",
        effective_trainer=effective,
        log_bytes=len(request.log.encode()),
        outcome=_outcome(request.outcome) if request.HasField("outcome") else None,
    )
    checkpoints = [_checkpoint(message, job_id, now) for message in request.checkpoints]
    return WorkerReport(
        job_id=job_id,
        attempt=request.attempt.attempt,
        token=request.attempt.token,
        report=report,
        checkpoints=sorted(checkpoints, key=lambda checkpoint: checkpoint.update),
        log=clean(request.log),
        resumed_update=request.resumed_update if request.HasField("resumed_update") else None,
    )


def says_nothing(request: worker_pb.ReportTrainingRequest) -> bool:
    """Whether a report is a mere heartbeat."""
    return not (
        request.HasField("progress")
        or request.HasField("outcome")
        or request.metrics
        or request.log
        or request.checkpoints
        or request.effective_trainer
        or request.HasField("resumed_update")
    )


def metrics_request(
    source: str, attempt: int, samples: Iterable[worker_pb.MetricSample], after_update: int | None
) -> RecordMetricsRequest:
    """The samples as points of the job's series, by update. Values that are not finite go by name.

    Args:
        source: resource name of the job.
        attempt: the number of its attempt.
        samples: what was measured.
        after_update: where the job went back to, so that points of later updates are dropped; None if it did not.
    """
    points = []
    for sample in samples:
        finite = {name: value for name, value in sample.values.items() if math.isfinite(value)}
        others = sorted({*sample.non_finite, *(sample.values.keys() - finite.keys())})
        point = MetricPoint(step=sample.update, agent_steps=sample.agent_steps, values=finite, non_finite=others)
        if sample.HasField("time"):
            point.time.CopyFrom(sample.time)
        points.append(point)
    return RecordMetricsRequest(source=source, attempt=attempt, points=points, after_step=after_update)


def _progress(message: TrainingProgress) -> TrainingProgress:
    progress = TrainingProgress()
    progress.CopyFrom(message)
    _keep_finite(progress.losses, message.losses)
    return progress


def _checkpoint(message: Checkpoint, job_id: str, now: datetime) -> Checkpoint:
    checkpoint = Checkpoint()
    checkpoint.CopyFrom(message)
    checkpoint.name = names.CHECKPOINT.format(job_id, message.update)
    checkpoint.create_time.CopyFrom(to_timestamp(now))
    if checkpoint.HasField("reward") and not math.isfinite(checkpoint.reward):
        checkpoint.ClearField("reward")
    _keep_finite(checkpoint.metrics, message.metrics)
    return checkpoint


def _keep_finite(values: MutableMapping[str, float], told: Mapping[str, float]) -> None:
    values.clear()
    finite = ((name, value) for name, value in sorted(told.items()) if math.isfinite(value) and len(name) <= MAX_NAME)
    for name, value in itertools.islice(finite, MAX_METRICS):
        values[name] = value


def _outcome(message: worker_pb.TrainingOutcome) -> Outcome:
    failure = None
    if message.HasField("failure"):
        told = message.failure
        failure = Failure(clean(told.reason)[:80] or "CRASHED", clean(told.message)[:4000], clean(told.subject)[:200])
    return Outcome(failure=failure, stopped=message.stopped)


def _failure_message(failure: Failure) -> FailureMessage:
    return FailureMessage(reason=failure.reason, message=failure.message, subject=failure.subject)


def _check_rank(request: worker_pb.ReportTrainingRequest) -> Iterable[Violation]:
    """Rank 0 reports on all; the others only what they print and their own failure."""
    if request.attempt.rank == 0:
        return
    for name in ("progress", "metrics", "checkpoints", "effective_trainer", "resumed_update"):
        if name in {field.name for field, _ in request.ListFields()}:
            yield Violation(name, f"is for rank 0 to report, not for rank {request.attempt.rank}")


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
    if len(progress.workers) > MAX_WORKERS:
        yield Violation("progress.workers", f"there are {len(progress.workers)}, more than {MAX_WORKERS}")
    for index, worker in enumerate(progress.workers[:MAX_WORKERS]):
        for field, value in worker.ListFields():
            if not (math.isfinite(value) and value >= 0):
                yield Violation(
                    f"progress.workers[{index}].{field.name}", f"must be finite and at least 0, not {value}"
                )


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
