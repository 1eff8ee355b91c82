"""Policy packages and versions over gRPC, and the bundles that are refused."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import warnings
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from daf_common.artifacts import ArtifactStore, key
from daf_common.channel import raising, streaming
from daf_common.clock import ManualClock
from daf_common.errors import AlreadyExists, DataLoss, InvalidArgument, NotFound, Unimplemented
from daf_common.service import Context
from daf_deployment.main import Deployment
from daf_deployment.store import PACKAGES, VERSIONS
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.deployment.v1 import deployment_service_pb2 as pb
from daf_protos.deployment.v1.package_pb2 import Lineage

if TYPE_CHECKING:
    from daf_protos.deployment.v1.deployment_service_pb2_grpc import DeploymentServiceAsyncStub

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For tests of what never reaches the database."""

SPEC = {"class_path": "miner.Policy", "data_path": "weights.pt", "init_kwargs": {"hidden": 8}, "setup_script": None}
CODE = b"class Policy: ...\n"


def zip_of(*entries: tuple[str, bytes], mode: int = stat.S_IFREG | 0o644) -> bytes:
    buffer = BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # of duplicates
        for name, content in entries:
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (mode if name.startswith("odd") else stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def bundle(*more: tuple[str, bytes], mode: int = 0, **spec: object) -> bytes:
    entries = [
        ("policy_spec.json", json.dumps({**SPEC, **spec}).encode()),
        ("miner.py", CODE),
        ("weights.pt", b"weights"),
    ]
    return zip_of(*entries, *more, mode=mode)


def encrypted() -> bytes:
    data = bundle()
    central = data.index(b"PK\x01\x02")
    return data[: central + 8] + b"\x01\x00" + data[central + 10 :]


@pytest.fixture
async def uploaded(context: Context) -> Callable[[bytes], Artifact]:
    store = ArtifactStore(context.settings.artifacts(), "deployment")

    async def put(content: bytes) -> Artifact:
        return await store.put(content, "application/zip")

    return put


@pytest.fixture
async def good(uploaded: Callable[[bytes], Artifact]) -> Artifact:
    return await uploaded(bundle())


def request_for(bundle: Artifact, version: str = "1.0.0", package: str = "miner", **fields: object):
    return pb.CreatePolicyVersionRequest(package_id=package, version=version, bundle=bundle, **fields)


async def test_a_version_is_created_with_its_package(
    deployments: DeploymentServiceAsyncStub, good: Artifact, clock: ManualClock
) -> None:
    lineage = Lineage(sweep="sweeps/s1", trial="sweeps/s1/trials/3", checkpoint="trainingJobs/j/checkpoints/9", seed=0)
    request = request_for(good, lineage=lineage, description="mines ore")

    created = (await raising(deployments.CreatePolicyVersion(request))).policy_version

    assert created.name == "policyPackages/miner/versions/1.0.0"
    assert (created.version, created.class_path) == ("1.0.0", "miner.Policy")
    assert (created.bundle, created.lineage) == (good, lineage)
    assert created.create_time.ToDatetime(clock.now().tzinfo) == clock.now()
    read = await raising(deployments.GetPolicyVersion(pb.GetPolicyVersionRequest(name=created.name)))
    assert read.policy_version == created
    package = (
        await raising(deployments.GetPolicyPackage(pb.GetPolicyPackageRequest(name="policyPackages/miner")))
    ).policy_package
    assert (package.name, package.description, package.latest) == ("policyPackages/miner", "mines ore", created)
    assert package.create_time == created.create_time


async def test_a_newer_version_becomes_the_latest_and_keeps_the_description(
    deployments: DeploymentServiceAsyncStub, good: Artifact, clock: ManualClock
) -> None:
    await raising(deployments.CreatePolicyVersion(request_for(good, "1.0.0", description="mines ore")))
    name = pb.GetPolicyPackageRequest(name="policyPackages/miner")
    before = (await raising(deployments.GetPolicyPackage(name))).policy_package
    clock.jump(-3600)

    await raising(deployments.CreatePolicyVersion(request_for(good, "1.1.0")))

    after = (await raising(deployments.GetPolicyPackage(name))).policy_package
    assert (after.latest.version, after.description) == ("1.1.0", "mines ore")
    assert after.revision > before.revision
    assert after.create_time == before.create_time


async def test_a_version_is_taken_once(deployments: DeploymentServiceAsyncStub, good: Artifact) -> None:
    await raising(deployments.CreatePolicyVersion(request_for(good)))

    with pytest.raises(AlreadyExists, match=r"has a version 1\.0\.0"):
        await raising(deployments.CreatePolicyVersion(request_for(good)))


async def test_the_same_request_many_times_at_once_creates_one_version(
    deployments: DeploymentServiceAsyncStub, good: Artifact
) -> None:
    request = request_for(good, request_id="r1")

    answers = await asyncio.gather(*(raising(deployments.CreatePolicyVersion(request)) for _ in range(50)))

    assert all(answer == answers[0] for answer in answers)
    listed = await raising(deployments.ListPolicyVersions(pb.ListPolicyVersionsRequest(parent="policyPackages/miner")))
    assert len(listed.policy_versions) == 1
    with pytest.raises(AlreadyExists) as reused:
        await raising(deployments.CreatePolicyVersion(request_for(good, "2.0.0", request_id="r1")))
    assert reused.value.reason == "REQUEST_ID_REUSED"


async def test_packages_and_versions_are_listed_in_pages_newest_first(
    deployments: DeploymentServiceAsyncStub, good: Artifact
) -> None:
    for minor in range(5):
        await raising(deployments.CreatePolicyVersion(request_for(good, f"1.{minor}.0")))
        await raising(deployments.CreatePolicyVersion(request_for(good, package=f"package-{minor}")))

    versions, packages, token = [], [], ""
    while True:
        request = pb.ListPolicyVersionsRequest(parent="policyPackages/miner", page_size=2, page_token=token)
        page = await raising(deployments.ListPolicyVersions(request))
        versions += [version.version for version in page.policy_versions]
        if not (token := page.next_page_token):
            break
    while True:
        page = await raising(
            deployments.ListPolicyPackages(pb.ListPolicyPackagesRequest(page_size=4, page_token=token))
        )
        packages += [(package.name.split("/")[1], package.latest.version) for package in page.policy_packages]
        if not (token := page.next_page_token):
            break

    assert versions == [f"1.{minor}.0" for minor in reversed(range(5))]
    assert packages == [*((f"package-{minor}", "1.0.0") for minor in reversed(range(5))), ("miner", "1.4.0")]


async def test_what_is_not_there_is_not_found(deployments: DeploymentServiceAsyncStub) -> None:
    for call in (
        deployments.GetPolicyPackage(pb.GetPolicyPackageRequest(name="policyPackages/none")),
        deployments.GetPolicyVersion(pb.GetPolicyVersionRequest(name="policyPackages/none/versions/1.0.0")),
        deployments.ListPolicyVersions(pb.ListPolicyVersionsRequest(parent="policyPackages/none")),
    ):
        with pytest.raises(NotFound, match="policyPackages/none"):
            await raising(call)
    assert not (await raising(deployments.ListPolicyPackages(pb.ListPolicyPackagesRequest()))).policy_packages


GOOD = Artifact(sha256="0" * 64, size_bytes=1, owner="deployment")


@on_sqlite
@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (request_for(GOOD, package=""), "package_id"),
        (request_for(GOOD, package="Miner"), "package_id"),
        (request_for(GOOD, package="m" * 1_000_000), "package_id"),
        (request_for(GOOD, "1.0"), "version"),
        (request_for(GOOD, "01.0.0"), "version"),
        (request_for(GOOD, "1.0.0-"), "version"),
        (request_for(GOOD, "1.0.0+" + "b" * 100), "version"),
        (request_for(GOOD, "1.0.0\x00"), "version"),
        (request_for(GOOD, description="\x00"), "description"),
        (request_for(GOOD, lineage=Lineage(trial="trials/1")), "lineage.trial"),
        (request_for(GOOD, lineage=Lineage(code_sha256="1")), "lineage.code_sha256"),
        (request_for(GOOD, lineage=Lineage(seed=-1)), "lineage.seed"),
        (request_for(Artifact()), "bundle.sha256"),
        (request_for(Artifact(sha256="0" * 64, owner="training")), "bundle.owner"),
    ],
)
async def test_wrong_requests_are_refused(
    deployments: DeploymentServiceAsyncStub, request_: pb.CreatePolicyVersionRequest, field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await raising(deployments.CreatePolicyVersion(request_))
    assert [violation.field for violation in refused.value.violations] == [field]


@on_sqlite
async def test_all_that_is_wrong_is_named_at_once(deployments: DeploymentServiceAsyncStub) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await raising(deployments.CreatePolicyVersion(request_for(Artifact(), "one", "")))
    assert [violation.field for violation in refused.value.violations] == ["package_id", "version", "bundle.sha256"]


BAD_BUNDLES = {
    "empty file": (lambda: b"", "not a sound zip"),
    "empty archive": (zip_of, "empty"),
    "text": (lambda: b"class_path: miner.Policy", "not a sound zip"),
    "truncated": (lambda: bundle()[:-40], "not a sound zip"),
    "damaged": (lambda: bundle(("big.py", CODE)).replace(b"big.py", b"pig.py", 1), "not a sound zip"),
    "encrypted": (encrypted, "encrypted"),
    "leads up": (lambda: bundle(("../evil.py", CODE)), "forbidden name"),
    "absolute": (lambda: bundle(("/etc/evil.py", CODE)), "forbidden name"),
    "symlink": (lambda: bundle(("odd", b"/etc/passwd"), mode=stat.S_IFLNK | 0o777), "neither a file"),
    "duplicates": (lambda: bundle(("miner.py", b"other")), "twice"),
    "many entries": (lambda: bundle(*((f"{n}.py", b"") for n in range(20_000))), "20003 entries"),
    "bomb": (lambda: bundle(("zeros", bytes(50 << 20))), "times its size"),
    "marked as set up": (lambda: bundle((".setup-0123.done", b"")), "reserved"),
    "marked as complete": (lambda: bundle((".extraction_complete", b"")), "reserved"),
    "no spec": (lambda: zip_of(("miner.py", CODE)), "no policy_spec.json"),
    "spec below": (lambda: zip_of(("miner/policy_spec.json", b"{}")), "no policy_spec.json"),
    "spec is no file": (lambda: zip_of(("policy_spec.json/x", b"{}")), "no policy_spec.json"),
    "spec is no JSON": (lambda: zip_of(("policy_spec.json", b"{")), "is not JSON"),
    "spec is no text": (lambda: zip_of(("policy_spec.json", b"\xff\xfe\xfd")), "is not JSON"),
    "spec is nested": (lambda: zip_of(("policy_spec.json", b"[" * 200_000)), "is not JSON"),
    "spec is large": (lambda: zip_of(("policy_spec.json", os.urandom(2 << 20))), "larger"),
    "spec is a list": (lambda: zip_of(("policy_spec.json", b"[]")), "holds a list"),
    "no class": (lambda: zip_of(("policy_spec.json", b"{}")), "class_path"),
    "class is a number": (lambda: bundle(class_path=1), "class_path"),
    "class is a path": (lambda: bundle(class_path="../miner.Policy"), "class_path"),
    "class has no module": (lambda: bundle(class_path="Policy"), "class_path"),
    "arguments are a list": (lambda: bundle(init_kwargs=[1]), "init_kwargs"),
    "data is absolute": (lambda: bundle(data_path="/etc/passwd"), "data_path"),
    "data is above": (lambda: bundle(data_path="../../etc/passwd"), "data_path"),
    "data is at home": (lambda: bundle(data_path="~/weights.pt"), "data_path"),
    "data is missing": (lambda: bundle(data_path="other.pt"), "data_path"),
    "script is absolute": (lambda: bundle(setup_script="/bin/sh"), "setup_script"),
    "script is above": (lambda: bundle(setup_script="x/../../setup.py"), "setup_script"),
    "script is missing": (lambda: bundle(setup_script="setup.py"), "setup_script"),
}


@on_sqlite
@pytest.mark.parametrize("name", BAD_BUNDLES)
async def test_a_bad_bundle_is_refused_and_nothing_is_written(
    deployments: DeploymentServiceAsyncStub,
    uploaded: Callable[[bytes], Artifact],
    service: Deployment,
    tmp_path: Path,
    name: str,
) -> None:
    make, message = BAD_BUNDLES[name]

    with pytest.raises(InvalidArgument, match=message) as refused:
        await raising(deployments.CreatePolicyVersion(request_for(await uploaded(make()))))

    assert refused.value.violations[0].field == "bundle"
    assert not (await raising(deployments.ListPolicyPackages(pb.ListPolicyPackagesRequest()))).policy_packages
    assert not [path for path in (tmp_path / "scratch").rglob("*") if path.is_file()]


@on_sqlite
async def test_a_bundle_that_cogames_writes_is_accepted(
    deployments: DeploymentServiceAsyncStub,
    uploaded: Callable[[bytes], Artifact],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cogames.cli.submit import create_submission_zip
    from mettagrid.policy.policy import PolicySpec

    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "miner.py").write_bytes(CODE)
    (tmp_path / "code" / "weights.pt").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path / "code")
    spec = PolicySpec(class_path="miner.Policy", data_path="weights.pt", init_kwargs={"hidden": 8})
    path = create_submission_zip([Path("miner.py"), Path("weights.pt")], spec)

    created = await raising(deployments.CreatePolicyVersion(request_for(await uploaded(path.read_bytes()))))

    path.unlink()
    assert created.policy_version.class_path == "miner.Policy"


