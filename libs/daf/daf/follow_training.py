"""Follows a training job with all that a screen shows of it: its speed lately, its last reward, its attempts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from daf.client import Client
from daf.follow_runs import follow_job
from daf.pace import Pace
from daf.training_jobs import list_attempts
from daf_common.errors import TRANSIENT
from daf_protos.training.v1.training_job_pb2 import TrainingAttempt, TrainingJob


@dataclass
class JobView:
    """What is known of a training job at one moment."""

    job: TrainingJob
    attempts: list[TrainingAttempt] = field(default_factory=list)
    """All attempts, newest first; those of a job that was started once are not read."""
    reward: float | None = None
    """The last mean reward that was reported: there is none while no episode ends."""
    pace: Pace = field(default_factory=Pace)
    trouble: str = ""
    """Why nothing new is heard at the moment."""

    def seconds_left(self) -> float | None:
        """How long the run will take at the pace of the last minute; None if that is not known."""
        at = self.job.progress
        rate = self.pace.per_second() or at.steps_per_second
        left = (at.total_agent_steps or self.job.spec.agent_steps) - at.agent_steps
        return left / rate if rate > 0 and at.agent_steps else None


def follow_training(client: Client, name: str) -> Iterator[JobView]:
    """A training job, twice a second until it has ended. The same object is yielded each time; its `trouble` changes
    in between, too.

    Raises:
        NotFound: there is none of this name.
        DafError: the service has been away for minutes.
    """
    view = JobView(TrainingJob(name=name))

    def note(trouble: str) -> None:
        view.trouble = trouble

    read = (0, 0)
    for job in follow_job(client, name, note):
        view.job = job
        view.pace.see(job.progress.agent_steps, time.monotonic())
        if job.progress.HasField("reward"):
            view.reward = job.progress.reward
        if job.attempt > 1 and read != (job.attempt, job.state):
            try:
                view.attempts = list(list_attempts(client, name))
                read = (job.attempt, job.state)
            except TRANSIENT:
                pass  # read the next time
        yield view
