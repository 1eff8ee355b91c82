"""Brings a service's database to the schema of its code, by Alembic.

Migrations only expand, so that the release before goes on with the newer schema: a database may be newer than the code.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

import sqlalchemy as sa
from alembic import command, context
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import OperationalError

from daf_common.errors import FailedPrecondition, Unavailable
from daf_common.settings import ServiceSettings
from daf_common.store import COMMON, Store
from daf_common.telemetry import configure_logging

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 60.0
"""How long a database is waited for that is not there yet, or not up to date."""
_LOOK_SECONDS = 0.5


def bring_up(store: Store, directory: Path, settings: ServiceSettings) -> None:
    """Makes sure that a database suits the code of a service that starts.

    Raises:
        FailedPrecondition: it is still older, and to migrate it is not this process's to do.
        Unavailable: it is not there.
    """
    if settings.migrate == "start":
        upgrade(store, directory)
    else:
        wait_until_current(store, directory)


def upgrade(store: Store, directory: Path) -> None:
    """Applies the migrations in `directory` (a service's `migrations/`) that the database lacks. One that is newer
    stays as it is."""
    config = _config(directory)
    with store.engine.connect() as connection:
        if store.dialect == "postgresql":
            connection.exec_driver_sql("SET statement_timeout = 0")
            # Two replicas that start together: the second waits here and finds nothing left to do.
            connection.execute(sa.select(sa.func.pg_advisory_lock(sa.func.hashtext(store.schema))))
            connection.execute(sa.schema.CreateSchema(store.schema, if_not_exists=True))
            connection.commit()
        try:
            if not _is_newer(config, before := _revision(connection), store):
                connection.rollback()
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                connection.commit()
                if (after := _revision(connection)) != before:
                    log.info("migrated the database of %s from %s to %s", store.schema, before or "nothing", after)
        finally:
            connection.rollback()
            if store.dialect == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_unlock(sa.func.hashtext(store.schema))))
                connection.exec_driver_sql("RESET statement_timeout")
                connection.commit()


def wait_until_current(store: Store, directory: Path, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Waits until a database is at least as new as the code.

    Raises:
        FailedPrecondition: it is still older.
        Unavailable: it is not there.
    """
    config = _config(directory)
    wanted = ScriptDirectory.from_config(config).get_current_head()
    _wait_for(store, deadline := time.monotonic() + patience_seconds)
    while True:
        with store.engine.connect() as connection:
            found = _revision(connection)
        if found == wanted or _is_newer(config, found, store):
            return
        if time.monotonic() > deadline:
            raise FailedPrecondition(
                f"the database of {store.schema} is at revision {found or 'none'}, and this code needs {wanted}: "
                f"run `python -m daf_{store.schema}.main migrate`",
                reason="DATABASE_TOO_OLD",
            )
        time.sleep(_LOOK_SECONDS)


def is_asked_for() -> bool:
    """Whether the command line of a service says `migrate` instead of serving."""
    parser = argparse.ArgumentParser(description="Serves, or brings the database of this service up to date.")
    verbs = ("serve", "migrate")
    parser.add_argument("verb", nargs="?", choices=verbs, default=verbs[0], help=f"{verbs[0]} if not given")
    return bool(parser.parse_args().verb == "migrate")


def migrate(settings: ServiceSettings, service: str, directory: Path) -> None:
    """Brings a service's database up to date, once it is there. Ends the process with code 1 where that fails."""
    configure_logging(settings.log_level, settings.log_format)
    store = Store(settings.database(service), service)
    try:
        _wait_for(store, time.monotonic() + PATIENCE_SECONDS)
        upgrade(store, directory)
        log.info("the database of %s is up to date", service)
    except Exception as error:
        log.critical("cannot migrate: %s", error, exc_info=not isinstance(error, Unavailable))
        sys.exit(1)
    finally:
        store.close()


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


def _config(directory: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(directory))
    config.set_main_option("path_separator", "os")
    return config


def _revision(connection: sa.Connection) -> str | None:
    """Where a database is; None before the first migration."""
    return MigrationContext.configure(connection).get_current_revision()


def _is_newer(config: Config, revision: str | None, store: Store) -> bool:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is None or revision in known:
        return False
    log.warning(
        "the database of %s is at revision %s, which is newer than this code: it serves as it is",
        store.schema,
        revision,
    )
    return True


def _wait_for(store: Store, deadline: float) -> None:
    """Waits until a database takes connections."""
    said = ""
    while True:
        try:
            with store.engine.connect():
                return
        except OperationalError as error:
            why = str(error.orig).strip()
        if time.monotonic() > deadline:
            raise Unavailable(f"the database of {store.schema} cannot be reached: {why}")
        if why != said:
            log.info("waiting for the database of %s: %s", store.schema, why)
            said = why
        time.sleep(_LOOK_SECONDS)
