"""Server and channel together: whatever a caller sends, it gets a typed answer and the server lives."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from daf_common import channel, server
from daf_common.channel import blocking_errors, connect, connect_blocking, raising, streaming
from daf_common.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
    Violation,
)
from daf_common.server import create_server
from daf_common.service import Context, Host
from daf_common.settings import ServiceSettings
from daf_protos.training.v1 import training_service_pb2 as pb
from daf_protos.training.v1.training_job_pb2 import TrainingJob
from daf_protos.training.v1.training_service_pb2_grpc import (
    TrainingServiceServicer,
    TrainingServiceStub,
    add_TrainingServiceServicer_to_server,
)

SERVICE = "/daf.training.v1.TrainingService"


class Servicer(TrainingServiceServicer):
    """Raises what the name of the job says."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.peers: set[str] = set()

    async def GetTrainingJob(self, request: pb.GetTrainingJobRequest, context: Any) -> pb.GetTrainingJobResponse:
        self.called.set()
        self.peers.add(context.peer())
        match request.name:
            case "missing":
                raise NotFound("there is no job missing", metadata={"name": "missing"})
            case "wrong":
                raise InvalidArgument.of([Violation("name", "is wrong"), Violation("spec.seed", "is negative")])
            case "busy":
                raise FailedPrecondition("not now", reason="BUSY", retry_after_seconds=1.5)
            case "defect":
                raise KeyError("secret detail")
            case "cancelled":
                await context.abort(grpc.StatusCode.CANCELLED)
            case "long":
                while len(self.peers) < 3:
                    await asyncio.sleep(0.01)
            case "slow":
                await asyncio.Event().wait()
        return pb.GetTrainingJobResponse(training_job=TrainingJob(name=request.name))

    async def WatchTrainingJobs(
        self, request: pb.WatchTrainingJobsRequest, context: object
    ) -> AsyncIterator[pb.WatchTrainingJobsResponse]:
        yield pb.WatchTrainingJobsResponse(cursor="1")
        raise NotFound("gone while watching")


@dataclass
class Fixture:
    host: Host
    address: str
    channel: grpc.aio.Channel

    @property
    def stub(self) -> TrainingServiceStub:
        return TrainingServiceStub(self.channel)


class OneServicer:
    def __init__(self) -> None:
        self.servicer = Servicer()

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        add_TrainingServiceServicer_to_server(self.servicer, server)
        return ["daf.training.v1.TrainingService"]

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def close(self) -> None: ...


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Fixture]:
    address = f"unix:{tmp_path}/s.sock"
    host = Host(Context(ServiceSettings(home=tmp_path, listen=address, drain_seconds=0)), [OneServicer()])
    await host.start()
    channel = connect(address)
    yield Fixture(host, address, channel)
    await channel.close()
    await host.stop()


async def test_errors_keep_their_kind_reason_fields_and_retry_time(served: Fixture) -> None:
    with pytest.raises(NotFound, match="no job missing") as missing:
        await raising(served.stub.GetTrainingJob(pb.GetTrainingJobRequest(name="missing")))
    with pytest.raises(InvalidArgument) as wrong:
        await raising(served.stub.GetTrainingJob(pb.GetTrainingJobRequest(name="wrong")))
    with pytest.raises(FailedPrecondition) as busy:
        await raising(served.stub.GetTrainingJob(pb.GetTrainingJobRequest(name="busy")))

    assert missing.value.metadata == {"name": "missing"}
    assert [v.field for v in wrong.value.violations] == ["name", "spec.seed"]
    assert (busy.value.reason, busy.value.retry_after_seconds) == ("BUSY", 1.5)


async def test_a_defect_is_internal_and_tells_the_caller_no_detail(served: Fixture) -> None:
    with pytest.raises(Internal) as error:
        await raising(served.stub.GetTrainingJob(pb.GetTrainingJobRequest(name="defect")))
    assert "secret detail" not in str(error.value)


async def test_an_error_in_the_middle_of_a_stream_arrives_after_what_came_before(served: Fixture) -> None:
    received = []
    with pytest.raises(NotFound):
        async for message in streaming(served.stub.WatchTrainingJobs(pb.WatchTrainingJobsRequest())):
            received.append(message.cursor)
    assert received == ["1"]


async def test_random_bytes_are_refused_by_name_and_the_server_lives(served: Fixture) -> None:
    call = served.channel.unary_unary(f"{SERVICE}/GetTrainingJob")
    for _ in range(20):
        with pytest.raises(InvalidArgument, match="no message of"):
            await raising(call(b"\xff" + os.urandom(64)))
    assert (await served.stub.GetTrainingJob(pb.GetTrainingJobRequest(name="a"))).training_job.name == "a"


