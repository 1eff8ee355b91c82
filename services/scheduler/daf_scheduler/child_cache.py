"""The newest sight of every child that is waited for, fed by a watch, so that looking costs no call as a rule."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from daf_common.clock import Clock
from daf_common.errors import DafError, InvalidArgument
from daf_scheduler.children import Child, ChildState, Reason, refused
from daf_scheduler.peers import ChildService, Sightings, is_final

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS = 0.1
MAX_DELAY_SECONDS = 5.0


@dataclass
class _Entry:
    wake: Callable[[], None]
    child: Child | None = None
    seen_at: float = 0.0


class ChildCache[Spec]:
    """Children of one service, by id.

    Only children that somebody waits for are kept. The cache may be lost at any time: creating a child that exists
    finds it, and a child that has not been heard of for a while is read again.
    """

    def __init__(self, service: ChildService[Spec], clock: Clock, reread_seconds: float) -> None:
        self._service, self._clock, self._reread_seconds = service, clock, reread_seconds
        self._entries: dict[str, _Entry] = {}  # by resource name
        self._watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to watch."""
        self._watch = asyncio.create_task(self._follow(), name=f"watch-{self._service.name('*')}")

    async def stop(self) -> None:
        """Stops watching."""
        if self._watch:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    def expect(self, id: str, wake: Callable[[], None]) -> None:
        """Waits for a child: `wake` is called when it changes."""
        self._entries.setdefault(self._service.name(id), _Entry(wake))

    def forget(self, id: str) -> None:
        """Waits for a child no longer."""
        self._entries.pop(self._service.name(id), None)

    async def look(self, id: str, *, thorough: bool = False) -> Child | None:
        """The newest sight of a child that is expected; None if it is not known to exist.

        Args:
            id: the child's id.
            thorough: asks the service about a child that is not known, instead of leaving that to its creation.
        """
        entry = self._entries[self._service.name(id)]
        stale = self._clock.monotonic() - entry.seen_at >= self._reread_seconds
        if (entry.child is None and thorough) or (entry.child is not None and entry.child.live and stale):
            found = await self._service.get(id)
            if found is not None:
                self._see(found)
            elif entry.child is not None:
                self._lose(self._service.name(id))
        return entry.child

    async def create(self, id: str, spec: Spec, creator: str) -> None:
        """Creates a child for whoever created its parent, or notes that its service refuses to."""
        try:
            child = await self._service.create(id, spec, creator)
        except DafError as error:
            if not is_final(error):
                raise
            child = refused(self._service.name(id), error)
        self._see(child)

    async def cancel(self, id: str) -> None:
        """Asks a child to stop."""
        child = await self._service.cancel(id)
        if child is None:
            self._lose(self._service.name(id))
        else:
            self._see(child)

    async def _follow(self) -> None:
        cursor, delay = "", FIRST_DELAY_SECONDS
        while True:
            try:
                async for sightings in self._service.watch(cursor):
                    self._take(sightings)
                    cursor, delay = sightings.cursor, FIRST_DELAY_SECONDS
            except InvalidArgument:
                cursor = ""  # not a cursor of this database: start from the present state
            except DafError as error:
                log.info("the watch of %s will be opened again: %s", self._service.name("*"), error)
            await asyncio.sleep(delay)
            delay = min(delay * 2, MAX_DELAY_SECONDS)

    def _take(self, sightings: Sightings) -> None:
        for child in sightings.children:
            self._see(child)
        for name in sightings.deleted:
            self._lose(name)

    def _see(self, child: Child) -> None:
        entry = self._entries.get(child.name)
        if entry is None:
            return
        entry.seen_at = self._clock.monotonic()
        known = entry.child
        if known is not None and (known.revision > child.revision or not known.live):
            return
        entry.child = child
        if known is None or known.state is not child.state:
            entry.wake()

    def _lose(self, name: str) -> None:
        reason = Reason("DELETED", f"{name} was deleted before its result was read")
        entry = self._entries.get(name)
        if entry is not None and entry.child is not None and entry.child.live:
            entry.child = Child(name, ChildState.FAILED, reason)
            entry.wake()
