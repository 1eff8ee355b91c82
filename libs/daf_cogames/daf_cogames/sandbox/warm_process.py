"""The process that those of policies are forked from, as the worker sees it; see `daf_cogames.sandbox.child`."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from daf_cogames.play.marks import goes_on
from daf_cogames.policies import LoaderError
from daf_cogames.sandbox.confinement import Enforced

START_SECONDS = 300.0
"""For what does not run foreign code: imports, on a machine that is busy."""

_LOOK_SECONDS = 0.1

# Of the worker's environment: how many threads a library takes changes the last bits of sums.
_PASSED_ON = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LD_LIBRARY_PATH")

logger = logging.getLogger(__name__)


class WarmProcess:
    """Started without waiting until it is ready."""

    def __init__(self, scratch: Path | None) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="sandbox-", dir=scratch)
        self._control, far = socket.socketpair()
        self._control.settimeout(_LOOK_SECONDS)
        self._unread = b""
        self._ended: list[int] = []
        self._enforced: Enforced | None = None
        self.alive = True
        with far:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-m", "daf_cogames.sandbox.child"),
                    *(str(far.fileno()), self._directory.name, str(os.getpid())),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=(far.fileno(),),
                env={"LANG": "C.UTF-8", **{name: os.environ[name] for name in _PASSED_ON if name in os.environ}},
                cwd=self._directory.name,
                start_new_session=True,
            )

    @property
    def enforced(self) -> Enforced:
        """What it enforces; waits until it is ready. Raises LoaderError."""
        if self._enforced is None:
            self._enforced = Enforced(**self._answer()["ready"])
            logger.info("policies play in a sandbox: %s", self._enforced)
            if gaps := self._enforced.gaps:
                logger.warning("this machine does not enforce all of the sandbox: %s", "; ".join(gaps))
        return self._enforced

    def ask(self, verb: str, descriptors: Sequence[int] = (), **fields: object) -> dict[str, Any]:
        """Asks and waits. Raises LoaderError."""
        _ = self.enforced
        if ended := self._ended:
            self._ended = []
            self._exchange("reap", (), {"pids": ended})
        return self._exchange(verb, descriptors, fields)

    def kill(self, process: int) -> None:
        """Kills a process that was forked; its number stays its own until the next question."""
        if not self.alive:
            return
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(OSError):
                kill(process, signal.SIGKILL)
        self._ended.append(process)

    def close(self) -> None:
        """Ends it, and with it all that it has forked."""
        self.alive = False
        self._control.close()
        self._process.kill()
        self._process.wait()
        self._directory.cleanup()

    def _exchange(self, verb: str, descriptors: Sequence[int], fields: dict[str, object]) -> dict[str, Any]:
        try:
            socket.send_fds(self._control, [json.dumps({verb: fields}).encode() + b"\n"], descriptors)
        except OSError as error:
            self._fail(error)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        deadline = time.monotonic() + START_SECONDS
        while b"\n" not in self._unread:
            goes_on()
            try:
                data = self._control.recv(1 << 16)
            except TimeoutError as error:
                if time.monotonic() > deadline:
                    self._fail(error)
                continue
            except OSError as error:
                self._fail(error)
            if not data:
                self._fail(EOFError("it has ended"))
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _fail(self, error: Exception) -> NoReturn:
        self.close()
        raise LoaderError(f"the process that starts policies fails: {error}") from error
