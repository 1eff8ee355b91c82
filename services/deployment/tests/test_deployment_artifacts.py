"""Uploads and downloads of artifacts over gRPC."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daf_common.artifacts import ArtifactStore, key
from daf_common.channel import raising, streaming
from daf_common.errors import DafError, DataLoss, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from daf_common.service import Context
from daf_deployment.main import build
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.deployment.v1.artifact_service_pb2 import DownloadArtifactRequest, UploadArtifactRequest

if TYPE_CHECKING:
    from daf_protos.deployment.v1.artifact_service_pb2_grpc import ArtifactServiceAsyncStub

# Nothing here is kept in a database.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

CONTENT = os.urandom(3_000_000)


def artifact_of(content: bytes, **fields: object) -> Artifact:
    artifact = Artifact(
        sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content), media_type="application/zip"
    )
    artifact.MergeFrom(Artifact(**fields))
    return artifact


def parts_of(content: bytes, header: Artifact | None = None) -> Iterator[UploadArtifactRequest]:
    yield UploadArtifactRequest(artifact=header or artifact_of(content))
    for start in range(0, len(content), 1 << 20):
        yield UploadArtifactRequest(chunk=content[start : start + (1 << 20)])


async def upload(stub: ArtifactServiceAsyncStub, parts: Iterator[UploadArtifactRequest]) -> Artifact:
    return (await raising(stub.UploadArtifact(parts))).artifact


async def download(stub: ArtifactServiceAsyncStub, artifact: Artifact) -> bytes:
    parts = streaming(stub.DownloadArtifact(DownloadArtifactRequest(artifact=artifact)))
    return b"".join([part.chunk async for part in parts])


def files_under(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def kept_files(home: Path) -> list[Path]:
    return [*files_under(home / "artifacts"), *files_under(home / "scratch")]


@pytest.mark.parametrize("content", [CONTENT, b"", b"x" * (1 << 20)], ids=["large", "empty", "one chunk"])
async def test_what_was_uploaded_comes_back(
    artifacts: ArtifactServiceAsyncStub, tmp_path: Path, content: bytes
) -> None:
    artifact = await upload(artifacts, parts_of(content))

    assert artifact == artifact_of(content, owner="deployment")
    assert await download(artifacts, artifact) == content
    assert kept_files(tmp_path) == [tmp_path / "artifacts" / key(artifact)]


async def test_uploading_twice_stores_once_even_at_the_same_time(
    artifacts: ArtifactServiceAsyncStub, tmp_path: Path
) -> None:
    answers = await asyncio.gather(*(upload(artifacts, parts_of(CONTENT)) for _ in range(5)))
    again = await upload(artifacts, parts_of(CONTENT))

    assert all(answer == again for answer in answers)
    assert len(kept_files(tmp_path)) == 1


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        (lambda: iter(()), InvalidArgument, "artifact: say first"),
        (lambda: iter([UploadArtifactRequest(chunk=b"x")]), InvalidArgument, "artifact: say first"),
        (lambda: iter([UploadArtifactRequest()]), InvalidArgument, "artifact: say first"),
        (lambda: parts_of(b"abc", artifact_of(b"abd")), InvalidArgument, r"artifact\.sha256: is not the digest"),
        (lambda: parts_of(b"abcd", artifact_of(b"abc")), InvalidArgument, r"artifact\.size_bytes: is 3, but more"),
        (lambda: parts_of(b"ab", artifact_of(b"abc")), Unavailable, r"of 3 bytes \(artifact\.size_bytes\) only 2 came"),
        (lambda: parts_of(b"a", artifact_of(b"a", sha256="../../x")), InvalidArgument, r"artifact\.sha256"),
        (lambda: parts_of(b"a", artifact_of(b"a", size_bytes=-1)), InvalidArgument, r"artifact\.size_bytes"),
        (lambda: parts_of(b"a", artifact_of(b"a", media_type="a\x00")), InvalidArgument, r"artifact\.media_type"),
        (lambda: parts_of(b"a", artifact_of(b"a", size_bytes=9 << 20)), ResourceExhausted, "8388608"),
        (lambda: iter([*parts_of(b"abc"), *parts_of(b"")]), InvalidArgument, "only chunks"),
        (
            lambda: iter([*parts_of(b"", artifact_of(CONTENT)), UploadArtifactRequest(chunk=CONTENT)]),
            InvalidArgument,
            "more than 1048576",
        ),
    ],
)
async def test_an_upload_that_is_not_what_it_says_is_refused_and_not_kept(
    artifacts: ArtifactServiceAsyncStub, tmp_path: Path, parts: object, error: type[DafError], message: str
) -> None:
    with pytest.raises(error, match=message):
        await upload(artifacts, parts())

    assert kept_files(tmp_path) == []


async def test_an_upload_that_breaks_off_is_not_kept(artifacts: ArtifactServiceAsyncStub, tmp_path: Path) -> None:
    received = asyncio.Event()

    async def parts() -> AsyncIterator[UploadArtifactRequest]:
        for part in list(parts_of(CONTENT))[:-1]:
            yield part
        received.set()
        await asyncio.sleep(60)

    call = artifacts.UploadArtifact(parts())
    await received.wait()
    call.cancel()

    async with asyncio.timeout(30):
        while kept_files(tmp_path):  # the server hears of it a little later
            await asyncio.sleep(0.01)
    assert await upload(artifacts, parts_of(CONTENT)) == artifact_of(CONTENT, owner="deployment")


async def test_a_full_disk_is_reported_as_such(
    artifacts: ArtifactServiceAsyncStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("daf_deployment.uploads._write", full)

    with pytest.raises(ResourceExhausted, match="no space"):
        await upload(artifacts, parts_of(b"abc"))
    assert kept_files(tmp_path) == []


async def test_artifacts_of_every_service_can_be_downloaded(
    artifacts: ArtifactServiceAsyncStub, context: Context
) -> None:
    stored = await ArtifactStore(context.settings.artifacts(), "training").put(CONTENT, "application/octet-stream")

    assert await download(artifacts, stored) == CONTENT


async def test_what_is_not_there_is_not_found(artifacts: ArtifactServiceAsyncStub) -> None:
    with pytest.raises(NotFound, match=artifact_of(b"x").sha256[:12]):
        await download(artifacts, artifact_of(b"x", owner="training"))
    with pytest.raises(InvalidArgument, match=r"artifact\.owner"):
        await download(artifacts, artifact_of(b"x", owner="../training"))


async def test_a_broken_file_is_data_loss(artifacts: ArtifactServiceAsyncStub, tmp_path: Path) -> None:
    artifact = await upload(artifacts, parts_of(CONTENT))
    path = tmp_path / "artifacts" / key(artifact)
    path.write_bytes(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))

    with pytest.raises(DataLoss, match="broken"):
        await download(artifacts, artifact)


async def test_what_a_killed_upload_left_is_cleared_at_start(context: Context, tmp_path: Path) -> None:
    leftover = tmp_path / "scratch" / "deployment" / socket.gethostname() / "upload-x" / "content"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")

    await build(context).stop()

    assert kept_files(tmp_path) == []
