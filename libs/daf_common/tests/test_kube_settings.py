"""What a service is told of a cluster, and what pods are made of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from daf_common.backends import backend_of
from daf_common.kube.pods import pod_template
from daf_common.kube.settings import BackendSettings, CertificateAuthorities, PodSettings
from daf_common.local_backend import LocalBackend
from daf_common.settings import ServiceSettings
from daf_common.workloads import Backend, Resources, Workload

PLAIN = PodSettings()


def test_a_laptop_asks_for_nothing(tmp_path: Path) -> None:
    def unwanted(settings: BackendSettings) -> Backend:
        raise AssertionError("no cluster was asked for")

    assert isinstance(backend_of(ServiceSettings(home=tmp_path), "train", unwanted), LocalBackend)


def test_what_a_cluster_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAF_BACKEND", "kubernetes")
    with pytest.raises(ValidationError, match="needs DAF_KUBERNETES_NAMESPACE and DAF_RUNNER_IMAGE"):
        BackendSettings()


def test_pods_are_placed_by_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"default": {"labels": {"a": "b"}}, "profiles": {"gpu-1": {"node_selector": {"gpu": "yes"}}}}
    monkeypatch.setenv("DAF_PODS", json.dumps(wanted))
    pods = BackendSettings().pods
    assert (pods.of("gpu-1").node_selector, pods.of("cpu-small").labels) == ({"gpu": "yes"}, {"a": "b"})

    monkeypatch.setenv("DAF_PODS", json.dumps({"default": {"nodeSelector": {}}}))
    with pytest.raises(ValidationError, match="nodeSelector"):
        BackendSettings()


def template(settings: PodSettings = PLAIN, **environment: str) -> dict[str, object]:
    return pod_template(
        Workload("job-a1", "train", environment),
        Resources(2, 3.5, 1),
        settings,
        container="worker",
        image="i:1",
        pull_policy="IfNotPresent",
        secret="s",
        labels={"daf/workload": "job-a1"},
    )


def test_memory_and_gpus_are_guaranteed_and_cores_may_be_shared() -> None:
    pod: dict = template(PodSettings(cpu_share=0.25, labels={"daf/workload": "mine", "queue": "q"}))
    assert pod["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "500m", "memory": "3584Mi", "ephemeral-storage": "1024Mi", "nvidia.com/gpu": "1"},
        "limits": {"memory": "3584Mi", "nvidia.com/gpu": "1"},
    }
    assert pod["metadata"]["labels"] == {"daf/workload": "job-a1", "queue": "q"}  # ours are ours


def test_a_little_of_the_disk_is_requested_but_in_a_queue_that_may_not_know_of_it() -> None:
    def requests(settings: PodSettings) -> dict[str, str]:
        pod: dict = template(settings)
        found: dict[str, str] = pod["spec"]["containers"][0]["resources"]["requests"]
        return found

    assert requests(PodSettings(scratch_gib=50))["ephemeral-storage"] == "5120Mi"
    assert requests(PodSettings(scratch_gib=0.001))["ephemeral-storage"] == "1Mi"
    assert "ephemeral-storage" not in requests(PodSettings(labels={"kueue.x-k8s.io/queue-name": "team"}))


def test_a_companys_authorities_are_trusted_beside_the_public_ones() -> None:
    authorities = CertificateAuthorities(config_map="company", key="bundle.pem")
    spec: dict = template(PodSettings(certificate_authorities=authorities))["spec"]

    (gathering,), (worker,) = spec["initContainers"], spec["containers"]
    variables = {variable["name"]: variable.get("value") for variable in worker["env"]}
    bundle = variables["SSL_CERT_FILE"]
    assert (variables["AWS_CA_BUNDLE"], variables["REQUESTS_CA_BUNDLE"]) == (bundle, bundle)
    program, *sources = gathering["command"][1:]
    assert f'>"{bundle}"' in program
    assert sources[0] == "/etc/ssl/certs/ca-certificates.crt"
    (given,) = [volume["configMap"] for volume in spec["volumes"] if "configMap" in volume]
    assert given == {"name": "company", "items": [{"key": "bundle.pem", "path": sources[1].rpartition("/")[2]}]}
    mounted = {mount["mountPath"]: mount["name"] for mount in [*gathering["volumeMounts"], *worker["volumeMounts"]]}
    assert {bundle.rpartition("/")[0], sources[1].rpartition("/")[0]} <= mounted.keys()
    assert set(mounted.values()) == {volume["name"] for volume in spec["volumes"]}
    assert gathering["securityContext"] == worker["securityContext"]


def test_the_token_is_in_the_secret_alone() -> None:
    pod: dict = template(DAF_TOKEN="s3cret", DAF_ATTEMPT="1")
    assert "s3cret" not in json.dumps(pod)
    variables = {variable["name"]: variable for variable in pod["spec"]["containers"][0]["env"]}
    assert variables["DAF_TOKEN"] == {
        "name": "DAF_TOKEN",
        "valueFrom": {"secretKeyRef": {"name": "s", "key": "DAF_TOKEN"}},
    }
    assert variables["DAF_ATTEMPT"]["value"] == "1"
    assert variables["OMP_NUM_THREADS"]["value"] == "1"
