"""The client and a server with a certificate: what works, and what a person reads where it does not."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from daf.client import Client, is_serving
from daf.contexts import add_context, use_context
from daf.diagnosis import why_unreachable
from daf.endpoint import Endpoint
from daf_common.errors import Unauthenticated, Unavailable
from daf_common.status import to_status
from daf_protos.deployment.v1 import artifact_service_pb2 as artifact_api
from daf_protos.deployment.v1 import artifact_service_pb2_grpc
from daf_protos.scheduler.v1 import scheduler_service_pb2 as api
from daf_protos.scheduler.v1 import scheduler_service_pb2_grpc

TOKEN = "a-token-that-nobody-may-see"


class Scheduler(scheduler_service_pb2_grpc.SchedulerServiceServicer):
    def ListSweeps(self, request: api.ListSweepsRequest, context: grpc.ServicerContext) -> api.ListSweepsResponse:
        return api.ListSweepsResponse()

    def WatchSweeps(
        self, request: api.WatchSweepsRequest, context: grpc.ServicerContext
    ) -> Iterator[api.WatchSweepsResponse]:
        yield api.WatchSweepsResponse(cursor="1")


class Artifacts(artifact_service_pb2_grpc.ArtifactServiceServicer):
    def UploadArtifact(
        self, request_iterator: Iterator[Any], context: grpc.ServicerContext
    ) -> artifact_api.UploadArtifactResponse:
        for _ in request_iterator:
            pass
        return artifact_api.UploadArtifactResponse()


class Gate(grpc.ServerInterceptor):
    """Lets through whoever has the token, as the services do; probes need none."""

    def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        handler = continuation(details)
        if ("authorization", f"Bearer {TOKEN}") in details.invocation_metadata or "Health" in details.method:
            return handler

        def refuse(_: Any, context: grpc.ServicerContext) -> Any:
            context.abort_with_status(rpc_status.to_status(to_status(Unauthenticated("give a token"))))

        kinds = {(False, False): "unary_unary", (False, True): "unary_stream", (True, False): "stream_unary"}
        kind = kinds[handler.request_streaming, handler.response_streaming]
        return getattr(grpc, f"{kind}_rpc_method_handler")(refuse)


@dataclass
class Installations:
    """Servers with certificates, made as they are asked for."""

    authority: trustme.CA = field(default_factory=trustme.CA)
    servers: list[grpc.Server] = field(default_factory=list)

    @property
    def ca(self) -> str:
        return self.authority.cert_pem.bytes().decode()

    def serve(self, certificate: trustme.LeafCert | None) -> int:
        """A server with a certificate, or without encryption; returns its port."""
        server = grpc.server(futures.ThreadPoolExecutor(4), interceptors=[Gate()])
        scheduler_service_pb2_grpc.add_SchedulerServiceServicer_to_server(Scheduler(), server)
        artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server(Artifacts(), server)
        checks = health.HealthServicer()
        checks.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        if certificate is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
            port = server.add_secure_port(
                "127.0.0.1:0", grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
            )
        server.start()
        self.servers.append(server)
        return port


@pytest.fixture
def installations() -> Iterator[Installations]:
    made = Installations()
    yield made
    for server in made.servers:
        server.stop(None).wait()


def list_sweeps(endpoint: Endpoint) -> api.ListSweepsResponse:
    with Client(endpoint) as client:
        answer: api.ListSweepsResponse = client.scheduler.ListSweeps(api.ListSweepsRequest())
        return answer


def test_all_kinds_of_calls_are_encrypted_and_carry_the_token(installations: Installations) -> None:
    port = installations.serve(installations.authority.issue_cert("127.0.0.1"))
    endpoint = Endpoint(f"127.0.0.1:{port}", TOKEN, installations.ca)

    assert is_serving(endpoint)
    list_sweeps(endpoint)
    with Client(endpoint) as client:
        watched = list(client.scheduler.WatchSweeps(api.WatchSweepsRequest()))
        client.artifacts.UploadArtifact(iter([artifact_api.UploadArtifactRequest(chunk=b"x" * (1 << 20))] * 8))
    assert [message.cursor for message in watched] == ["1"]


def test_without_its_token_nothing_but_the_probe_is_served(installations: Installations) -> None:
    port = installations.serve(installations.authority.issue_cert("127.0.0.1"))
    endpoint = Endpoint(f"127.0.0.1:{port}", ca=installations.ca)

    assert is_serving(endpoint)
    with Client(endpoint) as client:
        for call in (
            lambda: client.scheduler.ListSweeps(api.ListSweepsRequest()),
            lambda: list(client.scheduler.WatchSweeps(api.WatchSweepsRequest())),
            lambda: client.artifacts.UploadArtifact(iter([artifact_api.UploadArtifactRequest()])),
        ):
            with pytest.raises(Unauthenticated):
                call()


def test_a_certificate_for_another_name_is_good_where_that_name_is_given(installations: Installations) -> None:
    port = installations.serve(installations.authority.issue_cert("daf.example.org"))
    forwarded = Endpoint(f"127.0.0.1:{port}", TOKEN, installations.ca, server_name="daf.example.org")

    list_sweeps(forwarded)
    with pytest.raises(Unavailable):
        list_sweeps(Endpoint(f"127.0.0.1:{port}", TOKEN, installations.ca))


def test_an_authority_that_replaces_another_is_trusted_beside_it(installations: Installations) -> None:
    port = installations.serve(installations.authority.issue_cert("127.0.0.1"))
    both = trustme.CA().cert_pem.bytes().decode() + installations.ca

    list_sweeps(Endpoint(f"127.0.0.1:{port}", TOKEN, both))


@dataclass
class Case:
    certificate: Callable[[trustme.CA], trustme.LeafCert | None]
    says: str
    encrypted: bool = True
    trusts: bool = True


YEAR = datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)
CASES = {
    "expired": Case(
        lambda ca: ca.issue_cert("127.0.0.1", not_before=YEAR[0], not_after=YEAR[1]), "certificate.*has expired"
    ),
    "other name": Case(
        lambda ca: ca.issue_cert("daf.example.org", "localhost"),
        r"is for daf\.example\.org, localhost, not for 127\.0\.0\.1: .*--server-name",
    ),
    "other authority": Case(
        lambda _: trustme.CA().issue_cert("127.0.0.1"), "not signed by what --ca .* gave: .*--ca FILE"
    ),
    "no authority": Case(
        lambda ca: ca.issue_cert("127.0.0.1"), "not signed by a public authority: .*--ca", trusts=False
    ),
    "not encrypted": Case(lambda _: None, "is not encrypted: .* its address is http://127.0.0.1"),
    "encrypted": Case(lambda ca: ca.issue_cert("127.0.0.1"), "its address is https://127.0.0.1", encrypted=False),
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_a_connection_that_fails_says_which_part_of_it_is_wrong(
    case: Case, installations: Installations, daf: Callable[..., Any], home: Path
) -> None:
    port = installations.serve(case.certificate(installations.authority))
    ca = installations.ca if case.trusts and case.encrypted else ""
    endpoint = Endpoint(f"{'https' if case.encrypted else 'http'}://127.0.0.1:{port}", TOKEN, ca)
    add_context("cluster", endpoint)
    use_context("cluster")

    with pytest.raises(Unavailable):
        list_sweeps(endpoint)
    command, status = daf("sweep", "list"), daf("status")

    for outcome, text in ((command, command.err), (status, status.out)):
        assert outcome.code == Unavailable.exit_code
        assert re.search(case.says, text), text
    assert TOKEN not in command.err + status.out


def test_what_is_no_installation_is_said_to_be_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")
                connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        plain = why_unreachable(Endpoint(f"http://127.0.0.1:{port}"))
        encrypted = why_unreachable(Endpoint(f"127.0.0.1:{port}"))
        thread.join()

    assert "does not speak gRPC" in plain
    assert "is not encrypted" in encrypted


def test_where_nothing_is_the_address_is_in_doubt() -> None:
    with socket.socket() as deaf:  # the port is taken, and nobody listens
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]
        assert "Connection refused; is the address right?" in why_unreachable(Endpoint(f"127.0.0.1:{port}"))
    assert "knows no host nowhere.invalid" in why_unreachable(Endpoint("nowhere.invalid:443"))
    assert why_unreachable(Endpoint("unix:/nowhere.sock")) == "nothing answers at unix:/nowhere.sock"


def test_a_token_that_is_not_known_is_said_by_status_check_and_every_command(
    installations: Installations, daf: Callable[..., Any], home: Path
) -> None:
    port = installations.serve(installations.authority.issue_cert("127.0.0.1"))
    add_context("cluster", Endpoint(f"127.0.0.1:{port}", "another-token", installations.ca))
    use_context("cluster")

    command, status, check = daf("sweep", "list"), daf("status", "--json"), daf("check", "--json")

    assert (command.code, command.err) == (Unauthenticated.exit_code, "daf: give a token\n")
    assert (status.code, status.json()["state"], status.json()["problem"]) == (10, "running", "give a token")
    assert {"name": "services", "passed": False, "message": "give a token", "warning": False} in check.json()["checks"]
    assert "another-token" not in command.err + status.out + check.out
