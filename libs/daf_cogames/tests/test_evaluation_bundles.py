"""Policies from bundles, evaluated by the real services and workers: each plays as its class does in process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.policy_pb2 import Policy, PolicyClass
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationState, Team
from libs.daf_cogames.tests.evaluation_stack import EPISODES, Stack, policy, running

SUCCEEDED = EvaluationState.EVALUATION_STATE_SUCCEEDED
SOLO = Team.TEAM_SOLO

WALKER = """
import random
from pathlib import Path

import torch
from mettagrid.policy.policy import AgentPolicy, MultiAgentPolicy
from mettagrid.simulator import Action

class Walker(MultiAgentPolicy):
    def __init__(self, policy_env_info, device="cpu"):
        super().__init__(policy_env_info)
        self.names = ["noop"]

    def load_policy_data(self, path):
        self.names = Path(path).read_text().split()

    def agent_policy(self, agent_id):
        return Agent(self._policy_env_info, self.names)

class Agent(AgentPolicy):
    def __init__(self, environment, names):
        super().__init__(environment)
        self.names = names

    def step(self, obs):
        draw = random.random() + float(torch.rand(1))
        return Action(name=self.names[int(draw * 100 + len(obs.tokens)) % len(self.names)])
"""

NAMES = "move_north move_south move_west move_east noop"

MADE_BY_SETUP = """
from walker import Walker
import made

class Prepared(Walker):
    def load_policy_data(self, path):
        super().load_policy_data(path)
        assert made.NAMES == self.names
"""

SETUP = """
import shutil
from pathlib import Path
assert __name__ == "__main__"
shutil.copy("data/names.txt", "copy.txt")
Path("made.py").write_text(f"NAMES = {Path('copy.txt').read_text().split()!r}")
"""


@pytest.fixture
async def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stack]:
    monkeypatch.setenv("DAF_EVALUATION_SLOTS", "3")
    async with running(tmp_path / "home") as stack:
        yield stack


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user of cogames has written a policy."""
    work = tmp_path / "work"
    (work / "data").mkdir(parents=True)
    (work / "walker.py").write_text(WALKER)
    (work / "prepared.py").write_text(MADE_BY_SETUP)
    (work / "prepare.py").write_text(SETUP)
    (work / "data" / "names.txt").write_text(NAMES)
    return work


def cogames_bundle(work: Path, *arguments: str) -> bytes:
    """What cogames' own command makes."""
    command = [str(Path(sys.executable).parent / "cogames"), "create-bundle", "-o", "bundle.zip", *arguments]
    subprocess.run(command, cwd=work, check=True, capture_output=True, timeout=120)
    return (work / "bundle.zip").read_bytes()


async def stored(stack: Stack, content: bytes, media_type: str = "application/zip") -> Artifact:
    return await stack.artifacts.put(content, media_type)


async def test_a_bundle_plays_as_its_class_does_in_process(stack: Stack, work: Path) -> None:
    starter = Policy(bundle=await stored(stack, cogames_bundle(work, "-p", "starter")))
    include = ["-f", "walker.py", "-f", "prepared.py"]
    made = cogames_bundle(
        work, "-p", "class=prepared.Prepared,data=data/names.txt", *include, "--setup-script", "prepare.py"
    )
    prepared = Policy(bundle=await stored(stack, made))
    walker = Policy()
    walker.checkpoint.policy_class.CopyFrom(
        PolicyClass(class_path="walker.Walker", code=await stack.put_archive({"walker.py": WALKER}))
    )
    walker.checkpoint.weights.CopyFrom(await stored(stack, NAMES.encode(), "application/octet-stream"))

    await stack.create("inside", policies=[policy("cogames.policy.starter_agent.StarterPolicy"), walker], team=SOLO)
    await stack.create("bundled", policies=[starter, prepared], team=SOLO)

    inside, bundled = await stack.ended("inside"), await stack.ended("bundled")
    assert (inside.state, bundled.state) == (SUCCEEDED, SUCCEEDED)
    episodes = await stack.episodes("bundled")
    assert [episode.forfeits for episode in episodes] == [[]] * len(episodes)
    assert bundled.digest == inside.digest
    assert len({str(statistics) for episode in episodes for statistics in episode.agent_statistics}) > EPISODES


async def test_isolated_policies_play_as_they_do_in_process(stack: Stack) -> None:
    code = await stack.put_archive({"walker.py": WALKER})
    policies = [policy("starter"), policy("walker.Walker", code=code)]

    await stack.create("together", policies=policies, team=SOLO, episodes=2)
    await stack.create("isolated", policies=policies, team=SOLO, episodes=2, isolated=True)

    assert (await stack.ended("isolated")).digest == (await stack.ended("together")).digest


async def test_a_bundle_that_ends_badly_forfeits_and_the_others_go_on(stack: Stack) -> None:
    hangs = await bundle(stack, {"hangs.py": WALKER + "\nwhile True: pass\n"}, class_path="hangs.Walker")
    dies = await bundle(stack, {"dies.py": "import os\nos._exit(5)\n"}, class_path="dies.Walker")
    shadows = await bundle(stack, {"torch.py": WALKER}, class_path="torch.Walker")
    no_class = await bundle(stack, {"empty.py": ""}, class_path="empty.Walker")
    no_set_up = await bundle(
        stack, {"fine.py": WALKER, "prepare.py": "raise OSError('no compiler')"}, "fine.Walker", setup="prepare.py"
    )

    policies = [policy("starter"), hangs, dies, shadows, no_class, no_set_up]
    await stack.create("team", policies=policies, team=SOLO, episodes=1, time_limit_seconds=5)

    ended = await stack.ended("team")
    assert ended.state == SUCCEEDED, ended.failure
    forfeits = {forfeit.subject: forfeit for episode in await stack.episodes("team") for forfeit in episode.forfeits}
    assert sorted(forfeits) == ["1", "2", "3", "4", "5"]
    assert [forfeits[str(number)].reason for number in range(1, 6)] == [
        "POLICY_HUNG",
        "POLICY_CRASHED",
        "POLICY_FAILED",
        "POLICY_FAILED",
        "POLICY_FAILED",
    ]
    assert "loading takes longer than 5 s" in forfeits["1"].message
    assert "exit code 5" in forfeits["2"].message
    assert "rename it" in forfeits["3"].message
    assert "Walker" in forfeits["4"].message
    assert "no compiler" in forfeits["5"].message


async def test_a_bundle_that_cannot_be_used_ends_the_evaluation_with_the_reason(stack: Stack) -> None:
    broken = await bundle(stack, {"walker.py": WALKER}, "walker.Walker", data_path="/etc/passwd")

    await stack.create("broken", policies=[broken])

    ended = await stack.ended("broken")
    assert (ended.state, ended.failure.reason) == (EvaluationState.EVALUATION_STATE_FAILED, "POLICY_INVALID")
    assert "data_path in policy_spec.json is '/etc/passwd'" in ended.failure.message


async def bundle(stack: Stack, files: dict[str, str], class_path: str, setup: str | None = None, **spec: Any) -> Policy:
    described = {"class_path": class_path, "setup_script": setup, **spec}
    return Policy(bundle=await stack.put_archive({"policy_spec.json": json.dumps(described), **files}))
