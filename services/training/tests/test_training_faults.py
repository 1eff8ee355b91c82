"""Transactions and calls that fail at random, before or after they took effect, change nothing in the end."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
import sqlalchemy as sa

from daf_common.channel import raising
from daf_common.errors import Unavailable
from daf_common.faults import FAULTS, Faults, InjectedFault
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import PolicyClass
from daf_protos.common.v1.value_pb2 import Value
from daf_protos.training.v1 import training_service_pb2 as pb
from daf_protos.training.v1 import worker_service_pb2 as worker_pb
from daf_protos.training.v1.training_job_pb2 import (
    Checkpoint,
    TrainingJob,
    TrainingJobState,
    TrainingProgress,
    TrainingSpec,
)
from daf_training.tables import LOG_PIECES, TRANSITIONS

if TYPE_CHECKING:
    from .conftest import Stack

RATE = 0.05
JOBS = 12


async def persist(call: Callable[[], Any]) -> Any:
    """What every client does: asks until it is answered."""
    while True:
        try:
            return await raising(call())
        except Unavailable:
            await asyncio.sleep(0.01)


async def play(stack: Stack, number: int) -> None:
    """One job's worker: starts when its workload does, saves one checkpoint and ends."""
    while (workload := stack.machines.started.get(f"j{number}-a1")) is None:
        await asyncio.sleep(0.01)
    attempt = worker_pb.Attempt(
        training_job=workload.environment["DAF_TRAINING_JOB"], attempt=1, token=workload.environment["DAF_TOKEN"]
    )
    await persist(lambda: stack.worker.GetAssignment(worker_pb.GetAssignmentRequest(attempt=attempt)))
    content = f"weights {number % 2}".encode()  # some jobs end with equal weights
    wanted = Artifact(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    upload = worker_pb.PrepareUploadRequest(attempt=attempt, artifact=wanted)
    location = (await persist(lambda: stack.worker.PrepareUpload(upload))).location
    if location.url:
        path = Path(unquote(urlsplit(location.url).path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    sample = worker_pb.MetricSample(update=1, agent_steps=10, values={"losses/value": float(number)})
    first = worker_pb.ReportTrainingRequest(
        attempt=attempt, sequence=1, progress=TrainingProgress(update=1), metrics=[sample], log="one line\n"
    )
    await persist(lambda: stack.worker.ReportTraining(first))
    last = worker_pb.ReportTrainingRequest(
        attempt=attempt,
        sequence=2,
        checkpoints=[Checkpoint(update=1, weights=location.artifact)],
        outcome=worker_pb.TrainingOutcome(),
    )
    await persist(lambda: stack.worker.ReportTraining(last))


async def train(stack: Stack) -> list[TrainingJob]:
    for number in range(JOBS):
        spec = TrainingSpec(
            policy_class=PolicyClass(class_path="lstm"),
            missions=[Mission(name="cogsguard_machina_1.basic", cogs=4)],
            agent_steps=1000,
            seed=number,
            trainer={"learning_rate": Value(real=0.001)},
        )
        request = pb.CreateTrainingJobRequest(request_id=f"r{number}", job_id=f"j{number}", spec=spec)
        await persist(lambda request=request: stack.jobs.CreateTrainingJob(request))
    async with asyncio.timeout(200):
        await asyncio.gather(*(play(stack, number) for number in range(JOBS)))
        while True:
            listed = await persist(lambda: stack.jobs.ListTrainingJobs(pb.ListTrainingJobsRequest()))
            if all(job.HasField("end_time") for job in listed.training_jobs):
                return list(listed.training_jobs)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_faults_lose_and_double_nothing(stack: Stack, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty, happened = Faults(rate=RATE, seed=seed), Counter[str]()

    def inject(name: str) -> None:
        try:
            faulty.inject(name)
        except InjectedFault:
            happened[name] += 1
            raise

    monkeypatch.setattr(FAULTS, "inject", inject)
    ended = await train(stack)
    monkeypatch.undo()

    assert happened
    assert len(ended) == JOBS
    assert {job.state for job in ended} == {TrainingJobState.TRAINING_JOB_STATE_SUCCEEDED}
    assert all([await stack.artifacts.exists(job.checkpoint.weights) for job in ended])
    with stack.training.store.engine.connect() as connection:
        steps = list(connection.execute(sa.select(TRANSITIONS.c.name, TRANSITIONS.c.to_state)))
        pieces = connection.execute(sa.select(LOG_PIECES.c.job, LOG_PIECES.c.text)).all()
    assert Counter(piece.text for piece in pieces) == {"one line\n": JOBS}
    assert Counter(state for _, state in steps) == {"STARTING": JOBS, "RUNNING": JOBS, "SUCCEEDED": JOBS}
