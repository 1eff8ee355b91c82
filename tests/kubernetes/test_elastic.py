"""A job that makes do with fewer workers, on a node that has no room for all of its pods."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from daf_common.kube.backend import KubernetesBackend
from daf_common.kube.settings import BackendSettings, PodProfiles
from daf_common.workloads import Ranks, Resources, Workload
from daf_training.pytorchjob_backend import PyTorchJobForm
from tests.cluster import Cluster
from tests.contracts.backends import until
from tests.recorded import assert_recorded_once
from tests.training_stack import BATCH

from .conftest import MakeBackend
from .services import Services, of_workers, serving

pytestmark = pytest.mark.kubernetes

PATIENCE_SECONDS = 5
UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@dataclass(frozen=True)
class Node:
    """A node, and as much of its memory as one pod can have, but not two."""

    name: str
    memory_gib: float


def byte_count(quantity: str) -> float:
    number = quantity.rstrip("KMGikm")
    return float(number) * UNITS[quantity.removeprefix(number)]


@pytest.fixture
def node(cluster: Cluster) -> Node:
    """What other pods ask for meanwhile must be little: a third of the free memory."""

    def items(*what: str) -> list[Any]:
        found: list[Any] = json.loads(cluster.kubectl("get", *what, "-o", "json").stdout)["items"]
        return found

    (first, *_) = items("nodes")
    name = first["metadata"]["name"]
    staying = {found["metadata"]["name"] for found in items("namespaces") if found["status"]["phase"] == "Active"}
    pods = items("pods", "-A", "--field-selector", f"spec.nodeName={name}")
    asked = [
        byte_count(container.get("resources", {}).get("requests", {}).get("memory", "0"))
        for pod in pods
        if pod["status"]["phase"] in ("Pending", "Running") and pod["metadata"]["namespace"] in staying
        for container in pod["spec"]["containers"]
    ]
    free = byte_count(first["status"]["allocatable"]["memory"]) - sum(asked)
    return Node(name, round(free * 2 / 3 / 2**30, 1))


def on(node: Node, settings: BackendSettings) -> BackendSettings:
    """The same settings, with all pods on one node."""
    here = {"node_selector": {"kubernetes.io/hostname": node.name}}
    return settings.model_copy(update={"pods": PodProfiles(default=settings.pods.default.model_copy(update=here))})


async def test_of_two_pods_of_which_one_fits_one_is_seen_to_run(
    make: MakeBackend, node: Node, settings: BackendSettings
) -> None:
    backend: KubernetesBackend = make(PyTorchJobForm(), pods=on(node, settings).pods)
    resources = Resources(0.05, node.memory_gib)
    await backend.start(Workload("job-a1", "train", {"SECONDS": "600"}, ranks=Ranks(2, 1), resources=resources))
    seen = await until(backend, "job-a1", lambda seen: seen is not None and seen.running == 1 and bool(seen.waiting))
    assert seen is not None
    assert "Insufficient memory" in seen.waiting


@pytest.fixture
async def services(
    tmp_path: Path, settings: BackendSettings, node: Node, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Services]:
    monkeypatch.setenv("DAF_ELASTIC_PATIENCE_SECONDS", str(PATIENCE_SECONDS))
    large = {"name": "large", "workers": 2, "environments": 2, "cpus": 1, "memory_gib": node.memory_gib, "gpus": 0}
    async with serving(
        tmp_path, os.environ.get("DAF_TEST_HOST", ""), on(node, of_workers(settings)), large
    ) as services:
        yield services


@pytest.mark.slow
async def test_a_job_whose_second_pod_fits_nowhere_trains_with_one_worker(services: Services) -> None:
    await services.train("job", profile="large", min_workers=1, agent_steps=8 * BATCH)
    job = await services.succeeded("job")

    first, second = await services.attempts("job")
    assert (first.workers, first.failure.reason, first.agent_steps) == (2, "TOO_FEW_WORKERS", 0)
    assert "only 1 of 2 workers could run" in first.failure.message
    assert "Insufficient memory" in first.failure.message
    waited = first.end_time.ToDatetime() - first.start_time.ToDatetime()
    assert waited.total_seconds() >= PATIENCE_SECONDS
    assert (second.workers, second.HasField("failure")) == (1, False)
    assert (job.progress.agent_steps, len(job.progress.workers)) == (8 * BATCH, 1)
    assert_recorded_once(await services.updates("job"), 8)
