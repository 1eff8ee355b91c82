"""A statistics service with its own database, served on a unix socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daf_common.server import create_server
from daf_common.service import Context
from daf_common.settings import ServiceSettings
from daf_protos.statistics.v1.comparison_service_pb2_grpc import ComparisonServiceStub
from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceStub
from daf_statistics.main import Statistics, build

if TYPE_CHECKING:
    from daf_protos.statistics.v1.comparison_service_pb2_grpc import ComparisonServiceAsyncStub
    from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceAsyncStub


@pytest.fixture
def context(database_url: str, tmp_path: Path) -> Context:
    address = f"unix:{tmp_path}/statistics.sock"
    return Context(ServiceSettings(home=tmp_path, database_url=database_url, statistics_address=address))


@pytest.fixture
async def service(context: Context) -> AsyncIterator[Statistics]:
    statistics = build(context)
    server, _ = create_server(context.settings.statistics_address)
    statistics.register(server)
    await server.start()
    await statistics.start()
    yield statistics
    await server.stop(None)
    await statistics.stop()
    await statistics.close()
    await context.close()


@pytest.fixture
def stub(service: Statistics, context: Context) -> StatisticsServiceAsyncStub:
    return StatisticsServiceStub(context.peer("statistics"))


@pytest.fixture
def comparisons(service: Statistics, context: Context) -> ComparisonServiceAsyncStub:
    return ComparisonServiceStub(context.peer("statistics"))
