"""What other replicas change, told to the one that acts: else it would hear of it by its next look at everything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from daf_common.leases import Leader
from daf_common.periodic import Periodic
from daf_common.store import Store, Transaction, revision_of

POLL_SECONDS = {"postgresql": 0.25, "sqlite": 1.0}
"""How late the leader hears of it. A database of SQLite has one process, and so no other replica, as a rule."""


class OtherReplicas(Periodic):
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
        super().__init__(f"{store.schema}-others", self.step, POLL_SECONDS[store.dialect])
        self._store, self._leader, self._wanting, self._enqueue = store, leader, wanting, enqueue
        self._revision = -1
        self.looked = asyncio.Event()
        """Whether it has looked: from then on nothing is missed."""

    async def step(self) -> None:
        """One look, once this replica leads."""
        await self._leader.elected()
        self._revision, keys = await self._store.read(self._look)
        self._enqueue(*keys)
        self.looked.set()

    def _look(self, tx: Transaction) -> tuple[int, Sequence[str]]:
        current = revision_of(tx)
        if self._revision < 0 or current <= self._revision:  # who is elected begins with a look at everything
            return current, ()
        return current, self._wanting(tx, self._revision)
