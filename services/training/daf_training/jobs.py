"""Training jobs: their states, and what follows from what is seen and reported. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum

from daf_common.failures import Failure
from daf_common.values import Scalar
from daf_common.workloads import Observation, State
from daf_training.admission import Granted, Held
from daf_training.checkpoints import DEFAULT_KEPT, progress_at
from daf_training.profiles import CPU_SMALL, Profile, with_fewer

WORKER_LOST = "WORKER_LOST"
PREEMPTED = "PREEMPTED"
STALLED = "STALLED"
NO_CHECKPOINT = "NO_CHECKPOINT"
TOO_FEW_WORKERS = "TOO_FEW_WORKERS"
CANCELLED = "CANCELLED"
RESUMED = "RESUMED"

REPEATED = frozenset({WORKER_LOST, PREEMPTED, STALLED})
"""Why an attempt may end that another attempt may survive. What a worker's own work failed with would fail again."""


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
    JobState.SUCCEEDED: frozenset({JobState.PENDING}),
    JobState.FAILED: frozenset({JobState.PENDING}),
    JobState.CANCELLED: frozenset({JobState.PENDING}),
}
"""Where a job may go from each state. Back to PENDING lead a lost attempt that may be repeated, one that could not have
enough workers, and a user's wish to go on with a job that has ended."""

OCCUPYING = frozenset({JobState.STARTING, JobState.RUNNING})
"""States in which an attempt lives, and holds what it was granted."""

ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
"""States in which nothing more happens to a job unless somebody asks for it."""


@dataclass(frozen=True)
class Transition:
    """One step of a job's history."""

    from_state: JobState
    to_state: JobState
    reason: str


@dataclass(frozen=True)
class AttemptEnd:
    """How an attempt ended."""

    failure: Failure | None
    """Why, other than well."""
    progress: bytes = field(repr=False)
    """How far it had come."""


@dataclass(frozen=True)
class Job:
    """A row. `spec`, `progress` and the checkpoints are serialized messages, which decide nothing here."""

    id: str
    spec: bytes = field(repr=False)
    create_time: datetime
    creator: str = ""
    compute: Profile = CPU_SMALL
    """What it asks for: its profile, with its own numbers of workers and environments."""
    min_workers: int = 0
    """With how many workers an attempt makes do; 0: with no fewer than the job asks for."""
    queue_number: int = 0
    """Its place among those that wait, the smallest first; the store gives it."""
    max_restarts: int = 0
    restarts: int = 0
    """Attempts that were lost and repeated since its creation or since a user last resumed it."""
    max_checkpoints: int = DEFAULT_KEPT
    """How many of the newest checkpoints are kept beside the best."""
    state: JobState = JobState.PENDING
    cancel_requested: bool = False
    attempt: int = 0
    """Number of the current attempt; 0 before the first."""
    token: str = field(default="", repr=False)
    """The secret of the current attempt."""
    workers: int = 0
    """How many the current attempt has or, while the job waits, the next one gets at most; 0: all."""
    gpus: tuple[int, ...] = ()
    """Which GPUs the current attempt has, by their numbers from 0."""
    reports: Mapping[int, int] = field(default_factory=dict)
    """By rank, the sequence number of the last report of the current attempt that was taken."""
    waiting_for: str = ""
    """While it waits or starts, what for, in words; while it runs, what is about to end it from outside."""
    log_bytes: int = 0
    failure: Failure | None = None
    progress: bytes = field(default=b"", repr=False)
    checkpoint: bytes = field(default=b"", repr=False)
    """The newest; empty before the first."""
    best_checkpoint: bytes = field(default=b"", repr=False)
    """The best by the spec's metric; empty before the first that has it."""
    effective_trainer: Mapping[str, Scalar] = field(default_factory=dict, repr=False)
    start_time: datetime | None = None
    end_time: datetime | None = None
    revision: int = 0
    history: tuple[Transition, ...] = ()
    """Transitions that are not stored yet."""
    new_log: str = field(default="", repr=False)
    """What is to be appended to its log, which is not stored yet."""
    attempt_end: AttemptEnd | None = field(default=None, repr=False)
    """How its current attempt ended, which is not stored yet."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return self.state in ENDED

    @property
    def granted(self) -> Profile:
        """What the current attempt has or, while the job waits, the next one gets at most."""
        return with_fewer(self.compute, self.workers)

    @property
    def least(self) -> Profile:
        """With what an attempt makes do."""
        return with_fewer(self.compute, self.min_workers)


@dataclass(frozen=True)
class Seen:
    """What the world looks like for one job."""

    workload: Observation | None = None
    """The current or, for a waiting job, the last attempt's workload; None if the backend knows none."""
    assumed: bool = False
    """Whether nobody can see the workload, which is taken to live since nothing says that it does not."""
    has_waited: bool = False
    """Whether an elastic job has waited long enough for further replicas of a workload that starts."""
    refused: str = ""
    """Why the current attempt's workload could not be started when that was last tried."""
    last_lines: str = ""
    """For a workload that has ended, the end of what it printed."""
    admission: Granted | Held | None = None
    """Whether a waiting job may start; None if that was not asked."""
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
    """What a worker reports, as far as it changes the job. Of other ranks than 0, only a failure does."""

    sequence: int
    rank: int = 0
    progress: bytes = b""
    checkpoint: bytes = b""
    best_checkpoint: bytes = b""
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
    if report.sequence <= job.reports.get(report.rank, 0):
        return job
    job = replace(
        job,
        reports={**job.reports, report.rank: report.sequence},
        progress=report.progress or job.progress,
        checkpoint=report.checkpoint or job.checkpoint,
        best_checkpoint=report.best_checkpoint or job.best_checkpoint,
        effective_trainer=report.effective_trainer or job.effective_trainer,
        log_bytes=job.log_bytes + report.log_bytes,
    )
    outcome = report.outcome
    completed = report.rank == 0 and outcome is not None and not outcome.failure and not outcome.stopped
    if job.state is JobState.STARTING and (report.progress or completed):
        job = _to(job, JobState.RUNNING, "", now)
    return job if outcome is None else _finish(job, outcome, report.rank, now)


