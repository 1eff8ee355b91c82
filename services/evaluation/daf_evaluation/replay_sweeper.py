"""Deletes replays that no evaluation keeps, where the replica that dropped them could not."""

from __future__ import annotations

import asyncio
import logging

from daf_common.errors import TRANSIENT
from daf_common.leases import Leader
from daf_evaluation.replays import Replays

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 5.0


class ReplaySweeper:
    """Looks now and then, where this replica leads."""

    def __init__(self, replays: Replays, leader: Leader) -> None:
        self._replays, self._leader = replays, leader
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to work."""
        self._task = asyncio.create_task(self._work(), name="evaluation-replays")

    async def stop(self) -> None:
        """Stops."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            await self._leader.elected()
            try:
                await self._replays.clear()
            except TRANSIENT as error:
                log.info("replays will be deleted later: %s", error)
            except Exception:
                log.exception("replays could not be deleted, which will be tried again")
            await asyncio.sleep(INTERVAL_SECONDS)
