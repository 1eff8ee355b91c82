"""What matters in the manifests: security, who may do and reach what, that upgrades lose no call."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

import daf_deployment.main
import daf_evaluation.main
import daf_scheduler.main
import daf_statistics.main
import daf_training.main
from daf_common.kube.settings import BackendSettings
from daf_common.settings import ServiceSettings
from daf_deployment.settings import DeploymentSettings
from daf_evaluation.settings import EvaluationSettings
from daf_scheduler.settings import SchedulerSettings
from daf_training.settings import TrainingSettings
from tests.chart.rendering import SERVICES, SINGLE_NODE, Manifest, Rendered, Values, render

pytestmark = pytest.mark.chart

MAINS = {
    "scheduler": daf_scheduler.main,
    "training": daf_training.main,
    "evaluation": daf_evaluation.main,
    "statistics": daf_statistics.main,
    "deployment": daf_deployment.main,
}
PEERS = {
    service: set(re.findall(r'context\.peer\("(\w+)"\)', inspect.getsource(main))) for service, main in MAINS.items()
}
"""Whom each service really calls."""
NETWORKS_OF_JOBS = {
    "apiGroups": ["networking.k8s.io"],
    "resources": ["networkpolicies"],
    "verbs": ["create", "patch", "delete"],
}
WORKLOADS = {"training": ("kubeflow.org", "pytorchjobs"), "evaluation": ("batch", "jobs")}


@pytest.fixture(scope="module")
def rendered() -> Rendered:
    return render()


def containers(spec: Manifest) -> list[Manifest]:
    return [*spec.get("initContainers", []), *spec["containers"]]


@pytest.mark.parametrize(
    "values",
    [{}, SINGLE_NODE, {"certificateAuthorities": {"configMap": "company"}}],
    ids=["services", "single node", "authorities"],
)
def test_all_pods_are_restricted(values: Values) -> None:
    for name, spec in render(values).pods():
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] == 10001, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["enableServiceLinks"] is False, name
        assert not spec.get("hostNetwork"), name
        assert not [volume for volume in spec["volumes"] if "hostPath" in volume], name
        for container in containers(spec):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["requests"]["memory"], name
            assert container["resources"]["limits"]["memory"], name


@pytest.mark.parametrize("values", [{}, SINGLE_NODE], ids=["services", "single node"])
def test_pods_that_stay_request_a_little_of_the_disk_that_they_may_fill(values: Values) -> None:
    for name, spec in render(values).pods():
        if name.startswith(("Deployment/", "StatefulSet/")):
            (container,) = spec["containers"]
            limits = [volume["emptyDir"]["sizeLimit"] for volume in spec["volumes"] if "emptyDir" in volume]
            requested = mebibytes(container["resources"]["requests"]["ephemeral-storage"])
            assert 0 < requested < sum(map(mebibytes, limits)) / 4, name


def mebibytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * {"Mi": 1, "Gi": 1024}[unit]


def test_only_services_that_start_workloads_have_a_token_of_the_api(rendered: Rendered) -> None:
    for name, spec in rendered.pods():
        expected = name in {"Deployment/daf-training", "Deployment/daf-evaluation"}
        assert spec["automountServiceAccountToken"] is expected, name


@pytest.mark.parametrize("values", [{}, SINGLE_NODE], ids=["services", "single node"])
def test_images_have_one_prefix_and_one_tag(values: Values) -> None:
    image = {
        "prefix": "registry.example.com/team/",
        "tag": "1.2.3",
        "pullPolicy": "Always",
        "pullSecrets": ["registry"],
    }
    rendered = render({**values, "image": image})

    for name, spec in rendered.pods():
        assert spec["imagePullSecrets"] == [{"name": "registry"}], name
        for container in containers(spec):
            assert re.fullmatch(r"registry\.example\.com/team/daf-[a-z]+:1\.2\.3", container["image"]), name
            assert container["imagePullPolicy"] == "Always", name
    if not values:
        runner = rendered.environment("daf-training")["DAF_RUNNER_IMAGE"]
        assert runner == "registry.example.com/team/daf-runner:1.2.3"


@pytest.mark.parametrize("service", SERVICES)
def test_services_are_given_only_settings_that_they_have(rendered: Rendered, service: str) -> None:
    kinds = {
        "training": TrainingSettings,
        "evaluation": EvaluationSettings,
        "scheduler": SchedulerSettings,
        "deployment": DeploymentSettings,
    }
    known = set(kinds.get(service, ServiceSettings).model_fields) | set(BackendSettings.model_fields)
    (container,) = rendered.one("Deployment", f"daf-{service}")["spec"]["template"]["spec"]["containers"]
    given = {variable["name"] for variable in container["env"]}

    assert {name for name in given if name.startswith("DAF_")} <= {f"DAF_{name.upper()}" for name in known}


@pytest.mark.parametrize("service", SERVICES)
def test_services_are_probed_and_drained(rendered: Rendered, service: str) -> None:
    deployment = rendered.one("Deployment", f"daf-{service}")["spec"]
    (container,) = deployment["template"]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"] == {"port": 50051}
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    drain = ServiceSettings.model_fields["drain_seconds"].default
    grace = deployment["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > container["lifecycle"]["preStop"]["sleep"]["seconds"] + drain


def test_replicas_are_spread_and_have_a_budget(rendered: Rendered) -> None:
    replicas = {name: d["spec"]["replicas"] for name, d in rendered.of("Deployment").items()}

    assert set(rendered.of("PodDisruptionBudget")) == {name for name, count in replicas.items() if count > 1}
    for name, budget in rendered.of("PodDisruptionBudget").items():
        assert budget["spec"]["selector"] == rendered.one("Deployment", name)["spec"]["selector"]
    for deployment in rendered.of("Deployment").values():
        keys = [spread["topologyKey"] for spread in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]]
        assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]


@pytest.mark.parametrize("values", [{}, SINGLE_NODE], ids=["services", "single node"])
def test_services_select_the_pods_that_are_made(values: Values) -> None:
    rendered = render(values)
    made = [*rendered.of("Deployment").values(), *rendered.of("StatefulSet").values()]
    for name, service in rendered.of("Service").items():
        selected = [
            maker["metadata"]["name"]
            for maker in made
            if service["spec"]["selector"].items() <= maker["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert selected == [name]


def test_roles_grant_exactly_what_is_needed_and_only_with_the_jobs(rendered: Rendered) -> None:
    assert not rendered.of("ClusterRole")
    assert not rendered.of("ClusterRoleBinding")
    assert set(rendered.of("Role")) == {f"daf-{service}" for service in WORKLOADS}
    for service, (group, resource) in WORKLOADS.items():
        role = rendered.one("Role", f"daf-{service}")
        assert role["metadata"]["namespace"] == "team-jobs"
        assert role["rules"] == [
            {"apiGroups": [group], "resources": [resource], "verbs": ["create", "get", "list", "watch", "delete"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch", "delete"]},
            {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["events"], "verbs": ["list"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "patch", "delete"]},
            *([NETWORKS_OF_JOBS] if service == "training" else []),
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["daf-anchor"], "verbs": ["get"]},
        ]
        binding = rendered.one("RoleBinding", f"daf-{service}")
        assert binding["roleRef"]["name"] == f"daf-{service}"
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": f"daf-{service}", "namespace": "team"}]
        pods = rendered.one("Deployment", f"daf-{service}")["spec"]["template"]["spec"]
        assert pods["serviceAccountName"] == f"daf-{service}"


def test_the_jobs_namespace_and_its_anchor(rendered: Rendered) -> None:
    namespace = rendered.one("Namespace", "team-jobs")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "baseline"
    for service in WORKLOADS:
        environment = rendered.environment(f"daf-{service}")
        assert environment["DAF_KUBERNETES_NAMESPACE"] == "team-jobs"
        anchor = rendered.one("ConfigMap", environment["DAF_KUBERNETES_OWNER"])
        assert anchor["metadata"]["namespace"] == "team-jobs"
        assert environment["DAF_WORKER_ADDRESS"] == f"daf-{service}.team:50051"


def components(rule: Manifest, side: str) -> set[str]:
    """The components of the release that a rule names."""
    return {
        component
        for peer in rule.get(side, [])
        if "namespaceSelector" not in peer
        for expression in peer["podSelector"].get("matchExpressions", [])
        for component in expression["values"]
    }


def rules(rendered: Rendered, policy: str, direction: str, port: int) -> list[Manifest]:
    spec = rendered.one("NetworkPolicy", policy)["spec"]
    return [rule for rule in spec.get(direction, []) if port in [p["port"] for p in rule.get("ports", [])]]


def test_pods_are_closed_but_for_what_their_policies_open(rendered: Rendered) -> None:
    everything = rendered.one("NetworkPolicy", "daf")["spec"]
    assert everything["policyTypes"] == ["Ingress", "Egress"]
    assert everything["ingress"] == []
    assert [port["port"] for rule in everything["egress"] for port in rule["ports"]] == [53, 53]
    for name, deployment in rendered.of("Deployment").items():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert everything["podSelector"]["matchLabels"].items() <= labels.items()
        assert rendered.one("NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("service", SERVICES)
def test_services_reach_whom_they_call_and_are_reached_by_their_callers(rendered: Rendered, service: str) -> None:
    (ingress,) = rules(rendered, f"daf-{service}", "ingress", 50051)
    egress = rules(rendered, f"daf-{service}", "egress", 50051)
    callers = {caller for caller, peers in PEERS.items() if service in peers}

    assert components(ingress, "from") == {"gateway", *callers}
    assert {component for rule in egress for component in components(rule, "to")} == PEERS[service]
    environment = rendered.environment(f"daf-{service}")
    assert {name.split("_")[1].lower() for name in environment if re.fullmatch(r"DAF_[A-Z]+_ADDRESS", name)} - {
        "worker"
    } == PEERS[service]
    workers = [peer for peer in ingress["from"] if "namespaceSelector" in peer]
    assert bool(workers) is (service in WORKLOADS)


def test_jobs_reach_their_services_and_the_store_alone(rendered: Rendered) -> None:
    policy = rendered.one("NetworkPolicy", "daf-jobs")
    assert policy["metadata"]["namespace"] == "team-jobs"
    assert policy["spec"]["ingress"] == []
    names, services, store = policy["spec"]["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    (peer,) = services["to"]
    assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "team"}}
    assert peer["podSelector"]["matchExpressions"][0]["values"] == ["training", "evaluation"]
    assert all("169.254.0.0/16" in block["ipBlock"]["except"] for block in store["to"][:1])
    of_jobs = [p for p in rendered.of("NetworkPolicy").values() if p["metadata"]["namespace"] == "team-jobs"]
    assert of_jobs == [policy]  # ranks have one for each job, made by the service


def test_the_training_service_isolates_jobs_where_policies_are_wanted(rendered: Rendered) -> None:
    def grants(found: Rendered, service: str) -> bool:
        return "networkpolicies" in str(found.one("Role", f"daf-{service}")["rules"])

    open_network = render({"networkPolicy": {"enabled": False}})
    for found, wanted in ((rendered, True), (open_network, False)):
        assert BackendSettings.model_fields["kubernetes_network_policies"].default is False
        told = found.environment("daf-training").get("DAF_KUBERNETES_NETWORK_POLICIES", "false")
        assert (told == "true", grants(found, "training"), grants(found, "evaluation")) == (wanted, wanted, False)


def test_workload_identity_is_reached_by_services_that_use_the_store_without_keys(rendered: Rendered) -> None:
    def metadata(found: Rendered) -> set[str]:
        return {name for name in found.of("NetworkPolicy") if rules(found, name, "egress", 988)}

    assert metadata(rendered) == {"daf-training", "daf-evaluation", "daf-deployment"}
    assert metadata(render({"artifacts": {"url": "s3://bucket", "existingSecret": "keys"}})) == set()


def test_what_jobs_reach_of_the_network_may_be_narrowed() -> None:
    private = ["10.0.0.0/8", "fc00::/7"]
    (store,) = rules(render({"jobs": {"egressExcept": private}}), "daf-jobs", "egress", 443)
    assert [block["ipBlock"]["cidr"] for block in store["to"]] == ["0.0.0.0/0", "::/0"]
    for block, network in zip((peer["ipBlock"] for peer in store["to"]), private, strict=True):
        assert [n for n in private if n in block["except"]] == [network]  # of its family: others are refused
        assert len(block["except"]) > 1

    named = [{"ipBlock": {"cidr": "10.1.2.3/32"}}]
    (store,) = rules(render({"networkPolicy": {"artifacts": {"to": named}}}), "daf-jobs", "egress", 443)
    assert store["to"] == named


def test_jobs_reach_a_store_in_the_cluster(rendered: Rendered) -> None:
    own = render({"artifacts": {"url": "s3://bucket", "endpoint": "http://minio.store:9000"}})

    assert {"namespaceSelector": {}} in rules(own, "daf-jobs", "egress", 9000)[0]["to"]
    assert {"namespaceSelector": {}} not in rules(rendered, "daf-jobs", "egress", 443)[0]["to"]


def test_the_gateway_alone_is_reached_from_outside(rendered: Rendered) -> None:
    (ingress,) = rules(rendered, "daf-gateway", "ingress", 8443)
    assert "from" not in ingress
    inside = {"ipBlock": {"cidr": "10.0.0.0/8"}}
    (narrow,) = rules(render({"networkPolicy": {"gatewayFrom": [inside]}}), "daf-gateway", "ingress", 8443)
    assert inside in narrow["from"]


def test_databases_are_brought_up_to_date_before_anything_is_installed_or_upgraded(rendered: Rendered) -> None:
    job = rendered.one("Job", "daf-migrations")
    annotations = job["metadata"]["annotations"]
    assert set(annotations["helm.sh/hook"].split(",")) == {"pre-install", "pre-upgrade"}
    migrating = job["spec"]["template"]["spec"]["containers"]
    assert [container["name"] for container in migrating] == list(SERVICES)
    assert all(container["args"] == ["migrate"] for container in migrating)
    for service in SERVICES:
        assert rendered.environment(f"daf-{service}")["DAF_MIGRATE"] == "check"
    # The hook runs before anything of the release is there, so it may name nothing of it.
    made = {m["metadata"]["name"] for m in rendered.manifests if m["kind"] in {"Secret", "ConfigMap", "ServiceAccount"}}
    text = str(job["spec"])
    assert not [name for name in made if f"'{name}'" in text]


def test_migrations_know_what_all_services_are_told() -> None:
    variable = {"name": "PGSSLMODE", "value": "verify-full"}
    rendered = render({"pods": {"extraEnv": [variable]}})

    for container in rendered.one("Job", "daf-migrations")["spec"]["template"]["spec"]["containers"]:
        assert variable in container["env"]


def test_all_pods_that_call_out_trust_given_authorities_from_their_first_line_on() -> None:
    pem = "-----BEGIN CERTIFICATE-----"
    for values in ({}, SINGLE_NODE):
        rendered = render({**values, "certificateAuthorities": {"pem": pem}})
        for name, spec in rendered.pods():
            if name in {"Deployment/daf-gateway", "Pod/daf-test"}:  # they call none but our own
                assert "authorities" not in str(spec), name
                continue
            (gathering,) = spec["initContainers"]
            places = {mount["name"]: mount["mountPath"] for mount in gathering["volumeMounts"]}
            (source,) = [volume["configMap"] for volume in spec["volumes"] if volume["name"] == "given-authorities"]
            hook = "-hook" if name == "Job/daf-migrations" else ""
            assert source["name"] == f"daf-authorities{hook}", name
            assert gathering["command"][-1] == f"{places['given-authorities']}/{source['items'][0]['path']}", name
            assert pem in rendered.one("ConfigMap", source["name"])["data"][source["items"][0]["key"]]
            for container in spec["containers"]:
                environment = {variable["name"]: variable.get("value") for variable in container["env"]}
                bundle = environment["SSL_CERT_FILE"]
                assert environment["AWS_CA_BUNDLE"] == environment["REQUESTS_CA_BUNDLE"] == bundle, name
                assert f'>"{bundle}"' in gathering["command"][1], name
                mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
                assert f"{mounts['authorities']}/ca.crt" == bundle, name


@pytest.mark.parametrize(("kind", "name"), [("ConfigMap", "daf-authorities-hook"), ("NetworkPolicy", "daf-migrations")])
def test_the_hook_finds_what_it_needs_made_before_it(kind: str, name: str) -> None:
    rendered = render({"certificateAuthorities": {"pem": "-----BEGIN CERTIFICATE-----"}})

    made = rendered.one(kind, name)["metadata"]["annotations"]
    migrating = rendered.one("Job", "daf-migrations")["metadata"]["annotations"]
    assert made["helm.sh/hook"] == migrating["helm.sh/hook"]
    assert int(made["helm.sh/hook-weight"]) < int(migrating.get("helm.sh/hook-weight", 0))
    assert set(made["helm.sh/hook-delete-policy"].split(",")) == {"before-hook-creation", "hook-succeeded"}


def test_the_hook_reaches_the_database_in_a_namespace_that_denies_everything(rendered: Rendered) -> None:
    job = rendered.one("Job", "daf-migrations")["spec"]["template"]["metadata"]["labels"]
    before = [
        p for p in rendered.of("NetworkPolicy").values() if "helm.sh/hook" in p["metadata"].get("annotations", {})
    ]
    opened = [
        (port["protocol"], port["port"])
        for policy in before
        if policy["spec"]["podSelector"]["matchLabels"].items() <= job.items()
        for rule in policy["spec"]["egress"]
        for port in rule["ports"]
    ]
    assert sorted(opened) == [("TCP", 53), ("TCP", 5432), ("UDP", 53)]


def test_the_database_url_comes_from_a_secret(rendered: Rendered) -> None:
    for name, spec in rendered.pods():
        for container in spec["containers"]:
            for variable in container.get("env", []):
                if variable["name"] == "DAF_DATABASE_URL":
                    assert variable["valueFrom"] == {"secretKeyRef": {"name": "database", "key": "url"}}, name


def test_keys_of_the_store_go_only_to_services_that_use_it() -> None:
    rendered = render({"artifacts": {"url": "s3://bucket", "existingSecret": "keys"}})

    given = {name for name, spec in rendered.pods() if any("envFrom" in container for container in containers(spec))}
    assert given == {f"Deployment/daf-{service}" for service in ("training", "evaluation", "deployment")}


def test_a_changed_configuration_rolls_the_gateway() -> None:
    def checksum(values: Values) -> str:
        template = render(values).one("Deployment", "daf-gateway")["spec"]["template"]
        found: str = template["metadata"]["annotations"]["checksum/config"]
        return found

    assert checksum({}) == checksum({"scheduler": {"replicas": 3}})
    assert checksum({}) != checksum({"gateway": {"tls": {"enabled": False}}})


def test_monitors_come_where_their_api_is(rendered: Rendered) -> None:
    assert not rendered.of("ServiceMonitor")
    with_api = render({}, "--api-versions", "monitoring.coreos.com/v1")
    (monitor,) = with_api.of("ServiceMonitor").values()
    assert not with_api.of("PodMonitor")
    scraped = [
        name
        for name, service in with_api.of("Service").items()
        if monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        and "metrics" in [port["name"] for port in service["spec"]["ports"]]
    ]
    assert scraped == [f"daf-{service}" for service in sorted(SERVICES)]
    assert not render({"metrics": {"serviceMonitor": "never"}}, "--api-versions", "monitoring.coreos.com/v1").of(
        "ServiceMonitor"
    )


def test_pods_with_metrics_may_be_annotated() -> None:
    def scraped(values: Values) -> set[str]:
        return {
            name
            for name, deployment in render(values).of("Deployment").items()
            if deployment["spec"]["template"]["metadata"].get("annotations", {}).get("prometheus.io/scrape")
        }

    assert scraped({}) == set()
    assert scraped({"metrics": {"annotations": True}}) == {f"daf-{service}" for service in SERVICES}


def test_helm_test_calls_through_the_gateway(rendered: Rendered) -> None:
    def environment(found: Rendered) -> dict[str, Any]:
        (container,) = found.one("Pod", "daf-test")["spec"]["containers"]
        return {variable["name"]: variable.get("value") for variable in container["env"]}

    assert environment(rendered)["DAF_ADDRESS"] == "https://daf-gateway.team.svc:443"
    assert {"DAF_ACCESS_TOKEN", "DAF_CA_FILE"} <= set(environment(rendered))
    public = {"hosts": ["daf.example.com"], "tls": {"existingSecret": "public", "publicCA": True}}
    assert "DAF_CA_FILE" not in environment(render({"gateway": public}))
    assert environment(render({"gateway": public}))["DAF_SERVER_NAME"] == "daf.example.com"
    plain = {"hosts": ["daf.example.com"], "tls": {"enabled": False}}
    assert environment(render({"gateway": plain}))["DAF_ADDRESS"] == "https://daf.example.com"  # no token over http
    assert not render({"gateway": {"tls": {"enabled": False}}}).of("Pod")


def test_a_single_node_needs_nothing_beside_it() -> None:
    rendered = render({**SINGLE_NODE, "database": {}, "artifacts": {}})

    assert set(rendered.of("Deployment")) == {"daf-gateway"}
    assert not [kind for kind in ("Role", "Job", "Namespace") if rendered.of(kind)]
    spec = rendered.one("StatefulSet", "daf-standalone")["spec"]
    assert spec["volumeClaimTemplates"][0]["spec"]["resources"] == {"requests": {"storage": "20Gi"}}
    assert "ADDRESS" not in str(spec["template"]["spec"]["containers"][0]["env"])
