"""Jobs through the real service: from their creation to their end, with the test in the role of the workers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
import sqlalchemy as sa

from daf_common.channel import raising, streaming
from daf_common.clock import ManualClock
from daf_common.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from daf_common.workloads import State
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.failure_pb2 import Failure
from daf_protos.common.v1.policy_pb2 import PolicyClass
from daf_protos.common.v1.value_pb2 import Value
from daf_protos.statistics.v1.statistics_service_pb2 import ReadMetricsRequest
from daf_protos.training.v1 import training_service_pb2 as pb
from daf_protos.training.v1 import worker_service_pb2 as worker_pb
from daf_protos.training.v1.training_job_pb2 import (
    Checkpoint,
    TrainingJobState,
    TrainingProgress,
)
from daf_training.sweeper import EXIT_SECONDS, Sweeper
from daf_training.tables import TRANSITIONS

if TYPE_CHECKING:
    from .conftest import Stack
else:
    Stack = Any


async def test_a_job_goes_from_its_creation_to_its_final_checkpoint(stack: Stack) -> None:
    created = await stack.create("j")
    attempt = await stack.started("j")
    assert created.state == TrainingJobState.TRAINING_JOB_STATE_PENDING
    assert (await stack.get("j")).state == TrainingJobState.TRAINING_JOB_STATE_STARTING

    progress = TrainingProgress(agent_steps=500, total_agent_steps=1024, update=1, learning_rate=0.001)
    await stack.report(attempt, 1, progress=progress, effective_trainer={"learning_rate": Value(real=0.001)})
    running = await stack.get("j")
    assert running.state == TrainingJobState.TRAINING_JOB_STATE_RUNNING
    assert running.progress == progress

    await stack.succeed(attempt, 2)
    job = await stack.get("j")
    assert job.state == TrainingJobState.TRAINING_JOB_STATE_SUCCEEDED
    assert job.checkpoint.name == "trainingJobs/j/checkpoints/3"
    assert await stack.artifacts.get(job.checkpoint.weights) == b"weights 3"
    assert job.effective_trainer["learning_rate"].real == 0.001
    assert job.spec == stack.spec()
    assert job.revision > running.revision > created.revision


async def test_an_assignment_leaves_nothing_to_defaults(stack: Stack) -> None:
    code = await stack.artifacts.put(b"code", "application/zip")
    mine = PolicyClass(class_path="mine.Mine", code=code, arguments={"hidden_size": Value(integer=8)})
    await stack.create("j", policy_class=mine, trainer={"lr": Value(real=0.001)})
    attempt = await stack.started("j")

    answer = await raising(stack.worker.GetAssignment(worker_pb.GetAssignmentRequest(attempt=attempt)))

    assert (answer.spec.environments, answer.spec.workers, answer.spec.profile) == (16, 1, "cpu-small")
    assert answer.spec.trainer == {"learning_rate": Value(real=0.001)}
    assert [location.artifact for location in answer.downloads] == [code]
    assert Path(unquote(urlsplit(answer.downloads[0].url).path)).read_bytes() == b"code"
    assert answer.report_interval_seconds > 0


async def test_jobs_beyond_the_slots_wait_in_order_and_start_when_one_ends(stack: Stack) -> None:
    for job_id in ("a", "b", "c", "d"):
        await stack.create(job_id)
    first = await stack.started("a")
    await stack.started("b")
    assert (await stack.get("c")).state == TrainingJobState.TRAINING_JOB_STATE_PENDING

    await stack.succeed(first)
    await stack.started("c")

    assert (await stack.get("d")).state == TrainingJobState.TRAINING_JOB_STATE_PENDING


async def test_metrics_reach_statistics_by_update_and_non_finite_ones_by_name(stack: Stack) -> None:
    await stack.create("j")
    attempt = await stack.started("j")
    sample = worker_pb.MetricSample(
        update=4, agent_steps=400, values={"losses/value": 0.5, "losses/policy": float("nan")}, non_finite=["env/x"]
    )
    await stack.report(attempt, 1, metrics=[sample])
    await stack.report(attempt, 2, metrics=[sample])  # as after a restart of the worker's reporter

    read = ReadMetricsRequest(source="trainingJobs/j")
    series = {s.metric: s for s in (await raising(stack.statistics.ReadMetrics(read))).series}

    assert (list(series["losses/value"].steps), list(series["losses/value"].values)) == ([4], [0.5])
    assert {"losses/policy", "env/x"} <= series.keys()
    assert series["losses/policy"].values[0] != series["losses/policy"].values[0]  # NaN


async def test_a_report_that_is_sent_again_counts_once(stack: Stack) -> None:
    await stack.create("j")
    attempt = await stack.started("j")
    await stack.report(attempt, 1, log="once\n")
    await stack.report(attempt, 1, log="once\n")
    saved = await stack.checkpoint(attempt, 3)
    for _ in range(2):  # the last one, too, though the job has ended by then
        await stack.report(attempt, 2, checkpoints=[saved], outcome=worker_pb.TrainingOutcome())

    assert await stack.log_of("j") == "once\n"
    assert (await stack.get("j")).state == TrainingJobState.TRAINING_JOB_STATE_SUCCEEDED
    with pytest.raises(Aborted):
        await stack.report(attempt, 3, log="late\n")


async def test_a_log_is_followed_until_the_job_ends(stack: Stack) -> None:
    await stack.create("j")
    attempt = await stack.started("j")
    following = asyncio.create_task(stack.log_of("j", follow=True))

    await stack.report(attempt, 1, log="first\n")
    await stack.report(attempt, 2, log="a NUL: \x00\n")
    assert not following.done()
    await stack.succeed(attempt, 3)

    assert await asyncio.wait_for(following, 60) == "first\na NUL: �\n"


async def test_only_the_current_attempt_may_report(stack: Stack) -> None:
    await stack.create("j", max_restarts=1)
    first = await stack.started("j")
    await stack.report(first, 1, progress=TrainingProgress(agent_steps=1))
    stack.machines.end("j-a1", State.FAILED, "exit code 1")
    second = await stack.started("j", attempt=2)

    with pytest.raises(Aborted):
        await stack.report(first, 2, progress=TrainingProgress(agent_steps=2))
    stranger = worker_pb.Attempt(training_job="trainingJobs/j", attempt=2, token=first.token)
    with pytest.raises(PermissionDenied):
        await stack.report(stranger, 1, progress=TrainingProgress(agent_steps=2))
    await stack.succeed(second)

    assert (await stack.get("j")).attempt == 2


async def test_a_worker_that_ends_without_a_word_fails_the_job_with_its_last_lines(stack: Stack) -> None:
    await stack.create("j")
    attempt = await stack.started("j")
    await stack.report(attempt, 1, progress=TrainingProgress(agent_steps=1))
    stack.machines.end("j-a1", State.FAILED, "ended by SIGKILL", b"loading\nMemoryError: no more\n")

    job = await stack.until_state("j", "FAILED")

    assert job.failure.reason == "WORKER_LOST"
    assert "SIGKILL" in job.failure.message
    assert "MemoryError: no more" in job.failure.message
    assert "MemoryError: no more" in await stack.log_of("j")


async def test_machines_out_of_reach_fail_nothing(stack: Stack) -> None:
    await stack.create("j")
    attempt = await stack.started("j")
    await stack.report(attempt, 1, progress=TrainingProgress(agent_steps=1))
    stack.machines.reachable = False
    stack.machines.states.clear()

    async def looked_in_vain() -> bool:
        stack.training._enqueue("j")
        return stack.machines.looked_in_vain >= 3

    await stack.until(looked_in_vain)

    assert (await stack.get("j")).state == TrainingJobState.TRAINING_JOB_STATE_RUNNING
    await stack.succeed(attempt, 2)
    await stack.until_state("j", "SUCCEEDED")


async def test_what_a_workload_waits_for_is_shown(stack: Stack) -> None:
    await stack.create("j")
    await stack.started("j")
    stack.machines.see("j-a1", "its image cannot be pulled")
    async for response in streaming(stack.jobs.WatchTrainingJobs(pb.WatchTrainingJobsRequest(name="trainingJobs/j"))):
        if response.training_jobs and response.training_jobs[-1].waiting_for:
            break
    assert response.training_jobs[-1].waiting_for == "its image cannot be pulled"


async def test_a_backend_that_lacks_something_takes_no_jobs_and_those_that_are_there_say_why(stack: Stack) -> None:
    stack.machines.refuses = "install the operator"
    await stack.create("j")
    async for response in streaming(stack.jobs.WatchTrainingJobs(pb.WatchTrainingJobsRequest(name="trainingJobs/j"))):
        if response.training_jobs and response.training_jobs[-1].waiting_for:
            break
    assert response.training_jobs[-1].waiting_for == "install the operator"

    stack.machines.missing = "install the operator"
    with pytest.raises(FailedPrecondition, match="install the operator"):
        await stack.create("k")

    stack.machines.missing = stack.machines.refuses = ""
    await stack.started("j")


async def test_a_job_that_never_was_heard_of_is_cancelled_though_nobody_can_see_its_workload(
    stack: Stack, clock: ManualClock
) -> None:
    await stack.create("unheard")
    await stack.create("heard")
    await stack.started("unheard")
    attempt = await stack.started("heard")
    await stack.report(attempt, 1, log="here\n")

    stack.machines.missing = "install the operator"
    for job in ("unheard", "heard"):
        await stack.cancel(job)
    await stack.until_state("unheard", "CANCELLED")

    assert await stack.report(attempt, 2, log="still\n")  # told to stop: it may save first
    assert (await stack.get("heard")).state == TrainingJobState.TRAINING_JOB_STATE_STARTING

    stack.machines.missing = ""
    sweeper = Sweeper(stack.training.store, stack.training.leader, stack.machines, stack.artifacts, clock)
    await sweeper.step()
    clock.advance(EXIT_SECONDS)
    await sweeper.step()
    assert "unheard-a1" in stack.machines.stopped  # it lived all the time


async def test_who_asks_again_for_a_job_that_is_there_gets_it_though_no_other_could_be_started(stack: Stack) -> None:
    request = pb.CreateTrainingJobRequest(request_id="r", job_id="j", spec=stack.spec())
    await raising(stack.jobs.CreateTrainingJob(request))
    stack.machines.missing = "install the operator"
    assert (await raising(stack.jobs.CreateTrainingJob(request))).training_job.name == "trainingJobs/j"
    with pytest.raises(FailedPrecondition, match="install the operator"):
        await raising(stack.jobs.CreateTrainingJob(pb.CreateTrainingJobRequest(validate_only=True, spec=request.spec)))


async def test_a_machine_that_keeps_a_log_to_itself_holds_up_no_other_job(stack: Stack) -> None:
    for job in ("a", "b"):
        await stack.create(job)
        await stack.started(job)
    stack.machines.silent = {"a-a1"}
    for job in ("a", "b"):
        stack.machines.end(f"{job}-a1", State.FAILED, "its node is lost")
    await stack.until_state("b", "FAILED")
    assert not (await stack.get("a")).HasField("failure")

    stack.machines.silent = set()
    await stack.until_state("a", "FAILED")


async def test_a_worker_that_fails_says_why(stack: Stack) -> None:
    await stack.create("j", max_restarts=3)
    attempt = await stack.started("j")
    failure = Failure(reason="DIVERGED", message="weights are not finite after update 5")
    await stack.report(attempt, 1, outcome=worker_pb.TrainingOutcome(failure=failure))

    job = await stack.get("j")

    assert (job.state, job.failure) == (TrainingJobState.TRAINING_JOB_STATE_FAILED, failure)


async def test_a_cancelled_job_tells_its_worker_to_stop_and_ends(stack: Stack) -> None:
    await stack.create("j")
    attempt = await stack.started("j")
    await stack.report(attempt, 1, progress=TrainingProgress(agent_steps=1))

    await raising(stack.jobs.CancelTrainingJob(pb.CancelTrainingJobRequest(name="trainingJobs/j")))

    assert await stack.report(attempt, 2, log="x\n")
    saved = await stack.checkpoint(attempt, 3)
    await stack.report(attempt, 3, checkpoints=[saved], outcome=worker_pb.TrainingOutcome(stopped=True))
    job = await stack.get("j")
    assert job.state == TrainingJobState.TRAINING_JOB_STATE_CANCELLED
    assert job.checkpoint.update == 3


async def test_a_cancelled_job_whose_worker_does_not_listen_is_stopped(stack: Stack) -> None:
    await stack.create("j")
    await stack.started("j")
    await raising(stack.jobs.CancelTrainingJob(pb.CancelTrainingJobRequest(name="trainingJobs/j")))

    async def told() -> bool:
        return "j-a1" in stack.machines.stopped

    await stack.until(told)
    stack.machines.end("j-a1", State.FAILED, "ended by SIGKILL")

    assert (await stack.until_state("j", "CANCELLED")).failure.reason == ""


async def test_a_job_that_is_cancelled_while_it_waits_never_starts(stack: Stack) -> None:
    for job_id in ("a", "b", "c"):
        await stack.create(job_id)
    first = await stack.started("a")
    await raising(stack.jobs.CancelTrainingJob(pb.CancelTrainingJobRequest(name="trainingJobs/c")))
    await stack.succeed(first)
    await stack.create("d")
    await stack.started("d")

    assert (await stack.get("c")).state == TrainingJobState.TRAINING_JOB_STATE_CANCELLED
    assert "c-a1" not in stack.machines.started


async def test_a_restarted_service_goes_on_with_its_jobs(tmp_path: Path, database_url: str, stack: Stack) -> None:
    await stack.create("j")
    attempt = await stack.started("j")
    await stack.report(attempt, 1, progress=TrainingProgress(agent_steps=1))
    await stack.stop()
    await stack.start()

    await stack.succeed(attempt, 2)

    assert (await stack.get("j")).attempt == 1
    history = sa.select(TRANSITIONS.c.to_state).order_by(TRANSITIONS.c.id)
    states = await stack.training.store.read(lambda tx: list(tx.execute(history).scalars()))
    assert states == ["STARTING", "RUNNING", "SUCCEEDED"]


async def test_checkpoints_are_listed_newest_first_and_only_some_are_kept(stack: Stack) -> None:
    await stack.create("j", max_checkpoints=2)
    attempt = await stack.started("j")
    for update, reward in enumerate([1.0, 9.0, 2.0, 3.0, 4.0], start=1):
        await stack.report(attempt, update, checkpoints=[await stack.checkpoint(attempt, update, reward)])

    first = await raising(stack.jobs.ListCheckpoints(pb.ListCheckpointsRequest(parent="trainingJobs/j", page_size=2)))
    rest = await raising(
        stack.jobs.ListCheckpoints(
            pb.ListCheckpointsRequest(parent="trainingJobs/j", page_size=2, page_token=first.next_page_token)
        )
    )

    assert [c.update for c in (*first.checkpoints, *rest.checkpoints)] == [5, 4, 2]  # the newest two and the best
    assert not rest.next_page_token


async def test_a_checkpoint_that_was_not_written_is_not_recorded(stack: Stack) -> None:
    await stack.create("j")
    attempt = await stack.started("j")
    weights = Artifact(sha256="a" * 64, size_bytes=3, owner="training")

    with pytest.raises(FailedPrecondition, match="not in the store") as raised:
        await stack.report(attempt, 1, checkpoints=[Checkpoint(update=1, weights=weights)])

    assert raised.value.reason == "ARTIFACT_MISSING"
    assert not (await stack.get("j")).HasField("checkpoint")


async def test_a_deleted_job_takes_its_artifacts_along_unless_another_names_them(stack: Stack) -> None:
    for job_id in ("a", "b"):
        await stack.create(job_id)
        attempt = await stack.started(job_id)
        own = await stack.write(attempt, f"state of {job_id}".encode())
        shared = await stack.write(attempt, b"equal weights")
        saved = Checkpoint(update=1, weights=shared, trainer_state=own)
        await stack.report(attempt, 1, checkpoints=[saved], outcome=worker_pb.TrainingOutcome(), log="x\n")
    own = (await stack.get("a")).checkpoint.trainer_state

    await raising(stack.jobs.DeleteTrainingJob(pb.DeleteTrainingJobRequest(name="trainingJobs/a")))

    async def gone() -> bool:
        return not await stack.artifacts.exists(own)

    await stack.until(gone)
    assert await stack.artifacts.exists(shared)
    with pytest.raises(NotFound):
        await stack.get("a")


async def test_a_job_that_runs_is_not_deleted(stack: Stack) -> None:
    await stack.create("j")
    with pytest.raises(FailedPrecondition, match="cancel"):
        await raising(stack.jobs.DeleteTrainingJob(pb.DeleteTrainingJobRequest(name="trainingJobs/j")))


async def test_the_same_request_creates_once_and_another_body_is_refused(stack: Stack) -> None:
    request = pb.CreateTrainingJobRequest(request_id="r", spec=stack.spec())
    answers = await asyncio.gather(*(raising(stack.jobs.CreateTrainingJob(request)) for _ in range(100)))
    listed = await raising(stack.jobs.ListTrainingJobs(pb.ListTrainingJobsRequest()))

    assert {answer.training_job.name for answer in answers} == {listed.training_jobs[0].name}
    assert len(listed.training_jobs) == 1
    request.spec.seed += 1
    with pytest.raises(AlreadyExists):
        await raising(stack.jobs.CreateTrainingJob(request))


async def test_an_id_is_used_once(stack: Stack) -> None:
    await stack.create("j")
    with pytest.raises(AlreadyExists):
        await stack.create("j")


async def test_jobs_are_listed_in_pages_newest_first(stack: Stack) -> None:
    for number in range(5):
        await stack.create(f"j{number}")
    seen, token = [], ""
    while True:
        request = pb.ListTrainingJobsRequest(page_size=2, page_token=token)
        page = await raising(stack.jobs.ListTrainingJobs(request))
        seen += [job.name for job in page.training_jobs]
        if not (token := page.next_page_token):
            break

    assert seen == [f"trainingJobs/j{number}" for number in (4, 3, 2, 1, 0)]


async def test_a_watch_shows_changes_and_deletions_and_resumes(stack: Stack) -> None:
    await stack.create("j")
    attempt = await stack.started("j")
    watch = streaming(stack.jobs.WatchTrainingJobs(pb.WatchTrainingJobsRequest()))
    first = await anext(watch)
    await stack.succeed(attempt)
    while True:
        change = await asyncio.wait_for(anext(watch), 30)
        if change.training_jobs[0].state == TrainingJobState.TRAINING_JOB_STATE_SUCCEEDED:
            break
    await raising(stack.jobs.DeleteTrainingJob(pb.DeleteTrainingJobRequest(name="trainingJobs/j")))

    assert [job.name for job in first.training_jobs] == ["trainingJobs/j"]
    resumed = streaming(stack.jobs.WatchTrainingJobs(pb.WatchTrainingJobsRequest(cursor=change.cursor)))
    assert list((await asyncio.wait_for(anext(resumed), 30)).deleted) == ["trainingJobs/j"]


async def test_validate_only_writes_nothing(stack: Stack) -> None:
    await raising(stack.jobs.CreateTrainingJob(pb.CreateTrainingJobRequest(spec=stack.spec(), validate_only=True)))
    assert not (await raising(stack.jobs.ListTrainingJobs(pb.ListTrainingJobsRequest()))).training_jobs


async def test_a_missing_artifact_is_refused(stack: Stack) -> None:
    code = Artifact(sha256="a" * 64, size_bytes=3, owner="deployment")
    with pytest.raises(InvalidArgument, match=r"spec\.policy_class\.code: there is no artifact"):
        await stack.create("j", policy_class=PolicyClass(class_path="mine.Mine", code=code))
