"""Training for real: workers, a lost one, checkpoints that plain CoGames loads, going on with a run that has ended."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.daf_command import Daf
from tests.e2e.conftest import ROOT

pytestmark = pytest.mark.timeout(1800)

MISSION = "cogsguard_machina_1.miner_tutorial"
RUN = [
    *("-m", MISSION, "--cogs", "4", "--max-steps", "30", "--num-envs", "2"),
    *("-p", "grid_policy.GridPolicy", "--code", str(ROOT / "examples/policies/grid_policy.py")),
    *("--set", "policy.hidden_size=16", "--set", "bptt_horizon=16", "--set", "minibatch_size=64"),
]

LOADED_BY_COGAMES = """
import hashlib, json, sys
from cogames.cli.mission import get_mission
from mettagrid.policy.loader import initialize_or_load_policy
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.util.uri_resolvers.schemes import policy_spec_from_uri
import torch

uri, mission = sys.argv[1:]
spec = policy_spec_from_uri(uri)
_, config, _ = get_mission(mission, cogs=4)
policy = initialize_or_load_policy(PolicyEnvInterface.from_mg_cfg(config), spec)
saved = torch.load(spec.data_path, weights_only=True)
loaded = policy.network().state_dict()
assert saved.keys() == loaded.keys()
assert all(torch.equal(saved[name], loaded[name]) for name in saved)
assert not any(name.startswith("daf") for name in sys.modules)
with open(spec.data_path, "rb") as file:
    print(json.dumps([spec.class_path, hashlib.file_digest(file, "sha256").hexdigest()]))
"""


FROM_PYTHON = """
import json
import torch
from cogames.cli.mission import get_mission
from daf import distributed_training

_, env_cfg, _ = get_mission("cogsguard_machina_1.miner_tutorial", cogs=4)
env_cfg.game.max_steps = 30
job = distributed_training.daf_launch_distributed_training(
    env_cfg=env_cfg,
    policy_class_path="lstm",
    device=torch.device("cpu"),
    num_steps=256,
    num_machines=2,
    hyperparameters={"bptt_horizon": 16, "minibatch_size": 64},
    wait=False,
)
checkpoint = job.wait_for_completion()
status = distributed_training.daf_get_training_status("train_dir")
total = distributed_training.daf_aggregate_training_stats(job, "sum")
result = [job.status, str(checkpoint), job.training_steps, job.num_workers, job.training_rate()]
print(json.dumps([*result, status, total]))
"""


def load_with_plain_cogames(uri: str, directory: Path) -> Any:
    """Class and digest of the weights that CoGames' own loader took, in a process that knows nothing of DAF."""
    command = [sys.executable, "-c", LOADED_BY_COGAMES, uri, MISSION]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_run_of_two_workers_goes_on_longer_and_its_checkpoints_are_loaded_by_plain_cogames(
    daf: Daf, tmp_path: Path
) -> None:
    daf("train", *RUN, "--steps", "1024", "--workers", "2", "--checkpoint-steps", "256", "--name", "one")
    first = daf.json("job", "checkpoints", "one")["checkpoints"]
    refused = daf("job", "resume", "one", code=6)
    daf("job", "resume", "one", "--steps", "1536", "--workers", "1")

    job = daf.json("job", "get", "one")["training_job"]
    attempts = daf.json("job", "attempts", "one")["attempts"]
    checkpoints = daf.json("job", "checkpoints", "one")["checkpoints"]
    rows = list(csv.DictReader(io.StringIO(daf("job", "metrics", "one", "--metric", "learning_rate", "--csv"))))
    saved = daf.json("job", "checkpoints", "get", "one", "--output", str(tmp_path / "one:v7"))

    assert "agent_steps" in refused
    assert [int(checkpoint["agent_steps"]) for checkpoint in first] == [1024, 768, 512, 256]
    assert (job["state"], job["progress"]["agent_steps"]) == ("TRAINING_JOB_STATE_SUCCEEDED", "1536")
    assert [(attempt["number"], attempt["workers"]) for attempt in attempts] == [(2, 1), (1, 2)]
    assert attempts[0]["resumed_from"] == first[0]["name"]
    assert int(checkpoints[0]["agent_steps"]) == 1536
    assert [int(row["agent_steps"]) for row in rows] == sorted({int(row["agent_steps"]) for row in rows})
    assert all(float(row["learning_rate"]) > 0 for row in rows)

    loaded = load_with_plain_cogames(f"{tmp_path}/one:v7", tmp_path)
    newest = load_with_plain_cogames(f"{tmp_path}:latest", tmp_path)
    assert loaded == newest == ["grid_policy.GridPolicy", saved["checkpoint"]["weights"]["sha256"]]

    scored = daf.json("evaluate", "-p", "job/one/checkpoints/best", "-m", MISSION, "--cogs", "4", "--steps", "30",
                      "--episodes", "1")  # fmt: skip
    assert scored["evaluation"]["state"] == "EVALUATION_STATE_SUCCEEDED"

    daf("train", *RUN, "--steps", "128", "--from", "job/one/checkpoints/best", "--name", "two")
    started = daf.json("job", "get", "two")["training_job"]
    assert started["spec"]["start"]["weights"] == scored["evaluation"]["spec"]["policies"][0]["checkpoint"]["weights"]
    assert started["checkpoint"]["parent"] == started["spec"]["start"]["checkpoint"]
    daf("train", *RUN, "--steps", "128", "--from", str(tmp_path / "one:v7/weights.pt"), "--name", "three")
    assert daf.json("job", "get", "three")["training_job"]["state"] == "TRAINING_JOB_STATE_SUCCEEDED"

    daf("job", "delete", "one", "--yes")
    assert "no training job one" in daf("job", "checkpoints", "one", code=4)


