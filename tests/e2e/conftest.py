"""The product as a user has it: the `daf` command, the embedded stack as a process, real training and episodes."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daf_command import Daf

ROOT = Path(__file__).resolve().parents[2]
QUICK = ROOT / "examples" / "quick_sweep.yaml"


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
