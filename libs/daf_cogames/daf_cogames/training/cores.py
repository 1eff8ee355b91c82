"""How many processes step environments."""

from __future__ import annotations

from pathlib import Path

import psutil

from daf_common.machine import CGROUPS, usable_cpus


def usable_cores(cgroups: Path = CGROUPS) -> int:
    """At least 1, and at most the physical cores: pufferlib refuses more processes than those."""
    return min(psutil.cpu_count(logical=False) or psutil.cpu_count() or 1, usable_cpus(cgroups))


def largest_divisor(number: int, at_most: int) -> int:
    """Environments are shared out evenly, so the number of processes has to divide theirs."""
    return next(divisor for divisor in range(min(number, at_most), 0, -1) if number % divisor == 0)
