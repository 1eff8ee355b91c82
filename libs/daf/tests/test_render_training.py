from __future__ import annotations

import io

import pytest
from rich.console import Console

from daf.follow_training import JobView
from daf.pace import Pace
from daf.render import size, speed
from daf.render_training import job_line, live_job, restarts
from daf_protos.common.v1.failure_pb2 import Failure
from daf_protos.training.v1 import training_job_pb2 as pb


def running(workers: int = 1, **progress: object) -> JobView:
    job = pb.TrainingJob(
        name="trainingJobs/one", state=pb.TRAINING_JOB_STATE_RUNNING, spec=pb.TrainingSpec(agent_steps=600_000)
    )
    job.progress.CopyFrom(
        pb.TrainingProgress(agent_steps=258_048, total_agent_steps=606_208, steps_per_second=5912.0, **progress)
    )
    for rank in range(workers):
        job.progress.workers.add(rank=rank, steps_per_second=100.0, cpu_cores=0.5, memory_bytes=10**9)
    return JobView(job)


def drawn(view: JobView, width: int = 80, height: int = 24) -> list[str]:
    console = Console(width=width, height=height, record=True, color_system=None, file=io.StringIO())
    console.print(live_job(view, width, height))
    return [line.rstrip() for line in console.export_text().splitlines()]


@pytest.mark.parametrize("width", [80, 120])
def test_the_progress_stays_on_one_line(width: int) -> None:
    lines = drawn(running(), width)

    assert any("43%  258,048 of 606,208 agent steps  about 59 s left" in line for line in lines)
    assert all(len(line) <= width for line in lines)


def test_many_workers_fit_a_small_terminal_and_are_summed() -> None:
    lines = drawn(running(workers=40))

    assert len(lines) <= 24
    assert any(line.endswith(" more") for line in lines)
    assert lines[-1].split() == ["all", "4,000", "20.0", "40", "GB"]


def test_gpus_are_shown_where_there_are_some() -> None:
    view = running()
    assert not any("GPU" in line for line in drawn(view))

    view.job.progress.workers[0].gpu_utilization = 0.25
    view.job.progress.workers[0].gpu_memory_bytes = 2 * 10**9

    assert any(line.endswith("25%        2 GB") for line in drawn(view))


def test_the_time_left_is_that_of_the_last_minute() -> None:
    view = running()
    view.pace.see(158_048, now=0.0)
    view.pace.see(258_048, now=10.0)

    assert view.seconds_left() == pytest.approx((606_208 - 258_048) / 10_000)


def test_the_pace_begins_anew_after_a_restart_and_forgets_what_is_long_ago() -> None:
    pace = Pace()
    for now, steps in ((0.0, 0), (1.0, 100), (2.0, 50)):
        pace.see(steps, now)
    assert pace.per_second() is None

    for now, steps in ((3.0, 60), (100.0, 70), (110.0, 170)):
        pace.see(steps, now)
    assert pace.per_second() == 10.0


def test_a_job_that_waits_says_for_what_and_why_nothing_is_heard() -> None:
    job = pb.TrainingJob(name="trainingJobs/one", state=pb.TRAINING_JOB_STATE_PENDING, waiting_for="2 CPUs")

    lines = drawn(JobView(job, trouble="the services do not answer"))

    assert lines == ["trainingJobs/one  pending    (the services do not answer)", "waits for 2 CPUs"]
    assert job_line(job) == "trainingJobs/one pending, waits for 2 CPUs"


def test_an_attempt_whose_workers_have_not_reported_yet_just_follows() -> None:
    lost = pb.TrainingAttempt(number=1, agent_steps=1000, failure=Failure(reason="PREEMPTED", message="told to end"))

    assert restarts([pb.TrainingAttempt(number=2), lost]) == [
        "attempt 1 ended at 1,000 steps (PREEMPTED): told to end; attempt 2 follows"
    ]


def test_an_attempt_with_another_number_of_workers_says_so() -> None:
    few = Failure(reason="TOO_FEW_WORKERS", message="only 1 of 2 workers could run")
    first = pb.TrainingAttempt(number=1, workers=2, failure=few)
    second = pb.TrainingAttempt(number=2, workers=1, resumed_from="trainingJobs/one/checkpoints/7")

    assert restarts([first, second]) == [
        "attempt 1 ended at 0 steps (TOO_FEW_WORKERS): only 1 of 2 workers could run; "
        "attempt 2 goes on from update 7 with 1 worker"
    ]


def test_numbers_are_written_for_people() -> None:
    assert (speed(5912.3), speed(12.345), speed(None)) == ("5,912", "12.3", "-")
    assert (size(7), size(5.2e8), size(2.5e12)) == ("7 B", "520 MB", "2.5 TB")


def test_a_job_says_whose_it_is_where_that_is_known() -> None:
    view = running()
    assert not any("by " in line for line in drawn(view))

    view.job.creator = "alice"

    assert drawn(view)[0].endswith("by alice")
