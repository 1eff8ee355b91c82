"""Starts training processes on cores of their own, and reads what they measured."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.training_process import Work
from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 0.1
"""The share of the updates that is left out at the start."""


@dataclass(frozen=True)
class Measured:
    """A process. Speeds are in agent steps, of all ranks, per second of wall time and of its own CPU time."""

    speed: float
    cpu_speed: float
    weights: Path
    digest: str


def cores() -> list[int]:
    """Those this process may use."""
    return sorted(os.sched_getaffinity(0))


def run_at_once(works: Sequence[Work], on: Sequence[int]) -> list[Measured]:
    """Runs independent processes at the same time, each on its core."""
    return _finish([_start(work, core, {}) for work, core in zip(works, on, strict=True)])


def run_ranks(work: Work, on: Sequence[int]) -> list[Measured]:
    """Runs one training run with a rank on each core."""
    port = free_port()
    started = []
    for rank, core in enumerate(on):
        variables = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(len(on)),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        its_work = replace(work, directory=f"{work.directory}/rank-{rank}")
        started.append(_start(its_work, core, variables))
    return _finish(started)


def geometric(ratios: Sequence[float]) -> tuple[float, float]:
    """The geometric mean of ratios, and its standard error as a factor less 1."""
    logs = [math.log(ratio) for ratio in ratios]
    error = statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.nan
    return math.exp(statistics.mean(logs)), error


def _start(work: Work, core: int, variables: dict[str, str]) -> subprocess.Popen[str]:
    environment = {**os.environ, **variables, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = ["taskset", "-c", str(core), *work.command()]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _finish(started: Sequence[subprocess.Popen[str]]) -> list[Measured]:
    try:
        return [_measured(process) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()


def _measured(process: subprocess.Popen[str]) -> Measured:
    output, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(errors)
    found = json.loads(output.splitlines()[-1])
    updates = found["updates"][max(1, round(WARM_UP * len(found["updates"]))) - 1 :]
    (start, cpu_start, first), (end, cpu_end, last) = updates[0], updates[-1]
    steps = last - first
    return Measured(
        speed=steps / (end - start),
        cpu_speed=steps / (cpu_end - cpu_start),
        weights=Path(found["weights"]),
        digest=found["digest"],
    )
