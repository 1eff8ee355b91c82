"""The Kubernetes cluster that tests may use: the one that KUBECONFIG names, by kubectl. Without one they are skipped.

A conftest takes the fixtures over by importing them: `from tests.cluster import cluster, namespace`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest


class Cluster:
    """A cluster that answers."""

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs kubectl.

        Raises:
            AssertionError: it failed, with what it said, unless `check` is false.
        """
        command = ["kubectl", "--request-timeout=60s", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0 or not check, f"{' '.join(command)}: {done.stderr}"
        return done

    @contextmanager
    def namespace(self, name: str, pod_security: str = "restricted") -> Iterator[str]:
        """A namespace that enforces, and warns of, a pod security standard; it is deleted with all that is in it."""
        self.kubectl("create", "namespace", name)
        try:
            modes = [f"pod-security.kubernetes.io/{mode}={pod_security}" for mode in ("enforce", "warn")]
            self.kubectl("label", "namespace", name, *modes)
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false", check=False)


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster that KUBECONFIG names."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("NO CLUSTER: KUBECONFIG names none, so nothing of this runs on Kubernetes")
    if not shutil.which("kubectl"):
        pytest.skip("NO CLUSTER: there is no kubectl to reach the one that KUBECONFIG names")
    found = Cluster()
    ready = found.kubectl("get", "--raw", "/readyz", check=False)
    if ready.returncode:
        pytest.skip(f"NO CLUSTER: that of KUBECONFIG does not answer: {ready.stderr.strip()}")
    return found


type MakeNamespace = Callable[[str], str]


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[MakeNamespace]:
    """Makes namespaces that end with the test: `namespace("baseline")` enforces that pod security standard."""
    with ExitStack() as stack:
        yield lambda pod_security: stack.enter_context(
            cluster.namespace(f"daf-test-{uuid.uuid4().hex[:8]}", pod_security)
        )
