"""What the training service tells Prometheus, beside what every service does."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from prometheus_client import Counter, Histogram

from daf_common.metrics import STATE_CHANGES, WAITING_SECONDS
from daf_common.state_counts import Kind, StateCounts
from daf_common.store import Store, Transaction
from daf_training import jobs
from daf_training.checkpoints import done_agent_steps
from daf_training.jobs import Job, JobState
from daf_training.tables import JOBS

QUEUE_SECONDS = Histogram(
    "daf_training_queue_wait_seconds",
    "From the creation of a job to the start of its first attempt.",
    buckets=WAITING_SECONDS,
)
START_SECONDS = Histogram(
    "daf_training_start_seconds",
    "From the start of an attempt to its first report of steps.",
    buckets=WAITING_SECONDS,
)
FIRST_STEP_SECONDS = Histogram(
    "daf_training_time_to_first_step_seconds",
    "From the creation of a job to the first report of steps of its first attempt.",
    buckets=WAITING_SECONDS,
)
AGENT_STEPS = Counter(
    "daf_training_agent_steps_total",
    "Environment steps of agents that workers have reported; those that are trained again after a resumption, too.",
)
ATTEMPTS_ENDED = Counter(
    "daf_training_attempts_ended_total",
    "Attempts that have ended, by why they did: empty if well, `OTHER` for what this release does not know.",
    ("reason",),
)
CHECKPOINTS = Counter("daf_training_checkpoints_total", "Checkpoints that workers have reported.")
CHECKPOINT_BYTES = Counter("daf_training_checkpoint_bytes_total", "Content of the artifacts of those checkpoints.")

OTHER = "OTHER"
REASONS = frozenset(
    {
        jobs.WORKER_LOST,
        jobs.PREEMPTED,
        jobs.STALLED,
        jobs.NO_CHECKPOINT,
        jobs.TOO_FEW_WORKERS,
        jobs.CANCELLED,
        # What workers fail with: see `daf_cogames.training.failures`. They could send anything.
        "ARTIFACT_LOST",
        "CHECKPOINTS_LOST",
        "CRASHED",
        "DISK_FULL",
        "DIVERGED",
        "MISSION_INVALID",
        "OUT_OF_MEMORY",
        "POLICY_INVALID",
        "SPEC_INVALID",
        "WEIGHTS_INVALID",
    }
)
"""Why attempts end, as far as it is a label."""

KIND = "trainingJob"


def job_counts(store: Store) -> StateCounts:
    """Jobs by state."""
    return StateCounts(store, [Kind(KIND, JOBS.c.state, [state.value for state in JobState])])


def count_changes(tx: Transaction, old: Job, new: Job, now: datetime) -> None:
    """Has the changes between two versions of a job counted once they are stored."""
    for step in new.history:
        tx.after_commit(STATE_CHANGES.labels(KIND, step.to_state.value).inc)
    if new.attempt == 1 and old.attempt == 0:
        _time(tx, QUEUE_SECONDS, new.create_time, now)
    if new.attempt_end:
        reason = new.attempt_end.failure.reason if new.attempt_end.failure else ""
        tx.after_commit(ATTEMPTS_ENDED.labels(reason if reason in REASONS or not reason else OTHER).inc)


def count_first_steps(tx: Transaction, job: Job, attempt_start: datetime, now: datetime) -> None:
    """Has the first report of steps of a job's current attempt counted."""
    _time(tx, START_SECONDS, attempt_start, now)
    if job.attempt == 1:
        _time(tx, FIRST_STEP_SECONDS, job.create_time, now)


def count_steps(tx: Transaction, before: bytes, after: bytes) -> None:
    """Has the steps between two progress messages of one attempt counted."""
    if (steps := done_agent_steps(after) - done_agent_steps(before)) > 0:
        tx.after_commit(partial(AGENT_STEPS.inc, steps))


def count_checkpoint(tx: Transaction, size_bytes: int) -> None:
    """Has a checkpoint counted."""
    tx.after_commit(CHECKPOINTS.inc)
    tx.after_commit(partial(CHECKPOINT_BYTES.inc, size_bytes))


def _time(tx: Transaction, histogram: Histogram, start: datetime, end: datetime) -> None:
    # Another replica may have dated the start; durations are never negative.
    tx.after_commit(partial(histogram.observe, max(0.0, (end - start).total_seconds())))
