"""Every statement that touches the tables of the evaluation service."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from daf_common.store import Transaction
from daf_evaluation.evaluations import Evaluation, Failure, State
from daf_evaluation.shards import Shard, ShardState, progress
from daf_evaluation.slots import Claim
from daf_evaluation.tables import EVALUATIONS, HISTORY, LOGS, SHARDS

KIND = "evaluation"
"""What tombstones call an evaluation."""

_LIVE = EVALUATIONS.c.state.in_([state.value for state in State if not state.ended])


def insert(tx: Transaction, evaluation: Evaluation, shards: Sequence[Shard]) -> None:
    """Adds an evaluation; its number is the database's to choose."""
    row = _to_row(evaluation)
    del row["number"]
    tx.execute(sa.insert(EVALUATIONS).values(row))
    tx.execute(
        sa.insert(SHARDS),
        [{**vars(shard), "state": shard.state.value, "evaluation": evaluation.id} for shard in shards],
    )
    _record_transition(tx, evaluation.id, "", evaluation, evaluation.create_time)
    tx.changed(EVALUATIONS, evaluation.id)


def get(tx: Transaction, id: str) -> Evaluation | None:
    """One evaluation."""
    return load(tx, [id]).get(id)


def load(tx: Transaction, ids: Sequence[str]) -> dict[str, Evaluation]:
    """Evaluations by id; those that are gone are left out."""
    rows = tx.execute(sa.select(EVALUATIONS).where(EVALUATIONS.c.id.in_(ids)))
    return {row.id: _from_row(row) for row in rows}


def page(tx: Transaction, below: int | None, size: int) -> list[Evaluation]:
    """Evaluations with numbers below one, newest first."""
    query = sa.select(EVALUATIONS).order_by(EVALUATIONS.c.number.desc()).limit(size)
    if below is not None:
        query = query.where(EVALUATIONS.c.number < below)
    return [_from_row(row) for row in tx.execute(query)]


def changed_since(tx: Transaction, revision: int, id: str = "") -> list[Evaluation]:
    """Evaluations, or one, that changed after a revision."""
    query = sa.select(EVALUATIONS).where(EVALUATIONS.c.revision > revision).order_by(EVALUATIONS.c.revision)
    if id:
        query = query.where(EVALUATIONS.c.id == id)
    return [_from_row(row) for row in tx.execute(query)]


def live(tx: Transaction) -> list[str]:
    """Evaluations that need looking at, in their order: those not ended and those not cleaned up."""
    query = sa.select(EVALUATIONS.c.id).where(EVALUATIONS.c.cleaned.is_(False)).order_by(EVALUATIONS.c.number)
    return list(tx.execute(query).scalars())


def claims(tx: Transaction) -> list[Claim]:
    """What every evaluation that has not ended has or wants of the slots, in their order."""
    unfinished = (
        sa.select(sa.func.count())
        .where(SHARDS.c.evaluation == EVALUATIONS.c.id, SHARDS.c.state != ShardState.DONE.value)
        .scalar_subquery()
    )
    columns = (EVALUATIONS.c.id, EVALUATIONS.c.replicas, EVALUATIONS.c.workers, unfinished.label("shards"))
    query = sa.select(*columns).where(_LIVE).order_by(EVALUATIONS.c.number)
    return [Claim(row.id, row.replicas, min(row.workers, row.shards)) for row in tx.execute(query)]


def save(tx: Transaction, changes: Mapping[str, tuple[Evaluation, Evaluation]], now: datetime) -> None:
    """Stores evaluations (old, new), but for those that changed meanwhile."""
    for old, new in changes.values():
        values = {column: value for column, value in _to_row(new).items() if value != _to_row(old)[column]}
        swap = sa.update(EVALUATIONS).where(EVALUATIONS.c.id == old.id, EVALUATIONS.c.revision == old.revision)
        if not tx.execute(swap.values(values)).rowcount:
            continue
        if new.state is not old.state:
            _record_transition(tx, old.id, old.state.value, new, now)
        if old.replicas and not new.replicas:
            _release_all(tx, old.id)
        tx.changed(EVALUATIONS, old.id)


