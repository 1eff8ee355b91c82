"""The main job, for real: train, evaluate, score, compare; through a kill -9, too."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.daf_command import Daf
from tests.e2e.conftest import QUICK
from tests.sweep_results import results

pytestmark = pytest.mark.timeout(1800)


def ends(home: Path) -> Counter[str]:
    """How often each trial came to an end, by the scheduler's history."""
    engine = sa.create_engine(f"sqlite:///{home}/state/scheduler.db")
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT name, to_state FROM transitions").all()
    engine.dispose()
    return Counter(name for name, state in rows if "/trials/" in name and state.endswith(("SUCCEEDED", "FAILED")))


def test_a_sweep_survives_kill_9_with_the_same_result_and_its_home_can_be_moved(
    new_daf: Callable[[str], Daf], tmp_path: Path
) -> None:
    calm, disturbed = new_daf("calm"), new_daf("disturbed")
    calm("sweep", "run", str(QUICK), "--name", "quick")
    expected = results(calm.json("sweep", "get", "quick"))

    disturbed("up")
    watching = disturbed.start("sweep", "run", str(QUICK), "--name", "quick")
    disturbed.wait_for(
        lambda: (
            "quick" in disturbed("sweep", "list")
            # A trial that trains may have ended that by the next look.
            and any(t["state"] != "TRIAL_STATE_PENDING" for t in disturbed.json("sweep", "get", "quick")["trials"])
        )
    )
    disturbed.kill()
    watching.kill()
    watching.communicate()
    disturbed("up")
    disturbed("sweep", "watch", "quick")

    assert results(disturbed.json("sweep", "get", "quick")) == expected
    assert ends(disturbed.home) == {"sweeps/quick/trials/1": 1, "sweeps/quick/trials/2": 1}

    disturbed("down")
    moved = new_daf("moved")
    shutil.move(disturbed.home, moved.home)
    assert results(moved.json("sweep", "get", "quick")) == expected
    again = moved.json("evaluate", "-p", "sweeps/quick/trials/1", "-m", "cogsguard_machina_1.miner_tutorial",
                       "--cogs", "4", "--steps", "30", "--episodes", "1", "--seed", "5")  # fmt: skip
    assert again["evaluation"]["state"] == "EVALUATION_STATE_SUCCEEDED"
