"""What the reconciler of trials reads and writes: transactions as plain functions over many trials at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime

import sqlalchemy as sa

from daf_common.names import TRIAL
from daf_common.store import Transaction, check_fence
from daf_scheduler import slots, sweeps, trials
from daf_scheduler.rows import to_trial, transition, trial_columns
from daf_scheduler.store import LEASE, load_sweeps
from daf_scheduler.sweeps import Counts, Sweep
from daf_scheduler.tables import SWEEPS, TRANSITIONS, TRIALS
from daf_scheduler.trials import Trial, TrialState

_MUTABLE = (
    "state",
    "rung",
    "checkpoint",
    "score",
    "objective",
    "reason",
    "message",
    "subject",
    "start_time",
    "end_time",
)

# The statements of every trial's path are built once: building one costs as much as running it.
_LIVE = (
    sa.select(TRIALS.c.id)
    .where(TRIALS.c.state.in_([state.value for state in TrialState if state not in trials.TERMINAL]))
    .order_by(TRIALS.c.sweep, TRIALS.c.number)
)
_LIVE_OF_SWEEP = _LIVE.where(TRIALS.c.sweep == sa.bindparam("of"))
_FIND_SEVERAL = sa.select(TRIALS).where(TRIALS.c.id.in_(sa.bindparam("wanted", expanding=True)))
_WAITING = (
    sa.select(TRIALS.c.id)
    .where(TRIALS.c.sweep == sa.bindparam("of"), TRIALS.c.state == TrialState.PENDING.value)
    .order_by(TRIALS.c.number)
    .limit(sa.bindparam("at_most"))
)
_LOCK = (
    sa.select(TRIALS.c.id, TRIALS.c.revision)
    .where(TRIALS.c.id.in_(sa.bindparam("wanted", expanding=True)))
    .with_for_update()
)
_UPDATE = (
    sa.update(TRIALS)
    .where(TRIALS.c.id == sa.bindparam("own"))
    .values({name: sa.bindparam(f"new_{name}") for name in _MUTABLE})
)
_INSERT_TRANSITIONS = sa.insert(TRANSITIONS)
_KINDS = [counter.name for counter in fields(Counts)]
_COUNT = (
    sa.update(SWEEPS)
    .where(SWEEPS.c.id == sa.bindparam("own"))
    .values({kind: SWEEPS.c[kind] + sa.bindparam(f"more_{kind}") for kind in _KINDS})
)
_SET_BEST = (
    sa.update(SWEEPS)
    .where(SWEEPS.c.id == sa.bindparam("own"))
    .values(best_number=sa.bindparam("number"), best_objective=sa.bindparam("objective"))
)


@dataclass(frozen=True)
class Batch:
    """Trials with what their decisions need to know of their sweeps."""

    trials: Mapping[str, Trial]
    sweeps: Mapping[str, Sweep]
    granted: frozenset[str]
    """Ids of the waiting trials that may start."""


def live_trials(tx: Transaction, sweep: str | None = None) -> list[str]:
    """Ids of the trials that have not ended, of one sweep or of all."""
    rows = tx.execute(_LIVE) if sweep is None else tx.execute(_LIVE_OF_SWEEP, {"of": sweep})
    return list(rows.scalars())


def load_trials(tx: Transaction, ids: Sequence[str]) -> Batch:
    """Trials by id, with their sweeps and the free slots."""
    found = {row.id: to_trial(row) for row in tx.execute(_FIND_SEVERAL, {"wanted": list(ids)})}
    parents = load_sweeps(tx, sorted({trial.sweep for trial in found.values()}))
    granted: set[str] = set()
    for id in {trial.sweep for trial in found.values() if trial.state is TrialState.PENDING}:
        granted.update(_next_waiting(tx, parents[id]))
    return Batch(found, parents, frozenset(granted))


@dataclass(frozen=True)
class Saved:
    """What follows from trials that were stored."""

    trials: tuple[str, ...]
    """Ids of the trials that are stored; others have been changed by somebody else."""
    due: tuple[str, ...]
    """Ids of the trials that should be looked at: those that may start now, and those of a sweep that stops."""
    sweeps: tuple[str, ...]
    """Ids of the sweeps that should be looked at."""


def save_trials(tx: Transaction, changes: Iterable[tuple[Trial, Trial]], fence: int, now: datetime) -> Saved:
    """Stores trials (old, new) that nobody has changed since, with the counts and the best of their sweeps.

    Raises Aborted for a leader that was overtaken.
    """
    check_fence(tx, LEASE, fence)
    pairs = {old.id: (old, new) for old, new in changes}
    current = tx.execute(_LOCK, {"wanted": list(pairs)})
    unchanged = {row.id for row in current if row.revision == pairs[row.id][0].revision}
    saved = [pair for id, pair in pairs.items() if id in unchanged]
    if not saved:
        return Saved((), (), ())
    rows = [(new.id, trial_columns(new)) for _, new in saved]
    tx.execute(_UPDATE, [{"own": id, **{f"new_{name}": row[name] for name in _MUTABLE}} for id, row in rows])
    events = [transition(TRIAL.format(new.sweep, new.number), old, new, now) for old, new in saved]
    tx.execute(_INSERT_TRANSITIONS, events)
    tx.changed(TRIALS, *(new.id for _, new in saved))
    parents = load_sweeps(tx, sorted({new.sweep for _, new in saved}))
    updated = {id: _count(tx, sweep, [p for p in saved if p[1].sweep == id]) for id, sweep in parents.items()}
    due: list[str] = []
    for id, sweep in updated.items():
        due += live_trials(tx, id) if sweep.stopping else _next_waiting(tx, sweep)
    due_sweeps = [id for id, sweep in updated.items() if sweep.counts.live == 0 or not sweep.searched]
    return Saved(tuple(new.id for _, new in saved), tuple(due), tuple(due_sweeps))


def _count(tx: Transaction, sweep: Sweep, saved: Sequence[tuple[Trial, Trial]]) -> Sweep:
    """Brings a sweep's counts and best trial up to its trials; returns it as it is then."""
    moved: Counter[str] = Counter()
    best = sweep
    for old, new in saved:
        moved[sweeps.kind(old.state)] -= 1
        moved[sweeps.kind(new.state)] += 1
        if new.state is TrialState.SUCCEEDED and sweeps.better(best, new):
            best = replace(best, best_number=new.number, best_objective=new.objective)
    if any(moved.values()):
        tx.execute(_COUNT, {"own": sweep.id, **{f"more_{kind}": moved[kind] for kind in _KINDS}})
        tx.changed(SWEEPS, sweep.id)
    if best is not sweep:
        tx.execute(_SET_BEST, {"own": sweep.id, "number": best.best_number, "objective": best.best_objective})
        tx.changed(SWEEPS, sweep.id)
    counts = {kind: getattr(sweep.counts, kind) + change for kind, change in moved.items()}
    return replace(best, counts=replace(sweep.counts, **counts))


def _next_waiting(tx: Transaction, sweep: Sweep) -> list[str]:
    free = slots.free(sweep.slots, sweep.counts.running)
    if not free:
        return []
    return list(tx.execute(_WAITING, {"of": sweep.id, "at_most": free}).scalars())
