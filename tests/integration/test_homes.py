"""Directories of state that are unusual or broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from daf_common.channel import connect, raising, streaming
from daf_protos.scheduler.v1.scheduler_service_pb2 import WatchSweepsRequest
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from daf_protos.scheduler.v1.sweep_pb2 import SWEEP_STATE_SUCCEEDED
from daf_standalone.settings import Home
from daf_standalone.stack import embedded_settings
from tests.ports import free_port
from tests.requests import TERMINAL, finished_sweep, sweep_request
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


async def test_a_stack_serves_where_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    (tokens / "service").write_text("a-token-of-services")
    settings = {"HOME": str(tmp_path / "home"), "LISTEN": f"0.0.0.0:{port}", "TOKENS": str(tokens)}
    for name, value in {**settings, "TOKEN_FILE": str(tokens / "service")}.items():
        monkeypatch.setenv(f"DAF_{name}", value)
    host = standin_host(Home(tmp_path / "home"))
    await host.start()

    metadata = [("authorization", "Bearer a-token-of-services")]
    async with connect(f"127.0.0.1:{port}") as channel:
        stub = SchedulerServiceStub(channel)
        created = await raising(stub.CreateSweep(sweep_request("over-tcp", 1, parallel=1), metadata=metadata))
        async for changes in streaming(
            stub.WatchSweeps(WatchSweepsRequest(name=created.sweep.name), metadata=metadata)
        ):
            if sweep := next((s for s in changes.sweeps if s.state in TERMINAL), None):
                break
    await host.stop()

    assert sweep.state == SWEEP_STATE_SUCCEEDED  # so the services reached each other there, too, with their token
    assert not Home(tmp_path / "home").socket().exists()


def test_a_stack_whose_database_is_broken_ends_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "scheduler.db").write_bytes(b"no database " * 1000)

    ended = subprocess.run(
        [sys.executable, "-m", "daf_standalone"],
        env={**os.environ, "DAF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert ended.returncode == 1
    assert "cannot start" in ended.stderr
    assert "file is not a database" in ended.stderr
