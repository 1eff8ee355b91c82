"""Pods that this machine's firewall cuts off from their service: packets vanish, and no connection is closed."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daf_common.kube.settings import BackendSettings
from daf_protos.common.v1.policy_pb2 import Policy, PolicyClass
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec, EvaluationState
from tests.cluster import Cluster
from tests.recorded import assert_recorded_once
from tests.training_stack import BATCH, MISSION

from .services import Services, of_workers, serving

pytestmark = [pytest.mark.kubernetes, pytest.mark.slow]

CUT_SECONDS = float(os.environ.get("DAF_TEST_PARTITION_SECONDS", "20"))
"""Longer than the lease of a shard; those who have the time try minutes."""
HEALED_SECONDS = 15.0
"""How soon after the end of a partition work goes on."""


@pytest.fixture
def settings(settings: BackendSettings) -> BackendSettings:
    if os.geteuid() != 0 or not shutil.which("iptables"):
        pytest.skip("NO FIREWALL: only root can cut pods off, with iptables")
    return of_workers(settings)


@pytest.fixture
async def services(tmp_path: Path, settings: BackendSettings) -> AsyncIterator[Services]:
    async with serving(tmp_path, os.environ["DAF_TEST_HOST"], settings) as services:
        yield services


@contextmanager
def cut_off(cluster: Cluster, namespace: str, pod: str, services: Services) -> Iterator[None]:
    """Drops whatever a pod sends to the services."""
    path = "jsonpath={.status.podIP}"
    address = cluster.kubectl("-n", namespace, "get", "pod", pod, "-o", path).stdout
    port = services.settings.listen.rpartition(":")[2]
    rule = ["INPUT", "--source", address, "--protocol", "tcp", "--dport", port, "--jump", "DROP"]
    subprocess.run(["iptables", "--insert", *rule], check=True)
    try:
        yield
    finally:
        subprocess.run(["iptables", "--delete", *rule], check=True)


async def test_a_job_that_is_cut_off_goes_on_where_it_is(
    services: Services, cluster: Cluster, settings: BackendSettings
) -> None:
    updates = 60
    await services.train("job", workers=2, agent_steps=updates * 2 * BATCH, profile="one")
    await services.job_until("job", lambda job: job.progress.update >= 2)
    with cut_off(cluster, settings.kubernetes_namespace, "daf-job-a1-master-0", services):
        await asyncio.sleep(CUT_SECONDS)
        during = await services.job_until("job", lambda job: True)
        assert not during.HasField("end_time")
    async with asyncio.timeout(HEALED_SECONDS):
        await services.job_until("job", lambda job: job.progress.update > during.progress.update)
    await services.succeeded("job")

    (attempt,) = await services.attempts("job")
    assert not attempt.failure.reason
    assert_recorded_once(await services.updates("job"), updates)


async def test_a_worker_that_is_cut_off_while_it_plays_changes_no_result(
    services: Services, cluster: Cluster, settings: BackendSettings
) -> None:
    starter = Policy(policy_class=PolicyClass(class_path="starter"))
    spec = EvaluationSpec(policies=[starter], missions=[MISSION], episodes=200, seed=3, workers=2)
    await services.evaluate("calm", spec)
    calm = await services.evaluation_until("calm", lambda evaluation: evaluation.HasField("end_time"))
    await services.evaluate("stormy", spec)
    await services.evaluation_until("stormy", lambda evaluation: evaluation.done_episodes > 0)
    where = ("-n", settings.kubernetes_namespace)
    names = cluster.kubectl(*where, "get", "pods", "-o", "name", "-l", "daf/workload=stormy-w1").stdout.split()
    with cut_off(cluster, settings.kubernetes_namespace, names[0].removeprefix("pod/"), services):
        await asyncio.sleep(CUT_SECONDS)
    stormy = await services.evaluation_until("stormy", lambda evaluation: evaluation.HasField("end_time"))
    assert stormy.state == EvaluationState.EVALUATION_STATE_SUCCEEDED, stormy.failure
    assert stormy.digest == calm.digest
    assert stormy.done_episodes == 200
