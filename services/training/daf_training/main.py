"""The training service, put together."""

from __future__ import annotations

from collections.abc import Sequence

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
from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceStub
from daf_protos.training.v1 import catalog_service_pb2, training_service_pb2, worker_service_pb2
from daf_protos.training.v1.catalog_service_pb2_grpc import add_CatalogServiceServicer_to_server
from daf_protos.training.v1.training_service_pb2_grpc import add_TrainingServiceServicer_to_server
from daf_protos.training.v1.worker_service_pb2_grpc import add_TrainingWorkerServiceServicer_to_server
from daf_training.attempts import parse_workload_name
from daf_training.catalog_servicer import CatalogServicer
from daf_training.jobs import Action, Job, Seen
from daf_training.queue_store import wanting
from daf_training.reconciler import JobController
from daf_training.servicer import TrainingServicer
from daf_training.settings import TrainingSettings
from daf_training.store import LEASE
from daf_training.sweeper import Sweeper
from daf_training.tables import MIGRATIONS
from daf_training.telemetry import job_counts
from daf_training.worker_servicer import TrainingWorkerServicer


class Training:
    """The service; see `daf_common.service.Service`."""

    def __init__(self, context: Context, settings: TrainingSettings, store: Store, backend: Backend) -> None:
        self.store = store
        self._backend = backend
        clock = context.clock
        statistics = StatisticsServiceStub(context.peer("statistics"))
        artifacts = ArtifactStore(settings.artifacts(), "training")
        watcher = Watcher(store)
        self.leader = Leader(store, LEASE, settings.replica, clock, settings.leader_seconds)
        controller = JobController(store, self.leader, backend, settings, clock, context.ids, self._enqueue)
        self._reconciler: Reconciler[Job, Seen, Action] = Reconciler("training-jobs", controller, clock)
        self._parts = Parts(
            watcher,
            job_counts(store),
            self.leader,
            self._reconciler,
            OtherReplicas(store, self.leader, wanting, self._enqueue),
            Sweeper(store, self.leader, backend, artifacts, clock),
            forgetter(store, clock),
        )
        self._servicer = TrainingServicer(
            store, artifacts, statistics, watcher, settings, backend, clock, context.ids, self._enqueue
        )
        self._worker_servicer = TrainingWorkerServicer(store, artifacts, statistics, settings, clock, self._enqueue)

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """See `Service.register`."""
        add_TrainingServiceServicer_to_server(self._servicer, server)
        add_TrainingWorkerServiceServicer_to_server(self._worker_servicer, server)
        add_CatalogServiceServicer_to_server(CatalogServicer(), server)
        return [
            training_service_pb2.DESCRIPTOR.services_by_name["TrainingService"].full_name,
            worker_service_pb2.DESCRIPTOR.services_by_name["TrainingWorkerService"].full_name,
            catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name,
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

    def _enqueue(self, *job_ids: str) -> None:
        if self.leader.fence is not None:  # else they would pile up here; the leader finds them by itself
            self._reconciler.enqueue(*job_ids)

    def _look_again(self, workload: str) -> None:
        if attempt := parse_workload_name(workload):
            self._enqueue(attempt[0])


def build(context: Context, backend: Backend) -> Training:
    """The service with its database brought up to date."""
    settings = TrainingSettings(**context.settings.model_dump())
    store = Store(settings.database("training"), "training")
    migrations.bring_up(store, MIGRATIONS, settings)
    return Training(context, settings, store, backend)


def main() -> None:
    """Runs the service in a process of its own, or brings its database up to date."""
    settings = TrainingSettings()
    if migrations.is_asked_for():
        migrations.migrate(settings, "training", MIGRATIONS)
        return
    backend = backend_of(settings, "train", _on_kubernetes)
    run(settings, lambda context: [build(context, backend)])


def _on_kubernetes(settings: BackendSettings) -> Backend:
    from daf_training.pytorchjob_backend import pytorchjob_backend  # imports Kubernetes' client: half a second

    return pytorchjob_backend(settings)


if __name__ == "__main__":
    main()
