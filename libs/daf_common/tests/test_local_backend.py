"""Workloads as local processes: what the backend makes of them. The processes themselves: test_processes.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daf_common.local_backend import LocalBackend
from daf_common.processes import LocalProcesses
from daf_common.workloads import Observation, State, Workload


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[LocalProcesses]:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "worker.py").write_text(
        "import os, time\n"
        "def main(argv):\n"
        "    print(argv, os.environ['DAF_REPLICA'], os.environ['DAF_CACHE'], flush=True)\n"
        "    time.sleep(float(os.environ.get('SECONDS', 0)))\n"
        "    return int(os.environ.get('CODE', 0)) if os.environ['DAF_REPLICA'] == '0' else 0\n"
    )
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(tmp_path / "site"))
        processes = LocalProcesses(tmp_path / "workers", "worker:main", preload=[])
        await processes.ready()
    yield processes
    for name in processes.names():
        await processes.stop(name, 0)
    await processes.close()


@pytest.fixture
def backend(processes: LocalProcesses, tmp_path: Path) -> LocalBackend:
    return LocalBackend(processes, "train", tmp_path / "cache")


async def ended(backend: LocalBackend, name: str) -> Observation:
    async with asyncio.timeout(20):
        while (seen := (await backend.observe())[name]).state is State.RUNNING:
            await asyncio.sleep(0.01)
    return seen


async def test_each_replica_is_a_process_that_knows_its_number(backend: LocalBackend, tmp_path: Path) -> None:
    await backend.start(Workload("job-a1", "train", replicas=2))
    assert await ended(backend, "job-a1") == Observation(State.SUCCEEDED)
    assert (await backend.logs("job-a1", 1)).decode() == f"['train'] 1 {tmp_path}/cache\n"


async def test_one_failed_replica_is_a_failed_workload(backend: LocalBackend) -> None:
    await backend.start(Workload("job-a1", "train", {"CODE": "3"}, replicas=2))
    assert await ended(backend, "job-a1") == Observation(State.FAILED, "exit code 3")


async def test_a_workload_runs_while_one_replica_does_and_ends_when_stopped(backend: LocalBackend) -> None:
    await backend.start(Workload("job-a1", "train", {"SECONDS": "60"}))
    assert (await backend.observe())["job-a1"].state is State.RUNNING
    await backend.stop("job-a1", 5)
    assert await ended(backend, "job-a1") == Observation(State.FAILED, "ended by SIGTERM")


async def test_backends_of_two_verbs_share_processes_but_see_only_their_own(
    backend: LocalBackend, processes: LocalProcesses, tmp_path: Path
) -> None:
    other = LocalBackend(processes, "evaluate", tmp_path / "cache")
    await backend.start(Workload("same-name", "train"))
    await other.start(Workload("same-name-2", "evaluate"))
    assert set(await backend.observe()) == {"same-name"}
    assert set(await other.observe()) == {"same-name-2"}


async def test_what_was_removed_is_unknown(backend: LocalBackend) -> None:
    await backend.start(Workload("job-a1", "train"))
    await ended(backend, "job-a1")
    await backend.remove("job-a1")
    assert await backend.observe() == {}
    assert await backend.logs("job-a1") == b""


async def test_a_start_that_a_crash_cut_short_is_made_up_for(backend: LocalBackend, tmp_path: Path) -> None:
    (tmp_path / "workers" / "train-job-a1-0").mkdir()  # all that a service had done when it was killed
    assert await backend.observe() == {}
    await backend.start(Workload("job-a1", "train"))
    assert (await ended(backend, "job-a1")).state is State.SUCCEEDED


async def test_processes_that_a_crash_kept_from_being_started_are_made_up_for(backend: LocalBackend) -> None:
    await backend.start(Workload("job-a1", "train", replicas=1))  # all that a service had done when it was killed
    await ended(backend, "job-a1")
    await backend.start(Workload("job-a1", "train", replicas=2))
    await ended(backend, "job-a1")
    assert [(await backend.logs("job-a1", replica)).count(b"train") for replica in range(2)] == [1, 1]
