"""What the values accept and refuse, and what they become."""

from __future__ import annotations

import json
from typing import Any

import pytest

from daf_common.kube.settings import CertificateAuthorities, PodProfiles
from daf_training.profiles import Profile
from tests.chart.rendering import CHART, NEEDED, SINGLE_NODE, Refused, Values, render, run_helm

pytestmark = pytest.mark.chart

TRAINING = "daf-training"
AUTHORITY = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
LOAD_BALANCER = {
    "type": "LoadBalancer",
    "loadBalancerClass": "service.k8s.aws/nlb",
    "loadBalancerSourceRanges": ["10.0.0.0/8", "fd00::/8"],
    "externalTrafficPolicy": "Local",
}


@pytest.mark.parametrize(
    "values",
    [
        {},
        SINGLE_NODE,
        {"auth": {"enabled": False}, "gateway": {"tls": {"enabled": False}}},
        {"auth": {"existingSecret": "tokens", "principals": ["ana", "ben.k"]}},
        {
            "gateway": {
                "hosts": ["daf.example.com"],
                "tls": {"certManager": {"issuer": "letsencrypt"}, "publicCA": True},
            }
        },
        {"gateway": {"hosts": ["daf.example.com", "10.1.2.3", "fd00::1"], "service": {"type": "LoadBalancer"}}},
        {"gateway": {"hosts": ["daf.example.com"], "ingress": {"enabled": True, "className": "nginx"}}},
        {"gateway": {"tls": {"enabled": False}, "grpcRoute": {"enabled": True, "parentRefs": [{"name": "public"}]}}},
        {"profiles": {"gpu-1": {"pods": {"nodeSelector": {"gpu": "a100"}}}}},
        {"metrics": {"serviceMonitor": "always", "podMonitor": "always", "annotations": True}},
        {"networkPolicy": {"enabled": False}},
        {"jobs": {"namespace": "team", "createNamespace": False}},
        {"pods": {"extraEnv": [{"name": "DAF_LOG_LEVEL", "value": "DEBUG"}]}},
        {"certificateAuthorities": {"pem": AUTHORITY}},
        {**SINGLE_NODE, "certificateAuthorities": {"pem": AUTHORITY}},
        {"certificateAuthorities": {"configMap": "company", "key": "ca-bundle.crt"}},
        {"gateway": {"service": LOAD_BALANCER}},
        {"gateway": {"service": {"type": "NodePort", "nodePort": 30443, "externalTrafficPolicy": "Local"}}},
    ],
    ids=str,
)
def test_helm_lint_accepts_what_the_documentation_shows(values: Values) -> None:
    assert "0 chart(s) failed" in run_helm("lint", str(CHART), "--strict", "--values", "-", values=values)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"sheduler": {"replicas": 2}}, "'sheduler' not allowed"),
        ({"scheduler": {"replica": 2}}, "/scheduler"),
        ({"scheduler": {"replicas": "two"}}, "/scheduler/replicas': got string, want integer"),
        ({"scheduler": {"replicas": 0}}, "/scheduler/replicas"),
        ({"scheduler": {"extraEnv": [{"name": "A-B", "value": "x"}]}}, "/scheduler/extraEnv/0/name"),
        ({"scheduler": {"extraEnv": [{"name": "DAF_LOG_LEVEL", "value": 1}]}}, "/scheduler/extraEnv/0"),
        ({"scheduler": {"resources": {"requests": {"memory": "much"}}}}, "/scheduler/resources/requests/memory"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
        ({"database": {"url": "postgresql+psycopg://a:b@c/d"}}, "'url' not allowed"),  # a password is no value
        ({"artifacts": {"url": "file:///data"}}, "/artifacts/url"),
        ({"artifacts": {"url": "s3://bucket", "endpoint": "minio:9000"}}, "/artifacts/endpoint"),
        ({"artifacts": {"url": "s3://bucket", "existingSecret": "My Secret"}}, "/artifacts/existingSecret"),
        ({"auth": {"principals": ["ana maria"]}}, "/auth/principals/0"),
        ({"auth": {"principals": []}}, "/auth/principals"),
        ({"gateway": {"hosts": ["https://daf.example.com"]}}, "/gateway/hosts/0"),
        ({"gateway": {"service": {"type": "External"}}}, "/gateway/service/type"),
        ({"profiles": {"GPU": {"pods": {}}}}, "GPU"),
        ({"profiles": {"big": {"workers": 4}}}, "'environments', 'cpus', 'memoryGiB', 'gpus' required"),
        ({"profiles": {"big": {"pods": {"image": "x"}}}}, "'image' not allowed"),
        ({"profiles": {"big": {"workersPerMachine": 65}}}, "/profiles/big/workersPerMachine"),
        ({"metrics": {"serviceMonitor": True}}, "/metrics/serviceMonitor"),
        ({"networkPolicy": {"database": {"ports": [0]}}}, "/networkPolicy/database/ports/0"),
        ({"singleNode": {"enabled": "yes"}}, "/singleNode/enabled"),
        ({"database": {"existingSecret": ""}}, "database.existingSecret is needed"),
        ({"artifacts": {"url": ""}}, "artifacts.url is needed"),
        ({"jobs": {"namespace": "team"}}, "jobs.createNamespace"),
        ({"jobs": {"egressExcept": ["10.0.0.1"]}}, "/jobs/egressExcept/0"),
        (
            {"jobs": {"egressExcept": ["10.0.0.0/8"]}, "networkPolicy": {"artifacts": {"to": [{"podSelector": {}}]}}},
            "jobs.egressExcept narrows",
        ),
        ({"gateway": {"ingress": {"enabled": True}}}, "gateway.hosts is needed"),
        ({"gateway": {"service": {"nodePort": 70000}}}, "/gateway/service/nodePort"),
        ({"gateway": {"service": {"nodePort": 30443}}}, "gateway.service.nodePort needs"),
        ({"gateway": {"service": {**LOAD_BALANCER, "type": "NodePort"}}}, "gateway.service.loadBalancerClass and"),
        (
            {"gateway": {"service": {**LOAD_BALANCER, "loadBalancerSourceRanges": ["10.0.0.1"]}}},
            "/gateway/service/loadBalancerSourceRanges/0",
        ),
        ({"gateway": {"service": {"externalTrafficPolicy": "Local"}}}, "gateway.service.externalTrafficPolicy needs"),
        ({"certificateAuthorities": {"pem": "company.crt"}}, "/certificateAuthorities/pem"),
        ({"certificateAuthorities": {"pem": f"{AUTHORITY}-----BEGIN PRIVATE KEY-----"}}, "holds a private key"),
        ({"certificateAuthorities": {"pem": AUTHORITY, "configMap": "company"}}, "not both"),
        ({"gateway": {"grpcRoute": {"enabled": True}}}, "gateway.tls.enabled"),
    ],
    ids=str,
)
def test_mistakes_are_refused_and_named(values: Values, reason: str) -> None:
    with pytest.raises(Refused) as raised:
        render(values)

    assert reason in str(raised.value)


