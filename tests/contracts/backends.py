"""What every compute backend promises: a test case that the local backend passes, and those of a cluster.

A test class inherits `BackendContract` and has the fixtures `backend`, of the verb `train`, and `other`, of the verb
`evaluate` in the same place. Both run, whatever the verb, `worker` in the place of `daf-runner`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from daf_common.workloads import Backend, Observation, Ranks, Resources, State, Workload

WORKER = """\
import os, signal, sys, time
def main(argv):
    replica = os.environ.get("DAF_REPLICA", "0")
    print(argv, replica, os.environ["DAF_CACHE"], os.environ.get("OMP_NUM_THREADS"), flush=True)
    if "TOKEN_WANTED" in os.environ:
        return 0 if os.environ["DAF_TOKEN"] == os.environ["TOKEN_WANTED"] else 1
    time.sleep(float(os.environ.get("SECONDS", 0)))
    return int(os.environ.get("CODE", 0)) if replica == "0" else 0
"""
"""A module whose `main` prints what it was given, sleeps for SECONDS, and returns CODE if it is the first replica."""

SMALL = Resources(cpus=0.05, memory_gib=0.0625)


def workload(name: str, verb: str = "train", replicas: int = 1, **environment: str) -> Workload:
    """A workload of the stand-in worker."""
    ranks = Ranks(1, 1) if verb == "train" else None
    return Workload(name, verb, environment, replicas, ranks, SMALL)


async def until(backend: Backend, name: str, holds: Callable[[Observation | None], bool]) -> Observation | None:
    """Looks at a workload until something holds of what is seen."""
    seen = None
    try:
        async with asyncio.timeout(90):
            while not holds(seen := (await backend.observe()).get(name)):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{name} stays as it is: {seen}") from None
    return seen


async def ended(backend: Backend, name: str) -> Observation:
    """How a workload ended."""
    seen = await until(backend, name, lambda seen: seen is not None and seen.state is not State.RUNNING)
    assert seen is not None
    return seen


async def running(backend: Backend, name: str) -> None:
    """Waits until all processes of a workload run and have printed something."""
    await until(backend, name, lambda seen: seen is not None and not seen.waiting)
    async with asyncio.timeout(60):
        while not await backend.logs(name):
            await asyncio.sleep(0.05)


class BackendContract:
    """The promises, one a test."""

    @pytest.fixture
    def backend(self) -> Backend:
        raise NotImplementedError

    @pytest.fixture
    def other(self) -> Backend:
        raise NotImplementedError

    async def test_workloads_can_be_started_here(self, backend: Backend) -> None:
        await backend.check()

    async def test_each_replica_is_a_process_that_knows_its_number(self, other: Backend) -> None:
        await other.start(workload("eval-w1", "evaluate", replicas=2))
        assert await ended(other, "eval-w1") == Observation(State.SUCCEEDED)
        printed = [(await other.logs("eval-w1", replica)).decode() for replica in range(2)]
        assert [line.split()[:2] for line in printed] == [["['evaluate']", "0"], ["['evaluate']", "1"]]
        assert all(line.split()[3] == "1" for line in printed)  # threads of each library

    async def test_how_many_replicas_run_is_seen(self, backend: Backend, other: Backend) -> None:
        await other.start(workload("eval-w1", "evaluate", replicas=2, SECONDS="600"))
        await backend.start(workload("job-a1", SECONDS="600"))
        await until(other, "eval-w1", lambda seen: seen is not None and seen.running == 2)
        await until(backend, "job-a1", lambda seen: seen is not None and seen.running == 1)
        await backend.stop("job-a1", 0)
        await until(backend, "job-a1", lambda seen: seen is None or not seen.running)

    async def test_one_failed_replica_is_a_failed_workload(self, other: Backend) -> None:
        await other.start(workload("eval-w1", "evaluate", replicas=2, CODE="3"))
        seen = await ended(other, "eval-w1")
        assert (seen.state, seen.replica) == (State.FAILED, 0)
        assert "exit code 3" in seen.message

    async def test_a_workload_is_told_its_secret(self, backend: Backend) -> None:
        await backend.start(workload("job-a1", DAF_TOKEN="s3cret", TOKEN_WANTED="s3cret"))
        assert await ended(backend, "job-a1") == Observation(State.SUCCEEDED)

    async def test_a_workload_runs_until_it_is_stopped(self, backend: Backend) -> None:
        await backend.start(workload("job-a1", SECONDS="600"))
        await running(backend, "job-a1")
        await backend.stop("job-a1", 5)
        seen = await until(backend, "job-a1", lambda seen: seen is None or seen.state is not State.RUNNING)
        assert seen is None or seen.state is State.FAILED  # a backend may forget what was stopped

    async def test_what_is_started_twice_runs_once(self, backend: Backend) -> None:
        for _ in range(2):
            await backend.start(workload("job-a1"))
        await ended(backend, "job-a1")
        await backend.start(workload("job-a1"))
        assert (await ended(backend, "job-a1")).state is State.SUCCEEDED
        assert (await backend.logs("job-a1")).count(b"train") == 1

    async def test_backends_of_two_verbs_see_only_their_own(self, backend: Backend, other: Backend) -> None:
        await backend.start(workload("same-name"))
        await other.start(workload("same-name-2", "evaluate"))
        assert set(await backend.observe()) == {"same-name"}
        assert set(await other.observe()) == {"same-name-2"}

    async def test_what_was_removed_is_unknown(self, backend: Backend) -> None:
        await backend.start(workload("job-a1"))
        await ended(backend, "job-a1")
        await backend.remove("job-a1")
        assert await until(backend, "job-a1", lambda seen: seen is None) is None
        assert await backend.logs("job-a1") == b""

    async def test_what_was_never_there_can_be_stopped_and_removed(self, backend: Backend) -> None:
        await backend.stop("job-a1", 1)
        await backend.remove("job-a1")
        assert await backend.logs("job-a1") == b""

    async def test_who_watches_is_told_of_an_end(self, backend: Backend) -> None:
        changed = asyncio.Event()
        backend.watch(lambda name: changed.set() if name == "job-a1" else None)
        await backend.start(workload("job-a1"))
        seen: Observation | None = None
        async with asyncio.timeout(120):
            while seen is None or seen.state is State.RUNNING:
                await changed.wait()
                changed.clear()
                seen = (await backend.observe()).get("job-a1")
        assert seen.state is State.SUCCEEDED
