"""What may be asked for: everything that is wrong with a spec, at once."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from daf_cogames.catalog import check_mission, check_own_mission, check_policy, resolve_mission
from daf_cogames.seating import SEED_LIMIT
from daf_common.artifacts import check_artifact
from daf_common.errors import FailedPrecondition, InvalidArgument, Unimplemented, Violation
from daf_evaluation import convert
from daf_evaluation.plan import count_scenarios
from daf_protos.common.v1.artifact_pb2 import Artifact
from daf_protos.common.v1.mission_pb2 import Mission
from daf_protos.common.v1.policy_pb2 import Policy, PolicyClass
from daf_protos.common.v1.value_pb2 import Value
from daf_protos.evaluation.v1.evaluation_pb2 import EvaluationSpec, Team

MAX_EPISODES = 1_000_000
"""Of all scenarios of an evaluation together."""

MAX_SCENARIOS = 10_000
"""So many still fit into a message that describes the evaluation."""

MAX_REPLAYED_EPISODES = 1000
"""A replay of a full episode takes megabytes."""

MAX_TIME_LIMIT_SECONDS = 86_400.0
MAX_WORKERS = 1000
PROFILES = ("", "cpu-small")
_MAX_POLICIES = _MAX_MISSIONS = 100
_MAX_TEXT = 10_000
_CLASS_PATH = re.compile(r"[A-Za-z_][\w-]*|[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)


def check_spec(spec: EvaluationSpec) -> None:
    """Checks all of a spec that can be checked without asking anybody.

    Raises:
        InvalidArgument: names every field that is wrong.
        FailedPrecondition: the spec is in order, but cogames cannot do what it asks for.
        Unimplemented: it asks for what is not built yet.
    """
    broken: list[Violation] = []
    violations = [*_numbers(spec), *_teams(spec)]
    for number, policy in enumerate(spec.policies):
        violations += _policy(policy, f"spec.policies[{number}]", broken)
    for number, mission in enumerate(spec.missions):
        violations += _mission(mission, f"spec.missions[{number}]", broken)
    if violations:
        raise InvalidArgument.of([*violations, *broken])
    if broken:
        message = "; ".join(f"{violation.field}: {violation.message}" for violation in broken)
        raise FailedPrecondition(message, reason="BROKEN_UPSTREAM", violations=broken)
    if violations := [*_seats(spec)] or [*_size(spec)]:
        raise InvalidArgument.of(violations)
    for number, policy in enumerate(spec.policies):
        source = policy.WhichOneof("source")
        if source == "version":
            raise Unimplemented(f"spec.policies[{number}].version: name the bundle of the version instead")


def _numbers(spec: EvaluationSpec) -> Iterator[Violation]:
    if spec.episodes < 1:
        yield Violation("spec.episodes", f"{spec.episodes} is not a number of episodes: use at least 1")
    if spec.seed < 0 or spec.seed + max(spec.episodes, 0) > SEED_LIMIT:
        yield Violation("spec.seed", "seed and seed + episodes must lie between 0 and 2^32")
    if spec.max_action_time_ms < 0:
        yield Violation("spec.max_action_time_ms", "must not be negative; 0 is so much that it never decides a score")
    if spec.HasField("workers") and not 1 <= spec.workers <= MAX_WORKERS:
        yield Violation("spec.workers", f"use 1 to {MAX_WORKERS}, or leave it out")
    if not 0 <= spec.time_limit_seconds <= MAX_TIME_LIMIT_SECONDS:  # false for NaN
        message = f"use up to {MAX_TIME_LIMIT_SECONDS:.0f} seconds; 0 is the installation's default"
        yield Violation("spec.time_limit_seconds", message)
    if spec.profile not in PROFILES:
        yield Violation("spec.profile", f"unknown profile {spec.profile[:60]!r}; known: {', '.join(PROFILES[1:])}")


def _teams(spec: EvaluationSpec) -> Iterator[Violation]:
    if not 1 <= len(spec.policies) <= _MAX_POLICIES:
        yield Violation("spec.policies", f"use 1 to {_MAX_POLICIES} policies, not {len(spec.policies)}")
    if not 1 <= len(spec.missions) <= _MAX_MISSIONS:
        yield Violation("spec.missions", f"use 1 to {_MAX_MISSIONS} missions, not {len(spec.missions)}")
    if spec.team not in Team.values():
        yield Violation("spec.team", f"{spec.team} is no kind of team; known: {', '.join(Team.keys()[1:])}")
    if spec.team in (Team.TEAM_PICKUP, Team.TEAM_PAIRS) and len(spec.policies) == 1:
        yield Violation("spec.policies", f"{Team.Name(spec.team)} needs at least 2 policies")
    if not spec.proportions:
        return
    if spec.team not in (Team.TEAM_UNSPECIFIED, Team.TEAM_MIXED):
        message = "only a mixed team has proportions, as the others say who has which seats: leave them out"
        yield Violation("spec.proportions", message)
    if len(spec.proportions) != len(spec.policies):
        message = f"there are {len(spec.proportions)} for {len(spec.policies)} policies: use one for each, or none"
        yield Violation("spec.proportions", message)
    if not all(math.isfinite(share) and share >= 0 for share in spec.proportions):
        yield Violation("spec.proportions", "must be finite and not negative")
    elif not 0 < sum(spec.proportions) < math.inf:
        yield Violation("spec.proportions", "at least one must be above 0, and their sum finite")


def _seats(spec: EvaluationSpec) -> Iterator[Violation]:
    """What teams that depend on the number of seats cannot do; of a spec that is in order otherwise."""
    if spec.team not in (Team.TEAM_PICKUP, Team.TEAM_PAIRS):
        return
    for number, (mission, agents) in enumerate(zip(spec.missions, convert.agents(spec), strict=True)):
        if not agents:
            message = (
                f"{mission.name} is a mission of your own, whose number of seats is known only once it is played, and "
                f"{Team.Name(spec.team)} plans by it: use TEAM_MIXED or TEAM_SOLO"
            )
            yield Violation(f"spec.missions[{number}].file", message)
        elif agents == 1 and spec.team == Team.TEAM_PAIRS:
            yield Violation(f"spec.missions[{number}].cogs", "two policies in one team need at least 2 agents")


def _size(spec: EvaluationSpec) -> Iterator[Violation]:
    scenarios = count_scenarios(convert.team_of(spec), len(spec.policies), convert.agents(spec))
    total = spec.episodes * scenarios
    if scenarios > MAX_SCENARIOS:
        message = f"that makes {scenarios} scenarios: at most {MAX_SCENARIOS} are possible, so use fewer policies"
        yield Violation("spec.missions", f"{message} or missions")
    if total > MAX_EPISODES:
        yield Violation("spec.episodes", f"that makes {total} episodes: at most {MAX_EPISODES} are possible")
    if spec.save_replays and total > MAX_REPLAYED_EPISODES:
        message = f"replays of {total} episodes would take gigabytes: at most {MAX_REPLAYED_EPISODES} can be kept"
        yield Violation("spec.save_replays", message)


def _policy(policy: Policy, path: str, broken: list[Violation]) -> Iterator[Violation]:
    if len(policy.label) > 200 or "\x00" in policy.label:
        yield Violation(f"{path}.label", "use at most 200 printable characters")
    match policy.WhichOneof("source"):
        case "policy_class":
            yield from _policy_class(policy.policy_class, f"{path}.policy_class", broken)
        case "checkpoint":
            yield from _policy_class(policy.checkpoint.policy_class, f"{path}.checkpoint.policy_class", broken)
            yield from _artifact(policy.checkpoint.weights, f"{path}.checkpoint.weights")
        case "bundle":
            yield from _artifact(policy.bundle, f"{path}.bundle")
        case None:
            yield Violation(path, "names no policy: set policy_class, checkpoint or bundle")


def _policy_class(policy: PolicyClass, path: str, broken: list[Violation]) -> Iterator[Violation]:
    if policy.HasField("code"):
        yield from _artifact(policy.code, f"{path}.code")
    if policy.HasField("requirements"):
        yield from _artifact(policy.requirements, f"{path}.requirements")
    if len(policy.class_path) > 300 or not _CLASS_PATH.fullmatch(policy.class_path):
        message = f"{policy.class_path[:60]!r} is neither a short name nor a dotted path of a class"
        yield Violation(f"{path}.class_path", message)
        return
    unusable = [name for name, value in policy.arguments.items() if not _is_usable(name, value)]
    for name in unusable:
        message = "is not a named argument with a finite number, a short text or a flag"
        yield Violation(f"{path}.arguments[{name[:60]!r}]", message)
    if unusable:
        return
    if policy.HasField("code") and "." in policy.class_path:
        return  # the user's own class: who plays it will see
    arguments = {name: getattr(value, str(value.WhichOneof("kind"))) for name, value in policy.arguments.items()}
    for problem in check_policy(policy.class_path, arguments, training=False):
        violation = Violation(f"{path}.{problem.field}", problem.message)
        if problem.broken:
            broken.append(violation)
        else:
            yield violation


def _is_usable(name: str, value: Value) -> bool:
    match value.WhichOneof("kind"):
        case None:
            usable = False
        case "real":
            usable = math.isfinite(value.real)
        case "text":
            usable = len(value.text) <= _MAX_TEXT and "\x00" not in value.text
        case _:
            usable = True
    return usable and name.isidentifier() and len(name) <= 100


def _mission(mission: Mission, path: str, broken: list[Violation]) -> Iterator[Violation]:
    if mission.HasField("map_seed") and not 0 <= mission.map_seed < SEED_LIMIT:
        yield Violation(f"{path}.map_seed", f"{mission.map_seed} does not lie between 0 and 2^32 - 1")
    changes = (
        tuple(mission.variants),
        mission.cogs if mission.HasField("cogs") else None,
        mission.max_steps if mission.HasField("max_steps") else None,
        mission.difficulty or None,
    )
    if mission.HasField("file"):
        yield from _artifact(mission.file, f"{path}.file")
        problems = check_own_mission(mission.name, *changes)
    else:
        problems = check_mission(resolve_mission(mission.name).name, *changes)
    for problem in problems:
        violation = Violation(f"{path}.{problem.field}", problem.message)
        if problem.broken:
            broken.append(violation)
        else:
            yield violation


def _artifact(artifact: Artifact, path: str) -> Iterator[Violation]:
    try:
        check_artifact(artifact, path)
    except InvalidArgument as error:
        yield from error.violations
