"""Training and evaluation on a cluster by services of this process, with their artifacts in an S3 of this machine.

Pods have to reach this machine: DAF_TEST_HOST names it as they see it. DAF_TEST_RUNNER_IMAGE is the image of workers.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

import daf_deployment.main
import daf_evaluation.main
import daf_statistics.main
import daf_training.main
from daf_common.archives import pack
from daf_common.artifacts import ArtifactStore
from daf_common.channel import raising
from daf_common.kube.settings import BackendSettings, PodProfiles, PodSettings
from daf_common.service import Context, Host
from daf_common.settings import ServiceSettings
from daf_evaluation.job_backend import job_backend
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.policy_pb2 import PolicyClass
from daf_protos.evaluation.v1 import evaluation_service_pb2 as evaluation_pb
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation, EvaluationSpec
from daf_protos.evaluation.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from daf_protos.statistics.v1.statistics_service_pb2 import ReadMetricsRequest
from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceStub
from daf_protos.training.v1 import training_service_pb2 as training_pb
from daf_protos.training.v1.training_job_pb2 import TrainingAttempt, TrainingJob, TrainingJobState, TrainingSpec
from daf_protos.training.v1.training_service_pb2_grpc import TrainingServiceStub
from daf_training.pytorchjob_backend import pytorchjob_backend
from tests.ports import free_port
from tests.training_stack import CODE, MISSION

if TYPE_CHECKING:
    from daf_protos.evaluation.v1.evaluation_service_pb2_grpc import EvaluationServiceAsyncStub
    from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceAsyncStub
    from daf_protos.training.v1.training_service_pb2_grpc import TrainingServiceAsyncStub

BUCKET = "daf"
PATIENCE_SECONDS = 240
PROFILES = [
    {"name": name, "workers": 1, "environments": 2, "cpus": 1, "memory_gib": 2, "gpus": 0, "workers_per_machine": most}
    for name, most in (("one", 1), ("two", 2))
]
"""By how many workers share a pod."""


@dataclass
class Services:
    """The services, and how to call them."""

    settings: ServiceSettings
    training: TrainingServiceAsyncStub
    evaluations: EvaluationServiceAsyncStub
    statistics: StatisticsServiceAsyncStub

    async def store(self, files: Sequence[Path]) -> Artifact:
        """Files as code that policies bring along."""
        return await ArtifactStore(self.settings.artifacts(), "deployment").put(pack(files), "application/zip")

    async def train(self, job_id: str, **changes: Any) -> None:
        """Starts a job of a policy of one's own."""
        code = await self.store(CODE)
        values: dict[str, Any] = {
            "policy_class": PolicyClass(class_path="grid_policy.GridPolicy", code=code),
            "missions": [MISSION],
            "environments": 2,
            "seed": 1,
        }
        spec = TrainingSpec(**{**values, **changes})
        await raising(self.training.CreateTrainingJob(training_pb.CreateTrainingJobRequest(job_id=job_id, spec=spec)))

    async def job_until(self, job_id: str, holds: Callable[[TrainingJob], bool]) -> TrainingJob:
        """Watches a job until something holds of it."""
        request = training_pb.WatchTrainingJobsRequest(name=f"trainingJobs/{job_id}")
        job = TrainingJob()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                async for response in self.training.WatchTrainingJobs(request):
                    for job in response.training_jobs:
                        if holds(job):
                            return job
        except TimeoutError:
            raise AssertionError(f"it stays so: {job}") from None
        raise AssertionError("the watch ended")

    async def succeeded(self, job_id: str) -> TrainingJob:
        job = await self.job_until(job_id, lambda job: job.HasField("end_time"))
        assert job.state == TrainingJobState.TRAINING_JOB_STATE_SUCCEEDED, (job.failure, await self.log(job_id))
        return job

    async def cancelled(self, job_id: str) -> TrainingJob:
        """A job as it was when it was ended."""
        request = training_pb.CancelTrainingJobRequest(name=f"trainingJobs/{job_id}")
        await raising(self.training.CancelTrainingJob(request))
        return await self.job_until(job_id, lambda job: job.HasField("end_time"))

    async def attempts(self, job_id: str) -> Sequence[TrainingAttempt]:
        """Oldest first."""
        request = training_pb.ListAttemptsRequest(parent=f"trainingJobs/{job_id}")
        return list(reversed((await raising(self.training.ListAttempts(request))).attempts))

    async def log(self, job_id: str) -> str:
        request = training_pb.ReadLogsRequest(name=f"trainingJobs/{job_id}")
        return "".join([piece.text async for piece in self.training.ReadLogs(request)])

    async def updates(self, job_id: str) -> Sequence[int]:
        """The updates of which metrics are known, in their order."""
        request = ReadMetricsRequest(source=f"trainingJobs/{job_id}", metrics=["losses/policy_loss"])
        (series,) = (await raising(self.statistics.ReadMetrics(request))).series
        return list(series.steps)

    async def evaluate(self, id: str, spec: EvaluationSpec) -> None:
        """Starts an evaluation."""
        request = evaluation_pb.CreateEvaluationRequest(evaluation_id=id, spec=spec)
        await raising(self.evaluations.CreateEvaluation(request))

    async def evaluation(self, id: str) -> Evaluation:
        request = evaluation_pb.GetEvaluationRequest(name=f"evaluations/{id}")
        return (await raising(self.evaluations.GetEvaluation(request))).evaluation

    async def evaluation_until(self, id: str, holds: Callable[[Evaluation], bool]) -> Evaluation:
        """Watches an evaluation until something holds of it."""
        request = evaluation_pb.WatchEvaluationsRequest(name=f"evaluations/{id}")
        evaluation = Evaluation()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                async for response in self.evaluations.WatchEvaluations(request):
                    for evaluation in response.evaluations:
                        if holds(evaluation):
                            return evaluation
        except TimeoutError:
            raise AssertionError(f"it stays so: {evaluation}") from None
        raise AssertionError("the watch ended")


