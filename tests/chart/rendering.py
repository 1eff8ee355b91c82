"""The chart, rendered by helm."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "daf"
NEEDED = {"database": {"existingSecret": "database"}, "artifacts": {"url": "s3://bucket/prefix"}}
"""The values without which there is no installation."""
SINGLE_NODE = {"singleNode": {"enabled": True}}
SERVICES = ("scheduler", "training", "evaluation", "statistics", "deployment")

type Values = Mapping[str, Any]
type Manifest = dict[str, Any]


class Refused(Exception):
    """Helm would not render; says why."""


def render(values: Values | None = None, *options: str) -> Rendered:
    """Renders as `helm install daf --namespace team`, against no cluster.

    Raises:
        Refused: the values are not accepted.
    """
    text = run_helm("template", "daf", str(CHART), "--namespace", "team", "--values", "-", *options, values=values)
    return Rendered(text)


def run_helm(*command: str, values: Values | None = None) -> str:
    """Runs helm with values.

    Raises:
        Refused: it failed.
    """
    if not shutil.which("helm"):
        pytest.skip("NO HELM: the chart is not tested; put helm on the PATH")
    stdin = json.dumps({**NEEDED, **(values or {})})
    version = ["--kube-version", "1.34.0"] if command[0] in {"template", "lint"} else []
    done = subprocess.run(
        ["helm", *command, *version], input=stdin, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


class Rendered:
    """The manifests of a release."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.manifests: list[Manifest] = [document for document in YAML(typ="safe").load_all(text) if document]

    def of(self, kind: str) -> dict[str, Manifest]:
        """All manifests of a kind by name."""
        return {m["metadata"]["name"]: m for m in self.manifests if m["kind"] == kind}

    def one(self, kind: str, name: str) -> Manifest:
        """A manifest."""
        return self.of(kind)[name]

    def pods(self) -> Iterator[tuple[str, Manifest]]:
        """The specs of all pods, each with the name of what makes it."""
        for manifest in self.manifests:
            name = f"{manifest['kind']}/{manifest['metadata']['name']}"
            if manifest["kind"] == "Pod":
                yield name, manifest["spec"]
            elif "template" in manifest.get("spec", {}):
                yield name, manifest["spec"]["template"]["spec"]

    def environment(self, name: str) -> dict[str, str]:
        """The variables of a deployment's container that have plain values."""
        (container,) = self.one("Deployment", name)["spec"]["template"]["spec"]["containers"]
        return {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}
