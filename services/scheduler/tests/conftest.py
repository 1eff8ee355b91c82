"""A scheduler between peers that are held in memory: a training, an evaluation and a statistics service over real gRPC.

The peers keep the promises that the scheduler relies on (creation by request id, watches that resume) and play no
episodes: a training run succeeds at once, and its score is a function of its learning rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from daf_common.clock import Clock, SystemClock
from daf_common.errors import AlreadyExists, InvalidArgument, NotFound
from daf_common.ids import CountedIds
from daf_common.names import EVALUATION, TRAINING_JOB
from daf_common.server import create_server
from daf_common.service import Context, Host
from daf_common.values import from_value, to_value
from daf_protos.common.v1.failure_pb2 import Failure
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import Policy, PolicyClass
from daf_protos.evaluation.v1 import evaluation_pb2, evaluation_service_pb2
from daf_protos.evaluation.v1.evaluation_service_pb2_grpc import (
    EvaluationServiceServicer,
    add_EvaluationServiceServicer_to_server,
)
from daf_protos.scheduler.v1 import sweep_pb2
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from daf_protos.statistics.v1 import comparison_service_pb2, statistics_service_pb2
from daf_protos.statistics.v1.comparison_service_pb2_grpc import (
    ComparisonServiceServicer,
    add_ComparisonServiceServicer_to_server,
)
from daf_protos.statistics.v1.statistics_service_pb2_grpc import (
    StatisticsServiceServicer,
    add_StatisticsServiceServicer_to_server,
)
from daf_protos.training.v1 import training_job_pb2, training_service_pb2
from daf_protos.training.v1.training_job_pb2 import TrainingSpec
from daf_protos.training.v1.training_service_pb2_grpc import (
    TrainingServiceServicer,
    add_TrainingServiceServicer_to_server,
)
from daf_scheduler.main import Scheduler, build
from daf_scheduler.settings import SchedulerSettings

if TYPE_CHECKING:
    from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceAsyncStub

BEST_LEARNING_RATE = 0.003


class Resources:
    """Resources of one peer: created once for a request id, stamped with revisions, watched from a cursor on."""

    def __init__(self) -> None:
        self.by_name: dict[str, Any] = {}
        self.requests: dict[str, bytes] = {}
        self.deleted: dict[str, int] = {}
        self._revision = 0
        self._changed = asyncio.Condition()

    async def create(self, request: Any, resource: Any) -> tuple[Any, bool]:
        body = request.SerializeToString(deterministic=True)
        if self.requests.setdefault(request.request_id, body) != body:
            raise AlreadyExists("another body", reason="REQUEST_ID_REUSED")
        if resource.name in self.by_name:
            return self.by_name[resource.name], False
        if resource.name in self.deleted:
            raise NotFound(resource.name)
        self.by_name[resource.name] = resource
        await self.change(resource)
        return resource, True

    def get(self, name: str) -> Any:
        if name not in self.by_name:
            raise NotFound(name)
        return self.by_name[name]

    async def change(self, resource: Any, **values: Any) -> None:
        self._revision += 1
        for field, value in values.items():
            setattr(resource, field, value)
        resource.revision = self._revision
        async with self._changed:
            self._changed.notify_all()

    async def delete(self, name: str) -> None:
        self._revision += 1
        del self.by_name[name]
        self.deleted[name] = self._revision
        async with self._changed:
            self._changed.notify_all()

    async def watch(self, cursor: str) -> AsyncIterator[tuple[list[Any], list[str], str]]:
        position = int(cursor or 0)
        while True:
            changed = [resource for resource in self.by_name.values() if resource.revision > position]
            gone = [name for name, revision in self.deleted.items() if revision > position]
            if changed or gone:
                position = self._revision
                yield changed, gone, str(position)
            async with self._changed:
                while self._revision <= position:
                    await self._changed.wait()


class MemoryTraining(TrainingServiceServicer):
    """Trains in no time, unless a test holds its jobs back, lets them fail or refuses them."""

    def __init__(self) -> None:
        self.jobs = Resources()
        self.created: list[str] = []
        self.holds: Callable[[str], bool] = lambda name: False
        self.refuses: Callable[[TrainingSpec], str | None] = lambda spec: None
        self.fails: Callable[[TrainingSpec], bool] = lambda spec: False

    async def CreateTrainingJob(self, request: Any, context: Any) -> Any:
        if message := self.refuses(request.spec):
            raise InvalidArgument.field("spec", message)
        job = training_job_pb2.TrainingJob(name=TRAINING_JOB.format(request.job_id), spec=request.spec)
        job.state = training_job_pb2.TRAINING_JOB_STATE_PENDING
        job, new = await self.jobs.create(request, job)
        if new:
            self.created.append(job.name)
        answer = training_service_pb2.CreateTrainingJobResponse(training_job=job)
        if new and not self.holds(job.name):
            await self.finish(job)
        return answer

    async def finish(self, job: training_job_pb2.TrainingJob) -> None:
        """Ends a job as its spec says."""
        if self.fails(job.spec):
            job.failure.CopyFrom(Failure(reason="DIVERGED", message="the loss is NaN"))
            await self.jobs.change(job, state=training_job_pb2.TRAINING_JOB_STATE_FAILED)
            return
        job.checkpoint.name = f"{job.name}/checkpoints/1"
        job.checkpoint.weights.sha256 = hashlib.sha256(job.spec.SerializeToString(deterministic=True)).hexdigest()
        await self.jobs.change(job, state=training_job_pb2.TRAINING_JOB_STATE_SUCCEEDED)

    async def GetTrainingJob(self, request: Any, context: Any) -> Any:
        return training_service_pb2.GetTrainingJobResponse(training_job=self.jobs.get(request.name))

    async def CancelTrainingJob(self, request: Any, context: Any) -> Any:
        job = self.jobs.get(request.name)
        if job.state == training_job_pb2.TRAINING_JOB_STATE_PENDING:
            await self.jobs.change(job, state=training_job_pb2.TRAINING_JOB_STATE_CANCELLED, cancel_requested=True)
        return training_service_pb2.CancelTrainingJobResponse(training_job=job)

    async def WatchTrainingJobs(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for jobs, deleted, cursor in self.jobs.watch(request.cursor):
            yield training_service_pb2.WatchTrainingJobsResponse(training_jobs=jobs, deleted=deleted, cursor=cursor)


class MemoryEvaluation(EvaluationServiceServicer):
    """Evaluates in no time, unless a test holds its evaluations back."""

    def __init__(self) -> None:
        self.evaluations = Resources()
        self.created: list[str] = []
        self.holds: Callable[[str], bool] = lambda name: False

    async def CreateEvaluation(self, request: Any, context: Any) -> Any:
        evaluation = evaluation_pb2.Evaluation(name=EVALUATION.format(request.evaluation_id), spec=request.spec)
        evaluation.state = evaluation_pb2.EVALUATION_STATE_PENDING
        evaluation, new = await self.evaluations.create(request, evaluation)
        if new:
            self.created.append(evaluation.name)
        answer = evaluation_service_pb2.CreateEvaluationResponse(evaluation=evaluation)
        if new and not self.holds(evaluation.name):
            await self.evaluations.change(evaluation, state=evaluation_pb2.EVALUATION_STATE_SUCCEEDED)
        return answer

    async def GetEvaluation(self, request: Any, context: Any) -> Any:
        return evaluation_service_pb2.GetEvaluationResponse(evaluation=self.evaluations.get(request.name))

    async def CancelEvaluation(self, request: Any, context: Any) -> Any:
        evaluation = self.evaluations.get(request.name)
        if evaluation.state == evaluation_pb2.EVALUATION_STATE_PENDING:
            await self.evaluations.change(evaluation, state=evaluation_pb2.EVALUATION_STATE_CANCELLED)
        return evaluation_service_pb2.CancelEvaluationResponse(evaluation=evaluation)

    async def WatchEvaluations(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for evaluations, deleted, cursor in self.evaluations.watch(request.cursor):
            yield evaluation_service_pb2.WatchEvaluationsResponse(
                evaluations=evaluations, deleted=deleted, cursor=cursor
            )


class MemoryStatistics(StatisticsServiceServicer, ComparisonServiceServicer):
    """Scores a policy by how near its learning rate is to the best, in powers of ten; one without weights by -9."""

    def __init__(self, training: MemoryTraining, evaluation: MemoryEvaluation) -> None:
        self._training, self._evaluation = training, evaluation
        self.undefined: Callable[[TrainingSpec], bool] = lambda spec: False

    async def SummarizeEvaluation(self, request: Any, context: Any) -> Any:
        evaluation = self._evaluation.evaluations.get(request.evaluation)
        if request.metric.name != "reward":
            raise InvalidArgument.field("metric.name", "unknown metric; known: reward")
        answer = statistics_service_pb2.SummarizeEvaluationResponse(episodes=evaluation.spec.episodes)
        answer.digest = hashlib.sha256(evaluation.name.encode()).hexdigest()
        for number, policy in enumerate(evaluation.spec.policies):
            mean = self._score(policy)
            summary = answer.policies.add(policy=number, episodes=evaluation.spec.episodes)
            if mean is not None:
                summary.mean, summary.standard_error = mean, 0.5
                summary.interval_low, summary.interval_high = mean - 1, mean + 1
        return answer

    async def ComparePolicies(self, request: Any, context: Any) -> Any:
        evaluation = self._evaluation.evaluations.get(request.policies[0].sources[0].evaluation)
        assert request.design.baseline == 0
        best, *baselines = (
            self._score(evaluation.spec.policies[policy.sources[0].policy]) for policy in request.policies
        )
        answer = comparison_service_pb2.ComparePoliciesResponse()
        for number, score in enumerate(baselines, start=1):
            difference = score - best
            answer.comparison.pairs.add(
                first=number,
                difference=difference,
                interval_low=difference - 1,
                interval_high=difference + 1,
                pairs=evaluation.spec.episodes,
            )
        return answer

    def _score(self, policy: Policy) -> float | None:
        if policy.WhichOneof("source") != "checkpoint":
            return -9.0
        job = self._training.jobs.get(policy.checkpoint.checkpoint.partition("/checkpoints/")[0])
        assert policy.checkpoint.weights == job.checkpoint.weights
        if self.undefined(job.spec):
            return None
        return -abs(math.log10(learning_rate(job.spec) / BEST_LEARNING_RATE))


def learning_rate(spec: TrainingSpec) -> float:
    value = from_value(spec.trainer["learning_rate"])
    assert isinstance(value, float)
    return value


class Peers:
    """The three services on one socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.training, self.evaluation = MemoryTraining(), MemoryEvaluation()
        self.statistics = MemoryStatistics(self.training, self.evaluation)
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listens."""
        self._server, _ = create_server(self.address)
        add_TrainingServiceServicer_to_server(self.training, self._server)
        add_EvaluationServiceServicer_to_server(self.evaluation, self._server)
        add_StatisticsServiceServicer_to_server(self.statistics, self._server)
        add_ComparisonServiceServicer_to_server(self.statistics, self._server)
        await self._server.start()

    async def stop(self) -> None:
        """Listens no longer; what it holds stays."""
        if self._server:
            await self._server.stop(0)


@pytest.fixture
async def peers(tmp_path: Path) -> AsyncIterator[Peers]:
    peers = Peers(f"unix:{tmp_path}/peers.sock")
    await peers.start()
    yield peers
    await peers.stop()


class Client:
    """A scheduler that serves, and the stub to call it with."""

    def __init__(self, scheduler: Scheduler, stub: SchedulerServiceAsyncStub, address: str) -> None:
        self.scheduler, self.stub, self.address = scheduler, stub, address


StartScheduler = Callable[..., contextlib.AbstractAsyncContextManager[Client]]


@pytest.fixture
def start_scheduler(tmp_path: Path, database_url: str, peers: Peers) -> StartScheduler:
    """Serves a scheduler on the test's database: `async with start_scheduler() as client`."""

    @contextlib.asynccontextmanager
    async def start(replica: str = "a", clock: Clock | None = None, **settings: Any) -> AsyncIterator[Client]:
        address = f"unix:{tmp_path}/scheduler-{replica}.sock"
        Path(address.removeprefix("unix:")).unlink(missing_ok=True)
        configured = SchedulerSettings(
            home=tmp_path,
            database_url=database_url,
            listen=address,
            scheduler_address=address,
            training_address=peers.address,
            evaluation_address=peers.address,
            statistics_address=peers.address,
            replica=replica,
            drain_seconds=0.1,
            **settings,
        )
        context = Context(configured, clock or SystemClock(), CountedIds())
        scheduler = build(context)
        host = Host(context, [scheduler])
        await host.start()
        try:
            yield Client(scheduler, SchedulerServiceStub(context.peer("scheduler")), address)
        finally:
            await host.stop()

    return start


