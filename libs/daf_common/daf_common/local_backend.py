"""Workloads as processes of this machine, forked from a warm zygote and known by their locks."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from pathlib import Path

from daf_common.errors import Unavailable
from daf_common.workloads import Observation, State, Workload

_ENVIRONMENT = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
_ENVIRONMENT_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "NCCL_", "OMP_", "PYTHON")
"""What workers, which run users' code, see of this process's environment: nothing that may be secret."""


class Zygote:
    """The process that forks workers. It starts with the first request and is started again if it dies."""

    def __init__(self, module: str = "daf_cogames.zygote") -> None:
        self._module = module
        self._process: Process | None = None
        self._lock = asyncio.Lock()

    async def fork(self, directory: Path, argv: list[str], environment: Mapping[str, str]) -> None:
        """Starts a worker in a directory of its own; it holds `lock` there when this returns.

        Raises:
            Unavailable: the zygote does not start or has died.
        """
        request = json.dumps({"directory": str(directory), "argv": argv, "environment": dict(environment)})
        async with self._lock:
            process = await self._ready()
            assert process.stdin
            assert process.stdout
            with contextlib.suppress(ConnectionError):
                process.stdin.write(request.encode() + b"\n")
                await process.stdin.drain()
            if not await process.stdout.readline():
                self._process = None
                raise Unavailable(f"the process that forks workers has died with code {await process.wait()}")

    async def warm(self) -> None:
        """Starts it now, so that the first worker need not wait."""
        async with self._lock:
            await self._ready()

    async def close(self) -> None:
        """Ends it. Its workers live on."""
        if self._process and self._process.stdin:
            self._process.stdin.close()
            await self._process.wait()

    async def _ready(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", self._module, stdin=PIPE, stdout=PIPE, env=_worker_environment()
            )
            assert process.stdout
            if not await process.stdout.readline():
                raise Unavailable(f"the process that forks workers ended with code {await process.wait()} at its start")
            self._process = process
        return self._process


class LocalBackend:
    """Workloads in one directory: `{workload}/{replica}/`."""

    def __init__(self, directory: Path, cache: Path, zygote: Zygote) -> None:
        self._directory, self._cache, self._zygote = directory, cache, zygote
        self._killers: set[asyncio.Task[None]] = set()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def start(self, workload: Workload) -> None:
        """See `Backend.start`."""
        for replica in range(workload.replicas):
            directory = self._directory / workload.name / str(replica)
            if (directory / "lock").exists():
                continue
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            environment = {**workload.environment, "DAF_REPLICA": str(replica), "DAF_CACHE": str(self._cache)}
            await self._zygote.fork(directory, [workload.verb], environment)

    async def observe(self) -> Mapping[str, Observation]:
        """See `Backend.observe`."""
        return await asyncio.to_thread(self._observe)

    def _observe(self) -> dict[str, Observation]:
        observations = {}
        for workload in self._directory.iterdir():
            replicas = [_observe_replica(directory) for directory in workload.iterdir()]
            known = [replica for replica in replicas if replica]
            if known:
                running = [o for o in known if o.state is State.RUNNING]
                failed = [o for o in known if o.state is State.FAILED]
                observations[workload.name] = (running or failed or known)[0]
        return observations

    async def stop(self, name: str, grace_seconds: float) -> None:
        """See `Backend.stop`."""
        self._signal(name, signal.SIGTERM)
        task = asyncio.create_task(self._kill_later(name, grace_seconds))
        self._killers.add(task)
        task.add_done_callback(self._killers.discard)

    async def _kill_later(self, name: str, grace_seconds: float) -> None:
        await asyncio.sleep(grace_seconds)
        self._signal(name, signal.SIGKILL)

    def _signal(self, name: str, number: signal.Signals) -> None:
        for directory in self._replicas(name):
            if _is_locked(directory):  # so the number is not that of a stranger
                with contextlib.suppress(ProcessLookupError, FileNotFoundError, ValueError):
                    os.killpg(int((directory / "pid").read_text()), number)

    async def logs(self, name: str, replica: int = 0) -> bytes:
        """See `Backend.logs`."""
        path = self._directory / name / str(replica) / "log"
        try:
            return await asyncio.to_thread(path.read_bytes)
        except FileNotFoundError:
            return b""

    async def remove(self, name: str) -> None:
        """See `Backend.remove`."""
        if not any(_is_locked(directory) for directory in self._replicas(name)):
            await asyncio.to_thread(shutil.rmtree, self._directory / name, ignore_errors=True)

    async def close(self) -> None:
        """See `Backend.close`."""
        for task in self._killers:
            task.cancel()
        await self._zygote.close()

    def _replicas(self, name: str) -> list[Path]:
        workload = self._directory / name
        return list(workload.iterdir()) if workload.is_dir() else []


def _is_locked(directory: Path) -> bool:
    try:
        file = os.open(directory / "lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _observe_replica(directory: Path) -> Observation | None:
    if _is_locked(directory):
        return Observation(State.RUNNING)
    if not (directory / "lock").exists():
        return None  # about to start
    try:
        code = int((directory / "exit").read_text())
    except FileNotFoundError:
        return Observation(State.FAILED, "it was killed")
    if code == 0:
        return Observation(State.SUCCEEDED)
    if code < 0:
        return Observation(State.FAILED, f"ended by {signal.Signals(-code).name}")
    return Observation(State.FAILED, f"exit code {code}")


def _worker_environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)
    }