def test_a_person_can_read_the_values() -> None:
    assert len((CHART / "values.yaml").read_text().splitlines()) <= 250


def test_placement_of_jobs_is_what_the_services_read() -> None:
    values = {
        "image": {"pullSecrets": ["registry"]},
        "jobs": {"queue": "team-a", "pods": {"nodeSelector": {"zone": "a"}, "tolerations": [{"key": "batch"}]}},
        "profiles": {
            "gpu-1": {
                "pods": {
                    "nodeSelector": {"gpu": "a100"},
                    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
                    "priorityClassName": "low",
                    "runtimeClassName": "nvidia",
                    "scratchGiB": 50,
                    "activeDeadlineSeconds": 3600,
                }
            }
        },
    }

    pods = PodProfiles.model_validate_json(render(values).environment(TRAINING)["DAF_PODS"])

    assert pods.of("cpu-small").node_selector == {"zone": "a"}
    assert pods.of("cpu-small").labels == {"kueue.x-k8s.io/queue-name": "team-a"}
    assert pods.of("cpu-small").active_deadline_seconds is None
    gpu = pods.of("gpu-1")
    assert gpu.node_selector == {"zone": "a", "gpu": "a100"}
    assert [toleration["key"] for toleration in gpu.tolerations] == ["batch", "nvidia.com/gpu"]
    assert gpu.labels == pods.of("cpu-small").labels
    assert (gpu.priority_class_name, gpu.runtime_class_name) == ("low", "nvidia")
    assert (gpu.scratch_gib, gpu.active_deadline_seconds) == (50, 3600)
    assert gpu.image_pull_secrets == ("registry",)


@pytest.mark.parametrize(
    ("given", "name", "key"),
    [
        ({"pem": AUTHORITY}, "daf-authorities-jobs", "ca.crt"),
        ({"configMap": "own", "key": "all.pem"}, "own", "all.pem"),
    ],
    ids=["pem", "configMap"],
)
def test_workers_of_all_profiles_trust_what_services_trust(given: Values, name: str, key: str) -> None:
    profiles = {"gpu-1": {"pods": {"nodeSelector": {"gpu": "a100"}}}}
    rendered = render({"certificateAuthorities": given, "profiles": profiles})

    for service in (TRAINING, "daf-evaluation"):
        pods = PodProfiles.model_validate_json(rendered.environment(service)["DAF_PODS"])
        for profile in ("cpu-small", "gpu-1"):
            assert pods.of(profile).certificate_authorities == CertificateAuthorities(config_map=name, key=key)
    copies = {(m["metadata"]["namespace"], n) for n, m in rendered.of("ConfigMap").items() if key in m["data"]}
    assert copies == (
        {("team", "daf-authorities"), ("team", "daf-authorities-hook"), ("team-jobs", "daf-authorities-jobs")}
        if "pem" in given
        else set()
    )
    assert PodProfiles.model_validate_json(render().environment(TRAINING)["DAF_PODS"]) == PodProfiles()


