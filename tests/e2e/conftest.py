"""The product as a user has it: the `daf` command, the embedded stack as a process, real training and episodes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUICK = ROOT / "examples" / "quick_sweep.yaml"


class Daf:
    """The `daf` command on a home of its own, run from a directory that has nothing to do with it."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts a command."""
        return subprocess.Popen(
            [str(Path(sys.executable).parent / "daf"), *arguments],
            env={**os.environ, "DAF_HOME": str(self.home), "COLUMNS": "200"},
            cwd=self.home.parent,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Runs a command to its end; returns what it printed to standard output."""
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=240)
        assert process.returncode == code, f"daf {' '.join(arguments)}: exit {process.returncode}\n{output}\n{errors}"
        return output if code == 0 else errors

    def json(self, *arguments: str) -> Any:
        """Runs a command with `--json`."""
        return json.loads(self(*arguments, "--json"))

    def kill(self) -> None:
        """kill -9 to the stack; its workers live on."""
        os.kill(int((self.home / "run" / "standalone.pid").read_text()), signal.SIGKILL)

    def wait_for(self, what: Callable[[], bool], seconds: float = 120) -> None:
        """Waits until something is so."""
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, "it did not come to be"
            time.sleep(0.1)


@pytest.fixture
def new_daf(tmp_path: Path) -> Iterator[Callable[[str], Daf]]:
    """Makes homes by name; whatever runs in them is ended afterwards."""
    made: list[Daf] = []

    def make(name: str) -> Daf:
        made.append(Daf(tmp_path / name))
        return made[-1]

    yield make
    for daf in made:
        if not daf.home.exists():
            continue
        daf("down")
        for lock in daf.home.glob("workers/*/lock"):
            if not (lock.parent / "exit").exists() and (pid := lock.read_text().strip()):
                try:
                    os.killpg(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass
        shutil.rmtree(daf.home, ignore_errors=True)


@pytest.fixture
def daf(new_daf: Callable[[str], Daf]) -> Daf:
    return new_daf("home")
