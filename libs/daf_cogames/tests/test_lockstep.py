"""Episodes that advance together are those that would have been played one by one, to the bit."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mettagrid.policy.lstm import LSTMAgentPolicy, LSTMPolicyNet
from mettagrid.policy.policy_env_interface import PolicyEnvInterface

from daf_cogames.code import on_path
from daf_cogames.missions import Mission, build_mission
from daf_cogames.play import batching, episodes, known_agents
from daf_cogames.play.episodes import EpisodeOutcome, EpisodeRunner
from daf_cogames.play.failures import PolicyFailure
from daf_cogames.policies import PolicySource, load_policy
from daf_cogames.seating import EpisodePlan, plan_episodes, seats_from_proportions

MISSION = Mission("cogsguard_arena.basic", cogs=4, max_steps=10)
SEED = 7

KNOWN = [
    "lstm",
    "lstm_corrected",
    "puffer",
    "puffer_corrected",
    "pufferlib_cogs",
    "pufferlib_cogs_corrected",
    "stateless_corrected",
    "tutorial",
]

USERS_POLICIES = """
import torch
from mettagrid.policy.lstm import LSTMAgentPolicy, LSTMPolicy
from mettagrid.policy.policy import StatefulAgentPolicy
from mettagrid.policy.utils import LSTMState
from mettagrid.simulator import Action

class OwnStep(LSTMPolicy):
    "Steps in its own way: every other action is a noop."
    class Impl(LSTMAgentPolicy):
        def step_with_state(self, obs, state):
            action, state = super().step_with_state(obs, state)
            return Action(name="noop"), state

    def agent_policy(self, agent_id):
        return StatefulAgentPolicy(self.Impl(self._net, self._device, self._policy_env_info), self._policy_env_info)

class Own(LSTMPolicy):
    "The shipped agents, with something that their network does."
    def __init__(self, policy_env_info, device="cpu"):
        super().__init__(policy_env_info, device=device)
        original = self._net.forward_eval
        self.calls = 0
        def forward_eval(observations, state=None):
            self.calls += 1
            return self.change(original(observations, state))
        self._net.forward_eval = forward_eval

class Dropout(Own):
    def change(self, found):
        return torch.nn.functional.dropout(found[0], 0.5, training=True), found[1]

class MixesRows(Own):
    def change(self, found):
        return found[0] - found[0].mean(0, keepdim=True) / 100, found[1]

class Counts(Own):
    def change(self, found):
        return found[0] * self.calls, found[1]

class GoesMad(Own):
    "Its output is no number any more once it was asked often enough, whether by one or by a batch."
    def change(self, found):
        return found[0] * (float("nan") if self.calls > 30 else 1.0), found[1]

class Fails(Own):
    "Raises for the observation of a late step."
    def change(self, found):
        if self.calls > 30:
            raise RuntimeError("tired")
        return found

class OffInBatches(Own):
    "A batch's last bits are others, as they are for many operations."
    def change(self, found):
        return found[0] * (1.0 if found[0].shape[0] == 1 else 1.0 + 1e-6), found[1]

class FailsInSeatTwo(LSTMPolicy):
    def agent_policy(self, agent_id):
        agent = super().agent_policy(agent_id)
        if agent_id == 2:
            agent.step = self.step
        return agent

    def step(self, obs):
        raise RuntimeError("not in this seat")
"""


@pytest.fixture(autouse=True)
def users_policies(tmp_path: Path) -> Iterator[Path]:
    torch.set_num_threads(1)
    code = tmp_path / "code"
    code.mkdir()
    (code / "users_policies.py").write_text(USERS_POLICIES)
    with on_path(code):
        yield code


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of every known policy."""
    directory = tmp_path_factory.mktemp("weights")
    environment = PolicyEnvInterface.from_mg_cfg(build_mission(MISSION))
    torch.manual_seed(5)
    for name in KNOWN:
        load_policy(PolicySource(name), environment).save_policy_data(str(directory / name))
    return {name: directory / name for name in KNOWN}


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of every batch that is put in agents' place."""
    made: list[int] = []
    original = batching.batch_of

    def batch_of(witnesses: Sequence[batching.Witness], *args: Any, **kwargs: Any) -> batching.Batch:
        batch = original(witnesses, *args, **kwargs)
        made.append(len(witnesses))
        return batch

    monkeypatch.setattr("daf_cogames.play.lockstep.batch_of", batch_of)
    return made


def one_by_one(runner: EpisodeRunner, plans: Sequence[EpisodePlan]) -> list[EpisodeOutcome | str]:
    return [comparable(outcome_or_failure(runner, plan)) for plan in plans]


def together(runner: EpisodeRunner, plans: Sequence[EpisodePlan], *, fast: bool = False) -> list[EpisodeOutcome | str]:
    return [comparable(result) for result in runner.run_together(plans, fast=fast)]


def outcome_or_failure(runner: EpisodeRunner, plan: EpisodePlan) -> EpisodeOutcome | PolicyFailure:
    try:
        return runner.run(plan)
    except PolicyFailure as failure:
        return failure


