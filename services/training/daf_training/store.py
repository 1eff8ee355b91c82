"""The SQL of jobs and their logs: transactions, each a plain function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from daf_common import names
from daf_common.errors import AlreadyExists, FailedPrecondition, NotFound
from daf_common.store import Transaction
from daf_training.attempts import admit, check_not_ended
from daf_training.checkpoint_store import add_checkpoints, drop_checkpoints
from daf_training.checkpoints import CheckpointRow
from daf_training.jobs import OCCUPYING, Job, JobState, Report, take_report
from daf_training.logs import TRUNCATED, pieces
from daf_training.rows import changing_columns, job_columns, to_job
from daf_training.tables import JOBS, LOG_PIECES, TRANSITIONS

KIND = "trainingJob"
"""What deleted jobs are called in tombstones."""

# The statements of every job's path are built once: building one costs as much as running it.
_OCCUPYING = JOBS.c.state.in_([state.value for state in OCCUPYING])
_FIND = sa.select(JOBS).where(JOBS.c.id == sa.bindparam("wanted"))
_FIND_AND_LOCK = _FIND.with_for_update()
_FIND_SEVERAL = sa.select(JOBS).where(JOBS.c.id.in_(sa.bindparam("wanted", expanding=True)))
_CHANGED = sa.select(JOBS).where(JOBS.c.revision > sa.bindparam("after")).order_by(JOBS.c.revision, JOBS.c.number)
_ONE_CHANGED = _CHANGED.where(JOBS.c.id == sa.bindparam("wanted"))
_OCCUPIED = sa.select(JOBS.c.id).where(_OCCUPYING)
_COUNT_OCCUPIED = sa.select(sa.func.count()).where(_OCCUPYING)
_WAITING = (
    sa.select(JOBS.c.id)
    .where(JOBS.c.state == JobState.PENDING.value)
    .order_by(JOBS.c.number)
    .limit(sa.bindparam("at_most"))
)
_INSERT = sa.insert(JOBS)
_INSERT_TRANSITIONS = sa.insert(TRANSITIONS)
_INSERT_LOG = sa.insert(LOG_PIECES)
_FROZEN = {"number", "id", "spec", "creator", "max_restarts", "max_checkpoints", "create_time", "revision"}
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
    startable: frozenset[str]
    """Ids of the waiting jobs for which there is a slot."""


@dataclass(frozen=True)
class LogPiece:
    """A piece of a log."""

    id: int
    attempt: int
    worker: int
    text: str


def add_job(tx: Transaction, job: Job) -> None:
    """Stores a new job.

    Raises:
        AlreadyExists: the id is taken.
    """
    if find_job(tx, job.id) is not None:
        raise AlreadyExists(f"there is a training job {job.id} already: choose another id, or none")
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


def load_jobs(tx: Transaction, ids: Sequence[str], slots: int) -> Batch:
    """Several jobs, and which of those that wait may start."""
    jobs = jobs_by_id(tx, ids)
    waiting = any(job.state is JobState.PENDING for job in jobs.values())
    return Batch(jobs, frozenset(startable_jobs(tx, slots) if waiting else ()))


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


def live_jobs(tx: Transaction, slots: int) -> list[str]:
    """Ids of the jobs about which something may have to be done: those that hold a slot or are next to get one."""
    return [*tx.execute(_OCCUPIED).scalars(), *startable_jobs(tx, slots)]


def startable_jobs(tx: Transaction, slots: int) -> list[str]:
    """Ids of the waiting jobs for which there is a slot, oldest first."""
    waiting = tx.execute(_WAITING, {"at_most": slots}).scalars().all()  # mostly none: then there is nothing to count
    free = slots - tx.execute(_COUNT_OCCUPIED).scalar_one() if waiting else 0
    return list(waiting[:free]) if free > 0 else []


def save_jobs(tx: Transaction, changes: Sequence[tuple[Job, Job]], now: datetime, slots: int) -> list[str]:
    """Stores jobs (old, new) unless somebody has changed them since; returns the jobs that may start now."""
    ended = False
    for old, new in changes:
        if _save(tx, old, new, now):
            ended = ended or (old.state in OCCUPYING and new.state not in OCCUPYING)
    return startable_jobs(tx, slots) if ended else []


def change_job(tx: Transaction, job_id: str, change: Callable[[Job], Job], now: datetime) -> Job:
    """Changes one job by a pure function.

    Raises:
        NotFound: there is none of that id.
    """
    old = get_job(tx, job_id, lock=True)
    new = change(old)
    if new != old:
        _save(tx, old, new, now)
    return new


def record_report(
    tx: Transaction,
    job_id: str,
    attempt: tuple[int, str, int],
    report: Report,
    checkpoints: Sequence[CheckpointRow],
    log: str,
    max_log_bytes: int,
    slots: int,
    now: datetime,
) -> tuple[Job, list[str]]:
    """Takes a worker's report: the job, its checkpoints and its log, all or nothing.

    Args:
        tx: the transaction.
        job_id: the job.
        attempt: number, token and rank of the attempt that reports.
        report: what changes the job; one that was taken before changes nothing.
        checkpoints: to add; one of the same update as an earlier attempt's takes its place.
        log: to append.
        max_log_bytes: what is longer is dropped.
        slots: how many jobs may train at once.
        now: the time of the call.

    Returns:
        The job, and the jobs that may start because it has ended.

    Raises:
        Aborted, NotFound, PermissionDenied: the attempt is not, or no longer, the one that may report.
    """
    old = get_job(tx, job_id, lock=True)
    number, token, rank = attempt
    admit(old, number, token)
    if report.sequence <= old.reports:
        return old, []
    check_not_ended(old)
    new = take_report(old, report, now)
    if new != old:
        _save(tx, old, new, now)
    if checkpoints:
        add_checkpoints(tx, job_id, checkpoints, old.max_checkpoints)
    if log and old.log_bytes < max_log_bytes:
        add_log(tx, job_id, number, rank, log if new.log_bytes <= max_log_bytes else TRUNCATED)
    return new, startable_jobs(tx, slots) if new.ended else []


def add_log(tx: Transaction, job_id: str, attempt: int, worker: int, text: str) -> None:
    """Appends to a job's log."""
    rows = [{"job": job_id, "attempt": attempt, "worker": worker, "text": piece} for piece in pieces(text)]
    tx.execute(_INSERT_LOG, rows)
    tx.changed(JOBS, job_id)


