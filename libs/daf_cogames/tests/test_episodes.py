"""Every episode is the one that cogames' own sequential loop runs, in whatever order and process it is run."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cogames.seed import seed_rollout_rng
from mettagrid.policy.policy import PolicySpec
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.runner.rollout import run_multi_episode_rollout
from mettagrid.simulator.multi_episode.rollout import EpisodeRolloutResult

from daf_cogames.code import on_path
from daf_cogames.missions import Mission, MissionError, build_mission
from daf_cogames.play.episodes import EpisodeOutcome, EpisodeRunner, episode_random_seed
from daf_cogames.play.failures import PolicyFailure
from daf_cogames.policies import PolicySource, load_policy
from daf_cogames.seating import EpisodePlan, plan_episodes, seats_from_proportions

MISSION = Mission("cogsguard_arena.basic", cogs=4, max_steps=30)
SEED = 42
EPISODES = 4

BAD_POLICIES = """
import os
from mettagrid.policy.policy import AgentPolicy, MultiAgentPolicy
from mettagrid.simulator import Action

class Base(MultiAgentPolicy):
    def agent_policy(self, agent_id):
        return self.Agent(self._policy_env_info)

class RaisesInStep(Base):
    class Agent(AgentPolicy):
        def step(self, obs):
            raise RuntimeError(f"no idea what agent {obs.agent_id} should do")

class QuitsInStep(Base):
    class Agent(AgentPolicy):
        def step(self, obs):
            raise SystemExit(0)

class ReturnsNothing(Base):
    class Agent(AgentPolicy):
        def step(self, obs):
            pass

class ReturnsNonsense(Base):
    class Agent(AgentPolicy):
        def step(self, obs):
            return Action(name="fly")

class RaisesInReset(Base):
    class Agent(AgentPolicy):
        def reset(self, simulation=None):
            raise RuntimeError("not ready")

class RaisesWhenSeated(MultiAgentPolicy):
    def agent_policy(self, agent_id):
        raise RuntimeError("no seat for me")

class RaisesWhenLoaded(MultiAgentPolicy):
    def __init__(self, policy_env_info):
        raise RuntimeError("no luck")
"""


def as_cogames_runs_them(policies: list[PolicySpec], seats: tuple[int, ...]) -> list[EpisodeRolloutResult]:
    """cogames' own loop; the global random state is set before each episode, as the runner does."""

    def before(index: int) -> None:
        seed_rollout_rng(episode_random_seed(SEED + index, index))

    before(0)
    result, _ = run_multi_episode_rollout(
        policy_specs=policies,
        assignments=seats,
        env_cfg=build_mission(MISSION),
        episodes=EPISODES,
        seed=SEED,
        max_action_time_ms=60_000,
        on_progress=lambda index, _: before(index + 1),
    )
    return list(result.episodes)


def assert_same(outcome: EpisodeOutcome, expected: EpisodeRolloutResult) -> None:
    assert list(outcome.seats) == expected.assignments
    assert list(outcome.rewards) == expected.rewards
    assert outcome.steps == expected.steps
    assert outcome.max_steps == expected.max_steps
    assert list(outcome.agent_stats) == expected.stats["agent"]
    assert outcome.game_stats == expected.stats["game"]
    assert outcome.time_averaged_game_stats == expected.time_averaged_game_stats
    assert list(outcome.action_timeouts) == expected.action_timeouts


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # on a busy machine, two threads for such small networks wait for each other


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    environment = PolicyEnvInterface.from_mg_cfg(build_mission(MISSION))
    load_policy(PolicySource("lstm"), environment).save_policy_data(str(tmp_path / "weights.pt"))
    return tmp_path / "weights.pt"


@pytest.mark.parametrize("names", [["starter"], ["starter", "noop"], ["random"], ["starter", "random"]])
def test_episodes_in_any_order_equal_cogames_sequential_run(names: list[str]) -> None:
    seats = seats_from_proportions(4, [1.0] * len(names))
    plans = plan_episodes(seats, EPISODES, SEED)
    runner = EpisodeRunner(MISSION, [PolicySource(name) for name in names])

    outcomes = {plan.index: runner.run(plan) for plan in (plans[2], plans[0], plans[3], plans[1])}

    for index, expected in enumerate(as_cogames_runs_them([PolicySpec(class_path=name) for name in names], seats)):
        assert_same(outcomes[index], expected)
    assert len({outcome.digest for outcome in outcomes.values()}) == EPISODES


def test_a_network_with_weights_equals_cogames_sequential_run(weights: Path) -> None:
    plans = plan_episodes((0, 0, 0, 0), EPISODES, SEED)
    runner = EpisodeRunner(MISSION, [PolicySource("lstm", weights=weights)])

    outcomes = [runner.run(plan) for plan in reversed(plans)][::-1]

    specs = [PolicySpec(class_path="lstm", data_path=str(weights))]
    for outcome, expected in zip(outcomes, as_cogames_runs_them(specs, (0, 0, 0, 0)), strict=True):
        assert_same(outcome, expected)


def test_two_networks_in_one_episode_repeat(weights: Path) -> None:
    plan = plan_episodes((0, 0, 1, 1), 1, SEED)[0]
    runner = EpisodeRunner(MISSION, [PolicySource("lstm", weights=weights), PolicySource("lstm")])

    assert len({runner.run(plan).digest for _ in range(3)}) == 1


