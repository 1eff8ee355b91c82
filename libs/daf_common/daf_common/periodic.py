"""What a service does now and then, for as long as it works."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from daf_common.errors import TRANSIENT

log = logging.getLogger(__name__)


class Periodic:
    """Takes a step again and again, whatever comes of the last one.

    A step that may only be taken where this replica leads begins by waiting for that.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], Awaitable[object]],
        seconds: float,
        *,
        retry_seconds: float | None = None,
        largest_share: float = 1.0,
        passing: tuple[type[Exception], ...] = TRANSIENT,
    ) -> None:
        """Does nothing yet.

        Args:
            name: of the task, and in logs.
            step: what is done.
            seconds: how long it rests between two steps.
            retry_seconds: how long it rests after one that failed, where that is something else.
            largest_share: of the time, for steps: after one that took long it rests for longer.
            passing: errors that are no defect; others are logged with their traceback.
        """
        self._name, self._step, self._seconds = name, step, seconds
        self._retry_seconds = seconds if retry_seconds is None else retry_seconds
        self._largest_share, self._passing = largest_share, passing
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins, with a step."""
        self._task = asyncio.create_task(self._work(), name=self._name)

    async def stop(self) -> None:
        """Stops, in the midst of a step if need be."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            start = time.monotonic()
            rest = self._seconds if await self._try() else self._retry_seconds
            took = time.monotonic() - start
            await asyncio.sleep(max(rest, took / self._largest_share - took))

    async def _try(self) -> bool:
        try:
            await self._step()
        except self._passing as error:
            log.info("%s: will be tried again: %s", self._name, error)
        except Exception:
            log.exception("%s: failed, and will be tried again", self._name)
        else:
            return True
        return False
