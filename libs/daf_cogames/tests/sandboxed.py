"""Policies that do as a test wants, as bundles, and the processes that they play in."""

from __future__ import annotations

import json
import textwrap
import time
from pathlib import Path

import psutil

from daf_cogames.policies import PolicySource
from daf_cogames.sandbox.bundle_files import bundle_policy

POLICY = """
import os, sys
from mettagrid.policy.policy import AgentPolicy, MultiAgentPolicy
from mettagrid.simulator import Action

class Agent(AgentPolicy):
    def step(self, obs):
        {step}
        return Action(name="noop")

class Policy(MultiAgentPolicy):
    def __init__(self, policy_env_info, device="cpu", **kwargs):
        super().__init__(policy_env_info)
        {load}

    def agent_policy(self, agent_id):
        return Agent(self._policy_env_info)
"""


def make_bundle(root: Path, load: str = "pass", step: str = "pass") -> PolicySource:
    """The directory of a bundle, whose policy runs this code when it is made and in each step."""
    root.mkdir()
    parts = {"load": load, "step": step}
    parts = {name: textwrap.indent(textwrap.dedent(code), " " * 8).strip() for name, code in parts.items()}
    (root / "hostile.py").write_text(POLICY.format(**parts))
    (root / "policy_spec.json").write_text(json.dumps({"class_path": "hostile.Policy"}))
    return bundle_policy(root)


def processes() -> list[psutil.Process]:
    """The processes of policies; those that were killed are given time to end."""
    for _ in range(3000):
        warm = [child for child in psutil.Process().children() if "daf_cogames.sandbox.child" in child.cmdline()]
        forked = [child for process in warm for child in process.children(recursive=True)]
        alive = [child for child in forked if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        if not alive:
            break
        time.sleep(0.01)
    return alive
