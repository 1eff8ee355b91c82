"""The catalogue says what cogames really does, is read without cogames, and refuses what cannot work."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from mettagrid.policy.lstm import obs_to_obs_tensor
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.policy.puffer_default import PufferDefaultPolicy
from mettagrid.policy.pufferlib import PufferlibStatefulImpl
from mettagrid.simulator import AgentObservation

from daf_cogames import catalog_build
from daf_cogames.aliases import MISSION_ALIASES
from daf_cogames.arguments import HARD_CODED
from daf_cogames.catalog import (
    agent_count,
    catalog,
    check_mission,
    check_policy,
    find_policy,
    resolve_mission,
    resolve_policy,
)
from daf_cogames.missions import Mission, MissionError, build_mission, mission_names
from daf_cogames.play.episodes import engine_versions
from daf_cogames.policies import PolicySource, load_policy

ARENA = "cogsguard_arena.basic"


def test_it_is_read_without_cogames() -> None:
    code = (
        "import sys, daf_cogames.catalog as c\n"
        "assert len(c.catalog().missions) > 40 and c.resolve_policy('lstm').name\n"
        "assert not {'torch', 'cogames', 'mettagrid', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_was_built_from_the_installed_versions() -> None:
    versions = catalog().versions

    assert versions == {name: engine_versions()[name] for name in versions}
    assert set(versions) == {"cogames", "mettagrid"}


def test_it_lists_what_cogames_has() -> None:
    assert tuple(catalog().missions) == mission_names()
    assert list(catalog().variants.values()) == catalog_build.variant_entries()
    assert list(catalog().policies.values()) == catalog_build.policy_entries()


@pytest.mark.parametrize("name", [ARENA, "evals.diagnostic_memory", "training_facility.easy_hearts_training"])
def test_a_missions_entry_is_what_building_it_shows(name: str) -> None:
    assert catalog().missions[name] == catalog_build.mission_entry(name)


def test_a_check_of_an_outdated_file_fails(
    tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(catalog_build, "build_catalog", lambda: {"versions": {}})

    assert catalog_build.main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "field", "message", "broken"),
    [
        ({"name": "cogsguard_arena.Basic"}, "name", "did you mean 'cogsguard_arena.basic'?", False),
        ({"name": "cogsguard_arena.basic "}, "name", "did you mean 'cogsguard_arena.basic'?", False),
        ({"name": "miner_tutorail"}, "name", "did you mean 'cogsguard_machina_1.miner_tutorial'?", False),
        ({"name": "basic"}, "name", "'cogsguard_arena.basic' or 'cogsguard_machina_1.basic'?", False),
        ({"name": "*"}, "name", "is no name but a path or a pattern", False),
        ({"name": "../mission.py"}, "name", "is no name but a path or a pattern", False),
        ({"name": "mission.yaml"}, "name", "is no name but a path or a pattern", False),
        ({"name": "x" * 1_000_000}, "name", "unknown mission", False),
        ({"name": "training_facility.easy_hearts_training", "cogs": 4}, "name", "Unknown object type: hub", True),
        ({"name": ARENA, "variants": ["darkside"]}, "variants[0]", "did you mean 'dark_side'?", False),
        ({"name": ARENA, "variants": ["objective_mine:-1"]}, "variants[0]", "unknown variant", False),
        (
            {"name": "evals.diagnostic_memory", "cogs": 4, "variants": ["caves"]},
            "variants[0]",
            "cannot be applied",
            False,
        ),
        ({"name": ARENA, "cogs": 0}, "cogs", "takes 1 to 20 cogs, not 0", False),
        ({"name": ARENA, "cogs": 21}, "cogs", "takes 1 to 20 cogs, not 21", False),
        ({"name": "evals.diagnostic_memory"}, "cogs", "with its default of 8 cogs; it does with 1, 2, 3, 4", False),
        ({"name": "cogsguard_machina_1.miner_tutorial", "cogs": 8}, "cogs", "it does with 1, 2, 3, 4", False),
        ({"name": ARENA, "max_steps": 0}, "max_steps", "at least 1", False),
        ({"name": ARENA, "difficulty": "Easy"}, "difficulty", "did you mean 'easy'?", False),
    ],
)
def test_a_mission_that_cannot_be_built_is_refused(
    arguments: dict[str, object], field: str, message: str, broken: bool
) -> None:
    problems = check_mission(**arguments)  # type: ignore[arg-type]

    assert [(problem.field, problem.broken) for problem in problems] == [(field, broken)]
    assert message in problems[0].message
    with pytest.raises(MissionError):
        build_mission(Mission(**{**arguments, "variants": tuple(arguments.get("variants", ()))}))  # type: ignore[arg-type]


def test_every_problem_is_named_at_once() -> None:
    problems = check_mission("nowhere.nothing", variants=["nothing"], max_steps=-1, difficulty="none")

    assert {problem.field for problem in problems} == {"name", "variants[0]", "max_steps", "difficulty"}


@pytest.mark.parametrize(
    ("name", "variants", "cogs"),
    [
        (ARENA, (), None),
        (ARENA, ("multi_team",), None),
        (ARENA, ("multi_team", "objective_mine:2"), 4),
        (ARENA, ("dark_side",), 3),
        ("cogsguard_machina_1.miner_tutorial", ("multi_team",), None),
        ("cogsguard_evals.extractor_hub_50x50", (), None),
    ],
)
def test_the_agent_count_is_that_of_the_built_mission(name: str, variants: tuple[str, ...], cogs: int | None) -> None:
    assert check_mission(name, variants, cogs) == []
    assert agent_count(name, variants, cogs) == build_mission(Mission(name, variants, cogs)).game.num_agents


def test_old_mission_names_mean_missions_that_build() -> None:
    for alias, meant in MISSION_ALIASES.items():
        resolved = resolve_mission(alias)
        assert resolved.name == meant
        assert check_mission(meant) == []
        assert f"{alias} exists in no current cogames" in resolved.warnings[0]
    assert resolve_mission(ARENA).warnings == ()


def test_policy_names_resolve_to_class_paths() -> None:
    assert resolve_policy("lstm").name == "mettagrid.policy.lstm.LSTMPolicy"
    assert resolve_policy("cogames.policy.lstm.LSTMPolicy").name == "daf_cogames.corrected.LSTMPolicy"
    assert resolve_policy("lstm_corrected").name == "daf_cogames.corrected.LSTMPolicy"
    assert resolve_policy("baseline").name == "cogames.policy.starter_agent.StarterPolicy"
    assert resolve_policy("my_module.MyPolicy") == resolve_policy("my_module.MyPolicy")
    assert resolve_policy("my_module.MyPolicy").warnings == ()
    with pytest.raises(LookupError, match="did you mean 'starter'"):
        resolve_policy("startr")


def test_a_user_is_told_what_a_name_hides() -> None:
    assert "exists in no current cogames" in resolve_policy("baseline").warnings[0]
    [warning] = resolve_policy("mettagrid.policy.lstm.LSTMPolicy").warnings
    assert "pads observations" in warning
    assert "lstm_corrected" in warning
    [replaced] = resolve_policy("cogames.policy.lstm.LSTMPolicy").warnings
    assert "daf_cogames.corrected.LSTMPolicy takes its place" in replaced


@pytest.mark.parametrize(
    ("name", "arguments", "training", "field", "message"),
    [
        ("lstm", {"hidden_size": 64}, True, "arguments.hidden_size", "that of lstm_corrected can be set"),
        ("tutorial", {"hidden_size": 64}, True, "arguments.hidden_size", "it is always 512"),
        ("puffer", {"hiden_size": 64}, True, "arguments.hiden_size", "did you mean 'hidden_size'?"),
        ("puffer", {"hidden_size": "64"}, True, "arguments.hidden_size", "must be int, not '64'"),
        ("starter", {}, True, "class_path", "no network, so it cannot be trained"),
        ("stateless", {}, False, "class_path", "cannot play an episode: AttributeError"),
        ("no-such", {}, False, "class_path", "unknown policy"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(
    name: str, arguments: dict[str, bool | int | float | str], training: bool, field: str, message: str
) -> None:
    problems = check_policy(name, arguments, training=training)

    assert [problem.field for problem in problems] == [field]
    assert message in problems[0].message


def test_what_is_said_to_be_hard_coded_is() -> None:
    environment = PolicyEnvInterface.from_mg_cfg(build_mission(Mission(ARENA, cogs=2)))
    for class_path, sizes in HARD_CODED.items():
        network = load_policy(PolicySource(class_path), environment).network()
        assert network is not None
        assert f"always {network.hidden_size}" in sizes["hidden_size"]


def test_policies_that_work_are_not_refused() -> None:
    assert check_policy("puffer", {"hidden_size": 64}, training=True) == []
    assert check_policy("stateless", {}, training=True) == []
    assert check_policy("my_module.MyPolicy", {"anything": 1}, training=True) == []


def test_the_warned_of_policies_still_see_other_padding_in_evaluation_than_the_environment_makes() -> None:
    environment = PolicyEnvInterface.from_mg_cfg(build_mission(Mission(ARENA, cogs=2)))
    shape = environment.observation_space.shape
    nothing_seen = AgentObservation(agent_id=0, tokens=[])

    padded = obs_to_obs_tensor(nothing_seen, shape, torch.device("cpu"))

    assert find_policy("lstm") is not None
    assert np.array_equal(padded[0, 0].numpy(), [255, 0, 0])
    seen: list[torch.Tensor] = []
    puffer = PufferDefaultPolicy(environment, hidden_size=8)
    network = puffer.network()
    original = network.forward_eval
    network.forward_eval = lambda observation, state: (seen.append(observation), original(observation, state))[1]  # type: ignore[func-returns-value, assignment]
    puffer.agent_policy(0).step(nothing_seen)
    assert np.array_equal(seen[0].reshape(-1, 3)[0].numpy(), [255, 0, 0])


def test_the_warned_of_policy_still_divides_in_evaluation() -> None:
    environment = PolicyEnvInterface.from_mg_cfg(build_mission(Mission(ARENA, cogs=2)))
    seen: list[torch.Tensor] = []

    class Network(torch.nn.Module):
        def forward_eval(self, observation: torch.Tensor, state: object) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append(observation)
            return torch.zeros(1, len(environment.action_names)), torch.zeros(1, 1)

    implementation = PufferlibStatefulImpl(Network(), environment, torch.device("cpu"), is_recurrent=False)
    implementation.step_with_state(AgentObservation(agent_id=0, tokens=[]), {})

    assert seen[0].max() == 1.0


def test_the_runners_packages_are_those_that_the_lock_installs_for_it() -> None:
    runner = catalog().runner

    assert runner == catalog_build.runner_entry()
    assert {"cogames", "torch", "numpy", "pufferlib-core", "protobuf"} <= set(runner.packages)
    assert not {"pytest", "optuna", "daf-common"} & set(runner.packages)
    assert all("+" not in found for found in runner.packages.values())
    assert {"cogames", "torch", "yaml", "google", "daf_cogames"} <= set(runner.modules)
    assert not {"pytest", "optuna"} & set(runner.modules)
