"""Jobs that make do with fewer workers, through the real service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from daf_common.channel import raising
from daf_common.clock import ManualClock
from daf_common.errors import FailedPrecondition
from daf_common.workloads import Ranks, State
from daf_protos.training.v1 import training_service_pb2 as pb
from daf_protos.training.v1 import worker_service_pb2 as worker_pb
from daf_protos.training.v1.training_job_pb2 import TrainingProgress

from .conftest import Stack

NO_ROOM = "j-worker-0: it cannot be scheduled: no node has room"
CRASHED = worker_pb.TrainingOutcome(failure={"reason": "CRASHED", "message": "x"})


@pytest.fixture
async def unlimited(tmp_path: Path, database_url: str, clock: ManualClock) -> AsyncIterator[Stack]:
    """A service where something else admits workloads, as on a cluster. It leads for longer than the tests have time
    pass at once: one that has lost the lead for a moment waits for its workers anew."""
    compute = {"training_cpus": None, "training_gpus": None, "elastic_patience_seconds": 60}
    stack = Stack(tmp_path, database_url, clock, **compute, leader_seconds=10_000)
    await stack.start()
    yield stack
    await stack.stop()


async def begin_without_room(stack: Stack, **wishes: int) -> None:
    """Starts job `j`, of which one worker runs and there is no room for more."""
    await stack.create("j", **wishes)
    await stack.started("j")
    stack.machines.see("j-a1", NO_ROOM, running=1)
    await stack.until_waiting_for("j", NO_ROOM)


async def ended_for_too_few(stack: Stack, attempt: int) -> Any:
    """Waits until an attempt has ended, and has its workload be gone; returns it."""

    async def has_ended() -> Any:
        found = {one.number: one for one in await stack.attempts("j")}[attempt]
        return found if found.HasField("end_time") else None

    found = await stack.until(has_ended)
    stack.machines.end(f"j-a{attempt}", State.FAILED, "ended by SIGTERM")
    return found


async def test_a_job_starts_with_the_workers_for_which_there_is_room(stack: Stack) -> None:
    await stack.create("before")
    first = await stack.started("before")
    await stack.create("j", workers=2, min_workers=1)
    worker = await stack.started("j")

    assert stack.machines.started["j-a1"].ranks == Ranks(1, per_machine=1)
    assignment = await stack.assignment(worker)
    assert (assignment.spec.workers, assignment.spec.agent_steps) == (1, 1000)
    await stack.create("after")
    await stack.until_waiting_for("after", "1 CPU: 0 of 2 are free")
    await stack.succeed(first)
    await stack.started("after")  # in the place of what has ended, of which this one takes nothing

    assert [attempt.workers for attempt in await stack.attempts("j")] == [1]
    assert (await stack.get("j")).spec.workers == 2
    await stack.report(worker, 1, outcome=CRASHED)
    stack.machines.end("j-a1", State.FAILED, "exit code 1")
    stack.machines.end("after-a1", State.FAILED, "ended by SIGKILL")
    await stack.until_state("after", "FAILED")
    await stack.resume("j")
    await stack.started("j", attempt=2)
    assert stack.machines.started["j-a2"].ranks == Ranks(2, per_machine=1)


async def test_what_does_not_fit_with_the_fewest_is_refused(stack: Stack) -> None:
    with pytest.raises(FailedPrecondition, match="3 workers of profile cpu-small need 3 CPUs, but there are only 2"):
        await stack.create("j", workers=5, min_workers=3)
    await stack.create("j", workers=5, min_workers=1)
    await stack.started("j")
    assert stack.machines.started["j-a1"].ranks == Ranks(2, per_machine=1)


async def test_an_attempt_of_which_too_few_run_is_followed_by_a_smaller_one(
    unlimited: Stack, clock: ManualClock
) -> None:
    stack = unlimited
    await stack.create("j", workers=3, min_workers=1, max_restarts=1)
    await stack.started("j")
    stack.machines.see("j-a1", NO_ROOM, running=1)
    await stack.until_waiting_for("j", NO_ROOM)
    clock.advance(59)
    stack.machines.see("j-a1", f"{NO_ROOM} now", running=2)  # one more, so there may be others
    await stack.until_waiting_for("j", f"{NO_ROOM} now")
    clock.advance(59)
    stack.machines.see("j-a1", f"{NO_ROOM} yet", running=2)
    await stack.until_waiting_for("j", f"{NO_ROOM} yet")
    assert len(await stack.attempts("j")) == 1
    clock.advance(1)
    stack.machines.see("j-a1", f"{NO_ROOM} yet", running=2)

    first = await ended_for_too_few(stack, 1)
    assert (first.workers, first.failure.reason) == (3, "TOO_FEW_WORKERS")
    assert first.failure.message == f"only 2 of 3 workers could run: {NO_ROOM} yet"
    zero, one = await stack.started("j", 2), await stack.started("j", 2, rank=1)
    assert stack.machines.started["j-a2"].ranks == Ranks(2, per_machine=1)
    for worker in (zero, one):
        assert (await stack.assignment(worker)).spec.workers == 2
    saved = await stack.resumable(zero, 2)
    await stack.report(zero, 1, progress=TrainingProgress(agent_steps=200, update=2), checkpoints=[saved])

    stack.machines.end("j-a2", State.FAILED, "evicted")  # that is a loss: it is counted, and all are asked for again
    await stack.started("j", 3)
    assert stack.machines.started["j-a3"].ranks == Ranks(3, per_machine=1)
    assert [attempt.workers for attempt in await stack.attempts("j")] == [3, 2, 3]
    stack.machines.end("j-a3", State.FAILED, "evicted")
    await stack.until_state("j", "FAILED")  # its one restart was for the loss


async def test_a_restarted_service_waits_no_shorter_and_remembers_what_the_next_attempt_gets(
    unlimited: Stack, clock: ManualClock
) -> None:
    stack = unlimited
    await begin_without_room(stack, workers=2, min_workers=1)
    clock.jump(3600)
    await stack.stop()
    await stack.start()
    stack.machines.see("j-a1", f"{NO_ROOM} still", running=1)
    await stack.until_waiting_for("j", f"{NO_ROOM} still")
    assert len(await stack.attempts("j")) == 1
    clock.advance(60)
    stack.machines.see("j-a1", NO_ROOM, running=1)

    async def waits_for_the_last() -> bool:
        return "the end of its last attempt" in (await stack.get("j")).waiting_for

    await stack.until(waits_for_the_last)
    await stack.stop()
    await stack.start()
    await ended_for_too_few(stack, 1)
    await stack.started("j", 2)
    assert stack.machines.started["j-a2"].ranks == Ranks(1, per_machine=1)


async def test_a_job_under_the_name_of_one_before_is_waited_for_anew(unlimited: Stack, clock: ManualClock) -> None:
    stack = unlimited
    await begin_without_room(stack, workers=2, min_workers=1)
    clock.advance(60)
    stack.machines.see("j-a1", NO_ROOM, running=1)
    await ended_for_too_few(stack, 1)
    await stack.succeed(await stack.started("j", 2))
    await raising(stack.jobs.DeleteTrainingJob(pb.DeleteTrainingJobRequest(name="trainingJobs/j")))

    stack.machines.see("j-a1", NO_ROOM, running=1)  # as of the one before
    await stack.create("j", workers=2, min_workers=1)
    for what in ("first", "second"):
        stack.machines.see("j-a1", what, running=1)
        await stack.until_waiting_for("j", what)
    assert [attempt.HasField("end_time") for attempt in await stack.attempts("j")] == [False]


async def test_a_job_that_needs_all_its_workers_waits_for_them(unlimited: Stack, clock: ManualClock) -> None:
    stack = unlimited
    await begin_without_room(stack, workers=2)
    clock.advance(3600)
    stack.machines.see("j-a1", f"{NO_ROOM} still", running=1)
    await stack.until_waiting_for("j", f"{NO_ROOM} still")
    assert [attempt.HasField("end_time") for attempt in await stack.attempts("j")] == [False]


async def test_a_job_that_goes_on_with_fewer_workers_makes_do_with_no_more(stack: Stack) -> None:
    await stack.create("j", workers=2, min_workers=2)
    await stack.report(await stack.started("j"), 1, outcome=CRASHED)
    stack.machines.end("j-a1", State.FAILED, "exit code 1")
    resumed = await stack.resume("j", workers=1)
    assert (resumed.spec.workers, resumed.spec.min_workers) == (1, 1)
    await stack.started("j", 2)
    assert stack.machines.started["j-a2"].ranks == Ranks(1, per_machine=1)
