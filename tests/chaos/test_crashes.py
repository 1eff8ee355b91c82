"""kill -9 at the commit points of every service, in the middle of a sweep: nothing lost, nothing twice, same result."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import zipfile
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import sqlalchemy as sa

from daf_common.channel import connect, raising
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.deployment.v1.artifact_service_pb2 import UploadArtifactRequest
from daf_protos.deployment.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from daf_protos.deployment.v1.deployment_service_pb2 import CreatePolicyVersionRequest, ListPolicyVersionsRequest
from daf_protos.deployment.v1.deployment_service_pb2_grpc import DeploymentServiceStub
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from daf_standalone.settings import Home
from tests.chaos.stack_process import Stack, persist
from tests.requests import all_trials, finished_sweep, result_digest, sweep_request

pytestmark = pytest.mark.timeout(900)

TRIALS = 12
SERVICES = ("scheduler", "training", "evaluation", "statistics")
POINTS = [
    f"{service}.commit.{when}:{nth}" for service in SERVICES for when in ("before", "after") for nth in (3, 11, 23)
]
FEW = {POINTS[index] for index in (0, 7, 13, 20)}


async def run_sweep(stack: Stack, **environment: str) -> tuple[str, Counter[str]]:
    """Runs the sweep through all deaths; returns the digest of its result and the terminal events of each trial."""
    stack.start(**environment)
    keeper = asyncio.create_task(stack.keep_alive())
    request = sweep_request("chaos", TRIALS, parallel=3)
    try:
        async with asyncio.timeout(300):
            while True:
                try:
                    async with connect(f"unix:{stack.home.socket()}") as channel:
                        stub = SchedulerServiceStub(channel)
                        created = await raising(stub.CreateSweep(request))
                        sweep = await finished_sweep(stub, created.sweep.name)
                        trials = await all_trials(stub, sweep.name)
                        break
                except Exception as error:  # whatever a dying server answers
                    assert not keeper.done(), keeper.exception()
                    last = error
                    await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"the sweep did not end; last error: {last!r}") from None
    finally:
        keeper.cancel()
        stack.stop()
    return result_digest(sweep, trials), terminal_events(stack.home)


def terminal_events(home: Home) -> Counter[str]:
    """How often each trial reached an end, by the history that the scheduler keeps."""
    engine = sa.create_engine(f"sqlite:///{home.directory}/state/scheduler.db")
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT name, to_state FROM transitions").all()
    engine.dispose()
    ends = ("SUCCEEDED", "FAILED", "CANCELLED", "INFEASIBLE", "PRUNED")
    return Counter(name for name, state in rows if "/trials/" in name and state.endswith(ends))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    digest, events = asyncio.run(run_sweep(Stack(tmp_path_factory.mktemp("calm") / "home")))
    assert set(events.values()) == {1}
    return digest


@pytest.mark.parametrize("point", [p if p in FEW else pytest.param(p, marks=pytest.mark.chaos) for p in POINTS])
async def test_a_service_killed_at_a_commit_loses_and_doubles_nothing(
    tmp_path: Path, undisturbed: str, point: str
) -> None:
    stack = Stack(tmp_path / "home")

    digest, events = await run_sweep(stack, DAF_CRASH_AT=point)

    assert stack.deaths == 1
    assert len(events) == TRIALS
    assert set(events.values()) == {1}
    assert digest == undisturbed


@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(s, marks=pytest.mark.chaos) for s in range(3, 51))])
async def test_one_percent_of_failing_calls_changes_nothing(tmp_path: Path, undisturbed: str, seed: int) -> None:
    stack = Stack(tmp_path / "home", DAF_FAULTS=f"0.01:{seed}")

    digest, events = await run_sweep(stack)

    assert stack.deaths == 0
    assert set(events.values()) == {1}
    assert digest == undisturbed


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_version_whose_creation_was_killed_is_created_once(tmp_path: Path, when: str) -> None:
    stack = Stack(tmp_path / "home")
    stack.start(DAF_CRASH_AT=f"deployment.commit.{when}:1")
    keeper = asyncio.create_task(stack.keep_alive())
    try:
        async with asyncio.timeout(300):
            bundle = await persist(stack, upload)
            request = CreatePolicyVersionRequest(
                request_id="create", package_id="miner", version="1.0.0", bundle=bundle
            )
            await persist(stack, lambda channel: DeploymentServiceStub(channel).CreatePolicyVersion(request))
            listing = ListPolicyVersionsRequest(parent="policyPackages/miner")
            versions = await persist(stack, lambda channel: DeploymentServiceStub(channel).ListPolicyVersions(listing))
    finally:
        keeper.cancel()
        stack.stop()

    assert stack.deaths == 1
    assert [version.version for version in versions.policy_versions] == ["1.0.0"]


async def upload(channel: grpc.aio.Channel) -> Artifact:
    """Uploads the smallest bundle that is one."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("policy_spec.json", json.dumps({"class_path": "miner.Miner"}))
        archive.writestr("miner.py", "class Miner: ...")
    content = packed.getvalue()
    wanted = Artifact(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content), media_type="application/zip")

    async def parts() -> AsyncIterator[UploadArtifactRequest]:
        yield UploadArtifactRequest(artifact=wanted)
        yield UploadArtifactRequest(chunk=content)

    return (await ArtifactServiceStub(channel).UploadArtifact(parts())).artifact
