"""The SQL of the queue: which jobs wait, and what those that have started hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from daf_common.store import Transaction
from daf_training.admission import Capacity, Granted, Held, Holding, Waiting, admit, behind
from daf_training.jobs import OCCUPYING, Job, JobState
from daf_training.profiles import Profile, with_fewer
from daf_training.rows import to_profile, to_workers
from daf_training.tables import JOBS

FRONT = 64
"""So many of those that wait are looked at; those behind them know only who is before them."""

# Built once: every job's path has them.
_OCCUPYING = JOBS.c.state.in_([state.value for state in sorted(OCCUPYING, key=lambda state: state.value)])
_OCCUPIED = sa.select(JOBS.c.id).where(_OCCUPYING)
_GRANTED = (JOBS.c.compute, JOBS.c.state, JOBS.c.attempt, JOBS.c.workers, JOBS.c.workers_attempt)
_HELD = sa.select(*_GRANTED, JOBS.c.gpus).where(_OCCUPYING)
_IS_WAITING = JOBS.c.state == JobState.PENDING.value
_WAITING = (
    sa.select(*_GRANTED, JOBS.c.id, JOBS.c.min_workers)
    .where(_IS_WAITING)
    .order_by(JOBS.c.queue_number, JOBS.c.number)
    .limit(FRONT)
)
_ASKING = sa.select(JOBS.c.id).where(
    JOBS.c.revision > sa.bindparam("after"), sa.or_(~_OCCUPYING, JOBS.c.cancel_requested)
)
_BEFORE = (
    sa.select(JOBS.c.id)
    .where(_IS_WAITING, JOBS.c.queue_number < sa.bindparam("place"))
    .order_by(JOBS.c.queue_number.desc(), JOBS.c.number.desc())
    .limit(1)
)
LAST_PLACE = sa.select(sa.func.coalesce(sa.func.max(JOBS.c.queue_number), 0) + 1).scalar_subquery()
"""The number of a new place at the end of the queue."""


def live_jobs(tx: Transaction) -> list[str]:
    """Ids of the jobs about which something may have to be done: those that have started, and the first that wait."""
    return [*tx.execute(_OCCUPIED).scalars(), *(row.id for row in tx.execute(_WAITING))]


def wanting(tx: Transaction, revision: int) -> list[str]:
    """Ids of the jobs about which something may have to be done because of what has changed since a revision: those
    that wait, are to stop or have ended, and then the first of the queue. That others train on needs nothing."""
    changed = list(tx.execute(_ASKING, {"after": revision}).scalars())
    return [*changed, *(row.id for row in tx.execute(_WAITING))] if changed else []


def admissions(tx: Transaction, jobs: Iterable[Job], capacity: Capacity) -> Mapping[str, Granted | Held]:
    """What those jobs get that wait."""
    waiting = [job for job in jobs if job.state is JobState.PENDING]
    if not waiting:
        return {}
    front = _admit_front(tx, capacity)
    return {job.id: front.get(job.id) or _behind(tx, job) for job in waiting}


def next_jobs(tx: Transaction, capacity: Capacity) -> list[str]:
    """Ids of the waiting jobs that may start, and of the one that is next after them."""
    front = _admit_front(tx, capacity)
    held = [job_id for job_id, answer in front.items() if isinstance(answer, Held)]
    return [*(front.keys() - set(held)), *held[:1]]


def _admit_front(tx: Transaction, capacity: Capacity) -> Mapping[str, Granted | Held]:
    queue = [_waiting(row) for row in tx.execute(_WAITING)]
    if not queue:  # mostly so: then it does not matter who holds what
        return {}
    held = [Holding(_granted(row).needs, tuple(row.gpus)) for row in tx.execute(_HELD)]
    return admit(queue, held, capacity)


def _waiting(row: sa.Row[Any]) -> Waiting:
    most = _granted(row)
    return Waiting(row.id, most.each, most.workers, row.min_workers)


def _granted(row: sa.Row[Any]) -> Profile:
    """As `Job.granted`."""
    return with_fewer(to_profile(row.compute), to_workers(row))


def _behind(tx: Transaction, job: Job) -> Held:
    before = tx.execute(_BEFORE, {"place": job.queue_number}).scalar()
    return Held(behind(before) if before else "")
