"""A release of the chart, whatever it installs, and how people reach it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.daf_command import Daf
from tests.e2e_cluster.tools import items, kubectl, run

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "daf"


@dataclass(frozen=True)
class Release:
    """A release of the chart in a namespace of its own."""

    directory: Path
    """Where the client's homes are made."""
    namespace: str
    image_prefix: str
    forwards: list[subprocess.Popen[str]] = field(default_factory=list, init=False)

    def prepare(self) -> None:
        """Makes the namespace, which enforces the pod security standard `restricted`."""
        kubectl(self.namespace, "create", "namespace", self.namespace)
        modes = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
        kubectl(self.namespace, "label", "namespace", self.namespace, *modes)

    def install(self, chart: Path, tag: str, values: Path, *settings: str) -> None:
        """Installs or upgrades to a chart and its images, and waits until everything is ready."""
        images = (f"image.prefix={self.image_prefix}", f"image.tag={tag}")
        run(
            "helm", "upgrade", "daf", str(chart), "--install", "--namespace", self.namespace, "--values", str(values),
            "--wait", "--wait-for-jobs", "--timeout", "5m",
            *(part for setting in (*images, *settings) for part in ("--set", setting)),
        )  # fmt: skip

    def helm(self, *arguments: str) -> str:
        """Runs helm on the release."""
        return run("helm", *arguments, "--namespace", self.namespace)

    def client(self, name: str = "client") -> Daf:
        """A `daf` command that talks to the gateway, over TLS and with a token, from outside of the cluster."""
        daf = Daf(self.directory / f"{self.namespace}-{name}")
        daf.home.mkdir(parents=True, exist_ok=True)
        (daf.home / "token").write_text(self.token())
        (daf.home / "ca.crt").write_text(self._secret("daf-gateway-tls", "ca.crt"))
        daf(
            "context", "add", "cluster", self.address(), "--token-file", str(daf.home / "token"),
            "--ca", str(daf.home / "ca.crt"), "--server-name", "daf-gateway", "--use",
        )  # fmt: skip
        return daf

    def token(self, principal: str = "admin") -> str:
        """A person's token."""
        return self._secret("daf-tokens", principal)

    @property
    def has_address(self) -> bool:
        """Whether it is this one that E2E_ADDRESS tells of."""
        return False

    def address(self) -> str:
        """Where the gateway is found from outside: on a node's port, unless E2E_ADDRESS says where the first one is."""
        if address := os.environ.get("E2E_ADDRESS"):
            return address if self.has_address else self._forwarded()
        (service,) = [s for s in items(self.namespace, "services") if s["metadata"]["name"] == "daf-gateway"]
        node = items(self.namespace, "nodes")[0]
        host = next(a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP")
        return f"{host}:{service['spec']['ports'][0]['nodePort']}"

    def pods(self, service: str) -> list[str]:
        """The names of a service's running pods."""
        selector = f"app.kubernetes.io/component={service}"
        return [pod["metadata"]["name"] for pod in items(self.namespace, "pods", selector)]

    def uninstall(self) -> None:
        """Removes the release."""
        self.helm("uninstall", "daf", "--wait")

    def delete(self) -> None:
        """Removes the namespace, with all that is left in it."""
        for forward in self.forwards:
            forward.kill()
            forward.communicate()
        kubectl(self.namespace, "delete", "namespace", self.namespace, "--wait=false", check=False)

    def _forwarded(self) -> str:
        """Through the API server; as long as the gateway's pod lives."""
        command = ["kubectl", "--namespace", self.namespace, "port-forward", "service/daf-gateway", ":443"]
        forward = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.forwards.append(forward)
        assert forward.stdout is not None
        return forward.stdout.readline().split()[2]  # Forwarding from 127.0.0.1:36235 -> 8443

    def _secret(self, name: str, key: str) -> str:
        content = json.loads(kubectl(self.namespace, "get", "secret", name, "--output", "json"))["data"][key]
        return base64.b64decode(content).decode()
