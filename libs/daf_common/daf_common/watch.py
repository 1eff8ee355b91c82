"""Watches: streams of what has changed since a cursor, by revision."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import sqlalchemy as sa

from daf_common import pages
from daf_common.errors import Unavailable
from daf_common.metrics import WATCHES
from daf_common.periodic import Periodic
from daf_common.store import TOMBSTONES, Store, Transaction, revision_of

POLL_SECONDS = 1.0
"""How late a change that another replica made is seen."""

GATHER_SECONDS = 0.02
"""How long a watch waits for more changes before it reads: under load one read then serves many commits."""

# Built once: every watch reads them after every commit.
_GONE = sa.select(TOMBSTONES.c.id).where(
    TOMBSTONES.c.kind == sa.bindparam("wanted"), TOMBSTONES.c.revision > sa.bindparam("after")
)


class Changes[T]:
    """What a watch yields: resources in their newest state, ids that are gone, and where to go on."""

    def __init__(self, rows: Sequence[T], deleted: Sequence[str], cursor: str) -> None:
        self.rows = rows
        self.deleted = deleted
        self.cursor = cursor


class Watcher:
    """Wakes the watches of one service. One poller serves them all, and changes made here wake them at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._wake = asyncio.Event()
        self._poller = Periodic(f"{store.schema}-watch", self._poll, POLL_SECONDS)
        self._seen = -1
        self._stopped = False
        store.on_change(self._notify)

    def start(self) -> None:
        """Begins to look for changes that other replicas make."""
        self._poller.start()

    async def stop(self) -> None:
        """Stops looking, and ends all watches."""
        self._stopped = True
        self._notify()
        await self._poller.stop()

    async def changes[T](
        self, scope: str, kind: str, read: Callable[[Transaction, int], Sequence[T]], cursor: str
    ) -> AsyncIterator[Changes[T]]:
        """Yields what has changed, for ever; first the present state unless the cursor says where to go on.

        Args:
            scope: the method and its filter: a cursor is good for this scope only.
            kind: the kind of resource, as in `Transaction.deleted`.
            read: reads the rows whose revision is greater than the given one.
            cursor: where an earlier watch was; empty for the start.

        Raises:
            InvalidArgument: the cursor is of another watch.
            Unavailable: the service is stopping; the watch may be resumed where the service is next.
        """
        position = pages.decode(scope, cursor, field="cursor")
        revision = int(position[0]) if position else -1
        with WATCHES.labels(kind).track_inprogress():
            while True:
                wake = self._wake
                current, rows, gone = await self._store.read(_read_changes, kind, read, revision)
                if current > revision and (rows or gone or revision < 0):
                    yield Changes(rows, gone if revision >= 0 else (), pages.encode(scope, current))
                revision = max(revision, current)
                await wake.wait()
                if not self._stopped:
                    await asyncio.sleep(GATHER_SECONDS)
                if self._stopped:
                    raise Unavailable("the service is stopping", reason="STOPPING", retry_after_seconds=1.0)

    def _notify(self) -> None:
        self._wake.set()
        self._wake = asyncio.Event()

    async def _poll(self) -> None:
        current = await self._store.read(revision_of)
        if current != self._seen:
            self._seen = current
            self._notify()


def _read_changes[T](
    tx: Transaction, kind: str, read: Callable[[Transaction, int], Sequence[T]], revision: int
) -> tuple[int, Sequence[T], list[str]]:
    # Counter and rows are of one snapshot (see `Store.read`): what is committed meanwhile has a greater revision.
    current = revision_of(tx)
    if current <= revision:
        return current, (), []
    gone = tx.execute(_GONE, {"wanted": kind, "after": revision})
    return current, read(tx, revision), list(gone.scalars())
