"""Jobs as rows of their table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from daf_common.failures import Failure
from daf_common.times import utc
from daf_training.jobs import Job, JobState


def job_columns(job: Job) -> dict[str, Any]:
    """A job as values of its columns; the database numbers it, and the store sets the revision."""
    return {
        "id": job.id,
        "spec": job.spec,
        "creator": job.creator,
        "max_restarts": job.max_restarts,
        "max_checkpoints": job.max_checkpoints,
        "create_time": job.create_time,
        **changing_columns(job),
    }


def changing_columns(job: Job) -> dict[str, Any]:
    """What may change in a job's life, as values of its columns; the store sets the revision."""
    failure = job.failure or Failure("", "")
    return {
        "state": job.state.value,
        "cancel_requested": job.cancel_requested,
        "attempt": job.attempt,
        "token": job.token,
        "reports": job.reports,
        "log_bytes": job.log_bytes,
        "failure_reason": failure.reason or None,
        "failure_message": failure.message,
        "failure_subject": failure.subject,
        "progress": job.progress,
        "checkpoint": job.checkpoint,
        "effective_trainer": dict(job.effective_trainer),
        "start_time": job.start_time,
        "end_time": job.end_time,
    }


def to_job(row: sa.Row[Any]) -> Job:
    """A row of `jobs`."""
    failed = row.failure_reason is not None
    effective: Mapping[str, Any] = row.effective_trainer
    return Job(
        id=row.id,
        spec=bytes(row.spec),
        create_time=utc(row.create_time),
        creator=row.creator,
        max_restarts=row.max_restarts,
        max_checkpoints=row.max_checkpoints,
        state=JobState(row.state),
        cancel_requested=row.cancel_requested,
        attempt=row.attempt,
        token=row.token,
        reports=row.reports,
        log_bytes=row.log_bytes,
        failure=Failure(row.failure_reason, row.failure_message, row.failure_subject) if failed else None,
        progress=bytes(row.progress),
        checkpoint=bytes(row.checkpoint),
        effective_trainer=effective,
        start_time=utc(row.start_time) if row.start_time else None,
        end_time=utc(row.end_time) if row.end_time else None,
        revision=row.revision,
    )
