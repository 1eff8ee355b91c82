"""The artifact store on files and on S3 (a real HTTP server that speaks its protocol)."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from moto.server import ThreadedMotoServer

from daf_common.artifacts import ArtifactStore, check_artifact, key
from daf_common.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound
from daf_protos.common.v1.artifact_pb2 import Artifact


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT", endpoint)
        environment.setenv("AWS_ALLOW_HTTP", "true")
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
        environment.setenv("AWS_REGION", "us-east-1")
        httpx.put(f"{endpoint}/artifacts", timeout=30).raise_for_status()
        yield "s3://artifacts/daf"
    server.stop()


@pytest.fixture(params=["files", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return (tmp_path / "artifacts").as_uri() if request.param == "files" else str(request.getfixturevalue("s3_url"))


async def test_what_is_put_is_got_and_putting_twice_is_once(url: str) -> None:
    store = ArtifactStore(url, "training")
    content = os.urandom(3 << 20)

    first, second = await store.put(content, "text/plain"), await store.put(content, "text/plain")

    assert first == second
    assert first.sha256 == hashlib.sha256(content).hexdigest()
    assert await ArtifactStore(url, "evaluation").get(first) == content


async def test_a_file_is_put_whole(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"weights" * 100_000)
    artifact = await ArtifactStore(url, "training").put_file(tmp_path / "file", "application/octet-stream")
    assert await ArtifactStore(url, "training").get(artifact) == b"weights" * 100_000


async def test_a_bucket_that_is_not_there_is_named(s3_url: str, tmp_path: Path) -> None:
    store = ArtifactStore("s3://nowhere/daf", "training")
    with pytest.raises(FailedPrecondition, match="s3://nowhere/daf is not there"):
        await store.put(b"content", "text/plain")
    (tmp_path / "file").write_bytes(b"content")
    with pytest.raises(FailedPrecondition, match="s3://nowhere/daf is not there"):
        await store.put_file(tmp_path / "file", "text/plain")


async def test_what_is_not_there_is_not_found(url: str) -> None:
    artifact = Artifact(sha256=hashlib.sha256(os.urandom(8)).hexdigest(), size_bytes=1, owner="training")
    with pytest.raises(NotFound):
        await ArtifactStore(url, "training").get(artifact)


async def test_a_worker_writes_and_reads_by_url_alone(url: str) -> None:
    store = ArtifactStore(url, "training")
    content = os.urandom(100)
    wanted = Artifact(sha256=hashlib.sha256(content).hexdigest(), size_bytes=100, media_type="text/plain")

    location = await store.writing(wanted)
    if location.url.startswith("file://"):
        target = Path(location.url.removeprefix("file://"))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    else:
        sent = await asyncio.to_thread(
            httpx.put, location.url, content=content, headers={"content-type": "application/octet-stream"}, timeout=30
        )
        sent.raise_for_status()

    assert (await store.writing(wanted)).url == ""
    reading = await store.reading(location.artifact)
    if reading.url.startswith("http"):
        assert (await asyncio.to_thread(httpx.get, reading.url, timeout=30)).content == content


async def test_a_broken_object_is_data_loss(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path.as_uri(), "training")
    artifact = await store.put(b"right", "text/plain")
    (tmp_path / key(artifact)).write_bytes(b"wrong")
    with pytest.raises(DataLoss):
        await store.get(artifact)


async def test_only_the_owner_deletes(url: str) -> None:
    store = ArtifactStore(url, "training")
    artifact = await store.put(os.urandom(16), "text/plain")
    with pytest.raises(ValueError, match="may not delete"):
        await ArtifactStore(url, "evaluation").delete(artifact)
    await store.delete(artifact)
    await store.delete(artifact)
    assert not await store.exists(artifact)


@pytest.mark.parametrize(
    ("artifact", "field"),
    [
        (Artifact(sha256="../../etc/passwd", owner="training"), "code.sha256"),
        (Artifact(sha256="A" * 64, owner="training"), "code.sha256"),
        (Artifact(sha256="a" * 64, owner="../x"), "code.owner"),
        (Artifact(sha256="a" * 64, owner="training", size_bytes=-1), "code.size_bytes"),
    ],
)
def test_a_reference_that_is_none_names_its_field(artifact: Artifact, field: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        check_artifact(artifact, "code")
    assert error.value.violations[0].field == field
