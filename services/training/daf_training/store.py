"""The SQL of jobs: transactions, each a plain function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from daf_common import names
from daf_common.errors import AlreadyExists, FailedPrecondition, NotFound
from daf_common.store import Transaction, check_fence
from daf_protos.training.v1.training_job_pb2 import Checkpoint
from daf_training.admission import Capacity, Granted, Held
from daf_training.attempt_store import drop_attempts, record_attempt
from daf_training.checkpoint_store import drop_artifacts, keep_starting_weights, resumable_checkpoints
from daf_training.jobs import Job
from daf_training.log_store import add_log, drop_log
from daf_training.queue_store import LAST_PLACE, admissions, next_jobs
from daf_training.rows import changing_columns, job_columns, submitted_columns, to_job
from daf_training.tables import JOBS, TRANSITIONS
from daf_training.telemetry import count_changes

LEASE = "training"
"""The lease of the replica that decides about jobs and starts their workloads."""

KIND = "trainingJob"
"""What deleted jobs are called in tombstones."""

# The statements of every job's path are built once: building one costs as much as running it.
_FIND = sa.select(JOBS).where(JOBS.c.id == sa.bindparam("wanted"))
_FIND_AND_LOCK = _FIND.with_for_update()
_FIND_SEVERAL = sa.select(JOBS).where(JOBS.c.id.in_(sa.bindparam("wanted", expanding=True)))
_CHANGED = sa.select(JOBS).where(JOBS.c.revision > sa.bindparam("after")).order_by(JOBS.c.revision, JOBS.c.number)
_ONE_CHANGED = _CHANGED.where(JOBS.c.id == sa.bindparam("wanted"))
_SET_BY_STORE = ("number", "queue_number", "revision")
_INSERT = sa.insert(JOBS).values(
    {column.name: sa.bindparam(column.name) for column in JOBS.c if column.name not in _SET_BY_STORE}
    | {"queue_number": LAST_PLACE}
)
_INSERT_TRANSITIONS = sa.insert(TRANSITIONS)
_SUBMITTED = {"spec", "compute", "min_workers"}
_FROZEN = {*_SET_BY_STORE, *_SUBMITTED, "id", "creator", "max_restarts", "max_checkpoints", "create_time"}
"""What nobody changes once a job is created, or the store alone."""
_SWAP = (
    sa.update(JOBS)
    .where(JOBS.c.id == sa.bindparam("wanted"), JOBS.c.revision == sa.bindparam("expected"))
    .values({column.name: sa.bindparam(f"new_{column.name}") for column in JOBS.c if column.name not in _FROZEN})
)


@dataclass(frozen=True)
class Batch:
    """Jobs with what their decisions need to know of the others."""

    jobs: Mapping[str, Job]
    admissions: Mapping[str, Granted | Held]
    """What those get that wait."""


def add_job(tx: Transaction, job: Job, starting_weights: str = "") -> None:
    """Stores a new job at the end of the queue; with the digest of the weights that it starts from, which are kept.

    Raises:
        AlreadyExists: the id is taken.
        InvalidArgument: the weights are about to be deleted.
    """
    if find_job(tx, job.id) is not None:
        raise AlreadyExists(f"there is a training job {job.id} already: choose another id, or none")
    if starting_weights:
        keep_starting_weights(tx, job.id, starting_weights)
    tx.execute(_INSERT, job_columns(job))
    tx.changed(JOBS, job.id)


def find_job(tx: Transaction, job_id: str, lock: bool = False) -> Job | None:
    """One job; with `lock`, nobody else changes it until the end of the transaction."""
    row = tx.execute(_FIND_AND_LOCK if lock else _FIND, {"wanted": job_id}).first()
    return to_job(row) if row else None


def get_job(tx: Transaction, job_id: str, lock: bool = False) -> Job:
    """One job.

    Raises:
        NotFound: there is none of that id.
    """
    job = find_job(tx, job_id, lock)
    if job is None:
        raise NotFound(f"there is no training job {job_id}")
    return job


def jobs_by_id(tx: Transaction, ids: Iterable[str]) -> dict[str, Job]:
    """Several jobs; those that are gone are left out."""
    rows = tx.execute(_FIND_SEVERAL, {"wanted": list(ids)})
    return {row.id: to_job(row) for row in rows}


def load_jobs(tx: Transaction, ids: Sequence[str], capacity: Capacity) -> Batch:
    """Several jobs, and which of those that wait may start."""
    jobs = jobs_by_id(tx, ids)
    return Batch(jobs, admissions(tx, jobs.values(), capacity))


def page_of_jobs(tx: Transaction, before: int | None, limit: int) -> list[tuple[int, Job]]:
    """Jobs with their numbers, newest first, from before a number."""
    query = sa.select(JOBS).order_by(JOBS.c.number.desc()).limit(limit)
    rows = tx.execute(query if before is None else query.where(JOBS.c.number < before))
    return [(row.number, to_job(row)) for row in rows]


def jobs_changed(job_id: str = "") -> Callable[[Transaction, int], list[Job]]:
    """Reads the jobs whose revision is greater than the given one; all, or the one of that id."""

    def read(tx: Transaction, revision: int) -> list[Job]:
        if job_id:
            return [to_job(row) for row in tx.execute(_ONE_CHANGED, {"after": revision, "wanted": job_id})]
        return [to_job(row) for row in tx.execute(_CHANGED, {"after": revision})]

    return read


def save_jobs(tx: Transaction, changes: Sequence[tuple[Job, Job]], now: datetime, capacity: Capacity) -> list[str]:
    """Stores jobs (old, new) unless somebody has changed them since; returns those whose turn it may be now."""
    moved = False
    for old, new in changes:
        if save_job(tx, old, new, now):
            moved = moved or old.state is not new.state
    return next_jobs(tx, capacity) if moved else []


def save_decided(
    tx: Transaction, changes: Sequence[tuple[Job, Job]], now: datetime, capacity: Capacity, fence: int
) -> list[str]:
    """As `save_jobs`, for the replica that decides about jobs.

    Raises:
        Aborted: another one decides by now.
    """
    check_fence(tx, LEASE, fence)
    return save_jobs(tx, changes, now, capacity)


def save_job(tx: Transaction, old: Job, new: Job, now: datetime) -> bool:
    """Stores a job with what it has gone through, unless somebody has changed it since; whether it did."""
    values = {f"new_{name}": value for name, value in changing_columns(new).items()}
    if not tx.execute(_SWAP, {"wanted": old.id, "expected": old.revision, **values}).rowcount:
        return False
    tx.changed(JOBS, old.id)
    record_attempt(tx, old, new, now)
    count_changes(tx, old, new, now)
    if new.history:
        name = names.TRAINING_JOB.format(new.id)
        rows = [
            {
                "name": name,
                "from_state": step.from_state.value,
                "to_state": step.to_state.value,
                "reason": step.reason,
                "time": now,
            }
            for step in new.history
        ]
        tx.execute(_INSERT_TRANSITIONS, rows)
    if new.new_log:
        add_log(tx, new.id, old.attempt, 0, new.new_log)
    return True


def cancel_job(
    tx: Transaction, job_id: str, cancel: Callable[[Job], Job], now: datetime, capacity: Capacity
) -> list[str]:
    """Cancels one job by a pure function; returns those whose turn it may be now.

    Raises:
        NotFound: there is none of that id.
    """
    old = get_job(tx, job_id, lock=True)
    new = cancel(old)
    return save_jobs(tx, [(old, new)], now, capacity) if new != old else []


def resume_job(tx: Transaction, job_id: str, resume: Callable[[Job, Checkpoint | None], Job], now: datetime) -> None:
    """Puts a job that has ended at the end of the queue, as a pure function makes it of the job and of the newest
    checkpoint from which it can go on.

    Raises:
        NotFound: there is none of that id.
        FailedPrecondition: `resume` refuses it.
    """
    old = get_job(tx, job_id, lock=True)
    new = resume(old, next(iter(resumable_checkpoints(tx, job_id, old.attempt + 1)), None))
    save_job(tx, old, new, now)
    tx.execute(sa.update(JOBS).where(JOBS.c.id == job_id).values(queue_number=LAST_PLACE, **submitted_columns(new)))


def delete_job(tx: Transaction, job_id: str) -> None:
    """Deletes a job with all that belongs to it; its artifacts become garbage unless others name them.

    Raises:
        NotFound: there is none of that id.
        FailedPrecondition: it has not ended.
    """
    job = get_job(tx, job_id, lock=True)
    if not job.ended:
        raise FailedPrecondition(f"{job_id} has not ended: cancel it first")
    drop_artifacts(tx, job_id)
    drop_attempts(tx, job_id)
    drop_log(tx, job_id)
    tx.execute(sa.delete(JOBS).where(JOBS.c.id == job_id))
    tx.deleted(KIND, job_id)
