"""The pure core of training jobs."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daf_common.errors import Aborted, PermissionDenied
from daf_common.failures import Failure
from daf_common.workloads import Observation, State
from daf_training import jobs, logs
from daf_training.attempts import admit, parse_workload_name, workload_name
from daf_training.checkpoints import superfluous
from daf_training.jobs import (
    ALLOWED,
    Action,
    Job,
    JobState,
    Outcome,
    Report,
    Seen,
    cancel,
    decide,
    take_report,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUNNING = Observation(State.RUNNING)
LOST = Observation(State.FAILED, "ended by SIGKILL")


def job(state: JobState = JobState.PENDING, **changes: object) -> Job:
    attempt = 0 if state is JobState.PENDING else 1
    return replace(Job("j", b"spec", NOW, state=state, attempt=attempt, token="t" * attempt), **changes)


def test_a_waiting_job_starts_when_it_gets_a_slot() -> None:
    assert decide(job(), Seen(), NOW) == (job(), ())
    started, actions = decide(job(), Seen(slot=True, new_token="secret"), NOW)
    assert (started.state, started.attempt, started.token, actions) == (JobState.STARTING, 1, "secret", ())


def test_a_starting_job_starts_its_workload_until_it_is_seen() -> None:
    starting = job(JobState.STARTING)
    assert decide(starting, Seen(), NOW) == (starting, (Action.START_WORKLOAD,))
    assert decide(starting, Seen(workload=RUNNING), NOW) == (starting, ())


def test_a_lost_attempt_is_repeated_as_often_as_allowed() -> None:
    running = job(JobState.RUNNING, max_restarts=1, reports=7, progress=b"p")
    again, _ = decide(running, Seen(workload=LOST), NOW)
    assert again.state is JobState.PENDING
    second, _ = decide(again, Seen(slot=True, new_token="other"), NOW)
    assert (second.attempt, second.token, second.reports, second.progress) == (2, "other", 0, b"")

    failed, _ = decide(second, Seen(workload=LOST, last_lines="Segmentation fault"), NOW)
    assert (failed.state, failed.end_time) == (JobState.FAILED, NOW)
    assert failed.failure is not None
    assert failed.failure.reason == jobs.WORKER_LOST
    assert "Segmentation fault" in failed.failure.message


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
        (Outcome(failure=Failure("DIVERGED", "x")), False, JobState.FAILED, "DIVERGED"),
    ],
)
def test_the_last_report_ends_the_job(outcome: Outcome, cancelled: bool, state: JobState, reason: str | None) -> None:
    running = job(JobState.RUNNING, checkpoint=b"c", cancel_requested=cancelled)
    ended = take_report(running, Report(1, outcome=outcome), NOW)
    assert (ended.state, ended.failure.reason if ended.failure else None) == (state, reason)


def test_success_without_a_checkpoint_is_a_failure() -> None:
    ended = take_report(job(JobState.STARTING), Report(1, outcome=Outcome()), NOW)
    assert ended.failure is not None
    assert ended.failure.reason == jobs.NO_CHECKPOINT


def test_a_report_that_was_taken_changes_nothing() -> None:
    once = take_report(job(JobState.STARTING), Report(3, progress=b"p"), NOW)
    assert take_report(once, Report(3, progress=b"other"), NOW) == once


events = st.lists(
    st.one_of(
        st.builds(
            Seen,
            workload=st.sampled_from([None, RUNNING, LOST, Observation(State.SUCCEEDED)]),
            slot=st.booleans(),
            new_token=st.just("t"),
        ),
        st.builds(
            Report,
            sequence=st.integers(1, 5),
            progress=st.sampled_from([b"", b"p"]),
            checkpoint=st.sampled_from([b"", b"c"]),
            outcome=st.sampled_from([None, Outcome(), Outcome(stopped=True), Outcome(Failure("CRASHED", "x"))]),
        ),
        st.just("cancel"),
    ),
    max_size=30,
)


@settings(max_examples=300)
@given(events, st.integers(0, 2))
def test_whatever_happens_a_job_takes_only_allowed_steps_and_ends_once(happenings: list[object], restarts: int) -> None:
    current = job(max_restarts=restarts)
    for event in happenings:
        before = current
        match event:
            case Seen():
                current, actions = decide(current, event, NOW)
                assert current == before or not actions  # either write or act
            case Report() if current.attempt and not current.ended:  # as the store admits them
                if current.state is not JobState.PENDING:
                    current = take_report(current, event, NOW)
            case _:
                current = cancel(current, NOW)
        if before.ended:
            assert current == before
    states = [JobState.PENDING, *(step.to_state for step in current.history)]
    assert all(after in ALLOWED[before] for before, after in itertools.pairwise(states))
    assert sum(not ALLOWED[state] for state in states) == current.ended
    assert current.attempt <= restarts + 1
    assert current.ended == (current.end_time is not None)


def test_workload_names_lead_back_to_their_attempts() -> None:
    name = workload_name("sweep-a1-t3", 2)
    assert parse_workload_name(name) == ("sweep-a1-t3", 2)
    assert len(workload_name("x" * 40, 10**6)) <= 63
    assert parse_workload_name("something-else") is None


def test_only_the_holder_of_the_token_speaks_for_an_attempt() -> None:
    running = job(JobState.RUNNING, attempt=2, token="secret")
    admit(running, 2, "secret")
    with pytest.raises(Aborted):
        admit(running, 1, "secret")
    with pytest.raises(PermissionDenied):
        admit(running, 2, "geheim")
    assert "secret" not in repr(running)


@pytest.mark.parametrize(
    ("rewards", "gone"),
    [
        ({}, []),
        ({1: None, 2: None, 3: None}, [1]),
        ({1: 9.0, 2: 1.0, 3: 2.0, 4: 3.0}, [2]),
        ({1: 5.0, 2: 5.0, 3: 0.0, 4: 0.0}, [1]),  # of equally good ones the later is kept
    ],
)
def test_the_newest_checkpoints_and_the_best_are_kept(rewards: dict[int, float | None], gone: list[int]) -> None:
    assert superfluous(rewards, kept=2) == gone


def test_logs_are_cut_at_lines() -> None:
    text = "a\nbb\n" + "c" * 12 + "\nd"
    assert list(logs.pieces(text, size=6)) == ["a\nbb\n", "cccccc", "cccccc", "\nd"]
    assert "".join(logs.pieces(text, size=6)) == text


def test_the_last_lines_of_a_log_are_few_and_clean() -> None:
    lines = logs.last_lines(b"first\n" + b"x\n" * 100 + b"\xff bad \x00 bytes\n\n").splitlines()
    assert len(lines) == logs.LAST_LINES
    assert lines[-1] == "� bad � bytes"
