"""Who may call a service: tokens in files, on a real server, with the channels that services and clients use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from daf_common.auth import PRINCIPAL, READ_AGAIN_SECONDS, on_behalf_of
from daf_common.channel import blocking_errors, blocking_stream, connect, connect_blocking, raising, streaming
from daf_common.clock import ManualClock
from daf_common.errors import DafError, FailedPrecondition, InvalidArgument, Unauthenticated
from daf_common.service import Context, Host
from daf_common.settings import ServiceSettings
from daf_protos.deployment.v1 import artifact_service_pb2 as artifact_pb
from daf_protos.deployment.v1.artifact_service_pb2_grpc import (
    ArtifactServiceServicer,
    ArtifactServiceStub,
    add_ArtifactServiceServicer_to_server,
)
from daf_protos.training.v1 import training_service_pb2 as pb
from daf_protos.training.v1 import worker_service_pb2 as worker_pb
from daf_protos.training.v1.training_job_pb2 import TrainingJob
from daf_protos.training.v1.training_service_pb2_grpc import (
    TrainingServiceServicer,
    TrainingServiceStub,
    add_TrainingServiceServicer_to_server,
)
from daf_protos.training.v1.worker_service_pb2_grpc import (
    TrainingWorkerServiceServicer,
    TrainingWorkerServiceStub,
    add_TrainingWorkerServiceServicer_to_server,
)

ALICE, SERVICE = "alice-token-0123456789", "service-token-0123456789"


class Jobs(TrainingServiceServicer):
    """Answers with who calls."""

    async def GetTrainingJob(self, request: pb.GetTrainingJobRequest, context: object) -> pb.GetTrainingJobResponse:
        return pb.GetTrainingJobResponse(training_job=TrainingJob(name=request.name, creator=PRINCIPAL.get()))

    async def WatchTrainingJobs(
        self, request: pb.WatchTrainingJobsRequest, context: object
    ) -> AsyncIterator[pb.WatchTrainingJobsResponse]:
        for _ in range(2):
            yield pb.WatchTrainingJobsResponse(cursor=PRINCIPAL.get())


class Workers(TrainingWorkerServiceServicer):
    async def GetAssignment(
        self, request: worker_pb.GetAssignmentRequest, context: object
    ) -> worker_pb.GetAssignmentResponse:
        return worker_pb.GetAssignmentResponse()


class Artifacts(ArtifactServiceServicer):
    async def UploadArtifact(
        self, request_iterator: AsyncIterator[artifact_pb.UploadArtifactRequest], context: object
    ) -> artifact_pb.UploadArtifactResponse:
        async for _ in request_iterator:
            pass
        response = artifact_pb.UploadArtifactResponse()
        response.artifact.owner = PRINCIPAL.get()
        return response


class Servicers:
    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        add_TrainingServiceServicer_to_server(Jobs(), server)
        add_TrainingWorkerServiceServicer_to_server(Workers(), server)
        add_ArtifactServiceServicer_to_server(Artifacts(), server)
        return ["daf.training.v1.TrainingService"]

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def close(self) -> None: ...


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A directory as Kubernetes mounts a Secret: links into a hidden directory that is exchanged as a whole."""
    directory = tmp_path / "tokens"
    directory.mkdir()
    replace(directory, {"alice": f"{ALICE}\n", "service": SERVICE})
    return directory


def replace(directory: Path, tokens: dict[str, str]) -> None:
    """What the kubelet does when a Secret has changed."""
    version = directory / f"..{len(list(directory.iterdir()))}"
    version.mkdir()
    for principal, token in tokens.items():
        (version / principal).write_text(token)
        link = directory / principal
        if not link.is_symlink():
            link.symlink_to(Path("..data") / principal)
    (directory / "..data_tmp").symlink_to(version.name)
    (directory / "..data_tmp").replace(directory / "..data")
    for link in directory.iterdir():
        if not link.name.startswith("..") and link.name not in tokens:
            link.unlink()


Serve = Callable[..., Awaitable[str]]


@pytest.fixture
async def serve(tmp_path: Path, secret: Path) -> AsyncIterator[Serve]:
    """Starts a host that asks for tokens; returns its address."""
    hosts = []

    async def start(clock: ManualClock | None = None, **settings: Any) -> str:
        address = f"unix:{tmp_path}/{len(hosts)}.sock"
        given = {"home": tmp_path, "listen": address, "tokens": str(secret), "drain_seconds": 0, **settings}
        host = Host(Context(ServiceSettings(**given), clock=clock or ManualClock()), [Servicers()])
        hosts.append(host)
        await host.start()
        return address

    yield start
    for host in hosts:
        await host.stop()


async def ask(address: str, token: str | None, asking: str = "") -> str:
    """Who the server says that calls, or for whom; `asking` is for whom the caller says that it does."""
    async with connect(address, token=None if token is None else lambda: token) as channel:
        request = pb.GetTrainingJobRequest(name="x")
        call = TrainingServiceStub(channel).GetTrainingJob(request, metadata=on_behalf_of(asking))
        return (await raising(call)).training_job.creator


