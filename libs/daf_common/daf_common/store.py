"""A service's database: transactions that are plain functions, on SQLite or PostgreSQL.

    def rename(tx: Transaction, id: str, title: str) -> None:
        tx.execute(update(THINGS).where(THINGS.c.id == id).values(title=title))
        tx.changed(THINGS, id)

    await store.run(rename, "t-1", "better")

A function may be run more than once (after a lost connection or a conflict), so it must have no effect outside the
transaction. It runs in a thread on PostgreSQL, and on the event loop itself on SQLite. Retries, revisions, fences and
crash points live here, in one place.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Concatenate

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError

from daf_common import metrics
from daf_common.errors import Aborted, Unavailable
from daf_common.faults import FAULTS, InjectedFault

COMMON = sa.MetaData()
"""Tables that every service has."""

REVISION = sa.Table(
    "revision", COMMON, sa.Column("id", sa.Integer, primary_key=True), sa.Column("value", sa.BigInteger)
)
"""One row: the number of the last transaction that changed something. Watches go by it."""

TOMBSTONES = sa.Table(
    "tombstones",
    COMMON,
    sa.Column("kind", sa.String(40), primary_key=True),
    sa.Column("id", sa.String(120), primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False, index=True),
)
"""What was deleted, so that watches can say so."""

REQUESTS = sa.Table(
    "requests",
    COMMON,
    sa.Column("method", sa.String(80), primary_key=True),
    sa.Column("request_id", sa.String(120), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("resource", sa.String(200), nullable=False),
    sa.Column("create_time", sa.DateTime(timezone=True), nullable=False, index=True),
)
"""Requests that were carried out: see `daf_common.requests`."""

LEASES = sa.Table(
    "leases",
    COMMON,
    sa.Column("name", sa.String(80), primary_key=True),
    sa.Column("holder", sa.String(80), nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("beat", sa.BigInteger, nullable=False),
)
"""Who leads: see `daf_common.leases`."""

_STAY_IDLE = sa.text("SET LOCAL idle_in_transaction_session_timeout = 0")
_TAKE_YOUR_TIME = sa.text("SET LOCAL statement_timeout = 0")
_FENCE = sa.select(LEASES.c.fence).where(LEASES.c.name == sa.bindparam("wanted")).with_for_update(read=True)
_READ_REVISION = sa.select(REVISION.c.value)
_BUMP = sa.update(REVISION).values(value=REVISION.c.value + 1).returning(REVISION.c.value)

_ATTEMPTS = 6
_BUSY_MILLISECONDS = 250
"""How long a statement waits for another process that holds the SQLite file; then the transaction is tried again."""
_CONNECTIONS = 8
"""To one PostgreSQL, of one replica of one service: the replicas of five services share what a server allows."""
IDLE_SECONDS = 5.0
STATEMENT_SECONDS = 10.0
"""A transaction that stands still for so long, between two statements or in one that waits for a lock, is ended by the
server: its process was stopped, and others wait for its locks, those that would take the lead from it among them."""
_CONNECTION_OPTIONS = {
    "connect_timeout": 10,
    # A server or a network that has vanished without a word is noticed within half a minute, from both ends.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
_SESSION_OPTIONS = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
_UNIQUE_VIOLATION = "23505"
_TRANSIENT_SQLSTATES = {
    *("40001", "40P01", "55P03", "57014", "57P01", "57P02", "57P03"),
    *("08000", "08003", "08006", "25P03", "53300"),
}


class Transaction:
    """One transaction. Statements go through it; what it changes is stamped with the next revision at its end."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self._changed: dict[sa.Table, set[Any]] = {}
        self._deleted: set[tuple[str, str]] = set()
        self.effects: list[Callable[[], object]] = []
        """What `after_commit` was asked for."""

    def execute(self, statement: sa.Executable, parameters: Any = None) -> sa.CursorResult[Any]:
        """Runs one statement, once or for a list of parameter dictionaries."""
        return self.connection.execute(statement, parameters)

    def take_your_time(self) -> None:
        """Lets the statements that follow last for as long as they need, since they are about very many rows."""
        if self.connection.dialect.name == "postgresql":
            self.connection.execute(_TAKE_YOUR_TIME)

    def changed(self, table: sa.Table, *keys: Any) -> None:
        """Says that rows have changed, by the values of the table's `key` (see `info`) or primary key column.

        The table has a column `revision`, which the transaction sets.
        """
        self._changed.setdefault(table, set()).update(keys)

    def deleted(self, kind: str, *ids: str) -> None:
        """Says that resources are gone."""
        self._deleted.update((kind, id) for id in ids)

    def after_commit(self, effect: Callable[[], object]) -> None:
        """Has something done once this transaction is committed, and never if it is not: counting what it wrote.

        It is done in whatever thread runs the transaction, and not at all if the process ends just then.
        """
        self.effects.append(effect)

    @property
    def writes(self) -> bool:
        """Whether watches are to hear of this transaction."""
        return bool(self._changed or self._deleted)

    def stamp(self) -> None:
        """Gives all that has changed the next revision. The counter's row is locked from here to the commit, so the
        order of revisions is the order of commits."""
        revision = self.connection.execute(_BUMP).scalar_one()
        for table, keys in self._changed.items():
            self.connection.execute(_stamping(table), [{"of": key, "to": revision} for key in keys])
        for kind, id in self._deleted:
            self.connection.execute(sa.delete(TOMBSTONES).where(TOMBSTONES.c.kind == kind, TOMBSTONES.c.id == id))
            self.connection.execute(sa.insert(TOMBSTONES).values(kind=kind, id=id, revision=revision))


