"""A network's answers that were worked out in a batch change nothing about the agents that ask."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from daf_cogames.code import on_path
from daf_cogames.missions import Mission
from daf_cogames.play import foretelling
from daf_cogames.play.batching import CHECKED_STEPS
from daf_cogames.play.episodes import EpisodeOutcome, EpisodeRunner
from daf_cogames.play.failures import PolicyFailure
from daf_cogames.policies import PolicySource
from daf_cogames.seating import EpisodePlan, plan_episodes

MISSION = Mission("cogsguard_arena.basic", cogs=4, max_steps=12)
EPISODES, AGENTS, SEED = 2, 4, 7
PLANS = plan_episodes((0,) * AGENTS, EPISODES, SEED)
ALL = EPISODES * AGENTS * (MISSION.max_steps - CHECKED_STEPS)
"""Calls of networks after the check, in all episodes, when each agent calls once a step."""

OWN_POLICIES = """
import numpy as np
import torch
from mettagrid.policy.policy import MultiAgentPolicy, StatefulAgentPolicy, StatefulPolicyImpl
from mettagrid.simulator import Action

class Net(torch.nn.Module):
    "Keeps its state in a dictionary that it is given, and changes it there."
    def __init__(self, environment):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.body = torch.nn.Linear(600, 32)
        self.memory = torch.nn.LSTM(32, 32, batch_first=True)
        self.action = torch.nn.Linear(32, len(environment.action_names))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
        self.state = self.memory.weight_hh_l0.new_zeros(1, 1, 32)

    def forward_eval(self, seen, state):
        before = None if state["h"] is None else (state["h"][None], state["c"][None])
        hidden, (h, c) = self.memory(torch.relu(self.body(seen.flatten(1).float() / 255))[:, None], before)
        state["h"], state["c"] = h[0], c[0]
        return self.action(hidden[:, 0]), hidden[:, 0].sum(1, keepdim=True)

class Own(MultiAgentPolicy):
    "In a style of its own: it shares one object between agents, which is told who is stepping."
    Net = Net

    def __init__(self, policy_env_info, device="cpu"):
        super().__init__(policy_env_info, device=device)
        self.net = self.Net(policy_env_info)
        self.names = policy_env_info.action_names
        self.steps = 0

    def network(self):
        return self.net

    def agent_policy(self, agent_id):
        return StatefulAgentPolicy(Step(self), self._policy_env_info, agent_id=agent_id)

    def start(self):
        return {"h": None, "c": None}

    def see(self, obs):
        seen = np.full((200, 3), 255, np.uint8)
        for place, token in enumerate(obs.tokens):
            seen[place] = token.raw_token
        return torch.from_numpy(seen)[None]

    def ask(self, obs, state):
        state = dict(state)
        logits, _ = self.net.forward_eval(self.see(obs), state)
        return logits, state

    def step(self, obs, state):
        self.steps += 1
        logits, state = self.ask(obs, state)
        return Action(name=self.names[int(torch.distributions.Categorical(logits=logits).sample())]), state

class Step(StatefulPolicyImpl):
    def __init__(self, policy):
        self.policy = policy

    def initial_agent_state(self):
        return self.policy.start()

    def step_with_state(self, obs, state):
        return self.policy.step(obs, state)

class Tuples(Own):
    "Is given a tuple in the layout of torch's LSTM, and numbers; returns a list; is called as a module."
    class Net(Net):
        def forward(self, seen, state=None, *, scale):
            hidden, state = self.memory(torch.relu(self.body(seen.flatten(1)))[:, None] * scale, state)
            return [self.action(hidden[:, 0]), state]

    def start(self):
        return torch.zeros(1, 1, 32), torch.zeros(1, 1, 32)

    def see(self, obs):
        return super().see(obs).float() / 255.0

    def ask(self, obs, state):
        return self.net(self.see(obs), state, scale=0.5)

class NoState(Own):
    class Net(Net):
        def forward(self, seen):
            return self.action(torch.relu(self.body(seen)))

    def ask(self, obs, state):
        return self.net(self.see(obs).float().flatten(1)), state

