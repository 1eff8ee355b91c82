"""What is done about an evaluation, by what is seen of it. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from daf_common.failures import Failure
from daf_common.workloads import Observation
from daf_common.workloads import State as WorkloadState
from daf_evaluation.evaluations import (
    TRANSITIONS,
    WAITING_FOR_SLOTS,
    Archive,
    Evaluation,
    Seen,
    Start,
    State,
    Stop,
    decide,
    parse_workload_name,
)

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
NOW = CREATED + timedelta(minutes=1)
RUNS, FAILED = Observation(WorkloadState.RUNNING), Observation(WorkloadState.FAILED, "exit code 1")

NEW = Evaluation(
    number=1, id="e", spec=b"", agents=(4,), total=8, workers=2, token="t", creator="", create_time=CREATED
)
STARTED = replace(NEW, attempt=1, replicas=2)
RUNNING = replace(STARTED, state=State.RUNNING, start_time=CREATED)
PLAYED = replace(RUNNING, done=8)


def test_nothing_starts_without_a_slot() -> None:
    waiting, actions = decide(NEW, Seen(), NOW, 3)
    assert (waiting.attempt, waiting.waiting_for, actions) == (0, WAITING_FOR_SLOTS, [])
    assert decide(waiting, Seen(), NOW, 3) == (waiting, [])
    assert decide(waiting, Seen(slots=1), NOW, 3)[0].waiting_for == ""


def test_what_workers_wait_for_is_told() -> None:
    starting = replace(NEW, attempt=1, replicas=2)
    refused = Seen(refused="the quota is used up")
    told, actions = decide(starting, refused, NOW, 3)
    assert (told.waiting_for, actions) == ("the quota is used up", [])
    assert decide(told, refused, NOW, 3) == (told, [Start()])
    waiting = Observation(WorkloadState.RUNNING, waiting="1 of 2: no node has room")
    half, _ = decide(told, Seen({"e-w1": waiting}, complete=True), NOW, 3)
    assert half.waiting_for == "1 of 2: no node has room"
    running = Seen({"e-w1": Observation(WorkloadState.RUNNING)}, complete=True)
    assert decide(half, running, NOW, 3)[0].waiting_for == ""
    assert half.to(State.CANCELLED, NOW).waiting_for == ""


def test_slots_are_written_down_before_anything_is_started() -> None:
    assert decide(NEW, Seen(slots=2), NOW, 3) == (STARTED, [])
    assert decide(STARTED, Seen(), NOW, 3) == (STARTED, [Start()])
    assert decide(STARTED, Seen({"e-w1": RUNS}, complete=True), NOW, 3) == (STARTED, [])


def test_a_workload_that_may_lack_processes_is_started_again_while_it_runs() -> None:
    assert decide(RUNNING, Seen({"e-w1": RUNS}, complete=False), NOW, 3) == (RUNNING, [Start()])
    assert decide(RUNNING, Seen({"e-w1": FAILED}, complete=False), NOW, 3) == (replace(RUNNING, replicas=0), [])


def test_a_workload_that_ended_too_early_gives_its_slots_back_and_the_next_is_another() -> None:
    waiting, actions = decide(RUNNING, Seen({"e-w1": FAILED}), NOW, 3)
    assert (waiting.replicas, actions) == (0, [])
    again, _ = decide(waiting, Seen({"e-w1": FAILED}, slots=1), NOW, 3)
    assert (again.workload, again.replicas) == ("e-w2", 1)


def test_after_the_last_attempt_it_fails_with_the_last_words() -> None:
    failed, _ = decide(replace(RUNNING, attempt=3), Seen({"e-w3": FAILED}, last_words="boom"), NOW, 3)
    assert failed.state is State.FAILED
    assert failed.failure is not None
    assert failed.failure.reason == "WORKER_LOST"
    assert "exit code 1; boom" in failed.failure.message


def test_once_all_is_played_it_succeeds_with_the_digest() -> None:
    done, _ = decide(PLAYED, Seen({"e-w1": RUNS}, recorded=8, digest="d"), NOW, 3)
    assert (done.state, done.digest, done.replicas, done.end_time) == (State.SUCCEEDED, "d", 0, NOW)


def test_numbers_that_were_lost_are_a_failure_and_no_digest() -> None:
    failed, _ = decide(PLAYED, Seen(recorded=7, digest="d"), NOW, 3)
    assert (failed.state, failed.digest) == (State.FAILED, "")
    assert failed.failure is not None
    assert failed.failure.reason == "EPISODES_LOST"


@pytest.mark.parametrize("evaluation", [NEW, STARTED, RUNNING, PLAYED])
def test_a_cancellation_ends_it_wherever_it_is(evaluation: Evaluation) -> None:
    cancelled, _ = decide(replace(evaluation, cancel_requested=True), Seen({"e-w1": RUNS}), NOW, 3)
    assert (cancelled.state, cancelled.replicas) == (State.CANCELLED, 0)


@pytest.mark.parametrize("evaluation", [STARTED, RUNNING])
def test_a_failure_that_was_reported_ends_it(evaluation: Evaluation) -> None:
    failure = Failure("MISSION_INVALID", "too small")
    failed, _ = decide(replace(evaluation, failure=failure), Seen({"e-w1": RUNS}), NOW, 3)
    assert (failed.state, failed.failure) == (State.FAILED, failure)


@pytest.mark.parametrize("state", [state for state in State if state.ended])
def test_after_the_end_workloads_are_stopped_then_archived_and_no_state_follows(state: State) -> None:
    ended = replace(RUNNING, state=state, replicas=0)
    assert decide(ended, Seen({"e-w1": FAILED, "e-w2": RUNS}), NOW, 3) == (ended, [Archive("e-w1"), Stop("e-w2")])
    cleaned, actions = decide(ended, Seen(), NOW, 3)
    assert (cleaned, actions) == (replace(ended, cleaned=True), [])
    assert TRANSITIONS[state] == frozenset()
    with pytest.raises(ValueError, match="never goes"):
        ended.to(State.RUNNING, NOW)


@pytest.mark.parametrize(
    ("workload", "parsed"),
    [("e-w1", ("e", 1)), ("a-w2-w13", ("a-w2", 13)), ("job-walrus-a1", None), ("e", None), ("e-w", None)],
)
def test_only_names_of_evaluations_workloads_are_read(workload: str, parsed: tuple[str, int] | None) -> None:
    assert parse_workload_name(workload) == parsed


def test_the_token_is_not_shown() -> None:
    assert "secret" not in repr(replace(NEW, token="secret"))
