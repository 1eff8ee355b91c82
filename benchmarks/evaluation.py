"""Evaluation throughput beside `cogames.evaluate`, on the same policy, mission and seeds, in the same run.

The peer is one process that calls `cogames.evaluate.evaluate()`; its imports are not counted. Ours goes through the
services, warm: plan, shards, leases, worker processes, statistics; everything from the request to the result is
counted. Both are timed in turn, several times, and the ratio of each pair is what counts, as the machine is noisy.

Then what a second worker brings to an evaluation that is long enough for its start not to decide, beside what a second
process brings on this machine at all: two processes that share nothing and play the same episodes.
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
EPISODES, SCALED_EPISODES, ROUNDS, SEED = 24, 96, 2, 3_000_000
TARGET_PER_CORE, TARGET_SCALING = 1.9, 0.95

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


ALONE = """
import json, sys, time
from daf_cogames.catalog import resolve_policy
from daf_cogames.play.episodes import EpisodeRunner
from daf_cogames.missions import Mission
from daf_cogames.policies import PolicySource
from daf_cogames.seating import plan_episodes

mission, cogs, steps, policy, episodes, seed = json.loads(sys.argv[1])
runner = EpisodeRunner(Mission(mission, cogs=cogs, max_steps=steps), [PolicySource(resolve_policy(policy).name)])
plans = plan_episodes((0,) * cogs, episodes, seed)
runner.run(plans[0])
print("ready", flush=True)
sys.stdin.readline()
start = time.perf_counter()
for plan in plans:
    runner.run(plan)
print(time.perf_counter() - start)
"""


def alone(processes: int, episodes: int) -> float:
    """Episodes per second of so many processes that share nothing, each playing so many."""
    arguments = json.dumps([MISSION, COGS, STEPS, POLICY, episodes, SEED])
    command = [sys.executable, "-W", "ignore", "-c", ALONE, arguments]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return sum(episodes / float(process.communicate()[0]) for process in started)


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

    def evaluate(self, episodes: int, workers: int) -> dict[str, Any]:
        """One evaluation; its wall time is that of the whole command."""
        start = time.perf_counter()
        options = ["-p", POLICY, "-m", MISSION, "--cogs", str(COGS), "--steps", str(STEPS), "--workers", str(workers)]
        output = self.daf("evaluate", *options, "--episodes", str(episodes), "--seed", str(SEED), "--json")
        return {"seconds": time.perf_counter() - start, "rewards": values(json.loads(output))}


def values(output: dict[str, Any]) -> list[float]:
    """The reward of each episode, mean over the agents."""
    (policy,) = output["summary"]["policies"]
    return [float(value) for value in policy["values"]]


def main() -> None:
    """Prints the figures."""
    print(f"{POLICY} on {MISSION}, {COGS} agents, {STEPS} steps, {EPISODES} episodes, {os.cpu_count()} cores")
    per_core, scaling = [], []
    with tempfile.TemporaryDirectory() as directory:
        stack = Stack(Path(directory) / "home")
        stack.daf("up")
        try:
            stack.evaluate(2, workers=1)  # warm, as it is after the first command of a day
            for _ in range(ROUNDS):
                theirs, ours = peer(EPISODES), stack.evaluate(EPISODES, workers=1)
                one, two = stack.evaluate(SCALED_EPISODES, workers=1), stack.evaluate(SCALED_EPISODES, workers=2)
                ceiling = alone(2, EPISODES // 2) / alone(1, EPISODES // 2)
                per_core.append(theirs["seconds"] / ours["seconds"])
                scaling.append(one["seconds"] / two["seconds"] / ceiling)
                same = sum(a == b for a, b in zip(theirs["rewards"], two["rewards"][:EPISODES], strict=True))
                print(
                    f"cogames.evaluate {EPISODES / theirs['seconds']:.2f} episodes/s, daf evaluate "
                    f"{EPISODES / ours['seconds']:.2f}; {SCALED_EPISODES} episodes with one worker "
                    f"{SCALED_EPISODES / one['seconds']:.2f}, with two {SCALED_EPISODES / two['seconds']:.2f}; two "
                    f"processes that share nothing beside one {ceiling:.2f}; equal rewards {same} of {EPISODES}"
                )
        finally:
            stack.daf("down")
    print(f"median per core {statistics.median(per_core):.2f} times cogames (target {TARGET_PER_CORE})")
    print(
        f"median of what a second worker brings, of the ceiling: {statistics.median(scaling):.2f} "
        f"(target {TARGET_SCALING})"
    )


if __name__ == "__main__":
    main()
