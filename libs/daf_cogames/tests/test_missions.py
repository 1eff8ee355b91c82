"""Missions are built as cogames builds them, and what cannot be built says which field is wrong and why."""

from __future__ import annotations

import pickle

import pytest
from cogames.cli.mission import get_mission

from daf_cogames import missions
from daf_cogames.missions import Mission, MissionError, build_mission, find_mission, mission_names

ARENA = "cogsguard_arena.basic"


def test_a_mission_is_the_one_that_cogames_builds() -> None:
    mission = Mission(ARENA, variants=("dark_side", "milestones"), cogs=4, max_steps=50, difficulty="easy")

    config = build_mission(mission)

    _, expected, _ = get_mission(ARENA, variants_arg=["dark_side", "milestones"], cogs=4, steps=50, difficulty="easy")
    assert pickle.dumps(config) == pickle.dumps(expected)
    assert (config.game.num_agents, config.game.max_steps) == (4, 50)


def test_missions_that_cogames_has_only_as_objects_take_the_same_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    mission = Mission(ARENA, variants=("dark_side", "credit"), cogs=2, max_steps=70, difficulty="medium")
    _, expected, _ = get_mission(ARENA, variants_arg=["dark_side", "credit"], cogs=2, steps=70, difficulty="medium")
    found = find_mission(ARENA)
    monkeypatch.setattr(missions, "_cogsguard_evals", lambda: {ARENA: found})

    config = build_mission(mission)

    assert pickle.dumps(config) == pickle.dumps(expected)


def test_the_cogsguard_evals_can_be_named() -> None:
    config = build_mission(Mission("cogsguard_evals.eval_balanced_spread", variants=("dark_side",), max_steps=20))

    assert config.label == "cogsguard_evals.eval_balanced_spread.dark_side"
    assert config.game.max_steps == 20
    assert sum(name.startswith("cogsguard_evals.") for name in mission_names()) == 15


def test_building_twice_gives_equal_configs_and_leaves_cogames_own_mission_alone() -> None:
    first = build_mission(Mission("cogsguard_evals.eval_balanced_spread", max_steps=20))

    second = build_mission(Mission("cogsguard_evals.eval_balanced_spread"))

    assert first.game.max_steps == 20
    assert second.game.max_steps == find_mission("cogsguard_evals.eval_balanced_spread").max_steps == 10_000


def test_a_map_seed_fixes_the_map() -> None:
    config = build_mission(Mission(ARENA, cogs=2, map_seed=7))

    assert config.game.map_builder.seed == 7


@pytest.mark.parametrize(
    ("mission", "field", "message"),
    [
        (Mission("cogsguard_arena.Basic"), "name", "did you mean 'cogsguard_arena.basic'?"),
        (Mission("cogsguard_arena.basic "), "name", "did you mean 'cogsguard_arena.basic'?"),
        (Mission("cogsguard_arena"), "name", "unknown mission"),
        (Mission("*"), "name", "unknown mission"),
        (Mission(""), "name", "unknown mission"),
        (Mission("a" * 1_000_000), "name", "unknown mission"),
        (Mission("cogsguard_arena.basic\0"), "name", "unknown mission"),
        (Mission(ARENA, variants=("darkside",)), "variants[0]", "did you mean 'dark_side'?"),
        (Mission(ARENA, variants=("dark_side", "")), "variants[1]", "unknown variant"),
        (Mission(ARENA, variants=("objective_mine:nan",)), "variants[0]", "unknown variant"),
        (Mission(ARENA, variants=("objective_mine:x",)), "variants[0]", "unknown variant"),
        (Mission(ARENA, cogs=0), "cogs", "at least 1"),
        (Mission(ARENA, cogs=21), "cogs", "Must be between 1 and 20"),
        (Mission("evals.diagnostic_memory"), "cogs", "exceeds available spawn points 4"),
        (Mission("cogsguard_machina_1.miner_tutorial", cogs=8), "cogs", "does not build with 8 agents"),
        (Mission(ARENA, max_steps=0), "max_steps", "at least 1"),
        (Mission(ARENA, max_steps=-5), "max_steps", "at least 1"),
        (Mission(ARENA, difficulty="Hard"), "difficulty", "did you mean 'hard'?"),
        (Mission(ARENA, map_seed=-1), "map_seed", "between 0"),
        (Mission("training_facility.easy_hearts_training", cogs=4), "name", "does not build with 4 agents: Unknown"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_says_which_field_and_why(mission: Mission, field: str, message: str) -> None:
    with pytest.raises(MissionError) as raised:
        build_mission(mission)

    assert raised.value.field == field
    assert message in raised.value.message
    assert len(raised.value.message) < 4000


@pytest.mark.parametrize("extension", [".py", ".yaml", ".yml", ".json"])
def test_a_mission_name_is_never_opened_as_a_file(extension: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    trap = tmp_path_factory.mktemp("missions") / f"mission{extension}"
    trap.write_text("raise SystemExit('the file was executed')")

    with pytest.raises(MissionError, match="unknown mission"):
        build_mission(Mission(str(trap)))


def test_a_variant_may_carry_its_factor() -> None:
    config = build_mission(Mission(ARENA, variants=("objective_mine:2",), cogs=2))

    _, expected, _ = get_mission(ARENA, variants_arg=["objective_mine:2"], cogs=2)
    assert pickle.dumps(config) == pickle.dumps(expected)
