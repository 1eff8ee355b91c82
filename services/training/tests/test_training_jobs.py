"""The pure core of training jobs."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daf_common.clock import ManualClock
from daf_common.errors import Aborted, InvalidArgument, PermissionDenied
from daf_common.failures import Failure
from daf_common.workloads import Observation, State
from daf_protos.training.v1.training_job_pb2 import Checkpoint, TrainingProgress, TrainingSpec
from daf_training import jobs, logs
from daf_training.admission import Granted, Held
from daf_training.attempts import admit, check_alive, check_new, gpu_environment, parse_workload_name, workload_name
from daf_training.checkpoints import Retention
from daf_training.jobs import (
    ALLOWED,
    ENDED,
    OCCUPYING,
    Action,
    Job,
    JobState,
    Outcome,
    Report,
    Seen,
    cancel,
    decide,
    resume,
    take_report,
)
from daf_training.patience import Patience
from daf_training.portions import portions
from daf_training.profiles import CPU_SMALL, with_fewer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUNNING = Observation(State.RUNNING)
LOST = Observation(State.FAILED, "ended by SIGKILL")


def job(state: JobState = JobState.PENDING, **changes: object) -> Job:
    attempt = 0 if state is JobState.PENDING else 1
    return replace(Job("j", b"spec", NOW, state=state, attempt=attempt, token="t" * attempt), **changes)


def checkpoint(update: int) -> bytes:
    return Checkpoint(update=update, agent_steps=100 * update).SerializeToString()


def progress(update: int, total: int = 1000) -> bytes:
    return TrainingProgress(agent_steps=100 * update, update=update, total_agent_steps=total).SerializeToString()


def shown(job: Job) -> tuple[int, int]:
    told = TrainingProgress.FromString(job.progress)
    return told.agent_steps, told.total_agent_steps


def test_a_waiting_job_says_what_for_and_starts_when_it_may() -> None:
    assert decide(job(), Seen(), NOW) == (job(), ())
    waits, _ = decide(job(), Seen(admission=Held("1 GPU: 0 of 1 are free")), NOW)
    assert (waits.state, waits.waiting_for) == (JobState.PENDING, "1 GPU: 0 of 1 are free")

    started, actions = decide(waits, Seen(admission=Granted((3,)), new_token="secret"), NOW)
    assert (started.state, started.attempt, started.token, actions) == (JobState.STARTING, 1, "secret", ())
    assert (started.gpus, started.waiting_for) == ((3,), "")


def test_a_starting_job_starts_its_workload_until_it_is_seen() -> None:
    starting = job(JobState.STARTING)
    assert decide(starting, Seen(), NOW) == (starting, (Action.START_WORKLOAD,))
    assert decide(starting, Seen(workload=RUNNING), NOW) == (starting, ())


def test_a_workload_that_has_reported_is_not_started_again_under_its_name() -> None:
    reported = job(JobState.STARTING, reports={0: 1})  # a second one would number its reports from 1, too
    lost, actions = decide(reported, Seen(), NOW)
    assert (lost.state, actions) == (JobState.FAILED, ())


def test_a_starting_job_says_what_its_workload_waits_for() -> None:
    unseen, waiting = (
        Seen(refused="there is no operator"),
        Seen(Observation(State.RUNNING, waiting="no node has 8 GPUs")),
    )
    refused, actions = decide(job(JobState.STARTING), unseen, NOW)
    assert (refused.waiting_for, actions) == ("there is no operator", ())
    assert decide(refused, unseen, NOW) == (refused, (Action.START_WORKLOAD,))  # said once, tried for ever
    starting, actions = decide(refused, waiting, NOW)
    assert (starting.waiting_for, actions) == ("no node has 8 GPUs", ())
    assert decide(starting, waiting, NOW) == (starting, ())
    assert decide(starting, Seen(RUNNING), NOW)[0].waiting_for == ""


def test_an_attempt_that_is_ended_from_outside_says_by_what() -> None:
    evicted, _ = decide(
        job(JobState.RUNNING), Seen(Observation(State.RUNNING, waiting="the pod is being evicted")), NOW
    )
    ended = take_report(evicted, Report(1, outcome=Outcome(stopped=True)), NOW)
    assert ended.failure is not None
    assert ended.failure.message.endswith("nobody had cancelled the job: the pod is being evicted")


def test_a_lost_attempt_is_repeated_as_often_as_allowed_and_goes_on_where_it_was() -> None:
    running = job(JobState.RUNNING, max_restarts=1, reports={0: 7}, progress=progress(9), checkpoint=checkpoint(5))
    again, _ = decide(running, Seen(workload=LOST), NOW)
    assert (again.state, again.restarts, shown(again)) == (JobState.PENDING, 1, (500, 1000))
    assert again.attempt_end is not None
    assert again.attempt_end.failure is not None
    assert again.attempt_end.failure.reason == jobs.WORKER_LOST
    assert TrainingProgress.FromString(again.attempt_end.progress).agent_steps == 900
    second, _ = decide(again, Seen(admission=Granted(), new_token="other"), NOW)
    assert (second.attempt, second.token, second.reports, shown(second)) == (2, "other", {}, (500, 1000))

    failed, _ = decide(second, Seen(workload=LOST, last_lines="Segmentation fault"), NOW)
    assert (failed.state, failed.end_time) == (JobState.FAILED, NOW)
    assert failed.failure is not None
    assert failed.failure.reason == jobs.WORKER_LOST
    assert "Segmentation fault" in failed.failure.message


FOUR = replace(CPU_SMALL, workers=4)


def with_running(replicas: int) -> Seen:
    """What is seen of an attempt of which some replicas run, once that has been waited for long enough."""
    return Seen(Observation(State.RUNNING, waiting="no node has room", running=replicas), has_waited=True)


def test_an_attempt_that_cannot_have_all_workers_is_followed_by_one_with_as_many_as_ran() -> None:
    elastic = {"compute": FOUR, "min_workers": 2}
    starting = job(JobState.STARTING, **elastic, waiting_for="no node has room")
    assert decide(starting, replace(with_running(3), has_waited=False), NOW) == (starting, ())
    again, actions = decide(starting, with_running(3), NOW)
    assert (again.state, again.restarts, again.granted.workers, actions) == (JobState.PENDING, 0, 3, ())
    assert again.attempt_end is not None
    failure = Failure(jobs.TOO_FEW_WORKERS, "only 3 of 4 workers could run: no node has room")
    assert again.attempt_end.failure == failure
    assert again.history[-1].reason == jobs.TOO_FEW_WORKERS

    for smaller in (again, replace(again, compute=CPU_SMALL)):  # or resumed with fewer
        admit(smaller, 1, "t", rank=3)  # it was one of those that there were
        with pytest.raises(Aborted, match="attempt 1 of j has ended"):
            check_alive(smaller)

    second, _ = decide(again, Seen(admission=Granted(), new_token="other"), NOW)
    assert (second.state, second.attempt, second.granted.workers) == (JobState.STARTING, 2, 3)
    admit(second, 2, "other", rank=2)
    with pytest.raises(InvalidArgument, match="between 0 and 2"):
        admit(second, 2, "other", rank=3)
    third, _ = decide(second, with_running(2), NOW)
    assert third.granted.workers == 2
    lost, _ = decide(replace(second, max_restarts=1, reports={0: 1}), Seen(workload=LOST), NOW)
    assert (lost.restarts, lost.granted.workers) == (1, 4)  # all, again


@pytest.mark.parametrize(
    "changes",
    [
        {"min_workers": 0},
        {"min_workers": 4},
        {"min_workers": 3},  # more than run
        {"min_workers": 1, "reports": {1: 1}},  # all were there
        {"min_workers": 1, "workers": 2},  # all that it has do run
        {"min_workers": 1, "cancel_requested": True},
    ],
)
def test_otherwise_an_attempt_waits_for_its_workers(changes: dict[str, Any]) -> None:
    starting = job(JobState.STARTING, **{"compute": FOUR, "waiting_for": "no node has room", **changes})
    assert decide(starting, with_running(2), NOW)[0] == starting


def test_an_attempt_that_trains_keeps_its_workers() -> None:
    running = job(JobState.RUNNING, compute=FOUR, min_workers=1, waiting_for="no node has room")
    assert decide(running, with_running(2), NOW) == (running, ())


def test_workers_share_machines_as_they_would_with_all() -> None:
    shared = replace(CPU_SMALL, workers=10, workers_per_machine=4)  # two on each
    starting = job(JobState.STARTING, compute=shared, min_workers=1)
    fewer, _ = decide(starting, with_running(2), NOW)
    assert (fewer.granted.workers, fewer.granted.shared_by) == (4, 2)
    assert with_fewer(shared, 3).shared_by == 1


def test_an_installation_that_is_short_of_compute_gives_fewer_workers() -> None:
    waits = job(compute=FOUR, min_workers=1)
    started, _ = decide(waits, Seen(admission=Granted((1,), workers=1), new_token="t"), NOW)
    assert (started.granted.workers, started.gpus) == (1, (1,))
    again = resume(replace(started, state=JobState.CANCELLED), b"spec", FOUR, NOW)
    assert again.granted.workers == 4


def test_patience_lasts_from_the_last_replica_that_came(clock: ManualClock) -> None:
    patience = Patience(clock, seconds=10)
    assert not patience.is_over("j-a1", running=1)
    clock.advance(9)
    clock.jump(3600)
    assert not patience.is_over("j-a1", running=2)
    clock.advance(9)
    assert not patience.is_over("j-a1", running=2)
    clock.advance(1)
    assert patience.is_over("j-a1", running=2)
    patience.forget("j-a1")
    assert not patience.is_over("j-a1", running=2)


def test_the_next_attempt_waits_until_the_last_one_is_gone() -> None:
    again = job(attempt=1)
    may_start = Seen(workload=RUNNING, admission=Granted(), new_token="other")
    waits, _ = decide(again, may_start, NOW)
    assert (waits.state, waits.waiting_for) == (JobState.PENDING, "the end of its last attempt")
    started, _ = decide(waits, replace(may_start, workload=LOST), NOW)
    assert started.attempt == 2


@pytest.mark.parametrize("state", [state for state in JobState if state in ENDED])
def test_a_job_that_has_ended_goes_on_when_a_user_asks_for_it(state: JobState) -> None:
    ended = job(
        state,
        attempt=3,
        restarts=2,
        max_restarts=2,
        failure=Failure("CRASHED", "x"),
        cancel_requested=True,
        end_time=NOW,
        progress=progress(9),
        checkpoint=checkpoint(8),
    )
    again = resume(ended, b"longer", replace(CPU_SMALL, workers=2), NOW)

    assert (again.state, again.ended, again.spec, again.compute.workers) == (JobState.PENDING, False, b"longer", 2)
    assert (again.restarts, again.failure, again.cancel_requested, again.end_time) == (0, None, False, None)
    assert shown(again)[0] == 800
    started, _ = decide(again, Seen(admission=Granted(), new_token="new"), NOW)
    assert started.attempt == 4
    assert decide(started, Seen(workload=LOST), NOW)[0].state is JobState.PENDING  # with all its restarts again


def test_a_running_job_whose_workload_is_gone_is_lost() -> None:
    failed, _ = decide(job(JobState.RUNNING), Seen(workload=None), NOW)
    assert failed.state is JobState.FAILED


def test_cancelling_stops_what_runs_and_ends_once_it_has() -> None:
    cancelled = cancel(job(JobState.RUNNING), NOW)
    assert cancelled.state is JobState.RUNNING
    assert decide(cancelled, Seen(workload=RUNNING), NOW)[1] == (Action.STOP_WORKLOAD,)
    assert decide(cancelled, Seen(workload=LOST), NOW)[0].state is JobState.CANCELLED


def test_cancelling_a_waiting_job_ends_it_and_an_ended_one_stays_as_it_is() -> None:
    ended = cancel(job(), NOW)
    assert ended.state is JobState.CANCELLED
    assert cancel(ended, NOW) == ended


@pytest.mark.parametrize(
    ("outcome", "cancelled", "state", "reason"),
    [
        (Outcome(), False, JobState.SUCCEEDED, None),
        (Outcome(), True, JobState.SUCCEEDED, None),  # it was faster than its cancellation
        (Outcome(stopped=True), True, JobState.CANCELLED, None),
        (Outcome(failure=Failure("CRASHED", "x")), True, JobState.CANCELLED, None),
        (Outcome(stopped=True), False, JobState.FAILED, jobs.PREEMPTED),
        (Outcome(failure=Failure("STALLED", "x")), False, JobState.FAILED, jobs.STALLED),
        (Outcome(failure=Failure("DIVERGED", "x")), False, JobState.FAILED, "DIVERGED"),
    ],
)
def test_the_last_report_ends_the_job(outcome: Outcome, cancelled: bool, state: JobState, reason: str | None) -> None:
    running = job(JobState.RUNNING, checkpoint=checkpoint(1), cancel_requested=cancelled)
    ended = take_report(running, Report(1, outcome=outcome), NOW)
    assert (ended.state, ended.failure.reason if ended.failure else None) == (state, reason)


@pytest.mark.parametrize(
    ("outcome", "repeated"),
    [
        (Outcome(stopped=True), True),
        (Outcome(failure=Failure("STALLED", "x")), True),
        (Outcome(failure=Failure("CRASHED", "x")), False),
        (Outcome(failure=Failure("DIVERGED", "x")), False),
        (Outcome(failure=Failure("POLICY_INVALID", "x")), False),
    ],
)
def test_only_what_may_go_better_is_tried_again(outcome: Outcome, repeated: bool) -> None:
    ended = take_report(job(JobState.RUNNING, max_restarts=3), Report(1, outcome=outcome), NOW)
    assert (ended.state is JobState.PENDING) == repeated


def test_the_first_failure_of_any_rank_decides_and_success_is_for_rank_0_to_say() -> None:
    running = job(JobState.RUNNING, checkpoint=checkpoint(1), compute=replace(CPU_SMALL, workers=2))
    well = take_report(running, Report(1, rank=1, outcome=Outcome()), NOW)
    assert (well.state, well.reports) == (JobState.RUNNING, {1: 1})
    crashed = Outcome(failure=Failure("CRASHED", "ImportError: no module named mine"))
    failed = take_report(well, Report(2, rank=1, outcome=crashed), NOW)
    assert failed.failure == crashed.failure


def test_a_cancelled_job_ends_when_rank_0_has_saved() -> None:
    cancelled = job(JobState.RUNNING, cancel_requested=True, compute=replace(CPU_SMALL, workers=2))
    crashed = Outcome(failure=Failure("CRASHED", "x"))
    still = take_report(cancelled, Report(1, rank=1, outcome=crashed), NOW)
    assert still.state is JobState.RUNNING
    assert take_report(still, Report(1, outcome=Outcome(stopped=True)), NOW).state is JobState.CANCELLED


def test_ranks_number_their_reports_on_their_own() -> None:
    running = job(JobState.RUNNING, compute=replace(CPU_SMALL, workers=2))
    both = take_report(take_report(running, Report(3), NOW), Report(1, rank=1, log_bytes=5), NOW)
    assert (both.reports, both.log_bytes) == ({0: 3, 1: 1}, 5)
    assert take_report(both, Report(1, rank=1, log_bytes=5), NOW) == both


def test_success_without_a_checkpoint_is_a_failure() -> None:
    ended = take_report(job(JobState.STARTING), Report(1, outcome=Outcome()), NOW)
    assert ended.failure is not None
    assert ended.failure.reason == jobs.NO_CHECKPOINT


def test_a_report_that_was_taken_changes_nothing() -> None:
    once = take_report(job(JobState.STARTING), Report(3, progress=progress(1)), NOW)
    assert take_report(once, Report(3, progress=progress(2)), NOW) == once


events = st.lists(
    st.one_of(
        st.builds(
            Seen,
            workload=st.sampled_from([None, RUNNING, LOST, Observation(State.SUCCEEDED)]),
            admission=st.sampled_from([None, Granted(), Held("more")]),
            new_token=st.just("t"),
        ),
        st.builds(
            Report,
            sequence=st.integers(1, 5),
            rank=st.integers(0, 1),
            progress=st.sampled_from([b"", progress(1)]),
            checkpoint=st.sampled_from([b"", checkpoint(1)]),
            outcome=st.sampled_from(
                [
                    None,
                    Outcome(),
                    Outcome(stopped=True),
                    Outcome(Failure("CRASHED", "x")),
                    Outcome(Failure("STALLED", "x")),
                ]
            ),
        ),
        st.sampled_from(["cancel", "resume"]),
    ),
    max_size=30,
)


@settings(max_examples=300)
@given(events, st.integers(0, 2))
def test_whatever_happens_a_job_takes_only_allowed_steps(happenings: list[object], restarts: int) -> None:
    current, resumed = job(max_restarts=restarts), 0
    for event in happenings:
        before = current
        match event:
            case Seen():
                current, actions = decide(current, event, NOW)
                assert current == before or not actions  # either write or act
            case Report() if current.state in OCCUPYING:  # as the store admits them
                current = take_report(current, event, NOW)
            case "resume" if current.ended:
                current, resumed = resume(current, current.spec, current.compute, NOW), resumed + 1
            case "cancel":
                current = cancel(current, NOW)
        if before.ended and event != "resume":
            assert current == before
    states = [JobState.PENDING, *(step.to_state for step in current.history)]
    assert all(after in ALLOWED[before] for before, after in itertools.pairwise(states))
    assert sum(state in ENDED for state in states) == current.ended + resumed
    assert current.attempt <= (restarts + 1) * (resumed + 1)
    assert current.ended == (current.end_time is not None)
    assert current.attempt == states.count(JobState.STARTING)


def test_workload_names_lead_back_to_their_attempts() -> None:
    name = workload_name("sweep-a1-t3", 2)
    assert parse_workload_name(name) == ("sweep-a1-t3", 2)
    assert len(workload_name("x" * 40, 10**6)) <= 63
    assert parse_workload_name("something-else") is None


def test_only_the_holder_of_the_token_speaks_for_an_attempt() -> None:
    running = job(JobState.RUNNING, attempt=2, token="secret", compute=replace(CPU_SMALL, workers=2))
    admit(running, 2, "secret", 1)
    with pytest.raises(Aborted):
        admit(running, 1, "secret", 0)
    with pytest.raises(PermissionDenied):
        admit(running, 2, "geheim", 0)
    for rank in (-1, 2):
        with pytest.raises(InvalidArgument, match=r"attempt\.rank: must be between 0 and 1"):
            admit(running, 2, "secret", rank)
    with pytest.raises(PermissionDenied):
        admit(job(JobState.PENDING, attempt=0, token=""), 0, "", 0)  # it has not started: nobody speaks for it
    assert "secret" not in repr(running)


def test_a_rank_that_has_begun_cannot_be_replaced() -> None:
    begun = job(JobState.RUNNING, reports={1: 3}, compute=replace(CPU_SMALL, workers=2))
    check_new(begun, 0)
    with pytest.raises(Aborted, match="rank 1 of attempt 1 of j has been at work already"):
        check_new(begun, 1)


@pytest.mark.parametrize("state", JobState)
def test_an_attempt_is_over_once_its_job_waits_again_or_has_ended(state: JobState) -> None:
    if state in OCCUPYING:
        return check_alive(job(state))
    with pytest.raises(Aborted, match="has ended"):
        check_alive(job(state))


def test_ranks_see_the_gpus_that_the_job_was_granted() -> None:
    granted = job(JobState.STARTING, gpus=(0, 2), compute=replace(CPU_SMALL, workers=2, gpus=1))
    assert gpu_environment(granted, None, counted_gpus=False) == {}
    assert gpu_environment(granted, None, counted_gpus=True) == {"CUDA_VISIBLE_DEVICES": "0,2"}
    named = gpu_environment(granted, ["5", "6", "GPU-abc"], counted_gpus=True)
    assert named == {"CUDA_VISIBLE_DEVICES": "5,GPU-abc"}
    assert gpu_environment(job(), None, counted_gpus=True)["CUDA_VISIBLE_DEVICES"] == ""  # none means none


@pytest.mark.parametrize(
    ("scores", "minimize", "gone", "best"),
    [
        ({}, False, [], None),
        ({1: None, 2: None, 3: None}, False, [1], None),
        ({1: 9.0, 2: 1.0, 3: 2.0, 4: 3.0}, False, [2], 1),
        ({1: 9.0, 2: 1.0, 3: 2.0, 4: 3.0}, True, [1], 2),
        ({1: 5.0, 2: 5.0, 3: 0.0, 4: 0.0}, False, [1], 2),  # of equally good ones the later is kept
        ({1: 0.0, 2: 0.0, 3: 5.0, 4: 5.0}, True, [1], 2),
    ],
)
def test_the_newest_checkpoints_and_the_best_are_kept(
    scores: dict[int, float | None], minimize: bool, gone: list[int], best: int | None
) -> None:
    retention = Retention(kept=2, minimize=minimize)
    assert (retention.superfluous(scores), retention.best(scores)) == (gone, best)


@pytest.mark.parametrize(
    ("metric", "score"),
    [("", 2.0), ("losses/value", 0.5), ("env/reward_per_agent", 2.0), ("unheard/of", None), ("broken", None)],
)
def test_a_checkpoint_is_scored_by_the_metric_that_its_spec_names(metric: str, score: float | None) -> None:
    saved = Checkpoint(reward=2.0, metrics={"losses/value": 0.5, "broken": float("nan")})
    assert Retention.of(1, TrainingSpec(best_metric=metric)).score(saved) == score


def test_logs_are_cut_at_lines() -> None:
    text = "a\nbb\n" + "c" * 12 + "\nd"
    assert list(logs.pieces(text, size=6)) == ["a\nbb\n", "cccccc", "cccccc", "\nd"]
    assert "".join(logs.pieces(text, size=6)) == text


def test_the_last_lines_of_a_log_are_few_and_clean() -> None:
    lines = logs.last_lines(b"first\n" + b"x\n" * 100 + b"\xff bad \x00 bytes\n\n").splitlines()
    assert len(lines) == logs.LAST_LINES
    assert lines[-1] == "� bad � bytes"


def test_responses_are_cut_where_clients_would_take_no_more() -> None:
    large = Checkpoint(parent="x" * (1 << 20))
    assert [len(portion) for portion in portions([large] * 5, 1000)] == [2, 2, 1]
    assert [len(portion) for portion in portions([Checkpoint(update=1)] * 5, 2)] == [2, 2, 1]
    assert len(next(portions([Checkpoint(parent="x" * (8 << 20))], 2))) == 1
    assert list(portions([], 2)) == [[]]
