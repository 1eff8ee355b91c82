"""What this machine has for training, as far as this process may use it. Needs no torch."""

from __future__ import annotations

import functools
import math
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from daf_common.machine import CGROUPS, usable_memory

GIB = 1 << 30
_QUERY_SECONDS = 20.0
"""The first query of a driver that is not loaded may take long."""


def usable_memory_gib(cgroups: Path = CGROUPS) -> float:
    """Memory of the machine or, if that is less, of its container, in GiB rounded down to a tenth."""
    return math.floor(usable_memory(cgroups) / GIB * 10) / 10


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
