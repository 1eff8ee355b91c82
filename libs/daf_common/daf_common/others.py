"""What other replicas change, told to the one that acts: else it would hear of it by its next look at everything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from daf_common.errors import TRANSIENT
from daf_common.leases import Leader
from daf_common.store import Store, Transaction, revision_of

log = logging.getLogger(__name__)

POLL_SECONDS = {"postgresql": 0.25, "sqlite": 1.0}
"""How late the leader hears of it. A database of SQLite has one process, and so no other replica, as a rule."""


class OtherReplicas:
    """Looks, where this replica leads, for rows that changed so that something may have to be done about them."""

    def __init__(
        self,
        store: Store,
        leader: Leader,
        wanting: Callable[[Transaction, int], Sequence[str]],
        enqueue: Callable[..., None],
    ) -> None:
        """`wanting` reads the keys of those rows whose revision is greater than the given one, for `enqueue`.

        What this replica changed itself is among them; to look at it once more is harmless.
        """
        self._store, self._leader, self._wanting, self._enqueue = store, leader, wanting, enqueue
        self._revision = -1
        self.looked = asyncio.Event()
        """Whether it has looked: from then on nothing is missed."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.create_task(self._work(), name=f"{self._store.schema}-others")

    async def stop(self) -> None:
        """Stops."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            await self._leader.elected()
            try:
                self._revision, keys = await self._store.read(self._look)
                self._enqueue(*keys)
                self.looked.set()
            except TRANSIENT as error:  # the database is away: what changed meanwhile is seen when it is back
                log.info("changes of other replicas will be looked for again: %s", error)
            except Exception:
                log.exception("changes of other replicas cannot be looked for")
            await asyncio.sleep(POLL_SECONDS[self._store.dialect])

    def _look(self, tx: Transaction) -> tuple[int, Sequence[str]]:
        # The counter first: what is committed meanwhile is then seen twice, never missed.
        current = revision_of(tx)
        if self._revision < 0 or current <= self._revision:  # who is elected begins with a look at everything
            return current, ()
        return current, self._wanting(tx, self._revision)
