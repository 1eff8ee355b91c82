"""A policy in a sandbox plays as it does in process, to the bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.simulator.simulator import Simulator

from daf_cogames.catalog import find_policy, policy_sources
from daf_cogames.missions import Mission, build_mission
from daf_cogames.play.decoding import _observation, _plain
from daf_cogames.play.episodes import EpisodeOutcome, EpisodeRunner
from daf_cogames.play.observations import decoded, encoded
from daf_cogames.policies import PolicyError, PolicySource, load_policy
from daf_cogames.sandbox.bundle_files import bundle_policy
from daf_cogames.sandbox.sandbox import Sandbox
from daf_cogames.seating import EpisodePlan

MISSION = Mission("cogsguard_machina_1.basic", cogs=4, max_steps=15)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(60) as sandbox:
        yield sandbox


def played(sources: list[PolicySource], seats: tuple[int, ...], seed: int = 3) -> EpisodeOutcome:
    return EpisodeRunner(MISSION, sources).run(EpisodePlan(0, seed, seats))


def apart(source: PolicySource, sandbox: Sandbox) -> PolicySource:
    return dataclasses.replace(source, elsewhere=sandbox)


@pytest.mark.parametrize(
    "name",
    [
        "starter",
        "noop",
        "random",
        "lstm",
        "miner",
        "scout",
        "mettagrid.policy.puffer_default.PufferDefaultPolicy",
        "daf_cogames.corrected.LSTMPolicy",
        "daf_cogames.corrected.StatelessPolicy",
    ],
)
def test_a_policy_that_plays_alone(sandbox: Sandbox, name: str) -> None:
    source = PolicySource(name)

    assert played([apart(source, sandbox)], (0,) * 4).digest == played([source], (0,) * 4).digest


def test_a_network_with_weights(sandbox: Sandbox, tmp_path: Path) -> None:
    torch.manual_seed(5)
    environment = PolicyEnvInterface.from_mg_cfg(build_mission(MISSION))
    load_policy(PolicySource("lstm"), environment).save_policy_data(str(tmp_path / "weights.pt"))
    source = PolicySource("lstm", weights=tmp_path / "weights.pt")

    assert played([apart(source, sandbox)], (0,) * 4).digest == played([source], (0,) * 4).digest


def test_a_team_of_policies_that_own_their_randomness(sandbox: Sandbox) -> None:
    sources = [PolicySource("starter"), PolicySource("noop")]
    seats = (0, 1, 1, 0)
    here = played(sources, seats).digest

    assert played([apart(source, sandbox) for source in sources], seats).digest == here
    assert played([apart(sources[0], sandbox), sources[1]], seats).digest == here


def test_a_random_team_repeats_and_each_has_a_stream_of_its_own(sandbox: Sandbox) -> None:
    sources = [apart(PolicySource("random"), sandbox)] * 2

    first, again = (played(sources, (0, 0, 1, 1)) for _ in range(2))

    assert first.digest == again.digest
    one, other = first.agent_stats[0], first.agent_stats[2]
    assert one != other


def test_a_bundle_with_a_copy_of_an_installed_module_plays_it(sandbox: Sandbox, tmp_path: Path) -> None:
    """Checkpoints are downloaded so, for plain cogames."""
    entry = find_policy("daf_cogames.corrected.LSTMPolicy")
    assert entry is not None
    for name, text in policy_sources(entry).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "policy_spec.json").write_text('{"class_path": "daf_cogames.corrected.LSTMPolicy"}')
    source = apart(bundle_policy(tmp_path), sandbox)
    here = played([PolicySource("daf_cogames.corrected.LSTMPolicy")], (0,) * 4)

    assert played([source], (0,) * 4).digest == here.digest

    with (tmp_path / "daf_cogames" / "corrected.py").open("a") as module:
        module.write("# changed\n")
    environment = PolicyEnvInterface.from_mg_cfg(build_mission(MISSION))
    with pytest.raises(PolicyError, match="has the name of an installed module"):
        sandbox.load(dataclasses.replace(source, elsewhere=None), environment, "cpu")


def test_an_observation_is_the_same_after_the_way_there() -> None:
    simulation = Simulator().new_simulation(build_mission(MISSION), seed=1)
    tokens = PolicyEnvInterface.from_mg_cfg(build_mission(MISSION)).observation_shape[0]
    for agent in simulation.agents():
        seen = _observation(agent)
        rows = torch.frombuffer(bytearray(encoded(seen, tokens)), dtype=torch.uint8).numpy().reshape(tokens, 3)
        assert _plain(decoded(agent.id, rows, simulation._features)) == _plain(seen)
    empty = dataclasses.replace(seen, tokens=[])
    assert encoded(empty, tokens) == b"\xff" * (3 * tokens)