def test_the_gateways_service_is_what_the_values_say() -> None:
    def spec(values: Values) -> dict[str, Any]:
        found: dict[str, Any] = render({"gateway": {"service": values}}).one("Service", "daf-gateway")["spec"]
        return {name: value for name, value in found.items() if name != "selector"}

    port = {"name": "https", "port": 443, "targetPort": "grpc"}
    assert spec({}) == {"type": "ClusterIP", "ports": [port]}
    assert spec(LOAD_BALANCER) == {**LOAD_BALANCER, "ports": [port]}
    assert spec({"type": "NodePort", "nodePort": 30443})["ports"] == [{**port, "nodePort": 30443}]


def test_profiles_are_what_the_training_service_reads() -> None:
    compute: dict[str, Any] = {"workers": 4, "environments": 64, "cpus": 8, "memoryGiB": 31.5, "gpus": 0}
    values = {
        "profiles": {
            "mine": {**compute, "workersPerMachine": 2, "pods": {"nodeSelector": {"a": "b"}}},
            "gpu-1": {"pods": {"nodeSelector": {"gpu": "a100"}}},
        },
        "defaultProfile": "mine",
    }

    environment = render(values).environment(TRAINING)
    (profile,) = [Profile(**fields) for fields in json.loads(environment["DAF_TRAINING_PROFILES"])]

    assert profile == Profile("mine", 4, 64, 8, 31.5, 0, workers_per_machine=2)
    assert environment["DAF_TRAINING_PROFILE"] == "mine"
    assert "DAF_TRAINING_PROFILES" not in render().environment(TRAINING)


@pytest.mark.parametrize(
    ("endpoint", "port", "allows_http"),
    [
        ("", 443, False),
        ("https://minio.store", 443, False),
        ("http://minio.store:9000", 9000, True),
        ("http://s3", 80, True),
    ],
)
def test_the_store_is_reached_on_the_port_of_its_endpoint(endpoint: str, port: int, allows_http: bool) -> None:
    rendered = render({"artifacts": {**NEEDED["artifacts"], "endpoint": endpoint}})

    environment = rendered.environment(TRAINING)
    assert environment.get("AWS_ENDPOINT_URL", "") == endpoint
    assert ("AWS_ALLOW_HTTP" in environment) is allows_http
    for policy in ("daf-training", "daf-jobs"):
        ports = [p["port"] for rule in rendered.one("NetworkPolicy", policy)["spec"]["egress"] for p in rule["ports"]]
        assert port in ports


def test_new_principals_get_tokens_and_services_always_do() -> None:
    secret = render({"auth": {"principals": ["ana", "ben"]}}).one("Secret", "daf-tokens")

    assert set(secret["data"]) == {"service", "ana", "ben"}
    assert len(set(secret["data"].values())) == 3


@pytest.mark.parametrize("name", ["no", "null", "1e3"])
def test_principals_keep_their_names(name: str) -> None:
    assert name in render({"auth": {"principals": [name]}}).one("Secret", "daf-tokens")["data"]


def test_cert_manager_is_told_names_and_addresses_apart() -> None:
    tls = {"certManager": {"issuer": "internal"}}
    hosts = ["daf.example.com", "10.1.2.3", "fd00::1"]

    spec = render({"gateway": {"hosts": hosts, "tls": tls}}).one("Certificate", "daf-gateway")["spec"]
    assert (spec["dnsNames"], spec["ipAddresses"]) == (hosts[:1], hosts[1:])
    spec = render({"gateway": {"tls": tls}}).one("Certificate", "daf-gateway")["spec"]
    assert spec["dnsNames"] == ["daf-gateway.team.svc"]
    assert "ipAddresses" not in spec


def test_secrets_by_reference_make_none() -> None:
    values = {"auth": {"existingSecret": "tokens"}, "gateway": {"tls": {"existingSecret": "certificate"}}}

    rendered = render(values)

    assert rendered.of("Secret") == {}
    spec = rendered.one("Deployment", "daf-scheduler")["spec"]["template"]["spec"]
    assert "tokens" in [volume.get("secret", {}).get("secretName") for volume in spec["volumes"]]
    spec = rendered.one("Deployment", "daf-gateway")["spec"]["template"]["spec"]
    assert "certificate" in [volume.get("secret", {}).get("secretName") for volume in spec["volumes"]]


def test_whoever_wants_no_tokens_says_so() -> None:
    rendered = render({"auth": {"enabled": False}})

    environment = rendered.environment("daf-scheduler")
    assert environment["DAF_ALLOW_ANONYMOUS"] == "true"
    assert "DAF_TOKENS" not in environment
    assert "daf-tokens" not in rendered.of("Secret")
