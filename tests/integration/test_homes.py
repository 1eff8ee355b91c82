"""Directories of state that are unusual or broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from daf_common.channel import connect, raising
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from daf_standalone.settings import Home
from daf_standalone.stack import embedded_settings
from tests.requests import finished_sweep, sweep_request
from tests.standin_stack import standin_host


@pytest.mark.parametrize("name", ["with spaces", "100%41", "a#b?c", "Zoë", "x" * 150])
async def test_a_home_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("DAF_HOME", str(tmp_path / name))
    home = Home(tmp_path / name)
    host = standin_host(home)
    await host.start()

    async with connect(embedded_settings(home).listen) as channel:
        created = await raising(SchedulerServiceStub(channel).CreateSweep(sweep_request("anywhere", 1, parallel=1)))
        sweep = await finished_sweep(SchedulerServiceStub(channel), created.sweep.name)
    await host.stop()

    assert sweep.best_trial
    assert [entry.name for entry in tmp_path.iterdir()] == [name]  # nothing lies beside it


def test_a_stack_whose_database_is_broken_ends_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "scheduler.db").write_bytes(b"no database " * 1000)

    ended = subprocess.run(
        [sys.executable, "-m", "daf_standalone"],
        env={**os.environ, "DAF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 1
    assert "cannot start" in ended.stderr
    assert "file is not a database" in ended.stderr
