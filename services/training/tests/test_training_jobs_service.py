"""Jobs through the real service: from their creation to their end, with the test in the role of the workers."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
import sqlalchemy as sa

from daf_common.channel import raising, streaming
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
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import PolicyClass
from daf_protos.common.v1.value_pb2 import Value
from daf_protos.statistics.v1.statistics_service_pb2 import ReadMetricsRequest
from daf_protos.training.v1 import training_service_pb2 as pb
from daf_protos.training.v1 import worker_service_pb2 as worker_pb
from daf_protos.training.v1.training_job_pb2 import (
    Checkpoint,
    TrainingJob,
    TrainingJobState,
    TrainingProgress,
    TrainingSpec,
)
from daf_training.tables import TRANSITIONS

if TYPE_CHECKING:
    from .conftest import Stack
else:
    Stack = Any

MISSION = "cogsguard_machina_1.basic"


def spec(**changes: Any) -> TrainingSpec:
    values: dict[str, Any] = {
        "policy_class": PolicyClass(class_path="lstm"),
        "missions": [Mission(name=MISSION, cogs=4)],
        "agent_steps": 1000,
        "trainer": {"learning_rate": Value(real=0.001)},
        "seed": 7,
    }
    return TrainingSpec(**{**values, **changes})


async def create(stack: Stack, job_id: str, **changes: Any) -> TrainingJob:
    request = pb.CreateTrainingJobRequest(job_id=job_id, spec=spec(**changes))
    return (await raising(stack.jobs.CreateTrainingJob(request))).training_job


async def get(stack: Stack, job_id: str) -> TrainingJob:
    request = pb.GetTrainingJobRequest(name=f"trainingJobs/{job_id}")
    return (await raising(stack.jobs.GetTrainingJob(request))).training_job


async def until(check: Callable[[], Awaitable[Any]], seconds: float = 10.0) -> Any:
    """Waits until something holds, as seen from outside."""
    async with asyncio.timeout(seconds):
        while not (found := await check()):
            await asyncio.sleep(0.01)
        return found


async def until_state(stack: Stack, job_id: str, state: str) -> TrainingJob:
    wanted = TrainingJobState.Value(f"TRAINING_JOB_STATE_{state}")

    async def reached() -> TrainingJob | None:
        job = await get(stack, job_id)
        return job if job.state == wanted else None

    return await until(reached)


async def started(stack: Stack, job_id: str, attempt: int = 1) -> worker_pb.Attempt:
    """Waits for the workload of an attempt; returns the identity of its worker."""
    name = f"{job_id}-a{attempt}"

    async def has_started() -> bool:
        return name in stack.machines.started

    await until(has_started)
    environment = stack.machines.started[name].environment
    return worker_pb.Attempt(
        training_job=environment["DAF_TRAINING_JOB"],
        attempt=int(environment["DAF_ATTEMPT"]),
        token=environment["DAF_TOKEN"],
    )


async def report(stack: Stack, attempt: worker_pb.Attempt, sequence: int, **fields: Any) -> bool:
    """Reports; returns whether the worker is told to stop."""
    request = worker_pb.ReportTrainingRequest(attempt=attempt, sequence=sequence, **fields)
    return (await raising(stack.worker.ReportTraining(request))).stop


async def write(stack: Stack, attempt: worker_pb.Attempt, content: bytes) -> Artifact:
    wanted = Artifact(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    request = worker_pb.PrepareUploadRequest(attempt=attempt, artifact=wanted)
    location = (await raising(stack.worker.PrepareUpload(request))).location
    if location.url:
        path = Path(unquote(urlsplit(location.url).path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return location.artifact


async def checkpoint(stack: Stack, attempt: worker_pb.Attempt, update: int, reward: float | None = None) -> Checkpoint:
    weights = await write(stack, attempt, f"weights {update}".encode())
    return Checkpoint(update=update, agent_steps=100 * update, weights=weights, reward=reward)


async def succeed(stack: Stack, attempt: worker_pb.Attempt, sequence: int = 1) -> None:
    saved = await checkpoint(stack, attempt, 3)
    await report(stack, attempt, sequence, checkpoints=[saved], outcome=worker_pb.TrainingOutcome())


async def test_a_job_goes_from_its_creation_to_its_final_checkpoint(stack: Stack) -> None:
    created = await create(stack, "j")
    attempt = await started(stack, "j")
    assert created.state == TrainingJobState.TRAINING_JOB_STATE_PENDING
    assert (await get(stack, "j")).state == TrainingJobState.TRAINING_JOB_STATE_STARTING

    progress = TrainingProgress(agent_steps=500, total_agent_steps=1024, update=1, learning_rate=0.001)
    await report(stack, attempt, 1, progress=progress, effective_trainer={"learning_rate": Value(real=0.001)})
    running = await get(stack, "j")
    assert running.state == TrainingJobState.TRAINING_JOB_STATE_RUNNING
    assert running.progress == progress

    await succeed(stack, attempt, 2)
    job = await get(stack, "j")
    assert job.state == TrainingJobState.TRAINING_JOB_STATE_SUCCEEDED
    assert job.checkpoint.name == "trainingJobs/j/checkpoints/3"
    assert await stack.artifacts.get(job.checkpoint.weights) == b"weights 3"
    assert job.effective_trainer["learning_rate"].real == 0.001
    assert job.spec == spec()
    assert job.revision > running.revision > created.revision


async def test_an_assignment_leaves_nothing_to_defaults(stack: Stack) -> None:
    code = await stack.artifacts.put(b"code", "application/zip")
    mine = PolicyClass(class_path="mine.Mine", code=code, arguments={"hidden_size": Value(integer=8)})
    await create(stack, "j", policy_class=mine, trainer={"lr": Value(real=0.001)})
    attempt = await started(stack, "j")

    answer = await raising(stack.worker.GetAssignment(worker_pb.GetAssignmentRequest(attempt=attempt)))

    assert (answer.spec.environments, answer.spec.workers, answer.spec.profile) == (16, 1, "cpu-small")
    assert answer.spec.trainer == {"learning_rate": Value(real=0.001)}
    assert [location.artifact for location in answer.downloads] == [code]
    assert Path(unquote(urlsplit(answer.downloads[0].url).path)).read_bytes() == b"code"
    assert answer.report_interval_seconds > 0


async def test_jobs_beyond_the_slots_wait_in_order_and_start_when_one_ends(stack: Stack) -> None:
    for job_id in ("a", "b", "c", "d"):
        await create(stack, job_id)
    first = await started(stack, "a")
    await started(stack, "b")
    assert (await get(stack, "c")).state == TrainingJobState.TRAINING_JOB_STATE_PENDING

    await succeed(stack, first)
    await started(stack, "c")

    assert (await get(stack, "d")).state == TrainingJobState.TRAINING_JOB_STATE_PENDING


async def test_metrics_reach_statistics_by_update_and_non_finite_ones_by_name(stack: Stack) -> None:
    await create(stack, "j")
    attempt = await started(stack, "j")
    sample = worker_pb.MetricSample(
        update=4, agent_steps=400, values={"losses/value": 0.5, "losses/policy": float("nan")}, non_finite=["env/x"]
    )
    await report(stack, attempt, 1, metrics=[sample])
    await report(stack, attempt, 2, metrics=[sample])  # as after a restart of the worker's reporter

    read = ReadMetricsRequest(source="trainingJobs/j")
    series = {s.metric: s for s in (await raising(stack.statistics.ReadMetrics(read))).series}

    assert (list(series["losses/value"].steps), list(series["losses/value"].values)) == ([4], [0.5])
    assert {"losses/policy", "env/x"} <= series.keys()
    assert series["losses/policy"].values[0] != series["losses/policy"].values[0]  # NaN


async def test_a_report_that_is_sent_again_counts_once(stack: Stack) -> None:
    await create(stack, "j")
    attempt = await started(stack, "j")
    await report(stack, attempt, 1, log="once\n")
    await report(stack, attempt, 1, log="once\n")
    saved = await checkpoint(stack, attempt, 3)
    for _ in range(2):  # the last one, too, though the job has ended by then
        await report(stack, attempt, 2, checkpoints=[saved], outcome=worker_pb.TrainingOutcome())

    assert await log_of(stack, "j") == "once\n"
    assert (await get(stack, "j")).state == TrainingJobState.TRAINING_JOB_STATE_SUCCEEDED
    with pytest.raises(Aborted):
        await report(stack, attempt, 3, log="late\n")


async def log_of(stack: Stack, job_id: str, **fields: Any) -> str:
    request = pb.ReadLogsRequest(name=f"trainingJobs/{job_id}", **fields)
    return "".join([piece.text async for piece in streaming(stack.jobs.ReadLogs(request))])


async def test_a_log_is_followed_until_the_job_ends(stack: Stack) -> None:
    await create(stack, "j")
    attempt = await started(stack, "j")
    following = asyncio.create_task(log_of(stack, "j", follow=True))

    await report(stack, attempt, 1, log="first\n")
    await report(stack, attempt, 2, log="a NUL: \x00\n")
    assert not following.done()
    await succeed(stack, attempt, 3)

    assert await asyncio.wait_for(following, 5) == "first\na NUL: �\n"


async def test_only_the_current_attempt_may_report(stack: Stack) -> None:
    await create(stack, "j", max_restarts=1)
    first = await started(stack, "j")
    await report(stack, first, 1, progress=TrainingProgress(agent_steps=1))
    stack.machines.end("j-a1", State.FAILED, "exit code 1")
    second = await started(stack, "j", attempt=2)

    with pytest.raises(Aborted):
        await report(stack, first, 2, progress=TrainingProgress(agent_steps=2))
    stranger = worker_pb.Attempt(training_job="trainingJobs/j", attempt=2, token=first.token)
    with pytest.raises(PermissionDenied):
        await report(stack, stranger, 1, progress=TrainingProgress(agent_steps=2))
    await succeed(stack, second)

    assert (await get(stack, "j")).attempt == 2


async def test_a_worker_that_ends_without_a_word_fails_the_job_with_its_last_lines(stack: Stack) -> None:
    await create(stack, "j")
    attempt = await started(stack, "j")
    await report(stack, attempt, 1, progress=TrainingProgress(agent_steps=1))
    stack.machines.end("j-a1", State.FAILED, "ended by SIGKILL", b"loading\nMemoryError: no more\n")

    job = await until_state(stack, "j", "FAILED")

    assert job.failure.reason == "WORKER_LOST"
    assert "SIGKILL" in job.failure.message
    assert "MemoryError: no more" in job.failure.message
    assert "MemoryError: no more" in await log_of(stack, "j")


async def test_machines_out_of_reach_fail_nothing(stack: Stack) -> None:
    await create(stack, "j")
    attempt = await started(stack, "j")
    await report(stack, attempt, 1, progress=TrainingProgress(agent_steps=1))
    stack.machines.reachable = False
    stack.machines.states.clear()

    async def looked_in_vain() -> bool:
        stack.training._enqueue("j")
        return stack.machines.looked_in_vain >= 3

    await until(looked_in_vain)

    assert (await get(stack, "j")).state == TrainingJobState.TRAINING_JOB_STATE_RUNNING
    await succeed(stack, attempt, 2)
    await until_state(stack, "j", "SUCCEEDED")


async def test_a_worker_that_fails_says_why(stack: Stack) -> None:
    await create(stack, "j", max_restarts=3)
    attempt = await started(stack, "j")
    failure = Failure(reason="DIVERGED", message="weights are not finite after update 5")
    await report(stack, attempt, 1, outcome=worker_pb.TrainingOutcome(failure=failure))

    job = await get(stack, "j")

    assert (job.state, job.failure) == (TrainingJobState.TRAINING_JOB_STATE_FAILED, failure)


async def test_a_cancelled_job_tells_its_worker_to_stop_and_ends(stack: Stack) -> None:
    await create(stack, "j")
    attempt = await started(stack, "j")
    await report(stack, attempt, 1, progress=TrainingProgress(agent_steps=1))

    await raising(stack.jobs.CancelTrainingJob(pb.CancelTrainingJobRequest(name="trainingJobs/j")))

    assert await report(stack, attempt, 2, log="x\n")
    saved = await checkpoint(stack, attempt, 3)
    await report(stack, attempt, 3, checkpoints=[saved], outcome=worker_pb.TrainingOutcome(stopped=True))
    job = await get(stack, "j")
    assert job.state == TrainingJobState.TRAINING_JOB_STATE_CANCELLED
    assert job.checkpoint.update == 3


async def test_a_cancelled_job_whose_worker_does_not_listen_is_stopped(stack: Stack) -> None:
    await create(stack, "j")
    await started(stack, "j")
    await raising(stack.jobs.CancelTrainingJob(pb.CancelTrainingJobRequest(name="trainingJobs/j")))

    async def told() -> bool:
        return "j-a1" in stack.machines.stopped

    await until(told)
    stack.machines.end("j-a1", State.FAILED, "ended by SIGKILL")

    assert (await until_state(stack, "j", "CANCELLED")).failure.reason == ""


async def test_a_job_that_is_cancelled_while_it_waits_never_starts(stack: Stack) -> None:
    for job_id in ("a", "b", "c"):
        await create(stack, job_id)
    first = await started(stack, "a")
    await raising(stack.jobs.CancelTrainingJob(pb.CancelTrainingJobRequest(name="trainingJobs/c")))
    await succeed(stack, first)
    await create(stack, "d")
    await started(stack, "d")

    assert (await get(stack, "c")).state == TrainingJobState.TRAINING_JOB_STATE_CANCELLED
    assert "c-a1" not in stack.machines.started


async def test_a_restarted_service_goes_on_with_its_jobs(tmp_path: Path, database_url: str, stack: Stack) -> None:
    await create(stack, "j")
    attempt = await started(stack, "j")
    await report(stack, attempt, 1, progress=TrainingProgress(agent_steps=1))
    await stack.stop()
    await stack.start()

    await succeed(stack, attempt, 2)

    assert (await get(stack, "j")).attempt == 1
    history = sa.select(TRANSITIONS.c.to_state).order_by(TRANSITIONS.c.id)
    states = await stack.training.store.read(lambda tx: list(tx.execute(history).scalars()))
    assert states == ["STARTING", "RUNNING", "SUCCEEDED"]


async def test_checkpoints_are_listed_newest_first_and_only_some_are_kept(stack: Stack) -> None:
    await create(stack, "j", max_checkpoints=2)
    attempt = await started(stack, "j")
    for update, reward in enumerate([1.0, 9.0, 2.0, 3.0, 4.0], start=1):
        await report(stack, attempt, update, checkpoints=[await checkpoint(stack, attempt, update, reward)])

    first = await raising(stack.jobs.ListCheckpoints(pb.ListCheckpointsRequest(parent="trainingJobs/j", page_size=2)))
    rest = await raising(
        stack.jobs.ListCheckpoints(
            pb.ListCheckpointsRequest(parent="trainingJobs/j", page_size=2, page_token=first.next_page_token)
        )
    )

    assert [c.update for c in (*first.checkpoints, *rest.checkpoints)] == [5, 4, 2]  # the newest two and the best
    assert not rest.next_page_token


async def test_a_checkpoint_that_was_not_written_is_not_recorded(stack: Stack) -> None:
    await create(stack, "j")
    attempt = await started(stack, "j")
    weights = Artifact(sha256="a" * 64, size_bytes=3, owner="training")

    with pytest.raises(FailedPrecondition, match="not in the store") as raised:
        await report(stack, attempt, 1, checkpoints=[Checkpoint(update=1, weights=weights)])

    assert raised.value.reason == "ARTIFACT_MISSING"
    assert not (await get(stack, "j")).HasField("checkpoint")


async def test_a_deleted_job_takes_its_artifacts_along_unless_another_names_them(stack: Stack) -> None:
    for job_id in ("a", "b"):
        await create(stack, job_id)
        attempt = await started(stack, job_id)
        own = await write(stack, attempt, f"state of {job_id}".encode())
        shared = await write(stack, attempt, b"equal weights")
        saved = Checkpoint(update=1, weights=shared, trainer_state=own)
        await report(stack, attempt, 1, checkpoints=[saved], outcome=worker_pb.TrainingOutcome(), log="x\n")
    own = (await get(stack, "a")).checkpoint.trainer_state

    await raising(stack.jobs.DeleteTrainingJob(pb.DeleteTrainingJobRequest(name="trainingJobs/a")))

    async def gone() -> bool:
        return not await stack.artifacts.exists(own)

    await until(gone)
    assert await stack.artifacts.exists(shared)
    with pytest.raises(NotFound):
        await get(stack, "a")


async def test_a_job_that_runs_is_not_deleted(stack: Stack) -> None:
    await create(stack, "j")
    with pytest.raises(FailedPrecondition, match="cancel"):
        await raising(stack.jobs.DeleteTrainingJob(pb.DeleteTrainingJobRequest(name="trainingJobs/j")))


async def test_the_same_request_creates_once_and_another_body_is_refused(stack: Stack) -> None:
    request = pb.CreateTrainingJobRequest(request_id="r", spec=spec())
    answers = await asyncio.gather(*(raising(stack.jobs.CreateTrainingJob(request)) for _ in range(100)))
    listed = await raising(stack.jobs.ListTrainingJobs(pb.ListTrainingJobsRequest()))

    assert {answer.training_job.name for answer in answers} == {listed.training_jobs[0].name}
    assert len(listed.training_jobs) == 1
    request.spec.seed += 1
    with pytest.raises(AlreadyExists):
        await raising(stack.jobs.CreateTrainingJob(request))


async def test_an_id_is_used_once(stack: Stack) -> None:
    await create(stack, "j")
    with pytest.raises(AlreadyExists):
        await create(stack, "j")


async def test_jobs_are_listed_in_pages_newest_first(stack: Stack) -> None:
    for number in range(5):
        await create(stack, f"j{number}")
    seen, token = [], ""
    while True:
        request = pb.ListTrainingJobsRequest(page_size=2, page_token=token)
        page = await raising(stack.jobs.ListTrainingJobs(request))
        seen += [job.name for job in page.training_jobs]
        if not (token := page.next_page_token):
            break

    assert seen == [f"trainingJobs/j{number}" for number in (4, 3, 2, 1, 0)]


async def test_a_watch_shows_changes_and_deletions_and_resumes(stack: Stack) -> None:
    await create(stack, "j")
    attempt = await started(stack, "j")
    watch = streaming(stack.jobs.WatchTrainingJobs(pb.WatchTrainingJobsRequest()))
    first = await anext(watch)
    await succeed(stack, attempt)
    while True:
        change = await asyncio.wait_for(anext(watch), 5)
        if change.training_jobs[0].state == TrainingJobState.TRAINING_JOB_STATE_SUCCEEDED:
            break
    await raising(stack.jobs.DeleteTrainingJob(pb.DeleteTrainingJobRequest(name="trainingJobs/j")))

    assert [job.name for job in first.training_jobs] == ["trainingJobs/j"]
    resumed = streaming(stack.jobs.WatchTrainingJobs(pb.WatchTrainingJobsRequest(cursor=change.cursor)))
    assert list((await asyncio.wait_for(anext(resumed), 5)).deleted) == ["trainingJobs/j"]


async def test_validate_only_writes_nothing(stack: Stack) -> None:
    await raising(stack.jobs.CreateTrainingJob(pb.CreateTrainingJobRequest(spec=spec(), validate_only=True)))
    assert not (await raising(stack.jobs.ListTrainingJobs(pb.ListTrainingJobsRequest()))).training_jobs


async def test_a_missing_artifact_is_refused(stack: Stack) -> None:
    code = Artifact(sha256="a" * 64, size_bytes=3, owner="deployment")
    with pytest.raises(InvalidArgument, match=r"spec\.policy_class\.code: there is no artifact"):
        await create(stack, "j", policy_class=PolicyClass(class_path="mine.Mine", code=code))
