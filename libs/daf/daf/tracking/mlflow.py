"""MLflow: a run in an experiment, on a tracking server or in a database file."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from daf.tracking.destinations import TrackingFailed
from daf.tracking.run import Point, TrackedRun
from daf_common.values import Scalar

EXPERIMENT = "daf"
"""Used where `MLFLOW_EXPERIMENT_NAME` names none."""

IDENTITY = "daf.run"
"""The tag by which a job's run is found again."""

_METRICS_A_CALL, _PARAMETERS_A_CALL = 1000, 100  # limits of MLflow
_MAX_TEXT = 500
_STATUS = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}


class MLflow:
    """Finds the run of a job by a tag, and sends what its history lacks."""

    def __init__(self, uri: str) -> None:
        self.name = f"MLflow, {_without_secrets(uri)}"
        for chatty in ("mlflow.store.db", "alembic"):  # they tell of every new database
            logging.getLogger(chatty).setLevel(logging.WARNING)
        self._client = self._asked(lambda: MlflowClient(tracking_uri=uri))
        self._run_id = ""
        self._parameters: set[str] = set()

    def open(self, run: TrackedRun, points: Sequence[Point]) -> None:
        """See `Destination`. MLflow cannot delete points: a run with more than the job has is marked and left, and a
        new one takes its place."""

        def find() -> None:
            experiment = self._experiment()
            found = self._client.search_runs([experiment], f"tags.`{IDENTITY}` = '{run.identity}'", max_results=1)
            sent = self._history(found[0], points) if found else {}
            if found and sent is None:
                self._leave(found[0])
            if not found or sent is None:
                sent, self._parameters = {}, set()
                tags = {IDENTITY: run.identity}
                made = self._client.create_run(experiment, run.started_ms, tags, run_name=run.job)
            else:
                made, self._parameters = found[0], set(found[0].data.params)
            self._run_id = made.info.run_id
            if run.ended_ms is None and made.info.status != "RUNNING":
                self._client.update_run(self._run_id, status="RUNNING")
            self._send(points, sent)

        self._asked(find)

    def add(self, points: Sequence[Point]) -> None:
        """See `Destination`."""
        self._asked(lambda: self._send(points, {}))

    def describe(self, run: TrackedRun) -> None:
        """See `Destination`. MLflow's parameters are final: the first value of each stays."""
        new = [(name, _text(value)) for name, value in run.parameters.items() if name not in self._parameters]
        tags = [RunTag(name, text) for name, text in run.tags.items()]
        best = []
        if run.best_value is not None and run.ended_ms is not None:
            best = [RunTag("daf.best_value", f"{run.best_metric} {run.best_value!r}")]

        def send() -> None:
            for few in itertools.batched(new, _PARAMETERS_A_CALL):
                self._client.log_batch(self._run_id, params=[Param(name, text) for name, text in few])
            self._client.log_batch(self._run_id, tags=[*tags, *best])

        self._asked(send)
        self._parameters.update(name for name, _ in new)

    def close(self, run: TrackedRun) -> None:
        """See `Destination`."""
        status = _STATUS.get(run.state)
        if self._run_id and status:
            self._asked(lambda: self._client.set_terminated(self._run_id, status, run.ended_ms))

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _history(self, run: Run, points: Sequence[Point]) -> dict[str, set[int]] | None:
        """Steps that are there, by metric; None if there are any that the job does not have."""
        expected = {(metric, point.agent_steps, point.time_ms) for point in points for metric in point.values}
        sent: dict[str, set[int]] = {}
        for metric in run.data.metrics:
            for point in self._client.get_metric_history(run.info.run_id, metric):
                if (metric, point.step, point.timestamp) not in expected:
                    return None
                sent.setdefault(metric, set()).add(point.step)
        return sent

    def _leave(self, run: Run) -> None:
        self._client.delete_tag(run.info.run_id, IDENTITY)
        self._client.set_tag(run.info.run_id, "daf.superseded", "true")
        self._client.set_terminated(run.info.run_id, "KILLED")

    def _send(self, points: Sequence[Point], sent: dict[str, set[int]]) -> None:
        metrics = (
            Metric(metric, value, point.time_ms, point.agent_steps)
            for point in points
            for metric, value in point.values.items()
            if point.agent_steps not in sent.get(metric, ())
        )
        for few in itertools.batched(metrics, _METRICS_A_CALL):
            self._client.log_batch(self._run_id, metrics=few)

    def _asked[T](self, call: Callable[[], T]) -> T:
        try:
            return call()
        except (MlflowException, OSError) as error:
            raise TrackingFailed(f"{self.name}: {str(error).splitlines()[0][:_MAX_TEXT]}") from error


def _text(value: Scalar) -> str:
    return str(value)[:_MAX_TEXT]


def _without_secrets(uri: str) -> str:
    """A tracking URI as it may be shown: databases and servers may have a password in theirs."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
