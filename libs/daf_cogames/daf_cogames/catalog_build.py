"""Write the catalogue from what cogames really does: `python -m daf_cogames.catalog_build [--check]`.

Every mission is built with every probed number of agents, every variant applied to every mission, every policy
constructed and seated in a short episode. With --check nothing is written, and the exit code says whether the file is
what would be written.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import platform
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from cogames.cogs_vs_clips.reward_variants import AVAILABLE_REWARD_VARIANTS
from cogames.cogs_vs_clips.variants import HIDDEN_VARIANTS, VARIANTS
from mettagrid.policy.loader import discover_and_register_policies
from mettagrid.policy.policy_env_interface import PolicyEnvInterface
from mettagrid.policy.policy_registry import get_policy_registry

from daf_cogames.aliases import CORRECTED_POLICIES, POLICY_ALIASES
from daf_cogames.catalog import CATALOG_FILE, MissionEntry, PolicyEntry, RunnerEntry, VariantEntry
from daf_cogames.inspection import inspect_policy
from daf_cogames.installed import runner_modules, runner_packages
from daf_cogames.missions import (
    MISSION_SETS,
    Mission,
    MissionError,
    apply_mission,
    build_mission,
    find_mission,
    mission_names,
    mission_set_names,
)
from daf_cogames.play.episodes import EpisodeRunner, engine_versions
from daf_cogames.play.failures import PolicyFailure
from daf_cogames.policies import PolicySource
from daf_cogames.seating import EpisodePlan

PROBED_COGS = tuple(range(1, 9))

# Where policies are tried and, with the other core missions, statistics are collected: small and quick.
ARENA = Mission("cogsguard_arena.basic", cogs=2, max_steps=5)
STATISTICS_STEPS = 300
STATISTICS_POLICIES = ("random", "starter")

# What no probe shows. Each has a test that fails when upstream changes it.
_PADDING = (
    "pads observations with 255, 0, 0 in an episode but 255, 255, 255 in training, so it scores below what it learnt"
)
_DIVISION = "divides observations by 255 in an episode but not in training, so it scores below what it learnt"
KNOWN_WARNINGS = {
    "lstm": (f"{_PADDING}: lstm_corrected does not",),
    "puffer": (f"{_PADDING}: puffer_corrected does not",),
    "pufferlib_cogs": (f"{_DIVISION}: pufferlib_cogs_corrected does not",),
    "stateless": ("can be trained, but cannot play an episode: stateless_corrected can",),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the file; the exit code is 1 where a check finds a difference."""
    parser = argparse.ArgumentParser(prog="daf_cogames.catalog_build", description="Write the catalogue from cogames.")
    parser.add_argument("--check", action="store_true", help="only compare; exit code 1 when the file is out of date")
    check = parser.parse_args(arguments).check

    path = Path(str(resources.files("daf_cogames").joinpath(CATALOG_FILE)))
    with _silence():
        built = json.dumps(build_catalog(), indent=1, ensure_ascii=False) + "\n"
    if not check:
        path.write_text(built, encoding="utf-8")
        return 0
    current = path.read_text(encoding="utf-8") if path.exists() else ""
    if current != built:
        print(f"{path.name} is out of date: run python -m daf_cogames.catalog_build", file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """mettagrid logs the whole config of each mission that does not build."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(logging.NOTSET)


def build_catalog() -> dict[str, Any]:
    """The content of the file; the same for the same versions of cogames and mettagrid."""
    agent_statistics, game_statistics = _statistics()
    return {
        "versions": {name: version for name, version in engine_versions().items() if name != "torch"},
        "runner": dataclasses.asdict(runner_entry()),
        "probed_cogs": PROBED_COGS,
        "missions": [dataclasses.asdict(mission_entry(name)) for name in mission_names()],
        "variants": [dataclasses.asdict(variant) for variant in variant_entries()],
        "policies": [dataclasses.asdict(policy) for policy in policy_entries()],
        "agent_statistics": sorted(agent_statistics),
        "game_statistics": sorted(game_statistics),
    }


def runner_entry() -> RunnerEntry:
    """The environment that this runs in, on which the lock decides."""
    return RunnerEntry(
        python_version=".".join(platform.python_version_tuple()[:2]),
        packages=runner_packages(),
        modules=tuple(runner_modules()),
    )


def mission_entry(name: str) -> MissionEntry:
    """A mission, after building it with every probed number of agents."""
    mission = find_mission(name)
    counts = sorted({*PROBED_COGS, mission.num_agents})
    failures: dict[int, str] = {}
    for cogs in counts:
        if mission.site.min_cogs <= cogs <= mission.site.max_cogs:
            try:
                build_mission(Mission(name, cogs=cogs))
            except MissionError as error:
                failures[cogs] = error.message.partition(": ")[2]
        else:
            failures[cogs] = "outside the range of the site"
    builds_with = tuple(cogs for cogs in counts if cogs not in failures)
    return MissionEntry(
        name=name,
        description=mission.description,
        default_cogs=mission.num_agents,
        min_cogs=mission.site.min_cogs,
        max_cogs=mission.site.max_cogs,
        builds_with=builds_with,
        max_steps=mission.max_steps,
        sets=tuple(mission_set for mission_set in MISSION_SETS if name in mission_set_names(mission_set)),
        refused_variants=tuple(variant.name for variant in variant_entries() if _refuses(name, variant.name)),
        problem="" if builds_with else failures[mission.site.min_cogs],
    )


def _refuses(mission: str, variant: str) -> bool:
    try:
        apply_mission(Mission(mission, variants=(variant,)))
    except MissionError:
        return True
    return False


def variant_entries() -> list[VariantEntry]:
    """All variants, by name."""
    base = find_mission(ARENA.name).num_agents
    found = [
        VariantEntry(
            name=variant.name,
            description=variant.description,
            kind="mission",
            agents_factor=apply_mission(Mission(ARENA.name, variants=(variant.name,))).game.num_agents // base,
        )
        for variant in (*VARIANTS, *HIDDEN_VARIANTS)
    ]
    found += [VariantEntry(name, "", "reward", 1) for name in AVAILABLE_REWARD_VARIANTS]
    return sorted({variant.name: variant for variant in found}.values(), key=lambda variant: variant.name)


def policy_entries() -> list[PolicyEntry]:
    """The policies that come along, cogames' own and the corrected ones, by name, after seating each in an episode."""
    discover_and_register_policies()
    stock = {name: path for name, path in get_policy_registry().items() if path.startswith(("cogames.", "mettagrid."))}
    found = {**stock, **CORRECTED_POLICIES}
    return [_policy(name, found[name]) for name in sorted(found)]


def _policy(name: str, class_path: str) -> PolicyEntry:
    environment = PolicyEnvInterface.from_mg_cfg(build_mission(ARENA))
    inspected = inspect_policy(PolicySource(class_path), environment)
    return PolicyEntry(
        name=name,
        class_path=class_path,
        description=inspected.description,
        aliases=tuple(sorted(alias for alias, meant in POLICY_ALIASES.items() if meant == name)),
        parameters=inspected.parameters,
        trainable=inspected.trainable,
        recurrent=inspected.recurrent,
        problem=inspected.problem or _playing_problem(class_path),
        warnings=KNOWN_WARNINGS.get(name, ()),
    )


def _playing_problem(class_path: str) -> str:
    try:
        EpisodeRunner(ARENA, [PolicySource(class_path)]).run(EpisodePlan(0, 0, (0, 0)))
    except PolicyFailure as failure:
        return failure.message
    return ""


def _statistics() -> tuple[set[str], set[str]]:
    """The names of all statistics in one episode of each core mission with each scripted policy."""
    agent: set[str] = set()
    game: set[str] = set()
    for name in [name for name in mission_names() if name.startswith(("cogsguard_arena.", "cogsguard_machina_1."))]:
        for policy in STATISTICS_POLICIES:
            runner = EpisodeRunner(Mission(name, cogs=4, max_steps=STATISTICS_STEPS), [PolicySource(policy)])
            outcome = runner.run(EpisodePlan(0, 0, (0, 0, 0, 0)))
            agent.update(*outcome.agent_stats)
            game.update(outcome.game_stats)
    return agent, game


if __name__ == "__main__":
    sys.exit(main())
