"""Workloads as pods of a real cluster: what both backends promise, and what becomes of those that go wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from daf_common.errors import FailedPrecondition
from daf_common.kube.api import Kind
from daf_common.kube.backend import KubernetesBackend
from daf_common.kube.logs import GAP, LAST_LINES, MAX_BYTES
from daf_common.kube.settings import BackendSettings, CertificateAuthorities, PodProfiles, PodSettings
from daf_common.workloads import Observation, Ranks, Resources, State, Workload
from daf_evaluation.job_backend import IndexedJobForm
from daf_training.pytorchjob_backend import PyTorchJobForm
from tests.cluster import Cluster
from tests.contracts.backends import SMALL, BackendContract, ended, running, until, workload

from .conftest import MakeBackend

pytestmark = pytest.mark.kubernetes


class TestBackendsOnKubernetes(BackendContract):
    @pytest.fixture
    def backend(self, training: KubernetesBackend) -> KubernetesBackend:
        return training

    @pytest.fixture
    def other(self, evaluation: KubernetesBackend) -> KubernetesBackend:
        return evaluation


async def waiting(backend: KubernetesBackend, name: str, for_what: str) -> str:
    """What a workload waits for, once it is that."""
    seen = await until(backend, name, lambda seen: seen is not None and for_what in seen.waiting)
    assert seen is not None
    return seen.waiting


def pods(cluster: Cluster, settings: BackendSettings) -> list[str]:
    found = cluster.kubectl(
        *("-n", settings.kubernetes_namespace, "get", "pods", "-o", "name"),
        *("-l", f"app.kubernetes.io/instance={settings.instance}"),
    )
    return found.stdout.split()


def items(cluster: Cluster, namespace: str, *what: str) -> list[dict[str, Any]]:
    """The objects of a kind, or those that further arguments leave."""
    return list(json.loads(cluster.kubectl("-n", namespace, "get", *what, "-o", "json").stdout)["items"])


async def test_a_cluster_without_the_operator_is_told_apart_and_told_what_it_lacks(make: MakeBackend) -> None:
    backend = make(PyTorchJobForm(Kind("there.is.none/v1", "PyTorchJob", "pytorchjobs")))
    for call in (backend.check(), backend.start(workload("job-a1")), backend.observe()):
        with pytest.raises(FailedPrecondition, match="needs the Kubeflow training operator"):
            await call


async def test_an_image_that_cannot_be_pulled_is_named(make: MakeBackend) -> None:
    backend = make(PyTorchJobForm(), runner_image="localhost/no-such-image:1")
    await backend.start(workload("job-a1"))
    assert "localhost/no-such-image:1 cannot be pulled" in await waiting(backend, "job-a1", "cannot be pulled")


async def test_a_pod_that_fits_nowhere_says_why(make: MakeBackend) -> None:
    elsewhere = PodProfiles(profiles={"big": PodSettings(node_selector={"daf.test/there-is": "none"})})
    backend = make(IndexedJobForm(), pods=elsewhere)
    await backend.start(Workload("eval-w1", "evaluate", replicas=2, resources=SMALL, profile="big"))
    assert "didn't match Pod's node affinity/selector" in await waiting(backend, "eval-w1", "cannot be scheduled")


async def test_authorities_that_are_not_there_are_named(make: MakeBackend) -> None:
    lacking = PodSettings(certificate_authorities=CertificateAuthorities(config_map="company"))
    backend = make(PyTorchJobForm(), pods=PodProfiles(default=lacking))
    await backend.start(workload("job-a1"))
    assert 'configmap "company" not found' in await waiting(backend, "job-a1", "FailedMount")


@pytest.mark.parametrize("form", [PyTorchJobForm(), IndexedJobForm()])
async def test_a_quota_that_refuses_is_shown_and_obeyed_until_it_is_raised(
    make: MakeBackend, form: PyTorchJobForm | IndexedJobForm, cluster: Cluster
) -> None:
    with cluster.namespace(f"daf-test-quota-{form.service}", "baseline") as name:
        cluster.kubectl("-n", name, "create", "quota", "none", "--hard=pods=0")
        backend = make(form, kubernetes_namespace=name, kubernetes_owner="")
        await backend.start(workload("job-a1", "evaluate"))
        assert "exceeded quota: none" in await waiting(backend, "job-a1", "exceeded quota")
        cluster.kubectl("-n", name, "delete", "quota", "none")
        assert (await ended(backend, "job-a1")).state is State.SUCCEEDED


@pytest.mark.parametrize("form", [PyTorchJobForm(), IndexedJobForm()])
async def test_a_worker_that_takes_more_memory_than_it_has_says_so(
    make: MakeBackend, form: PyTorchJobForm | IndexedJobForm
) -> None:
    backend = make(form, ("python", "-c", "print('growing', flush=True); b = b'x' * (1 << 28)"))
    await backend.start(workload("job-a1", "evaluate"))
    seen = await ended(backend, "job-a1")
    assert seen.state is State.FAILED
    assert "OOM-killed: it used more than its 64Mi of memory" in seen.message
    assert await backend.logs("job-a1", seen.replica) == b"growing\n"  # there until it is removed


async def test_an_evicted_rank_ends_its_attempt_with_the_reason(
    training: KubernetesBackend, cluster: Cluster, settings: BackendSettings
) -> None:
    await training.start(workload("job-a1", SECONDS="600"))
    await running(training, "job-a1")
    name = "daf-job-a1-master-0"
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    path = f"/api/v1/namespaces/{settings.kubernetes_namespace}/pods/{name}/eviction"
    cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    assert "evicted, as when a node is drained" in await waiting(training, "job-a1", "evicted")
    seen = await ended(training, "job-a1")
    assert seen.state is State.FAILED
    assert f"{name} evicted" in seen.message or f"{name}: evicted" in seen.message


@pytest.mark.parametrize("looked", [True, False])
async def test_a_rank_deleted_by_hand_ends_its_attempt_though_the_operator_makes_it_anew(
    training: KubernetesBackend, make: MakeBackend, cluster: Cluster, settings: BackendSettings, looked: bool
) -> None:
    await training.start(workload("job-a1", SECONDS="600"))
    await running(training, "job-a1")
    delete = ("delete", "pod", "daf-job-a1-master-0", "--force", "--grace-period=0")
    cluster.kubectl("-n", settings.kubernetes_namespace, *delete, "--wait=false" if looked else "--wait=true")
    seen = await ended(training, "job-a1")
    assert seen.state is State.FAILED
    assert "daf-job-a1-master-0 was deleted" in seen.message or "1 of its pods is gone" in seen.message


async def test_a_job_deleted_by_hand_is_gone_once_its_pods_are(
    training: KubernetesBackend, cluster: Cluster, settings: BackendSettings
) -> None:
    await training.start(workload("job-a1", SECONDS="600"))
    await running(training, "job-a1")
    cluster.kubectl("-n", settings.kubernetes_namespace, "delete", "pytorchjob", "daf-job-a1", "--wait=false")
    assert await until(training, "job-a1", lambda seen: seen is None) is None


async def test_workers_of_an_evaluation_that_are_evicted_are_replaced(
    evaluation: KubernetesBackend, cluster: Cluster, settings: BackendSettings
) -> None:
    await evaluation.start(workload("eval-w1", "evaluate", replicas=2, SECONDS="8"))
    await running(evaluation, "eval-w1")
    name = pods(cluster, settings)[0].removeprefix("pod/")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    path = f"/api/v1/namespaces/{settings.kubernetes_namespace}/pods/{name}/eviction"
    cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    assert (await ended(evaluation, "eval-w1")).state is State.SUCCEEDED


async def test_of_a_long_log_the_beginning_is_read_and_the_end_once_it_has_ended(make: MakeBackend) -> None:
    prints = "[print(f'{n:01000}') for n in range(6000)]; print('why'); raise SystemExit(1)"
    printed = b"".join(b"%01000d\n" % n for n in range(6000)) + b"why\n"
    backend = make(IndexedJobForm(), ("python", "-c", prints))
    await backend.start(workload("eval-w1", "evaluate"))
    await ended(backend, "eval-w1")

    log = await backend.logs("eval-w1")

    beginning, _, end = log.partition(GAP)
    assert beginning == printed[:MAX_BYTES]
    assert end.splitlines() == printed.splitlines()[-LAST_LINES:]
    assert await backend.logs("eval-w1") == log


async def test_a_worker_that_fails_leaves_the_others_at_work(evaluation: KubernetesBackend) -> None:
    await evaluation.start(workload("eval-w1", "evaluate", replicas=2, CODE="3", SECONDS="5"))
    await until(evaluation, "eval-w1", lambda seen: seen is not None and seen.state is not State.RUNNING)
    seen = (await evaluation.observe())["eval-w1"]
    assert seen.state is State.FAILED
    assert len((await evaluation.logs("eval-w1", 1)).splitlines()) == 1  # it has ended by itself, once


async def test_what_a_service_before_has_started_is_found_and_heard_of(
    training: KubernetesBackend, make: MakeBackend
) -> None:
    await training.start(workload("job-a1", SECONDS="3"))
    await training.close()

    changed = asyncio.Event()
    successor = make(PyTorchJobForm())
    successor.watch(lambda name: changed.set() if name == "job-a1" else None)
    seen = Observation(State.RUNNING)
    async with asyncio.timeout(60):
        while seen.state is State.RUNNING:
            await changed.wait()
            changed.clear()
            seen = (await successor.observe())["job-a1"]
    assert seen.state is State.SUCCEEDED
    assert b"train" in await successor.logs("job-a1")


async def test_nothing_of_another_installation_is_seen_or_taken(training: KubernetesBackend, make: MakeBackend) -> None:
    await training.start(workload("job-a1"))
    stranger = make(PyTorchJobForm(), instance="stranger")
    assert await stranger.observe() == {}
    with pytest.raises(FailedPrecondition, match="not of this installation"):
        await stranger.start(workload("job-a1"))


async def test_all_goes_with_the_owner(
    training: KubernetesBackend, cluster: Cluster, settings: BackendSettings
) -> None:
    where = ("-n", settings.kubernetes_namespace)
    cluster.kubectl(*where, "create", "configmap", settings.instance)
    training._settings = settings.model_copy(update={"kubernetes_owner": settings.instance})
    await training.start(workload("job-a1", SECONDS="600", DAF_TOKEN="s3cret"))
    cluster.kubectl(*where, "delete", "configmap", settings.instance)
    selector = ("-l", f"app.kubernetes.io/instance={settings.instance}")
    async with asyncio.timeout(90):
        while cluster.kubectl(*where, "get", "pytorchjobs,secrets,pods,services", "-o", "name", *selector).stdout:
            await asyncio.sleep(0.2)
    with pytest.raises(FailedPrecondition, match="there is no ConfigMap"):
        await training.start(workload("job-a2"))


@pytest.mark.parametrize("form", [PyTorchJobForm(), IndexedJobForm()])  # the operator adds nothing to one pod alone
async def test_pods_pass_the_restricted_standard_and_hold_no_secret_but_their_token(
    make: MakeBackend, form: PyTorchJobForm | IndexedJobForm, cluster: Cluster, settings: BackendSettings
) -> None:
    with cluster.namespace(f"daf-test-{settings.instance}", "restricted") as name:
        backend = make(form, kubernetes_namespace=name, kubernetes_owner="")
        await backend.start(workload("job-a1", "evaluate", DAF_TOKEN="s3cret", TOKEN_WANTED="s3cret"))
        assert await ended(backend, "job-a1") == Observation(State.SUCCEEDED)
        found = items(cluster, name, "pods")[0]["spec"]
        assert "s3cret" not in json.dumps([v for v in found["containers"][0]["env"] if v["name"] != "TOKEN_WANTED"])
        assert [volume["name"] for volume in found["volumes"]] == ["work", "tmp", "shm"]  # no account's token


@pytest.mark.parametrize("form", [PyTorchJobForm(), IndexedJobForm()])
async def test_an_object_and_its_pods_say_of_which_attempt_they_are(
    make: MakeBackend, form: PyTorchJobForm | IndexedJobForm, cluster: Cluster, settings: BackendSettings
) -> None:
    backend = make(form)
    for attempt in ("1", "2"):
        await backend.start(workload(f"job-a{attempt}", "evaluate", DAF_ATTEMPT=attempt))
    for attempt in ("1", "2"):
        await ended(backend, f"job-a{attempt}")
    for kind in (form.kind.plural, "pods"):
        found = items(cluster, settings.kubernetes_namespace, kind, "-l", "daf/attempt=2")
        assert [one["metadata"]["labels"]["daf/workload"] for one in found] == ["job-a2"]


@pytest.fixture
def priority_class(cluster: Cluster, settings: BackendSettings) -> Iterator[str]:
    """Of the lowest priority, so that it is in nobody's way."""
    name = f"daf-test-{settings.instance}"
    cluster.kubectl("create", "priorityclass", name, "--value=-7", "--preemption-policy=Never")
    yield name
    cluster.kubectl("delete", "priorityclass", name)


