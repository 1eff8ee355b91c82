"""An artifact store whose certificate is signed by an authority that only the company knows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.e2e_cluster.conftest import Version
from tests.e2e_cluster.installation import SERVICES, Backing, Installation
from tests.e2e_cluster.runs import MISSION, TRAINING
from tests.e2e_cluster.tools import items, kubectl, wait_until

pytestmark = [pytest.mark.e2e_cluster, pytest.mark.timeout(900)]

HERE = Path(__file__).parent
ONE_REPLICA = tuple(f"{component}.replicas=1" for component in ("scheduler", "statistics", "deployment", "gateway"))
TRY = """
import obstore
from obstore.store import from_url
store = from_url("s3://daf", retry_config={"max_retries": 0})
try:
    obstore.put(store, "tried", b"")
    print("written")
except obstore.exceptions.GenericError as error:
    print(error)
"""


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA(organization_name="The company")


@pytest.fixture
def installation_with_secure_store(
    backing: Backing, authority: trustme.CA, image_prefix: str, tmp_path: Path
) -> Iterator[Installation]:
    """A release that is not installed yet, and its store."""
    host = f"secure-s3.{backing.namespace}"
    certificate = authority.issue_cert(host)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "secure-s3"},
        "stringData": {
            "tls.crt": b"".join(blob.bytes() for blob in certificate.cert_chain_pems).decode(),
            "tls.key": certificate.private_key_pem.bytes().decode(),
        },
    }
    kubectl(backing.namespace, "apply", "--filename", "-", stdin=json.dumps(secret))
    manifest = (HERE / "secure_s3.yaml").read_text().replace("IMAGE", backing.image)
    kubectl(backing.namespace, "apply", "--filename", "-", stdin=manifest)
    kubectl(backing.namespace, "rollout", "status", "deployment/secure-s3", "--timeout=300s")
    made_bucket = (
        "import boto3; boto3.client('s3', endpoint_url='https://localhost:9443', verify=False, region_name='us-east-1',"
        " aws_access_key_id='testing', aws_secret_access_key='for-tests-only').create_bucket(Bucket='daf')"
    )
    kubectl(backing.namespace, "exec", "deployment/secure-s3", "--", "python", "-c", made_bucket)
    backing.shell("createdb secure")
    namespace = f"{backing.namespace.removesuffix('-backing')}-secure"
    values = (f"artifacts.endpoint=https://{host}", *ONE_REPLICA)
    made = Installation(tmp_path, namespace, image_prefix, backing, values=values, database="secure")
    try:
        made.prepare()
        yield made
    finally:
        made.delete()
        kubectl(backing.namespace, "delete", "--filename", "-", stdin=manifest, check=False)
        backing.shell("dropdb --force secure")


def test_services_and_workers_trust_a_companys_authority(
    installation_with_secure_store: Installation, authority: trustme.CA, current: Version
) -> None:
    installed = installation_with_secure_store

    installed.upgrade(current.chart, current.tag)
    assert "UnknownIssuer" in _try_store(installed)

    pem = authority.cert_pem.bytes().decode()
    installed.upgrade(current.chart, current.tag, f"certificateAuthorities.pem={pem}")
    wait_until(lambda: all(len(installed.pods(service)) == 1 for service in SERVICES), "the pods before have ended")
    assert _try_store(installed) == "written"
    daf = installed.client()
    daf("train", *TRAINING, "--steps", "512", "--name", "secure")  # its checkpoint goes there, and back:
    saved = "job/secure/checkpoints/latest"
    played = daf.json("evaluate", "-p", saved, "-m", MISSION, "--cogs", "4", "--steps", "20", "--episodes", "1")
    assert played["evaluation"]["state"] == "EVALUATION_STATE_SUCCEEDED"

    installed.uninstall()
    assert [m for m in items(installed.namespace, "configmaps") if m["metadata"]["name"].startswith("daf-")] == []


def _try_store(installed: Installation) -> str:
    """What becomes of a write by the environment of a service."""
    command = ("exec", "deployment/daf-deployment", "--", "python", "-c", TRY)
    return kubectl(installed.namespace, *command).strip()
