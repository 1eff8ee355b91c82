"""Missions: what an episode is played on, and how cogames builds its environment.

A `MettaGridConfig` does not survive JSON (a statistic comes out with another value), so what travels between
processes is a `Mission`: names and numbers, or the user's own file, from which every process builds the same config.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from daf_cogames.own_missions import own_mission_problems
from daf_cogames.suggestions import did_you_mean

if TYPE_CHECKING:
    from cogames.cogs_vs_clips.mission import CvCMission
    from mettagrid import MettaGridConfig

DIFFICULTIES = ("easy", "medium", "hard")

# Those of cogames' `-S`.
MISSION_SETS = ("all", "cogsguard_evals", "diagnostic_evals", "integrated_evals", "spanning_evals")

# The one reward variant of cogames that takes an argument, as in `objective_mine:5`.
PARAMETRIZED_VARIANT = "objective_mine:"


@dataclass(frozen=True)
class Mission:
    """A mission of cogames, or the user's own, and how it is changed. What is None keeps the mission's own value.

    name: the full name, `site.mission`; of a user's own, what it is called; variants: applied in this order; cogs: the
    number of agents; max_steps: the length of an episode in environment steps; difficulty: one of DIFFICULTIES;
    map_seed: the same map in every episode (without it, the seed of an episode chooses its map); file: the user's own
    mission (see `daf_cogames.mission_files`), which takes no variants, cogs or difficulty.
    """

    name: str
    variants: tuple[str, ...] = ()
    cogs: int | None = None
    max_steps: int | None = None
    difficulty: str | None = None
    map_seed: int | None = None
    file: Path | None = None


class MissionError(ValueError):
    """A mission that cannot be built, and the field of `Mission` to blame (`name` or `file`: the mission itself)."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


def build_mission(mission: Mission) -> MettaGridConfig:
    """The environment of a mission, exactly as cogames builds it.

    One simulation is made and thrown away (0.1 s on most maps, 6 s on the largest), since whether a map holds the
    agents shows only there. Raises MissionError.
    """
    config = apply_mission(mission)
    _check_simulates(mission, config)
    return config


def apply_mission(mission: Mission) -> MettaGridConfig:
    """The config alone, without the simulation that shows whether its map can be made. Raises MissionError."""
    _check_numbers(mission)
    config = _own_config(mission) if mission.file is not None else _stock_config(mission)
    if mission.map_seed is not None:
        _fix_map(config, mission)
    return config


def _own_config(mission: Mission) -> MettaGridConfig:
    from daf_cogames.mission_files import read_mission

    assert mission.file is not None
    arguments = (mission.name, mission.variants, mission.cogs, mission.max_steps, mission.difficulty)
    for field, message in own_mission_problems(*arguments):
        raise MissionError(field, message)
    config = read_mission(mission.file)
    if mission.max_steps is not None:
        config.game.max_steps = mission.max_steps
    return config


def _stock_config(mission: Mission) -> MettaGridConfig:
    check_name(mission.name, "name", mission_names(), "mission")
    for index, variant in enumerate(mission.variants):
        if not is_parametrized_variant(variant):
            check_name(variant, f"variants[{index}]", variant_names(), "variant")
    if mission.difficulty is not None:
        check_name(mission.difficulty, "difficulty", DIFFICULTIES, "difficulty")
    return _make_config(mission)


@functools.cache
def mission_names() -> tuple[str, ...]:
    """Every mission that may be named, sorted. A name is looked up here, never opened as a file or a pattern."""
    from cogames.cli.mission import get_all_eval_missions, get_all_missions

    return tuple(sorted({*get_all_missions(), *get_all_eval_missions(), *_cogsguard_evals()}))


@functools.cache
def variant_names() -> tuple[str, ...]:
    """Every variant of cogames that changes a mission or its rewards, without an argument; sorted."""
    from cogames.cogs_vs_clips.reward_variants import AVAILABLE_REWARD_VARIANTS
    from cogames.cogs_vs_clips.variants import HIDDEN_VARIANTS, VARIANTS

    return tuple(sorted({*(variant.name for variant in (*VARIANTS, *HIDDEN_VARIANTS)), *AVAILABLE_REWARD_VARIANTS}))


@functools.cache
def mission_set_names(mission_set: str) -> frozenset[str]:
    """The missions of one of MISSION_SETS."""
    from cogames.cli.mission import load_mission_set

    return frozenset(mission.full_name() for mission in load_mission_set(mission_set))


def find_mission(name: str) -> CvCMission:
    """cogames' own object of a known mission (its description, site, default length); not to be changed."""
    from cogames.cli.mission import find_mission as find

    check_name(name, "name", mission_names(), "mission")
    if name in _cogsguard_evals():
        return _cogsguard_evals()[name]
    site, _, rest = name.partition(".")
    return find(site, rest, include_evals=True)


