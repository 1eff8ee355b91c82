"""Somebody who uses an installation all the time, and notices when a call fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from google.protobuf.message import Message

from daf.client import Client
from daf_protos.deployment.v1.deployment_service_pb2 import ListPolicyPackagesRequest
from daf_protos.evaluation.v1.evaluation_service_pb2 import ListEvaluationsRequest
from daf_protos.scheduler.v1.scheduler_service_pb2 import ListSweepsRequest
from daf_protos.statistics.v1.comparison_service_pb2 import ListComparisonsRequest
from daf_protos.statistics.v1.statistics_service_pb2 import MetricPoint, ReadMetricsRequest, RecordMetricsRequest
from daf_protos.training.v1.training_service_pb2 import ListTrainingJobsRequest

PAUSE_SECONDS = 0.02


class SteadyCalls:
    """As a context: calls all five services in turn, from a thread, with the retries that every client has.

    One of the calls writes a point; in the end all points that were answered have to be there, once.
    """

    def __init__(self, client: Client, source: str) -> None:
        """`source` names what the points are of; nobody else writes such."""
        self._client, self._source = client, source
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="steady-calls")
        self.answered = 0
        self.written: list[int] = []
        self.failures: list[str] = []
        self.slowest_seconds = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Makes no more calls; waits for the last."""
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        client = self._client
        calls = (
            (client.scheduler.ListSweeps, ListSweepsRequest()),
            (client.training.ListTrainingJobs, ListTrainingJobsRequest()),
            (client.evaluation.ListEvaluations, ListEvaluationsRequest()),
            (client.comparison.ListComparisons, ListComparisonsRequest()),
            (client.deployment.ListPolicyPackages, ListPolicyPackagesRequest()),
        )
        while not self._ended.wait(PAUSE_SECONDS):
            for call, request in calls:
                began = time.monotonic()
                self._make(call, request)
                self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
            step = len(self.written) + 1
            point = MetricPoint(step=step, values={"steady": step})
            if self._make(client.statistics.RecordMetrics, RecordMetricsRequest(source=self._source, points=[point])):
                self.written.append(step)

    def _make(self, call: Callable[[Any], object], request: Message) -> bool:
        try:
            call(request)
        except Exception as error:  # whatever it is, whoever calls would have to deal with it
            self.failures.append(f"{type(request).__name__}: {error!r}")
            return False
        self.answered += 1
        return True

    def read(self) -> list[int]:
        """The points that are there."""
        (series,) = self._client.statistics.ReadMetrics(ReadMetricsRequest(source=self._source)).series
        return list(series.steps)
