"""The catalogue of missions, variants, policies and statistics, read from a generated file, without cogames.

`python -m daf_cogames.catalog_build` writes the file from what cogames and mettagrid really do: each mission was
built, each policy constructed and seated in an episode.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from daf_cogames.aliases import CORRECTED_MODULE, MISSION_ALIASES, POLICY_ALIASES
from daf_cogames.arguments import HARD_CODED, Argument, Parameter, argument_problem
from daf_cogames.missions import DIFFICULTIES, is_parametrized_variant
from daf_cogames.own_missions import own_mission_problems, path_problem
from daf_cogames.suggestions import did_you_mean

CATALOG_FILE = "catalog.json"


@dataclass(frozen=True)
class MissionEntry:
    """A mission as cogames ships it.

    default_cogs: the agents it has when none are asked for; min_cogs, max_cogs: what its site accepts; builds_with:
    the agent counts, of those probed, with which it really builds; max_steps: the default length of an episode in
    environment steps; refused_variants: those that cannot be applied to it; sets: cogames' mission sets that have it;
    problem: why it never builds, else empty.
    """

    name: str
    description: str
    default_cogs: int
    min_cogs: int
    max_cogs: int
    builds_with: tuple[int, ...]
    max_steps: int
    refused_variants: tuple[str, ...]
    sets: tuple[str, ...]
    problem: str


@dataclass(frozen=True)
class VariantEntry:
    """A variant. kind: `mission` (changes the world) or `reward`; agents_factor: multiplies the default agents."""

    name: str
    description: str
    kind: str
    agents_factor: int


@dataclass(frozen=True)
class PolicyEntry:
    """A policy of cogames.

    aliases: other names that mean it; trainable: whether it has a network; problem: why it cannot play an episode,
    else empty; warnings: what a user should know before trusting its score.
    """

    name: str
    class_path: str
    description: str
    aliases: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    trainable: bool
    recurrent: bool
    problem: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class RunnerEntry:
    """The Python environment of workers. python_version: such as `3.12`; packages: versions by normalized name;
    modules: the top-level ones of the packages.
    """

    python_version: str
    packages: Mapping[str, str]
    modules: tuple[str, ...]


@dataclass(frozen=True)
class Catalog:
    """Everything, sorted by name. Statistics are those seen in short episodes: a longer one may show more.

    versions: of the packages that it was built from; runner: what the Python environment of workers has; probed_cogs:
    the agent counts that were tried with each mission.
    """

    versions: Mapping[str, str]
    runner: RunnerEntry
    probed_cogs: tuple[int, ...]
    missions: Mapping[str, MissionEntry]
    variants: Mapping[str, VariantEntry]
    policies: Mapping[str, PolicyEntry]
    agent_statistics: tuple[str, ...]
    game_statistics: tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """What is wrong with a request. broken: the request is in order, but cogames itself cannot do what it asks for."""

    field: str
    message: str
    broken: bool = False


@dataclass(frozen=True)
class Resolved:
    """What a name stands for, and what its user should be told."""

    name: str
    warnings: tuple[str, ...] = ()


@functools.cache
def catalog() -> Catalog:
    """The catalogue of the installed version, read once."""
    text = resources.files("daf_cogames").joinpath(CATALOG_FILE).read_text(encoding="utf-8")
    return _parse(json.loads(text))


def resolve_mission(name: str) -> Resolved:
    """The mission of today that a name means; names that are not aliases, unknown ones too, stay as they are."""
    if name not in MISSION_ALIASES:
        return Resolved(name)
    meant = MISSION_ALIASES[name]
    return Resolved(meant, (f"{name} exists in no current cogames: {meant} takes its place",))


def check_mission(
    name: str,
    variants: Sequence[str] = (),
    cogs: int | None = None,
    max_steps: int | None = None,
    difficulty: str | None = None,
) -> list[Problem]:
    """Everything that is wrong with a mission as asked for, by the field of `Mission`; empty when it can be built.

    Aliases are to be resolved first. What cannot be known here, such as an agent count that was not probed, passes:
    building the mission decides.
    """
    problems = [
        Problem(f"variants[{index}]", f"unknown variant {variant[:100]!r}{did_you_mean(variant, catalog().variants)}")
        for index, variant in enumerate(variants)
        if variant not in catalog().variants and not is_parametrized_variant(variant)
    ]
    if difficulty is not None and difficulty not in DIFFICULTIES:
        hint = did_you_mean(difficulty, DIFFICULTIES)
        problems.append(Problem("difficulty", f"unknown difficulty {difficulty[:100]!r}{hint}"))
    if max_steps is not None and max_steps < 1:
        problems.append(Problem("max_steps", f"max_steps must be at least 1, not {max_steps}"))

    entry = catalog().missions.get(name)
    if entry is None:
        unknown = f"unknown mission {name[:100]!r}{did_you_mean(name, catalog().missions)}"
        problems.append(Problem("name", path_problem(name) or unknown))
    elif entry.problem:
        problems.append(Problem("name", f"mission {name} does not build: {entry.problem}", broken=True))
    else:
        problems += _check_variants_apply(entry, variants)
        problems += _check_cogs(entry, variants, cogs)
    return problems


def check_own_mission(
    name: str,
    variants: Sequence[str] = (),
    cogs: int | None = None,
    max_steps: int | None = None,
    difficulty: str | None = None,
) -> list[Problem]:
    """The same of a mission whose file comes along; what the file holds, only its reader knows."""
    return [Problem(*problem) for problem in own_mission_problems(name, variants, cogs, max_steps, difficulty)]


def agent_count(name: str, variants: Sequence[str] = (), cogs: int | None = None) -> int:
    """The number of agents, hence of seats, in an episode of a known mission. Raises KeyError."""
    if cogs is not None:
        return cogs
    count = catalog().missions[name].default_cogs
    for variant in variants:
        if variant in catalog().variants:
            count *= catalog().variants[variant].agents_factor
    return count


def resolve_policy(name: str) -> Resolved:
    """The class path that a name means: a short name of cogames, an old name, or a class path, which stays as it is.

    Raises LookupError for a name without a dot that is none of these.
    """
    entry = find_policy(name)
    if entry is None:
        if "." in name:
            return Resolved(name)
        known = {**catalog().policies, **POLICY_ALIASES}
        raise LookupError(f"unknown policy {name[:100]!r}{did_you_mean(name, known)}")
    warnings = entry.warnings
    if name in POLICY_ALIASES:
        warnings = (f"{name} exists in no current cogames: {entry.class_path} takes its place", *warnings)
    return Resolved(entry.class_path, warnings)


def find_policy(name: str) -> PolicyEntry | None:
    """The entry of a policy of cogames by short name, old name or class path; None for a user's own."""
    name = POLICY_ALIASES.get(name, name)
    if name in catalog().policies:
        return catalog().policies[name]
    return next((entry for entry in catalog().policies.values() if entry.class_path == name), None)


