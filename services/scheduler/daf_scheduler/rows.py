"""Sweeps and trials as rows of their tables."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from daf_common.times import utc
from daf_scheduler.children import Reason
from daf_scheduler.sweeps import Counts, Sweep, SweepState
from daf_scheduler.trials import Trial, TrialState


def to_sweep(row: sa.Row[Any]) -> Sweep:
    """A row of `sweeps`."""
    return Sweep(
        id=row.id,
        spec=row.spec,
        state=SweepState(row.state),
        planned=row.planned,
        create_time=utc(row.create_time),
        slots=row.slots,
        max_failed=row.max_failed,
        maximize=row.maximize,
        learns=row.learns,
        has_held_out=row.has_held_out,
        cancel_requested=row.cancel_requested,
        searched=row.searched,
        counts=Counts(row.pending, row.running, row.succeeded, row.failed, row.cancelled),
        best_number=row.best_number,
        best_objective=row.best_objective,
        reason=_reason(row),
        held_out=row.held_out,
        end_time=utc(row.end_time) if row.end_time else None,
        creator=row.creator,
        revision=row.revision,
    )


def sweep_columns(sweep: Sweep) -> dict[str, Any]:
    """A sweep as values of its columns; the store sets the revision."""
    return {
        "id": sweep.id,
        "spec": sweep.spec,
        "state": sweep.state.value,
        "planned": sweep.planned,
        "create_time": sweep.create_time,
        "slots": sweep.slots,
        "max_failed": sweep.max_failed,
        "maximize": sweep.maximize,
        "learns": sweep.learns,
        "has_held_out": sweep.has_held_out,
        "cancel_requested": sweep.cancel_requested,
        "searched": sweep.searched,
        "pending": sweep.counts.pending,
        "running": sweep.counts.running,
        "succeeded": sweep.counts.succeeded,
        "failed": sweep.counts.failed,
        "cancelled": sweep.counts.cancelled,
        "best_number": sweep.best_number,
        "best_objective": sweep.best_objective,
        **_reason_columns(sweep.reason),
        "held_out": sweep.held_out,
        "end_time": sweep.end_time,
        "creator": sweep.creator,
    }


def to_trial(row: sa.Row[Any]) -> Trial:
    """A row of `trials`."""
    return Trial(
        id=row.id,
        sweep=row.sweep,
        number=row.number,
        parameters=row.parameters,
        state=TrialState(row.state),
        create_time=utc(row.create_time),
        reason=_reason(row),
        rung=row.rung,
        checkpoint=row.checkpoint,
        score=row.score,
        objective=row.objective,
        start_time=utc(row.start_time) if row.start_time else None,
        end_time=utc(row.end_time) if row.end_time else None,
        revision=row.revision,
    )


def trial_columns(trial: Trial) -> dict[str, Any]:
    """A trial as values of its columns; the store sets the revision."""
    return {
        "id": trial.id,
        "sweep": trial.sweep,
        "number": trial.number,
        "parameters": trial.parameters,
        "state": trial.state.value,
        "create_time": trial.create_time,
        **_reason_columns(trial.reason),
        "rung": trial.rung,
        "checkpoint": trial.checkpoint,
        "score": trial.score,
        "objective": trial.objective,
        "start_time": trial.start_time,
        "end_time": trial.end_time,
    }


def transition(name: str, old: Sweep | Trial | None, new: Sweep | Trial, now: datetime) -> dict[str, Any]:
    """A row of `transitions`."""
    return {
        "name": name,
        "from_state": old.state.value if old else "",
        "to_state": new.state.value,
        "reason": new.reason.reason[:80] if new.reason else "",
        "time": now,
    }


def _reason(row: sa.Row[Any]) -> Reason | None:
    return Reason(row.reason, row.message, row.subject) if row.reason else None


def _reason_columns(reason: Reason | None) -> dict[str, str]:
    if reason is None:
        return {"reason": "", "message": "", "subject": ""}
    return {
        "reason": reason.reason[:80],
        "message": reason.message[:4000].replace("\x00", ""),  # which PostgreSQL does not store
        "subject": reason.subject[:400].replace("\x00", ""),
    }
