"""A policy whose code needs a package that the runner lacks: trained, scored, and exported to trackers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.daf_command import Daf
from tests.e2e.conftest import ROOT

pytestmark = pytest.mark.timeout(1800)

POLICY = """
import tiny_sizes
from grid_policy import GridPolicy

class SizedPolicy(GridPolicy):
    def __init__(self, policy_env_info, device="cpu"):
        super().__init__(policy_env_info, hidden_size=tiny_sizes.HIDDEN, device=device)
"""
RUN = """
missions: [{mission: cogsguard_machina_1.miner_tutorial, cogs: 4, max_steps: 20}]
policy: sized_policy.SizedPolicy
code: [sized_policy.py, grid_policy.py]
training:
  agent_steps: 1536
  num_envs: 2
  trainer: {minibatch_size: 512}
tracking: {tensorboard: runs}
"""


def test_a_policy_is_trained_and_scored_with_the_packages_that_it_needs(
    new_daf: Callable[[str], Daf],
    make_wheel: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_wheel(tmp_path / "index", "tiny_sizes", "1.0", {"tiny_sizes/__init__.py": "HIDDEN = 8\n"}, needs=["numpy"])
    (tmp_path / "uv.toml").write_text("no-index = true\n")
    monkeypatch.setenv("UV_CONFIG_FILE", str(tmp_path / "uv.toml"))
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "sized_policy.py").write_text(POLICY)
    (tmp_path / "grid_policy.py").write_bytes((ROOT / "examples" / "policies" / "grid_policy.py").read_bytes())
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "requirements.txt").write_text("tiny-sizes>=1  # how large networks are\n")
    daf = new_daf("home")

    refused = daf("train", str(tmp_path / "run.yaml"), code=2)
    assert "sized_policy.py, line 2, imports tiny_sizes" in refused
    assert not daf.json("job", "list")["training_jobs"]

    job = daf.json(
        "train", str(tmp_path / "run.yaml"), "--requirements", str(tmp_path / "requirements.txt"), "--name", "sized"
    )["training_job"]
    assert job["state"] == "TRAINING_JOB_STATE_SUCCEEDED"
    assert int(job["effective_trainer"]["policy_parameters"]["integer"]) < 1_000_000  # that of a hidden size of 8

    score = daf.json(
        "evaluate", "-p", "job/sized/checkpoints/latest", "-m", "cogsguard_machina_1.miner_tutorial",
        "--cogs", "4", "--steps", "20", "--episodes", "2",
    )  # fmt: skip
    assert score["summary"]["policies"][0]["episodes"] == 2

    reader = EventAccumulator(str(tmp_path / "runs" / "sized"), size_guidance={"scalars": 0})
    reader.Reload()
    assert [event.step for event in reader.Scalars("losses/policy_loss")][-1] == 1536