class ReturnsItsDictionary(Own):
    class Net(Net):
        def forward(self, seen, state):
            return {"logits": self.forward_eval(seen, state)[0], "state": state}

    def ask(self, obs, state):
        found = self.net(seen=self.see(obs), state=dict(state))
        return found["logits"], found["state"]

class ChangesWhatItGets(Own):
    "In place, after the network and before it."
    def ask(self, obs, state):
        if self.steps > 30:
            state["h"].mul_(0.5)
        logits, state = super().ask(obs, state)
        logits.mul_(3)
        if self.steps > 40:
            state["c"].zero_()
        return logits, state

class Forgets(Own):
    "Now and then."
    def ask(self, obs, state):
        return super().ask(obs, self.start() if self.steps % 10 == 9 and self.steps > 20 else state)

class Rests(Own):
    "Does not ask at times; and then twice."
    def step(self, obs, state):
        if self.steps % 5 == 4 and self.steps > 20:
            self.steps += 1
            return Action(name="noop"), state
        if self.steps % 7 == 6 and self.steps > 20:
            self.ask(obs, state)
        return super().step(obs, state)

class SharedNumbers(Own):
    "Draws, before it asks, numbers that its agents share."
    def see(self, obs):
        if np.random.rand() < 0.3:
            self.steps += 1
        return super().see(obs)

    def step(self, obs, state):
        action, state = super().step(obs, state)
        return (Action(name="noop") if self.steps % 2 else action), state

class FailsInBatches(Own):
    asked = []
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        original, self.asked = self.net.body.forward, []
        def forward(given):
            self.asked.append(len(given))
            if len(given) > 1 and len(self.asked) > 21:
                raise RuntimeError("too many")
            return original(given)
        self.net.body.forward = forward

class Untrained(Own):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        torch.nn.init.normal_(self.net.action.weight)

class Fails(Own):
    def see(self, obs):
        if self.steps > 30:
            raise RuntimeError("tired")
        return super().see(obs)

class KeepsWhatItSaw(Own):
    class Net(Net):
        def forward_eval(self, seen, state):
            self.saw = seen
            return super().forward_eval(seen, state)

class Draws(Own):
    class Net(Net):
        def forward_eval(self, seen, state):
            np.random.rand()
            return super().forward_eval(seen, state)

class MixesRows(Own):
    class Net(Net):
        def forward_eval(self, seen, state):
            logits, value = super().forward_eval(seen, state)
            return logits - logits.mean(0, keepdim=True) / 100, value

class SeesOtherwise(Own):
    def see(self, obs):
        return super().see(obs).flip(1)

class Counts(Own):
    class Net(Net):
        def forward(self, seen, state, count):
            return self.forward_eval(seen, state)

    def ask(self, obs, state):
        state = dict(state)
        return self.net(self.see(obs), state, self.steps)[0], state

class AsksTwice(Own):
    def ask(self, obs, state):
        super().ask(obs, state)
        return super().ask(obs, state)

class NeverAsks(Own):
    def ask(self, obs, state):
        return torch.zeros(1, len(self.names)), state

class GivesObjects(Own):
    class Net(Net):
        def forward(self, seen, state):
            return iter(self.forward_eval(seen, state))

    def ask(self, obs, state):
        state = dict(state)
        return next(self.net(self.see(obs), state)), state

class HidesItsNetwork(Own):
    def network(self):
        raise RuntimeError("no")
