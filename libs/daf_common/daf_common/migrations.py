"""Brings a service's database to the schema of its code, by Alembic."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command, context
from alembic.config import Config

from daf_common.store import COMMON, Store


def upgrade(store: Store, directory: Path) -> None:
    """Applies the migrations in `directory` (a service's `migrations/`) that the database lacks."""
    config = Config()
    config.set_main_option("script_location", str(directory))
    config.set_main_option("path_separator", "os")
    with store.engine.connect() as connection:
        if store.dialect == "postgresql":
            connection.execute(sa.schema.CreateSchema(store.schema, if_not_exists=True))
            # Two replicas that start together: the second waits here and finds nothing left to do.
            connection.execute(sa.select(sa.func.pg_advisory_lock(sa.func.hashtext(store.schema))))
            connection.commit()
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
            connection.commit()
        finally:
            if store.dialect == "postgresql":
                connection.rollback()
                connection.execute(sa.select(sa.func.pg_advisory_unlock(sa.func.hashtext(store.schema))))
                connection.commit()


def run_environment(metadata: sa.MetaData) -> None:
    """The body of every service's `migrations/env.py`."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=[COMMON, metadata],
        render_as_batch=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()
