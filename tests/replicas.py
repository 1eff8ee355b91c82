"""The five services as processes of their own, several replicas of each, for tests that kill and stop them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from daf_common.channel import connect

NOBODY = -1
SERVICES = ("statistics", "deployment", "evaluation", "training", "scheduler")
READY_SECONDS = 240.0
TAKEN_OVER_WITHIN_SECONDS = 60.0


class Front:
    """A socket that stands for all replicas of a service, as a Kubernetes Service does: each new connection goes to one
    that takes it, and stays there."""

    def __init__(self, socket: Path, replicas: list[Path]) -> None:
        self._socket, self._replicas = socket, replicas
        self._open: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self._connect, str(self._socket))
        try:
            yield
        finally:
            server.close()
            for task in self._open:
                task.cancel()

    def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for replica in random.sample(self._replicas, len(self._replicas)):
            with contextlib.suppress(OSError):
                there, back = await asyncio.open_unix_connection(str(replica))
                break
        else:
            writer.close()
            return
        # Where one side ends, the connection has ended: a client then opens another, perhaps to another replica.
        with contextlib.suppress(OSError):
            ways = [asyncio.create_task(_carry(reader, back)), asyncio.create_task(_carry(there, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                writer.close()
                back.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while content := await reader.read(1 << 16):
        writer.write(content)
        await writer.drain()


class Replicas:
    """All services, by name and number; their database is a PostgreSQL that they share."""

    def __init__(self, directory: Path, database_url: str, counts: Mapping[str, int], **environment: str) -> None:
        """`counts`: how many replicas a service has, if not one."""
        self.directory, self.database_url = directory, database_url
        self._counts = {name: counts.get(name, 1) for name in SERVICES}
        self._processes: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
        self._machine = directory / "machine.sock"
        self._environment = {
            **os.environ,
            "DAF_DATABASE_URL": database_url,
            "DAF_ARTIFACTS_URL": (directory / "artifacts").as_uri(),
            "DAF_STANDIN_MACHINE": str(self._machine),
            "DAF_DRAIN_SECONDS": "1",
            "DAF_TRAINING_CPUS": "64",
            "DAF_TRAINING_MEMORY_GIB": "none",
            "DAF_EVALUATION_SLOTS": "64",
            "DAF_EVALUATION_WORKERS": "1",
            **{f"DAF_{name.upper()}_ADDRESS": self.address(name) for name in SERVICES},
            **environment,
        }

    def address(self, service: str) -> str:
        """Where a service is, whichever of its replicas answers."""
        return f"unix:{self.directory}/{service}.sock"

    @contextlib.asynccontextmanager
    async def running(self, training_seconds: float = 0.1, code: Path | None = None) -> AsyncIterator[None]:
        """Starts the compute and all replicas, or the first of each service of other code; ends it all at the end."""
        self.directory.mkdir(exist_ok=True)
        machine = subprocess.Popen(
            [sys.executable, "-m", "tests.standin_machine", str(self._machine), str(training_seconds)]
        )
        try:
            async with contextlib.AsyncExitStack() as fronts:
                for name, count in self._counts.items():
                    sockets = [self._socket(name, number) for number in range(count)]
                    front = Front(self.directory / f"{name}.sock", sockets)
                    await fronts.enter_async_context(front.served())
                    for number in range(1 if code else count):
                        self.start(name, number, code)
                for name, number in list(self._processes):
                    await self.ready(name, number)
                yield
        finally:
            for process in (machine, *self._processes.values()):
                process.kill()
                process.wait()

    def start(self, service: str, number: int, code: Path | None = None) -> None:
        """Starts a replica, for the first time or again; of this code, or of that in another directory."""
        replica = f"{service}-{number}"
        own = {
            "DAF_HOME": str(self.directory / replica),
            "DAF_LISTEN": f"unix:{self._socket(service, number)}",
            "DAF_REPLICA": replica,
            "DAF_WORKER_ADDRESS": self.address(service),
            "PGAPPNAME": replica,
        }
        with (self.directory / f"{replica}.log").open("ab") as log:
            self._processes[service, number] = subprocess.Popen(
                [sys.executable, "-m", "tests.replica", service],
                env={**self._environment, **own, **(_runs_from(code) if code else {})},
                cwd=code,
                stdout=log,
                stderr=log,
            )

    async def ready(self, service: str, number: int) -> None:
        """Waits until a replica serves."""
        async with asyncio.timeout(READY_SECONDS), connect(f"unix:{self._socket(service, number)}") as channel:
            while True:
                assert self._processes[service, number].poll() is None, self.log(service, number)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(channel.channel_ready(), 0.5)
                    return

    def migrate(self, service: str) -> None:
        """Brings a service's database up to date with this code, as the chart does before an upgrade."""
        subprocess.run([sys.executable, "-m", f"daf_{service}.main", "migrate"], env=self._environment, check=True)

    def signal(self, service: str, number: int, what: signal.Signals) -> None:
        """Sends a signal to a replica; after SIGKILL and SIGTERM it has ended."""
        process = self._processes[service, number]
        process.send_signal(what)
        if what in (signal.SIGKILL, signal.SIGTERM):
            process.wait(120)

    def log(self, service: str, number: int) -> str:
        """What a replica has printed."""
        return (self.directory / f"{service}-{number}.log").read_text()

    def leader(self, service: str) -> tuple[int, int]:
        """The replica that leads by the newest lease of its service, NOBODY once it was given back, and its fence."""
        holder, fence = self.rows(f"SELECT holder, fence FROM {service}.leases WHERE name = '{service}'")[0]
        return int(holder.partition("#")[0].rpartition("-")[2] or NOBODY), fence

    async def until_another_leads(self, service: str, fence: int) -> None:
        """Waits until somebody leads who was elected after the one with that fence."""
        end = time.monotonic() + TAKEN_OVER_WITHIN_SECONDS
        while self.leader(service)[1] == fence:
            assert time.monotonic() < end, [self.log(service, number) for number in range(self._counts[service])]
            await asyncio.sleep(0.05)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the database has."""
        engine = sa.create_engine(self.database_url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            found = connection.exec_driver_sql(query.replace("%", "%%"))
            return [tuple(row) for row in found] if found.returns_rows else []

    def _socket(self, service: str, number: int) -> Path:
        return self.directory / f"{service}-{number}.sock"


def _runs_from(code: Path) -> Mapping[str, str]:
    packages = [code, *code.glob("libs/*"), *code.glob("services/*")]
    return {"PYTHONPATH": os.pathsep.join(map(str, packages))}
