"""An installation of DAF on the cluster, with a PostgreSQL and an S3 of its own beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.e2e_cluster.release import Release
from tests.e2e_cluster.tools import items, kill, kubectl, wait_until

HERE = Path(__file__).parent
SERVICES = ("scheduler", "training", "evaluation", "statistics", "deployment")
COPY_BUCKET = """\
import boto3
from botocore.exceptions import ClientError

s3 = boto3.resource("s3", endpoint_url="http://localhost:9000", region_name="us-east-1",
                    aws_access_key_id="testing", aws_secret_access_key="for-tests-only")
other = s3.create_bucket(Bucket="{name}")
there = {{one.key for one in other.objects.all()}}
for one in s3.Bucket("daf").objects.all():
    if one.key not in there:
        try:
            other.copy({{"Bucket": "daf", "Key": one.key}}, one.key)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("404", "NoSuchKey"):
                raise
"""


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

    def kill_database(self) -> None:
        """Ends PostgreSQL by SIGKILL; it is started again on the same data."""
        for pod in items(self.namespace, "pods"):
            if pod["metadata"]["name"].startswith("postgresql-"):
                kill(self.namespace, pod["metadata"]["name"])

    def copy_bucket(self, name: str) -> None:
        """Copies what is in the bucket and not yet in another one; not what is deleted while it is copied."""
        self.python(COPY_BUCKET.format(name=name))

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
class Installation(Release):
    """The services, each by itself."""

    backing: Backing
    values: tuple[str, ...] = ()
    """Further values, as `helm --set` takes them."""
    database: str = "postgres"

    @property
    def jobs(self) -> str:
        """The namespace of training and evaluation."""
        return f"{self.namespace}-jobs"

    def prepare(self) -> None:
        """Makes the namespace and the secrets that the values name."""
        super().prepare()
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
        self.install(
            chart, tag, HERE / "values.yaml", f"artifacts.endpoint={self.backing.s3_endpoint}",
            f"jobs.namespace={self.jobs}", *self.values, *values,
        )  # fmt: skip

    @property
    def has_address(self) -> bool:
        """The first one."""
        return self.database == "postgres"

    def delete(self) -> None:
        """Removes the namespaces, with all that is left in them."""
        super().delete()
        kubectl(self.jobs, "delete", "namespace", self.jobs, "--wait=false", check=False)

    def wait_until_ready(self) -> None:
        """Waits until all deployments have all their pods again."""
        wait_until(
            lambda: all(
                deployment["status"].get("readyReplicas") == deployment["spec"]["replicas"]
                for deployment in items(self.namespace, "deployments")
            ),
            "all services are ready",
        )


def _without_traces(kept: str, namespace: str) -> str:
    """A manifest as it was before it was in a cluster, for another namespace."""
    found = json.loads(kept)
    metadata = found["metadata"]
    annotations = {**metadata.get("annotations", {}), "meta.helm.sh/release-namespace": namespace}
    found["metadata"] = {"name": metadata["name"], "labels": metadata.get("labels", {}), "annotations": annotations}
    return json.dumps(found)