def policy_sources(entry: PolicyEntry) -> dict[str, str]:
    """The files that let plain cogames load a policy: by path, empty for cogames' own."""
    if not entry.class_path.startswith(f"{CORRECTED_MODULE}."):
        return {}
    package, _, module = CORRECTED_MODULE.rpartition(".")
    return {
        f"{package}/{name}": resources.files(package).joinpath(name).read_text(encoding="utf-8")
        for name in ("__init__.py", f"{module}.py")
    }


def check_policy(name: str, arguments: Mapping[str, Argument], *, training: bool) -> list[Problem]:
    """What is wrong with a policy: fields `class_path` and `arguments.<name>`. A user's own is not judged."""
    try:
        resolve_policy(name)
    except LookupError as error:
        return [Problem("class_path", str(error.args[0]))]
    entry = find_policy(name)
    if entry is None:
        return []
    problem = argument_problem(entry.name, entry.parameters, arguments, HARD_CODED.get(entry.class_path, {}))
    problems = [Problem(*problem)] if problem else []
    if training and not entry.trainable:
        problems.append(Problem("class_path", f"{entry.name} has no network, so it cannot be trained"))
    if not training and entry.problem:
        problems.append(Problem("class_path", f"{entry.name} cannot play an episode: {entry.problem}", broken=True))
    return problems


def check_metric(name: str) -> str | None:
    """What is wrong with the name of a metric: `reward`, or a statistic that an agent or the game may have."""
    known = ("reward", *catalog().agent_statistics, *catalog().game_statistics)
    return None if name in known else f"{name!r} is not a metric{did_you_mean(name, known)}"


def _check_variants_apply(entry: MissionEntry, variants: Sequence[str]) -> list[Problem]:
    return [
        Problem(f"variants[{index}]", f"variant {variant} cannot be applied to mission {entry.name}")
        for index, variant in enumerate(variants)
        if variant in entry.refused_variants
    ]


def _check_cogs(entry: MissionEntry, variants: Sequence[str], cogs: int | None) -> list[Problem]:
    counts = ", ".join(map(str, entry.builds_with))
    if cogs is not None and not entry.min_cogs <= cogs <= entry.max_cogs:
        return [Problem("cogs", f"{entry.name} takes {entry.min_cogs} to {entry.max_cogs} cogs, not {cogs}")]
    wanted = entry.default_cogs if cogs is None else cogs
    if wanted in entry.builds_with or wanted not in (*catalog().probed_cogs, entry.default_cogs):
        return []
    if any(variant in catalog().variants and catalog().variants[variant].agents_factor > 1 for variant in variants):
        return []  # another map, on which other counts fit
    default = "its default of " if cogs is None else ""
    return [Problem("cogs", f"{entry.name} does not build with {default}{wanted} cogs; it does with {counts}")]


def _parse(data: dict[str, Any]) -> Catalog:
    return Catalog(
        versions=data["versions"],
        runner=RunnerEntry(**_tuples(data["runner"])),
        probed_cogs=tuple(data["probed_cogs"]),
        missions={row["name"]: MissionEntry(**_tuples(row)) for row in data["missions"]},
        variants={row["name"]: VariantEntry(**row) for row in data["variants"]},
        policies={row["name"]: _parse_policy(row) for row in data["policies"]},
        agent_statistics=tuple(data["agent_statistics"]),
        game_statistics=tuple(data["game_statistics"]),
    )


def _parse_policy(row: dict[str, Any]) -> PolicyEntry:
    parameters = tuple(Parameter(**parameter) for parameter in row["parameters"])
    return PolicyEntry(**_tuples({**row, "parameters": parameters}))


def _tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
