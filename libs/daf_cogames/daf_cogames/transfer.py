"""Artifacts between a worker and the store: through file URLs where both share a disk, else through presigned URLs.

What is downloaded lies in a cache under its SHA-256, so that it is there for the next job of this machine.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import httpx

from daf_common.errors import DataLoss, NotFound, Unavailable
from daf_protos.common.v1.artifact_pb2 import ArtifactLocation

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60.0
"""Of each read and write over HTTP, not of the whole transfer."""


def download(location: ArtifactLocation, cache: Path) -> Path:
    """The artifact as a file in the cache, fetched if it is not there.

    The file is whole or absent, also when several processes fetch at once or one is killed; it is not to be changed.

    Raises:
        DataLoss: the content has another digest than its name says.
        NotFound: there is nothing at the URL.
        Unavailable: the store does not answer; another try may work.
    """
    sha256 = location.artifact.sha256
    target = cache / sha256
    if target.is_file():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=cache, prefix=f".{sha256[:12]}-")
    partial = Path(name)
    try:
        digest = hashlib.sha256()
        with os.fdopen(descriptor, "wb") as file:
            for chunk in _read(location.url):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            raise DataLoss(f"the artifact {sha256[:12]} is broken: its content has the digest {digest.hexdigest()}")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def upload(path: Path, location: ArtifactLocation) -> None:
    """Writes a file to where the service said; nothing to do where it said that the store has the content already.

    Raises:
        Unavailable: the store does not answer or has no space; another try may work.
    """
    if not location.url:
        return
    parts = urlsplit(location.url)
    if parts.scheme == "file":
        _copy(path, Path(unquote(parts.path)))
        return
    with path.open("rb") as file, _http_errors():
        headers = {"Content-Length": str(path.stat().st_size)}  # without it httpx sends chunks, which S3 refuses
        response = httpx.put(location.url, content=_chunks(file), headers=headers, timeout=TIMEOUT_SECONDS)
    _check_status(response)


def _read(url: str) -> Iterator[bytes]:
    parts = urlsplit(url)
    if parts.scheme == "file":
        try:
            with Path(unquote(parts.path)).open("rb") as file:
                yield from _chunks(file)
        except FileNotFoundError as error:
            raise NotFound("the artifact is not in the store") from error
        return
    with _http_errors(), httpx.stream("GET", url, timeout=TIMEOUT_SECONDS) as response:
        if response.status_code == httpx.codes.NOT_FOUND:
            raise NotFound("the artifact is not in the store")
        _check_status(response)
        yield from response.iter_bytes(CHUNK_BYTES)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:12]}-")
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file, source.open("rb") as content:
            shutil.copyfileobj(content, file, CHUNK_BYTES)
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(target)
    except OSError as error:  # a full disk, most likely
        raise Unavailable(f"the artifact store cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


class _http_errors:  # noqa: N801 - reads as a statement: `with _http_errors():`
    """Turns what httpx raises into `DafError`, without the URL, which is a secret."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, httpx.HTTPError):
            raise Unavailable(f"the artifact store does not answer: {type(error).__name__}") from None


def _check_status(response: httpx.Response) -> None:
    if not response.is_success:  # such as 403, once a presigned URL has expired: the next one works
        raise Unavailable(f"the artifact store answered {response.status_code}")
