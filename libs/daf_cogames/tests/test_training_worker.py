"""The training worker in front of the real training and statistics services."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import daf_statistics.main
import daf_training.main
from daf_cogames.training import reporter as training_reporter
from daf_cogames.training import worker as training_worker
from daf_cogames.training.checkpoints import SavedCheckpoint, StoredFile
from daf_cogames.training.reporter import Reporter
from daf_cogames.transfer import upload
from daf_common.archives import pack
from daf_common.artifacts import ArtifactStore
from daf_common.channel import connect, connect_blocking, raising, streaming
from daf_common.errors import InvalidArgument
from daf_common.service import Context, Host
from daf_common.settings import ServiceSettings
from daf_common.workloads import Observation, State, Workload
from daf_protos.common.v1.artifact_pb2 import ArtifactLocation
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import PolicyCheckpoint, PolicyClass
from daf_protos.common.v1.value_pb2 import Value
from daf_protos.statistics.v1.statistics_service_pb2 import ReadMetricsRequest
from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceStub
from daf_protos.training.v1 import training_service_pb2 as pb
from daf_protos.training.v1 import worker_service_pb2 as worker_pb
from daf_protos.training.v1.training_job_pb2 import TrainingJob, TrainingJobState, TrainingSpec
from daf_protos.training.v1.training_service_pb2_grpc import TrainingServiceStub
from daf_protos.training.v1.worker_service_pb2_grpc import TrainingWorkerServiceStub

GRID_POLICY = Path(__file__).parents[3] / "examples" / "policies" / "grid_policy.py"
MISSION = Mission(name="cogsguard_machina_1.miner_tutorial", cogs=4, max_steps=20)
BATCH = 2 * 4 * 64  # environments x cogs x horizon

ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")


class Threads:
    """Workloads as threads of this process, which has imported torch already."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._tasks: dict[str, asyncio.Task[int]] = {}
        self._terminating: dict[str, threading.Event] = {}

    async def check(self) -> None: ...

    def watch(self, on_change: Callable[[str], None]) -> None: ...

    async def start(self, workload: Workload) -> None:
        if workload.name not in self._tasks:
            environment = {**workload.environment, "DAF_CACHE": str(self._cache)}
            self._terminating[workload.name] = threading.Event()
            work = asyncio.to_thread(training_worker.run, environment, self._terminating[workload.name])
            self._tasks[workload.name] = asyncio.create_task(work)

    async def observe(self) -> Mapping[str, Observation]:
        return {name: _observation(task.result() if task.done() else None) for name, task in self._tasks.items()}

    async def stop(self, name: str, grace_seconds: float) -> None:
        self._terminating[name].set()

    async def logs(self, name: str, replica: int = 0) -> bytes:
        return b""

    async def remove(self, name: str) -> None:
        self._tasks.pop(name, None)

    async def close(self) -> None:
        for terminating in self._terminating.values():
            terminating.set()


