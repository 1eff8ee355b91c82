"""Five services that ask everybody for a token, each other too: who does what, and who may not."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import zipfile
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import pytest

from daf_common.channel import connect, raising
from daf_common.errors import Unauthenticated
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.policy_pb2 import Policy, PolicyClass
from daf_protos.deployment.v1 import artifact_service_pb2 as artifact_pb
from daf_protos.deployment.v1 import deployment_service_pb2 as deployment_pb
from daf_protos.deployment.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from daf_protos.deployment.v1.deployment_service_pb2_grpc import DeploymentServiceStub
from daf_protos.evaluation.v1 import evaluation_service_pb2 as evaluation_pb
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec
from daf_protos.evaluation.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from daf_protos.scheduler.v1.scheduler_service_pb2 import GetSweepRequest
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from daf_protos.scheduler.v1.sweep_pb2 import SWEEP_STATE_SUCCEEDED
from daf_protos.statistics.v1 import comparison_service_pb2 as comparison_pb
from daf_protos.statistics.v1.comparison_pb2 import MissionValues, PolicyValues
from daf_protos.statistics.v1.comparison_service_pb2_grpc import ComparisonServiceStub
from daf_protos.training.v1 import training_service_pb2 as training_pb
from daf_protos.training.v1.training_service_pb2_grpc import TrainingServiceStub
from tests.integration.test_separate_services import separate_services
from tests.requests import MISSION, finished_sweep, sweep_request

ALICE, SERVICE = "alices-token-0123456789", "the-services-token-0123456789"


CHILDREN = [
    ("comparisons", "alice"),
    *[("evaluations", "alice")] * 3,  # two trials, and the best of them beside the baseline
    *[("trainingJobs", "alice")] * 2,
]
"""Of a sweep of two trials: what the scheduler has others make, and for whom."""


@pytest.fixture
def asks_for_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Services ask for tokens, and send their own."""
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    (tokens / "alice").write_text(ALICE)
    (tokens / "service").write_text(SERVICE)
    monkeypatch.setenv("DAF_TOKENS", str(tokens))
    monkeypatch.setenv("DAF_TOKEN_FILE", str(tokens / "service"))


@pytest.fixture
async def directory(tmp_path: Path, asks_for_tokens: None) -> AsyncIterator[Path]:
    """Services on sockets in this directory that ask for tokens and send their own."""
    home = tmp_path / "home"
    home.mkdir()
    async with separate_services(home, ""):
        yield home


async def test_a_sweep_runs_through_all_services_and_says_who_asked_for_it(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        connect(f"unix:{directory}/scheduler.sock", token=lambda: ALICE) as scheduler,
        asyncio.timeout(150),
    ):
        stub = SchedulerServiceStub(scheduler)
        created = await raising(stub.CreateSweep(sweep_request("alices", 2, parallel=1)))
        ended = await finished_sweep(stub, created.sweep.name)

    assert ended.state == SWEEP_STATE_SUCCEEDED
    assert (created.sweep.creator, ended.creator) == ("alice", "alice")
    assert await creators(directory) == CHILDREN
    assert not [token for token in (ALICE, SERVICE) if token in caplog.text]


async def test_what_a_sweep_creates_after_a_restart_is_its_creators_too(tmp_path: Path, asks_for_tokens: None) -> None:
    home = tmp_path / "home"
    home.mkdir()
    async with (
        separate_services(home, "") as address,
        connect(address, token=lambda: ALICE) as scheduler,
    ):
        await raising(SchedulerServiceStub(scheduler).CreateSweep(sweep_request("alices", 2, parallel=1)))
    async with (
        separate_services(home, "") as address,
        connect(address, token=lambda: ALICE) as scheduler,
        asyncio.timeout(150),
    ):
        ended = await finished_sweep(SchedulerServiceStub(scheduler), "sweeps/alices")

        assert ended.state == SWEEP_STATE_SUCCEEDED
        assert await creators(home) == CHILDREN


