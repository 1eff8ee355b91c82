"""The artifact store: immutable objects, found by the SHA-256 of their content."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, from_url

from daf_common.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound
from daf_common.metrics import ARTIFACT_BYTES
from daf_protos.common.v1.artifact_pb2 import Artifact, ArtifactLocation

OWNERS = ("training", "evaluation", "statistics", "deployment", "scheduler")
URL_LIFETIME = timedelta(hours=6)
"""How long a worker may use a presigned URL."""

_WRITTEN, _READ = ARTIFACT_BYTES.labels("written"), ARTIFACT_BYTES.labels("read")
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


class ArtifactStore:
    """Objects under one URL. Each service writes, and deletes, under its own prefix; all may read."""

    def __init__(self, url: str, owner: str) -> None:
        """Opens a store.

        Args:
            url: `file:///path`, or `s3://bucket/prefix` and the like; credentials come from the environment.
            owner: the service that writes.
        """
        self.owner = owner
        self._place = url
        local = url.startswith("file://")
        self._store = LocalStore(unquote(urlsplit(url).path), mkdir=True) if local else from_url(url)

    async def put(self, content: bytes, media_type: str) -> Artifact:
        """Stores bytes; storing them twice is storing them once."""
        artifact = Artifact(
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            media_type=media_type,
            owner=self.owner,
        )
        try:
            with self._writing():
                await obstore.put_async(self._store, key(artifact), content, mode="create")
            _WRITTEN.inc(len(content))
        except AlreadyExistsError:
            pass
        return artifact

    async def put_file(self, path: Path, media_type: str) -> Artifact:
        """Stores a file, in parts where it is large."""
        sha256 = await asyncio.to_thread(_file_sha256, path)
        size = await asyncio.to_thread(lambda: path.stat().st_size)
        artifact = Artifact(sha256=sha256, size_bytes=size, media_type=media_type, owner=self.owner)
        if not await self.exists(artifact):
            with self._writing():
                await obstore.put_async(self._store, key(artifact), path)
            _WRITTEN.inc(size)
        return artifact

    async def get(self, artifact: Artifact) -> bytes:
        """Reads an object whole.

        Raises:
            NotFound: it is not there.
            DataLoss: its content is not what its name says.
        """
        content = b"".join([bytes(chunk) async for chunk in self.stream(artifact)])
        if hashlib.sha256(content).hexdigest() != artifact.sha256:
            raise DataLoss(f"the artifact {artifact.sha256[:12]} is broken: its content has another digest")
        return content

    async def stream(self, artifact: Artifact, chunk_bytes: int = 1 << 20) -> AsyncIterator[bytes]:
        """Reads an object in chunks; the caller checks the digest.

        Raises:
            NotFound: it is not there.
        """
        try:
            result = await obstore.get_async(self._store, key(artifact))
        except FileNotFoundError as error:
            raise NotFound(f"there is no artifact {artifact.sha256[:12]} of {artifact.owner}") from error
        async for chunk in result.stream(min_chunk_size=chunk_bytes):
            content = memoryview(chunk)
            _READ.inc(len(content))
            for start in range(0, len(content), chunk_bytes):
                yield bytes(content[start : start + chunk_bytes])

    async def exists(self, artifact: Artifact) -> bool:
        """Whether the object is there, with the size that its name says."""
        try:
            meta = await obstore.head_async(self._store, key(artifact))
        except FileNotFoundError:
            return False
        return bool(meta["size"] == artifact.size_bytes)

    async def delete(self, artifact: Artifact) -> None:
        """Deletes an object of this store's owner; one that is gone stays gone."""
        if artifact.owner != self.owner:
            raise ValueError(f"{self.owner} may not delete what {artifact.owner} owns")
        try:
            await obstore.delete_async(self._store, key(artifact))
        except FileNotFoundError:
            pass

    def owned(self, artifact: Artifact, field: str) -> Artifact:
        """An artifact that a worker names, checked, as one of this store's owner.

        Raises:
            InvalidArgument: it is no artifact; names the field.
        """
        owned = Artifact()
        owned.CopyFrom(artifact)
        owned.owner = self.owner
        check_artifact(owned, field)
        return owned

    async def reading(self, artifact: Artifact) -> ArtifactLocation:
        """Where a worker reads an object."""
        return ArtifactLocation(artifact=artifact, url=await self._url("GET", artifact))

    async def writing(self, artifact: Artifact) -> ArtifactLocation:
        """Where a worker writes an object of this store's owner; without a URL if it is there already."""
        owned = Artifact()
        owned.CopyFrom(artifact)
        owned.owner = self.owner
        url = "" if await self.exists(owned) else await self._url("PUT", owned)
        return ArtifactLocation(artifact=owned, url=url)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:  # of an object that is being made: what it lies in
            message = f"the artifact store {self._place} is not there: create its bucket, or set DAF_ARTIFACTS_URL"
            raise FailedPrecondition(message, reason="NO_BUCKET") from error

    async def _url(self, method: str, artifact: Artifact) -> str:
        if isinstance(self._store, LocalStore):
            return (Path(str(self._store.prefix)) / key(artifact)).as_uri()
        return str(await obstore.sign_async(self._store, method, key(artifact), URL_LIFETIME))  # type: ignore[call-overload]


def key(artifact: Artifact) -> str:
    """Where an object lies in a store."""
    return f"{artifact.owner}/{artifact.sha256[:2]}/{artifact.sha256}"


def check_artifact(artifact: Artifact, field: str) -> None:
    """Checks that a message names an artifact.

    Raises:
        InvalidArgument: it does not; names the field.
    """
    if not _SHA256.fullmatch(artifact.sha256):
        raise InvalidArgument.field(f"{field}.sha256", "use 64 lower-case hexadecimal digits")
    if artifact.size_bytes < 0:
        raise InvalidArgument.field(f"{field}.size_bytes", "must not be negative")
    if artifact.owner not in OWNERS:
        raise InvalidArgument.field(f"{field}.owner", f"{artifact.owner!r} is not one of {', '.join(OWNERS)}")


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
