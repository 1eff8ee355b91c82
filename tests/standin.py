"""Stand-in compute: workloads that do no work but speak the workers' real protocol.

They implement `daf_common.workloads.Backend`, so the services, their databases and all RPCs between them are the real
ones. "Training" waits and stores weights that are the hyperparameters themselves; "evaluation" computes a reward from
those weights and the episode's seed, so the result of a sweep is a function of its request alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import grpc

from daf_common.channel import connect, raising
from daf_common.errors import TRANSIENT, Aborted, DafError, Internal
from daf_common.workloads import Observation, State, Workload
from daf_protos.common.v1.artifact_pb2 import Artifact, ArtifactLocation
from daf_protos.common.v1.failure_pb2 import Failure
from daf_protos.evaluation.v1 import worker_service_pb2 as evaluation_pb
from daf_protos.evaluation.v1.worker_service_pb2_grpc import EvaluationWorkerServiceStub
from daf_protos.statistics.v1.episode_pb2 import Episode, Statistics
from daf_protos.training.v1 import worker_service_pb2 as training_pb
from daf_protos.training.v1.training_job_pb2 import Checkpoint, TrainingProgress
from daf_protos.training.v1.worker_service_pb2_grpc import TrainingWorkerServiceStub


class StandIn:
    """A backend whose workloads are tasks of this process. They end with it, as those of a lost node would."""

    def __init__(
        self, training_seconds: float = 0.05, on_end: Callable[[str, Observation], None] = lambda name, seen: None
    ) -> None:
        self._training_seconds = training_seconds
        self._on_end = on_end
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ended: dict[str, Observation] = {}
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def check(self) -> None:
        """See `Backend.check`."""

    def watch(self, on_change: Callable[[str], None]) -> None:
        """See `Backend.watch`. Who uses this one is told by other means, or not at all."""

    async def start(self, workload: Workload) -> None:
        """See `Backend.start`."""
        if workload.name in self._tasks:
            return
        task = asyncio.create_task(self._run(workload), name=workload.name)
        self._tasks[workload.name] = task
        task.add_done_callback(lambda _: self._end(workload.name, task))

    async def observe(self) -> Mapping[str, Observation]:
        """See `Backend.observe`."""
        running = Observation(State.RUNNING)
        return {name: self._ended.get(name, running) for name in self._tasks}

    async def stop(self, name: str, grace_seconds: float) -> None:
        """See `Backend.stop`."""
        if task := self._tasks.get(name):
            task.cancel()

    async def logs(self, name: str, replica: int = 0) -> bytes:
        """See `Backend.logs`."""
        return b""

    async def remove(self, name: str) -> None:
        """See `Backend.remove`."""
        self._tasks.pop(name, None)
        self._ended.pop(name, None)

    async def close(self) -> None:
        """See `Backend.close`."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))

    def _end(self, name: str, task: asyncio.Task[None]) -> None:
        failed = task.cancelled() or task.exception() is not None
        message = "cancelled" if task.cancelled() else repr(task.exception())
        self._ended[name] = Observation(State.FAILED, message) if failed else Observation(State.SUCCEEDED)
        self._on_end(name, self._ended[name])

    async def _run(self, workload: Workload) -> None:
        environment = workload.environment
        address = environment["DAF_WORKER_ADDRESS"]
        channel = self._channels.setdefault(address, connect(address))
        if workload.verb == "train":
            await _train(TrainingWorkerServiceStub(channel), environment, self._training_seconds)
        else:
            workers = (
                _evaluate(EvaluationWorkerServiceStub(channel), environment, workload.name, replica)
                for replica in range(workload.replicas)
            )
            await asyncio.gather(*workers)


