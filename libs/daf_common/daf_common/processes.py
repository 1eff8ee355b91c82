"""Local processes that outlive the service that started them.

Each process has a directory: `lock`, which it holds for its life and which has its process id; `log`, what it prints;
and `exit`, its exit code, once it has ended. A service that was killed and started again finds its processes by their
locks: a process id alone is never trusted, since it may by then belong to a stranger.

They are forked from a zygote, a process that has already imported what they need (`daf_cogames.zygote`). It is
started by exec: a process that uses gRPC must not fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from daf_common.workloads import WORKER_ENVIRONMENT

_ZYGOTE = (sys.executable, "-m", "daf_cogames.zygote")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

# The service's environment has its secrets, and workers run users' code: they get what a machine needs, no more.
_MACHINE_VARIABLES = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|SHELL|VIRTUAL_ENV|LD_LIBRARY_PATH|"
    r"PYTHON(PATH|HASHSEED|UNBUFFERED)|CUDA_\w+|NVIDIA_\w+"
)


class State(Enum):
    """Whether a process lives."""

    RUNNING = "running"
    EXITED = "exited"
    LOST = "lost"
    """It has ended, and nobody saw how: it and the zygote were killed."""


@dataclass(frozen=True)
class Status:
    """What is seen of a process. code: of an EXITED one; negative: the signal that ended it."""

    state: State
    code: int | None = None


class ProcessError(RuntimeError):
    """A process could not be started; whether it was is not known where the zygote died over it."""


class LocalProcesses:
    """The processes under one directory. One service at a time may use a directory; used from one event loop."""

    def __init__(
        self,
        directory: Path,
        main: str,
        *,
        preload: Sequence[str] | None = None,
        on_exit: Callable[[str], None] = lambda name: None,
    ) -> None:
        """`main` is the function that each runs, `package.module:function`, called with its arguments.

        preload: what the zygote imports, or None for its own choice; on_exit: called with the name when a process
        started here ends, a hint that makes things faster: exits of adopted processes are seen by `observe` alone.
        """
        self._directory = directory
        self._main = main
        self._command = [*_ZYGOTE, *(["--preload", *preload] if preload is not None else [])]
        self._listeners: list[Callable[[str], None]] = [on_exit]
        self._zygote: _Zygote | None = None
        self._starting = asyncio.Lock()
        self._stops: dict[str, asyncio.Task[None]] = {}

    async def ready(self) -> None:
        """Start the zygote, if none lives, and wait until it has imported everything (seconds). Raises ProcessError."""
        async with self._starting:
            if self._zygote is None or self._zygote.ended:
                self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._zygote = await _Zygote.start(self._command, self._directory / "zygote.log", self._tell)
        await self._zygote.wait_ready()

    async def start(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start a process, unless one of this name was ever started here.

        environment: beyond what the machine needs; nothing else of this process's environment is passed on. Raises
        ProcessError.
        """
        directory = self._path(name)
        if (directory / "lock").exists() or (self._zygote is not None and self._zygote.has(str(directory))):
            return
        request = {"directory": str(directory), "main": self._main, "argv": list(arguments), "env": dict(environment)}
        for last_attempt in (False, True):
            await self.ready()
            zygote = self._zygote
            assert zygote is not None
            directory.mkdir(mode=0o700, exist_ok=True)  # a service that died right here has not started anything
            try:
                return await zygote.fork(request)
            except ProcessError:
                # One that died before it was known to have died has not read the request: another takes it.
                if last_attempt or not zygote.ended or (directory / "lock").exists():
                    raise

    def names(self) -> list[str]:
        """Every process that was started and not removed, also by services before this one."""
        if not self._directory.is_dir():
            return []
        return sorted(entry.name for entry in self._directory.iterdir() if entry.is_dir())

    def observe(self, name: str) -> Status | None:
        """How a process is; None where none of this name was started."""
        directory = self._path(name)
        starting = self._zygote is not None and self._zygote.has(str(directory))
        if not (directory / "lock").exists():
            return Status(State.RUNNING) if starting else None
        # In this order: a process leaves its exit code before it lets go of the lock.
        locked = _is_locked(directory / "lock")
        code = _read_number(directory / "exit")
        if code is not None:
            return Status(State.EXITED, code)
        if locked or starting:
            return Status(State.RUNNING)
        return Status(State.LOST)

    def process_id(self, name: str) -> int | None:
        """The process id, which is also that of its process group, while the process lives."""
        lock = self._path(name) / "lock"
        number = _read_number(lock)
        return number if number is not None and _is_locked(lock) else None

    async def stop(self, name: str, grace_seconds: float) -> None:
        """Ask a process to end (SIGTERM), and end its whole group (SIGKILL) after a while. Returns at once.

        The grace runs from the first call. If this service dies before it is over, another has to call again.
        """
        if name not in self._stops and _signal_process(self.process_id(name), signal.SIGTERM):
            task = asyncio.create_task(self._kill_later(name, grace_seconds))
            self._stops[name] = task
            task.add_done_callback(lambda _: self._stops.pop(name, None))

    def log(self, name: str) -> bytes:
        """What a process has printed so far."""
        with contextlib.suppress(FileNotFoundError):
            return (self._path(name) / "log").read_bytes()
        return b""

    def remove(self, name: str) -> None:
        """Forget a process that has ended, and delete its directory. Raises ProcessError while it runs."""
        status = self.observe(name)
        if status is not None and status.state is State.RUNNING:
            raise ProcessError(f"{name} is still running")
        shutil.rmtree(self._path(name), ignore_errors=True)

    async def close(self) -> None:
        """End the zygote. The processes go on."""
        for task in list(self._stops.values()):
            task.cancel()
        if self._zygote is not None:
            await self._zygote.close()
            self._zygote = None

    def listen(self, on_exit: Callable[[str], None]) -> None:
        """Calls a further function, too, with the name of every process started here that ends."""
        self._listeners.append(on_exit)

    def _tell(self, name: str) -> None:
        for listener in self._listeners:
            listener(name)

    async def _kill_later(self, name: str, grace_seconds: float) -> None:
        await asyncio.sleep(grace_seconds)
        process = self.process_id(name)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a DNS-1123 label")
        return self._directory / name


