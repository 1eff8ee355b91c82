"""An evaluation service with a statistics service beside it, on one unix socket; workloads only noted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import daf_statistics.main
from daf_common.clock import ManualClock
from daf_common.errors import FailedPrecondition, Unavailable
from daf_common.ids import CountedIds
from daf_common.service import Context, Host
from daf_common.settings import ServiceSettings
from daf_common.workloads import Observation, State, Workload
from daf_evaluation.main import Evaluations, build
from daf_protos.evaluation.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from daf_protos.evaluation.v1.worker_service_pb2_grpc import EvaluationWorkerServiceStub
from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceStub

if TYPE_CHECKING:
    from daf_protos.evaluation.v1.evaluation_service_pb2_grpc import EvaluationServiceAsyncStub
    from daf_protos.evaluation.v1.worker_service_pb2_grpc import EvaluationWorkerServiceAsyncStub
    from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceAsyncStub


@dataclass
class NotedBackend:
    """A `daf_common.workloads.Backend` that only notes what is asked of it: tests say what becomes of workloads."""

    started: dict[str, Workload] = field(default_factory=dict)
    states: dict[str, Observation] = field(default_factory=dict)
    printed: dict[tuple[str, int], bytes] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    reachable: bool = True
    missing: str = ""
    looks: int = 0
    on_change: Callable[[str], None] = lambda name: None

    async def check(self) -> None:
        if self.missing:
            raise FailedPrecondition(self.missing)

    def watch(self, on_change: Callable[[str], None]) -> None:
        self.on_change = on_change

    async def start(self, workload: Workload) -> None:
        await self.check()
        if workload.name not in self.started:
            self.started[workload.name] = workload
            self.states[workload.name] = Observation(State.RUNNING)

    async def observe(self) -> dict[str, Observation]:
        self.looks += 1
        if not self.reachable:
            raise Unavailable("the backend is away")
        await self.check()
        return dict(self.states)

    async def stop(self, name: str, grace_seconds: float) -> None:
        self.stopped.append(name)
        self.end(name, Observation(State.FAILED, "ended by SIGTERM"))

    async def logs(self, name: str, replica: int = 0) -> bytes:
        return self.printed.get((name, replica), b"")

    async def remove(self, name: str) -> None:
        self.states.pop(name, None)
        for key in [key for key in self.printed if key[0] == name]:
            del self.printed[key]

    async def close(self) -> None: ...

    def end(self, name: str, observation: Observation) -> None:
        """All processes of a workload end."""
        self.states[name] = observation


@dataclass
class Stack:
    """Both services, and how to call them."""

    context: Context
    backend: NotedBackend
    service: Evaluations
    evaluations: EvaluationServiceAsyncStub
    workers: EvaluationWorkerServiceAsyncStub
    statistics: StatisticsServiceAsyncStub

    def environment(self, id: str, attempt: int = 1) -> dict[str, str]:
        """What the workers of an evaluation were given."""
        return dict(self.backend.started[f"{id}-w{attempt}"].environment)


@pytest.fixture
async def stack(
    database_url: str, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stack]:
    monkeypatch.setenv("DAF_EVALUATION_WORKERS", "2")
    monkeypatch.setenv("DAF_EVALUATION_SLOTS", "3")
    monkeypatch.setenv("DAF_EVALUATION_ATTEMPTS", "2")
    address = f"unix:{tmp_path}/daf.sock"
    settings = ServiceSettings(
        home=tmp_path,
        database_url="" if database_url.startswith("sqlite") else database_url,  # SQLite: a file a service
        listen=address,
        evaluation_address=address,
        statistics_address=address,
        drain_seconds=0.2,
    )
    context = Context(settings, clock, CountedIds())
    backend = NotedBackend()
    service = build(context, backend)
    host = Host(context, [daf_statistics.main.build(context), service])
    await host.start()
    yield Stack(
        context,
        backend,
        service,
        EvaluationServiceStub(context.peer("evaluation")),
        EvaluationWorkerServiceStub(context.peer("evaluation")),
        StatisticsServiceStub(context.peer("statistics")),
    )
    await host.stop()