def log_after(tx: Transaction, job_id: str, piece_id: int, attempt: int, limit: int) -> list[LogPiece]:
    """Pieces of a job's log after a piece; of one attempt, or of all for 0."""
    table = LOG_PIECES
    query = sa.select(table).where(table.c.job == job_id, table.c.id > piece_id).order_by(table.c.id).limit(limit)
    rows = tx.execute(query.where(table.c.attempt == attempt) if attempt else query)
    return [LogPiece(row.id, row.attempt, row.worker, row.text) for row in rows]


def delete_job(tx: Transaction, job_id: str) -> None:
    """Deletes a job with its checkpoints and its log; its artifacts become garbage unless others name them.

    Raises:
        NotFound: there is none of that id.
        FailedPrecondition: it has not ended.
    """
    job = get_job(tx, job_id, lock=True)
    if not job.ended:
        raise FailedPrecondition(f"{job_id} has not ended: cancel it first")
    drop_checkpoints(tx, job_id)
    tx.execute(sa.delete(LOG_PIECES).where(LOG_PIECES.c.job == job_id))
    tx.execute(sa.delete(JOBS).where(JOBS.c.id == job_id))
    tx.deleted(KIND, job_id)


def _save(tx: Transaction, old: Job, new: Job, now: datetime) -> bool:
    values = {f"new_{name}": value for name, value in changing_columns(new).items()}
    if not tx.execute(_SWAP, {"wanted": old.id, "expected": old.revision, **values}).rowcount:
        return False
    tx.changed(JOBS, old.id)
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