@pytest.mark.parametrize("form", [PyTorchJobForm(), IndexedJobForm()])
async def test_priority_and_tolerations_of_a_profile_reach_its_pods(
    make: MakeBackend,
    form: PyTorchJobForm | IndexedJobForm,
    cluster: Cluster,
    settings: BackendSettings,
    priority_class: str,
) -> None:
    spot = {"key": "daf.test/spot", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}
    profiles = {"spot": PodSettings(priority_class_name=priority_class, tolerations=(spot,))}
    backend = make(form, pods=PodProfiles(profiles=profiles))
    await backend.start(replace(workload("job-a1", "evaluate"), profile="spot"))
    assert (await ended(backend, "job-a1")).state is State.SUCCEEDED
    (pod,) = items(cluster, settings.kubernetes_namespace, "pods")
    assert (pod["spec"]["priorityClassName"], pod["spec"]["priority"]) == (priority_class, -7)
    assert spot in pod["spec"]["tolerations"]


async def test_ranks_are_spread_over_pods_as_torchrun_is_told(make: MakeBackend) -> None:
    script = (
        "import os; print(*(os.environ[f'PET_{n}'] for n in ('NNODES', 'NPROC_PER_NODE', 'NODE_RANK')), flush=True)"
    )
    backend = make(PyTorchJobForm(), ("python", "-c", script + "; import time; time.sleep(3)"))
    await backend.start(Workload("job-a1", "train", ranks=Ranks(4, per_machine=2), resources=Resources(0.02, 0.03)))
    await running(backend, "job-a1")
    assert (await ended(backend, "job-a1")).state is State.SUCCEEDED
    assert [(await backend.logs("job-a1", machine)).split() for machine in range(2)] == [
        [b"2", b"2", b"0"],
        [b"2", b"2", b"1"],
    ]


