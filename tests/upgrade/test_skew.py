"""An upgrade and its rollback with a sweep running: an earlier version and this one side by side on one database."""

from __future__ import annotations

import asyncio
import io
import itertools
import signal
import subprocess
import tarfile
from pathlib import Path

import grpc
import pytest

from daf_common.channel import connect, raising
from daf_protos.evaluation.v1.evaluation_service_pb2 import ListEvaluationsRequest
from daf_protos.evaluation.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from daf_protos.scheduler.v1 import scheduler_service_pb2 as pb
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from daf_protos.statistics.v1.statistics_service_pb2 import MetricPoint, RecordMetricsRequest
from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceStub
from daf_protos.training.v1.training_service_pb2 import ListTrainingJobsRequest
from daf_protos.training.v1.training_service_pb2_grpc import TrainingServiceStub
from tests.replicas import SERVICES, Replicas
from tests.sweep_runs import create, digest_of, until_some_trials_have_ended

pytestmark = pytest.mark.timeout(1800)

ROOT = Path(__file__).resolve().parents[2]
EARLIER = (ROOT / "tests" / "earlier_version").read_text().strip()
"""The commit of a version that has one migration less, in the statistics service, and that serves newer databases."""

OLD, NEW = 0, 1
"""The number of the replica that runs each version."""
TRIALS = 40


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the earlier version."""
    directory = tmp_path_factory.mktemp("earlier")
    archive = subprocess.run(
        ["git", "archive", EARLIER, "libs", "services", "tests"], cwd=ROOT, capture_output=True, check=False
    )
    if archive.returncode:
        pytest.skip(f"the earlier version {EARLIER[:12]} is not in this clone: fetch the whole history")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as content:
        content.extractall(directory, filter="data")
    return directory


class Caller:
    """Calls all services again and again, as clients of one version do, and counts what was answered."""

    def __init__(self, replicas: Replicas) -> None:
        self._channels = {name: connect(replicas.address(name)) for name in SERVICES}
        self.answered = 0

    async def call(self) -> None:
        """Until it is cancelled, or a call fails although it was retried as every client does."""
        for step in itertools.count(1):
            points = [MetricPoint(step=step, values={"n": step})]
            for answer in (
                SchedulerServiceStub(self._channels["scheduler"]).ListSweeps(pb.ListSweepsRequest()),
                TrainingServiceStub(self._channels["training"]).ListTrainingJobs(ListTrainingJobsRequest(page_size=5)),
                EvaluationServiceStub(self._channels["evaluation"]).ListEvaluations(
                    ListEvaluationsRequest(page_size=5)
                ),
                StatisticsServiceStub(self._channels["statistics"]).RecordMetrics(
                    RecordMetricsRequest(source="trainingJobs/caller", points=points)
                ),
            ):
                await raising(answer)
                self.answered += 1
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        """Closes its channels."""
        channels: list[grpc.aio.Channel] = list(self._channels.values())
        await asyncio.gather(*(channel.close() for channel in channels))


async def roll(replicas: Replicas, ends: int, begins: int, code: Path | None) -> None:
    """Replaces a replica of each service by one of another version, which serves before the first ends."""
    for service in SERVICES:
        replicas.start(service, begins, code)
        await replicas.ready(service, begins)
        await asyncio.to_thread(replicas.signal, service, ends, signal.SIGTERM)


async def test_an_upgrade_and_its_rollback_fail_no_call_and_no_trial(
    tmp_path: Path, postgresql_database: str, earlier: Path
) -> None:
    replicas = Replicas(tmp_path / "r", postgresql_database, dict.fromkeys(SERVICES, 2))
    async with replicas.running(0.5, earlier), connect(replicas.address("scheduler")) as channel:
        stub = SchedulerServiceStub(channel)
        calm = await digest_of(stub, await create(stub, "calm", TRIALS))
        assert replicas.rows("SELECT version_num FROM statistics.alembic_version") == [("0003",)]
        caller = Caller(replicas)
        calling = asyncio.create_task(caller.call())

        name = await create(stub, "upgraded", TRIALS)
        upgraded = asyncio.create_task(digest_of(stub, name))
        await until_some_trials_have_ended(stub, name)
        for service in SERVICES:
            await asyncio.to_thread(replicas.migrate, service)
        await roll(replicas, OLD, NEW, None)
        assert await upgraded == calm
        assert replicas.rows("SELECT version_num FROM statistics.alembic_version") != [("0003",)]

        name = await create(stub, "rolled-back", TRIALS)
        rolled_back = asyncio.create_task(digest_of(stub, name))
        await until_some_trials_have_ended(stub, name)
        await roll(replicas, NEW, OLD, earlier)
        assert await rolled_back == calm

        assert not calling.done(), calling.exception()
        assert caller.answered > 100
        calling.cancel()
        await caller.close()
    assert "which is newer than this code" in replicas.log("statistics", OLD)