@pytest.fixture
async def client(start_scheduler: StartScheduler) -> AsyncIterator[Client]:
    async with start_scheduler() as client:
        yield client


@pytest.fixture
def sweep_spec() -> sweep_pb2.SweepSpec:
    """A grid over four learning rates, two trials at a time, with a held-out set and a baseline."""
    spec = sweep_pb2.SweepSpec(
        training=TrainingSpec(
            policy_class=PolicyClass(class_path="lstm"),
            missions=[Mission(name="cogsguard_machina_1.miner_tutorial", cogs=4, max_steps=100)],
            agent_steps=1000,
            seed=42,
        ),
        search=sweep_pb2.Search(grid=sweep_pb2.GridSearch()),
        objective=sweep_pb2.Objective(metric="reward", direction=sweep_pb2.DIRECTION_MAXIMIZE),
        evaluation=sweep_pb2.EvaluationPlan(episodes=20, seed=1000),
        held_out=sweep_pb2.EvaluationPlan(episodes=30, seed=5000),
        baselines=[Policy(label="random", policy_class=PolicyClass(class_path="random"))],
        max_parallel_trials=2,
        seed=7,
    )
    rates = [to_value(rate) for rate in (0.0001, 0.001, 0.002, 0.01)]
    spec.space["trainer.learning_rate"].choices.values.extend(rates)
    return spec


Ended = Callable[..., Awaitable[sweep_pb2.Sweep]]


@pytest.fixture
def ended() -> Ended:
    """Waits, by a watch, until a sweep has ended: `sweep = await ended(client, name)`."""
    terminal = (sweep_pb2.SWEEP_STATE_SUCCEEDED, sweep_pb2.SWEEP_STATE_FAILED, sweep_pb2.SWEEP_STATE_CANCELLED)
    from daf_protos.scheduler.v1.scheduler_service_pb2 import WatchSweepsRequest

    async def wait(client: Client, name: str, seconds: float = 120) -> sweep_pb2.Sweep:
        async with asyncio.timeout(seconds):
            async for change in client.stub.WatchSweeps(WatchSweepsRequest(name=name)):
                for sweep in change.sweeps:
                    if sweep.state in terminal:
                        return sweep
        raise AssertionError("the watch ended")

    return wait