def cancel(job: Job, now: datetime) -> Job:
    """The job once its cancellation is asked for: one that waits ends at once, one that has ended stays as it is."""
    if job.ended:
        return job
    job = replace(job, cancel_requested=True)
    return _to(job, JobState.CANCELLED, CANCELLED, now) if job.state is JobState.PENDING else job


def resume(job: Job, spec: bytes, compute: Profile, now: datetime) -> Job:
    """A job that has ended, on its way again: as far as its newest checkpoint, with all its restarts before it."""
    again = replace(
        job,
        spec=spec,
        compute=compute,
        restarts=0,
        workers=0,
        cancel_requested=False,
        failure=None,
        end_time=None,
        progress=progress_at(job.checkpoint),
    )
    return _to(again, JobState.PENDING, RESUMED, now)


def _decide_waiting(job: Job, seen: Seen, now: datetime) -> Job:
    if job.cancel_requested:
        return _to(job, JobState.CANCELLED, CANCELLED, now)
    match seen.admission:
        case Held(waiting_for):
            return replace(job, waiting_for=waiting_for)
        case Granted() as granted:
            if seen.workload is not None and seen.workload.state is State.RUNNING:
                return replace(job, waiting_for="the end of its last attempt")
            return _start_attempt(job, seen.new_token, granted, now)
    return job


def _decide_attempt(job: Job, seen: Seen, now: datetime) -> tuple[Job, Sequence[Action]]:
    if seen.assumed and job.cancel_requested and job.state is JobState.STARTING and not job.reports:
        # It was never heard of, and need never be seen again: it is cleared away if it is.
        return _end(job, JobState.CANCELLED, Failure(CANCELLED, "the job was cancelled"), now), ()
    if seen.workload is not None and seen.workload.state is State.RUNNING:
        return _decide_living(job, seen.workload, seen.has_waited, now)
    if job.cancel_requested:
        return _end(job, JobState.CANCELLED, Failure(CANCELLED, "the job was cancelled"), now), ()
    if seen.workload is None and job.state is JobState.STARTING and not job.reports:
        if job.waiting_for != seen.refused:
            return replace(job, waiting_for=seen.refused), ()
        return job, (Action.START_WORKLOAD,)
    how = (seen.workload.message or "exit code 0") if seen.workload else "it is gone"
    message = f"the worker ended without a report ({how})"
    if seen.last_lines:
        job = replace(job, new_log=f"{message}; the end of what it printed:\n{seen.last_lines}\n")
        message = f"{message}; its last lines:\n{seen.last_lines}"
    return _fail(job, Failure(WORKER_LOST, message), now), ()


