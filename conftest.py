"""Fixtures that all test suites share: databases, clocks, ids, wheels."""

from __future__ import annotations

import base64
import hashlib
import os
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import hypothesis
import pytest
import sqlalchemy as sa

from daf_common.clock import ManualClock
from daf_common.ids import CountedIds
from daf_common.migrations import upgrade
from daf_common.store import Store
from tests.postgres_server import PostgresServer, postgres_binaries

# An example has no limit of time: how long it takes is the machine's. All else stays as it is.
hypothesis.settings.register_profile("daf", hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("daf")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ids() -> CountedIds:
    return CountedIds()


type MakeWheel = Callable[..., Path]


@pytest.fixture(scope="session")
def make_wheel() -> MakeWheel:
    """Writes a wheel: `make_wheel(directory, name, version, {path: text}, needs=["other>=1"])`."""

    def make(
        directory: Path, name: str, version: str, files: Mapping[str, str], needs: Sequence[str] = (), tag: str = ""
    ) -> Path:
        tag = tag or "py3-none-any"
        info = f"{name}-{version}.dist-info"
        metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        content = {
            **files,
            f"{info}/METADATA": "\n".join([*metadata, *(f"Requires-Dist: {need}" for need in needs)]) + "\n",
            f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
        }
        content[f"{info}/RECORD"] = (
            "".join(_record(path, text) for path, text in content.items()) + f"{info}/RECORD,,\n"
        )
        directory.mkdir(parents=True, exist_ok=True)
        wheel = directory / f"{name}-{version}-{tag}.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, text in content.items():
                archive.writestr(path, text)
        return wheel

    return make


def _record(path: str, text: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
    return f"{path},sha256={digest},{len(text.encode())}\n"


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL: the one that DAF_TEST_POSTGRES_URL names, else one started from the machine's binaries, else one
    in a container; else the tests that need it are skipped with the reason."""
    if url := os.environ.get("DAF_TEST_POSTGRES_URL"):
        yield url
    elif binaries := postgres_binaries():
        yield from _local_postgres(binaries)
    else:
        yield from _container_postgres()


def _local_postgres(binaries: Path) -> Iterator[str]:
    server = PostgresServer(binaries, fsync="off")
    try:
        yield server.url
    finally:
        server.close()


def _container_postgres() -> Iterator[str]:
    try:
        from testcontainers.community.postgres import PostgresContainer

        with PostgresContainer("postgres:15-bookworm", driver="psycopg") as container:
            yield container.get_connection_url()
    except Exception as error:  # no engine, no image: whatever the reason, it is the one to show
        pytest.skip(f"no PostgreSQL: no URL in DAF_TEST_POSTGRES_URL, no binaries, no container ({error})")


@pytest.fixture
def postgresql_database(postgres_url: str) -> Iterator[str]:
    """An empty PostgreSQL database."""
    server = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    name = f"test_{uuid.uuid4().hex[:12]}"
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield server.url.set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    server.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database; tests that use it run once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.db"
    return str(request.getfixturevalue("postgresql_database"))


@pytest.fixture
def open_store(database_url: str) -> Iterator[Callable[[str, Path], Store]]:
    """Opens a service's store with its migrations applied: `open_store("training", migrations_directory)`."""
    stores = []

    def open_(schema: str, migrations: Path) -> Store:
        store = Store(database_url, schema)
        stores.append(store)
        upgrade(store, migrations)
        return store

    yield open_
    for store in stores:
        store.close()
