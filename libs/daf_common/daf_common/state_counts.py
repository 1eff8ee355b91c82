"""How many resources are in each state: read from the database now and then, for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from daf_common.metrics import RESOURCES, RESOURCES_AGE
from daf_common.periodic import Periodic
from daf_common.store import Store, Transaction, revision_of

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


class StateCounts(Periodic):
    """Keeps the gauge `daf_resources` fresh for one service.

    A task reads, and Prometheus is shown what was read last: being scraped waits neither for a database nor for the
    event loop. All replicas read the same tables, so each shows the same, whoever leads. Nothing is counted while
    nothing has changed.
    """

    def __init__(self, store: Store, kinds: Sequence[Kind]) -> None:
        super().__init__(f"{store.schema}-state-counts", self.refresh, INTERVAL_SECONDS, largest_share=LARGEST_SHARE)
        self._store, self._kinds = store, kinds
        self._revision = -1

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


def _count(tx: Transaction, kinds: Sequence[Kind]) -> Mapping[str, Mapping[str, int]]:
    found = {}
    for kind in kinds:
        rows = tx.execute(sa.select(kind.state.label("state"), sa.func.count().label("number")).group_by(kind.state))
        counts = dict.fromkeys(kind.states, 0)
        # A state that only a newer release knows is not shown: its replicas show it.
        counts.update({row.state: row.number for row in rows if row.state in counts})
        found[kind.name] = counts
    return found
