import os

import psutil
import pytest

from daf_cogames.cores import largest_divisor, usable_cores


@pytest.fixture
def machine_of_64_cores(monkeypatch):
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 128 if logical else 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(48)), raising=False)


@pytest.mark.parametrize(("quota", "cores"), [("400000 100000\n", 4), ("150000 100000\n", 1), ("50000 100000\n", 1)])
def test_a_container_may_use_no_more_than_its_quota(machine_of_64_cores, tmp_path, quota, cores):
    (tmp_path / "cpu.max").write_text(quota)

    assert usable_cores(tmp_path / "cpu.max") == cores


def test_without_a_quota_the_affinity_counts(machine_of_64_cores, tmp_path):
    (tmp_path / "cpu.max").write_text("max 100000\n")

    assert usable_cores(tmp_path / "cpu.max") == 48
    assert usable_cores(tmp_path / "no such file") == 48


def test_never_more_than_the_physical_cores(monkeypatch, tmp_path):
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 8 if logical else 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)

    assert usable_cores(tmp_path / "no such file") == 4


@pytest.mark.parametrize(("number", "at_most", "divisor"), [(16, 5, 4), (6, 4, 3), (7, 4, 1), (2, 8, 2), (1, 1, 1)])
def test_the_largest_divisor(number, at_most, divisor):
    assert largest_divisor(number, at_most) == divisor
