"""The store on SQLite and on PostgreSQL: transactions, revisions, watches, requests, leases."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

import daf_common.store
from daf_common.clock import ManualClock
from daf_common.errors import Aborted, AlreadyExists, InvalidArgument, Unavailable
from daf_common.leases import Leader
from daf_common.others import OtherReplicas
from daf_common.requests import REMEMBERED, forgetter, once
from daf_common.store import COMMON, REQUESTS, REVISION, Store, Transaction, check_fence, revision_column, revision_of
from daf_common.watch import Watcher
from daf_protos.training.v1.training_service_pb2 import CreateTrainingJobRequest

TABLES = sa.MetaData()
THINGS = sa.Table("things", TABLES, sa.Column("id", sa.String, primary_key=True), revision_column())


def add(tx: Transaction, id: str) -> str:
    tx.execute(sa.insert(THINGS).values(id=id))
    tx.changed(THINGS, id)
    return id


def ids_after(tx: Transaction, revision: int) -> list[str]:
    query = sa.select(THINGS.c.id).where(THINGS.c.revision > revision).order_by(THINGS.c.revision)
    return list(tx.execute(query).scalars())


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    store = Store(database_url, "public")
    with store.engine.begin() as connection:
        COMMON.create_all(connection)
        TABLES.create_all(connection)
        connection.execute(sa.insert(REVISION).values(id=1, value=0))
    yield store
    store.close()


async def test_a_failed_transaction_writes_nothing(store: Store) -> None:
    def fails(tx: Transaction) -> None:
        add(tx, "a")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await store.run(fails)
    assert await store.read(ids_after, -1) == []


@pytest.mark.parametrize("method", ["read", "scan"])
async def test_a_read_sees_one_moment_whatever_others_write_meanwhile(
    store: Store, database_url: str, method: str
) -> None:
    other = Store(database_url, "public")

    def look(tx: Transaction) -> list[tuple[int, list[str]]]:
        before = revision_of(tx), ids_after(tx, -1)
        with other.engine.begin() as connection:
            late = Transaction(connection)
            add(late, "late")
            late.stamp()
        return [before, (revision_of(tx), ids_after(tx, -1))]

    await store.run(add, "early")
    first, second = await getattr(store, method)(look)

    assert first == second == (1, ["early"])
    assert await store.read(ids_after, -1) == ["early", "late"]
    other.close()


async def test_a_write_waits_for_others_where_a_snapshot_would_be_refused(store: Store) -> None:
    """Also on the connection of a read, which keeps what it was told."""
    if store.dialect == "sqlite":
        pytest.skip("SQLite has one writer at a time")

    def level(tx: Transaction) -> str:
        return str(tx.execute(sa.text("SHOW transaction_isolation")).scalar_one())

    levels = [await use(level) for use in (store.run, store.read, store.run, store.scan, store.run)]

    assert levels == ["read committed", "repeatable read"] * 2 + ["read committed"]


async def test_a_read_cannot_write(store: Store) -> None:
    if store.dialect == "sqlite":
        pytest.skip("SQLite would have to be told anew for each transaction")
    with pytest.raises(DBAPIError, match="read-only"):
        await store.read(add, "a")
    await store.run(add, "a")
    assert await store.read(ids_after, -1) == ["a"]


async def test_a_watch_shows_the_present_state_then_each_change_and_resumes_at_a_cursor(store: Store) -> None:
    watcher = Watcher(store)
    await store.run(add, "a")
    changes = watcher.changes("things", "thing", ids_after, "")

    first = await anext(changes)
    await store.run(add, "b")
    second = await asyncio.wait_for(anext(changes), 30)
    resumed = await anext(watcher.changes("things", "thing", ids_after, first.cursor))

    assert (first.rows, second.rows, resumed.rows) == (["a"], ["b"], ["b"])


async def test_a_watch_refuses_the_cursor_of_another(store: Store) -> None:
    watcher = Watcher(store)
    first = await anext(watcher.changes("things", "thing", ids_after, ""))
    with pytest.raises(InvalidArgument, match="cursor"):
        await anext(watcher.changes("others", "thing", ids_after, first.cursor))


async def test_watches_end_when_the_service_stops(store: Store) -> None:
    watcher = Watcher(store)
    changes = watcher.changes("things", "thing", ids_after, "")
    await anext(changes)
    await watcher.stop()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(anext(changes), 30)


async def test_a_watch_says_what_was_deleted(store: Store) -> None:
    def delete(tx: Transaction) -> None:
        tx.execute(sa.delete(THINGS))
        tx.deleted("thing", "a")

    watcher = Watcher(store)
    await store.run(add, "a")
    changes = watcher.changes("things", "thing", ids_after, "")
    await anext(changes)
    await store.run(delete)
    assert (await asyncio.wait_for(anext(changes), 30)).deleted == ["a"]


async def test_a_slow_writer_is_not_lost_between_two_reads_of_a_watch(database_url: str, store: Store) -> None:
    """Two writers at once: the one that began first commits last. A watch that read in between still sees it."""
    if store.dialect == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    other = Store(database_url, "public")
    began, go_on = threading.Event(), threading.Event()

    def slow(tx: Transaction) -> None:
        add(tx, "slow")
        began.set()
        assert go_on.wait(30)

    watcher = Watcher(store)
    slow_write = asyncio.create_task(other.run(slow))
    await asyncio.to_thread(began.wait, 30)
    await store.run(add, "fast")
    changes = watcher.changes("things", "thing", ids_after, "")
    assert (await anext(changes)).rows == ["fast"]
    go_on.set()
    await slow_write
    watcher.start()  # the other store is another replica, so only polling sees it
    assert (await asyncio.wait_for(anext(changes), 30)).rows == ["slow"]
    await watcher.stop()
    other.close()


async def test_the_same_request_a_hundred_times_creates_once(store: Store, clock: ManualClock) -> None:
    request = CreateTrainingJobRequest(request_id="r", job_id="j")

    def create(tx: Transaction) -> str:
        return once(tx, "CreateTrainingJob", "r", request, clock.now(), lambda: add(tx, "j"))

    names = await asyncio.gather(*(store.run(create) for _ in range(100)))

    assert set(names) == {"j"}
    assert await store.read(ids_after, -1) == ["j"]


async def test_a_request_whose_twin_is_carried_out_in_the_meantime_finds_what_that_created(
    store: Store, database_url: str, clock: ManualClock
) -> None:
    if store.dialect == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    other = Store(database_url, "public")
    request = CreateTrainingJobRequest(request_id="r", job_id="j")
    asked, created = threading.Event(), threading.Event()

    def create(tx: Transaction) -> str:
        def find_it_taken() -> str:
            asked.set()
            assert created.wait(30)
            raise AlreadyExists("the id j is taken")

        return once(tx, "CreateTrainingJob", "r", request, clock.now(), find_it_taken)

    late = asyncio.create_task(store.run(create))
    await asyncio.to_thread(asked.wait, 30)
    await other.run(lambda tx: once(tx, "CreateTrainingJob", "r", request, clock.now(), lambda: add(tx, "j")))
    created.set()

    assert await late == "j"
    other.close()


async def test_a_request_id_with_another_body_is_refused(store: Store, clock: ManualClock) -> None:
    def create(tx: Transaction, job: str) -> str:
        request = CreateTrainingJobRequest(request_id="r", job_id=job)
        return once(tx, "CreateTrainingJob", "r", request, clock.now(), lambda: add(tx, job))

    await store.run(create, "a")
    with pytest.raises(AlreadyExists, match="choose a new one"):
        await store.run(create, "b")


async def test_old_requests_are_forgotten_even_after_the_database_was_away(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remember(tx: Transaction, request_id: str) -> str:
        return once(tx, "Create", request_id, CreateTrainingJobRequest(), clock.now(), lambda: "jobs/j")

    async def remembered() -> list[str]:
        return await store.read(lambda tx: list(tx.execute(sa.select(REQUESTS.c.request_id)).scalars()))

    async def away(*_arguments: object) -> None:
        failed.set()
        raise Unavailable("the database does not answer")

    failed = asyncio.Event()
    await store.run(remember, "old")
    clock.advance(REMEMBERED.total_seconds() + 1)
    await store.run(remember, "new")
    forgetting = forgetter(store, clock, retry_seconds=0.01)
    with monkeypatch.context() as patch:
        patch.setattr(store, "run", away)
        forgetting.start()
        await failed.wait()
    async with asyncio.timeout(30):
        while "old" in await remembered():
            await asyncio.sleep(0.01)
    await forgetting.stop()

    assert await remembered() == ["new"]


async def test_only_one_of_two_leaders_leads_until_it_stands_still(store: Store, clock: ManualClock) -> None:
    first, second = (Leader(store, "scheduler", holder, clock, 10) for holder in ("a", "b"))

    assert await first.attempt() == 1
    assert await second.attempt() is None
    clock.jump(3600)  # a wall clock that jumps steals no lease
    assert await second.attempt() is None
    clock.advance(11)
    assert await second.attempt() == 2

    with pytest.raises(Aborted):
        await store.run(check_fence, "scheduler", 1)
    await store.run(check_fence, "scheduler", 2)


async def test_a_leader_that_cannot_renew_stops_before_another_can_take_over(store: Store, clock: ManualClock) -> None:
    first, second = (Leader(store, "scheduler", replica, clock, 10) for replica in ("a", "b"))
    await first.attempt()
    await second.attempt()

    clock.advance(9)
    assert first.check(first.fence) == 1
    clock.advance(1)
    assert first.fence is None
    with pytest.raises(Aborted, match="another replica leads scheduler"):
        first.check(1)
    assert await second.attempt() == 2
    assert await first.attempt() is None


async def test_a_leader_that_was_late_goes_on_under_its_fence_if_nobody_took_over(
    store: Store, clock: ManualClock
) -> None:
    leader = Leader(store, "scheduler", "a", clock, 10)
    leader.start()
    assert await asyncio.wait_for(leader.elected(), 30) == 1
    clock.advance(3600)  # it was stopped, and is not again until it has renewed

    assert await asyncio.wait_for(leader.elected(), 30) == 1

    await leader.stop()
    assert leader.fence is None


async def test_a_replica_that_was_killed_leads_again_at_once(store: Store, clock: ManualClock) -> None:
    killed = Leader(store, "scheduler", "a", clock, 10)
    await killed.attempt()
    assert await Leader(store, "scheduler", "a", clock, 10).attempt() == 2


async def test_of_two_processes_of_one_name_one_leads(store: Store, clock: ManualClock) -> None:
    first, second = (Leader(store, "scheduler", "a", clock, 10) for _ in range(2))
    await first.attempt()

    assert await second.attempt() == 2  # as if the first had been killed
    assert [await first.attempt(), await second.attempt(), await first.attempt()] == [None, 2, None]


async def test_a_leader_that_stops_gives_its_lease_back(store: Store, clock: ManualClock) -> None:
    first, second = (Leader(store, "scheduler", replica, clock, 10) for replica in ("a", "b"))
    await first.attempt()
    await first.stop()
    assert await second.attempt() == 2


async def test_nobody_takes_over_within_a_transaction_of_the_leader(
    store: Store, database_url: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store.dialect == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    for limit in ("IDLE_SECONDS", "STATEMENT_SECONDS"):
        monkeypatch.setattr(daf_common.store, limit, 120)  # whoever stands still here is not to be ended for it
    leading, other = Store(database_url, "public"), Store(database_url, "public")
    first, second = Leader(leading, "scheduler", "a", clock, 10), Leader(other, "scheduler", "b", clock, 10)
    await first.attempt()
    await second.attempt()
    checked, go_on = threading.Event(), threading.Event()

    def slow(tx: Transaction) -> None:
        check_fence(tx, "scheduler", 1)
        checked.set()
        assert go_on.wait(30)
        add(tx, "late")

    writing = asyncio.create_task(leading.run(slow))
    await asyncio.to_thread(checked.wait, 30)
    clock.advance(11)
    taking = asyncio.create_task(second.attempt())
    await asyncio.to_thread(_wait_for_a_lock, store)
    assert not taking.done()
    go_on.set()
    await writing

    assert await taking == 2
    assert await other.read(ids_after, -1) == ["late"]
    leading.close()
    other.close()


def stands_between_statements(tx: Transaction) -> None:
    check_fence(tx, "scheduler", 1)


def stands_in_a_statement(tx: Transaction) -> None:
    check_fence(tx, "scheduler", 1)
    tx.execute(sa.text("SELECT pg_sleep(60)"))


@pytest.mark.parametrize("stands", [stands_between_statements, stands_in_a_statement])
async def test_who_stands_still_in_a_transaction_holds_nobody_up(
    store: Store, database_url: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, stands: Any
) -> None:
    if store.dialect == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    for limit in ("IDLE_SECONDS", "STATEMENT_SECONDS"):
        monkeypatch.setattr(daf_common.store, limit, 0.5)
    stopped = Store(database_url, "public")
    first, second = (Leader(store, "scheduler", replica, clock, 10) for replica in ("a", "b"))
    await first.attempt()
    await second.attempt()
    standing, go_on = threading.Event(), threading.Event()

    def stand(tx: Transaction) -> None:
        if not standing.is_set():
            standing.set()
            stands(tx)
        assert go_on.wait(60)  # also where it is tried again: another has taken over by then
        check_fence(tx, "scheduler", 1)

    writing = asyncio.create_task(stopped.run(stand))
    try:
        await asyncio.to_thread(standing.wait, 30)
        clock.advance(11)
        async with asyncio.timeout(30):
            while await second.attempt() != 2:
                await asyncio.sleep(0.1)
    finally:
        go_on.set()
    with pytest.raises((Aborted, Unavailable, DBAPIError)):
        await writing
    stopped.close()


async def test_only_who_says_so_may_take_longer(
    store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store.dialect == "sqlite":
        pytest.skip("SQLite ends no statement")
    monkeypatch.setattr(daf_common.store, "STATEMENT_SECONDS", 0.2)
    other = Store(database_url, "public")

    def wait(tx: Transaction, patient: bool) -> str:
        if patient:
            tx.take_your_time()
        tx.execute(sa.text("SELECT pg_sleep(0.5)"))
        return "waited"

    assert await other.run(wait, True) == "waited"
    assert await other.scan(wait, False) == "waited"
    with pytest.raises(Unavailable):
        await other.run(wait, False)
    other.close()


async def test_many_rows_are_never_sent_in_parts_that_the_server_waits_between(store: Store, tmp_path: Path) -> None:
    if store.dialect == "sqlite":
        pytest.skip("SQLite has no server")
    log = (tmp_path / "messages").open("w+")

    def write(tx: Transaction) -> int:
        driver: Any = tx.connection.connection.dbapi_connection
        driver.pgconn.trace(log.fileno())
        tx.execute(sa.insert(THINGS), [{"id": f"t{number}"} for number in range(20)])
        rows = [{"wanted": f"t{number}"} for number in range(20)]
        tx.execute(sa.update(THINGS).where(THINGS.c.id == sa.bindparam("wanted")).values(revision=7), rows)
        tx.changed(THINGS, *(f"t{number}" for number in range(10)))
        tx.stamp()
        driver.pgconn.untrace()
        return len(tx.execute(sa.select(THINGS.c.id)).all())

    assert await store.run(write) == 20
    log.seek(0)
    sent = [line.split("\t")[3].strip() for line in log if line.split("\t")[1] == "F"]
    after = [following for message, following in pairwise(sent) if message == "Execute"]
    assert len(after) > 20
    assert set(after) == {"Sync"}


def _wait_for_a_lock(store: Store) -> None:
    """Until some statement waits for another's lock."""
    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with store.engine.connect() as connection:
        while not connection.execute(waiting).scalar_one():
            connection.rollback()


async def test_what_another_replica_changes_reaches_the_leader_alone(
    store: Store, database_url: str, clock: ManualClock
) -> None:
    other = Store(database_url, "public")
    leaders = [Leader(one, "things", replica, clock, 10) for one, replica in ((store, "a"), (other, "b"))]
    heard: tuple[asyncio.Queue[str], asyncio.Queue[str]] = (asyncio.Queue(), asyncio.Queue())
    listeners = [
        OtherReplicas(one, leader, ids_after, lambda *keys, queue=queue: [queue.put_nowait(key) for key in keys])
        for one, leader, queue in zip((store, other), leaders, heard, strict=True)
    ]
    await store.run(add, "before")  # which whoever is elected finds by a look at everything
    for leader, listener in zip(leaders, listeners, strict=True):
        leader.start()
        await leader.attempt()
        listener.start()
    await listeners[0].looked.wait()
    await other.run(add, "new")

    assert await asyncio.wait_for(heard[0].get(), 30) == "new"
    assert heard[1].empty()
    for part in (*listeners, *leaders):
        await part.stop()
    other.close()