def test_a_run_that_loses_a_worker_goes_on_by_itself(daf: Daf) -> None:
    daf("up")
    training = daf.start("train", *RUN, "--steps", "1000000000", "--workers", "2", "--checkpoint-steps",
                         "256", "--max-restarts", "1", "--name", "one")  # fmt: skip
    daf.wait_for(lambda: has_saved(daf))

    os.kill(last_rank(daf.home), signal.SIGKILL)
    daf.wait_for(lambda: bool(daf.json("job", "attempts", "one")["attempts"][0]["resumed_from"]))
    daf("job", "cancel", "one")
    output, errors = training.communicate(timeout=240)

    attempts = daf.json("job", "attempts", "one")["attempts"]
    assert training.returncode == 1
    assert "daf: trainingJobs/one cancelled" in errors
    assert "attempt 1 ended at" in output
    assert "; attempt 2 goes on from update " in output
    assert attempts[1]["failure"]["reason"]
    assert attempts[0]["resumed_from"].startswith("trainingJobs/one/checkpoints/")


def test_python_trains_on_a_config_object_on_several_workers(daf: Daf, tmp_path: Path) -> None:
    daf("up")
    environment = {**os.environ, "DAF_HOME": str(daf.home)}
    command = [sys.executable, "-c", FROM_PYTHON]

    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
    )

    assert done.returncode == 0, done.stderr
    state, checkpoint, steps, workers, rate, status, total = json.loads(done.stdout.splitlines()[-1])
    assert (state, workers) == ("succeeded", 2)
    assert steps == status["agent_steps"] == status["total_agent_steps"] >= 256
    assert rate > 0
    assert checkpoint == str(tmp_path / status["latest_checkpoint"])
    assert total["memory_bytes"] > 2e8
    class_path, _ = load_with_plain_cogames("./train_dir:latest", tmp_path)
    assert class_path == "mettagrid.policy.lstm.LSTMPolicy"


def has_saved(daf: Daf) -> bool:
    """Whether the only job has a checkpoint."""
    jobs = daf.json("job", "list")["training_jobs"]
    return bool(jobs) and "checkpoint" in jobs[0]


def last_rank(home: Path) -> int:
    """Process id of a worker of the only job that runs."""
    (lock,) = (lock for lock in home.glob("workers/*/lock") if not (lock.parent / "exit").exists())
    return max(child.pid for child in psutil.Process(int(lock.read_text())).children())
