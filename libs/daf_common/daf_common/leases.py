"""Leases: who may act, decided without comparing clocks of different machines.

A holder raises `beat` again and again. Whoever sees the same beat for a whole time-to-live on its own monotonic clock
takes over by compare-and-swap and raises `fence`; every write of a holder carries its fence, so a late one is refused.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import sqlalchemy as sa

from daf_common.clock import Clock
from daf_common.store import LEASES, Store, Transaction

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lease:
    """A lease as it is stored."""

    holder: str
    fence: int
    beat: int


class Observer:
    """Tells when leases have stood still, by one's own monotonic clock alone."""

    def __init__(self, time_to_live_seconds: float) -> None:
        self._time_to_live = time_to_live_seconds
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}

    def expired(self, name: str, fence: int, beat: int, now_seconds: float) -> bool:
        """Whether a lease has kept this fence and beat for a whole time-to-live, as seen from here."""
        mark = (fence, beat)
        seen, since = self._seen.get(name, (None, now_seconds))
        if seen != mark:
            self._seen[name] = (mark, now_seconds)
            return False
        return now_seconds - since >= self._time_to_live

    def forget(self, name: str) -> None:
        """Drops what is known of a lease that has ended."""
        self._seen.pop(name, None)


class Leader:
    """Campaigns for a service's lease, so that of several replicas one acts."""

    def __init__(self, store: Store, name: str, holder: str, clock: Clock, time_to_live_seconds: float = 10.0) -> None:
        self._store, self._name, self._holder, self._clock = store, name, holder, clock
        self._time_to_live = time_to_live_seconds
        self._observer = Observer(time_to_live_seconds)
        self._task: asyncio.Task[None] | None = None
        self._elected = asyncio.Event()
        self._fence: int | None = None

    @property
    def fence(self) -> int | None:
        """The fence of this leader's writes; None while another leads."""
        return self._fence

    async def elected(self) -> int:
        """Waits until this replica leads; returns its fence."""
        while self._fence is None:
            await self._elected.wait()
        return self._fence

    def start(self) -> None:
        """Begins to campaign."""
        self._task = asyncio.create_task(self._campaign(), name=f"{self._name}-leader")

    async def stop(self) -> None:
        """Ends the campaign and gives the lease back, so that a successor need not wait."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._fence is not None:
            await self._store.run(_release, self._name, self._holder, self._fence)
            self._set(None)

    async def _campaign(self) -> None:
        while True:
            try:
                self._set(await self.attempt())
            except Exception:
                log.exception("the lease %s could not be renewed", self._name)
                self._set(None)
            await asyncio.sleep(self._time_to_live / 4)

    async def attempt(self) -> int | None:
        """One step of the campaign: renews, takes over or waits. Returns the fence if this replica leads."""
        current = await self._store.read(_get, self._name)
        if current is not None and current.holder not in ("", self._holder):
            if not self._observer.expired(self._name, current.fence, current.beat, self._clock.monotonic()):
                return None
        return await self._store.run(_take, self._name, self._holder, current, self._fence)

    def _set(self, fence: int | None) -> None:
        if fence != self._fence:
            log.info("the lease %s is %s", self._name, "held" if fence is not None else "lost")
        self._fence = fence
        if fence is None:
            self._elected.clear()
        else:
            self._elected.set()


def _get(tx: Transaction, name: str) -> Lease | None:
    row = tx.execute(sa.select(LEASES).where(LEASES.c.name == name)).first()
    return Lease(row.holder, row.fence, row.beat) if row else None


def _take(tx: Transaction, name: str, holder: str, seen: Lease | None, fence: int | None) -> int | None:
    if seen is None:
        if _get(tx, name) is not None:
            return None
        tx.execute(sa.insert(LEASES).values(name=name, holder=holder, fence=1, beat=0))
        return 1
    renewed = fence if seen.holder == holder and seen.fence == fence else seen.fence + 1
    swap = (
        sa.update(LEASES)
        .where(
            LEASES.c.name == name,
            LEASES.c.holder == seen.holder,
            LEASES.c.fence == seen.fence,
            LEASES.c.beat == seen.beat,
        )
        .values(holder=holder, fence=renewed, beat=seen.beat + 1)
    )
    return renewed if tx.execute(swap).rowcount else None


def _release(tx: Transaction, name: str, holder: str, fence: int) -> None:
    tx.execute(
        sa.update(LEASES)
        .where(LEASES.c.name == name, LEASES.c.holder == holder, LEASES.c.fence == fence)
        .values(holder="")
    )
