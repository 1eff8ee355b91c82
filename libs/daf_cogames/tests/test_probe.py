"""The questions that a client asks the runner's Python, answered by a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from cogames.cli.login import DEFAULT_COGAMES_SERVER, CoGamesAuthenticator

from daf_cogames import probe
from daf_cogames.catalog import resolve_policy
from daf_cogames.missions import Mission
from daf_cogames.policies import PolicySource
from daf_cogames.training.train import TrainingPlan, train

MINER = "cogsguard_machina_1.miner_tutorial"
TOKEN = "tok-4711-secret"


def ask(questions: dict[str, Any], home: Path) -> tuple[dict[str, Any], str]:
    done = subprocess.run(
        [sys.executable, "-m", "daf_cogames.probe"],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HOME": str(home)},
    )
    return json.loads(done.stdout), done.stdout + done.stderr


def test_one_process_answers_all_questions_and_a_failing_one_stops_no_other(tmp_path: Path) -> None:
    questions = {
        "network": {"class_path": "no.such.Policy", "mission": {"name": MINER, "cogs": 4}},
        "machine": {},
        "missions": {"names": [MINER, "training_facility_1", "miner_tutoral"]},
        "device": {},
    }

    answers, _ = ask(questions, tmp_path)

    assert "cannot import 'no.such.Policy'" in answers["network"]["problem"]
    assert 0 < answers["machine"]["available_bytes"] <= answers["machine"]["memory_bytes"]
    assert answers["machine"]["memory_bytes"] <= psutil.virtual_memory().total
    problems = answers["missions"]["problems"]
    assert (problems[MINER], problems["training_facility_1"]) == ("", "")
    assert "miner_tutoral" in problems["miner_tutoral"]
    assert answers["device"]["recommended"] in ("cpu", "cuda", "mps")
    assert bool(answers["device"]["gpus"]) == (answers["device"]["recommended"] == "cuda")


def test_the_size_of_a_network_is_that_of_the_checkpoint_that_training_saves(tmp_path: Path) -> None:
    saved = []
    mission = Mission("cogsguard_arena.basic", cogs=4, max_steps=40)
    train(
        TrainingPlan((mission,), PolicySource(resolve_policy("lstm").name), 1, num_envs=2, seed=1, directory=tmp_path),
        on_progress=lambda progress: None,
        on_checkpoint=saved.append,
        stop=lambda: None,
    )

    found = probe.network({"class_path": "lstm", "mission": {"name": mission.name, "cogs": 4, "max_steps": 40}})

    assert found["weights_bytes"] == pytest.approx(saved[0].weights.size, rel=0.05)
    assert found["optimizer_bytes"] == pytest.approx(saved[0].trainer_state.size, rel=0.05)


def test_the_network_of_a_users_own_policy_is_measured(tmp_path: Path) -> None:
    (tmp_path / "small_policy.py").write_text(
        "import torch\n"
        "from mettagrid.policy.policy import MultiAgentPolicy\n"
        "class Small(MultiAgentPolicy):\n"
        "    def __init__(self, policy_env_info, hidden_size: int = 8):\n"
        "        super().__init__(policy_env_info)\n"
        "        self.net = torch.nn.Linear(10, hidden_size)\n"
        "    def network(self):\n"
        "        return self.net\n"
        "    def agent_policy(self, agent_id):\n"
        "        raise NotImplementedError\n"
    )
    question = {
        "class_path": "small_policy.Small",
        "arguments": {"hidden_size": 100},
        "code": str(tmp_path),
        "mission": {"name": MINER, "cogs": 4},
    }

    answers, _ = ask({"network": question}, tmp_path)

    assert answers["network"] == {"parameters": 1100, "weights_bytes": 4400, "optimizer_bytes": 8800}


def test_a_users_own_mission_is_built(tmp_path: Path) -> None:
    mission = tmp_path / "three.py"
    mission.write_text(
        "from cogames.cli.mission import get_mission\n"
        "def get_config():\n"
        "    return get_mission('cogsguard_arena.basic', cogs=3, steps=25)[1]\n"
    )
    (tmp_path / "broken.yaml").write_text("game: [")

    good, _ = ask({"own_mission": {"file": str(mission)}}, tmp_path)
    bad, _ = ask({"own_mission": {"file": str(tmp_path / "broken.yaml")}}, tmp_path)
    sized, _ = ask({"network": {"class_path": "lstm", "mission": {"file": str(mission)}}}, tmp_path)

    assert good["own_mission"] == {"agents": 3}
    assert "broken.yaml" in bad["own_mission"]["problem"]
    assert sized["network"]["parameters"] > 1000


def test_a_login_is_found_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "none").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    CoGamesAuthenticator().config_reader_writer.save_token(TOKEN, DEFAULT_COGAMES_SERVER)

    without, _ = ask({"sign_in": {}}, tmp_path / "none")
    signed_in, said = ask({"sign_in": {}}, tmp_path)

    assert without["sign_in"] == {"signed_in": False}
    assert not list((tmp_path / "none").iterdir())
    assert signed_in["sign_in"]["signed_in"] is True
    assert TOKEN not in said


def test_memory_is_no_more_than_the_container_may_have(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(f"{512 << 20}\n")
    (tmp_path / "memory.current").write_text(f"{500 << 20}\n")

    found = probe.machine({}, tmp_path)

    assert (found["memory_bytes"], found["available_bytes"]) == (512 << 20, 12 << 20)


@pytest.mark.skipif(probe.device({})["recommended"] != "cuda", reason="there is no GPU here")
def test_nccl_works_where_there_is_a_gpu() -> None:
    assert probe.nccl({})["works"]