async def _train(stub: TrainingWorkerServiceStub, environment: Mapping[str, str], seconds: float) -> None:
    """Trains from the checkpoint of the attempt before, if there is one, with a checkpoint after each update.

    An update takes `checkpoint_agent_steps`, or all there are to take. The weights tell the hyperparameters, and hold a
    digest of all updates: they come out the same however often training was interrupted.
    """
    attempt = training_pb.Attempt(
        training_job=environment["DAF_TRAINING_JOB"],
        attempt=int(environment["DAF_ATTEMPT"]),
        rank=0,
        token=environment["DAF_TOKEN"],
    )
    assignment = await _persist(lambda: stub.GetAssignment(training_pb.GetAssignmentRequest(attempt=attempt)))
    spec = assignment.spec
    rate = spec.trainer["learning_rate"].real or spec.trainer["learning_rate"].integer
    start = assignment.resume[0] if assignment.resume else Checkpoint()
    weights = {"learning_rate": rate, "seed": spec.seed, "updates": ""}
    if assignment.resume:
        urls = {location.artifact.sha256: location for location in assignment.downloads}
        weights = json.loads(_path(urls[start.weights.sha256]).read_text())
    update, done, sequence, stopped = start.update, start.agent_steps, 0, False
    while done < spec.agent_steps and not stopped:
        await asyncio.sleep(seconds)
        update, sequence = update + 1, sequence + 1
        done = min(done + (spec.checkpoint_agent_steps or spec.agent_steps), spec.agent_steps)
        weights["updates"] = hashlib.sha256(f"{weights['updates']} {rate} {spec.seed} {update}".encode()).hexdigest()
        artifact = await _store(stub, attempt, json.dumps(weights).encode())
        saved = Checkpoint(update=update, agent_steps=done, weights=artifact, trainer_state=artifact)
        report = training_pb.ReportTrainingRequest(
            attempt=attempt,
            sequence=sequence,
            progress=TrainingProgress(agent_steps=done, total_agent_steps=spec.agent_steps, update=update),
            checkpoints=[saved],
            resumed_update=start.update if assignment.resume and sequence == 1 else None,
        )
        if spec.checkpoint_agent_steps:
            report.metrics.add(update=update, agent_steps=done, values={"done": done})
        if done == spec.agent_steps:
            report.outcome.CopyFrom(_outcome(rate))
        stopped = (await _persist(lambda report=report: stub.ReportTraining(report))).stop
    if done < spec.agent_steps:
        outcome = training_pb.TrainingOutcome(stopped=True)
        last = training_pb.ReportTrainingRequest(attempt=attempt, sequence=sequence + 1, outcome=outcome)
        await _persist(lambda: stub.ReportTraining(last))


async def _store(stub: TrainingWorkerServiceStub, attempt: training_pb.Attempt, content: bytes) -> Artifact:
    wanted = Artifact(
        sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content), media_type="application/json"
    )
    request = training_pb.PrepareUploadRequest(attempt=attempt, artifact=wanted)
    location = (await _persist(lambda: stub.PrepareUpload(request))).location
    if location.url:
        path = _path(location)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return location.artifact


def _outcome(rate: float) -> training_pb.TrainingOutcome:
    if rate < 0:
        failure = Failure(reason="DIVERGED", message="the stand-in diverges on negative learning rates")
        return training_pb.TrainingOutcome(failure=failure)
    return training_pb.TrainingOutcome()


async def _evaluate(
    stub: EvaluationWorkerServiceStub, environment: Mapping[str, str], workload: str, replica: int
) -> None:
    worker = evaluation_pb.Worker(
        evaluation=environment["DAF_EVALUATION"], worker=f"{workload}-{replica}", token=environment["DAF_TOKEN"]
    )
    answer = await _persist(lambda: stub.LeaseShard(evaluation_pb.LeaseShardRequest(worker=worker, first=True)))
    contents = {download.artifact.sha256: _path(download) for download in answer.downloads}
    weights = [
        json.loads(contents[policy.checkpoint.weights.sha256].read_text()) if policy.HasField("checkpoint") else {}
        for policy in answer.spec.policies
    ]
    while not answer.finished:
        if answer.HasField("lease"):
            lease = answer.lease
            report = evaluation_pb.ReportShardRequest(
                worker=worker,
                shard=lease.shard,
                fence=lease.fence,
                episodes=[_play(worker.evaluation, lease.scenario, planned, weights) for planned in lease.episodes],
                done=True,
            )
            with contextlib.suppress(Aborted):
                answer = (await _persist(lambda report=report: stub.ReportShard(report))).next
                continue
        else:
            await asyncio.sleep(answer.retry_seconds)
        answer = await _persist(lambda: stub.LeaseShard(evaluation_pb.LeaseShardRequest(worker=worker)))


def _play(
    evaluation: str, scenario: int, planned: evaluation_pb.PlannedEpisode, weights: list[dict[str, float]]
) -> Episode:
    rewards = [reward(weights[policy], planned.seed) for policy in planned.seats]
    text = json.dumps([scenario, planned.index, planned.seed, list(planned.seats), [r.hex() for r in rewards]])
    return Episode(
        evaluation=evaluation,
        scenario=scenario,
        index=planned.index,
        seed=planned.seed,
        seats=planned.seats,
        rewards=rewards,
        action_timeouts=[0] * len(rewards),
        steps=10,
        max_steps=10,
        agent_statistics=[Statistics(values={"reward": r}) for r in rewards],
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )


def reward(weights: Mapping[str, float], seed: int) -> float:
    """Best at a learning rate of 0.003, with noise that depends on the seed alone."""
    noise = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4]) / 2**32
    rate = weights.get("learning_rate", 0.0)
    return noise + (3.0 - abs(math.log10(rate) - math.log10(0.003)) if rate > 0 else 0.0)


async def _persist(call: object) -> object:
    """Repeats a call until the service has answered, as workers do."""
    while True:
        try:
            return await raising(call())  # type: ignore[operator]
        except Aborted:
            raise
        except (*TRANSIENT, Internal):
            await asyncio.sleep(0.05)
        except DafError:
            raise


def _path(location: ArtifactLocation) -> Path:
    return Path(unquote(urlsplit(location.url).path))
