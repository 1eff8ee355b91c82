"""Jobs as rows of their table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import sqlalchemy as sa

from daf_common.failures import Failure
from daf_common.times import utc
from daf_training.attempts import Attempt
from daf_training.jobs import Job, JobState
from daf_training.profiles import Profile

_PROFILE_FIELDS = frozenset(field.name for field in fields(Profile))


def job_columns(job: Job) -> dict[str, Any]:
    """A job as values of its columns; the database numbers it, and the store sets its place and the revision."""
    return {
        "id": job.id,
        **submitted_columns(job),
        "creator": job.creator,
        "max_restarts": job.max_restarts,
        "max_checkpoints": job.max_checkpoints,
        "create_time": job.create_time,
        **changing_columns(job),
    }


def submitted_columns(job: Job) -> dict[str, Any]:
    """What changes only where a user resumes a job, as values of its columns."""
    return {"spec": job.spec, "compute": _compute_column(job.compute), "min_workers": job.min_workers}


def changing_columns(job: Job) -> dict[str, Any]:
    """What may change in a job's life, as values of its columns; the store sets the revision."""
    failure = job.failure or Failure("", "")
    return {
        "state": job.state.value,
        "cancel_requested": job.cancel_requested,
        "restarts": job.restarts,
        "attempt": job.attempt,
        "token": job.token,
        "workers": job.workers,
        "workers_attempt": _workers_attempt(job.state, job.attempt),
        "gpus": list(job.gpus),
        "reports": job.reports.get(0, 0),
        "other_reports": {str(rank): sequence for rank, sequence in job.reports.items() if rank},
        "waiting_for": job.waiting_for,
        "log_bytes": job.log_bytes,
        "failure_reason": failure.reason or None,
        "failure_message": failure.message,
        "failure_subject": failure.subject,
        "progress": job.progress,
        "checkpoint": job.checkpoint,
        "best_checkpoint": job.best_checkpoint,
        "effective_trainer": dict(job.effective_trainer),
        "start_time": job.start_time,
        "end_time": job.end_time,
    }


def to_job(row: sa.Row[Any]) -> Job:
    """A row of `jobs`."""
    effective: Mapping[str, Any] = row.effective_trainer
    return Job(
        id=row.id,
        spec=bytes(row.spec),
        create_time=utc(row.create_time),
        creator=row.creator,
        compute=to_profile(row.compute),
        min_workers=row.min_workers,
        queue_number=row.queue_number,
        max_restarts=row.max_restarts,
        restarts=row.restarts,
        max_checkpoints=row.max_checkpoints,
        state=JobState(row.state),
        cancel_requested=row.cancel_requested,
        attempt=row.attempt,
        token=row.token,
        workers=to_workers(row),
        gpus=tuple(row.gpus),
        reports=_reports(row),
        waiting_for=row.waiting_for,
        log_bytes=row.log_bytes,
        failure=_failure(row),
        progress=bytes(row.progress),
        checkpoint=bytes(row.checkpoint),
        best_checkpoint=bytes(row.best_checkpoint or b""),
        effective_trainer=effective,
        start_time=utc(row.start_time) if row.start_time else None,
        end_time=utc(row.end_time) if row.end_time else None,
        revision=row.revision,
    )


def to_profile(column: Mapping[str, Any]) -> Profile:
    """A job's compute as its column holds it; what a later version may have added is not for this one."""
    return Profile(**{name: value for name, value in column.items() if name in _PROFILE_FIELDS})


def to_workers(row: sa.Row[Any]) -> int:
    """`Job.workers` of a row of `jobs`. The version before gives all to each attempt that it starts, and leaves behind
    what was said of the one before, or of one that it has ended."""
    workers: int = row.workers if row.workers_attempt == _workers_attempt(JobState(row.state), row.attempt) else 0
    return workers


def to_attempt(row: sa.Row[Any]) -> Attempt:
    """A row of `attempts`."""
    return Attempt(
        job=row.job,
        number=row.number,
        workers=row.workers,
        start_time=utc(row.start_time),
        resumed_from=row.resumed_from,
        resumed_sha256=row.resumed_sha256,
        agent_steps=row.agent_steps,
        failure=_failure(row),
        end_time=utc(row.end_time) if row.end_time else None,
    )


def _workers_attempt(state: JobState, attempt: int) -> int:
    """Of which attempt `workers` speaks: of the one there is or, while the job waits, of the next, told apart by the
    sign."""
    return -attempt if state is JobState.PENDING else attempt


def _compute_column(profile: Profile) -> Mapping[str, Any]:
    """Without what is as it was before there was the field: a version that does not know it can read the row, too."""
    added = {"workers_per_machine"} if profile.workers_per_machine == 1 else set()
    return {name: value for name, value in asdict(profile).items() if name not in added}


def _failure(row: sa.Row[Any]) -> Failure | None:
    if row.failure_reason is None:
        return None
    return Failure(row.failure_reason, row.failure_message, row.failure_subject)


def _reports(row: sa.Row[Any]) -> Mapping[int, int]:
    others = {int(rank): sequence for rank, sequence in row.other_reports.items()}
    return {0: row.reports, **others} if row.reports else others