class Processes:
    """Workloads as child processes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.children: dict[str, subprocess.Popen[bytes]] = {}

    async def check(self) -> None: ...

    def watch(self, on_change: Callable[[str], None]) -> None: ...

    async def start(self, workload: Workload) -> None:
        if workload.name in self.children:
            return
        directory = self._directory / workload.name
        directory.mkdir(parents=True)
        with (directory / "log").open("wb") as log:
            self.children[workload.name] = subprocess.Popen(
                [sys.executable, "-m", "daf_cogames.runner", workload.verb],
                env={"PATH": os.environ["PATH"], "DAF_CACHE": str(self._directory / "cache"), **workload.environment},
                cwd=directory,
                stdout=log,
                stderr=log,
            )

    async def observe(self) -> Mapping[str, Observation]:
        return {name: _observation(child.poll()) for name, child in self.children.items()}

    async def stop(self, name: str, grace_seconds: float) -> None:
        self.children[name].send_signal(signal.SIGTERM)

    async def logs(self, name: str, replica: int = 0) -> bytes:
        return (self._directory / name / "log").read_bytes()

    async def remove(self, name: str) -> None: ...

    async def close(self) -> None: ...

    def kill(self) -> None:
        for child in self.children.values():
            child.kill()
            child.wait()


class Machines:
    """Workloads without workers; the test speaks for them."""

    def __init__(self) -> None:
        self.environments: dict[str, Mapping[str, str]] = {}
        self.lost = False

    async def check(self) -> None: ...

    def watch(self, on_change: Callable[[str], None]) -> None: ...

    async def start(self, workload: Workload) -> None:
        self.environments[workload.name] = workload.environment

    async def observe(self) -> Mapping[str, Observation]:
        return {name: _observation(1 if self.lost else None) for name in self.environments}

    async def stop(self, name: str, grace_seconds: float) -> None: ...

    async def logs(self, name: str, replica: int = 0) -> bytes:
        return b""

    async def remove(self, name: str) -> None: ...

    async def close(self) -> None: ...

    def attempt(self, job_id: str) -> worker_pb.Attempt:
        environment = self.environments[f"{job_id}-a1"]
        return worker_pb.Attempt(
            training_job=environment["DAF_TRAINING_JOB"], attempt=1, token=environment["DAF_TOKEN"]
        )


def _observation(code: int | None) -> Observation:
    if code is None:
        return Observation(State.RUNNING)
    return Observation(State.SUCCEEDED if code == 0 else State.FAILED, f"exit code {code}")


class Stack:
    """The services on a unix socket."""

    def __init__(self, directory: Path, backend: Threads | Processes | Machines) -> None:
        address = f"unix:{directory}/s"
        self.settings = ServiceSettings(
            home=directory, listen=address, statistics_address=address, training_address=address
        )
        self._backend = backend
        self.artifacts = ArtifactStore(self.settings.artifacts(), "deployment")
        self.directory = directory

    async def start(self) -> None:
        context = Context(self.settings)
        training = daf_training.main.build(context, self._backend)
        self._host = Host(context, [daf_statistics.main.build(context), training])
        await self._host.start()
        self.channel = connect(self.settings.listen)
        self.jobs = TrainingServiceStub(self.channel)
        self.statistics = StatisticsServiceStub(self.channel)

    async def stop(self) -> None:
        await self.channel.close()
        await self._host.stop()

    async def create(self, job_id: str, **changes: Any) -> TrainingJob:
        code = await self.artifacts.put(pack([GRID_POLICY]), "application/zip")
        arguments = {"hidden_size": Value(integer=8)}
        values: dict[str, Any] = {
            "policy_class": PolicyClass(class_path="grid_policy.GridPolicy", code=code, arguments=arguments),
            "missions": [MISSION],
            "agent_steps": 3 * BATCH,
            "environments": 2,
            "seed": 1,
            "trainer": {"learning_rate": Value(real=0.0123), "minibatch_size": Value(integer=BATCH)},
        }
        request = pb.CreateTrainingJobRequest(job_id=job_id, spec=TrainingSpec(**{**values, **changes}))
        return (await raising(self.jobs.CreateTrainingJob(request))).training_job

    async def get(self, job_id: str) -> TrainingJob:
        return (
            await raising(self.jobs.GetTrainingJob(pb.GetTrainingJobRequest(name=f"trainingJobs/{job_id}")))
        ).training_job

    async def until(self, job_id: str, *states: str) -> TrainingJob:
        numbers = [TrainingJobState.Value(f"TRAINING_JOB_STATE_{state}") for state in states]

        async def reached() -> TrainingJob | None:
            job = await self.get(job_id)
            return job if job.state in numbers else None

        return await until(reached)

    async def log(self, job_id: str) -> str:
        call = self.jobs.ReadLogs(pb.ReadLogsRequest(name=f"trainingJobs/{job_id}"))
        return "".join([piece.text async for piece in streaming(call)])


async def until(check: Callable[[], Awaitable[Any]], seconds: float = 200.0) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := await check()):
            await asyncio.sleep(0.05)
        return found


@pytest.fixture
async def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stack]:
    monkeypatch.chdir(tmp_path)  # where the worker puts its files
    stack = Stack(tmp_path, Threads(tmp_path / "cache"))
    await stack.start()
    yield stack
    await stack.stop()


async def test_a_job_trains_with_its_own_hyperparameters(stack: Stack) -> None:
    await stack.create("j", checkpoint_agent_steps=BATCH)

    job = await stack.until("j", *ENDED)

    assert job.state == TrainingJobState.TRAINING_JOB_STATE_SUCCEEDED, (job.failure, await stack.log("j"))
    # Read back from the live optimizer, not from what was asked for.
    assert job.effective_trainer["optimizer.learning_rate"].real == 0.0123
    assert job.effective_trainer["learning_rate"].real == 0.0123
    assert job.effective_trainer["batch_size"].integer == BATCH
    assert (job.progress.update, job.progress.agent_steps, job.progress.total_agent_steps) == (3, 3 * BATCH, 3 * BATCH)

    checkpoints = await raising(stack.jobs.ListCheckpoints(pb.ListCheckpointsRequest(parent=job.name)))
    assert [checkpoint.update for checkpoint in checkpoints.checkpoints] == [3, 2, 1]
    assert checkpoints.checkpoints[0] == job.checkpoint
    content = await stack.artifacts.get(job.checkpoint.weights)
    (stack.directory / "weights").write_bytes(content)
    weights = torch.load(stack.directory / "weights", weights_only=True)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())

    read = ReadMetricsRequest(source=job.name)
    series = {s.metric: s for s in (await raising(stack.statistics.ReadMetrics(read))).series}
    assert series["losses/policy_loss"].steps[-1] == 3
    assert series["learning_rate"].values[0] == 0.0123
    assert not (stack.directory / "training").exists()


async def test_a_job_starts_from_given_weights_and_a_broken_one_says_so(stack: Stack) -> None:
    broken = await stack.artifacts.put(b"no weights at all", "application/x-pytorch")
    await stack.create("j", start=PolicyCheckpoint(weights=broken))

    job = await stack.until("j", *ENDED)

    assert job.failure.reason == "WEIGHTS_INVALID"
    assert "Traceback" in await stack.log("j")


async def test_an_argument_that_the_users_class_does_not_have_fails_the_job_before_it_trains(stack: Stack) -> None:
    code = await stack.artifacts.put(pack([GRID_POLICY]), "application/zip")
    arguments = {"hiden_size": Value(integer=8)}
    policy = PolicyClass(class_path="grid_policy.GridPolicy", code=code, arguments=arguments)
    await stack.create("j", policy_class=policy)

    job = await stack.until("j", *ENDED)

    assert (job.failure.reason, job.failure.subject) == ("POLICY_INVALID", "arguments.hiden_size")
    assert "hidden_size" in job.failure.message
    assert not job.HasField("start_time")


async def test_an_unknown_hyperparameter_is_refused_before_anything_starts(stack: Stack) -> None:
    with pytest.raises(InvalidArgument, match=r"did you mean 'trainer\.learning_rate'.*known: .*trainer\.gamma"):
        await stack.create("j", trainer={"lerning_rate": Value(real=0.1)})

    assert not (await raising(stack.jobs.ListTrainingJobs(pb.ListTrainingJobsRequest()))).training_jobs


async def test_a_job_outlives_its_service_and_is_cancelled_with_a_checkpoint(tmp_path: Path) -> None:
    processes = Processes(tmp_path / "workers")
    stack = Stack(tmp_path, processes)
    await stack.start()
    try:
        await stack.create("j", agent_steps=10_000_000)
        await stack.until("j", "RUNNING")
        await stack.stop()  # while the worker goes on
        await stack.start()
        seen = (await stack.get("j")).progress.update

        async def goes_on() -> bool:
            return (await stack.get("j")).progress.update > seen

        await until(goes_on)
        await raising(stack.jobs.CancelTrainingJob(pb.CancelTrainingJobRequest(name="trainingJobs/j")))
        job = await stack.until("j", *ENDED)

        assert job.state == TrainingJobState.TRAINING_JOB_STATE_CANCELLED
        assert job.attempt == 1
        assert job.checkpoint.update >= seen
        assert await asyncio.to_thread(processes.children["j-a1"].wait, 60) == 0
    finally:
        processes.kill()
        await stack.stop()


@pytest.fixture
async def idle_stack(tmp_path: Path) -> AsyncIterator[tuple[Stack, Machines]]:
    machines = Machines()
    stack = Stack(tmp_path, machines)
    await stack.start()
    yield stack, machines
    await stack.stop()


def stored(path: Path, content: bytes) -> StoredFile:
    path.write_bytes(content)
    return StoredFile(path, hashlib.sha256(content).hexdigest(), len(content))


async def test_a_checkpoint_that_got_lost_on_its_way_is_written_again(
    idle_stack: tuple[Stack, Machines], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, machines = idle_stack
    await stack.create("j")
    await stack.until("j", "STARTING")
    uploads: list[Path] = []

    def lose_the_first(path: Path, location: ArtifactLocation) -> None:
        uploads.append(path)
        if len(uploads) > 1:
            upload(path, location)

    monkeypatch.setattr(training_reporter, "upload", lose_the_first)
    weights, state = stored(tmp_path / "weights.pt", b"weights"), stored(tmp_path / "state.pt", b"state")

    def report() -> None:
        with connect_blocking(stack.settings.listen) as channel:
            reporter = Reporter(TrainingWorkerServiceStub(channel), machines.attempt("j"), interval_seconds=0.05)
            reporter.start()
            reporter.outbox.add_checkpoint(SavedCheckpoint(weights, state, 1, 10, {"env/reward_per_agent": 2.5}))
            reporter.finish(worker_pb.TrainingOutcome())

    await until(lambda: _done("j-a1" in machines.environments))
    await asyncio.to_thread(report)

    job = await stack.get("j")
    assert job.state == TrainingJobState.TRAINING_JOB_STATE_SUCCEEDED
    assert await stack.artifacts.get(job.checkpoint.weights) == b"weights"
    assert job.checkpoint.reward == 2.5
    assert len(uploads) > 2
    assert not weights.path.exists()


async def test_a_worker_that_was_given_up_is_told_to_stop_and_its_last_words_are_kept(
    idle_stack: tuple[Stack, Machines],
) -> None:
    stack, machines = idle_stack
    await stack.create("j")
    await until(lambda: _done("j-a1" in machines.environments))
    machines.lost = True
    await stack.until("j", "FAILED")

    def report() -> None:
        with connect_blocking(stack.settings.listen) as channel:
            reporter = Reporter(TrainingWorkerServiceStub(channel), machines.attempt("j"), interval_seconds=0.05)
            reporter.outbox.add_log("still here\n")
            reporter.start()
            while not reporter.told_to_stop():
                time.sleep(0.01)
            reporter.finish(worker_pb.TrainingOutcome())

    await asyncio.wait_for(asyncio.to_thread(report), 60)

    assert (await stack.get("j")).state == TrainingJobState.TRAINING_JOB_STATE_FAILED
    assert await stack.log("j") == "still here\n"


async def _done(value: bool) -> bool:
    return value
