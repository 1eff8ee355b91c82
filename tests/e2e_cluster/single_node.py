"""An installation on one node: all services in one pod, with a volume."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.daf_command import Daf
from tests.e2e_cluster.release import CHART, Release
from tests.e2e_cluster.tools import items, kubectl, wait_until

CLAIM = "home-daf-standalone-0"
POD = "daf-standalone-0"


@dataclass(frozen=True)
class SingleNode(Release):
    """A release in single-node mode."""

    def start(self, tag: str) -> None:
        """Installs what somebody installs who tries DAF out."""
        self.install(CHART, tag, CHART / "ci" / "try-out-values.yaml", "gateway.service.type=NodePort")

    def client_as_told(self) -> Daf:
        """A `daf` command after the commands that `helm install` prints."""
        daf = Daf(self.directory / "client")
        daf.home.mkdir()
        printed = self.helm("get", "notes", "daf").splitlines()
        commands = "\n".join(line for line in printed if line.startswith("  "))
        told = commands.replace("https://ADDRESS:PORT", f"https://{self.address()} --server-name daf-gateway")
        assert told != commands
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        run = subprocess.run(
            ["sh", "-ec", told],
            cwd=self.directory,
            env={**daf.environment, "PATH": path},
            capture_output=True,
            check=False,
            text=True,
        )
        assert run.returncode == 0, f"{told}\n{run.stdout}\n{run.stderr}"
        return daf

    def lose_pod(self) -> None:
        """Ends the pod by force, and waits until another serves."""
        before = self._pod_identity()
        kubectl(self.namespace, "delete", "pod", POD, "--grace-period=0", "--force")
        wait_until(lambda: self._pod_identity() not in {before, ""}, "there is another pod")
        kubectl(self.namespace, "wait", "pod", POD, "--for=condition=Ready", "--timeout=180s")

    def _pod_identity(self) -> str:
        return kubectl(self.namespace, "get", "pod", POD, "--ignore-not-found", "--output", "jsonpath={.metadata.uid}")


@contextmanager
def volume_for(namespace: str, directory: Path) -> Iterator[None]:
    """Sees to it that the claim gets a volume: of the cluster's default class, else of a directory, if this machine is
    the cluster's node."""
    default = "storageclass.kubernetes.io/is-default-class"
    classes = [found["metadata"].get("annotations", {}) for found in items(namespace, "storageclasses")]
    if any(annotations.get(default) == "true" for annotations in classes):
        yield
        return
    nodes = items(namespace, "nodes")
    if len(nodes) > 1 or not _is_here(nodes[0]["status"]["addresses"]):
        pytest.skip("NO VOLUMES: the cluster has no default StorageClass, and its node is not this machine")
    directory.mkdir()  # root's: the pod may write to it only if the kubelet gives it to the pod's group
    hostname = nodes[0]["metadata"]["labels"]["kubernetes.io/hostname"]
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [hostname]}]}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": namespace},
        "spec": {
            "capacity": {"storage": "20Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": namespace, "name": CLAIM},
            "local": {"path": str(directory)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        },
    }
    kubectl(namespace, "create", "--filename", "-", stdin=json.dumps(volume))
    try:
        yield
    finally:
        kubectl(namespace, "delete", "persistentvolume", namespace, "--wait=false")


def _is_here(addresses: list[dict[str, str]]) -> bool:
    """Whether one of a node's addresses is this machine's."""
    for address in addresses:
        with socket.socket() as probe:
            try:
                probe.bind((address["address"], 0))
            except OSError:
                continue
            return address["type"] == "InternalIP"
    return False
