"""`daf check`."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"
MISSION = "cogsguard_machina_1.miner_tutorial"

CHECK_ON_A_SMALL_DISK = """
from daf.checks.disk import daf_check_disk_space
from daf.cli.main import main
daf_check_disk_space.__defaults__ = (0.001,)
main()
"""

type Daf = Callable[..., Any]


def marks(outcome: Any) -> dict[str, bool]:
    return {check["name"]: check["passed"] for check in outcome.json()["checks"]}


def test_missions_are_asked_of_the_services(daf: Daf, with_services: Any) -> None:
    good = daf("check", "-m", MISSION, "--json")
    bad = daf("check", "-m", MISSION, "-m", "cogsguard_machina_1.miner_tutoral", "--json")

    assert (good.code, good.json()["healthy"]) == (0, True)
    assert (bad.code, bad.json()["healthy"]) == (6, False)
    assert marks(bad)[f"mission {MISSION}"]
    assert "there is no mission 'cogsguard_machina_1.miner_tutoral'" in bad.out


def test_a_run_is_checked_without_services_and_nothing_is_started(daf: Daf, home: Path) -> None:
    outcome = daf("check", str(EXAMPLES / "quick_sweep.yaml"))

    assert outcome.code == 0, outcome.out
    assert "the checkpoints take at most" in outcome.out
    assert "the run takes about 1.8 GiB: 2 workers at a time with 2 environments each" in outcome.out
    assert f"ok      mission {MISSION}" in outcome.out
    assert "is recommended" in outcome.out
    assert "Nothing stands in the way" in outcome.out
    assert not home.exists()


def test_a_run_that_the_services_refuse_is_an_error(daf: Daf, with_services: Any, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        f"missions: [{MISSION}]\npolicy: lstm\ntraining: {{trainer: {{lerning_rate: 1}}}}\n"
    )

    outcome = daf("check", str(tmp_path / "run.yaml"), "--json")

    assert outcome.code == 6
    assert not marks(outcome)["run"]
    assert "did you mean 'learning_rate'?" in outcome.out


@pytest.mark.parametrize(
    ("text", "said"),
    [("missions: [a]\npolcy: lstm\n", ":2: unknown key 'polcy'; did you mean 'policy'?"), ("- 1\n", "is a list")],
)
def test_a_file_that_is_no_run_is_a_wrong_command(daf: Daf, home: Path, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "run.yaml").write_text(text)

    outcome = daf("check", str(tmp_path / "run.yaml"))

    assert outcome.code == 2
    assert said in outcome.err


def test_on_a_terminal_it_is_a_table(home: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm"}
    command = [sys.executable, "-c", CHECK_ON_A_SMALL_DISK, "check"]
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:  # Linux says so when the other end is closed
            pass
    os.close(ours)

    assert process.returncode == 0
    assert b"\x1b[32mok" in shown
    assert b"found" in shown.splitlines()[0]