def test_another_process_gets_the_same_episode() -> None:
    plan = plan_episodes((0, 0, 1, 1), EPISODES, SEED)[-1]
    here = EpisodeRunner(MISSION, [PolicySource("random"), PolicySource("starter")]).run(plan)
    code = f"""
from daf_cogames.play.episodes import EpisodeRunner
from daf_cogames.missions import Mission
from daf_cogames.policies import PolicySource
from daf_cogames.seating import EpisodePlan
outcome = EpisodeRunner({MISSION!r}, [PolicySource("random"), PolicySource("starter")]).run({plan!r})
print(outcome.digest)
"""

    there = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()[-1]

    assert there == here.digest


def test_an_outcome_is_made_of_plain_values() -> None:
    outcome = EpisodeRunner(MISSION, [PolicySource("noop")]).run(EpisodePlan(0, 1, (0, 0, 0, 0)))

    fields: dict[str, Any] = dataclasses.asdict(outcome)
    assert json.loads(json.dumps(fields))["seats"] == [0, 0, 0, 0]
    assert outcome.versions["cogames"] == "0.18.0"
    assert outcome.wall_seconds > 0
    assert "+" not in outcome.versions["torch"]


def test_the_mission_and_the_seed_are_part_of_the_digest() -> None:
    plan = EpisodePlan(0, 1, (0, 0, 0, 0))
    shorter = dataclasses.replace(MISSION, max_steps=29)

    digests = {
        EpisodeRunner(MISSION, [PolicySource("noop")]).run(plan).digest,
        EpisodeRunner(shorter, [PolicySource("noop")]).run(plan).digest,
        EpisodeRunner(MISSION, [PolicySource("noop")]).run(dataclasses.replace(plan, seed=2)).digest,
    }

    assert len(digests) == 3


@pytest.fixture
def bad_policies(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "bad_policies.py").write_text(BAD_POLICIES)
    with on_path(tmp_path):
        yield tmp_path


@pytest.mark.parametrize(
    ("name", "stage", "seat", "message"),
    [
        ("RaisesInStep", "step", 2, "RuntimeError: no idea what agent 2 should do"),
        ("QuitsInStep", "step", 2, "SystemExit: 0"),
        ("ReturnsNothing", "step", 2, "NoneType instead of an Action"),
        ("ReturnsNonsense", "step", 2, "no action of this environment"),
        ("RaisesInReset", "start", 2, "RuntimeError: not ready"),
        ("RaisesWhenSeated", "start", 2, "RuntimeError: no seat for me"),
        ("RaisesWhenLoaded", "load", None, "RuntimeError: no luck"),
    ],
)
def test_a_policy_that_fails_is_named_and_others_go_on(
    name: str, stage: str, seat: int | None, message: str, bad_policies: Path
) -> None:
    good = PolicySource("starter")
    bad = PolicySource(f"bad_policies.{name}", code=bad_policies)
    plan = EpisodePlan(0, SEED, (0, 0, 1, 0))
    alone = EpisodePlan(1, SEED + 1, (0, 0, 0, 0))

    with pytest.raises(PolicyFailure) as raised:
        EpisodeRunner(MISSION, [good, bad]).run(plan)
    after = EpisodeRunner(MISSION, [good]).run(alone)

    assert (raised.value.policy, raised.value.seat, raised.value.stage) == (1, seat, stage)
    assert message in raised.value.message
    assert after.digest == EpisodeRunner(MISSION, [good]).run(alone).digest


def test_a_broken_stock_policy_fails_as_a_policy() -> None:
    with pytest.raises(PolicyFailure, match="policy 0 in seat 0 failed to step: AttributeError") as raised:
        EpisodeRunner(MISSION, [PolicySource("stateless")]).run(EpisodePlan(0, 0, (0, 0, 0, 0)))

    assert raised.value.stage == "step"


@pytest.mark.parametrize("name", ["starter", "lstm_corrected"])
def test_a_replay_is_written_and_changes_nothing(name: str, tmp_path: Path) -> None:
    runner = EpisodeRunner(MISSION, [PolicySource(name)])
    plan = EpisodePlan(0, SEED, (0, 0, 0, 0))

    with_replay = runner.run(plan, replay=tmp_path / "replay.json.z")

    assert with_replay.digest == runner.run(plan).digest
    replay = json.loads(zlib.decompress((tmp_path / "replay.json.z").read_bytes()))
    assert replay["max_steps"] == 30
    assert replay["num_agents"] == 4


def test_a_plan_for_another_mission_is_refused() -> None:
    runner = EpisodeRunner(MISSION, [PolicySource("noop")])

    with pytest.raises(ValueError, match="has 4 seats"):
        runner.run(EpisodePlan(0, 0, (0, 0)))
    with pytest.raises(ValueError, match="not one of the 1"):
        runner.run(EpisodePlan(0, 0, (0, 0, 1, 0)))


def test_a_mission_that_does_not_build_is_refused_at_once() -> None:
    with pytest.raises(MissionError, match="does not build"):
        EpisodeRunner(Mission("evals.diagnostic_memory"), [PolicySource("noop")])
