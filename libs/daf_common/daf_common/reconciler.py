"""The one loop that every service runs: observe, decide, then either write or act.

It is level-triggered: it looks at what is, never at what happened, so it can be killed at any instruction and events
that are lost cost only time. Keys are handled in batches, so that a hundred live rows cost a few transactions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from daf_common import metrics
from daf_common.clock import Clock
from daf_common.errors import TRANSIENT

log = logging.getLogger(__name__)

MAX_BATCH = 64
GATHER_SECONDS = 0.01
"""How long the loop waits for more keys before it takes a batch: under load one transaction then serves many."""
FIRST_DELAY_SECONDS = 0.05
MAX_DELAY_SECONDS = 30.0


class Controller[Row, Seen, Action](Protocol):
    """What a service tells the loop about one kind of row."""

    async def live(self) -> Sequence[str]:
        """Keys of all rows that are not at their end."""
        ...

    async def load(self, keys: Sequence[str]) -> Mapping[str, Row]:
        """The rows, in one transaction. Keys that are gone are left out."""
        ...

    async def observe(self, rows: Mapping[str, Row]) -> Mapping[str, Seen]:
        """What the world looks like for each row. A row that cannot be observed now is left out and tried again."""
        ...

    def decide(self, row: Row, seen: Seen, now: datetime) -> tuple[Row, Sequence[Action]]:
        """Pure: the row as it should be stored, and what to do once it is."""
        ...

    async def save(self, changes: Mapping[str, tuple[Row, Row]]) -> None:
        """Stores rows (old, new) in one transaction; skips those that somebody else has changed since."""
        ...

    async def perform(self, key: str, row: Row, action: Action) -> None:
        """Does one thing. Doing it twice must be like doing it once."""
        ...


class Reconciler[Row, Seen, Action]:
    """Runs a controller: a queue without duplicates, back-off, and a periodic look at everything."""

    def __init__(
        self, name: str, controller: Controller[Row, Seen, Action], clock: Clock, resync_seconds: float = 2.0
    ) -> None:
        self._name, self._controller, self._clock = name, controller, clock
        self._resync_seconds = resync_seconds
        self._due: dict[str, float] = {}  # since when, by the monotonic clock, in order of arrival
        self._oldest_at_hand: float | None = None  # of the batch that is being handled
        self._later: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._seconds = metrics.RECONCILE_SECONDS.labels(name)
        self._rows = metrics.RECONCILED_ROWS.labels(name)

    def start(self) -> None:
        """Begins to work."""
        # Both are read by the thread that serves them to Prometheus, without the event loop.
        metrics.RECONCILE_QUEUE.labels(self._name).set_function(lambda: len(self._due))
        metrics.RECONCILE_LAG.labels(self._name).set_function(self._lag_seconds)
        self._tasks = [
            asyncio.create_task(self._work(), name=f"{self._name}-reconciler"),
            asyncio.create_task(self._resync(), name=f"{self._name}-resync"),
        ]

    async def stop(self) -> None:
        """Stops; what is not done yet is done by the next who starts."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for timer in self._later.values():
            timer.cancel()
        self._later.clear()
        for gauge in (metrics.RECONCILE_QUEUE, metrics.RECONCILE_LAG):
            gauge.remove(self._name)

    def enqueue(self, *keys: str) -> None:
        """Asks for a look at these rows soon."""
        for key in keys:
            if timer := self._later.pop(key, None):
                timer.cancel()
            self._due.setdefault(key, self._clock.monotonic())
        if keys:
            self._wake.set()

    async def step(self) -> int:
        """Handles one batch of what is due; returns its size. `start` calls it in a loop; tests call it themselves."""
        keys = list(self._due)[:MAX_BATCH]
        if not keys:
            return 0
        self._oldest_at_hand = self._due[keys[0]]
        for key in keys:
            del self._due[key]
        try:
            with self._seconds.time():
                await self._handle(keys)
        except Exception as error:
            self._log_failure("a batch", error)
            for key in keys:
                self._back_off(key)
        finally:
            self._oldest_at_hand = None
        self._rows.inc(len(keys))
        return len(keys)

    async def _handle(self, keys: Sequence[str]) -> None:
        controller = self._controller
        rows = await controller.load(keys)
        seen = await controller.observe(rows) if rows else {}
        now = self._clock.now()
        changes: dict[str, tuple[Row, Row]] = {}
        actions: dict[str, Sequence[Action]] = {}
        for key, row in rows.items():
            if key not in seen:
                self._back_off(key)
                continue
            new, todo = controller.decide(row, seen[key], now)
            if new != row:
                changes[key] = (row, new)  # either write ...
            elif todo:
                actions[key] = todo  # ... or act, never both
            else:
                self._failures.pop(key, None)
        if changes:
            await controller.save(changes)
            for key in changes:
                self._failures.pop(key, None)
            self.enqueue(*changes)
        await asyncio.gather(*(self._perform(key, rows[key], todo) for key, todo in actions.items()))

    async def _perform(self, key: str, row: Row, actions: Sequence[Action]) -> None:
        try:
            for action in actions:
                await self._controller.perform(key, row, action)
        except Exception as error:
            self._log_failure(key, error)
        # Looked at again either way: soon, but ever later while only acting and nothing changes.
        self._back_off(key)

    def _back_off(self, key: str) -> None:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(FIRST_DELAY_SECONDS * 2**failures, MAX_DELAY_SECONDS)
        if key not in self._due and key not in self._later:
            self._later[key] = asyncio.get_running_loop().call_later(delay, self.enqueue, key)

    def _lag_seconds(self) -> float:
        oldest = self._oldest_at_hand  # what is at hand has waited longer than what is not
        if oldest is None:
            oldest = next(iter(list(self._due.values())), None)
        return 0.0 if oldest is None else self._clock.monotonic() - oldest

    def _log_failure(self, what: str, error: Exception) -> None:
        transient = isinstance(error, TRANSIENT)
        metrics.RECONCILE_FAILURES.labels(self._name, "transient" if transient else "defect").inc()
        if transient:
            log.info("%s: %s will be tried again: %s", self._name, what, error)
        else:
            log.exception("%s: %s failed and will be tried again", self._name, what, exc_info=error)

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            if not await self.step():
                await self._wake.wait()
            await asyncio.sleep(GATHER_SECONDS)

    async def _resync(self) -> None:
        while True:
            try:
                keys = await self._controller.live()
                self.enqueue(*(key for key in keys if key not in self._later))
            except Exception as error:
                self._log_failure("the list of live rows", error)
            await asyncio.sleep(self._resync_seconds)
