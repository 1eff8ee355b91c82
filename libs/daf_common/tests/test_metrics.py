"""What is measured where it happens: transactions, leases, reconcilers, states; and the port that shows it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import httpx
import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY

from daf_common.clock import ManualClock
from daf_common.errors import Unavailable
from daf_common.faults import InjectedFault
from daf_common.leases import Leader
from daf_common.metrics_server import MetricsServer
from daf_common.reconciler import Reconciler
from daf_common.state_counts import Kind, StateCounts
from daf_common.store import COMMON, REVISION, Store, Transaction, revision_column

TABLES = sa.MetaData()
THINGS = sa.Table(
    "things",
    TABLES,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("state", sa.String(20), nullable=False),
    revision_column(),
)


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store(database_url, "measured")
    with store.engine.begin() as connection:
        if store.dialect == "postgresql":
            connection.execute(sa.schema.CreateSchema("measured"))
        COMMON.create_all(connection)
        TABLES.create_all(connection)
        connection.execute(sa.insert(REVISION).values(id=1, value=0))
    yield store
    store.close()


def add_thing(tx: Transaction, id: str, state: str) -> None:
    tx.execute(sa.insert(THINGS).values(id=id, state=state))
    tx.changed(THINGS, id)


async def test_what_is_to_follow_a_commit_is_done_once_however_often_it_was_tried(store: Store) -> None:
    done: list[str] = []
    tried = 0

    def write(tx: Transaction) -> None:
        nonlocal tried
        tried += 1
        tx.after_commit(lambda: done.append("counted"))
        if tried < 3:
            raise InjectedFault("a conflict")

    before = value("daf_store_transaction_retries_total", store="measured") or 0.0
    await store.run(write)

    assert (tried, done) == (3, ["counted"])
    assert value("daf_store_transaction_retries_total", store="measured") == before + 2


async def test_nothing_follows_a_transaction_that_is_rolled_back(store: Store) -> None:
    done: list[str] = []

    def write(tx: Transaction) -> None:
        tx.after_commit(lambda: done.append("counted"))
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        await store.run(write)
    assert done == []


async def test_resources_are_shown_by_state_those_that_have_none_as_zero(store: Store) -> None:
    counts = StateCounts(store, [Kind("thing", THINGS.c.state, ["NEW", "OLD"])])
    for number, state in enumerate(["NEW", "NEW", "OF_THE_NEXT_RELEASE"]):
        await store.run(add_thing, f"t{number}", state)

    await counts.refresh()

    shown = {
        state: value("daf_resources", kind="thing", state=state) for state in ("NEW", "OLD", "OF_THE_NEXT_RELEASE")
    }
    assert shown == {"NEW": 2, "OLD": 0, "OF_THE_NEXT_RELEASE": None}


async def test_resources_are_counted_only_after_a_change(store: Store) -> None:
    counts = StateCounts(store, [Kind("thing", THINGS.c.state, ["NEW"])])
    await store.run(add_thing, "t", "NEW")
    await counts.refresh()

    statements: list[str] = []
    sa.event.listen(store.engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    await counts.refresh()
    unchanged = list(statements)
    await store.run(add_thing, "u", "NEW")
    await counts.refresh()

    assert not any("things" in statement for statement in unchanged)
    assert value("daf_resources", kind="thing", state="NEW") == 2


async def test_who_leads_is_shown_and_a_lease_that_ran_out_is_counted(store: Store, clock: ManualClock) -> None:
    first, second = (Leader(store, "measured", replica, clock, 10) for replica in ("a", "b"))
    labels = {"lease": "measured"}
    expired = value("daf_lease_expiries_total", **labels) or 0.0
    changes = value("daf_leader_changes_total", **labels) or 0.0
    first.start()
    await first.elected()
    assert value("daf_leader", **labels) == 1

    clock.advance(11)  # it could not renew: another may lead by now
    assert value("daf_leader", **labels) == 0
    await first.stop()  # gives the lease back
    assert value("daf_leader_changes_total", **labels) == changes + 1
    assert (value("daf_lease_expiries_total", **labels) or 0.0) == expired

    await second.attempt()
    third = Leader(store, "measured", "c", clock, 10)
    assert await third.attempt() is None
    clock.advance(11)
    assert await third.attempt() is not None
    assert value("daf_lease_expiries_total", **labels) == expired + 1


class Stuck:
    """A controller that hangs while it observes."""

    def __init__(self) -> None:
        self.observing, self.release = asyncio.Event(), asyncio.Event()

    async def live(self) -> Sequence[str]:
        return []

    async def load(self, keys: Sequence[str]) -> Mapping[str, int]:
        return dict.fromkeys(keys, 0)

    async def observe(self, rows: Mapping[str, int]) -> Mapping[str, bool]:
        self.observing.set()
        await self.release.wait()
        self.release.clear()
        raise Unavailable("nobody answers")

    def decide(self, row: int, seen: bool, now: datetime) -> tuple[int, Sequence[str]]:
        return row, ()

    async def save(self, changes: Mapping[str, tuple[int, int]]) -> None: ...

    async def perform(self, key: str, row: int, action: str) -> None: ...


async def test_a_reconciler_that_hangs_lags_ever_more_and_its_failure_is_counted(clock: ManualClock) -> None:
    controller = Stuck()
    reconciler: Reconciler[int, bool, str] = Reconciler("measured", controller, clock)
    labels = {"reconciler": "measured"}
    failures = value("daf_reconcile_failures_total", **labels, cause="transient") or 0.0
    reconciler.start()
    try:
        reconciler.enqueue("a")
        await controller.observing.wait()
        clock.advance(30)
        reconciler.enqueue("b", "c")
        clock.advance(12)
        assert value("daf_reconcile_lag_seconds", **labels) == 42
        assert value("daf_reconcile_queue_length", **labels) == 2

        controller.observing.clear()
        controller.release.set()
        await controller.observing.wait()  # the next batch
        assert value("daf_reconcile_lag_seconds", **labels) == 12
        assert value("daf_reconcile_failures_total", **labels, cause="transient") == failures + 1
    finally:
        await reconciler.stop()
    assert value("daf_reconcile_lag_seconds", **labels) is None


async def test_metrics_and_health_are_served_while_the_event_loop_is_stuck() -> None:
    server = MetricsServer(0, lambda: True)
    server.start()
    answers: list[int] = []

    def ask() -> None:
        for path in ("metrics", "healthz", "metrics?name[]=up", "other"):
            answers.append(httpx.get(f"http://127.0.0.1:{server.port}/{path}", timeout=30).status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(120)  # on the event loop, which does nothing else meanwhile
    server.stop()
    assert answers == [200, 200, 200, 404]


async def test_a_client_that_says_nothing_keeps_nobody_waiting() -> None:
    server = MetricsServer(0, lambda: False)
    server.start()
    _, silent = await asyncio.open_connection("127.0.0.1", server.port)
    async with httpx.AsyncClient(timeout=30) as http:
        health = await http.get(f"http://127.0.0.1:{server.port}/healthz")
    silent.close()
    server.stop()
    assert health.status_code == 503


def test_metrics_are_served_to_other_machines_where_that_is_asked_for() -> None:
    server = MetricsServer(0, lambda: True, "0.0.0.0")
    server.start()
    try:
        for host in ("127.0.0.2", *(["[::1]"] if socket.has_dualstack_ipv6() else [])):  # a pod may have IPv6 alone
            assert httpx.get(f"http://{host}:{server.port}/healthz", timeout=30).status_code == 200
    finally:
        server.stop()
