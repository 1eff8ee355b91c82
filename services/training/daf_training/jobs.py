"""Training jobs: their states, and what follows from what is seen and reported. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum

from daf_common.failures import Failure
from daf_common.values import Scalar
from daf_common.workloads import Observation, State
from daf_training.checkpoints import DEFAULT_KEPT

WORKER_LOST = "WORKER_LOST"
PREEMPTED = "PREEMPTED"
NO_CHECKPOINT = "NO_CHECKPOINT"
CANCELLED = "CANCELLED"


class JobState(Enum):
    """How far a job is; see `TrainingJobState` in the proto."""

    PENDING = "PENDING"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


ALLOWED: Mapping[JobState, frozenset[JobState]] = {
    JobState.PENDING: frozenset({JobState.STARTING, JobState.CANCELLED}),
    JobState.STARTING: frozenset({JobState.RUNNING, JobState.PENDING, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.PENDING, JobState.FAILED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}
"""Where a job may go from each state. Back to PENDING leads only a lost attempt that may be repeated."""

OCCUPYING = (JobState.STARTING, JobState.RUNNING)
"""States in which a job holds a slot."""


@dataclass(frozen=True)
class Transition:
    """One step of a job's history."""

    from_state: JobState
    to_state: JobState
    reason: str


@dataclass(frozen=True)
class Job:
    """A row. `spec`, `progress` and `checkpoint` are serialized messages, which decide nothing here."""

    id: str
    spec: bytes = field(repr=False)
    create_time: datetime
    creator: str = ""
    max_restarts: int = 0
    max_checkpoints: int = DEFAULT_KEPT
    """How many of the newest checkpoints are kept beside the best."""
    state: JobState = JobState.PENDING
    cancel_requested: bool = False
    attempt: int = 0
    """Number of the current attempt; 0 before the first."""
    token: str = field(default="", repr=False)
    """The secret of the current attempt."""
    reports: int = 0
    """Sequence number of the last report of the current attempt that was taken."""
    log_bytes: int = 0
    failure: Failure | None = None
    progress: bytes = field(default=b"", repr=False)
    checkpoint: bytes = field(default=b"", repr=False)
    """The newest; empty before the first."""
    effective_trainer: Mapping[str, Scalar] = field(default_factory=dict, repr=False)
    start_time: datetime | None = None
    end_time: datetime | None = None
    revision: int = 0
    history: tuple[Transition, ...] = ()
    """Transitions that are not stored yet."""
    new_log: str = field(default="", repr=False)
    """What is to be appended to its log, which is not stored yet."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return not ALLOWED[self.state]


@dataclass(frozen=True)
class Seen:
    """What the world looks like for one job."""

    workload: Observation | None = None
    """The current attempt's workload; None if the backend knows none."""
    last_lines: str = ""
    """For a workload that has ended, the end of what it printed."""
    slot: bool = False
    """Whether a waiting job may start."""
    new_token: str = field(default="", repr=False)
    """The secret of the attempt that would start."""


class Action(Enum):
    """What is to be done about a job."""

    START_WORKLOAD = "start"
    STOP_WORKLOAD = "stop"


@dataclass(frozen=True)
class Outcome:
    """How a worker says that its attempt ended."""

    failure: Failure | None = None
    stopped: bool = False


@dataclass(frozen=True)
class Report:
    """What a worker reports, as far as it changes the job."""

    sequence: int
    progress: bytes = b""
    checkpoint: bytes = b""
    effective_trainer: Mapping[str, Scalar] = field(default_factory=dict)
    log_bytes: int = 0
    outcome: Outcome | None = None


def decide(job: Job, seen: Seen, now: datetime) -> tuple[Job, Sequence[Action]]:
    """The job as it should be stored, and what to do once it is."""
    if job.ended:
        return job, ()
    if job.state is JobState.PENDING:
        return _decide_waiting(job, seen, now), ()
    return _decide_attempt(job, seen, now)


