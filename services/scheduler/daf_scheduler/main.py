"""The scheduler service, put together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import grpc

from daf_common import migrations
from daf_common.leases import Leader
from daf_common.others import OtherReplicas
from daf_common.reconciler import Reconciler
from daf_common.requests import forgetter
from daf_common.service import Context, Parts, run
from daf_common.store import Store
from daf_common.watch import Watcher
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec
from daf_protos.evaluation.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from daf_protos.scheduler.v1.scheduler_service_pb2 import DESCRIPTOR
from daf_protos.scheduler.v1.scheduler_service_pb2_grpc import add_SchedulerServiceServicer_to_server
from daf_protos.statistics.v1.comparison_service_pb2_grpc import ComparisonServiceStub
from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceStub
from daf_protos.training.v1.training_job_pb2 import TrainingSpec
from daf_protos.training.v1.training_service_pb2_grpc import TrainingServiceStub
from daf_scheduler import sweeps, trials
from daf_scheduler.child_cache import ChildCache
from daf_scheduler.peers import Evaluations, Numbers, TrainingJobs
from daf_scheduler.servicer import SchedulerServicer
from daf_scheduler.settings import SchedulerSettings
from daf_scheduler.store import LEASE, sweeps_wanting
from daf_scheduler.sweep_controller import SweepController
from daf_scheduler.telemetry import sweep_and_trial_counts
from daf_scheduler.trial_controller import TrialController

MIGRATIONS = Path(__file__).parent / "migrations"


class Scheduler:
    """The service; see `daf_common.service.Service`."""

    def __init__(self, context: Context, settings: SchedulerSettings, store: Store) -> None:
        self.store = store
        clock = context.clock
        watcher = Watcher(store)
        self.leader = Leader(store, LEASE, settings.replica, clock, settings.leader_seconds)
        jobs: ChildCache[TrainingSpec] = ChildCache(
            TrainingJobs(TrainingServiceStub(context.peer("training"))), clock, settings.reread_seconds
        )
        evaluations: ChildCache[EvaluationSpec] = ChildCache(
            Evaluations(EvaluationServiceStub(context.peer("evaluation"))), clock, settings.reread_seconds
        )
        numbers = Numbers(
            StatisticsServiceStub(context.peer("statistics")), ComparisonServiceStub(context.peer("statistics"))
        )
        self._trials: Reconciler[trials.Trial, trials.Seen, trials.Action] = Reconciler(
            "trials",
            TrialController(
                store,
                self.leader,
                jobs,
                evaluations,
                numbers,
                clock,
                self._enqueue_trials,
                self._enqueue_sweeps,
            ),
            clock,
        )
        self._sweeps: Reconciler[sweeps.Sweep, sweeps.Seen, sweeps.Action] = Reconciler(
            "sweeps",
            SweepController(
                store, self.leader, evaluations, numbers, clock, self._enqueue_trials, self._enqueue_sweeps
            ),
            clock,
        )
        self._servicer = SchedulerServicer(
            store, watcher, clock, context.ids, self._enqueue_sweeps, self._enqueue_trials
        )
        self._parts = Parts(
            watcher,
            sweep_and_trial_counts(store),
            jobs,
            evaluations,
            self.leader,
            self._trials,
            self._sweeps,
            OtherReplicas(store, self.leader, sweeps_wanting, self._enqueue_sweeps),
            forgetter(store, clock),
        )

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """See `Service.register`."""
        add_SchedulerServiceServicer_to_server(self._servicer, server)
        return [DESCRIPTOR.services_by_name["SchedulerService"].full_name]

    async def start(self) -> None:
        """See `Service.start`."""
        self._parts.start()

    @property
    def leads(self) -> bool:
        """Whether this replica acts."""
        return self.leader.fence is not None

    async def stop(self) -> None:
        """See `Service.stop`. Jobs and evaluations go on; they are found again by their names."""
        await self._parts.stop()

    async def close(self) -> None:
        """See `Service.close`."""
        self.store.close()

    def _enqueue_trials(self, *ids: str) -> None:
        if self.leads:  # else they would pile up here; the leader finds them by itself
            self._trials.enqueue(*ids)

    def _enqueue_sweeps(self, *ids: str) -> None:
        if self.leads:
            self._sweeps.enqueue(*ids)


def build(context: Context) -> Scheduler:
    """The service with its database brought up to date."""
    settings = SchedulerSettings(**context.settings.model_dump())
    store = Store(settings.database("scheduler"), "scheduler")
    migrations.bring_up(store, MIGRATIONS, settings)
    return Scheduler(context, settings, store)


def main() -> None:
    """Runs the service in a process of its own, or brings its database up to date."""
    settings = SchedulerSettings()
    if migrations.is_asked_for():
        migrations.migrate(settings, "scheduler", MIGRATIONS)
    else:
        run(settings, lambda context: [build(context)])


if __name__ == "__main__":
    main()
