"""Uploads: bytes that come in parts, counted and hashed on their way to a file."""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

from daf_common.artifacts import ArtifactStore, check_artifact
from daf_common.errors import InvalidArgument, ResourceExhausted, Unavailable
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.deployment.v1.artifact_service_pb2 import UploadArtifactRequest

MAX_CHUNK_BYTES = 1 << 20
MAX_MEDIA_TYPE = 100
"""Characters."""


async def receive(
    parts: AsyncIterator[UploadArtifactRequest], artifacts: ArtifactStore, scratch: Path, max_bytes: int
) -> Artifact:
    """Stores what is uploaded, or nothing. An artifact that is there already is not read again.

    Args:
        parts: what it is, then its bytes.
        artifacts: where it goes.
        scratch: a directory for the time of the upload.
        max_bytes: how large it may be.

    Raises:
        InvalidArgument: the parts are not what they should be.
        ResourceExhausted: it is too large, or the disk is full.
        Unavailable: its end is missing.
    """
    artifact = _header(await anext(parts, UploadArtifactRequest()), artifacts.owner, max_bytes)
    if await artifacts.exists(artifact):
        return artifact
    with TemporaryDirectory(prefix="upload-", dir=scratch) as directory:
        path = Path(directory) / "content"
        try:
            await _write(parts, artifact, path)
            return await artifacts.put_file(path, artifact.media_type)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise ResourceExhausted("there is no space left for uploads") from error
            raise


def _header(part: UploadArtifactRequest, owner: str, max_bytes: int) -> Artifact:
    if part.WhichOneof("part") != "artifact":
        raise InvalidArgument.field("artifact", "say first what is uploaded")
    artifact = Artifact()
    artifact.CopyFrom(part.artifact)
    artifact.owner = owner
    check_artifact(artifact, "artifact")
    if len(artifact.media_type) > MAX_MEDIA_TYPE or not artifact.media_type.isprintable():
        raise InvalidArgument.field("artifact.media_type", f"use at most {MAX_MEDIA_TYPE} printable characters")
    if artifact.size_bytes > max_bytes:
        raise ResourceExhausted(f"{artifact.size_bytes} bytes are more than the {max_bytes} that may be uploaded")
    return artifact


async def _write(parts: AsyncIterator[UploadArtifactRequest], artifact: Artifact, path: Path) -> None:
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:

        def append(chunk: bytes) -> None:
            digest.update(chunk)
            file.write(chunk)

        async for part in parts:
            if part.WhichOneof("part") != "chunk":
                raise InvalidArgument.field("chunk", "after the first message only chunks may come")
            if len(part.chunk) > MAX_CHUNK_BYTES:
                raise InvalidArgument.field("chunk", f"has {len(part.chunk)} bytes, more than {MAX_CHUNK_BYTES}")
            size += len(part.chunk)
            if size > artifact.size_bytes:
                break
            await asyncio.to_thread(append, part.chunk)
    if size > artifact.size_bytes:
        raise InvalidArgument.field("artifact.size_bytes", f"is {artifact.size_bytes}, but more bytes came")
    if size < artifact.size_bytes:  # a proxy that gives up a connection may lose the end of a stream
        raise Unavailable(f"of {artifact.size_bytes} bytes (artifact.size_bytes) only {size} came: send them again")
    if digest.hexdigest() != artifact.sha256:
        raise InvalidArgument.field("artifact.sha256", "is not the digest of the bytes that came")
