"""Races of real policies on real episodes: they stop early, and copies of one episode decide nothing."""

from __future__ import annotations

import pytest

from daf.comparison import daf_compare_policies
from tests.daf_command import Daf

pytestmark = pytest.mark.timeout(1800)

MISSION = {"mission": "cogsguard_arena.basic", "cogs": 2, "max_steps": 20}


def test_a_race_stops_at_the_look_that_decides_it_and_is_found_again(daf: Daf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAF_HOME", str(daf.home))
    asked = {"episodes_per_mission": 30, "metric": "action.noop.success", "aggregation": "sum", "looks": 3}

    report = daf_compare_policies(["noop", "starter"], [MISSION], name="race", **asked)

    comparison = report.comparison
    assert comparison is not None
    assert (comparison.race.looks, comparison.race.over, list(comparison.race.racing)) == (2, True, [0])
    (result,) = report.comparisons
    assert (result.verdict, result.episodes, result.avg_reward_a) == ("first_better", 20, 40.0)
    assert (report.episodes_played, report.episodes_saved) == (40, 20)
    again = daf_compare_policies(["noop", "starter"], [MISSION], name="race", **asked)
    assert again.comparison == comparison
    printed = daf("compare", "comparisons/race")
    assert "Look 2 of 3: starter left, since noop is better" in printed
    assert "40 episodes were played, 33% fewer than the 60 planned" in printed


def test_a_race_on_one_pinned_map_ends_undecided(daf: Daf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAF_HOME", str(daf.home))
    pinned = {**MISSION, "map_seed": 7}

    report = daf_compare_policies(["noop", "starter"], [pinned], 8, metric="action.noop.success", looks=4)

    comparison = report.comparison
    assert comparison is not None
    assert (comparison.race.looks, comparison.race.over) == (4, True)
    assert (report.comparisons[0].verdict, report.comparisons[0].episodes) == ("undecided", 1)
    assert sum("are copies of others" in warning for warning in report.warnings) == 2