async def test_ranks_of_a_job_have_a_network_of_their_own_for_as_long_as_it_is_there(
    make: MakeBackend, cluster: Cluster, settings: BackendSettings
) -> None:
    def found(kind: str) -> list[dict[str, Any]]:
        return items(cluster, settings.kubernetes_namespace, kind)

    backend = make(PyTorchJobForm(), kubernetes_network_policies=True)
    two_pods = Ranks(count=2, per_machine=1)
    for name, ranks in (("job-a1", two_pods), ("job-b1", two_pods), ("job-c1", Ranks(1, 1))):
        await backend.start(Workload(name, "train", {"SECONDS": "600"}, resources=SMALL, ranks=ranks))
    await until(backend, "job-a1", lambda seen: len(found("pods")) == 5)

    policies = {policy["metadata"]["name"]: policy for policy in found("networkpolicies")}
    assert sorted(policies) == ["daf-job-a1", "daf-job-b1"]  # one pod alone has nobody to talk to
    for name, policy in policies.items():
        (peers,) = policy["spec"]["ingress"][0]["from"]
        assert peers["podSelector"] == policy["spec"]["podSelector"]
        chosen = policy["spec"]["podSelector"]["matchLabels"].items()
        selected = [pod["metadata"]["name"] for pod in found("pods") if chosen <= pod["metadata"]["labels"].items()]
        assert sorted(selected) == [f"{name}-master-0", f"{name}-worker-0"]

    await backend.remove("job-a1")
    cluster.kubectl("-n", settings.kubernetes_namespace, "delete", "pytorchjob", "daf-job-b1")  # its owner
    await until(backend, "job-c1", lambda seen: not found("networkpolicies"))


async def test_an_attempt_that_takes_too_long_is_ended(make: MakeBackend) -> None:
    backend = make(PyTorchJobForm(), pods=PodProfiles(default=PodSettings(active_deadline_seconds=5, grace_seconds=1)))
    await backend.start(workload("job-a1", SECONDS="600"))
    seen = await ended(backend, "job-a1")
    assert seen.state is State.FAILED
    assert "DeadlineExceeded" in seen.message
