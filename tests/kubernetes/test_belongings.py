"""What a workload has beside it on a cluster: there for as long as somebody needs it, and no longer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from daf_common.errors import FailedPrecondition
from daf_common.kube.settings import BackendSettings, PodProfiles, PodSettings
from daf_common.workloads import Ranks, Workload
from daf_training.pytorchjob_backend import PyTorchJobForm
from tests.cluster import Cluster
from tests.contracts.backends import SMALL, running

from .conftest import MakeBackend

pytestmark = pytest.mark.kubernetes

SAVES = """\
import os, signal, sys, time
def save(*_):
    print("saves", flush=True)
    while not os.path.exists("/tmp/saved"):
        time.sleep(0.05)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("trains", flush=True)
time.sleep(600)
"""
"""A worker that ends, once it is asked to, only when the test lets it."""


def of_two_pods(name: str) -> Workload:
    return Workload(name, "train", {}, ranks=Ranks(count=2, per_machine=1), resources=SMALL)


def names(cluster: Cluster, namespace: str, kinds: str) -> list[str]:
    listed = cluster.kubectl("-n", namespace, "get", kinds, "-l", "app.kubernetes.io/managed-by=daf", "-o", "json")
    found: list[Any] = json.loads(listed.stdout)["items"]
    return sorted(f"{one['kind']} {one['metadata']['name']}" for one in found)


async def test_ranks_that_are_stopped_have_their_network_until_the_last_has_saved(
    make: MakeBackend, cluster: Cluster, settings: BackendSettings
) -> None:
    patient = PodProfiles(default=PodSettings(grace_seconds=120))
    backend = make(PyTorchJobForm(), ("python", "-c", SAVES), kubernetes_network_policies=True, pods=patient)
    where = settings.kubernetes_namespace

    def save(pod: str) -> None:
        cluster.kubectl("-n", where, "exec", pod, "-c", "pytorch", "--", "touch", "/tmp/saved")

    async def until(kinds: str, left: list[str]) -> None:
        async with asyncio.timeout(60):
            while names(cluster, where, kinds) != left:
                await asyncio.sleep(0.2)

    await backend.start(of_two_pods("job-a1"))
    await running(backend, "job-a1")
    await backend.stop("job-a1", 120)

    await until("pytorchjobs,secrets", [])
    save("daf-job-a1-master-0")
    await until("pods", ["Pod daf-job-a1-worker-0"])
    await backend.stop("job-a1", 120)  # as the service asks again and again
    assert names(cluster, where, "networkpolicies") == ["NetworkPolicy daf-job-a1"]
    save("daf-job-a1-worker-0")
    await until("pods,networkpolicies", [])


async def test_a_workload_whose_network_is_refused_leaves_no_token_behind(
    make: MakeBackend, cluster: Cluster, settings: BackendSettings
) -> None:
    where = settings.kubernetes_namespace
    backend = make(PyTorchJobForm(), kubernetes_network_policies=True)
    await backend.start(of_two_pods("job-a1"))
    quota = "--hard=count/networkpolicies.networking.k8s.io=1"
    cluster.kubectl("-n", where, "create", "quota", "one", quota)
    cluster.kubectl("-n", where, "wait", "--for=jsonpath={.status.used}", "quota/one", "--timeout=30s")

    with pytest.raises(FailedPrecondition, match="exceeded quota: one"):
        await backend.start(of_two_pods("job-b1"))
    await backend.start(of_two_pods("job-a1"))  # of this one all is there

    kinds = "pytorchjobs,secrets,networkpolicies"
    assert names(cluster, where, kinds) == ["NetworkPolicy daf-job-a1", "PyTorchJob daf-job-a1", "Secret daf-job-a1"]
