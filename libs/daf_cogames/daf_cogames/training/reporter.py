"""A training worker's reports: a thread that tells the service what has happened, and hears what to do."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping

from daf_cogames.reports import persist
from daf_cogames.training.checkpoints import SavedCheckpoint, StoredFile
from daf_cogames.transfer import upload
from daf_common.errors import FailedPrecondition
from daf_common.values import Scalar, to_value
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.training.v1 import worker_service_pb2 as pb
from daf_protos.training.v1.training_job_pb2 import Checkpoint, TrainingProgress
from daf_protos.training.v1.worker_service_pb2_grpc import TrainingWorkerServiceStub

MAX_SAMPLES = 200
MAX_LOG_CHARACTERS = 200_000
MAX_WAITING_LOG_CHARACTERS = 4_000_000
"""Of a log whose service is away; what is printed beyond that is not reported."""

WEIGHTS_TYPE = "application/x-pytorch"


class Outbox:
    """What has happened and is not reported yet, in the portions of which a report takes one. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress: TrainingProgress | None = None
        self._effective: Mapping[str, Scalar] = {}
        self._resumed: Checkpoint | None = None
        self._samples: deque[pb.MetricSample] = deque()
        self._log = ""
        self._dropped = False
        self._checkpoints: deque[SavedCheckpoint] = deque()
        self._outcome: pb.TrainingOutcome | None = None

    def add_progress(self, progress: TrainingProgress, sample: pb.MetricSample) -> None:
        """Where training is now, and what was measured since the last time."""
        with self._lock:
            self._progress = progress
            self._samples.append(sample)

    def add_start(
        self, total_agent_steps: int, effective: Mapping[str, Scalar], resumed: Checkpoint | None = None
    ) -> None:
        """The first environment step is about to be taken; what the live trainer trains with, and what it goes on
        from."""
        with self._lock:
            self._progress = TrainingProgress(total_agent_steps=total_agent_steps)
            if resumed is not None:
                self._progress.agent_steps, self._progress.update = resumed.agent_steps, resumed.update
            self._effective, self._resumed = effective, resumed

    def add_log(self, text: str) -> None:
        """Lines that were printed."""
        with self._lock:
            if len(self._log) < MAX_WAITING_LOG_CHARACTERS:
                self._log += text
            elif not self._dropped:
                self._log += "... more was printed than could be reported ...\n"
                self._dropped = True

    def add_checkpoint(self, checkpoint: SavedCheckpoint) -> None:
        """A checkpoint whose files are complete on the disk."""
        with self._lock:
            self._checkpoints.append(checkpoint)

    def finish(self, outcome: pb.TrainingOutcome | None) -> None:
        """How the attempt ended; None where that is for others to say. Nothing may follow."""
        with self._lock:
            self._outcome = outcome

    def take(self, attempt: pb.Attempt, sequence: int) -> tuple[pb.ReportTrainingRequest, SavedCheckpoint | None, bool]:
        """The next portion as a report, the checkpoint that is to go with it, and whether there is more to report."""
        with self._lock:
            request = pb.ReportTrainingRequest(attempt=attempt, sequence=sequence)
            if self._progress is not None:
                request.progress.CopyFrom(self._progress)
                self._progress = None
            for name, value in self._effective.items():
                request.effective_trainer[name].CopyFrom(to_value(value))
            self._effective = {}
            if self._resumed is not None:
                request.resumed_update = self._resumed.update
                self._resumed = None
            while self._samples and len(request.metrics) < MAX_SAMPLES:
                request.metrics.append(self._samples.popleft())
            request.log, self._log = _cut(self._log)
            self._dropped = self._dropped and bool(self._log)
            checkpoint = self._checkpoints.popleft() if self._checkpoints else None
            more = bool(self._samples or self._log or self._checkpoints)
            if self._outcome is not None and not more:
                request.outcome.CopyFrom(self._outcome)
            return request, checkpoint, more


class Reporter:
    """Sends the outbox at every interval, and at once when training has ended.

    Rank 0 speaks for all, and hears what to do, at every interval; the others speak up only when they have printed
    something, or failed. While the service is away it keeps trying, and training goes on.
    """

    def __init__(self, stub: TrainingWorkerServiceStub, attempt: pb.Attempt, interval_seconds: float) -> None:
        self.outbox = Outbox()
        self._stub, self._attempt, self._interval = stub, attempt, interval_seconds
        self._sequence = 0
        self._due = threading.Event()
        self._finished = False
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        """Begins to report."""
        self._thread.start()

    def report_now(self) -> None:
        """Sends what there is without waiting for the interval to end."""
        self._due.set()

    def told_to_stop(self) -> bool:
        """Whether the service wants training to end.

        Raises:
            Superseded: the attempt is no longer the current one.
            DafError: the service refuses the reports: a defect.
        """
        if self._failure is not None:
            raise self._failure
        return self._stop.is_set()

    def finish(self, outcome: pb.TrainingOutcome | None) -> None:
        """Reports the end (None: only what there is to report), and returns once the service has accepted that.

        Raises:
            Superseded, GaveUp, DafError: it never will.
        """
        self.outbox.finish(outcome)
        self._finished = True
        self._due.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            finished = False
            while not finished:
                self._due.wait(self._interval)
                self._due.clear()
                finished = self._finished
                self._send_all()
        except Exception as error:
            self._failure = error

    def _send_all(self) -> None:
        more = True
        while more:
            request, saved, more = self.outbox.take(self._attempt, self._sequence + 1)
            if self._attempt.rank != 0 and not (request.log or request.outcome.HasField("failure")):
                continue
            self._sequence += 1
            # FAILED_PRECONDITION: an artifact is not in the store any more; trying again writes it again.
            answer = persist(lambda: self._send(request, saved), "the report", tried_again=(FailedPrecondition,))  # noqa: B023
            if saved is not None:
                saved.weights.path.unlink(missing_ok=True)
                saved.trainer_state.path.unlink(missing_ok=True)
            if answer.stop:
                self._stop.set()

    def _send(self, request: pb.ReportTrainingRequest, saved: SavedCheckpoint | None) -> pb.ReportTrainingResponse:
        if saved is not None:
            del request.checkpoints[:]
            request.checkpoints.append(self._store(saved))
        return self._stub.ReportTraining(request)

    def _store(self, saved: SavedCheckpoint) -> Checkpoint:
        checkpoint = Checkpoint(
            update=saved.update,
            agent_steps=saved.agent_steps,
            weights=self._upload(saved.weights),
            trainer_state=self._upload(saved.trainer_state),
            metrics=saved.metrics,
        )
        if (reward := reward_of(saved.metrics)) is not None:
            checkpoint.reward = reward
        return checkpoint

    def _upload(self, file: StoredFile) -> Artifact:
        wanted = Artifact(sha256=file.sha256, size_bytes=file.size, media_type=WEIGHTS_TYPE)
        request = pb.PrepareUploadRequest(attempt=self._attempt, artifact=wanted)
        location = self._stub.PrepareUpload(request).location
        upload(file.path, location)
        return location.artifact


def reward_of(metrics: Mapping[str, float]) -> float | None:
    """The mean reward of an agent in an episode; None if no episode had ended."""
    return metrics.get("env/reward_per_agent")


def _cut(log: str) -> tuple[str, str]:
    """A portion of whole lines, and the rest."""
    if len(log) <= MAX_LOG_CHARACTERS:
        return log, ""
    end = log.rfind("\n", 0, MAX_LOG_CHARACTERS) + 1 or MAX_LOG_CHARACTERS
    return log[:end], log[end:]
