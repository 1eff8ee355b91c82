"""Several replicas of each service on one PostgreSQL: one acts, and when it is killed or stopped another goes on."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import sqlalchemy as sa

from daf_common.channel import connect
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from tests.replicas import Replicas
from tests.sweep_runs import create, digest_of, until_some_trials_have_ended

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

TRIALS = 16

GRANTS = {
    "scheduler": ("trials", "INSERT OR UPDATE", "true"),
    "training": ("jobs", "UPDATE", "NEW.state = 'STARTING' AND OLD.state <> 'STARTING'"),
    "evaluation": ("evaluations", "UPDATE", "NEW.replicas > OLD.replicas"),
}
"""What only the replica that leads may write: every step of a trial, and what starts workloads."""

AUDIT = """
CREATE TABLE {service}.audit (id serial, writer text, holder text);
CREATE FUNCTION {service}.audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO {service}.audit (writer, holder)
    SELECT current_setting('application_name'), split_part(holder, '#', 1) FROM {service}.leases;
    RETURN NULL;
END $$;
CREATE TRIGGER audit AFTER {events} ON {service}.{table} FOR EACH ROW WHEN ({condition})
    EXECUTE FUNCTION {service}.audit();
"""


@pytest.fixture(scope="module")
def database(postgres_url: str) -> Iterator[str]:
    server = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    name = f"test_{uuid.uuid4().hex[:12]}"
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield server.url.set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    server.dispose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def replicas(tmp_path_factory: pytest.TempPathFactory, database: str) -> AsyncIterator[Replicas]:
    directory = tmp_path_factory.mktemp("replicas") / "r"
    replicas = Replicas(directory, database, dict.fromkeys(("scheduler", "training", "evaluation", "statistics"), 2))
    async with replicas.running():
        for service, (table, events, condition) in GRANTS.items():
            replicas.rows(AUDIT.format(service=service, table=table, events=events, condition=condition))
        yield replicas


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def calm(replicas: Replicas) -> str:
    """What a sweep comes to that nobody disturbs."""
    async with connect(replicas.address("scheduler")) as channel:
        stub = SchedulerServiceStub(channel)
        return await digest_of(stub, await create(stub, "calm", TRIALS))


def audited(replicas: Replicas, service: str) -> list[tuple[str, str]]:
    """By whom, and under whose lease, the writes were made that are a leader's alone."""
    return [(writer, holder) for writer, holder in replicas.rows(f"SELECT writer, holder FROM {service}.audit")]


@pytest.mark.parametrize("service", list(GRANTS))
async def test_of_two_replicas_one_acts_and_when_it_is_killed_the_other_takes_over(
    replicas: Replicas, calm: str, service: str
) -> None:
    async with connect(replicas.address("scheduler")) as channel:
        stub = SchedulerServiceStub(channel)
        name = await create(stub, f"killed-{service}", TRIALS)
        running = asyncio.create_task(digest_of(stub, name))
        await until_some_trials_have_ended(stub, name)
        leader, fence = replicas.leader(service)
        replicas.signal(service, leader, signal.SIGKILL)
        await replicas.until_another_leads(service, fence)
        digest = await running
        # Where the sweep had ended before the kill was felt, this is what the other one does.
        await digest_of(stub, await create(stub, f"after-{service}", 1))
    replicas.start(service, leader)
    await replicas.ready(service, leader)

    assert digest == calm
    writes = audited(replicas, service)
    assert {writer for writer, _ in writes} == {f"{service}-0", f"{service}-1"}
    assert all(writer == holder for writer, holder in writes)
    assert replicas.leader(service)[0] != leader


async def test_a_leader_that_is_stopped_and_goes_on_later_writes_nothing_more(replicas: Replicas, calm: str) -> None:
    leader, fence = replicas.leader("scheduler")
    async with connect(f"unix:{replicas.directory}/scheduler-{1 - leader}.sock") as channel:
        stub = SchedulerServiceStub(channel)
        name = await create(stub, "stopped", TRIALS)
        await until_some_trials_have_ended(stub, name)
        replicas.signal("scheduler", leader, signal.SIGSTOP)
        try:
            await replicas.until_another_leads("scheduler", fence)
        finally:
            replicas.signal("scheduler", leader, signal.SIGCONT)
        digest = await digest_of(stub, name)

    assert digest == calm
    assert all(writer == holder for writer, holder in audited(replicas, "scheduler"))
    assert replicas.leader("scheduler") == (1 - leader, fence + 1)


@pytest.mark.parametrize("service", list(GRANTS))
async def test_a_leader_that_is_asked_to_end_hands_over_at_once(replicas: Replicas, calm: str, service: str) -> None:
    async with connect(replicas.address("scheduler")) as channel:
        stub = SchedulerServiceStub(channel)
        name = await create(stub, f"ended-{service}", TRIALS)
        running = asyncio.create_task(digest_of(stub, name))
        await until_some_trials_have_ended(stub, name)
        leader, fence = replicas.leader(service)
        replicas.signal(service, leader, signal.SIGTERM)
        given_back = replicas.leader(service)[0] != leader
        await replicas.until_another_leads(service, fence)
        digest = await running
    replicas.start(service, leader)
    await replicas.ready(service, leader)

    assert digest == calm
    assert given_back, "the lease was left to run out"
    assert all(writer == holder for writer, holder in audited(replicas, service))


async def test_a_statistics_replica_that_is_killed_is_not_missed(replicas: Replicas, calm: str) -> None:
    async with connect(replicas.address("scheduler")) as channel:
        stub = SchedulerServiceStub(channel)
        name = await create(stub, "killed-statistics", TRIALS)
        running = asyncio.create_task(digest_of(stub, name))
        await until_some_trials_have_ended(stub, name)
        for number in range(2):
            replicas.signal("statistics", number, signal.SIGKILL)
            replicas.start("statistics", number)
            await replicas.ready("statistics", number)
        assert await running == calm
