"""The evaluation service's tables, on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from daf_common.clock import ManualClock
from daf_common.errors import Aborted
from daf_common.leases import Leader
from daf_common.store import COMMON, Store
from daf_evaluation.logs import Log
from daf_evaluation.main import MIGRATIONS
from daf_evaluation.store import LEASE, add_logs, logs, save
from daf_evaluation.tables import METADATA


def test_the_migrations_make_the_tables_that_the_code_uses(open_store) -> None:
    store: Store = open_store("evaluation", MIGRATIONS)
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": False})
        expected = sa.MetaData()
        for table in (*COMMON.tables.values(), *METADATA.tables.values()):
            table.to_metadata(expected)
        assert compare_metadata(context, expected) == []


async def test_a_replica_that_was_overtaken_writes_nothing(open_store, clock: ManualClock) -> None:
    database: Store = open_store("evaluation", MIGRATIONS)
    await Leader(database, LEASE, "a", clock).attempt()
    await Leader(database, LEASE, "a", clock).attempt()  # started again

    with pytest.raises(Aborted, match="the lease evaluation was taken over"):
        await database.run(save, {}, clock.now(), 1, 1)
    assert await database.run(save, {}, clock.now(), 1, 2) == []


async def test_the_log_of_a_process_that_is_gone_by_the_second_look_stays(open_store) -> None:
    database: Store = open_store("evaluation", MIGRATIONS)
    await database.run(add_logs, "e", 1, {0: Log(b"zero"), 1: Log(b"on")})
    await database.run(add_logs, "e", 1, {1: Log(b"one", 3)})
    assert await database.read(logs, "e") == {(1, 0): Log(b"zero"), (1, 1): Log(b"one", 3)}
