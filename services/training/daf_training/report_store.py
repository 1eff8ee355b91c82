"""The transaction that takes a worker's report: the job, its attempt, its checkpoints and its log, all or nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from daf_common import names
from daf_common.errors import InvalidArgument
from daf_common.store import Transaction
from daf_protos.training.v1.training_job_pb2 import Checkpoint, TrainingSpec
from daf_training import telemetry
from daf_training.admission import Capacity
from daf_training.attempt_store import find_attempt, record_resumption
from daf_training.attempts import admit, check_alive
from daf_training.checkpoint_store import add_checkpoints, drop_later_checkpoints, find_checkpoint
from daf_training.checkpoints import Parent, Retention, checkpoint_artifacts, checkpoint_row, progress_at
from daf_training.jobs import OCCUPYING, Job, JobState, Report, take_report
from daf_training.log_store import add_log
from daf_training.logs import TRUNCATED
from daf_training.queue_store import next_jobs
from daf_training.reports import WorkerReport
from daf_training.store import get_job, save_job


def record_report(
    tx: Transaction, told: WorkerReport, max_log_bytes: int, capacity: Capacity, now: datetime
) -> tuple[Job, list[str]]:
    """Takes a worker's report. One that was taken before changes nothing.

    Returns:
        The job, and the jobs whose turn it may be because this one's attempt has ended.

    Raises:
        Aborted, NotFound, PermissionDenied: the attempt is not, or no longer, the one that may report.
        FailedPrecondition: an artifact is about to be deleted, and has to be written again.
        InvalidArgument: there is no such rank, or no checkpoint to have gone on from.
    """
    old = get_job(tx, told.job_id, lock=True)
    admit(old, told.attempt, told.token, told.report.rank)
    if told.report.sequence <= old.reports.get(told.report.rank, 0):
        return old, []
    if old.state not in OCCUPYING:
        return _take_last_words(tx, old, told, max_log_bytes, now), []
    new = old if told.resumed_update is None else _go_back(tx, old, told.resumed_update)
    report = _add_checkpoints(tx, old, told) if told.checkpoints else told.report
    before, new = new, take_report(new, report, now)
    save_job(tx, old, new, now)
    _count(tx, before, new, told, now)
    _add_log(tx, old, told, max_log_bytes)
    return new, next_jobs(tx, capacity) if new.state not in OCCUPYING else []


def _count(tx: Transaction, old: Job, new: Job, told: WorkerReport, now: datetime) -> None:
    telemetry.count_steps(tx, old.progress, new.progress)
    for checkpoint in told.checkpoints:
        telemetry.count_checkpoint(tx, sum(artifact.size_bytes for artifact in checkpoint_artifacts(checkpoint)))
    if old.state is JobState.STARTING and told.report.progress:
        if attempt := find_attempt(tx, new.id, new.attempt):
            telemetry.count_first_steps(tx, new, attempt.start_time, now)


def check_resumed_update(tx: Transaction, job: Job, update: int) -> Checkpoint:
    """The checkpoint that a job's current attempt says that it went on from.

    Raises:
        InvalidArgument: it cannot have been that one, or the attempt has said so before.
    """
    attempt = find_attempt(tx, job.id, job.attempt)
    message = find_checkpoint(tx, job.id, update)
    found = Checkpoint.FromString(message) if message else None
    if found is None or found.attempt >= job.attempt or (attempt and attempt.resumed_from):
        problem = (
            f"{names.CHECKPOINT.format(job.id, update)} is not a checkpoint that attempt {job.attempt} starts from"
        )
        raise InvalidArgument.field("resumed_update", problem)
    return found


def _go_back(tx: Transaction, job: Job, update: int) -> Job:
    """The job of an attempt that went on from a checkpoint: what is known of later updates is dropped."""
    found = check_resumed_update(tx, job, update)
    spec = TrainingSpec.FromString(job.spec)
    best = drop_later_checkpoints(tx, job.id, update, Retention.of(job.max_checkpoints, spec))
    record_resumption(tx, job.id, job.attempt, found.name, found.weights.sha256)
    message = found.SerializeToString()
    return replace(job, checkpoint=message, best_checkpoint=best, progress=progress_at(message, job.progress))


def _add_checkpoints(tx: Transaction, job: Job, told: WorkerReport) -> Report:
    """The report with its checkpoints, once they are stored."""
    spec = TrainingSpec.FromString(job.spec)
    attempt = find_attempt(tx, job.id, job.attempt) if job.attempt > 1 else None
    if attempt and attempt.resumed_from:
        parent = Parent(attempt.resumed_from, attempt.resumed_sha256)
    else:
        parent = Parent(spec.start.checkpoint, spec.start.weights.sha256)
    retention = Retention.of(job.max_checkpoints, spec)
    rows = [checkpoint_row(checkpoint, told.attempt, parent, retention) for checkpoint in told.checkpoints]
    best = add_checkpoints(tx, job.id, rows, retention)
    return replace(told.report, checkpoint=rows[-1].message, best_checkpoint=best)


def _take_last_words(tx: Transaction, job: Job, told: WorkerReport, max_log_bytes: int, now: datetime) -> Job:
    """What the other ranks printed at the end of an attempt that one of them has ended badly; they report no more."""
    more = told.report.progress or told.report.effective_trainer or told.checkpoints or told.resumed_update is not None
    if more or job.state not in (JobState.PENDING, JobState.FAILED):
        check_alive(job)
    report = replace(told.report, outcome=None)
    new = take_report(job, report, now)
    save_job(tx, job, new, now)
    _add_log(tx, job, told, max_log_bytes)
    return new


def _add_log(tx: Transaction, job: Job, told: WorkerReport, max_log_bytes: int) -> None:
    if told.log and job.log_bytes < max_log_bytes:
        fits = job.log_bytes + told.report.log_bytes <= max_log_bytes
        add_log(tx, job.id, told.attempt, told.report.rank, told.log if fits else TRUNCATED)