@cache
def _stamping(table: sa.Table) -> sa.Update:
    key = table.c[table.info.get("key") or next(iter(table.primary_key.columns)).name]
    return sa.update(table).where(key == sa.bindparam("of")).values(revision=sa.bindparam("to"))


class Store:
    """One service's tables in one database."""

    def __init__(self, url: str, schema: str) -> None:
        """Opens a database without connecting to it.

        Args:
            url: SQLAlchemy URL: `sqlite:///path` or `postgresql+psycopg://...`.
            schema: the service's name. On PostgreSQL its tables lie in the schema of that name.
        """
        self.schema = schema
        self.engine = _engine(url, schema)
        self._reading = self.engine.execution_options(daf_write=False)
        self.dialect = self.engine.dialect.name
        self._threads = ThreadPoolExecutor(2 if self.dialect == "sqlite" else _CONNECTIONS, thread_name_prefix=schema)
        self._listeners: list[Callable[[], None]] = []
        self._read_seconds, self._write_seconds = (
            metrics.TRANSACTION_SECONDS.labels(schema, access) for access in ("read", "write")
        )
        self._retries = metrics.TRANSACTION_RETRIES.labels(schema)
        self._failures = metrics.TRANSACTION_FAILURES.labels(schema)
        self.commits = 0
        """Committed writing transactions, for benchmarks."""

    def on_change(self, listener: Callable[[], None]) -> None:
        """Calls a function, on the event loop, after each transaction here that changed rows."""
        self._listeners.append(listener)

    async def run[**P, T](
        self, function: Callable[Concatenate[Transaction, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs a writing transaction.

        Raises:
            Unavailable: the database cannot be reached or stays in conflict; nothing is known to be written.
        """
        changed, result = await self._attempts(True, lambda tx: function(tx, *args, **kwargs))
        if changed:
            for listener in self._listeners:
                listener()
        return result

    async def read[**P, T](
        self, function: Callable[Concatenate[Transaction, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs a short reading transaction: all its statements see one snapshot, which writers do not wait for.

        Raises:
            Unavailable: the database cannot be reached.
        """
        _, result = await self._attempts(False, lambda tx: function(tx, *args, **kwargs))
        return result

    async def scan[**P, T](
        self, function: Callable[Concatenate[Transaction, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs a reading transaction over many rows, which never holds the event loop up and may take its time: one
        snapshot too, however long it takes.

        Raises:
            Unavailable: the database cannot be reached.
        """

        def patient(tx: Transaction) -> T:
            if self.dialect == "postgresql":
                tx.execute(_STAY_IDLE)
            tx.take_your_time()
            return function(tx, *args, **kwargs)

        _, result = await self._attempts(False, patient, aside=True)
        return result

    async def _attempts[T](
        self, write: bool, function: Callable[[Transaction], T], *, aside: bool = False
    ) -> tuple[bool, T]:
        # A short transaction on SQLite takes a tenth of what handing it to a thread costs.
        inline = self.dialect == "sqlite" and not aside
        for attempt in range(1, _ATTEMPTS + 1):
            start = time.perf_counter()
            try:
                if inline:
                    done = self._transaction(write, function)
                else:
                    loop = asyncio.get_running_loop()
                    done = await loop.run_in_executor(self._threads, self._transaction, write, function)
                (self._write_seconds if write else self._read_seconds).observe(time.perf_counter() - start)
                return done
            except (DBAPIError, InjectedFault) as error:
                if not _is_transient(error):
                    raise
                if attempt == _ATTEMPTS:
                    self._failures.inc()
                    raise Unavailable(
                        f"the database of {self.schema} does not answer", retry_after_seconds=1.0
                    ) from error
            self._retries.inc()
            await asyncio.sleep(random.uniform(0.5, 1.0) * 0.02 * 2**attempt)
        raise AssertionError("unreachable")

    def _transaction[T](self, write: bool, function: Callable[[Transaction], T]) -> tuple[bool, T]:
        name = f"{self.schema}.commit"
        with (self.engine if write else self._reading).begin() as connection:
            tx = Transaction(connection)
            result = function(tx)
            if tx.writes:
                tx.stamp()
            if write:
                FAULTS.inject(f"{name}.before")
                FAULTS.crash_point(f"{name}.before")
        if write:
            self.commits += 1
            FAULTS.crash_point(f"{name}.after")
        for effect in tx.effects:
            effect()
        return tx.writes, result

    def close(self) -> None:
        """Waits for running transactions and closes all connections."""
        self._threads.shutdown()
        self.engine.dispose()


def revision_of(tx: Transaction) -> int:
    """The number of the last transaction that changed something, as this one sees it."""
    return int(tx.execute(_READ_REVISION).scalar_one())


def create_common_tables(create_table: Callable[..., Any], execute: Callable[[sa.Executable], Any]) -> None:
    """What the first migration of every service does; takes Alembic's `op.create_table` and `op.execute`."""
    for table in COMMON.tables.values():
        create_table(table.name, *(column._copy() for column in table.columns))
    execute(sa.insert(REVISION).values(id=1, value=0))


def revision_column() -> sa.Column[int]:
    """The column by which a table's rows are watched; the store sets it."""
    return sa.Column("revision", sa.BigInteger, nullable=False, index=True, server_default="0")


def insert_or_ignore(dialect: str, table: sa.Table, rows: Iterable[dict[str, Any]]) -> sa.Executable:
    """An insert that leaves rows alone whose key is there."""
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(table).values(list(rows)).on_conflict_do_nothing()


def check_fence(tx: Transaction, name: str, fence: int) -> None:
    """Refuses to write for a leader that has been overtaken. Nobody takes over before the end of the transaction.

    Raises:
        Aborted: the lease has another fence by now.
    """
    current = tx.execute(_FENCE, {"wanted": name}).scalar()
    if current != fence:
        raise Aborted(f"the lease {name} was taken over", reason="STALE_FENCE")


def _engine(url: str, schema: str) -> sa.Engine:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = sa.create_engine(
            parsed,
            connect_args={"check_same_thread": False},
            pool_reset_on_return=None,  # every connection is used for whole transactions alone
        )

        @sa.event.listens_for(engine, "connect")
        def configure(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # transactions are begun below, not by the driver
            for pragma in (
                "journal_mode=WAL",
                "synchronous=NORMAL",
                "foreign_keys=ON",
                f"busy_timeout={_BUSY_MILLISECONDS}",
            ):
                connection.execute(f"PRAGMA {pragma}")

        @sa.event.listens_for(engine, "begin")
        def begin(connection: sa.Connection) -> None:
            write = connection.get_execution_options().get("daf_write", True)
            connection.connection.cursor().execute("BEGIN IMMEDIATE" if write else "BEGIN")

        return engine

    from psycopg import IsolationLevel  # takes a tenth of a second, which SQLite does not need

    options = {
        "search_path": schema,
        "idle_in_transaction_session_timeout": f"{IDLE_SECONDS * 1000:.0f}",
        "statement_timeout": f"{STATEMENT_SECONDS * 1000:.0f}",
        **_SESSION_OPTIONS,
    }
    session = " ".join(f"-c{name}={value}" for name, value in options.items())
    engine = sa.create_engine(
        parsed,
        pool_size=_CONNECTIONS,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args={"options": session, **_CONNECTION_OPTIONS},
    )
    engine.dialect.use_insertmanyvalues_wo_returning = True  # rows to insert are one statement

    @sa.event.listens_for(engine, "do_executemany")
    def one_by_one(cursor: Any, statement: str, rows: Iterable[Any], _context: Any) -> bool:
        # The driver would send them as one pipeline, and a process that is stopped amid one keeps its locks for as
        # long: no limit of the server counts there.
        for row in rows:
            cursor.execute(statement, row)
        return True

    @sa.event.listens_for(engine, "begin")
    def prepare(connection: sa.Connection) -> None:
        # A read is one snapshot. The driver sends both with the BEGIN that comes before the first statement, so they
        # cost no message; a connection keeps what it was told last, where SQLAlchemy's own options are set and reset
        # for each transaction, a tenth of a short read.
        write = connection.get_execution_options().get("daf_write", True)
        driver: Any = connection.connection.dbapi_connection
        level = None if write else IsolationLevel.REPEATABLE_READ
        if driver.isolation_level is not level:
            driver.isolation_level, driver.read_only = level, None if write else True

    return engine


def _is_transient(error: Exception) -> bool:
    if isinstance(error, InjectedFault):
        return True
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if isinstance(error, IntegrityError):
        # Another transaction added the same row between this one's look and its insert: the next look will see it.
        return state == _UNIQUE_VIOLATION
    return bool(
        error.connection_invalidated
        or state in _TRANSIENT_SQLSTATES
        or (state is None and ("locked" in str(error.orig) or "connection" in str(error.orig).lower()))
    )