class _Zygote:
    """The service's side of a zygote."""

    def __init__(self, process: asyncio.subprocess.Process, on_exit: Callable[[str], None]) -> None:
        self._process = process
        self._on_exit = on_exit
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answers: dict[int, asyncio.Future[dict[str, str]]] = {}
        self._living: set[str] = set()
        self._requests = 0
        self._ended = False
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, command: Sequence[str], log: Path, on_exit: Callable[[str], None]) -> _Zygote:
        environment = {name: value for name, value in os.environ.items() if _MACHINE_VARIABLES.fullmatch(name)}
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env={**environment, **WORKER_ENVIRONMENT},
                start_new_session=True,  # a Ctrl-C in the terminal is for the service
            )
        return cls(process, on_exit)

    @property
    def ended(self) -> bool:
        """Whether it forks no more."""
        return self._ended or self._process.returncode is not None

    async def wait_ready(self) -> None:
        await asyncio.shield(self._ready)

    def has(self, directory: str) -> bool:
        """Whether the zygote will still say how this process ended."""
        return directory in self._living

    async def fork(self, request: Mapping[str, object]) -> None:
        self._requests += 1
        number, directory = self._requests, str(request["directory"])
        answer: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        self._living.add(directory)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, **request}).encode() + b"\n")
        event = await answer
        if event["event"] != "started":
            self._living.discard(directory)
        if event["event"] == "failed":
            raise ProcessError(event["message"])

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._reader

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            event = json.loads(line)
            if event["event"] == "ready":
                self._ready.set_result(None)
            elif event["event"] == "exited":
                self._living.discard(event["directory"])
                self._on_exit(Path(event["directory"]).name)
            else:
                self._answer(event)
        self._ended = True
        self._living.clear()
        code = await self._process.wait()
        failure = ProcessError(f"the process that forks workers ended with exit code {code}; see its zygote.log")
        if not self._ready.done():
            self._ready.set_exception(failure)
            self._ready.exception()  # marks it as seen: it may be that nobody waits for it any more
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(failure)

    def _answer(self, event: dict[str, str]) -> None:
        answer = self._answers.pop(int(event["id"]))
        if not answer.cancelled():
            answer.set_result(event)


def _is_locked(lock: Path) -> bool:
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _signal_process(process: int | None, number: signal.Signals) -> bool:
    """Send a signal; False where there is no such process (any more)."""
    if process is None:
        return False
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return False
    return True
