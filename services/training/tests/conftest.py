from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

import daf_statistics.main
import daf_training.main
from daf_common.artifacts import ArtifactStore
from daf_common.channel import connect
from daf_common.clock import ManualClock
from daf_common.errors import Unavailable
from daf_common.ids import CountedIds
from daf_common.service import Context, Host
from daf_common.settings import ServiceSettings
from daf_common.workloads import Observation, State, Workload
from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceStub
from daf_protos.training.v1.catalog_service_pb2_grpc import CatalogServiceStub
from daf_protos.training.v1.training_service_pb2_grpc import TrainingServiceStub
from daf_protos.training.v1.worker_service_pb2_grpc import TrainingWorkerServiceStub


class Machines:
    """A backend whose workloads are what the test makes of them; the test itself speaks for their workers."""

    def __init__(self) -> None:
        self.started: dict[str, Workload] = {}
        self.states: dict[str, Observation] = {}
        self.printed: dict[str, bytes] = {}
        self.stopped: list[str] = []
        self.reachable = True
        self.looked_in_vain = 0

    async def start(self, workload: Workload) -> None:
        if workload.name not in self.started:
            self.started[workload.name] = workload
            self.states[workload.name] = Observation(State.RUNNING)

    async def observe(self) -> Mapping[str, Observation]:
        if not self.reachable:
            self.looked_in_vain += 1
            raise Unavailable("no route to the machines")
        return dict(self.states)

    async def stop(self, name: str, grace_seconds: float) -> None:
        self.stopped.append(name)

    async def logs(self, name: str, replica: int = 0) -> bytes:
        return self.printed.get(name, b"")

    async def remove(self, name: str) -> None:
        self.states.pop(name, None)

    async def close(self) -> None: ...

    def end(self, name: str, state: State, message: str = "", printed: bytes = b"") -> None:
        self.printed[name] = printed
        self.states[name] = Observation(state, message)


class Stack:
    """The training service with the statistics service, on a unix socket, and stubs for both of its sides."""

    def __init__(self, directory: Path, database_url: str, clock: ManualClock, **settings: Any) -> None:
        self.address = f"unix:{directory}/s"
        self.settings = daf_training.main.TrainingSettings(
            home=directory,
            database_url="" if database_url.startswith("sqlite") else database_url,  # SQLite: a file a service
            listen=self.address,
            statistics_address=self.address,
            **{"training_cpus": 2, "training_memory_gib": None, "training_gpus": 0, **settings},
        )
        self.machines, self.clock = Machines(), clock
        self.artifacts = ArtifactStore(self.settings.artifacts(), "training")
        self._host: Host | None = None

    async def start(self) -> None:
        context = Context(ServiceSettings(**self.settings.model_dump()), self.clock, CountedIds())
        context.settings = self.settings
        self.training = daf_training.main.build(context, self.machines)
        self._host = Host(context, [daf_statistics.main.build(context), self.training])
        await self._host.start()
        self.channel: grpc.aio.Channel = connect(self.address)
        self.jobs = TrainingServiceStub(self.channel)
        self.worker = TrainingWorkerServiceStub(self.channel)
        self.catalog = CatalogServiceStub(self.channel)
        self.statistics = StatisticsServiceStub(self.channel)

    async def stop(self) -> None:
        assert self._host
        await self.channel.close()
        await self._host.stop()


@pytest.fixture
async def stack(tmp_path: Path, database_url: str, clock: ManualClock) -> AsyncIterator[Stack]:
    stack = Stack(tmp_path, database_url, clock)
    await stack.start()
    yield stack
    await stack.stop()