def comparable(result: EpisodeOutcome | PolicyFailure) -> EpisodeOutcome | str:
    """Without what the clock says."""
    if isinstance(result, PolicyFailure):
        return str(result)
    return dataclasses.replace(result, wall_seconds=0, latencies={})


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_policy_is_one_batch_and_exact(name: str, weights: dict[str, Path], batches: list[int]) -> None:
    runner = EpisodeRunner(MISSION, [PolicySource(name, weights=weights[name])])
    plans = plan_episodes((0, 0, 0, 0), 2, SEED)

    found = together(runner, plans)

    assert found == one_by_one(runner, plans)
    assert batches == [8]


def test_networks_with_other_weights_are_other_batches(batches: list[int]) -> None:
    """Untrained, each episode draws its own."""
    runner = EpisodeRunner(MISSION, [PolicySource("lstm_corrected", {"hidden_size": 32})])
    plans = plan_episodes((0, 0, 0, 0), 2, SEED)

    assert together(runner, plans) == one_by_one(runner, plans)
    assert batches == [4, 4]


def test_a_team_with_policies_that_share_global_random_state(weights: dict[str, Path], batches: list[int]) -> None:
    names = ["random", "lstm", "starter", "puffer"]
    sources = [PolicySource(name, weights=weights.get(name)) for name in names]
    runner = EpisodeRunner(MISSION, sources)
    plans = plan_episodes(seats_from_proportions(4, [1.0] * 4), 3, SEED)

    assert together(runner, plans) == one_by_one(runner, plans)
    assert batches == [3, 3]


def test_policies_that_cannot_be_batched_are_played_one_after_the_other(batches: list[int]) -> None:
    runner = EpisodeRunner(MISSION, [PolicySource("starter"), PolicySource("random")])
    plans = plan_episodes((0, 0, 1, 1), 3, SEED)
    begun: list[int] = []
    results = runner.run_together(plans)
    for result in results:
        assert isinstance(result, EpisodeOutcome)
        begun.append(result.index)
        assert comparable(result) == comparable(runner.run(plans[result.index]))

    assert begun == [0, 1, 2]
    assert batches == []


@pytest.mark.parametrize("steps", [1, batching.CHECKED_STEPS - 1, batching.CHECKED_STEPS, batching.CHECKED_STEPS + 1])
def test_episodes_shorter_than_the_check(steps: int, weights: dict[str, Path]) -> None:
    mission = dataclasses.replace(MISSION, max_steps=steps)
    runner = EpisodeRunner(mission, [PolicySource("lstm", weights=weights["lstm"])])
    plans = plan_episodes((0, 0, 0, 0), 2, SEED)

    assert together(runner, plans) == one_by_one(runner, plans)


