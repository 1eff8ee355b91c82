"""A PostgreSQL of a test's own, from the machine's binaries, which may be stopped the hard way and started again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def postgres_binaries() -> Path | None:
    """Where the programs of the newest PostgreSQL of this machine are."""
    candidates = [Path(found).resolve().parent] if (found := shutil.which("postgres")) else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((c for c in candidates if (c / "initdb").exists() and (c / "postgres").exists()), None)


class PostgresServer:
    """A server with a directory of its own, on a unix socket there."""

    def __init__(self, binaries: Path, **settings: str) -> None:
        """Starts it, with settings of `postgresql.conf` beside its own."""
        self._binaries = binaries
        self._directory = Path(tempfile.mkdtemp(prefix="daf-pg-"))
        self._as_user: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(self._directory, "nobody")
            self._as_user = ["setpriv", "--reuid=nobody", "--clear-groups", "--inh-caps=-all"]
        values = {"listen_addresses": "''", "max_connections": "200", **settings}
        self._options = " ".join([f"-k {self._directory}", *(f"-c {name}={value}" for name, value in values.items())])
        self._run("initdb", "-D", self._data, "-U", "daf", "-A", "trust", "-N")
        self.start()

    @property
    def url(self) -> str:
        """Of its database `postgres`."""
        return f"postgresql+psycopg://daf@/postgres?host={self._directory}"

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def start(self) -> None:
        """Starts it where it was stopped; returns once it takes connections."""
        self._run("pg_ctl", "-D", self._data, "-w", "-o", self._options, "-l", self._directory / "log", "start")

    def stop(self) -> None:
        """Stops it as a crash would: nothing is finished, nothing is written that was not."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    def close(self) -> None:
        """Stops it for good, with all that it has."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [*self._as_user, self._binaries / program, *arguments]
        subprocess.run(command, check=True, cwd=self._directory, stdout=subprocess.DEVNULL)