def _decide_living(job: Job, workload: Observation, has_waited: bool, now: datetime) -> tuple[Job, Sequence[Action]]:
    if workers := _makes_do_with(job, workload, has_waited):
        return _try_with(workers, job, workload.waiting, now), ()
    if job.waiting_for != workload.waiting:
        return replace(job, waiting_for=workload.waiting), ()
    return job, (Action.STOP_WORKLOAD,) if job.cancel_requested else ()


def _makes_do_with(job: Job, workload: Observation, has_waited: bool) -> int:
    """With how many workers a job goes on whose attempt does not get all; 0 if it waits for them."""
    if job.state is not JobState.STARTING or job.reports or job.cancel_requested or not has_waited:
        return 0
    have = workload.running * job.granted.shared_by
    return have if job.least.workers <= have < job.granted.workers else 0


def _try_with(workers: int, job: Job, waiting_for: str, now: datetime) -> Job:
    """Ends an attempt of which too few workers run; that is no restart. The next one is for as many as ran."""
    message = f"only {workers} of {job.granted.workers} workers could run: {waiting_for}"
    return replace(_end(job, JobState.PENDING, Failure(TOO_FEW_WORKERS, message), now), workers=workers)


def _finish(job: Job, outcome: Outcome, rank: int, now: datetime) -> Job:
    if rank != 0 and (job.cancel_requested or not outcome.failure):
        return job  # how it ends is for rank 0 to say, once it has saved
    if not outcome.failure and not outcome.stopped:
        if job.checkpoint:
            return _end(job, JobState.SUCCEEDED, None, now)
        return _fail(job, Failure(NO_CHECKPOINT, "the worker ended well but reported no checkpoint"), now)
    if job.cancel_requested:
        return _end(job, JobState.CANCELLED, Failure(CANCELLED, "the job was cancelled"), now)
    if not outcome.failure:
        why = f": {job.waiting_for}" if job.waiting_for else ""
        failure = Failure(PREEMPTED, f"the worker was asked to end, though nobody had cancelled the job{why}")
        return _fail(job, failure, now)
    return _fail(job, outcome.failure, now)


def _start_attempt(job: Job, token: str, granted: Granted, now: datetime) -> Job:
    workers = granted.workers or job.workers
    started = replace(job, attempt=job.attempt + 1, token=token, workers=workers, gpus=granted.gpus, reports={})
    return _to(started, JobState.STARTING, "", now)


def _fail(job: Job, failure: Failure, now: datetime) -> Job:
    """Ends an attempt badly: the job waits for another one, or has failed."""
    if failure.reason not in REPEATED or job.restarts >= job.max_restarts:
        return replace(_end(job, JobState.FAILED, failure, now), failure=failure)
    again = _end(job, JobState.PENDING, failure, now)
    return replace(again, restarts=job.restarts + 1, progress=progress_at(job.checkpoint, job.progress))


def _end(job: Job, state: JobState, failure: Failure | None, now: datetime) -> Job:
    """Ends an attempt, with the job in that state."""
    ended = replace(job, workers=0, gpus=(), attempt_end=AttemptEnd(failure, job.progress))
    return _to(ended, state, failure.reason if failure else "", now)


def _to(job: Job, state: JobState, reason: str, now: datetime) -> Job:
    if state not in ALLOWED[job.state]:
        raise ValueError(f"a job cannot go from {job.state.value} to {state.value}")
    history = (*job.history, Transition(job.state, state, reason))
    changed = replace(job, state=state, waiting_for="", history=history)
    if state is JobState.RUNNING and changed.start_time is None:
        changed = replace(changed, start_time=now)
    return replace(changed, end_time=now) if changed.ended else changed