def test_a_limit_for_each_action_means_no_batches(weights: dict[str, Path], batches: list[int]) -> None:
    source = PolicySource("lstm", weights=weights["lstm"])
    runner = EpisodeRunner(MISSION, [source], max_action_time_ms=59_999)

    assert together(runner, plan_episodes((0, 0, 0, 0), 2, SEED)) != []
    assert batches == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Dropout", "the last bits of the network's output"),
        ("MixesRows", "the last bits of the network's output"),
        ("Counts", "the last bits of the network's output"),
        ("OffInBatches", "the last bits of the network's output"),
        ("OwnStep", None),
        ("FailsInSeatTwo", None),
    ],
)
def test_what_a_batch_would_change_is_not_batched(
    name: str, why: str | None, users_policies: Path, batches: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    runner = EpisodeRunner(MISSION, [PolicySource(f"users_policies.{name}", code=users_policies)])
    plans = plan_episodes((0, 0, 0, 0), 2, SEED)

    with caplog.at_level(logging.INFO, "daf_cogames.play.episodes"):
        found = together(runner, plans)

    assert found == one_by_one(runner, plans)
    assert batches == []
    assert why is None or f"in a batch, {why}" in caplog.text


@pytest.mark.parametrize("name", ["GoesMad", "Fails"])
def test_a_batch_that_cannot_go_on_is_played_one_by_one(
    name: str, users_policies: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Alone, an episode has more than 30 calls of its network; so both ways it fails, and is blamed in the same way."""
    source = PolicySource(f"users_policies.{name}", code=users_policies)
    runner = EpisodeRunner(dataclasses.replace(MISSION, max_steps=40), [source, PolicySource("starter")])
    plans = plan_episodes((0, 0, 1, 1), 2, SEED)

    found = together(runner, plans)

    assert found == one_by_one(runner, plans)
    assert all(isinstance(result, str) and result.startswith("policy 0 in seat") for result in found)
    assert "played one by one" in caplog.text


def test_a_failure_costs_only_its_own_episode(weights: dict[str, Path], users_policies: Path) -> None:
    good = PolicySource("lstm", weights=weights["lstm"])
    runner = EpisodeRunner(MISSION, [good, PolicySource("users_policies.FailsInSeatTwo", code=users_policies)])
    plans = [EpisodePlan(0, 1, (0, 0, 0, 1)), EpisodePlan(1, 2, (0, 0, 1, 0)), EpisodePlan(2, 3, (0, 0, 0, 0))]

    found = together(runner, plans)

    assert found == one_by_one(runner, plans)
    assert found[1] == "policy 1 in seat 2 failed to step: RuntimeError: not in this seat"
    assert isinstance(found[0], EpisodeOutcome)


def test_fast_batches_say_that_they_are_approximate(users_policies: Path, batches: list[int]) -> None:
    runner = EpisodeRunner(MISSION, [PolicySource("users_policies.OffInBatches", code=users_policies)])
    plans = plan_episodes((0, 0, 0, 0), 2, SEED)

    found = list(runner.run_together(plans, fast=True))

    for result, exact in zip(found, one_by_one(runner, plans), strict=True):
        assert isinstance(result, EpisodeOutcome)
        assert isinstance(exact, EpisodeOutcome)
        assert (result.approximate, exact.approximate) == (True, False)
        assert result.digest != exact.digest
        assert result.map_digest == exact.map_digest
    assert batches == [4, 4]


def test_fast_changes_nothing_where_batches_are_exact(weights: dict[str, Path]) -> None:
    runner = EpisodeRunner(MISSION, [PolicySource("lstm", weights=weights["lstm"])])
    plans = plan_episodes((0, 0, 0, 0), 2, SEED)

    assert together(runner, plans, fast=True) == one_by_one(runner, plans)


@pytest.mark.parametrize("name", ["Dropout", "Counts"])
def test_fast_does_not_batch_what_is_far_off(name: str, users_policies: Path, batches: list[int]) -> None:
    runner = EpisodeRunner(MISSION, [PolicySource(f"users_policies.{name}", code=users_policies)])
    plans = plan_episodes((0, 0, 0, 0), 2, SEED)

    assert together(runner, plans, fast=True) == one_by_one(runner, plans)
    assert batches == []


def test_what_is_said_of_a_class_is_checked(
    weights: dict[str, Path], batches: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As if the step of a class had changed since what is said of it was written."""
    wrong = dataclasses.replace(known_agents._LSTM_AS_SHIPPED, see=known_agents.as_it_is)
    monkeypatch.setattr(known_agents, "_STEPPING", {LSTMAgentPolicy: wrong})
    runner = EpisodeRunner(MISSION, [PolicySource("lstm", weights=weights["lstm"])])
    plans = plan_episodes((0, 0, 0, 0), 2, SEED)

    with caplog.at_level(logging.INFO, "daf_cogames.play.episodes"):
        found = together(runner, plans)

    assert found == one_by_one(runner, plans)
    assert batches == []
    assert "in a batch, the observation of agent 0 in step 0 differs" in caplog.text


def test_equal_networks_are_kept_once(weights: dict[str, Path]) -> None:
    environment = PolicyEnvInterface.from_mg_cfg(build_mission(MISSION))
    networks = []
    for _ in range(2):
        network = LSTMPolicyNet(environment)
        network.load_state_dict(torch.load(weights["lstm"]))
        networks.append(network)

    batching._refer(networks[1], networks[0])

    addresses = [[parameter.data_ptr() for parameter in network.parameters()] for network in networks]
    assert addresses[0] == addresses[1]


def test_latencies_count_a_batch_once(weights: dict[str, Path]) -> None:
    runner = EpisodeRunner(MISSION, [PolicySource("lstm", weights=weights["lstm"])])

    results = list(runner.run_together(plan_episodes((0, 0, 0, 0), 2, SEED)))

    for result in results:
        assert isinstance(result, EpisodeOutcome)
        latency = result.latencies[0]
        assert latency.steps == sum(latency.buckets) == 4 * 10
        assert 0 < latency.total_nanoseconds < latency.steps * latency.longest_nanoseconds


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(4)), group=st.integers(1, 4))
def test_neither_order_nor_grouping_changes_an_episode(
    order: list[int], group: int, weights: dict[str, Path], expected: dict[int, str]
) -> None:
    plans = plan_episodes((0, 0, 1, 1), 4, SEED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(episodes, "GROUP", group)
        results = list(team(weights).run_together([plans[number] for number in order]))

    assert [result.index for result in results if isinstance(result, EpisodeOutcome)] == order
    assert {result.index: result.digest for result in results if isinstance(result, EpisodeOutcome)} == expected


@pytest.fixture(scope="module")
def expected(weights: dict[str, Path]) -> dict[int, str]:
    """The digests of four episodes, played one by one."""
    return {plan.index: team(weights).run(plan).digest for plan in plan_episodes((0, 0, 1, 1), 4, SEED)}


def team(weights: dict[str, Path]) -> EpisodeRunner:
    """One policy that draws from the global random state, and one whose network has weights."""
    mission = Mission("cogsguard_arena.basic", cogs=4, max_steps=8)
    return EpisodeRunner(mission, [PolicySource("random"), PolicySource("stateless_corrected")])