async def test_a_message_of_100_mb_is_refused_and_the_server_lives(served: Fixture) -> None:
    with pytest.raises(ResourceExhausted):
        await raising(served.stub.GetTrainingJob(pb.GetTrainingJobRequest(name="x" * (100 << 20))))
    assert (await served.stub.GetTrainingJob(pb.GetTrainingJobRequest(name="a"))).training_job.name == "a"


async def test_a_deadline_that_passes_is_its_own_error(served: Fixture) -> None:
    with pytest.raises(DeadlineExceeded):
        await raising(served.stub.GetTrainingJob(pb.GetTrainingJobRequest(name="slow"), timeout=0.1))


async def test_what_is_not_built_is_unimplemented(served: Fixture) -> None:
    with pytest.raises(Unimplemented):
        await raising(served.stub.ResumeTrainingJob(pb.ResumeTrainingJobRequest()))


async def test_nobody_listening_is_unavailable(tmp_path: Path) -> None:
    async with connect(f"unix:{tmp_path}/nobody.sock") as channel:
        with pytest.raises(Unavailable):
            await raising(TrainingServiceStub(channel).GetTrainingJob(pb.GetTrainingJobRequest()))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that are sent again for longer than a service takes to start."""
    options = dict(channel._OPTIONS)
    config = json.loads(options["grpc.service_config"])
    config["methodConfig"][0]["retryPolicy"] |= {"initialBackoff": "0.5s", "maxBackoff": "10s", "backoffMultiplier": 4}
    monkeypatch.setattr(channel, "_OPTIONS", tuple({**options, "grpc.service_config": json.dumps(config)}.items()))


@pytest.mark.usefixtures("patient")
async def test_calls_that_a_stopping_server_has_not_taken_up_are_served_by_the_next(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/s.sock"
    context = Context(ServiceSettings(home=tmp_path, listen=address, drain_seconds=1))

    async def call(name: str) -> str:
        answer: pb.GetTrainingJobResponse = await raising(stub.GetTrainingJob(pb.GetTrainingJobRequest(name=name)))
        return answer.training_job.name

    service = OneServicer()
    first = Host(context, [service])
    await first.start()
    async with connect(address) as channel:
        stub = TrainingServiceStub(channel)
        await call("connected")
        service.servicer.called.clear()
        names = [f"job{number}" for number in range(200)]  # the server takes up one in each turn of its loop
        calls = [asyncio.create_task(call(name)) for name in names]
        await service.servicer.called.wait()
        await first.stop()
        second = Host(context, [OneServicer()])
        await second.start()
        assert await asyncio.gather(*calls) == names
    await second.stop()


async def test_a_call_that_is_cancelled_each_time_found_no_service(served: Fixture) -> None:
    with pytest.raises(Unavailable, match="stopped before it answered"):
        await raising(served.stub.GetTrainingJob(pb.GetTrainingJobRequest(name="cancelled")))


async def test_connections_end_of_age_and_no_call_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTION_SECONDS", 0.2)
    service = OneServicer()
    host = Host(Context(ServiceSettings(home=tmp_path, listen="127.0.0.1:0", drain_seconds=0)), [service])
    await host.start()
    async with connect(f"127.0.0.1:{host.port}") as channel:
        stub = TrainingServiceStub(channel)
        long = asyncio.create_task(raising(stub.GetTrainingJob(pb.GetTrainingJobRequest(name="long"))))
        while len(service.servicer.peers) < 3:
            await raising(stub.GetTrainingJob(pb.GetTrainingJobRequest(name="a")))
        assert (await long).training_job.name == "long"
    await host.stop()


async def test_blocking_calls_raise_the_same_errors(served: Fixture) -> None:
    def call() -> None:
        with connect_blocking(served.address) as channel, blocking_errors():
            TrainingServiceStub(channel).GetTrainingJob(pb.GetTrainingJobRequest(name="missing"))

    with pytest.raises(NotFound, match="no job missing"):
        await asyncio.to_thread(call)


async def test_metrics_and_health_have_a_port_of_their_own(served: Fixture) -> None:
    await served.stub.GetTrainingJob(pb.GetTrainingJobRequest(name="a"))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.host.metrics.port}", timeout=30) as http:
        metrics = (await http.get("/metrics")).text
        health = await http.get("/healthz")
    method = 'grpc_method="GetTrainingJob",grpc_service="daf.training.v1.TrainingService",grpc_type="unary"'
    assert f'grpc_server_handled_total{{grpc_code="OK",{method}}}' in metrics
    assert health.status_code == 200


async def test_all_addresses_are_those_of_ipv6_too() -> None:
    server, port = create_server("0.0.0.0:0")  # as in a pod, which may have IPv6 alone
    await server.start()
    try:
        for host in ("127.0.0.2", *(["::1"] if socket.has_dualstack_ipv6() else [])):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
    finally:
        await server.stop(0)
