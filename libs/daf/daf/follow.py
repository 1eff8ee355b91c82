"""Follows a sweep: its state, its trials, and how far the running ones are."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from daf.client import Client, all_pages
from daf_common.errors import TRANSIENT, DafError, NotFound, Unavailable
from daf_protos.evaluation.v1.evaluation_pb2 import Evaluation
from daf_protos.evaluation.v1.evaluation_service_pb2 import GetEvaluationRequest
from daf_protos.scheduler.v1 import sweep_pb2
from daf_protos.scheduler.v1.scheduler_service_pb2 import (
    GetSweepRequest,
    ListTrialsRequest,
    WatchSweepsRequest,
    WatchSweepsResponse,
)
from daf_protos.scheduler.v1.sweep_pb2 import Sweep, Trial
from daf_protos.training.v1.training_job_pb2 import TrainingJob
from daf_protos.training.v1.training_service_pb2 import GetTrainingJobRequest

TICK_SECONDS = 1.0
GIVE_UP_SECONDS = 300.0
_MAX_WATCHED = 32  # running trials whose progress is read
_PAGE_SIZE = 200  # trials with their specs stay far below the size of a message

TRIAL_ENDED = frozenset(
    {
        sweep_pb2.TRIAL_STATE_SUCCEEDED,
        sweep_pb2.TRIAL_STATE_FAILED,
        sweep_pb2.TRIAL_STATE_PRUNED,
        sweep_pb2.TRIAL_STATE_INFEASIBLE,
        sweep_pb2.TRIAL_STATE_CANCELLED,
    }
)
ENDED = frozenset({sweep_pb2.SWEEP_STATE_SUCCEEDED, sweep_pb2.SWEEP_STATE_FAILED, sweep_pb2.SWEEP_STATE_CANCELLED})


@dataclass
class SweepView:
    """What is known of a sweep at one moment."""

    sweep: Sweep
    trials: dict[int, Trial] = field(default_factory=dict)
    """By number."""
    jobs: dict[str, TrainingJob] = field(default_factory=dict)
    """Training jobs of trials that are or were seen training, by resource name."""
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    """Evaluations of trials that are being scored, by resource name."""
    trouble: str = ""
    """Why nothing new is heard at the moment."""

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.sweep.state in ENDED

    def best(self) -> Trial | None:
        """The best trial, if one has succeeded."""
        return next((trial for trial in self.trials.values() if trial.name == self.sweep.best_trial), None)


def read_sweep(client: Client, name: str) -> SweepView:
    """A sweep with all its trials, as they are now.

    Raises:
        NotFound: there is none of this name.
    """
    sweep = client.scheduler.GetSweep(GetSweepRequest(name=name)).sweep

    def read(token: str) -> tuple[list[Trial], str]:
        request = ListTrialsRequest(parent=name, page_size=_PAGE_SIZE, page_token=token)
        answer = client.scheduler.ListTrials(request)
        return list(answer.trials), answer.next_page_token

    return SweepView(sweep, {trial.number: trial for trial in all_pages(read)})


def watch_sweep(client: Client, name: str) -> Iterator[WatchSweepsResponse | DafError | None]:
    """The changes of a sweep until it has ended. None says that a second has passed without any; a passing error is
    yielded and the watch goes on where it was.

    Raises:
        NotFound: there is no such sweep, or it was deleted.
        DafError: the service has been away for minutes.
    """
    watcher = _Watcher(client, name)
    watcher.start()
    failing_since: float | None = None
    try:
        while True:
            try:
                change = watcher.changes.get(timeout=TICK_SECONDS)
            except queue.Empty:
                yield None
                continue
            if isinstance(change, DafError):
                failing_since = failing_since or time.monotonic()
                if not isinstance(change, TRANSIENT) or time.monotonic() - failing_since > GIVE_UP_SECONDS:
                    raise change
            else:
                failing_since = None
                if name in change.deleted:
                    raise NotFound(f"{name} was deleted")
            yield change
            if isinstance(change, WatchSweepsResponse) and any(sweep.state in ENDED for sweep in change.sweeps):
                return
    finally:
        watcher.stop()


def follow_sweep(client: Client, name: str) -> Iterator[SweepView]:
    """A sweep, again and again until it has ended: after each change, and each second with the progress of what runs.
    The same object is yielded each time. Raises as `watch_sweep`."""
    view = read_sweep(client, name)
    refreshed = 0.0
    yield view
    if view.ended:
        return
    for change in watch_sweep(client, name):
        if isinstance(change, DafError):
            away = isinstance(change, Unavailable)
            view.trouble = "the services do not answer; trying again" if away else change.message
        elif change is not None:
            view.trouble = ""
            _apply(change, view)
        if not view.trouble and time.monotonic() - refreshed >= TICK_SECONDS:
            refreshed = time.monotonic()
            _refresh(client, view)
        if not view.ended:
            yield view
    final = read_sweep(client, name)
    view.sweep, view.trials = final.sweep, final.trials
    yield view


def _apply(change: WatchSweepsResponse, view: SweepView) -> None:
    for sweep in change.sweeps:
        if sweep.name == view.sweep.name:
            view.sweep = sweep
    for trial in change.trials:
        if trial.name.startswith(f"{view.sweep.name}/"):
            view.trials[trial.number] = trial


def _refresh(client: Client, view: SweepView) -> None:
    """Reads how far the running trials are. What cannot be read now is read the next time."""
    running = [trial for trial in view.trials.values() if trial.state not in TRIAL_ENDED]
    for trial in running[:_MAX_WATCHED]:
        try:
            if trial.state == sweep_pb2.TRIAL_STATE_TRAINING and trial.training_job:
                request = GetTrainingJobRequest(name=trial.training_job)
                view.jobs[trial.training_job] = client.training.GetTrainingJob(request).training_job
            elif trial.state == sweep_pb2.TRIAL_STATE_EVALUATING and trial.evaluation:
                asked = GetEvaluationRequest(name=trial.evaluation)
                view.evaluations[trial.evaluation] = client.evaluation.GetEvaluation(asked).evaluation
        except (*TRANSIENT, NotFound):
            continue


class _Watcher(threading.Thread):
    """Reads the stream of changes, and opens it again where it broke."""

    def __init__(self, client: Client, name: str) -> None:
        super().__init__(name=f"watch {name}", daemon=True)
        self.changes: queue.Queue[WatchSweepsResponse | DafError] = queue.Queue()
        self._client, self._sweep = client, name
        self._stopping = threading.Event()
        self._stream: Any = None

    def stop(self) -> None:
        """Ends the stream."""
        self._stopping.set()
        if self._stream is not None:
            self._stream.cancel()

    def run(self) -> None:
        """See `threading.Thread`."""
        cursor, pause = "", 0.1
        while not self._stopping.is_set():
            try:
                request = WatchSweepsRequest(name=self._sweep, cursor=cursor)
                self._stream = self._client.scheduler.WatchSweeps(request)
                if self._stopping.is_set():
                    self._stream.cancel()
                for change in self._stream:
                    cursor, pause = change.cursor, 0.1
                    self.changes.put(change)
            except DafError as error:
                if self._stopping.is_set():
                    return
                self.changes.put(error)
                if not isinstance(error, TRANSIENT):
                    return
            self._stopping.wait(pause)  # a server that stops ends its streams without an error
            pause = min(pause * 2, 2.0)
