"""The corrected policies see in an episode what they saw in training; those of CoGames do not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cogames.seed import seed_rollout_rng
from mettagrid import PufferMettaGridEnv
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.runner.rollout import resolve_env_for_seed
from mettagrid.simulator.simulator import Simulator

import daf_cogames
from daf_cogames.catalog import find_policy, policy_sources
from daf_cogames.missions import Mission, build_mission
from daf_cogames.play.episodes import EpisodeRunner, episode_random_seed
from daf_cogames.play.failures import PolicyFailure
from daf_cogames.policies import PolicyError, PolicySource, load_policy
from daf_cogames.seating import EpisodePlan
from daf_cogames.training.train import TrainingPlan, train

MISSION = Mission("cogsguard_machina_1.miner_tutorial", cogs=4, max_steps=100)
NAMES = ["lstm", "puffer", "pufferlib_cogs", "stateless"]
SEED = 3


@dataclass
class Environment:
    """What training steps."""

    puffer: PufferMettaGridEnv
    interface: PolicyEnvInterface
    observations: np.ndarray[Any, np.dtype[np.uint8]]


@pytest.fixture
def environment() -> Iterator[Environment]:
    config = resolve_env_for_seed(build_mission(MISSION), SEED)
    env = PufferMettaGridEnv(Simulator(), config, seed=SEED)
    env._simulator = Simulator()  # the old one would give the next map
    observations, _ = env.reset(seed=SEED)
    yield Environment(env, PolicyEnvInterface.from_mg_cfg(config), observations)
    env.close()


def seen_while_playing(policy: Any, environment: Environment) -> np.ndarray[Any, Any]:
    """What the network is given for the observations of all agents."""
    seen: list[torch.Tensor] = []
    network = policy.network()
    original = network.forward_eval

    def watched(observations: torch.Tensor, state: Any = None) -> Any:
        seen.append(observations)
        return original(observations, state)

    network.forward_eval = watched
    for agent in environment.puffer.current_simulation.agents():
        policy.agent_policy(agent.id).step(agent.observation)
    network.forward_eval = original
    return torch.cat(seen).reshape(environment.observations.shape).float().numpy()


@pytest.mark.parametrize("name", NAMES)
def test_the_network_is_given_what_the_environment_gives_it_in_training(name: str, environment: Environment) -> None:
    policy = load_policy(PolicySource(f"{name}_corrected"), environment.interface)
    actions = np.random.default_rng(0).integers(len(environment.interface.action_names), size=(10, 4))

    for chosen in actions:
        assert np.array_equal(seen_while_playing(policy, environment), environment.observations)
        environment.puffer.step(chosen)


@pytest.mark.parametrize("name", ["lstm", "puffer", "pufferlib_cogs"])
def test_as_shipped_the_network_is_given_something_else(name: str, environment: Environment) -> None:
    policy = load_policy(PolicySource(name), environment.interface)

    assert not np.array_equal(seen_while_playing(policy, environment), environment.observations)


def test_as_shipped_the_feed_forward_policy_cannot_play() -> None:
    runner = EpisodeRunner(MISSION, [PolicySource("stateless")])

    with pytest.raises(PolicyFailure, match="_infos"):
        runner.run(EpisodePlan(0, SEED, (0, 0, 0, 0)))


@pytest.mark.parametrize("name", NAMES)
def test_what_was_learnt_is_what_is_scored(name: str, environment: Environment, tmp_path: Path) -> None:
    """An episode has the rewards that the trained network earns when it is stepped as training steps it."""
    weights = trained(f"{name}_corrected", tmp_path)

    scored = rewards_of(PolicySource(f"{name}_corrected", weights=weights))

    source = PolicySource(f"{name}_corrected", weights=weights)
    assert scored == pytest.approx(earned_as_in_training(source, environment), abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_weights_fit_the_shipped_class_and_the_corrected_one(
    name: str, environment: Environment, tmp_path: Path
) -> None:
    for source, target in ((name, f"{name}_corrected"), (f"{name}_corrected", name)):
        original = load_policy(PolicySource(source), environment.interface)
        original.save_policy_data(str(tmp_path / "weights.pt"))

        loaded = load_policy(PolicySource(target, weights=tmp_path / "weights.pt"), environment.interface)

        expected, found = original.network(), loaded.network()
        assert expected is not None
        assert found is not None
        assert found.state_dict().keys() == expected.state_dict().keys()
        assert all(torch.equal(found.state_dict()[key], value) for key, value in expected.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_untrained_weights_are_the_shipped_ones_for_the_same_seed(name: str, environment: Environment) -> None:
    found = []
    for class_path in (name, f"{name}_corrected"):
        torch.manual_seed(1)
        network = load_policy(PolicySource(class_path), environment.interface).network()
        assert network is not None
        found.append(network.state_dict())

    assert all(torch.equal(value, found[1][key]) for key, value in found[0].items())


@pytest.mark.parametrize("size", [16, 128, 200])
def test_the_recurrent_policy_takes_its_width(size: int, environment: Environment, tmp_path: Path) -> None:
    policy: Any = load_policy(PolicySource("lstm_corrected", {"hidden_size": size}), environment.interface)

    state = policy.network().state_dict()
    assert policy.network().hidden_size == size
    assert state["_rnn.weight_hh_l0"].shape == (4 * size, size)
    assert state["_action_head.weight"].shape[1] == size
    assert np.array_equal(seen_while_playing(policy, environment), environment.observations)


def test_another_width_is_trained_and_scored(environment: Environment, tmp_path: Path) -> None:
    weights = trained("lstm_corrected", tmp_path, hidden_size=16)
    source = PolicySource("lstm_corrected", {"hidden_size": 16}, weights=weights)

    assert rewards_of(source) == pytest.approx(earned_as_in_training(source, environment), abs=1e-5)


@pytest.mark.parametrize("name", ["puffer_corrected", "pufferlib_cogs_corrected", "lstm_corrected"])
def test_a_misspelt_argument_is_refused(name: str, environment: Environment) -> None:
    with pytest.raises(PolicyError, match="did you mean 'hidden_size'"):
        load_policy(PolicySource(name, {"hiden_size": 32}), environment.interface)


def trained(name: str, directory: Path, **arguments: int) -> Path:
    plan = TrainingPlan(
        missions=(MISSION,),
        policy=PolicySource(name, arguments),
        agent_steps=4096,
        num_envs=4,
        seed=0,
        directory=directory,
        trainer={"learning_rate": 0.003, "minibatch_size": 256, "bptt_horizon": 16},
    )
    outcome = train(plan, on_progress=lambda progress: None, on_checkpoint=lambda saved: None, stop=lambda: None)
    assert outcome.checkpoint is not None
    return outcome.checkpoint.weights.path


def rewards_of(source: PolicySource) -> tuple[float, ...]:
    return EpisodeRunner(MISSION, [source]).run(EpisodePlan(0, SEED, (0, 0, 0, 0))).rewards


def earned_as_in_training(source: PolicySource, environment: Environment) -> tuple[float, ...]:
    """The rewards of an episode on what the environment itself hands over, as PuffeRL steps it: without tokens."""
    seed_rollout_rng(episode_random_seed(SEED, 0))
    policy: Any = load_policy(source, environment.interface)
    network, recurrent = policy.network(), policy.is_recurrent()
    network.eval()
    states: list[Any] = [{"lstm_h": None, "lstm_c": None} if recurrent else None for _ in range(4)]
    if recurrent and "lstm" in source.class_path:
        zero = torch.zeros(1, network.hidden_size)
        states = [{"lstm_h": zero, "lstm_c": zero} for _ in range(4)]
    rewards = np.zeros(4)
    observations = environment.observations
    for _ in range(MISSION.max_steps or 0):
        actions = []
        for agent, state in enumerate(states):
            with torch.no_grad():
                logits, _ = network.forward_eval(torch.from_numpy(observations[agent : agent + 1].copy()), state)
            actions.append(int(torch.distributions.Categorical(logits=logits).sample()))
        observations, earned, *_ = environment.puffer.step(np.array(actions))
        rewards += earned
    return tuple(rewards)


PLAIN_COGAMES = """
import importlib.util, json, sys
sys.path = [entry for entry in sys.path if entry != sys.argv[2]]
assert importlib.util.find_spec("daf_cogames") is None
from cogames.cli.mission import get_mission
from mettagrid.runner.rollout import run_episode_local
from mettagrid.util.uri_resolvers.schemes import policy_spec_from_uri

