"""Evaluation throughput beside `cogames.evaluate`, on the same policy, mission and seeds, in the same run.

The peer is one process that calls `cogames.evaluate.evaluate()`; its imports are not counted. Ours goes through the
services, warm: plan, shards, leases, worker processes, statistics; everything from the request to the result is
counted. Both are timed in turn, several times, and the ratio of each pair is what counts, as the machine is noisy.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MISSION, COGS, STEPS, POLICY = "cogsguard_machina_1.miner_tutorial", 4, 500, "starter"
EPISODES, ROUNDS, SEED = 24, 3, 3_000_000
TARGET_RATIO = 1.8

PEER = """
import io, json, sys, time
from rich.console import Console
import torch
from cogames.cli.mission import get_mission
from cogames.evaluate import evaluate
from mettagrid.policy.policy import PolicySpec
from mettagrid.policy.loader import resolve_policy_class_path

mission, cogs, steps, policy, episodes, seed = json.loads(sys.argv[1])
torch.set_num_threads(1)
name, config, _ = get_mission(mission, cogs=cogs, steps=steps)
spec = PolicySpec(class_path=resolve_policy_class_path(policy))
out, sys.stdout = sys.stdout, io.StringIO()
start = time.perf_counter()
summaries = evaluate(Console(file=io.StringIO()), [(name, config)], [spec], [1.0], episodes, 10_000, seed=seed)
seconds = time.perf_counter() - start
rewards = [float(sum(e) / len(e)) for e in summaries[0].per_episode_per_policy_avg_rewards.values()]
print(json.dumps({"seconds": seconds, "rewards": rewards}), file=out)
"""


def peer(episodes: int) -> dict[str, Any]:
    """One sequential cogames process."""
    arguments = json.dumps([MISSION, COGS, STEPS, POLICY, episodes, SEED])
    command = [sys.executable, "-W", "ignore", "-c", PEER, arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


class Stack:
    """The embedded stack with the `daf` command."""

    def __init__(self, home: Path) -> None:
        self._environment = {**os.environ, "DAF_HOME": str(home)}

    def daf(self, *arguments: str) -> str:
        """Runs a command; returns what it printed."""
        command = [str(Path(sys.executable).parent / "daf"), *arguments]
        return subprocess.run(command, env=self._environment, check=True, stdout=subprocess.PIPE, text=True).stdout

    def evaluate(self, episodes: int) -> dict[str, Any]:
        """One evaluation; its wall time is that of the whole command."""
        start = time.perf_counter()
        options = ["-p", POLICY, "-m", MISSION, "--cogs", str(COGS), "--steps", str(STEPS)]
        output = self.daf("evaluate", *options, "--episodes", str(episodes), "--seed", str(SEED), "--json")
        return {"seconds": time.perf_counter() - start, "rewards": values(json.loads(output))}


def values(output: dict[str, Any]) -> list[float]:
    """The reward of each episode, mean over the agents."""
    (policy,) = output["summary"]["policies"]
    return [float(value) for value in policy["values"]]


def main() -> None:
    """Prints the figures."""
    print(f"{POLICY} on {MISSION}, {COGS} agents, {STEPS} steps, {EPISODES} episodes, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as directory:
        stack = Stack(Path(directory) / "home")
        stack.daf("up")
        try:
            stack.evaluate(2)  # warm, as it is after the first command of a day
            pairs = []
            for _ in range(ROUNDS):
                theirs, ours = peer(EPISODES), stack.evaluate(EPISODES)
                pairs.append((theirs["seconds"], ours["seconds"]))
                same = sum(abs(a - b) == 0 for a, b in zip(theirs["rewards"], ours["rewards"], strict=True))
                print(
                    f"cogames.evaluate {EPISODES / pairs[-1][0]:.2f} episodes/s, daf evaluate "
                    f"{EPISODES / pairs[-1][1]:.2f} episodes/s, ratio {pairs[-1][0] / pairs[-1][1]:.2f}, "
                    f"equal rewards {same} of {EPISODES}"
                )
        finally:
            stack.daf("down")
    ratio = statistics.median(theirs / ours for theirs, ours in pairs)
    print(f"median ratio {ratio:.2f} (target at least {TARGET_RATIO} on two cores)")


if __name__ == "__main__":
    main()
