"""What the scheduler reads and writes of sweeps, and what clients read of trials: transactions as plain functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa

from daf_common.errors import AlreadyExists, FailedPrecondition, NotFound
from daf_common.names import SWEEP, TRIAL
from daf_common.store import TOMBSTONES, Transaction, check_fence
from daf_scheduler import sweeps
from daf_scheduler.rows import sweep_columns, to_sweep, to_trial, transition, trial_columns
from daf_scheduler.sweeps import Sweep, SweepState
from daf_scheduler.tables import SWEEPS, TRANSITIONS, TRIALS
from daf_scheduler.trials import Trial

LEASE = "scheduler"
"""The lease of the replica that acts."""

_LIVE = [state.value for state in SweepState if state not in sweeps.TERMINAL]
_TOTAL = SWEEPS.c.pending + SWEEPS.c.running + SWEEPS.c.succeeded + SWEEPS.c.failed + SWEEPS.c.cancelled

# The statements of every trial's path are built once: building one costs as much as running it.
_FIND = sa.select(SWEEPS).where(SWEEPS.c.id == sa.bindparam("wanted"))
_CHANGED_SWEEPS = sa.select(SWEEPS).where(SWEEPS.c.revision > sa.bindparam("after"))
_LIVE_CHANGED = sa.select(SWEEPS.c.id).where(SWEEPS.c.revision > sa.bindparam("after"), SWEEPS.c.state.in_(_LIVE))
_CHANGED_SWEEP = _CHANGED_SWEEPS.where(SWEEPS.c.id == sa.bindparam("of"))
_CHANGED_TRIALS = (
    sa.select(TRIALS).where(TRIALS.c.revision > sa.bindparam("after")).order_by(TRIALS.c.revision, TRIALS.c.number)
)
_CHANGED_TRIALS_OF_ONE = _CHANGED_TRIALS.where(TRIALS.c.sweep == sa.bindparam("of"))
_PROPOSE = (
    sa.update(SWEEPS)
    .where(
        SWEEPS.c.id == sa.bindparam("wanted"),
        sa.bindparam("total") == _TOTAL,
        SWEEPS.c.state == SweepState.RUNNING.value,
        ~SWEEPS.c.cancel_requested,
        ~SWEEPS.c.searched,
    )
    .values(pending=SWEEPS.c.pending + sa.bindparam("more"), searched=sa.bindparam("last"))
)
_INSERT_TRIALS = sa.insert(TRIALS)
_INSERT_TRANSITIONS = sa.insert(TRANSITIONS)


def add_sweep(tx: Transaction, sweep: Sweep) -> None:
    """Stores a new sweep.

    Raises:
        AlreadyExists: its id is or was taken. Ids are not used twice, since jobs and evaluations are named by them.
    """
    taken = tx.execute(sa.select(SWEEPS.c.id).where(SWEEPS.c.id == sweep.id)).first()
    deleted = sa.select(TOMBSTONES.c.id).where(TOMBSTONES.c.kind == "sweep", TOMBSTONES.c.id == sweep.id)
    if taken or tx.execute(deleted).first():
        raise AlreadyExists(f"the id {sweep.id!r} {'is' if taken else 'was'} taken by another sweep: choose a new one")
    tx.execute(sa.insert(SWEEPS).values(sweep_columns(sweep)))
    transition_row = transition(SWEEP.format(sweep.id), None, sweep, sweep.create_time)
    tx.execute(sa.insert(TRANSITIONS).values(transition_row))
    tx.changed(SWEEPS, sweep.id)


def get_sweep(tx: Transaction, id: str) -> Sweep:
    """One sweep.

    Raises:
        NotFound: there is none.
    """
    row = tx.execute(_FIND, {"wanted": id}).first()
    if row is None:
        raise NotFound(f"there is no sweep {SWEEP.format(id)!r}")
    return to_sweep(row)


def list_sweeps(tx: Transaction, size: int, before: tuple[datetime, str] | None) -> list[Sweep]:
    """Sweeps, newest first, after the one with this time and id."""
    query = sa.select(SWEEPS).order_by(SWEEPS.c.create_time.desc(), SWEEPS.c.id.desc()).limit(size)
    if before is not None:
        time, id = before
        older = SWEEPS.c.create_time < time
        query = query.where(older | ((SWEEPS.c.create_time == time) & (SWEEPS.c.id < id)))
    return [to_sweep(row) for row in tx.execute(query)]


def cancel_sweep(tx: Transaction, id: str) -> Sweep:
    """Asks a sweep to stop; one that has ended stays as it is."""
    sweep = get_sweep(tx, id)
    if sweep.terminal or sweep.cancel_requested:
        return sweep
    tx.execute(sa.update(SWEEPS).where(SWEEPS.c.id == id).values(cancel_requested=True))
    tx.changed(SWEEPS, id)
    return replace(sweep, cancel_requested=True)


def delete_sweep(tx: Transaction, id: str) -> None:
    """Deletes a sweep that has ended, with its trials.

    Raises:
        NotFound: there is none.
        FailedPrecondition: it has not ended.
    """
    if not get_sweep(tx, id).terminal:
        raise FailedPrecondition(f"the sweep {id!r} has not ended: cancel it first")
    name = SWEEP.format(id)
    tx.execute(sa.delete(TRANSITIONS).where((TRANSITIONS.c.name == name) | TRANSITIONS.c.name.startswith(f"{name}/")))
    tx.execute(sa.delete(TRIALS).where(TRIALS.c.sweep == id))
    tx.execute(sa.delete(SWEEPS).where(SWEEPS.c.id == id))
    tx.deleted("sweep", id)


def get_trial(tx: Transaction, sweep: str, number: int) -> Trial:
    """One trial.

    Raises:
        NotFound: there is none.
    """
    row = tx.execute(sa.select(TRIALS).where(TRIALS.c.sweep == sweep, TRIALS.c.number == number)).first()
    if row is None:
        raise NotFound(f"there is no trial {TRIAL.format(sweep, number)!r}")
    return to_trial(row)


def list_trials(tx: Transaction, sweep: str, size: int, after: int) -> list[Trial]:
    """Trials of a sweep by number, after this one.

    Raises:
        NotFound: there is no such sweep.
    """
    get_sweep(tx, sweep)
    query = sa.select(TRIALS).where(TRIALS.c.sweep == sweep, TRIALS.c.number > after)
    return [to_trial(row) for row in tx.execute(query.order_by(TRIALS.c.number).limit(size))]


def changes_after(tx: Transaction, revision: int, sweep: str | None) -> list[Sweep | Trial]:
    """What has changed since a revision, of one sweep or of all: sweeps, then trials by revision."""
    values: dict[str, int | str] = {"after": revision}
    of_sweeps, of_trials = _CHANGED_SWEEPS, _CHANGED_TRIALS
    if sweep is not None:
        values["of"] = sweep
        of_sweeps, of_trials = _CHANGED_SWEEP, _CHANGED_TRIALS_OF_ONE
    return [*map(to_sweep, tx.execute(of_sweeps, values)), *map(to_trial, tx.execute(of_trials, values))]


def live_sweeps(tx: Transaction) -> list[str]:
    """Ids of the sweeps that have not ended."""
    return list(tx.execute(sa.select(SWEEPS.c.id).where(SWEEPS.c.state.in_(_LIVE))).scalars())


def sweeps_wanting(tx: Transaction, revision: int) -> list[str]:
    """Ids of the sweeps that have not ended and have changed since a revision."""
    return list(tx.execute(_LIVE_CHANGED, {"after": revision}).scalars())


def load_sweeps(tx: Transaction, ids: Sequence[str]) -> dict[str, Sweep]:
    """Sweeps by id."""
    rows = [tx.execute(_FIND, {"wanted": id}).first() for id in ids]  # there are few at a time
    return {row.id: to_sweep(row) for row in rows if row}


def save_sweeps(tx: Transaction, changes: Iterable[tuple[Sweep, Sweep]], fence: int, now: datetime) -> list[str]:
    """Stores sweeps (old, new) that nobody has changed since; returns their ids.

    Raises:
        Aborted: the leader was overtaken.
    """
    check_fence(tx, LEASE, fence)
    saved = []
    for old, new in changes:
        own = (SWEEPS.c.id == old.id) & (SWEEPS.c.revision == old.revision)
        before, after = sweep_columns(old), sweep_columns(new)
        values = {name: value for name, value in after.items() if value != before[name]}
        if tx.execute(sa.update(SWEEPS).where(own).values(values)).rowcount:
            tx.execute(sa.insert(TRANSITIONS).values(transition(SWEEP.format(new.id), old, new, now)))
            tx.changed(SWEEPS, new.id)
            saved.append(new.id)
    return saved


def add_trials(tx: Transaction, sweep: Sweep, new: Sequence[Trial], searched: bool, fence: int, now: datetime) -> bool:
    """Stores the next trials of a sweep, unless it was changed since; returns whether they are stored."""
    check_fence(tx, LEASE, fence)
    known = {"wanted": sweep.id, "total": sweep.counts.total}
    if not tx.execute(_PROPOSE, {**known, "more": len(new), "last": searched}).rowcount:
        return False
    if new:
        tx.execute(_INSERT_TRIALS, [trial_columns(trial) for trial in new])
        events = [transition(TRIAL.format(trial.sweep, trial.number), None, trial, now) for trial in new]
        tx.execute(_INSERT_TRANSITIONS, events)
        tx.changed(TRIALS, *(trial.id for trial in new))
    tx.changed(SWEEPS, sweep.id)
    return True


def history(tx: Transaction, sweep: str) -> list[Trial]:
    """All trials of a sweep by number."""
    return [
        to_trial(row) for row in tx.execute(sa.select(TRIALS).where(TRIALS.c.sweep == sweep).order_by(TRIALS.c.number))
    ]
