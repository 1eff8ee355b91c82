"""What this machine has for training, as far as this process may use it. Needs no torch."""

from __future__ import annotations

import functools
import math
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
GIB = 1 << 30
_QUERY_SECONDS = 20.0
"""The first query of a driver that is not loaded may take long."""


def usable_cpus(cgroups: Path = CGROUPS) -> int:
    """Cores that the scheduler lets this process use: its affinity, and the quota of its container; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(allowed, _cpu_quota(cgroups))))


def usable_memory_gib(cgroups: Path = CGROUPS) -> float:
    """Memory of the machine or, if that is less, of its container, in GiB rounded down to a tenth."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return math.floor(min(machine, _memory_limit(cgroups)) / GIB * 10) / 10


@functools.cache
def gpus() -> int:
    """How many NVIDIA GPUs there are, or are left by `CUDA_VISIBLE_DEVICES`; 0 where their driver is not installed."""
    visible = visible_gpus(os.environ)
    return _installed_gpus() if visible is None else len(visible)


def visible_gpus(environment: Mapping[str, str]) -> list[str] | None:
    """What an environment lets CUDA see: numbers or UUIDs; None where it does not say."""
    value = environment.get("CUDA_VISIBLE_DEVICES")
    return None if value is None else [device for part in value.split(",") if (device := part.strip())]


def _installed_gpus() -> int:
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        listed = subprocess.run(
            [program, "--list-gpus"], capture_output=True, text=True, timeout=_QUERY_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def _cpu_quota(cgroups: Path) -> float:
    """Cores by version 2, whose file says `<microseconds> <period>` or `max <period>`, or by version 1."""
    words = _words(cgroups / "cpu.max") or [
        *_words(cgroups / "cpu/cpu.cfs_quota_us"),
        *_words(cgroups / "cpu/cpu.cfs_period_us"),
    ]
    match words:
        case [quota, period] if quota.isdecimal() and period.isdecimal():
            return int(quota) / int(period)
        case _:
            return math.inf


def _memory_limit(cgroups: Path) -> float:
    """Bytes by version 2, whose file says a number or `max`, or by version 1, in which a huge number is no limit."""
    match _words(cgroups / "memory.max") or _words(cgroups / "memory/memory.limit_in_bytes"):
        case [limit] if limit.isdecimal():
            return int(limit)
        case _:
            return math.inf


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
