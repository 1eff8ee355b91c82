"""An installation of DAF on the cluster, with a PostgreSQL and an S3 of its own beside it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.daf_command import Daf
from tests.e2e_cluster.tools import items, kubectl, run, wait_until

HERE = Path(__file__).parent
CHART = HERE.parents[1] / "deploy" / "helm" / "daf"
SERVICES = ("scheduler", "training", "evaluation", "statistics", "deployment")


@dataclass(frozen=True)
class Backing:
    """PostgreSQL and S3 in a namespace."""

    namespace: str
    image: str

    def create(self) -> None:
        """Starts both, and waits until they serve."""
        kubectl(self.namespace, "create", "namespace", self.namespace)
        manifest = (HERE / "backing.yaml").read_text().replace("IMAGE", self.image)
        kubectl(self.namespace, "apply", "--filename", "-", stdin=manifest)
        kubectl(self.namespace, "rollout", "status", "deployment", "--timeout=300s")
        self.python(
            "import boto3; boto3.client('s3', endpoint_url='http://localhost:9000', region_name='us-east-1',"
            " aws_access_key_id='testing', aws_secret_access_key='for-tests-only').create_bucket(Bucket='daf')"
        )

    def delete(self) -> None:
        """Ends both, with all that they hold."""
        kubectl(self.namespace, "delete", "namespace", self.namespace, "--wait=false", check=False)

    def database_url(self, database: str = "postgres") -> str:
        """As services use it."""
        return f"postgresql+psycopg://daf:for-tests-only@postgresql.{self.namespace}:5432/{database}"

    @property
    def s3_endpoint(self) -> str:
        """As services and workers use it."""
        return f"http://s3.{self.namespace}:9000"

    def copy_bucket(self, name: str) -> None:
        """Copies what is in the bucket and not yet in another one."""
        self.python(
            "import boto3; s3 = boto3.resource('s3', endpoint_url='http://localhost:9000', region_name='us-east-1',"
            " aws_access_key_id='testing', aws_secret_access_key='for-tests-only');"
            f" other = s3.create_bucket(Bucket='{name}'); there = {{one.key for one in other.objects.all()}};"
            " [other.copy({'Bucket': 'daf', 'Key': one.key}, one.key)"
            " for one in s3.Bucket('daf').objects.all() if one.key not in there]"
        )

    def shell(self, script: str) -> str:
        """Runs a script beside PostgreSQL, whose programs it may use without a password."""
        script = f"export PGHOST=/tmp PGUSER=daf PGPASSWORD=$POSTGRES_PASSWORD; {script}"
        return kubectl(self.namespace, "exec", "deployment/postgresql", "--", "sh", "-ec", script)

    def query(self, sql: str) -> list[str]:
        """What the first installation's database answers: a line for each row."""
        return self.shell(f'psql postgres --tuples-only --no-align --command "{sql}"').split()

    def python(self, script: str) -> None:
        """Runs a script beside S3."""
        kubectl(self.namespace, "exec", "deployment/s3", "--", "python", "-c", script)


@dataclass(frozen=True)
class Installation:
    """A release of the chart."""

    backing: Backing
    directory: Path
    """Where the client's homes are made."""
    namespace: str
    image_prefix: str
    values: tuple[str, ...] = field(default=())
    """Further values, as `helm --set` takes them."""
    database: str = "postgres"
    forwards: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def jobs(self) -> str:
        """The namespace of training and evaluation."""
        return f"{self.namespace}-jobs"

    def prepare(self) -> None:
        """Makes the namespace and the secrets that the values name."""
        kubectl(self.namespace, "create", "namespace", self.namespace)
        modes = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
        kubectl(self.namespace, "label", "namespace", self.namespace, *modes)
        secrets = {
            "database": {"url": self.backing.database_url(self.database)},
            "artifacts": {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "for-tests-only"},
        }
        for name, content in secrets.items():
            manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": content}
            kubectl(self.namespace, "apply", "--filename", "-", stdin=json.dumps(manifest))

    def take_secrets(self, other: Installation) -> None:
        """Brings what another release made for its clients, as somebody does who puts back what they kept of it."""
        for name in ("daf-tokens", "daf-ca", "daf-gateway-tls"):
            kept = kubectl(other.namespace, "get", "secret", name, "--output", "json")
            kubectl(self.namespace, "create", "--filename", "-", stdin=_without_traces(kept, self.namespace))

    def upgrade(self, chart: Path, tag: str, *values: str) -> None:
        """Installs or upgrades the release to a chart and its images, and waits until everything is ready."""
        settings = [
            f"image.prefix={self.image_prefix}",
            f"image.tag={tag}",
            f"artifacts.endpoint={self.backing.s3_endpoint}",
            f"jobs.namespace={self.jobs}",
            *self.values,
            *values,
        ]
        run(
            "helm", "upgrade", "daf", str(chart), "--install", "--namespace", self.namespace, "--values",
            str(HERE / "values.yaml"), "--wait", "--wait-for-jobs", "--timeout", "5m",
            *(part for setting in settings for part in ("--set", setting)),
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

    def address(self) -> str:
        """Where the gateway is found from outside: on a node's port, unless E2E_ADDRESS says where the first one is."""
        if address := os.environ.get("E2E_ADDRESS"):
            return address if self.database == "postgres" else self._forwarded()
        (service,) = [s for s in items(self.namespace, "services") if s["metadata"]["name"] == "daf-gateway"]
        node = items(self.namespace, "nodes")[0]
        host = next(a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP")
        return f"{host}:{service['spec']['ports'][0]['nodePort']}"

    def _forwarded(self) -> str:
        """Through the API server; as long as the gateway's pod lives."""
        command = ["kubectl", "--namespace", self.namespace, "port-forward", "service/daf-gateway", ":443"]
        forward = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.forwards.append(forward)
        assert forward.stdout is not None
        return forward.stdout.readline().split()[2]  # Forwarding from 127.0.0.1:36235 -> 8443

    def pods(self, service: str) -> list[str]:
        """The names of a service's running pods."""
        selector = f"app.kubernetes.io/component={service}"
        return [pod["metadata"]["name"] for pod in items(self.namespace, "pods", selector)]

    def uninstall(self) -> None:
        """Removes the release."""
        self.helm("uninstall", "daf", "--wait")

    def delete(self) -> None:
        """Removes the namespaces, with all that is left in them."""
        for forward in self.forwards:
            forward.kill()
            forward.communicate()
        for namespace in (self.namespace, self.jobs):
            kubectl(namespace, "delete", "namespace", namespace, "--wait=false", check=False)

    def wait_until_ready(self) -> None:
        """Waits until all deployments have all their pods again."""
        wait_until(
            lambda: all(
                deployment["status"].get("readyReplicas") == deployment["spec"]["replicas"]
                for deployment in items(self.namespace, "deployments")
            ),
            "all services are ready",
        )

    def _secret(self, name: str, key: str) -> str:
        content = json.loads(kubectl(self.namespace, "get", "secret", name, "--output", "json"))["data"][key]
        return base64.b64decode(content).decode()


def _without_traces(kept: str, namespace: str) -> str:
    """A manifest as it was before it was in a cluster, for another namespace."""
    found = json.loads(kept)
    metadata = found["metadata"]
    annotations = {**metadata.get("annotations", {}), "meta.helm.sh/release-namespace": namespace}
    found["metadata"] = {"name": metadata["name"], "labels": metadata.get("labels", {}), "annotations": annotations}
    return json.dumps(found)
