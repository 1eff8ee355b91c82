"""Transactions and calls that fail at random, before or after they took effect, change nothing in the end."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from daf_common.channel import raising
from daf_common.errors import Unavailable
from daf_common.faults import FAULTS, Faults, InjectedFault
from daf_evaluation.evaluations import TRANSITIONS, State
from daf_evaluation.tables import HISTORY, SHARDS
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import Policy, PolicyClass
from daf_protos.evaluation.v1 import evaluation_service_pb2 as pb
from daf_protos.evaluation.v1 import worker_service_pb2 as worker_pb
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation, EvaluationSpec, EvaluationState
from daf_protos.statistics.v1.episode_pb2 import Episode
from daf_protos.statistics.v1.statistics_service_pb2 import ListEpisodesRequest

if TYPE_CHECKING:
    from .conftest import Stack

EPISODES = 16
RATE = 0.05


async def persist(call: Callable[[], Any]) -> Any:
    """What a worker does: asks until it is answered."""
    while True:
        try:
            return await raising(call())
        except Unavailable:
            await asyncio.sleep(0.01)


async def play(stack: Stack, token: str, name: str) -> None:
    identity = worker_pb.Worker(evaluation="evaluations/e", worker=name, token=token)
    response = await persist(lambda: stack.workers.LeaseShard(worker_pb.LeaseShardRequest(worker=identity)))
    while not response.finished:
        if not response.HasField("lease"):
            await asyncio.sleep(0.05)
            response = await persist(lambda: stack.workers.LeaseShard(worker_pb.LeaseShardRequest(worker=identity)))
            continue
        lease = response.lease
        report = worker_pb.ReportShardRequest(
            worker=identity,
            shard=lease.shard,
            fence=lease.fence,
            episodes=[episode(planned) for planned in lease.episodes],
            done=True,
        )
        response = (await persist(lambda report=report: stack.workers.ReportShard(report))).next


def episode(planned: worker_pb.PlannedEpisode) -> Episode:
    return Episode(
        evaluation="evaluations/e",
        index=planned.index,
        seed=planned.seed,
        seats=planned.seats,
        rewards=[1.0] * len(planned.seats),
        digest=hashlib.sha256(str(planned.seed).encode()).hexdigest(),
    )


async def evaluate(stack: Stack) -> Evaluation:
    spec = EvaluationSpec(
        policies=[Policy(policy_class=PolicyClass(class_path="starter"))],
        missions=[Mission(name="cogsguard_arena.basic", cogs=4)],
        episodes=EPISODES,
    )
    request = pb.CreateEvaluationRequest(request_id="r", evaluation_id="e", spec=spec)
    await persist(lambda: stack.evaluations.CreateEvaluation(request))
    async with asyncio.timeout(200):
        while "e-w1" not in stack.backend.started:
            await asyncio.sleep(0.01)
        token = stack.environment("e")["DAF_TOKEN"]
        await asyncio.gather(*(play(stack, token, f"w{n}") for n in range(3)))
        get = pb.GetEvaluationRequest(name="evaluations/e")
        while True:
            answer = (await persist(lambda: stack.evaluations.GetEvaluation(get))).evaluation
            if answer.HasField("end_time"):
                return answer
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_faults_lose_and_double_nothing(stack: Stack, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    faulty, happened = Faults(rate=RATE, seed=seed), []

    def inject(name: str) -> None:
        try:
            faulty.inject(name)
        except InjectedFault:
            happened.append(name)
            raise

    monkeypatch.setattr(FAULTS, "inject", inject)
    ended = await evaluate(stack)
    monkeypatch.undo()

    assert happened
    assert ended.state == EvaluationState.EVALUATION_STATE_SUCCEEDED
    assert ended.done_episodes == ended.total_episodes == EPISODES
    request = ListEpisodesRequest(evaluation="evaluations/e", page_size=1000)
    recorded = (await raising(stack.statistics.ListEpisodes(request))).episodes
    assert [episode.index for episode in recorded] == list(range(EPISODES))
    with stack.service.store.engine.connect() as connection:
        states = [(row.from_state, row.to_state) for row in connection.execute(HISTORY.select().order_by(HISTORY.c.id))]
        assert all(row.recorded == row.count for row in connection.execute(SHARDS.select()))
    assert states == [("", "PENDING"), ("PENDING", "RUNNING"), ("RUNNING", "SUCCEEDED")]
    assert all(State(to) in TRANSITIONS[State(start)] for start, to in states if start)
