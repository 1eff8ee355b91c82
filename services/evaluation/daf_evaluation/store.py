"""The SQL of evaluations and their logs: transactions, each a plain function. That of their shards: `shard_store`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from daf_common.failures import Failure
from daf_common.store import Transaction, check_fence
from daf_common.times import utc
from daf_evaluation import replay_store, shard_store, telemetry
from daf_evaluation.evaluations import Evaluation, State
from daf_evaluation.logs import Log
from daf_evaluation.shards import Shard, ShardState
from daf_evaluation.slots import Claim, grant
from daf_evaluation.tables import EVALUATIONS, HISTORY, LOGS, SHARDS

LEASE = "evaluation"
"""The lease of the replica that decides about evaluations and starts their workloads."""

KIND = "evaluation"
"""What tombstones call an evaluation."""

# The statements of every evaluation's path are built once: building one costs several times what running it does.
_WANTED = EVALUATIONS.c.id == sa.bindparam("wanted")
_LIVE = EVALUATIONS.c.state.in_([state.value for state in State if not state.ended])
_FIND = sa.select(EVALUATIONS).where(_WANTED)
_FIND_SEVERAL = (
    sa.select(EVALUATIONS)
    .where(EVALUATIONS.c.id.in_(sa.bindparam("wanted", expanding=True)))
    .order_by(EVALUATIONS.c.number)
)
_CHANGED = (
    sa.select(EVALUATIONS)
    .where(EVALUATIONS.c.revision > sa.bindparam("after"))
    .order_by(EVALUATIONS.c.revision, EVALUATIONS.c.number)
)
_ONE_CHANGED = _CHANGED.where(_WANTED)
_UNCLEANED = sa.select(EVALUATIONS.c.id).where(EVALUATIONS.c.cleaned.is_(False)).order_by(EVALUATIONS.c.number)
_WANTING = (
    sa.select(EVALUATIONS.c.id)
    .where(
        EVALUATIONS.c.revision > sa.bindparam("after"),
        EVALUATIONS.c.cleaned.is_(False),
        sa.or_(
            EVALUATIONS.c.replicas == 0,
            EVALUATIONS.c.cancel_requested,
            EVALUATIONS.c.failure.is_not(None),
            EVALUATIONS.c.done == EVALUATIONS.c.total,
        ),
    )
    .order_by(EVALUATIONS.c.number)
)
_CLAIMS = (
    sa.select(
        EVALUATIONS.c.id,
        EVALUATIONS.c.replicas,
        EVALUATIONS.c.workers,
        sa.select(sa.func.count())
        .where(SHARDS.c.evaluation == EVALUATIONS.c.id, SHARDS.c.state != ShardState.DONE.value)
        .scalar_subquery()
        .label("shards"),
    )
    .where(_LIVE)
    .order_by(EVALUATIONS.c.number)
)
_INSERT = sa.insert(EVALUATIONS)
_SWAP = sa.update(EVALUATIONS).where(_WANTED, EVALUATIONS.c.revision == sa.bindparam("expected"))
_BEGIN = sa.update(EVALUATIONS).where(_WANTED, EVALUATIONS.c.state == State.PENDING.value)
_COUNT = sa.update(EVALUATIONS).where(_WANTED).values(done=EVALUATIONS.c.done + sa.bindparam("more"))
_NOTE_TRANSITION = sa.insert(HISTORY)


def insert(tx: Transaction, evaluation: Evaluation, shards: Sequence[Shard]) -> None:
    """Adds an evaluation; its number is the database's to choose."""
    fixed = {
        "id": evaluation.id,
        "spec": evaluation.spec,
        "agents": list(evaluation.agents),
        "total": evaluation.total,
        "workers": evaluation.workers,
        "token": evaluation.token,
        "creator": evaluation.creator,
        "create_time": evaluation.create_time,
    }
    tx.execute(_INSERT, {**fixed, **_progress(evaluation)})
    shard_store.insert(tx, evaluation.id, shards)
    _note_transition(tx, evaluation.id, "", evaluation, evaluation.create_time)
    tx.changed(EVALUATIONS, evaluation.id)


def get(tx: Transaction, id: str) -> Evaluation | None:
    """One evaluation."""
    row = tx.execute(_FIND, {"wanted": id}).first()
    return _from_row(row) if row else None


def load(tx: Transaction, ids: Sequence[str]) -> dict[str, Evaluation]:
    """Evaluations by id, in their order; those that are gone are left out."""
    return {row.id: _from_row(row) for row in tx.execute(_FIND_SEVERAL, {"wanted": list(ids)})}


