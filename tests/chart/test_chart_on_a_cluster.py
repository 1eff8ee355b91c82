"""The manifests before a real API server, in a namespace that enforces the pod security standard `restricted`."""

from __future__ import annotations

import json

import pytest

from tests.chart.rendering import CHART, SINGLE_NODE, Manifest, Rendered, Values, render, run_helm
from tests.cluster import Cluster, MakeNamespace

pytestmark = pytest.mark.chart

INGRESS = {
    "hosts": ["daf.example.com"],
    "ingress": {"enabled": True, "className": "nginx", "tls": [{"secretName": "x"}]},
}


@pytest.mark.parametrize(
    "values",
    [
        {},
        SINGLE_NODE,
        {"gateway": INGRESS},
        {"profiles": {"gpu-1": {"pods": {}}}},
        {"certificateAuthorities": {"pem": "-----BEGIN CERTIFICATE-----"}},
    ],
    ids=["services", "single node", "ingress", "profiles", "authorities"],
)
def test_the_api_server_accepts_everything_without_a_warning(
    cluster: Cluster, namespace: MakeNamespace, values: Values
) -> None:
    here, jobs = namespace("restricted"), namespace("baseline")
    # A namespace that is only tried out can hold nothing, so the jobs' is there before.
    given = {**values, "jobs": {"namespace": jobs, "createNamespace": False}}
    text = run_helm("template", "daf", str(CHART), "--namespace", here, "--values", "-", values=given)

    applied = cluster.kubectl("apply", "--dry-run=server", "--filename", "-", stdin=text)

    assert applied.stderr == ""
    assert len(applied.stdout.splitlines()) == len(Rendered(text).manifests)


def test_pods_of_all_components_pass_the_restricted_standard(cluster: Cluster, namespace: MakeNamespace) -> None:
    here = namespace("restricted")

    for values in ({}, SINGLE_NODE, {"certificateAuthorities": {"configMap": "company"}}):
        for name, spec in render(values).pods():
            # A workload is accepted whatever its pods are, with a warning at most; so the pods themselves are tried.
            omitted = {"serviceAccountName", "topologySpreadConstraints"}
            bare: Manifest = {key: value for key, value in spec.items() if key not in omitted}
            if name.startswith("StatefulSet/"):
                bare["volumes"].append({"name": "home", "emptyDir": {}})  # its claim's template makes it
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tried", "namespace": here}, "spec": bare}
            tried = cluster.kubectl("apply", "--dry-run=server", "--filename", "-", stdin=json.dumps(pod))
            assert tried.stderr == "", name


def test_a_pod_that_is_not_restricted_is_refused_here(cluster: Cluster, namespace: MakeNamespace) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "tried", "namespace": namespace("restricted")},
        "spec": {"containers": [{"name": "any", "image": "any"}]},
    }

    tried = cluster.kubectl("apply", "--dry-run=server", "--filename", "-", stdin=json.dumps(pod), check=False)

    assert "violates PodSecurity" in tried.stderr


def test_the_jobs_namespace_is_accepted_with_its_label(cluster: Cluster) -> None:
    made = render().one("Namespace", "team-jobs")

    applied = cluster.kubectl(
        "apply",
        "--dry-run=server",
        "--output",
        "jsonpath={.metadata.labels}",
        "--filename",
        "-",
        stdin=json.dumps(made),
    )

    assert '"pod-security.kubernetes.io/enforce":"baseline"' in applied.stdout


def test_tokens_and_certificates_are_kept_over_upgrades(cluster: Cluster, namespace: MakeNamespace) -> None:
    here, jobs = namespace("restricted"), namespace("baseline")

    def secrets(values: Values) -> dict[str, Manifest]:
        """What the chart makes of the secrets that are there."""
        given = {**values, "jobs": {"namespace": jobs, "createNamespace": False}}
        options = ["--namespace", here, "--dry-run=server", "--output", "json", "--values", "-"]
        answer = json.loads(run_helm("install", "daf", str(CHART), *options, values=given))
        return Rendered(answer["manifest"]).of("Secret")

    def content(made: dict[str, Manifest]) -> dict[str, Manifest]:
        return {name: secret["data"] for name, secret in made.items()}

    first = secrets({})
    for secret in first.values():
        of_helm = {"meta.helm.sh/release-name": "daf", "meta.helm.sh/release-namespace": here}
        secret["metadata"].setdefault("annotations", {}).update(of_helm)
        cluster.kubectl("apply", "--filename", "-", stdin=json.dumps(secret))
    again = content(secrets({"scheduler": {"replicas": 3}}))
    changed = content(secrets({"gateway": {"hosts": ["daf.example.com"]}, "auth": {"principals": ["admin", "ana"]}}))

    assert again == content(first)
    assert changed["daf-ca"] == again["daf-ca"]  # clients go on trusting it
    assert changed["daf-gateway-tls"]["tls.crt"] != again["daf-gateway-tls"]["tls.crt"]
    assert changed["daf-tokens"].items() >= again["daf-tokens"].items()
    assert "ana" in changed["daf-tokens"]
