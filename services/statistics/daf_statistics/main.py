"""The statistics service, put together."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from daf_cogames.catalog import catalog
from daf_common import migrations
from daf_common.clock import Clock
from daf_common.ids import Ids
from daf_common.requests import forgetter
from daf_common.service import Context, run
from daf_common.settings import ServiceSettings
from daf_common.store import Store
from daf_protos.statistics.v1 import comparison_service_pb2, scoring_service_pb2, statistics_service_pb2
from daf_protos.statistics.v1.comparison_service_pb2_grpc import add_ComparisonServiceServicer_to_server
from daf_protos.statistics.v1.scoring_service_pb2_grpc import add_ScoringServiceServicer_to_server
from daf_protos.statistics.v1.statistics_service_pb2_grpc import add_StatisticsServiceServicer_to_server
from daf_statistics.comparison_servicer import ComparisonServicer
from daf_statistics.samples import KnownStatistics
from daf_statistics.scoring_servicer import ScoringServicer
from daf_statistics.servicer import StatisticsServicer
from daf_statistics.store import MIGRATIONS


class Statistics:
    """The service; see `daf_common.service.Service`."""

    def __init__(self, store: Store, known: KnownStatistics, clock: Clock, ids: Ids) -> None:
        self.store = store
        self._servicer = StatisticsServicer(store, known)
        self._comparison_servicer = ComparisonServicer(store, known, clock, ids)
        self._scoring_servicer = ScoringServicer(store, known)
        self._forgetter = forgetter(store, clock)

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """See `Service.register`."""
        add_StatisticsServiceServicer_to_server(self._servicer, server)
        add_ComparisonServiceServicer_to_server(self._comparison_servicer, server)
        add_ScoringServiceServicer_to_server(self._scoring_servicer, server)
        return [
            statistics_service_pb2.DESCRIPTOR.services_by_name["StatisticsService"].full_name,
            comparison_service_pb2.DESCRIPTOR.services_by_name["ComparisonService"].full_name,
            scoring_service_pb2.DESCRIPTOR.services_by_name["ScoringService"].full_name,
        ]

    async def start(self) -> None:
        """See `Service.start`."""
        self._forgetter.start()

    async def stop(self) -> None:
        """See `Service.stop`."""
        await self._forgetter.stop()

    async def close(self) -> None:
        """See `Service.close`."""
        self.store.close()


def build(context: Context) -> Statistics:
    """The service with its database brought up to date."""
    store = Store(context.settings.database("statistics"), "statistics")
    migrations.bring_up(store, MIGRATIONS, context.settings)
    known = KnownStatistics(frozenset(catalog().agent_statistics), frozenset(catalog().game_statistics))
    return Statistics(store, known, context.clock, context.ids)


def main() -> None:
    """Runs the service in a process of its own, or brings its database up to date."""
    settings = ServiceSettings()
    if migrations.is_asked_for():
        migrations.migrate(settings, "statistics", MIGRATIONS)
    else:
        run(settings, lambda context: [build(context)])


if __name__ == "__main__":
    main()