def page(tx: Transaction, below: int | None, size: int) -> list[Evaluation]:
    """Evaluations with numbers below one, newest first."""
    query = sa.select(EVALUATIONS).order_by(EVALUATIONS.c.number.desc()).limit(size)
    if below is not None:
        query = query.where(EVALUATIONS.c.number < below)
    return [_from_row(row) for row in tx.execute(query)]


def changed_since(tx: Transaction, revision: int, id: str = "") -> list[Evaluation]:
    """Evaluations, or one, that changed after a revision."""
    if id:
        rows = tx.execute(_ONE_CHANGED, {"after": revision, "wanted": id})
    else:
        rows = tx.execute(_CHANGED, {"after": revision})
    return [_from_row(row) for row in rows]


def live(tx: Transaction) -> list[str]:
    """Evaluations that need looking at, in their order: those not ended and those not cleaned up."""
    return list(tx.execute(_UNCLEANED).scalars())


def claims(tx: Transaction) -> list[Claim]:
    """What every evaluation that has not ended has or wants of the slots, in their order."""
    return [Claim(row.id, row.replicas, min(row.workers, row.shards)) for row in tx.execute(_CLAIMS)]


def wanting(tx: Transaction, revision: int) -> list[str]:
    """Evaluations that have changed since a revision so that something may have to be done about them. That some more
    episodes are done needs nothing."""
    return list(tx.execute(_WANTING, {"after": revision}).scalars())


def save(
    tx: Transaction, changes: Mapping[str, tuple[Evaluation, Evaluation]], now: datetime, slots: int, fence: int
) -> list[str]:
    """Stores evaluations (old, new), but for those that changed meanwhile.

    Returns:
        The evaluations that may start because others have given slots back; `slots` is how many there are.

    Raises:
        Aborted: another replica decides by now.
    """
    check_fence(tx, LEASE, fence)
    freed = False
    for old, new in changes.values():
        if not tx.execute(_SWAP, {"wanted": old.id, "expected": old.revision, **_progress(new)}).rowcount:
            continue
        if new.state is not old.state:
            _note_transition(tx, old.id, old.state.value, new, now)
        if old.replicas and not new.replicas:
            shard_store.release_all(tx, old.id)
            freed = True
        tx.changed(EVALUATIONS, old.id)
    return list(grant(slots, claims(tx))) if freed else []


def take_shard(
    tx: Transaction, evaluation: Evaluation, holder: str, now: datetime, silent: Sequence[Shard] = ()
) -> tuple[Shard | None, Sequence[Shard]]:
    """Leases a shard to a worker.

    Args:
        tx: the transaction.
        evaluation: as it is now.
        holder: the worker.
        now: the time.
        silent: shards to be taken from their holders first, unless these have reported meanwhile.

    Returns:
        The shard; or None and the shards that others hold, none if all are done.
    """
    shard_store.release(tx, evaluation.id, silent)
    shard = shard_store.lease(tx, evaluation.id, holder)
    if shard is None:
        return None, shard_store.leased(tx, evaluation.id)
    if evaluation.state is State.PENDING:
        _begin(tx, evaluation, now)
    return shard, ()


def report(tx: Transaction, id: str, number: int, holder: str, fence: int, indices: Iterable[int]) -> Shard | None:
    """Stores that a holder lives and that episodes are recorded; None if its lease is not the newest.

    Raises:
        OutOfOrder: see `progress`.
    """
    shard = shard_store.held(tx, id, number, holder, fence, lock=True)
    if shard is None:
        return None
    reported = shard_store.report(tx, id, shard, indices)
    if more := reported.recorded - shard.recorded:
        tx.execute(_COUNT, {"wanted": id, "more": more})
        telemetry.count_episodes(tx, more)
        tx.changed(EVALUATIONS, id)
    return reported


def note_seats(tx: Transaction, id: str, mission: int, seats: int) -> Evaluation | None:
    """Stores how many seats a mission has, unless that is known; returns the evaluation as it is now."""
    evaluation = get(tx, id)
    if evaluation is None or evaluation.agents[mission]:
        return evaluation
    agents = (*evaluation.agents[:mission], seats, *evaluation.agents[mission + 1 :])
    tx.execute(sa.update(EVALUATIONS).where(EVALUATIONS.c.id == id).values(agents=list(agents)))
    tx.changed(EVALUATIONS, id)
    return replace(evaluation, agents=agents)


