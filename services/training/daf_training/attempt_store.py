"""The SQL of attempts."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from daf_common.failures import Failure
from daf_common.store import Transaction
from daf_training.attempts import Attempt
from daf_training.checkpoints import done_agent_steps
from daf_training.jobs import Job
from daf_training.rows import to_attempt
from daf_training.tables import ATTEMPTS

_OF_JOB = ATTEMPTS.c.job == sa.bindparam("wanted_job")
_ONE = (_OF_JOB, ATTEMPTS.c.number == sa.bindparam("wanted_number"))
_FIND = sa.select(ATTEMPTS).where(*_ONE)
_INSERT = sa.insert(ATTEMPTS)
_END = (
    sa.update(ATTEMPTS)
    .where(*_ONE)
    .values(
        {
            name: sa.bindparam(f"new_{name}")
            for name in ("agent_steps", "failure_reason", "failure_message", "failure_subject", "end_time")
        }
    )
)
_RESUME = (
    sa.update(ATTEMPTS)
    .where(*_ONE)
    .values(resumed_from=sa.bindparam("new_resumed_from"), resumed_sha256=sa.bindparam("new_resumed_sha256"))
)


def record_attempt(tx: Transaction, old: Job, new: Job, now: datetime) -> None:
    """Writes down that an attempt has begun or ended, if one has between two versions of a job."""
    if new.attempt != old.attempt:
        row = {
            "job": new.id,
            "number": new.attempt,
            "workers": new.granted.workers,
            "resumed_from": "",
            "resumed_sha256": "",
            "agent_steps": 0,
            "failure_message": "",
            "failure_subject": "",
            "start_time": now,
        }
        tx.execute(_INSERT, row)
    if new.attempt_end:
        failure = new.attempt_end.failure or Failure("", "")
        values = {
            "wanted_job": new.id,
            "wanted_number": new.attempt,
            "new_agent_steps": done_agent_steps(new.attempt_end.progress),
            "new_failure_reason": failure.reason or None,
            "new_failure_message": failure.message,
            "new_failure_subject": failure.subject,
            "new_end_time": now,
        }
        tx.execute(_END, values)


def find_attempt(tx: Transaction, job_id: str, number: int) -> Attempt | None:
    """One attempt; of a job older than this table there may be none."""
    row = tx.execute(_FIND, {"wanted_job": job_id, "wanted_number": number}).first()
    return to_attempt(row) if row else None


def record_resumption(tx: Transaction, job_id: str, number: int, checkpoint: str, sha256: str) -> None:
    """Writes down which checkpoint an attempt went on from."""
    values = {"new_resumed_from": checkpoint, "new_resumed_sha256": sha256}
    tx.execute(_RESUME, {"wanted_job": job_id, "wanted_number": number, **values})


def page_of_attempts(tx: Transaction, job_id: str, before: int | None, limit: int) -> list[Attempt]:
    """A job's attempts, newest first, from before a number."""
    query = sa.select(ATTEMPTS).where(ATTEMPTS.c.job == job_id)
    if before is not None:
        query = query.where(ATTEMPTS.c.number < before)
    return [to_attempt(row) for row in tx.execute(query.order_by(ATTEMPTS.c.number.desc()).limit(limit))]


def drop_attempts(tx: Transaction, job_id: str) -> None:
    """Forgets a job's attempts."""
    tx.execute(sa.delete(ATTEMPTS).where(ATTEMPTS.c.job == job_id))
