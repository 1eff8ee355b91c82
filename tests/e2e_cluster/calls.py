"""Somebody who uses an installation all the time, and notices when a call fails."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from daf.client import Client
from daf_common.errors import DafError
from daf_protos.deployment.v1.deployment_service_pb2 import ListPolicyPackagesRequest
from daf_protos.evaluation.v1.evaluation_service_pb2 import ListEvaluationsRequest
from daf_protos.scheduler.v1.scheduler_service_pb2 import ListSweepsRequest
from daf_protos.statistics.v1.comparison_service_pb2 import ListComparisonsRequest
from daf_protos.training.v1.training_service_pb2 import ListTrainingJobsRequest

PAUSE_SECONDS = 0.02


class SteadyCalls:
    """As a context: calls all five services in turn, from a thread, with the retries that every client has."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="steady-calls")
        self.answered = 0
        self.failures: list[str] = []
        self.slowest_seconds = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
                try:
                    call(request)
                except DafError as error:
                    self.failures.append(f"{type(request).__name__}: {error.code}: {error}")
                else:
                    self.answered += 1
                self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