def take_report(job: Job, report: Report, now: datetime) -> Job:
    """The job after a report of its current attempt. A report that was taken before changes nothing."""
    if report.sequence <= job.reports:
        return job
    job = replace(
        job,
        reports=report.sequence,
        progress=report.progress or job.progress,
        checkpoint=report.checkpoint or job.checkpoint,
        effective_trainer=report.effective_trainer or job.effective_trainer,
        log_bytes=job.log_bytes + report.log_bytes,
    )
    outcome = report.outcome
    completed = outcome is not None and not outcome.failure and not outcome.stopped
    if job.state is JobState.STARTING and (report.progress or completed):
        job = _to(job, JobState.RUNNING, "", now)
    return job if outcome is None else _finish(job, outcome, now)


def cancel(job: Job, now: datetime) -> Job:
    """The job once its cancellation is asked for: one that waits ends at once, one that has ended stays as it is."""
    if job.ended:
        return job
    job = replace(job, cancel_requested=True)
    return _to(job, JobState.CANCELLED, CANCELLED, now) if job.state is JobState.PENDING else job


def _decide_waiting(job: Job, seen: Seen, now: datetime) -> Job:
    if job.cancel_requested:
        return _to(job, JobState.CANCELLED, CANCELLED, now)
    return _start_attempt(job, seen.new_token, now) if seen.slot else job


def _decide_attempt(job: Job, seen: Seen, now: datetime) -> tuple[Job, Sequence[Action]]:
    if seen.workload is not None and seen.workload.state is State.RUNNING:
        return job, (Action.STOP_WORKLOAD,) if job.cancel_requested else ()
    if job.cancel_requested:
        return _to(job, JobState.CANCELLED, CANCELLED, now), ()
    if seen.workload is None and job.state is JobState.STARTING:
        return job, (Action.START_WORKLOAD,)
    how = (seen.workload.message or "exit code 0") if seen.workload else "it is gone"
    message = f"the worker ended without a report ({how})"
    if seen.last_lines:
        job = replace(job, new_log=f"{message}; the end of what it printed:\n{seen.last_lines}\n")
        message = f"{message}; its last lines:\n{seen.last_lines}"
    return _lose(job, Failure(WORKER_LOST, message), now), ()


def _finish(job: Job, outcome: Outcome, now: datetime) -> Job:
    if not outcome.failure and not outcome.stopped:
        if job.checkpoint:
            return _to(job, JobState.SUCCEEDED, "", now)
        return _fail(job, Failure(NO_CHECKPOINT, "the worker ended well but reported no checkpoint"), now)
    if job.cancel_requested:
        return _to(job, JobState.CANCELLED, CANCELLED, now)
    if outcome.failure:
        return _fail(job, outcome.failure, now)
    return _lose(job, Failure(PREEMPTED, "the worker was asked to end, though nobody had cancelled the job"), now)


def _start_attempt(job: Job, token: str, now: datetime) -> Job:
    started = replace(job, attempt=job.attempt + 1, token=token, reports=0, progress=b"")
    return _to(started, JobState.STARTING, "", now)


def _lose(job: Job, failure: Failure, now: datetime) -> Job:
    if job.attempt <= job.max_restarts:
        return _to(job, JobState.PENDING, failure.reason, now)
    return _fail(job, failure, now)


def _fail(job: Job, failure: Failure, now: datetime) -> Job:
    return replace(_to(job, JobState.FAILED, failure.reason, now), failure=failure)


def _to(job: Job, state: JobState, reason: str, now: datetime) -> Job:
    if state not in ALLOWED[job.state]:
        raise ValueError(f"a job cannot go from {job.state.value} to {state.value}")
    changed = replace(job, state=state, history=(*job.history, Transition(job.state, state, reason)))
    if state is JobState.RUNNING and changed.start_time is None:
        changed = replace(changed, start_time=now)
    return replace(changed, end_time=now) if changed.ended else changed