def check_name(name: str, field: str, known: tuple[str, ...], kind: str) -> None:
    """Raise MissionError unless `name` is one of `known`, with the nearest right name as the hint."""
    if name not in known:
        raise MissionError(field, f"unknown {kind} {name[:100]!r}{did_you_mean(name, known)}")


def is_parametrized_variant(variant: str) -> bool:
    """Whether this is `objective_mine:<factor>` with a factor that cogames accepts: a positive finite number."""
    name, _, factor = variant.partition(":")
    try:
        return f"{name}:" == PARAMETRIZED_VARIANT and 0 < float(factor) < math.inf
    except ValueError:
        return False


def _check_numbers(mission: Mission) -> None:
    if mission.cogs is not None and mission.cogs < 1:
        raise MissionError("cogs", f"cogs must be at least 1, not {mission.cogs}")
    if mission.max_steps is not None and mission.max_steps < 1:
        raise MissionError("max_steps", f"max_steps must be at least 1, not {mission.max_steps}")
    if mission.map_seed is not None and not 0 <= mission.map_seed < 2**32:
        raise MissionError("map_seed", f"map_seed must be between 0 and 2^32 - 1, not {mission.map_seed}")


@functools.cache
def _cogsguard_evals() -> dict[str, CvCMission]:
    """The missions that cogames' own lookup by name does not reach: it has them as objects of a mission set only."""
    from cogames.cli.mission import load_mission_set

    return {mission.full_name(): mission for mission in load_mission_set("cogsguard_evals")}


def _make_config(mission: Mission) -> MettaGridConfig:
    from cogames.cli.mission import get_mission

    try:
        if mission.name in _cogsguard_evals():
            return _make_cogsguard_eval(mission)
        _, config, _ = get_mission(
            mission.name,
            variants_arg=list(mission.variants),
            cogs=mission.cogs,
            steps=mission.max_steps,
            difficulty=mission.difficulty,
        )
        return config
    except Exception as error:  # whatever a mission's own code raises is a fact about that mission
        raise _build_failure(mission, error) from error


def _make_cogsguard_eval(mission: Mission) -> MettaGridConfig:
    """The same changes in the same order as `cogames.cli.mission.get_mission` makes to the missions it can find."""
    from cogames.cli.mission import parse_difficulty
    from cogames.cogs_vs_clips.cogsguard_curriculum import split_variants
    from cogames.cogs_vs_clips.mission import NumCogsVariant
    from cogames.cogs_vs_clips.reward_variants import apply_reward_variants

    variants, reward_variants = split_variants(list(mission.variants))
    difficulty = parse_difficulty(mission.difficulty)
    changed = _cogsguard_evals()[mission.name].model_copy(deep=True)
    if mission.max_steps is not None:
        changed.max_steps = mission.max_steps
    if difficulty is not None:
        changed = changed.with_variants([difficulty])
    if variants:
        changed = changed.with_variants(variants)
    if mission.cogs is not None:
        changed = changed.with_variants([NumCogsVariant(num_cogs=mission.cogs)])
    config = changed.make_env()
    if reward_variants:
        apply_reward_variants(config, variants=reward_variants)
    return config


def _fix_map(config: MettaGridConfig, mission: Mission) -> None:
    from mettagrid.map_builder.map_builder import HasSeed

    builder = config.game.map_builder
    if not isinstance(builder, HasSeed):
        raise MissionError("map_seed", f"the map of {mission.name} is fixed and takes no map_seed")
    builder.seed = mission.map_seed


def _check_simulates(mission: Mission, config: MettaGridConfig) -> None:
    from mettagrid.runner.rollout import resolve_env_for_seed
    from mettagrid.simulator.simulator import Simulator

    try:
        # With a seed for the map, too: the same mission always builds, or never.
        Simulator().new_simulation(resolve_env_for_seed(config, 0), seed=0).close()
    except Exception as error:
        raise _build_failure(mission, error, agents=config.game.num_agents) from error


def _build_failure(mission: Mission, error: Exception, agents: int | None = None) -> MissionError:
    cause = " ".join(str(error).split())[:500] or type(error).__name__
    with_agents = f" with {agents} agents" if agents is not None else ""
    message = f"mission {mission.name} does not build{with_agents}: {cause}"
    if mission.file is not None:
        return MissionError("file", message)
    if any(sign in cause for sign in ("number of cogs", "Number of agents", "cells")):
        return MissionError("cogs", f"{message}; choose another number of cogs")
    build = apply_mission if agents is None else build_mission
    return MissionError("variants" if _fails_by_its_variants(mission, build) else "name", message)


def _fails_by_its_variants(mission: Mission, build: Callable[[Mission], MettaGridConfig]) -> bool:
    if not mission.variants:
        return False
    try:
        build(dataclasses.replace(mission, variants=()))
    except MissionError:
        return False
    return True
