"""The evaluation service, put together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import grpc

from daf_common import migrations
from daf_common.artifacts import ArtifactStore
from daf_common.backends import backend_of
from daf_common.kube.settings import BackendSettings
from daf_common.leases import Leader
from daf_common.others import OtherReplicas
from daf_common.reconciler import Reconciler
from daf_common.requests import forgetter
from daf_common.service import Context, Parts, run
from daf_common.store import Store
from daf_common.watch import Watcher
from daf_common.workloads import Backend
from daf_evaluation.evaluations import Action, Evaluation, Seen, parse_workload_name
from daf_evaluation.reconciler import EvaluationController
from daf_evaluation.replays import Replays
from daf_evaluation.servicer import EvaluationServicer
from daf_evaluation.settings import EvaluationSettings
from daf_evaluation.store import LEASE, wanting
from daf_evaluation.telemetry import evaluation_counts
from daf_evaluation.worker_servicer import EvaluationWorkerServicer
from daf_protos.evaluation.v1 import evaluation_service_pb2, worker_service_pb2
from daf_protos.evaluation.v1.evaluation_service_pb2_grpc import add_EvaluationServiceServicer_to_server
from daf_protos.evaluation.v1.worker_service_pb2_grpc import add_EvaluationWorkerServiceServicer_to_server
from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceStub

MIGRATIONS = Path(__file__).parent / "migrations"


class Evaluations:
    """The service; see `daf_common.service.Service`."""

    def __init__(self, context: Context, settings: EvaluationSettings, store: Store, backend: Backend) -> None:
        self.store = store
        self._backend = backend
        statistics = StatisticsServiceStub(context.peer("statistics"))
        artifacts = ArtifactStore(settings.artifacts(), "evaluation")
        self.leader = Leader(store, LEASE, settings.replica, context.clock, settings.leader_seconds)
        replays = Replays(store, self.leader, artifacts)
        watcher = Watcher(store)
        controller = EvaluationController(
            settings, store, self.leader, backend, statistics, context.clock, self._enqueue
        )
        self._reconciler: Reconciler[Evaluation, Seen, Action] = Reconciler("evaluations", controller, context.clock)
        self._parts = Parts(
            watcher,
            evaluation_counts(store),
            self.leader,
            self._reconciler,
            OtherReplicas(store, self.leader, wanting, self._enqueue),
            replays.clearing(),
            forgetter(store, context.clock),
        )
        self._servicer = EvaluationServicer(
            settings,
            store,
            artifacts,
            replays,
            backend,
            statistics,
            watcher,
            context.clock,
            context.ids,
            self._enqueue,
        )
        self._worker_servicer = EvaluationWorkerServicer(
            settings, store, artifacts, replays, statistics, context.clock, self._enqueue
        )

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """See `Service.register`."""
        add_EvaluationServiceServicer_to_server(self._servicer, server)
        add_EvaluationWorkerServiceServicer_to_server(self._worker_servicer, server)
        return [
            evaluation_service_pb2.DESCRIPTOR.services_by_name["EvaluationService"].full_name,
            worker_service_pb2.DESCRIPTOR.services_by_name["EvaluationWorkerService"].full_name,
        ]

    async def start(self) -> None:
        """See `Service.start`."""
        self._backend.watch(self._look_again)
        self._parts.start()

    async def stop(self) -> None:
        """See `Service.stop`. Workers go on: they report to whoever serves next."""
        await self._parts.stop()
        await self._backend.close()

    async def close(self) -> None:
        """See `Service.close`."""
        self.store.close()

    def _enqueue(self, *ids: str) -> None:
        if self.leader.fence is not None:  # else they would pile up here; the leader finds them by itself
            self._reconciler.enqueue(*ids)

    def _look_again(self, workload: str) -> None:
        if parsed := parse_workload_name(workload):
            self._enqueue(parsed[0])


def build(context: Context, backend: Backend) -> Evaluations:
    """The service with its database brought up to date."""
    settings = EvaluationSettings(**context.settings.model_dump())
    store = Store(settings.database("evaluation"), "evaluation")
    migrations.bring_up(store, MIGRATIONS, settings)
    return Evaluations(context, settings, store, backend)


def main() -> None:
    """Runs the service in a process of its own, or brings its database up to date."""
    settings = EvaluationSettings()
    if migrations.is_asked_for():
        migrations.migrate(settings, "evaluation", MIGRATIONS)
        return
    backend = backend_of(settings, "evaluate", _on_kubernetes)
    run(settings, lambda context: [build(context, backend)])


def _on_kubernetes(settings: BackendSettings) -> Backend:
    from daf_evaluation.job_backend import job_backend  # imports Kubernetes' client: half a second

    return job_backend(settings)


if __name__ == "__main__":
    main()
