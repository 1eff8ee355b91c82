"""A user's own mission: nobody knows its seats before a worker has opened its file."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from daf_common.artifacts import ArtifactStore
from daf_common.channel import raising
from daf_common.errors import Aborted, InvalidArgument
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import Policy, PolicyClass
from daf_protos.evaluation.v1 import evaluation_service_pb2 as pb
from daf_protos.evaluation.v1 import worker_service_pb2 as worker_pb
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec

if TYPE_CHECKING:
    from .conftest import Stack


@pytest.fixture
async def running(stack: Stack) -> Stack:
    """A stack with an evaluation `e` of two policies on a user's own mission, and on one of CoGames after it."""
    store = ArtifactStore(stack.context.settings.artifacts(), "deployment")
    own = Mission(name="assembler_2", file=await store.put(b"an archive", "application/zip"))
    spec = EvaluationSpec(
        policies=[Policy(policy_class=PolicyClass(class_path=name)) for name in ("starter", "noop")],
        missions=[own, Mission(name="cogsguard_arena.basic", cogs=4)],
        episodes=2,
        seed=100,
        proportions=[2.0, 1.0],
        workers=1,
    )
    await raising(stack.evaluations.CreateEvaluation(pb.CreateEvaluationRequest(evaluation_id="e", spec=spec)))
    async with asyncio.timeout(60):
        while "e-w1" not in stack.backend.started:
            await asyncio.sleep(0.01)
    return stack


def worker(stack: Stack, name: str) -> worker_pb.Worker:
    return worker_pb.Worker(evaluation="evaluations/e", worker=name, token=stack.environment("e")["DAF_TOKEN"])


async def lease(stack: Stack, name: str) -> worker_pb.LeaseShardResponse:
    request = worker_pb.LeaseShardRequest(worker=worker(stack, name), first=True)
    return await raising(stack.workers.LeaseShard(request))


async def tell(stack: Stack, name: str, held: worker_pb.ShardLease, **fields: Any) -> worker_pb.ReportShardResponse:
    request = worker_pb.ReportShardRequest(
        worker=worker(stack, name), **{"shard": held.shard, "fence": held.fence, **fields}
    )
    return await raising(stack.workers.ReportShard(request))


def seats(held: worker_pb.ShardLease) -> set[tuple[int, ...]]:
    return {tuple(sorted(episode.seats)) for episode in held.episodes}


async def test_its_episodes_are_leased_without_seats_and_get_them_from_the_number_that_a_worker_tells(
    running: Stack,
) -> None:
    response = await lease(running, "w")
    told = await tell(running, "w", response.lease, seats=3)

    assert seats(response.lease) == {()}
    assert told.next.lease.shard == response.lease.shard
    assert told.next.lease.fence == response.lease.fence
    assert seats(told.next.lease) == {(0, 0, 1)}
    assert [episode.seed for episode in told.next.lease.episodes] == [100, 101]


async def test_a_worker_reads_its_file_and_its_name_is_never_taken_for_one_of_cogames(running: Stack) -> None:
    response = await lease(running, "w")

    assert response.spec.missions[0].name == "assembler_2"
    assert response.spec.missions[0].file in [location.artifact for location in response.downloads]


async def test_the_first_number_counts_and_later_leases_have_their_seats(running: Stack) -> None:
    response = await lease(running, "a")
    await tell(running, "a", response.lease, seats=3)
    again = await tell(running, "a", response.lease, seats=5)

    assert seats(again.next.lease) == {(0, 0, 1)}
    assert seats((await lease(running, "a")).lease) == {(0, 0, 1)}
    assert seats((await lease(running, "b")).lease) == {(0, 0, 0, 1)}  # of the other mission


@pytest.mark.parametrize("number", [0, -1, 2_000_000])
async def test_a_number_that_cannot_be_is_refused(running: Stack, number: int) -> None:
    response = await lease(running, "w")

    with pytest.raises(InvalidArgument) as raised:
        await tell(running, "w", response.lease, seats=number)

    assert [violation.field for violation in raised.value.violations] == ["seats"]


async def test_who_does_not_hold_the_shard_tells_nothing(running: Stack) -> None:
    response = await lease(running, "w")

    with pytest.raises(Aborted):
        await tell(running, "other", response.lease, seats=7)

    assert seats((await tell(running, "w", response.lease, seats=3)).next.lease) == {(0, 0, 1)}
