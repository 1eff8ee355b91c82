"""The gateway that the chart configures: a real nginx before a real stack, with the chart's own certificate."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from google.protobuf.descriptor import ServiceDescriptor

from daf.client import Client, is_serving
from daf.endpoint import Endpoint
from daf.resources import Resources
from daf_common.errors import InvalidArgument, Unauthenticated, Unavailable
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.deployment.v1 import artifact_service_pb2, deployment_service_pb2
from daf_protos.evaluation.v1 import evaluation_service_pb2
from daf_protos.evaluation.v1 import worker_service_pb2 as evaluation_worker_pb2
from daf_protos.scheduler.v1 import scheduler_service_pb2
from daf_protos.scheduler.v1.sweep_pb2 import SWEEP_STATE_SUCCEEDED
from daf_protos.statistics.v1 import comparison_service_pb2, scoring_service_pb2, statistics_service_pb2
from daf_protos.training.v1 import catalog_service_pb2, training_service_pb2
from daf_protos.training.v1 import worker_service_pb2 as training_worker_pb2
from tests.chart.gateway import DOMAIN, Gateway, running_gateway
from tests.chart.rendering import SERVICES, SINGLE_NODE, Values, render
from tests.ports import free_port
from tests.requests import TERMINAL, sweep_request

pytestmark = pytest.mark.chart

TOKEN = "a-token-for-tests"
FILES = (
    artifact_service_pb2,
    catalog_service_pb2,
    comparison_service_pb2,
    deployment_service_pb2,
    evaluation_service_pb2,
    evaluation_worker_pb2,
    scheduler_service_pb2,
    scoring_service_pb2,
    statistics_service_pb2,
    training_service_pb2,
    training_worker_pb2,
)
CONTRACTS = [service for file in FILES for service in file.DESCRIPTOR.services_by_name.values()]


class Stack:
    """All services in a process of their own, on one port, which ask for a token."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        tokens = directory / "tokens"
        tokens.mkdir(parents=True)
        (tokens / "service").write_text(TOKEN)
        self._environment = {
            **os.environ,
            "DAF_HOME": str(directory / "home"),
            "DAF_LISTEN": f"0.0.0.0:{self.port}",
            "DAF_TOKENS": str(tokens),
            "DAF_TOKEN_FILE": str(tokens / "service"),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and waits until it serves."""
        self._process = subprocess.Popen([sys.executable, "-m", "tests.standin_stack"], env=self._environment)
        while not is_serving(f"http://127.0.0.1:{self.port}"):
            assert self._process.poll() is None, "the stack ended"
            time.sleep(0.05)

    def kill(self) -> None:
        """Ends it at once."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@contextmanager
def gateway_before(
    stack: Stack, directory: Path, values: Values | None = None, calls_of_a_connection: int | None = None
) -> Iterator[Gateway]:
    rendered = render(values)
    if calls_of_a_connection is not None:
        data = rendered.one("ConfigMap", "daf-gateway")["data"]
        limited = f"keepalive_requests {calls_of_a_connection};"
        data["nginx.conf"], found = re.subn(r"keepalive_requests \d+;", limited, data["nginx.conf"])
        assert found == 1
    with running_gateway(rendered, directory, stack.port) as gateway:
        for service in rendered.of("Service"):
            gateway.names.addresses[f"{service}.{DOMAIN}"] = "127.0.0.1"
        yield gateway


def client_of(gateway: Gateway, token: str = TOKEN) -> Client:
    return Client(Endpoint(f"https://localhost:{gateway.port}", token=token, ca=gateway.ca))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack"))
    stack.start()
    yield stack
    stack.kill()


@pytest.fixture(scope="module")
def gateway(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway_before(stack, tmp_path_factory.mktemp("gateway") / "nginx") as gateway:
        yield gateway


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    with client_of(gateway) as client:
        yield client


def upload(client: Client, content: bytes) -> Artifact:
    """Stores content that is sent in chunks."""
    sha256 = hashlib.sha256(content).hexdigest()
    announced = Artifact(sha256=sha256, size_bytes=len(content), media_type="application/octet-stream")
    chunks = (content[start : start + (1 << 18)] for start in range(0, len(content), 1 << 18))
    requests = [{"artifact": announced}, *({"chunk": chunk} for chunk in chunks)]
    return client.artifacts.UploadArtifact(
        artifact_service_pb2.UploadArtifactRequest(**request) for request in requests
    ).artifact


def code_of(gateway: Gateway, method: str) -> grpc.StatusCode:
    """What an empty call without a token ends with."""
    credentials = grpc.ssl_channel_credentials(gateway.ca.encode())
    with grpc.secure_channel(f"localhost:{gateway.port}", credentials) as channel:
        with pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary(method)(b"", timeout=30)
        return raised.value.code()


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)
def test_all_calls_pass_but_those_of_workers(gateway: Gateway, contract: ServiceDescriptor) -> None:
    code = code_of(gateway, f"/{contract.full_name}/{contract.methods[0].name}")

    of_workers = contract.name.endswith("WorkerService")
    assert code is (grpc.StatusCode.UNIMPLEMENTED if of_workers else grpc.StatusCode.UNAUTHENTICATED)


def test_each_service_is_looked_up_under_its_own_name(stack: Stack, tmp_path: Path) -> None:
    with gateway_before(stack, tmp_path / "nginx") as gateway:
        asked: dict[str, set[str]] = {}
        for contract in CONTRACTS:
            gateway.names.asked.clear()
            code_of(gateway, f"/{contract.full_name}/{contract.methods[0].name}")
            asked.setdefault(contract.full_name.split(".")[1], set()).update(gateway.names.asked)

    assert asked == {service: {f"daf-{service}.{DOMAIN}"} for service in SERVICES}


@pytest.mark.parametrize("method", ["/", "/daf.scheduler.v1", "/nothing.v1.Service/Call", "/daf.other.v1.Service/Call"])
def test_what_nobody_serves_is_not_implemented(gateway: Gateway, method: str) -> None:
    assert code_of(gateway, method) is grpc.StatusCode.UNIMPLEMENTED


def test_it_says_that_it_serves(gateway: Gateway) -> None:
    assert is_serving(Endpoint(f"https://localhost:{gateway.port}", ca=gateway.ca), timeout_seconds=30)
    assert httpx.get(f"http://127.0.0.1:{gateway.health_port}/healthz").text == "ok\n"


def test_errors_keep_their_details(client: Client) -> None:
    with pytest.raises(InvalidArgument) as raised:
        client.scheduler.CreateSweep(scheduler_service_pb2.CreateSweepRequest(sweep_id="empty"))

    assert "spec.training.missions" in {violation.field for violation in raised.value.violations}


def test_a_token_is_needed_and_passed_on(gateway: Gateway) -> None:
    with client_of(gateway, token="another-token") as client, pytest.raises(Unauthenticated) as raised:
        client.scheduler.ListSweeps(scheduler_service_pb2.ListSweepsRequest())

    assert raised.value.reason == "TOKEN_UNKNOWN"
    assert TOKEN not in (gateway.directory / "calls.log").read_text()


def test_a_sweep_is_watched_to_its_end(client: Client) -> None:
    created = client.scheduler.CreateSweep(sweep_request("through", 2, parallel=1)).sweep

    request = scheduler_service_pb2.WatchSweepsRequest(name=created.name)
    states = (sweep.state for changes in client.scheduler.WatchSweeps(request) for sweep in changes.sweeps)

    assert next(state for state in states if state in TERMINAL) == SWEEP_STATE_SUCCEEDED


def test_large_uploads_and_downloads_pass_in_chunks(client: Client) -> None:
    content = os.urandom(8 << 20)

    uploaded = upload(client, content)
    request = artifact_service_pb2.DownloadArtifactRequest(artifact=uploaded)
    downloaded = b"".join(answer.chunk for answer in client.artifacts.DownloadArtifact(request))

    assert uploaded.sha256 == hashlib.sha256(content).hexdigest()
    assert downloaded == content


def test_connections_that_are_given_up_cost_no_call_and_no_stream(stack: Stack, tmp_path: Path) -> None:
    request = scheduler_service_pb2.ListSweepsRequest()
    with (
        gateway_before(stack, tmp_path / "nginx", calls_of_a_connection=20) as gateway,
        client_of(gateway) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        before = client.scheduler.CreateSweep(sweep_request("before-the-end", 1, parallel=1)).sweep
        watch = iter(client.scheduler.WatchSweeps(scheduler_service_pb2.WatchSweepsRequest()))
        names = {sweep.name for sweep in next(watch).sweeps}
        uploads = pool.map(lambda number: Resources(client).requirements(os.urandom(1 << 20)), range(40))
        calls = pool.map(lambda number: client.scheduler.ListSweeps(request), range(800))

        assert len(list(uploads)) == 40
        assert all(before.name in {sweep.name for sweep in answer.sweeps} for answer in calls)
        created = client.scheduler.CreateSweep(sweep_request("after-the-end", 1, parallel=1)).sweep
        while created.name not in names:
            names |= {sweep.name for sweep in next(watch).sweeps}


def test_a_service_that_is_down_is_unavailable_and_found_again(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    stack.start()
    request = scheduler_service_pb2.ListSweepsRequest()
    with gateway_before(stack, tmp_path / "nginx") as gateway, client_of(gateway) as client:
        client.scheduler.ListSweeps(request)
        watch = iter(client.scheduler.WatchSweeps(scheduler_service_pb2.WatchSweepsRequest()))
        next(watch)

        stack.kill()

        with pytest.raises(Unavailable):  # nginx resets the stream; see daf_common.status
            next(watch)
        assert code_of(gateway, "/daf.scheduler.v1.SchedulerService/ListSweeps") is grpc.StatusCode.UNAVAILABLE
        stack.start()
        client.scheduler.ListSweeps(request)
        stack.kill()


def test_a_service_is_found_under_its_new_address(stack: Stack, tmp_path: Path) -> None:
    name = f"daf-scheduler.{DOMAIN}"
    request = scheduler_service_pb2.ListSweepsRequest()
    with gateway_before(stack, tmp_path / "nginx") as gateway, client_of(gateway) as client:
        gateway.names.addresses[name] = "127.0.0.3"
        client.scheduler.ListSweeps(request)
        del gateway.names.addresses[name]  # the Service is deleted, and made again with another address
        while code_of(gateway, "/daf.scheduler.v1.SchedulerService/ListSweeps") is not grpc.StatusCode.UNAVAILABLE:
            pass
        gateway.names.addresses[name] = "127.0.0.4"
        client.scheduler.ListSweeps(request)


def test_a_renewed_certificate_is_used_without_a_restart(stack: Stack, tmp_path: Path) -> None:
    with gateway_before(stack, tmp_path / "nginx") as gateway:
        assert is_serving(Endpoint(f"https://localhost:{gateway.port}", ca=gateway.ca), timeout_seconds=30)
        before = gateway.ca
        gateway.write_certificate(render())

        assert before != gateway.ca
        assert is_serving(Endpoint(f"https://localhost:{gateway.port}", ca=gateway.ca), timeout_seconds=30)
        assert not is_serving(Endpoint(f"https://localhost:{gateway.port}", ca=before))


def test_the_certificate_is_valid_for_given_hosts(stack: Stack, tmp_path: Path) -> None:
    hosts = ["daf.example.com", "127.0.0.1"]
    with gateway_before(stack, tmp_path / "nginx", {"gateway": {"hosts": hosts}}) as gateway:
        by_name = Endpoint(f"https://127.0.0.1:{gateway.port}", ca=gateway.ca, server_name="daf.example.com")
        other = Endpoint(f"https://127.0.0.1:{gateway.port}", ca=gateway.ca, server_name="other.example.com")

        assert is_serving(by_name, timeout_seconds=30)
        assert is_serving(Endpoint(f"https://127.0.0.1:{gateway.port}", ca=gateway.ca), timeout_seconds=30)
        assert not is_serving(other)


@pytest.mark.parametrize("values", [{"gateway": {"tls": {"enabled": False}}}, SINGLE_NODE])
def test_plain_text_and_a_single_node_have_the_same_gateway(stack: Stack, tmp_path: Path, values: Values) -> None:
    with gateway_before(stack, tmp_path / "nginx", values) as gateway:
        scheme = "https" if "singleNode" in values else "http"
        ca = gateway.ca if scheme == "https" else ""
        with Client(Endpoint(f"{scheme}://localhost:{gateway.port}", token=TOKEN, ca=ca)) as client:
            client.scheduler.ListSweeps(scheduler_service_pb2.ListSweepsRequest())

        expected = f"daf-{'standalone' if 'singleNode' in values else 'scheduler'}.{DOMAIN}"
        assert gateway.names.asked == {expected}


@pytest.mark.parametrize("addresses", ["", "00000000000000000000000000000001 01 80 10 80 lo\n"], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("encrypted", [True, False])
def test_a_pod_finds_out_where_names_are_looked_up_and_whether_it_has_ipv6(
    tmp_path: Path, addresses: str, encrypted: bool
) -> None:
    rendered = render({"gateway": {"tls": {"enabled": encrypted}}})
    (resolver,) = rendered.one("Deployment", "daf-gateway")["spec"]["template"]["spec"]["initContainers"]
    program = resolver["args"][0].replace("/run/daf", str(tmp_path)).replace("/proc/net/if_inet6", f"{tmp_path}/ipv6")
    (tmp_path / "resolv.conf").write_text(
        f"search {DOMAIN} svc.cluster.local\nnameserver fd00::a\nnameserver 10.0.0.1\n"
    )
    if addresses:
        (tmp_path / "ipv6").write_text(addresses)
    subprocess.run([*resolver["command"], program, str(tmp_path / "resolv.conf")], check=True)

    found = (tmp_path / "resolver.conf").read_text()
    assert found == f"resolver [fd00::a] valid=5s;\nmap $host $domain {{ default {DOMAIN}; }}\n"
    listens = {name: path.read_text() for name in ("calls", "health") if (path := tmp_path / f"{name}.conf").exists()}
    configuration = rendered.one("ConfigMap", "daf-gateway")["data"]["nginx.conf"]
    of_ipv4 = re.findall(r"listen (8.+;)", configuration)
    assert listens == (
        {name: f"listen [::]:{listen}\n" for name, listen in zip(("calls", "health"), of_ipv4, strict=True)}
        if addresses
        else {}
    )
