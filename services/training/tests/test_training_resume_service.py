"""Attempts that go on where the one before was lost, several ranks, and jobs that users resume."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from daf_common.channel import connect_blocking, raising, streaming
from daf_common.clock import ManualClock
from daf_common.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from daf_common.workloads import Ranks, State
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.failure_pb2 import Failure
from daf_protos.common.v1.policy_pb2 import PolicyCheckpoint
from daf_protos.training.v1 import training_service_pb2 as pb
from daf_protos.training.v1 import worker_service_pb2 as worker_pb
from daf_protos.training.v1.training_job_pb2 import (
    Checkpoint,
    TrainingJobState,
    TrainingProgress,
    TrainingWorker,
)
from daf_protos.training.v1.training_service_pb2_grpc import TrainingServiceStub
from daf_training.sweeper import Sweeper

if TYPE_CHECKING:
    from .conftest import Stack
else:
    Stack = Any

STALLED = worker_pb.TrainingOutcome(failure=Failure(reason="STALLED", message="nothing was done for 600 seconds"))
CRASHED = worker_pb.TrainingOutcome(failure=Failure(reason="CRASHED", message="ImportError: no module named mine"))
PREEMPTED = worker_pb.TrainingOutcome(stopped=True)


def samples(*updates: int) -> list[worker_pb.MetricSample]:
    return [worker_pb.MetricSample(update=update, agent_steps=100 * update, values={"x": 1.0}) for update in updates]


async def train_until_lost(stack: Stack, job_id: str, saved: int, done: int, attempt: int = 1) -> worker_pb.Attempt:
    """An attempt that saves every update until `saved`, goes on until `done` and is killed."""
    worker = await stack.started(job_id, attempt)
    first = max([checkpoint.update for checkpoint in await stack.checkpoints(job_id)], default=0) + 1
    checkpoints = [await stack.resumable(worker, update) for update in range(first, saved + 1)]
    await stack.report(
        worker,
        1,
        progress=TrainingProgress(agent_steps=100 * done, total_agent_steps=1000, update=done),
        metrics=samples(*range(first, done + 1)),
        checkpoints=checkpoints,
        resumed_update=first - 1 or None,
    )
    stack.machines.end(f"{job_id}-a{attempt}", State.FAILED, "ended by SIGKILL")
    return worker


async def test_a_lost_attempt_is_followed_by_one_that_goes_on_where_it_was(stack: Stack) -> None:
    await stack.create("j", max_restarts=1)
    lost = await train_until_lost(stack, "j", saved=7, done=9)
    again = await stack.started("j", attempt=2)
    waiting = await stack.get("j")
    assignment = await stack.assignment(again)

    assert (waiting.progress.agent_steps, waiting.progress.total_agent_steps) == (700, 1000)
    assert [checkpoint.update for checkpoint in assignment.resume] == [7, 6, 5, 4, 3]
    located = {location.artifact.sha256 for location in assignment.downloads}
    newest = assignment.resume[0]
    assert {newest.weights.sha256, newest.trainer_state.sha256} <= located
    assert all(location.url for location in assignment.downloads)
    with pytest.raises(Aborted):
        await stack.assignment(lost)

    # It could not read the newest one.
    await stack.report(again, 1, log="falling back\n")
    await stack.report(again, 2, resumed_update=6, metrics=samples(7, 8))
    went_back = await stack.get("j")
    assert (went_back.progress.agent_steps, went_back.checkpoint.update) == (600, 6)
    assert [checkpoint.update for checkpoint in await stack.checkpoints("j")] == [6, 5, 4, 3]
    assert await stack.series("j", "x") == [1, 2, 3, 4, 5, 6, 7, 8]

    saved = await stack.resumable(again, 10)
    await stack.report(again, 3, checkpoints=[saved], outcome=worker_pb.TrainingOutcome())
    job = await stack.get("j")
    assert job.state == TrainingJobState.TRAINING_JOB_STATE_SUCCEEDED
    assert (job.checkpoint.attempt, job.checkpoint.parent) == (2, "trainingJobs/j/checkpoints/6")
    assert job.checkpoint.parent_sha256 == assignment.resume[1].weights.sha256
    second, first = await stack.attempts("j")
    assert (first.number, first.failure.reason, first.agent_steps, first.resumed_from) == (1, "WORKER_LOST", 900, "")
    assert first.HasField("start_time")
    assert first.HasField("end_time")
    assert (second.number, second.resumed_from) == (2, "trainingJobs/j/checkpoints/6")
    assert not second.HasField("failure")
    await until_gone(stack, newest.weights)


async def until_gone(stack: Stack, artifact: Artifact) -> None:
    sweeper = Sweeper(stack.training.store, stack.training.leader, stack.machines, stack.artifacts, stack.clock)

    async def is_gone() -> bool:
        await sweeper.step()  # instead of waiting until it looks by itself
        return not await stack.artifacts.exists(artifact)

    await stack.until(is_gone)


async def test_a_report_that_went_back_counts_once_however_often_it_is_sent(stack: Stack) -> None:
    await stack.create("j", max_restarts=1)
    await train_until_lost(stack, "j", saved=2, done=5)
    again = await stack.started("j", attempt=2)
    saved = await stack.resumable(again, 4)
    went_back = {"resumed_update": 2, "metrics": samples(3)}
    await asyncio.gather(*(stack.report(again, 1, **went_back) for _ in range(5)))
    await stack.report(again, 2, metrics=samples(4, 5, 6), checkpoints=[saved])
    await stack.report(again, 1, **went_back)

    assert await stack.series("j", "x") == [1, 2, 3, 4, 5, 6]
    assert [checkpoint.update for checkpoint in await stack.checkpoints("j")] == [4, 2, 1]
    with pytest.raises(InvalidArgument, match="resumed_update"):  # it has begun already
        await stack.report(again, 3, resumed_update=1)


async def test_an_attempt_goes_back_to_a_checkpoint_that_it_was_given(stack: Stack) -> None:
    await stack.create("j", max_restarts=1)
    await train_until_lost(stack, "j", saved=2, done=2)
    again = await stack.started("j", attempt=2)
    for update in (0, 3):
        with pytest.raises(InvalidArgument, match="resumed_update"):
            await stack.report(again, 1, resumed_update=update)
    assert [checkpoint.update for checkpoint in await stack.checkpoints("j")] == [2, 1]


async def test_the_numbers_of_an_attempt_that_left_no_checkpoint_are_forgotten(stack: Stack) -> None:
    await stack.create("j", max_restarts=1)
    await train_until_lost(stack, "j", saved=0, done=4)
    again = await stack.started("j", attempt=2)
    assert not (await stack.assignment(again)).resume
    await stack.report(again, 1, metrics=samples(1, 2))
    assert await stack.series("j", "x") == [1, 2]
    assert (await stack.attempts("j"))[0].resumed_from == ""


async def test_attempts_are_repeated_only_so_often_and_each_keeps_its_cause(stack: Stack) -> None:
    await stack.create("j", max_restarts=2)
    await train_until_lost(stack, "j", saved=1, done=1)
    await stack.report(await stack.started("j", attempt=2), 1, outcome=STALLED)
    stack.machines.end("j-a2", State.FAILED, "exit code 1")
    await stack.report(await stack.started("j", attempt=3), 1, outcome=PREEMPTED)

    job = await stack.get("j")
    assert (job.state, job.failure.reason) == (TrainingJobState.TRAINING_JOB_STATE_FAILED, "PREEMPTED")
    attempts = await stack.attempts("j")
    assert [(a.number, a.failure.reason) for a in attempts] == [(3, "PREEMPTED"), (2, "STALLED"), (1, "WORKER_LOST")]
    first = await raising(stack.jobs.ListAttempts(pb.ListAttemptsRequest(parent="trainingJobs/j", page_size=2)))
    assert [a.number for a in first.attempts] == [3, 2]
    rest = pb.ListAttemptsRequest(parent="trainingJobs/j", page_size=2, page_token=first.next_page_token)
    assert [a.number for a in (await raising(stack.jobs.ListAttempts(rest))).attempts] == [1]


async def test_a_workers_own_failure_is_not_repeated(stack: Stack) -> None:
    await stack.create("j", max_restarts=5)
    await stack.report(await stack.started("j"), 1, outcome=CRASHED)
    assert (await stack.get("j")).state == TrainingJobState.TRAINING_JOB_STATE_FAILED
    assert [a.failure.reason for a in await stack.attempts("j")] == ["CRASHED"]


async def test_the_running_attempt_shows_how_far_it_is(stack: Stack) -> None:
    await stack.create("j", workers=2)
    worker = await stack.started("j")
    told = TrainingProgress(
        agent_steps=300,
        update=3,
        losses={"policy_loss": 0.5, "broken": float("nan")},
        workers=[TrainingWorker(rank=rank, cpu_cores=0.9, memory_bytes=1 << 30) for rank in range(2)],
    )
    await stack.report(worker, 1, progress=told)
    (attempt,) = await stack.attempts("j")
    shown = (await stack.get("j")).progress

    assert (attempt.agent_steps, attempt.workers, attempt.HasField("end_time")) == (300, 2, False)
    assert (dict(shown.losses), list(shown.workers)) == ({"policy_loss": 0.5}, list(told.workers))


async def test_every_rank_reports_and_rank_0_for_all(stack: Stack) -> None:
    await stack.create("j", workers=2)
    zero, one = await stack.started("j"), await stack.started("j", rank=1)
    workload = stack.machines.started["j-a1"]
    assert workload.replicas == 1
    assert workload.ranks == Ranks(2, per_machine=1)
    assert workload.environment["CUDA_VISIBLE_DEVICES"] == ""
    for rank in (zero, one):
        assignment = await stack.assignment(rank)
        assert (assignment.spec.workers, assignment.cpus, assignment.stall_seconds) == (2, 1, 600)

    await stack.report(zero, 1, log="zero\n", progress=TrainingProgress(agent_steps=1))
    await stack.report(one, 1, log="one\n")
    await stack.report(one, 1, log="one\n")
    request = pb.ReadLogsRequest(name="trainingJobs/j")
    pieces = [(piece.worker, piece.text) async for piece in streaming(stack.jobs.ReadLogs(request))]
    assert pieces == [(0, "zero\n"), (1, "one\n")]
    wrong: list[dict[str, Any]] = [
        {"progress": TrainingProgress()},
        {"metrics": samples(1)},
        {"checkpoints": [Checkpoint()]},
        {"resumed_update": 1},
    ]
    for fields in wrong:
        with pytest.raises(InvalidArgument, match="rank 0"):
            await stack.report(one, 2, **fields)
    with pytest.raises(InvalidArgument, match=r"attempt\.rank"):
        await stack.write(one, b"weights")
    with pytest.raises(InvalidArgument, match=r"attempt\.rank: must be between 0 and 1"):
        await stack.assignment(await stack.started("j", rank=2))

    await stack.report(one, 2, outcome=CRASHED)
    job = await stack.get("j")
    assert (job.state, job.failure) == (TrainingJobState.TRAINING_JOB_STATE_FAILED, CRASHED.failure)
    with pytest.raises(Aborted):
        await stack.report(zero, 2, progress=TrainingProgress(agent_steps=2))


async def test_what_the_other_ranks_print_at_the_end_of_a_lost_attempt_is_kept(stack: Stack) -> None:
    await stack.create("j", workers=2, max_restarts=1)
    zero, one = await stack.started("j"), await stack.started("j", rank=1)
    await stack.report(one, 1, log="rank 1: its stacks\n", outcome=STALLED)
    for _ in range(2):
        assert await stack.report(zero, 1, log="rank 0: its stacks\n", outcome=STALLED)  # it is told to end
    stack.machines.end("j-a1", State.FAILED, "exit code 1")
    await stack.started("j", attempt=2)

    assert await stack.log_of("j") == "rank 1: its stacks\nrank 0: its stacks\n"
    assert [(a.number, a.failure.reason) for a in await stack.attempts("j")] == [(2, ""), (1, "STALLED")]


async def test_a_cancelled_job_of_several_ranks_tells_all_of_them_and_keeps_what_rank_0_saves(stack: Stack) -> None:
    await stack.create("j", workers=2)
    zero, one = await stack.started("j"), await stack.started("j", rank=1)
    await stack.report(zero, 1, progress=TrainingProgress(agent_steps=1))
    await stack.cancel("j")

    assert await stack.report(one, 1)
    assert await stack.report(zero, 2)
    await stack.report(one, 2, outcome=CRASHED)  # since its peer has gone
    saved = await stack.resumable(zero, 3)
    await stack.report(zero, 3, checkpoints=[saved], outcome=worker_pb.TrainingOutcome(stopped=True))
    job = await stack.get("j")
    assert (job.state, job.checkpoint.update) == (TrainingJobState.TRAINING_JOB_STATE_CANCELLED, 3)
    assert [a.failure.reason for a in await stack.attempts("j")] == ["CANCELLED"]


@pytest.mark.parametrize("end", ["SUCCEEDED", "FAILED", "CANCELLED"])
async def test_a_user_goes_on_with_a_job_that_has_ended(stack: Stack, end: str) -> None:
    await stack.create("j")
    worker = await stack.started("j")
    await stack.report(worker, 1, checkpoints=[await stack.resumable(worker, 10)], metrics=samples(10))
    if end == "CANCELLED":
        await stack.cancel("j")
    outcomes = {"SUCCEEDED": worker_pb.TrainingOutcome(), "FAILED": CRASHED, "CANCELLED": PREEMPTED}
    await stack.report(worker, 2, outcome=outcomes[end])
    await stack.until_state("j", end)
    stack.machines.end("j-a1", State.SUCCEEDED)
    watch = streaming(stack.jobs.WatchTrainingJobs(pb.WatchTrainingJobsRequest(name="trainingJobs/j")))
    await anext(watch)

    resumed = await stack.resume("j", workers=2, agent_steps=2000)

    assert (resumed.spec.workers, resumed.spec.agent_steps) == (2, 2000)
    assert (resumed.progress.agent_steps, resumed.checkpoint.update) == (1000, 10)
    assert not resumed.HasField("failure")
    assert not resumed.HasField("end_time")
    assert not resumed.cancel_requested
    change = await asyncio.wait_for(anext(watch), 30)
    assert change.training_jobs[0].state != TrainingJobState.Value(f"TRAINING_JOB_STATE_{end}")
    again = await stack.started("j", attempt=2)
    assignment = await stack.assignment(again)
    assert (assignment.spec.agent_steps, assignment.spec.workers) == (2000, 2)
    assert [checkpoint.update for checkpoint in assignment.resume] == [10]
    saved = await stack.resumable(again, 20)
    await stack.report(again, 1, resumed_update=10, metrics=samples(20))
    await stack.report(again, 2, checkpoints=[saved], outcome=worker_pb.TrainingOutcome())
    assert (await stack.get("j")).checkpoint.parent == "trainingJobs/j/checkpoints/10"
    assert await stack.series("j", "x") == [10, 20]
    assert [(a.number, a.workers) for a in await stack.attempts("j")] == [(2, 2), (1, 1)]


async def test_a_resumed_job_has_all_its_restarts_again(stack: Stack) -> None:
    await stack.create("j", max_restarts=1)
    for attempt in (1, 2):
        await stack.started("j", attempt)
        stack.machines.end(f"j-a{attempt}", State.FAILED, "ended by SIGKILL")
    await stack.until_state("j", "FAILED")
    await stack.resume("j")
    await stack.started("j", attempt=3)
    stack.machines.end("j-a3", State.FAILED, "ended by SIGKILL")
    await stack.started("j", attempt=4)
    assert len(await stack.attempts("j")) == 4


async def test_what_cannot_be_resumed_is_refused_with_what_to_do(stack: Stack) -> None:
    with pytest.raises(NotFound):
        await stack.resume("j")
    await stack.create("j")
    worker = await stack.started("j")
    with pytest.raises(FailedPrecondition, match="has not ended"):
        await stack.resume("j")
    await stack.report(worker, 1, checkpoints=[await stack.resumable(worker, 11)], outcome=worker_pb.TrainingOutcome())
    for fields in ({}, {"workers": 2}, {"agent_steps": 1000}, {"agent_steps": 900}):
        with pytest.raises(FailedPrecondition, match="ask for more"):
            await stack.resume("j", **fields)
    with pytest.raises(FailedPrecondition, match="has done 1100 agent steps already"):
        await stack.resume("j", agent_steps=1050)
    with pytest.raises(FailedPrecondition, match="3 CPUs, but there are only 2"):
        await stack.resume("j", agent_steps=2000, workers=3)
    for fields in ({"workers": 0}, {"workers": -1}, {"agent_steps": 0}, {"agent_steps": 2**62}):
        with pytest.raises(InvalidArgument, match="must be between 1"):
            await stack.resume("j", **fields)
    assert (await stack.get("j")).state == TrainingJobState.TRAINING_JOB_STATE_SUCCEEDED


async def test_a_job_whose_checkpoints_are_weights_alone_cannot_go_on(stack: Stack) -> None:
    await stack.create("j")
    worker = await stack.started("j")
    await stack.report(worker, 1, checkpoints=[await stack.checkpoint(worker, 1)], outcome=CRASHED)
    with pytest.raises(FailedPrecondition, match="starts from one"):
        await stack.resume("j")


async def test_a_job_that_never_saved_starts_afresh(stack: Stack) -> None:
    await stack.create("j")
    await stack.report(await stack.started("j"), 1, metrics=samples(1), outcome=CRASHED)
    await stack.resume("j")
    await stack.until_waiting_for("j", "the end of its last attempt")
    stack.machines.end("j-a1", State.FAILED, "exit code 1")
    again = await stack.started("j", attempt=2)
    assert not (await stack.assignment(again)).resume
    await stack.report(again, 1, progress=TrainingProgress(agent_steps=1))
    assert await stack.series("j", "x") == []


async def test_the_same_wish_to_resume_from_many_threads_is_carried_out_once(stack: Stack) -> None:
    await stack.create("j")
    await stack.report(await stack.started("j"), 1, outcome=CRASHED)
    stack.machines.end("j-a1", State.FAILED, "exit code 1")
    request = pb.ResumeTrainingJobRequest(name="trainingJobs/j", request_id="again", workers=2)

    def ask(_: int) -> str:
        with connect_blocking(stack.address) as channel:
            return TrainingServiceStub(channel).ResumeTrainingJob(request).training_job.name

    threads, loop = ThreadPoolExecutor(16), asyncio.get_running_loop()
    try:
        names = await asyncio.gather(*(loop.run_in_executor(threads, ask, number) for number in range(100)))
    finally:
        threads.shutdown(wait=False, cancel_futures=True)

    assert set(names) == {"trainingJobs/j"}
    await stack.started("j", attempt=2)
    assert [(a.number, a.workers) for a in await stack.attempts("j")] == [(2, 2), (1, 1)]
    request.workers = 1
    with pytest.raises(AlreadyExists):
        await raising(stack.jobs.ResumeTrainingJob(request))


async def test_a_worker_that_is_cut_off_goes_on_where_the_network_heals(stack: Stack, clock: ManualClock) -> None:
    await stack.create("j", max_restarts=1)
    worker = await stack.started("j")
    await stack.report(worker, 1, progress=TrainingProgress(agent_steps=1))
    clock.advance(300)

    async def looked() -> bool:
        stack.training._enqueue("j")
        return (await stack.get("j")).attempt == 1

    await stack.until(looked)
    await stack.report(worker, 2, progress=TrainingProgress(agent_steps=2))
    assert len(await stack.attempts("j")) == 1


async def test_a_worker_that_comes_back_after_its_attempt_was_repeated_changes_nothing(stack: Stack) -> None:
    await stack.create("j", max_restarts=1)
    late = await train_until_lost(stack, "j", saved=1, done=2)
    again = await stack.started("j", attempt=2)
    calls = (
        lambda: stack.report(late, 2, metrics=samples(3), progress=TrainingProgress(agent_steps=300)),
        lambda: stack.report(late, 2, log="late\n", outcome=STALLED),
        lambda: stack.report(late, 2),
        lambda: stack.write(late, b"late"),
        lambda: stack.assignment(late),
    )
    for call in calls:
        with pytest.raises(Aborted):
            await call()
    await stack.report(again, 1, resumed_update=1, progress=TrainingProgress(agent_steps=150))

    assert await stack.series("j", "x") == [1]
    assert await stack.log_of("j") == ""
    assert (await stack.get("j")).progress.agent_steps == 150


async def test_the_best_checkpoint_is_kept_by_the_metric_that_was_asked_for(stack: Stack) -> None:
    await stack.create("j", max_checkpoints=2, best_metric="losses/value", minimize_best_metric=True)
    worker = await stack.started("j")
    for update, loss in enumerate([3.0, 0.5, 2.0, float("nan"), 4.0, 5.0], start=1):
        saved = await stack.resumable(worker, update, metrics={"losses/value": loss, "other": 1.0})
        await stack.report(worker, update, checkpoints=[saved])

    job = await stack.get("j")
    assert (job.checkpoint.update, job.best_checkpoint.update) == (6, 2)
    assert dict(job.best_checkpoint.metrics) == {"losses/value": 0.5, "other": 1.0}
    assert [checkpoint.update for checkpoint in await stack.checkpoints("j")] == [6, 5, 2]


async def test_without_its_metric_no_checkpoint_is_the_best(stack: Stack) -> None:
    await stack.create("j", max_checkpoints=1, best_metric="never/reported")
    worker = await stack.started("j")
    for update in (1, 2):
        await stack.report(worker, update, checkpoints=[await stack.resumable(worker, update, reward=1.0)])
    assert not (await stack.get("j")).HasField("best_checkpoint")
    assert [checkpoint.update for checkpoint in await stack.checkpoints("j")] == [2]


async def test_the_best_checkpoint_of_an_abandoned_tail_is_the_best_no_longer(stack: Stack) -> None:
    await stack.create("j", max_restarts=1)
    worker = await stack.started("j")
    for update, reward in ((1, 2.0), (2, 1.0), (3, 9.0)):
        await stack.report(worker, update, checkpoints=[await stack.resumable(worker, update, reward=reward)])
    assert (await stack.get("j")).best_checkpoint.update == 3
    stack.machines.end("j-a1", State.FAILED, "ended by SIGKILL")
    await stack.report(await stack.started("j", attempt=2), 1, resumed_update=2)
    assert (await stack.get("j")).best_checkpoint.update == 1


async def test_weights_from_which_a_job_starts_stay_while_it_is_there(stack: Stack) -> None:
    await stack.create("parent", max_checkpoints=1)
    worker = await stack.started("parent")
    await stack.report(worker, 1, checkpoints=[await stack.resumable(worker, 1)])
    (source,) = await stack.checkpoints("parent")
    start = PolicyCheckpoint(weights=source.weights, checkpoint=source.name)
    await stack.create("child", start=start)
    await stack.report(worker, 2, checkpoints=[await stack.resumable(worker, 2)])  # drops the first
    await until_gone(stack, source.trainer_state)
    assert await stack.artifacts.exists(source.weights)

    child = await stack.started("child")
    assert source.weights in [location.artifact for location in (await stack.assignment(child)).downloads]
    saved = await stack.resumable(child, 1)
    await stack.report(child, 1, checkpoints=[saved], outcome=worker_pb.TrainingOutcome())
    job = await stack.get("child")
    assert (job.checkpoint.parent, job.checkpoint.parent_sha256) == (source.name, source.weights.sha256)
    await raising(stack.jobs.DeleteTrainingJob(pb.DeleteTrainingJobRequest(name="trainingJobs/child")))
    await until_gone(stack, source.weights)
