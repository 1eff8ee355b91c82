import os
from pathlib import Path

import pytest

from daf_common.machine import memory_limit, memory_used, usable_cpus, usable_memory

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(f"{text}\n")


@pytest.mark.parametrize(("quota", "cpus"), [(150_000, 1), (50_000, 1), (250_000, 2), (1_000_000, 10)])
@pytest.mark.parametrize("version", [1, 2])
def test_a_container_gets_what_its_limits_say(
    tmp_path: Path, quota: int, cpus: int, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(48)), raising=False)
    if version == 2:
        write(tmp_path, {"cpu.max": f"{quota} 100000", "memory.max": str(1 << 30), "memory.current": "1000"})
    else:
        write(tmp_path, {"cpu/cpu.cfs_quota_us": str(quota), "cpu/cpu.cfs_period_us": "100000"})
        write(tmp_path, {"memory/memory.limit_in_bytes": str(1 << 30), "memory/memory.usage_in_bytes": "1000"})

    assert usable_cpus(tmp_path) == cpus
    assert (usable_memory(tmp_path), memory_limit(tmp_path), memory_used(tmp_path)) == (1 << 30, 1 << 30, 1000)


@pytest.mark.parametrize("limits", [{}, {"cpu.max": "max 100000", "memory.max": "max"}])
def test_without_limits_a_process_gets_its_machine(tmp_path: Path, limits: dict[str, str]) -> None:
    write(tmp_path, limits)

    assert usable_cpus(tmp_path) == len(os.sched_getaffinity(0))
    assert (usable_memory(tmp_path), memory_limit(tmp_path)) == (MACHINE, None)


def test_a_limit_beyond_the_machine_is_none(tmp_path: Path) -> None:
    write(tmp_path, {"memory/memory.limit_in_bytes": str(1 << 62)})

    assert usable_memory(tmp_path) == MACHINE
