"""Evaluations played by real worker processes, leased and recorded by the real services."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from mettagrid.policy.policy import PolicySpec
from mettagrid.runner.rollout import run_multi_episode_rollout
from mettagrid.simulator.multi_episode.rollout import EpisodeRolloutResult

from daf_cogames.missions import build_mission
from daf_cogames.seating import seats_from_proportions
from daf_protos.common.v1 import mission_pb2
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationState, Team
from daf_protos.statistics.v1.episode_pb2 import Episode
from libs.daf_cogames.tests.evaluation_stack import EPISODES, MISSION, SEED, Stack, policy, running

SUCCEEDED = EvaluationState.EVALUATION_STATE_SUCCEEDED
FAILED = EvaluationState.EVALUATION_STATE_FAILED
MOODY_POLICY = """
from mettagrid.policy.policy import AgentPolicy, MultiAgentPolicy
from mettagrid.simulator import Action

class Agent(AgentPolicy):
    def __init__(self, environment, patience):
        super().__init__(environment)
        self.patience = patience

    def step(self, obs):
        self.patience -= 1
        if self.patience < 0:
            raise RuntimeError("out of patience")
        return Action(name="noop")

class Moody(MultiAgentPolicy):
    def __init__(self, policy_env_info, patience: int = 5):
        super().__init__(policy_env_info)
        self.patience = patience

    def agent_policy(self, agent_id):
        return Agent(self._policy_env_info, self.patience)
"""


@pytest.fixture
async def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stack]:
    monkeypatch.setenv("DAF_EVALUATION_SLOTS", "3")
    async with running(tmp_path) as started:
        yield started


def sequential(policies: list[str]) -> list[EpisodeRolloutResult]:
    """cogames' own loop over the same episodes."""
    result, _ = run_multi_episode_rollout(
        policy_specs=[PolicySpec(class_path=name) for name in policies],
        assignments=seats_from_proportions(4, [1.0] * len(policies)),
        env_cfg=build_mission(MISSION),
        episodes=EPISODES,
        seed=SEED,
        max_action_time_ms=60_000,
    )
    return list(result.episodes)


def assert_same(episode: Episode, expected: EpisodeRolloutResult) -> None:
    assert list(episode.seats) == expected.assignments
    assert list(episode.rewards) == expected.rewards
    assert episode.steps == expected.steps
    assert [dict(stats.values) for stats in episode.agent_statistics] == expected.stats["agent"]
    assert dict(episode.game_statistics.values) == expected.stats["game"]
    assert dict(episode.average_game_statistics.values) == expected.time_averaged_game_stats


async def test_one_two_and_three_workers_play_the_very_episodes_of_cogames_sequential_loop(stack: Stack) -> None:
    expected = await asyncio.to_thread(sequential, ["starter", "noop"])
    digests = set()
    for workers in (1, 2, 3):
        id = f"e{workers}"
        await stack.create(id, policies=[policy("starter"), policy("noop")], workers=workers)
        ended = await stack.ended(id)
        assert ended.state == SUCCEEDED, ended.failure
        played = await stack.episodes(id)
        assert [episode.index for episode in played] == list(range(EPISODES))
        for episode, same in zip(played, expected, strict=True):
            assert_same(episode, same)
        assert len({episode.map_digest for episode in played}) == EPISODES
        assert len({episode.mission for episode in played}) == 1
        digests.add(ended.digest)
    assert len(digests) == 1


async def test_a_killed_worker_costs_at_most_the_episode_that_it_played(stack: Stack) -> None:
    await stack.create("calm", workers=1)
    undisturbed = await stack.ended("calm")
    await stack.create("killed", workers=1, episodes=EPISODES)
    at_kill = await stack.until("killed", lambda evaluation: evaluation.done_episodes >= 1)
    worker = stack.processes.process_id("evaluate-killed-w1-0")
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    ended = await stack.ended("killed")
    assert ended.state == SUCCEEDED
    assert ended.digest == undisturbed.digest
    by_first = [episode.index for episode in await stack.episodes("killed") if episode.worker.startswith("w1-")]
    assert by_first == list(range(len(by_first)))
    assert at_kill.done_episodes <= len(by_first) < EPISODES


async def test_a_policy_that_raises_forfeits_and_the_others_go_on(stack: Stack) -> None:
    moody = policy("moody.Moody", code=await stack.put_archive({"moody.py": MOODY_POLICY}))
    await stack.create("mixed", policies=[policy("starter"), moody], episodes=2)
    await stack.create("solo", policies=[policy("starter"), moody], episodes=2, team=Team.TEAM_SOLO)
    assert (await stack.ended("mixed")).state == SUCCEEDED
    for episode in await stack.episodes("mixed"):
        assert [(forfeit.reason, forfeit.subject) for forfeit in episode.forfeits] == [("POLICY_FAILED", "1")]
        assert "out of patience" in episode.forfeits[0].message
        assert episode.steps == MISSION.max_steps
    assert (await stack.ended("solo")).state == SUCCEEDED
    forfeits = {episode.scenario: len(episode.forfeits) for episode in await stack.episodes("solo")}
    assert forfeits == {0: 0, 1: 1}


OWN_MISSION = f"""
from cogames.cli.mission import get_mission

def get_config():
    _, config, _ = get_mission("{MISSION.name}", cogs={MISSION.cogs}, steps={MISSION.max_steps})
    return config
"""


async def own_mission(stack: Stack, text: str, name: str = "mine.py") -> mission_pb2.Mission:
    return mission_pb2.Mission(name="mine", file=await stack.put_archive({name: text}))


async def test_a_users_own_mission_is_planned_for_the_seats_that_workers_find_in_it(stack: Stack) -> None:
    expected = await asyncio.to_thread(sequential, ["starter", "noop"])
    mission = await own_mission(stack, OWN_MISSION)
    digests = set()
    for workers in (1, 3):
        id = f"own{workers}"
        await stack.create(id, policies=[policy("starter"), policy("noop")], missions=[mission], workers=workers)
        ended = await stack.ended(id)
        assert ended.state == SUCCEEDED, ended.failure
        played = await stack.episodes(id)
        for episode, same in zip(played, expected, strict=True):
            assert_same(episode, same)
        assert {json.loads(episode.mission)["name"] for episode in played} == {"mine"}
        assert len({json.loads(episode.mission)["file"] for episode in played}) == 1
        digests.add(ended.digest)
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("mine.py", "raise ValueError('a bad day')", "mine.py:1: ValueError: a bad day"),
        ("mine.yaml", "game: {\n a: 1\n", "mine.yaml:3: "),
        ("mine.txt", "", "exactly one file"),
    ],
)
async def test_a_users_own_mission_that_does_not_build_fails_the_evaluation_with_the_reason(
    stack: Stack, name: str, text: str, message: str
) -> None:
    await stack.create("broken", missions=[await own_mission(stack, text, name)], workers=1)

    ended = await stack.ended("broken")

    assert ended.state == FAILED
    assert ended.failure.reason == "MISSION_INVALID"
    assert ended.failure.subject == "missions[0].file"
    assert message in ended.failure.message


async def test_code_that_is_no_archive_fails_the_evaluation_with_the_reason(stack: Stack) -> None:
    artifact = await stack.artifacts.put(b"not a zip", "application/zip")
    await stack.create("broken", policies=[policy("moody.Moody", code=artifact)])
    ended = await stack.ended("broken")
    assert ended.state == FAILED
    assert ended.failure.reason == "POLICY_INVALID"
    assert ended.failure.subject == hashlib.sha256(b"not a zip").hexdigest()
