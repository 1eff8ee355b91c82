"""Real workers in real pods: a job on several ranks, one that loses a pod, an evaluation of what was trained."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daf_common.kube.settings import BackendSettings
from daf_protos.common.v1.policy_pb2 import Policy, PolicyCheckpoint, PolicyClass
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec, EvaluationState
from daf_protos.evaluation.v1.evaluation_service_pb2 import ReadLogsRequest
from tests.cluster import Cluster
from tests.daf_command import Daf
from tests.recorded import assert_recorded_once
from tests.training_stack import BATCH, ENDLESS, MISSION, ROOT

from .services import Services, of_workers, serving

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow]

TALKATIVE = [ROOT / "tests" / "policies" / "talkative_policy.py", ROOT / "examples" / "policies" / "grid_policy.py"]

FULL = """
with open({!r}, "wb") as file:
    for _ in range({}):
        file.write(bytes(1 << 20))
"""
UNAWARE = """
import psutil
for worker in psutil.Process(1).children(recursive=True):
    worker.suspend()
"""
"""An evicted pod may have a second, in which a quick worker says that it was asked to end: before it is known why."""
TOO_MUCH = {
    "disk": (UNAWARE + FULL.format("/tmp/full", 320), 'Usage of EmptyDir volume "tmp" exceeds the limit "256Mi"'),
    "memory": (FULL.format("/dev/shm/full", 2048), "OOM-killed: it used more than its 1536Mi of memory"),
}
"""What makes a pod take more than it has, and what is said of it then."""
TIGHT = {"name": "tight", "workers": 1, "environments": 2, "cpus": 1, "memory_gib": 1.5, "gpus": 0}


@pytest.fixture
def settings(settings: BackendSettings) -> BackendSettings:
    settings = of_workers(settings)
    tight = settings.pods.default.model_copy(update={"scratch_gib": 0.25})
    return settings.model_copy(update={"pods": settings.pods.model_copy(update={"profiles": {"tight": tight}})})


@pytest.fixture
async def services(tmp_path: Path, settings: BackendSettings) -> AsyncIterator[Services]:
    async with serving(tmp_path, os.environ["DAF_TEST_HOST"], settings, TIGHT) as services:
        yield services


@pytest.mark.parametrize(("workers", "profile", "pods"), [(2, "one", 2), (2, "two", 1), (4, "two", 2)])
async def test_ranks_in_pods_train_as_one(
    services: Services, cluster: Cluster, settings: BackendSettings, workers: int, profile: str, pods: int
) -> None:
    await services.train("job", workers=workers, agent_steps=8 * workers * BATCH, profile=profile)
    await services.job_until("job", lambda job: job.progress.update >= 1)
    where = ("-n", settings.kubernetes_namespace)
    assert len(cluster.kubectl(*where, "get", "pods", "-o", "name").stdout.split()) == pods

    job = await services.succeeded("job")
    assert job.progress.agent_steps == 8 * workers * BATCH
    assert len(job.progress.workers) == workers
    assert len(await services.attempts("job")) == 1


async def test_a_job_that_loses_a_pod_goes_on_from_its_checkpoint(
    services: Services, cluster: Cluster, settings: BackendSettings
) -> None:
    steps = 16 * 2 * BATCH
    await services.train(
        "job", workers=2, agent_steps=steps, checkpoint_agent_steps=4 * BATCH, max_restarts=1, profile="one"
    )
    await services.job_until("job", lambda job: job.progress.update >= 5)
    where = ("-n", settings.kubernetes_namespace)
    cluster.kubectl(*where, "delete", "pod", "daf-job-a1-worker-0", "--force", "--grace-period=0")
    job = await services.succeeded("job")

    first, second = await services.attempts("job")
    assert first.failure.reason in ("WORKER_LOST", "PREEMPTED")
    assert second.resumed_from
    assert job.progress.agent_steps == steps
    assert_recorded_once(await services.updates("job"), 16)


@pytest.mark.timeout(600)  # a node looks at what a pod's volumes hold after one minute, or two more
async def test_a_job_whose_pods_take_too_much_memory_or_disk_says_so_and_goes_on_from_its_checkpoint(
    services: Services, cluster: Cluster, settings: BackendSettings, tmp_path: Path
) -> None:
    where = ("-n", settings.kubernetes_namespace)
    daf = Daf(tmp_path, DAF_ADDRESS=services.settings.listen.replace("0.0.0.0", "http://127.0.0.1"), COLUMNS="2000")
    lost = {}
    for name, (program, _) in TOO_MUCH.items():
        await services.train(
            name, agent_steps=ENDLESS, checkpoint_agent_steps=2 * BATCH, max_restarts=1, profile="tight"
        )
        lost[name] = await services.job_until(name, lambda job: job.progress.update > 2 and job.HasField("checkpoint"))
        inside = (*where, "exec", f"daf-{name}-a1-master-0", "--", "python", "-c", program)
        await asyncio.to_thread(cluster.kubectl, *inside, check=False)  # it may end with the pod
    for name, (_, why) in reversed(TOO_MUCH.items()):
        before = lost[name].progress.update
        await services.job_until(name, lambda job, most=before: job.attempt == 2 and job.progress.update > most)
        for kind in ("pytorchjobs", "pods"):
            found = cluster.kubectl(*where, "get", kind, "-o", "name", "-l", f"daf/workload={name}-a2,daf/attempt=2")
            assert len(found.stdout.split()) == 1
        job = await services.cancelled(name)

        first, second = await services.attempts(name)
        assert first.failure.reason == "WORKER_LOST"
        assert why in first.failure.message
        assert why in await asyncio.to_thread(daf, "job", "attempts", name)
        assert second.resumed_from.startswith(f"trainingJobs/{name}/checkpoints/")
        assert_recorded_once(await services.updates(name), job.progress.update)


async def test_what_was_trained_is_played_by_workers_whose_lines_are_seen_live(services: Services) -> None:
    await services.train("job", agent_steps=2 * BATCH)
    job = await services.succeeded("job")
    talkative = PolicyClass(class_path="talkative_policy.TalkativePolicy", code=await services.store(TALKATIVE))
    checkpoint = PolicyCheckpoint(policy_class=talkative, weights=job.checkpoint.weights)
    spec = EvaluationSpec(policies=[Policy(checkpoint=checkpoint)], missions=[MISSION], episodes=16, seed=3, workers=2)
    await services.evaluate("eval", spec)
    states = {}
    async for piece in services.evaluations.ReadLogs(ReadLogsRequest(name="evaluations/eval", follow=True)):
        if piece.worker not in states:
            states[piece.worker] = (await services.evaluation("eval")).state
    evaluation = await services.evaluation("eval")
    assert evaluation.state == EvaluationState.EVALUATION_STATE_SUCCEEDED, evaluation.failure
    assert states.keys() == {"w1-0", "w1-1"}
    assert EvaluationState.EVALUATION_STATE_SUCCEEDED not in states.values()  # seen while they played


async def test_a_worker_that_is_killed_costs_an_evaluation_nothing(
    services: Services, cluster: Cluster, settings: BackendSettings
) -> None:
    starter = Policy(policy_class=PolicyClass(class_path="starter"))
    spec = EvaluationSpec(policies=[starter], missions=[MISSION], episodes=60, seed=3, workers=2)
    await services.evaluate("calm", spec)
    calm = await services.evaluation_until("calm", lambda evaluation: evaluation.HasField("end_time"))
    await services.evaluate("stormy", spec)
    await services.evaluation_until("stormy", lambda evaluation: evaluation.done_episodes > 0)
    where = ("-n", settings.kubernetes_namespace)
    name = cluster.kubectl(*where, "get", "pods", "-o", "name", "-l", "daf/workload=stormy-w1").stdout.split()[0]
    cluster.kubectl(*where, "delete", name, "--force", "--grace-period=0")
    stormy = await services.evaluation_until("stormy", lambda evaluation: evaluation.HasField("end_time"))
    assert stormy.state == EvaluationState.EVALUATION_STATE_SUCCEEDED, stormy.failure
    assert stormy.digest == calm.digest