def request_cancel(tx: Transaction, id: str) -> Evaluation | None:
    """Notes that an evaluation is to stop, unless it has ended; returns it as it is now."""
    evaluation = get(tx, id)
    if evaluation is None or evaluation.state.ended or evaluation.cancel_requested:
        return evaluation
    tx.execute(sa.update(EVALUATIONS).where(EVALUATIONS.c.id == id).values(cancel_requested=True))
    tx.changed(EVALUATIONS, id)
    return replace(evaluation, cancel_requested=True)


def note_failure(tx: Transaction, id: str, failure: Failure) -> None:
    """Notes why an evaluation cannot go on, unless it has ended; the first reason counts."""
    unharmed = sa.and_(_LIVE, EVALUATIONS.c.failure.is_(None))
    note = sa.update(EVALUATIONS).where(EVALUATIONS.c.id == id, unharmed).values(failure=vars(failure))
    if tx.execute(note).rowcount:
        tx.changed(EVALUATIONS, id)


def delete(tx: Transaction, id: str) -> None:
    """Deletes an evaluation with all that belongs to it."""
    tx.execute(sa.delete(EVALUATIONS).where(EVALUATIONS.c.id == id))
    tx.execute(sa.delete(SHARDS).where(SHARDS.c.evaluation == id))
    tx.execute(sa.delete(LOGS).where(LOGS.c.evaluation == id))
    replay_store.drop(tx, id)
    tx.deleted(KIND, id)


def add_logs(tx: Transaction, id: str, attempt: int, printed: Mapping[int, Log]) -> None:
    """Keeps what processes of a workload printed, by replica; what was kept of others stays."""
    tx.execute(sa.delete(LOGS).where(LOGS.c.evaluation == id, LOGS.c.attempt == attempt, LOGS.c.replica.in_(printed)))
    rows = [
        {"evaluation": id, "attempt": attempt, "replica": replica, "content": log.content, "skipped": log.skipped}
        for replica, log in printed.items()
    ]
    if rows:
        tx.execute(sa.insert(LOGS), rows)


def logs(tx: Transaction, id: str) -> dict[tuple[int, int], Log]:
    """What was kept, by attempt and replica."""
    rows = tx.execute(sa.select(LOGS).where(LOGS.c.evaluation == id))
    return {(row.attempt, row.replica): Log(bytes(row.content), row.skipped) for row in rows}


def _begin(tx: Transaction, evaluation: Evaluation, now: datetime) -> None:
    begun = evaluation.to(State.RUNNING, now)
    values = {"wanted": evaluation.id, "state": begun.state.value, "start_time": begun.start_time}
    if tx.execute(_BEGIN, values).rowcount:
        _note_transition(tx, evaluation.id, State.PENDING.value, begun, now)
        telemetry.count_beginning(tx, evaluation.create_time, now)
        tx.changed(EVALUATIONS, evaluation.id)


def _note_transition(tx: Transaction, id: str, old: str, new: Evaluation, now: datetime) -> None:
    reason = new.failure.reason if new.failure and new.state is State.FAILED else ""
    row = {"name": id, "from_state": old, "to_state": new.state.value, "reason": reason[:60], "time": now}
    tx.execute(_NOTE_TRANSITION, row)
    telemetry.count_change(tx, new.state)


def _progress(evaluation: Evaluation) -> dict[str, Any]:
    """The columns that change; the revision is the store's."""
    return {
        "state": evaluation.state.value,
        "cancel_requested": evaluation.cancel_requested,
        "failure": vars(evaluation.failure) if evaluation.failure else None,
        "done": evaluation.done,
        "attempt": evaluation.attempt,
        "replicas": evaluation.replicas,
        "digest": evaluation.digest,
        "start_time": evaluation.start_time,
        "end_time": evaluation.end_time,
        "cleaned": evaluation.cleaned,
        "waiting_for": evaluation.waiting_for,
    }


def _from_row(row: sa.Row[Any]) -> Evaluation:
    return Evaluation(
        number=row.number,
        id=row.id,
        spec=bytes(row.spec),
        agents=tuple(row.agents),
        total=row.total,
        workers=row.workers,
        token=row.token,
        creator=row.creator,
        create_time=utc(row.create_time),
        state=State(row.state),
        cancel_requested=row.cancel_requested,
        failure=Failure(**row.failure) if row.failure else None,
        done=row.done,
        attempt=row.attempt,
        replicas=row.replicas,
        digest=row.digest,
        start_time=utc(row.start_time) if row.start_time else None,
        end_time=utc(row.end_time) if row.end_time else None,
        cleaned=row.cleaned,
        waiting_for=row.waiting_for,
        revision=row.revision,
    )