def request_cancel(tx: Transaction, id: str) -> Evaluation | None:
    """Notes that an evaluation is to stop, unless it has ended; returns it as it is now."""
    evaluation = get(tx, id)
    if evaluation is None or evaluation.state.ended or evaluation.cancel_requested:
        return evaluation
    tx.execute(sa.update(EVALUATIONS).where(EVALUATIONS.c.id == id).values(cancel_requested=True))
    tx.changed(EVALUATIONS, id)
    return replace(evaluation, cancel_requested=True)


def delete(tx: Transaction, id: str) -> None:
    """Deletes an evaluation with all that belongs to it."""
    tx.execute(sa.delete(EVALUATIONS).where(EVALUATIONS.c.id == id))
    tx.execute(sa.delete(SHARDS).where(SHARDS.c.evaluation == id))
    tx.execute(sa.delete(LOGS).where(LOGS.c.evaluation == id))
    tx.deleted(KIND, id)


def leased(tx: Transaction, id: str) -> list[Shard]:
    """The shards of an evaluation that workers hold."""
    query = sa.select(SHARDS).where(SHARDS.c.evaluation == id, SHARDS.c.state == ShardState.LEASED.value)
    return [_shard_from_row(row) for row in tx.execute(query)]


def release(tx: Transaction, id: str, shards: Sequence[Shard]) -> None:
    """Takes shards from their holders, but from those that have reported since."""
    for shard in shards:
        tx.execute(
            sa.update(SHARDS)
            .where(*_key(id, shard), SHARDS.c.beat == shard.beat, SHARDS.c.state == ShardState.LEASED.value)
            .values(state=ShardState.OPEN.value, holder="")
        )


def lease(tx: Transaction, id: str, holder: str, now: datetime) -> Shard | None:
    """Leases a free shard, if there is one; the one that the holder has already, if the answer to it was lost."""
    query = (
        sa.select(SHARDS)
        .where(
            SHARDS.c.evaluation == id,
            sa.or_(
                SHARDS.c.state == ShardState.OPEN.value,
                sa.and_(SHARDS.c.state == ShardState.LEASED.value, SHARDS.c.holder == holder),
            ),
        )
        .order_by(SHARDS.c.state, SHARDS.c.number)  # "leased" comes before "open"
        .limit(8)
    )
    for free in [_shard_from_row(row) for row in tx.execute(query)]:
        if free.state is ShardState.LEASED:
            return free
        taken = replace(free, state=ShardState.LEASED, holder=holder, fence=free.fence + 1, beat=free.beat + 1)
        if _swap(tx, id, free, taken):
            _begin(tx, id, now)
            return taken
    return None


def held(tx: Transaction, id: str, number: int, holder: str, fence: int) -> Shard | None:
    """A shard if this lease of it is the newest; kept from other transactions until the end of this one."""
    query = sa.select(SHARDS).where(SHARDS.c.evaluation == id, SHARDS.c.number == number).with_for_update()
    row = tx.execute(query).first()
    shard = _shard_from_row(row) if row else None
    return shard if shard and shard.holder == holder and shard.fence == fence else None


def report(tx: Transaction, id: str, number: int, holder: str, fence: int, indices: Iterable[int]) -> Shard | None:
    """Stores that a holder lives and that episodes are recorded; None if its lease is not the newest.

    Raises:
        OutOfOrder: see `progress`.
    """
    shard = held(tx, id, number, holder, fence)
    if shard is None:
        return None
    recorded = progress(shard, indices)
    # A finished shard stays its last holder's, so that a report that is repeated is not taken for a stale one.
    state = ShardState.DONE if recorded == shard.count else shard.state
    reported = replace(shard, state=state, beat=shard.beat + 1, recorded=recorded)
    _swap(tx, id, shard, reported)
    if recorded > shard.recorded:
        more = EVALUATIONS.c.done + (recorded - shard.recorded)
        tx.execute(sa.update(EVALUATIONS).where(EVALUATIONS.c.id == id).values(done=more))
        tx.changed(EVALUATIONS, id)
    return reported


