"""What a worker makes of its machine: the work it gets done, and the processors and memory it takes for that."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from dataclasses import dataclass

import psutil
import torch


@dataclass(frozen=True)
class WorkerUsage:
    """One rank between two readings.

    cpu_cores: CPU time per wall time, with the processes of its environments: 1 is one core; memory_bytes: resident,
    with those processes; gpu_utilization: share of the time in which its GPU worked, from 0 to 1; gpu_memory_bytes:
    what torch holds on it. The last two are None without a GPU.
    """

    rank: int
    agent_steps_per_second: float
    cpu_cores: float
    memory_bytes: int
    gpu_utilization: float | None
    gpu_memory_bytes: int | None


class UsageMeter:
    """Reads what this process and its environments' processes have used since the reading before."""

    def __init__(self, rank: int, device: torch.device) -> None:
        self._rank, self._device = rank, device
        self._at, (self._cpu_seconds, _) = time.monotonic(), self._totals()

    def read(self, agent_steps: int) -> WorkerUsage:
        """The usage, given the agent steps of this rank since the reading before."""
        now, (cpu_seconds, memory_bytes) = time.monotonic(), self._totals()
        seconds = max(now - self._at, 1e-9)
        used = max(0.0, cpu_seconds - self._cpu_seconds)
        self._at, self._cpu_seconds = now, cpu_seconds
        gpu = self._device.type == "cuda"
        return WorkerUsage(
            rank=self._rank,
            agent_steps_per_second=agent_steps / seconds,
            cpu_cores=used / seconds,
            memory_bytes=memory_bytes,
            gpu_utilization=_gpu_utilization(self._device) if gpu else None,
            gpu_memory_bytes=torch.cuda.memory_reserved(self._device) if gpu else None,
        )

    def _totals(self) -> tuple[float, int]:
        """CPU time so far in seconds, and memory now in bytes."""
        cpu_seconds, memory_bytes = 0.0, 0
        for process_id in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(process_id)
                times = process.cpu_times()
                cpu_seconds += times.user + times.system
                memory_bytes += process.memory_info().rss
        return cpu_seconds, memory_bytes


def _gpu_utilization(device: torch.device) -> float | None:
    """As the driver measures it; None where it does not say."""
    try:
        return torch.cuda.utilization(device) / 100
    except (ModuleNotFoundError, RuntimeError):
        return None
