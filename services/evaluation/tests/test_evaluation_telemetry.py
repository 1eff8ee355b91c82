"""What the evaluation service counts of its workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import REGISTRY

from daf_common.channel import raising
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import Policy, PolicyClass
from daf_protos.evaluation.v1 import evaluation_service_pb2 as pb
from daf_protos.evaluation.v1 import worker_service_pb2 as worker_pb
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec

from .test_evaluation_service import workload_started

if TYPE_CHECKING:
    from .conftest import Stack

LEASE_SECONDS = 15.0


def expired() -> float:
    return REGISTRY.get_sample_value("daf_lease_expiries_total", {"lease": "shard"}) or 0.0


async def test_a_lease_counts_as_expired_once_and_only_if_its_holder_fell_silent(stack: Stack) -> None:
    spec = EvaluationSpec(
        policies=[Policy(policy_class=PolicyClass(class_path="starter"))],
        missions=[Mission(name="cogsguard_arena.basic", cogs=4, max_steps=20)],
        episodes=1,
        seed=1,
    )
    await raising(stack.evaluations.CreateEvaluation(pb.CreateEvaluationRequest(evaluation_id="e", spec=spec)))
    await workload_started(stack, "e-w1")
    token = stack.environment("e")["DAF_TOKEN"]

    async def lease(name: str) -> worker_pb.LeaseShardResponse:
        worker = worker_pb.Worker(evaluation="evaluations/e", worker=name, token=token)
        return await raising(stack.workers.LeaseShard(worker_pb.LeaseShardRequest(worker=worker)))

    before = expired()
    assert (await lease("silent")).HasField("lease")
    assert (await lease("silent")).HasField("lease")  # the answer was lost: it is told again
    assert not (await lease("seeker")).HasField("lease")
    assert expired() == before

    stack.context.clock.advance(LEASE_SECONDS)  # type: ignore[attr-defined]
    assert (await lease("seeker")).HasField("lease")
    assert not (await lease("third")).HasField("lease")
    assert expired() == before + 1
