"""Artifacts through file URLs and through HTTP, and calls that outlast their service."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from daf_cogames import reports
from daf_cogames.reports import GaveUp, Superseded, persist
from daf_cogames.transfer import download, upload
from daf_common.errors import Aborted, DataLoss, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from daf_protos.common.v1.artifact_pb2 import Artifact, ArtifactLocation

CONTENT = b"weights" * 1000


def at(url: str, content: bytes = CONTENT) -> ArtifactLocation:
    artifact = Artifact(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    return ArtifactLocation(artifact=artifact, url=url)


class Bucket(ThreadingHTTPServer):
    """An object store over HTTP, as presigned URLs reach one."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.broken = False
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Bucket

    def do_GET(self) -> None:
        content = self.server.objects.get(self.path)
        self._answer(503 if self.server.broken else 404 if content is None else 200, content or b"")

    def do_PUT(self) -> None:
        if self.headers["Content-Length"] is None:
            self._answer(411, b"")
            return
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.server.broken:
            self.server.objects[self.path] = content
        self._answer(503 if self.server.broken else 200, b"")

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    bucket = Bucket()
    thread = threading.Thread(target=bucket.serve_forever)
    thread.start()
    yield bucket
    bucket.shutdown()
    thread.join()
    bucket.server_close()


@pytest.fixture(params=["file", "http"])
def object_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return (tmp_path / "store" / "an object").as_uri()
    bucket: Bucket = request.getfixturevalue("bucket")
    return f"{bucket.url}/an%20object?signature=secret"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(CONTENT)
    return path


def test_what_was_written_is_read_back(object_url: str, weights: Path, tmp_path: Path) -> None:
    upload(weights, at(object_url))
    assert download(at(object_url), tmp_path / "cache").read_bytes() == CONTENT


def test_what_is_in_the_cache_is_not_fetched_again(weights: Path, tmp_path: Path) -> None:
    first = download(at(weights.as_uri()), tmp_path / "cache")
    weights.unlink()
    assert download(at(weights.as_uri()), tmp_path / "cache") == first


def test_broken_content_is_refused_and_leaves_nothing(object_url: str, weights: Path, tmp_path: Path) -> None:
    upload(weights, at(object_url))
    with pytest.raises(DataLoss, match="digest"):
        download(at(object_url, b"something else"), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_artifact_that_is_not_there_is_not_found(object_url: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        download(at(object_url), tmp_path / "cache")


def test_nothing_is_uploaded_where_the_store_has_it(tmp_path: Path) -> None:
    upload(tmp_path / "there is no such file", at(""))


def test_a_store_that_fails_is_unavailable_and_its_url_stays_secret(
    bucket: Bucket, weights: Path, tmp_path: Path
) -> None:
    bucket.broken = True
    url = f"{bucket.url}/o?signature=secret"
    calls: list[Callable[[], object]] = [lambda: upload(weights, at(url)), lambda: download(at(url), tmp_path / "c")]
    for call in calls:
        with pytest.raises(Unavailable) as raised:
            call()
        assert "secret" not in str(raised.value)


def test_a_store_that_cannot_be_reached_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        download(at("http://127.0.0.1:1/o"), tmp_path / "cache")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "FIRST_DELAY_SECONDS", 0.0)


class Service:
    """Raises one error after the other, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    def __call__(self) -> str:
        if self._errors:
            raise self._errors.pop(0)
        return "answer"


@pytest.mark.usefixtures("impatient")
def test_a_call_is_repeated_until_its_service_is_back() -> None:
    assert persist(Service(Unavailable("away"), Unavailable("away")), "the call") == "answer"


@pytest.mark.parametrize("error", [Aborted("later attempt"), NotFound("deleted"), FailedPrecondition("no")])
def test_a_worker_that_is_superseded_hears_so(error: Exception) -> None:
    with pytest.raises(Superseded):
        persist(Service(error), "the call")


@pytest.mark.usefixtures("impatient")
def test_a_precondition_may_be_tried_again() -> None:
    assert persist(Service(FailedPrecondition("x")), "the call", tried_again=(FailedPrecondition,)) == "answer"


def test_a_refusal_is_raised_as_it_is() -> None:
    with pytest.raises(InvalidArgument):
        persist(Service(InvalidArgument("x")), "the call")


def test_patience_ends() -> None:
    with pytest.raises(GaveUp):
        persist(Service(Unavailable("away")), "the call", patience_seconds=0)
    with pytest.raises(GaveUp):
        persist(Service(Unavailable("away")), "the call", wait=lambda seconds: True)


def test_a_worker_whose_directory_was_removed_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "worker"
    directory.mkdir()
    monkeypatch.chdir(directory)
    directory.rmdir()
    with pytest.raises(GaveUp, match="directory was removed"):
        persist(Service(Unavailable("away")), "the call")
