"""What `helm install` prints in the end: commands that fit what it installs. Without a cluster, helm shows none."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from tests.chart.rendering import CHART, SINGLE_NODE, Rendered, Values, run_helm
from tests.cluster import Cluster

pytestmark = [pytest.mark.chart, pytest.mark.usefixtures("cluster")]

NODE_PORT = {"gateway": {"service": {"type": "NodePort"}}}
OF_HOST = {"gateway": {"hosts": ["daf.example.com"]}}
BEHIND_INGRESS = {
    "gateway": {"hosts": ["daf.example.com"], "tls": {"enabled": False}, "ingress": {"enabled": True, "tls": [{}]}}
}
OPEN = {"auth": {"enabled": False}, "gateway": {"tls": {"enabled": False}}}


def installed(values: Values) -> tuple[str, Rendered]:
    """What is printed, and the objects of the release."""
    options = ["--namespace", "team", "--dry-run=server", "--output", "json", "--values", "-"]
    release = json.loads(run_helm("install", "daf", str(CHART), *options, values=values))
    hooks = "\n---\n".join(hook["manifest"] for hook in release["hooks"])
    return release["info"]["notes"], Rendered(f"{release['manifest']}\n---\n{hooks}")


@pytest.mark.parametrize(
    ("values", "added"),
    [
        ({}, "https://localhost:8443 --token-file token --ca ca.crt"),
        (SINGLE_NODE, "https://localhost:8443 --token-file token --ca ca.crt"),
        ({**SINGLE_NODE, **NODE_PORT}, "https://ADDRESS:PORT --token-file token --ca ca.crt"),
        (OF_HOST, "https://daf.example.com --token-file token --ca ca.crt"),
        (BEHIND_INGRESS, "https://daf.example.com --token-file token"),
        (OPEN, "http://localhost:8443"),
    ],
    ids=["services", "single node", "node port", "a host", "behind an Ingress", "open"],
)
def test_the_next_commands_are_printed_and_fit_what_is_installed(values: Values, added: str) -> None:
    notes, objects = installed(values)
    commands = [shlex.split(line, comments=False) for line in notes.splitlines() if line.startswith("  ")]

    (adding,) = [command for command in commands if command[0] == "daf"]
    assert adding == shlex.split(f"daf context add daf {added} --use")
    written = set()
    for command in commands:
        assert command[0] != "kubectl" or command[1:3] == ["--namespace", "team"]
        if command[3:5] == ["get", "secret"]:
            key = re.fullmatch(r'\{\{index \.data "(.+)" \| base64decode\}\}', command[7].partition("=")[2])
            assert key
            assert key[1] in objects.one("Secret", command[5])["data"]
            written.add(command[8].removeprefix(">"))
        elif command[3:4] == ["port-forward"]:
            port = int(command[5].partition(":")[2])
            service = objects.one("Service", command[4].removeprefix("service/"))
            assert port in [ports["port"] for ports in service["spec"]["ports"]]
        elif command[3:5] == ["get", "service"]:
            assert objects.one("Service", command[5])["spec"]["type"] == "NodePort"
    assert written == {name for name in ("token", "ca.crt") if name in adding}
    assert (["rm", "token"] in commands) is ("token" in written)
    assert ("helm test daf --namespace team" in notes) is bool(objects.of("Pod"))


def test_the_claim_that_stays_is_named() -> None:
    notes, objects = installed(SINGLE_NODE)

    made = objects.one("StatefulSet", "daf-standalone")["spec"]["volumeClaimTemplates"][0]["metadata"]["name"]
    assert f"the claim {made}-daf-standalone-0, which stays" in notes
    own = {"singleNode": {"enabled": True, "storage": {"existingClaim": "mine"}}}
    assert "claim" not in installed(own)[0]


def test_what_is_open_or_lacking_is_warned_of(cluster: Cluster) -> None:
    def warned(values: Values) -> set[str]:
        return {line.split()[1] for line in installed(values)[0].splitlines() if line.startswith("WARNING: ")}

    assert warned(SINGLE_NODE) == set()
    assert warned({**SINGLE_NODE, **OPEN}) == {"auth.enabled", "gateway.tls.enabled"}
    operator = "kubeflow.org/v1" in cluster.kubectl("api-versions").stdout.splitlines()
    assert warned({}) == (set() if operator else {"this"})