def of_workers(settings: BackendSettings) -> BackendSettings:
    """Settings for pods of real workers, which share what few cores there may be; skips where these cannot run."""
    image = os.environ.get("DAF_TEST_RUNNER_IMAGE")
    if not image or not os.environ.get("DAF_TEST_HOST"):
        pytest.skip("NO RUNNER IMAGE: DAF_TEST_RUNNER_IMAGE or DAF_TEST_HOST, this machine as pods see it, is not set")
    pods = PodProfiles(default=PodSettings(cpu_share=0.05, grace_seconds=30))
    return settings.model_copy(update={"runner_image": image, "pods": pods})


@asynccontextmanager
async def serving(
    directory: Path, host: str, cluster: BackendSettings, *profiles: Mapping[str, Any]
) -> AsyncIterator[Services]:
    """Serves on all addresses of this machine, since pods call back; with further compute profiles."""
    with pytest.MonkeyPatch.context() as environment:
        s3 = ThreadedMotoServer(ip_address="0.0.0.0", port=0)
        s3.start()
        endpoint = f"http://{host}:{s3.get_host_and_port()[1]}"
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true",
            "DAF_WORKER_ADDRESS": f"{host}:{(port := free_port())}",
            "DAF_TRAINING_CPUS": "none",
            "DAF_TRAINING_MEMORY_GIB": "none",
            "DAF_TRAINING_GPUS": "none",
            "DAF_TRAINING_PROFILES": json.dumps([*PROFILES, *profiles]),
            "DAF_TRAINING_PROFILE": "one",
            "DAF_CANCEL_GRACE_SECONDS": "20",
        }.items():
            environment.setenv(name, value)
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=BUCKET)
        address = f"127.0.0.1:{port}"
        peers = {f"{name}_address": address for name in ("training", "evaluation", "statistics", "deployment")}
        settings = ServiceSettings(
            home=directory,
            artifacts_url=f"s3://{BUCKET}/daf",
            listen=f"0.0.0.0:{port}",
            allow_anonymous=True,
            drain_seconds=0.2,
            **peers,
        )
        context = Context(settings)
        services = [
            daf_statistics.main.build(context),
            daf_deployment.main.build(context),
            daf_evaluation.main.build(context, job_backend(cluster)),
            daf_training.main.build(context, pytorchjob_backend(cluster)),
        ]
        server = Host(context, services)
        await server.start()
        try:
            yield Services(
                settings,
                TrainingServiceStub(context.peer("training")),
                EvaluationServiceStub(context.peer("evaluation")),
                StatisticsServiceStub(context.peer("statistics")),
            )
        finally:
            await server.stop()
            s3.stop()
