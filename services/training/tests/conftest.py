from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import grpc
import pytest

import daf_statistics.main
import daf_training.main
from daf_common.artifacts import ArtifactStore
from daf_common.channel import connect, raising, streaming
from daf_common.clock import ManualClock
from daf_common.errors import FailedPrecondition, Unavailable
from daf_common.ids import CountedIds
from daf_common.service import Context, Host
from daf_common.settings import ServiceSettings
from daf_common.workloads import Observation, State, Workload
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import PolicyClass
from daf_protos.common.v1.value_pb2 import Value
from daf_protos.statistics.v1.statistics_service_pb2 import ReadMetricsRequest
from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceStub
from daf_protos.training.v1 import training_service_pb2 as pb
from daf_protos.training.v1 import worker_service_pb2 as worker_pb
from daf_protos.training.v1.catalog_service_pb2_grpc import CatalogServiceStub
from daf_protos.training.v1.training_job_pb2 import (
    Checkpoint,
    TrainingAttempt,
    TrainingJob,
    TrainingJobState,
    TrainingSpec,
)
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
        self.on_change: Callable[[str], None] = lambda name: None
        self.missing = ""
        self.refuses = ""
        self.silent: set[str] = set()

    async def check(self) -> None:
        if self.missing:
            raise FailedPrecondition(self.missing)

    def watch(self, on_change: Callable[[str], None]) -> None:
        self.on_change = on_change

    async def start(self, workload: Workload) -> None:
        if self.refuses:
            raise FailedPrecondition(self.refuses)
        if workload.name not in self.started:
            self.started[workload.name] = workload
            self.states[workload.name] = Observation(State.RUNNING)

    async def observe(self) -> Mapping[str, Observation]:
        if not self.reachable:
            self.looked_in_vain += 1
            raise Unavailable("no route to the machines")
        await self.check()
        return dict(self.states)

    async def stop(self, name: str, grace_seconds: float) -> None:
        self.stopped.append(name)

    async def logs(self, name: str, replica: int = 0) -> bytes:
        if name in self.silent:
            raise Unavailable("no route to that machine")
        return self.printed.get(name, b"")

    async def remove(self, name: str) -> None:
        self.states.pop(name, None)

    async def close(self) -> None: ...

    def end(self, name: str, state: State, message: str = "", printed: bytes = b"") -> None:
        self.printed[name] = printed
        self.states[name] = Observation(state, message)
        self.on_change(name)

    def see(self, name: str, waiting: str, running: int = 0) -> None:
        self.states[name] = Observation(State.RUNNING, waiting=waiting, running=running)
        self.on_change(name)


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

    @staticmethod
    def spec(**changes: Any) -> TrainingSpec:
        values: dict[str, Any] = {
            "policy_class": PolicyClass(class_path="lstm"),
            "missions": [Mission(name="cogsguard_machina_1.basic", cogs=4)],
            "agent_steps": 1000,
            "trainer": {"learning_rate": Value(real=0.001)},
            "seed": 7,
        }
        return TrainingSpec(**{**values, **changes})

    async def create(self, job_id: str, **changes: Any) -> TrainingJob:
        request = pb.CreateTrainingJobRequest(job_id=job_id, spec=self.spec(**changes))
        return (await raising(self.jobs.CreateTrainingJob(request))).training_job

    async def get(self, job_id: str) -> TrainingJob:
        request = pb.GetTrainingJobRequest(name=f"trainingJobs/{job_id}")
        return (await raising(self.jobs.GetTrainingJob(request))).training_job

    async def cancel(self, job_id: str) -> TrainingJob:
        request = pb.CancelTrainingJobRequest(name=f"trainingJobs/{job_id}")
        return (await raising(self.jobs.CancelTrainingJob(request))).training_job

    async def resume(self, job_id: str, **fields: Any) -> TrainingJob:
        request = pb.ResumeTrainingJobRequest(name=f"trainingJobs/{job_id}", **fields)
        return (await raising(self.jobs.ResumeTrainingJob(request))).training_job

    async def attempts(self, job_id: str) -> list[TrainingAttempt]:
        request = pb.ListAttemptsRequest(parent=f"trainingJobs/{job_id}")
        return list((await raising(self.jobs.ListAttempts(request))).attempts)

    async def checkpoints(self, job_id: str) -> list[Checkpoint]:
        request = pb.ListCheckpointsRequest(parent=f"trainingJobs/{job_id}")
        return list((await raising(self.jobs.ListCheckpoints(request))).checkpoints)

    async def log_of(self, job_id: str, **fields: Any) -> str:
        request = pb.ReadLogsRequest(name=f"trainingJobs/{job_id}", **fields)
        return "".join([piece.text async for piece in streaming(self.jobs.ReadLogs(request))])

    async def series(self, job_id: str, metric: str) -> list[int]:
        """The steps of a metric that have a value."""
        request = ReadMetricsRequest(source=f"trainingJobs/{job_id}", metrics=[metric])
        found = (await raising(self.statistics.ReadMetrics(request))).series
        return list(found[0].steps) if found else []

    async def until(self, check: Callable[[], Awaitable[Any]], seconds: float = 60.0) -> Any:
        """Waits until something holds, as seen from outside: for longer than the reconciler may wait to try again."""
        async with asyncio.timeout(seconds):
            while not (found := await check()):
                await asyncio.sleep(0.01)
            return found

    async def until_state(self, job_id: str, state: str) -> TrainingJob:
        wanted = TrainingJobState.Value(f"TRAINING_JOB_STATE_{state}")

        async def reached() -> TrainingJob | None:
            job = await self.get(job_id)
            return job if job.state == wanted else None

        return await self.until(reached)

    async def until_waiting_for(self, job_id: str, words: str) -> TrainingJob:
        async def says_so() -> TrainingJob | None:
            job = await self.get(job_id)
            return job if words in job.waiting_for else None

        return await self.until(says_so)

    async def started(self, job_id: str, attempt: int = 1, rank: int = 0) -> worker_pb.Attempt:
        """Waits for the workload of an attempt; returns the identity of one of its workers."""
        name = f"{job_id}-a{attempt}"

        async def has_started() -> bool:
            return name in self.machines.started

        await self.until(has_started)
        environment = self.machines.started[name].environment
        return worker_pb.Attempt(
            training_job=environment["DAF_TRAINING_JOB"],
            attempt=int(environment["DAF_ATTEMPT"]),
            rank=rank,
            token=environment["DAF_TOKEN"],
        )

    async def assignment(self, attempt: worker_pb.Attempt) -> worker_pb.GetAssignmentResponse:
        return await raising(self.worker.GetAssignment(worker_pb.GetAssignmentRequest(attempt=attempt)))

    async def report(self, attempt: worker_pb.Attempt, sequence: int, **fields: Any) -> bool:
        """Reports; returns whether the worker is told to stop."""
        request = worker_pb.ReportTrainingRequest(attempt=attempt, sequence=sequence, **fields)
        return (await raising(self.worker.ReportTraining(request))).stop

    async def write(self, attempt: worker_pb.Attempt, content: bytes) -> Artifact:
        wanted = Artifact(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
        request = worker_pb.PrepareUploadRequest(attempt=attempt, artifact=wanted)
        location = (await raising(self.worker.PrepareUpload(request))).location
        if location.url:
            path = Path(unquote(urlsplit(location.url).path))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return location.artifact

    async def checkpoint(
        self, attempt: worker_pb.Attempt, update: int, reward: float | None = None, **fields: Any
    ) -> Checkpoint:
        weights = await self.write(attempt, f"weights {update}".encode())
        return Checkpoint(update=update, agent_steps=100 * update, weights=weights, reward=reward, **fields)

    async def resumable(self, attempt: worker_pb.Attempt, update: int, **fields: Any) -> Checkpoint:
        """A checkpoint with a trainer's state."""
        name = f"{attempt.training_job} {attempt.attempt} {update}"
        weights = await self.write(attempt, f"weights of {name}".encode())
        state = await self.write(attempt, f"state of {name}".encode())
        return Checkpoint(update=update, agent_steps=100 * update, weights=weights, trainer_state=state, **fields)

    async def succeed(self, attempt: worker_pb.Attempt, sequence: int = 1) -> None:
        saved = await self.checkpoint(attempt, 3)
        await self.report(attempt, sequence, checkpoints=[saved], outcome=worker_pb.TrainingOutcome())


@pytest.fixture
def machines() -> Machines:
    return Machines()


@pytest.fixture
async def stack(tmp_path: Path, database_url: str, clock: ManualClock) -> AsyncIterator[Stack]:
    stack = Stack(tmp_path, database_url, clock)
    await stack.start()
    yield stack
    await stack.stop()
