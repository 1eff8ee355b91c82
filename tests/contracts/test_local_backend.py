"""Workloads as local processes: what the backend makes of them. The processes themselves: test_processes.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daf_common.local_backend import LocalBackend
from daf_common.processes import LocalProcesses
from daf_common.workloads import Observation, Ranks, State, Workload
from tests.contracts.backends import WORKER, BackendContract, ended, running, workload


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[LocalProcesses]:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "worker.py").write_text(WORKER)
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


class TestLocalBackend(BackendContract):
    @pytest.fixture
    def backend(self, processes: LocalProcesses, tmp_path: Path) -> LocalBackend:
        return LocalBackend(processes, "train", tmp_path / "cache")

    @pytest.fixture
    def other(self, processes: LocalProcesses, tmp_path: Path) -> LocalBackend:
        return LocalBackend(processes, "evaluate", tmp_path / "cache")


async def test_downloads_are_kept_in_one_place(backend: LocalBackend, tmp_path: Path) -> None:
    await backend.start(workload("job-a1"))
    await ended(backend, "job-a1")
    assert (await backend.logs("job-a1")).decode().split()[2] == f"{tmp_path}/cache"


async def test_a_process_that_was_stopped_is_known_with_its_log(backend: LocalBackend) -> None:
    await backend.start(workload("job-a1", SECONDS="600"))
    await running(backend, "job-a1")
    await backend.stop("job-a1", 60)
    assert await ended(backend, "job-a1") == Observation(State.FAILED, "ended by SIGTERM")
    assert b"train" in await backend.logs("job-a1")


async def test_all_ranks_run_on_this_machine(backend: LocalBackend, tmp_path: Path) -> None:
    (tmp_path / "site" / "worker.py").write_text(
        "import os\ndef main(argv): print(os.environ['PET_NNODES'], os.environ['PET_NPROC_PER_NODE'])\n"
    )
    await backend.start(Workload("job-a1", "train", ranks=Ranks(4, per_machine=2)))
    await ended(backend, "job-a1")
    assert (await backend.logs("job-a1")).split() == [b"1", b"4"]


async def test_a_start_that_a_crash_cut_short_is_made_up_for(backend: LocalBackend, tmp_path: Path) -> None:
    (tmp_path / "workers" / "train-job-a1-0").mkdir()  # all that a service had done when it was killed
    assert await backend.observe() == {}
    await backend.start(workload("job-a1"))
    assert (await ended(backend, "job-a1")).state is State.SUCCEEDED


async def test_processes_that_a_crash_kept_from_being_started_are_made_up_for(backend: LocalBackend) -> None:
    await backend.start(workload("job-a1", replicas=1))  # all that a service had done when it was killed
    await ended(backend, "job-a1")
    await backend.start(workload("job-a1", replicas=2))
    await ended(backend, "job-a1")
    assert [(await backend.logs("job-a1", replica)).count(b"train") for replica in range(2)] == [1, 1]