"""


@pytest.fixture(autouse=True)
def own_policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Networks that are so small that to foretell them saves no time are foretold all the same."""
    monkeypatch.setattr(foretelling, "COMPARING_NANOSECONDS", -(10**12))
    torch.set_num_threads(1)
    code = tmp_path / "code"
    code.mkdir()
    (code / "own_policies.py").write_text(OWN_POLICIES)
    with on_path(code):
        yield code


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One entry for each answer that was foretold and given."""
    answers: list[object] = []
    original = foretelling.give

    def give(*args: Any) -> Any:
        answers.append(None)
        return original(*args)

    monkeypatch.setattr(foretelling, "give", give)
    return answers


def own(name: str, code: Path) -> EpisodeRunner:
    return EpisodeRunner(MISSION, [PolicySource(f"own_policies.{name}", code=code), PolicySource("random")])


def one_by_one(runner: EpisodeRunner, plans: Sequence[EpisodePlan] = PLANS) -> list[EpisodeOutcome | str]:
    return [comparable(outcome_or_failure(runner, plan)) for plan in plans]


def together(runner: EpisodeRunner, plans: Sequence[EpisodePlan] = PLANS) -> list[EpisodeOutcome | str]:
    return [comparable(result) for result in runner.run_together(plans)]


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


@pytest.mark.parametrize("name", ["Own", "Tuples", "NoState", "ReturnsItsDictionary", "SharedNumbers"])
def test_all_answers_are_foretold(name: str, own_policies: Path, given: list[object]) -> None:
    runner = own(name, own_policies)

    assert together(runner) == one_by_one(runner)
    assert len(given) == ALL


@pytest.mark.parametrize("name", ["ChangesWhatItGets", "Forgets", "Rests", "FailsInBatches"])
def test_what_was_not_foreseen_is_asked(name: str, own_policies: Path, given: list[object]) -> None:
    runner = own(name, own_policies)

    assert together(runner) == one_by_one(runner)
    assert ALL / 4 < len(given) < ALL


def test_the_template_of_cogames_for_own_policies(given: list[object]) -> None:
    source = PolicySource("cogames.policy.trainable_policy_template.MyTrainablePolicy")
    runner = EpisodeRunner(MISSION, [source])

    assert together(runner) == one_by_one(runner)
    assert len(given) == ALL


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("KeepsWhatItSaw", "does more than to answer"),
        ("Draws", "does more than to answer"),
        ("MixesRows", "the last bits"),
        ("SeesOtherwise", "not what the environment shows"),
        ("Counts", "alike"),
        ("AsksTwice", "several times in a step"),
        ("NeverAsks", "not asked in each step"),
        ("GivesObjects", "tuple_iterator"),
        ("HidesItsNetwork", ""),
    ],
)
def test_what_cannot_be_foretold_is_asked(
    name: str, why: str, own_policies: Path, given: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    runner = own(name, own_policies)

    with caplog.at_level(logging.INFO, "daf_cogames.play.episodes"):
        found = together(runner)

    assert found == one_by_one(runner)
    assert given == []
    assert why in caplog.text


def test_a_network_that_answers_quickly_is_asked(
    own_policies: Path, given: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foretelling, "COMPARING_NANOSECONDS", 10**12)
    runner = own("Own", own_policies)

    assert together(runner) == one_by_one(runner)
    assert given == []


def test_where_one_network_cannot_be_foretold_none_is(
    own_policies: Path, given: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Untrained, each episode has a network of its own."""
    checks = iter([-(10**12), 10**12])

    class Quick(foretelling.Foretelling):
        def _check_time(self) -> None:
            monkeypatch.setattr(foretelling, "COMPARING_NANOSECONDS", next(checks))
            super()._check_time()

    monkeypatch.setattr(foretelling, "Foretelling", Quick)
    runner = own("Untrained", own_policies)

    assert together(runner) == one_by_one(runner)
    assert given == []
    assert next(checks, None) is None


def test_a_failure_is_its_own_agent_s(own_policies: Path, given: list[object]) -> None:
    runner = own("Fails", own_policies)

    found = together(runner)

    assert found == one_by_one(runner)
    assert found[0] == "policy 0 in seat 2 failed to step: RuntimeError: tired"
    assert given != []


def test_a_team_with_a_policy_that_shares_random_state(own_policies: Path, given: list[object]) -> None:
    runner = own("Own", own_policies)
    plans = [EpisodePlan(0, 1, (0, 1, 0, 1)), EpisodePlan(1, 2, (1, 1, 1, 1)), EpisodePlan(2, 3, (1, 0, 0, 0))]

    assert together(runner, plans) == one_by_one(runner, plans)
    assert len(given) == 5 * (MISSION.max_steps - CHECKED_STEPS)


def test_latencies_count_the_batch(own_policies: Path) -> None:
    for result in own("Own", own_policies).run_together(PLANS):
        assert isinstance(result, EpisodeOutcome)
        latency = result.latencies[0]
        assert latency.steps == sum(latency.buckets) == AGENTS * MISSION.max_steps
