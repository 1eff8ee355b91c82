"""The SQL of checkpoints and of the artifacts that they and their jobs name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from daf_common.errors import FailedPrecondition, InvalidArgument
from daf_common.store import Transaction, insert_or_ignore
from daf_protos.training.v1.training_job_pb2 import Checkpoint
from daf_training.checkpoints import CheckpointRow, Retention
from daf_training.tables import CHECKPOINT_ARTIFACTS, CHECKPOINTS, GARBAGE, STARTING_WEIGHTS

ARTIFACT_MISSING = "ARTIFACT_MISSING"
MAX_RESUMABLE = 5
"""Checkpoints of which a worker takes the first that it can read."""

_SCORES = sa.select(CHECKPOINTS.c.update_number, CHECKPOINTS.c.score).where(CHECKPOINTS.c.job == sa.bindparam("wanted"))
_MESSAGE = sa.select(CHECKPOINTS.c.message).where(
    CHECKPOINTS.c.job == sa.bindparam("wanted_job"), CHECKPOINTS.c.update_number == sa.bindparam("wanted_update")
)
_INSERT = sa.insert(CHECKPOINTS)
_INSERT_ARTIFACTS = sa.insert(CHECKPOINT_ARTIFACTS)
_NAMED = sa.select(CHECKPOINT_ARTIFACTS.c.sha256)
_UNNAMED = GARBAGE.c.sha256.not_in(_NAMED)
_COLLECTED = sa.select(GARBAGE.c.sha256).where(_UNNAMED, GARBAGE.c.sha256.in_(sa.bindparam("wanted", expanding=True)))


def page_of_checkpoints(tx: Transaction, job_id: str, before: int | None, limit: int) -> list[tuple[int, bytes]]:
    """Updates and messages of a job's checkpoints, newest first, from before an update."""
    table = CHECKPOINTS
    query = sa.select(table.c.update_number, table.c.message).where(table.c.job == job_id)
    if before is not None:
        query = query.where(table.c.update_number < before)
    rows = tx.execute(query.order_by(table.c.update_number.desc()).limit(limit))
    return [(row.update_number, row.message) for row in rows]


def find_checkpoint(tx: Transaction, job_id: str, update: int) -> bytes | None:
    """The message of one checkpoint."""
    return tx.execute(_MESSAGE, {"wanted_job": job_id, "wanted_update": update}).scalar()


def resumable_checkpoints(tx: Transaction, job_id: str, attempt: int) -> list[Checkpoint]:
    """What an attempt may go on from: checkpoints of earlier ones that have a trainer's state, newest first."""
    table = CHECKPOINTS
    query = sa.select(table.c.message).where(table.c.job == job_id, table.c.attempt < attempt)
    found: list[Checkpoint] = []
    for message in tx.execute(query.order_by(table.c.update_number.desc())).scalars():
        checkpoint = Checkpoint.FromString(message)
        if checkpoint.HasField("trainer_state"):
            found.append(checkpoint)
        if len(found) == MAX_RESUMABLE:
            break
    return found


def add_checkpoints(tx: Transaction, job_id: str, rows: Sequence[CheckpointRow], retention: Retention) -> bytes:
    """Adds checkpoints, in place of those of the same updates, and drops those that are no longer kept.

    Returns:
        The message of the best one; empty if none is.

    Raises:
        FailedPrecondition: an artifact that they name is about to be deleted.
    """
    if sha256 := _being_deleted(tx, {digest for row in rows for digest in row.artifacts}):
        raise artifact_missing(sha256)
    scores = _scores(tx, job_id)
    _drop(tx, job_id, [row.update for row in rows if row.update in scores])
    tx.execute(
        _INSERT,
        [
            {
                "job": job_id,
                "update_number": row.update,
                "attempt": row.attempt,
                "score": row.score,
                "message": row.message,
            }
            for row in rows
        ],
    )
    named = [
        {"job": job_id, "update_number": row.update, "sha256": digest} for row in rows for digest in set(row.artifacts)
    ]
    tx.execute(_INSERT_ARTIFACTS, named)
    scores.update({row.update: row.score for row in rows})
    _drop(tx, job_id, retention.superfluous(scores))
    return _best(tx, job_id, scores, retention)


def drop_later_checkpoints(tx: Transaction, job_id: str, update: int, retention: Retention) -> bytes:
    """Drops the checkpoints after an update; returns the message of the best one that is left, empty if none is."""
    scores = _scores(tx, job_id)
    _drop(tx, job_id, [other for other in scores if other > update])
    return _best(tx, job_id, {other: score for other, score in scores.items() if other <= update}, retention)


def keep_starting_weights(tx: Transaction, job_id: str, sha256: str) -> None:
    """Keeps the weights that a job starts from for as long as the job is there.

    Raises:
        InvalidArgument: they are about to be deleted.
    """
    if _being_deleted(tx, {sha256}):
        raise InvalidArgument.field("spec.start.weights", f"the artifact {sha256[:12]} has just been deleted")
    tx.execute(_INSERT_ARTIFACTS, {"job": job_id, "update_number": STARTING_WEIGHTS, "sha256": sha256})


def drop_artifacts(tx: Transaction, job_id: str) -> None:
    """Drops all checkpoints of a job and what it started from; artifacts become garbage unless others name them."""
    _drop(tx, job_id, [STARTING_WEIGHTS, *_scores(tx, job_id)])


def garbage(tx: Transaction, limit: int) -> list[str]:
    """Digests of artifacts that nothing names any more; those that are named again are garbage no longer."""
    tx.execute(sa.delete(GARBAGE).where(GARBAGE.c.sha256.in_(_NAMED)))
    return list(tx.execute(sa.select(GARBAGE.c.sha256).limit(limit)).scalars())


def forget_garbage(tx: Transaction, digests: Sequence[str]) -> None:
    """Says that these artifacts are deleted."""
    tx.execute(sa.delete(GARBAGE).where(GARBAGE.c.sha256.in_(list(digests))))


def has_garbage(tx: Transaction) -> bool:
    """Whether there may be artifacts to delete."""
    return tx.execute(sa.select(GARBAGE.c.sha256).limit(1)).first() is not None


def artifact_missing(sha256: str) -> FailedPrecondition:
    """The error for an artifact that is named, but not in the store."""
    message = f"the artifact {sha256[:12]} is not in the store: write it and report again"
    return FailedPrecondition(message, reason=ARTIFACT_MISSING)


def _being_deleted(tx: Transaction, digests: Iterable[str]) -> str | None:
    """One of these artifacts that nothing names any more: it may be deleted at this very moment."""
    return tx.execute(_COLLECTED, {"wanted": sorted(digests)}).scalars().first()


def _scores(tx: Transaction, job_id: str) -> dict[int, float | None]:
    return {row.update_number: row.score for row in tx.execute(_SCORES, {"wanted": job_id})}


def _best(tx: Transaction, job_id: str, scores: dict[int, float | None], retention: Retention) -> bytes:
    best = retention.best(scores)
    return (find_checkpoint(tx, job_id, best) or b"") if best is not None else b""


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
