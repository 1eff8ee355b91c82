"""What the backend makes of rare answers of an API server, which no cluster gives when it is asked to."""

from __future__ import annotations

from typing import Any

import pytest

from daf_common.errors import AlreadyExists, FailedPrecondition, NotFound
from daf_common.kube import history
from daf_common.kube.api import PODS, SECRETS, Kind, KubernetesApi, Object
from daf_common.kube.backend import KubernetesBackend
from daf_common.kube.settings import BackendSettings
from daf_common.workloads import State, Workload
from daf_evaluation.job_backend import JOBS, IndexedJobForm

WORKLOAD = Workload("e-w1", "evaluate", {"DAF_TOKEN": "s3cret"}, replicas=2)


class Answers(KubernetesApi):
    """A server's objects, as a test has put them there."""

    def __init__(self) -> None:
        super().__init__("jobs")
        self.objects: dict[tuple[str, str], Object] = {}
        self.quota: FailedPrecondition | None = None
        self.logs = {"daf-e-w1-0": b"zero\n", "daf-e-w1-1": b"one\n"}

    async def list(self, kind: Kind, labels: str = "", fields: str = "", limit: int = 0) -> tuple[list[Object], str]:
        return [found for (plural, _), found in self.objects.items() if plural == kind.plural], "1"

    async def get(self, kind: Kind, name: str) -> Object:
        try:
            return self.objects[kind.plural, name]
        except KeyError:
            raise NotFound(f"{kind.plural} {name} not found") from None

    async def create(self, kind: Kind, body: Object) -> Object:
        if self.quota and kind is JOBS:
            raise self.quota
        key = (kind.plural, body["metadata"]["name"])
        if key in self.objects:
            raise AlreadyExists("there it is")
        self.objects[key] = {**body, "metadata": {**body["metadata"], "uid": "/".join(key)}}
        return self.objects[key]

    async def patch(self, kind: Kind, name: str, body: Object) -> Object:
        return await self.get(kind, name)

    async def delete(self, kind: Kind, name: str, grace_seconds: int | None = None) -> None:
        self.objects.pop((kind.plural, name), None)

    async def log(self, pod: str, container: str, limit_bytes: int) -> bytes | None:
        return self.logs[pod]

    def add_pod(self, index: int) -> Object:
        """A running pod of the workload."""
        name = f"daf-e-w1-{index}"
        labels = {"daf/workload": "e-w1", "batch.kubernetes.io/job-completion-index": str(index)}
        metadata: dict[str, Any] = {"name": name, "uid": name, "labels": labels, "creationTimestamp": "2026-01-01"}
        pod: Object = {"metadata": metadata, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}}
        self.objects[PODS.plural, name] = pod
        return pod

    def names(self, kind: Kind) -> list[str]:
        return [name for plural, name in self.objects if plural == kind.plural]


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def backend(answers: Answers) -> KubernetesBackend:
    settings = BackendSettings(backend="kubernetes", kubernetes_namespace="jobs", runner_image="runner:1")
    return KubernetesBackend(settings, IndexedJobForm(), api=answers)


async def test_a_workload_that_is_refused_leaves_no_secret(backend: KubernetesBackend, answers: Answers) -> None:
    answers.quota = FailedPrecondition("exceeded quota: jobs")
    with pytest.raises(FailedPrecondition, match="exceeded quota"):
        await backend.start(WORKLOAD)
    assert answers.names(SECRETS) == []


async def test_a_quota_that_a_workload_itself_uses_up_does_not_refuse_it(
    backend: KubernetesBackend, answers: Answers
) -> None:
    await backend.start(WORKLOAD)
    answers.quota = FailedPrecondition("exceeded quota: jobs")
    await backend.start(WORKLOAD)  # by a service that does not know what the one before has done
    assert answers.names(SECRETS) == ["daf-e-w1"]


async def test_what_is_stopped_leaves_nothing_but_pods_that_end(backend: KubernetesBackend, answers: Answers) -> None:
    await backend.start(WORKLOAD)
    await backend.stop("e-w1", 1)
    assert answers.objects == {}


async def test_workers_on_nodes_out_of_reach_are_given_up_once_none_is_left(
    backend: KubernetesBackend, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "SLACK_SECONDS", -1.0)  # it is long ago that they should have ended
    await backend.start(WORKLOAD)
    pods = [answers.add_pod(index) for index in (0, 1)]
    assert await backend.logs("e-w1", 1) == b"one\n"

    pods[0]["metadata"]["deletionTimestamp"] = "2026-01-01"
    assert (await backend.observe())["e-w1"].state is State.RUNNING

    pods[1]["metadata"]["deletionTimestamp"] = "2026-01-01"
    seen = (await backend.observe())["e-w1"]
    assert (seen.state, seen.message) == (State.FAILED, "daf-e-w1-1 was deleted")
    answers.logs = {}  # nobody is to ask their nodes
    assert await backend.logs("e-w1", 1) == b"one\n"


async def test_logs_of_what_has_vanished_are_not_kept(backend: KubernetesBackend, answers: Answers) -> None:
    await backend.start(WORKLOAD)
    answers.add_pod(0)
    await backend.observe()
    assert await backend.logs("e-w1") == b"zero\n"
    assert backend._logs._logs

    answers.objects = {}
    await backend.observe()
    assert not backend._logs._logs
