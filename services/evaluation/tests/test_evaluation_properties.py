"""However workers come, go, repeat themselves and come too late: the same episodes are played, and the digest is the
same."""

from __future__ import annotations

import hashlib
import itertools
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daf_common.channel import raising
from daf_common.errors import Aborted
from daf_protos.evaluation.v1 import worker_service_pb2 as worker_pb
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation, Team
from daf_protos.statistics.v1.episode_pb2 import Episode

from .test_evaluation_service import (
    LEASE_SECONDS,
    SUCCEEDED,
    Worker,
    create,
    episodes_of,
    policy,
    until,
    workload_started,
)

if TYPE_CHECKING:
    from .conftest import Stack

NUMBERS = itertools.count()


class Player(Worker):
    """A worker whose episodes depend on what they were planned to be, and on nothing else."""

    def play(self, lease: worker_pb.ShardLease) -> list[Episode]:
        played = super().play(lease)
        for episode in played:
            content = f"{lease.mission} {episode.scenario} {episode.index} {episode.seed} {list(episode.seats)}"
            episode.digest = hashlib.sha256(content.encode()).hexdigest()
        return played


class Unreliable:
    """A worker that asks, reports, repeats and pauses in any order."""

    def __init__(self, stack: Stack, name: str, id: str) -> None:
        self._stack, self._player = stack, Player(stack, name, id)
        self._lease: worker_pb.ShardLease | None = None
        self._sent: list[worker_pb.ReportShardRequest] = []
        self._left: list[Episode] = []
        self.finished = False

    async def act(self, random: Random) -> None:
        match random.choice(["ask", "report", "report", "report", "repeat"]):
            case "ask":
                self._take(await self._player.lease())
            case "report" if self._lease is not None:
                count = random.randint(0, len(self._left))
                await self._report(self._left[:count], done=count == len(self._left))
            case "repeat" if self._sent:
                await self._send(random.choice(self._sent))
            case _:
                self._take(await self._player.lease())

    async def _report(self, episodes: list[Episode], done: bool) -> None:
        assert self._lease is not None
        request = worker_pb.ReportShardRequest(
            worker=self._player.identity,
            shard=self._lease.shard,
            fence=self._lease.fence,
            episodes=episodes,
            done=done,
        )
        self._sent.append(request)
        self._left = self._left[len(episodes) :]
        answer = await self._send(request)
        if answer is None or answer.stop:
            self._lease = None
        elif done:
            self._take(answer.next)

    async def _send(self, request: worker_pb.ReportShardRequest) -> worker_pb.ReportShardResponse | None:
        try:
            return await raising(self._stack.workers.ReportShard(request))
        except Aborted:
            return None

    def _take(self, response: worker_pb.LeaseShardResponse) -> None:
        self.finished = response.finished
        self._lease = response.lease if response.HasField("lease") else None
        self._left = self._player.play(self._lease) if self._lease else []


async def evaluated(stack: Stack, team: Team.ValueType, random: Random | None, workers: int) -> Evaluation:
    id = f"e{next(NUMBERS)}"
    await create(stack, id, policies=[policy("starter"), policy("noop")], team=team, episodes=7, workers=workers)
    await workload_started(stack, f"{id}-w1")
    if random is None:
        await Player(stack, "w", id).play_all()
    else:
        crowd = [Unreliable(stack, f"w{number}", id) for number in range(workers)]
        while not all(worker.finished for worker in crowd):
            if random.random() < 0.1:
                stack.context.clock.advance(LEASE_SECONDS)  # type: ignore[attr-defined]
            await random.choice(crowd).act(random)
    return await until(stack, id, SUCCEEDED)


async def planned(stack: Stack, evaluation: Evaluation) -> list[tuple[int, int, int, tuple[int, ...]]]:
    episodes = await episodes_of(stack, evaluation.name.partition("/")[2])
    return [(episode.scenario, episode.index, episode.seed, tuple(episode.seats)) for episode in episodes]


@pytest.mark.parametrize("team", [Team.TEAM_MIXED, Team.TEAM_PICKUP, Team.TEAM_PAIRS])
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), workers=st.integers(1, 4))
async def test_neither_number_nor_order_nor_repetition_changes_what_is_played(
    stack: Stack, team: Team.ValueType, seed: int, workers: int
) -> None:
    expected = await evaluated(stack, team, None, 1)
    found = await evaluated(stack, team, Random(seed), workers)
    assert found.digest == expected.digest
    assert found.done_episodes == found.total_episodes == 7 * len(found.scenarios)
    assert await planned(stack, found) == await planned(stack, expected)
