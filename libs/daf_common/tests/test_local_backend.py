"""Local workloads: real workers, forked from a real zygote, found again by their locks."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from daf_common.local_backend import LocalBackend, Zygote
from daf_common.workloads import Observation, State, Workload

# A worker whose service is not there keeps asking for it: it runs until it is stopped.
WAITING = {
    "DAF_WORKER_ADDRESS": "unix:/nonexistent/daf.sock",
    "DAF_TRAINING_JOB": "trainingJobs/j",
    "DAF_ATTEMPT": "1",
    "DAF_TOKEN": "t",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def zygote() -> AsyncIterator[Zygote]:
    zygote = Zygote()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-the-service")
        await zygote.warm()
    yield zygote
    await zygote.close()


@pytest_asyncio.fixture(loop_scope="module")
async def backend(tmp_path: Path, zygote: Zygote) -> AsyncIterator[LocalBackend]:
    backend = LocalBackend(tmp_path / "workers", tmp_path / "cache", zygote)
    yield backend
    for name in await backend.observe():
        await backend.stop(name, 0)
    await eventually_ended(backend, *await backend.observe())


async def eventually_ended(backend: LocalBackend, *names: str) -> dict[str, Observation]:
    async with asyncio.timeout(20):
        while True:
            observed = await backend.observe()
            if all(observed[name].state is not State.RUNNING for name in names):
                return dict(observed)
            await asyncio.sleep(0.02)


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_worker_that_fails_says_how(backend: LocalBackend) -> None:
    await backend.start(Workload("wrong", "train"))
    observed = await eventually_ended(backend, "wrong")
    assert observed["wrong"] == Observation(State.FAILED, "exit code 2")
    assert b"the environment lacks DAF_WORKER_ADDRESS" in await backend.logs("wrong")


async def test_a_restarted_service_finds_its_workers_by_their_locks(
    backend: LocalBackend, tmp_path: Path, zygote: Zygote
) -> None:
    workload = Workload("waits", "train", WAITING, replicas=2)
    await backend.start(workload)

    restarted = LocalBackend(tmp_path / "workers", tmp_path / "cache", zygote)
    await restarted.start(workload)

    assert (await restarted.observe())["waits"].state is State.RUNNING
    assert sorted(path.name for path in (tmp_path / "workers" / "waits").iterdir()) == ["0", "1"]


async def test_a_stopped_worker_ends(backend: LocalBackend) -> None:
    await backend.start(Workload("stops", "train", WAITING))
    await backend.stop("stops", 5)
    assert (await eventually_ended(backend, "stops"))["stops"].state is not State.RUNNING


async def test_a_worker_that_was_killed_is_seen_as_such(backend: LocalBackend, tmp_path: Path) -> None:
    await backend.start(Workload("killed", "train", WAITING))
    pid_file = tmp_path / "workers" / "killed" / "0" / "pid"
    async with asyncio.timeout(10):
        while not pid_file.exists() or not pid_file.read_text():
            await asyncio.sleep(0.01)
    os.kill(int(pid_file.read_text()), signal.SIGKILL)
    assert (await eventually_ended(backend, "killed"))["killed"].state is State.FAILED
    async with asyncio.timeout(10):
        while (await backend.observe())["killed"].message != "ended by SIGKILL":
            await asyncio.sleep(0.01)


async def test_workers_see_nothing_secret_of_the_service(backend: LocalBackend, tmp_path: Path) -> None:
    await backend.start(Workload("env", "train", WAITING))
    pid_file = tmp_path / "workers" / "env" / "0" / "pid"
    async with asyncio.timeout(10):
        while not pid_file.exists() or not pid_file.read_text():
            await asyncio.sleep(0.01)
    environment = Path(f"/proc/{pid_file.read_text()}/environ").read_bytes()
    assert b"a-secret-of-the-service" not in environment
    assert b"PATH=" in environment


async def test_what_has_ended_can_be_removed_and_what_runs_cannot(backend: LocalBackend) -> None:
    await backend.start(Workload("ended", "train"))
    await backend.start(Workload("runs", "train", WAITING))
    await eventually_ended(backend, "ended")

    await backend.remove("ended")
    await backend.remove("runs")

    assert set(await backend.observe()) == {"runs"}


async def test_a_zygote_that_died_is_replaced(backend: LocalBackend, zygote: Zygote) -> None:
    assert zygote._process
    zygote._process.kill()
    await zygote._process.wait()
    await backend.start(Workload("after", "train"))
    assert (await eventually_ended(backend, "after"))["after"] == Observation(State.FAILED, "exit code 2")
