"""What came out of a training run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from daf.checkpoints import LINEAGE, default_directory, save_checkpoint
from daf.client import Client
from daf.connection import given_or_connected
from daf.follow_runs import follow_job
from daf.render_training import job_state
from daf.results import Hyperparameters
from daf.training_jobs import list_attempts
from daf_common.errors import DafError, DeadlineExceeded
from daf_common.values import scalars
from daf_protos.training.v1 import training_job_pb2
from daf_protos.training.v1.training_job_pb2 import TrainingAttempt, TrainingJob, TrainingWorker


class TrainingFailed(DafError, RuntimeError):
    """A training run failed or was cancelled. `result` has what there is of it."""

    exit_code = 1
    default_reason = "TRAINING_FAILED"

    def __init__(self, result: DistributedTrainingResult) -> None:
        super().__init__(f"{result.name} {result.status}{': ' if result.message else ''}{result.message}")
        self.result = result


@dataclass
class DistributedTrainingResult:
    """A training run: what it came to, or how far it is."""

    name: str
    """Resource name of the job."""
    status: str = "pending"
    """`pending`, `starting`, `running`, `succeeded`, `failed` or `cancelled`."""
    final_checkpoint: Path | None = None
    """Directory with the last weights, which plain CoGames loads: `-p ./train_dir/NAME:vUPDATE`. None until the run
    has ended well, and where no directory for checkpoints was given."""
    training_steps: int = 0
    """Agent steps done, of all workers together."""
    wall_time_seconds: float = 0.0
    """From the start to the end of every attempt, or to now; waiting for compute is not counted."""
    num_workers: int = 0
    """Workers of the newest attempt; before the first, those that were asked for, 0 for the profile's number."""
    message: str = ""
    """Why it failed, or what it waits for."""
    attempts: int = 0
    """How often it was started: once, unless workers were lost or it was resumed."""
    checkpoint: str = ""
    """Resource name of the newest checkpoint."""
    best_checkpoint: str = ""
    """Resource name of the best checkpoint."""
    reward: float | None = None
    """Mean reward per agent and episode, of the last report in which an episode ended."""
    hyperparameters: Hyperparameters = field(default_factory=lambda: Hyperparameters({}))
    """Values read back from the live trainer: what really trained the policy."""
    worker_stats: list[dict[str, float]] = field(default_factory=list)
    """What each worker did and used at the last report; see `daf_aggregate_training_stats`."""
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """Series of (agent steps, value) by metric; filled by `daf_collect_training_results`."""
    checkpoints_path: Path | None = field(default=None, repr=False)
    """Where the final checkpoint is brought when the run has ended."""
    client: Client | None = field(default=None, repr=False, compare=False)
    """Where the job is; None for where the context in use says."""

    def training_rate(self) -> float:
        """Agent steps per second of wall time; 0 before the start."""
        return self.training_steps / self.wall_time_seconds if self.wall_time_seconds else 0.0

    def wait_for_completion(
        self, timeout_seconds: float | None = None, on_change: Callable[[TrainingJob], None] | None = None
    ) -> Path | None:
        """Waits until the run has ended, and brings its final checkpoint here.

        Args:
            timeout_seconds: how long at most; the run itself is not stopped.
            on_change: told twice a second how the job is.

        Returns:
            `final_checkpoint`.

        Raises:
            TrainingFailed: it failed or was cancelled; a RuntimeError.
            DeadlineExceeded: it has not ended in this time.
        """
        begun = time.monotonic()
        with given_or_connected(self.client) as client:
            for job in follow_job(client, self.name):
                if on_change:
                    on_change(job)
                self._see(job)
                if timeout_seconds is not None and time.monotonic() - begun > timeout_seconds:
                    raise DeadlineExceeded(f"{self.name} has not ended within {timeout_seconds:g} s: it goes on")
            self.refresh(client, job)
        if self.status != "succeeded":
            raise TrainingFailed(self)
        return self.final_checkpoint

    def refresh(self, client: Client, job: TrainingJob) -> None:
        """Takes over how a job is now; of one that has ended well, brings the final checkpoint."""
        self._see(job)
        attempts = list(list_attempts(client, self.name))
        self.wall_time_seconds = sum(map(_seconds, attempts))
        if attempts:
            self.num_workers = attempts[0].workers
        if job.state == training_job_pb2.TRAINING_JOB_STATE_SUCCEEDED and self.checkpoints_path is not None:
            self.final_checkpoint = _bring(client, job, self.checkpoints_path)

    def _see(self, job: TrainingJob) -> None:
        self.status = job_state(job)
        self.training_steps = job.progress.agent_steps
        self.num_workers = len(job.progress.workers) or self.num_workers or job.spec.workers
        self.message = job.failure.message or job.waiting_for
        self.attempts = job.attempt
        self.checkpoint, self.best_checkpoint = job.checkpoint.name, job.best_checkpoint.name
        self.hyperparameters = Hyperparameters(scalars(job.effective_trainer))
        self.worker_stats = [_worker(worker) for worker in job.progress.workers]
        if job.progress.HasField("reward"):
            self.reward = job.progress.reward


def _bring(client: Client, job: TrainingJob, checkpoints_path: Path) -> Path:
    """The directory of a job's newest checkpoint, which may be here already."""
    directory = checkpoints_path / default_directory(job, job.checkpoint)
    try:
        there = json.loads((directory / LINEAGE).read_text(encoding="utf-8"))["weights_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        there = ""
    if there == job.checkpoint.weights.sha256:
        return directory.absolute()
    return save_checkpoint(client, job, job.checkpoint, directory)


def _seconds(attempt: TrainingAttempt) -> float:
    if not attempt.HasField("start_time"):
        return 0.0
    end = attempt.end_time.ToDatetime(UTC) if attempt.HasField("end_time") else datetime.now(UTC)
    return max(0.0, (end - attempt.start_time.ToDatetime(UTC)).total_seconds())


def _worker(worker: TrainingWorker) -> dict[str, float]:
    """What a worker does and uses; without those fields that it has not."""
    stats = {"rank": worker.rank, "steps_per_second": worker.steps_per_second, "cpu_cores": worker.cpu_cores}
    stats["memory_bytes"] = worker.memory_bytes
    if worker.HasField("gpu_utilization"):
        stats["gpu_utilization"] = worker.gpu_utilization
    if worker.HasField("gpu_memory_bytes"):
        stats["gpu_memory_bytes"] = worker.gpu_memory_bytes
    return stats