async def creators(directory: Path) -> list[tuple[str, str]]:
    """Of all that a sweep has others make: what kind it is, and who created it."""
    async with (
        connect(f"unix:{directory}/training.sock", token=lambda: SERVICE) as training,
        connect(f"unix:{directory}/evaluation.sock", token=lambda: SERVICE) as evaluation,
        connect(f"unix:{directory}/statistics.sock", token=lambda: SERVICE) as statistics,
    ):
        jobs = await raising(TrainingServiceStub(training).ListTrainingJobs(training_pb.ListTrainingJobsRequest()))
        evaluations = await raising(
            EvaluationServiceStub(evaluation).ListEvaluations(evaluation_pb.ListEvaluationsRequest())
        )
        comparisons = await raising(
            ComparisonServiceStub(statistics).ListComparisons(comparison_pb.ListComparisonsRequest())
        )
    found = [*jobs.training_jobs, *evaluations.evaluations, *comparisons.comparisons]
    return sorted((resource.name.partition("/")[0], resource.creator) for resource in found)


async def test_everything_that_is_created_says_who_asked_for_it(directory: Path) -> None:
    async with (
        connect(f"unix:{directory}/training.sock", token=lambda: ALICE) as training,
        connect(f"unix:{directory}/evaluation.sock", token=lambda: ALICE) as evaluation,
        connect(f"unix:{directory}/statistics.sock", token=lambda: ALICE) as statistics,
        connect(f"unix:{directory}/deployment.sock", token=lambda: ALICE) as deployment,
    ):
        spec = sweep_request("x", 1, parallel=1).spec.training
        job = await raising(
            TrainingServiceStub(training).CreateTrainingJob(training_pb.CreateTrainingJobRequest(spec=spec))
        )
        policies = [Policy(label="random", policy_class=PolicyClass(class_path="random"))]
        wanted = EvaluationSpec(policies=policies, missions=[MISSION], episodes=1, seed=1)
        played = await raising(
            EvaluationServiceStub(evaluation).CreateEvaluation(evaluation_pb.CreateEvaluationRequest(spec=wanted))
        )
        values = [
            PolicyValues(label=label, missions=[MissionValues(mission="m", seeds=[1, 2, 3], values=[1, 2, number])])
            for number, label in enumerate("AB")
        ]
        compared = await raising(
            ComparisonServiceStub(statistics).CompareValues(comparison_pb.CompareValuesRequest(policies=values))
        )
        packages = DeploymentServiceStub(deployment)
        bundle = await _upload(ArtifactServiceStub(deployment))
        await raising(
            packages.CreatePolicyVersion(
                deployment_pb.CreatePolicyVersionRequest(package_id="miner", version="1.0.0", bundle=bundle)
            )
        )
        package = await raising(
            packages.GetPolicyPackage(deployment_pb.GetPolicyPackageRequest(name="policyPackages/miner"))
        )

    creators = [job.training_job, played.evaluation, compared.comparison, package.policy_package]
    assert [resource.creator for resource in creators] == ["alice"] * 4


async def test_a_stranger_learns_nothing(directory: Path) -> None:
    async with connect(f"unix:{directory}/scheduler.sock") as scheduler:
        with pytest.raises(Unauthenticated):
            await raising(SchedulerServiceStub(scheduler).GetSweep(GetSweepRequest(name="sweeps/x")))


async def _upload(stub: ArtifactServiceStub) -> Artifact:
    """A policy's bundle."""
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("policy_spec.json", json.dumps({"class_path": "miner.Policy"}))
        archive.writestr("miner.py", "class Policy: ...\n")
    data = content.getvalue()

    async def parts() -> AsyncIterator[artifact_pb.UploadArtifactRequest]:
        described = Artifact(
            sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data), media_type="application/zip"
        )
        yield artifact_pb.UploadArtifactRequest(artifact=described)
        yield artifact_pb.UploadArtifactRequest(chunk=data)

    answer: artifact_pb.UploadArtifactResponse = await raising(stub.UploadArtifact(parts()))
    return answer.artifact