async def test_a_caller_is_who_its_token_says(serve: Serve) -> None:
    address = await serve()

    assert await ask(address, ALICE) == "alice"
    assert await ask(address, SERVICE) == "service"


async def test_without_a_token_nobody_is_served_and_the_error_says_what_to_do(serve: Serve) -> None:
    address = await serve()

    with pytest.raises(Unauthenticated, match="--token-file") as missing:
        await ask(address, None)
    with pytest.raises(Unauthenticated, match="does not know") as unknown:
        await ask(address, "guessed")

    assert (missing.value.reason, unknown.value.reason) == ("TOKEN_MISSING", "TOKEN_UNKNOWN")
    assert "guessed" not in str(unknown.value)


@pytest.fixture
def own_token(tmp_path: Path) -> Path:
    """The file with the token that services send."""
    path = tmp_path / "own"
    path.write_text(SERVICE)
    return path


async def test_services_say_for_whom_they_ask_and_nobody_else_is_believed(serve: Serve, own_token: Path) -> None:
    address = await serve(token_file=str(own_token))

    assert await ask(address, SERVICE, "bob") == "bob"
    assert await ask(address, ALICE, "bob") == "alice"
    assert await ask(address, ALICE, "service") == "alice"
    with pytest.raises(Unauthenticated):
        await ask(address, None, "alice")


@pytest.mark.parametrize("asking", ["", "bob the builder", "b" * 101, "../bob"])
async def test_for_whom_a_service_asks_is_a_principal_or_itself(serve: Serve, own_token: Path, asking: str) -> None:
    address = await serve(token_file=str(own_token))

    assert await ask(address, SERVICE, asking) == "service"


async def test_a_service_that_sends_no_token_believes_nobody(serve: Serve) -> None:
    address = await serve()

    assert await ask(address, SERVICE, "bob") == "service"


async def test_where_no_tokens_are_asked_for_nobody_is_anybody(serve: Serve) -> None:
    address = await serve(tokens="")

    assert await ask(address, None, "bob") == ""


async def test_services_are_believed_while_their_token_is_exchanged(
    serve: Serve, secret: Path, own_token: Path
) -> None:
    clock = ManualClock()
    address = await serve(clock, token_file=str(own_token))
    assert await ask(address, SERVICE, "bob") == "bob"

    replace(secret, {"alice": ALICE, "service": "service-new"})  # while this service still has its former token
    clock.advance(READ_AGAIN_SECONDS)

    assert await ask(address, "service-new", "bob") == "bob"
    assert await ask(address, ALICE, "bob") == "alice"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", f"Basic {ALICE}", ALICE, f"Bearer {ALICE}x"])
async def test_headers_that_are_no_known_bearer_token_are_refused(serve: Serve, header: str) -> None:
    address = await serve()

    async with connect(address) as channel:
        call = TrainingServiceStub(channel).GetTrainingJob(
            pb.GetTrainingJobRequest(), metadata=(("authorization", header),)
        )
        with pytest.raises(Unauthenticated):
            await raising(call)


async def test_streams_in_both_directions_carry_the_token(serve: Serve) -> None:
    address = await serve()

    async def upload() -> AsyncIterator[artifact_pb.UploadArtifactRequest]:
        yield artifact_pb.UploadArtifactRequest(chunk=b"x")

    async with connect(address, token=lambda: ALICE) as channel:
        watched = streaming(TrainingServiceStub(channel).WatchTrainingJobs(pb.WatchTrainingJobsRequest()))
        uploaded = await raising(ArtifactServiceStub(channel).UploadArtifact(upload()))
        assert [message.cursor async for message in watched] == ["alice", "alice"]
    assert uploaded.artifact.owner == "alice"

    async with connect(address) as channel:
        with pytest.raises(Unauthenticated):
            async for _ in streaming(TrainingServiceStub(channel).WatchTrainingJobs(pb.WatchTrainingJobsRequest())):
                pass
        with pytest.raises(Unauthenticated):
            await raising(ArtifactServiceStub(channel).UploadArtifact(upload()))


async def test_blocking_calls_and_streams_carry_the_token(serve: Serve) -> None:
    address = await serve()

    def call() -> tuple[str, list[str], str]:
        with connect_blocking(address, token=ALICE) as channel, blocking_errors():
            jobs, artifacts = TrainingServiceStub(channel), ArtifactServiceStub(channel)
            job = jobs.GetTrainingJob(pb.GetTrainingJobRequest(name="x")).training_job
            watched = [m.cursor for m in blocking_stream(jobs.WatchTrainingJobs(pb.WatchTrainingJobsRequest()))]
            uploaded = artifacts.UploadArtifact(iter([artifact_pb.UploadArtifactRequest(chunk=b"x")]))
            return job.creator, watched, uploaded.artifact.owner

    assert await asyncio.to_thread(call) == ("alice", ["alice", "alice"], "alice")


