"""`daf compare --vor` and `--cross-play` with real episodes: values are those of CoGames' own pickup, to the bit."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from typing import Any

import cogames.pickup
import pytest
from cogames.cli.mission import get_mission
from metta_alo.scoring import VorScenarioSummary
from mettagrid.policy.policy import PolicySpec
from rich.console import Console

from tests.daf_command import Daf

pytestmark = pytest.mark.timeout(1800)

MISSION, SEED, COGS, STEPS, EPISODES = "cogsguard_arena.basic", 42, 3, 20, 2
POLICIES = {
    "starter": "cogames.policy.starter_agent.StarterPolicy",
    "noop": "mettagrid.policy.noop.NoopPolicy",
    "miner": "cogames.policy.role_policies.MinerRolePolicy",
}
PLAYED = (
    *(argument for name in POLICIES for argument in ("-p", name)),
    *("-m", MISSION, "--variant", "credit", "--cogs", str(COGS), "--steps", str(STEPS)),
    *("--episodes", str(EPISODES), "--seed", str(SEED)),
)

BROKEN = """
from mettagrid.policy.noop import NoopPolicy

class BrokenPolicy(NoopPolicy):
    def agent_policy(self, agent_id):
        raise RuntimeError("no hands")
"""


class Pickup:
    """What `cogames.pickup.pickup` computes and prints."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.summaries: list[VorScenarioSummary] = []
        self.overall: list[float | None] = []
        self._record(patch, "summarize_vor_scenario", self.summaries)
        self._record(patch, "overall_value_over_replacement", self.overall)
        console = Console(width=200, record=True, quiet=False, file=io.StringIO())
        _, config, _ = get_mission(MISSION, variants_arg=["credit"], cogs=COGS, steps=STEPS)
        candidate, *pool = (PolicySpec(class_path=path) for path in POLICIES.values())
        cogames.pickup.pickup(
            console,
            candidate,
            pool,
            env_cfg=config,
            mission_name=MISSION,
            episodes=EPISODES,
            seed=SEED,
            map_seed=None,
            action_timeout_ms=60_000,
            save_replay_dir=None,
        )
        self.text = console.export_text()

    @staticmethod
    def _record(patch: pytest.MonkeyPatch, name: str, values: list[Any]) -> None:
        computed: Callable[..., Any] = getattr(cogames.pickup, name)

        def recording(*args: Any, **kwargs: Any) -> Any:
            values.append(computed(*args, **kwargs))
            return values[-1]

        patch.setattr(cogames.pickup, name, recording)


def test_pickup_gives_the_values_of_cogames_and_scores_are_computed_again_from_its_episodes(
    daf: Daf, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickup = Pickup(monkeypatch)

    report = daf.json("compare", "--vor", *PLAYED, "--vor-mode", "cogames", "--name", "pinned")["vor"]

    (vor,) = report["missions"]
    *scenarios, replacement = pickup.summaries
    assert [one["candidate_mean"] for one in vor["scenarios"]] == [one.candidate_mean for one in scenarios]
    assert vor["replacement_mean"] == replacement.replacement_mean
    assert [vor["overall"]] == pickup.overall
    assert len({one.candidate_mean for one in scenarios}) > 1, "values that do not differ show nothing"
    assert vor["overall"] != 0
    assert (vor["pinned"], vor["overall_interval"]) == (True, None)
    shown = daf("compare", "--vor", "evaluations/pinned")
    mixes = {
        match[1]: match[2]
        for match in re.finditer(r"(basic-c\d-r\d)\W+\d\W+(\d/\d)", pickup.text)
        if "-c0-" not in match[1]
    }
    assert len(mixes) == COGS
    for scenario, mix in mixes.items():
        assert re.search(rf"{scenario} +\d +{mix} ", shown)

    sampled = daf.json("compare", "--vor", *PLAYED, "--episodes", "4")["vor"]["missions"][0]
    assert (sampled["pinned"], sampled["seeds"]) == (False, 4)
    assert sampled["overall_interval"][0] < sampled["overall"] < sampled["overall_interval"][1]
    assert "one map" in shown


def test_cross_play_ranks_policies_by_their_teams(daf: Daf) -> None:
    found = daf.json("compare", "--cross-play", *PLAYED, "--name", "pairs")["cross_play"]

    (mission,) = found["missions"]
    cells = {(cell["first"], cell["second"]): cell for cell in mission["cells"]}
    assert set(cells) == {(a, b) for i, a in enumerate(POLICIES) for b in list(POLICIES)[i:]}
    assert cells["starter", "noop"]["episodes"] == 2 * EPISODES  # three seats are shared both ways
    assert cells["starter", "starter"]["team_mean"] > cells["starter", "noop"]["team_mean"] > 1
    assert [rank["policy"] for rank in mission["ranking"]][-1] == "noop"
    rows = list(csv.DictReader(io.StringIO(daf("compare", "--cross-play", "evaluations/pairs", "--csv"))))
    assert [float(row["team_mean"]) for row in rows] == [cell["team_mean"] for cell in mission["cells"]]
    shown = daf("compare", "--cross-play", "evaluations/pairs", "--metric", "reward")
    assert "starter + noop" in shown


def test_a_pool_that_cannot_play_leaves_no_baseline_and_says_why(daf: Daf) -> None:
    (daf.home.parent / "broken.py").write_text(BROKEN)
    mission = ("-m", MISSION, "--cogs", "2", "--steps", "10", "--episodes", "2")
    played = ("-p", "starter", "-p", "broken.BrokenPolicy", "--code", "broken.py", *mission)

    errors = daf("compare", "--vor", *played, "--name", "broken", code=1)

    assert "forfeited: BrokenPolicy: failed to" in errors
    assert "no hands" in errors
    output, _ = daf.start("compare", "--vor", "evaluations/broken", "--json").communicate(timeout=600)
    report = json.loads(output)["vor"]
    (vor,) = report["missions"]
    assert [(one["candidate_seats"], one["episodes"]) for one in vor["scenarios"]] == [(2, 2), (1, 0)]
    assert (vor["replacement_mean"], vor["overall"]) == (None, None)
    assert "4 of 6 episodes do not count: a policy forfeited, or a value is not finite." in report["warnings"]
