"""How a client names a policy's bundle: as a file, or as a version of a package."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from daf.client import Client
from daf.convert.policies import OwnCode, policy_config, policy_message
from daf.references import PolicyConfig, parse_policy
from daf.resources import Resources
from daf_common.errors import InvalidArgument, NotFound
from daf_protos.common.v1.policy_pb2 import Policy
from daf_protos.deployment.v1.deployment_service_pb2 import CreatePolicyVersionRequest


def write_bundle(path: Path, **spec: Any) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("policy_spec.json", json.dumps({"class_path": "mine.Policy", **spec}))
        archive.writestr("mine.py", "")
    return path


def resolved(client: Client, directory: Path, policy: PolicyConfig) -> Policy:
    resources = Resources(client)
    return policy_message(policy, "policies[0]", OwnCode(None, None, directory, resources), resources)


def test_a_file_is_checked_and_uploaded_once(client: Client, tmp_path: Path) -> None:
    write_bundle(tmp_path / "walker.zip")

    named = resolved(client, tmp_path, parse_policy("walker.zip"))
    again = resolved(client, tmp_path, PolicyConfig(bundle=str(tmp_path / "walker.zip")))

    assert (named.label, named.bundle.media_type) == ("walker", "application/zip")
    assert again == named
    assert resolved(client, tmp_path, policy_config(named)) == named


def test_a_version_is_the_bundle_of_its_package(client: Client, tmp_path: Path) -> None:
    bundle = Resources(client).bundle(write_bundle(tmp_path / "walker.zip"))
    request = CreatePolicyVersionRequest(package_id="walker", version="1.2.0", bundle=bundle)
    client.deployment.CreatePolicyVersion(request)

    policy = resolved(client, tmp_path, parse_policy("policyPackages/walker/versions/1.2.0"))

    assert policy == Policy(label="walker/versions/1.2.0", bundle=bundle)
    with pytest.raises(NotFound, match=r"policyPackages/walker/versions/2\.0\.0"):
        resolved(client, tmp_path, parse_policy("policyPackages/walker/versions/2.0.0"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read the bundle walker.zip: No such file or directory"),
        (b"", "walker.zip is no bundle of CoGames: not a sound zip archive"),
        (b"no zip", "walker.zip is no bundle of CoGames: not a sound zip archive"),
        ({"note.txt": ""}, "there is no policy_spec.json at its top"),
        ({"policy_spec.json": "{"}, "policy_spec.json is not JSON"),
        ({"policy_spec.json": "{}"}, "instead of a dotted path"),
        ({"policy_spec.json": '{"class_path": "a.B", "data_path": "../w.pt"}'}, "data_path"),
    ],
)
def test_what_is_no_bundle_is_refused_with_the_reason(
    client: Client, tmp_path: Path, content: bytes | dict[str, str] | None, said: str
) -> None:
    if isinstance(content, bytes):
        (tmp_path / "walker.zip").write_bytes(content)
    elif content is not None:
        with zipfile.ZipFile(tmp_path / "walker.zip", "w") as archive:
            for name, text in content.items():
                archive.writestr(name, text)

    with pytest.raises(InvalidArgument, match=said) as error:
        resolved(client, tmp_path, parse_policy("walker.zip"))

    assert [violation.field for violation in error.value.violations] == ["policies[0]"]
