"""How long after `daf sweep run` the first environment of a trial is stepped, on a cold and on a warm stack.

Cold: no stack runs; the command starts it, and all imports happen. Warm: the stack has run a sweep before. The peer is
a plain process that calls `cogames.train.train()` on the same mission with as many environments.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SWEEP = ROOT / "examples" / "quick_sweep.yaml"
ROUNDS = 3

PEER = """
import io, sys, time, torch
from pathlib import Path
import cogames.train as training
from cogames.cli.mission import get_mission
from pufferlib import pufferl

class Trainer(pufferl.PuffeRL):
    def evaluate(self):
        print(time.time(), file=sys.__stdout__, flush=True)
        import os
        os._exit(0)

training.pufferl = type("pufferl", (), {"PuffeRL": Trainer})
name, config, _ = get_mission("cogsguard_machina_1.miner_tutorial", cogs=4, steps=30)
training.train(
    env_cfg=config, policy_class_path="mettagrid.policy.lstm.LSTMPolicy", device=torch.device("cpu"),
    initial_weights_path=None, num_steps=512, checkpoints_path=Path(sys.argv[1]), seed=42, minibatch_size=64,
    vector_num_envs=2, vector_num_workers=1,
)
"""


def daf(home: Path, *arguments: str) -> str:
    """Runs a command; returns what it printed."""
    command = [str(Path(sys.executable).parent / "daf"), *arguments]
    environment = {**os.environ, "DAF_HOME": str(home)}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def seconds_to_first_step(home: Path, name: str) -> float:
    """Starts a sweep by the command; returns when its first job stepped an environment, counted from the command."""
    start = time.time()
    daf(home, "sweep", "run", str(SWEEP), "--name", name)
    trials = json.loads(daf(home, "sweep", "get", name, "--json"))["trials"]
    jobs = [json.loads(daf(home, "job", "get", trial["training_job"], "--json")) for trial in trials]
    first = min(datetime.fromisoformat(job["training_job"]["start_time"]) for job in jobs)
    return first.timestamp() - start


def peer_seconds(processes: int = 1) -> float:
    """Plain cogames processes at the same time, up to the first environment step that one of them takes."""
    with tempfile.TemporaryDirectory() as directory:
        start = time.time()
        command = [sys.executable, "-W", "ignore", "-c", PEER, directory]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
        printed = [process.communicate()[0] for process in running]
    return min(float(text.splitlines()[-1]) for text in printed) - start


def main() -> None:
    """Prints the figures."""
    print("cogsguard_machina_1.miner_tutorial, 4 agents, 2 environments, two trials at once")
    cold, warm, peer = [], [], []
    for number in range(ROUNDS):
        with tempfile.TemporaryDirectory() as directory:
            home = Path(directory) / "home"
            try:
                peer.append(peer_seconds())
                cold.append(seconds_to_first_step(home, f"cold-{number}"))
                warm.append(seconds_to_first_step(home, f"warm-{number}"))
            finally:
                daf(home, "down")
    for name, times in (("plain cogames process", peer), ("cold stack", cold), ("warm stack", warm)):
        print(f"{name:<22} median {statistics.median(times):.2f} s, range {min(times):.2f} to {max(times):.2f}")


if __name__ == "__main__":
    main()
