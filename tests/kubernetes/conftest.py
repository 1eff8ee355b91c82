"""Backends on a real cluster, in namespaces that end with the tests."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from daf_common.kube.backend import KubernetesBackend
from daf_common.kube.form import Form
from daf_common.kube.settings import BackendSettings, PodProfiles, PodSettings
from daf_evaluation.job_backend import IndexedJobForm
from daf_training.pytorchjob_backend import PyTorchJobForm
from tests.cluster import Cluster, cluster
from tests.contracts.backends import WORKER

__all__ = ["cluster"]

QUICK = PodSettings(grace_seconds=3)

COMMAND = ("python", "-c", f"{WORKER}\nsys.exit(main(sys.argv[1:]))")
"""The stand-in worker, as a program of any image that has Python."""


@pytest.fixture(scope="session")
def image() -> str:
    """An image with Python that the cluster has or can pull."""
    return os.environ.get("DAF_TEST_RUNNER_IMAGE") or "python:3.12-slim-bookworm"


@pytest.fixture
def jobs_namespace(cluster: Cluster) -> Iterator[str]:
    """For workloads: `baseline`, since the operator's own container does not pass `restricted`."""
    with cluster.namespace(f"daf-test-{uuid.uuid4().hex[:8]}", "baseline") as name:
        cluster.kubectl("-n", name, "create", "configmap", "anchor")
        yield name


@pytest.fixture
def settings(jobs_namespace: str, image: str) -> BackendSettings:
    """An installation of the test's own."""
    return BackendSettings(
        backend="kubernetes",
        kubernetes_namespace=jobs_namespace,
        kubernetes_owner="anchor",
        instance=f"i{uuid.uuid4().hex[:8]}",
        runner_image=image,
        pods=PodProfiles(default=QUICK),
    )


type MakeBackend = Callable[..., KubernetesBackend]


@pytest.fixture
async def make(settings: BackendSettings) -> AsyncIterator[MakeBackend]:
    """Makes a backend: `make(form, command, **settings)`."""
    made = []

    def make(form: Form, command: tuple[str, ...] = COMMAND, **changes: object) -> KubernetesBackend:
        backend = KubernetesBackend(settings.model_copy(update=changes), form, command)
        made.append(backend)
        return backend

    yield make
    for backend in made:
        await backend.close()


@pytest.fixture
def training(make: MakeBackend) -> KubernetesBackend:
    return make(PyTorchJobForm())


@pytest.fixture
def evaluation(make: MakeBackend) -> KubernetesBackend:
    return make(IndexedJobForm())
