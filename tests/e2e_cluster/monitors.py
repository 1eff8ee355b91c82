"""What a Prometheus scrapes that goes by the chart's monitors: found as Prometheus' operator would have it found.

Debian's Prometheus is built without Kubernetes, so the objects that a monitor selects are looked up here. Pods are
reached through the API server, by `kubectl proxy`: Prometheus may run outside of any cluster.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from typing import Any

from ruamel.yaml import YAML

from tests.e2e_cluster.installation import HERE, Installation
from tests.e2e_cluster.release import CHART
from tests.e2e_cluster.tools import items, run

ENDPOINTS = {"ServiceMonitor": "endpoints", "PodMonitor": "podMetricsEndpoints"}
"""By kind of monitor, the field that names the port and the path."""


@contextmanager
def api_proxy() -> Iterator[str]:
    """The API server of the cluster, as HOST:PORT, for programs that do not know how to log in to it."""
    with subprocess.Popen(["kubectl", "proxy", "--port=0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            found = re.search(r"127\.0\.0\.1:\d+", line)
            assert found, f"kubectl proxy says {line!r}"
            yield found[0]
        finally:
            process.terminate()


def rendered_monitor(installation: Installation, kind: str) -> Mapping[str, Any]:
    """A monitor of the installation, whose API the cluster need not have."""
    option = f"metrics.{kind[0].lower()}{kind[1:]}=always"
    output = run(
        "helm", "template", "daf", str(CHART), "--namespace", installation.namespace, "--kube-version", "1.34.0",
        "--values", str(HERE / "values.yaml"), "--set", option,
        "--show-only", f"templates/monitoring/{kind.lower()}.yaml",
    )  # fmt: skip
    monitor: Mapping[str, Any] = YAML(typ="safe").load(StringIO(output))
    assert monitor["kind"] == kind
    return monitor


def scrape_config(monitor: Mapping[str, Any], proxy: str) -> dict[str, Any]:
    """What Prometheus is told; the series get the labels `job`, `component` and `pod`."""
    namespace = monitor["metadata"]["namespace"]
    (endpoint,) = monitor["spec"][ENDPOINTS[monitor["kind"]]]
    labels = monitor["spec"]["selector"]["matchLabels"]
    selector = ",".join(f"{name}={value}" for name, value in labels.items())
    found = (_of_services if monitor["kind"] == "ServiceMonitor" else _of_pods)(namespace, selector, endpoint["port"])
    return {
        "job_name": monitor["kind"],
        "static_configs": [
            {
                "targets": [proxy],
                "labels": {
                    "__metrics_path__": f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{endpoint['path']}",
                    "component": labels[monitor["spec"]["jobLabel"]],
                    "pod": pod,
                    "instance": pod,
                },
            }
            for pod, port, labels in found
        ],
    }


type Found = tuple[str, int, Mapping[str, str]]
"""A pod, a port, and the labels of what was selected."""


def _of_services(namespace: str, selector: str, port_name: str) -> Iterator[Found]:
    for service in items(namespace, "services", selector):
        name, labels = service["metadata"]["name"], service["metadata"]["labels"]
        for piece in items(namespace, "endpointslices", f"kubernetes.io/service-name={name}"):
            ports = [port["port"] for port in piece["ports"] if port["name"] == port_name]
            for address in piece["endpoints"]:
                yield from ((address["targetRef"]["name"], port, labels) for port in ports)


def _of_pods(namespace: str, selector: str, port_name: str) -> Iterator[Found]:
    for pod in items(namespace, "pods", selector):
        if pod["status"]["phase"] == "Running":
            for container in pod["spec"]["containers"]:
                for port in container.get("ports", ()):
                    if port.get("name") == port_name:
                        yield pod["metadata"]["name"], port["containerPort"], pod["metadata"]["labels"]
