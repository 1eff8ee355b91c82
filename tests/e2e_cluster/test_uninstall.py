"""The end of an installation: the last of these files, in the order of their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e_cluster.installation import Installation
from tests.e2e_cluster.tools import items, kubectl, running_pods, wait_until

pytestmark = [pytest.mark.e2e_cluster, pytest.mark.timeout(900)]

SWEEP = Path(__file__).parent / "disturbed_sweep.yaml"
KINDS = (
    "deployments,statefulsets,jobs,services,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets,"
    "configmaps,secrets,pods"
)
NOT_OF_THE_RELEASE = ("default", "kube-root-ca.crt", "kubernetes", "database", "artifacts")


def test_uninstalling_leaves_nothing_but_the_data(installed: Installation) -> None:
    running = installed.client().start("sweep", "run", str(SWEEP), "--name", "unfinished")
    wait_until(lambda: len(running_pods(installed.jobs, "training")) > 0, "a job runs")
    running.kill()
    running.communicate()
    installed.uninstall()

    def left() -> list[str]:
        return [
            f"{thing['kind']}/{thing['metadata']['name']}"
            for thing in items(installed.namespace, KINDS)
            if thing["metadata"]["name"] not in NOT_OF_THE_RELEASE
        ]

    wait_until(lambda: left() == [], "nothing is left of the release", 90)
    wait_until(
        lambda: kubectl(installed.jobs, "get", "namespace", installed.jobs, "--ignore-not-found") == "",
        "the namespace of the jobs is gone, with all jobs",
    )
