"""The SQL of logs."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from daf_common.store import Transaction
from daf_training.logs import pieces
from daf_training.tables import JOBS, LOG_PIECES

_INSERT = sa.insert(LOG_PIECES)


@dataclass(frozen=True)
class LogPiece:
    """A piece of a log."""

    id: int
    attempt: int
    worker: int
    text: str


def add_log(tx: Transaction, job_id: str, attempt: int, worker: int, text: str) -> None:
    """Appends to a job's log."""
    rows = [{"job": job_id, "attempt": attempt, "worker": worker, "text": piece} for piece in pieces(text)]
    tx.execute(_INSERT, rows)
    tx.changed(JOBS, job_id)


def log_after(tx: Transaction, job_id: str, piece_id: int, attempt: int, limit: int) -> list[LogPiece]:
    """Pieces of a job's log after a piece; of one attempt, or of all for 0."""
    table = LOG_PIECES
    query = sa.select(table).where(table.c.job == job_id, table.c.id > piece_id).order_by(table.c.id).limit(limit)
    rows = tx.execute(query.where(table.c.attempt == attempt) if attempt else query)
    return [LogPiece(row.id, row.attempt, row.worker, row.text) for row in rows]


def drop_log(tx: Transaction, job_id: str) -> None:
    """Forgets a job's log."""
    tx.execute(sa.delete(LOG_PIECES).where(LOG_PIECES.c.job == job_id))
