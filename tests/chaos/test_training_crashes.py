"""kill -9 at each commit of a training job's life: it ends as if nothing had happened, and nothing is there twice."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from daf_protos.common.v1.policy_pb2 import PolicyClass
from daf_protos.common.v1.value_pb2 import Value
from daf_protos.statistics.v1.statistics_service_pb2 import ReadMetricsRequest
from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceStub
from daf_protos.training.v1 import training_service_pb2 as pb
from daf_protos.training.v1.training_job_pb2 import TrainingAttempt, TrainingJob, TrainingJobState, TrainingSpec
from daf_protos.training.v1.training_service_pb2_grpc import TrainingServiceStub
from tests.chaos.stack_process import Stack, persist
from tests.requests import MISSION

pytestmark = pytest.mark.timeout(900)

JOB = "trainingJobs/chaos"
SUCCEEDED = TrainingJobState.TRAINING_JOB_STATE_SUCCEEDED

COMMITS = 13
"""Those of the training service while a job is created, trains, is resumed and trains again."""
POINTS = [
    *(f"training.commit.{when}:{nth}" for nth in range(1, COMMITS + 1) for when in ("before", "after")),
    *(f"statistics.commit.{when}:{nth}" for nth in (2, 6, 8) for when in ("before", "after")),
]
FEW = {"training.commit.after:2", "training.commit.before:5", "training.commit.after:9", "statistics.commit.after:6"}


@dataclass(frozen=True)
class Result:
    """What a job came to."""

    weights: str
    """Of the final checkpoint."""
    checkpoints: Sequence[int]
    steps: Sequence[int]
    """Of the series of a metric."""


async def train_twice(stack: Stack, **environment: str) -> tuple[Result, Sequence[TrainingAttempt]]:
    """A job that is created, trained to its end, and resumed to a later one, through all deaths of the stack."""
    stack.start(**environment)
    keeper = asyncio.create_task(stack.keep_alive())
    spec = TrainingSpec(
        policy_class=PolicyClass(class_path="lstm"),
        missions=[MISSION],
        agent_steps=500,
        checkpoint_agent_steps=100,
        max_restarts=3,
        trainer={"learning_rate": Value(real=0.001)},
    )
    create = pb.CreateTrainingJobRequest(request_id="create", job_id="chaos", spec=spec)
    resume = pb.ResumeTrainingJobRequest(request_id="resume", name=JOB, agent_steps=800)
    try:
        async with asyncio.timeout(300):
            await persist(stack, lambda channel: TrainingServiceStub(channel).CreateTrainingJob(create))
            await until_it_has_done(stack, 500)
            await persist(stack, lambda channel: TrainingServiceStub(channel).ResumeTrainingJob(resume))
            job = await until_it_has_done(stack, 800)
            listing = pb.ListCheckpointsRequest(parent=JOB)
            checkpoints = await persist(stack, lambda channel: TrainingServiceStub(channel).ListCheckpoints(listing))
            attempts = pb.ListAttemptsRequest(parent=JOB)
            tried = await persist(stack, lambda channel: TrainingServiceStub(channel).ListAttempts(attempts))
            reading = ReadMetricsRequest(source=JOB, metrics=["done"])
            metrics = await persist(stack, lambda channel: StatisticsServiceStub(channel).ReadMetrics(reading))
    finally:
        keeper.cancel()
        stack.stop()
    updates = [checkpoint.update for checkpoint in checkpoints.checkpoints]
    return Result(job.checkpoint.weights.sha256, updates, list(metrics.series[0].steps)), tried.attempts


async def until_it_has_done(stack: Stack, agent_steps: int) -> TrainingJob:
    request = pb.GetTrainingJobRequest(name=JOB)
    while True:
        answer = await persist(stack, lambda channel: TrainingServiceStub(channel).GetTrainingJob(request))
        job: TrainingJob = answer.training_job
        if job.state == SUCCEEDED and job.checkpoint.agent_steps == agent_steps:
            return job
        assert not job.HasField("failure"), job.failure
        await asyncio.sleep(0.02)


def steps_of_states(stack: Stack) -> list[tuple[str, str]]:
    """Every change of the job's state, in order."""
    engine = sa.create_engine(f"sqlite:///{stack.home.directory}/state/training.db")
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT from_state, to_state FROM transitions ORDER BY id").all()
    engine.dispose()
    return [(before, after) for before, after in rows]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Result:
    result, attempts = asyncio.run(train_twice(Stack(tmp_path_factory.mktemp("calm") / "home")))
    assert (result.checkpoints, result.steps) == ([8, 7, 6, 5, 4], [1, 2, 3, 4, 5, 6, 7, 8])
    assert [attempt.resumed_from for attempt in attempts] == [f"{JOB}/checkpoints/5", ""]
    return result


@pytest.mark.parametrize("point", [p if p in FEW else pytest.param(p, marks=pytest.mark.chaos) for p in POINTS])
async def test_a_job_survives_a_death_at_any_commit(tmp_path: Path, undisturbed: Result, point: str) -> None:
    stack = Stack(tmp_path / "home")

    result, attempts = await train_twice(stack, DAF_CRASH_AT=point)

    assert stack.deaths == 1
    assert result == undisturbed
    assert [attempt.number for attempt in attempts] == list(range(len(attempts), 0, -1))
    assert len(attempts) in (2, 3)
    assert all(attempt.HasField("end_time") for attempt in attempts)
    lost = [attempt for attempt in attempts if attempt.HasField("failure")]
    assert len(lost) == len(attempts) - 2
    assert all(attempt.failure.reason == "WORKER_LOST" for attempt in lost)
    states = steps_of_states(stack)
    assert [after for _, after in states].count("SUCCEEDED") == 2
    assert all(before == after for (_, before), (after, _) in itertools.pairwise(states))


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.chaos) for seed in range(2, 21))])
async def test_calls_that_fail_change_nothing(tmp_path: Path, undisturbed: Result, seed: int) -> None:
    stack = Stack(tmp_path / "home", DAF_FAULTS=f"0.03:{seed}")

    result, attempts = await train_twice(stack)

    assert stack.deaths == 0
    assert result == undisturbed
    assert len(attempts) == 2
