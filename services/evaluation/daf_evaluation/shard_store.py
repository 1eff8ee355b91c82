"""The SQL of shards: who plays which, and how far they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from daf_common.store import Transaction
from daf_evaluation.shards import Shard, ShardState, progress
from daf_evaluation.tables import SHARDS
from daf_evaluation.telemetry import count_expiry

_OF = SHARDS.c.evaluation == sa.bindparam("of")
_IS_LEASED = SHARDS.c.state == ShardState.LEASED.value
_FIND = sa.select(SHARDS).where(_OF, SHARDS.c.number == sa.bindparam("wanted"))
_FIND_AND_LOCK = _FIND.with_for_update()
_FREE = (
    sa.select(SHARDS)
    .where(
        _OF,
        sa.or_(
            SHARDS.c.state == ShardState.OPEN.value,
            sa.and_(_IS_LEASED, SHARDS.c.holder == sa.bindparam("by")),
        ),
    )
    .order_by(SHARDS.c.state, SHARDS.c.number)  # "leased" comes before "open"
    .limit(8)
)
_LEASED = sa.select(SHARDS).where(_OF, _IS_LEASED)
_INSERT = sa.insert(SHARDS)
_SWAP = sa.update(SHARDS).where(
    _OF,
    SHARDS.c.number == sa.bindparam("wanted"),
    SHARDS.c.state == sa.bindparam("old_state"),
    SHARDS.c.holder == sa.bindparam("old_holder"),
    SHARDS.c.fence == sa.bindparam("old_fence"),
    SHARDS.c.beat == sa.bindparam("old_beat"),
)
_RELEASE_ALL = sa.update(SHARDS).where(_OF, _IS_LEASED).values(state=ShardState.OPEN.value, holder="")


def insert(tx: Transaction, evaluation: str, shards: Sequence[Shard]) -> None:
    """Adds the shards of an evaluation."""
    tx.execute(_INSERT, [{**vars(shard), "state": shard.state.value, "evaluation": evaluation} for shard in shards])


def lease(tx: Transaction, evaluation: str, holder: str) -> Shard | None:
    """Leases a free shard, if there is one; the one that the holder has already, if the answer to it was lost."""
    for free in [_from_row(row) for row in tx.execute(_FREE, {"of": evaluation, "by": holder})]:
        if free.state is ShardState.LEASED:
            return free
        taken = replace(free, state=ShardState.LEASED, holder=holder, fence=free.fence + 1, beat=free.beat + 1)
        if _swap(tx, evaluation, free, taken):
            return taken
    return None


def leased(tx: Transaction, evaluation: str) -> list[Shard]:
    """The shards of an evaluation that workers hold."""
    return [_from_row(row) for row in tx.execute(_LEASED, {"of": evaluation})]


def held(tx: Transaction, evaluation: str, number: int, holder: str, fence: int, lock: bool = False) -> Shard | None:
    """A shard if this lease of it is the newest; with `lock`, it stays so until the end of the transaction."""
    row = tx.execute(_FIND_AND_LOCK if lock else _FIND, {"of": evaluation, "wanted": number}).first()
    shard = _from_row(row) if row else None
    return shard if shard and shard.holder == holder and shard.fence == fence else None


def report(tx: Transaction, evaluation: str, shard: Shard, indices: Iterable[int]) -> Shard:
    """Stores that the holder of a shard, which this transaction `held` locked, lives and that episodes are recorded.

    Raises:
        OutOfOrder: see `progress`.
    """
    recorded = progress(shard, indices)
    # A finished shard stays its last holder's, so that a report that is repeated is not taken for a stale one.
    state = ShardState.DONE if recorded == shard.count else shard.state
    reported = replace(shard, state=state, beat=shard.beat + 1, recorded=recorded)
    _swap(tx, evaluation, shard, reported)
    return reported


def release(tx: Transaction, evaluation: str, shards: Sequence[Shard]) -> None:
    """Takes shards from their holders, but from those that have reported since."""
    for shard in shards:
        if _swap(tx, evaluation, shard, replace(shard, state=ShardState.OPEN, holder="")):
            count_expiry(tx)


def release_all(tx: Transaction, evaluation: str) -> None:
    """Takes all shards from their holders, which have all ended: nobody need wait for their leases."""
    tx.execute(_RELEASE_ALL, {"of": evaluation})


def _swap(tx: Transaction, evaluation: str, old: Shard, new: Shard) -> bool:
    values = {
        "of": evaluation,
        "wanted": old.number,
        "old_state": old.state.value,
        "old_holder": old.holder,
        "old_fence": old.fence,
        "old_beat": old.beat,
        "state": new.state.value,
        "holder": new.holder,
        "fence": new.fence,
        "beat": new.beat,
        "recorded": new.recorded,
    }
    return bool(tx.execute(_SWAP, values).rowcount)


def _from_row(row: Any) -> Shard:
    _, number, scenario, first, count, state, holder, fence, beat, recorded = row  # a row's `count` is a method
    return Shard(number, scenario, first, count, ShardState(state), holder, fence, beat, recorded)
