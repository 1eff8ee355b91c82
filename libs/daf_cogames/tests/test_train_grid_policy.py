"""The example of a user's own policy, trained and played."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mettagrid.policy.policy import PolicySpec
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.runner.rollout import run_episode_local

from daf_cogames.missions import Mission, build_mission
from daf_cogames.policies import PolicySource
from daf_cogames.training.cogames_trainer import cogames_train
from daf_cogames.training.train import TrainingPlan, train

EXAMPLES = Path(__file__).parents[3] / "examples" / "policies"
MISSION = Mission("cogsguard_machina_1.miner_tutorial", cogs=4, max_steps=30)


@pytest.fixture(autouse=True)
def examples_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    sys.modules.pop("grid_policy", None)


def trained(directory, **arguments):
    plan = TrainingPlan(
        missions=(MISSION,),
        policy=PolicySource("grid_policy.GridPolicy", arguments),
        agent_steps=1024,
        num_envs=2,
        seed=0,
        directory=directory,
    )
    return train(plan, on_progress=lambda progress: None, on_checkpoint=lambda saved: None, stop=lambda: None)


@pytest.mark.parametrize("recurrent", [True, False])
def test_it_is_trained_and_then_plays_with_its_weights(tmp_path, recurrent):
    arguments = {"hidden_size": 16, "recurrent": recurrent}
    outcome = trained(tmp_path, **arguments)
    weights = outcome.checkpoint.weights.path
    spec = PolicySpec(class_path="grid_policy.GridPolicy", data_path=str(weights), init_kwargs=arguments)

    def play():
        torch.manual_seed(1)
        result, _ = run_episode_local(policy_specs=[spec], assignments=[0] * 4, env=build_mission(MISSION), seed=1)
        return result

    first, second = play(), play()
    assert outcome.configuration.recurrent is recurrent
    assert first.steps == 30
    assert (first.rewards, first.stats) == (second.rewards, second.stats)


def test_hidden_size_changes_the_network(tmp_path):
    small = trained(tmp_path / "small", hidden_size=8).configuration.policy_parameters
    large = trained(tmp_path / "large", hidden_size=16).configuration.policy_parameters

    assert large > 1.9 * small


def test_it_sees_the_same_while_playing_as_while_training(monkeypatch):
    """Several policies of cogames do not, and score lower than they have learned."""
    config = build_mission(MISSION)
    environment = PolicyEnvInterface.from_mg_cfg(config)
    env = cogames_train._EnvCreator(config, None, None, 0)(seed=0)
    in_training = np.array(env.reset(seed=0)[0])

    import grid_policy

    policy = grid_policy.GridPolicy(environment, hidden_size=8)
    while_playing = []
    monkeypatch.setattr(
        policy.network(),
        "forward_eval",
        lambda tokens, state: while_playing.append(tokens[0].numpy()) or (torch.zeros(1, 5), None),
    )
    for agent in env.current_simulation.agents():
        policy.agent_policy(agent.id).step(agent.observation)
    env.close()

    assert np.array_equal(np.stack(while_playing), in_training)


def test_it_plays_on_an_empty_observation():
    import grid_policy
    from mettagrid.simulator import AgentObservation

    environment = PolicyEnvInterface.from_mg_cfg(build_mission(MISSION))
    agent = grid_policy.GridPolicy(environment, hidden_size=8).agent_policy(0)

    assert agent.step(AgentObservation(agent_id=0, tokens=[])).name in environment.action_names
