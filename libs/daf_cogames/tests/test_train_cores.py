import os

import psutil
import pytest

from daf_cogames.training.cores import largest_divisor, usable_cores


@pytest.mark.parametrize(("physical", "allowed", "cores"), [(64, 48, 48), (4, 8, 4)])
def test_never_more_than_the_physical_cores(monkeypatch, tmp_path, physical, allowed, cores):
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 2 * physical if logical else physical)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(allowed)), raising=False)

    assert usable_cores(tmp_path) == cores


def test_a_container_may_use_no_more_than_its_quota(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(48)), raising=False)
    (tmp_path / "cpu.max").write_text("100000 100000\n")

    assert usable_cores(tmp_path) == 1


@pytest.mark.parametrize(("number", "at_most", "divisor"), [(16, 5, 4), (6, 4, 3), (7, 4, 1), (2, 8, 2), (1, 1, 1)])
def test_the_largest_divisor(number, at_most, divisor):
    assert largest_divisor(number, at_most) == divisor
