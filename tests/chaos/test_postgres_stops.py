"""PostgreSQL stopped as by a crash, again and again, during a sweep: nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from daf_protos.scheduler.v1 import scheduler_service_pb2 as pb
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from daf_protos.scheduler.v1.sweep_pb2 import Sweep
from daf_protos.statistics.v1.statistics_service_pb2 import MetricPoint, ReadMetricsRequest, RecordMetricsRequest
from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceStub
from tests.chaos.stack_process import Stack, persist
from tests.postgres_server import PostgresServer, postgres_binaries
from tests.requests import TERMINAL, all_trials, result_digest, sweep_request

pytestmark = pytest.mark.timeout(900)

SOURCE = "trainingJobs/recorder"
AWAY_SECONDS = 0.5
"""How long the database is away; the shorter, the more happens between two stops."""


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    binaries = postgres_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL of one's own can be stopped: its binaries are not installed")
    server = PostgresServer(binaries)
    yield server
    server.close()


async def digest_of(stack: Stack, trials: int, stop: asyncio.Event, progress: asyncio.Queue[int]) -> str:
    """Runs a sweep to its end; tells how many trials have ended. Sets `stop` at the end."""
    request = sweep_request("stops", trials, parallel=3)
    await persist(stack, lambda channel: SchedulerServiceStub(channel).CreateSweep(request))
    get, sweep = pb.GetSweepRequest(name="sweeps/stops"), Sweep()
    while sweep.state not in TERMINAL:
        sweep = (await persist(stack, lambda channel: SchedulerServiceStub(channel).GetSweep(get))).sweep
        progress.put_nowait(sweep.trials.succeeded)
        await asyncio.sleep(0.05)
    stop.set()
    listed = await persist(stack, lambda channel: _trials(SchedulerServiceStub(channel)))
    return result_digest(sweep, listed)


def _trials(stub: SchedulerServiceStub) -> object:
    return all_trials(stub, "sweeps/stops")


async def record(stack: Stack, stop: asyncio.Event) -> list[int]:
    """Writes numbers one after the other; returns those that were acknowledged."""
    acknowledged = []
    for step in itertools.count(1):
        request = RecordMetricsRequest(source=SOURCE, points=[MetricPoint(step=step, values={"n": step})])
        await persist(stack, lambda channel, request=request: StatisticsServiceStub(channel).RecordMetrics(request))
        acknowledged.append(step)
        if stop.is_set():
            return acknowledged
        await asyncio.sleep(0.02)
    raise AssertionError("unreachable")


def ends_of_trials(url: str) -> list[int]:
    """How often each trial reached an end."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        ended = (
            "SELECT count(*) FROM scheduler.transitions WHERE name LIKE '%%/trials/%%' "
            "AND to_state IN ('SUCCEEDED', 'FAILED', 'CANCELLED', 'INFEASIBLE', 'PRUNED') GROUP BY name"
        )
        counts = list(connection.exec_driver_sql(ended).scalars())
    engine.dispose()
    return counts


@pytest.mark.parametrize(("stops", "trials"), [(2, 12), pytest.param(10, 60, marks=pytest.mark.chaos)])
async def test_a_database_that_is_stopped_loses_nothing_that_was_acknowledged(
    tmp_path: Path, server: PostgresServer, stops: int, trials: int
) -> None:
    calm = Stack(tmp_path / "calm" / "home")
    calm.home.directory.parent.mkdir()
    calm.start()
    expected = await asyncio.wait_for(digest_of(calm, trials, asyncio.Event(), asyncio.Queue()), 300)
    calm.stop()

    stack = Stack(tmp_path / "home", DAF_DATABASE_URL=server.url, DAF_STANDIN_SECONDS="0.1")
    stack.start()
    stop, progress = asyncio.Event(), asyncio.Queue[int]()
    running = asyncio.create_task(digest_of(stack, trials, stop, progress))
    recording = asyncio.create_task(record(stack, stop))
    try:
        async with asyncio.timeout(240):
            for number in range(stops):
                while await progress.get() < number * trials // (stops + 1):
                    pass
                await asyncio.to_thread(server.stop)
                await asyncio.sleep(AWAY_SECONDS)
                await asyncio.to_thread(server.start)
            digest, acknowledged = await running, await recording
            reading = ReadMetricsRequest(source=SOURCE, metrics=["n"])
            read = await persist(stack, lambda channel: StatisticsServiceStub(channel).ReadMetrics(reading))
    finally:
        running.cancel()
        recording.cancel()
        stack.stop()

    assert digest == expected
    assert ends_of_trials(server.url) == [1] * trials
    assert set(acknowledged) <= set(read.series[0].steps)
    assert not [line for line in (tmp_path / "stack.log").read_text().splitlines() if '"level": "ERROR"' in line]