spec = policy_spec_from_uri(sys.argv[1])
_, env, _ = get_mission("cogsguard_machina_1.miner_tutorial", cogs=4, steps=5)
result, _ = run_episode_local(policy_specs=[spec], assignments=[0] * 4, env=env, seed=1)
assert sys.modules["daf_cogames.corrected"].__file__.startswith(sys.argv[1]), "not the file that came along"
print(json.dumps([spec.class_path, spec.init_kwargs, result.steps]))
"""


@pytest.mark.parametrize("name", NAMES)
def test_plain_cogames_loads_a_checkpoint_with_its_source_files(
    name: str, environment: Environment, tmp_path: Path
) -> None:
    arguments = {"hidden_size": 16} if name == "lstm" else {}
    entry = find_policy(f"{name}_corrected")
    assert entry is not None
    policy = load_policy(PolicySource(entry.class_path, arguments), environment.interface)
    policy.save_policy_data(str(tmp_path / "weights.pt"))
    spec = {"class_path": entry.class_path, "data_path": "weights.pt", "init_kwargs": arguments}
    (tmp_path / "policy_spec.json").write_text(json.dumps(spec))
    for path, text in policy_sources(entry).items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)

    workspace = str(Path(daf_cogames.__file__).parents[1])
    program = [sys.executable, "-c", PLAIN_COGAMES, str(tmp_path), workspace]
    played = subprocess.run(program, capture_output=True, text=True, check=False, cwd="/")

    assert played.returncode == 0, played.stderr
    assert json.loads(played.stdout.splitlines()[-1]) == [entry.class_path, arguments, 5]


def test_policies_of_cogames_need_no_source_files() -> None:
    entry = find_policy("lstm")
    assert entry is not None
    assert policy_sources(entry) == {}
