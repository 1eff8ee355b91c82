"""Episodes leave nothing behind."""

from __future__ import annotations

import gc
import logging

import pytest
from mettagrid.profiling import stopwatch
from mettagrid.runner.rollout import resolve_env_for_seed
from mettagrid.simulator.simulator import Simulator

from daf_cogames.missions import Mission, build_mission
from daf_cogames.play.stopwatches import let_loggers_go

EPISODES = 5


def registered_by_episodes() -> int:
    """How many loggers a few episodes leave with Python's logging."""
    config = build_mission(Mission("cogsguard_arena.basic", cogs=2, max_steps=5))
    before = len(logging.Logger.manager.loggerDict)
    # Held until the end: stopwatches have their loggers' names from their addresses, which are used again.
    held = [Simulator().new_simulation(resolve_env_for_seed(config, seed), seed=seed) for seed in range(EPISODES)]
    registered = len(logging.Logger.manager.loggerDict) - before
    for simulation in held:
        simulation.close()
    gc.collect()
    return registered


def test_episodes_leave_no_loggers_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "logging", logging)
    assert registered_by_episodes() >= EPISODES  # as shipped

    let_loggers_go()

    assert registered_by_episodes() == 0