def note_failure(tx: Transaction, id: str, failure: Failure) -> None:
    """Notes why an evaluation cannot go on, unless it has ended; the first reason counts."""
    unharmed = sa.and_(_LIVE, EVALUATIONS.c.failure.is_(None))
    note = sa.update(EVALUATIONS).where(EVALUATIONS.c.id == id, unharmed).values(failure=vars(failure))
    if tx.execute(note).rowcount:
        tx.changed(EVALUATIONS, id)


def add_logs(tx: Transaction, id: str, attempt: int, contents: Mapping[int, bytes]) -> None:
    """Keeps what the processes of a workload printed, by replica."""
    tx.execute(sa.delete(LOGS).where(LOGS.c.evaluation == id, LOGS.c.attempt == attempt))
    rows = [
        {"evaluation": id, "attempt": attempt, "replica": replica, "content": content}
        for replica, content in contents.items()
    ]
    if rows:
        tx.execute(sa.insert(LOGS), rows)


def logs(tx: Transaction, id: str) -> dict[tuple[int, int], bytes]:
    """What was kept, by attempt and replica."""
    rows = tx.execute(sa.select(LOGS).where(LOGS.c.evaluation == id))
    return {(row.attempt, row.replica): bytes(row.content) for row in rows}


def _begin(tx: Transaction, id: str, now: datetime) -> None:
    evaluation = get(tx, id)
    if evaluation is None or evaluation.state is not State.PENDING:
        return
    begun = evaluation.to(State.RUNNING, now)
    values = {"state": begun.state.value, "start_time": begun.start_time}
    swap = sa.update(EVALUATIONS).where(EVALUATIONS.c.id == id, EVALUATIONS.c.state == State.PENDING.value)
    if tx.execute(swap.values(values)).rowcount:
        _record_transition(tx, id, State.PENDING.value, begun, now)
        tx.changed(EVALUATIONS, id)


def _release_all(tx: Transaction, id: str) -> None:
    """All workers have ended: nobody need wait for their leases."""
    tx.execute(
        sa.update(SHARDS)
        .where(SHARDS.c.evaluation == id, SHARDS.c.state == ShardState.LEASED.value)
        .values(state=ShardState.OPEN.value, holder="")
    )


def _swap(tx: Transaction, id: str, old: Shard, new: Shard) -> bool:
    values = {column: value for column, value in vars(new).items() if value != getattr(old, column)}
    if "state" in values:
        values["state"] = new.state.value
    swap = sa.update(SHARDS).where(*_key(id, old), SHARDS.c.holder == old.holder, SHARDS.c.beat == old.beat)
    return bool(tx.execute(swap.values(values)).rowcount)


def _key(id: str, shard: Shard) -> tuple[sa.ColumnElement[bool], ...]:
    return SHARDS.c.evaluation == id, SHARDS.c.number == shard.number, SHARDS.c.fence == shard.fence


def _record_transition(tx: Transaction, id: str, old: str, new: Evaluation, now: datetime) -> None:
    reason = new.failure.reason if new.failure and new.state is State.FAILED else ""
    row = {"name": id, "from_state": old, "to_state": new.state.value, "reason": reason[:60], "time": now}
    tx.execute(sa.insert(HISTORY).values(row))


def _to_row(evaluation: Evaluation) -> dict[str, Any]:
    row = {**vars(evaluation), "state": evaluation.state.value, "agents": list(evaluation.agents)}
    row["failure"] = vars(evaluation.failure) if evaluation.failure else None
    del row["revision"]  # the store's
    return row


def _from_row(row: Any) -> Evaluation:
    values = dict(row._mapping)
    values["state"] = State(values["state"])
    values["agents"] = tuple(values["agents"])
    values["failure"] = Failure(**values["failure"]) if values["failure"] else None
    for column in ("create_time", "start_time", "end_time"):
        values[column] = _utc(values[column])
    return Evaluation(**values)


def _utc(time: datetime | None) -> datetime | None:
    """SQLite drops the zone, which is always UTC; PostgreSQL answers in its own."""
    if time is None or time.tzinfo is None:
        return time and time.replace(tzinfo=UTC)
    return time.astimezone(UTC)


def _shard_from_row(row: Any) -> Shard:
    values = dict(row._mapping)
    del values["evaluation"]
    return Shard(**{**values, "state": ShardState(values["state"])})
