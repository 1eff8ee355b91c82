"""The embedded stack: all services in one process on this machine, found or started."""

from __future__ import annotations

import contextlib
import enum
import fcntl
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from daf.client import is_serving
from daf_common.errors import DeadlineExceeded, Unavailable

START_SECONDS = 90.0
STOP_SECONDS = 45.0
_POLL_SECONDS = 0.05
_LOG_LINES = 15


class StackState(enum.Enum):
    """How the embedded stack is."""

    RUNNING = "running"
    STARTING = "starting"
    STOPPED = "stopped"
    UNRESPONSIVE = "unresponsive"


class EmbeddedStack:
    """The embedded stack whose state lives in one directory."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = home / "logs" / "standalone.log"
        self._log_start = 0
        self._run = home / "run"
        self._lock = self._run / "standalone.lock"  # held by the stack for its life

    @property
    def address(self) -> str:
        """The address of the stack that was started last; empty if none ever was."""
        return self._read("address")

    @property
    def pid(self) -> int | None:
        """The process id of the stack that was started last. It may be anyone's by now: the lock tells."""
        text = self._read("standalone.pid")
        return int(text) if text.isdecimal() else None

    def state(self) -> StackState:
        """How it is now."""
        if self._serves():
            return StackState.RUNNING
        if not self._run.exists():
            return StackState.STOPPED
        with self._starting(wait=False) as alone:
            if not alone:
                return StackState.STARTING
            return StackState.UNRESPONSIVE if self._is_alive() else StackState.STOPPED

    def ensure(self, notice: Callable[[str], None]) -> str:
        """The address of the running stack, which is started if there is none.

        Args:
            notice: told what takes time.

        Raises:
            Unavailable: it cannot be started; shows what it said last.
            DeadlineExceeded: it is not ready in time.
        """
        if self._serves():
            return self.address
        with self._starting(wait=True):  # whoever comes second finds it running
            if self._serves():
                return self.address
            process = None if self._is_alive() else self._spawn(notice)
            self._wait_until_ready(process)
        return self.address

    def stop(self, notice: Callable[[str], None]) -> bool:
        """Ends the stack and waits until it has ended; False if none was running.

        Raises:
            DeadlineExceeded: it does not end.
        """
        if not self._run.exists():
            return False
        with self._starting(wait=True):
            pid = self.pid
            if not self._is_alive() or pid is None:
                return False
            notice(f"stopping the embedded stack (process {pid})")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS
            while self._is_alive():
                if time.monotonic() > deadline:
                    raise DeadlineExceeded(
                        f"process {pid} has not ended after {STOP_SECONDS:.0f} s; its log: {self.log}"
                    )
                time.sleep(_POLL_SECONDS)
            return True

    def _serves(self) -> bool:
        address = self.address
        if address.startswith("unix:") and not Path(address.removeprefix("unix:")).exists():
            return False
        return bool(address) and is_serving(address)

    def _spawn(self, notice: Callable[[str], None]) -> subprocess.Popen[bytes]:
        if importlib.util.find_spec("daf_standalone") is None:
            raise Unavailable(
                "no services are installed here to start: install daf-standalone, or name an installation with "
                "`daf context add NAME ADDRESS` and `daf context use NAME`"
            )
        notice(f"starting the embedded stack (state in {self.home}; `daf down` stops it)")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        (self._run / "address").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "daf_standalone"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,  # so that it keeps no directory of the user's busy
                env={**os.environ, "DAF_HOME": str(self.home), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # Ctrl-C in the terminal is for the command, not for the stack
            )

    def _wait_until_ready(self, process: subprocess.Popen[bytes] | None) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._serves():
            ended = process.poll() is not None if process else not self._is_alive()
            if ended:
                raise Unavailable(f"the embedded stack ended while starting:\n{self._last_lines()}")
            if time.monotonic() > deadline:
                raise DeadlineExceeded(
                    f"the embedded stack is not ready after {START_SECONDS:.0f} s:\n{self._last_lines()}"
                )
            time.sleep(_POLL_SECONDS)

    def _last_lines(self) -> str:
        try:
            with self.log.open("rb") as log:
                log.seek(self._log_start)
                lines = log.read()[-20_000:].decode(errors="replace").splitlines()
        except OSError:
            lines = []
        shown = [f"  {_said(line)[:300]}" for line in lines[-_LOG_LINES:]] or ["  (it printed nothing)"]
        return "\n".join([*shown, f"(from {self.log})"])

    @contextlib.contextmanager
    def _starting(self, wait: bool) -> Iterator[bool]:
        """Holds the right to start, stop or probe the stack; yields whether it could be had."""
        self._run.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._run / "launch.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def _is_alive(self) -> bool:
        """Whether a process holds the stack's lock. Called with the right to start, so that a probe never keeps a
        stack that starts from its lock."""
        try:
            with self._lock.open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True

    def _read(self, name: str) -> str:
        try:
            return (self._run / name).read_text(encoding="utf-8").strip()
        except OSError:
            return ""


def _said(line: str) -> str:
    """What a line of the log says, without the rest of its record."""
    with contextlib.suppress(ValueError, TypeError, KeyError, IndexError):
        return str(json.loads(line)["message"]).splitlines()[0]
    return line
