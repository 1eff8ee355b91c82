"""Jobs of the training service whose pods cannot run: what they wait for is said, and they go on once that is there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daf_common.channel import raising
from daf_common.kube.settings import BackendSettings
from daf_protos.training.v1 import training_service_pb2 as training_pb
from daf_protos.training.v1.training_job_pb2 import TrainingJobState
from tests.cluster import Cluster

from .services import Services, serving

pytestmark = pytest.mark.kubernetes

HUGE = {"name": "huge", "workers": 1, "environments": 2, "cpus": 1, "memory_gib": 60000, "gpus": 0}
NO_IMAGE = "localhost/no-such-image:1"


@pytest.fixture
def settings(settings: BackendSettings) -> BackendSettings:
    return settings.model_copy(update={"runner_image": NO_IMAGE})


@pytest.fixture
async def services(tmp_path: Path, settings: BackendSettings) -> AsyncIterator[Services]:
    async with serving(tmp_path, "127.0.0.1", settings, HUGE) as services:
        yield services


async def waiting(services: Services, job_id: str, for_what: str) -> None:
    """Until a job says that it waits for that, to whoever watches and to whoever asks."""
    await services.job_until(job_id, lambda job: for_what in job.waiting_for)
    request = training_pb.GetTrainingJobRequest(name=f"trainingJobs/{job_id}")
    job = (await raising(services.training.GetTrainingJob(request))).training_job
    assert job.state == TrainingJobState.TRAINING_JOB_STATE_STARTING
    assert for_what in job.waiting_for


async def test_what_a_job_waits_for_is_said(services: Services) -> None:
    await services.train("pulls", agent_steps=1)
    await services.train("large", agent_steps=1, profile="huge")
    await waiting(services, "pulls", f"daf-pulls-a1-master-0: its image {NO_IMAGE} cannot be pulled")
    await waiting(services, "large", "daf-large-a1-master-0: it cannot be scheduled: 0/")
    await waiting(services, "large", "Insufficient memory")


@pytest.mark.parametrize("what", ["count/pytorchjobs.kubeflow.org", "pods"])
async def test_a_job_that_a_quota_refuses_says_so_and_goes_on_once_it_is_raised(
    services: Services, cluster: Cluster, settings: BackendSettings, what: str
) -> None:
    where = ("-n", settings.kubernetes_namespace)
    cluster.kubectl(*where, "create", "quota", "tight", f"--hard={what}=0")
    await services.train("job", agent_steps=1)
    await waiting(services, "job", "exceeded quota: tight")
    raised = {"spec": {"hard": {what: "1"}}}
    cluster.kubectl(*where, "patch", "quota", "tight", "--patch", json.dumps(raised))
    await waiting(services, "job", "cannot be pulled")  # it has a pod
