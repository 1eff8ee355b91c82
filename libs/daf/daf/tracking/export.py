"""Exports a training job to trackers: once, until it has ended, or live beside something else."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from daf.client import Client
from daf.connection import given_or_connected
from daf.follow_runs import JOB_ENDED, follow_job
from daf.tracking.destinations import Destination, Tracking
from daf.tracking.run import Point, TrackedRun, read_points, tracked_run
from daf.training_jobs import read_training_job
from daf_common.errors import TRANSIENT, DafError, InvalidArgument
from daf_protos.training.v1.training_job_pb2 import TrainingJob

EXPORT_SECONDS = 2.0
"""Between two looks at the metrics of a job that is followed."""

log = logging.getLogger("daf.tracking")


def daf_export_training_job(
    name: str,
    *,
    tensorboard: str | Path | None = None,
    mlflow: str = "",
    wandb: str = "",
    follow: bool = False,
    client: Client | None = None,
) -> list[str]:
    """Sends the metrics, hyperparameters and results of a training job to trackers.

    Args:
        name: the job, `trainingJobs/NAME`.
        tensorboard: directory for TensorBoard; the job gets one of its own in it.
        mlflow: tracking URI of MLflow, for example `sqlite:///mlflow.db` or `http://HOST:5000`.
        wandb: project of Weights & Biases, perhaps as `ENTITY/PROJECT`.
        follow: whether to go on until the job has ended.
        client: where the job is; see `daf.sweeps.daf_launch_sweep`.

    Returns:
        Where it went, for a person.

    Raises:
        InvalidArgument: no tracker is named.
        FailedPrecondition: the client of a tracker is not installed.
        NotFound: there is no such job.
        TrackingFailed: a tracker does not take it.
    """
    tracking = Tracking(Path(tensorboard) if tensorboard else None, mlflow, wandb)
    if not tracking:
        raise InvalidArgument("name a tracker: tensorboard, mlflow or wandb")
    destinations = tracking.destinations()
    with given_or_connected(client) as connected:
        export = Export(connected, name, destinations)
        export.run(follow=follow)
    return [destination.name for destination in destinations]


@contextlib.contextmanager
def exported_live(
    client: Client, name: str, destinations: Sequence[Destination], notice: Callable[[str], None] = log.warning
) -> Iterator[None]:
    """Exports a job from a thread for as long as this lasts. Trouble with a tracker is no trouble for anything else.

    Args:
        client: where the job is.
        name: the job.
        destinations: where it goes; none exports nothing.
        notice: told when the export has to be given up.
    """
    if not destinations:
        yield
        return
    export, stopping = Export(client, name, destinations), threading.Event()

    def work() -> None:
        try:
            export.run(follow=True, stopping=stopping)
        except Exception as error:  # a tracker's client may raise anything
            again = f"`daf job export {name.partition('/')[2]}` sends what is missing"
            notice(f"the export of metrics ended: {error}; {again}")

    thread = threading.Thread(target=work, name=f"export {name}")
    thread.start()
    try:
        yield
    except BaseException:
        stopping.set()  # whoever waited for the job does so no longer
        raise
    finally:
        thread.join()


class Export:
    """The export of one job. Remembers what was sent, so that each point goes out once."""

    def __init__(self, client: Client, name: str, destinations: Sequence[Destination]) -> None:
        self._client, self._name, self._destinations = client, name, destinations
        self._open = False
        self._last: Point | None = None
        self._described: TrackedRun | None = None

    def run(self, *, follow: bool, stopping: threading.Event | None = None) -> None:
        """Sends what there is; with `follow`, until the job has ended or `stopping` is set.

        Raises:
            NotFound: there is no such job.
            TrackingFailed: a tracker does not take it.
            DafError: the services have been away for minutes.
        """
        job = read_training_job(self._client, self._name)
        try:
            if not follow:
                self._send(job)
                return
            sent = 0.0
            for job in follow_job(self._client, self._name):
                if stopping is not None and stopping.is_set():
                    return
                ended = job.state in JOB_ENDED
                if ended or time.monotonic() - sent >= EXPORT_SECONDS:
                    self._send_patiently(job) if ended else self._try_to_send(job)
                    sent = time.monotonic()
        finally:
            self._close(job)

    def _try_to_send(self, job: TrainingJob) -> None:
        with contextlib.suppress(*TRANSIENT):  # the next time
            self._send(job)

    def _send_patiently(self, job: TrainingJob) -> None:
        for pause in (0.2, 1.0, 5.0, 20.0):
            try:
                self._send(job)
                return
            except TRANSIENT:
                time.sleep(pause)
        self._send(job)

    def _send(self, job: TrainingJob) -> None:
        run = tracked_run(job)
        points = self._new_points()
        if points is None:
            points = read_points(self._client, self._name)
            for destination in self._destinations:
                destination.open(run, points)
            self._open, self._described = True, None
        elif points:
            for destination in self._destinations:
                destination.add(points)
        if points:
            self._last = points[-1]
        if run != self._described:
            for destination in self._destinations:
                destination.describe(run)
            self._described = run

    def _new_points(self) -> list[Point] | None:
        """Points after the last that was sent; None if all are to be sent: at first, and when the job has taken some
        back."""
        last = self._last
        if last is None:
            return read_points(self._client, self._name) if self._open else None
        points = read_points(self._client, self._name, last.update - 1)
        if not points or (points[0].update, points[0].time_ms) != (last.update, last.time_ms):
            return None
        return points[1:]

    def _close(self, job: TrainingJob) -> None:
        errors = []
        for destination in self._destinations if self._open else ():
            try:
                destination.close(tracked_run(job))
            except DafError as error:
                errors.append(error)
        if errors:
            raise errors[0]
