"""What this process may use of its machine: less than there is, in a container or under an affinity."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_cpus(cgroups: Path = CGROUPS) -> int:
    """Cores that the scheduler lets this process use: its affinity, and the quota of its container; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(allowed, _cpu_quota(cgroups))))


def usable_memory(cgroups: Path = CGROUPS) -> int:
    """Bytes of memory that the machine has or, if that is less, its container may have."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(machine, memory_limit(cgroups) or machine)


def memory_limit(cgroups: Path = CGROUPS) -> int | None:
    """Bytes that the container may have; None without a limit. In version 1 a huge number is no limit."""
    return _number(cgroups, "memory.max", "memory/memory.limit_in_bytes")


def memory_used(cgroups: Path = CGROUPS) -> int | None:
    """Bytes that the container uses; None where it does not say."""
    return _number(cgroups, "memory.current", "memory/memory.usage_in_bytes")


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


def _number(cgroups: Path, *files: str) -> int | None:
    """The number in the first of the files, of version 2 and then 1, that is there; None where it says `max`."""
    words = next((found for file in files if (found := _words(cgroups / file))), [])
    return int(words[0]) if len(words) == 1 and words[0].isdecimal() else None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
