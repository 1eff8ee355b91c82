"""Follows a training job with all that a screen shows of it: its speed lately, its last reward, its attempts."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from daf.client import Client
from daf.follow_runs import follow_job
from daf.training_jobs import list_attempts
from daf_common.errors import TRANSIENT
from daf_protos.training.v1.training_job_pb2 import TrainingAttempt, TrainingJob

_PACE_SECONDS = 60.0


class Pace:
    """How fast a run has been in the last minute, by one's own clock."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def see(self, agent_steps: int, now: float) -> None:
        """Notes how far the run is. One that went back, as after a restart, is measured anew."""
        if self._seen and agent_steps < self._seen[-1][1]:
            self._seen.clear()
        if not self._seen or agent_steps > self._seen[-1][1]:
            self._seen.append((now, agent_steps))
        while len(self._seen) > 2 and self._seen[0][0] < now - _PACE_SECONDS:
            self._seen.popleft()

    def steps_per_second(self) -> float | None:
        """Agent steps per second; None before the run was seen to go on."""
        if len(self._seen) < 2:
            return None
        (begin, first), (end, last) = self._seen[0], self._seen[-1]
        return (last - first) / (end - begin)


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
        rate = self.pace.steps_per_second() or at.steps_per_second
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
