"""The SQL of checkpoints and of the artifacts that they name."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from daf_common.store import Transaction, insert_or_ignore
from daf_training.checkpoints import CheckpointRow, superfluous
from daf_training.tables import CHECKPOINT_ARTIFACTS, CHECKPOINTS, GARBAGE

_REWARDS = sa.select(CHECKPOINTS.c.update_number, CHECKPOINTS.c.reward).where(
    CHECKPOINTS.c.job == sa.bindparam("wanted")
)
_INSERT = sa.insert(CHECKPOINTS)
_INSERT_ARTIFACTS = sa.insert(CHECKPOINT_ARTIFACTS)


def page_of_checkpoints(tx: Transaction, job_id: str, before: int | None, limit: int) -> list[tuple[int, bytes]]:
    """Updates and messages of a job's checkpoints, newest first, from before an update."""
    table = CHECKPOINTS
    query = sa.select(table.c.update_number, table.c.message).where(table.c.job == job_id)
    if before is not None:
        query = query.where(table.c.update_number < before)
    rows = tx.execute(query.order_by(table.c.update_number.desc()).limit(limit))
    return [(row.update_number, row.message) for row in rows]


def add_checkpoints(tx: Transaction, job_id: str, rows: Sequence[CheckpointRow], kept: int) -> None:
    """Adds checkpoints, in place of those of the same updates, and drops those that are no longer kept."""
    stored = tx.execute(_REWARDS, {"wanted": job_id})
    rewards = {row.update_number: row.reward for row in stored}
    _drop(tx, job_id, [row.update for row in rows if row.update in rewards])
    tx.execute(
        _INSERT,
        [
            {
                "job": job_id,
                "update_number": row.update,
                "attempt": row.attempt,
                "reward": row.reward,
                "message": row.message,
            }
            for row in rows
        ],
    )
    named = [
        {"job": job_id, "update_number": row.update, "sha256": digest} for row in rows for digest in set(row.artifacts)
    ]
    tx.execute(_INSERT_ARTIFACTS, named)
    rewards.update({row.update: row.reward for row in rows})
    _drop(tx, job_id, superfluous(rewards, kept))


def drop_checkpoints(tx: Transaction, job_id: str) -> None:
    """Drops all checkpoints of a job; their artifacts become garbage unless others name them."""
    updates = tx.execute(sa.select(CHECKPOINTS.c.update_number).where(CHECKPOINTS.c.job == job_id)).scalars()
    _drop(tx, job_id, list(updates))


def garbage(tx: Transaction, limit: int) -> list[str]:
    """Digests of artifacts that no checkpoint names any more; those that one names again are garbage no longer."""
    named = sa.select(CHECKPOINT_ARTIFACTS.c.sha256)
    tx.execute(sa.delete(GARBAGE).where(GARBAGE.c.sha256.in_(named)))
    return list(tx.execute(sa.select(GARBAGE.c.sha256).limit(limit)).scalars())


def forget_garbage(tx: Transaction, digests: Sequence[str]) -> None:
    """Says that these artifacts are deleted."""
    tx.execute(sa.delete(GARBAGE).where(GARBAGE.c.sha256.in_(list(digests))))


def has_garbage(tx: Transaction) -> bool:
    """Whether there may be artifacts to delete."""
    return tx.execute(sa.select(GARBAGE.c.sha256).limit(1)).first() is not None


def _drop(tx: Transaction, job_id: str, updates: Sequence[int]) -> None:
    if not updates:
        return
    named = CHECKPOINT_ARTIFACTS
    of_these = (named.c.job == job_id, named.c.update_number.in_(list(updates)))
    digests = set(tx.execute(sa.select(named.c.sha256).where(*of_these)).scalars())
    if digests:
        tx.execute(sa.delete(named).where(*of_these))
        dropped = [{"sha256": digest} for digest in sorted(digests)]
        tx.execute(insert_or_ignore(tx.connection.dialect.name, GARBAGE, dropped))
    tx.execute(
        sa.delete(CHECKPOINTS).where(CHECKPOINTS.c.job == job_id, CHECKPOINTS.c.update_number.in_(list(updates)))
    )
