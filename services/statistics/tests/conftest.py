"""A statistics service with its own database, served on a unix socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daf_common.clock import ManualClock
from daf_common.ids import CountedIds
from daf_common.service import Context, Host
from daf_common.settings import ServiceSettings
from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceStub
from daf_statistics.main import Statistics, build

if TYPE_CHECKING:
    from daf_protos.statistics.v1.statistics_service_pb2_grpc import StatisticsServiceAsyncStub


@pytest.fixture
async def service(database_url: str, tmp_path: Path) -> AsyncIterator[tuple[Statistics, Context]]:
    address = f"unix:{tmp_path}/statistics.sock"
    settings = ServiceSettings(home=tmp_path, database_url=database_url, listen=address, statistics_address=address)
    context = Context(settings, ManualClock(), CountedIds())
    statistics = build(context)
    host = Host(context, [statistics])
    await host.start()
    yield statistics, context
    await host.stop()


@pytest.fixture
def stub(service: tuple[Statistics, Context]) -> StatisticsServiceAsyncStub:
    return StatisticsServiceStub(service[1].peer("statistics"))
