"""The SQL of replays: which evaluation keeps which."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from daf_common.errors import Unavailable
from daf_common.store import Transaction, insert_or_ignore
from daf_evaluation.tables import GARBAGE, REPLAYS


def keep(tx: Transaction, evaluation: str, sha256: str) -> None:
    """Notes that an evaluation keeps a replay, before it is written.

    Raises:
        Unavailable: what has this digest is being deleted.
    """
    if tx.execute(sa.select(GARBAGE).where(GARBAGE.c.sha256 == sha256)).first():
        raise Unavailable(f"the artifact {sha256[:12]} is just being deleted: try again")
    tx.execute(insert_or_ignore(tx.connection.dialect.name, REPLAYS, [{"evaluation": evaluation, "sha256": sha256}]))


def kept(tx: Transaction, evaluation: str, digests: Collection[str]) -> set[str]:
    """Those of these digests that are of an evaluation's replays."""
    query = sa.select(REPLAYS.c.sha256).where(REPLAYS.c.evaluation == evaluation, REPLAYS.c.sha256.in_(digests))
    return set(tx.execute(query).scalars())


def drop(tx: Transaction, evaluation: str) -> None:
    """Drops the replays of an evaluation, which become garbage unless others keep them."""
    digests = tx.execute(sa.select(REPLAYS.c.sha256).where(REPLAYS.c.evaluation == evaluation)).scalars().all()
    if digests:
        tx.execute(sa.delete(REPLAYS).where(REPLAYS.c.evaluation == evaluation))
        dropped = [{"sha256": digest} for digest in digests]
        tx.execute(insert_or_ignore(tx.connection.dialect.name, GARBAGE, dropped))


def has_garbage(tx: Transaction) -> bool:
    """Whether there may be replays that no evaluation keeps any more."""
    return tx.execute(sa.select(GARBAGE.c.sha256).limit(1)).first() is not None


def garbage(tx: Transaction) -> list[str]:
    """Digests of replays that no evaluation keeps any more."""
    tx.execute(sa.delete(GARBAGE).where(GARBAGE.c.sha256.in_(sa.select(REPLAYS.c.sha256))))
    return list(tx.execute(sa.select(GARBAGE.c.sha256)).scalars())


def forget_garbage(tx: Transaction, digests: Sequence[str]) -> None:
    """Says that these are deleted."""
    tx.execute(sa.delete(GARBAGE).where(GARBAGE.c.sha256.in_(digests)))
