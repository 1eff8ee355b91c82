"""How long after `CreateEvaluation` the first episode of a tiny evaluation is recorded, on a warm stack.

The peer is a plain cogames process that plays the same episode, from its start: what a person waits for without a
stack. Both are timed in turn, several times.
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

from daf.client import Client
from daf.embedded import EmbeddedStack
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import Policy, PolicyClass
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec
from daf_protos.evaluation.v1.evaluation_service_pb2 import CreateEvaluationRequest, WatchEvaluationsRequest

MISSION, COGS, STEPS, POLICY, SEED = "cogsguard_arena.basic", 4, 20, "starter", 3_100_000
ROUNDS = 7
TARGET_SECONDS = 1.0

PEER = """
import json, sys
from cogames.cli.mission import get_mission
from mettagrid.policy.loader import resolve_policy_class_path
from mettagrid.policy.policy import PolicySpec
from mettagrid.runner.rollout import run_multi_episode_rollout

mission, cogs, steps, policy, seed = json.loads(sys.argv[1])
_, config, _ = get_mission(mission, cogs=cogs, steps=steps)
run_multi_episode_rollout(
    policy_specs=[PolicySpec(class_path=resolve_policy_class_path(policy))], assignments=[0] * cogs, env_cfg=config,
    episodes=1, seed=seed, max_action_time_ms=10_000,
)
"""


def peer_seconds() -> float:
    """A plain cogames process that plays one episode."""
    start = time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-c", PEER, json.dumps([MISSION, COGS, STEPS, POLICY, SEED])]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def our_seconds(client: Client, number: int) -> float:
    """From the request to the first episode that is recorded."""
    spec = EvaluationSpec(
        policies=[Policy(policy_class=PolicyClass(class_path=POLICY))],
        missions=[Mission(name=MISSION, cogs=COGS, max_steps=STEPS)],
        episodes=2,
        seed=SEED,
        workers=1,
    )
    start = time.perf_counter()
    request = CreateEvaluationRequest(evaluation_id=f"start-{number}", spec=spec)
    name = client.evaluation.CreateEvaluation(request).evaluation.name
    first = None
    for response in client.evaluation.WatchEvaluations(WatchEvaluationsRequest(name=name)):
        for evaluation in response.evaluations:
            if evaluation.done_episodes and first is None:
                first = time.perf_counter() - start
            if evaluation.HasField("end_time") and first is not None:
                return first
    raise RuntimeError("the watch ended")


def main() -> None:
    """Prints the figures."""
    print(f"{POLICY} on {MISSION}, {COGS} agents, {STEPS} steps, {os.cpu_count()} cores")
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as directory:
        stack = EmbeddedStack(Path(directory) / "home")
        with Client(stack.ensure(lambda _: None)) as client:
            try:
                our_seconds(client, 0)  # the stack is warm after the first
                for number in range(1, ROUNDS + 1):
                    theirs.append(peer_seconds())
                    ours.append(our_seconds(client, number))
            finally:
                stack.stop(lambda _: None)
    for name, times in (("plain cogames process", theirs), ("warm stack", ours)):
        print(f"{name:<22} median {statistics.median(times):.2f} s, range {min(times):.2f} to {max(times):.2f}")
    ratio = statistics.median(their / our for their, our in zip(theirs, ours, strict=True))
    print(f"median ratio {ratio:.1f}; target: less than {TARGET_SECONDS:g} s")


if __name__ == "__main__":
    main()
