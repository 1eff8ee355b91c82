"""How long after `daf sweep run` the first environment of a trial is stepped in a pod, and where the time goes.

The cluster is that of the context in use (`daf context use`, or DAF_CONTEXT, DAF_ADDRESS and their like), its pods are
read by kubectl from the namespace that DAF_JOBS_NAMESPACE names. The first round, which may pull the image, is left
out. Peers are the embedded stack, cold and warm, with the same sweep, and as many plain cogames processes as there are
trials: a pod imports what they import.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.first_step import daf, peer_seconds, seconds_to_first_step
from daf.home import home

ROOT = Path(__file__).resolve().parent.parent
SWEEP = ROOT / "examples" / "quick_sweep.yaml"
ROUNDS = 3
STAGES = (
    ("the job is created", "job"),
    ("its attempt starts: a PyTorchJob is asked for", "attempt"),
    ("the operator has made the pod", "pod"),
    ("its container runs", "container"),
    ("it has imported CoGames, built its environments and stepped one", "step"),
)


def main() -> None:
    """Prints the figures."""
    namespace = os.environ.get("DAF_JOBS_NAMESPACE")
    if not namespace:
        print("skipped: DAF_JOBS_NAMESPACE names no namespace of a cluster's jobs")
        return
    rounds = [_round(namespace, f"start-{os.getpid()}-{number}") for number in range(ROUNDS + 1)][1:]
    cold, warm = _embedded()
    plain = [peer_seconds(2) for _ in range(ROUNDS)]
    print("quick_sweep.yaml: two trials at once; seconds from the command to the first environment step")
    for name, times in (
        ("cluster", [times["step"] for times in rounds]),
        ("embedded, cold", cold),
        ("embedded, warm", warm),
        ("two plain processes", plain),
    ):
        print(f"{name:<19} median {statistics.median(times):.2f}, range {min(times):.2f} to {max(times):.2f}")
    print("of the cluster's, until")
    before = 0.0
    for described, stage in STAGES:
        reached = statistics.median(times[stage] for times in rounds)
        print(f"  {described:<64} {reached:6.2f}  (+{reached - before:.2f})")
        before = reached


def _round(namespace: str, name: str) -> Mapping[str, float]:
    """Runs the sweep; returns when the job that was first to step reached each stage, counted from the command."""
    began = time.time()
    with _watched_pods(namespace) as pods:
        daf(home(), "sweep", "run", str(SWEEP), "--name", name)
    trials = json.loads(daf(home(), "sweep", "get", name, "--json"))["trials"]
    jobs = [json.loads(daf(home(), "job", "get", trial["training_job"], "--json"))["training_job"] for trial in trials]
    job = min(jobs, key=lambda job: _time(job["start_time"]))
    (attempt,) = json.loads(daf(home(), "job", "attempts", job["name"], "--json"))["attempts"]
    workload = f"{job['name'].removeprefix('trainingJobs/')}-a1"
    moments = {
        "job": _time(job["create_time"]),
        "attempt": _time(attempt["start_time"]),
        **pods[f"daf-{workload}-master-0"],
        "step": _time(job["start_time"]),
    }
    return {stage: moment - began for stage, moment in moments.items()}


@contextmanager
def _watched_pods(namespace: str) -> Iterator[Mapping[str, Mapping[str, float]]]:
    """When each pod was first seen, and first seen to run: Kubernetes tells its own times in whole seconds."""
    command = ["kubectl", "--namespace", namespace, "get", "pods", "--watch", "--output", "json"]
    seen: defaultdict[str, dict[str, float]] = defaultdict(dict)

    def read(stream: Any) -> None:
        decoder, text = json.JSONDecoder(), ""
        for line in stream:
            text += line
            try:
                pod, _ = decoder.raw_decode(text)
            except ValueError:
                continue
            text = ""
            moments = seen[pod["metadata"]["name"]]
            moments.setdefault("pod", time.time())
            if any("running" in status["state"] for status in pod["status"].get("containerStatuses", ())):
                moments.setdefault("container", time.time())

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:
        reader = threading.Thread(target=read, args=(watch.stdout,))
        reader.start()
        try:
            yield seen
        finally:
            watch.terminate()
            reader.join()


def _embedded() -> tuple[list[float], list[float]]:
    """The same on a stack of this machine."""
    cold, warm = [], []
    ours = {name for name in os.environ if name.startswith("DAF_")}
    kept = {name: os.environ.pop(name) for name in ours}
    try:
        for number in range(ROUNDS):
            with tempfile.TemporaryDirectory() as directory:
                place = Path(directory) / "home"
                try:
                    cold.append(seconds_to_first_step(place, f"cold-{number}"))
                    warm.append(seconds_to_first_step(place, f"warm-{number}"))
                finally:
                    daf(place, "down")
    finally:
        os.environ.update(kept)
    return cold, warm


def _time(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


if __name__ == "__main__":
    sys.exit(main())
