"""The `daf` command, run as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Daf:
    """The `daf` command on a home of its own, run from a directory that has nothing to do with it."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.environment = {**os.environ, "DAF_HOME": str(home), "COLUMNS": "200", **environment}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts a command."""
        return subprocess.Popen(
            [str(Path(sys.executable).parent / "daf"), *arguments],
            env=self.environment,
            cwd=self.home.parent,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __call__(self, *arguments: str, code: int = 0, seconds: float = 600) -> str:
        """Runs a command to its end; returns what it printed to standard output, or to standard error if it is to
        end with another code than 0."""
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=seconds)
        assert process.returncode == code, f"daf {' '.join(arguments)}: exit {process.returncode}\n{output}\n{errors}"
        return output if code == 0 else errors

    def json(self, *arguments: str) -> Any:
        """Runs a command with `--json`."""
        return json.loads(self(*arguments, "--json"))

    def kill(self) -> None:
        """kill -9 to the stack; its workers live on."""
        os.kill(int((self.home / "run" / "standalone.pid").read_text()), signal.SIGKILL)

    def wait_for(self, what: Callable[[], bool], seconds: float = 240) -> None:
        """Waits until something is so."""
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, "it did not come to be"
            time.sleep(0.1)
