"""The five services apart from each other, each with its own server and clock, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import daf_deployment.main
import daf_evaluation.main
import daf_scheduler.main
import daf_statistics.main
import daf_training.main
from daf_common.channel import blocking_errors, connect, connect_blocking, raising
from daf_common.clock import SystemClock
from daf_common.service import Context, Host, Service
from daf_common.settings import ServiceSettings
from daf_protos.scheduler.v1 import scheduler_service_pb2 as pb
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from daf_protos.scheduler.v1.sweep_pb2 import SWEEP_STATE_SUCCEEDED
from tests.requests import all_trials, finished_sweep, result_digest, sweep_request
from tests.standin import StandIn

SERVICES = ("statistics", "deployment", "evaluation", "training", "scheduler")
HOUR = timedelta(hours=1)


class WrongClock(SystemClock):
    """A clock that is off by a constant."""

    def __init__(self, off: timedelta) -> None:
        self._off = off

    def now(self) -> datetime:
        return super().now() + self._off


@asynccontextmanager
async def separate_services(
    directory: Path, database_url: str, clocks: dict[str, timedelta] | None = None
) -> AsyncIterator[str]:
    """Serves each service on a socket of its own; yields the scheduler's address."""
    addresses = {f"{name}_address": f"unix:{directory}/{name}.sock" for name in SERVICES}
    hosts = []
    for name in SERVICES:
        own = addresses[f"{name}_address"]
        settings = ServiceSettings(home=directory, database_url=database_url, listen=own, drain_seconds=0, **addresses)
        context = Context(settings, WrongClock((clocks or {}).get(name, timedelta())))
        hosts.append(Host(context, _build(name, context)))
        await hosts[-1].start()
    yield addresses["scheduler_address"]
    for host in reversed(hosts):
        await host.stop()


def _build(name: str, context: Context) -> Sequence[Service]:
    match name:
        case "statistics":
            return [daf_statistics.main.build(context)]
        case "deployment":
            return [daf_deployment.main.build(context)]
        case "evaluation":
            return [daf_evaluation.main.build(context, StandIn())]
        case "training":
            return [daf_training.main.build(context, StandIn(0.01))]
        case _:
            return [daf_scheduler.main.build(context)]


async def sweep_digest(directory: Path, database_url: str, clocks: dict[str, timedelta] | None = None) -> str:
    """Runs a sweep; returns what identifies its result."""
    directory.mkdir()
    async with (
        separate_services(directory, database_url, clocks) as address,
        connect(address) as channel,
        asyncio.timeout(150),
    ):
        stub = SchedulerServiceStub(channel)
        created = await raising(stub.CreateSweep(sweep_request("apart", 6, parallel=2)))
        sweep = await finished_sweep(stub, created.sweep.name)
        trials = await all_trials(stub, sweep.name)
    assert sweep.state == SWEEP_STATE_SUCCEEDED
    assert all(t.end_time.ToNanoseconds() >= t.create_time.ToNanoseconds() for t in trials)
    return result_digest(sweep, trials)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    return asyncio.run(sweep_digest(tmp_path_factory.mktemp("expected") / "home", ""))


async def test_the_result_does_not_depend_on_the_database(
    tmp_path: Path, postgresql_database: str, expected: str
) -> None:
    assert await sweep_digest(tmp_path / "home", postgresql_database) == expected


@pytest.mark.parametrize("service", ["scheduler", "training", "evaluation"])
@pytest.mark.parametrize("off", [HOUR, -HOUR], ids=["ahead", "behind"])
async def test_a_clock_that_is_an_hour_off_changes_nothing(
    tmp_path: Path, expected: str, service: str, off: timedelta
) -> None:
    assert await sweep_digest(tmp_path / "home", "", {service: off}) == expected


async def test_the_same_request_a_hundred_times_from_sixteen_threads_creates_one_sweep(
    tmp_path: Path, postgresql_database: str
) -> None:
    request = sweep_request("once", 2, parallel=1)

    async with separate_services(tmp_path, postgresql_database) as address:

        def create(_: int) -> str:
            with connect_blocking(address) as channel, blocking_errors():
                return SchedulerServiceStub(channel).CreateSweep(request).sweep.name

        with ThreadPoolExecutor(16) as threads:
            loop = asyncio.get_running_loop()
            names = await asyncio.gather(*(loop.run_in_executor(threads, create, n) for n in range(100)))
        async with connect(address) as channel:
            stub = SchedulerServiceStub(channel)
            sweeps = (await raising(stub.ListSweeps(pb.ListSweepsRequest()))).sweeps
            trials = await all_trials(stub, (await finished_sweep(stub, names[0])).name)

    assert set(names) == {"sweeps/once"}
    assert [sweep.name for sweep in sweeps] == ["sweeps/once"]
    assert len(trials) == 2
