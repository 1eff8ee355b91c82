"""Leases: who may act, decided without comparing clocks of different machines.

A holder raises `beat` again and again. Whoever sees the same beat for a whole time-to-live on its own monotonic clock
takes over by compare-and-swap and raises `fence`; every write of a holder carries its fence, so a late one is refused.
A holder that could not renew for as long stops by itself, so as a rule its successor is alone from the beginning.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from dataclasses import dataclass

import sqlalchemy as sa

from daf_common import metrics
from daf_common.clock import Clock
from daf_common.errors import Aborted
from daf_common.store import LEASES, Store, Transaction

log = logging.getLogger(__name__)

RENEWALS = 4
"""How often a holder renews its lease in a time-to-live."""
LOOKS = 10
"""How often the others look at it in that time."""
PATIENCE_SECONDS = 0.5
_MANY_MARKS = 10_000


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
            self._drop_old(now_seconds)
            self._seen[name] = (mark, now_seconds)
            return False
        return now_seconds - since >= self._time_to_live

    def forget(self, name: str) -> None:
        """Drops what is known of a lease that has ended."""
        self._seen.pop(name, None)

    def _drop_old(self, now_seconds: float) -> None:
        # Of leases that ended at another replica nobody tells this one. What is dropped too early is seen anew.
        if len(self._seen) >= _MANY_MARKS:
            recent = now_seconds - 2 * self._time_to_live
            self._seen = {name: seen for name, seen in self._seen.items() if seen[1] >= recent}


class Leader:
    """Campaigns for a service's lease, so that of several replicas one acts."""

    def __init__(self, store: Store, name: str, replica: str, clock: Clock, time_to_live_seconds: float = 10.0) -> None:
        """`replica` is this replica's name. One that was killed and is started again by that name leads at once."""
        self._store, self._name, self._replica, self._clock = store, name, replica, clock
        # With a part of its own: were two processes to have the same name, one of them alone would lead.
        self._holder = f"{replica}#{uuid.uuid4().hex[:8]}"
        self._time_to_live = time_to_live_seconds
        self._observer = Observer(time_to_live_seconds)
        self._task: asyncio.Task[None] | None = None
        self._elected = asyncio.Event()
        self._wake = asyncio.Event()
        self._fence: int | None = None
        self._renewed = 0.0
        self._has_led = False

    @property
    def fence(self) -> int | None:
        """The fence of this leader's writes; None while another leads, or may by now."""
        if self._fence is None or self._holds():
            return self._fence
        self._wake.set()
        return None

    async def elected(self) -> int:
        """Waits until this replica leads; returns its fence."""
        while (fence := self.fence) is None:
            self._elected.clear()
            await self._elected.wait()
        return fence

    async def lead(self) -> int | None:
        """This leader's fence; None while another leads. Waits a moment for a renewal that is late."""
        if self.fence is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.elected(), PATIENCE_SECONDS)
        return self.fence

    def check(self, fence: int | None) -> int:
        """Refuses to act for a leader that has been overtaken, or may have been; returns its fence.

        Raises:
            Aborted: this replica does not lead under this fence any more.
        """
        if fence is None or self.fence != fence:
            raise Aborted(f"another replica leads {self._name}", reason="STALE_FENCE")
        return fence

    def start(self) -> None:
        """Begins to campaign."""
        metrics.LEADER.labels(self._name).set_function(self._holds)
        self._task = asyncio.create_task(self._campaign(), name=f"{self._name}-leader")

    async def stop(self) -> None:
        """Ends the campaign and gives the lease back, so that a successor need not wait."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            metrics.LEADER.remove(self._name)
        if self._fence is not None:
            fence = self._fence
            self._set(None)
            try:
                await self._store.run(_release, self._name, self._holder, fence)
            except Exception as error:  # the database is away: the lease runs out by itself
                log.info("the lease %s could not be given back: %s", self._name, error)

    def _holds(self) -> bool:
        return self._fence is not None and self._clock.monotonic() - self._renewed < self._time_to_live

    async def _campaign(self) -> None:
        while True:
            self._wake.clear()
            try:
                async with asyncio.timeout(self._time_to_live / 2):  # a database may also be silent for ever
                    await self.attempt()
            except Exception as error:
                # What was held stays held for as long as nobody else can have it: see `fence`.
                log.info("the lease %s will be tried again: %r", self._name, error)
            await self._pause(self._time_to_live / (LOOKS if self._fence is None else RENEWALS))

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)

    async def attempt(self) -> int | None:
        """One step of the campaign: renews, takes over or waits. Returns the fence if this replica leads."""
        before = self._clock.monotonic()
        current = await self._store.read(_get, self._name)
        if current is not None and not self._is_free(current):
            self._set(None)
            return None
        fence = await self._store.run(_take, self._name, self._holder, current)
        if fence is not None:
            self._renewed = before  # not later than any other replica can have seen this beat
            if current is not None and current.holder and current.holder.partition("#")[0] != self._replica:
                metrics.LEASES_EXPIRED.labels(self._name).inc()
        self._set(fence)
        return fence

    def _is_free(self, lease: Lease) -> bool:
        if lease.holder in ("", self._holder):
            return True
        if not self._has_led and lease.holder.partition("#")[0] == self._replica:
            return True  # this process before it was started again
        return self._observer.expired(self._name, lease.fence, lease.beat, self._clock.monotonic())

    def _set(self, fence: int | None) -> None:
        if fence != self._fence:
            log.info("the lease %s is %s", self._name, "held" if fence is not None else "lost")
        if fence is not None and fence != self._fence:
            metrics.LEADER_CHANGES.labels(self._name).inc()
        self._fence = fence
        if fence is not None:
            self._has_led = True
            self._elected.set()


def _get(tx: Transaction, name: str) -> Lease | None:
    row = tx.execute(sa.select(LEASES).where(LEASES.c.name == name)).first()
    return Lease(row.holder, row.fence, row.beat) if row else None


def _take(tx: Transaction, name: str, holder: str, seen: Lease | None) -> int | None:
    """Renews a lease or takes it over, if it is still as it was seen; returns its fence."""
    if seen is None:
        if _get(tx, name) is not None:
            return None
        tx.execute(sa.insert(LEASES).values(name=name, holder=holder, fence=1, beat=0))
        return 1
    fence = seen.fence if seen.holder == holder else seen.fence + 1
    swap = (
        sa.update(LEASES)
        .where(
            LEASES.c.name == name,
            LEASES.c.holder == seen.holder,
            LEASES.c.fence == seen.fence,
            LEASES.c.beat == seen.beat,
        )
        .values(holder=holder, fence=fence, beat=seen.beat + 1)
    )
    return fence if tx.execute(swap).rowcount else None


def _release(tx: Transaction, name: str, holder: str, fence: int) -> None:
    tx.execute(
        sa.update(LEASES)
        .where(LEASES.c.name == name, LEASES.c.holder == holder, LEASES.c.fence == fence)
        .values(holder="")
    )
