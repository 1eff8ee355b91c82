"""Training on real workers, through everything that can go wrong with them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from daf_protos.common.v1.policy_pb2 import PolicyClass
from daf_protos.training.v1.training_job_pb2 import TrainingJobState
from daf_protos.training.v1.training_service_pb2 import CancelTrainingJobRequest, ResumeTrainingJobRequest
from tests.training_stack import BATCH, ENDLESS, TrainingStack, wait_for

pytestmark = pytest.mark.timeout(900)

STALL_SECONDS = 30.0
CANCEL_SECONDS = 60.0
SETTINGS = {
    "DAF_STALL_SECONDS": str(STALL_SECONDS),
    "DAF_CANCEL_GRACE_SECONDS": "60",  # who saves slowly is not killed meanwhile
    "DAF_TRAINING_CPUS": "2",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingStack]:
    stack = TrainingStack(tmp_path_factory.mktemp("training"), **SETTINGS)
    yield stack
    stack.end()


async def test_jobs_side_by_side_are_not_disturbed_and_two_workers_train_one_policy(
    stack: TrainingStack,
) -> None:
    await stack.train("alone", workers=1)
    alone = stack.succeeded("alone")
    others_wait = stack.home / "others-wait"
    await stack.train("first", "@0", workers=1, until=others_wait)
    await stack.train("second", "@0", workers=1, until=others_wait)
    await stack.train("both")
    wait_for(lambda: "CPU" in stack.get("both").waiting_for)
    others_wait.touch()

    together = [stack.succeeded(job_id) for job_id in ("first", "second")]
    both = stack.succeeded("both")

    # The same seed, side by side with another or alone, is the same policy to the bit.
    assert {job.checkpoint.weights.sha256 for job in together} == {alone.checkpoint.weights.sha256}
    assert [worker.rank for worker in both.progress.workers] == [0, 1]
    assert all(worker.cpu_cores > 0 and worker.memory_bytes > 50e6 for worker in both.progress.workers)
    assert (both.progress.agent_steps, both.progress.update) == (12 * BATCH, 6)
    assert both.checkpoint.weights.sha256 != alone.checkpoint.weights.sha256


async def test_a_job_that_makes_do_with_one_of_two_workers_trains_as_one_that_asked_for_one(
    stack: TrainingStack,
) -> None:
    has_started = stack.home / "elastic-has-started"
    await stack.train("single", "@0", workers=1, until=has_started)
    wait_for(lambda: stack.get("single").attempt == 1)
    await stack.train("elastic", workers=2, min_workers=1)  # the other core is taken
    wait_for(lambda: stack.get("elastic").attempt == 1)
    has_started.touch()
    elastic, single = stack.succeeded("elastic"), stack.succeeded("single")

    (attempt,) = stack.attempts("elastic")
    assert (attempt.workers, elastic.spec.workers, len(elastic.progress.workers)) == (1, 2, 1)
    assert (elastic.progress.agent_steps, elastic.progress.update) == (12 * BATCH, 12)
    assert elastic.checkpoint.weights.sha256 == single.checkpoint.weights.sha256


@pytest.mark.parametrize("rank", [0, 1])
async def test_after_kill_9_of_a_rank_the_job_goes_on_from_its_last_checkpoint(stack: TrainingStack, rank: int) -> None:
    job_id = f"killed-{rank}"
    have_come = stack.home / f"{job_id}.checkpoints"
    await stack.train(job_id, f"be_killed@{rank}", once=True, call=5, max_restarts=1, until=have_come)
    wait_for(lambda: stack.get(job_id).checkpoint.update >= 3)
    have_come.touch()

    job = stack.succeeded(job_id)
    first, second = stack.attempts(job_id)

    assert first.failure.reason == "WORKER_LOST"
    assert f"rank {rank} was ended by SIGKILL" in first.failure.message
    # Killed in the fifth update: at most the last of the four checkpoints was still on its way.
    assert second.resumed_from in (f"{job.name}/checkpoints/{update}" for update in (3, 4))
    assert (job.progress.update, job.progress.agent_steps) == (6, 12 * BATCH)
    assert list(stack.updates(job_id)) == sorted(stack.updates(job_id))
    assert (job.checkpoint.parent, job.checkpoint.attempt) == (second.resumed_from, 2)


async def test_a_preempted_job_saves_what_it_has_and_goes_on_from_there(stack: TrainingStack) -> None:
    await stack.train("preempted", "be_preempted@0", once=True, call=3, max_restarts=1, checkpoint_agent_steps=ENDLESS)

    stack.succeeded("preempted")
    first, second = stack.attempts("preempted")

    assert first.failure.reason == "PREEMPTED"
    # Nothing but the request to end made it save.
    assert int(second.resumed_from.rpartition("/")[2]) >= 3


async def test_a_job_that_may_not_restart_fails_with_how_its_worker_ended(stack: TrainingStack) -> None:
    await stack.train("lost", "be_killed@1")

    job = stack.ended("lost")

    assert job.failure.reason == "WORKER_LOST"
    assert "rank 1 was ended by SIGKILL" in job.failure.message


async def test_a_rank_that_cannot_import_the_policy_fails_the_job_with_that_error(stack: TrainingStack) -> None:
    module = stack.home / "broken_policy.py"
    module.write_text("import surely_not_installed\n")
    code = await stack.store(module)
    await stack.train("broken", policy_class=PolicyClass(class_path="broken_policy.Policy", code=code), max_restarts=3)

    job = stack.ended("broken")

    assert job.failure.reason == "POLICY_INVALID"
    assert "No module named 'surely_not_installed'" in job.failure.message
    assert job.attempt == 1  # it would fail the same way again


async def test_a_policy_that_ends_the_interpreter_fails_its_own_job(stack: TrainingStack) -> None:
    await stack.train("left", "leave@1", max_restarts=3)

    job = stack.ended("left")

    assert (job.failure.reason, job.attempt) == ("CRASHED", 1)
    assert "the policy decided to leave" in job.failure.message


async def test_divergence_is_a_failure_of_its_own_with_the_step(stack: TrainingStack) -> None:
    await stack.train("nan", "lose_all_sense@1", max_restarts=3)

    job = stack.ended("nan")

    assert (job.failure.reason, job.attempt) == ("DIVERGED", 1)
    assert re.search(r"update 3, at agent step \d+", job.failure.message)
    assert [checkpoint.update for checkpoint in stack.checkpoints("nan")] == [2, 1]


async def test_a_hung_rank_ends_with_its_stack_in_the_log_and_the_job_goes_on(stack: TrainingStack) -> None:
    await stack.train("hung", "hang_here@1", once=True, max_restarts=1)

    stack.succeeded("hung")
    first, second = stack.attempts("hung")

    assert first.failure.reason == "STALLED"
    assert "in hang_here" in stack.log("hung")
    assert second.resumed_from


async def test_a_corrupt_newest_checkpoint_falls_back_to_the_one_before_and_says_so(stack: TrainingStack) -> None:
    have_come = stack.home / "corrupt.checkpoints"
    await stack.train("corrupt", "be_killed@1", call=4, until=have_come)
    wait_for(lambda: stack.get("corrupt").checkpoint.update >= 2)
    have_come.touch()
    stack.ended("corrupt")
    newest, before, *_ = stack.checkpoints("corrupt")
    with stack.file_of(newest.trainer_state).open("r+b") as file:
        file.truncate(newest.trainer_state.size_bytes // 2)

    # The rank that is killed is gone with the second worker.
    stack.jobs.ResumeTrainingJob(ResumeTrainingJobRequest(name="trainingJobs/corrupt", workers=1))
    job = stack.succeeded("corrupt")

    assert stack.attempts("corrupt")[-1].resumed_from == before.name
    assert f"{newest.name} cannot be used" in stack.log("corrupt")
    assert job.progress.agent_steps >= 12 * BATCH


async def test_a_cancelled_job_ends_in_seconds_and_is_resumed_with_one_worker_less(
    stack: TrainingStack,
) -> None:
    await stack.train("cancelled", agent_steps=ENDLESS)
    wait_for(lambda: stack.get("cancelled").progress.update > 2)

    asked = time.monotonic()
    stack.jobs.CancelTrainingJob(CancelTrainingJobRequest(name="trainingJobs/cancelled"))
    job = stack.ended("cancelled")
    assert time.monotonic() - asked < CANCEL_SECONDS
    assert job.state == TrainingJobState.TRAINING_JOB_STATE_CANCELLED
    done = job.checkpoint.agent_steps
    assert done == job.progress.agent_steps

    request = ResumeTrainingJobRequest(name=job.name, workers=1, agent_steps=done + 3 * BATCH)
    stack.jobs.ResumeTrainingJob(request)
    job = stack.succeeded("cancelled")

    assert job.progress.agent_steps == done + 3 * BATCH
    assert stack.attempts("cancelled")[-1].workers == 1
    assert job.progress.learning_rate > 0
