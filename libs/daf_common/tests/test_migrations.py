"""Databases that are older or newer than the code, with the migrations of a small service."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from daf_common import migrations as migrations_module
from daf_common.errors import FailedPrecondition, Unavailable
from daf_common.migrations import bring_up, upgrade, wait_until_current
from daf_common.settings import ServiceSettings
from daf_common.store import Store

ENVIRONMENT = """
import sqlalchemy as sa
from daf_common.migrations import run_environment
run_environment(sa.MetaData())
"""
FIRST = """
import sqlalchemy as sa
from alembic import op
from daf_common.store import create_common_tables
revision, down_revision = "0001", None
def upgrade():
    create_common_tables(op.create_table, op.execute)
    op.create_table("things", sa.Column("id", sa.String(10), primary_key=True))
"""
SECOND = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    op.add_column("things", sa.Column("color", sa.String(10), nullable=False, server_default=""))
"""


def migrations(directory: Path, *versions: str) -> Path:
    """A service's `migrations/`, with that many versions."""
    (directory / "versions").mkdir(parents=True)
    (directory / "env.py").write_text(ENVIRONMENT)
    for number, version in enumerate(versions, 1):
        (directory / "versions" / f"{number:04}.py").write_text(version)
    return directory


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return migrations(tmp_path / "old", FIRST)


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return migrations(tmp_path / "new", FIRST, SECOND)


@pytest.fixture
def store(database_url: str) -> Store:
    return Store(database_url, "things")


def columns(store: Store) -> set[str]:
    with store.engine.connect() as connection:
        return {column["name"] for column in sa.inspect(connection).get_columns("things")}


async def test_a_database_is_brought_up_to_date_and_keeps_what_it_has(store: Store, old: Path, new: Path) -> None:
    upgrade(store, old)
    await store.run(lambda tx: tx.execute(sa.text("INSERT INTO things (id) VALUES ('a')")))

    upgrade(store, new)
    upgrade(store, new)

    rows = await store.read(lambda tx: tx.execute(sa.text("SELECT id, color FROM things")).all())
    assert [tuple(row) for row in rows] == [("a", "")]
    store.close()


@pytest.mark.parametrize("mode", ["start", "check"])
def test_a_database_that_is_newer_than_the_code_is_served(store: Store, old: Path, new: Path, mode: str) -> None:
    upgrade(store, new)
    bring_up(store, old, ServiceSettings(migrate=mode))
    assert columns(store) == {"id", "color"}
    store.close()


@pytest.mark.parametrize(("before", "said"), [(True, "is at revision 0001"), (False, "is at revision none")])
def test_a_service_that_only_checks_refuses_an_older_database_and_says_what_to_do(
    store: Store, old: Path, new: Path, before: bool, said: str
) -> None:
    if before:
        upgrade(store, old)
    with pytest.raises(FailedPrecondition, match=f"{said}, and this code needs 0002: run .* migrate"):
        wait_until_current(store, new, patience_seconds=0)
    store.close()


def test_a_service_that_only_checks_waits_until_another_has_migrated(
    store: Store, old: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, migrated = threading.Event(), threading.Event()

    def rest(seconds: float) -> None:
        looked.set()
        assert migrated.wait(30)

    monkeypatch.setattr(migrations_module, "time", SimpleNamespace(monotonic=time.monotonic, sleep=rest))
    upgrade(store, old)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(wait_until_current, store, new)
        assert looked.wait(30)
        upgrade(store, new)
        migrated.set()
        waiting.result(30)
    store.close()


def test_a_database_that_is_not_there_is_said_to_be_so_without_its_password(new: Path) -> None:
    store = Store("postgresql+psycopg://daf:hidden@127.0.0.1:1/daf", "things")
    with pytest.raises(Unavailable, match="the database of things cannot be reached") as caught:
        wait_until_current(store, new, patience_seconds=0)
    assert "hidden" not in str(caught.value)
    store.close()


def test_several_that_migrate_at_once_migrate_once(postgresql_database: str, new: Path) -> None:
    stores = [Store(postgresql_database, "things") for _ in range(4)]
    with ThreadPoolExecutor(len(stores)) as threads:
        list(threads.map(upgrade, stores, [new] * len(stores)))
    assert all(columns(store) == {"id", "color"} for store in stores)
    for store in stores:
        store.close()