async def test_workers_and_probes_need_no_token(serve: Serve) -> None:
    address = await serve()

    async with connect(address) as channel:
        await raising(TrainingWorkerServiceStub(channel).GetAssignment(worker_pb.GetAssignmentRequest()))
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert health.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_rotated_token_is_good_and_the_former_one_is_not(serve: Serve, secret: Path) -> None:
    clock = ManualClock()
    address = await serve(clock)

    replace(secret, {"alice": "alice-new", "bob": "bob-token"})
    clock.advance(READ_AGAIN_SECONDS)

    assert await ask(address, "alice-new") == "alice"
    assert await ask(address, "bob-token") == "bob"
    for gone in (ALICE, SERVICE):
        with pytest.raises(Unauthenticated):
            await ask(address, gone)


async def test_what_breaks_in_a_running_service_admits_nobody_and_is_logged_without_tokens(
    serve: Serve, secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    address = await serve(clock)

    replace(secret, {"alice": "", "service": SERVICE, "twin": SERVICE})
    clock.advance(READ_AGAIN_SECONDS)

    assert await ask(address, SERVICE) == "service"
    with pytest.raises(Unauthenticated):
        await ask(address, ALICE)
    assert "alice is empty" in caplog.text
    assert "service and twin have the same token" in caplog.text
    assert SERVICE not in caplog.text

    replace(secret, {})
    clock.advance(READ_AGAIN_SECONDS)
    with pytest.raises(Unauthenticated):
        await ask(address, SERVICE)


async def test_a_service_sends_its_own_token_and_takes_the_new_one(serve: Serve, tmp_path: Path, secret: Path) -> None:
    address = await serve()
    (tmp_path / "own").write_text(f"{SERVICE}\n")
    context = Context(ServiceSettings(home=tmp_path, training_address=address, token_file=str(tmp_path / "own")))
    stub = TrainingServiceStub(context.peer("training"))

    first = await raising(stub.GetTrainingJob(pb.GetTrainingJobRequest(name="x")))
    (tmp_path / "own").write_text(ALICE)
    second = await raising(stub.GetTrainingJob(pb.GetTrainingJobRequest(name="x")))
    (tmp_path / "own").unlink()
    third = await raising(stub.GetTrainingJob(pb.GetTrainingJobRequest(name="x")))
    await context.close()

    assert [answer.training_job.creator for answer in (first, second, third)] == ["service", "alice", "alice"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "DAF_TOKEN_FILE.*cannot be read"), ("", "DAF_TOKEN_FILE.*is empty"), ("two words", "DAF_TOKEN_FILE.*line")],
)
def test_a_token_file_without_a_token_is_refused_by_name(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "own").write_text(content)
    settings = ServiceSettings(home=tmp_path, training_address="unix:/x", token_file=str(tmp_path / "own"))

    with pytest.raises(InvalidArgument, match=message) as refused:
        Context(settings).peer("training")
    assert not content or content not in str(refused.value)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (None, "DAF_TOKENS.*cannot be read"),
        ({}, "DAF_TOKENS.*holds no token"),
        ({"alice": " \n"}, "DAF_TOKENS.*alice is empty"),
        ({"alice": "one\ntwo"}, "DAF_TOKENS.*alice holds no token"),
        ({"a b": "x"}, "DAF_TOKENS.*'a b' cannot name a principal"),
        ({"alice": "x", "bob": "x"}, "DAF_TOKENS.*alice and bob have the same token"),
    ],
)
async def test_tokens_that_cannot_be_used_stop_the_start(
    serve: Serve, tmp_path: Path, tokens: dict[str, str] | None, message: str
) -> None:
    directory = tmp_path / "other"
    if tokens is not None:
        directory.mkdir()
        replace(directory, tokens)

    with pytest.raises(InvalidArgument, match=message):
        await serve(tokens=str(directory))


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "daf.example.org:0", ":0"])
async def test_a_listener_that_others_reach_needs_tokens_or_a_word(serve: Serve, listen: str) -> None:
    with pytest.raises(FailedPrecondition, match=r"DAF_TOKENS .* DAF_ALLOW_ANONYMOUS=true"):
        await serve(tokens="", listen=listen)


async def test_anonymous_callers_are_served_where_that_is_meant(serve: Serve) -> None:
    await serve(tokens="", listen="0.0.0.0:0", allow_anonymous=True)
    local = await serve(tokens="")

    assert await ask(local, None) == ""


async def test_tokens_and_anonymous_callers_exclude_each_other(serve: Serve) -> None:
    with pytest.raises(InvalidArgument, match="DAF_ALLOW_ANONYMOUS"):
        await serve(allow_anonymous=True)


async def test_no_log_holds_a_token(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    address = await serve()

    await ask(address, ALICE)
    with pytest.raises(DafError):
        await ask(address, "guessed-token")
    async with connect(address, token=lambda: SERVICE) as channel:
        with pytest.raises(DafError):
            await raising(TrainingServiceStub(channel).CancelTrainingJob(pb.CancelTrainingJobRequest()))

    assert not [secret for secret in (ALICE, SERVICE, "guessed-token") if secret in caplog.text]
