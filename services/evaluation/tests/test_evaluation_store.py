"""The evaluation service's tables, on SQLite and on PostgreSQL."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from daf_common.store import COMMON, Store
from daf_evaluation.main import MIGRATIONS
from daf_evaluation.tables import METADATA


def test_the_migrations_make_the_tables_that_the_code_uses(open_store) -> None:
    store: Store = open_store("evaluation", MIGRATIONS)
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": False})
        expected = sa.MetaData()
        for table in (*COMMON.tables.values(), *METADATA.tables.values()):
            table.to_metadata(expected)
        assert compare_metadata(context, expected) == []
