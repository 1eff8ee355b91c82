"""How many cores this process may use: fewer than the machine has, in a container or under an affinity."""

from __future__ import annotations

import math
import os
from pathlib import Path

import psutil

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota_file: Path = CGROUP_QUOTA) -> int:
    """At least 1, and at most the physical cores: pufferlib refuses more processes than those."""
    physical = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, math.floor(min(physical, allowed, _quota(quota_file))))


def largest_divisor(number: int, at_most: int) -> int:
    """Environments are shared out evenly, so the number of processes has to divide theirs."""
    return next(divisor for divisor in range(min(number, at_most), 0, -1) if number % divisor == 0)


def _quota(file: Path) -> float:
    """The cores of this container by cgroup v2, whose file says `<microseconds> <period>` or `max <period>`."""
    try:
        quota, period = file.read_text().split()
    except (OSError, ValueError):
        return math.inf
    return math.inf if quota == "max" else int(quota) / int(period)
