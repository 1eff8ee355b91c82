"""How many resources are in each state: read from the database now and then, for Prometheus."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from daf_common.metrics import RESOURCES, RESOURCES_AGE
from daf_common.store import Store, Transaction, revision_of

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 5.0
LARGEST_SHARE = 0.02
"""Of the time, for counting: where it takes long it is done less often."""


@dataclass(frozen=True)
class Kind:
    """One kind of resource."""

    name: str
    """The label's value."""
    state: sa.Column[str]
    """The column of its table that tells the state."""
    states: Sequence[str]
    """All that there are: those without a resource are shown as 0."""


class StateCounts:
    """Keeps the gauge `daf_resources` fresh for one service.

    A task reads, and Prometheus is shown what was read last: being scraped waits neither for a database nor for the
    event loop. All replicas read the same tables, so each shows the same, whoever leads. Nothing is counted while
    nothing has changed.
    """

    def __init__(self, store: Store, kinds: Sequence[Kind]) -> None:
        self._store, self._kinds = store, kinds
        self._revision = -1
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to read."""
        self._task = asyncio.create_task(self._run(), name=f"{self._store.schema}-state-counts")

    async def stop(self) -> None:
        """Stops reading."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def refresh(self) -> None:
        """Reads once.

        Raises:
            Unavailable: the database cannot be reached; what was read before goes on being shown, with its age.
        """
        revision = await self._store.read(revision_of)
        if revision != self._revision:
            for name, counts in (await self._store.scan(_count, self._kinds)).items():
                for state, number in counts.items():
                    RESOURCES.labels(name, state).set(number)
            self._revision = revision
        for kind in self._kinds:
            RESOURCES_AGE.labels(kind.name).set_to_current_time()

    async def _run(self) -> None:
        while True:
            start = time.monotonic()
            try:
                await self.refresh()
            except Exception as error:
                log.info("the resources of %s cannot be counted now: %s", self._store.schema, error)
            took = time.monotonic() - start
            await asyncio.sleep(max(INTERVAL_SECONDS, took / LARGEST_SHARE))


def _count(tx: Transaction, kinds: Sequence[Kind]) -> Mapping[str, Mapping[str, int]]:
    found = {}
    for kind in kinds:
        rows = tx.execute(sa.select(kind.state.label("state"), sa.func.count().label("number")).group_by(kind.state))
        counts = dict.fromkeys(kind.states, 0)
        # A state that only a newer release knows is not shown: its replicas show it.
        counts.update({row.state: row.number for row in rows if row.state in counts})
        found[kind.name] = counts
    return found