@on_sqlite
async def test_a_bundle_that_was_not_uploaded_or_is_broken_makes_no_version(
    deployments: DeploymentServiceAsyncStub, good: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match="000000000000"):
        await raising(deployments.CreatePolicyVersion(request_for(GOOD)))

    (tmp_path / "artifacts" / key(good)).write_bytes(bundle(class_path="other.Policy"))
    with pytest.raises(DataLoss, match="broken"):
        await raising(deployments.CreatePolicyVersion(request_for(good)))


@on_sqlite
async def test_deployments_are_not_built_yet_and_say_so(deployments: DeploymentServiceAsyncStub) -> None:
    for call in (
        deployments.CreateDeployment(pb.CreateDeploymentRequest()),
        deployments.GetDeployment(pb.GetDeploymentRequest()),
        deployments.ListDeployments(pb.ListDeploymentsRequest()),
        deployments.UpdateDeployment(pb.UpdateDeploymentRequest()),
        deployments.RollbackDeployment(pb.RollbackDeploymentRequest()),
        deployments.RetireDeployment(pb.RetireDeploymentRequest()),
    ):
        with pytest.raises(Unimplemented, match="not built yet"):
            await raising(call)
    with pytest.raises(Unimplemented, match="not built yet"):
        await anext(streaming(deployments.WatchDeployments(pb.WatchDeploymentsRequest())))


async def test_the_migrated_database_has_the_tables_of_the_code(service: Deployment) -> None:
    inspector = sa.inspect(service.store.engine)
    for table in (PACKAGES, VERSIONS):
        columns = {column["name"]: column for column in inspector.get_columns(table.name)}
        assert columns.keys() == set(table.columns.keys())
        for column in table.columns:
            assert columns[column.name]["nullable"] == column.nullable
            assert columns[column.name]["type"].python_type == column.type.python_type
        unique = {tuple(constraint["column_names"]) for constraint in inspector.get_unique_constraints(table.name)}
        declared = {
            tuple(c.name for c in constraint.columns)
            for constraint in table.constraints
            if isinstance(constraint, sa.UniqueConstraint)
        }
        assert unique == declared
