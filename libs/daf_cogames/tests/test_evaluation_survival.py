"""Evaluations with policies that end or hang the process that plays them, by the real services and workers."""

from __future__ import annotations

import asyncio
import os
import signal
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import pytest_asyncio

from daf_common.values import to_value
from daf_protos.common.v1.policy_pb2 import Policy
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationState
from daf_protos.statistics.v1.episode_pb2 import Episode
from libs.daf_cogames.tests.evaluation_stack import MISSION, Stack, policy, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUCCEEDED = EvaluationState.EVALUATION_STATE_SUCCEEDED
EPISODES = 4


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAF_EVALUATION_SLOTS", "2")
        async with running(tmp_path_factory.mktemp("stack")) as started:
            yield started


async def hostile(stack: Stack, deed: str, **arguments: str | int) -> Policy:
    text = (Path(__file__).parent / "hostile" / "hostile_policies.py").read_text()
    code = await stack.put_archive({"hostile_policies.py": text})
    return policy(
        "hostile_policies.Hostile",
        code=code,
        arguments={name: to_value(value) for name, value in {"deed": deed, **arguments}.items()},
    )


def forfeits(episodes: list[Episode]) -> set[tuple[str, str]]:
    return {(forfeit.subject, forfeit.reason) for episode in episodes for forfeit in episode.forfeits}


async def test_whoever_plays_it_an_evaluation_with_such_policies_comes_to_the_same(stack: Stack) -> None:
    policies = [policy("starter"), await hostile(stack, "exit_by_chance", stage="agent"), await hostile(stack, "abort")]
    digests = set()
    for workers in (1, 2):
        id = f"crashing{workers}"
        await stack.create(id, policies=policies, workers=workers, episodes=EPISODES)
        ended = await stack.ended(id)
        assert ended.state == SUCCEEDED, ended.failure
        played = await stack.episodes(id)
        assert {("1", "POLICY_CRASHED"), ("2", "POLICY_CRASHED")} >= forfeits(played) >= {("2", "POLICY_CRASHED")}
        digests.add(ended.digest)
    assert len(digests) == 1


async def test_a_policy_that_hangs_forfeits_after_the_limit_of_its_evaluation(stack: Stack) -> None:
    policies = [policy("starter"), await hostile(stack, "sleep_holding_the_interpreter", at=5)]
    await stack.create("hanging", policies=policies, workers=1, episodes=2, time_limit_seconds=3)
    assert (await stack.ended("hanging")).state == SUCCEEDED
    played = await stack.episodes("hanging")
    assert [[forfeit.message for forfeit in episode.forfeits] for episode in played] == [
        [f"failed to step in seat {list(episode.seats).index(1)}: it took longer than 3 s"] for episode in played
    ]


async def test_who_plays_does_not_have_the_workers_token(stack: Stack) -> None:
    await stack.create("curious", policies=[await hostile(stack, "tell_secret")], workers=1, episodes=1)
    await stack.ended("curious")
    (episode,) = await stack.episodes("curious")
    assert episode.forfeits[0].message.endswith("the token is None")


async def test_how_long_steps_took_comes_with_an_episode(stack: Stack) -> None:
    await stack.create("timed", policies=[policy("starter"), policy("noop")], workers=1, episodes=1)
    await stack.ended("timed")
    (episode,) = await stack.episodes("timed")
    assert [latency.policy for latency in episode.latencies] == [0, 1]
    for latency in episode.latencies:
        assert latency.steps == sum(latency.buckets) == 2 * MISSION.max_steps
        assert 0 < latency.longest_seconds <= latency.total_seconds < episode.wall_seconds


async def test_replays_are_kept_and_change_no_digest(stack: Stack) -> None:
    await stack.create("unseen", episodes=2, workers=1)
    await stack.create("seen", episodes=2, workers=1, save_replays=True)
    assert (await stack.ended("seen")).digest == (await stack.ended("unseen")).digest
    for episode in await stack.episodes("seen"):
        assert episode.replay.media_type == "application/x-mettagrid-replay"
        location = await stack.artifacts.reading(episode.replay)
        content = Path(urlsplit(location.url).path).read_bytes()
        assert len(content) == episode.replay.size_bytes
        assert b'"num_agents"' in zlib.decompress(content)
    assert not any(episode.HasField("replay") for episode in await stack.episodes("unseen"))


async def test_a_killed_worker_leaves_no_player_behind(stack: Stack) -> None:
    policies = [await hostile(stack, "loop", at=2)]
    await stack.create("left", policies=policies, workers=1, episodes=1)
    worker = None
    while worker is None or len(below := psutil.Process(worker).children(recursive=True)) < 2:
        await asyncio.sleep(0.02)
        worker = stack.processes.process_id("evaluate-left-w1-0")
    os.kill(worker, signal.SIGKILL)
    _, alive = await asyncio.to_thread(psutil.wait_procs, below, timeout=30)
    assert not alive
